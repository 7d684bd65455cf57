"""The embedded engine: ClickHouse in this process, through chdb, with its files in a folder."""

import fcntl
import os
import queue
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlencode

# the connection itself: chdb.session wraps it, at the price of importing pyarrow, 40 MB that nothing here uses
from chdb import _chdb

from processing.store.engine import READ_LINES, READ_RESULTS, Parameters, rejection, rows_of
from processing.store.schema import Table, quoted
from shared.errors import StoreError

MIB = 1024 * 1024
_READERS: Final = 3  # a connection runs one query at a time; more readers than cores only wait for each other

_ENGINE_OPTIONS: Final = {
    # caches default to gigabytes; the data of a laptop's store fits the page cache anyway
    "mark_cache_size": 32 * MIB,
    "index_mark_cache_size": 8 * MIB,
    "primary_index_cache_size": 32 * MIB,
    "query_condition_cache_size": 8 * MIB,
    "mmap_cache_size": 100,
    "background_pool_size": 2,
    "background_schedule_pool_size": 2,
}

_SESSION: Final[dict[str, int | str]] = {
    **READ_RESULTS,
    "max_threads": 2,
    "max_memory_usage": 400 * MIB,
    "max_execution_time": 60,
}


class EmbeddedEngine:
    """chdb on a folder, which one process at a time may have open."""

    def __init__(self, folder: Path, backups: Path | None = None) -> None:
        """`backups` is the folder that BACKUP and RESTORE may use."""
        self._folder = folder
        self._lock = _locked(folder)
        target = f"{folder.resolve() / 'clickhouse'}?{urlencode(_ENGINE_OPTIONS)}"
        if backups is not None:
            target += f"&backups.allowed_path={backups.resolve()}"  # which the engine takes as it is, not decoded
        try:
            self._connections = [_connected(target) for _ in range(1 + _READERS)]
        except StoreError:
            self._lock.close()
            raise
        self._writer, *readers = self._connections
        self._writing = threading.Lock()
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for reader in readers:
            self._idle.put(reader)

    def execute(self, sql: str) -> None:
        with self._writing:
            _run(self._writer, sql, {})

    def use(self, database: str) -> None:
        with self._writing:
            _run(self._writer, f"USE {database}", {})
        readers = [self._idle.get() for _ in range(_READERS)]  # each when its query is done
        for reader in readers:
            try:
                _run(reader, f"USE {database}", {})
            finally:
                self._idle.put(reader)

    def query(self, sql: str, parameters: Parameters) -> list[dict[str, Any]]:
        reader = self._idle.get()
        try:
            return rows_of(_run(reader, sql, parameters))
        finally:
            self._idle.put(reader)

    def insert(self, table: Table, lines: Sequence[bytes], parameters: Parameters, token: str) -> None:
        settings = ", ".join(f"{name} = {value}" for name, value in READ_LINES.items())
        with _file_of(lines, self._folder) as path:
            source = f"file({quoted(path)}, JSONEachRow, {quoted(table.structure())})"
            sql = f"{table.insert(source)} SETTINGS {settings}, insert_deduplication_token = {quoted(token)}"
            try:
                with self._writing:
                    self._writer.query(sql, "Null", params=_bound(parameters))
            except (RuntimeError, UnicodeDecodeError) as error:
                raise rejection(table, _message(error)) from None

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._lock.close()


def _locked(folder: Path) -> IO[str]:
    """A file that holds the folder's lock until it is closed, or the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read(32).strip() or "unknown"
        lock.close()
        raise StoreError(
            f"the store in {folder.resolve()} is in use by process {holder}: stop it, give this one another folder "
            "(DATA_DIR), or set CLICKHOUSE_URL so that several can share a server"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _connected(target: str) -> Any:
    try:
        connection = _chdb.connect(target)  # type: ignore[attr-defined]  # an extension module without stubs
    except RuntimeError as error:
        raise StoreError(f"the store can't be opened: {error}") from None
    _run(connection, "SET " + ", ".join(f"{name} = {_literal(value)}" for name, value in _SESSION.items()), {})
    return connection


def _run(connection: Any, sql: str, parameters: Parameters) -> bytes:
    try:
        return bytes(connection.query(sql, "JSONEachRow", params=_bound(parameters)).bytes())
    except (RuntimeError, UnicodeDecodeError) as error:
        raise StoreError(f"the store failed: {_message(error)[:2000]}") from None


def _bound(parameters: Parameters) -> dict[str, object]:
    """Parameters as the engine parses them: text as in a TSV field, arrays as literals. chdb passes text as it is."""
    return {name: _parameter(value) for name, value in parameters.items()}


def _parameter(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    if isinstance(value, list):
        return f"[{', '.join(quoted(item) if isinstance(item, str) else str(item) for item in value)}]"
    return value


def _message(error: RuntimeError | UnicodeDecodeError) -> str:
    """What the engine said. It quotes the data it refuses, cut at any byte, which chdb then fails to decode."""
    return error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)


@contextmanager
def _file_of(lines: Sequence[bytes], folder: Path) -> Iterator[str]:
    """A file that holds these lines, for as long as the context: in memory where the system can."""
    with _nameless() if hasattr(os, "memfd_create") else tempfile.NamedTemporaryFile(dir=folder) as file:
        for line in lines:
            file.write(line)
            file.write(b"\n")
        file.flush()
        yield file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.fileno()}"


def _nameless() -> Any:
    return os.fdopen(os.memfd_create("lines", os.MFD_CLOEXEC), "wb")


def _literal(value: int | str) -> str:
    return quoted(value) if isinstance(value, str) else str(value)
