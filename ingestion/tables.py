"""Rows of CSV as entries: each a JSON object of the header's names, its values as text."""

import csv as reading
import io
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from ingestion.entries import BLOCK, Entries, Large, MalformedBodyError, Section, Source

ROW_MAX: Final = 256 * 1024  # bytes of a row as it lies in the body, its quoted line breaks included
_COLUMNS_MAX: Final = 10_000
_GROWTH_MAX: Final = 64  # times the size of a body that its rows may have as entries, each with all names of the header

reading.field_size_limit(ROW_MAX)  # the module's own limit is smaller, and a row has one of its own here
_encode: Final = msgspec.json.Encoder().encode


def csv(source: Source, inline: int) -> Entries:
    """The rows under the header, lists of about a block. Quoted fields may hold commas, quotes and line breaks.

    A row that has another number of fields than the header becomes an array of what is wrong and its fields: an entry
    that standardization refuses, so that a dead letter names its line and shows it, and the other rows go on. Raises
    MalformedBodyError where rows can't be told apart (no header, a quote that does not end, a row over ROW_MAX, bytes
    that are no UTF-8), and where long names over short rows would make far more of them than came.
    """
    yield from _rows(source, inline, ",")


def tsv(source: Source, inline: int) -> Entries:
    """The same, with tabs between fields."""
    yield from _rows(source, inline, "\t")


def _rows(source: Source, inline: int, delimiter: str) -> Entries:
    lines = _Lines(source)
    rows = reading.reader(lines, strict=True, delimiter=delimiter)
    found: list[bytes] = []
    size = whole = 0
    names: list[str] | None = None
    while True:
        begin = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except reading.Error as error:
            raise MalformedBodyError(f"line {begin}: {error}") from error
        lines.row_bytes = 0
        if not row:
            continue
        if names is None:
            names = _header(row)
            continue
        entry = _entry(names, row, begin)
        if len(entry) > inline:
            raise MalformedBodyError(f"line {begin}: the row makes an entry of {len(entry)} bytes; at most {inline}")
        found.append(entry)
        size += len(entry)
        if size >= BLOCK:
            whole += size
            if whole > _GROWTH_MAX * max(source.size, BLOCK):
                raise MalformedBodyError(
                    f"line {begin}: as entries the rows have over {_GROWTH_MAX} times the bytes that came, since each "
                    "has all names of the header; leave out columns that are empty, shorten their names, or send JSON"
                )
            yield found
            found, size = [], 0
    if found:
        yield found


def _entry(names: list[str], row: list[str], line: int) -> bytes:
    if len(row) != len(names):
        return _encode([f"line {line} has {len(row)} fields, the header {len(names)}", *row])
    return _encode(dict(zip(names, row, strict=True)))


def _header(row: list[str]) -> list[str]:
    """The names of the columns. Raises MalformedBodyError where one is missing, or would hide another."""
    names = [name.strip() for name in row]
    if len(names) > _COLUMNS_MAX:
        raise MalformedBodyError(f"line 1: the header has {len(names)} columns; at most {_COLUMNS_MAX} are taken")
    if "" in names:
        raise MalformedBodyError(f"line 1: column {names.index('') + 1} of the header has no name")
    if len(set(names)) < len(names):
        (twice, _), *_ = Counter(names).most_common(1)
        raise MalformedBodyError(f"line 1: the header names {twice[:100]!r} more than once")
    return names


class _Lines(Iterator[str]):
    """The lines of a source, line breaks included, never more than ROW_MAX bytes of one row at a time."""

    def __init__(self, source: Source) -> None:
        self._file = io.BufferedReader(Section(source, Large(0, source.size)), BLOCK)
        self._number = 0
        self.row_bytes = 0  # of the row that is being read; its reader sets it back

    def __next__(self) -> str:
        line = self._file.readline(ROW_MAX + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self.row_bytes += len(line)
        if self.row_bytes > ROW_MAX:
            raise MalformedBodyError(
                f"line {self._number}: the row is over {ROW_MAX} bytes; is the closing quote of a field missing?"
            )
        try:
            return line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedBodyError(
                f"line {self._number}: byte 0x{line[error.start]:02x} is not UTF-8; send the text as UTF-8"
            ) from error
