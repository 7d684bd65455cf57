"""The files that a declared path or pattern leads to."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

from shared.config import Settings


class Paths:
    """A path or a pattern: absolute as the operator wrote it, else under INGEST_DIR."""

    def __init__(self, settings: Settings, path: str, exclude: Sequence[str]) -> None:
        """`exclude` are patterns of names, or of paths where they have a `/`."""
        root = settings.ingest_dir.resolve()
        self.pattern = str(root / path)
        self._excluded = [each if "/" not in each else str(root / each) for each in exclude]
        fixed = self.pattern.partition("*")[0].partition("?")[0].partition("[")[0]
        self._folder = os.path.dirname(fixed)  # noqa: PTH120 - of a pattern

    def found(self, wrong: dict[str, str]) -> Iterator[tuple[str, os.stat_result]]:
        """The regular files that are there; `wrong` gets what is in the way of finding more, by path."""
        if not os.access(self._folder, os.R_OK | os.X_OK):
            wrong[self._folder] = "this folder is not there, or can't be read"
        for path in sorted(glob.glob(self.pattern, recursive=True), reverse=True):  # noqa: PTH207 - it is absolute
            if self._is_excluded(path):
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

    def _is_excluded(self, path: str) -> bool:
        name = os.path.basename(path)  # noqa: PTH119 - thousands a second
        return any(fnmatch(path if "/" in each else name, each) for each in self._excluded)
