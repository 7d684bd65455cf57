"""Replicas of standardization as processes, and a steady flow of numbered entries for them to share."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from native.kafka import free_ports
from shared import kafka
from shared.config import Settings
from shared.frames import entries
from shared.topics import H_CONTENT_TYPE, NDJSON, RAW_LOGS, STANDARDIZED_LOGS, partition_of
from tests.integration.stack import ROOT, eventually

SOURCES: Final = tuple(f"source-{number}" for number in range(16))
FRAME: Final = 50  # records


class Replica:
    """One process of standardization, on a data folder that may be its own or another's."""

    def __init__(self, name: str, settings: Settings, folder: Path, more: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.folder = folder
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        self.log = folder.parent / f"{name}.log"
        self._environment = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
            "STANDARDIZATION_PORT": str(port),
            "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "KAFKA_GROUP_PROTOCOL": settings.kafka_group_protocol,
            "TOPIC_PREFIX": settings.topic_prefix,
            "PARTITIONS": str(settings.partitions),
            "DATA_DIR": str(folder),
            "COMMIT_INTERVAL_MS": "1000",  # so that a transaction is open most of the time
            **(more or {}),
        }
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "standardization.main"],
                cwd=ROOT, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(30)

    @property
    def identity(self) -> str:
        return (self.folder / "standardization" / "instance-id").read_text()

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """Stop in order."""
        self.process.terminate()
        assert self.process.wait(30) == 0

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 where there is none, or nobody answers."""
        try:
            text = httpx.get(f"{self._url}/metrics", timeout=5.0, trust_env=False).text
        except httpx.HTTPError:
            return 0.0
        for line in text.splitlines():
            if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def partitions(self) -> int:
        return int(self.metric("sluice_assigned_partitions", stage="standardization"))

    def until_it_holds(self, wanted: Callable[[int], bool], what: str, seconds: float = 40.0) -> None:
        eventually(lambda: wanted(self.partitions()), seconds, f"{self.name} holds {what}; see {self.log}")


class Flow:
    """Numbered entries of several sources into raw-logs for as long as the block lasts, and what came out of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = kafka.Topics(settings, "flow")
        self._written = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)

    def _write(self) -> None:
        writer = kafka.Transactions(self._settings, "flow", f"flow-{uuid.uuid4().hex}")
        assert writer.prepare(threading.Event())
        headers: kafka.Headers = [(H_CONTENT_TYPE, NDJSON.encode())]
        while not self._stopping.wait(0.03):
            writer.begin()
            for source in SOURCES:
                numbers = range(self._written, self._written + FRAME)
                lines = [json.dumps({"source": source, "api": "x", "status": "ok", "n": n}).encode() for n in numbers]
                partition = partition_of(source.encode(), self._settings.partitions)
                writer.send(self._settings.topic(RAW_LOGS), b"\n".join(lines), source.encode(), partition, headers)
            writer.commit()
            self._written += FRAME
        writer.discard()

    def hidden(self) -> bool:
        """Whether something of a transaction that has not ended lies in what standardization writes: mid batch."""
        places = [(self._settings.topic(STANDARDIZED_LOGS), n) for n in range(self._settings.partitions)]
        stable = self._topics.ends(places, stable=True)
        return any(end > stable[place] for place, end in self._topics.ends(places).items())

    def stored(self) -> dict[str, list[int]]:
        """The numbers of each source, in the order in which they lie in standardized-logs."""
        places = [(self._settings.topic(STANDARDIZED_LOGS), n) for n in range(self._settings.partitions)]
        found: dict[str, list[int]] = defaultdict(list)
        for message in kafka.read_to_end(self._settings, self._topics, places, threading.Event()):
            for line in entries(message.value() or b"", NDJSON):
                record = json.loads(line)
                found[record["service_name"]].append(record["attributes"]["n"])
        return found

    def moves(self, seconds: float = 40.0) -> None:
        """Wait until every source has come on from where it is now."""
        target = self._written + FRAME
        eventually(lambda: self._last() >= target, seconds, "every source moves on")

    def _last(self) -> int:
        found = self.stored()
        return min(found[source][-1] for source in SOURCES) if len(found) == len(SOURCES) else -1

    def holds(self) -> int:
        """Stop, and hold that every entry came out once and in its order; returns how many there were."""
        self.stop()
        wanted = {source: list(range(self._written)) for source in SOURCES}
        eventually(lambda: self._last() == self._written - 1, 60, "all of it has come out")
        assert self.stored() == wanted
        return self._written * len(SOURCES)
