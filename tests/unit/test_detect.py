"""Histories, the efficiency score and the thresholds of anomalies."""

import math
import random

import pytest

from processing.detect import (
    Anomaly,
    AnomalyReason,
    Rules,
    Series,
    key_from_bytes,
    key_to_bytes,
    series_from_bytes,
    series_to_bytes,
)
from shared.config import Settings
from shared.errors import SluiceError
from shared.records import Record

RULES = Rules.of(Settings(_env_file=None))
KEY = ("EasyProjects", "Timelogs")
MB = 1_000_000


def entry(
    seconds: float | None, memory: int | None = None, outcome: str = "success", body: str | None = None
) -> Record:
    return Record(
        "id", "2026-01-05T10:00:00Z", "2026-01-05T10:00:01Z", *KEY, outcome,
        duration_s=seconds, memory_bytes=memory, body=body,
    )  # fmt: skip


def history_of(durations: list[float], memories: list[int] | None = None, rules: Rules = RULES) -> Series:
    series = Series(KEY, rules)
    series.follow([entry(seconds) for seconds in durations])
    series.follow([entry(None, size) for size in memories or []])
    return series


def judged(
    series: Series, seconds: float | None, memory: int | None = None, outcome: str = "success", body: str | None = None
) -> tuple[int | None, list[Anomaly]]:
    """The score and the anomalies of one entry, by a copy of the history: it learns nothing of this."""
    copy = series_from_bytes(KEY, series_to_bytes(series), RULES)
    (tenths,), anomalies = copy.follow([entry(seconds, memory, outcome, body)])
    return tenths, anomalies.get(0, [])


def reasons(series: Series, seconds: float | None, memory: int | None = None, outcome: str = "success") -> list[str]:
    return [anomaly.reason for anomaly in judged(series, seconds, memory, outcome)[1]]


# efficiency


def test_the_typical_value_scores_80_twice_as_much_50_and_nothing_100() -> None:
    series = history_of([10.0] * 8, [100 * MB] * 8)
    assert judged(series, 10.0, 100 * MB)[0] == 800
    assert judged(series, 20.0, 200 * MB)[0] == 500
    assert judged(series, 0.0, 0)[0] == 1000


def test_without_history_the_reference_scores_50() -> None:
    assert judged(history_of([]), 60.0, 256 * 1024 * 1024)[0] == 500
    assert judged(history_of([10.0] * 7), 60.0)[0] == 500


def test_what_is_not_reported_does_not_count() -> None:
    series = history_of([10.0] * 8, [100 * MB] * 8)
    assert judged(series, 20.0, None)[0] == 500
    assert judged(series, None, 200 * MB)[0] == 500
    assert judged(series, None, None)[0] is None


def test_the_worse_of_two_cannot_be_made_good_by_the_other() -> None:
    tenths = judged(history_of([10.0] * 8, [100 * MB] * 8), 1000.0, 0)[0]
    assert tenths is not None
    assert tenths < 25


@pytest.mark.parametrize("outcome", ["failure", "timeout"])
def test_a_failure_scores_0(outcome: str) -> None:
    assert judged(history_of([10.0] * 8), 1.0, 1, outcome)[0] == 0
    assert judged(history_of([]), None, None, outcome)[0] == 0


@pytest.mark.parametrize("outcome", ["cancelled", "skipped", "unknown"])
def test_what_neither_succeeded_nor_failed_has_no_score(outcome: str) -> None:
    assert judged(history_of([10.0] * 8), 1.0, 1, outcome)[0] is None


# anomalies


def test_without_history_the_absolute_limits_apply() -> None:
    for series in (history_of([]), history_of([10.0] * 7, [10 * MB] * 7)):
        assert reasons(series, 300.0, 512 * 1024 * 1024) == []
        assert reasons(series, 300.001) == ["long_duration"]
        assert reasons(series, None, 512 * 1024 * 1024 + 1) == ["high_memory"]


