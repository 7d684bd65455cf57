"""A real Kafka for the integration tests, started once; where it can't be had locally they are skipped."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.kafka import Broker, free_ports, prepare_jars
from shared.errors import ConfigurationError
from tests.integration.stack import ROOT, Stack


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    try:
        return prepare_jars(ROOT / ".run" / "kafka" / "libs")
    except ConfigurationError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Kafka here: {error}")


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


@pytest.fixture
def own_broker(kafka_libs: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, list[object]]]:
    """A broker that a test may kill; the list holds its process."""
    port, controller_port = free_ports(2)
    broker = Broker(tmp_path_factory.mktemp("kafka"), kafka_libs, port, controller_port)  # type: ignore[arg-type]
    process = broker.start()
    broker.wait_until_ready(process)
    holder: list[object] = [process]
    yield broker, holder
    holder[0].terminate()  # type: ignore[attr-defined]
    holder[0].wait(30)  # type: ignore[attr-defined]
