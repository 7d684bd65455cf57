"""Names find their field, and values in any usual spelling become base units, or are refused with what would do."""

from pathlib import Path
from typing import Any

import pytest

from standardization import fields, timestamps, values
from standardization.fields import ARRAY, NUMBER, TEXT, Leaf, assign, folded, meaning, reader
from standardization.values import Unreadable


def read(path: str, value: Any) -> Any:
    """The value as the field that this name stands for reads it."""
    name = meaning(tuple(path.split("/")))
    assert name is not None
    return reader(name, TEXT if isinstance(value, str) else NUMBER)(value)


@pytest.mark.parametrize(
    ("path", "role", "scale"),
    [
        ("duration_seconds", "duration_s", "seconds"),
        ("DurationSeconds", "duration_s", "seconds"),
        ("Duration (s)", "duration_s", "seconds"),
        ("duration-ms", "duration_s", "ms"),
        ("durationMs", "duration_s", "ms"),
        ("elapsed_us", "duration_s", "us"),
        ("metrics/durationMs", "duration_s", "ms"),
        ("usage/memory/peak", "memory_bytes", ""),
        ("peak_memory_mib", "memory_bytes", "mib"),
        ("MEMORY_BYTES", "memory_bytes", "bytes"),
        ("service/name", "service_name", ""),
        ("resource/attributes/service.name", "service_name", ""),
        ("@timestamp", "timestamp", ""),
        ("timeUnixNano", "timestamp", "unixnano"),
        ("log.level", "severity", ""),
        ("http/response/status_code", "outcome", ""),
        ("exit_code", "outcome", "exit"),
        ("traceId", "trace_id", ""),
        ("Row Count", "rows", ""),
    ],
)
def test_a_name_is_known_without_regard_to_case_separators_and_wrappers(path: str, role: str, scale: str) -> None:
    name = meaning(tuple(path.split("/")))
    assert name is not None
    assert (name.role, name.scale) == (role, scale)


@pytest.mark.parametrize("path", ["durations", "request/duration_ms", "user/name", "ms", "", "customer_status"])
def test_other_names_stand_for_nothing(path: str) -> None:
    assert meaning(tuple(path.split("/"))) is None


def test_a_final_s_after_a_separator_is_seconds() -> None:
    assert [folded(name) for name in ("duration_s", "durationS", "duration [s]", "Durations", "DURATIONS")] == [
        "durationseconds", "durationseconds", "durationseconds", "durations", "durations",
    ]  # fmt: skip


def assigned(*names: str) -> dict[str, str]:
    """Which name fills which role."""
    leaves = [Leaf(tuple(name.split("/")), NUMBER) for name in names]
    return {role: leaves[filling.leaf].name for role, filling in assign(leaves).roles.items()}


def test_the_name_that_comes_first_in_the_order_wins() -> None:
    assert assigned("time", "timestamp", "created_at") == {"timestamp": "timestamp"}
    assert assigned("service", "source") == {"service_name": "source"}


def test_a_stated_unit_wins_over_an_assumed_one() -> None:
    assert assigned("duration", "duration_ms") == {"duration_s": "duration_ms"}


def test_of_the_same_name_the_one_nearer_to_the_top_wins() -> None:
    assert assigned("metrics/duration", "Duration") == {"duration_s": "Duration"}


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("duration", 12, 12.0),
        ("duration", 12.437, 12.437),
        ("duration_ms", 12437, 12.437),
        ("duration_ms", 12785.29, 12.78529),
        ("duration_us", 1, 0.000001),
        ("duration_ns", 1, 0.000000001),
        ("duration_minutes", 1.5, 90.0),
        ("duration", "12.5", 12.5),
        ("duration", "12,5 s", 12.5),
        ("duration_ms", "850", 0.85),
        ("duration_ms", "12 s", 12.0),
        ("duration", "850 ms", 0.85),
        ("duration", "13m 07s", 787.0),
        ("duration", "1h2m3.5s", 3723.5),
        ("duration", "1 hour, 5 minutes", 3900.0),
        ("duration", "2 µs", 0.000002),
        ("duration", "00:13:07", 787.0),
        ("duration", "1.02:00:00.5", 93_600.5),
        ("duration", "1 day, 2:03:04", 93_784.0),
        ("duration", "02:15.5", 135.5),
        ("duration", "PT13M7S", 787.0),
        ("duration", "P1DT0.5S", 86_400.5),
        ("duration", "pt2,5s", 2.5),
        ("duration", "1,250.5", 1250.5),
        ("duration", "1.250,5", 1250.5),
        ("duration", "1e3", 1000.0),
        ("duration", 0, 0.0),
    ],
)
def test_durations_become_seconds(name: str, value: Any, seconds: float) -> None:
    assert read(name, value) == seconds
    assert isinstance(read(name, value), float)


