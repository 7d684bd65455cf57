"""An input in parts: unpacked while it is read, cut where entries end, each small enough to be sent once more.

file or stdin > gzip, zstd > lines, rows or all of it > parts > console/push.py
"""

import csv
import gzip
import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path, PurePath
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, NamedTuple, Self, cast

from console.exits import UnreadableError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PART_BYTES: Final = 8 * 1024 * 1024  # up to this, ingestion writes a push together with others
_BLOCK: Final = 1024 * 1024
_ROW_MAX: Final = 256 * 1024  # bytes of a row of CSV, as ingestion takes it
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BOM: Final = b"\xef\xbb\xbf"
_PACKED: Final = {".gz", ".zst"}

csv.field_size_limit(_ROW_MAX)  # the module's own limit is smaller

Pieces = Iterator[tuple[bytes, bool]]  # bytes, and whether an entry begins with them


class Kind(StrEnum):
    """How entries lie in an input."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


_ENDINGS: Final = {
    ".json": Kind.JSON,
    ".ndjson": Kind.NDJSON,
    ".jsonl": Kind.NDJSON,
    ".log": Kind.NDJSON,
    ".csv": Kind.CSV,
}  # as ingestion reads the files of its folder


class Place(NamedTuple):
    """How far a send came in an input, whose bytes are counted unpacked.

    `offset` bytes are in, as parts before `part`. As that part, `length` more were sent and not answered: 0 if none.
    `crc` is the CRC-32 of all of these bytes.
    """

    name: str
    part: int
    offset: int
    length: int
    crc: int

    def __str__(self) -> str:
        return f"{self.name}:{self.part}:{self.offset}:{self.length}:{self.crc:08x}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError where the text is no place."""
        found = re.fullmatch(r"([\w.-]{1,100}):(\d{1,9}):(\d{1,18}):(\d{1,18}):([0-9a-f]{8})", text, re.ASCII)
        if found is None:
            raise ValueError(f"{text!r} is no place; give it as `sluice send` printed it")
        name, part, offset, length, crc = found.groups()
        return cls(name, int(part), int(offset), int(length), int(crc, 16))


class Part:
    """Some whole entries of an input, from byte `begin` to byte `end`; `crc` is of all bytes up to `end`."""

    def __init__(self, begin: int, crc: int, header: bytes = b"") -> None:
        """`header` goes before its bytes, and counts as none of them."""
        self.begin = self.end = begin
        self.crc_before = self.crc = crc
        self.size = len(header)
        self.blank = True
        self._body: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(max_size=2 * PART_BYTES)  # noqa: SIM115 - closed by `release`
        self._body.write(header)

    def add(self, piece: bytes) -> None:
        self._body.write(piece)
        self.size += len(piece)
        self.end += len(piece)
        self.crc = zlib.crc32(piece, self.crc)
        self.blank = self.blank and (not piece or piece.isspace())

    def content(self) -> Iterator[bytes]:
        """The bytes to send, from the first on, as often as they are asked for."""
        self._body.seek(0)
        while block := self._body.read(_BLOCK):
            yield block

    def next(self, header: bytes) -> "Part":
        """An empty part in the place of this one, behind it."""
        self.release()
        return Part(self.end, self.crc, header)

    def release(self) -> None:
        self._body.close()


