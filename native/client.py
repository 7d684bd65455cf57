"""The running stack as the launcher and the system tests ask it: triggers, receipts, the summary."""

import time
from typing import Any, Self

import httpx

from native.settings import NativeSettings
from shared.errors import SluiceError

Json = dict[str, Any]


class StackError(SluiceError):
    """A service did not answer, or answered with an error; the message holds what it said."""


class Client:
    """HTTP to the services of one run; closed at the end of a `with`."""

    def __init__(self, settings: NativeSettings) -> None:
        self._settings = settings
        self._http = httpx.Client(timeout=30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, service: str, path: str, **parameters: str | int) -> Json:
        """GET a JSON object. Raises StackError."""
        return self._ask("GET", service, path, parameters)

    def trigger(self, file: str | None = None) -> Json:
        """Have ingestion read logs.json, or another file of its folder; returns run_id, file, accepted and bytes."""
        return self._ask("POST", "ingestion", "/ingest/trigger", {"file": file} if file else {})

    def receipt(self, run_id: str) -> Json:
        return self.get("ingestion", f"/ingest/runs/{run_id}")

    def wait_until_drained(self, run_id: str, seconds: float = 120.0) -> Json:
        """The receipt of a run once nothing of it is in flight. Raises StackError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (receipt := self.receipt(run_id))["complete"]:
            if time.monotonic() > deadline:
                raise StackError(f"run {run_id} has not drained within {seconds:.0f} s: {receipt}")
            time.sleep(0.1)
        return receipt

    def summary(self) -> Json:
        return self.get("processing", "/analytics/summary")

    def rebuild(self, *, confirm: bool) -> Json:
        """Begin a rebuild of the store from the topics. Raises StackError, where records would be lost unless told."""
        return self._ask("POST", "processing", "/store/rebuild", {"confirm": "true"} if confirm else {})

    def back_up(self) -> Json:
        """Have processing save the store and the state topics; returns name, folder, records and more."""
        return self._ask("POST", "processing", "/store/backups", {}, seconds=None)

    def _ask(
        self, method: str, service: str, path: str, parameters: dict[str, Any], seconds: float | None = 30.0
    ) -> Json:
        url = self._settings.url(service) + path
        try:
            answer = self._http.request(method, url, params=parameters, timeout=seconds)
        except httpx.TransportError as error:
            raise StackError(f"{service} does not answer at {url}: {error}. Is it running? `make status`") from error
        if answer.is_error:
            raise StackError(f"{method} {url} answered {answer.status_code}: {answer.text[:1000]}")
        found: Json = answer.json()
        return found
