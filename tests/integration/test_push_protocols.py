"""Each push protocol by a real client of it: what it was told is accepted is stored, with its fields right."""

import gzip
import json
import logging
import time
from datetime import datetime
from typing import Any

import cramjam
import httpx
import logging_loki
import pytest
from elasticsearch import Elasticsearch, helpers
from google.protobuf.json_format import ParseDict
from google.rpc.status_pb2 import Status
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from ingestion.sources.otlp import records_of_json, records_of_protobuf
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka

AT = 1_767_607_200_123_456_789  # 2026-01-05T10:00:00.123456789Z


def records(stack: Stack, source: str, count: int) -> list[dict[str, Any]]:
    """The records of a source, the newest stored first, once there are so many; fails where there are more."""

    def look() -> list[dict[str, Any]] | None:
        found = stack.get("processing", "/analytics/recent", source=source, limit=1000).json()
        return found["records"] if found["total"] >= count else None

    found = eventually(look, 30, f"{count} records of {source}")
    assert len(found) == count
    return found


def post(stack: Stack, path: str, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return stack.client.post(stack.urls["ingestion"] + path, content=body, headers=named)


def dropped(stack: Stack) -> float:
    """Messages of pushes that were repeats."""
    return stack.metric("standardization", "sluice_push_attempts_dropped_total") or 0.0


def accepted(stack: Stack, answer: httpx.Response) -> tuple[int, int, int]:
    receipt = stack.receipt(answer.headers["Sluice-Run"])
    return receipt["accepted"], receipt["stored"], receipt["dead_lettered"]


# OTLP


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_what_the_opentelemetry_sdk_exports_is_stored_with_its_fields(stack: Stack, compression: Compression) -> None:
    service = f"otel-{compression.value}"
    provider = LoggerProvider(Resource({"service.name": service, "host.name": "web-1"}), shutdown_on_exit=False)
    exporter = OTLPLogExporter(stack.urls["ingestion"] + "/v1/logs", compression=compression, timeout=20)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("shop", "1.2").emit(
        timestamp=AT,
        severity_number=SeverityNumber.WARN2,
        severity_text="WARNING",
        body="stock is low",
        event_name="stock.low",
        attributes={"items": 3, "tags": ["a", "b"], "http.response.status_code": 200},
    )
    provider.shutdown()
    record = records(stack, service, 1)[0]
    assert record["timestamp"] == "2026-01-05T10:00:00.123456789Z"
    assert (record["body"], record["event_name"]) == ("stock is low", "stock.low")
    assert (record["severity_number"], record["severity_text"]) == (14, "WARNING")
    assert record["resource"]["host.name"] == "web-1"
    assert record["attributes"]["otel.scope.name"] == "shop"
    assert record["attributes"]["tags"] == '["a","b"]'


LOG_RECORD = {
    "timeUnixNano": str(AT),
    "severityNumber": 17,
    "severityText": "Error",
    "body": {"stringValue": "it broke\nhere"},
    "traceId": "5B8EFFF798038103D269B633813FC60C",
    "spanId": "eee19b7ec3c1b174",
    "attributes": [{"key": "retries", "value": {"intValue": "10"}}],
    "unheardOf": {"of": "the future"},
}


def export(service: str, *log_records: dict[str, Any]) -> bytes:
    named = [{"key": "service.name", "value": {"stringValue": service}}]
    return json.dumps(
        {"resourceLogs": [{"resource": {"attributes": named}, "scopeLogs": [{"logRecords": log_records}]}]}
    ).encode()


def test_otlp_in_json_keeps_its_ids_in_hex_and_passes_over_unknown_keys(stack: Stack) -> None:
    body = gzip.compress(export("otlp-json", LOG_RECORD))
    answer = post(stack, "/v1/logs", body, content_type="application/json", content_encoding="gzip")
    assert (answer.status_code, answer.json()) == (200, {})
    assert accepted(stack, answer) == (1, 1, 0)
    record = records(stack, "otlp-json", 1)[0]
    assert record["trace_id"] == "5b8efff798038103d269b633813fc60c"
    assert record["span_id"] == "eee19b7ec3c1b174"
    assert (record["body"], record["severity_number"]) == ("it broke\nhere", 17)
    assert record["attributes"]["retries"] == 10


def test_an_idempotency_key_makes_a_repeated_export_count_once(stack: Stack) -> None:
    before = dropped(stack)
    first, second = (
        post(stack, "/v1/logs", export("otlp-key", LOG_RECORD), content_type="application/json", idempotency_key="k")
        for _ in range(2)
    )
    assert first.headers["Sluice-Run"] == second.headers["Sluice-Run"]
    eventually(lambda: dropped(stack) == before + 1, 30, "the second attempt is dropped")
    records(stack, "otlp-key", 1)


def test_an_export_sent_again_after_an_answer_was_lost_counts_once(stack: Stack) -> None:
    before = dropped(stack)
    for _ in range(2):
        answer = post(stack, "/v1/logs", export("otlp-again", LOG_RECORD), content_type="application/json")
        accepted(stack, answer)
    timeless = {"body": {"stringValue": "no time: it may well have happened twice"}}
    for _ in range(2):
        answer = post(stack, "/v1/logs", export("otlp-timeless", timeless), content_type="application/json")
        accepted(stack, answer)
    records(stack, "otlp-timeless", 2)
    eventually(lambda: dropped(stack) == before + 1, 30, "the second attempt is dropped")
    records(stack, "otlp-again", 1)


def test_an_export_without_records_succeeds_and_has_no_run(stack: Stack) -> None:
    answer = post(stack, "/v1/logs", b"", content_type="application/x-protobuf")
    assert answer.status_code == 200
    assert ExportLogsServiceResponse.FromString(answer.content) == ExportLogsServiceResponse()
    assert "Sluice-Run" not in answer.headers


def test_what_is_no_otlp_is_told_as_a_status_in_the_encoding_of_the_request(stack: Stack) -> None:
    answer = post(stack, "/v1/logs", b"\xff\xff", content_type="application/x-protobuf")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/x-protobuf")
    assert "ExportLogsServiceRequest" in Status.FromString(answer.content).message
    for body in (
        b"{",
        b"[]",
        b"\xff",
        b'{"resourceLogs": 7}',
        b"[" * 5000,
        export("x", LOG_RECORD | {"traceId": "77"}),
    ):
        answer = post(stack, "/v1/logs", body, content_type="application/json")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json"), body[:80]
        assert answer.json()["code"] == 3
    assert post(stack, "/v1/logs", b"", content_type="text/plain").status_code == 415
    assert post(stack, "/v1/logs", b"", content_type="application/json", content_encoding="br").status_code == 415
    answer = post(stack, "/v1/logs", b"no gzip", content_type="application/json", content_encoding="gzip")
    assert answer.status_code == 400


def test_a_gzip_bomb_is_413_and_takes_no_memory(stack: Stack) -> None:
    bomb = gzip.compress(bytes(256 * 1024 * 1024))
    before = stack.resident_bytes("ingestion", peak=True)
    answer = post(stack, "/v1/logs", bomb, content_type="application/x-protobuf", content_encoding="gzip")
    assert answer.status_code == 413
    assert stack.resident_bytes("ingestion", peak=True) - before < 100 * 1024 * 1024


# Loki


def test_what_a_loki_handler_sends_is_stored_with_its_labels(stack: Stack) -> None:
    handler = logging_loki.LokiHandler(
        url=stack.urls["ingestion"] + "/loki/api/v1/push", tags={"app": "loki-handler", "pod": "p-1"}
    )
    logger = logging.Logger("loki-test")
    logger.addHandler(handler)
    logger.error("no more paper", extra={"tags": {"printer": "hp"}})
    handler.close()
    record = records(stack, "loki-handler", 1)[0]
    assert "no more paper" in record["body"]
    assert record["severity_number"] == 17
    assert record["resource"]["k8s.pod.name"] == "p-1"
    assert record["attributes"]["printer"] == "hp"
    assert abs(datetime.fromisoformat(record["timestamp"][:19] + "+00:00").timestamp() - time.time()) < 600


def field(number: int, value: bytes | int) -> bytes:
    """One field of protobuf's wire format, so that the test does not read with the code that it tests."""

    def varint(rest: int) -> bytes:
        out = b""
        while rest > 127:
            out += bytes([rest & 127 | 128])
            rest >>= 7
        return out + bytes([rest])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def test_loki_in_protobuf_and_snappy_is_stored_likewise(stack: Stack) -> None:
    seconds, nanos = divmod(AT, 1_000_000_000)
    metadata = field(1, b"trace_id") + field(2, b"5b8efff798038103d269b633813fc60c")
    entry = field(1, field(1, seconds) + field(2, nanos)) + field(2, b"a line") + field(3, metadata)
    labels = b'{service_name="loki-proto", level="warn", quoted="a\\"b, c"}'
    push = field(1, field(1, labels) + field(2, entry) + field(2, entry) + field(3, 77))
    body = bytes(cramjam.snappy.compress_raw(push))
    answer = post(stack, "/loki/api/v1/push", body, content_type="application/x-protobuf")
    assert answer.status_code == 204, answer.text
    assert accepted(stack, answer) == (2, 2, 0)
    record = records(stack, "loki-proto", 2)[0]
    assert record["timestamp"] == "2026-01-05T10:00:00.123456789Z"
    assert (record["body"], record["severity_number"]) == ("a line", 13)
    assert record["trace_id"] == "5b8efff798038103d269b633813fc60c"
    assert record["attributes"]["quoted"] == 'a"b, c'


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"streams": [{"stream": {"a": "b"}, "values": [["x", "line"]]}]}',
        b'{"streams": [{"stream": {"a": "b"}, "values": [["1"]]}]}',
        b'{"streams": [{"stream": {"a": 1}, "values": []}]}',
    ],
)
def test_what_is_no_push_of_lokis_is_400_as_text(stack: Stack, body: bytes) -> None:
    answer = post(stack, "/loki/api/v1/push", body, content_type="application/json")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (400, "text/plain")
    answer = post(stack, "/loki/api/v1/push", body, content_type="application/x-protobuf")
    assert answer.status_code == 400


