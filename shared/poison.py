"""When too much is poison: the share of dead letters, over the last while, at which a stage stops. Pure."""

from collections import deque
from typing import Final

_PARTS: Final = 60  # a window is kept in so many parts


class PoisonLimit:
    """Entries and dead letters of the last `seconds`; the time is passed in, from any clock that only goes forward.

    A ratio of 0 never stops. Fewer than `least` dead letters never do: one broken entry on a quiet day is no flood.
    """

    def __init__(self, ratio: float, least: int, seconds: float) -> None:
        self._ratio = ratio
        self._least = least
        self._seconds = seconds
        self._parts: deque[tuple[float, int, int]] = deque()  # since when, entries, dead letters
        self._entries = self._dead = 0

    def add(self, entries: int, dead: int, now: float) -> None:
        """Count what a transaction committed."""
        self._expire(now)
        if self._parts and now - self._parts[-1][0] < self._seconds / _PARTS:
            since, before, dead_before = self._parts.pop()
            self._parts.append((since, before + entries, dead_before + dead))
        else:
            self._parts.append((now, entries, dead))
        self._entries += entries
        self._dead += dead

    def exceeded(self, entries: int, dead: int, now: float) -> str | None:
        """What would be too much if these were added, None when it would not be."""
        if not self._ratio or not dead:
            return None
        self._expire(now)
        dead += self._dead
        entries = max(entries + self._entries, dead)
        if dead < self._least or dead / entries < self._ratio:
            return None
        return f"{dead} of {entries} entries of the last {self._seconds:.0f} s would be dead letters"

    def _expire(self, now: float) -> None:
        while self._parts and now - self._parts[0][0] > self._seconds:
            _, entries, dead = self._parts.popleft()
            self._entries -= entries
            self._dead -= dead
