"""Files that are read once each: as they are, or packed with gzip or zstd; each is an ingest run with a receipt.

    paths > files that have settled > entries > transaction(entries, the file's place, at its end the receipt)

What has been read wholly is known by the file's number, size and fingerprint, and is not read again; a file that was
changed since is another.
"""

import hashlib
import os
import re
import socket
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any, Final, Literal

import msgspec

from ingestion.declared import Files, key_of
from ingestion.entries import Large, MalformedBodyError, Source, UnreadableSourceError
from ingestion.feeds import Feed
from ingestion.ingest import LARGE_TIMEOUT_MS, EntryTooLargeError, Push, Shape, shape_of, shape_of_file
from ingestion.lines import TEXT, Format, Lines
from ingestion.paths import Paths
from ingestion.session import Session
from ingestion.sources.file import FileSource
from ingestion.unpacking import PackedWronglyError, UnpacksTooLargeError, packing_of, unpacked
from shared import logs, metrics
from shared.config import MIB, Settings
from shared.errors import SpoolFullError
from shared.records import timestamp_of
from shared.spool import Spool
from shared.topics import H_RUN

LOOK_S: Final = 1.0  # between looks at the folders
TOGETHER: Final = 8 * MIB  # bytes that share a transaction
SHOWN_MAX: Final = 100  # files that GET /ingest/sources lists
FORGET_NS: Final = 7 * 86_400 * 1_000_000_000  # how long a file that is nowhere is remembered
_PRINT: Final = 64 * 1024
_ARRAY: Final = re.compile(rb"\s*\[\s*[{\]]")

log = logs.logger("files")

_FAULTS: Final = (
    MalformedBodyError,
    EntryTooLargeError,
    PackedWronglyError,
    UnpacksTooLargeError,
    UnreadableSourceError,
    OSError,
)  # of one file; others go on


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
    schema: int = 1

    @property
    def key(self) -> str:
        return f"{self.device:x}-{self.inode:x}"


class _Reading:
    """The file that is being read, open at its place."""

    def __init__(self, source: Source, shape: Shape, lines: Lines, place: Place, chunk_bytes: int) -> None:
        self.source = source
        self.lines = lines
        self.place = place
        self._found = Push(source, shape, place.run_id).entries(chunk_bytes)
        self._skip = place.entries

    def next(self) -> list[bytes] | Large | None:
        """The next entries behind the place; None at the end."""
        for found in self._found:
            if isinstance(found, Large):
                if not self._skip:
                    return found
                self._skip -= 1
                continue
            fresh, self._skip = found[self._skip :], max(0, self._skip - len(found))
            if fresh:
                return fresh
        return None


def _form(declared: str, source: Source, path: str) -> tuple[Shape, Format]:
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


