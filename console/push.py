"""Parts pushed to ingestion, each until it is taken: however often that needs, it counts once."""

import random
import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from console.client import AGAIN, Client, check, told
from console.exits import RefusedError, UnfinishedError, UnreachableError
from console.parts import Kind, Part

_TYPES: Final = {
    Kind.JSON: "application/json",
    Kind.NDJSON: "application/x-ndjson",
    Kind.CSV: "text/csv",
}
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_ANSWER_S: Final = 60.0  # for an answer, and a second more for every MiB
_MIB: Final = 1024 * 1024


class Pusher:
    """Pushes the parts of one send, by their numbers."""

    def __init__(
        self, service: Client, name: str, source: str | None, patience_s: float, say: Callable[[str], None]
    ) -> None:
        """A part is tried for `patience_s`; `say` is told when it has to be tried again.

        `in_doubt` says of the part last pushed whether it may be in, whatever was answered at last.
        """
        self.in_doubt = False
        self._service = service
        self._name = name
        self._source = source
        self._patience_s = patience_s
        self._say = say

    def push(self, part: Part, number: int, kind: Kind) -> dict[str, Any]:
        """Ingestion's answer: run_id, accepted, bytes.

        The key has the send's name, so that the same file sent twice counts twice; the number, so that equal parts
        are two; and what was read up to its end, so that other bytes under the same name and number are not taken for
        sent. Raises RefusedError, and UnfinishedError when the patience is at its end.
        """
        key = f"{self._name}:{number}:{part.crc:08x}"
        headers = {
            "Content-Type": _TYPES[kind],
            "Content-Length": str(part.size),
            "Idempotency-Key": key,
        }
        until = time.monotonic() + self._patience_s
        pause, said = _FIRST_PAUSE_S, False
        self.in_doubt = False
        while True:
            asked_s = 0.0
            try:
                answer = self._service.request(
                    "POST", "/ingest", {"source": self._source}, part.content(), headers, self._answer_s(part, until)
                )
            except UnreachableError as error:
                self.in_doubt = True
                why = str(error)
            else:
                self.in_doubt = self.in_doubt or answer.status_code >= 500
                if answer.status_code not in AGAIN:
                    return _taken(answer)
                why, asked_s = told(answer), _retry_after_s(answer)
            wait_s = max(asked_s, pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, keeps no secret
            left_s = until - time.monotonic()
            if 0 < left_s < asked_s:
                raise UnfinishedError(
                    f"{why}; it asks to wait {asked_s:g} s, longer than is left of {self._patience_s:g} s (--timeout)"
                )
            if left_s < wait_s:
                raise UnfinishedError(f"given up after {self._patience_s:g} s (--timeout): {why}")
            if not said:
                self._say(f"{why}; trying again for up to {self._patience_s:g} s")
                said = True
            time.sleep(wait_s)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _answer_s(self, part: Part, until: float) -> float:
        return max(1.0, min(_ANSWER_S + part.size / _MIB, until - time.monotonic()))


def _taken(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code == 422:  # not the command was wrong, but what it sent
        raise RefusedError(told(answer), 422)
    check(answer)
    try:
        found: dict[str, Any] = answer.json()
        return {"run_id": str(found["run_id"]), "accepted": int(found["accepted"]), "bytes": int(found["bytes"])}
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{answer.url} is no ingestion: it answered {answer.text[:100]!r}") from error


def _retry_after_s(answer: httpx.Response) -> float:
    """What it asks for in seconds; a date, which none of our services sends, asks for nothing."""
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0
