"""Peers at the same work: other stream processors map the same entries, from raw-logs to standardized-logs.

Each runs in a process of its own, from a program under benchmarks/peers, with one record a message in and out. The
clock is the broker's, as for our own stage. CPU time is taken from the first look that finds something written to the
last that finds something more, and the records of that time are counted by the broker's clock, too.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import preparation
from benchmarks.entries import frames
from benchmarks.figures import Figure, Run
from benchmarks.kafka_probe import Appended, KafkaProbe, MeasurementError
from benchmarks.rig import Rig
from benchmarks.usage import Meter, Reading, peak_bytes
from native.kafka import ROOT, java
from shared.topics import NDJSON, RAW_LOGS, STANDARDIZED_LOGS
from standardization.standardize import Arrival, Standardizer
from tests.integration.stack import Stack

EXACTLY_ONCE: Final = "exactly once"
AT_LEAST_ONCE: Final = "at least once"

_LOOK_SECONDS: Final = 0.2
_STILL_SECONDS: Final = 1.0  # nothing written for so long: it is through, or waits for its commit
_COMPARED: Final = 200  # records of each partition of a run that are compared with our own mapping's
_WARM_UP: Final = 500_000  # records that Kafka Streams maps before it is timed, whatever a run has
_JVM: Final = ("-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer works."""

    bootstrap: str
    raw: str
    standardized: str
    group: str
    folder: Path  # empty, and the peer's own

    @classmethod
    def within(cls, stack: Stack) -> "Place":
        folder = stack.folder / "peer"
        folder.mkdir()
        return cls(
            stack.broker.bootstrap,
            stack.prefix + RAW_LOGS,
            stack.prefix + STANDARDIZED_LOGS,
            stack.prefix + "peer",
            folder,
        )


@dataclass(frozen=True)
class Peer:
    """A program in Python that reads one topic and writes the other, until it is terminated."""

    name: str
    label: str
    guarantee: str
    module: str  # in benchmarks/peers
    environment: str | None = None  # of benchmarks/preparation.py; None: our own
    arguments: tuple[str, ...] = ()
    most_records: int | None = None  # some ten seconds' worth, where a million would take too long
    maps: bool = True  # else it copies

    @property
    def title(self) -> str:
        return f"{self.label}, {self.guarantee}, one record a message"

    @property
    def figures(self) -> Sequence[Figure]:
        return FIGURES

    def prepare(self, say: Say) -> None:
        """Make what it runs in, where that is missing."""
        if self.environment is not None:
            preparation.python_of(self.environment, say)

    def run(self, rig: Rig) -> Run:
        with rig.stack() as stack:
            place = Place.within(stack)
            records = _fill(rig, place, rig.entries[: self.most_records])
            started = time.time()
            with _running(self._command(place), place) as process:
                measured = self._timed(rig, place, process, records)
            start_seconds = measured.pop("first") - started
            return measured | {"start_seconds": start_seconds}

    def _command(self, place: Place) -> list[str]:
        python = sys.executable if self.environment is None else str(preparation.python_of(self.environment, _silent))
        told = [place.bootstrap, place.raw, place.standardized, place.group, str(place.folder)]
        return [python, "-m", f"benchmarks.peers.{self.module}", *told, *self.arguments]

    def _timed(self, rig: Rig, place: Place, process: "subprocess.Popen[bytes]", records: int) -> dict[str, float]:
        """Wait until all is in standardized-logs, check it, and tell how it came; `first` is when, in Unix seconds."""
        meter = Meter({"peer": process.pid, "kafka": rig.broker_pid})
        (began, before), (ended, after) = _watch(rig.probe, place, process, records, meter)
        appended = _committed(rig.probe, place, process, records)
        if appended.records < records or (self.guarantee == EXACTLY_ONCE and appended.records != records):
            raise MeasurementError(f"{self.name}: of {records} records {appended.records} came out; see {place.folder}")
        if self.maps:
            _compare(self.name, rig, place)
        if appended.rate is None:
            raise MeasurementError(f"{self.name}: {records} records are too few to tell a rate")
        between = sum(count for ms, count in appended.by_ms.items() if began < ms / 1000 <= ended)
        used = after - before
        return {
            "records": records,
            "first": appended.first_ms / 1000,
            "rate": appended.rate,
            "rate_per_cpu_second": between / used.processes["peer"],
            "kafka_rate_per_cpu_second": between / max(used.processes["kafka"], 0.01),
            "peak_mb": peak_bytes(process.pid) / 1e6,
            "cores_of_others": used.cores_of_others,
        }


FIGURES: Final = (
    Figure("records", "records of a run", "records"),
    Figure("rate", "rate", "records/s"),
    Figure("rate_per_cpu_second", "records per CPU second of the process", "records"),
    Figure("kafka_rate_per_cpu_second", "records per CPU second of Kafka", "records"),
    Figure("peak_mb", "peak resident memory", "MB"),
    Figure("start_seconds", "process started to first output", "s", 2),
    Figure("cores_of_others", "cores busy with other things", "cores", 2),
)


