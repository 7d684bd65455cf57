"""When entries of a stream are due."""

import random
import time

import pytest

from ingestion.pacing import ARREARS_S, Pace


def sent(pace: Pace, begin: float, end: float, chance: random.Random) -> int:
    """What goes between these times by somebody who looks every 20 to 120 ms."""
    count, now = 0, begin
    while (now := now + chance.uniform(0.02, 0.12)) < end:
        due = pace.due(now)
        pace.spend(due)
        count += due
    return count


@pytest.mark.parametrize("rate", [0.5, 10.0, 333.3, 20_000.0])
def test_the_rate_is_kept_to_the_entry_however_one_looks(rate: float) -> None:
    seed = time.time_ns()
    chance = random.Random(seed)
    pace = Pace(rate, 1_000.0)
    count = sent(pace, 1_000.0, 1_030.0, chance)
    assert rate * 29.8 - 1 <= count <= rate * 30, f"seed {seed}"


def test_no_entry_is_early() -> None:
    pace = Pace(10.0, 0.0)
    assert pace.due(0.0) == 0
    assert pace.due(0.099) == 0
    assert pace.wait(0.099) == pytest.approx(0.001)
    assert pace.due(0.1) == 1
    pace.spend(1)
    assert pace.due(0.15) == 0


def test_after_a_gap_no_flood_follows() -> None:
    pace = Pace(100.0, 0.0)
    assert pace.due(3_600.0) == 100 * ARREARS_S


def test_a_new_rate_holds_from_the_moment_it_is_set() -> None:
    pace = Pace(10.0, 0.0)
    pace.change(1_000.0, 1.0)
    assert pace.due(1.0) == 10
    assert pace.due(1.5) == 510
