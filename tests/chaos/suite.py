"""Faults, one after another, under a steady flow of numbered records; after each, everything is looked at.

    strike > probe every partition > receipts > every number once, in order > the next

The world is three brokers, the three services, a network between them and a client that repeats its pushes.
"""

import json
import random
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.chaos.client import Client, Taken, api_for, entry, key_for, series_of, source_of
from tests.chaos.cluster import Cluster
from tests.chaos.disk import Disk
from tests.chaos.network import Network
from tests.integration.stack import SERVICES, Stack

PARTITIONS: Final = 12
RECOVERY_S: Final = 60.0
RECEIPT_S: Final = 60.0
PAGE: Final = 1_000
LARGE_RECORDS: Final = 30_000
EXTRA: Final = 10_000_000  # numbers from here on are those of faults
SETTINGS: Final = {
    "PARTITIONS": str(PARTITIONS),
    "REPLICATION_FACTOR": "3",
    "LOG_FORMAT": "json",
}
MEMORY_RATIO: Final = 1.25  # of what a service held when it was warm ...
MEMORY_BYTES: Final = 96 * 1024 * 1024  # ... and this much more, may it hold at the end


class Fault(ABC):
    """Something that happens to the world, and is over when `strike` returns."""

    flows_within_s: ClassVar[float] = RECOVERY_S  # by then every partition has to flow again

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def strike(self, world: "World") -> None: ...


class ImpossibleError(Exception):
    """This fault can't be had on this machine; the message says why."""


@dataclass
class World:
    """Everything that a fault can lay hands on."""

    cluster: Cluster
    stack: Stack
    client: Client
    disks: dict[str, Disk]
    chance: random.Random
    phase: str = ""
    probes: int = 0
    extra: list[Taken] = field(default_factory=list)  # what faults pushed by themselves, in the present phase
    _extra_number: int = EXTRA

    def while_it_flows(self, seconds: float) -> None:
        """Let time pass: the fault's own length, or a random moment. The client pushes on meanwhile."""
        time.sleep(seconds)

    def probe(self) -> None:
        """Push an entry through each partition of the chain, and wait until all of them are stored."""
        self.probes += 1
        name = f"probe-{self.probes}"
        with ThreadPoolExecutor(PARTITIONS) as together:
            list(together.map(lambda partition: self._probe(name, partition), range(PARTITIONS)))

    def _probe(self, name: str, partition: int) -> None:
        source = f"probe-{partition}"
        api = api_for(source, partition, PARTITIONS)
        body = json.dumps({"source": source, "api": api, "status": "ok"}).encode()
        run_id = self.client.push(body, key_for(partition, PARTITIONS, f"{name}-{partition}"))
        self.stack.receipt(run_id, RECOVERY_S)

    @contextmanager
    def large_push(self) -> Iterator[None]:
        """A push on its way that is spooled and has a transaction of its own; it is taken when the block has ended."""
        numbers = range(self._extra_number, self._extra_number + LARGE_RECORDS)
        self._extra_number += LARGE_RECORDS
        phase = self.phase
        body = b"\n".join(entry(phase, number, 200) for number in numbers)
        with ThreadPoolExecutor(1) as apart:
            run_id = apart.submit(self.client.push, body, f"large-{numbers[0]}")
            yield
            self.extra.append(Taken(run_id.result(), phase, numbers))

    def resident(self) -> dict[str, int]:
        """The memory of each service now, in bytes."""
        return {name: self.stack.resident_bytes(name) for name in SERVICES}

    # what has to hold

    def check(self, taken: Sequence[Taken]) -> int:
        """Receipts add up, each number is stored once, each series in the order of its push; returns how many."""
        for push in taken:
            receipt = self.stack.receipt(push.run_id, RECEIPT_S)
            told = receipt["accepted"], receipt["stored"], receipt["dead_lettered"]
            assert told == (len(push.numbers), len(push.numbers), 0), receipt
        stored: dict[str, list[int]] = defaultdict(list)
        for record in self._records({source_of(push.phase, n) for push in taken for n in push.numbers[:8]}):
            stored[record["run_id"]].append(record["attributes"]["number"])
        wanted = {push.run_id: push.numbers for push in taken}
        assert stored.keys() == wanted.keys()
        for run_id, numbers in wanted.items():
            counted = Counter(stored[run_id])
            twice = [number for number, times in counted.items() if times > 1]
            assert not twice, f"stored more than once: {twice[:5]} of run {run_id}"
            assert counted.keys() == set(numbers), f"lost: {sorted(set(numbers) - counted.keys())[:5]} of run {run_id}"
            series: dict[object, list[int]] = defaultdict(list)
            for number in stored[run_id]:
                series[series_of(number)].append(number)
            for name, order in series.items():
                assert order == sorted(order), f"out of order: {name} of run {run_id}"
        return sum(map(len, wanted.values()))

    def _records(self, sources: Iterable[str]) -> Iterator[dict[str, Any]]:
        """What is stored of these sources, in the order in which it was stored."""
        for source in sorted(sources):
            pages: list[list[dict[str, Any]]] = []
            cursor: str | None = None
            while True:
                query = {"source": source, "limit": PAGE} | ({"cursor": cursor} if cursor else {})
                answer = self.stack.get("processing", "/analytics/recent", **query)
                answer.raise_for_status()
                found = answer.json()
                pages.append(found["records"])
                cursor = found["next_cursor"]
                if cursor is None:
                    break
            newest_first = [record for page in pages for record in page]
            assert len(newest_first) == found["total"]
            yield from reversed(newest_first)


