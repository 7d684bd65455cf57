"""The analytics store: ClickHouse SQL, embedded by default, a server when its URL is set. docs/store.md explains it."""

from pathlib import Path
from urllib.parse import urlsplit

from processing.store.engine import Engine, RowRejectedError
from processing.store.ledger import Batch, Positions, Range
from processing.store.lines import InvalidLine, invalid_lines, without
from processing.store.schema import ROWS_PER_BATCH
from processing.store.store import Rows, Store
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
    "Store",
    "invalid_lines",
    "open_store",
    "without",
]

DATABASE = "sluice"


def open_store(settings: Settings, folder: Path) -> Store:
    """Open the store: the server of CLICKHOUSE_URL, or the embedded engine in the folder.

    Raises StoreError: the folder is in use by another process, the server does not answer, or the schema is newer.
    """
    engine, database = _engine(settings, folder)
    try:
        return Store(engine, database)
    except StoreError:
        engine.close()
        raise


def _engine(settings: Settings, folder: Path) -> tuple[Engine, str]:
    # imported when chosen, for each brings tens of megabytes of libraries
    if settings.clickhouse_url:
        from processing.store.server import ServerEngine

        return ServerEngine(settings.clickhouse_url), urlsplit(settings.clickhouse_url).path.strip("/") or DATABASE
    from processing.store.embedded import EmbeddedEngine

    return EmbeddedEngine(folder), DATABASE
