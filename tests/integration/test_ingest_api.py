"""What ingestion refuses, and how it says so."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.integration.entries import plain
from tests.integration.stack import Stack, eventually

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


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "%2e%2e/secret", "no-such.json", ".", "a\0b", "a" * 300]
)
def test_a_file_outside_the_folder_or_absent_is_404(stack: Stack, name: str) -> None:
    problem(stack.get("ingestion", "/ingest/trigger", file=name), 404)


def test_an_unknown_run_is_404(stack: Stack) -> None:
    problem(stack.get("ingestion", "/ingest/runs/0123456789abcdef"), 404)
    problem(stack.get("ingestion", "/ingest/runs/..%2F..%2Fhealth"), 404)
    problem(stack.get("ingestion", "/ingest/runs/\u00e9"), 404)


def test_a_line_that_is_an_array_is_one_dead_letter_also_where_it_comes_first(stack: Stack) -> None:
    run_id = stack.push(b"[1,2]\n" + plain(0)).json()["run_id"]
    receipt = stack.receipt(run_id)
    assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (2, 1, 1)


@pytest.mark.parametrize("source", ["a\0b", "a\nb", "a\x7f", "\x85", "x" * 201])
def test_a_source_with_control_characters_or_too_long_is_422(stack: Stack, source: str) -> None:
    assert "source" in problem(stack.push(plain(0), source=source), 422)


def test_a_source_may_be_of_any_script(stack: Stack) -> None:
    source = "Zażółć 日本語 \N{GRINNING FACE}"
    run_id = stack.push(b'{"message":"of nobody"}', source=source).json()["run_id"]
    stack.receipt(run_id)
    assert stack.get("processing", f"/runs/{run_id}").json()["source"] == source
    assert stack.get("processing", "/analytics/recent", source=source).json()["total"] == 1


def test_of_two_bodies_with_one_key_the_first_counts(stack: Stack) -> None:
    first = stack.push(plain(1), key="same", source="keyed").json()
    stack.receipt(first["run_id"])
    second = stack.push(plain(2), key="same", source="keyed").json()
    assert second["run_id"] == first["run_id"]
    later = stack.push(plain(3), key="other", source="keyed").json()
    stack.receipt(later["run_id"])
    receipt = stack.receipt(first["run_id"])
    assert (receipt["accepted"], receipt["stored"]) == (1, 1)


@contextmanager
def connected(stack: Stack, service: str, request: str) -> Iterator[socket.socket]:
    """A client that sends what no HTTP library would."""
    url = urlsplit(stack.urls[service])
    with socket.create_connection((url.hostname, url.port), timeout=30) as client:
        client.sendall(request.replace("\n", "\r\n").encode())
        yield client


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "9" * 5_000])
def test_a_content_length_that_is_no_number_is_the_clients_fault(stack: Stack, length: str) -> None:
    request = f"POST /ingest HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: {length}\n\n"
    with connected(stack, "ingestion", request) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 4")


def test_a_client_that_leaves_in_mid_body_is_no_error_of_ours(stack: Stack) -> None:
    def left() -> float:
        labels = {"method": "POST", "route": "/ingest", "status": "400"}
        return stack.metric("ingestion", "sluice_http_requests_total", **labels) or 0

    before = left()
    request = "POST /ingest HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 1000\n\n{"
    with connected(stack, "ingestion", request):
        eventually(lambda: (stack.metric("ingestion", "sluice_spool_bytes") or 0) > 0, 10, "the body has begun")
    eventually(lambda: left() > before, 10, "the request has ended")
    assert stack.metric("ingestion", "sluice_spool_bytes") == 0
    assert "Traceback" not in (stack.folder / "ingestion.log").read_text()


def test_an_entry_in_chunks_is_index_0_of_its_message_and_no_other(stack: Stack) -> None:
    large = b'{"source":"chunked","message":"' + b"y" * 3_000_000 + b'"}'
    stack.receipt(stack.push(large, kind="application/json").json()["run_id"])
    record_id = stack.get("processing", "/analytics/recent", source="chunked").json()["records"][0]["record_id"]
    assert stack.get("processing", f"/records/{record_id}/raw").content == large
    assert record_id.endswith("-0")
    problem(stack.get("processing", f"/records/{record_id[:-1]}7/raw"), 404)
    assert stack.metric("processing", "sluice_spool_bytes") == 0
