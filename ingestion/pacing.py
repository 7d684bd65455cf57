"""When an entry of a stream is due: evenly, at a rate that may change. Pure: time is passed in."""

from typing import Final

ARREARS_S: Final = 2.0  # what is owed for longer (Kafka was away) is not made up for: no flood follows a pause


class Pace:
    """A token bucket: a token is an entry that may go. It is empty at first, so that a stream begins as it goes on."""

    def __init__(self, rate: float, now: float) -> None:
        """`rate` is in entries per second, `now` in seconds of any clock that only moves on."""
        self._rate = rate
        self._tokens = 0.0
        self._at = now

    def due(self, now: float) -> int:
        """How many entries may go now."""
        self._tokens = min(self._tokens + (now - self._at) * self._rate, max(1.0, self._rate * ARREARS_S))
        self._at = now
        return int(self._tokens + 1e-9)

    def spend(self, entries: int) -> None:
        """These have gone."""
        self._tokens -= entries

    def change(self, rate: float, now: float) -> None:
        """Go on at another rate; what was owed at the old one stays owed."""
        self.due(now)
        self._rate = rate

    def wait(self, now: float) -> float:
        """Seconds until the next entry is due."""
        return max(0.0, (1.0 - self._tokens) / self._rate - (now - self._at))
