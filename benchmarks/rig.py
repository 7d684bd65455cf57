"""What every measurement stands on: a Kafka of its own, the entries, and for each run a stack with nothing in it."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from benchmarks.entries import generate, write_bodies
from benchmarks.kafka_probe import KafkaProbe
from native.kafka import Broker, free_ports
from tests.integration.stack import Stack

BODY_BYTES: Final = 5_000_000


class Rig:
    """A running broker and `records` entries, in a folder that is the rig's own."""

    def __init__(self, folder: Path, kafka_libs: Path, records: int, seed: int) -> None:
        self.folder = folder
        self.records = records
        self.seed = seed
        port, controller_port = free_ports(2)
        # what a run wrote gives its disk back soon after the run
        overrides = {"log.segment.delete.delay.ms": "1000"}
        self._broker = Broker(folder / "kafka", kafka_libs, port, controller_port, overrides=overrides)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._process = self._broker.start()
        try:
            self._broker.wait_until_ready(self._process)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    @property
    def broker_pid(self) -> int:
        assert self._process is not None, "the broker runs only within the rig's context"
        return self._process.pid

    @cached_property
    def probe(self) -> KafkaProbe:
        return KafkaProbe(self._broker.bootstrap)

    @cached_property
    def entries(self) -> list[bytes]:
        return generate(self.records, self.seed)

    @cached_property
    def bodies(self) -> Path:
        """A folder of the entries as NDJSON, a file a push."""
        folder = self.folder / "bodies"
        write_bodies(self.entries, folder, BODY_BYTES)
        return folder

    @contextmanager
    def stack(self, settings: Mapping[str, str] | None = None) -> Iterator[Stack]:
        """Empty topics and data folders, no service started yet; all of it is gone afterwards."""
        name = f"bench{next(self._numbers)}"
        folder = self.folder / name
        folder.mkdir()
        stack = Stack(self._broker, folder, f"{name}-", settings)
        try:
            stack.create_topics()
            yield stack
        finally:
            stack.stop()
        # kept when a run failed: its logs tell why
        self.probe.delete(stack.prefix)
        shutil.rmtree(folder)
