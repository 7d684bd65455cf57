"""Both engines behind the store: embedded, and a server over HTTP.

The server is the one of TEST_CLICKHOUSE_URL, or a stand-in front with the embedded engine behind it.
"""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import uvicorn

from processing.api import routers
from processing.store import Store, open_store
from shared.config import Settings
from shared.service import Service

Open = Callable[[], Store]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-in for a server keeps all."""
    return tmp_path_factory.mktemp("clickhouse")


@pytest.fixture(scope="session")
def server_backups(server_folder: Path) -> Path:
    return server_folder / "backups"


@pytest.fixture(scope="session")
def server_url(server_folder: Path) -> Iterator[str]:
    """The URL of a ClickHouse server, without a database."""
    if url := os.environ.get("TEST_CLICKHOUSE_URL"):
        yield url
        return
    folder = server_folder
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
def backups(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where the engine puts its backups."""
    if settings.clickhouse_url and "TEST_CLICKHOUSE_URL" not in os.environ:
        return Path(request.getfixturevalue("server_backups"))
    made = tmp_path / "backups"
    made.mkdir()
    return made


@pytest.fixture
def opened(settings: Settings, tmp_path: Path, backups: Path) -> Iterator[Open]:
    """Opens the test's store, as often as the test likes; each is closed before the next and at the end."""
    with ExitStack() as stack:

        def open_again() -> Store:
            stack.close()
            store = open_store(settings, tmp_path, backups)
            stack.callback(store.close)
            return store

        yield open_again


@pytest.fixture
def store(opened: Open) -> Store:
    """A new store."""
    return opened()


@pytest.fixture
def client(store: Store, settings: Settings) -> Iterator[httpx.Client]:
    """The routes in the services' own frame, on the test's store, over HTTP."""
    service = Service("processing", settings, settings.processing_port, [], routers(store), "")
    server = uvicorn.Server(uvicorn.Config(service.app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended before it started"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.002)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as connected:
        yield connected
    server.should_exit = True
    thread.join()
