"""A real Kafka for the integration tests, started once."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.kafka import Broker, free_ports
from tests.integration.stack import Stack


@pytest.fixture(scope="session")
def broker(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Kafka that all tests share; each has topics of its own."""
    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    made = Broker(folder, kafka_libs, port, controller_port)
    process = made.start()
    try:
        made.wait_until_ready(process)
        yield made
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, shared by the tests of a module."""
    with Stack(broker, tmp_path_factory.mktemp("stack"), f"t{uuid.uuid4().hex[:8]}-") as running:
        yield running
