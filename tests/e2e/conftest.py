"""The running stack, asked from outside. Start it first (`make up`, or `make run` in another terminal).

Addresses come from the settings, as everywhere: the environment and .env. The tests only add entries, under sources of
their own, so they may run against a stack that holds data.
"""

import uuid
from collections.abc import Iterator

import httpx
import pytest

from native.client import Client, StackError
from native.settings import NativeSettings, load


@pytest.fixture(scope="session")
def settings() -> NativeSettings:
    return load().as_running()


@pytest.fixture(scope="session")
def client(settings: NativeSettings) -> Iterator[Client]:
    with Client(settings) as made:
        try:
            for service in settings.service_ports:
                made.get(service, "/ready")
        except StackError as error:
            pytest.exit(f"the stack is not ready: {error}", returncode=1)
        yield made


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60.0) as made:
        yield made


@pytest.fixture
def source() -> str:
    """A source that nobody else uses."""
    return f"system-test-{uuid.uuid4().hex[:8]}"
