"""What each source's entries are like: metrics by source, followed in the store batch by batch.

store > [every 2 s: what the batches closed since then hold, grouped by source] > totals > /metrics

Asked of the store, so that nothing is counted on the hot path, and figures are exact and outlive the process. A look
costs as much as what is new since the last one; only the first reads everything, in pieces, and nothing is shown until
it is done: totals that are still growing up would look like traffic. Entries are counted when they are stored, whenever
they happened.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from processing.counts import OTHER
from processing.detect import AnomalyReason
from processing.store import ROWS_PER_BATCH, Store
from shared import logs
from shared.errors import StoreError
from shared.records import FAILURE, SUCCESS, status_of

NAME: Final = "sources"
SLOWEST: Final = 10  # operations shown of each source
RECENT_S: Final = 3600
_SLOT_S: Final = 300  # the last hour is kept in slots of this length
_LOOK_S: Final = 2.0  # between two looks, or fifty times as long as the last one took, but no longer than ...
_LOOK_MAX_S: Final = 10.0
_PIECE: Final = 100  # batches read in one go, of at most STORE_ROWS rows each
_BIRTH_S: Final = 6.0  # longer than a scrape interval

MIB: Final = 1024 * 1024

log = logs.logger(NAME)


@dataclass(frozen=True, slots=True)
class Measure:
    """A histogram by source: its metric, the column it measures, and the upper bounds of its buckets."""

    metric: str
    text: str
    column: str  # SQL, null where an entry has none
    bounds: tuple[float, ...]

    def query(self) -> str:
        bounds = ", ".join(str(bound) for bound in self.bounds)
        return (
            f"SELECT service_name AS source, arrayFirstIndex(b -> value <= b, [{bounds}]) AS bucket, "  # noqa: S608 - our own names
            f"count() AS entries, sum(assumeNotNull({self.column}) AS value) AS total "
            f"FROM records WHERE {_BETWEEN} AND isNotNull({self.column}) GROUP BY source, bucket"
        )


_BETWEEN: Final = "seq >= {begin:UInt64} AND seq < {end:UInt64}"

MEASURES: Final = (
    Measure(
        "sluice_source_duration_seconds",
        "Durations that stored entries report, by source.",
        "duration_s",
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 21600),
    ),
    Measure(
        "sluice_source_memory_bytes",
        "Memory that stored entries report, by source.",
        "toFloat64(memory_bytes)",
        tuple(float(MIB << power) for power in range(15)),
    ),
    Measure(
        "sluice_source_efficiency_ratio",
        "Efficiency of stored entries, 0 to 1, by source.",
        "efficiency / 100",
        tuple(tenth / 10 for tenth in range(1, 11)),
    ),
)

_OUTCOMES: Final = f"""
SELECT service_name AS source, outcome, count() AS entries, min(seq) AS first
FROM records WHERE {_BETWEEN} GROUP BY source, outcome ORDER BY first
"""  # noqa: S608 - our own names

_ANOMALIES: Final = f"""
SELECT service_name AS source, reason, count() AS entries
FROM anomalies WHERE {_BETWEEN} GROUP BY source, reason
"""  # noqa: S608 - our own names


def _slowest(slot: str, since: str) -> str:
    return f"""
SELECT service_name AS source, event_name AS operation, {slot} AS slot, max(assumeNotNull(duration_s)) AS most
FROM records WHERE {_BETWEEN} AND isNotNull(duration_s) AND {since}
GROUP BY source, operation, slot ORDER BY most DESC LIMIT {SLOWEST} BY source, slot
"""  # noqa: S608 - our own names


_EVER: Final = _slowest("toInt64(0)", "true")
_RECENT: Final = _slowest(
    f"intDiv(toInt64(toUnixTimestamp(stored_at)), {_SLOT_S})",
    "stored_at >= fromUnixTimestamp64Nano({since_ns:Int64}, 'UTC')",
)


@dataclass(slots=True)
class _Distribution:
    buckets: list[int]  # entries between the bounds; the last is above them all
    total: float = 0.0

    def cumulative(self, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
        names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.buckets)), strict=True))


class Longest:
    """The operations of a source with the longest entries: exactly these, and no more of them than are shown.

    An operation that gives way here can only come back with an entry that is longer than all it had before.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, operation: str, seconds: float) -> None:
        if seconds > self.seconds.get(operation, -1.0):
            self.seconds[operation] = seconds
            if len(self.seconds) > SLOWEST:
                del self.seconds[min(self.seconds, key=lambda name: (self.seconds[name], name))]


