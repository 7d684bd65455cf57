"""CSV, row by row."""

import csv as reading
import io
import json
import random
import time
from typing import Any

import pytest

from ingestion.entries import BLOCK, Large, MalformedBodyError
from ingestion.tables import ROW_MAX, csv


class Bytes:
    """A source in memory that remembers how much was asked of it at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.most = 0

    def read(self, start: int, length: int) -> bytes:
        self.most = max(self.most, length)
        return self._data[start : start + length]

    def release(self) -> None:
        pass


def rows(text: str | bytes, inline: int = 900_000) -> list[Any]:
    data = text if isinstance(text, bytes) else text.encode()
    found: list[Any] = []
    for some in csv(Bytes(data), inline):
        assert not isinstance(some, Large)
        assert all(b"\n" not in entry for entry in some)
        found += map(json.loads, some)
    return found


def test_a_row_is_an_object_of_the_headers_names() -> None:
    assert rows("a,b\n1,two\n,\n") == [{"a": "1", "b": "two"}, {"a": "", "b": ""}]


def test_quoted_fields_may_hold_commas_quotes_and_line_breaks() -> None:
    assert rows('a,b\r\n"1,5","say ""no""\nthen go"\r\n') == [{"a": "1,5", "b": 'say "no"\nthen go'}]


def test_a_byte_order_mark_empty_lines_and_a_missing_last_line_break_do_no_harm() -> None:
    assert rows("\ufeffa,b\n\n1,2\n\n\n3,4") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_row_with_another_number_of_fields_is_an_entry_that_names_its_line() -> None:
    assert rows('a,b\n1,"2\n2"\n3\n4,5,6\n7,8\n') == [
        {"a": "1", "b": "2\n2"},
        ["line 4 has 1 fields, the header 2", "3"],
        ["line 5 has 3 fields, the header 2", "4", "5", "6"],
        {"a": "7", "b": "8"},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b,a\n1,2,3\n", "line 1: the header names 'a'"),
        ("a,,c\n1,2,3\n", "line 1: column 2"),
        ('a,b\n1,2\n3,"4\n', "line 3"),
        ('a,b\n1,"2"x\n', "line 2"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: byte 0xff"),
        ("a,b\n1," + "x" * ROW_MAX + "\n", "line 2: the row is over"),
        ('a,b\n1,"' + "x\n" * ROW_MAX, "the row is over"),
    ],
)
def test_what_has_no_rows_is_refused_with_its_line(text: str | bytes, says: str) -> None:
    with pytest.raises(MalformedBodyError, match=says):
        rows(text)


def test_rows_are_as_pythons_csv_module_reads_them() -> None:
    seed = time.time_ns()
    chance = random.Random(seed)
    for _ in range(200):
        table = [["".join(chance.choices('a,"\n é\r', k=chance.randrange(6))) for _ in range(3)] for _ in range(20)]
        text = io.StringIO()
        writer = reading.writer(text, lineterminator=chance.choice(["\n", "\r\n"]), quoting=reading.QUOTE_ALL)
        writer.writerows([["x", "y", "z"], *table])
        expected = [dict(zip("xyz", row, strict=True)) for row in table]
        assert rows(text.getvalue()) == expected, f"seed {seed}"


def test_a_large_body_is_read_block_by_block() -> None:
    source = Bytes(b"a,b\n" + b"1,some text that is no number\n" * 200_000)
    lists = list(csv(source, 900_000))
    assert source.most <= BLOCK
    assert sum(len(some) for some in lists if not isinstance(some, Large)) == 200_000
    assert max(sum(map(len, some)) for some in lists if not isinstance(some, Large)) < 2 * BLOCK


def test_long_names_over_short_rows_end_before_they_fill_the_topic() -> None:
    header = ",".join(f"{'n' * 240}{number}" for number in range(1_000))
    with pytest.raises(MalformedBodyError, match=r"over 64 times the bytes that came.*send JSON"):
        rows(f"{header}\n" + f"{',' * 999}\n" * 2_000)
    assert len(rows(f"{header}\n" + f"{',' * 999}\n" * 20)) == 20