# Elasticsearch


def test_what_the_elasticsearch_client_bulks_is_stored_and_told_item_by_item(stack: Stack) -> None:
    with Elasticsearch(stack.urls["ingestion"], retry_on_timeout=False) as client:
        assert client.ping()
        assert client.info()["tagline"] == "You Know, for Search"
        documents: list[dict[str, Any]] = [
            {"_op_type": "create", "_index": "es-logs", "@timestamp": "2026-01-05T10:00:00.5Z", "message": "one",
             "log": {"level": "error"}, "trace": {"id": "5b8efff798038103d269b633813fc60c"}},
            {"_op_type": "index", "_index": "es-logs", "_id": "a", "message": "two", "service": {"name": "es-shop"}},
            {"_op_type": "delete", "_index": "es-logs", "_id": "a"},
            {"_op_type": "update", "_index": "es-logs", "_id": "a", "doc": {"message": "three"}},
            {"_op_type": "index", "_index": "es-logs"},
        ]  # fmt: skip
        done, failed = helpers.bulk(client, documents, raise_on_error=False)
    assert done == 3
    assert isinstance(failed, list)
    assert [next(iter(item)) for item in failed] == ["delete", "update"]
    assert all(item["status"] == 400 for one in failed for item in one.values())
    named = records(stack, "es-logs", 2)
    record = next(one for one in named if one["body"] == "one")
    assert record["timestamp"] == "2026-01-05T10:00:00.500Z"
    assert (record["severity_number"], record["trace_id"]) == (17, "5b8efff798038103d269b633813fc60c")
    assert records(stack, "es-shop", 1)[0]["attributes"]["elasticsearch.id"] == "a"