def test_a_long_entry_stands_out_of_a_history_of_short_ones() -> None:
    (anomaly,) = judged(history_of([9.0, 10.0, 11.0, 10.5, 9.5, 10.0, 12.0, 8.0]), 787.0)[1]
    assert anomaly.reason == AnomalyReason.LONG_DURATION
    assert (anomaly.value, anomaly.unit) == (787.0, "s")
    assert anomaly.expected == pytest.approx(10.0)
    assert anomaly.limit is not None
    assert 20.0 <= anomaly.limit < 100.0
    assert "Timelogs of EasyProjects took 787 s, where 10 s is usual" in anomaly.detail


def test_an_operation_that_always_takes_long_is_no_anomaly() -> None:
    series = history_of([787.0] * 8)
    assert reasons(series, 800.0) == []
    assert reasons(series, 2000.0) == ["long_duration"]


def test_a_high_memory_stands_out_of_its_history() -> None:
    (anomaly,) = judged(history_of([], [100 * MB] * 8), None, 400 * MB)[1]
    assert anomaly.reason == AnomalyReason.HIGH_MEMORY
    assert (anomaly.value, anomaly.unit) == (400.0 * MB, "By")
    assert anomaly.expected == pytest.approx(100.0 * MB)


def test_small_differences_are_no_news_whatever_their_ratio() -> None:
    assert reasons(history_of([0.008] * 50), 0.010) == []
    assert reasons(history_of([0.008] * 50), 0.4) == []  # fifty times as long, but less than ANOMALY_EXCESS_SECONDS
    assert reasons(history_of([0.008] * 50), 0.6) == ["long_duration"]
    assert reasons(history_of([], [0] * 50), None, 15 * MB) == []
    assert reasons(history_of([10.0] * 50), 19.9) == []  # never varied, but less than ANOMALY_RATIO
    assert reasons(history_of([10.0] * 50), 20.1) == ["long_duration"]


def test_a_value_is_an_anomaly_exactly_when_it_is_over_the_limit_that_is_told() -> None:
    series = history_of([5.0, 6.0, 9.0, 4.0, 5.5, 7.0, 20.0, 6.5, 8.0])
    limit = series.duration.limit
    assert reasons(series, limit) == []
    assert reasons(series, limit * 1.000001) == ["long_duration"]


def test_a_failure_is_an_anomaly_and_says_what_the_entry_said() -> None:
    (anomaly,) = judged(history_of([]), 1.0, outcome="failure", body="HTTP 500")[1]
    assert (anomaly.reason, anomaly.unit) == ("failure", "1")
    assert (anomaly.value, anomaly.expected, anomaly.limit) == (1, 0, None)
    assert anomaly.detail == "Timelogs of EasyProjects ended in failure: HTTP 500"
    assert reasons(history_of([]), 400.0, outcome="timeout") == ["failure", "long_duration"]
    assert reasons(history_of([]), 1.0, outcome="cancelled") == []


def test_ordinary_variation_raises_no_alarm() -> None:
    """Log-normal durations with a standard deviation of half: the nominal rate beyond 4 spreads is 3 in 100,000."""
    rng = random.Random(7)
    series, alarms = Series(KEY, RULES), 0
    for _ in range(20_000):
        seconds = 10 * math.exp(rng.gauss(0, 0.5))
        alarms += len(series.follow([entry(seconds)])[1])
    assert alarms <= 20


# learning


def test_a_wide_spread_hides_nothing_that_is_far_over_the_usual_and_the_absolute_limit() -> None:
    series = history_of([4.0, 787.0, 25.0, 9.0] * 2)
    assert reasons(series, 250.0) == []
    assert reasons(series, 787.0) == ["long_duration"]


def test_outliers_among_the_first_values_do_not_start_the_history_wrong() -> None:
    series = history_of([787.0, 10.0, 900.0, 10.0, 10.5, 9.5, 800.0, 10.0])
    assert series.duration.expected == pytest.approx(10.2, rel=0.05)
    assert reasons(series, 787.0) == ["long_duration"]


