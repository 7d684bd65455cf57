"""SHA-256 beside its caller: one thread computes it, a few pieces behind, while the caller fetches and writes."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

_BEHIND: Final = 3  # pieces that may wait: more would only hold more memory
_ASIDE: Final = 64 * 1024  # bytes from which handing over costs less than it saves


class Digest(Protocol):
    """What hashlib makes; its `update` lets other threads run for anything over 2 KiB."""

    def update(self, data: bytes, /) -> None: ...


class Hasher:
    """Updates digests in the order of the calls; for one thread. Its own thread starts with the first large piece."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hasher")
        self._waiting: deque[Future[Any]] = deque()

    def update(self, digest: Digest, data: bytes) -> None:
        """Add these bytes to a digest, soon: `settle` before it is read."""
        if len(data) < _ASIDE and not self._waiting:
            digest.update(data)
            return
        while len(self._waiting) >= _BEHIND:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(digest.update, data))

    def settle(self) -> None:
        """Wait until every digest has all that was given to it."""
        while self._waiting:
            self._waiting.popleft().result()
