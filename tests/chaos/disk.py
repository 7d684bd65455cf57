"""A disk of its own for one folder, which can be full, or read-only as after an error of the device."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

BYTES: Final = 1024 * 1024 * 1024
_BLOCK: Final = 1024 * 1024


class Disk:
    """A file system in memory, mounted on the folder; where mounting is not allowed, `missing` says why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing = ""
        self._filling = folder / "filling"
        self._forbidden = folder.with_name(f"{folder.name}-forbidden")

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", str(self.folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if mounted.returncode:
            self.missing = f"no disk of its own can be mounted: {mounted.stderr.strip()}"
        return self

    def __exit__(self, *_: object) -> None:
        if not self.missing:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Take every byte that is left."""
        with self._filling.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * _BLOCK):
                pass
        assert os.statvfs(self.folder).f_bavail == 0

    def empty(self) -> None:
        self._filling.unlink(missing_ok=True)

    def forbid(self) -> None:
        """Refuse every write, but let files be read.

        The folder gets a copy of a mount that is read-only already: between a mount and its change to that, a file
        could be opened for writing, and the change be refused.
        """
        self._forbidden.mkdir(exist_ok=True)
        _mount("--bind", self.folder, self._forbidden)
        _mount("-o", "remount,bind,ro", self._forbidden)
        _mount("--bind", self._forbidden, self.folder)

    def allow(self) -> None:
        for folder in (self.folder, self._forbidden):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)
