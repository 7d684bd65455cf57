"""Loki's push, as Promtail, Alloy, Fluent Bit and logging handlers send it: JSON, or protobuf in snappy.

A line becomes one entry: its text is the body; the labels of its stream and its own metadata stand beside it.
https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cramjam
import msgspec
from fastapi import APIRouter, Request, Response
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError

from ingestion.intake import RUN_HEADER, Intake, KeyHeader, check_entries, told_by
from shared.config import Settings
from shared.service import ProblemError

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_OWN: Final = ("timestamp_unix_nano", "body")


class _Stream(msgspec.Struct):
    stream: dict[str, str]
    values: list[list[str | dict[str, str]]]  # time, line, and perhaps metadata


class _Push(msgspec.Struct):
    streams: list[_Stream]


def _field(name: str, number: int, kind: str, *, many: bool = False) -> descriptor_pb2.FieldDescriptorProto:
    own = descriptor_pb2.FieldDescriptorProto
    message = kind.startswith(".")
    return own(
        name=name,
        number=number,
        label=own.LABEL_REPEATED if many else own.LABEL_OPTIONAL,
        type=own.TYPE_MESSAGE if message else own.TYPE_STRING,
        type_name=kind if message else None,
    )


def _push_request() -> Any:
    """The message of Loki's push.proto, of which there is no package."""
    message = descriptor_pb2.DescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="sluice/loki_push.proto",
        package="logproto",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
        message_type=[
            message(name="PushRequest", field=[_field("streams", 1, ".logproto.StreamAdapter", many=True)]),
            message(
                name="StreamAdapter",
                field=[_field("labels", 1, "text"), _field("entries", 2, ".logproto.EntryAdapter", many=True)],
            ),
            message(
                name="EntryAdapter",
                field=[
                    _field("timestamp", 1, ".google.protobuf.Timestamp"),
                    _field("line", 2, "text"),
                    _field("structuredMetadata", 3, ".logproto.LabelPairAdapter", many=True),
                ],
            ),
            message(name="LabelPairAdapter", field=[_field("name", 1, "text"), _field("value", 2, "text")]),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("logproto.PushRequest"))


_PushRequest: Final = _push_request()


@dataclass(frozen=True)
class Lines:
    """The lines of a push, as entries."""

    entries: list[bytes]
    unique: bool = True  # to Loki a line of the same stream, time and text is the same line


def lines_of_json(body: bytes, entry_max: int) -> Lines:
    """Raises a 400 where the body is no push."""
    try:
        push = msgspec.json.decode(body, type=_Push)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, "Not a push", f"the JSON is none of Loki's: {error}") from error
    return _lines(
        (_entry_of_value(value, one.stream) for one in push.streams for value in one.values),
        entry_max,
    )


def lines_of_protobuf(body: bytes, entry_max: int, unpacked_max: int) -> Lines:
    """Likewise, of protobuf in snappy's block format."""
    try:
        size = cramjam.snappy.decompress_raw_len(body)
        if size > unpacked_max:
            raise ProblemError(413, "Body too large", f"{size} bytes unpacked; at most {unpacked_max} (PUSH_MAX_BYTES)")
        push = _PushRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))
    except (cramjam.DecompressionError, DecodeError) as error:
        raise ProblemError(400, "Not a push", f"neither snappy nor a PushRequest: {error}") from error
    return _lines(
        (
            _entry(
                line.timestamp.seconds * 1_000_000_000 + line.timestamp.nanos,
                line.line,
                labels | {pair.name: pair.value for pair in line.structuredMetadata},
            )
            for one in push.streams
            for labels in [labels_of(one.labels)]
            for line in one.entries
        ),
        entry_max,
    )


def _lines(found: Iterator[dict[str, Any]], entry_max: int) -> Lines:
    entries: list[bytes] = []
    size = 0
    for one in found:
        entries.append(msgspec.json.encode(one))
        size += len(entries[-1])
        check_entries(size)
    largest = max(map(len, entries), default=0)
    if largest > entry_max:
        raise ProblemError(400, "Line too long", f"{largest} bytes; at most {entry_max} are taken (ENTRY_MAX_BYTES)")
    return Lines(entries)


