"""Frames: one or more records in one message, as NDJSON, so that small records travel fast.

A frame of one record and a message of a foreign producer are the same thing.
"""

from collections.abc import Iterator, Sequence

import msgspec

from shared.topics import NDJSON

KeyedLine = tuple[bytes | None, bytes]  # a record: its key, its JSON without LF
Frame = tuple[bytes | None, bytes]  # key, NDJSON without a final LF

_one_value = msgspec.json.Decoder(type=msgspec.Raw)


def entries(value: bytes, content_type: str | None) -> list[bytes]:
    """The entries of a message, in order; empty lines are none.

    Only `application/x-ndjson` is split, on LF. With no content-type a value that is one JSON value is one entry,
    else it is split if every non-empty line is JSON, else it is one entry of text. Any other type is one entry,
    its bytes untouched.
    """
    if content_type is None:
        return _guess(value)
    if content_type != NDJSON and content_type.partition(";")[0].strip().lower() != NDJSON:
        return [value]
    if (
        b"\n" not in value and value and not value.isspace()
    ):  # the frame of one record, which is the common one at a low rate
        return [value]
    return [line for line in value.split(b"\n") if line and not line.isspace()]


def _guess(value: bytes) -> list[bytes]:
    if b"\n" not in value or _is_json(value):
        return [value]
    lines = [line for line in value.split(b"\n") if line.strip()]
    return lines if lines and all(map(_is_json, lines)) else [value]


def _is_json(value: bytes) -> bool:
    try:
        _one_value.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


class FrameBuilder:
    """Gathers records of one partition and closes a frame on records or bytes, whichever is first.

    Age is the caller's: it takes what is open with `flush` when it commits.
    """

    __slots__ = ("_bytes", "_max_bytes", "_max_records", "_open")

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._open: list[KeyedLine] = []
        self._bytes = 0  # of the open lines, each with the LF that would follow it

    def add(self, records: Sequence[KeyedLine]) -> list[Frame]:
        """Add records; returns the frames that this closes. A record over the limit is a frame of its own."""
        self._open += records
        self._bytes += _size(records)
        if len(self._open) < self._max_records and self._bytes <= self._max_bytes:
            return []
        sizes = [len(line) for _, line in self._open]
        *runs, last = [self._open[run] for run in cut(sizes, self._max_records, self._max_bytes)]
        self._open, self._bytes = last, _size(last)
        closed = list(map(_frame, runs))
        if len(last) >= self._max_records or self._bytes > self._max_bytes:
            closed += self.flush()
        return closed

    def flush(self) -> list[Frame]:
        """Close what is open."""
        records, self._open, self._bytes = self._open, [], 0
        return [_frame(records)] if records else []


def cut(sizes: Sequence[int], max_records: int, max_bytes: int) -> Iterator[slice]:
    """Where to cut records of these sizes (bytes) so that each run fills at most one frame.

    A record over the limit is a run of its own.
    """
    begin = size = 0
    for at, own in enumerate(sizes):
        if at > begin and (at - begin >= max_records or size + own > max_bytes):
            yield slice(begin, at)
            begin, size = at, 0
        size += own + 1
    if begin < len(sizes):
        yield slice(begin, len(sizes))


def _size(records: Sequence[KeyedLine]) -> int:
    return sum(len(line) for _, line in records) + len(records)


def _frame(records: Sequence[KeyedLine]) -> Frame:
    """The key is the records' own, or None when they differ."""
    key = records[0][0] if len({key for key, _ in records}) == 1 else None
    return key, b"\n".join([line for _, line in records])
