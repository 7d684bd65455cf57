"""Push protocols under pressure: many connections, a Kafka that dies, bodies that do not come, bounds that are met."""

import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import elastic_transport
import elasticsearch
import logging_loki
import pytest
import requests
from elasticsearch import Elasticsearch, helpers
from logging_loki.emitter import LokiPushError
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from native.kafka import Broker, free_ports
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka

CONNECTIONS = 200
PUSHES = 4  # of each connection
Processes = list[subprocess.Popen[bytes]]
BATCH = 10  # entries of a push; of Loki's handler it is one
AT = 1_767_607_200_000_000_000


@pytest.fixture
def own_broker(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Processes]]:
    """A broker that the test may kill; the list holds its process."""
    port, controller_port = free_ports(2)
    broker = Broker(tmp_path_factory.mktemp("kafka"), kafka_libs, port, controller_port)
    process = broker.start()
    broker.wait_until_ready(process)
    holder = [process]
    yield broker, holder
    holder[0].terminate()
    holder[0].wait(30)


def until(done: Callable[[], bool]) -> None:
    """Do it again until it is done, as a shipper does."""
    deadline = time.monotonic() + 240
    while not done():
        assert time.monotonic() < deadline, "a push was never taken"
        time.sleep(0.3)


def otlp(url: str, number: int) -> Iterator[int]:
    """One connection's pushes; yields how many entries each had, once it is taken."""
    for push in range(PUSHES):
        memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(Resource({"service.name": "otlp"}), shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
        for entry in range(BATCH):
            provider.get_logger("t").emit(timestamp=AT + entry, body=f"{number} {push} {entry}")
        exporter = OTLPLogExporter(f"{url}/v1/logs", timeout=5)
        batch = memory.get_finished_logs()
        until(lambda: exporter.export(batch) is LogRecordExportResult.SUCCESS)  # noqa: B023 - called at once
        exporter.shutdown()  # type: ignore[no-untyped-call]
        yield BATCH


def loki(url: str, number: int) -> Iterator[int]:
    handler = logging_loki.LokiHandler(url=f"{url}/loki/api/v1/push", tags={"app": "loki"})

    def taken(payload: dict[str, object]) -> bool:
        try:
            handler.emitter._post_to_loki(payload)
        except (LokiPushError, requests.RequestException):
            handler.emitter.close()
            return False
        return True

    for push in range(PUSHES):
        record = logging.LogRecord("t", logging.INFO, "", 0, f"{number} {push}", None, None)
        # built once, as shippers do: the handler gives a line that it sends again another time, which is another line
        payload = handler.emitter.build_payload(record, record.getMessage())
        until(lambda: taken(payload))  # noqa: B023 - called at once
        yield 1
    handler.close()


def bulk(url: str, number: int) -> Iterator[int]:
    with Elasticsearch(url, request_timeout=5, max_retries=0) as client:

        def taken(documents: list[dict[str, object]]) -> bool:
            try:
                helpers.bulk(client, documents)
            except (elastic_transport.TransportError, elasticsearch.ApiError):
                return False
            return True

        for push in range(PUSHES):
            documents: list[dict[str, object]] = [
                {"_index": "bulk", "_id": f"{number}-{push}-{entry}", "message": "m"} for entry in range(BATCH)
            ]
            until(lambda: taken(documents))  # noqa: B023 - called at once
            yield BATCH


def stored(stack: Stack, source: str) -> int:
    return int(stack.get("processing", "/analytics/recent", source=source, limit=1).json()["total"])


def ended_runs(stack: Stack) -> list[dict[str, int]]:
    """All receipts, once nothing is in flight."""
    runs: list[dict[str, int]] = []
    cursor: dict[str, str] = {}
    while True:
        page = stack.get("ingestion", "/ingest/runs", limit=100, **cursor).json()
        runs += page["runs"]
        if not page["next_cursor"]:
            return runs if all(run["in_flight"] == 0 for run in runs) else []
        cursor = {"cursor": page["next_cursor"]}


def test_kafka_killed_under_200_connections_loses_and_doubles_nothing(
    own_broker: tuple[Broker, Processes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    broker, holder = own_broker
    protocols = (otlp, loki, bulk)
    accepted = dict.fromkeys((protocol.__name__ for protocol in protocols), 0)
    pushes = 0
    account = threading.Lock()

    with Stack(broker, tmp_path_factory.mktemp("pressure"), "") as stack:
        stack.supervise()
        pid = stack.processes["ingestion"].pid

        def client(number: int) -> None:
            nonlocal pushes
            protocol = protocols[number % len(protocols)]
            for entries in protocol(stack.urls["ingestion"], number):
                with account:
                    accepted[protocol.__name__] += entries
                    pushes += 1

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            clients = [pool.submit(client, number) for number in range(CONNECTIONS)]
            eventually(lambda: pushes > CONNECTIONS * PUSHES // 4, 60, "a quarter of the pushes is taken")
            holder[0].kill()
            holder[0].wait()
            taken = pushes
            assert taken < CONNECTIONS * PUSHES, "it was killed too late"
            holder[0] = process = broker.start()
            broker.wait_until_ready(process, 150)  # 200 clients ask on while it starts
            for one in clients:
                one.result(250)
        refused = sum(
            stack.metric("ingestion", "sluice_http_requests_total", route=route, status=status) or 0
            for route in ("/v1/logs", "/loki/api/v1/push", "/_bulk")
            for status in ("429", "503")
        )
        print(f"killed after {taken} of {pushes} pushes; {refused:.0f} were told to come again")  # noqa: T201
        assert refused

        for source, count in accepted.items():
            eventually(lambda source=source, count=count: stored(stack, source) >= count, 60, f"{source} is stored")  # type: ignore[misc]
        runs = eventually(lambda: ended_runs(stack), 60, "nothing is in flight")
        assert {source: stored(stack, source) for source in accepted} == accepted
        assert sum(run["accepted"] for run in runs) == sum(accepted.values())
        assert stack.processes["ingestion"].pid == pid, "ingestion stays up"


@pytest.fixture(scope="module")
def tight(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose bounds are easily reached."""
    bounds = {"PUSH_REQUESTS_MAX": "4", "PUSH_BYTES_MAX": "100000", "PUSH_MAX_BYTES": "80000", "BODY_SECONDS": "3"}
    folder = tmp_path_factory.mktemp("tight")
    with Stack(broker, folder, f"{folder.name}-", bounds) as stack:
        yield stack


def slow_body(stack: Stack, path: str, size: int, sent: bytes = b"") -> socket.socket:
    """A request whose body has not come to its end."""
    address = urlsplit(stack.urls["ingestion"])
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    connection.sendall(head.encode() + sent)
    return connection


def in_flight(stack: Stack, name: str) -> float:
    return stack.metric("ingestion", f"sluice_push_{name}_in_flight") or 0.0


@pytest.mark.parametrize("path", ["/ingest", "/v1/logs", "/loki/api/v1/push", "/logs/_bulk"])
def test_a_body_that_does_not_come_is_408_and_gives_its_place_back(tight: Stack, path: str) -> None:
    with slow_body(tight, path, 1000, b"{") as connection:
        begun = time.monotonic()
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begun > 2
    eventually(lambda: in_flight(tight, "requests") == 0, 5, "the place is free")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ingest", b'{"a":1}'),
        ("/v1/logs", b"{}"),
        ("/loki/api/v1/push", b'{"streams":[]}'),
        ("/logs/_bulk", b'{"index":{}}\n{"a":1}\n'),
    ],
)
def test_more_requests_than_there_are_places_are_429_until_one_is_free(tight: Stack, path: str, body: bytes) -> None:
    def push() -> int:
        headers = {"Content-Type": "application/json"}
        answer = tight.client.post(tight.urls["ingestion"] + path, content=body, headers=headers)
        assert answer.status_code < 400 or answer.headers["Retry-After"]
        return answer.status_code

    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(slow_body(tight, "/v1/logs", 1000))
        eventually(lambda: in_flight(tight, "requests") == 4, 5, "all places are taken")
        assert push() == 429
    eventually(lambda: push() < 300, 10, "a place is free")


def test_more_bytes_than_there_is_memory_for_are_429_and_none_is_kept(tight: Stack) -> None:
    body = json.dumps({"streams": [{"stream": {}, "values": [["1767607200000000000", "x" * 70_000]]}]}).encode()

    def push() -> int:
        headers = {"Content-Type": "application/json"}
        url = tight.urls["ingestion"] + "/loki/api/v1/push"
        return tight.client.post(url, content=body, headers=headers).status_code

    with slow_body(tight, "/v1/logs", 79_000, b" " * 70_000):
        eventually(lambda: in_flight(tight, "bytes") == 70_000, 5, "the memory is taken")
        assert push() == 429
    eventually(lambda: push() == 204, 10, "the memory is free")
    eventually(lambda: in_flight(tight, "bytes") == 0, 5, "none is kept")
