"""The files that a declared path or pattern leads to.

A path that is no UTF-8 is none that can be kept or shown: it is told and passed over.
"""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from shared.config import Settings


class Paths:
    """A path or a pattern: absolute as the operator wrote it, else under INGEST_DIR."""

    def __init__(self, settings: Settings, path: str, exclude: Sequence[str]) -> None:
        """`exclude` are patterns of names, or of paths where they have a `/`."""
        root = settings.ingest_dir.resolve()
        self.pattern = str(root / path)
        literal = Path(glob.escape(str(root)))
        self._searched = str(literal / path)
        self._inside = None if path.startswith("/") else root
        self._excluded = [each if "/" not in each else str(literal / each) for each in exclude]
        fixed = path.partition("*")[0].partition("?")[0].partition("[")[0]
        self._is_fixed = fixed == path
        self.folder = os.path.dirname(os.path.join(root, fixed))  # noqa: PTH118, PTH120 - it may end in a slash

    def found(self, wrong: dict[str, str]) -> Iterator[tuple[str, os.stat_result]]:
        """The regular files that are there; `wrong` gets what is in the way of finding more, by path."""
        if not os.access(self.folder, os.R_OK | os.X_OK):
            wrong[self.folder] = "this folder is not there, or can't be read"
        elif self._is_fixed and not os.path.lexists(self.pattern):
            wrong[self.pattern] = "there is no such file"
        paths = sorted(glob.glob(self._searched, recursive=True), reverse=True)  # noqa: PTH207 - it is absolute
        for path in paths:
            if self._is_excluded(path):
                continue
            if not is_text(path):
                wrong[shown(path)] = "its name is not UTF-8; rename it, or exclude it"
                continue
            try:
                status = os.stat(path)  # noqa: PTH116 - thousands a second
            except FileNotFoundError:  # it was renamed just now
                continue
            except OSError as error:
                wrong[path] = f"can't be looked at: {error.strerror}"
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, status

    def leads_out(self, path: str) -> bool:
        """Whether a path under INGEST_DIR leads out of it, by links; absolute patterns may lead anywhere."""
        return self._inside is not None and not Path(path).resolve().is_relative_to(self._inside)

    def _is_excluded(self, path: str) -> bool:
        name = os.path.basename(path)  # noqa: PTH119 - thousands a second
        return any(fnmatch(path if "/" in each else name, each) for each in self._excluded)


def is_text(path: str) -> bool:
    """Whether it is UTF-8, as what is kept and shown has to be."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(path: str) -> str:
    """A path for messages: bytes that are no UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
