"""Original bytes, read back: what happens when clients leave, or come all at once."""

import asyncio
import itertools
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from processing.api import originals, raw
from shared import kafka
from shared.config import Settings
from shared.service import ProblemError
from shared.spool import Entry, Spool
from shared.topics import RAW_LOGS

BYTES = 3 * 1024 * 1024
SCOPE = {"type": "http", "method": "GET", "asgi": {"version": "3.0", "spec_version": "2.3"}}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 1 << 30)


@pytest.fixture
def payload(spool: Spool) -> Entry:
    entry = spool.create()
    entry.append(b"x" * BYTES)
    return entry


def test_a_payload_is_streamed_whole_and_then_released(spool: Spool, payload: Entry) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(originals.PayloadResponse(payload, "text/plain")(SCOPE, receive, send))
    assert b"".join(message.get("body", b"") for message in sent) == b"x" * BYTES
    assert (spool.used, list(spool.folder.iterdir())) == (0, [])


def test_a_payload_is_released_when_the_client_left_before_its_first_byte(spool: Spool, payload: Entry) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        await asyncio.Event().wait()

    asyncio.run(originals.PayloadResponse(payload, None)(SCOPE, gone, send))
    assert (spool.used, list(spool.folder.iterdir())) == (0, [])


def test_slow_answers_leave_threads_to_other_routes(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 clients while Kafka hangs, 4 wait, the others are told to come again, and another route answers."""
    kafka_answers = threading.Event()

    def hanging(_: kafka.Topics, names: list[str]) -> dict[str, str]:
        assert kafka_answers.wait(30)
        return dict.fromkeys(names, "ffffffff")

    monkeypatch.setattr(kafka.Topics, "ids", hanging)
    settings = Settings(_env_file=None, kafka_bootstrap="127.0.0.1:1")
    unreachable = originals.Originals(settings, RAW_LOGS, spool, originals.limit())
    app = FastAPI()
    app.include_router(raw.router(unreachable))

    @app.exception_handler(ProblemError)
    async def problem(_: object, error: ProblemError) -> Any:
        return error.response()

    @app.get("/other")
    def other() -> None: ...

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://raw") as client, asyncio.timeout(20):
            asked = [asyncio.create_task(client.get("/records/00000000-0-0-0/raw")) for _ in range(60)]
            try:
                for next_ready in itertools.islice(asyncio.as_completed(asked), 56):
                    refused = await next_ready
                    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
                assert (await client.get("/other")).status_code == 200
            finally:
                kafka_answers.set()
            return sorted(answer.status_code for answer in await asyncio.gather(*asked))

    assert asyncio.run(all_at_once()) == [410] * 4 + [503] * 56