@dataclass(slots=True)
class _Totals:
    """All that was stored of each source, by its label."""

    entries: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by status
    anomalies: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by reason
    measured: dict[tuple[str, str], _Distribution] = field(default_factory=dict)  # by metric and source
    longest: dict[str, Longest] = field(default_factory=lambda: defaultdict(Longest))
    recent: dict[tuple[str, int], Longest] = field(default_factory=lambda: defaultdict(Longest))  # by source and slot


class Families:
    """The metrics, with nothing in them."""

    def __init__(self) -> None:
        operation = ["source", "operation"]
        self.entries = CounterMetricFamily(
            "sluice_source_entries", "Entries stored, by source and status.", labels=["source", "status"]
        )
        self.anomalies = CounterMetricFamily(
            "sluice_source_anomalies", "Anomalies stored, by source and reason.", labels=["source", "reason"]
        )
        self.longest = GaugeMetricFamily(
            "sluice_operation_longest_seconds",
            f"The longest stored entry of an operation, for the {SLOWEST} of a source where it is longest.",
            labels=operation,
        )
        self.recent = GaugeMetricFamily(
            "sluice_operation_longest_recent_seconds",
            "The same, of the entries stored in the last hour.",
            labels=operation,
        )
        self.measures = [HistogramMetricFamily(each.metric, each.text, labels=["source"]) for each in MEASURES]

    def __iter__(self) -> Iterator[Metric]:
        yield from (self.entries, self.anomalies, self.longest, self.recent, *self.measures)


