"""What is usual for an operation, and what is not: histories of its successes, the efficiency score, and anomalies.

docs/analytics.md states the formulas and why they are these.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec

from shared.config import Settings
from shared.errors import StateError
from shared.records import SUCCESS, Kind, Outcome, Record
from shared.state import StateCodec

FAILURES: Final = frozenset({Outcome.FAILURE.value, Outcome.TIMEOUT.value})

_CLIP = 3.0  # a value moves its history as if it lay at most this many spreads from the centre
_SPREAD_MIN = 0.05  # in logarithms, so 5 %: what never varied still adapts, and is not judged by a hair
_YOUNG = 8.0  # after n values the spread is taken (1 + _YOUNG / n) times as wide, for it is known only roughly
_FAR = 10.0  # however wide the spread, this many times the usual, if over the absolute limit, is an anomaly
_SIGMA_OF_MEDIAN = 1.4826  # median absolute deviation to standard deviation, of a normal distribution
_SIGMA_OF_MEAN = math.sqrt(math.pi / 2)  # mean absolute deviation to standard deviation, likewise
_CEILING = 1e100  # what is more counts as this much, so that exp() of a difference of two logarithms stays finite
_LOG_MAX = math.log(_CEILING)
_STATE_SCHEMA = 1


class AnomalyReason(StrEnum):
    """Why an entry is an anomaly. Bounded, for it is a metric label."""

    FAILURE = "failure"
    LONG_DURATION = "long_duration"
    HIGH_MEMORY = "high_memory"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that is judged, with its thresholds in its unit."""

    reason: AnomalyReason  # of an anomaly in it
    unit: str  # UCUM: s or By
    floor: float  # what is less counts as this much in a history, so that logarithms of next to nothing stay quiet
    absolute_limit: float  # without history, more than this is an anomaly
    excess: float  # with history, an anomaly exceeds what is expected by at least this much
    reference: float  # without history, this much scores 50

    def log_of(self, value: float) -> float:
        """The natural logarithm that a history works with; value is finite and not negative."""
        return math.log(value) if self.floor < value < _CEILING else math.log(min(max(value, self.floor), _CEILING))


@dataclass(frozen=True, slots=True)
class Rules:
    """How entries are judged."""

    duration: Quantity
    memory: Quantity
    history_min: int  # values before a history judges
    history_weight: float  # of the newest value, once the history is long
    deviation: float  # spreads above the expected value ...
    ratio: float  # ... and times the expected value, at which an anomaly begins
    series_max: int  # histories kept for each partition

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """As the settings say."""
        return cls(
            duration=Quantity(
                reason=AnomalyReason.LONG_DURATION,
                unit="s",
                floor=0.001,
                absolute_limit=settings.long_duration_seconds,
                excess=settings.anomaly_excess_seconds,
                reference=settings.reference_seconds,
            ),
            memory=Quantity(
                reason=AnomalyReason.HIGH_MEMORY,
                unit="By",
                floor=1024 * 1024,
                absolute_limit=settings.high_memory_bytes,
                excess=settings.anomaly_excess_bytes,
                reference=settings.reference_memory_bytes,
            ),
            history_min=settings.history_min,
            history_weight=settings.history_weight,
            deviation=settings.deviation,
            ratio=settings.anomaly_ratio,
            series_max=settings.series_max,
        )


Log = Annotated[float, msgspec.Meta(ge=-_LOG_MAX, le=_LOG_MAX)]


class Expectation(NamedTuple):
    """What a history expected of a value that is over its limit."""

    typical: float | None  # None without history
    limit: float


class BaselineState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Baseline as it is kept: its first values while they are few, then centre and spread. All in logarithms."""

    first: list[Log] = []
    count: Annotated[int, msgspec.Meta(ge=0)] = 0
    center: Log = 0.0
    spread: Annotated[float, msgspec.Meta(ge=0, le=4 * _LOG_MAX)] = 0.0


class SeriesState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Series as the state topic keeps it."""

    schema: int
    duration: BaselineState = BaselineState()
    memory: BaselineState = BaselineState()


_NO_HISTORY = SeriesState(_STATE_SCHEMA)


