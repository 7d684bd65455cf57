"""What tests of several folders need."""

import os
from pathlib import Path

import pytest

from native.kafka import prepare_jars
from shared.errors import ConfigurationError
from tests.integration.stack import ROOT


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    """Where the jars of a real Kafka are; where they can't be had locally, what needs one is skipped."""
    try:
        return prepare_jars(ROOT / ".run" / "kafka" / "libs")
    except ConfigurationError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Kafka here: {error}")