class Sources(Collector):
    """The metrics by source. Sources beyond the limit share the label `other`."""

    def __init__(self, store: Store, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._epoch = store.epoch
        self._limit = limit
        self._clock = clock
        self._labels: set[str] = set()  # the sources that have one of their own
        self._totals = _Totals()
        self._end = 0  # the seq up to which rows are counted
        self._caught_up = False
        self._born: dict[Hashable, float] = {}  # when a series was first shown
        self._lock = threading.Lock()

    # following the store

    def run(self, stopping: threading.Event) -> None:
        """Follow the store until told to stop; where it fails, the same rows are asked for again."""
        while not stopping.is_set():
            begun = self._clock()
            try:
                if self.look():
                    continue
            except StoreError as error:
                log.warning("no figures by source for now", error=str(error))
            stopping.wait(min(max(_LOOK_S, 50 * (self._clock() - begun)), _LOOK_MAX_S))

    def look(self) -> bool:
        """Count a piece of what is new; returns whether more is waiting. Raises StoreError, with nothing counted."""
        if self._store.epoch != self._epoch:
            self._begin_anew()
        newest = self._store.end()
        end = min(newest, (self._end // ROWS_PER_BATCH + _PIECE) * ROWS_PER_BATCH)
        if end > self._end:
            recent_ns = (int(time.time()) // _SLOT_S * _SLOT_S - RECENT_S) * 1_000_000_000
            limits = {"begin": self._end, "end": end, "since_ns": recent_ns}
            found = {
                query: self._store.query(query, {name: limits[name] for name in limits if f"{{{name}:" in query})
                for query in (_OUTCOMES, _ANOMALIES, _EVER, _RECENT, *(measure.query() for measure in MEASURES))
            }
            with self._lock:
                self._add(found)
                self._end = end
        if end == newest and not self._caught_up:
            with self._lock:
                old = [*((what, source, value) for what, source, value, _ in self._counted()), *self._totals.measured]
                self._born = dict.fromkeys(old, float("-inf"))
                self._caught_up = True
        return end < newest

    def _begin_anew(self) -> None:
        """The store was rebuilt: its rows have other places. Until they are counted, nothing is shown."""
        with self._lock:
            self._epoch = self._store.epoch
            self._totals, self._end, self._caught_up = _Totals(), 0, False

    def _add(self, found: Mapping[str, list[dict[str, Any]]]) -> None:
        totals = self._totals
        for row in found[_OUTCOMES]:  # first, for the sources take their labels in the order of their first entry
            totals.entries[self._label(row["source"])][status_of(row["outcome"])] += row["entries"]
        for row in found[_ANOMALIES]:
            reason = row["reason"] if row["reason"] in _REASONS else OTHER
            totals.anomalies[self._label(row["source"])][reason] += row["entries"]
        for measure in MEASURES:
            for row in found[measure.query()]:
                key = (measure.metric, self._label(row["source"]))
                made = totals.measured.setdefault(key, _Distribution([0] * (len(measure.bounds) + 1)))
                made.buckets[row["bucket"] - 1] += row["entries"]  # 0, none of the bounds, is the last
                made.total += row["total"] or 0.0
        for row in found[_EVER]:
            totals.longest[self._label(row["source"])].add(row["operation"], row["most"])
        for row in found[_RECENT]:
            totals.recent[self._label(row["source"]), row["slot"]].add(row["operation"], row["most"])

    def _label(self, source: str) -> str:
        """A source's own label, while there are not too many. Whoever had one keeps it."""
        if source not in self._labels and len(self._labels) < self._limit:
            self._labels.add(source)
        return source if source in self._labels else OTHER

    def _counted(self) -> Iterator[tuple[str, str, str, int]]:
        """(what, source, value, number) of each counter; every source has every known value, be it 0."""
        totals = self._totals
        for what, counters, known in (
            ("entries", totals.entries, _STATUSES),
            ("anomalies", totals.anomalies, _REASONS),
        ):
            for source in dict.fromkeys([*totals.entries, *totals.anomalies]):
                found = counters.get(source, Counter())
                yield from ((what, source, value, found[value]) for value in sorted({*known, *found}))

    # showing

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        with self._lock:
            if not self._caught_up:
                return
            families = Families()
            for what, source, value, number in self._counted():
                family = families.entries if what == "entries" else families.anomalies
                family.add_metric([source, value], number if self._grown((what, source, value), now) else 0)
            for measure, histogram in zip(MEASURES, families.measures, strict=True):
                for (metric, source), made in self._totals.measured.items():
                    if metric == measure.metric:
                        grown = self._grown((metric, source), now)
                        shown = made if grown else _Distribution([0] * len(made.buckets))
                        histogram.add_metric([source], shown.cumulative(measure.bounds), shown.total)
            for source, operations in self._totals.longest.items():
                for operation, seconds in operations.seconds.items():
                    families.longest.add_metric([source, operation], seconds)
            for source, operations in self._lately().items():
                for operation, seconds in operations.seconds.items():
                    families.recent.add_metric([source, operation], seconds)
        yield from families

    def _grown(self, series: Hashable, now: float) -> bool:
        """Whether a series may show its value: a new one is 0 at first, so that Prometheus sees it grow."""
        return now - self._born.setdefault(series, now) >= _BIRTH_S

    def _lately(self) -> dict[str, Longest]:
        oldest = int(time.time() - RECENT_S) // _SLOT_S
        for key in [key for key in self._totals.recent if key[1] < oldest]:
            del self._totals.recent[key]
        lately: dict[str, Longest] = defaultdict(Longest)
        for (source, _), operations in self._totals.recent.items():
            for operation, seconds in operations.seconds.items():
                lately[source].add(operation, seconds)
        return lately

    def describe(self) -> Iterator[Metric]:
        """Known without asking the store, so that registering needs none."""
        yield from Families()

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self)


_STATUSES: Final = (status_of(SUCCESS), status_of(FAILURE))
_REASONS: Final = tuple(str(reason) for reason in AnomalyReason)
