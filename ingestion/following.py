"""A file that grows, line by line: whole lines as they come, each once, over rotation, truncation and restarts.

Its place is the first byte that no line has taken, with a fingerprint of what was read: a file that has other bytes
there was truncated, or is another under the same number, and is read from its start. No thread, no Kafka, no clock:
time is passed in.
"""

import hashlib
import os
from typing import Final, NamedTuple

import msgspec

from ingestion.entries import BLOCK, UnreadableSourceError
from ingestion.paths import is_text
from shared.errors import SluiceError

_PRINT: Final = 1024  # bytes at the start of a file and before its place that tell whether it is the same
_LINES: Final = 10_000  # that are given out together
_HELD: Final = 64 * 1024  # bytes of a line without end that outlive the file's truncation
_PACKED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")


class NotFollowedError(SluiceError):
    """The file is none that can be followed; the message says why."""


class Place(msgspec.Struct, frozen=True):
    """How far a file has been read, as ingestion-state keeps it."""

    path: str
    device: int
    inode: int
    offset: int = 0  # the first byte that no line has taken
    fingerprint: str = ""  # of what lies before it
    lines: int = 0
    updated: str = ""  # RFC 3339, UTC; whoever keeps the place sets it
    real: str = ""  # where the path led, if there were links on it
    missing: str = ""  # RFC 3339, UTC: since when no path leads to it; whoever keeps the place sets it
    schema: int = 1

    @property
    def key(self) -> str:
        """A file that is there has a number that no other has."""
        return f"{self.device:x}-{self.inode:x}"


class Window:
    """A line that is too long to hold, read from its file."""

    def __init__(self, file: int, begin: int, size: int) -> None:
        self._file = file
        self._begin = begin
        self.size = size

    def read(self, start: int, length: int) -> bytes:
        wanted = min(length, max(0, self.size - start))
        try:
            data = os.pread(self._file, wanted, self._begin + start)
        except OSError as error:
            raise UnreadableSourceError(
                f"the file can't be read at byte {self._begin + start}: {error.strerror}"
            ) from error
        if len(data) < wanted:
            raise UnreadableSourceError(f"the file was cut at byte {self._begin + start + len(data)} while it was read")
        return data

    def release(self) -> None:
        """The file is closed by who follows it."""


class Piece(NamedTuple):
    """What a file gave: whole lines without LF, or one long line; and its place behind them."""

    lines: list[bytes]
    long: Window | None
    place: Place
    lost: int = 0  # bytes that the file no longer had when their turn came

    @property
    def entries(self) -> int:
        return len(self.lines) + (self.long is not None)


