"""The whole chain, seen from outside: from a push over HTTP to the store, three services and Kafka side by side."""

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.entries import SIZE, write_bodies
from benchmarks.figures import Figure, Run, Target, percentile
from benchmarks.kafka_probe import MeasurementError
from benchmarks.rig import BODY_BYTES, Rig
from benchmarks.usage import Meter, peak_bytes
from tests.integration.stack import ROOT, SERVICES, Stack

CONNECTIONS: Final = 4
LONE_ENTRIES: Final = 100
LOAD_RATE: Final = 40_000  # records a second beside lone entries
LARGE_BYTES: Final = 64 * 1024 * 1024

_PARTIES: Final = (*reversed(SERVICES), "kafka", "client")
_WARM_ENTRIES: Final = 5
_PAUSE_SECONDS: Final = 0.2  # up to this between two lone entries, so that they don't fall in step with a timer


_LOAD_SECONDS: Final = 30.0
_LOAD_WARM_SECONDS: Final = 5.0  # of these, before the first lone entry
_LOAD_EVERY: Final = 0.025  # seconds between two bodies of the load
_LOOK_SECONDS: Final = 0.01  # between two looks at the API under load


@contextmanager
def running(rig: Rig) -> Iterator[Stack]:
    """The three services on the rig's Kafka, with nothing stored."""
    with rig.stack() as stack:
        for name in SERVICES:
            stack.start(name)
        stack.wait_until_ready()
        yield stack


class Burst:
    """Everything pushed at once, until it is all stored."""

    name = "chain"
    title = f"The whole chain, push to stored: bodies of {BODY_BYTES // 10**6} MB over {CONNECTIONS} connections"
    figures: Sequence[Figure] = (
        Figure("rate", "rate, first byte pushed to last row stored", "records/s", target=Target(50_000, "at least")),
        Figure("push_rate", "rate at which ingestion took them", "records/s"),
        Figure("cpu_microseconds", "CPU a record, services and Kafka", "µs", 1),
        *(Figure(f"{name}_cpu_seconds", f"CPU of {name}", "s", 2) for name in _PARTIES),
        *(Figure(f"{name}_peak_mb", f"peak resident memory of {name}", "MB") for name in _PARTIES),
        Figure("cores_of_others", "cores busy with other things", "cores", 2),
    )

    def run(self, rig: Rig) -> Run:
        bodies = rig.bodies
        with running(rig) as stack:
            if stack.summary()["total"]:
                raise MeasurementError("the store is not empty")
            pids = {name: stack.processes[name].pid for name in SERVICES} | {"kafka": rig.broker_pid}
            meter = Meter(pids)
            before = meter.read()
            client = push(stack, str(bodies))
            ended = wait_until_stored(stack, rig.records)
            used = meter.read() - before
            peaks = {name: peak_bytes(pid) for name, pid in pids.items()}
            check(stack, client["accepted"], rig.records, rig.records)
        services_cpu = sum(used.processes.values())
        return {
            "rate": rig.records / (ended - client["begun"]),
            "push_rate": rig.records / (client["ended"] - client["begun"]),
            "cpu_microseconds": services_cpu * 1e6 / rig.records,
            **{f"{name}_cpu_seconds": seconds for name, seconds in used.processes.items()},
            "client_cpu_seconds": client["cpu_seconds"],
            **{f"{name}_peak_mb": peak / 1e6 for name, peak in peaks.items()},
            "client_peak_mb": client["peak_bytes"] / 1e6,
            "cores_of_others": used.cores_of_others,
        }


def push(stack: Stack, folder: str) -> dict[str, Any]:
    """Push every body of the folder from a process of its own; what benchmarks.push told of it."""
    return told(pusher(stack, folder))


