"""Does a record cost more, and do services grow, the more are stored? Million after million through one whole chain.

    python -m benchmarks.growth --millions 20 --json growth.json --plot docs/growth.svg

Each million is pushed as in `chain` and waited for until it is stored; then CPU time and resident memory of every
service are read. Nothing is restarted or deleted in between. 20 million take some 20 GB of disk.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import preparation
from benchmarks.machine import describe
from benchmarks.rig import Rig
from benchmarks.usage import Meter, resident_bytes
from benchmarks.whole_chain import check, push, running, wait_until_stored
from native.kafka import prepare_jars
from tests.integration.stack import ROOT, SERVICES

MILLION: Final = 1_000_000
# Of the last million over the second, less than this. The first warms Kafka's compiler and every cache up.
COST_GROWTH: Final = 0.10
MEMORY_GROWTH: Final = 0.10

KAFKA: Final = "kafka"


@dataclass(frozen=True, slots=True)
class Step:
    """One million, and what is there after it."""

    stored: int  # records in the store
    rate: float  # records a second, first byte pushed to last row stored
    cpu_microseconds: dict[str, float]  # a record, by service
    resident_mb: dict[str, float]  # by service, with all of the million stored
    store_mb: float  # the embedded store's folder on disk
    kafka_mb: float  # Kafka's folder on disk: all topics, one replica of each

    @property
    def cost(self) -> float:
        """Microseconds of CPU a record, services and Kafka."""
        return sum(self.cpu_microseconds.values())


def grow(rig: Rig, millions: int) -> list[Step]:
    """Push the rig's entries so many times, one after the other; each time they must all be stored, once."""
    steps = []
    with running(rig) as stack:
        pids = {name: stack.processes[name].pid for name in SERVICES} | {KAFKA: rig.broker_pid}
        meter = Meter(pids)
        for number in range(1, millions + 1):
            before = meter.read()
            client = push(stack, str(rig.bodies))
            ended = wait_until_stored(stack, number * rig.records)
            used = meter.read() - before
            check(stack, client["accepted"], rig.records, number * rig.records)
            steps.append(
                Step(
                    stored=number * rig.records,
                    rate=rig.records / (ended - client["begun"]),
                    cpu_microseconds={name: cpu * 1e6 / rig.records for name, cpu in used.processes.items()},
                    resident_mb={name: resident_bytes(pid) / 1e6 for name, pid in pids.items()},
                    store_mb=_size(stack.folder / "data" / "processing" / "store") / 1e6,
                    kafka_mb=_size(rig.folder / "kafka") / 1e6,
                )
            )
            say(f"{steps[-1].stored:,} stored: {steps[-1].rate:,.0f}/s, {steps[-1].cost:.1f} µs a record")
    return steps


def verdict(steps: list[Step]) -> list[tuple[str, float, float, bool]]:
    """The growth from the second million to the last: of what, by how much of 1, its limit, and whether it is kept."""
    second, last = steps[1], steps[-1]
    found = [("CPU a record", last.cost / second.cost - 1, COST_GROWTH)]
    found += [
        (f"resident memory of {name}", last.resident_mb[name] / second.resident_mb[name] - 1, MEMORY_GROWTH)
        for name in SERVICES
    ]
    return [(label, growth, limit, growth < limit) for label, growth, limit in found]


def report(steps: list[Step]) -> str:
    """Every million as a row of a Markdown table, then what is asked for."""
    names = list(steps[0].cpu_microseconds)
    lines = [
        "| stored | records/s | CPU a record, µs | "
        + " | ".join(f"{name}, µs" for name in names)
        + " | "
        + " | ".join(f"{name}, MB" for name in names)
        + " | store on disk, MB | Kafka on disk, MB |",
        "| ---: | ---: | ---: |" + " ---: |" * (2 * len(names) + 2),
    ]
    for step in steps:
        cells = [f"{step.stored:,}", f"{step.rate:,.0f}", f"{step.cost:.1f}"]
        cells += [f"{step.cpu_microseconds[name]:.1f}" for name in names]
        cells += [f"{step.resident_mb[name]:,.0f}" for name in names]
        lines.append(f"| {' | '.join(cells)} | {step.store_mb:,.0f} | {step.kafka_mb:,.0f} |")
    lines += ["", "| from the second million to the last | growth | limit | |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {label} | {growth:+.1%} | below {limit:.0%} | {'pass' if kept else '**fail**'} |"
        for label, growth, limit, kept in verdict(steps)
    ]
    return "\n".join(lines) + "\n"


def plot(told: Path, picture: Path) -> None:
    """Draw the curves of a written report, in an environment of its own (benchmarks/peers/plot.txt)."""
    python = preparation.python_of("plot", say)
    subprocess.run([str(python), str(Path(__file__).with_name("plot_growth.py")), str(told), str(picture)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=20, help="at least 2 (default %(default)s)")
    parser.add_argument("--records", type=int, default=MILLION, help="of a step, if it is not to be a million")
    parser.add_argument("--json", type=Path, required=True, help="every figure of every step goes to this file")
    parser.add_argument("--plot", type=Path, help="the curves as an SVG")
    parser.add_argument("--seed", type=int, default=1, help="of the entries (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where Kafka's and the store's disk is")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave nothing running
    libs = prepare_jars(ROOT / ".run" / "kafka" / "libs", say)
    machine = describe(libs)
    folder = Path(tempfile.mkdtemp(prefix="sluice-growth-", dir=options.folder))
    say(f"working in {folder}; it stays if a run fails")
    with Rig(folder, libs, options.records, options.seed) as rig:
        steps = grow(rig, options.millions)
    shutil.rmtree(folder)
    options.json.write_text(
        json.dumps({"machine": machine, "steps": [asdict(step) for step in steps]}, indent=2) + "\n"
    )
    if options.plot is not None:
        plot(options.json, options.plot)
    print(report(steps), end="")


def say(line: str) -> None:
    """Progress goes to standard error; the tables alone to standard output."""
    print(line, file=sys.stderr, flush=True)


def _size(folder: Path) -> int:
    """Bytes on disk under a folder in which files come and go."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:  # merged away a moment ago
            continue
    return total


if __name__ == "__main__":
    main()
