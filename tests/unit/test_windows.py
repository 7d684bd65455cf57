"""Sketches and window deltas: exact cases. The general laws are in tests/property/test_windows.py."""

import math
import sys

import msgspec
import numpy as np
import pytest

from processing.windows import GAMMA, ZERO_KEY, Delta, keys_of, lines_of, merge, quantile
from shared.records import Record


def record(outcome: str = "success", **fields: float | int | None) -> Record:
    base = Record("id", "2026-01-05T10:00:00Z", "2026-01-05T10:00:01Z", "shop", "Export", outcome)
    return msgspec.structs.replace(base, **fields)


def window_of(*records: Record, tenths: int | None = None) -> dict[str, object]:
    delta = Delta()
    for each in records:
        delta.add([each], [tenths])
    (line,) = lines_of({("shop", "Export", "2026-01-05T10:00"): delta})
    decoded: dict[str, object] = msgspec.json.decode(line)
    return decoded


def test_zero_has_a_bucket_of_its_own_that_sorts_first_and_fits_int32() -> None:
    keys = keys_of(np.array([0.0, 5e-324, 1.0, sys.float_info.max])).tolist()
    assert keys == sorted(keys)
    assert keys[0] == ZERO_KEY == -(2**31)
    assert keys[2] == 0
    assert all(abs(key) < 40_000 for key in keys[1:])
    assert quantile([ZERO_KEY], [3], 0.5) == 0.0


def test_an_empty_sketch_has_no_quantile() -> None:
    assert quantile([], [], 0.5) is None


def test_a_quantile_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1], [1], 95)


def test_the_largest_float_is_found_again_without_overflow() -> None:
    (key,) = keys_of(np.array([sys.float_info.max])).tolist()
    assert quantile([key], [1], 1) == pytest.approx(sys.float_info.max, rel=0.011)


def test_merging_adds_counts_of_equal_keys() -> None:
    assert merge([([1, 5], [2, 3]), ([5, 2], [4, 1]), ([], [])]) == ([1, 2, 5], [2, 1, 7])


def test_a_window_counts_timeouts_as_failures_and_the_undecided_as_other() -> None:
    outcomes = ("success", "failure", "timeout", "cancelled", "skipped", "unknown")
    window = window_of(*(record(outcome) for outcome in outcomes))
    assert (window["total"], window["success"], window["failure"], window["other"]) == (6, 1, 2, 3)


def test_a_window_sums_what_its_records_report() -> None:
    window = window_of(
        record(duration_s=0.5, memory_bytes=7, rows=3, transfer_bytes=100),
        record(duration_s=2.0, memory_bytes=2**53 + 1, rows=4),
        record(),
        tenths=805,
    )
    assert window == {
        "kind": "window",
        "minute": "2026-01-05T10:00:00Z",
        "service_name": "shop",
        "event_name": "Export",
        "total": 3,
        "success": 3,
        "failure": 0,
        "other": 0,
        "duration_count": 2,
        "duration_sum": 2.5,
        "duration_min": 0.5,
        "duration_max": 2.0,
        "duration_keys": [math.ceil(math.log(x) / math.log(GAMMA)) for x in (0.5, 2)],
        "duration_counts": [1, 1],
        "memory_count": 2,
        "memory_sum": 2**53 + 8,  # exact, where floats would lose the last digit
        "memory_min": 7,
        "memory_max": 2**53 + 1,
        "memory_keys": keys_of(np.array([7.0, 2.0**53])).tolist(),
        "memory_counts": [1, 1],
        "efficiency_count": 3,
        "efficiency_sum": 241.5,
        "rows": 7,
        "transfer_bytes": 100,
    }


def test_a_window_in_which_nothing_was_measured_has_null_extremes_and_empty_sketches() -> None:
    window = window_of(record("failure"), tenths=0)
    assert window["duration_min"] is window["duration_max"] is window["memory_min"] is window["memory_max"] is None
    assert window["duration_keys"] == window["duration_counts"] == window["memory_keys"] == []
    assert window["duration_count"] == window["duration_sum"] == window["memory_sum"] == 0


def test_sums_stay_within_what_their_columns_hold() -> None:
    most = 2**63 - 1
    each = record(duration_s=1.7e308, memory_bytes=most, rows=most, transfer_bytes=most)
    window = window_of(each, each)
    assert window["duration_sum"] == sys.float_info.max
    assert window["memory_sum"] == window["rows"] == window["transfer_bytes"] == most


def test_each_window_gets_its_own_sketch() -> None:
    deltas = {("shop", name, "2026-01-05T10:00"): Delta() for name in ("a", "empty", "b")}
    for name, seconds in (("a", 1.0), ("b", 0.0), ("b", 1.0), ("a", 1.0)):
        deltas[("shop", name, "2026-01-05T10:00")].add([record(duration_s=seconds)], [None])
    found = [msgspec.json.decode(line) for line in lines_of(deltas)]
    assert [(each["event_name"], each["duration_keys"], each["duration_counts"]) for each in found] == [
        ("a", [0], [2]),
        ("empty", [], []),
        ("b", [ZERO_KEY, 0], [1, 1]),
    ]


def test_nothing_gathered_makes_no_line() -> None:
    assert lines_of({}) == []
