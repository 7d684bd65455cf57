"""What no well-meant client sends, on raw sockets: each is answered as what it is, and the service goes on.

Traversal, bytes that are no text, numbers beyond all bounds, nesting, floods of headers, bodies that never come.
"""

import json
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final
from urllib.parse import urlsplit

import pytest

from native.kafka import Broker
from shared.description import PROBLEM_TYPE
from tests.integration.stack import SERVICES, Stack, eventually

pytestmark = pytest.mark.kafka

BODY_SECONDS: Final = 2
PATHS: Final = (
    b"/../../../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/..%2f..%2fetc%2fpasswd", b"/%ff%fe", b"/%00", b"/%",
    b"/%zz", b"//", b"/records/%ff", b"/records/..%2f..%2fraw", b"/ingest/runs/%00", b"/ingest/runs/..%2f..%2fpasswd",
    b"/api/v1/gpus/%ff%00/telemetry", b"/dead-letters/%c0%ae%c0%ae/raw", b"/" + b"a" * 8_000,
    b"/ingest/streams/" + b"%41" * 2_000,
)  # fmt: skip
QUERIES: Final = (
    b"limit=99999999999999999999999999999999", b"limit=-1", b"limit=1e400", b"limit=NaN", b"limit=%ff", b"limit=1%00",
    b"cursor=%ff%fe", b"cursor=WzEsIn", b"cursor=" + b"W1tbW1tb" * 500, b"from=9999-12-31T23:59:59Z", b"from=%00",
    b"from=0000-00-00T00:00:00Z", b"from=2026-01-01T00:00:00.99999999999999999999Z", b"source=%ed%a0%80", b"=",
    b"&&&=&", b"%ff=%ff", b"limit=1&limit=2", b"source=" + b"x" * 30_000,
)  # fmt: skip
LISTS: Final = {
    "processing": (
        b"/analytics/recent", b"/analytics/windows", b"/runs", b"/dead-letters", b"/api/v1/gpus", b"/alerts/history",
    ),
    "standardization": (b"/standardization/templates",),
    "ingestion": (b"/ingest/runs",),
}  # fmt: skip
FILES: Final = (
    b"../etc/passwd", b"/etc/passwd", b"..%2f..%2f..%2fetc%2fpasswd", b"%00", b"logs.json%00", b"%ff", b".", b"..",
    b"logs.json/..", b"a" * 1_000, b"/dev/zero", b"/proc/self/environ", b"....//etc/passwd",
)  # fmt: skip
BODIES: Final = {
    "bad UTF-8": b'{"source":"\xff\xfe"}',
    "deep": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "arrays": b"[" * 100_000,
    "huge number": b'{"n":' + b"9" * 100_000 + b"}",
    "exponent": b'{"n":1e999999999}',
    "NUL": b'{"a\x00":"\x00"}',
    "surrogate": b'{"a":"\\ud800"}',
    "nothing": b"",
    "space": b" \n\t",
    "half": b'{"a":"',
    "twice": b'{"a":1}{"a":2}',
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "noise": bytes(range(256)),
}


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("hostile")
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    with Stack(broker, folder, prefix, {"BODY_SECONDS": str(BODY_SECONDS)}) as running:
        yield running


def exchange(stack: Stack, service: str, request: bytes, *, seconds: float = 15.0) -> tuple[int, bytes, bytes]:
    """Send these bytes; status, head and body of what is answered until the other side closes, or the body is whole."""
    url = urlsplit(stack.urls[service])
    assert url.hostname is not None
    assert url.port is not None
    with closing(socket.create_connection((url.hostname, url.port), timeout=seconds)) as line:
        with suppress(BrokenPipeError, ConnectionResetError):  # where it has answered already, and hung up
            line.sendall(request)
        return answer_of(line)


