"""The clock set back: librdkafka waits by the time of day, so each of its waits grows by as much as it was set back.

    https://github.com/confluentinc/librdkafka/issues/2145

A step of two hours would stop a client for two hours, with nothing in any log, and a call that waits can't be ended
from outside. So the process is: its successor begins by the new time from what is committed, as after any crash.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from shared import logs

STEP_S: Final = 5.0  # a shorter wait costs less than a restart
LOOK_S: Final = 0.5

log = logs.logger("clock")


class Steps:
    """How far the time of day runs ahead of the time since the machine was started, look by look."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._ahead = wall() - steady()

    def back(self) -> float:
        """By how many seconds the clock was set back since the last look; below 0 where it was set ahead."""
        before, self._ahead = self._ahead, self._wall() - self._steady()
        return before - self._ahead


def watch() -> None:
    """End this process with exit code 1 as soon as its clock is set back by more than STEP_S; looks in a thread."""
    threading.Thread(target=_look, args=(Steps(),), name="clock", daemon=True).start()


def _look(steps: Steps) -> None:
    while (back := steps.back()) < STEP_S:
        time.sleep(LOOK_S)
    log.critical("the clock was set back: ending, to be started again by the new time", seconds=round(back, 1))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # in order is not possible: what waits in librdkafka can't be told to stop
