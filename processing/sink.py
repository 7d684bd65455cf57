"""From processed-metrics, dead-letters and ingest-runs into the store, exactly once, by the store's ledger.

    fetch -> assemble chunks -> gather -> ledger(open) -> insert -> ledger(closed)

The sink resumes from the ledger, never from Kafka's offsets or the rows. What a crash left open is read again, exactly
the same ranges, and inserted under the same token.
"""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from processing.rows import Place, Reasoned, Row, letter_of, oldest_observed, rows_of
from processing.store import Batch, Range, RowRejectedError, Rows, Store, invalid_lines, without
from shared import kafka, logs, metrics
from shared.chunking import Assembler, Poisoned, Watermark
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError, StoreError
from shared.kafka import AbortRequiredError
from shared.records import DeadLetter, timestamp_of
from shared.spool import Spool
from shared.topics import DEAD_LETTERS, H_CHUNK, INGEST_RUNS, PROCESSED_METRICS, partition_of

STAGE: Final = "sink"
GROUP: Final = "sink"
TOPICS: Final = (PROCESSED_METRICS, DEAD_LETTERS, INGEST_RUNS)

log = logs.logger(STAGE)


@dataclass(slots=True)
class _Gathered:
    """What was read of a partition and is in no batch yet."""

    rows: list[Row] = field(default_factory=list)
    first: int = 0  # the offset that the next batch begins at
    next: int = 0  # the offset that is read next


class Sink:
    """One writer of the store. All partitions are its own: embedded, there is one processing replica."""

    def __init__(self, settings: Settings, store: Store, spool: Spool) -> None:
        self._settings = settings
        self._store = store
        self._spool = spool
        self.running = False
        self.progressed = time.monotonic()
        self.fault: str | None = None

    def run(self, stopping: threading.Event) -> None:
        """Write until told to stop; a failure of Kafka or the store is tried again from the ledger."""
        while not stopping.is_set():
            session: _Session | None = None
            try:
                session = _Session(self._settings, self._store, self._spool, self)
                session.run(stopping)
            except (KafkaUnavailableError, FencedError, AbortRequiredError, StoreError) as error:
                self.fault = str(error)
                metrics.ERRORS.labels(STAGE, "store" if isinstance(error, StoreError) else "kafka").inc()
                log.warning("sink failed, beginning again from the ledger", error=str(error))
                stopping.wait(1.0)
            finally:
                self.running = False
                if session is not None:
                    session.close()

    def problems(self) -> list[str]:
        if not self.running:
            return [f"not reading yet{f': {self.fault}' if self.fault else ''}"]
        idle = time.monotonic() - self.progressed
        return [f"no progress for {idle:.0f} s"] if idle > self._settings.stall_seconds else []


