"""HTTP to a service, its problems told as errors, and answers printed as text or as JSON."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import click
import httpx

from console.exits import RefusedError, UnreachableError
from shared.config import Settings, load
from shared.errors import ConfigurationError

TIMEOUT_S = 600.0  # a replay of many letters takes a while
CONNECT_S = 5.0
AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})  # statuses that may be others the next time

_TOKEN: Final = re.compile(r"[!-~]+")


class Client:
    """One service's API. Raises RefusedError and UnreachableError."""

    def __init__(self, url: str, as_json: bool, token: str | None = None) -> None:
        self.as_json = as_json
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise click.UsageError(f"{url!r} is no address; give it as http://127.0.0.1:8001")
        if token is not None and not _TOKEN.fullmatch(token):
            raise click.UsageError("the token has characters that no token has; is it cut off, or quoted?")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_S), headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, method: str, path: str, query: Mapping[str, Any], content: bytes | None = None,
            content_type: str | None = None, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:  # fmt: skip
        """The JSON of an answer; what is None in the query is left out."""
        headers = {"Content-Type": content_type} if content_type else {}
        answer = self.request(method, path, query, content, headers, timeout_s)
        check(answer)
        found: dict[str, Any] = answer.json()
        return found

    def request(self, method: str, path: str, query: Mapping[str, Any], content: bytes | Iterable[bytes] | None,
                headers: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> httpx.Response:  # fmt: skip
        """An answer, whatever it is. Raises UnreachableError."""
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        with self._told():
            return self._http.request(
                method, path, params=_given(query), content=content, headers=headers, timeout=timeout
            )

    def stream(self, path: str) -> Iterator[bytes]:
        """The bytes of an answer, piece by piece."""
        with self._told(), self._http.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
            check(answer)
            yield from answer.iter_raw()

    def pages(self, path: str, name: str, query: Mapping[str, Any], limit: int) -> Iterator[dict[str, Any]]:
        """The items of a list, at most so many, however many pages they take."""
        cursor: str | None = None
        while limit > 0:
            page = self.ask("GET", path, {**query, "limit": min(limit, 1_000), "cursor": cursor})
            yield from page[name]
            limit -= len(page[name])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def show(self, answer: dict[str, Any], text: str) -> None:
        """Print an answer: itself where JSON is wanted, else this text of it.

        Raises OSError where that can't be written, as when its reader has gone; what follows is written nowhere.
        """
        try:
            click.echo(json.dumps(answer, ensure_ascii=False) if self.as_json else text)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
            raise OSError(error.errno, f"standard output can't be written: {error.strerror}") from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self._http.base_url} does not answer ({error}); is it running?") from error


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def check(answer: httpx.Response) -> None:
    """Raises what the answer says is wrong: a UsageError where a parameter is, else a RefusedError."""
    if not answer.is_error:
        return
    if answer.status_code == 422:
        raise click.UsageError(told(answer))
    raise RefusedError(told(answer), answer.status_code)


def told(answer: httpx.Response) -> str:
    """What an answer that is an error says."""
    try:
        problem = answer.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"


def processing(url: str | None, as_json: bool) -> Client:
    """Processing's API: at this address, else where the settings say. Raises UsageError for a bad one."""
    settings = _settings()
    return Client(url or settings.processing_url or f"http://127.0.0.1:{settings.processing_port}", as_json)


def ingestion(url: str | None, as_json: bool, token: str | None = None) -> Client:
    """Ingestion's, likewise."""
    settings = _settings()
    return Client(url or settings.ingestion_url or f"http://127.0.0.1:{settings.ingestion_port}", as_json, token)


def _settings() -> Settings:
    try:
        return load(Settings)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


INGESTION = click.option(
    "--ingestion", "url", metavar="URL",
    help="Where ingestion answers; else INGESTION_URL, else 127.0.0.1 and INGESTION_PORT.",
)  # fmt: skip
