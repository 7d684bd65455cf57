"""The spool: bytes too many for memory, in files under a quota, for as long as the process lives.

Ingestion spools a request's body before its transaction begins; a stage spools the messages that it puts together from
chunks. Nothing in it outlives the process: what a killed one left is removed when the next one starts.
"""

import errno
import io
import os
import threading
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from shared.errors import SpoolFullError

_SUFFIX: Final = ".spool"
_MEMORY_BYTES: Final = 32 * 1024 * 1024
_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}


class Entry:
    """A run of bytes that grows at its end; made by Spool.create, and used by one thread at a time.

    It holds no file descriptor between calls, so that ten thousand entries need none. `with` releases it.
    """

    __slots__ = ("_buffer", "_in_file", "_memory_bytes", "_number", "_spool", "size")

    def __init__(self, spool: "Spool", number: int, memory_bytes: int) -> None:
        self.size = 0
        self._spool = spool
        self._number = number
        self._memory_bytes = memory_bytes
        self._buffer = bytearray()
        self._in_file = False

    def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises SpoolFullError, and adds nothing, over the quota or on a full disk."""
        self._spool.take(len(data))
        try:
            self._store(data)
        except OSError as error:
            self._spool.give(len(data))
            if error.errno not in _NO_SPACE:
                raise
            raise SpoolFullError(
                f"the disk of {self._spool.folder} is full: {len(data)} bytes could not be spooled; make room on it"
            ) from error
        self.size += len(data)

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from `start`, at most `length` of them."""
        if not self._in_file:
            return bytes(self._buffer[start : None if length is None else start + length])
        with self.open() as stream:
            stream.seek(start)
            return stream.read(-1 if length is None else length)

    def open(self) -> BinaryIO:
        """A stream over the bytes that are there now; it stays readable after `release`."""
        return self._path.open("rb") if self._in_file else io.BytesIO(self._buffer)

    def release(self) -> None:
        """Give the bytes back to the quota and remove the file. A second call does nothing."""
        self._spool.give(self.size)
        self._forget_memory()
        self.size = 0
        if self._in_file:
            self._path.unlink()
            self._in_file = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def _path(self) -> Path:
        return self._spool.folder / f"{self._number:016x}{_SUFFIX}"

    def _store(self, data: bytes) -> None:
        if not self._in_file:
            if self.size + len(data) <= self._memory_bytes and self._spool.take_memory(len(data)):
                self._buffer += data
                return
            self._write(self._buffer, 0)
            self._forget_memory()
            self._in_file = True
        self._write(data, self.size)

    def _write(self, data: bytes | bytearray, start: int) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        at, rest = start, memoryview(data)
        try:
            while rest:
                written = os.pwrite(file, rest, at)
                at, rest = at + written, rest[written:]
        finally:
            if rest:  # the disk filled up in mid write
                os.ftruncate(file, start)
            os.close(file)

    def _forget_memory(self) -> None:
        self._spool.give_memory(len(self._buffer))
        self._buffer = bytearray()


class Spool:
    """A folder of entries under one quota, in bytes. The folder is this process's alone: shared.instance sees to that.

    Threads may share a spool: the accounts are kept under a lock, and an entry belongs to whoever made it.
    `memory_bytes` bounds what all entries together keep in memory; beyond it an entry goes to its file at once.
    """

    def __init__(self, folder: Path, quota: int, memory_bytes: int = _MEMORY_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.quota = quota
        self._memory_quota = memory_bytes
        self._numbers = count()
        self._accounts = threading.Lock()
        self._used = 0
        self._memory = 0
        self._clean()

    @property
    def used(self) -> int:
        """Bytes in use, those in memory included."""
        return self._used

    def free(self) -> int:
        """Bytes that may still be spooled: what is left of the quota, or of the disk where that is less."""
        disk = os.statvfs(self.folder)
        return max(0, min(self.quota - self._used, disk.f_bavail * disk.f_frsize))

    def create(self, memory_bytes: int = 0) -> Entry:
        """A new, empty entry, which is kept in memory until it is larger than `memory_bytes`."""
        return Entry(self, next(self._numbers), memory_bytes)

    def close(self) -> None:
        """Remove all that is left."""
        self._clean()

    def take(self, size: int) -> None:
        """Book bytes on the quota; for Entry. Raises SpoolFullError."""
        with self._accounts:
            if self._used + size > self.quota:
                raise SpoolFullError(
                    f"the spool {self.folder} is full: {self._used} of {self.quota} bytes are in use and {size} more "
                    "were asked for; raise SPOOL_MAX_BYTES or send less at a time"
                )
            self._used += size

    def give(self, size: int) -> None:
        """Return bytes to the quota; for Entry."""
        with self._accounts:
            self._used -= size

    def take_memory(self, size: int) -> bool:
        """Book bytes of memory, and say whether there were any left; for Entry."""
        with self._accounts:
            fits = self._memory + size <= self._memory_quota
            if fits:
                self._memory += size
            return fits

    def give_memory(self, size: int) -> None:
        """Return bytes of memory; for Entry."""
        with self._accounts:
            self._memory -= size

    def _clean(self) -> None:
        for leftover in self.folder.glob(f"*{_SUFFIX}"):
            leftover.unlink()
