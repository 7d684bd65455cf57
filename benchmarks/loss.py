"""Has our stage become slower? Its speed as a share of what the bare client does in the same run, against what it was.

A share, for a machine's own speed is no matter of ours; of CPU time, for other programs of the machine take turns with
a run. `ceiling.json` holds the shares that were measured last, on the machine of docs/benchmarks.md.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.beside import CEILING
from benchmarks.figures import Run

STORED: Final = Path(__file__).with_name("ceiling.json")
LEAST: Final = 0.8  # of the stored share: what is below is a loss

_FIGURE: Final = "rate_per_cpu_second"


def stored() -> dict[str, float]:
    """Records per CPU second of each measurement over those of the ceiling, as they were measured last."""
    shares: dict[str, float] = json.loads(STORED.read_text())
    return shares


def shares(found: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """The same of these runs. Measurements take turns, so each run is divided by the ceiling's of its own turn."""
    ceiling = found[CEILING.name]
    return {
        name: statistics.median(
            ours / bare
            for run, beside in zip(runs, ceiling, strict=True)
            if (ours := run[_FIGURE]) and (bare := beside[_FIGURE])
        )
        for name, runs in found.items()
        if name != CEILING.name
    }


def verdict(now: Mapping[str, float], before: Mapping[str, float]) -> tuple[str, bool]:
    """A table of both as Markdown, and whether no share is lost."""
    lines = ["| share of the ceiling, by CPU | now | stored | of it | |", "| --- | ---: | ---: | ---: | --- |"]
    kept = True
    for name, was in before.items():
        left = now[name] / was
        kept = kept and left >= LEAST
        word = "pass" if left >= LEAST else "**fail**"
        lines.append(f"| {name} | {now[name]:.3f} | {was:.3f} | {left:.0%}, at least {LEAST:.0%} | {word} |")
    return "\n".join(lines) + "\n", kept
