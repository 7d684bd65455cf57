"""Our stage beside its peers: one table of medians, and the ratios that are asked for."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.beside import CEILING, EXACTLY_ONCE, PEERS, QUIX, STREAMS, Peer
from benchmarks.figures import Run, Target
from benchmarks.standardization_stage import StandardizationStage

_FRAMES: Final = (1, 10, 100, 1_000)
OURS: Final = {records: StandardizationStage(records) for records in _FRAMES}
_ONE, _HUNDRED = OURS[1].name, OURS[100].name
SIDE_BY_SIDE: Final[Sequence[StandardizationStage | Peer]] = (*OURS.values(), *PEERS)

Found = Mapping[str, Sequence[Run]]  # by the name of what was measured


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of ours, divided by that of another."""

    label: str
    ours: str
    other: str
    figure: str
    target: Target

    def of(self, found: Found) -> float | None:
        """The ratio of the medians; None where one of the two was not measured."""
        ours, other = _median(found, self.ours, self.figure), _median(found, self.other, self.figure)
        return ours / other if ours and other else None


RATIOS: Final[Sequence[Ratio]] = (
    Ratio(
        "one record a message to Quix Streams exactly once, records/s",
        _ONE, QUIX.name, "rate", Target(4, "at least"),
    ),
    Ratio(
        "one record a message to Kafka Streams, records per CPU second",
        _ONE, STREAMS.name, "rate_per_cpu_second", Target(1, "at least"),
    ),
    Ratio(
        "frames of 100 to Quix Streams exactly once, records/s",
        _HUNDRED, QUIX.name, "rate", Target(6, "at least"),
    ),
    Ratio(
        "frames of 100 to Kafka Streams, records/s",
        _HUNDRED, STREAMS.name, "rate", Target(1.2, "at least"),
    ),
    Ratio(
        "frames of 100 to Kafka Streams, records per CPU second",
        _HUNDRED, STREAMS.name, "rate_per_cpu_second", Target(1.2, "at least"),
    ),
    Ratio(
        "one record a message to the ceiling, records/s",
        _ONE, CEILING.name, "rate", Target(0.45, "at least"),
    ),
    Ratio(
        "peak resident memory, one record a message, to Kafka Streams",
        _ONE, STREAMS.name, "peak_mb", Target(1, "below"),
    ),
)  # fmt: skip


def comparison(found: Found, records: int) -> str:
    """Both tables as Markdown; `records` is how many a run of ours has."""
    return "\n".join([*_beside(found, records), "", *_judged(found), ""])


def comparison_summary(found: Found) -> list[dict[str, object]]:
    """The ratios for machines."""
    told: list[dict[str, object]] = []
    for ratio in RATIOS:
        value = ratio.of(found)
        met = None if value is None else ratio.target.met([value])
        told.append(
            {"ratio": ratio.label, "value": value, "kind": ratio.target.kind, "bound": ratio.target.bound, "met": met}
        )
    return told


def _beside(found: Found, records: int) -> Iterator[str]:
    yield "#### Beside others: medians\n"
    yield (
        "| | guarantee | records | records/s | least to most | per CPU second | per CPU second of Kafka | peak MB "
        "| start-up, s | ours is, by records/s | by CPU |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for each in SIDE_BY_SIDE:
        if each.name not in found:
            continue
        if isinstance(each, StandardizationStage):
            label, guarantee, count = f"**Sluice**, {_framed(each)}", EXACTLY_ONCE, float(records)
        else:
            label, guarantee, count = each.label, each.guarantee, _median(found, each.name, "records") or 0.0
        cells = [
            _text(count),
            _text(_median(found, each.name, "rate")),
            _spread(found, each.name, "rate"),
            *(
                _text(_median(found, each.name, figure))
                for figure in ("rate_per_cpu_second", "kafka_rate_per_cpu_second", "peak_mb")
            ),
            _text(_median(found, each.name, "start_seconds"), 2),
            _times(found, each.name, "rate"),
            _times(found, each.name, "rate_per_cpu_second"),
        ]
        yield f"| {label} | {guarantee} | {' | '.join(cells)} |"


def _judged(found: Found) -> Iterator[str]:
    yield "| Sluice, exactly once | ratio | target | |"
    yield "| --- | ---: | ---: | --- |"
    for ratio in RATIOS:
        value = ratio.of(found)
        if value is not None:
            verdict = "pass" if ratio.target.met([value]) else "**fail**"
            yield f"| {ratio.label} | {value:.2f} | {ratio.target.kind} {ratio.target.bound:g} | {verdict} |"


def _framed(stage: StandardizationStage) -> str:
    return "one record a message" if stage.frame_records == 1 else f"frames of {stage.frame_records:,}"


def _times(found: Found, name: str, figure: str) -> str:
    """How many times that figure of a peer our own is, with one record a message as well."""
    ours, other = _median(found, _ONE, figure), _median(found, name, figure)
    own = {each.name for each in OURS.values()}
    return f"{ours / other:.2f} times" if ours and other and name not in own else ""


def _spread(found: Found, name: str, figure: str) -> str:
    values = [value for run in found[name] if (value := run[figure]) is not None]
    return f"{min(values):,.0f} to {max(values):,.0f}" if values else ""


def _median(found: Found, name: str, figure: str) -> float | None:
    values = [value for run in found.get(name, ()) if (value := run[figure]) is not None]
    return statistics.median(values) if values else None


def _text(value: float | None, digits: int = 0) -> str:
    return "too few to tell" if value is None else f"{value:,.{digits}f}"
