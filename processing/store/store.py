"""The analytics store: what the sink writes and the API asks, on either engine."""

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from processing.store import ledger
from processing.store.engine import Engine
from processing.store.ledger import Batch, Positions
from processing.store.schema import (
    ALERTS,
    ANOMALIES,
    DEAD_LETTER_EVENTS,
    DEAD_LETTERS,
    LEDGER,
    RECORDS,
    RUNS,
    SCHEMA_VERSION,
    TABLES,
    WINDOWS,
    Table,
    otel_logs,
)
from shared.errors import StoreError

_NO_PARAMETERS: Final[dict[str, object]] = {}


@dataclass(slots=True)
class Rows:
    """Lines of JSON for each table, untouched from Kafka; an element holds one or more, joined by LF."""

    records: list[bytes]
    windows: list[bytes]
    anomalies: list[bytes]
    dead_letters: list[bytes]
    runs: list[bytes]
    dead_letter_events: list[bytes] = field(default_factory=list)

    def by_table(self) -> list[tuple[Table, list[bytes]]]:
        """The tables in the order in which they are written: records after what the same batch made of them."""
        return [
            (WINDOWS, self.windows),
            (ANOMALIES, self.anomalies),
            (DEAD_LETTERS, self.dead_letters),
            (DEAD_LETTER_EVENTS, self.dead_letter_events),
            (RECORDS, self.records),
            (RUNS, self.runs),
        ]


class Store:
    """The store, opened: its schema made or checked, its ledger read. One writer; any number of reading threads.

    Tables live in a database of their epoch, `<database>_<epoch>`: a rebuild from the topics fills the next one beside
    the one that is read. `<database>` itself holds what outlives an epoch: the list of epochs, the view otel_logs, and
    the history of alerts, `alerts`, which is written by itself and in no batch.
    """

    def __init__(self, engine: Engine, database: str) -> None:
        self._engine = engine
        self._last: Batch | None = None
        self._positions: Positions = {}
        self._writing = threading.Lock()
        self._alerting = threading.Lock()
        self._alerted_ns = 0
        self._alerts = replace(ALERTS, name=f"{database}.{ALERTS.name}")
        self.alerts = self._alerts.name  # the history's table, as a query names it
        self.epoch = self._prepare(database)
        self._read_ledger()

    def last_batch(self) -> Batch | None:
        """The newest batch of this epoch; open, if a crash came between."""
        return self._last

    def positions(self) -> Positions:
        """The next offset of each (topic id, partition) after `last_batch`, be it open or closed."""
        return dict(self._positions)

    def reload(self) -> None:
        """Read the ledger again: after a write that failed, only the store knows whether it took place.

        A sink begins with this, or it would open another batch under the number of one that is open.
        """
        with self._writing:
            self._read_ledger()

    def open_batch(self, batch: Batch) -> None:
        """Enter a batch into the ledger, before anything of it is inserted.

        It is the next number after a closed batch, or the very batch that is open, again. Anything else is a sink
        that lost its place, and raises StoreError.
        """
        with self._writing:
            self._check_turn(batch)
            self._enter(replace(batch, closed=False), ledger.advanced(self._positions, batch.ranges))

    def insert(self, batch: Batch, rows: Rows) -> None:
        """Insert a batch's rows into their tables. Repeated with the same rows, it completes what is missing and
        changes nothing else. Raises RowRejectedError, with the tables before that one written."""
        parameters = {"number": batch.number, "stored_at_ns": batch.stored_at_ns}
        for table, lines in rows.by_table():
            if any(lines):
                self._engine.insert(table, lines, parameters, f"{batch.token}/{table.name}")

    def close_batch(self, batch: Batch) -> None:
        """Note that all rows of the open batch are in."""
        with self._writing:
            if self._last is None or self._last.number != batch.number or self._last.token != batch.token:
                raise StoreError(f"batch {batch.number} ({batch.token}) is not the open one: {self._last}")
            self._enter(replace(batch, closed=True), self._positions)

    def add_alerts(self, lines: Sequence[bytes]) -> None:
        """Put lines of JSON, one an alert, into the history of alerts. Of those with one fingerprint, start and
        status the table keeps the first, so that a notification may come any number of times. Raises StoreError."""
        if not lines:
            return
        with self._alerting:
            # later ones come after, also where the clock does not move on, or back
            self._alerted_ns = max(time.time_ns(), self._alerted_ns + len(lines))
            self._engine.insert(self._alerts, lines, {"stored_at_ns": self._alerted_ns}, uuid.uuid4().hex)

    def query(self, sql: str, parameters: Mapping[str, object] = _NO_PARAMETERS) -> list[dict[str, Any]]:
        """Rows of a SELECT, `{name:Type}` taking its value from the parameters. From any thread.

        Instants are RFC 3339 text, integers exact, NaN and infinities None. Raises StoreError.
        """
        return self._engine.query(sql, parameters)

    def ping(self) -> None:
        """Raise StoreError unless the engine answers."""
        self._engine.query("SELECT 1", _NO_PARAMETERS)

    def close(self) -> None:
        """Release the engine. What was inserted stays."""
        self._engine.close()

    def _check_turn(self, batch: Batch) -> None:
        last = self._last
        if last is None or last.closed:
            expected = 1 if last is None else last.number + 1
            if batch.number != expected:
                raise StoreError(f"batch {batch.number} is out of turn: the next is {expected}")
        elif replace(batch, closed=False) != last:
            raise StoreError(
                f"batch {batch.number} ({batch.token}) is not the open one, which must be repeated: {last}"
            )

    def _enter(self, batch: Batch, positions: Positions) -> None:
        state = "closed" if batch.closed else "open"
        self._engine.insert(LEDGER, [ledger.encode(batch, positions)], {}, f"{batch.token}/{state}")
        self._last, self._positions = batch, positions

    def _read_ledger(self) -> None:
        newest = self._engine.query("SELECT * FROM ledger ORDER BY version DESC LIMIT 1", _NO_PARAMETERS)
        if newest:
            self._last, self._positions = ledger.decode(newest[0])

    def _prepare(self, database: str) -> int:
        """Make the schema where it is missing; returns the current epoch. A crash in between is made up for here."""
        engine = self._engine
        epochs = f"{database}.epochs"
        engine.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
        engine.execute(
            f"CREATE TABLE IF NOT EXISTS {epochs} (epoch UInt32, schema UInt16) ENGINE = MergeTree ORDER BY epoch"
        )
        (found,) = engine.query(f"SELECT max(epoch) epoch, max(schema) schema FROM {epochs}", _NO_PARAMETERS)  # noqa: S608 - our own names
        if found["schema"] > SCHEMA_VERSION:
            raise StoreError(
                f"the store has schema {found['schema']}, made by a newer Sluice; this one knows {SCHEMA_VERSION}: "
                "run the newer version, or give this one another store (DATA_DIR or CLICKHOUSE_URL)"
            )
        epoch: int = found["epoch"] or 1
        current = f"{database}_{epoch}"
        engine.execute(f"CREATE DATABASE IF NOT EXISTS {current}")
        engine.use(current)
        for table in (*TABLES, LEDGER):
            engine.execute(table.create())
        engine.execute(self._alerts.create())
        engine.execute(otel_logs(f"{database}.otel_logs", f"{current}.records"))
        if not found["epoch"]:
            engine.execute(f"INSERT INTO {epochs} VALUES ({epoch}, {SCHEMA_VERSION})")  # noqa: S608 - our own names
        return epoch
