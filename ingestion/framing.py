"""Where a syslog message ends in a TCP stream (RFC 6587): by its octets counted, or by a line's end. Pure."""

import re
from typing import Final

_COUNT: Final = re.compile(rb"([1-9]\d{0,8}) <")
_MAYBE_COUNT: Final = re.compile(rb"[1-9]\d{0,8} ?")
_LOOK: Final = 11  # bytes that tell which it is


class Framing:
    """Takes a stream as it comes and gives its messages. Each may be framed in its own way, as senders do it:

    `LENGTH SP MESSAGE` where a priority follows the length, else `MESSAGE LF`. One over `limit` bytes comes in pieces.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._left = 0  # bytes of a counted message that are still to come

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that end in these bytes, none of them empty, without what ends a line."""
        self._buffer += data
        found: list[bytes] = []
        at = 0
        while at < len(self._buffer):
            if not self._left:
                start = bytes(self._buffer[at : at + _LOOK])
                if counted := _COUNT.match(start):
                    self._left = int(counted[1])
                    at += counted.end() - 1
                    continue
                if len(start) < _LOOK and _MAYBE_COUNT.fullmatch(start):
                    break
            end, after = self._end(at)
            if after == at:
                break
            _add(found, bytes(self._buffer[at:end]))
            at = after
        del self._buffer[:at]
        return found

    def rest(self) -> list[bytes]:
        """What the stream ended within."""
        found: list[bytes] = []
        _add(found, bytes(self._buffer))
        self._buffer.clear()
        return found

    def _end(self, at: int) -> tuple[int, int]:
        """Where the message or the piece of it that begins at `at` ends, and what follows; `at`: it has no end yet."""
        there = len(self._buffer) - at
        if self._left:
            size = min(self._left, self._limit)
            if there < size:
                return at, at
            self._left -= size
            return at + size, at + size
        found = self._buffer.find(b"\n", at, at + self._limit + 1)
        if found >= 0:
            return found, found + 1
        return (at + self._limit, at + self._limit) if there > self._limit else (at, at)


def _add(found: list[bytes], message: bytes) -> None:
    message = message.rstrip(b"\r\n\0")
    if message.strip():
        found.append(message)
