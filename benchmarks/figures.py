"""Figures: what a measurement yields, what is asked of it, and the table of several runs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from benchmarks.rig import Rig

Run = Mapping[str, float | None]  # of one run, by the key of the figure; None: too little ran to tell


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that is asked for. Speed is judged by its median; a limit that must never be passed, by the worst run."""

    bound: float
    kind: Literal["at least", "below"]
    judged: Literal["median", "worst"] = "median"

    def met(self, values: Sequence[float]) -> bool:
        """Whether the runs meet it."""
        if self.kind == "at least":
            return (statistics.median(values) if self.judged == "median" else min(values)) >= self.bound
        return (statistics.median(values) if self.judged == "median" else max(values)) < self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run."""

    key: str
    label: str
    unit: str
    digits: int = 0
    target: Target | None = None

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


class Measure(Protocol):
    """Something that can be measured again and again, each time from nothing."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def figures(self) -> Sequence[Figure]: ...

    def run(self, rig: Rig) -> Run:
        """Measure once. Raises MeasurementError where what came out is not exactly what went in."""


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many per cent of the values do not exceed: one of them, by nearest rank."""
    rank = -(-percent * len(values) // 100)
    return sorted(values)[max(rank, 1) - 1]


def table(measure: Measure, runs: Sequence[Run]) -> str:
    """The figures of these runs as a Markdown table, each with its spread and its target."""
    lines = [
        f"### {measure.title}\n",
        "| figure | median | least to most | target | |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for figure in measure.figures:
        values = _values(figure, runs)
        if not values:
            lines.append(f"| {figure.label} | too few records to tell | | | |")
            continue
        median = f"{figure.text(statistics.median(values))} {figure.unit}"
        spread = f"{figure.text(min(values))} to {figure.text(max(values))}"
        target = figure.target
        asked = f"{target.kind} {figure.text(target.bound)}" if target else ""
        verdict = ("pass" if target.met(values) else "**fail**") if target else ""
        lines.append(f"| {figure.label} | {median} | {spread} | {asked} | {verdict} |")
    return "\n".join(lines) + "\n"


def summary(measure: Measure, runs: Sequence[Run]) -> dict[str, object]:
    """The same for machines: every value of every run."""
    found: dict[str, object] = {}
    for figure in measure.figures:
        values = _values(figure, runs)
        told: dict[str, object] = {
            "unit": figure.unit,
            "median": statistics.median(values) if values else None,
            "runs": [run[figure.key] for run in runs],
        }
        if figure.target is not None and values:
            told["target"] = asdict(figure.target) | {"met": figure.target.met(values)}
        found[figure.key] = told
    return found


def _values(figure: Figure, runs: Sequence[Run]) -> list[float]:
    return [value for run in runs if (value := run[figure.key]) is not None]
