"""Pushes of declared sources, from outside: tokens over every protocol, limits, keys."""

import hashlib
import uuid
from collections.abc import Iterator

import httpx
import pytest

from native.kafka import Broker
from shared.topics import H_PUSH, H_SOURCE, RAW_LOGS
from tests.integration.declaring import Ingestion
from tests.integration.stage_thread import messages_in

pytestmark = pytest.mark.kafka


def hashed(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


SOURCES = f"""\
sources:
  shop:
    kind: http
    tokens: ["{hashed("shop-token")}"]
  slow:
    kind: http
    tokens: ["{hashed("slow-token")}"]
    requests_per_second: 0.5
  spread:
    kind: http
    open: true
    key: round-robin
"""
ENTRY = b'{"api":"Checkout","status":"ok"}'


@pytest.fixture(scope="module")
def ingestion(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingestion]:
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    with Ingestion(broker, tmp_path_factory.mktemp("tokens"), prefix, SOURCES) as running:
        yield running


def send(ingestion: Ingestion, path: str, body: bytes, kind: str, token: str | None = None) -> httpx.Response:
    headers = {"content-type": kind} | ({"authorization": f"Bearer {token}"} if token else {})
    return ingestion.client.post(ingestion.urls["ingestion"] + path, content=body, headers=headers)


PROTOCOLS = [
    ("/ingest", ENTRY, "application/json"),
    (
        "/v1/logs",
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}',
        "application/json",
    ),
    ("/loki/api/v1/push", b'{"streams":[{"stream":{"app":"x"},"values":[["1","line"]]}]}', "application/json"),
    ("/_bulk", b'{"index":{"_index":"x"}}\n{"a":1}\n', "application/x-ndjson"),
]


@pytest.mark.parametrize(("path", "body", "kind"), PROTOCOLS, ids=[path for path, _, _ in PROTOCOLS])
def test_each_protocol_needs_a_token_which_tells_the_source(
    ingestion: Ingestion, path: str, body: bytes, kind: str
) -> None:
    for token in (None, "another"):
        refused = send(ingestion, path, body, kind, token)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
    before = len(ingestion.entries("shop"))
    assert send(ingestion, path, body, kind, "shop-token").status_code in {200, 204}
    assert len(ingestion.entries("shop")) == before + 1


def test_a_refusal_is_a_problem_and_is_counted(ingestion: Ingestion) -> None:
    before = ingestion.metric("ingestion", "sluice_tokens_refused_total") or 0
    refused = send(ingestion, "/ingest", ENTRY, "application/json")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["status"] == 401
    assert ingestion.metric("ingestion", "sluice_tokens_refused_total") == before + 1
    other = send(ingestion, "/ingest?source=spread", ENTRY, "application/json", "shop-token")
    assert other.status_code == 403


def test_a_source_has_a_limit_of_its_own(ingestion: Ingestion) -> None:
    answers = [send(ingestion, "/ingest", ENTRY, "application/json", "slow-token") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert int(answers[1].headers["retry-after"]) in {1, 2}
    assert send(ingestion, "/ingest", ENTRY, "application/json", "shop-token").status_code == 200
    assert ingestion.metric("ingestion", "sluice_declared_limited_total", source="slow") == 2
    assert ingestion.source("slow")["entries"] == 1


def test_no_stream_takes_the_name_of_a_declared_source(ingestion: Ingestion) -> None:
    for source in ("shop", "spread"):
        refused = ingestion.client.post(
            ingestion.urls["ingestion"] + "/ingest/streams", json={"file": "logs.json", "source": source}
        )
        assert refused.status_code == 403
        assert f"{source} is declared" in refused.json()["detail"]
    assert ingestion.get("ingestion", "/ingest/streams").json()["total"] == 0


def test_an_open_source_needs_no_token_and_may_use_all_partitions(ingestion: Ingestion) -> None:
    for _ in range(24):
        assert send(ingestion, "/ingest?source=spread", ENTRY, "application/json").status_code == 200
    used: dict[bytes | None, set[int]] = {b"spread": set(), b"shop": set()}
    for partition, _, _, headers in messages_in(ingestion.settings, RAW_LOGS):
        named = dict(headers)
        if H_PUSH not in named:  # Loki's have one, and are on the partition that knows retries
            used.setdefault(named.get(H_SOURCE), set()).add(partition)
    assert len(used[b"spread"]) == 3
    assert len(used[b"shop"]) == 1
