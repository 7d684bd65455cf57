"""What processes use: CPU seconds and peak memory, and how many cores others kept busy meanwhile."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds, user and system, of all threads: since the start of each, or between two readings."""

    seconds: float  # on the clock
    processes: Mapping[str, float]
    own: float  # of this process and the children that it has waited for
    machine: float  # of everything that ran

    def __sub__(self, earlier: Self) -> "Reading":
        return Reading(
            self.seconds - earlier.seconds,
            {name: cpu - earlier.processes[name] for name, cpu in self.processes.items()},
            self.own - earlier.own,
            self.machine - earlier.machine,
        )

    @property
    def cores_of_others(self) -> float:
        """Cores that were busy with what is no part of the measurement, on average."""
        return max(0.0, self.machine - self.own - sum(self.processes.values())) / self.seconds


class Meter:
    """Reads the CPU time of these processes while they live."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._own = psutil.Process()

    def read(self) -> Reading:
        """The CPU time so far."""
        cpu = {name: process.cpu_times() for name, process in self._processes.items()}
        own = self._own.cpu_times()
        machine = psutil.cpu_times()
        return Reading(
            time.monotonic(),
            {name: times.user + times.system for name, times in cpu.items()},
            own.user + own.system + own.children_user + own.children_system,
            sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice,  # guests: within user
        )


def peak_bytes(pid: int) -> int:
    """The most memory that a living process ever had resident."""
    return _status_bytes(pid, "VmHWM")


def resident_bytes(pid: int) -> int:
    """The memory that a living process has resident now."""
    return _status_bytes(pid, "VmRSS")


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {field}: it has ended")
