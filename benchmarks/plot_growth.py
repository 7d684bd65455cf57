"""Draws what benchmarks.growth wrote: CPU a record and resident memory over the records that are stored.

    python plot_growth.py growth.json growth.svg

It runs in an environment of its own, with nothing of ours.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def main(told: Path, picture: Path) -> None:
    steps = json.loads(told.read_text())["steps"]
    stored = [step["stored"] / 1e6 for step in steps]
    names = list(steps[0]["cpu_microseconds"])
    plt.rcParams["svg.hashsalt"] = "growth"  # the same figures make the same file
    figure, (cost, memory) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    cost.stackplot(stored, [[step["cpu_microseconds"][name] for step in steps] for name in names], labels=names)
    cost.set(title="CPU a record", xlabel="million records stored", ylabel="µs", xlim=(stored[0], stored[-1]))
    cost.set_ylim(bottom=0)
    cost.legend(loc="lower left")
    for name in names:
        memory.plot(stored, [step["resident_mb"][name] for step in steps], label=name)
    memory.set(title="Resident memory", xlabel="million records stored", ylabel="MB", xlim=(stored[0], stored[-1]))
    memory.set_ylim(bottom=0)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
