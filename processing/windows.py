"""One-minute windows of a series, and the mergeable quantile sketch inside them.

A window is emitted as a delta: what one transaction adds to it. Deltas of the same (series, minute) merge: counts, sums
and sketches add up, minima and maxima are taken. So no window stays open here, and late entries are simply counted.

The sketch is DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
Guarantees", VLDB 2019) without collapsing: a value x > 0 falls into bucket k = ceil(log(x) / log(gamma)), and every
value of bucket k, which spans (gamma^(k-1), gamma^k], lies within RELATIVE_ERROR of 2 gamma^k / (gamma + 1).
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from processing.detect import FAILURES
from shared.records import SUCCESS, Kind, Record

RELATIVE_ERROR: Final = 0.01
GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
ZERO_KEY: Final = -(2**31)  # the bucket of zero: the least Int32, so it sorts first; all others lie within 40,000 of 0

Sketch = tuple[list[int], list[int]]  # keys, ascending and each once, and the counts of their buckets

_LOG_GAMMA = math.log(GAMMA)
_LOG_MIDDLE = math.log(2 / (GAMMA + 1))
_LOG_MAX = math.log(sys.float_info.max)
_INT64_MAX = 2**63 - 1


def keys_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bucket of each value; values are finite and not negative."""
    keys = np.full(len(values), ZERO_KEY, dtype=np.int64)
    positive = values > 0
    keys[positive] = np.ceil(np.log(values[positive]) / _LOG_GAMMA)
    return keys


def quantile(keys: Sequence[int], counts: Sequence[int], q: float) -> float | None:
    """The q-quantile (0 <= q <= 1) of a sketch; None of an empty one. `keys` ascend, each once; `counts` are theirs.

    Within RELATIVE_ERROR of the value at rank floor(q (n - 1)) of the n in ascending order, as DDSketch defines it.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    rank = int(q * (sum(counts) - 1))
    for key, count in zip(keys, counts, strict=True):
        if rank < count:
            return 0.0 if key == ZERO_KEY else math.exp(min(key * _LOG_GAMMA + _LOG_MIDDLE, _LOG_MAX))
        rank -= count
    return None


def merge(sketches: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Sketch:
    """The sketch of the union: exactly the one that all their values together would have made."""
    merged: dict[int, int] = {}
    for keys, counts in sketches:
        for key, count in zip(keys, counts, strict=True):
            merged[key] = merged.get(key, 0) + count
    ordered = sorted(merged)
    return ordered, [merged[key] for key in ordered]


class Delta:
    """What a transaction adds to one window, gathered call by call."""

    __slots__ = (
        "durations",
        "efficiency_tenths",
        "failure",
        "memories",
        "rows",
        "scored",
        "success",
        "total",
        "transfer_bytes",
    )

    def __init__(self) -> None:
        self.total = 0
        self.success = 0
        self.failure = 0  # failure and timeout
        self.durations: list[float] = []  # seconds
        self.memories: list[int] = []  # bytes
        self.scored = 0  # entries that have an efficiency
        self.efficiency_tenths = 0  # scores have one decimal; in tenths their sum is exact
        self.rows = 0
        self.transfer_bytes = 0

    def add(self, records: Sequence[Record], efficiency_tenths: Iterable[int | None]) -> None:
        """Take in records of the window, with the score of each."""
        outcomes = [record.outcome for record in records]
        scores = [tenths for tenths in efficiency_tenths if tenths is not None]
        self.total += len(records)
        self.success += outcomes.count(SUCCESS)
        self.failure += sum(map(outcomes.count, FAILURES))
        self.durations += [record.duration_s for record in records if record.duration_s is not None]
        self.memories += [record.memory_bytes for record in records if record.memory_bytes is not None]
        self.scored += len(scores)
        self.efficiency_tenths += sum(scores)
        self.rows += sum([record.rows for record in records if record.rows])
        self.transfer_bytes += sum([record.transfer_bytes for record in records if record.transfer_bytes])


class WindowLine(msgspec.Struct, frozen=True):
    """A delta as its line of processed-metrics holds it. A minimum or maximum is null where its count is 0."""

    kind: str
    minute: str  # RFC 3339, UTC: where the minute begins
    service_name: str
    event_name: str
    total: int
    success: int
    failure: int
    other: int
    duration_count: int
    duration_sum: float
    duration_min: float | None
    duration_max: float | None
    duration_keys: list[int]
    duration_counts: list[int]
    memory_count: int
    memory_sum: int
    memory_min: int | None
    memory_max: int | None
    memory_keys: list[int]
    memory_counts: list[int]
    efficiency_count: int
    efficiency_sum: float
    rows: int
    transfer_bytes: int


_KIND = Kind.WINDOW.value
_encode = msgspec.json.Encoder().encode


def lines_of(deltas: Mapping[tuple[str, str, str], Delta]) -> list[bytes]:
    """Encode a WindowLine for each delta; they are named by (service_name, event_name, minute as 2026-01-05T10:00).

    Sums saturate at the largest number that their column holds.
    """
    durations = _sketches([delta.durations for delta in deltas.values()])
    memories = _sketches([delta.memories for delta in deltas.values()])
    return [
        _encode(
            WindowLine(
                kind=_KIND,
                minute=minute + ":00Z",
                service_name=service_name,
                event_name=event_name,
                total=delta.total,
                success=delta.success,
                failure=delta.failure,
                other=delta.total - delta.success - delta.failure,
                duration_count=len(delta.durations),
                duration_sum=min(sum(delta.durations), sys.float_info.max),
                duration_min=min(delta.durations, default=None),
                duration_max=max(delta.durations, default=None),
                duration_keys=duration[0],
                duration_counts=duration[1],
                memory_count=len(delta.memories),
                memory_sum=min(sum(delta.memories), _INT64_MAX),
                memory_min=min(delta.memories, default=None),
                memory_max=max(delta.memories, default=None),
                memory_keys=memory[0],
                memory_counts=memory[1],
                efficiency_count=delta.scored,
                efficiency_sum=delta.efficiency_tenths / 10,
                rows=min(delta.rows, _INT64_MAX),
                transfer_bytes=min(delta.transfer_bytes, _INT64_MAX),
            )
        )
        for ((service_name, event_name, minute), delta), duration, memory in zip(
            deltas.items(), durations, memories, strict=True
        )
    ]


def _sketches(groups: Sequence[Sequence[float]]) -> list[Sketch]:
    """The sketch of each group of values."""
    values = np.array([value for group in groups for value in group], dtype=np.float64)
    group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    # group and key in one number that sorts by group, then key, so that one sort serves all groups
    found, counted = np.unique(group_of * 2**32 + (keys_of(values) - ZERO_KEY), return_counts=True)
    ends = np.searchsorted(found, np.arange(len(groups) + 1) * 2**32).tolist()
    keys, counts = ((found & 0xFFFFFFFF) + ZERO_KEY).tolist(), counted.tolist()
    return [(keys[start:end], counts[start:end]) for start, end in pairwise(ends)]