def _entry(nanoseconds: int, line: str, labels: dict[str, str]) -> dict[str, Any]:
    own = {"timestamp_unix_nano": nanoseconds, "body": line}
    return own | {f"labels.{key}" if key in _OWN else key: value for key, value in labels.items()}


def _entry_of_value(value: list[str | dict[str, str]], labels: dict[str, str]) -> dict[str, Any]:
    match value:
        case [str(nanoseconds), str(line)]:
            return _entry(_nanoseconds(nanoseconds), line, labels)
        case [str(nanoseconds), str(line), dict(metadata)]:
            return _entry(_nanoseconds(nanoseconds), line, labels | metadata)
    raise ProblemError(400, "Not a push", "a value is a list of its time and its line as text, and perhaps metadata")


def _nanoseconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ProblemError(400, "Not a push", f"timestamp {text[:40]!r} is no number of nanoseconds since 1970")
    return int(text)


_LABEL: Final = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_.]*)\s*=\s*("(?:[^"\\]|\\.)*")\s*(,|$)')


def labels_of(text: str) -> dict[str, str]:
    """The labels of a stream, from '{app="shop", level="info"}'. Raises a 400."""
    inner = text.strip()
    labels: dict[str, str] = {}
    if inner.startswith("{") and inner.endswith("}"):
        inner, at = inner[1:-1].strip(), 0
        while (found := _LABEL.match(inner, at)) is not None:
            labels[found[1]] = _unquoted(found[2])
            at = found.end()
            if at == len(inner):
                return labels
        if not inner:
            return labels
    raise ProblemError(400, "Not a push", f'the labels are {text[:100]!r}, not like {{app="shop", level="info"}}')


def _unquoted(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:  # an escape of Go's that JSON has not stays as it is
        return text[1:-1]


_LABELS_SCHEMA: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_PUSH_SCHEMA: Final = {
    "type": "object",
    "required": ["streams"],
    "properties": {
        "streams": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["stream", "values"],
                "properties": {
                    "stream": _LABELS_SCHEMA,
                    "values": {
                        "type": "array",
                        "items": {
                            "type": "array",
                            "description": "Nanoseconds since 1970, the line, and perhaps metadata.",
                            "prefixItems": [
                                {"type": "string", "pattern": "^[0-9]{1,19}$"},
                                {"type": "string"},
                                _LABELS_SCHEMA,
                            ],
                            "items": False,
                            "minItems": 2,
                        },
                    },
                },
            },
        }
    },
}


def router(settings: Settings, intake: Intake) -> APIRouter:
    routes = APIRouter(tags=["Loki"], route_class=told_by(_failure))

    @routes.post(
        "/loki/api/v1/push",
        status_code=204,
        response_class=Response,
        responses={code: {"description": "The problem, as text."} for code in (400, 401, 408, 413, 415, 422, 429, 503)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {_JSON: {"schema": _PUSH_SCHEMA}, _PROTOBUF: {"schema": {"type": "string"}}},
            }
        },
    )
    async def push_streams(
        request: Request,
        idempotency_key: KeyHeader = None,  # noqa: ARG001 - intake reads it
    ) -> Response:
        """Loki's push: all of it or nothing. Answers once Kafka has it."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in {_JSON, _PROTOBUF}:
            raise ProblemError(415, "Unsupported media type", f"Content-Type is {kind!r}; send {_JSON} or {_PROTOBUF}")

        def split(body: bytes) -> Lines:
            if kind == _JSON:
                return lines_of_json(body, settings.entry_max_bytes)
            return lines_of_protobuf(body, settings.entry_max_bytes, settings.push_max_bytes)

        _, receipt = await intake.take(request, split)
        return Response(status_code=204, headers={RUN_HEADER: receipt.run_id} if receipt else {})

    return routes


def _failure(_: Request, error: ProblemError) -> Response:
    return Response(f"{error.title}: {error.detail}\n", error.status, error.headers, "text/plain")
