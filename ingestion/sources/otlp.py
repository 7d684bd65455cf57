"""OTLP/HTTP logs, as OpenTelemetry's SDKs and Collector send them: POST /v1/logs, protobuf or JSON.

A log record becomes one entry; its resource goes into `resource`, its own attributes and its scope's stand beside it.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import base64
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from ingestion.intake import RUN_HEADER, Intake, KeyHeader, check_entries, told_by
from shared.config import Settings
from shared.service import ProblemError

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"

# google.rpc.Code of what an HTTP status says
_CODES: Final = {400: 3, 401: 16, 404: 5, 408: 4, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
_INTERNAL: Final = 13
_IDS: Final = {"traceId": 16, "trace_id": 16, "spanId": 8, "span_id": 8}


@dataclass(frozen=True)
class Records:
    """The log records of a request: entries, and how many are refused and why."""

    entries: list[bytes]
    unique: bool  # each has its time, to the nanosecond
    rejected: int = 0
    reason: str = ""

    def response(self) -> ExportLogsServiceResponse:
        answer = ExportLogsServiceResponse()
        if self.rejected:
            answer.partial_success.rejected_log_records = self.rejected
            answer.partial_success.error_message = self.reason
        return answer


def records_of_protobuf(body: bytes, entry_max: int) -> Records:
    """Raises a 400 where the body is no request."""
    try:
        return _records(ExportLogsServiceRequest.FromString(body), entry_max)
    except DecodeError as error:
        raise ProblemError(400, "Not OTLP", f"no ExportLogsServiceRequest in protobuf: {error}") from error


def records_of_json(body: bytes, entry_max: int) -> Records:
    """Likewise, of OTLP's own JSON: ids are in hex, and keys that nobody knows are passed over."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
        request = ParseDict(_ids_in_base64(found), ExportLogsServiceRequest(), ignore_unknown_fields=True)
    except (msgspec.DecodeError, ParseError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise ProblemError(400, "Not OTLP", f"no ExportLogsServiceRequest in JSON: {error}") from error
    return _records(request, entry_max)


def _ids_in_base64(found: Any) -> Any:
    """The request with its ids as protobuf's JSON has them. Raises ValueError where they are not OTLP's."""
    if isinstance(found, list):
        return [_ids_in_base64(one) for one in found]
    if not isinstance(found, dict):
        return found
    made = {}
    for key, value in found.items():
        if key in _IDS and isinstance(value, str):
            raw = bytes.fromhex(value)
            if raw and len(raw) != _IDS[key]:
                raise ValueError(f"{key} {value!r} has not {_IDS[key]} bytes in hex")
            made[key] = base64.b64encode(raw).decode()
        else:
            made[key] = _ids_in_base64(value)
    return made


def _records(request: ExportLogsServiceRequest, entry_max: int) -> Records:
    entries: list[bytes] = []
    unique = True
    rejected, reason = 0, ""
    size = 0
    for one in _entries(request):
        entry = msgspec.json.encode(one)
        size += len(entry)
        check_entries(size)
        if len(entry) > entry_max:
            rejected += 1
            reason = f"a log record of {len(entry)} bytes as JSON; at most {entry_max} are taken (ENTRY_MAX_BYTES)"
        else:
            entries.append(entry)
            unique = unique and "timestamp_unix_nano" in one
    return Records(entries, unique, rejected, reason)


def _entries(request: ExportLogsServiceRequest) -> Iterator[dict[str, Any]]:
    for resource_logs in request.resource_logs:
        resource = dict(_pairs(resource_logs.resource.attributes))
        for scope_logs in resource_logs.scope_logs:
            scope = _scope(scope_logs.scope)
            for record in scope_logs.log_records:
                yield _entry(record, resource, scope)


def _scope(scope: InstrumentationScope) -> dict[str, Any]:
    named = {"otel.scope.name": scope.name, "otel.scope.version": scope.version}
    own = {f"otel.scope.{key}": value for key, value in _pairs(scope.attributes)}
    return {key: value for key, value in (own | named).items() if value != ""}


def _entry(record: LogRecord, resource: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
    """What is not set is left out; an attribute that has a field's name keeps it under `attributes.`."""
    fields = {
        "timestamp_unix_nano": record.time_unix_nano or record.observed_time_unix_nano,
        "severity_number": record.severity_number if record.severity_number in range(1, 25) else 0,
        "severity_text": record.severity_text,
        "body": _value(record.body),
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
        "event_name": record.event_name,
        "otel.trace_flags": record.flags,
    }
    entry = {key: value for key, value in fields.items() if value not in (None, "", 0)} | scope
    entry["resource"] = resource
    for key, value in _pairs(record.attributes):
        entry[f"attributes.{key}" if key in entry else key] = value
    return entry


def _pairs(attributes: Iterable[KeyValue]) -> Iterator[tuple[str, Any]]:
    return ((one.key, _value(one.value)) for one in attributes)


def _value(value: AnyValue) -> Any:
    """A value as JSON has it: bytes in base64, and what JSON has no number for as text."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(one) for one in value.array_value.values]
        case "kvlist_value":
            return dict(_pairs(value.kvlist_value.values))
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value":
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case kind:
            return getattr(value, kind)


def router(settings: Settings, intake: Intake) -> APIRouter:
    routes = APIRouter(tags=["OTLP"], route_class=told_by(_failure))

    @routes.post(
        "/v1/logs",
        response_class=Response,
        responses={code: {"description": "A google.rpc.Status."} for code in (400, 401, 408, 413, 415, 422, 429, 503)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": {"type": "object"}}, PROTOBUF: {"schema": {"type": "string"}}},
            }
        },
    )
    async def export_logs(
        request: Request,
        idempotency_key: KeyHeader = None,  # noqa: ARG001 - intake reads it
    ) -> Response:
        """OTLP/HTTP: an ExportLogsServiceRequest. Answers once Kafka has it; what is refused of it is told."""
        kind = _kind(request)
        if kind not in {JSON, PROTOBUF}:
            raise ProblemError(415, "Unsupported media type", f"Content-Type is {kind!r}; send {PROTOBUF} or {JSON}")
        split = records_of_json if kind == JSON else records_of_protobuf
        found, receipt = await intake.take(request, lambda body: split(body, settings.entry_max_bytes))
        return _answer(request, found.response(), 200, {RUN_HEADER: receipt.run_id} if receipt else {})

    return routes


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _failure(request: Request, error: ProblemError) -> Response:
    status = Status(code=_CODES.get(error.status, _INTERNAL), message=f"{error.title}: {error.detail}")
    return _answer(request, status, error.status, error.headers)


def _answer(request: Request, message: Message, status: int, headers: dict[str, str]) -> Response:
    """In the encoding of the request, as the protocol has it."""
    if _kind(request) == JSON:
        return Response(MessageToJson(message, indent=None), status, headers, JSON)
    return Response(message.SerializeToString(), status, headers, PROTOBUF)
