"""`make chaos`: faults at random for CHAOS_SECONDS (600), on three brokers; SLUICE_SEED repeats a sequence of them."""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from native.kafka import prepare_jars
from tests.chaos.faults import chosen
from tests.chaos.suite import Suite, world
from tests.integration.stack import ROOT


def main() -> int:
    seconds = float(os.environ.get("CHAOS_SECONDS") or 600)
    seed = int(os.environ.get("SLUICE_SEED") or random.randrange(2**32))
    libs = prepare_jars(ROOT / ".run" / "kafka" / "libs", say=say)
    folder = Path(tempfile.mkdtemp(prefix="sluice-chaos-"))
    say(f"SLUICE_SEED={seed} repeats these faults; logs are in {folder}")
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    with world(folder, libs, chance) as around:
        suite = Suite(around, say)
        suite.begin()
        for fault in chosen(chance):
            suite.strike(fault)
            if time.monotonic() > until:
                break
        suite.end()
    return 0


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is its purpose


if __name__ == "__main__":
    sys.exit(main())