class Input:
    """A file, a pipe, or standard input by the name `-`, read once from its begin to its end."""

    def __init__(self, name: str, kind: Kind | None = None, part_bytes: int = PART_BYTES) -> None:
        """Raises UnreadableError where it can't be opened. Without a kind, name and first character tell it."""
        self._part_bytes = part_bytes
        self.label = "standard input" if name == "-" else name
        try:
            self._raw = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 - closed by `close`
            self.size = _size(self._raw)
            self._plain = _unpacked(cast(io.BufferedReader, self._raw))
            self.kind = kind or _kind(name, self._plain)
        except (OSError, EOFError, zlib.error, zstd.ZstdError) as error:
            raise UnreadableError(f"{self.label} can't be read: {error}") from error
        self._read = 0

    def close(self) -> None:
        if self._raw is not sys.stdin.buffer:
            self._raw.close()

    def progress(self) -> int:
        """How many more bytes of the file, packed as it may be, were read since this was last asked."""
        if self.size is None:
            return 0
        before, self._read = self._read, self._raw.tell()
        return self._read - before

    def parts(self, place: Place | None = None) -> Iterator[Part]:
        """The parts, from the begin or from a place on; each is there until the next is asked for.

        Raises UnreadableError, the parts before having been given.
        """
        at = 0
        try:
            for part in self._cut(place):
                yield part
                at = part.end
        except (OSError, EOFError, zlib.error, zstd.ZstdError) as error:
            raise UnreadableError(f"{self.label} can't be read on after byte {at}: {error}") from error
        except csv.Error as error:
            raise UnreadableError(f"{self.label}: {error}") from error

    def _cut(self, place: Place | None) -> Iterator[Part]:
        rows = _Rows(self._plain) if self.kind is Kind.CSV else None
        header = rows.header() if rows else b""
        part = Part(0, 0)
        part.add(header)
        part.blank = True  # a header is no entry
        try:
            if place is not None:
                part = self._skipped(part, place, header)
                self._refill(part, place)
                if place.length:
                    yield part
                    part = part.next(header)
            pieces = rows.pieces() if rows else _lines(self._plain) if self.kind is Kind.NDJSON else _whole(self._plain)
            for piece, begins in pieces:
                if begins and part.size + len(piece) > self._part_bytes and part.end > part.begin:
                    if not part.blank:
                        yield part
                    part = part.next(header)
                part.add(piece)
            if not part.blank:
                yield part
        finally:
            part.release()

    def _skipped(self, first: Part, place: Place, header: bytes) -> Part:
        """The part that begins at a place, what is in already being read over."""
        if not place.offset:
            return first
        crc = first.crc
        for piece in self._exactly(place.offset - first.end, place):
            crc = zlib.crc32(piece, crc)
        first.release()
        return Part(place.offset, crc, header)

    def _refill(self, part: Part, place: Place) -> None:
        """Give a part as many bytes as were sent of it. Raises UnreadableError where the input has others."""
        for piece in self._exactly(place.length - (part.end - part.begin) if place.length else 0, place):
            part.add(piece)
        if place.offset + place.length and part.crc != place.crc:
            raise _changed(self.label, place, "has other bytes")

    def _exactly(self, length: int, place: Place) -> Iterator[bytes]:
        while length > 0:
            piece = self._plain.read(min(length, _BLOCK))
            if not piece:
                raise _changed(self.label, place, "is shorter")
            length -= len(piece)
            yield piece


class _Rows:
    """The header and the rows of CSV, told apart as ingestion does: a quoted field may hold line breaks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._taken: list[bytes] = []  # lines of the row that is being read
        self._size = 0
        self._number = 0
        self._reader = csv.reader(self._decoded(), strict=True)

    def header(self) -> bytes:
        """Its line, and empty ones before it."""
        return b"".join(piece for piece, _ in self.pieces(1))

    def pieces(self, rows: int | None = None) -> Pieces:
        """So many rows, else all that are left. Raises csv.Error."""
        begin = self._number + 1
        try:
            for row in self._reader:
                yield b"".join(self._taken), True
                self._taken.clear()
                self._size = 0
                begin = self._number + 1
                if row and rows is not None:
                    return
        except csv.Error as error:
            raise csv.Error(f"line {begin}: {error}") from error

    def _decoded(self) -> Iterator[str]:
        while line := self._file.readline(_ROW_MAX + 1):
            self._number += 1
            self._taken.append(line)
            self._size += len(line)
            if self._size > _ROW_MAX:
                raise csv.Error(f"the row is over {_ROW_MAX} bytes; is the closing quote of a field missing?")
            yield (line.removeprefix(_BOM) if self._number == 1 else line).decode(
                "latin-1"
            )  # only commas and quotes count


def size_of(name: str, kind: Kind | None = None) -> int | None:
    """Of an input as it lies on disk. Raises UnreadableError where it can't be opened.

    None of pipes and the like, which are not opened: they can be read once, and who writes may see them closed.
    """
    path = Path(name)
    if name == "-" or (path.exists() and not (path.is_file() or path.is_dir())):
        return None
    with closing(Input(name, kind)) as opened:
        return opened.size


def _lines(file: BinaryIO) -> Pieces:
    begins = True
    while piece := file.readline(_BLOCK):
        yield piece, begins
        begins = piece.endswith(b"\n")


def _whole(file: BinaryIO) -> Pieces:
    while piece := file.read(_BLOCK):
        yield piece, False


def _unpacked(file: io.BufferedReader) -> io.BufferedReader:
    """What a file holds, unpacked if its first bytes say that it is packed."""
    begin = file.peek(len(_ZSTD))
    if begin.startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file)), _BLOCK)
    if begin.startswith(_ZSTD):
        return io.BufferedReader(cast(io.RawIOBase, zstd.ZstdFile(file)), _BLOCK)
    return file


def _kind(name: str, file: io.BufferedReader) -> Kind:
    path = PurePath(name)
    path = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    by_name = _ENDINGS.get(path.suffix.lower())
    if by_name:
        return by_name
    return Kind.JSON if file.peek(1).lstrip().startswith(b"[") else Kind.NDJSON


def _size(file: BinaryIO) -> int | None:
    """Of a file as it lies on disk; None of a pipe."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _changed(label: str, place: Place, how: str) -> UnreadableError:
    return UnreadableError(
        f"{label} {how} than what was sent as {place.name}: give the same input again, or send it anew without --resume"
    )