class Followed:
    """An open file and its place in it."""

    def __init__(self, path: str, partial_seconds: float, line_bytes: int, block: int = BLOCK) -> None:
        """Raises NotFollowedError, and OSError where it can't be opened."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not wait for its writer
        try:
            self._refuse_packed()
            status = os.fstat(self._file)
        except BaseException:
            os.close(self._file)
            raise
        self._partial_seconds = partial_seconds
        self._line_bytes = line_bytes
        self._block = block  # bytes that are looked at together
        self.gone: float | None = None  # since when no path of the source leads to it
        self.place = Place(path, status.st_dev, status.st_ino, real=_real(path))
        self._size = status.st_size
        self._grown = 0.0  # when it had more than before
        self._end = -1  # of the file, when it had
        self._head = self._before = self._partial = b""
        self._scanned = 0  # bytes behind the place that have no line end

    def close(self) -> None:
        os.close(self._file)

    def _refuse_packed(self) -> None:
        if self._read(0, 6).startswith(_PACKED):
            raise NotFollowedError("is compressed; a source of kind file reads it, or exclude it")

    # its place

    def resume(self, place: Place) -> bool:
        """Go on at a place that was kept, if the file still has what was read before it; says whether it has."""
        head, before = self._read(0, min(_PRINT, place.offset)), self._read_before(place.offset)
        if _fingerprint(head, before, place.offset) != place.fingerprint:
            return False
        self.place = msgspec.structs.replace(
            self.place, offset=place.offset, fingerprint=place.fingerprint, lines=place.lines
        )
        self._head, self._before = head, before
        self._partial, self._scanned = b"", 0
        return True

    def rewind(self, place: Place | None) -> None:
        """Go back to the place that counts, or to the start where none does: what was read since did not count."""
        if place is None or not self.resume(place):
            self.place = msgspec.structs.replace(self.place, lines=place.lines if place else 0)
            self._head = self._before = b""
            self._moved(0, 0)

    def skip(self) -> None:
        """Begin at the end of the last whole line that is there now."""
        size = os.fstat(self._file).st_size
        at = size
        while at:
            begin = max(0, at - self._block)
            found = self._read(begin, at - begin).rfind(b"\n") + 1
            if found:
                at = begin + found
                break
            at = begin
        self._move(at, 0)

    def is_at(self, path: str) -> bool:
        """This path leads to it; returns whether it is a new one."""
        self.gone = None
        if path == self.place.path:
            return False
        self.place = msgspec.structs.replace(self.place, path=path, real=_real(path))
        return True

    def lost(self, now: float) -> None:
        """No path leads to it any more; who has it open may still write to it."""
        if self.gone is None:
            self.gone = now

    def idle(self, now: float) -> float:
        """For how long it has not grown, in seconds, nor had a path; looks at its size."""
        size = os.fstat(self._file).st_size
        if size != self._end:
            self._grown, self._end, self._size = now, size, max(size, self._size)
        return now - max(self._grown, self.gone or 0.0)

    @property
    def is_removed(self) -> bool:
        """Whether it has no name anywhere: its number will be another file's."""
        return not os.fstat(self._file).st_nlink

    @property
    def behind(self) -> int:
        """Bytes that it had at the last look and that no line has taken."""
        return max(0, self._size - self.place.offset)

    # its lines

    def next(self, now: float, *, last: bool = False) -> Piece | None:
        """The next lines, up to a block of them, and behind them; None while there is no whole one.

        A line without its end is given out when it has not grown for a while; `last`: at once.
        """
        data = self._read(self.place.offset - len(self._before), len(self._before) + self._block)
        before, block = data[: len(self._before)], data[len(self._before) :]
        size = os.fstat(self._file).st_size
        if before != self._before:
            return self._truncated(0, size)
        if not block.startswith(self._partial):
            return self._truncated(self.place.offset, size)
        self._size = size
        if size != self._end:
            self._grown, self._end = now, size
        if block[:1] == b"\0" and not self._head.strip(b"\0"):
            return self._passed(block[: len(block) - len(block.lstrip(b"\0"))], [])
        if end := block.rfind(b"\n") + 1:
            return self._given(block[:end])
        if len(block) == self._block:
            return self._long_line(now, last)
        self._partial = block if len(block) <= _HELD else b""
        return self._given(block) if block and self._is_over(now, last) else None

    def _is_over(self, now: float, last: bool) -> bool:
        return last or now - self._grown >= self._partial_seconds

    def _long_line(self, now: float, last: bool) -> Piece | None:
        """A line of more than a block, once its end is known: its own, that of the file, or where it is cut."""
        at = max(self._scanned, self._block)
        ends = False
        while not ends and at < self._line_bytes:
            more = self._read(self.place.offset + at, min(self._block, self._line_bytes - at))
            if not more:
                break
            found = more.find(b"\n")
            ends = found >= 0
            at += found if ends else len(more)
        self._scanned = at
        if not (ends or at >= self._line_bytes or self._is_over(now, last)):
            return None
        window = Window(self._file, self.place.offset, at)
        self._move(self.place.offset + at + ends, 1)
        return Piece([], window, self.place)

    def _given(self, block: bytes) -> Piece:
        lines = block.split(b"\n", _LINES)
        if len(lines) > _LINES and (rest := lines.pop()):
            block = block[: -len(rest)]
        return self._passed(block, [line for line in lines if line and not line.isspace()])

    def _passed(self, block: bytes, lines: list[bytes]) -> Piece:
        if len(self._head) < _PRINT:
            self._head += block[: _PRINT - len(self._head)]
        self._before = (self._before + block)[-_PRINT:]
        self._moved(self.place.offset + len(block), len(lines))
        return Piece(lines, None, self.place)

    def _truncated(self, to: int, size: int) -> Piece:
        """It was cut: what was held of a line without end is given out, and what it has from `to` on is new."""
        lines = [self._partial] if self._partial.strip() else []
        lost = max(0, self._size - self.place.offset - len(self._partial))
        if not to:
            self._head = self._before = b""
        self._size, self._end = size, -1
        self._moved(to, len(lines))
        return Piece(lines, None, self.place, lost)

    def _move(self, offset: int, lines: int) -> None:
        if len(self._head) < _PRINT:
            self._head = self._read(0, min(_PRINT, offset))
        self._before = self._read_before(offset)
        self._moved(offset, lines)

    def _moved(self, offset: int, lines: int) -> None:
        """The place is here now; what tells the file is set already."""
        self._partial, self._scanned = b"", 0
        self.place = msgspec.structs.replace(
            self.place,
            offset=offset,
            fingerprint=_fingerprint(self._head, self._before, offset),
            lines=self.place.lines + lines,
        )

    def _read_before(self, offset: int) -> bytes:
        length = min(_PRINT, offset)
        return self._read(offset - length, length)

    def _read(self, begin: int, length: int) -> bytes:
        return os.pread(self._file, length, begin)


def _real(path: str) -> str:
    real = os.path.realpath(path)
    return real if real != path and is_text(real) else ""


def _fingerprint(head: bytes, before: bytes, offset: int) -> str:
    if len(before) < min(_PRINT, offset):
        return ""  # the file does not reach so far
    return hashlib.blake2b(head + before, digest_size=16).hexdigest() if offset else ""
