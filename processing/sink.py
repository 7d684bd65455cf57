"""From processed-metrics, dead-letters with their events and ingest-runs into the store, once, by the store's ledger.

    fetch -> assemble chunks -> gather -> ledger(open) -> insert -> ledger(closed)

The sink resumes from the ledger, never from Kafka's offsets or the rows. What a crash left open is read again, exactly
the same ranges, and inserted under the same token. No batch ends inside a chunked message, so that what is read again
is the same messages, too.
"""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from processing.burial import Burial, StoppedError
from processing.rows import Headers, Place, Row, anomaly_reasons, end_of_batch, oldest_observed, rows_of
from processing.store import Batch, Range, RowRejectedError, Rows, Store, invalid_lines, without
from shared import kafka, logs, metrics
from shared.chunking import Assembler, Poisoned, Watermark, is_chunk
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError, StoreError
from shared.kafka import AbortRequiredError
from shared.reading import Reading, is_end
from shared.spool import Spool
from shared.topics import DEAD_LETTER_EVENTS, DEAD_LETTERS, INGEST_RUNS, PROCESSED_METRICS

STAGE: Final = "sink"
GROUP: Final = "sink"
TOPICS: Final = (PROCESSED_METRICS, DEAD_LETTERS, DEAD_LETTER_EVENTS, INGEST_RUNS)
EXPIRY_MS: Final = 60_000  # every chunked message here is one transaction: all of its chunks can be read, or none
HELD_S: Final = 10.0  # rows that wait longer than this for the rest of a chunked message are a problem
REREAD_S: Final = 120.0  # how long reading one range again may take

log = logs.logger(STAGE)


@dataclass(slots=True)
class _Gathered:
    """What was read of a partition and is in no batch yet."""

    rows: list[Row] = field(default_factory=list)
    first: int = 0  # the offset that the next batch begins at
    held_since: float | None = None  # since when (time.monotonic()) rows wait for a chunked message


class Sink:
    """One writer of the store. All partitions are its own: embedded, there is one processing replica."""

    def __init__(self, settings: Settings, store: Store, spool: Spool) -> None:
        self._settings = settings
        self._store = store
        self._spool = spool
        self.running = False
        self.progressed = time.monotonic()
        self.fault: str | None = None
        self.held: list[str] = []  # partitions whose rows wait for the rest of a chunked message
        self.buried: set[Hashable] = set()  # what has its dead letter, but is in no closed batch yet

    def run(self, stopping: threading.Event) -> None:
        """Write until told to stop; a failure of Kafka or the store is tried again from the ledger."""
        while not stopping.is_set():
            session: _Session | None = None
            try:
                session = _Session(self._settings, self._store, self._spool, self, stopping)
                session.run()
            except StoppedError as stopped:
                log.info("stopped before the end of a batch, which the next start repeats", at=str(stopped))
            except (KafkaUnavailableError, FencedError, AbortRequiredError, StoreError) as error:
                self.fault = str(error)
                metrics.ERRORS.labels(STAGE, "store" if isinstance(error, StoreError) else "kafka").inc()
                log.warning("sink failed, beginning again from the ledger", error=str(error))
                stopping.wait(1.0)
            finally:
                self.running = False
                self.held = []
                if session is not None:
                    session.close()

    def problems(self) -> list[str]:
        if not self.running:
            return [f"not reading yet{f': {self.fault}' if self.fault else ''}"]
        idle = time.monotonic() - self.progressed
        stalled = [f"no progress for {idle:.0f} s"] if idle > self._settings.stall_seconds else []
        return stalled + self.held


