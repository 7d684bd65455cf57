"""Exactly once, proven by killing things: kill -9 at random moments, and every record is in the store, once.

The seed of the random moments is printed; SLUICE_SEED repeats a run.
"""

import os
import random
import threading
import time
from collections.abc import Iterator

import pytest

from native.kafka import Broker
from tests.integration.entries import plain, plain_lines
from tests.integration.stack import SERVICES, Stack, eventually

pytestmark = pytest.mark.kafka

RECORDS = 200_000
PUSHES = 10
FLOWING_S = 15.0


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("SLUICE_SEED") or random.randrange(2**32))
    print(f"\nSLUICE_SEED={chosen}")  # noqa: T201 - shown when the test fails
    return chosen


class Client(threading.Thread):
    """Pushes all records, in pushes of equal size, each with its key, until it is taken."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self.runs: list[str] = []

    def run(self) -> None:
        size = RECORDS // PUSHES
        for number in range(PUSHES):
            body = b"\n".join(plain(n) for n in range(number * size, (number + 1) * size))
            self.runs.append(self._stack.push_until_taken(body, f"push-{number}")["run_id"])


def stored(stack: Stack) -> int:
    """Records in the store, or -1 while it can't be asked."""
    try:
        answer = stack.get("processing", "/analytics/summary")
    except OSError:
        return -1
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return -1
        raise
    return int(answer.json()["total"]) if answer.status_code == 200 else -1


def flows_again(stack: Stack, number: int) -> float:
    """Seconds until an entry pushed now is in the store; the probe is counted by its own source."""
    begun = time.monotonic()
    body = b'{"source":"probe","api":"probe","status":"ok","number":%d}' % number
    run_id = stack.push_until_taken(body, f"probe-{number}", 60)["run_id"]
    stack.receipt(run_id, 60)
    return time.monotonic() - begun


def check(stack: Stack, client: Client, probes: int) -> None:
    """Every record is there, once."""
    client.join(300)
    assert not client.is_alive()
    for run_id in client.runs:
        receipt = stack.receipt(run_id, 120)
        assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (
            RECORDS // PUSHES,
            RECORDS // PUSHES,
            0,
        )
    summary = stack.summary()
    assert summary["total"] == RECORDS + probes
    assert summary["by_status"] == {"SUCCESS": RECORDS - RECORDS // 100 + probes, "FAILED": RECORDS // 100}


@pytest.fixture
def own_stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("kills")
    with Stack(broker, folder, f"{folder.name}-") as stack:
        stack.supervise()
        yield stack


def test_any_service_killed_at_any_moment_loses_and_doubles_nothing(own_stack: Stack, seed: int) -> None:
    chance = random.Random(seed)
    stack = own_stack
    client = Client(stack)
    client.start()
    slowest = 0.0
    victims = [*SERVICES, *SERVICES]
    chance.shuffle(victims)
    for number, victim in enumerate(victims):
        time.sleep(chance.uniform(0.0, 1.5))  # the random moment
        stack.kill(victim)
        took = flows_again(stack, number)
        print(f"killed {victim}: flows after {took:.1f} s")  # noqa: T201 - shown when the test fails
        slowest = max(slowest, took)
    check(stack, client, len(victims))
    assert slowest < FLOWING_S


def test_ingestion_killed_within_a_push_loses_and_doubles_nothing(own_stack: Stack, seed: int) -> None:
    chance = random.Random(seed)
    stack = own_stack
    body = plain_lines(RECORDS)
    taken: list[dict[str, object]] = []
    pusher = threading.Thread(target=lambda: taken.append(stack.push_until_taken(body, "one large push")), daemon=True)
    pusher.start()
    for _ in range(3):
        time.sleep(chance.uniform(0.05, 0.8))  # the random moment
        stack.kill("ingestion")
        eventually(lambda: stack.ready("ingestion"), 60, "ingestion is back")
    pusher.join(120)
    assert taken
    assert taken[0]["accepted"] == RECORDS
    assert stack.receipt(str(taken[0]["run_id"]), 120)["stored"] == RECORDS
    assert stack.summary()["total"] == RECORDS


def test_kafka_killed_and_restarted_loses_and_doubles_nothing(
    own_broker: tuple[Broker, list[object]], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = random.Random(seed)
    broker, holder = own_broker
    with Stack(broker, tmp_path_factory.mktemp("kafka-kills"), "") as stack:
        stack.supervise()
        client = Client(stack)
        client.start()
        before = {name: stack.processes[name].pid for name in SERVICES}
        for number in range(2):
            time.sleep(chance.uniform(0.2, 2.0))  # the random moment
            holder[0].kill()  # type: ignore[attr-defined]
            holder[0].wait()  # type: ignore[attr-defined]
            eventually(lambda: stack.get("processing", "/ready").status_code == 503, 10, "the loss is told")
            eventually(
                lambda: stack.metric("ingestion", "sluice_active_connections", service="ingestion") == 0,
                5,
                "the loss is counted",
            )
            refused = stack.push(plain(0))
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
            process = broker.start()
            holder[0] = process
            broker.wait_until_ready(process)
            took = flows_again(stack, number)
            print(f"kafka killed: flows {took:.1f} s after it is back")  # noqa: T201 - shown when the test fails
            assert took < FLOWING_S
        check(stack, client, 2)
        assert {name: stack.processes[name].pid for name in SERVICES} == before, "services stay up"
