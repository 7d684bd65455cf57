"""The analytics store: ClickHouse SQL, embedded by default, a server when its URL is set. docs/store.md explains it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from processing.store.catalog import Catalog
from processing.store.engine import Engine, RowRejectedError
from processing.store.ledger import Batch, Positions, Range
from processing.store.lines import InvalidLine, invalid_lines, without
from processing.store.schema import ROWS_PER_BATCH
from processing.store.store import Rows, Snapshot, Store
from shared.config import Settings
from shared.errors import StoreError

__all__ = [
    "ROWS_PER_BATCH",
    "Batch",
    "InvalidLine",
    "Positions",
    "Range",
    "RowRejectedError",
    "Rows",
    "Snapshot",
    "Store",
    "invalid_lines",
    "open_store",
    "restored_store",
    "without",
]

DATABASE = "sluice"


def open_store(settings: Settings, folder: Path, backups: Path | None = None) -> Store:
    """Open the store: the server of CLICKHOUSE_URL, or the embedded engine in the folder.

    The embedded engine puts its backups into `backups`, a server into the folder that its own settings name.
    Raises StoreError: the folder is in use by another process, the server does not answer, or the schema is newer.
    """
    engine, database = _engine(settings, folder, backups)
    try:
        return Store(engine, database)
    except StoreError:
        engine.close()
        raise


@contextmanager
def restored_store(settings: Settings, folder: Path, backups: Path, name: str, snapshot: Snapshot) -> Iterator[None]:
    """Restore a backup's store, `name`/store in the folder of backups, into one that is empty or not there.

    That it can be is looked at before the context, and done after it; what fails within leaves no store.
    Raises StoreError: it holds something, is in use, or the backup is of a newer schema. Cut off, it is to be repeated.
    """
    engine, database = _engine(settings, folder, backups)
    try:
        catalog = Catalog(engine, database)
        catalog.begin_restore(snapshot.schema)
        yield
        catalog.restore(f"{name}/store", snapshot.database, snapshot.epoch)
    finally:
        engine.close()


def _engine(settings: Settings, folder: Path, backups: Path | None) -> tuple[Engine, str]:
    # imported when chosen, for each brings tens of megabytes of libraries
    if settings.clickhouse_url:
        from processing.store.server import ServerEngine

        return ServerEngine(settings.clickhouse_url), urlsplit(settings.clickhouse_url).path.strip("/") or DATABASE
    from processing.store.embedded import EmbeddedEngine

    return EmbeddedEngine(folder, backups), DATABASE