@contextmanager
def world(folder: Path, libs: Path, chance: random.Random) -> Iterator[World]:
    """Three brokers, three services and a client that pushes, until the end of the block."""
    with ExitStack() as held:
        network = held.enter_context(Network())
        cluster = held.enter_context(Cluster(folder / "kafka", libs, network, SERVICES))
        stack_folder = folder / "stack"
        disks = {
            name: held.enter_context(Disk(stack_folder / "data" / path))
            for name, path in {"spool": "ingestion/spool", "store": "processing/store"}.items()
        }
        own = {name: {"KAFKA_BOOTSTRAP": cluster.bootstrap_of(name)} for name in SERVICES}
        stack = held.enter_context(Stack(cluster, stack_folder, "", SETTINGS, own))
        stack.supervise()
        client = Client(stack.urls["ingestion"])
        held.callback(client.stop)
        try:
            yield World(cluster, stack, client, disks, chance)
        except BaseException:
            stack.tell_threads()
            raise


@dataclass(frozen=True)
class Outcome:
    """What one fault did."""

    name: str
    lasted_s: float
    recovered_s: float
    records: int
    repeated: int
    refused: int
    resident: Mapping[str, int]  # bytes of each service, once all has settled
    impossible: str = ""

    HEADING = (
        f"{'fault':<44} {'lasted s':>8} {'recovered s':>11} {'records':>8} {'repeated':>8} {'refused':>8}"
        f"  MiB of {', '.join(SERVICES)}"
    )

    def __str__(self) -> str:
        if self.impossible:
            return f"{self.name:<44} not here: {self.impossible}"
        return (
            f"{self.name:<44} {self.lasted_s:>8.1f} {self.recovered_s:>11.1f} {self.records:>8} "
            f"{self.repeated:>8} {self.refused:>8}  {', '.join(str(held >> 20) for held in self.resident.values())}"
        )


class Suite:
    """Runs faults on a world and tells of each."""

    def __init__(self, world: World, say: Callable[[str], object]) -> None:
        self._world = world
        self._say = say
        self._number = 0
        self._warm: dict[str, int] = {}
        self.records = 0
        self.outcomes: list[Outcome] = []

    def begin(self) -> None:
        """Let it flow until every part is warm: each has been handed as much at once as any fault hands it."""
        self._world.client.start(self._next_phase())
        self._world.probe()
        with self._world.large_push():
            self._world.while_it_flows(4.0)
        self._world.probe()
        self._settle()
        self._warm = self._world.resident()
        self._say(Outcome.HEADING)

    def strike(self, fault: Fault) -> Outcome:
        """One fault and all that has to hold after it. Raises AssertionError where something does not."""
        world, client = self._world, self._world.client
        repeated, refused = client.repeated, client.refused
        begun = time.monotonic()
        try:
            fault.strike(world)
        except ImpossibleError as why:
            outcome = Outcome(fault.name, 0, 0, 0, 0, 0, {}, str(why))
        else:
            over = time.monotonic()
            world.probe()
            recovered = time.monotonic() - over
            assert recovered < fault.flows_within_s, f"{fault.name}: flows only after {recovered:.1f} s"
            records = self._settle()
            outcome = Outcome(
                fault.name,
                over - begun,
                recovered,
                records,
                client.repeated - repeated,
                client.refused - refused,
                world.resident(),
            )
        self.outcomes.append(outcome)
        self._say(str(outcome))
        return outcome

    def end(self) -> None:
        """The whole of it adds up, and no service has grown."""
        world = self._world
        self._settle()
        world.client.stop()
        taken = world.client.next_phase("")
        self.records += world.check(taken)
        total = world.stack.summary()["total"]
        assert total == self.records + world.probes * PARTITIONS, (total, self.records, world.probes)
        for name, held in world.resident().items():
            warm = self._warm[name]
            self._say(f"{name}: {warm >> 20} MiB warm, {held >> 20} MiB at the end")
            assert held <= warm * MEMORY_RATIO + MEMORY_BYTES, f"{name} has grown from {warm} to {held} bytes"
        self._say(f"{self.records} numbered records, each stored once and in order")

    def _settle(self) -> int:
        taken = self._world.client.next_phase(self._next_phase())
        records = self._world.check([*taken, *self._world.extra])
        self._world.extra.clear()
        self.records += records
        return records

    def _next_phase(self) -> str:
        self._number += 1
        self._world.phase = f"phase-{self._number}"
        return self._world.phase
