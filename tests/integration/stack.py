"""A whole stack for tests: a real Kafka, and the three services as processes that are restarted when they die."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import httpx

from native.kafka import free_ports

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
SERVICES = ("processing", "standardization", "ingestion")  # in the order in which they start


def eventually(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """What `look` finds, as soon as it finds something. Fails after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


class Kafka(Protocol):
    """A broker, or several."""

    @property
    def bootstrap(self) -> str: ...


class Stack:
    """The services on a Kafka, with a data folder and a topic prefix of their own.

    `own_settings` are those of one service alone, by its name; changed, they hold from its next start.
    """

    services: tuple[str, ...] = SERVICES

    def __init__(
        self,
        broker: Kafka,
        folder: Path,
        prefix: str,
        settings: Mapping[str, str] | None = None,
        own_settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.broker = broker
        self.folder = folder
        self.prefix = prefix
        ports = free_ports(len(SERVICES))
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=True)}
        self.environment = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
            **{f"{name.upper()}_PORT": str(port) for name, port in zip(SERVICES, ports, strict=True)},
            "KAFKA_BOOTSTRAP": broker.bootstrap,
            "KAFKA_GROUP_PROTOCOL": "consumer",
            "TOPIC_PREFIX": prefix,
            "DATA_DIR": str(folder / "data"),
            "INGEST_DIR": str(ROOT),
            **(settings or {}),
        }
        self.own_settings = {name: dict((own_settings or {}).get(name, {})) for name in SERVICES}
        self.client = httpx.Client(timeout=60.0)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._supervising = threading.Event()
        self._supervisor: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self.create_topics()
            for name in self.services:
                self.start(name)
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def create_topics(self) -> None:
        subprocess.run([sys.executable, "-m", "shared.kafka"], cwd=ROOT, env=self.environment, check=True, timeout=90,
                       capture_output=True)  # fmt: skip

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"{name}.main"],
                cwd=ROOT,
                env=self.environment | self.own_settings[name],
                stderr=log,
                stdout=log,
            )

    def kill(self, name: str) -> None:
        """As a crash would: SIGKILL, and the process is gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def terminate(self, name: str) -> int:
        """Stop in order; returns the exit code. What does not stop tells in its log what its threads are at."""
        process = self.processes[name]
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            process.wait(10)
            raise

    def tell_threads(self) -> None:
        """Have every service write into its log what its threads are at."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end of the block."""
        process = self.processes[name]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def supervise(self) -> None:
        """Restart whatever dies, from now on."""

        def watch() -> None:
            while not self._supervising.wait(0.2):
                for name, process in list(self.processes.items()):
                    if process.poll() is not None:
                        self.start(name)

        self._supervisor = threading.Thread(target=watch, daemon=True)
        self._supervisor.start()

    def stop(self) -> None:
        self._supervising.set()
        if self._supervisor is not None:
            self._supervisor.join()
        for name in reversed(SERVICES):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    self.terminate(name)
                process.kill()
                process.wait()
        self.client.close()

    # looking from outside

    def get(self, service: str, path: str, **query: Any) -> httpx.Response:
        return self.client.get(self.urls[service] + path, params=query)

    def ready(self, service: str) -> bool:
        try:
            return self.get(service, "/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        for name in self.services:
            eventually(lambda name=name: self.ready(name), seconds, f"{name} is ready; see {self.folder}/{name}.log")  # type: ignore[misc]

    def summary(self, **query: Any) -> dict[str, Any]:
        answer = self.get("processing", "/analytics/summary", **query)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def push(
        self, body: bytes, *, kind: str = "application/x-ndjson", key: str | None = None, source: str | None = None
    ) -> httpx.Response:
        headers = {"Content-Type": kind} | ({"Idempotency-Key": key} if key else {})
        return self.client.post(
            self.urls["ingestion"] + "/ingest",
            content=body,
            headers=headers,
            params={"source": source} if source else {},
        )

    def push_until_taken(self, body: bytes, key: str, seconds: float = 120.0) -> dict[str, Any]:
        """A client that retries with its Idempotency-Key until it has an answer."""

        def attempt() -> dict[str, Any] | None:
            try:
                answer = self.push(body, key=key)
            except httpx.HTTPError:
                return None
            if answer.status_code == 200:
                taken: dict[str, Any] = answer.json()
                return taken
            assert answer.status_code in {500, 503}, answer.text
            return None

        return eventually(attempt, seconds, f"push {key} is taken")

    def receipt(self, run_id: str, seconds: float = 60.0) -> dict[str, Any]:
        """The receipt of a run, once nothing of it is in flight."""

        def look() -> dict[str, Any] | None:
            try:
                answer = self.get("ingestion", f"/ingest/runs/{run_id}")
            except httpx.HTTPError:
                return None
            found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
            return found if found.get("complete") else None

        return eventually(look, seconds, f"run {run_id} is complete")

    def metric(self, of: str, name: str, /, **labels: str) -> float | None:
        """The value of one sample, None where there is none with these labels."""
        for line in self.get(of, "/metrics").text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return None

    def resident_bytes(self, service: str, *, peak: bool = False) -> int:
        field = "VmHWM" if peak else "VmRSS"
        for line in Path(f"/proc/{self.processes[service].pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field} of {service}")
