"""HTTP to a service, its problems told as errors, and answers printed as text or as JSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import click
import httpx

from shared.config import Settings, load
from shared.errors import ConfigurationError, SluiceError

TIMEOUT_S = 600.0  # a replay of many letters takes a while


class RefusedError(SluiceError):
    """The service answered that this can't be done."""


class UnreachableError(SluiceError):
    """The service did not answer."""


def default_url() -> str:
    """Where processing answers, by the settings. Raises UsageError for a bad one."""
    try:
        settings = load(Settings)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    return settings.processing_url or f"http://127.0.0.1:{settings.processing_port}"


class Client:
    """One service's API. Raises RefusedError and UnreachableError."""

    def __init__(self, url: str, as_json: bool) -> None:
        self.as_json = as_json
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(TIMEOUT_S, connect=5.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, method: str, path: str, query: Mapping[str, Any], content: bytes | None = None,
            content_type: str | None = None) -> dict[str, Any]:  # fmt: skip
        """The JSON of an answer; what is None in the query is left out."""
        headers = {"Content-Type": content_type} if content_type else {}
        with self._told():
            answer = self._http.request(method, path, params=_given(query), content=content, headers=headers)
        _check(answer)
        found: dict[str, Any] = answer.json()
        return found

    def stream(self, path: str) -> Iterator[bytes]:
        """The bytes of an answer, piece by piece."""
        with self._told(), self._http.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
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
        """Print an answer: itself where JSON is wanted, else this text of it."""
        click.echo(json.dumps(answer, ensure_ascii=False) if self.as_json else text)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self._http.base_url} does not answer ({error}); is it running?") from error


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        problem = answer.json()
        told = f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        told = f"{answer.status_code} {answer.text[:200]}"
    if answer.status_code == 422:
        raise click.UsageError(told)
    raise RefusedError(told)
