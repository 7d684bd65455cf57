"""What chunks cost: large payloads in chunks beside the same bytes in plain messages of the same size.

Both ways take turns, payload by payload, and each pair gives one ratio: so what slows the machine down slows both. A
payload is one transaction, written from the spool as ingestion does and put together in the spool as a stage does.
"""

import hashlib
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.entries import frames
from benchmarks.figures import Figure, Run, Target
from benchmarks.kafka_probe import MeasurementError
from benchmarks.rig import Rig
from shared import kafka, metrics
from shared.chunking import Assembler, Watermark, Whole, split
from shared.config import Settings
from shared.reading import Reading, is_end
from shared.spool import Entry, Spool
from shared.stage import NO_HEADERS, Message, RawHeaders, _Session
from shared.topics import H_CHUNK, PROCESSED_METRICS, RAW_LOGS, STANDARDIZED_LOGS

PAYLOAD: Final = 64 * 2**20
PAIRS: Final = 8
_CHUNKED, _PLAIN, _SMALL = RAW_LOGS, STANDARDIZED_LOGS, PROCESSED_METRICS  # topics of equal settings


class Chunks:
    """Throughput of one producer and of one reader."""

    name = "chunks"
    title = f"Payloads of {PAYLOAD // 2**20} MiB in chunks, beside the same bytes in plain messages of the same size"
    figures: Sequence[Figure] = (
        Figure("producer_ratio", "producer, ratio to plain", "", 2, Target(0.90, "at least")),
        Figure("consumer_ratio", "reader, ratio to plain", "", 2, Target(0.65, "at least")),
        Figure("small_ratio", "small plain messages, ratio to a loop without chunks", "", 3, Target(0.98, "at least")),
        Figure("producer_mib", "producer, chunked", "MiB/s"),
        Figure("producer_plain_mib", "producer, plain", "MiB/s"),
        Figure("consumer_mib", "reader, chunked", "MiB/s"),
        Figure("consumer_plain_mib", "reader, plain", "MiB/s"),
        Figure("producer_cpu_ratio", "producer, ratio of CPU time, plain to chunked", "", 2),
        Figure("consumer_cpu_ratio", "reader, ratio of CPU time, plain to chunked", "", 2),
    )

    def run(self, rig: Rig) -> Run:
        with rig.stack() as stack:
            settings = Settings(
                _env_file=None, kafka_bootstrap=stack.broker.bootstrap, topic_prefix=stack.prefix, data_dir=stack.folder
            )
            spool = Spool(stack.folder / "spool", settings.spool_max_bytes)
            payload = spool.create()
            rng = random.Random(rig.seed)
            for _ in range(PAYLOAD // 2**20):
                payload.append(rng.randbytes(2**20))
            writing = _pairs(_writer(settings, payload, chunked=True), _writer(settings, payload, chunked=False))
            reading = _pairs(_reader(settings, payload, chunked=True), _reader(settings, payload, chunked=False))
            small = _small(rig, settings, spool)
        return {**_figures("producer", writing), **_figures("consumer", reading), "small_ratio": small}


Way = Callable[[], None]
Cost = tuple[float, float]  # seconds on the clock, of CPU


def _pairs(chunked: Way, plain: Way) -> list[tuple[Cost, Cost]]:
    """What a payload costs each way, as often as PAIRS says, after one that warms up; each begins every other pair."""
    chunked()
    plain()
    found = []
    for number in range(PAIRS):
        if number % 2:
            second = _cost(plain)
            found.append((_cost(chunked), second))
        else:
            found.append((_cost(chunked), _cost(plain)))
    return found


def _cost(way: Way) -> Cost:
    begun, used = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - begun, time.process_time() - used


def _figures(who: str, pairs: Sequence[tuple[Cost, Cost]]) -> Run:
    mib = PAYLOAD / 2**20
    return {
        f"{who}_ratio": statistics.median(plain[0] / chunked[0] for chunked, plain in pairs),
        f"{who}_cpu_ratio": statistics.median(plain[1] / chunked[1] for chunked, plain in pairs),
        f"{who}_mib": statistics.median(mib / chunked[0] for chunked, _ in pairs),
        f"{who}_plain_mib": statistics.median(mib / plain[0] for _, plain in pairs),
    }


def _writer(settings: Settings, payload: Entry, *, chunked: bool) -> Way:
    """Writes the payload in a transaction."""
    topic = settings.topic(_CHUNKED if chunked else _PLAIN)
    writer = kafka.Transactions(settings, "bench", f"bench-{topic}")
    writer.prepare(threading.Event())
    size = settings.chunk_bytes

    def in_chunks() -> None:
        writer.begin()
        with payload.open() as source:
            for header, value in split(source, payload.size, size, os.urandom(16), 1):
                writer.send(topic, value, b"key", 0, [(H_CHUNK, header)])
        writer.commit()

    def in_messages() -> None:
        writer.begin()
        with payload.open() as source:
            while value := source.read(size):
                writer.send(topic, value, b"key", 0)
        writer.commit()

    return in_chunks if chunked else in_messages


def _reader(settings: Settings, payload: Entry, *, chunked: bool) -> Way:
    """Reads one payload more."""
    topic = settings.topic(_CHUNKED if chunked else _PLAIN)
    reader = kafka.Reader(settings, "bench", "bench", subscribes=False)
    reader.assign({(topic, 0): 0})
    spool = Spool(Path(settings.data_dir) / f"spool-{topic}", settings.spool_max_bytes)
    assembler = Assembler(spool, settings.entry_max_bytes)
    digest = hashlib.sha256(payload.read()).digest()
    checked = False
    messages = _messages(reader)

    def in_chunks() -> None:
        nonlocal checked
        for message in messages:
            headers = message.headers() or ()
            place = message.partition(), message.offset(), message.timestamp()[1]
            for found in assembler.feed(*place, message.key(), message.value(), headers):
                if not isinstance(found, Whole):
                    raise MeasurementError(found.detail)
                if not checked and hashlib.sha256(found.payload.read()).digest() != digest:
                    raise MeasurementError("the payload came out altered")
                checked = True  # of the payload that warms up
                found.payload.release()
                return

    def in_messages() -> None:
        left = payload.size
        for message in messages:
            message.headers()
            left -= len(message.value() or b"")
            if not left:
                return

    return in_chunks if chunked else in_messages


def _messages(reader: kafka.Reader) -> Iterator[kafka.Consumed]:
    """One message after the other. Raises MeasurementError when none comes."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for message in reader.fetch(100, 1.0):
            if message.error() is None:
                until = time.monotonic() + 60
                yield message
    raise MeasurementError("a payload could not be read to its end")


# small messages


class _Nothing:
    """A transform, a writer and an output that do nothing, so that what is measured is the loop."""

    open = True

    def handle(self, batch: Sequence[Message], _: str, __: object) -> int:
        return len(batch)

    def poll(self) -> None:
        pass


class _Ours(_Session):
    """The stage's loop over messages, without its clients."""

    def __init__(self, reading: Reading) -> None:
        nothing: Any = _Nothing()
        self._stage = nothing
        self._stage.name = "bench"
        self._out = self._writer = self._transform = nothing
        self._reading = reading
        self._topic_id = ""
        self._records = self._messages = self._bytes = 0

    def take(self, messages: Sequence[kafka.Consumed]) -> int:
        return self._take(messages)


class _WithoutChunks(_Ours):
    """The same loop if there were no chunks: nothing is looked for in headers, and nothing is read twice."""

    def _take(self, messages: Sequence[kafka.Consumed]) -> int:
        assert self._out is not None
        batch: list[Message] = []
        reading = self._reading
        taken = size = upcoming = timestamp = 0
        current = -1
        plain: RawHeaders = NO_HEADERS
        for message in messages:
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
                reading.at_end.pop(partition, None)
            offset, value = message.offset(), message.value() or b""
            timestamp = message.timestamp()[1]
            upcoming = offset + 1
            taken += 1
            size += len(value)
            headers = message.headers() or NO_HEADERS
            if headers == plain:
                headers = plain
            else:
                plain = headers
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


def _small(rig: Rig, settings: Settings, spool: Spool) -> float:
    """CPU time of the reading thread for a message of one entry, without chunks over ours; batches take turns."""
    topic = settings.topic(_SMALL)
    rig.probe.fill(topic, frames(rig.entries, 1))
    reader = kafka.Reader(settings, "bench", "bench", subscribes=False)
    partitions = range(settings.partitions)
    reader.assign({(topic, partition): 0 for partition in partitions})
    loops = []
    for kind in (_Ours, _WithoutChunks):
        reading = Reading("bench", _SMALL, topic, reader, Assembler(spool, settings.entry_max_bytes))
        for partition in partitions:
            reading.begin(partition, 0, Watermark(0))
        loops.append(kind(reading))
    costs: tuple[list[float], list[float]] = ([], [])
    taken = turn = 0
    until = time.monotonic() + 60 + rig.records / 1_000
    while taken < rig.records:
        begun = time.thread_time()
        count = loops[turn].take(reader.fetch(settings.fetch_records, 0.1))
        used = time.thread_time() - begun
        if count:
            taken += count
            costs[turn].append(used / count)
            turn = 1 - turn
        if time.monotonic() > until:
            raise MeasurementError(f"{taken} of {rig.records} messages in time")
    reader.close()
    ours, without = costs
    return statistics.median(without) / statistics.median(ours)
