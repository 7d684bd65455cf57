"""The analytics store: what the sink writes and the API asks, on either engine."""

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from processing.store import ledger
from processing.store.catalog import Catalog
from processing.store.engine import Engine
from processing.store.ledger import Batch, Positions
from processing.store.migrations import MIGRATIONS, Migration
from processing.store.schema import (
    ANOMALIES,
    DEAD_LETTER_EVENTS,
    DEAD_LETTERS,
    LEDGER,
    RECORDS,
    ROWS_PER_BATCH,
    RUNS,
    SAMPLES,
    WINDOWS,
    Table,
)
from shared import logs
from shared.errors import StoreError

_NO_PARAMETERS: Final[dict[str, object]] = {}
_BATCH_S: Final = 60.0  # how long a backup waits for the end of a batch
_OF_BATCH: Final = "seq >= {first:UInt64} AND seq < {last:UInt64}"

log = logs.logger("store")


@dataclass(slots=True)
class Rows:
    """Lines of JSON for each table, untouched from Kafka; an element holds one or more, joined by LF."""

    records: list[bytes]
    samples: list[bytes]
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
            (SAMPLES, self.samples),
            (RUNS, self.runs),
        ]


class Snapshot(msgspec.Struct, frozen=True):
    """What a backup of the store holds."""

    database: str  # its name in the backup
    epoch: int
    schema: int  # the oldest schema version that may use it
    records: int
    batch: int  # the number of its newest batch
    positions: list[tuple[str, int, int]]  # topic id, partition, next offset


