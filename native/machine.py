"""What else is on this machine that concerns a run: who holds our ports, and what an earlier run left behind."""

import errno
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from native.stack import PROGRAM_MARK, RUN_MARK, Port


@dataclass(frozen=True)
class Taken:
    """A port of ours that can't be ours, and why."""

    port: Port
    holder: str

    def __str__(self) -> str:
        return (
            f"port {self.port.number} ({self.port.program}) is taken by {self.holder}; "
            f"stop that, or set {self.port.setting} to a free port in .env or the environment"
        )


def taken(ports: Sequence[Port]) -> list[Taken]:
    """The ports that can't be listened on: held by a process, claimed by two settings, or not ours to take."""
    found = []
    claimed: dict[int, Port] = {}
    for port in ports:
        if other := claimed.get(port.number):
            found.append(Taken(port, f"{other.setting}, which names the same"))
        elif (error := _listen(port)) == errno.EADDRINUSE:
            found.append(Taken(port, holder_of(port.number)))
        elif error:
            found.append(Taken(port, f"nobody, but can't be listened on at {port.host}: {os.strerror(error)}"))
        claimed[port.number] = port
    return found


def holder_of(number: int) -> str:
    """Who listens on this port, in words."""
    for pid in _listeners(number):
        try:
            process = psutil.Process(pid)
            command: str = " ".join(process.cmdline()) or process.name()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return f"process {pid}"
        return f"process {pid}: {command if len(command) <= 100 else command[:97] + '...'}"
    return f"a process of another user (`sudo ss -ltnp 'sport = :{number}'` names it)"


def leftovers(run_folder: Path) -> list[psutil.Process]:
    """Processes that a run in this folder started and that still live, in the order in which to stop them."""
    order = (
        "supervisord",
        "ingestion",
        "standardization",
        "processing",
        "grafana",
        "prometheus",
        "alertmanager",
        "kafka",
    )
    found: list[tuple[int, psutil.Process]] = []
    for process in psutil.process_iter():
        try:
            marks = process.environ()
            if marks.get(RUN_MARK) == str(run_folder) and process.status() != psutil.STATUS_ZOMBIE:
                name = marks.get(PROGRAM_MARK, "")
                found.append((order.index(name) if name in order else 0, process))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for _, process in sorted(found, key=lambda pair: (pair[0], pair[1].pid))]


def program_of(process: psutil.Process) -> str:
    """Which of our programs a leftover is."""
    try:
        return process.environ().get(PROGRAM_MARK, "process")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return "process"


def stop(processes: Iterable[psutil.Process], seconds: float) -> None:
    """End these one after the other: SIGTERM, and SIGKILL for one that is still there after `seconds`."""
    for process in processes:
        try:
            process.send_signal(signal.SIGTERM)
            process.wait(seconds)
        except psutil.TimeoutExpired:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _listen(port: Port) -> int:
    """Try to listen there as our programs will. 0, or the errno."""
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what closed connections left is no obstacle
        try:
            probe.bind((port.host, port.number))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def _listeners(number: int) -> list[int]:
    return [
        connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.pid and connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (number,)
    ]
