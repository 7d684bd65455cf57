"""Files that are followed as they grow, each line once: over kill -9, rotation and truncation.

    paths > files, by device and number > lines > transaction(lines, each file's place) > raw-logs, ingestion-state

Files are known by their number, not by their name: one that is renamed goes on, and what is written to it until its
writer lets go of it is read, too.
"""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ingestion.declared import Tail, key_of
from ingestion.entries import Large
from ingestion.feeds import Feed
from ingestion.following import Followed, NotFollowedError, Piece, Place
from ingestion.lines import TEXT, Lines
from ingestion.paths import Paths
from ingestion.session import Session
from shared import logs, metrics
from shared.config import MIB, Settings
from shared.records import timestamp_of

POLL_S: Final = 0.2  # between looks at the files ...
LOOK_S: Final = 1.0  # ... and at their folders
TOGETHER: Final = 8 * MIB  # bytes that share a transaction
FILES_MAX: Final = 500  # of a source: each is a descriptor
FORGET_NS: Final = 7 * 86_400 * 1_000_000_000  # how long the place of a file that is nowhere is kept
_BEGUN: Final = "begun"  # the key that says that the source has been read before

log = logs.logger("tail")


class TailFeed(Feed):
    """One declared tail."""

    kind = "tail"

    def __init__(self, settings: Settings, source: str, declared: Tail, node: str | None) -> None:
        super().__init__(settings, source, node)
        self._declared = declared
        self._paths = Paths(settings, declared.path, declared.exclude)
        self._lines = Lines(settings, source, declared.format, declared.content_type or TEXT)
        self._key = key_of(declared.key, source, socket.gethostname())
        self._files: dict[str, Followed] = {}
        self._turns: deque[str] = deque()  # whose turn it is
        self._places: dict[str, Place] = {}  # of files that are not open
        self._wrong: dict[str, str] = {}  # by path
        self._look_at = 0.0
        self._shown: list[dict[str, Any]] = []
        metrics.DECLARED_BEHIND_BYTES.labels(source)
        metrics.DECLARED_LOST_BYTES.labels(source)

    def shown(self) -> dict[str, Any]:
        return {"path": self._paths.pattern, "files": self._shown}

    # the thread

    def begin(self, session: Session, stopping: threading.Event) -> None:
        kept = dict(session.restored(stopping))
        is_first = kept.pop(_BEGUN, None) is None
        self._places = {key: msgspec.json.decode(value, type=Place) for key, value in kept.items()}
        self._look(session, time.monotonic(), skip=is_first and self._declared.start == "end")
        self._find_renamed(session, time.monotonic())
        if is_first:
            for file in self._files.values():
                session.keep(file.place.key, file.place)
            session.keep(_BEGUN, Place(self._paths.pattern, 0, 0))
        session.commit()

    def turn(self, session: Session) -> float:
        now = time.monotonic()
        if now >= self._look_at:
            self._look(session, now)
        entries = size = 0
        for _ in range(len(self._turns)):
            if size >= TOGETHER:
                break
            key = self._turns[0]
            self._turns.rotate(-1)
            for piece in self._pieces(key, now):
                size += self._send(session, piece)
                entries += piece.entries
                if size >= TOGETHER:
                    break
        for key, file in list(self._files.items()):
            if self._is_done(file, now):
                self._let_go(key)
                session.keep(key, None)
        session.commit()
        self.sent(entries, size)
        self._tell()
        return 0.0 if size >= TOGETHER else POLL_S

    def end(self) -> None:
        for key in list(self._files):
            self._let_go(key)
        self._look_at = 0.0

    # lines

    def _pieces(self, key: str, now: float) -> Iterator[Piece]:
        file = self._files[key]
        try:
            while (piece := file.next(now, last=self._is_left(file, now))) is not None:
                yield piece
        except OSError as error:  # the next look opens it again, at its place
            self._wrong[file.place.path] = f"can't be read: {error.strerror}"
            self._places[key] = file.place
            self._let_go(key)

    def _send(self, session: Session, piece: Piece) -> int:
        if piece.lost:
            metrics.DECLARED_LOST_BYTES.labels(self.source).inc(piece.lost)
            log.warning("truncated before it was read", source=self.source, file=piece.place.path, bytes=piece.lost)
        size = sum(map(len, piece.lines))
        self._lines.send(session, piece.lines, self._key)
        if piece.long is not None:
            self._lines.send_long(session, piece.long, Large(0, piece.long.size), self._key)
            size += piece.long.size
        self._keep(session, piece.place)
        return size

    def _keep(self, session: Session, place: Place) -> None:
        now = timestamp_of(time.time_ns() // 1_000_000_000 * 1_000_000_000)
        session.keep(place.key, msgspec.structs.replace(place, updated=now))

    def _is_left(self, file: Followed, now: float) -> bool:
        """Whether nobody finds the file or writes to it any more."""
        return file.gone is not None and file.idle(now) >= self._declared.rotated_seconds

    def _is_done(self, file: Followed, now: float) -> bool:
        return self._is_left(file, now) and not file.behind

    # files

    def _look(self, session: Session, now: float, *, skip: bool = False) -> None:
        """What the paths lead to: follow what is new; what has no path any more is followed to its end."""
        self._look_at = now + LOOK_S
        self._wrong.clear()
        found = dict(self._found())
        for key, file in self._files.items():
            if key not in found:
                file.lost(now)
            elif file.is_at(found[key]):
                self._keep(session, file.place)
        for key, path in found.items():
            if key not in self._files:
                self._follow(path, skip=skip)

    def _found(self) -> Iterator[tuple[str, str]]:
        """Each file that is there, by its key; of several paths to one the last."""
        for path, status in self._paths.found(self._wrong):
            yield Place(path, status.st_dev, status.st_ino).key, path

    def _follow(self, path: str, *, skip: bool = False) -> None:
        file = self._opened(path)
        if file is None:
            return
        kept = self._kept_of(file)
        try:
            if skip:
                file.skip()
            elif kept is None or not file.resume(kept):
                log.info("a file is new", source=self.source, file=path, was_at=kept.offset if kept else None)
        except OSError as error:  # the next look tries again
            self._wrong[path] = f"can't be read: {error.strerror}"
            file.close()
            return
        self._take(file)

    def _opened(self, path: str) -> Followed | None:
        if len(self._files) >= FILES_MAX:
            self._wrong[path] = f"is not followed: {FILES_MAX} files are already; declare several sources"
            return None
        try:
            return Followed(path, self._declared.partial_seconds, self._declared.line_bytes)
        except NotFollowedError as error:
            self._wrong[path] = str(error)
        except FileNotFoundError:  # it was renamed just now
            pass
        except OSError as error:
            self._wrong[path] = f"can't be read: {error.strerror}"
        return None

    def _take(self, file: Followed) -> None:
        key = file.place.key
        if key in self._files:  # a path that led to another file when it was looked at
            file.close()
            return
        self._places.pop(key, None)
        self._files[key] = file
        self._turns.append(key)

    def _kept_of(self, file: Followed) -> Place | None:
        """The place that was kept of it: devices may have other numbers after a restart of the machine."""
        place = file.place
        if place.key in self._places:
            return self._places[place.key]
        alike = (each for each in self._places.values() if (each.inode, each.path) == (place.inode, place.path))
        return next(alike, None)

    def _find_renamed(self, session: Session, now: float) -> None:
        """Follow to their ends the files that were renamed while nobody looked: they are beside where they were."""
        for key, place in list(self._places.items()):
            opened = (file for path in _beside(place) if (file := self._opened(path)) is not None)
            for file in opened:
                if _is_at(file, place):
                    file.lost(now)
                    self._take(file)
                    break
                file.close()
            else:
                self._forget(session, key, place)

    def _forget(self, session: Session, key: str, place: Place) -> None:
        log.warning(
            "a file is nowhere to be found; what was written to it after this place was not read",
            source=self.source, file=place.path, offset=place.offset,
        )  # fmt: skip
        if place.updated < timestamp_of(time.time_ns() - FORGET_NS):
            session.keep(key, None)

    def _let_go(self, key: str) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            self._turns.remove(key)
            file.close()

    def _tell(self) -> None:
        self._faults = [f"{path}: {problem}" for path, problem in sorted(self._wrong.items())[:10]]
        self._shown = [
            {
                "path": file.place.path,
                "offset": file.place.offset,
                "behind": file.behind,
                "lines": file.place.lines,
                "rotated": file.gone is not None,
            }
            for file in list(self._files.values())
        ]
        metrics.DECLARED_BEHIND_BYTES.labels(self.source).set(sum(file.behind for file in self._files.values()))


def _is_at(file: Followed, place: Place) -> bool:
    """Whether it is the file of this place, and then goes on there."""
    try:
        return file.place.inode == place.inode and file.resume(place)
    except OSError:
        return False


def _beside(place: Place) -> Iterator[str]:
    """The paths in the folder of a place that lead to a file of its number."""
    try:
        with os.scandir(Path(place.path).parent) as entries:
            yield from [entry.path for entry in entries if entry.inode() == place.inode]
    except OSError:
        return