class _Session:
    def __init__(self, settings: Settings, store: Store, spool: Spool, sink: Sink) -> None:
        self._settings = settings
        self._store = store
        self._sink = sink
        self._topics = kafka.Topics(settings, STAGE)
        self._reader = kafka.Reader(settings, STAGE, GROUP, subscribes=False)
        self._names = {settings.topic(name): name for name in TOPICS}
        self._assembler = {name: Assembler(spool, settings.entry_max_bytes) for name in TOPICS}
        self._ids: dict[str, str] = {}
        self._gathered: dict[Place, _Gathered] = {}
        self._at_end: dict[Place, float] = {}  # since when (time.monotonic()) nothing more was there
        self._last_ms: dict[Place, int] = {}
        self._rows = 0
        self._messages: dict[str, int] = defaultdict(int)
        self._begun = 0.0
        self._measured = 0.0

    def run(self, stopping: threading.Event) -> None:
        places = self._open()
        self._redo()
        self._assign(places)
        self._sink.running = True
        self._sink.fault = None
        while not stopping.is_set():
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
        if self._begun:
            self._write()

    def close(self) -> None:
        self._reader.close()
        for assembler in self._assembler.values():
            for place in self._gathered:
                assembler.drop(place.partition)

    # where to read

    def _open(self) -> list[Place]:
        full = list(self._names)
        ids = self._topics.ids(full)
        self._ids = {self._names[name]: topic_id for name, topic_id in ids.items()}
        counts = self._topics.partitions(full)
        return [Place(self._names[name], ids[name], partition) for name in full for partition in range(counts[name])]

    def _assign(self, places: list[Place]) -> None:
        """Begin where the ledger ends; where retention has taken that already, at what is left, and say so."""
        positions = self._store.positions()
        starts = self._topics.starts([(self._settings.topic(p.topic), p.partition) for p in places])
        begins = {}
        for place in places:
            name = self._settings.topic(place.topic)
            kept = starts[name, place.partition]
            position = positions.get((place.topic_id, place.partition), 0)
            if 0 < position < kept:
                metrics.ERRORS.labels(STAGE, "retention").inc()
                log.error("retention removed what was not stored yet", topic=name, partition=place.partition,
                          from_offset=position, to_offset=kept)  # fmt: skip
            begin = max(position, kept)
            self._gathered[place] = _Gathered(first=begin, next=begin)
            self._assembler[place.topic].restore(place.partition, Watermark(begin))
            begins[name, place.partition] = begin
        self._reader.assign(begins)
        metrics.ASSIGNED_PARTITIONS.labels(STAGE).set(len(begins))

    def _redo(self) -> None:
        """Repeat the batch that a crash left open: the same ranges, the same token."""
        batch = self._store.last_batch()
        if batch is None or batch.closed:
            return
        log.info("repeating the batch that was left open", number=batch.number, ranges=len(batch.ranges))
        rows = Rows([], [], [], [], [])
        for range_ in batch.ranges:
            for row in self._read_again(range_):
                getattr(rows, row.table).append(row.lines)
        self._insert(batch, rows)
        self._store.close_batch(batch)

    def _read_again(self, range_: Range) -> Iterator[Row]:
        topic = range_.topic
        if self._ids.get(topic) != range_.topic_id:
            raise StoreError(
                f"the open batch needs offsets {range_.first} to {range_.last} of {topic}, which was made anew since; "
                "rebuild the store (docs/store.md)"
            )
        place = Place(topic, range_.topic_id, range_.partition)
        self._reader.assign({(self._settings.topic(topic), range_.partition): range_.first})
        assembler = self._assembler[topic]
        assembler.restore(range_.partition, Watermark(range_.first))
        until = time.monotonic() + 120.0
        done = False
        while not done:
            if time.monotonic() > until:
                raise KafkaUnavailableError(f"could not read {range_} again in time")
            for message in self._reader.fetch(1_000, 0.2):
                if (error := message.error()) is not None:
                    done = done or (error.code() == kafka.PARTITION_EOF and message.offset() > range_.last)
                    continue
                if message.offset() > range_.last:
                    done = True
                    break
                yield from self._rows_of(place, message)
                done = done or message.offset() == range_.last
        assembler.drop(range_.partition)

    # reading

    def _take(self, messages: Iterable[kafka.Consumed]) -> int:
        taken = 0
        for message in messages:
            error = message.error()
            if error is not None:
                self._told(message, error)
                continue
            taken += 1
            place = self._place_of(message)
            gathered = self._gathered[place]
            offset = message.offset()
            again = offset < gathered.next  # on the way to bytes that the spool had no room for
            if again and not any(name == H_CHUNK for name, _ in message.headers() or ()):
                continue
            gathered.next = max(gathered.next, offset + 1)
            self._at_end.pop(place, None)
            self._last_ms[place] = message.timestamp()[1]
            self._messages[place.topic] += 1
            for row in self._rows_of(place, message):
                gathered.rows.append(row)
                self._rows += row.records
        return taken

    def _place_of(self, message: kafka.Consumed) -> Place:
        topic = self._names[message.topic()]
        return Place(topic, self._ids[topic], message.partition())

    def _told(self, message: kafka.Consumed, error: kafka.ClientError) -> None:
        if error.code() == kafka.PARTITION_EOF:
            self._at_end.setdefault(self._place_of(message), time.monotonic())
        elif error.fatal():
            raise FencedError(f"consumer: {error.str()}")
        elif error.code() not in kafka.TRANSIENT:
            metrics.ERRORS.labels(STAGE, "kafka").inc()
            log.warning("consumer error", error=error.str())

    def _rows_of(self, place: Place, message: kafka.Consumed) -> Iterator[Row]:
        headers = message.headers() or []
        offset = message.offset()
        value = message.value() or b""
        if not any(name == H_CHUNK for name, _ in headers):
            yield from rows_of(place, offset, message.timestamp()[1], value, len(value), headers)
            return
        for result in self._assembler[place.topic].feed(
            place.partition, offset, message.timestamp()[1], message.key(), value, headers
        ):
            if isinstance(result, Poisoned):
                self._bury([_poisoned(place, result)])
            else:
                content = b"" if place.topic == DEAD_LETTERS else result.payload.read()
                yield from rows_of(
                    place, result.offset, result.timestamp_ms, content, result.payload.size, result.headers
                )
                result.payload.release()

    # writing

    def _write(self) -> None:
        """One batch: of each partition what lies before its first open chunked message, the rest stays for the next."""
        rows = Rows([], [], [], [], [])
        ranges = []
        oldest = time.time()
        kept = 0
        for place, gathered in self._gathered.items():
            end = self._assembler[place.topic].safe_offset(place.partition, gathered.next)
            if end <= gathered.first:
                kept += sum(row.records for row in gathered.rows)
                continue
            take = [row for row in gathered.rows if row.offset < end]
            rest = [row for row in gathered.rows if row.offset >= end]
            for row in take:
                getattr(rows, row.table).append(row.lines)
            if place.topic == PROCESSED_METRICS:
                oldest = min(oldest, oldest_observed(take) or oldest)
            ranges.append(Range(place.topic_id, place.topic, place.partition, gathered.first, end - 1))
            gathered.rows, gathered.first = rest, end
            kept += sum(row.records for row in rest)
        self._begun = 0.0
        self._rows = kept
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
        begun = time.perf_counter()
        self._store.open_batch(batch)
        self._insert(batch, rows)
        self._store.close_batch(batch)
        metrics.STORE_DURATION.observe(time.perf_counter() - begun)
        if rows.records:
            metrics.FRESHNESS.observe(max(0.0, time.time() - oldest))
        self._reader.tell({(self._settings.topic(r.topic), r.partition): r.last + 1 for r in ranges})
        self._count(rows)
        self._refetch()

    def _refetch(self) -> None:
        """Go back for messages that the spool had no room for; what comes again on the way is passed over."""
        for place, gathered in self._gathered.items():
            wanted = self._assembler[place.topic].refetch(place.partition, gathered.next)
            if wanted is not None:
                self._reader.seek(self._settings.topic(place.topic), place.partition, wanted.offset)

    def _insert(self, batch: Batch, rows: Rows) -> None:
        """Insert; lines that the engine can't take go to the dead letters first, and the rest is inserted."""
        try:
            self._store.insert(batch, rows)
        except RowRejectedError as error:
            invalid = invalid_lines(rows)
            if not invalid:
                raise
            log.warning("the store rejected lines", error=str(error), lines=len(invalid))
            self._bury([letter_of(found.table, found.value, found.detail, STAGE) for found in invalid])
            self._store.insert(batch, without(rows, invalid))

    def _bury(self, letters: list[DeadLetter]) -> None:
        """Send dead letters. After a crash they may be sent again: receipts count origins, not letters."""
        topic = self._settings.topic(DEAD_LETTERS)
        count = self._topics.partitions([topic])[topic]
        writer = kafka.Transactions(self._settings, STAGE, f"sink-{uuid.uuid4().hex[:12]}")
        try:
            writer.prepare(threading.Event())
            writer.begin()
            for letter in letters:
                key = letter.record_id.encode()
                writer.send(topic, letter.value, key, partition_of(key, count), letter.to_headers())
                metrics.DEAD_LETTERS.labels(STAGE, letter.reason).inc()
            writer.commit()
        finally:
            writer.discard()

    # measures

    def _expire(self, now: float) -> None:
        """End chunked messages whose rest never came; what waits behind them can then be stored."""
        for place, last_ms in self._last_ms.items():
            since = self._at_end.get(place)
            idle_ms = None if since is None else int((now - since) * 1000)
            expired = self._assembler[place.topic].expire(place.partition, last_ms, idle_ms)
            if expired:
                self._bury([_poisoned(place, found) for found in expired])
                self._begun = self._begun or now

    def _count(self, rows: Rows) -> None:
        total = 0
        for table in ("records", "windows", "anomalies", "dead_letters", "runs"):
            number = sum(lines.count(b"\n") + 1 for lines in getattr(rows, table))
            metrics.STORED_ROWS.labels(table).inc(number)
            total += number
        metrics.RECORDS_IN.labels(STAGE).inc(total)
        metrics.RECORDS_OUT.labels(STAGE).inc(total)
        for topic, number in self._messages.items():
            metrics.MESSAGES_IN.labels(STAGE, topic).inc(number)
        self._messages.clear()
        for blob in rows.anomalies:
            for line in blob.split(b"\n"):
                metrics.ANOMALIES.labels(msgspec.json.decode(line, type=Reasoned).reason).inc()
        metrics.LAST_PROGRESS.labels(STAGE).set_to_current_time()

    def _measure(self, now: float) -> None:
        self._measured = now
        behind: dict[str, int] = dict.fromkeys(TOPICS, 0)
        oldest: dict[str, float] = dict.fromkeys(TOPICS, 0.0)
        for place, gathered in self._gathered.items():
            if place in self._at_end:
                continue
            name = self._settings.topic(place.topic)
            end = self._reader.end(name, place.partition)
            if end > gathered.next:
                behind[place.topic] += end - gathered.next
                if place in self._last_ms:
                    oldest[place.topic] = max(oldest[place.topic], time.time() - self._last_ms[place] / 1000)
        for topic in TOPICS:
            metrics.LAG_RECORDS.labels(STAGE, topic).set(behind[topic])
            metrics.LAG_SECONDS.labels(STAGE, topic).set(oldest[topic])
        metrics.CHUNK_OPEN.labels(STAGE).set(sum(assembler.open for assembler in self._assembler.values()))
        if not any(behind.values()):
            metrics.LAST_PROGRESS.labels(STAGE).set_to_current_time()


def _poisoned(place: Place, found: Poisoned) -> DeadLetter:
    return DeadLetter(
        value=found.value,
        reason=found.reason,
        detail=found.detail,
        stage=STAGE,
        topic=place.topic,
        partition=place.partition,
        offset=found.offset,
        index=0,
        record_id=f"{place.topic_id}-{place.partition}-{found.offset}-0",
        time=timestamp_of(time.time_ns()),
        key=found.key,
        headers=tuple(found.headers),
    )
