"""A client that pushes numbered records for as long as it is let, and repeats each push until it is taken.

Every push has an Idempotency-Key, so that the repeats of a push count once, however often they were written.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from ingestion.ingest import run_id_of
from shared.topics import partition_of
from tests.integration.stack import eventually

RECORDS: Final = 200  # of a push
PAUSE_S: Final = 0.15  # between pushes
LARGE_EVERY: Final = 20  # pushes: then one holds a record that travels in chunks
LARGE_BYTES: Final = 1_500_000
OPERATIONS: Final = ("Invoices", "Contacts")
SOURCES: Final = 3  # of a phase
TAKEN_S: Final = 120.0
AGAIN: Final = {500, 503, 507}  # what a client repeats; any other refusal is a fault of this suite


@dataclass(frozen=True)
class Taken:
    """A push that was acknowledged, and the numbers of its records in their order."""

    run_id: str
    phase: str
    numbers: Sequence[int]


def source_of(phase: str, number: int) -> str:
    return f"{phase}-{number % SOURCES}"


def series_of(number: int) -> tuple[int, str]:
    """Which series of its phase a record belongs to."""
    return number % SOURCES, OPERATIONS[number // SOURCES % len(OPERATIONS)]


def entry(phase: str, number: int, size: int = 0) -> bytes:
    """A record as it is pushed: it tells its number, and is padded where it shall be large."""
    return json.dumps(
        {
            "source": source_of(phase, number),
            "api": series_of(number)[1],
            "status": "SUCCESS",
            "timestamp": "2026-01-05T10:00:00Z",
            "duration_seconds": 1 + number % 17 / 10,
            "message": "x" * size,
            "number": number,
        }
    ).encode()


class Client:
    """Pushes in a thread of its own; what was taken is told phase by phase."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(timeout=20.0, trust_env=False)
        self._phase = ""
        self._changing = threading.Lock()
        self._taken: dict[str, list[Taken]] = defaultdict(list)
        self._under_way = ""  # the phase of the push that is on its way
        self._number = 0
        self._pushes = 0
        self.repeated = 0
        self.refused = 0
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="client", daemon=True)

    def start(self, phase: str) -> None:
        self._phase = phase
        self._thread.start()

    def next_phase(self, phase: str) -> list[Taken]:
        """Go on with another phase; what was taken in the one before, once the last push of it is."""
        with self._changing:
            before, self._phase = self._phase, phase
        eventually(lambda: self._under_way != before or self._failed(), TAKEN_S, f"the last push of {before} is taken")
        return self._taken[before]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(TAKEN_S)
        self._http.close()
        self._failed()
        assert not self._thread.is_alive()

    def push(self, body: bytes, key: str) -> str:
        """Push until it is taken; returns the run's id."""

        def attempt() -> str | None:
            try:
                answer = self._http.post(
                    f"{self._url}/ingest",
                    content=body,
                    headers={"Content-Type": "application/x-ndjson", "Idempotency-Key": key},
                )
            except httpx.HTTPError:
                self.repeated += 1
                return None
            if answer.status_code == 200:
                return str(answer.json()["run_id"])
            assert answer.status_code in AGAIN, answer.text
            self.refused += 1
            return None

        return eventually(attempt, TAKEN_S, f"push {key} is taken")

    def _failed(self) -> bool:
        if self._failure is not None:
            raise self._failure
        return False

    def _guarded(self) -> None:
        try:
            while not self._stopping.wait(PAUSE_S):
                with self._changing:
                    phase = self._under_way = self._phase
                self._taken[phase].append(self._numbered(phase))
                self._under_way = ""
        except BaseException as error:  # noqa: BLE001 - told to whoever asks next
            self._failure = error

    def _numbered(self, phase: str) -> Taken:
        numbers = range(self._number, self._number + RECORDS)
        self._number += RECORDS
        self._pushes += 1
        large = numbers[0] if self._pushes % LARGE_EVERY == 0 else None
        body = b"\n".join(entry(phase, n, LARGE_BYTES if n == large else 50) for n in numbers)
        return Taken(self.push(body, f"push-{numbers[0]}"), phase, numbers)


def key_for(partition: int, partitions: int, name: str) -> str:
    """An Idempotency-Key whose push goes to this partition of raw-logs."""
    attempt = 0
    while True:
        key = f"{name}-{attempt}"
        if partition_of(run_id_of(None, key).encode(), partitions) == partition:
            return key
        attempt += 1


def api_for(source: str, partition: int, partitions: int) -> str:
    """An operation that, with this source, makes a series of this partition."""
    attempt = 0
    while partition_of(f"{source}/probe{attempt}".encode(), partitions) != partition:
        attempt += 1
    return f"probe{attempt}"
