"""What may happen to a stack, each with a name. A fault is over when `strike` returns; what follows is recovery."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.cluster import NODES
from tests.chaos.network import END_TXN, TXN_OFFSET_COMMIT
from tests.chaos.suite import Fault, ImpossibleError, World
from tests.integration.entries import plain
from tests.integration.stack import SERVICES, eventually

SESSION_S: Final = 6.0  # of a consumer group; a transaction's is 10 s
OUT_S: Final = 3.0
KILLED_S: Final = 30.0  # after a kill -9 all flows again within this, on a machine that others use, too
LIBFAKETIME: Final = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@dataclass(frozen=True)
class ServiceKilled(Fault):
    """kill -9 at a random moment; the supervisor starts it again."""

    flows_within_s = KILLED_S

    service: str

    @property
    def name(self) -> str:
        return f"kill -9 {self.service}"

    def strike(self, world: World) -> None:
        world.while_it_flows(world.chance.uniform(0.0, 1.0))
        world.stack.kill(self.service)


@dataclass(frozen=True)
class ServiceAborted(Fault):
    """A library of its own gives up (an assertion, a bad address): it is gone at once, whatever else it has loaded."""

    service: str = "processing"

    @property
    def name(self) -> str:
        return f"SIGABRT within {self.service}"

    def strike(self, world: World) -> None:
        process = world.stack.processes[self.service]
        process.send_signal(signal.SIGABRT)
        assert process.wait(10) == -signal.SIGABRT


@dataclass(frozen=True)
class IngestionKilledWithinAPush(Fault):
    """kill -9 of ingestion, twice, while a push with a transaction of its own is written."""

    @property
    def name(self) -> str:
        return "kill -9 ingestion within a large push, twice"

    def strike(self, world: World) -> None:
        with world.large_push():
            for _ in range(2):
                world.while_it_flows(world.chance.uniform(0.05, 0.8))
                world.stack.kill("ingestion")
                eventually(lambda: world.stack.ready("ingestion"), 60, "ingestion is back")


@dataclass(frozen=True)
class ServiceFrozen(Fault):
    """SIGSTOP for longer than its session, then SIGCONT: what it held was taken from it, and it is told so."""

    service: str
    seconds: float = SESSION_S + 2.0

    @property
    def name(self) -> str:
        return f"SIGSTOP {self.service} for {self.seconds:.0f} s"

    def strike(self, world: World) -> None:
        with world.stack.frozen(self.service):
            world.while_it_flows(self.seconds)


@dataclass(frozen=True)
class ServiceSlow(Fault):
    """A service that gets a tenth of its time: what is before it piles up, and nothing is lost by that."""

    service: str
    seconds: float = 5.0

    @property
    def name(self) -> str:
        return f"{self.service} at a tenth of its speed"

    def strike(self, world: World) -> None:
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            with world.stack.frozen(self.service):
                world.while_it_flows(0.18)
            world.while_it_flows(0.02)


@dataclass(frozen=True)
class BrokerKilled(Fault):
    """kill -9 of one broker of three, which is started again."""

    @property
    def name(self) -> str:
        return "kill -9 a broker"

    def strike(self, world: World) -> None:
        node = world.chance.choice(NODES)
        world.while_it_flows(world.chance.uniform(0.0, 1.0))
        world.cluster.kill(node)
        world.while_it_flows(OUT_S)
        world.cluster.start(node)
        world.cluster.wait_until_ready(node)


@dataclass(frozen=True)
class BrokerFrozen(Fault):
    """SIGSTOP of one broker for longer than its session with the controllers; it wakes up as a leader of the past."""

    @property
    def name(self) -> str:
        return "SIGSTOP a broker for 6 s"

    def strike(self, world: World) -> None:
        node = world.chance.choice(NODES)
        world.cluster.freeze(node)
        try:
            world.while_it_flows(6.0)
        finally:
            world.cluster.thaw(node)


@dataclass(frozen=True)
class BrokerOutAndBack(Fault):
    """A broker stopped in order: all flows while it is out. When it is back its leaders move back to it."""

    @property
    def name(self) -> str:
        return "a broker out and back, leaders moved"

    def strike(self, world: World) -> None:
        node = world.chance.choice(NODES)
        led = [place for place, leader in world.cluster.leaders().items() if leader == node]
        world.cluster.shut_down(node)
        world.probe()
        assert node not in world.cluster.leaders().values()
        world.cluster.start(node)
        world.cluster.wait_until_ready(node)

        def moved() -> bool:
            world.cluster.elect_preferred()  # refused for what has not caught up yet
            leaders = world.cluster.leaders()
            return node in leaders.values() and (not led or any(leaders[place] == node for place in led))

        eventually(moved, 30, f"node {node} leads again")


@dataclass(frozen=True)
class KafkaKilled(Fault):
    """kill -9 of all brokers: the services say so, refuse pushes, stay up, and go on when Kafka is back."""

    flows_within_s = KILLED_S

    @property
    def name(self) -> str:
        return "kill -9 all brokers"

    def strike(self, world: World) -> None:
        stack, cluster = world.stack, world.cluster
        for name in SERVICES:
            eventually(lambda name=name: stack.ready(name), 60, f"{name} is ready")  # type: ignore[misc]
        before = {name: stack.processes[name].pid for name in SERVICES}
        for node in NODES:
            cluster.kill(node)
        eventually(lambda: stack.get("processing", "/ready").status_code == 503, 10, "the loss is told")
        eventually(
            lambda: stack.metric("ingestion", "sluice_active_connections", service="ingestion") == 0,
            5,
            "the loss is counted",
        )
        refused = stack.push(plain(0))
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        for node in NODES:
            cluster.start(node)
        for node in NODES:
            cluster.wait_until_ready(node)
        for name in SERVICES:
            eventually(lambda name=name: stack.ready(name), 60, f"{name} is ready")  # type: ignore[misc]
        assert {name: stack.processes[name].pid for name in SERVICES} == before, "services stay up"


@dataclass(frozen=True)
class Cut(Fault):
    """Every connection between a service and the brokers is reset, and no new one is had."""

    service: str
    seconds: float = 4.0

    @property
    def name(self) -> str:
        return f"network of {self.service} cut for {self.seconds:.0f} s"

    def strike(self, world: World) -> None:
        with world.cluster.mending(self.service) as links:
            for link in links:
                link.cut()
            world.while_it_flows(self.seconds)


@dataclass(frozen=True)
class CutFromOneBroker(Fault):
    """A service can reach two brokers of three: what the third one leads has to wait, and then goes on."""

    service: str
    seconds: float = 4.0

    @property
    def name(self) -> str:
        return f"{self.service} cut off from one broker for {self.seconds:.0f} s"

    def strike(self, world: World) -> None:
        with world.cluster.mending(self.service) as links:
            world.chance.choice(links).cut()
            world.while_it_flows(self.seconds)


@dataclass(frozen=True)
class Stalled(Fault):
    """Nothing that a service and the brokers send arrives, for longer than a session; then all of it does."""

    service: str
    seconds: float = SESSION_S + 2.0

    @property
    def name(self) -> str:
        return f"network of {self.service} stalled for {self.seconds:.0f} s"

    def strike(self, world: World) -> None:
        with world.cluster.mending(self.service) as links:
            for link in links:
                link.stall()
            world.while_it_flows(self.seconds)


@dataclass(frozen=True)
class Delayed(Fault):
    """Every message between services and brokers takes a tenth of a second longer, either way."""

    @property
    def name(self) -> str:
        return "all networks slow: 100 ms a message"

    seconds: float = 4.0

    def strike(self, world: World) -> None:
        with world.cluster.mending(*SERVICES) as links:
            for link in links:
                link.delay(0.1)
            world.while_it_flows(self.seconds)


@dataclass(frozen=True)
class CommitAmbiguous(Fault):
    """The connection is reset after the broker has committed, and before its answer arrives: did it, or not?"""

    service: str
    request: int = END_TXN

    @property
    def name(self) -> str:
        what = "commit" if self.request == END_TXN else "offsets"
        return f"answer to a {what} of {self.service} lost"

    def strike(self, world: World) -> None:
        with world.cluster.mending(self.service) as links:
            lost = [link.lose_answer(self.request) for link in links]
            eventually(lambda: any(one.is_set() for one in lost), 30, "an answer is lost")


@dataclass(frozen=True)
class DiskFull(Fault):
    """A disk that takes no byte more, for a while."""

    disk: str
    seconds: float = 4.0

    @property
    def name(self) -> str:
        return f"the disk of the {self.disk} full for {self.seconds:.0f} s"

    def strike(self, world: World) -> None:
        disk = world.disks[self.disk]
        if disk.missing:
            raise ImpossibleError(disk.missing)
        disk.fill()
        try:
            if self.disk == "spool":
                refused = world.stack.push(b"\n".join([plain(1)] * 40_000))  # too large to be kept in memory
                assert refused.status_code == 507, refused.text
                assert refused.headers["Retry-After"]
            world.while_it_flows(self.seconds)
            if self.disk == "store":
                eventually(lambda: world.stack.get("processing", "/ready").status_code == 503, 10, "it is told")
        finally:
            disk.empty()


@dataclass(frozen=True)
class StoreFails(Fault):
    """The store's disk refuses to be written, as Linux does after an error of the device."""

    @property
    def name(self) -> str:
        return "the store read-only for 4 s"

    seconds: float = 4.0

    def strike(self, world: World) -> None:
        disk = world.disks["store"]
        if disk.missing:
            raise ImpossibleError(disk.missing)
        failed = self._failures(world)
        disk.forbid()
        try:
            world.while_it_flows(self.seconds)
            eventually(lambda: self._failures(world) > failed, 10, "the store has failed")
        finally:
            disk.allow()

    @staticmethod
    def _failures(world: World) -> float:
        return world.stack.metric("processing", "sluice_errors_total", stage="sink", kind="store") or 0.0