@pytest.mark.parametrize(
    "value",
    [-1, -0.5, True, 3_155_760_001, 1e300, "abc", "02:15", "1,250", "12 parsecs", "-5 s", "PT", "P", "00:61:00",
     "1e999", "٣ s", "1_000", "5 5", "NaN s", "9" * 70],
)  # fmt: skip
def test_a_duration_that_is_negative_absurd_or_ambiguous_is_refused(value: Any) -> None:
    with pytest.raises(Unreadable, match="a duration from 0"):
        read("duration", value)


@pytest.mark.parametrize(
    ("name", "value", "size"),
    [
        ("memory_bytes", 0, 0),
        ("memory", 45_000_000, 45_000_000),
        ("memory_mb", 45.3, 45_300_000),
        ("memory_mib", 12.5, 13_107_200),
        ("memory_kb", 1, 1_000),
        ("memory_kib", 1, 1_024),
        ("memory", "177 MB", 177_000_000),
        ("memory", "177MB", 177_000_000),
        ("memory", "12.5 MiB", 13_107_200),
        ("memory", "12,5 Mo", 12_500_000),
        ("memory", "3 Gi", 3_221_225_472),
        ("memory_mb", "12", 12_000_000),
        ("memory_mb", "512 bytes", 512),
        ("memory", "1,048,576", 1_048_576),
        ("size", "1.5e3 kB", 1_500_000),
    ],
)
def test_sizes_become_bytes_of_1000_or_1024(name: str, value: Any, size: int) -> None:
    assert read(name, value) == size
    assert isinstance(read(name, value), int)


@pytest.mark.parametrize("value", [-1, True, 2**61, "12 Mbit", "1,250 MB", "lots", "-3 MB", "2 EB", "1e40 GB"])
def test_a_size_that_is_negative_absurd_or_ambiguous_is_refused(value: Any) -> None:
    with pytest.raises(Unreadable):
        read("memory", value)


@pytest.mark.parametrize(
    ("value", "rows"), [(12, 12), (12.0, 12), ("12", 12), ("1,250", 1250), ("1,250,000", 1_250_000)]
)
def test_counts_are_whole_numbers(value: Any, rows: int) -> None:
    assert read("rows", value) == rows
    assert isinstance(read("rows", value), int)


@pytest.mark.parametrize("value", [12.5, "12.5", -1, True, "many"])
def test_a_count_that_is_not_whole_is_refused(value: Any) -> None:
    with pytest.raises(Unreadable):
        read("rows", value)


@pytest.mark.parametrize("blank", ["", " ", "-", "N/A", "null", "NaN", "[Not Supported]", "9223372036854775794"])
@pytest.mark.parametrize(
    "name", ["timestamp", "source", "api", "status", "level", "duration", "memory", "rows", "trace_id"]
)
def test_a_blank_in_text_is_no_value(name: str, blank: str) -> None:
    assert read(name, blank) is None