class Baseline:
    """The typical value and spread of one quantity of one series, learned from its successes.

    It works in natural logarithms, because durations and memory vary by factors. The first `history_min` values are
    kept and start it by their median and median absolute deviation, so that nearly half of them may be outliers. From
    then on mean and mean absolute deviation move by exponentially weighted steps, each value clipped to _CLIP spreads:
    a single outlier shifts little, and a lasting change is accepted after a dozen or so.

    Before that, `center` and `watch` are those of the absolute reference and limit: judging needs no other way.
    """

    __slots__ = ("_count", "_first", "_spread", "center", "quantity", "rules", "watch")

    center: float  # logarithm of the typical value: half of the one that scores 50
    watch: float  # how far above the centre a value must lie to be held against the limit; no anomaly lies lower

    def __init__(self, quantity: Quantity, rules: Rules, state: BaselineState) -> None:
        self.quantity = quantity
        self.rules = rules
        self._first: list[float] | None = None
        self._count = state.count
        self._spread = state.spread
        self.center = state.center
        self.watch = math.log(rules.ratio)
        if not state.count:
            self._first = list(state.first)
            self.center = math.log(quantity.reference / 2)
            self.watch = math.log(quantity.absolute_limit) - self.center

    def follow(
        self, values: Sequence[float | None], successes: Sequence[bool]
    ) -> tuple[list[float], dict[int, "Expectation"]]:
        """Judge values of the quantity in turn, each by the history before it, and take in those of successes.

        Returns what each costs, 1 + (value / half)^2, where half is twice the typical value, and 1 where there is none;
        and of those over the limit, by position, what was expected instead.
        """
        quantity, floor, newest = self.quantity, self.quantity.floor, self.rules.history_weight
        count, center, spread, watch = self._count, self.center, self._spread, self.watch
        costs: list[float] = []
        over: dict[int, Expectation] = {}
        for value, success in zip(values, successes, strict=True):
            if value is None:
                costs.append(1.0)
                continue
            log = math.log(value) if floor < value < _CEILING else quantity.log_of(value)
            step = log - center
            costs.append(1.0 + math.exp(2 * step) / 4)
            if step > watch:
                self._count, self.center, self._spread = count, center, spread
                limit = self.limit
                if value > limit:
                    over[len(costs) - 1] = Expectation(self.expected, limit)
            if not success:
                continue
            if self._first is not None:
                self._begin(self._first, log)
                count, center, spread, watch = self._count, self.center, self._spread, self.watch
                continue
            count += 1
            weight = newest if count * newest >= 1 else 1 / count  # a young history is the plain mean of what it saw
            if step > _CLIP * spread:
                step = _CLIP * spread
            elif step < -_CLIP * spread:
                step = -_CLIP * spread
            center += weight * step
            spread += weight * (_SIGMA_OF_MEAN * abs(step) - spread)
            if spread < _SPREAD_MIN:
                spread = _SPREAD_MIN
        self._count, self.center, self._spread = count, center, spread
        return costs, over

    def _begin(self, first: list[float], log: float) -> None:
        first.append(log)
        if len(first) < self.rules.history_min:
            return
        self._first = None
        self._count = len(first)
        self.center = center = statistics.median(first)
        self._spread = max(_SIGMA_OF_MEDIAN * statistics.median([abs(x - center) for x in first]), _SPREAD_MIN)
        self.watch = math.log(self.rules.ratio)

    @property
    def expected(self) -> float | None:
        """The typical value, None without history."""
        return math.exp(self.center) if self._first is None else None

    @property
    def limit(self) -> float:
        """A value over this is an anomaly."""
        if self._first is not None:
            return self.quantity.absolute_limit
        expected = math.exp(self.center)
        margin = self.rules.deviation * self._spread * (1 + _YOUNG / self._count)
        wide = math.exp(min(self.center + margin, _LOG_MAX))
        widest = max(_FAR * expected, self.quantity.absolute_limit)
        return max(min(wide, widest), self.rules.ratio * expected, expected + self.quantity.excess)

    def state(self) -> BaselineState:
        if self._first is not None:
            return BaselineState(first=list(self._first))
        return BaselineState(count=self._count, center=self.center, spread=self._spread)


class Anomaly(msgspec.Struct, frozen=True):
    """An anomaly as its line holds it; one line for each reason of an entry."""

    kind: str
    record_id: str
    run_id: str | None
    timestamp: str
    observed_timestamp: str
    service_name: str
    event_name: str
    outcome: str
    reason: str  # one of AnomalyReason
    value: float  # in unit; of a failure 1
    expected: float | None  # what the history expects, null without one; of a failure 0
    limit: float | None  # more than this is an anomaly; null of a failure
    unit: str
    detail: str


