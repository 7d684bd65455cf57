"""GET /standardization/templates: what is known, paged."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.service import ProblemError
from standardization import api
from standardization.templates import TemplateMemory

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000


@pytest.fixture
def memory() -> TemplateMemory:
    made = TemplateMemory()
    for partition, number, at in ((0, 3, 2 * HOUR_MS), (1, 2, 3 * HOUR_MS)):
        for _ in range(number):
            made.see(partition, "disk 7 failed", NOW_MS - at)
    made.see(0, "fan 1 stopped", NOW_MS - 60_000)
    made.see(0, "fan 1 turned", NOW_MS - 2 * HOUR_MS)
    return made


def get(memory: TemplateMemory, query: str = "") -> Any:
    app = FastAPI()
    app.add_exception_handler(ProblemError, lambda _, error: error.response())
    app.include_router(api.router(memory, lambda: NOW))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://in-process") as client:
            return await client.get("/standardization/templates" + query)

    answer = asyncio.run(ask())
    return answer.json() if answer.status_code == 200 else answer.status_code


def test_equal_texts_of_several_partitions_are_one_template_with_all_counts(memory: TemplateMemory) -> None:
    found = get(memory)
    assert (found["total"], found["new_last_hour"], found["next_cursor"]) == (3, 1, None)
    first = found["templates"][0]
    assert first["template"] == "disk <*> failed"
    assert first["count"] == 5
    assert first["first_seen"] == "2026-03-17T06:00:00Z"
    assert first["last_seen"] == "2026-03-17T07:00:00Z"
    assert first["example"] == "disk 7 failed"
    assert first["new"] is False


def test_pages_give_every_template_once(memory: TemplateMemory) -> None:
    seen, cursor = [], ""
    while True:
        page = get(memory, f"?limit=1{cursor}")
        seen += [one["template"] for one in page["templates"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == ["disk <*> failed", "fan <*> stopped", "fan <*> turned"]
    assert seen[0] == "disk <*> failed", "the most frequent first"


def test_templates_are_selected_by_being_new_and_by_their_text(memory: TemplateMemory) -> None:
    assert [one["template"] for one in get(memory, "?new=true")["templates"]] == ["fan <*> stopped"]
    assert get(memory, "?new=false")["total"] == 2
    assert [one["template"] for one in get(memory, "?contains=DISK")["templates"]] == ["disk <*> failed"]


@pytest.mark.parametrize("query", ["?cursor=nonsense", "?limit=0", "?unknown=1"])
def test_a_query_that_is_none_is_refused(memory: TemplateMemory, query: str) -> None:
    assert get(memory, query) == 422