class Store:
    """The store, opened: its schema made, migrated or refused, its ledger read. One writer; any number of readers.

    While it is rebuilt from the topics, the next epoch is written beside the one that is read, until `switch`. The
    history of alerts belongs to no epoch, and is written by itself and in no batch.
    """

    def __init__(self, engine: Engine, database: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._engine = engine
        self._last: Batch | None = None
        self._positions: Positions = {}
        self._repeated: int | None = None  # the number of a batch that was found open
        self._writing = threading.Condition()
        self._saving = False  # whether a backup waits for the end of a batch; none begins meanwhile
        self._alerting = threading.Lock()
        self._alerted_ns = 0
        self._catalog = Catalog(engine, database, migrations)
        self._catalog.prepare()
        self.alerts = self._catalog.alerts.place  # the history's table, as a query names it
        self._stored, _ = self._ledger_of(self.epoch)  # the newest batch of the epoch that is read
        self.writes = self.epoch  # the epoch that is written
        self.reload()

    @property
    def epoch(self) -> int:
        """The epoch that is read."""
        return self._catalog.epoch

    @property
    def rebuilding(self) -> int | None:
        """The epoch that is to be filled from the topics, if a rebuild is under way."""
        return self._catalog.rebuilding

    def end(self) -> int:
        """The `seq` that all rows to be read lie below, and after a while all below it are there."""
        stored = self._last if self.writes == self.epoch else self._stored
        return 0 if stored is None else (stored.number + stored.closed) * ROWS_PER_BATCH

    def last_batch(self) -> Batch | None:
        """The newest batch of the epoch that is written; open, if a crash came between."""
        return self._last

    def positions(self) -> Positions:
        """The next offset of each (topic id, partition) after `last_batch`, be it open or closed."""
        return dict(self._positions)

    def reload(self) -> None:
        """Read the ledger again: after a write that failed, only the store knows whether it took place.

        A sink begins with this, or it would open another batch under the number of one that is open. This is also
        where it turns to the epoch of a rebuild, or back, so that no batch is begun in one and ended in the other.
        """
        with self._writing:
            self.writes = self.rebuilding or self.epoch
            if self.writes != self.epoch:
                self._stored, _ = self._ledger_of(self.epoch)
            self._last, self._positions = self._ledger_of(self.writes)
            self._repeated = None if self._last is None or self._last.closed else self._last.number
            self._writing.notify_all()

    def rebuild(self) -> int:
        """Begin a rebuild: the sink's next `reload` turns to a new epoch, empty, so that it reads the topics from
        their start. Returns its number. Raises StoreError where one is under way."""
        with self._writing:
            return self._catalog.begin()

    def abandon(self) -> None:
        """End the rebuild without effect: the sink's next `reload` turns back. StoreError where there is none."""
        with self._writing:
            self._catalog.abandon()

    def switch(self) -> None:
        """Read what was rebuilt, and drop what was read before. Only the sink may say when, between two batches."""
        with self._writing:
            if self.writes != self.rebuilding or (self._last is not None and not self._last.closed):
                raise StoreError("a rebuild ends between two batches of its epoch")
            self._catalog.switch()

    def open_batch(self, batch: Batch) -> None:
        """Enter a batch into the ledger, before anything of it is inserted.

        It is the next number after a closed batch, or the very batch that is open, again. Anything else is a sink
        that lost its place, and raises StoreError.
        """
        with self._writing:
            if self._last is None or self._last.closed:
                self._writing.wait_for(lambda: not self._saving)
            self._check_turn(batch)
            repeated = self._last is not None and not self._last.closed
            block = self._last.windows_block if repeated and self._last else self._windows_block()
            self._enter(
                replace(batch, closed=False, windows_block=block), ledger.advanced(self._positions, batch.ranges)
            )

    def insert(self, batch: Batch, rows: Rows) -> None:
        """Insert a batch's rows into their tables. Repeated with the same rows, it completes what is missing and
        changes nothing else. Raises RowRejectedError, with the tables before that one written."""
        parameters = {"number": batch.number, "stored_at_ns": batch.stored_at_ns}
        for table, lines in rows.by_table():
            if any(lines):
                place = self._catalog.table(table, self.writes)
                self._engine.insert(place, lines, parameters, f"{batch.token}/{table.name}")
                if batch.number == self._repeated and not self._holds(batch, table, place, lines):
                    self._insert_anew(batch, table, place, lines, parameters)

    def close_batch(self, batch: Batch) -> None:
        """Note that all rows of the open batch are in."""
        with self._writing:
            if self._last is None or self._last.number != batch.number or self._last.token != batch.token:
                raise StoreError(f"batch {batch.number} ({batch.token}) is not the open one: {self._last}")
            self._enter(replace(batch, closed=True), self._positions)
            self._writing.notify_all()

    def add_alerts(self, lines: Sequence[bytes]) -> None:
        """Put lines of JSON, one an alert, into the history of alerts. Of those with one fingerprint, start and
        status the table keeps the first, so that a notification may come any number of times. Raises StoreError."""
        if not lines:
            return
        with self._alerting:
            # later ones come after, also where the clock does not move on, or back
            self._alerted_ns = max(time.time_ns(), self._alerted_ns + len(lines))
            self._engine.insert(self._catalog.alerts, lines, {"stored_at_ns": self._alerted_ns}, uuid.uuid4().hex)

    def query(self, sql: str, parameters: Mapping[str, object] = _NO_PARAMETERS) -> list[dict[str, Any]]:
        """Rows of a SELECT, `{name:Type}` taking its value from the parameters. From any thread.

        Instants are RFC 3339 text, integers exact, NaN and infinities None. Raises StoreError.
        """
        return self._engine.query(sql, parameters)

    def records(self, before_ms: int | None = None, epoch: int | None = None) -> int:
        """How many records an epoch has, the one that is read unless told; stored before an instant (Unix ms)."""
        place = self._catalog.table(RECORDS, epoch or self.epoch).place
        where = "" if before_ms is None else "WHERE stored_at < fromUnixTimestamp64Milli({before_ms:Int64})"
        (row,) = self._engine.query(
            f"SELECT count() AS n FROM {place} {where}",  # noqa: S608 - our own names
            {} if before_ms is None else {"before_ms": before_ms},
        )
        return int(row["n"])

    def back_up(self, name: str) -> Snapshot:
        """Have the engine write a backup, as `name`/store in its folder of backups; answers when it is there.

        The sink waits only for the moment that it takes to link the tables' files, between two of its batches: tokens
        are not part of a backup, so no batch may be half in it. Raises StoreError.
        """
        with self._writing:
            if self.rebuilding is not None:
                raise StoreError("a rebuild is under way: make the backup before it, or when it has ended")
            self._saving = True
            try:
                if not self._writing.wait_for(lambda: self._last is None or self._last.closed, _BATCH_S):
                    raise StoreError(f"no batch ended within {_BATCH_S:.0f} s; a backup has to lie between two of them")
                number = 0 if self._last is None else self._last.number
                positions = [(*place, offset) for place, offset in sorted(self._positions.items())]
                copy = self._catalog.copy()
            finally:
                self._saving = False
                self._writing.notify_all()
        try:
            records = self._catalog.records_of(copy)
            self._catalog.back_up(copy, f"{name}/store")
        finally:
            self._catalog.drop_copy()
        return Snapshot(copy, self.epoch, self._catalog.needs(), records, number, positions)

    def ping(self) -> None:
        """Raise StoreError unless the engine answers."""
        self._engine.query("SELECT 1", _NO_PARAMETERS)

    def close(self) -> None:
        """Release the engine. What was inserted stays."""
        self._engine.close()

    def _holds(self, batch: Batch, table: Table, place: Table, lines: Sequence[bytes]) -> bool:
        """Whether the rows of a batch that was found open are all in this table.

        The engine notes a block's token a moment before the block itself is there. Killed in between, it takes the
        repetition for done, and the rows are nowhere: so they are counted. Windows merge, and are told by their block.
        """
        if not table.has_seq:
            before = -1 if self._last is None else self._last.windows_block
            return before < 0 or self._windows_block() > before
        (row,) = self._engine.query(
            f"SELECT count() AS n FROM {place.place} WHERE {_OF_BATCH}",  # noqa: S608 - our own names
            _seqs_of(batch),
        )
        return int(row["n"]) == sum(some.count(b"\n") + 1 for some in lines if some)

    def _insert_anew(
        self, batch: Batch, table: Table, place: Table, lines: Sequence[bytes], parameters: Mapping[str, object]
    ) -> None:
        """Insert rows that the engine only believes to have, after taking out those that it has: under a new token."""
        log.warning("the engine had lost rows of the batch that was left open", table=table.name, batch=batch.number)
        if table.has_seq:
            first, last = _seqs_of(batch).values()
            self._engine.execute(
                f"ALTER TABLE {place.place} DELETE WHERE seq >= {first} AND seq < {last} SETTINGS mutations_sync = 2"
            )
        self._engine.insert(place, lines, parameters, f"{batch.token}/{table.name}/{uuid.uuid4().hex}")

    def _windows_block(self) -> int:
        """The newest block that is in the windows; 0 before the first."""
        database, _, name = self._catalog.table(WINDOWS, self.writes).place.rpartition(".")
        (row,) = self._engine.query(
            "SELECT max(max_block_number) AS block FROM system.parts"
            " WHERE database = {database:String} AND table = {name:String} AND active",
            {"database": database.strip("`"), "name": name.strip("`")},
        )
        return int(row["block"])

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
        place = self._catalog.table(LEDGER, self.writes)
        self._engine.insert(place, [ledger.encode(batch, positions)], {}, f"{batch.token}/{state}")
        self._last, self._positions = batch, positions

    def _ledger_of(self, epoch: int) -> tuple[Batch | None, Positions]:
        """The newest batch of an epoch, and the positions after it."""
        place = self._catalog.table(LEDGER, epoch).place
        newest = self._engine.query(f"SELECT * FROM {place} ORDER BY version DESC LIMIT 1", _NO_PARAMETERS)  # noqa: S608 - our own name
        return ledger.decode(newest[0]) if newest else (None, {})


def _seqs_of(batch: Batch) -> dict[str, int]:
    """The first seq that a row of this batch may have, and the one after the last."""
    return {"first": batch.number * ROWS_PER_BATCH, "last": (batch.number + 1) * ROWS_PER_BATCH}