@dataclass(frozen=True)
class KafkaStreams(Peer):
    """The program in Java. Its JVM maps other topics first; only its start-up is that of a cold one."""

    threads: int = 1

    def prepare(self, say: Say) -> None:
        preparation.jars_of_streams(say)

    def run(self, rig: Rig) -> Run:
        with rig.stack() as warm, rig.stack() as stack:
            first, place = Place.within(warm), Place.within(stack)
            repeated = rig.entries * -(-_WARM_UP // rig.records)
            warming = _fill(rig, first, repeated[:_WARM_UP])
            records = _fill(rig, place, rig.entries)
            started = time.time()
            with _running(self._command_of(first, place), place) as process:
                meter = Meter({"peer": process.pid})
                _watch(rig.probe, first, process, warming, meter)
                cold = _committed(rig.probe, first, process, warming)
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
                measured = self._timed(rig, place, process, records)
            del measured["first"]
            return measured | {"start_seconds": cold.first_ms / 1000 - started}

    def _command_of(self, first: Place, place: Place) -> list[str]:
        libs = preparation.jars_of_streams(_silent)
        topics = [part for each in (first, place) for part in (each.group, each.raw, each.standardized)]
        told = [place.bootstrap, str(place.folder), str(self.threads), *topics]
        return [java(), *_JVM, "-cp", f"{libs}/*", "sluice.Main", *told]


CEILING: Final = Peer("ceiling", "confluent-kafka alone, nothing mapped", EXACTLY_ONCE, "bare", maps=False)
QUIX: Final = Peer("quix", "Quix Streams 3.28", EXACTLY_ONCE, "quix", "quix", ("exactly-once",))
STREAMS: Final = KafkaStreams("kafka-streams", "Kafka Streams 4.3 (Java), one thread", EXACTLY_ONCE, "")
PEERS: Final[Sequence[Peer]] = (
    CEILING,
    STREAMS,
    KafkaStreams("kafka-streams-2", "Kafka Streams 4.3 (Java), two threads", EXACTLY_ONCE, "", threads=2),
    QUIX,
    Peer("quix-at-least-once", "Quix Streams 3.28", AT_LEAST_ONCE, "quix", "quix", ("at-least-once",)),
    Peer("bytewax", "Bytewax 0.21", AT_LEAST_ONCE, "bytewax", "bytewax"),
    Peer("arroyo", "sentry-arroyo 2.48", AT_LEAST_ONCE, "arroyo", "arroyo", most_records=100_000),
    Peer("faust", "faust-streaming 0.15", AT_LEAST_ONCE, "faust", "faust", most_records=20_000),
    Peer(
        "faststream",
        "FastStream 0.7, in batches",
        AT_LEAST_ONCE,
        "faststream_confluent",
        "faststream",
        most_records=40_000,
    ),
)


def _fill(rig: Rig, place: Place, entries: Sequence[bytes]) -> int:
    """Put these entries on raw-logs, one a message; how many they are."""
    rig.probe.fill(place.raw, frames(entries, 1))
    os.sync()  # what filling left to be written must not be written within the run
    return len(entries)


@contextmanager
def _running(command: list[str], place: Place) -> "Iterator[subprocess.Popen[bytes]]":
    """The peer as a process, which has ended afterwards; it logs beside its folder, and never reads our settings."""
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "JAVA_HOME"}}
    with place.folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:  # some finish what they hold first; it is no part of what is measured
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


Look = tuple[float, Reading]  # Unix seconds, and what was used by then


def _watch(
    probe: KafkaProbe, place: Place, process: "subprocess.Popen[bytes]", records: int, meter: Meter
) -> tuple[Look, Look]:
    """Wait until so many are written and no more come: the first look that found some, and the last that found more."""
    until = time.monotonic() + 60 + records / 500
    first: Look | None = None
    last: Look | None = None
    known = 0
    with probe.written(place.standardized) as written:
        while True:
            count = written()
            now = (time.time(), meter.read())
            first = now if first is None and count else first
            if count > known or last is None:
                known, last = count, now
            if first is not None and count >= records and now[0] - last[0] > _STILL_SECONDS:
                return first, last
            _expect(process, until, f"{count} of {records} records were written", place)
            time.sleep(_LOOK_SECONDS)


def _committed(probe: KafkaProbe, place: Place, process: "subprocess.Popen[bytes]", records: int) -> Appended:
    """What a reader of committed messages finds, once it is enough."""
    until = time.monotonic() + 30
    while True:
        appended = probe.appended(place.standardized)
        if appended.records >= records:
            return appended
        _expect(process, until, f"{appended.records} of {records} records were committed", place)
        time.sleep(_STILL_SECONDS)


def _expect(process: "subprocess.Popen[bytes]", until: float, state: str, place: Place) -> None:
    log = place.folder.with_suffix(".log")
    if process.poll() is not None:
        raise MeasurementError(f"the peer ended with {process.returncode} when {state}; see {log}")
    if time.monotonic() > until:
        raise MeasurementError(f"in time only {state}; see {log}")


def _compare(name: str, rig: Rig, place: Place) -> None:
    """Raises MeasurementError unless the peer's records say what ours would: it must have done the same work."""
    partitions = rig.probe.partitions(place.raw)
    standardizer = Standardizer(16 << 20, 2 << 20)
    for line in rig.probe.first(place.standardized, _COMPARED):
        found = json.loads(line)
        if not {"record_id", "observed_timestamp", "run_id"} <= found.keys():
            raise MeasurementError(f"{name} writes {line!r}, which is no record")
        _, partition, offset, _ = found["record_id"].split("-")
        entry = rig.entries[int(offset) * partitions + int(partition)]  # as KafkaProbe.fill spread them
        arrival = Arrival(found["observed_timestamp"], run_id=found["run_id"])
        ((_, ours),), _, _ = standardizer.entries(NDJSON, [entry], [found["record_id"]], [arrival])
        if json.loads(ours) != found:
            raise MeasurementError(f"{name} maps {entry!r} to {line!r}, not to {ours!r}")


def _silent(_: str) -> None:
    """What is prepared already says nothing."""
