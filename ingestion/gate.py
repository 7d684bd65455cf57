"""The gate: who may push, as which source, and how fast. For the event loop's thread.

Without declared tokens everybody may, as any source. As soon as one source has tokens, every push needs one, and it
tells the source; but for sources that are declared open.
"""

import base64
import binascii
import hashlib
import hmac
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastapi import Request

from ingestion.declared import Declared, Http, Key
from ingestion.pacing import ARREARS_S, Pace
from shared import metrics
from shared.records import Receipt
from shared.service import ProblemError


class PushSource:
    """A declared source of kind http, and what it may still send now."""

    kind = "http"
    state = "running"

    def __init__(self, name: str, declared: Http, now: float) -> None:
        self.source = name
        self.declared = declared
        self.entries = 0  # of this process
        self.bytes = 0
        self._requests = _full(declared.requests_per_second, now)
        self._room = _full(declared.bytes_per_second, now)
        metrics.DECLARED_ENTRIES.labels(name)
        metrics.DECLARED_BYTES.labels(name)
        self._limited = metrics.DECLARED_LIMITED.labels(name)

    def faults(self) -> list[str]:
        return []

    def shown(self) -> dict[str, Any]:
        declared = self.declared
        return {
            "tokens": len(declared.tokens),
            "open": declared.open,
            "requests_per_second": declared.requests_per_second,
            "bytes_per_second": declared.bytes_per_second,
        }

    def admit(self, now: float) -> None:
        """Take a request. Raises a 429 with the seconds until there is room for one."""
        for pace, what in ((self._requests, "requests"), (self._room, "bytes")):
            if pace is not None and pace.due(now) < 1:
                self._limited.inc()
                raise ProblemError(
                    429,
                    "Too fast",
                    f"{self.source} has sent all {what} that it may for now ({what}_per_second)",
                    {"Retry-After": str(max(1, math.ceil(pace.wait(now))))},
                )
        if self._requests is not None:
            self._requests.spend(1)

    def received(self, size: int) -> None:
        """Take so many bytes: what is over the limit is waited for by the next requests."""
        if self._room is not None:
            self._room.spend(size)

    def taken(self, receipt: Receipt) -> None:
        """Count what Kafka has."""
        self.entries += receipt.entries
        self.bytes += receipt.bytes
        metrics.DECLARED_ENTRIES.labels(self.source).inc(receipt.entries)
        metrics.DECLARED_BYTES.labels(self.source).inc(receipt.bytes)


class Sender(NamedTuple):
    """Who pushes."""

    source: str | None
    host: str  # its address
    declared: PushSource | None

    @property
    def keyed_by(self) -> Key:
        return self.declared.declared.key if self.declared is not None else "source"

    def sent(self, size: int) -> None:
        """Book so many bytes that it has sent, on its limit if it has one."""
        if self.declared is not None:
            self.declared.received(size)


class Gate:
    """Tells who pushes, and refuses who may not."""

    def __init__(self, declared: Declared, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sources: Mapping[str, PushSource] = {
            name: PushSource(name, source, clock())
            for name, source in declared.sources.items()
            if isinstance(source, Http)
        }
        self._hashes = [
            (bytes.fromhex(token.removeprefix("sha256:")), source)
            for source in self.sources.values()
            for token in source.declared.tokens
        ]

    def admit(self, request: Request, named: str | None) -> Sender:
        """Who sends this request, which names this source or none.

        Raises a 401 without a token where one is needed, a 403 where it is another source's, a 429 over a limit.
        """
        host = request.client.host if request.client else ""
        source = self._source(request.headers.get("authorization"), named)
        if source is not None:
            source.admit(self._clock())
            return Sender(source.source, host, source)
        return Sender(named, host, None)

    def _source(self, authorization: str | None, named: str | None) -> PushSource | None:
        if not self._hashes:
            return self.sources.get(named) if named is not None else None
        if authorization is None:
            source = self.sources.get(named) if named is not None else None
            if source is not None and source.declared.open:
                return source
            raise _unauthorized("a push needs the token of its source: Authorization: Bearer TOKEN", "")
        source = self._of_token(authorization)
        if source is None:
            raise _unauthorized("no source has this token", ', error="invalid_token"')
        if named not in (None, source.source):
            raise ProblemError(
                403, "Another source", f"the token is that of {source.source}; leave out ?source= or name that"
            )
        return source

    def _of_token(self, authorization: str) -> PushSource | None:
        """The source whose token this is. All are compared, each in constant time."""
        token = _token(authorization)
        if not token:
            return None
        presented = hashlib.sha256(token).digest()
        found = None
        for known, source in self._hashes:
            if hmac.compare_digest(known, presented):
                found = source
        return found


def _token(authorization: str) -> bytes:
    """The token that a header carries: as Bearer's, as the password of Basic, which many shippers have, or ApiKey's."""
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return value.encode("latin-1", "replace") if scheme.lower() in {"bearer", "apikey"} else b""


def _unauthorized(detail: str, error: str) -> ProblemError:
    metrics.TOKENS_REFUSED.inc()
    return ProblemError(401, "Not authorized", detail, {"WWW-Authenticate": f'Bearer realm="sluice"{error}'})


def _full(rate: float | None, now: float) -> Pace | None:
    """A bucket that is full: two seconds' worth may come at once."""
    return None if rate is None else Pace(rate, now - ARREARS_S - 1 / rate)
