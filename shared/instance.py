"""Who this process is: an id kept in the service's own folder, under a lock that two processes cannot share."""

import fcntl
import os
import socket
import uuid
from pathlib import Path

from shared.errors import ConfigurationError


class Instance:
    """Holds a folder's lock while the process lives; `id` survives a restart, so a restart fences its own past."""

    def __init__(self, folder: Path, copies: int = 1) -> None:
        """Takes `folder`, or of `copies` folders (`folder`, `folder-2`, ...) the first that no live process holds.

        Raises ConfigurationError when there is none left.
        """
        folders = [folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, copies + 1))]
        for candidate in folders:
            lock = _locked(candidate)
            if lock is not None:
                break
        else:
            which = (
                f"the folder {folder.resolve()} is" if copies == 1 else f"all {copies} folders {folder.resolve()}* are"
            )
            raise ConfigurationError(
                f"{which} in use by another process (pid {_holder(folder)}); "
                "stop that one, or give this one a DATA_DIR of its own"
            )
        self.folder = candidate
        self._lock = lock
        os.ftruncate(self._lock, 0)
        # in a container every service is process 1 or so: the host says of which
        os.pwrite(self._lock, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
        self.id = self._identity(self.folder / "instance-id")

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    @staticmethod
    def _identity(path: Path) -> str:
        if path.exists() and (known := path.read_text().strip()):
            return known
        new = uuid.uuid4().hex[:12]
        partial = path.with_suffix(".new")
        partial.write_text(new)
        partial.replace(path)
        return new


def _locked(folder: Path) -> int | None:
    """The descriptor that holds the folder's lock; None where another live process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _holder(folder: Path) -> str:
    """Who holds the folder's lock, as it has written down."""
    return (folder / "lock").read_text(errors="replace").strip() or "unknown"
