"""Both engines behind the store: embedded, and a server over HTTP.

The server is the one of TEST_CLICKHOUSE_URL, or a stand-in front with the embedded engine behind it.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from processing.store import Store, open_store
from shared.config import Settings

Open = Callable[[], Store]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a ClickHouse server, without a database."""
    if url := os.environ.get("TEST_CLICKHOUSE_URL"):
        yield url
        return
    folder = tmp_path_factory.mktemp("clickhouse")
    command = [sys.executable, "-m", "tests.contract.clickhouse_server", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


@pytest.fixture(params=["embedded", "server"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Settings of either engine, with a database of the test's own."""
    if request.param == "embedded":
        return Settings(_env_file=None, clickhouse_url="")
    server = urlsplit(request.getfixturevalue("server_url"))
    return Settings(
        _env_file=None, clickhouse_url=urlunsplit(server._replace(path=f"/test_{os.getpid()}_{next(_numbers)}"))
    )


@pytest.fixture
def opened(settings: Settings, tmp_path: Path) -> Iterator[Open]:
    """Opens the test's store, as often as the test likes; each is closed before the next and at the end."""
    with ExitStack() as stack:

        def open_again() -> Store:
            stack.close()
            store = open_store(settings, tmp_path)
            stack.callback(store.close)
            return store

        yield open_again


@pytest.fixture
def store(opened: Open) -> Store:
    """A new store."""
    return opened()
