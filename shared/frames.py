"""Frames: one or more records in one message, as NDJSON, so that small records travel fast.

A frame of one record and a message of a foreign producer are the same thing.
"""

from collections.abc import Iterator, Sequence

import msgspec

from shared.topics import NDJSON

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

    __slots__ = ("_bytes", "_key", "_lines", "_max_bytes", "_max_records", "_mixed")

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._lines: list[bytes] = []
        self._bytes = 0
        self._key: bytes | None = None
        self._mixed = False

    def add(self, key: bytes | None, line: bytes) -> Sequence[Frame]:
        """Add one record; returns the frames that this closes. A record over the limit is a frame of its own."""
        closed: Sequence[Frame] = ()
        if self._lines and self._bytes + len(line) > self._max_bytes:
            closed = self.flush()
        if not self._lines:
            self._key, self._mixed = key, False
        elif key != self._key:
            self._mixed = True
        self._lines.append(line)
        self._bytes += len(line) + 1
        if len(self._lines) >= self._max_records or self._bytes > self._max_bytes:
            closed = (*closed, *self.flush())
        return closed

    def flush(self) -> Sequence[Frame]:
        """Close what is open: the key is the records' own, or None when they differ."""
        if not self._lines:
            return ()
        frame = None if self._mixed else self._key, b"\n".join(self._lines)
        self._lines = []
        self._bytes = 0
        return (frame,)


def cut(lines: Sequence[bytes], max_records: int, max_bytes: int) -> Iterator[Sequence[bytes]]:
    """These lines in runs that each fill at most one frame; a line over the limit is a run of its own."""
    begin = size = 0
    for at, line in enumerate(lines):
        if at > begin and (at - begin >= max_records or size + len(line) > max_bytes):
            yield lines[begin:at]
            begin, size = at, 0
        size += len(line) + 1
    if begin < len(lines):
        yield lines[begin:]