def test_a_document_that_is_no_object_is_refused_alone(stack: Stack) -> None:
    body = b'{"index":{}}\n{"message":"good"}\n{"index":{"_id":7}}\n[1]\n{"create":{}}\n{"cut\n'
    answer = post(stack, "/es-items/_bulk", body, content_type="application/x-ndjson")
    items = [next(iter(item.values())) for item in answer.json()["items"]]
    assert answer.json()["errors"] is True
    assert [item["status"] for item in items] == [201, 400, 400]
    assert [item["_id"] for item in items][1] == "7"
    assert accepted(stack, answer) == (1, 1, 0)


@pytest.mark.parametrize(
    "body", [b"", b"\n", b'{"index":{}}\n{"a":1}\n', b'{"explode":{"_index":"i"}}\n{}\n', b"nonsense\n"]
)
def test_a_bulk_without_structure_is_400_in_elasticsearchs_form(stack: Stack, body: bytes) -> None:
    answer = post(stack, "/_bulk", body, content_type="application/x-ndjson")
    assert answer.status_code == 400
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert answer.json()["error"]["type"] == "illegal_argument_exception"


def test_an_otlp_request_is_the_same_in_protobuf_and_in_json() -> None:
    known = {key: value for key, value in LOG_RECORD.items() if key not in {"traceId", "spanId", "unheardOf"}}
    body = export("same", known, known | {"body": {"doubleValue": "NaN"}})
    in_protobuf = ParseDict(json.loads(body), ExportLogsServiceRequest()).SerializeToString()
    assert records_of_json(body, 10_000) == records_of_protobuf(in_protobuf, 10_000)
    partial = records_of_json(export("p", known, known | {"body": {"stringValue": "x" * 5_000}}), 2_000)
    assert (len(partial.entries), partial.rejected) == (1, 1)
    assert partial.response().partial_success.rejected_log_records == 1
    assert "ENTRY_MAX_BYTES" in partial.response().partial_success.error_message
