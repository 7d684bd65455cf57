"""The clock set back: noticed by its step, and not by slewing, steps ahead or time that passes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from shared.backstep import STEP_S, Steps

ROOT = Path(__file__).parents[2]


def clock(*times: float) -> Callable[[], float]:
    left: Iterator[float] = iter(times)
    return lambda: next(left)


def test_only_a_step_back_counts_whatever_time_passes_between_two_looks() -> None:
    steps = Steps(wall=clock(1000.0, 1010.0, 8210.0, 1020.0, 1024.75), steady=clock(0.0, 10.0, 11.0, 21.0, 26.0))
    assert steps.back() == 0.0
    assert steps.back() == -7199.0
    assert steps.back() == 7200.0
    assert steps.back() == 0.25 < STEP_S


def test_a_process_whose_clock_is_set_back_ends_and_says_why() -> None:
    program = """
import threading, time
from shared import backstep
real, behind = time.time, 0.0
backstep.Steps.__init__.__defaults__ = (lambda: real() - behind, time.monotonic)
backstep.watch()
behind = 7200.0
threading.Event().wait(20)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=30, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "the clock was set back" in done.stdout + done.stderr
