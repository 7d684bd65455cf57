"""Files that are read once each: as they are, or packed with gzip or zstd; each is an ingest run with a receipt.

    paths > files that have settled > entries > transaction(entries, the file's place, at its end the receipt)

What has been read wholly is known by the file's number, size and fingerprint, and is not read again; a file that was
changed since is another.
"""

import heapq
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from ingestion.declared import Files
from ingestion.declared import key_of as message_key
from ingestion.entries import Large, MalformedBodyError, Source, UnreadableSourceError
from ingestion.feeds import Feed
from ingestion.ingest import LARGE_TIMEOUT_MS, EntryTooLargeError
from ingestion.lines import TEXT, Lines
from ingestion.paths import Paths
from ingestion.reading import Place, Reading, fingerprint, form_of, key_of
from ingestion.session import Session, ago
from ingestion.sources.file import FileSource
from ingestion.unpacking import PackedWronglyError, UnpacksTooLargeError, packing_of, unpacked
from shared import logs, metrics
from shared.config import MIB, Settings
from shared.errors import SpoolFullError
from shared.spool import Spool
from shared.topics import H_RUN

LOOK_S: Final = 1.0  # between looks at the folders
TOGETHER: Final = 8 * MIB  # bytes that share a transaction ...
FILES_TOGETHER: Final = 100  # ... and files ...
TURN_S: Final = 1.0  # ... and how long it may take
LATER_S: Final = 60.0  # before a file that found no room is tried again
SHOWN_MAX: Final = 100  # files that GET /ingest/sources lists
FORGET_NS: Final = 7 * 86_400 * 1_000_000_000  # how long a file that is nowhere is remembered

log = logs.logger("files")

_FAULTS: Final = (
    MalformedBodyError,
    EntryTooLargeError,
    PackedWronglyError,
    UnpacksTooLargeError,
    UnreadableSourceError,
    OSError,
)  # of one file; others go on


class _StoppedError(Exception):
    """The feed is to stop while a file is unpacked."""


class _UntilStop:
    """A source that is read on as long as its feed may."""

    def __init__(self, source: Source, stopping: threading.Event) -> None:
        self._source = source
        self._stopping = stopping

    @property
    def size(self) -> int:
        return self._source.size

    def read(self, start: int, length: int) -> bytes:
        if self._stopping.is_set():
            raise _StoppedError
        return self._source.read(start, length)

    def release(self) -> None:
        self._source.release()


