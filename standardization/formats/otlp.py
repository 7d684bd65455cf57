"""OTLP log records: an ExportLogsServiceRequest in OTLP's JSON that holds exactly one, so that no shape is invented.

Whoever receives a request of many splits it into requests of one, each with its resource and scope:
{"resourceLogs": [{"resource": {...}, "scopeLogs": [{"scope": {...}, "logRecords": [{...}]}]}]}
"""

from typing import Any, Final

import msgspec

from shared.errors import Reason
from standardization.refused import Refused


class _AnyValue(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None  # 64 bit are text in protobuf's JSON
    double_value: float | str | None = None
    array_value: Any = None
    kvlist_value: Any = None
    bytes_value: str | None = None


class _KeyValue(msgspec.Struct):
    key: str = ""
    value: _AnyValue | None = None


class _Resource(msgspec.Struct):
    attributes: list[_KeyValue] = []


class _Scope(msgspec.Struct):
    name: str = ""
    version: str = ""
    attributes: list[_KeyValue] = []


class _LogRecord(msgspec.Struct, rename="camel"):
    time_unix_nano: int | str = 0
    observed_time_unix_nano: int | str = 0
    severity_number: int | str = 0
    severity_text: str = ""
    body: _AnyValue | None = None
    attributes: list[_KeyValue] = []
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""
    flags: int = 0


class _ScopeLogs(msgspec.Struct, rename="camel"):
    log_records: list[_LogRecord] = []
    scope: _Scope = msgspec.field(default_factory=_Scope)


class _ResourceLogs(msgspec.Struct, rename="camel"):
    scope_logs: list[_ScopeLogs] = []
    resource: _Resource = msgspec.field(default_factory=_Resource)


class _Request(msgspec.Struct, rename="camel"):
    resource_logs: list[_ResourceLogs]


_decoder: Final = msgspec.json.Decoder(_Request)


def entry_of(line: bytes) -> dict[str, Any]:
    """The entry that a request of one log record is. Raises Refused."""
    try:
        request = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Reason.MALFORMED_JSON, f"no ExportLogsServiceRequest in JSON: {error}") from None
    found = [
        (resource_logs.resource, scope_logs.scope, record)
        for resource_logs in request.resource_logs
        for scope_logs in resource_logs.scope_logs
        for record in scope_logs.log_records
    ]
    if len(found) != 1:
        raise Refused(
            Reason.INVALID_FIELD, f"a request of {len(found)} log records; an entry is a request of exactly one"
        )
    resource, scope, record = found[0]
    ours = {
        "timestamp_unix_nano": _integer(record.time_unix_nano) or _integer(record.observed_time_unix_nano),
        "severity_number": record.severity_number if record.severity_number in range(1, 25) else None,
        "severity_text": record.severity_text,
        "body": None if record.body is None else _value(record.body),
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "event_name": record.event_name,
        "otel.scope.name": scope.name,
        "otel.scope.version": scope.version,
        "otel.trace_flags": record.flags,
    }
    entry = {name: value for name, value in ours.items() if value not in (None, "", 0)}
    entry["resource"] = dict(_pairs(resource.attributes))
    for key, value in (
        *_pairs(record.attributes),
        *((f"otel.scope.{key}", value) for key, value in _pairs(scope.attributes)),
    ):
        entry[f"attributes.{key}" if key in entry else key] = value
    return entry


def _pairs(attributes: list[_KeyValue]) -> list[tuple[str, Any]]:
    return [(one.key, _value(one.value)) for one in attributes if one.value is not None]


def _value(value: _AnyValue) -> Any:
    """A value as JSON has it; lists and maps stay OTLP's own JSON, as text."""
    for found in (value.string_value, value.bool_value, value.double_value, value.bytes_value):
        if found is not None:
            return found
    if value.int_value is not None:
        return _integer(value.int_value)
    inner = value.array_value if value.array_value is not None else value.kvlist_value
    return None if inner is None else msgspec.json.encode(inner).decode()


def _integer(value: int | str) -> int | str:
    """A whole number, also one that is written as text; other text stays."""
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isascii():
        return int(value) if value.removeprefix("-").isdigit() else value
    return value
