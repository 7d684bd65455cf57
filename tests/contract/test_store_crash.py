"""Killed at any moment and started again, a writer that keeps the ledger's rules leaves every row once."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from processing.api import counts
from shared.config import Settings
from tests.contract.conftest import Open
from tests.contract.samples import count
from tests.contract.store_writer import OFFSETS, PARTITIONS

KILLS = 8


class _Killer:
    """Ends the writer at a random moment: mostly while it inserts, when some tables have their rows and some don't."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._insert_seconds = 0.03  # how long an insert takes here, learnt from the writer's steps

    def watch(self, writer: "subprocess.Popen[str]") -> str:
        """Follow the writer's steps and kill it (-9) somewhere; returns the moment."""
        assert writer.stdout is not None
        at_least = self._chance.randrange(40)
        kind = self._chance.choice(("begin", "open", "insert", "insert", "insert", "insert", "close"))
        step, inserting = "nothing", 0.0
        for number, line in enumerate(writer.stdout):
            step = line.strip()
            if step.startswith("insert"):
                inserting = time.monotonic()
            elif step.startswith("close"):
                self._insert_seconds = time.monotonic() - inserting
            if step.startswith(kind) and (number >= at_least or kind == "begin"):
                break
        delay = self._chance.random() * 1.1 * self._insert_seconds
        time.sleep(delay)
        writer.kill()
        return f"{delay * 1000:.1f} ms after {step}"


def test_a_writer_killed_at_any_moment_leaves_every_row_once(settings: Settings, opened: Open, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    environment = {**os.environ, "CLICKHOUSE_URL": settings.clickhouse_url}
    command = [sys.executable, "-m", "tests.contract.store_writer", str(tmp_path)]
    killer = _Killer(random.Random(seed))
    for kill in range(KILLS):
        arguments = [*command, str(seed + kill)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as writer:
            sys.stdout.write(f"kill {kill}: {killer.watch(writer)}\n")
        assert writer.returncode in (0, -9)
    subprocess.run([*command, str(seed + KILLS)], stdout=subprocess.PIPE, env=environment, check=True)

    store = opened()
    every = PARTITIONS * OFFSETS
    (records,) = store.query(
        "SELECT count() AS n, uniqExact(record_id) AS ids, uniqExact(seq) AS seqs, "
        "uniqExact(toYYYYMM(observed_timestamp)) AS months FROM records"
    )
    assert records == {"n": every, "ids": every, "seqs": every, "months": 4}
    assert counts(store) == {("Efficy", "success"): every * 9 // 10, ("Efficy", "failure"): every // 10}
    assert store.query("SELECT sum(total) AS n FROM windows") == [{"n": every}]
    assert count(store, "anomalies") == every // 10
    assert count(store, "dead_letters") == every // 100
    assert count(store, "runs") == every // 100
    last = store.last_batch()
    assert last is not None
    assert last.closed
    assert store.positions() == {("cafe", partition): OFFSETS for partition in range(PARTITIONS)}
