"""How well a stream keeps its rate: entries committed over 30 s, and in the worst second of them, and ingestion's CPU.

    python -m benchmarks.stream_pace [--rates 10 1000 20000] [--seconds 30]

A made-up fleet's CSV is replayed in a loop, times rewritten, on a Kafka of its own. What counts is what Kafka has: the
stream's own count, which is committed together with the entries.
"""

import argparse
import csv
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.rig import Rig
from benchmarks.usage import Meter
from native.fleet import COLUMNS, Plan, rows_of
from native.kafka import prepare_jars
from tests.integration.stack import ROOT, Stack, eventually


def measure(stack: Stack, rate: float, seconds: float, workers: int) -> str:
    """A line of figures for one rate."""
    streams = stack.urls["ingestion"] + "/ingest/streams"
    spec = {"file": "fleet.csv", "rate": rate, "loop": True, "workers": workers}
    stream = stack.client.post(streams, json=spec).raise_for_status().json()

    def sent() -> int:
        number: int = stack.client.get(f"{streams}/{stream['id']}").json()["sent"]
        return number

    eventually(lambda: sent() > 0, 30, "it has begun")
    time.sleep(1.0)
    meter = Meter({"ingestion": stack.processes["ingestion"].pid})
    before, marks = meter.read(), [(time.monotonic(), sent())]
    while marks[-1][0] - marks[0][0] < seconds:
        time.sleep(1.0 - (time.monotonic() - marks[0][0]) % 1.0)
        marks.append((time.monotonic(), sent()))
    used = meter.read() - before
    stack.client.delete(f"{streams}/{stream['id']}").raise_for_status()
    took = marks[-1][0] - marks[0][0]
    measured = (marks[-1][1] - marks[0][1]) / took
    each = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(marks)]
    return (
        f"{rate:8g}/s: {measured:10.2f}/s over {took:.1f} s ({(measured / rate - 1) * 100:+.2f} %), worst seconds "
        f"{min(each):.0f} and {max(each):.0f}, ingestion {used.processes['ingestion'] / took * 100:.0f} % of a core, "
        f"others {used.cores_of_others:.1f} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 100, 1_000, 5_000, 20_000])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (folder / "fleet.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows_of(Plan(rounds=40))])
        libs = prepare_jars(ROOT / ".run" / "kafka" / "libs")
        with Rig(folder, libs, 1, 1) as rig, rig.stack({"INGEST_DIR": str(folder)}) as stack:
            stack.start("ingestion")
            eventually(lambda: stack.ready("ingestion"), 60, "ingestion is ready")
            for rate in given.rates:
                print(measure(stack, rate, given.seconds, given.workers), flush=True)


if __name__ == "__main__":
    main()
