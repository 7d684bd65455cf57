"""Who this process is: an id kept in the service's own folder, under a lock that two processes cannot share."""

import fcntl
import os
import uuid
from pathlib import Path

from shared.errors import ConfigurationError


class Instance:
    """Holds the folder's lock while the process lives; `id` survives a restart, so a restart fences its own past."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigurationError when another live process holds the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise ConfigurationError(
                f"the folder {folder.resolve()} is in use by another process (pid {holder}); "
                "stop that one, or give this one a DATA_DIR of its own"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        self.id = self._identity(folder / "instance-id")

    @staticmethod
    def _identity(path: Path) -> str:
        if path.exists() and (known := path.read_text().strip()):
            return known
        new = uuid.uuid4().hex[:12]
        partial = path.with_suffix(".new")
        partial.write_text(new)
        partial.replace(path)
        return new