class _Session:
    def __init__(self, settings: Settings, store: Store, spool: Spool, sink: Sink, stopping: threading.Event) -> None:
        self._settings = settings
        self._store = store
        self._sink = sink
        self._stopping = stopping
        self._topics = kafka.Topics(settings, STAGE)
        self._burial = Burial(settings, STAGE, self._topics, sink.buried, stopping)
        self._reader = kafka.Reader(settings, STAGE, GROUP, subscribes=False)
        self._names = {settings.topic(name): name for name in TOPICS}
        self._readings = {
            name: Reading(STAGE, name, full_name, self._reader, Assembler(spool, settings.entry_max_bytes, EXPIRY_MS))
            for full_name, name in self._names.items()
        }
        self._ids: dict[str, str] = {}
        self._gathered: dict[Place, _Gathered] = {}
        self._rows = 0
        self._messages: dict[str, int] = defaultdict(int)
        self._begun = 0.0
        self._measured = 0.0
        self._goal: dict[kafka.Place, int] = {}  # of a rebuild: the topics' ends when this session began

    def run(self) -> None:
        self._store.reload()
        places = self._open()
        if self._store.writes != self._store.epoch:
            self._goal = self._topics.ends([(self._settings.topic(p.topic), p.partition) for p in places], stable=True)
        self._redo()
        self._assign(places)
        self._sink.running = True
        self._sink.fault = None
        while not self._stopping.is_set() and self._store.writes == (self._store.rebuilding or self._store.epoch):
            taken = self._take(self._reader.fetch(self._settings.fetch_records, 0.004 if self._begun else 0.1))
            now = time.monotonic()
            if taken and not self._begun:
                self._begun = now
            old = self._begun and now - self._begun >= self._settings.store_interval_ms / 1000
            if self._begun and (self._rows >= self._settings.store_rows or old or not taken):
                self._write()
            if not self._begun:
                self._sink.progressed = now
            if now - self._measured >= 1.0:
                self._measure(now)
                self._expire(now)
                self._hold(now)
                self._refetch()
                self._switch()
        if self._begun:
            self._write()

    def _switch(self) -> None:
        """End a rebuild that has caught up with what was there when this session began."""
        if self._store.writes != self._store.epoch and not self._begun and all(map(self._caught_up, self._gathered)):
            self._store.switch()
            log.info("the store is rebuilt", epoch=self._store.epoch)

    def _caught_up(self, place: Place) -> bool:
        """Whether the store has all of a partition up to the goal, behind which there may be markers alone."""
        first, reading = self._gathered[place].first, self._readings[place.topic]
        stored_all = first == reading.next[place.partition] and place.partition in reading.at_end
        return stored_all or first >= self._goal[self._settings.topic(place.topic), place.partition]

    def close(self) -> None:
        self._reader.close()
        for reading in self._readings.values():
            for partition in list(reading.next):
                reading.release(partition)
        metrics.ASSIGNED_PARTITIONS.labels(STAGE).set(0)
        metrics.CHUNK_OPEN.labels(STAGE).set(0)

    # where to read

    def _open(self) -> list[Place]:
        full = list(self._names)
        ids = self._topics.ids(full)
        self._ids = {self._names[name]: topic_id for name, topic_id in ids.items()}
        counts = self._topics.partitions(full)
        self._topics.refuse_compacted(full)
        return [Place(self._names[name], ids[name], partition) for name in full for partition in range(counts[name])]

    def _assign(self, places: list[Place]) -> None:
        """Begin where the ledger ends; where retention has taken that already, at what is left, and say so."""
        positions = self._store.positions()
        starts = self._topics.starts([(self._settings.topic(p.topic), p.partition) for p in places])
        begins = {}
        self._gathered.clear()
        self._rows = 0
        for place in places:
            name = self._settings.topic(place.topic)
            kept = starts[name, place.partition]
            position = positions.get((place.topic_id, place.partition), 0)
            if 0 < position < kept:
                metrics.ERRORS.labels(STAGE, "retention").inc()
                log.error("retention removed what was not stored yet", topic=name, partition=place.partition,
                          from_offset=position, to_offset=kept)  # fmt: skip
            begin = max(position, kept)
            self._gathered[place] = _Gathered(first=begin)
            self._readings[place.topic].begin(place.partition, begin, Watermark(begin))
            begins[name, place.partition] = begin
        self._reader.assign(begins)
        metrics.ASSIGNED_PARTITIONS.labels(STAGE).set(len(begins))

    def _redo(self) -> None:
        """Repeat the batch that a crash left open: the same ranges, the same token.

        What retention has removed since is gone from Kafka, and in no dead letter. It is counted and logged, and the
        batch goes in without it: a sink that stopped here would let retention remove all that follows, too. Nothing
        is lost where the rows were in already, for a table that knows the token keeps what it has.
        """
        batch = self._store.last_batch()
        if batch is None or batch.closed:
            return
        log.info("repeating the batch that was left open", number=batch.number, ranges=len(batch.ranges))
        for range_ in batch.ranges:
            if self._ids.get(range_.topic) != range_.topic_id:
                raise StoreError(
                    f"the open batch needs offsets {range_.first} to {range_.last} of {range_.topic}, which was made "
                    "anew since; rebuild the store (docs/upgrade.md)"
                )
        starts = self._topics.starts([(self._settings.topic(r.topic), r.partition) for r in batch.ranges])
        rows = Rows([], [], [], [], [], [])
        for range_ in batch.ranges:
            name = self._settings.topic(range_.topic)
            kept = starts[name, range_.partition]
            if kept > range_.first:
                metrics.ERRORS.labels(STAGE, "retention").inc()
                log.error("retention removed what the open batch repeats", topic=name, partition=range_.partition,
                          from_offset=range_.first, to_offset=min(kept, range_.last + 1))  # fmt: skip
            if kept <= range_.last:
                _add(rows, self._read_again(range_, max(kept, range_.first)))
        self._finish(batch, rows)

    def _read_again(self, range_: Range, begin: int) -> list[Row]:
        """The rows of a range, from `begin` on: all of its chunked messages, however often they had to wait for room.

        Raises KafkaUnavailableError when that takes too long, StoreError when the spool can't hold one of them.
        """
        place = Place(range_.topic, range_.topic_id, range_.partition)
        gathered = self._gathered[place] = _Gathered(first=begin)
        reading = self._readings[place.topic]
        reading.begin(place.partition, begin, Watermark(begin))
        self._reader.assign({(self._settings.topic(place.topic), place.partition): begin})
        until = time.monotonic() + REREAD_S
        try:
            while time.monotonic() < until:
                if self._stopping.is_set():
                    raise StoppedError(f"reading {range_} again")
                messages = self._reader.fetch(1_000, 0.2)
                self._take(message for message in messages if message.error() or message.offset() <= range_.last)
                if not any(_ends(message, range_.last) for message in messages) or reading.refetch():
                    continue
                if waiting := reading.assembler.waiting:
                    raise StoreError(
                        f"the spool has no room for {waiting} chunked messages of {range_}, "
                        "which has to be read again; raise SPOOL_MAX_BYTES"
                    )
                return _in_order(gathered.rows)
            raise KafkaUnavailableError(f"could not read {range_} again in time")
        finally:
            reading.release(place.partition)

    # reading

    def _take(self, messages: Iterable[kafka.Consumed]) -> int:
        taken = 0
        for message in messages:
            error = message.error()
            if error is not None:
                if is_end(error, STAGE):
                    self._readings[self._names[message.topic()]].ended(message.partition())
                continue
            taken += 1
            place = self._place_of(message)
            gathered = self._gathered[place]
            headers = message.headers() or ()
            again = self._readings[place.topic].note(message)
            if again and not is_chunk(headers):
                continue
            self._messages[place.topic] += 1
            for row in self._rows_of(place, message, headers):
                gathered.rows.append(row)
                self._rows += row.records
        return taken

    def _place_of(self, message: kafka.Consumed) -> Place:
        topic = self._names[message.topic()]
        return Place(topic, self._ids[topic], message.partition())

    def _rows_of(self, place: Place, message: kafka.Consumed, headers: Headers) -> Iterator[Row]:
        offset = message.offset()
        if not is_chunk(headers):
            value = message.value() or b""
            yield from rows_of(place, offset, offset, message.timestamp()[1], value, len(value), headers)
            return
        for result in self._readings[place.topic].feed(message, headers):
            if isinstance(result, Poisoned):
                self._burial.of_messages(place.topic, place.topic_id, [result])
            else:
                content = b"" if place.topic == DEAD_LETTERS else result.payload.read()
                yield from rows_of(
                    place, result.offset, offset, result.timestamp_ms, content, result.payload.size, result.headers
                )
                result.payload.release()

    # writing

    def _write(self) -> None:
        """One batch: of each partition what lies before its first open chunked message, the rest stays for the next."""
        rows = Rows([], [], [], [], [], [])
        ranges = []
        oldest = time.time()
        for place, gathered in self._gathered.items():
            end = end_of_batch(gathered.rows, self._readings[place.topic].whole_until(place.partition))
            if end <= gathered.first:
                continue
            take = _in_order(row for row in gathered.rows if row.offset < end)
            _add(rows, take)
            if place.topic == PROCESSED_METRICS:
                oldest = min(oldest, oldest_observed(take) or oldest)
            ranges.append(Range(place.topic_id, place.topic, place.partition, gathered.first, end - 1))
            gathered.rows = [row for row in gathered.rows if row.offset >= end]
            gathered.first = end
            gathered.held_since = None
        self._begun = 0.0
        self._rows = 0
        if not ranges:
            return
        last = self._store.last_batch()
        batch = Batch(
            number=last.number + 1 if last else 1,
            token=uuid.uuid4().hex,
            ranges=tuple(ranges),
            stored_at_ns=time.time_ns(),
            closed=False,
        )
        self._store.open_batch(batch)
        self._finish(batch, rows)
        if rows.records or rows.samples:
            metrics.FRESHNESS.observe(max(0.0, time.time() - oldest))
        self._refetch()

    def _finish(self, batch: Batch, rows: Rows) -> None:
        """Put the rows of the open batch in, and close it."""
        begun = time.perf_counter()
        inserted = self._insert(batch, rows)
        self._store.close_batch(batch)
        self._sink.buried.clear()
        metrics.STORE_DURATION.observe(time.perf_counter() - begun)
        self._reader.tell({(self._settings.topic(r.topic), r.partition): r.last + 1 for r in batch.ranges})
        self._count(inserted)

    def _refetch(self) -> None:
        """Go back for messages that the spool had no room for; what comes again on the way is passed over."""
        for reading in self._readings.values():
            reading.refetch()

    def _insert(self, batch: Batch, rows: Rows) -> Rows:
        """Insert; lines that the engine can't take go to the dead letters first, and the rest, returned, is inserted.

        Tables are written in order and each whole or not at all, so the rejected table and those after it have nothing
        yet: only their lines are judged, for what the engine took is stored. The letters go first because only the
        engine's refusal leads to them: once a table knows the token, what was taken out is never looked for again. A
        repeated batch is refused and judged the same; what this process buried is not buried a second time, and after
        a crash letters may be there twice, which loses nothing.
        """
        try:
            self._store.insert(batch, rows)
        except RowRejectedError as error:
            tables = [table.name for table, _ in rows.by_table()]
            open_tables = tables[tables.index(error.table) :]
            invalid = [found for found in invalid_lines(rows) if found.table in open_tables]
            if not any(found.table == error.table for found in invalid):
                raise
            log.warning("the store rejected lines", error=str(error), lines=len(invalid))
            self._burial.of_lines(batch.token, invalid)
            rows = without(rows, invalid)
            self._store.insert(batch, rows)
        return rows

    # measures

    def _expire(self, now: float) -> None:
        """End chunked messages whose rest never came; what waits behind them can then be stored."""
        for topic, reading in self._readings.items():
            expired = reading.expire(now)
            if expired:
                self._burial.of_messages(topic, self._ids[topic], expired)
                self._begun = self._begun or now

    def _hold(self, now: float) -> None:
        """Tell of rows that wait for the rest of a chunked message, and let go what its end has freed."""
        held = []
        for place, gathered in self._gathered.items():
            reading = self._readings[place.topic]
            opened = reading.whole_until(place.partition)
            if not gathered.rows or opened == reading.furthest(place.partition):
                gathered.held_since = None
            else:
                gathered.held_since = gathered.held_since or now
                if now - gathered.held_since > HELD_S:
                    held.append(
                        f"{place.topic} {place.partition}: {len(gathered.rows)} messages wait "
                        f"since {now - gathered.held_since:.0f} s for the chunked message at offset {opened}"
                    )
            if gathered.rows:
                self._begun = self._begun or now
        self._sink.held = held

    def _count(self, rows: Rows) -> None:
        """Count what a closed batch put in."""
        total = 0
        for table, elements in rows.by_table():
            number = sum(lines.count(b"\n") + 1 for lines in elements if lines)
            metrics.STORED_ROWS.labels(table.name).inc(number)
            total += number
        metrics.RECORDS_IN.labels(STAGE).inc(total)
        metrics.RECORDS_OUT.labels(STAGE).inc(total)
        for topic, number in self._messages.items():
            metrics.MESSAGES_IN.labels(STAGE, topic).inc(number)
        self._messages.clear()
        for reason, number in anomaly_reasons(rows.anomalies).items():
            metrics.ANOMALIES.labels(reason).inc(number)
        metrics.LAST_PROGRESS.labels(STAGE).set_to_current_time()

    def _measure(self, now: float) -> None:
        self._measured = now
        behind = sum(reading.measure() for reading in self._readings.values())
        metrics.CHUNK_OPEN.labels(STAGE).set(sum(reading.assembler.open for reading in self._readings.values()))
        if not behind:
            metrics.LAST_PROGRESS.labels(STAGE).set_to_current_time()


def _add(rows: Rows, gathered: Iterable[Row]) -> None:
    for row in gathered:
        getattr(rows, row.table).append(row.lines)


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """As their messages ended on the partition: the same however often one had to wait for room in the spool."""
    return sorted(rows, key=lambda row: row.last)


def _ends(message: kafka.Consumed, last: int) -> bool:
    """Whether nothing of the offsets up to `last` comes after this. The last of them may be no message at all."""
    error = message.error()
    if error is None:
        return message.offset() >= last
    return error.code() == kafka.PARTITION_EOF and message.offset() > last
