"""A file that is read once, from its first entry to its last, and goes on at its place after a restart.

Its place is how many of its entries are sent. It is known by its number, its size and a fingerprint of both its ends.
"""

import hashlib
import os
import re
from pathlib import PurePath
from typing import Final, Literal

import msgspec

from ingestion.entries import Large, Source
from ingestion.ingest import Push, Shape, shape_of, shape_of_file
from ingestion.lines import Format, Lines

_TOGETHER: Final = 10_000  # entries that are given out together
_PRINT: Final = 64 * 1024
_ARRAY: Final = re.compile(rb"\s*\[\s*[{\]]")


def key_of(device: int, inode: int) -> str:
    """A file that is there has a number that no other has."""
    return f"{device:x}-{inode:x}"


class Place(msgspec.Struct, frozen=True):
    """A file and how far it has been read, as ingestion-state keeps it."""

    path: str
    device: int
    inode: int
    size: int
    fingerprint: str
    run_id: str
    status: Literal["reading", "read", "failed"] = "reading"
    entries: int = 0  # that are sent
    bytes: int = 0  # of these
    error: str | None = None
    updated: str = ""  # RFC 3339, UTC
    changed: int = 0  # its time of change in ns; 0: kept by a version that did not look at it
    missing: str = ""  # RFC 3339, UTC: since when no path leads to it
    schema: int = 1

    @property
    def key(self) -> str:
        return key_of(self.device, self.inode)

    def may_be(self, status: os.stat_result) -> bool:
        """Whether a file of this number may be it: once it was gone, one with another time has its number only."""
        return self.size == status.st_size and not (self.missing and not self.is_as_old_as(status))

    def is_as_old_as(self, status: os.stat_result) -> bool:
        return self.changed in (0, status.st_mtime_ns)


class Reading:
    """The file that is being read, open at its place. Release its source when it is done."""

    def __init__(self, source: Source, shape: Shape, lines: Lines, place: Place, chunk_bytes: int) -> None:
        self.source = source
        self.lines = lines
        self.place = place
        self._found = Push(source, shape, place.run_id).entries(chunk_bytes)
        self._skip = place.entries
        self._fresh: list[bytes] = []

    def next(self) -> list[bytes] | Large | None:
        """The next entries behind the place; None at the end."""
        while not self._fresh:
            found = next(self._found, None)
            if found is None:
                return None
            if isinstance(found, Large):
                if not self._skip:
                    return found
                self._skip -= 1
                continue
            self._fresh, self._skip = found[self._skip :], max(0, self._skip - len(found))
        given, self._fresh = self._fresh[:_TOGETHER], self._fresh[_TOGETHER:]
        return given


def form_of(declared: str, source: Source, path: str) -> tuple[Shape, Format]:
    """How a file's entries lie in it, and, where they are lines, of what."""
    match declared:
        case "csv" | "tsv":
            return Shape(declared), "ndjson"
        case "ndjson" | "text":
            return Shape.NDJSON, "text" if declared == "text" else "ndjson"
        case "json":
            return shape_of(source, json=True), "ndjson"
    shape = shape_of_file(source, path)
    if shape is Shape.ARRAY and ".json" not in PurePath(path).suffixes and not _ARRAY.match(source.read(0, 4096)):
        shape = Shape.NDJSON  # a line of text that begins with a bracket
    return shape, "auto" if shape is Shape.NDJSON else "ndjson"


def fingerprint(source: Source) -> str:
    """Of a file's size and of the bytes at its start and its end."""
    head = source.read(0, _PRINT)
    tail = source.read(max(0, source.size - _PRINT), _PRINT)
    return hashlib.blake2b(b"%d:" % source.size + head + tail, digest_size=16).hexdigest()
