"""Which lines the strict reading refuses, and what is left without them."""

import msgspec
import pytest

from processing.store import InvalidLine, Rows, invalid_lines, without

RECEIPT = b'{"run_id":"r","source":null,"entries":1,"bytes":2,"time":"2026-01-05T10:00:00Z"}'


def _rows(**tables: list[bytes]) -> Rows:
    return Rows(
        **{"records": [], "samples": [], "windows": [], "anomalies": [], "dead_letters": [], "runs": [], **tables}
    )


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[1]",
        RECEIPT[:-1],
        RECEIPT + RECEIPT,
        RECEIPT.replace(b'"r"', b'"\xff"'),
        RECEIPT.replace(b'"r"', b"null"),
        RECEIPT.replace(b'"run_id":"r",', b""),
        RECEIPT.replace(b'"run_id"', b'"run_id":"r","run_id"'),
        RECEIPT.replace(b":1,", b":-1,"),
        RECEIPT.replace(b":1,", b":1.5,"),
        RECEIPT.replace(b":1,", b":9223372036854775808,"),
        RECEIPT.replace(b"2026-01-05", b"2026-02-30"),
        RECEIPT.replace(b"2026-01-05", b"1899-01-05"),
        RECEIPT.replace(b"2026-01-05", b"2262-01-05"),
        RECEIPT.replace(b"00Z", b"00+00:00"),
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_receipt_is_refused_with_the_cause(line: bytes) -> None:
    (invalid,) = invalid_lines(_rows(runs=[line]))
    assert (invalid.table, invalid.value) == ("runs", line)
    assert invalid.detail


@pytest.mark.parametrize(
    "time", [b"1900-01-01T00:00:00Z", b"2261-12-31T23:59:59.999999999Z", b"2026-01-05T10:00:00.5Z"]
)
def test_every_instant_that_the_store_holds_is_taken(time: bytes) -> None:
    assert invalid_lines(_rows(runs=[RECEIPT.replace(b"2026-01-05T10:00:00Z", time)])) == []


def test_unknown_names_and_empty_lines_are_no_fault() -> None:
    assert (
        invalid_lines(_rows(runs=[RECEIPT.replace(b"{", b'{"later":[1,{"a":2}],') + b"\n\n" + RECEIPT + b"\n"])) == []
    )


def test_a_sketch_needs_as_many_counts_as_keys() -> None:
    window = {
        "minute": "2026-01-05T10:00:00Z",
        "service_name": "s",
        "event_name": "e",
        **dict.fromkeys(
            ("total", "success", "failure", "other", "efficiency_count", "efficiency_sum", "rows", "transfer_bytes"), 0
        ),
        **{f"{of}_{name}": 0 for of in ("duration", "memory") for name in ("count", "sum", "min", "max")},
        **{f"{of}_{name}": [1] for of in ("duration", "memory") for name in ("keys", "counts")},
    }
    assert invalid_lines(_rows(windows=[msgspec.json.encode(window)])) == []
    window["memory_counts"] = [1, 2]
    (invalid,) = invalid_lines(_rows(windows=[msgspec.json.encode(window)]))
    assert "as many counts as keys" in invalid.detail


def test_only_the_named_lines_are_taken_out_and_the_rest_stays_as_it_was() -> None:
    good, bad = RECEIPT, b"bad"
    offered = _rows(runs=[good, b"\n".join((bad, good, bad)), bad], records=[b"x"])
    invalid = [line for line in invalid_lines(offered) if line.table == "runs"]
    assert [(line.element, line.line) for line in invalid] == [(1, 0), (1, 2), (2, 0)]
    left = without(offered, invalid)
    assert left.runs == [good, good, b""]
    assert left.records == [b"x"]
    assert offered.runs[1] == b"\n".join((bad, good, bad))


def test_without_nothing_is_the_same() -> None:
    offered = _rows(runs=[RECEIPT])
    nothing: list[InvalidLine] = []
    assert without(offered, nothing) == offered
