"""Standardization in several processes on 12 partitions: what another replica adds, as far as cores allow."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import httpx

from benchmarks.entries import frames
from benchmarks.figures import Figure, Run
from benchmarks.kafka_probe import MeasurementError
from benchmarks.rig import Rig
from benchmarks.usage import Meter, peak_bytes
from native.kafka import free_ports
from shared.topics import DEAD_LETTERS, RAW_LOGS, STANDARDIZED_LOGS
from tests.integration.stack import ROOT, Stack, eventually

_SERVICE: Final = "standardization"
_FRAME: Final = 100
_PARTITIONS: Final = 12  # of raw-logs
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class ScaleOut:
    """So many replicas; the clock runs from when each has its part of the partitions."""

    replicas: int

    @property
    def name(self) -> str:
        return f"replicas-{self.replicas}"

    @property
    def title(self) -> str:
        number = "one process" if self.replicas == 1 else f"{self.replicas} processes"
        return f"Standardization, exactly once, {number} on 12 partitions, frames of {_FRAME} records"

    @property
    def figures(self) -> Sequence[Figure]:
        return (
            Figure("rate", "rate of all", "records/s"),
            Figure("rate_per_cpu_second", "records per CPU second of all", "records"),
            Figure("kafka_rate_per_cpu_second", "records per CPU second of Kafka", "records"),
            Figure("peak_mb", "peak resident memory of the largest", "MB"),
            Figure("cores_of_others", "cores busy with other things", "cores", 2),
        )

    def run(self, rig: Rig) -> Run:
        with rig.stack({"FRAME_RECORDS": str(_FRAME), "COPIES": str(self.replicas)}) as stack:
            raw = stack.prefix + RAW_LOGS
            messages = rig.probe.fill(raw, frames(rig.entries, _FRAME))
            os.sync()  # what filling left to be written must not be written within the run
            with _started(stack, self.replicas) as replicas, rig.probe.progress(stack.prefix + _SERVICE, raw) as done:
                pids = {replica.url: replica.process.pid for replica in replicas}
                meter = Meter(pids | {"kafka": rig.broker_pid})
                _wait_until_shared(replicas)
                shared_ms, begun, before = time.time() * 1000, done(), meter.read()
                until = time.monotonic() + 60 + rig.records / 1_000
                while (through := done()) < messages:
                    if time.monotonic() > until or any(replica.process.poll() is not None for replica in replicas):
                        raise MeasurementError(f"{through} of {messages} messages in time; see {stack.folder}")
                    time.sleep(_LOOK_SECONDS)
                used = meter.read() - before
                peak = max(peak_bytes(pid) for pid in pids.values())
            appended = rig.probe.appended(stack.prefix + STANDARDIZED_LOGS)
            dead = rig.probe.appended(stack.prefix + DEAD_LETTERS).records
        if appended.records != rig.records or dead:
            raise MeasurementError(f"of {rig.records} records {appended.records} came out, and {dead} dead letters")
        after = sum(count for ms, count in appended.by_ms.items() if ms > shared_ms)
        records = (messages - begun) * _FRAME
        kafka = used.processes["kafka"]
        return {
            "rate": 1000 * after / (appended.last_ms - shared_ms) if after else None,
            "rate_per_cpu_second": records / (sum(used.processes.values()) - kafka) if records else None,
            "kafka_rate_per_cpu_second": records / kafka if records and kafka else None,
            "peak_mb": peak / 1e6,
            "cores_of_others": used.cores_of_others,
        }


class _Replica(NamedTuple):
    url: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def _started(stack: Stack, number: int) -> Iterator[Sequence[_Replica]]:
    """So many processes of the service, which have ended afterwards."""
    replicas = []
    try:
        for port in free_ports(number):
            environment = stack.environment | {f"{_SERVICE.upper()}_PORT": str(port)}
            with (stack.folder / f"{_SERVICE}-{port}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", f"{_SERVICE}.main"], cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            replicas.append(_Replica(f"http://127.0.0.1:{port}", process))
        yield replicas
    finally:
        for replica in replicas:
            replica.process.terminate()
        for replica in replicas:
            replica.process.wait(30)


def _wait_until_shared(replicas: Sequence[_Replica]) -> None:
    """Until each has its part of the partitions."""
    least = _PARTITIONS // len(replicas)

    def shared() -> bool:
        return all(_assigned(replica.url) >= least for replica in replicas)

    eventually(shared, 60, f"each of {len(replicas)} replicas has {least} partitions")


def _assigned(url: str) -> float:
    """How many partitions a replica has; 0 while it does not answer."""
    try:
        answer = httpx.get(f"{url}/metrics").text
    except httpx.HTTPError:
        return 0.0
    found = [line for line in answer.splitlines() if line.startswith("sluice_assigned_partitions{")]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0
