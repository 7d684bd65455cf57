"""Exactly once under fire, the short form: each main fault once. `make chaos` is the long one."""

import os
import random
from pathlib import Path

import pytest

from tests.chaos.faults import main_faults
from tests.chaos.suite import Suite, world

pytestmark = pytest.mark.kafka


def test_no_fault_loses_or_doubles_or_reorders_a_record_or_stalls_a_partition(kafka_libs: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("SLUICE_SEED") or random.randrange(2**32))
    print(f"\nSLUICE_SEED={seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    with world(tmp_path, kafka_libs, chance) as around:
        suite = Suite(around, print)
        suite.begin()
        faults = main_faults()
        chance.shuffle(faults)
        for fault in faults[: int(os.environ.get("CHAOS_FAULTS") or len(faults))]:
            suite.strike(fault)
        suite.end()
    missing = [f"{outcome.name}: {outcome.impossible}" for outcome in suite.outcomes if outcome.impossible]
    if missing:
        pytest.skip(f"all held but what could not be tried here: {'; '.join(missing)}")
