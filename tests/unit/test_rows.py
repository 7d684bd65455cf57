"""What the sink makes of messages, without a Kafka or a store."""

import pytest

from processing.rows import Row, anomaly_reasons, end_of_batch, oldest_observed


def row(offset: int, last: int | None = None, lines: bytes = b"{}") -> Row:
    return Row(offset, offset if last is None else last, "records", lines, 1)


@pytest.mark.parametrize(
    ("rows", "safe", "end"),
    [
        ([], 7, 7),
        ([row(0), row(1), row(2)], 3, 3),
        ([row(0, 2)], 1, 0),  # M0 N0 M1, N open
        ([row(0, 2)], 3, 3),
        ([row(0), row(1, 3)], 2, 1),
        ([row(0), row(1, 3), row(2, 5)], 4, 1),  # what keeps the later out reaches across the earlier
        ([row(0, 1), row(2, 4), row(3, 6)], 5, 2),
    ],
)
def test_no_batch_ends_inside_a_message(rows: list[Row], safe: int, end: int) -> None:
    assert end_of_batch(rows, safe) == end


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (b'{"observed_timestamp":"2026-01-05T10:00:01.5Z"}', 1767607201.5),
        (b'{"observed_timestamp":"2026-13-45T99:99:99Z"}', None),
        (b'{"observed_timestamp":"99999999999999999999"}', None),
        (b'{"observed_timestamp":12}', None),
        (b"garbage", None),
    ],
)
def test_a_foreign_instant_is_no_instant_and_no_error(lines: bytes, seconds: float | None) -> None:
    assert oldest_observed([row(0, lines=lines)]) == seconds


def test_reasons_that_are_not_ours_are_counted_as_other() -> None:
    elements = [
        b'{"reason":"failure"}\n{"reason":"high_memory"}',
        b"",
        b'{"reason":"of somebody else"}\ngarbage',
        b'\n{"reason":"failure"}\n',
    ]
    assert anomaly_reasons(elements) == {"failure": 2, "high_memory": 1, "other": 2}
