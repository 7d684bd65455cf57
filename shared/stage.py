"""The one loop of every stage: consume a batch, transform, produce, add the offsets, commit the transaction.

    fetch -> assemble chunks -> transform.handle -> frames -> transaction(outputs, state, offsets)

Whatever a crash interrupts was in no committed transaction, so it is done again from the committed offsets, and
once. State changes with the commit: after an abort it is read again from its compacted topic.
"""

import io
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec
from prometheus_client import Counter as Metric

from shared import kafka, logs, metrics
from shared.chunking import (
    Assembler,
    Payload,
    Poisoned,
    Watermark,
    Whole,
    decode_watermark,
    encode_watermark,
    is_chunk,
)
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError, StateError, TooMuchPoisonError
from shared.frames import Frame, FrameBuilder
from shared.kafka import AbortRequiredError, Position
from shared.poison import PoisonLimit
from shared.reading import Reading, is_end, poisoned_letter
from shared.records import DeadLetter, fitted
from shared.spool import Spool
from shared.topics import DEAD_LETTERS, H_CONTENT_TYPE, NDJSON, partition_of

log = logs.logger("stage")

RawHeaders = Sequence[tuple[str, bytes | None]]
NO_HEADERS: RawHeaders = ()
ABORTS_MAX: Final = 6  # in a row; the broker may know another member than the client thinks it is


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as its producer meant it: chunks are put together, and then its bytes are in `payload`, on disk.

    Messages in a row whose headers are equal mostly share one object of them.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: RawHeaders
    payload: Payload | None = None


class Transform(Protocol):
    """What a stage does with messages. It keeps state per partition and never speaks to Kafka."""

    def handle(self, messages: Sequence[Message], topic_id: str, out: "Output") -> int:
        """Put the results of these messages on `out`; returns how many records they held."""

    def finish(self, out: "Output") -> None:
        """Put on `out` what a transaction gathers over its batches; called once before each commit."""

    def changed(self) -> Iterable[tuple[int, bytes, bytes | None]]:
        """(partition, key, value) of the state that this transaction changed; None deletes the key."""

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        """Take one piece of state back, before the partition's first message, in the order of the last changes."""

    def forget(self, partition: int) -> None:
        """Drop all state of this partition; it is restored before it is needed again."""


class Output:
    """Where a transform puts its results: all of them belong to the transaction that is open."""

    def __init__(self, writer: kafka.Transactions, settings: Settings, partitions: dict[str, int]) -> None:
        self._writer = writer
        self._settings = settings
        self._partitions = partitions
        self._names = {topic: settings.topic(topic) for topic in partitions}
        self._chunk_bytes = settings.chunk_bytes
        self._streams: dict[tuple[str, tuple[tuple[str, bytes | None], ...]], Stream] = {}
        self.records = 0
        self.bytes = 0
        self.messages: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.counted: Counter[Metric] = Counter()

    def stream(self, topic: str, headers: RawHeaders = ()) -> "Stream":
        """A way to send records to a topic in frames: one for the same topic and headers, which keeps their order."""
        known = (topic, tuple(headers))
        if known not in self._streams:
            self._streams[known] = Stream(self, topic, self._partitions[topic], headers, self._settings)
        return self._streams[known]

    def send(
        self, topic: str, key: bytes | None, value: bytes, headers: RawHeaders, partition: int | None = None
    ) -> None:
        """Send one message; one over the chunk size goes in chunks, all to one partition."""
        if partition is None:
            count = self._partitions[topic]
            partition = partition_of(key, count) if key is not None else random.randrange(count)  # noqa: S311 - no secret
        if len(value) <= self._chunk_bytes:
            self.send_each(topic, ((key, value),), headers, partition)
            return
        self.bytes += len(value)
        self.messages[topic] += self._writer.send_in_chunks(
            self._names[topic], io.BytesIO(value), len(value), self._chunk_bytes, key, partition, headers
        )

    def send_each(
        self, topic: str, messages: Sequence[tuple[bytes | None, bytes]], headers: RawHeaders, partition: int
    ) -> None:
        """Send messages, a key and a value each, none over the chunk size."""
        self._writer.send_each(self._names[topic], messages, partition, headers)
        self.messages[topic] += len(messages)
        self.bytes += sum(len(value) for _, value in messages)

    def dead_letter(self, letter: DeadLetter) -> None:
        """Send an entry to the dead letters, keyed by its record_id, with as much of its key and headers as fits."""
        letter = fitted(letter)
        self.send(DEAD_LETTERS, letter.record_id.encode(), letter.value, letter.to_headers())
        self.dead[letter.reason] += 1
        log.warning(
            "dead letter", reason=letter.reason, detail=letter.detail, record_id=letter.record_id, run_id=letter.run_id
        )

    def count(self, metric: Metric, by: int = 1) -> None:
        """Count on a metric if and when the transaction commits."""
        self.counted[metric] += by

    def flush(self) -> None:
        """Close every open frame."""
        for stream in self._streams.values():
            stream.flush()

    def clear(self) -> None:
        """Forget what is in open frames and all counts, after an abort or a commit."""
        for stream in self._streams.values():
            stream.clear()
        self.records = 0
        self.bytes = 0
        self.messages.clear()
        self.dead.clear()
        self.counted.clear()