def pusher(stack: Stack, folder: str, *options: str) -> "subprocess.Popen[str]":
    """A process of benchmarks.push."""
    command = [sys.executable, "-m", "benchmarks.push", "--url", stack.urls["ingestion"], "--folder", folder]
    return subprocess.Popen(
        [*command, "--connections", str(CONNECTIONS), *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it told at its end."""
    output, errors = process.communicate()
    if process.returncode:
        raise MeasurementError(f"the client failed: {errors}")
    found: dict[str, Any] = json.loads(output)
    return found


def wait_until_stored(stack: Stack, records: int) -> float:
    """When (time.monotonic()) the store had so many. A look costs milliseconds, so it is taken four times a second."""
    until = time.monotonic() + 60 + records / 1_000
    while True:
        total = stack.get("processing", "/analytics/recent", limit=1).raise_for_status().json()["total"]
        now = time.monotonic()
        if total >= records:
            return now
        if now > until:
            raise MeasurementError(f"{total} of {records} records stored in time; see {stack.folder}")
        time.sleep(0.25)


def check(stack: Stack, accepted: dict[str, int], pushed: int, total: int) -> None:
    """Exactly what was pushed is stored: by every receipt of it, and by all that the store holds."""
    stored = 0
    for run_id, count in accepted.items():
        receipt = stack.receipt(run_id)
        if receipt["accepted"] != count or receipt["stored"] != count or receipt["dead_lettered"]:
            raise MeasurementError(f"a receipt that is not as pushed ({count} entries): {receipt}")
        stored += count
    found = stack.summary()["total"]
    if stored != pushed or found != total:
        raise MeasurementError(f"{pushed} entries pushed, {stored} stored by the receipts, {found} in all, not {total}")


class LoneEntry:
    """One entry at a time in an idle stack: from before its push until the API shows it as the newest."""

    name = "lone"
    title = f"A lone entry, push to /analytics/recent, idle: {LONE_ENTRIES} one after another"
    figures: Sequence[Figure] = (
        Figure("p50_ms", "p50", "ms"),
        Figure("p99_ms", "p99", "ms", target=Target(800, "below")),
        Figure("max_ms", "slowest", "ms"),
    )

    def run(self, rig: Rig) -> Run:
        r = random.Random(rig.seed)
        with running(rig) as stack:
            first = min(rig.bodies.iterdir()).read_bytes()  # a store with something in it, all code run
            stored = stack.push(first).raise_for_status().json()["accepted"]
            _wait_until_newest(stack, None, stored, 120)
            waits = []
            for number in range(_WARM_ENTRIES + LONE_ENTRIES):
                time.sleep(r.uniform(0, _PAUSE_SECONDS))
                entry = rig.entries[number % len(rig.entries)]
                stored += 1
                begun = time.perf_counter()
                run_id = stack.push(entry, kind="application/json").raise_for_status().json()["run_id"]
                _wait_until_newest(stack, run_id, stored, 60)
                waits.append(1000 * (time.perf_counter() - begun))
        measured = waits[_WARM_ENTRIES:]
        return {"p50_ms": percentile(measured, 50), "p99_ms": percentile(measured, 99), "max_ms": max(measured)}


class LoneEntryUnderLoad:
    """One entry at a time beside a steady stream of others: until the API shows it as the newest of its source."""

    name = "lone-loaded"
    title = f"A lone entry beside {LOAD_RATE:,} records/s, push to /analytics/recent"
    figures: Sequence[Figure] = (
        Figure("p50_ms", "p50", "ms", target=Target(250, "below")),
        Figure("p99_ms", "p99", "ms", target=Target(800, "below")),
        Figure("max_ms", "slowest", "ms"),
        Figure("entries", "lone entries", ""),
        Figure("rate", "rate at which the others were taken", "records/s"),
        Figure("behind_seconds", "last of the others taken to all stored", "s", 2),
    )

    def run(self, rig: Rig) -> Run:
        r = random.Random(rig.seed)
        with running(rig) as stack:
            folder = stack.folder / "load"
            write_bodies(rig.entries, folder, round(LOAD_RATE * _LOAD_EVERY) * (SIZE + 1))
            options = ("--every", str(_LOAD_EVERY), "--bodies", str(round(_LOAD_SECONDS / _LOAD_EVERY)))
            load = pusher(stack, str(folder), *options)
            time.sleep(_LOAD_WARM_SECONDS)
            waits: list[float] = []
            while load.poll() is None:
                time.sleep(r.uniform(0, _PAUSE_SECONDS))
                waits.append(1000 * self._one(stack, len(waits)))
            others = told(load)
            count = sum(others["accepted"].values())
            ended = wait_until_stored(stack, count + len(waits))
            check(stack, others["accepted"], count, count + len(waits))
        return {
            "p50_ms": percentile(waits, 50),
            "p99_ms": percentile(waits, 99),
            "max_ms": max(waits),
            "entries": len(waits),
            "rate": count / (others["ended"] - others["begun"]),
            "behind_seconds": ended - others["ended"],
        }

    def _one(self, stack: Stack, number: int) -> float:
        """Seconds until the entry is the newest of its source."""
        entry = json.dumps({"source": "lone", "api": "Beside", "status": "SUCCESS", "number": number}).encode()
        begun = time.perf_counter()
        run_id = stack.push(entry, kind="application/json").raise_for_status().json()["run_id"]
        while time.perf_counter() - begun < 60:
            found = stack.get("processing", "/analytics/recent", limit=1, source="lone").raise_for_status().json()
            if found["records"] and found["records"][0]["run_id"] == run_id:
                return time.perf_counter() - begun
            time.sleep(_LOOK_SECONDS)
        raise MeasurementError(f"not stored within 60 s; see {stack.folder}")


class LargeEntry:
    """One entry of 64 MiB, in chunks all the way, and its bytes back."""

    name = "large"
    title = f"One entry of {LARGE_BYTES // 2**20} MiB"
    figures: Sequence[Figure] = (
        Figure("taken_seconds", "push to answer", "s", 2),
        Figure("stored_seconds", "push to stored", "s", 2),
        Figure("raw_seconds", "original bytes read back through the API", "s", 2),
        Figure("ingestion_peak_mb", "peak resident memory of ingestion", "MB", target=Target(300, "below", "worst")),
        Figure(
            "standardization_peak_mb",
            "peak resident memory of standardization",
            "MB",
            target=Target(300, "below", "worst"),
        ),
        Figure("processing_peak_mb", "peak resident memory of processing", "MB", target=Target(800, "below", "worst")),
    )

    def run(self, rig: Rig) -> Run:
        head, tail = b'{"source":"large","blob":"', b'"}'
        size = LARGE_BYTES - len(head) - len(tail)
        body = (
            head + random.Random(rig.seed).randbytes(size // 2).hex().encode() + tail
        )  # noise: nothing to compress away
        with running(rig) as stack:
            begun = time.perf_counter()
            run_id = stack.push(body, kind="application/json").raise_for_status().json()["run_id"]
            taken = time.perf_counter()
            record_id = _wait_until_newest(stack, run_id, 1, 300)
            stored = time.perf_counter()
            self._expect_same(stack, record_id, body)
            read = time.perf_counter()
            peaks = {name: stack.resident_bytes(name, peak=True) for name in SERVICES}
        return {
            "taken_seconds": taken - begun,
            "stored_seconds": stored - begun,
            "raw_seconds": read - stored,
            **{f"{name}_peak_mb": peak / 1e6 for name, peak in peaks.items()},
        }

    def _expect_same(self, stack: Stack, record_id: str, body: bytes) -> None:
        digest = hashlib.sha256()
        with stack.client.stream("GET", f"{stack.urls['processing']}/records/{record_id}/raw") as raw:
            for piece in raw.iter_raw():
                digest.update(piece)
        if digest.digest() != hashlib.sha256(body).digest():
            raise MeasurementError("the bytes that came back are not those that were pushed")


def _wait_until_newest(stack: Stack, run_id: str | None, total: int, seconds: float) -> str:
    """Wait until the store has so many records and the newest is of this run; its record_id."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = stack.get("processing", "/analytics/recent", limit=1).raise_for_status().json()
        if found["total"] > total:
            raise MeasurementError(f"{found['total']} records are stored, {total} were pushed")
        if found["total"] == total and run_id in {None, found["records"][0]["run_id"]}:
            record_id: str = found["records"][0]["record_id"]
            return record_id
        time.sleep(0.003)
    raise MeasurementError(f"not stored within {seconds:.0f} s; see {stack.folder}")