class FileFeed(Feed):
    """One declared path or pattern of files."""

    kind = "file"

    def __init__(self, settings: Settings, source: str, declared: Files, node: str | None, spool: Spool) -> None:
        super().__init__(settings, source, node, LARGE_TIMEOUT_MS)
        self._declared = declared
        self._spool = spool
        self._paths = Paths(settings, declared.path, declared.exclude)
        self._key = key_of(declared.key, source, socket.gethostname())
        self._places: dict[str, Place] = {}
        self._waiting: dict[str, tuple[str, os.stat_result]] = {}  # files to be read, by their key
        self._seen: dict[str, tuple[int, int, float]] = {}  # size, time of change, and since when they are so
        self._known: dict[str, tuple[int, int]] = {}  # size and time of change of files that were read
        self._reading: _Reading | None = None
        self._wrong: dict[str, str] = {}
        self._look_at = 0.0
        self._shown: dict[str, Any] = {}
        metrics.DECLARED_BEHIND_BYTES.labels(source)

    def shown(self) -> dict[str, Any]:
        return {"path": self._paths.pattern, **self._shown}

    # the thread

    def begin(self, session: Session, stopping: threading.Event) -> None:
        self._places = {key: msgspec.json.decode(value, type=Place) for key, value in session.restored(stopping)}
        self._look()
        self._forget(session)
        session.commit()

    def turn(self, session: Session) -> float:
        if time.monotonic() >= self._look_at:
            self._look()
        entries = size = 0
        try:
            while size < TOGETHER and (reading := self._current(session)) is not None:
                sent, sent_bytes = self._send_next(session, reading)
                entries, size = entries + sent, size + sent_bytes
        except SpoolFullError as error:  # there may be room again
            self._wrong[self._paths.pattern] = str(error)
        session.commit()
        self.sent(entries, size)
        self._tell()
        return 0.0 if self._reading is not None else LOOK_S / 2

    def end(self) -> None:
        self._close()
        self._known.clear()
        self._look_at = 0.0

    # one file

    def _current(self, session: Session) -> _Reading | None:
        """The file that is being read, or the oldest that waits."""
        while self._reading is None and self._waiting:
            key = min(self._waiting, key=lambda each: (self._waiting[each][1].st_mtime_ns, self._waiting[each][0]))
            path, status = self._waiting.pop(key)
            try:
                self._reading = self._opened(self._begun(session, key, path, status))
            except SpoolFullError:
                self._waiting[key] = path, status
                raise
            except OSError as error:  # it is tried again
                self._wrong[path] = f"can't be read: {error.strerror or error}"
            except _FAULTS as error:
                self._finish(session, self._places[key], error)
        return self._reading

    def _begun(self, session: Session, key: str, path: str, status: os.stat_result) -> Place:
        """The place of a file that is to be read: where it was left, if it is the same, else its start."""
        known, now = self._places.get(key), _fingerprint(path)
        if known is not None and known.status == "reading":
            if (known.size, known.fingerprint) == (status.st_size, now):
                self._places[key] = known = msgspec.structs.replace(known, path=path)
                return known
            self._finish(session, known, UnreadableSourceError("the file was changed before it was read to its end"))
        place = Place(path, status.st_dev, status.st_ino, status.st_size, now, uuid.uuid4().hex)
        self._keep(session, place)
        return place

    def _opened(self, place: Place) -> _Reading:
        source: Source = FileSource(Path(place.path))
        with ExitStack() as leaving:
            leaving.callback(source.release)
            if (packing := packing_of(source.read(0, 8))) is not None:
                limit = self._settings.body_max_bytes
                source = unpacked(source, packing, self._spool, limit, "BODY_MAX_BYTES")
                leaving.close()
                leaving.callback(source.release)
            shape, lines = _form(self._declared.format, source, place.path)
            sender = Lines(self._settings, self.source, lines, self._declared.content_type or TEXT)
            reading = _Reading(source, shape, sender, place, self._settings.chunk_bytes)
            leaving.pop_all()
        return reading

    def _send_next(self, session: Session, reading: _Reading) -> tuple[int, int]:
        """Send the next entries of a file; returns how many, and their bytes."""
        try:
            found = reading.next()
            if isinstance(found, Large) and found.size > self._settings.entry_max_bytes:
                raise EntryTooLargeError(
                    f"the entry at byte {found.offset} has {found.size} bytes; at most "
                    f"{self._settings.entry_max_bytes} are taken (ENTRY_MAX_BYTES)"
                )
        except _FAULTS as error:
            self._finish(session, reading.place, error)
            return 0, 0
        if found is None:
            self._finish(session, reading.place, None)
            return 0, 0
        run = [(H_RUN, reading.place.run_id.encode())]
        if isinstance(found, Large):
            reading.lines.send_long(session, reading.source, found, self._key, run)
            entries, size = 1, found.size
        else:
            reading.lines.send(session, found, self._key, run)
            entries, size = len(found), sum(map(len, found))
        place = reading.place
        reading.place = msgspec.structs.replace(place, entries=place.entries + entries, bytes=place.bytes + size)
        self._keep(session, reading.place)
        return entries, size

    def _finish(self, session: Session, place: Place, error: Exception | None) -> None:
        """A file is read, or can't be: its run has its receipt."""
        self._close()
        if error is None:
            log.info("a file is read", source=self.source, file=place.path, run_id=place.run_id, entries=place.entries)
            self._keep(session, msgspec.structs.replace(place, status="read"))
        else:
            said = _said(error)
            log.warning("a file can't be read", source=self.source, file=place.path, run_id=place.run_id, error=said)
            self._keep(session, msgspec.structs.replace(place, status="failed", error=said))
        if place.entries or error is None:
            session.receipt(place.run_id, self.source, place.entries, place.bytes, place.path)

    def _keep(self, session: Session, place: Place) -> None:
        now = timestamp_of(time.time_ns() // 1_000_000_000 * 1_000_000_000)
        self._places[place.key] = place = msgspec.structs.replace(place, updated=now)
        session.keep(place.key, place)

    def _close(self) -> None:
        if self._reading is not None:
            self._reading.source.release()
            self._reading = None

    # all of them

    def _look(self) -> None:
        """Which files wait to be read."""
        now = time.monotonic()
        self._look_at = now + LOOK_S
        self._wrong.clear()
        self._waiting.clear()
        seen: dict[str, tuple[int, int, float]] = {}
        for path, status in self._paths.found(self._wrong):
            key = f"{status.st_dev:x}-{status.st_ino:x}"
            if self._reading is not None and self._reading.place.key == key:
                continue
            size, changed, since = self._seen.get(key, (0, 0, now))
            if (size, changed) != (status.st_size, status.st_mtime_ns):
                since = now
            seen[key] = status.st_size, status.st_mtime_ns, since
            has_settled = max(now - since, time.time() - status.st_mtime) >= self._declared.settle_seconds
            if status.st_size and has_settled and not self._was_read(key, path, status):
                self._waiting[key] = path, status
        self._seen = seen

    def _was_read(self, key: str, path: str, status: os.stat_result) -> bool:
        """Whether the file that is there was read, or could not be: it is looked into once, and when it has changed."""
        now = status.st_size, status.st_mtime_ns
        if self._known.get(key) == now:
            return True
        place = self._places.get(key)
        if place is None or place.status == "reading" or place.size != status.st_size:
            return False
        try:
            was_read = place.fingerprint == _fingerprint(path)
        except OSError:  # opening it fails, too, and tells
            return False
        if was_read:
            self._known[key] = now
        return was_read

    def _forget(self, session: Session) -> None:
        """Forget what is nowhere any more, after a while: a disk may be missing for a day."""
        before = timestamp_of(time.time_ns() - FORGET_NS)
        for key, place in list(self._places.items()):
            if key not in self._seen and place.updated < before:
                del self._places[key]
                session.keep(key, None)

    def _tell(self) -> None:
        latest = sorted(self._places.values(), key=lambda place: place.updated, reverse=True)
        failed = {place.path: place.error or "" for place in latest if place.status == "failed"}
        self._faults = [f"{path}: {problem}" for path, problem in sorted((self._wrong | failed).items())[:10]]
        self._shown = {
            "read": sum(place.status == "read" for place in latest),
            "failed": len(failed),
            "waiting": len(self._waiting),
            "files": [
                {
                    "path": place.path,
                    "status": place.status,
                    "run_id": place.run_id,
                    "entries": place.entries,
                    "error": place.error,
                }
                for place in latest[:SHOWN_MAX]
            ],
        }
        behind = sum(status.st_size for _, status in self._waiting.values())
        metrics.DECLARED_BEHIND_BYTES.labels(self.source).set(behind)


def _fingerprint(path: str) -> str:
    """Of a file's size and of the bytes at its start and its end."""
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_PRINT)
        file.seek(max(0, size - _PRINT))
        return hashlib.blake2b(b"%d:" % size + head + file.read(_PRINT), digest_size=16).hexdigest()


def _said(error: Exception) -> str:
    return (error.strerror or str(error) if isinstance(error, OSError) else str(error))[:500]