def test_a_young_history_is_trusted_less_than_a_long_one_of_the_same_spread() -> None:
    young = series_from_bytes(KEY, b'{"schema":1,"duration":{"count":8,"center":2,"spread":0.3}}', RULES)
    old = series_from_bytes(KEY, b'{"schema":1,"duration":{"count":8000,"center":2,"spread":0.3}}', RULES)
    assert young.duration.expected == old.duration.expected == pytest.approx(math.exp(2))
    assert old.duration.limit == pytest.approx(math.exp(2 + 4 * 0.3), rel=0.01)
    assert young.duration.limit == pytest.approx(math.exp(2 + 4 * 0.3 * 2), rel=0.01)


def test_one_outlier_hardly_moves_a_history() -> None:
    series = history_of([9.0, 10.0, 11.0, 10.0] * 10)
    before_expected, before_limit = series.duration.expected, series.duration.limit
    assert before_expected is not None
    series.follow([entry(1e9)])
    assert series.duration.expected == pytest.approx(before_expected, rel=0.05)
    assert series.duration.limit <= before_limit * 1.3
    assert reasons(series, 787.0) == ["long_duration"]


def test_a_lasting_change_becomes_usual_after_a_dozen_or_so() -> None:
    series = history_of([9.0, 10.0, 11.0, 10.0] * 10)
    alarms = 0
    for _ in range(60):
        alarms += len(series.follow([entry(100.0)])[1])
    assert 5 <= alarms <= 30
    assert reasons(series, 100.0) == []


def test_numbers_at_the_edge_of_floats_are_learned_without_overflow() -> None:
    series = history_of([0.0, 1.7e308, 5e-324] * 20)
    tenths, _ = judged(series, 1.7e308)
    assert tenths is not None
    assert 0 <= tenths <= 1000
    assert math.isfinite(series.duration.limit)
    assert judged(history_of([0.001] * 20), 1.7e308)[0] == 0


# state


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_a_history_is_read_back_to_the_last_digit(count: int) -> None:
    rng = random.Random(count)
    series = history_of([rng.expovariate(0.1) for _ in range(count)], [rng.randrange(10**9) for _ in range(count // 2)])
    again = series_from_bytes(KEY, series_to_bytes(series), RULES)
    for each in (series, again):
        each.follow([entry(3.5, 40 * MB)])
    assert series_to_bytes(again) == series_to_bytes(series)
    assert (again.duration.limit, again.duration.expected) == (series.duration.limit, series.duration.expected)


def test_a_key_keeps_its_two_names_apart() -> None:
    for key in (("a/b", "c"), ("a", "b/c"), ('"', "\n")):
        assert key_from_bytes(key_to_bytes(key)) == key


@pytest.mark.parametrize(
    "value", [b"{}", b"\xff", b"[]", b'{"schema":2}', b'{"schema":1,"duration":{"count":9,"center":1e5}}']
)
def test_a_history_that_this_version_cannot_read_is_an_error(value: bytes) -> None:
    with pytest.raises(SluiceError):
        series_from_bytes(KEY, value, RULES)


@pytest.mark.parametrize("key", [b"EasyProjects/Timelogs", b'["a"]', b'["\xff","b"]'])
def test_a_key_that_is_no_series_is_an_error(key: bytes) -> None:
    with pytest.raises(SluiceError):
        key_from_bytes(key)


def test_a_history_outlives_a_change_of_its_settings() -> None:
    shorter = Rules.of(Settings(_env_file=None, history_min=4))
    growing = series_from_bytes(KEY, series_to_bytes(history_of([10.0] * 6)), shorter)
    assert growing.duration.expected is None
    growing.follow([entry(10.0)])
    assert growing.duration.expected == pytest.approx(10.0)
    longer = Rules.of(Settings(_env_file=None, history_min=20))
    settled = series_from_bytes(KEY, series_to_bytes(history_of([10.0] * 8)), longer)
    assert settled.duration.expected == pytest.approx(10.0)
