"""The records that travel the chain, frozen, each with its codec.

A field at its default is not written, so a line holds only what is known. `schema` is absent while it is 1.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

Scalar = str | int | float | bool | None

SUCCESS: Final = "success"
FAILURE: Final = "failure"


class Outcome(StrEnum):
    """How an operation ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


def status_of(outcome: str) -> str:
    """The status that dashboards and summaries show: SUCCESS, FAILED, else the outcome in capitals."""
    return "FAILED" if outcome == FAILURE else outcome.upper()


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One standardized entry; names and meaning follow the OpenTelemetry log data model. Base units only."""

    record_id: str  # "<topic id, 8 hex>-<partition>-<offset>-<index in frame>" of raw-logs
    timestamp: str  # RFC 3339, UTC, 0, 3, 6 or 9 digits of fraction: when it happened
    observed_timestamp: str  # likewise: when raw-logs took it
    service_name: str  # the source as it names itself
    event_name: str  # the operation
    outcome: str  # one of Outcome
    run_id: str | None = None
    origin: str | None = None  # the first record_id, when this is a replay
    severity_number: int = 9
    severity_text: str = "INFO"
    body: str | None = None
    duration_s: float | None = None  # seconds
    memory_bytes: int | None = None  # bytes
    rows: int | None = None  # rows, items or records that the entry says it handled
    transfer_bytes: int | None = None  # bytes that the entry says it moved
    trace_id: str | None = None  # 32 hex digits
    span_id: str | None = None  # 16 hex digits
    resource: dict[str, Scalar] = {}
    attributes: dict[str, Scalar] = {}
    truncated_fields: tuple[str, ...] = ()  # fields that were cut to fit; the original is behind record_id
    original_bytes: int | None = None  # size of the original entry, where it was cut or not parsed
    schema: int = 1


class Sample(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="sample"):
    """One reading of one metric of one GPU; names and units follow the OpenTelemetry hardware conventions."""

    record_id: str  # as in Record, like all that has the same name
    timestamp: str
    observed_timestamp: str
    hw_id: str  # the GPU's uuid; a MIG instance has its own
    metric: str  # OpenTelemetry's name
    source_metric: str  # the source's name, such as DCGM_FI_DEV_GPU_UTIL: with hw_id it is one series
    unit: str = ""  # UCUM, in base units; empty where it is not known
    value: float | None = None  # None where the source has none
    run_id: str | None = None
    origin: str | None = None
    host_name: str | None = None
    hw_model: str | None = None
    hw_parent: str | None = None  # the GPU that a MIG instance is a part of
    gpu_index: int | None = None  # on its host
    device: str | None = None
    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    attributes: dict[str, Scalar] = {}
    schema: int = 1


class Kind(StrEnum):
    """What a line of processed-metrics is; also the header `sluice-kind` of its frame."""

    RECORD = "record"
    SAMPLE = "sample"
    WINDOW = "window"
    ANOMALY = "anomaly"


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one ingest run put on raw-logs; written in the same transaction as its frames."""

    run_id: str
    source: str | None
    entries: int
    bytes: int
    time: str  # RFC 3339, UTC
    file: str | None = None


class Original(Protocol):
    """The message that an entry came in, as far as its dead letter shows it."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class DeadLetter(msgspec.Struct, frozen=True):
    """An entry that could not go on: its bytes untouched, and everything known about it.

    On the topic the value is the original bytes, and all else is headers: ours under `sluice-`, the original's
    under `orig.`, so that any Kafka tool shows the entry as it came.
    """

    value: bytes
    reason: str  # one of errors.Reason
    detail: str  # what was wrong and what to do
    stage: str
    topic: str
    partition: int
    offset: int
    index: int
    record_id: str
    time: str  # RFC 3339, UTC
    run_id: str | None = None
    origin: str | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @classmethod
    def of(
        cls,
        message: Original,
        record_id: str,
        *,
        stage: str,
        topic: str,
        reason: str,
        detail: str,
        value: bytes,
        run_id: str | None = None,
        origin: str | None = None,
    ) -> "DeadLetter":
        """The letter, as of now, of the entry with this record_id, which ends with its index in the message."""
        return cls(
            value=value,
            reason=reason,
            detail=detail,
            stage=stage,
            topic=topic,
            partition=message.partition,
            offset=message.offset,
            index=int(record_id.rpartition("-")[2]),
            record_id=record_id,
            time=timestamp_of(time.time_ns()),
            run_id=run_id,
            origin=origin,
            key=message.key,
            headers=tuple(message.headers),
        )

    def to_headers(self) -> list[tuple[str, bytes | None]]:
        ours: list[tuple[str, bytes | None]] = [
            (f"sluice-dead-{name}", str(value).encode(errors="replace"))
            for name in _DEAD_FIELDS
            if (value := getattr(self, name)) is not None
        ]
        if self.key is not None:
            ours.append((_DEAD_KEY, self.key))
        return ours + [(f"orig.{name}", value) for name, value in self.headers]

    @classmethod
    def from_headers(cls, headers: list[tuple[str, bytes | None]], value: bytes) -> "DeadLetter":
        """Read one back. Raises ValueError where the headers are not a dead letter's."""
        found: dict[str, Any] = {}
        original: list[tuple[str, bytes | None]] = []
        key: bytes | None = None
        for name, content in headers:
            if name == _DEAD_KEY:
                key = content
            elif name.startswith("sluice-dead-"):
                field = name.removeprefix("sluice-dead-")
                if field in _DEAD_FIELDS and content is not None:
                    text = content.decode(errors="replace")
                    found[field] = int(text) if field in _DEAD_INTEGERS else text
            elif name.startswith("orig."):
                original.append((name.removeprefix("orig."), content))
        missing = [name for name in _DEAD_FIELDS if name not in found and name not in {"run_id", "origin"}]
        if missing:
            raise ValueError(f"not a dead letter: no header sluice-dead-{missing[0]}")
        return cls(value=value, key=key, headers=tuple(original), **found)


def fitted(letter: DeadLetter) -> DeadLetter:
    """The letter with as much of its original key and headers as a broker takes beside its value; `detail` says so."""
    room = _ORIGINAL_MAX - len(letter.key or b"")
    kept = []
    for name, value in letter.headers:
        room -= len(name) + len(value or b"")
        if room < 0:
            break
        kept.append((name, value))
    if room >= 0:
        return letter
    detail = f"{letter.detail} (its key or headers were too large to keep; they are with the original)"
    key = letter.key if letter.key is not None and len(letter.key) <= _ORIGINAL_MAX else None
    return msgspec.structs.replace(letter, detail=detail, key=key, headers=tuple(kept))


_ORIGINAL_MAX = 64 * 1024
_DEAD_FIELDS = (
    "reason", "detail", "stage", "topic", "partition", "offset", "index", "record_id", "time", "run_id", "origin",
)  # fmt: skip
_DEAD_KEY = "sluice-dead-key"  # not orig.key: that is an original header named key
_DEAD_INTEGERS = {"partition", "offset", "index"}


def timestamp_of(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC, with the fewest of 0, 3, 6 or 9 digits that hold it exactly."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    if not fraction:
        return text + "Z"
    digits = f"{fraction:09d}"
    for width in (3, 6):
        if digits[width:] == "0" * (9 - width):
            return f"{text}.{digits[:width]}Z"
    return f"{text}.{digits}Z"