class FileFeed(Feed):
    """One declared path or pattern of files."""

    kind = "file"

    def __init__(self, settings: Settings, source: str, declared: Files, node: str | None, spool: Spool) -> None:
        super().__init__(settings, source, node, LARGE_TIMEOUT_MS)
        self._declared = declared
        self._spool = spool
        self._paths = Paths(settings, declared.path, declared.exclude)
        self._key = message_key(declared.key, source, socket.gethostname())
        self._places: dict[str, Place] = {}
        self._waiting: dict[str, tuple[str, os.stat_result]] = {}  # files to be read by their key, the oldest first
        self._later: dict[str, tuple[float, str]] = {}  # until when a file is left out, and why
        self._seen: dict[str, tuple[int, int, float]] = {}  # size, time of change, and since when they are so
        self._known: dict[str, tuple[int, int]] = {}  # size and time of change of files that were read
        self._reading: Reading | None = None
        self._entries = self._bytes = 0  # of the open transaction
        self._stopping = threading.Event()
        self._wrong: dict[str, str] = {}
        self._look_at = 0.0
        self._shown: dict[str, Any] = {}
        metrics.DECLARED_BEHIND_BYTES.labels(source)

    def shown(self) -> dict[str, Any]:
        return {"path": self._paths.pattern, **self._shown}

    # the thread

    def begin(self, session: Session, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._places = {key: msgspec.json.decode(value, type=Place) for key, value in session.restored(stopping)}
        self._look(session)
        session.commit()

    def turn(self, session: Session) -> float:
        begun, files = time.monotonic(), 0
        if begun >= self._look_at:
            self._look(session)
        while not (
            self._stopping.is_set()
            or self._bytes >= TOGETHER
            or files >= FILES_TOGETHER
            or session.is_full
            or time.monotonic() - begun >= TURN_S
        ):
            if self._reading is None:
                if not self._waiting:
                    break
                self._begin_next(session)
                files += 1
            if self._reading is not None:
                self._send_next(session, self._reading)
        self._commit(session)
        self._tell()
        return 0.0 if self._reading is not None or self._waiting else LOOK_S / 2

    def end(self) -> None:
        self._close()
        self._known.clear()
        self._look_at = 0.0
        self._entries = self._bytes = 0

    def _commit(self, session: Session) -> None:
        session.commit()
        self.sent(self._entries, self._bytes)
        self._entries = self._bytes = 0

    # one file

    def _begin_next(self, session: Session) -> None:
        """Open the oldest file that waits, unless it can't be read now, or at all."""
        key = next(iter(self._waiting))
        path, status = self._waiting.pop(key)
        place: Place | None = None
        try:
            if self._paths.leads_out(path):
                raise UnreadableSourceError("leads out of INGEST_DIR; declare its own path, or exclude it")
            with ExitStack() as leaving:
                file = FileSource(Path(path))
                leaving.callback(file.release)
                if not _is_same(file.status, status):  # it is looked at again, and has to settle again
                    return
                place = self._begun(session, file, path)
                self._reading = self._opened(session, file, place, leaving)
        except SpoolFullError as error:  # there may be room again, and for others now
            self._later[key] = time.monotonic() + LATER_S, str(error)
            self._wrong[path] = str(error)
        except _StoppedError:
            pass
        except _FAULTS as error:
            if place is None or isinstance(error, OSError):  # it is tried again
                self._wrong[path] = f"can't be read: {_said(error)}"
            else:
                self._finish(session, place, error)

    def _begun(self, session: Session, file: FileSource, path: str) -> Place:
        """The place of a file that is to be read: where it was left, if it is the same, else its start."""
        status, now = file.status, fingerprint(file)
        known = self._places.get(key_of(status.st_dev, status.st_ino))
        if known is not None and known.status == "reading":
            if known.may_be(status) and known.fingerprint == now:
                return self._found_again(session, known, path, status)
            self._finish(session, known, UnreadableSourceError("the file was changed before it was read to its end"))
        place = Place(
            path, status.st_dev, status.st_ino, status.st_size, now, uuid.uuid4().hex, changed=status.st_mtime_ns
        )
        self._keep(session, place)
        return place

    def _opened(self, session: Session, file: FileSource, place: Place, leaving: ExitStack) -> Reading:
        """What `leaving` releases is kept open when all went well."""
        source: Source = file
        if (packing := packing_of(file.read(0, 8))) is not None:
            self._commit(session)  # no transaction may be open for as long as this takes
            limit = self._settings.body_max_bytes
            source = unpacked(_UntilStop(file, self._stopping), packing, self._spool, limit, "BODY_MAX_BYTES")
            leaving.close()
            leaving.callback(source.release)
        shape, lines = form_of(self._declared.format, source, place.path)
        sender = Lines(self._settings, self.source, lines, self._declared.content_type or TEXT)
        reading = Reading(source, shape, sender, place, self._settings.chunk_bytes)
        leaving.pop_all()
        return reading

    def _send_next(self, session: Session, reading: Reading) -> None:
        try:
            found = reading.next()
            if isinstance(found, Large) and found.size > self._settings.entry_max_bytes:
                raise EntryTooLargeError(
                    f"the entry at byte {found.offset} has {found.size} bytes; at most "
                    f"{self._settings.entry_max_bytes} are taken (ENTRY_MAX_BYTES)"
                )
        except _FAULTS as error:
            self._finish(session, reading.place, error)
            return
        if found is None:
            self._finish(session, reading.place, None)
            return
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
        self._entries += entries
        self._bytes += size

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
        self._note(session, msgspec.structs.replace(place, updated=ago(0)))

    def _note(self, session: Session, place: Place) -> None:
        self._places[place.key] = place
        session.keep(place.key, place)

    def _close(self) -> None:
        if self._reading is not None:
            self._reading.source.release()
            self._reading = None

    # all of them

    def _look(self, session: Session) -> None:
        """Which files wait to be read."""
        now = time.monotonic()
        self._look_at = now + LOOK_S
        self._wrong.clear()
        found = {
            key_of(status.st_dev, status.st_ino): (path, status) for path, status in self._paths.found(self._wrong)
        }
        self._renumber(session, found)
        seen: dict[str, tuple[int, int, float]] = {}
        waiting: dict[str, tuple[str, os.stat_result]] = {}
        for key, (path, status) in found.items():
            size, changed, since = self._seen.get(key, (0, 0, now))
            if (size, changed) != (status.st_size, status.st_mtime_ns):
                since = now
            seen[key] = status.st_size, status.st_mtime_ns, since
            if not status.st_size or now - since < self._declared.settle_seconds or self._is_reading(key):
                continue
            if not self._was_read(session, key, path, status) and not self._is_left_out(key, path, now):
                waiting[key] = path, status
        self._seen = seen
        self._later = {key: later for key, later in self._later.items() if key in found and now < later[0]}
        self._waiting = dict(sorted(waiting.items(), key=lambda each: (each[1][1].st_mtime_ns, each[1][0])))
        self._note_missing(session)

    def _is_reading(self, key: str) -> bool:
        return self._reading is not None and self._reading.place.key == key

    def _is_left_out(self, key: str, path: str, now: float) -> bool:
        until, reason = self._later.get(key, (0.0, ""))
        if now >= until:
            return False
        self._wrong[path] = reason
        return True

    def _was_read(self, session: Session, key: str, path: str, status: os.stat_result) -> bool:
        """Whether the file that is there was read, or could not be: it is looked into once, and when it has changed."""
        now = status.st_size, status.st_mtime_ns
        if self._known.get(key) == now:
            return True
        place = self._places.get(key)
        if place is None or place.status == "reading" or not place.may_be(status):
            return False
        if _fingerprint_at(path, status) != place.fingerprint:  # or opening it fails, too, and tells
            return False
        self._known[key] = now
        self._found_again(session, place, path, status)
        return True

    def _found_again(self, session: Session, place: Place, path: str, status: os.stat_result) -> Place:
        """It is here now."""
        now = msgspec.structs.replace(place, path=path, device=status.st_dev, changed=status.st_mtime_ns, missing="")
        if now != place:
            self._note(session, now)
        return now

    def _renumber(self, session: Session, found: Mapping[str, tuple[str, os.stat_result]]) -> None:
        """Devices may have other numbers after a restart of the machine: a file is known by all the rest, too."""
        fresh = [each for key, each in found.items() if key not in self._places]
        if not fresh:
            return
        elsewhere: dict[int, list[Place]] = {}
        for key, place in self._places.items():
            if key not in found and not self._is_reading(key):
                elsewhere.setdefault(place.inode, []).append(place)
        for path, status in fresh:
            for place in elsewhere.get(status.st_ino, ()):
                is_alike = place.key in self._places and place.size == status.st_size and place.is_as_old_as(status)
                if is_alike and _fingerprint_at(path, status) == place.fingerprint:
                    self._forget(session, place.key)
                    self._found_again(session, place, path, status)
                    break

    def _note_missing(self, session: Session) -> None:
        """Remember since when files are gone, and forget them after a while, unless their folder is."""
        if self._paths.folder in self._wrong:
            return
        before = ago(FORGET_NS)
        for key, place in list(self._places.items()):
            if key in self._seen or self._is_reading(key):
                continue
            if not place.missing:
                self._known.pop(key, None)
                self._note(session, msgspec.structs.replace(place, missing=ago(0)))
            elif place.missing < before:
                self._forget(session, key)

    def _forget(self, session: Session, key: str) -> None:
        del self._places[key]
        self._known.pop(key, None)
        session.keep(key, None)

    def _tell(self) -> None:
        latest = heapq.nlargest(SHOWN_MAX, self._places.values(), key=lambda place: place.updated)
        failed = {
            place.path: place.error or ""
            for place in self._places.values()
            if place.status == "failed" and not place.missing
        }
        self._faults = [f"{path}: {problem}" for path, problem in sorted((self._wrong | failed).items())[:10]]
        self._shown = {
            "read": sum(place.status == "read" for place in self._places.values()),
            "failed": len(failed),
            "waiting": len(self._waiting) + len(self._later),
            "files": [
                {
                    "path": place.path,
                    "status": place.status,
                    "run_id": place.run_id,
                    "entries": place.entries,
                    "error": place.error,
                }
                for place in latest
            ],
        }
        behind = sum(status.st_size for _, status in self._waiting.values())
        metrics.DECLARED_BEHIND_BYTES.labels(self.source).set(behind)


def _said(error: Exception) -> str:
    return (error.strerror or str(error) if isinstance(error, OSError) else str(error))[:500]


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
    )


def _fingerprint_at(path: str, status: os.stat_result) -> str:
    """That of the file with this status; nothing if it can't be read, or is another by now."""
    try:
        file = FileSource(Path(path))
    except OSError:
        return ""
    try:
        return fingerprint(file) if _is_same(file.status, status) else ""
    except UnreadableSourceError:
        return ""
    finally:
        file.release()
