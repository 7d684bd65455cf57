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
from ingestion.paths import Paths, is_text
from ingestion.session import Session, ago
from shared import logs, metrics
from shared.config import MIB, Settings

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
        self._there: dict[str, str] = {}  # path by key, of what was found last
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
        skip = is_first and self._declared.start == "end"
        if skip:
            self.end()
        self._rewind()
        self._look(session, time.monotonic(), skip=skip)
        self._find_renamed(session, time.monotonic())
        self._note_missing(session)
        if is_first:
            for file in self._files.values():
                session.keep(file.place.key, file.place)
            session.keep(_BEGUN, Place(self._paths.pattern, 0, 0))
        session.commit()

    def turn(self, session: Session) -> float:
        now = time.monotonic()
        if now >= self._look_at:
            self._look(session, now)
            self._note_missing(session)
        entries = size = 0
        for _ in range(len(self._turns)):
            if size >= TOGETHER or session.is_full:
                break
            key = self._turns[0]
            self._turns.rotate(-1)
            for piece in self._pieces(key, now):
                size += self._send(session, piece)
                entries += piece.entries
                if size >= TOGETHER or session.is_full:
                    break
        done = [key for key in list(self._files) if self._is_done(session, key, now)]
        there_is_more = size >= TOGETHER or session.is_full
        session.commit()
        for key in done:  # not before: if this transaction does not count, they are to be read again
            self._let_go(key)
        self.sent(entries, size)
        self._tell()
        return 0.0 if there_is_more else POLL_S

    def interrupted(self) -> None:
        """Files stay open: one that was removed meanwhile can't be opened again."""
        self._look_at = 0.0

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
        except OSError as error:
            self._fail(key, error)

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
        session.keep(place.key, msgspec.structs.replace(place, updated=ago(0)))

    def _is_left(self, file: Followed, now: float) -> bool:
        """Whether nobody finds the file or writes to it any more."""
        return file.gone is not None and file.idle(now) >= self._declared.rotated_seconds

    def _is_done(self, session: Session, key: str, now: float) -> bool:
        """Whether it is read to its end; then its place is kept, unless it is nowhere: it may come back."""
        file = self._files[key]
        try:
            if not self._is_left(file, now) or file.behind:
                return False
            is_removed = file.is_removed
        except OSError as error:
            self._fail(key, error)
            return False
        if is_removed:
            session.keep(key, None)
        else:
            self._places[key] = msgspec.structs.replace(file.place, missing=ago(0))
            self._keep(session, self._places[key])
        return True

    def _fail(self, key: str, error: OSError) -> None:
        """The next look opens it again, at its place."""
        file = self._files[key]
        self._wrong[file.place.path] = f"can't be read: {error.strerror}"
        self._places[key] = file.place
        self._let_go(key)

    # files

    def _look(self, session: Session, now: float, *, skip: bool = False) -> None:
        """What the paths lead to: follow what is new; what has no path any more is followed to its end."""
        self._look_at = now + LOOK_S
        self._wrong.clear()
        found = self._there = dict(self._found())
        for key, file in self._files.items():
            if key not in found:
                file.lost(now)
            elif file.is_at(found[key]):
                self._keep(session, file.place)
        for key, path in found.items():
            if key not in self._files:
                self._follow(session, path, skip=skip)

    def _found(self) -> Iterator[tuple[str, str]]:
        """Each file that is there, by its key; of several paths to one the last."""
        for path, status in self._paths.found(self._wrong):
            yield Place(path, status.st_dev, status.st_ino).key, path

    def _follow(self, session: Session, path: str, *, skip: bool = False) -> None:
        file = self._opened(path, self._wrong)
        if file is None:
            return
        if file.place.key in self._files:  # a path that led to another file when it was looked at
            file.close()
            return
        kept = None
        try:
            if skip:
                file.skip()
            elif (kept := self._resumed(file)) is None:
                log.info("a file is new", source=self.source, file=path)
        except OSError as error:
            self._wrong[path] = f"can't be read: {error.strerror}"
            file.close()
            return
        self._take(session, file, kept)

    def _opened(self, path: str, wrong: dict[str, str]) -> Followed | None:
        if len(self._files) >= FILES_MAX:
            wrong[path] = f"is not followed: {FILES_MAX} files are already; declare several sources"
            return None
        try:
            return Followed(path, self._declared.partial_seconds, self._declared.line_bytes)
        except NotFollowedError as error:
            wrong[path] = str(error)
        except FileNotFoundError:  # it was renamed just now
            pass
        except OSError as error:
            wrong[path] = f"can't be read: {error.strerror}"
        return None

    def _take(self, session: Session, file: Followed, kept: Place | None) -> None:
        """Follow it; `kept` is where it goes on, if there was such a place."""
        key = file.place.key
        self._places.pop(key, None)
        if kept is not None and kept.key != key:
            self._forget(session, kept.key)
        if kept is not None and (kept.key != key or kept.missing):
            self._keep(session, file.place)
        self._files[key] = file
        self._turns.append(key)

    def _resumed(self, file: Followed) -> Place | None:
        """The place that was kept of it, where it now is; of several that which is furthest on.

        Devices may have other numbers after a restart of the machine.
        """
        own = file.place
        alike = [
            place
            for place in self._places.values()
            if place.key == own.key or (place.inode, place.path) == (own.inode, own.path)
        ]
        alike.sort(key=lambda place: place.lines, reverse=True)
        return next((place for place in alike if file.resume(place)), None)

    def _rewind(self) -> None:
        """What stayed open goes back to the places that count."""
        for key, file in list(self._files.items()):
            try:
                file.rewind(self._places.get(key))
            except OSError:  # the look opens it again, if it can
                self._let_go(key)
            else:
                self._places.pop(key, None)

    def _find_renamed(self, session: Session, now: float) -> None:
        """Follow to their ends the files that were renamed while nobody looked: they are beside where they were."""
        for place in list(self._places.values()):
            for path in _beside(place):
                file = self._opened(path, {})
                if file is None:
                    continue
                if self._is_that(file, place):
                    file.lost(now)
                    self._take(session, file, place)
                    break
                file.close()

    def _is_that(self, file: Followed, place: Place) -> bool:
        try:
            return file.place.key not in self._files and file.place.inode == place.inode and file.resume(place)
        except OSError:
            return False

    def _note_missing(self, session: Session) -> None:
        """Remember since when no path leads to a file, and forget it after a while: a disk may be missing for a day."""
        is_away = self._paths.folder in self._wrong
        for key, place in list(self._places.items()):
            if key in self._there:  # it can't be opened
                continue
            if not place.missing:
                log.warning(
                    "a file is nowhere to be found; what was written to it after this place was not read",
                    source=self.source, file=place.path, offset=place.offset,
                )  # fmt: skip
                self._places[key] = msgspec.structs.replace(place, missing=ago(0))
                session.keep(key, self._places[key])
            elif place.missing < ago(FORGET_NS) and not is_away:
                self._forget(session, key)

    def _forget(self, session: Session, key: str) -> None:
        self._places.pop(key, None)
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


def _beside(place: Place) -> Iterator[str]:
    """The paths in the folder of a place that lead to a file of its number."""
    try:
        with os.scandir(Path(place.real or place.path).parent) as entries:
            yield from [entry.path for entry in entries if entry.inode() == place.inode and is_text(entry.path)]
    except OSError:
        return
