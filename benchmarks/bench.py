"""`make bench`: how fast, and in how much memory, on this machine, on a Kafka of its own.

    python -m benchmarks.bench [--records 1000000] [--runs 5] [--only stage-1 chain] [--json FILE]
    python -m benchmarks.bench --only peers
    python -m benchmarks.bench --loss

Every run begins with empty topics, an empty store and new processes, and is checked: exactly what went in came out. The
measurements take turns, so that a slow moment of the machine falls on all of them. docs/benchmarks.md says what each
figure is.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import loss
from benchmarks.beside import CEILING, Peer
from benchmarks.chunks import Chunks
from benchmarks.comparison import SIDE_BY_SIDE, comparison, comparison_summary
from benchmarks.entries import SIZE
from benchmarks.figures import Measure, Run, summary, table
from benchmarks.machine import describe
from benchmarks.rig import Rig
from benchmarks.scale_out import ScaleOut
from benchmarks.standardization_stage import StandardizationStage
from benchmarks.whole_chain import Burst, LargeEntry, LoneEntry, LoneEntryUnderLoad
from native.kafka import prepare_jars
from tests.integration.stack import ROOT

MEASURES: Final[Sequence[Measure]] = (
    StandardizationStage(1, least_rate=100_000),
    StandardizationStage(100, least_rate=150_000),
    StandardizationStage(1_000),
    Burst(),
    LoneEntry(),
    LargeEntry(),
    Chunks(),
)
REPLICAS: Final[Sequence[Measure]] = (ScaleOut(1), ScaleOut(2), ScaleOut(4))
NAMED: Final[Mapping[str, Measure]] = {
    each.name: each for each in (*SIDE_BY_SIDE, *MEASURES, *REPLICAS, LoneEntryUnderLoad())
}
BESIDE: Final = "peers"  # in `--only`: our stage in all its forms, and its peers


def measure(rig: Rig, measures: Sequence[Measure], runs: int) -> dict[str, list[Run]]:
    """Run each measurement so many times, in turn, after a run that warms Kafka's JVM up and is not counted."""
    _say("a run to warm up")
    StandardizationStage(1).run(rig)
    found: dict[str, list[Run]] = {each.name: [] for each in measures}
    for number in range(1, runs + 1):
        for each in measures:
            begun = time.monotonic()
            found[each.name].append(each.run(rig))
            _say(f"run {number} of {runs}, {each.name}: {time.monotonic() - begun:.0f} s")
    return found


def main() -> None:
    options = _options()
    measures = chosen([CEILING.name, *loss.stored()] if options.loss else options.only)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave nothing running
    libs = prepare_jars(ROOT / ".run" / "kafka" / "libs", _say)
    for each in measures:
        if isinstance(each, Peer):
            each.prepare(_say)
    machine = describe(libs)
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-", dir=options.folder))
    _say(f"working in {folder}; it stays if a run fails")
    with Rig(folder, libs, options.records, options.seed) as rig:
        found = measure(rig, measures, options.runs)
    shutil.rmtree(folder)
    print(f"{options.records:,} entries of {SIZE} bytes, medians of {options.runs} runs, seed {options.seed}\n")
    print("\n".join(f"- {name}: {value}" for name, value in machine.items()), end="\n\n")
    beside = {each.name for each in SIDE_BY_SIDE} if any(isinstance(each, Peer) for each in measures) else set()
    print("\n".join(table(each, found[each.name]) for each in measures if each.name not in beside), end="")
    if beside:
        print(comparison(found, options.records), end="")
    table_of_losses, kept = loss.verdict(loss.shares(found), loss.stored()) if options.loss else ("", True)
    print(table_of_losses, end="")
    if options.json is not None:
        report = {
            "machine": machine,
            "records": options.records,
            "entry_bytes": SIZE,
            "runs": options.runs,
            "seed": options.seed,
            "measures": {each.name: summary(each, found[each.name]) for each in measures},
            "ratios": comparison_summary(found) if beside else [],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if not kept:
        sys.exit(1)


def chosen(names: Sequence[str]) -> list[Measure]:
    """The measurements that these names of `--only` stand for, each once."""
    wanted = [each.name for each in SIDE_BY_SIDE] if BESIDE in names else []
    return [NAMED[name] for name in dict.fromkeys([*names, *wanted]) if name != BESIDE]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [each.name for each in MEASURES]
    parser.add_argument("--records", type=int, default=1_000_000, help="entries of a run (default %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each measurement (default %(default)s)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*NAMED, BESIDE],
        default=usual,
        help=f"these measurements alone; {BESIDE} is our stage and all its peers",
    )
    parser.add_argument(
        "--loss",
        action="store_true",
        help="our stage beside the bare client alone; fails where a fifth of its stored share is lost",
    )
    parser.add_argument("--json", type=Path, help="write every value of every run to this file")
    parser.add_argument("--seed", type=int, default=1, help="of the entries (default %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="where Kafka's and the store's disk is (default: the system's for temporary files)"
    )
    return parser.parse_args()


def _say(line: str) -> None:
    """Progress goes to standard error; the tables alone to standard output."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
