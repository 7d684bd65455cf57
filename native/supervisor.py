"""supervisord over our programs: its configuration, its start, and the questions we ask it on its socket."""

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from native.settings import ROOT
from native.stack import PROGRAM_MARK, Program
from shared.errors import SluiceError

_SOCKET_PATH_MAX = 100  # Linux takes 107 bytes, and supervisord binds under a temporary name first


class SupervisorError(SluiceError):
    """The supervisor did not do what it was asked to."""


@dataclass(frozen=True)
class State:
    """A program as the supervisor sees it."""

    name: str
    state: str  # supervisord's word: RUNNING, STARTING, BACKOFF, STOPPING, STOPPED, EXITED, FATAL
    pid: int  # 0 while there is no process
    uptime: float  # seconds


class Supervisor:
    """The supervisor of one run folder, whether it runs or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.configuration = folder / "supervisord.conf"
        self.socket = _socket_path(folder)

    def log(self, program: str) -> Path:
        return self.logs / f"{program}.log"

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Hold off a second launcher while one starts the stack in this folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start(self, programs: Sequence[Program], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start supervisord, with none of the programs running yet, in a session of its own: no terminal's signal
        reaches it, for it would take a hang-up for the wish to start all anew."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(configuration(self, programs))
        said = self.logs / "supervisord.out"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--silent",
                 "--configuration", str(self.configuration)],
                cwd=self.folder, env=environment | {PROGRAM_MARK: "supervisord"},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self.running():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SupervisorError(f"supervisord did not start; {said} says: {said.read_text().strip()[-1000:]}")
            time.sleep(0.05)
        return process

    def running(self) -> bool:
        """Whether a supervisor of this folder answers."""
        try:
            self._call("supervisor.getState")
        except xmlrpc.client.Fault:
            return True  # it is ending, and refuses all questions
        except (OSError, HTTPException):
            return False
        return True

    def states(self) -> list[State]:
        """All programs, in the order of the start. Empty when the supervisor is not running, or ending."""
        try:
            rows = self._call("supervisor.getAllProcessInfo")
        except (OSError, HTTPException, xmlrpc.client.Fault):
            return []
        rows.sort(key=lambda row: row["start"] or row["now"])
        return [
            State(r["name"], r["statename"], r["pid"], max(0, r["now"] - r["start"]) if r["pid"] else 0) for r in rows
        ]

    def start_program(self, name: str) -> None:
        """Have a program started. It may end and be started again; whether it works is for its own readiness to say."""
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise SupervisorError(f"{name} could not be started: {fault.faultString}") from fault

    def stop_program(self, name: str) -> None:
        """Stop a program and wait until it has ended; after its deadline the supervisor kills it."""
        try:
            self._call("supervisor.stopProcess", name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise SupervisorError(f"{name} could not be stopped: {fault.faultString}") from fault

    def shut_down(self, seconds: float = 60.0) -> None:
        """End the supervisor, and with it whatever still runs, in reverse order of the start."""
        try:
            pid = self._call("supervisor.getPID")
            self._call("supervisor.shutdown")
        except xmlrpc.client.Fault:  # it is ending already, for somebody else
            pid = int((self.folder / "supervisord.pid").read_text())
        deadline = time.monotonic() + seconds
        while _lives(pid):
            if time.monotonic() > deadline:
                raise SupervisorError(f"supervisord did not end within {seconds:.0f} s; see {self.log('supervisord')}")
            time.sleep(0.05)

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy, method)(*arguments)
        finally:
            transport.close()


def configuration(supervisor: Supervisor, programs: Sequence[Program]) -> str:
    """supervisord.conf. Every program is a group of its own, so that a shutdown stops one after the other.

    A program is started by the launcher when what it needs is ready, and again whenever it ends: at once, or,
    when it ended within its first second, after a pause that grows by a second each time.
    """
    logs = supervisor.logs.relative_to(supervisor.folder)  # supervisord reads a % in a log's path twice
    sections: dict[str, dict[str, object]] = {
        "supervisord": {
            "logfile": logs / "supervisord.log",
            "logfile_maxbytes": "5MB",
            "logfile_backups": 1,
            "pidfile": "supervisord.pid",
            "childlogdir": logs,
            # Said or not, a supervisor started by root runs as root; unsaid, it warns about it.
            **({"user": "root"} if os.geteuid() == 0 else {}),
        },
        "unix_http_server": {"file": supervisor.socket, "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{supervisor.socket}"},
    }
    for priority, program in enumerate(programs, start=1):
        sections[f"program:{program.name}"] = {
            "command": shlex.join(program.command),
            "directory": ROOT,
            "environment": f'{PROGRAM_MARK}="{program.name}"',
            "priority": priority,
            "autostart": "false",
            "autorestart": "true",
            "startsecs": 1,
            "startretries": 1_000_000,
            "stopsignal": "TERM",
            "stopwaitsecs": int(program.stop_seconds),
            "redirect_stderr": "true",
            "stdout_logfile": logs / f"{program.name}.log",
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": 3,
        }
    lines = [f"; Generated by {Path(__file__).relative_to(ROOT)}; changes are lost at the next start.\n"]
    for name, values in sections.items():
        lines.append(f"\n[{name}]\n")
        lines.extend(f"{key} = {str(value).replace('%', '%%')}\n" for key, value in values.items())
    return "".join(lines)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _socket_path(folder: Path) -> Path:
    """In the run folder, unless that lies too deep for a socket's path; then in the system's folder for such."""
    path = folder / "supervisor.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{digest}.sock"
