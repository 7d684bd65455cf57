"""A file of the ingest folder as a source: never a path outside it."""

import os
from pathlib import Path

from ingestion.entries import UnreadableSourceError
from shared.errors import SluiceError


class FileRefusedError(SluiceError):
    """The name is not that of a readable file under the ingest folder."""


class FileSource:
    """A file's bytes at any place. `release` it when its push is done."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not wait for its writer
        self.status = os.fstat(self._file)
        self.size = self.status.st_size  # what is written behind it later belongs to another run

    def read(self, start: int, length: int) -> bytes:
        wanted = min(length, max(0, self.size - start))
        try:
            data = os.pread(self._file, wanted, start)
        except OSError as error:
            raise UnreadableSourceError(f"the file can't be read at byte {start}: {error.strerror}") from error
        if len(data) < wanted:  # a regular file is read short at its end only
            raise UnreadableSourceError(
                f"the file ended at byte {start + len(data)} and had {self.size} bytes when it was opened; "
                "trigger it again when nothing cuts it any more"
            )
        return data

    def release(self) -> None:
        os.close(self._file)


def open_file(folder: Path, name: str) -> FileSource:
    """Open a file under `folder`, links resolved. Raises FileRefusedError that says what is wrong with the name."""
    root = folder.resolve()
    if not name or "\0" in name:
        raise FileRefusedError("give the name of a file under the ingest folder")
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise FileRefusedError(f"{name!r} leads outside the ingest folder; only files under it may be read")
        if not path.is_file():
            raise FileRefusedError(f"there is no file {name!r} in the ingest folder {root}")
        return FileSource(path)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a loop of links, no permission, no text
        raise FileRefusedError(f"{name!r} can't be read: {error}") from error
