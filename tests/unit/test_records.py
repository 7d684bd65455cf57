"""What the chain's records look like on the wire, and what they mean."""

import msgspec
import pytest

from shared.records import Outcome, Receipt, Record, status_of, timestamp_of

RECORD = Record(
    record_id="0a1b2c3d-3-42-0",
    timestamp="2024-05-01T10:00:00Z",
    observed_timestamp="2024-05-01T10:00:01.5Z",
    service_name="Efficy",
    event_name="Sync",
    outcome="success",
)


def test_a_field_at_its_default_is_not_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(RECORD)) == {
        "record_id": "0a1b2c3d-3-42-0",
        "timestamp": "2024-05-01T10:00:00Z",
        "observed_timestamp": "2024-05-01T10:00:01.5Z",
        "service_name": "Efficy",
        "event_name": "Sync",
        "outcome": "success",
    }


def test_a_record_comes_back_as_it_was() -> None:
    full = msgspec.structs.replace(
        RECORD,
        run_id="r",
        origin="0a1b2c3d-0-1-0",
        severity_number=17,
        severity_text="ERROR",
        body="é\n",
        duration_s=0.5,
        memory_bytes=2**40,
        rows=0,
        transfer_bytes=7,
        trace_id="0" * 32,
        span_id="1" * 16,
        resource={"host": "a"},
        attributes={"n": 1, "f": 1.5, "t": True, "nothing": None, "s": ""},
        truncated_fields=("body",),
        original_bytes=3_000_000,
    )
    assert msgspec.json.decode(msgspec.json.encode(full), type=Record) == full


def test_a_number_is_not_taken_for_a_text_or_a_truth() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(RECORD).replace(b'"Efficy"', b"1"), type=Record)


def test_what_a_newer_writer_adds_is_passed_over() -> None:
    line = msgspec.json.encode(RECORD)[:-1] + b',"schema":2,"new_field":[1]}'
    assert msgspec.json.decode(line, type=Record) == msgspec.structs.replace(RECORD, schema=2)


def test_a_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        RECORD.outcome = "failure"  # type: ignore[misc]  # that is what is tested


def test_a_receipt_comes_back_as_it_was() -> None:
    receipt = Receipt("r", None, 72, 12_345, "2024-05-01T10:00:00Z", "logs.json")
    assert msgspec.json.decode(msgspec.json.encode(receipt), type=Receipt) == receipt


def test_the_status_of_an_outcome_is_what_dashboards_show() -> None:
    assert {outcome: status_of(outcome) for outcome in Outcome} == {
        "success": "SUCCESS",
        "failure": "FAILED",
        "timeout": "TIMEOUT",
        "cancelled": "CANCELLED",
        "skipped": "SKIPPED",
        "unknown": "UNKNOWN",
    }


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_714_557_600_000_000_000, "2024-05-01T10:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.500Z"),
        (1_000_001_000, "1970-01-01T00:00:01.000001Z"),
        (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
        (1_999_999_999, "1970-01-01T00:00:01.999999999Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (-62_135_596_800_000_000_000, "0001-01-01T00:00:00Z"),
        (253_402_300_799_000_000_000, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_has_the_fewest_digits_that_hold_it(nanoseconds: int, text: str) -> None:
    assert timestamp_of(nanoseconds) == text