class Series:
    """The history of one operation of one source."""

    __slots__ = ("changed_at", "duration", "key", "memory")

    def __init__(self, key: tuple[str, str], rules: Rules, state: SeriesState = _NO_HISTORY) -> None:
        self.key = key
        self.duration = Baseline(rules.duration, rules, state.duration)
        self.memory = Baseline(rules.memory, rules, state.memory)
        self.changed_at = 0  # on the clock of its keeper

    def follow(self, records: Sequence[Record]) -> tuple[list[int | None], dict[int, list[Anomaly]]]:
        """Judge records of the series in turn, each by the history before it, and take in what the successes report.

        Returns the efficiency score of each in tenths, 0 to 1000, and what is unusual, by position: most often nothing.
        A score is None where there is nothing to score: no duration and no memory, or an outcome that is neither
        success nor failure.
        """
        outcomes = [record.outcome for record in records]
        successes = [outcome == SUCCESS for outcome in outcomes]
        durations = [record.duration_s for record in records]
        memories = [record.memory_bytes for record in records]
        duration_costs, long = self.duration.follow(durations, successes)
        memory_costs, high = self.memory.follow(memories, successes)
        scores: list[int | None] = []
        found: dict[int, list[Anomaly]] = {}
        for outcome, seconds, size, duration_cost, memory_cost in zip(
            outcomes, durations, memories, duration_costs, memory_costs, strict=True
        ):
            if outcome == SUCCESS:
                if seconds is not None and size is not None:
                    scores.append(int(1000 / math.sqrt(duration_cost * memory_cost) + 0.5))
                elif seconds is not None or size is not None:
                    scores.append(int(1000 / (duration_cost * memory_cost) + 0.5))
                else:
                    scores.append(None)
            elif outcome in FAILURES:
                found[len(scores)] = [_failure(records[len(scores)])]
                scores.append(0)
            else:
                scores.append(None)
        for quantity, values, over in (
            (self.duration.quantity, durations, long),
            (self.memory.quantity, memories, high),
        ):
            for at, expectation in over.items():
                found.setdefault(at, []).append(
                    _excess(records[at], quantity, values[at], expectation, self.duration.rules)
                )
        return scores, found


_encode = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(tuple[str, str]).decode
_state = StateCodec(SeriesState)


def key_to_bytes(key: tuple[str, str]) -> bytes:
    """The key of a series' state: a JSON array of service_name and event_name."""
    return _encode(key)


def series_to_bytes(series: Series) -> bytes:
    """A series' state, which series_from_bytes reads back to the last digit."""
    return _encode(SeriesState(_STATE_SCHEMA, series.duration.state(), series.memory.state()))


def key_from_bytes(key: bytes) -> tuple[str, str]:
    """Raises StateError where these bytes are no key of a series."""
    try:
        return _decode_key(key)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"its key is no series: {error}") from None


def series_from_bytes(key: tuple[str, str], value: bytes, rules: Rules) -> Series:
    """Raises StateError where the state is not one that this version reads."""
    return Series(key, rules, _state.read(value))


def _failure(record: Record) -> Anomaly:
    ending = f": {record.body[:200]}" if record.body else "."
    return _anomaly(
        record,
        AnomalyReason.FAILURE,
        value=1.0,
        expected=0.0,
        limit=None,
        unit="1",
        detail=f"{record.event_name} of {record.service_name} ended in {record.outcome}{ending}",
    )


def _excess(record: Record, quantity: Quantity, value: float | None, expectation: Expectation, rules: Rules) -> Anomaly:
    """The anomaly of a value that is over the limit."""
    assert value is not None
    typical, limit = expectation
    verb = "took" if quantity.unit == "s" else "used"
    detail = f"{record.event_name} of {record.service_name} {verb} {_spoken(value, quantity)}"
    if typical is None:
        detail += (
            f", over the limit of {_spoken(limit, quantity)} for an operation"
            f" with fewer than {rules.history_min} successes to compare with."
        )
    else:
        detail += f", where {_spoken(typical, quantity)} is usual and {_spoken(limit, quantity)} the limit."
    return _anomaly(
        record,
        quantity.reason,
        value=float(value),
        expected=typical,
        limit=limit,
        unit=quantity.unit,
        detail=detail,
    )


def _anomaly(
    record: Record,
    reason: AnomalyReason,
    *,
    value: float,
    expected: float | None,
    limit: float | None,
    unit: str,
    detail: str,
) -> Anomaly:
    return Anomaly(
        kind=Kind.ANOMALY.value,
        record_id=record.record_id,
        run_id=record.run_id,
        timestamp=record.timestamp,
        observed_timestamp=record.observed_timestamp,
        service_name=record.service_name,
        event_name=record.event_name,
        outcome=record.outcome,
        reason=reason.value,
        value=value,
        expected=expected,
        limit=limit,
        unit=unit,
        detail=detail,
    )


def _spoken(value: float, quantity: Quantity) -> str:
    if quantity.unit == "s":
        return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"
    return f"{value / 1_000_000:.1f} MB"
