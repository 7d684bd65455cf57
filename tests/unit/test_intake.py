"""Pushes as they come in, without a Kafka: what is booked on whom, and who waits for whom."""

import asyncio
import gzip
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ingestion import api
from ingestion.declared import Declared, Http
from ingestion.gate import Gate
from ingestion.ingest import Push, Shape
from ingestion.intake import Intake
from ingestion.sources import loki
from shared.config import Settings
from shared.records import Receipt
from shared.service import ProblemError
from shared.spool import Spool

LIMIT = 128 * 1024  # of a body
AUTHORIZATION = "Bearer t0ken"
LAB = Http(kind="http", tokens=["sha256:" + hashlib.sha256(b"t0ken").hexdigest()], bytes_per_second=1)


class Taking:
    """Takes every push at once, as Ingest does when Kafka has it."""

    def submit(self, push: Push) -> Future[Receipt]:
        done: Future[Receipt] = Future()
        done.set_result(Receipt(push.run_id, push.source, 1, push.body.size, "2026-01-05T22:14:15Z"))
        push.body.release()
        return done


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """The routes of pushes. The clock stands, so that what is over a limit stays over it."""
    (tmp_path / "logs.json").write_text("{}")
    settings = Settings(
        _env_file=None, data_dir=tmp_path, ingest_dir=tmp_path, body_max_bytes=LIMIT, push_max_bytes=LIMIT
    )
    ingest: Any = Taking()
    gate = Gate(Declared(sources={"lab": LAB}), lambda: 1_000.0)
    intake = Intake(settings, ingest, Spool(tmp_path / "spool", 1 << 30), gate, lambda: True)
    app = FastAPI()
    app.include_router(api.router(settings, intake))
    app.include_router(loki.router(settings, intake))

    async def told(_: Any, error: Any) -> Any:
        return error.response()

    app.add_exception_handler(ProblemError, told)
    return app


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": AUTHORIZATION, "content-type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://own", headers=headers) as client:
        yield client


async def too_large(client: httpx.AsyncClient, route: str) -> int:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (LIMIT // 2)

    return (await client.post(route, content=pieces())).status_code


async def too_large_unpacked(client: httpx.AsyncClient, route: str) -> int:
    packed = gzip.compress(bytes(2 * LIMIT))
    return (await client.post(route, content=packed, headers={"content-encoding": "gzip"})).status_code


async def packed_wrongly(client: httpx.AsyncClient, route: str) -> int:
    packed = gzip.compress(os.urandom(LIMIT // 2))[:-9]
    return (await client.post(route, content=packed, headers={"content-encoding": "gzip"})).status_code


async def cut_off(client: httpx.AsyncClient, route: str) -> int:
    """The client leaves within its body, which httpx can't."""
    messages = iter([{"type": "http.request", "body": b" " * 1000, "more_body": True}, {"type": "http.disconnect"}])
    answered: list[int] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    headers = [(b"authorization", AUTHORIZATION.encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": route, "raw_path": b"",
        "query_string": b"", "root_path": "", "headers": headers, "client": ("10.0.0.9", 1), "server": ("own", 80),
    }  # fmt: skip
    transport: Any = client._transport
    await transport.app(scope, receive, send)
    return answered[0]


@pytest.mark.parametrize("route", ["/ingest", "/loki/api/v1/push"])
@pytest.mark.parametrize(
    ("send", "status"), [(too_large, 413), (too_large_unpacked, 413), (packed_wrongly, 400), (cut_off, 400)]
)
def test_what_is_refused_or_cut_off_within_its_body_is_on_its_senders_limit_too(
    app: FastAPI, route: str, send: Callable[[httpx.AsyncClient, str], Any], status: int
) -> None:
    async def pushed() -> list[int]:
        async with client_of(app) as client:
            return [await send(client, route), (await client.post(route, content=b"{}")).status_code]

    assert asyncio.run(pushed()) == [status, 429]


def test_what_unpacks_to_nothing_is_a_body_too_large_in_the_end(app: FastAPI) -> None:
    member = gzip.compress(b"")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2 * LIMIT // len(member)):
            yield member

    async def pushed() -> int:
        async with client_of(app) as client:
            answer = await client.post("/ingest", content=endless(), headers={"content-encoding": "gzip"})
            return answer.status_code

    assert asyncio.run(pushed()) == 413


@pytest.mark.parametrize(("path", "looks"), [("/ingest", "shape_of"), ("/ingest/trigger", "shape_of_file")])
def test_while_the_first_character_of_one_is_looked_for_others_are_answered(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, path: str, looks: str
) -> None:
    looking, answered = threading.Event(), threading.Event()

    def look(*_: object, **__: object) -> Shape:
        looking.set()
        assert answered.wait(5), "another request is answered meanwhile"
        return Shape.VALUE

    monkeypatch.setattr(api, looks, look)

    async def asked() -> list[int]:
        async with client_of(app) as client:
            slow = asyncio.create_task(client.post(path, content=b"{}"))
            assert await asyncio.to_thread(looking.wait, 5)
            other = await client.get("/ingest/runs/no-run-id")
            answered.set()
            return [other.status_code, (await slow).status_code]

    assert asyncio.run(asked()) == [404, 200]
