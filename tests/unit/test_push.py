"""A part is pushed until it is taken, as patiently as it was told to be, and never where that can't help."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest

from console.client import Client
from console.exits import RefusedError, UnfinishedError
from console.parts import Input
from console.push import Pusher

TAKEN = {"run_id": "r1", "accepted": 1, "bytes": 3}


class Scripted(BaseHTTPRequestHandler):
    """Answers in this order, then that it took the push; a status of 0 hangs up."""

    answers: ClassVar[list[tuple[int, dict[str, str]]]]
    asked: ClassVar[list[tuple[dict[str, str], bytes]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((dict(self.headers), body))
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        if not status:
            return
        problem = {"title": "No", "detail": "not now"}
        content = json.dumps(TAKEN if status == 200 else problem).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def scripted(*answers: tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Its address, and what it will have been asked."""
    asked: list[tuple[dict[str, str], bytes]] = []
    own = type("Own", (Scripted,), {"answers": list(answers), "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), own) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def push(
    url: str, folder: Path, *, patience_s: float = 20.0, token: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The answer, and what was said meanwhile."""
    path = folder / "one.ndjson"
    path.write_bytes(b"{}\n")
    said: list[str] = []
    source = Input(str(path))
    parts = source.parts()
    try:
        with Client(url, as_json=False, token=token) as service:
            return Pusher(service, "n", "s", patience_s, said.append).push(next(parts), 7, source.kind), said
    finally:
        parts.close()  # type: ignore[attr-defined]  # it is a generator
        source.close()


def test_the_same_push_is_sent_until_it_is_taken(tmp_path: Path) -> None:
    with scripted((503, {}), (0, {}), (429, {}), (500, {})) as (url, asked):
        taken, said = push(url, tmp_path)
    assert taken == TAKEN
    assert len(asked) == 5
    assert len({(headers["Idempotency-Key"], headers["Content-Type"], body) for headers, body in asked}) == 1
    assert asked[0][1] == b"{}\n"
    assert said == ["No: not now; trying again for up to 20 s"], "said once"


def test_it_waits_for_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    with scripted((429, {"Retry-After": "1"})) as (url, asked):
        begun = time.monotonic()
        push(url, tmp_path)
        assert time.monotonic() - begun >= 1.0
    assert len(asked) == 2


def test_it_gives_up_when_its_patience_is_over_and_says_why(tmp_path: Path) -> None:
    with scripted(*[(503, {})] * 20) as (url, asked), pytest.raises(UnfinishedError, match=r"after 1 s.*not now"):
        push(url, tmp_path, patience_s=1.0)
    assert len(asked) > 1


def test_it_does_not_wait_where_it_is_asked_to_wait_for_longer_than_it_may(tmp_path: Path) -> None:
    begun = time.monotonic()
    with scripted((429, {"Retry-After": "3600"})) as (url, asked), pytest.raises(UnfinishedError) as ended:
        push(url, tmp_path, patience_s=30.0)
    assert time.monotonic() - begun < 15
    assert str(ended.value) == "No: not now; it asks to wait 3600 s, longer than is left of 30 s (--timeout)"
    assert len(asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422])
def test_a_refusal_is_final(tmp_path: Path, status: int) -> None:
    with scripted((status, {})) as (url, asked), pytest.raises(RefusedError, match="No: not now") as refused:
        push(url, tmp_path)
    assert refused.value.status == status
    assert len(asked) == 1


def test_the_token_is_a_bearer_token_and_one_that_can_be_none_is_not_sent(tmp_path: Path) -> None:
    with scripted() as (url, asked):
        push(url, tmp_path, token="abc.DEF-1")
        assert asked[0][0]["Authorization"] == "Bearer abc.DEF-1"
        for token in ("two words", "line\n", "ü"):
            with pytest.raises(click.UsageError, match="token"):
                push(url, tmp_path, token=token)
    assert len(asked) == 1


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "ftp://x", "http://", "nonsense"])
def test_what_is_no_address_is_said_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(click.UsageError, match="no address"):
        push(url, tmp_path)