class Stream:
    """Records on their way to one topic, a frame builder a partition."""

    _KEYS = 100_000  # cached partitions of keys; beyond this the cache starts anew

    def __init__(self, out: Output, topic: str, partitions: int, headers: RawHeaders, settings: Settings) -> None:
        self._out = out
        self._topic = topic
        self._count = partitions
        self._lone = list(headers)  # a frame of one record is one JSON value, and needs no content-type to say so
        self._headers = [(H_CONTENT_TYPE, NDJSON.encode()), *headers]
        self._settings = settings
        self._single = settings.frame_records == 1
        self._partition_of: dict[bytes, int] = {}
        self.clear()

    def add(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Send records, a key and a line each, every one to the partition of its key."""
        places = self._partition_of
        if len(places) > self._KEYS:
            places.clear()
        found: list[list[tuple[bytes, bytes]]] = [[] for _ in range(self._count)]
        for record in records:
            key = record[0]
            partition = places.get(key)
            if partition is None:
                partition = places[key] = partition_of(key, self._count)
            found[partition].append(record)
        for partition, some in enumerate(found):
            if some:
                self._add(partition, some)

    def add_to(self, partition: int, key: bytes | None, lines: Sequence[bytes]) -> None:
        """Send records that share a key, or have none, to this partition."""
        self._add(partition, [(key, line) for line in lines])

    def flush(self) -> None:
        """Close every open frame."""
        for partition, builder in enumerate(self._builders):
            self._send(partition, builder.flush())

    def clear(self) -> None:
        """Forget what is in open frames."""
        self._builders = [
            FrameBuilder(self._settings.frame_records, self._settings.frame_bytes) for _ in range(self._count)
        ]

    def _add(self, partition: int, records: Sequence[tuple[bytes | None, bytes]]) -> None:
        self._out.records += len(records)
        if not self._single:
            self._send(partition, self._builders[partition].add(records))
        elif max((len(line) for _, line in records), default=0) <= self._settings.chunk_bytes:
            self._out.send_each(self._topic, records, self._lone, partition)
        else:
            for key, line in records:
                self._out.send(self._topic, key, line, self._lone, partition)

    def _send(self, partition: int, frames: Sequence[Frame]) -> None:
        for key, frame in frames:
            self._out.send(self._topic, key, frame, self._headers, partition)


class Stage:
    """A named stage: runs sessions with Kafka one after another, each from the committed offsets."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        reads: str,
        writes: Sequence[str],
        state: str,
        transform: Transform,
        instance_id: str,
        spool: Spool,
    ) -> None:
        self.name = name
        self.settings = settings
        self.reads = reads
        self.writes = writes
        self.state = state
        self.transform = transform
        self.instance_id = instance_id
        self.spool = spool
        self.assigned: set[int] = set()
        self.progressed = time.monotonic()
        self.poison = PoisonLimit(
            settings.dead_letter_stop_ratio, settings.dead_letter_stop_count, settings.dead_letter_stop_seconds
        )
        self.stopped: str | None = None  # why it takes no more
        metrics.STAGE_STOPPED.labels(name).set(0)

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop. A client beyond repair is replaced; a second within a minute ends the process.

        Where too much is poison it takes no more, and waits to be told to stop.
        """
        fenced = -60.0
        while not stopping.is_set():
            if self.stopped is not None:
                stopping.wait()
                break
            session: _Session | None = None
            try:
                session = _Session(self)
                session.run(stopping)
            except FencedError as error:
                if time.monotonic() - fenced < 60.0:
                    raise
                fenced = time.monotonic()
                log.warning("fenced, beginning again with new clients", stage=self.name, error=str(error))
            except TooMuchPoisonError as error:
                self.stopped = str(error)
                metrics.STAGE_STOPPED.labels(self.name).set(1)
                log.critical("stopped: too much is poison", stage=self.name, error=self.stopped)
            except (KafkaUnavailableError, AbortRequiredError) as error:
                log.warning("kafka failed, beginning again", stage=self.name, error=str(error))
                stopping.wait(1.0)
            finally:
                self.assigned.clear()
                metrics.ASSIGNED_PARTITIONS.labels(self.name).set(0)
                if session is not None:
                    session.close()

    def problems(self) -> list[str]:
        if self.stopped is not None:
            return [self.stopped]
        if not self.assigned:
            return ["no partitions are assigned yet"]
        idle = time.monotonic() - self.progressed
        return [f"no progress for {idle:.0f} s"] if idle > self.settings.stall_seconds else []


class _Session:
    """One consumer, one transactional producer, and what is in hand between them."""

    def __init__(self, stage: Stage) -> None:
        settings = stage.settings
        self._stage = stage
        self._settings = settings
        self._transform = stage.transform
        self._topic = settings.topic(stage.reads)
        self._state_topic = settings.topic(stage.state)
        self._topics = kafka.Topics(settings, stage.name)
        self._writer = kafka.Transactions(settings, stage.name, f"{stage.name}-{stage.instance_id}")
        self._reader = kafka.Reader(settings, stage.name, stage.name, subscribes=True)
        self._reading = Reading(
            stage.name,
            stage.reads,
            self._topic,
            self._reader,
            Assembler(stage.spool, settings.entry_max_bytes, unknown_version=settings.unknown_chunk_version),
        )
        self._out: Output | None = None
        self._topic_id = ""
        self._committed: dict[int, tuple[int, Watermark]] = {}  # where to resume, as Kafka has it
        self._payloads: list[Payload] = []
        self._stopping = threading.Event()
        self._leaving = False
        self._rewinds = 0
        self._begun = 0.0
        self._records = 0
        self._messages = 0
        self._bytes = 0
        self._measured = 0.0

    # life

    def run(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        if not self._writer.prepare(stopping):
            return
        self._out = self._open_output(stopping)
        if self._out is None:
            return
        self._reader.subscribe(self._topic, self._on_assign, self._on_revoke, self._on_lost)
        aborts = 0
        while not stopping.is_set():
            try:
                aborts = 0 if self._turn() else aborts
            except AbortRequiredError as error:
                log.warning("transaction aborted, its work is done again", stage=self._stage.name, error=str(error))
                self._rewind()
                aborts += 1
                if aborts >= ABORTS_MAX:
                    raise KafkaUnavailableError(f"{aborts} aborts in a row; the clients are made anew") from error
                stopping.wait(min(2.0, 0.05 * 2**aborts))
        if self._writer.open:
            self._commit()

    def close(self) -> None:
        """Leave the group and let the clients go; what was not committed is done again by whoever comes next."""
        self._leaving = True  # what a failure left half done must not be committed by the callback
        try:
            self._reader.close()
        except (AbortRequiredError, KafkaUnavailableError, FencedError) as error:
            log.warning("left the group without a last commit", stage=self._stage.name, error=str(error))
        for partition in list(self._reading.next):
            self._release(partition)
        self._drop_payloads()
        self._writer.discard()

    def _open_output(self, stopping: threading.Event) -> Output | None:
        names = {name: self._settings.topic(name) for name in {*self._stage.writes, DEAD_LETTERS}}
        while not stopping.is_set():
            try:
                counts = self._topics.partitions(list(names.values()))
                self._topics.refuse_compacted([self._topic])
            except KafkaUnavailableError as error:
                log.warning("waiting for the topics", stage=self._stage.name, error=str(error))
                stopping.wait(1.0)
            else:
                return Output(self._writer, self._settings, {name: counts[full] for name, full in names.items()})
        return None

    # one turn

    def _turn(self) -> bool:
        """Fetch, take, commit when it is time; returns whether a transaction was committed."""
        # with a transaction open, a few milliseconds' patience, so that a lone entry is not kept waiting for company
        patience = 0.004 if self._writer.open else 0.1
        taken = self._take(self._fetch(patience))
        now = time.monotonic()
        committed = False
        if self._writer.open:
            full = self._records >= self._settings.commit_records
            old = now - self._begun >= self._settings.commit_interval_ms / 1000
            if full or old or not taken:
                self._commit()
                self._reading.refetch()
                committed = True
        elif not taken:
            self._stage.progressed = now
        if now - self._measured >= 1.0:
            self._measure(now)
            self._check_topic()
            self._expire(now)
            self._reading.refetch()
        return committed

    def _fetch(self, patience: float) -> list[kafka.Consumed]:
        """What is there; nothing when a rebalance within the fetch went back to what is committed.

        What came then may be from before that or after it, so all partitions are sought to their places again.
        """
        rewinds = self._rewinds
        messages = self._reader.fetch(self._settings.fetch_records, patience)
        if rewinds == self._rewinds:
            return messages
        for partition, following in self._reading.next.items():
            self._reader.seek(self._topic, partition, following)
        return []

    def _take(self, messages: Sequence[kafka.Consumed]) -> int:
        """Assemble, transform and send; returns how many messages were taken, ends and errors not counted."""
        assert self._out is not None
        batch: list[Message] = []
        reading = self._reading
        taken = size = skip = upcoming = timestamp = 0
        current = -1  # messages come in runs of one partition, mostly with the same headers
        plain: RawHeaders = NO_HEADERS  # headers without a chunk
        for message in messages:  # what Reading.note does, without a call or an entry of a dict for each message
            error = message.error()
            if error is not None:
                if is_end(error, self._stage.name):
                    reading.ended(message.partition())
                    reading.noted(current, upcoming, timestamp)
                    current = -1
                continue
            partition = message.partition()
            if partition != current:
                reading.noted(current, upcoming, timestamp)
                current = -1
                if partition not in reading.next:
                    continue
                current = partition
                upcoming = reading.next[partition]
                skip = reading.delivered.get(partition, 0)
                reading.at_end.pop(partition, None)
            offset, value = message.offset(), message.value() or b""
            if offset < upcoming:
                reading.noted(partition, upcoming, timestamp)
                skip = reading.went_back(partition)
            timestamp = message.timestamp()[1]
            upcoming = offset + 1
            taken += 1
            size += len(value)
            headers = message.headers() or NO_HEADERS
            if headers == plain:
                headers = plain  # the same object, so that a transform need not compare again
            elif not is_chunk(headers):
                plain = headers
            else:
                for result in reading.feed(message, headers):
                    self._arrived(result, batch)
                continue
            if offset >= skip:
                batch.append(Message(partition, offset, timestamp, message.key(), value, headers))
        reading.noted(current, upcoming, timestamp)
        if not taken:
            return 0
        self._messages += taken
        self._bytes += size
        self._begin()
        if batch:
            begun = time.perf_counter()
            self._records += self._transform.handle(batch, self._topic_id, self._out)
            metrics.PROCESSING_DURATION.labels(self._stage.name).observe(time.perf_counter() - begun)
            self._writer.poll()
        return taken

    def _begin(self) -> None:
        if not self._writer.open:
            self._writer.begin()
            self._begun = time.monotonic()

    def _arrived(self, found: Whole | Poisoned, batch: list[Message]) -> None:
        if isinstance(found, Poisoned):
            self._begin()
            self._poison(found)
            return
        self._payloads.append(found.payload)
        batch.append(
            Message(found.partition, found.offset, found.timestamp_ms, found.key, b"", found.headers, found.payload)
        )

    def _poison(self, found: Poisoned) -> None:
        assert self._out is not None
        self._out.dead_letter(poisoned_letter(found, self._stage.name, self._topic, self._topic_id))

    def _expire(self, now: float) -> None:
        """End chunked messages whose rest never came."""
        for poisoned in self._reading.expire(now):
            self._begin()
            self._poison(poisoned)

    # transactions

    def _commit(self) -> None:
        out = self._out
        assert out is not None
        dead = out.dead.total()
        if too_much := self._stage.poison.exceeded(self._records, dead, time.monotonic()):
            self._writer.abort()
            raise TooMuchPoisonError(
                f"{too_much} (DEAD_LETTER_STOP_RATIO): correct the source, then restart, or set the ratio to 0 to go on"
            )
        self._transform.finish(out)
        out.flush()
        for partition, key, value in self._transform.changed():
            self._writer.send(self._state_topic, value, key, partition)
        moved = {}
        for partition in self._reading.next:
            place = self._reading.place(partition)
            if place != self._committed.get(partition):
                moved[partition] = place
        positions = {
            partition: Position(offset, f"{self._topic_id} {encode_watermark(watermark)}")
            for partition, (offset, watermark) in moved.items()
        }
        self._writer.commit(self._topic, positions, self._reader.group())
        self._committed.update(moved)
        self._stage.poison.add(self._records, dead, time.monotonic())
        self._count(out)
        self._drop_payloads()
        out.clear()
        self._records = self._messages = self._bytes = 0
        self._stage.progressed = time.monotonic()

    def _rewind(self) -> None:
        """Abort, and go back to what is committed, with the state of then."""
        self._rewinds += 1
        self._writer.abort()
        if self._out is not None:
            self._out.clear()
        self._drop_payloads()
        self._records = self._messages = self._bytes = 0
        partitions = list(self._reading.next)
        for partition in partitions:
            offset, watermark = self._committed[partition]
            self._transform.forget(partition)
            self._reading.begin(partition, offset, watermark)
        self._restore(partitions)
        for partition in partitions:
            self._reader.seek(self._topic, partition, self._committed[partition][0])

    def _drop_payloads(self) -> None:
        for payload in self._payloads:
            payload.release()
        self._payloads.clear()

    # assignment

    def _on_assign(self, partitions: list[int]) -> dict[int, int]:
        metrics.REBALANCES.labels(self._stage.name, "assigned").inc()
        if not partitions:
            return {}
        self._settle(partitions=[])
        self._topic_id = self._topics.ids([self._topic])[self._topic]
        committed = self._reader.committed(self._topic, partitions, self._stopping)
        places = [(self._topic, partition) for partition in partitions]
        starts, ends = self._topics.starts(places), self._topics.ends(places)
        for place in places:
            partition = place[1]
            self._committed[partition] = self._place(partition, committed.get(partition), starts[place], ends[place])
            self._reading.begin(partition, *self._committed[partition])
        self._restore(partitions)
        self._stage.assigned = set(self._reading.next)
        log.info("partitions assigned", stage=self._stage.name, partitions=sorted(self._reading.next))
        return {partition: self._committed[partition][0] for partition in partitions}

    def _place(self, partition: int, committed: Position | None, start: int, end: int) -> tuple[int, Watermark]:
        """Where to begin, by what was committed: at the start of a topic that was made anew since.

        Raises KafkaUnavailableError where more was read than the partition has: a new leader may not know its end yet,
        and if it stays so, the brokers have lost what was acknowledged.
        """
        if committed is None:
            return start, Watermark(start)
        topic_id, _, text = (committed.metadata or "").partition(" ")
        watermark = decode_watermark(text)
        if watermark is not None and topic_id != self._topic_id:
            log.warning("topic was made anew, beginning at its start", topic=self._topic, partition=partition)
            return start, Watermark(start)
        if committed.offset < start:
            metrics.ERRORS.labels(self._stage.name, "retention").inc()
            log.error("retention removed what was not read yet", topic=self._topic, partition=partition,
                      from_offset=committed.offset, to_offset=start)  # fmt: skip
        if committed.offset > end:
            metrics.ERRORS.labels(self._stage.name, "truncated").inc()
            raise KafkaUnavailableError(
                f"{self._topic}, partition {partition}, ends at {end}, but was read up to {committed.offset}: where it "
                "stays so, the brokers have lost what they had acknowledged; docs/operations.md, Brokers that lose"
            )
        begin = max(committed.offset, start)
        return begin, watermark or Watermark(begin)

    def _check_topic(self) -> None:
        """Begin again when the topic was deleted and made anew: its offsets mean other messages now."""
        try:
            topic_id = self._topics.ids([self._topic], patience=1.0)[self._topic]
        except KafkaUnavailableError:
            return  # the watch tells of that
        if self._reading.next and topic_id != self._topic_id:
            raise KafkaUnavailableError(f"{self._topic} was made anew")

    def _restore(self, partitions: Sequence[int]) -> None:
        """Give the transform its state back: the last value of each key, in the order of the last changes."""
        places = [(self._state_topic, partition) for partition in partitions]
        last: dict[tuple[int, bytes], bytes | None] = {}
        for message in kafka.read_to_end(self._settings, self._topics, places, self._stopping):
            key = message.key()
            if key is not None:
                place = (message.partition(), key)
                last.pop(place, None)
                last[place] = message.value()
        for (partition, key), value in last.items():
            if value is not None:
                try:
                    self._transform.restore(partition, key, value)
                except StateError as error:
                    raise StateError(f"{self._state_topic}, partition {partition}, key {key!r}: {error}") from None
        if last:
            log.info("state restored", stage=self._stage.name, partitions=len(places), entries=len(last))

    def _on_revoke(self, partitions: list[int]) -> None:
        metrics.REBALANCES.labels(self._stage.name, "revoked").inc()
        self._settle(partitions)
        self._give_up(partitions)

    def _settle(self, partitions: Sequence[int]) -> None:
        """Commit what is in hand before the assignment changes; these partitions are given up even if that fails."""
        if not self._writer.open or self._leaving:
            return
        try:
            self._commit()
        except AbortRequiredError as error:
            log.warning("could not commit before a rebalance", stage=self._stage.name, error=str(error))
            self._give_up(partitions)
            self._rewind()

    def _on_lost(self, partitions: list[int]) -> None:
        metrics.REBALANCES.labels(self._stage.name, "lost").inc()
        log.warning("partitions lost", stage=self._stage.name, partitions=sorted(partitions))
        self._give_up(partitions)
        if self._writer.open and not self._leaving:
            self._rewind()

    def _give_up(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._release(partition)
        self._stage.assigned = set(self._reading.next)

    def _release(self, partition: int) -> None:
        self._reading.release(partition)
        self._committed.pop(partition, None)
        self._transform.forget(partition)

    # measures

    def _count(self, out: Output) -> None:
        name = self._stage.name
        metrics.MESSAGES_IN.labels(name, self._stage.reads).inc(self._messages)
        metrics.RECORDS_IN.labels(name).inc(self._records)
        metrics.BYTES_IN.labels(name).inc(self._bytes)
        metrics.RECORDS_OUT.labels(name).inc(out.records)
        metrics.BYTES_OUT.labels(name).inc(out.bytes)
        for topic, number in out.messages.items():
            metrics.MESSAGES_OUT.labels(name, topic).inc(number)
        for reason, number in out.dead.items():
            metrics.DEAD_LETTERS.labels(name, reason).inc(number)
        for metric, number in out.counted.items():
            metric.inc(number)
        metrics.LAST_PROGRESS.labels(name).set_to_current_time()

    def _measure(self, now: float) -> None:
        self._measured = now
        name = self._stage.name
        behind = self._reading.measure()
        metrics.ASSIGNED_PARTITIONS.labels(name).set(len(self._reading.next))
        metrics.CHUNK_OPEN.labels(name).set(self._reading.assembler.open)
        if not self._writer.open and not behind:
            metrics.LAST_PROGRESS.labels(name).set_to_current_time()