@pytest.mark.parametrize("blank", [9223372036854775794, 9223372036854775807])
@pytest.mark.parametrize("name", ["timestamp", "duration", "duration_ns", "memory", "rows"])
def test_a_blank_integer_is_no_value(name: str, blank: int) -> None:
    assert read(name, blank) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-17T08:15:00Z", "2026-03-17T08:15:00Z"),
        ("2026-03-17T08:15:00.120Z", "2026-03-17T08:15:00.120Z"),
        ("2026-03-17T08:15:00.12Z", "2026-03-17T08:15:00.120Z"),
        ("2026-03-17T08:15:00.000Z", "2026-03-17T08:15:00Z"),
        ("2026-03-17T08:15:00.123456Z", "2026-03-17T08:15:00.123456Z"),
        ("2026-03-17T08:15:00.123000Z", "2026-03-17T08:15:00.123Z"),
        ("2026-03-17T08:15:00.000000Z", "2026-03-17T08:15:00Z"),
        ("2026-03-17T08:15:00.123456789Z", "2026-03-17T08:15:00.123456789Z"),
        ("2026-03-17T08:15:00.1234567899Z", "2026-03-17T08:15:00.123456789Z"),
        ("2026-03-17T08:15:00.123456+01:00", "2026-03-17T07:15:00.123456Z"),
        ("2026-03-17 08:15:00", "2026-03-17T08:15:00Z"),
        ("2026-03-17T08:15:00,5", "2026-03-17T08:15:00.500Z"),
        ("2026-03-17T00:15:00+01:00", "2026-03-16T23:15:00Z"),
        ("2026-03-17T23:45:00-0530", "2026-03-18T05:15:00Z"),
        ("2026-03-17T08:15:00.12+01", "2026-03-17T07:15:00.120Z"),
        ("2026-03-17 08:15:00 UTC", "2026-03-17T08:15:00Z"),
        ("2026/03/17 08:15:00", "2026-03-17T08:15:00Z"),
        ("2026-03-17T08:15Z", "2026-03-17T08:15:00Z"),
        ("2026-03-17", "2026-03-17T00:00:00Z"),
        ("20260317", "2026-03-17T00:00:00Z"),
        ("17/03/2026 08:15:00", "2026-03-17T08:15:00Z"),
        ("03/04/2026 08:15:00", "2026-04-03T08:15:00Z"),
        ("17.03.2026 08:15:00.250", "2026-03-17T08:15:00.250Z"),
        ("7/3/2026 8:05:00", "2026-03-07T08:05:00Z"),
        ("17 Mar 2026 08:15:00 +0100", "2026-03-17T07:15:00Z"),
        ("Tue, 17 Mar 2026 08:15:00 GMT", "2026-03-17T08:15:00Z"),
        ("17/Mar/2026:08:15:00 +0000", "2026-03-17T08:15:00Z"),
        (1773735300, "2026-03-17T08:15:00Z"),
        (1773735300.25, "2026-03-17T08:15:00.250Z"),
        (1773735300123, "2026-03-17T08:15:00.123Z"),
        (1773735300123456, "2026-03-17T08:15:00.123456Z"),
        (1773735300123456789, "2026-03-17T08:15:00.123456789Z"),
        ("1773735300", "2026-03-17T08:15:00Z"),
        ("1773735300.123456789", "2026-03-17T08:15:00.123456789Z"),
        (0, None),
    ],
)
def test_times_become_rfc_3339_in_utc(value: Any, expected: str | None) -> None:
    assert read("timestamp", value) == expected


def test_a_stated_unit_of_an_epoch_wins_over_its_magnitude() -> None:
    assert read("timestamp_ms", 1773735300000) == "2026-03-17T08:15:00Z"
    assert read("time_unix_nano", "1773735300123456789") == "2026-03-17T08:15:00.123456789Z"
    with pytest.raises(Unreadable):
        read("timestamp_ms", 1773735300)  # 21 January 1970: not a time of these entries


@pytest.mark.parametrize(
    "value",
    ["yesterday", "2026-13-01T00:00:00Z", "2026-02-30 00:00:00", "03/17/2026 08:15:00", "2026-03-17T24:00:00Z",
     "2026-03-17T08:15:60Z", "2026-03-17T08:15:00+99:00", "17/03/2026 08:15:00 PM", "1969-12-31T23:59:59Z",
     "2262-01-01T00:00:00Z", "٢٠٢٦-03-17T08:15:00Z", 5, -1, True, 1e300, 99_999_999, "2026-03-17T08:15:00Z" * 5],
)  # fmt: skip
def test_what_is_no_time_of_1973_to_2261_is_refused(value: Any) -> None:
    with pytest.raises(Unreadable, match="day first"):
        read("timestamp", value)


