"""POST /standardization/preview: an entry in, its record or the reason why there is none out."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.config import Settings
from shared.service import ProblemError
from standardization import preview
from standardization.mappings import read_mappings
from standardization.redaction import GROUPS, Redaction

ACTIVE = read_mappings({"a": "version: 1\nmappings: [{name: till, revision: 1, sources: till, fields: {rows: sold}}]"})
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


def post(body: bytes, content_type: str | None = None, query: str = "") -> httpx.Response:
    app = FastAPI()
    app.add_exception_handler(ProblemError, lambda _, error: error.response())
    app.include_router(preview.router(Settings(), Redaction(GROUPS), lambda: NOW, lambda: ACTIVE))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://in-process") as client:
            headers = {"Content-Type": content_type} if content_type else {}
            return await client.post("/standardization/preview" + query, content=body, headers=headers)

    return asyncio.run(ask())


def shown(*args: Any, **options: Any) -> Any:
    answer = post(*args, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_good_entry_is_shown_as_its_record() -> None:
    found = shown(b'{"status":"ok","took_ms":5,"user":"a@b.example"}', "application/json", "?source=shop")
    assert found["dead_letter"] is None
    assert found["record"] == {
        "record_id": preview.RECORD_ID, "timestamp": "2026-03-17T09:00:00Z",
        "observed_timestamp": "2026-03-17T09:00:00Z",
        "service_name": "shop", "event_name": "unknown", "outcome": "success", "duration_s": 0.005,
        "attributes": {"user": "[redacted:email]"},
    }  # fmt: skip


def test_a_bad_entry_is_shown_with_its_reason() -> None:
    found = shown(b'{"a":1,"a":2}', "application/json")
    assert found["record"] is None
    assert found["dead_letter"]["reason"] == "duplicate_key"
    assert "'a'" in found["dead_letter"]["detail"]


def test_text_is_shown_in_the_format_it_is_in() -> None:
    assert shown(b"<34>1 - host su - - - hello 7", "text/plain")["record"]["service_name"] == "su"
    assert shown(b"hello 7")["record"]["attributes"]["log_template"] == "hello <*>"


@pytest.mark.parametrize("body", [b'{"a":1}\n{"a":2}\n', b""])
def test_a_body_that_is_not_one_entry_is_refused(body: bytes) -> None:
    assert post(body, "application/x-ndjson").status_code == 422


def test_a_body_over_the_limit_is_refused() -> None:
    assert post(b"x" * (preview.MAX_BYTES + 1), "text/plain").status_code == 413


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", b"[" * 1_000, b"\0", b'"'])
def test_any_bytes_have_an_answer(body: bytes) -> None:
    for content_type in (None, "text/plain", "application/json", "text/csv; columns", ';;=";'):
        answer = post(body, content_type)
        assert answer.status_code in (200, 422)


def tried(**trial: Any) -> httpx.Response:
    return post(json.dumps(trial).encode(), preview.TRIAL)


def test_an_entry_is_read_by_the_active_mappings() -> None:
    record = shown(b'{"sold":3}', "application/json", "?source=till")["record"]
    assert (record["rows"], record["attributes"]) == (3, {"sluice.mapping": "till@1"})


def test_a_mapping_is_tried_in_place_of_the_active_ones() -> None:
    mapping = "version: 1\nmappings: [{name: new, revision: 7, sources: till, fields: {duration_s: sold}}]"
    entry = {"entry": '{"sold":3}', "content_type": "application/json", "source": "till"}
    answer = tried(**entry, mapping=mapping)
    assert answer.status_code == 200
    assert answer.json()["record"]["duration_s"] == 3
    assert answer.json()["record"]["attributes"] == {"sluice.mapping": "new@7"}
    assert tried(**entry).json()["record"]["attributes"] == {"sluice.mapping": "till@1"}
    assert (
        tried(entry='{"sold":"?"}', source="till", mapping=mapping)
        .json()["dead_letter"]["detail"]
        .startswith("mapping new@7: sold is '?'")
    )


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        ({"entry": "x", "mapping": "version: 1\nmappings:\n  - {name: a}"}, "mapping, line 3: mappings.0.revision"),
        ({"entry": "x", "mapping": "[" * 2_000}, "mapping, line 1: no YAML"),
        ({"entry": "x", "mapping": "#" * 32_769}, "mapping: String should have at most 32768 characters"),
        ({"entry": "x", "maping": ""}, "maping: "),
        ({"mapping": ""}, "entry: "),
        ({"entry": 5}, "entry: "),
    ],
)
def test_a_trial_that_is_none_is_refused_with_the_reason(trial: dict[str, Any], told: str) -> None:
    answer = tried(**trial)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"entry":"\\ud800"}'])
def test_any_bytes_of_a_trial_have_an_answer(body: bytes) -> None:
    assert post(body, preview.TRIAL).status_code in (200, 422)
