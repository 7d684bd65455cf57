"""Standardization alone: one process, exactly once, from a raw-logs that was filled before it started.

The clock is the broker's: from the first append to standardized-logs to the last. CPU time is taken from the first
commit to the last, so that neither has the start-up of the process in it.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.entries import frames
from benchmarks.figures import Figure, Run, Target
from benchmarks.kafka_probe import MeasurementError
from benchmarks.rig import Rig
from benchmarks.usage import Meter, Reading, peak_bytes
from shared.topics import DEAD_LETTERS, RAW_LOGS, STANDARDIZED_LOGS
from tests.integration.stack import Stack

_SERVICE = "standardization"
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class StandardizationStage:
    """Frames of so many records in, and out."""

    frame_records: int
    least_rate: float | None = None  # records a second

    @property
    def name(self) -> str:
        return f"stage-{self.frame_records}"

    @property
    def title(self) -> str:
        frames_of = "one record a message" if self.frame_records == 1 else f"frames of {self.frame_records:,} records"
        return f"Standardization, exactly once, one process, {frames_of} in and out"

    @property
    def figures(self) -> Sequence[Figure]:
        rate = Target(self.least_rate, "at least") if self.least_rate is not None else None
        return (
            Figure("rate", "rate", "records/s", target=rate),
            Figure("rate_per_cpu_second", "records per CPU second of the process", "records"),
            Figure("kafka_rate_per_cpu_second", "records per CPU second of Kafka", "records"),
            Figure("peak_mb", "peak resident memory", "MB", target=Target(300, "below", "worst")),
            Figure("start_seconds", "process started to first output", "s", 2),
            Figure("whole_seconds", "process started to last output", "s", 2),
            Figure("cores_of_others", "cores busy with other things", "cores", 2),
        )

    def run(self, rig: Rig) -> Run:
        with rig.stack({"FRAME_RECORDS": str(self.frame_records)}) as stack:
            raw = stack.prefix + RAW_LOGS
            messages = rig.probe.fill(raw, frames(rig.entries, self.frame_records))
            with rig.probe.progress(stack.prefix + _SERVICE, raw) as done:
                if done():
                    raise MeasurementError("the group has committed offsets before it has begun")
                os.sync()  # what filling left to be written must not be written within the run
                started = time.time()
                stack.start(_SERVICE)
                process = stack.processes[_SERVICE]
                meter = Meter({_SERVICE: process.pid, "kafka": rig.broker_pid})
                records, used = self._watch(rig, stack, done, messages, meter)
            peak = peak_bytes(process.pid)
            stack.terminate(_SERVICE)
            appended = rig.probe.appended(stack.prefix + STANDARDIZED_LOGS)
            dead = rig.probe.appended(stack.prefix + DEAD_LETTERS).records
        if appended.records != rig.records or dead:
            raise MeasurementError(f"of {rig.records} records {appended.records} came out, and {dead} dead letters")
        return {
            "rate": appended.rate,
            "rate_per_cpu_second": _per_second(records, used.processes[_SERVICE]),
            "kafka_rate_per_cpu_second": _per_second(records, used.processes["kafka"]),
            "peak_mb": peak / 1e6,
            "start_seconds": appended.first_ms / 1000 - started,
            "whole_seconds": appended.last_ms / 1000 - started,
            "cores_of_others": used.cores_of_others if records else None,
        }

    def _watch(
        self, rig: Rig, stack: Stack, done: Callable[[], int], messages: int, meter: Meter
    ) -> tuple[int, Reading]:
        """Wait until all is committed; the records from the first commit seen to the last, and what they took."""
        until = time.monotonic() + 60 + rig.records / 1_000
        first: tuple[int, Reading] | None = None
        while True:
            through = done()
            now = meter.read()
            if first is None and through:
                first = (through, now)
            if first is not None and through >= messages:
                return rig.records - min(first[0] * self.frame_records, rig.records), now - first[1]
            _expect_alive(stack.processes[_SERVICE], stack)
            if time.monotonic() > until:
                raise MeasurementError(f"{through} of {messages} messages in time; see {stack.folder}")
            time.sleep(_LOOK_SECONDS)


def _expect_alive(process: "subprocess.Popen[bytes]", stack: Stack) -> None:
    if process.poll() is not None:
        raise MeasurementError(f"{_SERVICE} ended with {process.returncode}; see {stack.folder}")


def _per_second(records: int, seconds: float) -> float | None:
    return records / seconds if records and seconds else None