@dataclass(frozen=True)
class ClockJumps(Fault):
    """The clock of one service jumps two hours ahead, then two hours back."""

    service: str = "standardization"

    @property
    def name(self) -> str:
        return f"the clock of {self.service} jumps"

    def strike(self, world: World) -> None:
        if LIBFAKETIME is None:
            raise ImpossibleError("libfaketime is missing (Debian: faketime)")
        with self._faked(world) as clock:
            for offset in ("+7200", "-7200"):
                clock.write_text(f"{offset}\n")
                world.while_it_flows(3.0)
            clock.write_text("+0\n")

    @contextmanager
    def _faked(self, world: World) -> Iterator[Path]:
        stack = world.stack
        clock = stack.folder / "clock"
        clock.write_text("+0\n")
        before = stack.own_settings[self.service]
        stack.own_settings[self.service] = before | {
            "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        try:
            self._restart(world)
            yield clock
        finally:
            stack.own_settings[self.service] = before
        self._restart(world)

    def _restart(self, world: World) -> None:
        world.stack.terminate(self.service)
        eventually(lambda: world.stack.ready(self.service), 60, f"{self.service} is ready again")


def main_faults() -> list[Fault]:
    """Each kind once: the short form."""
    return [
        *(ServiceKilled(service) for service in SERVICES),
        ServiceAborted(),
        IngestionKilledWithinAPush(),
        ServiceFrozen("standardization"),
        ServiceSlow("processing"),
        BrokerKilled(),
        BrokerFrozen(),
        BrokerOutAndBack(),
        Cut("processing"),
        Stalled("standardization"),
        CommitAmbiguous("ingestion"),
        CommitAmbiguous("standardization"),
        DiskFull("store"),
        DiskFull("spool"),
        StoreFails(),
        ClockJumps(),
        KafkaKilled(),
    ]


def all_faults() -> list[Fault]:
    """What the long form chooses from."""
    return [
        *main_faults(),
        *(ServiceFrozen(service, seconds) for service in SERVICES for seconds in (SESSION_S + 2.0, 13.0)),
        *(ServiceSlow(service) for service in SERVICES),
        *(Cut(service) for service in SERVICES),
        *(CutFromOneBroker(service) for service in SERVICES),
        *(Stalled(service) for service in SERVICES),
        *(CommitAmbiguous(service) for service in SERVICES),
        CommitAmbiguous("standardization", TXN_OFFSET_COMMIT),
        CommitAmbiguous("processing", TXN_OFFSET_COMMIT),
        Delayed(),
        ClockJumps("ingestion"),
    ]


def chosen(chance: random.Random) -> Iterator[Fault]:
    """Faults without end: each once in a random order, then again in another."""
    while True:
        faults = list(dict.fromkeys(all_faults()))
        chance.shuffle(faults)
        yield from faults
