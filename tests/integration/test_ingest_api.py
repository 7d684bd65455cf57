"""What ingestion refuses, and how it says so."""

import json

import pytest

from tests.integration.entries import plain
from tests.integration.stack import Stack

pytestmark = pytest.mark.kafka


def problem(answer: object, status: int) -> str:
    assert getattr(answer, "status_code", None) == status, getattr(answer, "text", "")
    assert answer.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    detail: str = answer.json()["detail"]  # type: ignore[attr-defined]
    return detail


def test_a_wrong_content_type_is_415_and_names_the_right_ones(stack: Stack) -> None:
    detail = problem(stack.push(b"a=b", kind="application/x-www-form-urlencoded"), 415)
    assert "application/json" in detail
    assert "application/x-ndjson" in detail


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "an entry is a JSON object"),
        (b"[", "does not end"),
        (b'[{"a":1},', "does not end"),
        (b'[{"a":1},,{"b":2}]', "missing"),
        (b'[{"a":1}] and more', "follows"),
        (b'{"a":1', "not one JSON object"),
        (b'{"a":1}{"b":2}', "not one JSON object"),
        (b"42", "object"),
        (b"[]", "no entry"),
    ],
)
def test_json_in_which_no_entries_can_be_told_apart_is_422_and_says_where(stack: Stack, body: bytes, says: str) -> None:
    assert says in problem(stack.push(body, kind="application/json"), 422)


def test_nothing_of_a_refused_body_is_ingested(stack: Stack) -> None:
    before = stack.get("ingestion", "/ingest/runs").json()["total"]
    body = (
        b"[" + b",".join(plain(number) for number in range(60_000)) + b', {"cut": '
    )  # over 8 MiB: frames are sent first
    problem(stack.push(body, kind="application/json"), 422)
    marker = stack.push(plain(0)).json()["run_id"]
    stack.receipt(marker)
    assert stack.get("ingestion", "/ingest/runs").json()["total"] == before + 1


def test_ndjson_without_an_entry_is_422(stack: Stack) -> None:
    problem(stack.push(b"\n\n  \n"), 422)


def test_a_pretty_array_is_taken_entry_by_entry_with_its_bytes(stack: Stack) -> None:
    entries = [json.loads(plain(number)) for number in range(3)]
    answer = stack.push(json.dumps(entries, indent=4).encode(), kind="application/json; charset=utf-8")
    assert answer.json()["accepted"] == 3
    stack.receipt(answer.json()["run_id"])
    record = stack.get("processing", "/analytics/recent", limit=1).json()["records"][0]
    raw = stack.get("processing", f"/records/{record['record_id']}/raw").content
    assert raw in json.dumps(entries, indent=4).encode()
    assert json.loads(raw)["number"] == record["attributes"]["number"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "%2e%2e/secret", "no-such.json", ".", "a\0b"])
def test_a_file_outside_the_folder_or_absent_is_404(stack: Stack, name: str) -> None:
    problem(stack.get("ingestion", "/ingest/trigger", file=name), 404)


def test_an_unknown_run_is_404(stack: Stack) -> None:
    problem(stack.get("ingestion", "/ingest/runs/0123456789abcdef"), 404)
    problem(stack.get("ingestion", "/ingest/runs/..%2F..%2Fhealth"), 404)
