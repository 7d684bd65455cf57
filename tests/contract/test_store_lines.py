"""Lines that the strict reading lets pass are rows to the engine; so a batch without the others is never refused."""

import random
import sys
from typing import Final

import pytest

from processing.store import Store, invalid_lines, without
from tests.contract.samples import anomaly, batch, count, dead_letter, receipt, record, rows, window

LINES: Final = {
    "records": record(
        "cafe-0-1-0",
        run_id="r",
        origin="o",
        body='é "quoted" \\ \n',
        duration_s=1.5,
        memory_bytes=7,
        rows=1,
        transfer_bytes=2,
        rows_per_s=0.5,
        anomalies=["failure"],
        attributes={"a": 1, "b": None, "c": "é"},
        resource={"x": 1.5},
        truncated_fields=["body"],
        original_bytes=9,
        severity_number=17,
    ),
    "windows": window("2026-01-05T10:00:00Z", duration_keys=[1], duration_counts=[1]),
    "anomalies": anomaly("a", value=1.0, expected=2.0, limit=3.0, unit="s"),
    "dead_letters": dead_letter("d", run_id="r", origin="o"),
    "runs": receipt("r", 1, source="s", file="f"),
}
TOKENS: Final = [
    b"null", b"true", b"-1", b"0", b"1.5", b"1e3", b"1e999", b"-0", b"NaN", b"255", b"256", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b'""', b'"x"', b'"\\ud800"', b'"\\u0000"',
    b'"\xff"', b'"2026-02-30T00:00:00Z"', b'"0001-01-01T00:00:00Z"', b'"9999-12-31T23:59:59Z"',
    b'"1900-01-01T00:00:00Z"',
    b'"2261-12-31T23:59:60Z"', b'"2026-01-05T10:00:00.1234567891Z"', b'"2026-01-05"', b'"2026-01-05T24:00:00Z"', b"[]",
    b"[1]", b'["a"]', b"{}", b'{"a":{"b":1}}', b'{"a":"\xff"}', b"[[", b"",
]  # fmt: skip


def _altered(line: bytes, chance: random.Random) -> bytes:
    """The line with a value put for another, a key repeated, left out or made up, or a byte changed or cut off."""
    kind = chance.randrange(6)
    fields = line[1:-1].split(b',"')
    at = chance.randrange(len(fields))
    if kind <= 2:
        name = fields[at].partition(b":")[0]
        fields[at] = name + b":" + chance.choice(TOKENS)
    elif kind == 3:
        fields.insert(at, chance.choice([fields[-1], b'unknown":' + chance.choice(TOKENS)]))
    elif kind == 4:
        del fields[at]
    else:
        cut = chance.randrange(1, len(line))
        return line[:cut] + chance.choice([b"", bytes([chance.choice(range(11, 256))])]) + line[cut + 1 :]
    return b"{" + b',"'.join(fields) + b"}"


@pytest.mark.parametrize("table", LINES)
def test_what_passes_the_strict_reading_is_stored_row_for_row(store: Store, table: str) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    lines = [LINES[table], *(_altered(LINES[table], chance) for _ in range(1_500))]
    lines = [line for line in lines if b"\n" not in line]
    offered = rows(**{table: lines})
    invalid = invalid_lines(offered)
    kept = len(lines) - len(invalid)
    assert 0 < kept < len(lines)

    entered = batch(1)
    store.open_batch(entered)
    store.insert(entered, without(offered, invalid))
    store.close_batch(entered)
    if table == "windows":  # equal keys are merged when stored
        (found,) = store.query("SELECT count() > 0 AS some FROM windows")
        assert found["some"]
    else:
        assert count(store, table) == kept