@pytest.mark.parametrize(
    ("name", "value", "outcome"),
    [
        ("status", "SUCCESS", "success"),
        ("status", "Completed", "success"),
        ("status", "ok", "success"),
        ("status", True, "success"),
        ("success", "false", "failure"),
        ("status", 200, "success"),
        ("status", "404", "failure"),
        ("status", 504, "timeout"),
        ("status", 499, "cancelled"),
        ("status", "Timed out", "timeout"),
        ("status", "CANCELED", "cancelled"),
        ("status", "skipped", "skipped"),
        ("status", "partially", "unknown"),
        ("status", 7, "unknown"),
        ("exit_code", 0, "success"),
        ("exit_code", "2", "failure"),
        ("success", 1, "success"),
        ("success", 0, "failure"),
    ],
)
def test_outcomes_are_read_from_words_truths_and_codes(name: str, value: Any, outcome: str) -> None:
    assert read(name, value)[0] == outcome


@pytest.mark.parametrize(
    ("value", "stays"), [("SUCCESS", False), (True, False), (404, True), ("404", True), ("odd", True)]
)
def test_what_says_more_than_the_outcome_stays(value: Any, stays: bool) -> None:
    assert read("status", value)[1] is stays


@pytest.mark.parametrize(
    ("name", "value", "severity"),
    [
        ("level", "info", (9, "info")),
        ("level", "WARNING", (13, "WARNING")),
        ("level", "crit", (18, "crit")),
        ("level", "ERROR2", (18, "ERROR2")),
        ("severity", 0, (21, "FATAL")),
        ("severity", 3, (17, "ERROR")),
        ("severity", "6", (9, "INFO")),
        ("severity_number", 13, (13, "WARN")),
        ("severity_number", 24, (24, "FATAL4")),
        ("levelno", 40, (17, "ERROR")),
    ],
)
def test_severities_follow_the_opentelemetry_mapping(name: str, value: Any, severity: tuple[int, str]) -> None:
    assert read(name, value) == severity


@pytest.mark.parametrize(
    ("name", "value"), [("level", 30), ("severity_number", 25), ("level", "deep"), ("level", True)]
)
def test_a_severity_on_no_known_scale_is_not_guessed(name: str, value: Any) -> None:
    with pytest.raises(Unreadable):
        read(name, value)


def test_identifiers_are_hexadecimal_in_lower_case_and_all_zeros_is_none() -> None:
    assert read("trace_id", "0AF7651916CD43DD8448EB211C80319C") == "0af7651916cd43dd8448eb211c80319c"
    assert read("trace_id", "0af76519-16cd-43dd-8448-eb211c80319c") == "0af7651916cd43dd8448eb211c80319c"
    assert read("span_id", "00f067aa0ba902b7") == "00f067aa0ba902b7"
    assert read("span_id", "0" * 16) is None


@pytest.mark.parametrize("value", ["abc", "x" * 32, "+" + "1" * 31, "1_" * 16, " " + "1" * 31, "\uff11" * 32])
def test_other_identifiers_are_refused(value: str) -> None:
    with pytest.raises(Unreadable, match="32 hexadecimal"):
        read("trace_id", value)


def test_a_list_is_no_value_of_a_known_field() -> None:
    name = meaning(("duration",))
    assert name is not None
    with pytest.raises(Unreadable, match="not array"):
        reader(name, ARRAY)("[1]")


def test_the_page_on_standardization_names_every_name_in_its_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "standardization.md").read_text()
    for role, (certain, loose) in fields._NAMES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{role}` |"))
        assert f"| {certain.replace(' ', ', ')} | {loose.replace(' ', ', ')} |" in row


def test_a_memo_is_bounded_and_keeps_no_long_text() -> None:
    computed: list[str] = []

    def length(text: str) -> int:
        computed.append(text)
        return len(text)

    memo = values.Memo(length, 3)
    for text in ("a", "b", "c", "a"):
        assert memo[text] == 1
    assert computed == ["a", "b", "c"]
    assert memo["d"] == 1
    assert len(memo) == 1  # it was full, and began anew
    assert memo["x" * 65] == 65
    assert len(memo) == 1


def test_caches_of_times_are_bounded_under_ever_new_values() -> None:
    read_time = timestamps.of_text("")
    for minute in range(20_000):
        read_time(f"2026-01-{minute // 1440 + 1:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00.{minute:06d}Z")
    assert all(len(memo) <= 8192 for memo in (timestamps._minutes, timestamps._tails, timestamps._finer))