def answer_of(line: socket.socket) -> tuple[int, bytes, bytes]:
    received = b""
    while True:
        head, ended, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)\r?$", head)
        if ended and length and len(body) >= int(length[1]):
            break
        try:
            piece = line.recv(65_536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            break
        received += piece
    assert received, "no answer at all"
    return int(received.split(b" ", 2)[1]), head, body


def get(stack: Stack, service: str, target: bytes) -> tuple[int, bytes, bytes]:
    return exchange(stack, service, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


def post(stack: Stack, service: str, target: bytes, body: bytes, kind: bytes) -> tuple[int, bytes, bytes]:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return exchange(stack, service, head % (target, kind, len(body)) + body)


def is_problem(head: bytes, body: bytes, status: int) -> bool:
    found = json.loads(body)
    return PROBLEM_TYPE.encode() in head.lower() and found["status"] == status and bool(found["detail"])


@pytest.fixture(autouse=True)
def _all_go_on(stack: Stack) -> Iterator[None]:
    before = {name: process.pid for name, process in stack.processes.items()}
    yield
    assert {name: process.pid for name, process in stack.processes.items() if process.poll() is None} == before
    for name in SERVICES:
        eventually(lambda name=name: stack.ready(name), 10, f"{name} is ready")  # type: ignore[misc]


@pytest.mark.parametrize("service", SERVICES)
def test_paths_lead_to_nothing(stack: Stack, service: str) -> None:
    for target in PATHS:
        status, head, body = get(stack, service, target)
        assert status in {400, 404, 405, 422}, (target[:60], status, body[:200])
        assert b"root:" not in body
        if status != 400:
            assert is_problem(head, body, status), (target[:60], head, body[:200])


def test_no_name_of_a_file_leads_out_of_the_ingest_folder(stack: Stack) -> None:
    for name in FILES:
        status, head, body = get(stack, "ingestion", b"/ingest/trigger?file=" + name)
        assert status in {404, 422}, (name, status, body)
        assert is_problem(head, body, status)
        spec = json.dumps({"file": name.decode()}).encode()
        status, head, body = post(stack, "ingestion", b"/ingest/streams", spec, b"application/json")
        assert status in {404, 422}, (name, status, body)


@pytest.mark.parametrize("service", LISTS)
def test_queries_beyond_all_bounds_are_refused_or_find_nothing(stack: Stack, service: str) -> None:
    for path in LISTS[service]:
        for query in QUERIES:
            status, head, body = get(stack, service, path + b"?" + query)
            assert status in {200, 422}, (path, query[:60], status, body[:300])
            assert status == 200 or is_problem(head, body, status)


@pytest.mark.parametrize("what", BODIES)
def test_bodies_are_taken_or_refused_and_what_is_taken_is_accounted_for(stack: Stack, what: str) -> None:
    body = BODIES[what]
    for kind in (b"application/json", b"application/x-ndjson", b"text/csv"):
        status, head, answer = post(stack, "ingestion", b"/ingest", body, kind)
        assert status in {200, 422}, (kind, status, answer)
        if status == 200:
            receipt = stack.receipt(json.loads(answer)["run_id"])
            assert receipt["accepted"] == receipt["stored"] + receipt["dead_lettered"] > 0
        else:
            assert is_problem(head, answer, status)
    for target, kinds in (
        (b"/v1/logs", (b"application/json", b"application/x-protobuf")),
        (b"/loki/api/v1/push", (b"application/json", b"application/x-protobuf")),
        (b"/_bulk", (b"application/x-ndjson",)),
        (b"/ingest/streams", (b"application/json",)),
    ):
        for kind in kinds:
            status, _, answer = post(stack, "ingestion", target, body, kind)
            assert status in {200, 204, 400, 413, 422}, (target, kind, status, answer)
    status, _, answer = post(stack, "processing", b"/alerts/webhook", body, b"application/json")
    assert status == 422, (status, answer)
    for kind in (b"application/json", b"text/plain", b"\xff\x01"):
        status, _, answer = post(stack, "standardization", b"/standardization/preview", body, kind)
        assert status in {200, 400, 422}, (status, answer)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_no_http_and_floods_of_headers_are_answered_or_hung_up_on(stack: Stack, service: str) -> None:
    many = b"".join(b"X%d: y\r\n" % number for number in range(20_000))
    floods = {
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
        "one long header": b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        "many headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n",
        "no end": b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
        "long target": b"GET /health?" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "two lengths": b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "no length": b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        "both": b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad chunks": b"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    }  # fmt: skip
    before = stack.resident_bytes(service)
    for what, request in floods.items():
        try:
            status, _, body = exchange(stack, service, request, seconds=5.0)
        except (TimeoutError, AssertionError):
            continue  # it waits for more, or has hung up: this connection is lost to none but its client
        assert status < 500, (what, status, body[:200])
    assert stack.resident_bytes(service) < before + 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("service", "target"), [("ingestion", b"/ingest"), ("ingestion", b"/v1/logs"), ("ingestion", b"/_bulk")]
)
def test_a_body_that_comes_too_slowly_is_given_up_on(stack: Stack, service: str, target: bytes) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
    begun = time.monotonic()
    status, _, body = exchange(stack, service, head % target, seconds=BODY_SECONDS + 15)
    assert status == 408, body
    assert time.monotonic() - begun > BODY_SECONDS * 0.9
