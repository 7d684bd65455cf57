"""What a line must hold to become a row: the strict reading that names the lines which the engine can't take.

The hot path leaves reading to the engine, which stops at the first bad line and is lenient with others. Only when it
has stopped, every line of the batch is read here, so that the same ones are taken out whenever the batch is repeated.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from processing.store.schema import ANOMALIES, DEAD_LETTER_EVENTS, DEAD_LETTERS, RECORDS, RUNS, SAMPLES, WINDOWS
from processing.store.store import Rows
from shared.records import Record, Sample

_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# the engine's instants span 1900 to 2262; the day itself is checked by _instants
_Instant = Annotated[
    str, Meta(pattern=r"\A(19\d\d|20\d\d|21\d\d|22[0-5]\d|226[01])-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\Z")
]


class RecordLine(Record, frozen=True, omit_defaults=True):
    """A standardized record with its metrics."""

    timestamp: _Instant
    observed_timestamp: _Instant
    severity_number: Annotated[int, Meta(ge=0, le=255)] = 9
    memory_bytes: _Int64 | None = None
    rows: _Int64 | None = None
    transfer_bytes: _Int64 | None = None
    original_bytes: _Int64 | None = None
    efficiency: float | None = None
    rows_per_s: float | None = None
    bytes_per_s: float | None = None
    anomalies: tuple[str, ...] = ()
    schema: Annotated[int, Meta(ge=0, le=2**16 - 1)] = 1


class SampleLine(Sample, frozen=True, omit_defaults=True, tag_field="kind", tag="sample"):
    """A sample of GPU telemetry."""

    timestamp: _Instant
    observed_timestamp: _Instant
    gpu_index: _Int32 | None = None
    schema: Annotated[int, Meta(ge=0, le=2**16 - 1)] = 1


class WindowLine(msgspec.Struct):
    """What one batch adds to a series' minute."""

    minute: _Instant
    service_name: str
    event_name: str
    total: _Count
    success: _Count
    failure: _Count
    other: _Count
    duration_count: _Count
    duration_sum: float
    duration_min: float | None
    duration_max: float | None
    duration_keys: list[_Int32]
    duration_counts: list[_Count]
    memory_count: _Count
    memory_sum: float
    memory_min: float | None
    memory_max: float | None
    memory_keys: list[_Int32]
    memory_counts: list[_Count]
    efficiency_count: int
    efficiency_sum: float
    rows: _Int64
    transfer_bytes: _Int64

    def __post_init__(self) -> None:
        if len(self.duration_keys) != len(self.duration_counts) or len(self.memory_keys) != len(self.memory_counts):
            raise ValueError("a sketch has as many counts as keys")


class AnomalyLine(msgspec.Struct):
    """One reason why one record stands out."""

    record_id: str
    timestamp: _Instant
    observed_timestamp: _Instant
    service_name: str
    event_name: str
    outcome: str
    reason: str
    run_id: str | None = None
    value: float | None = None
    expected: float | None = None
    limit: float | None = None
    unit: str | None = None
    detail: str | None = None


class DeadLetterLine(msgspec.Struct):
    """What is known of an entry that could not go on; its bytes stay on the topic."""

    reason: str
    detail: str
    stage: str
    topic: str
    partition: _Int32
    offset: _Int64
    index: _Int64
    record_id: str
    time: _Instant
    bytes: _Count
    dead_topic_id: str
    dead_partition: _Int32
    dead_offset: _Int64
    run_id: str | None = None
    origin: str | None = None


class DeadLetterEventLine(msgspec.Struct):
    """What was done with one dead letter."""

    event_id: str
    letter: str
    entry: str
    origin: str
    action: str
    actor: str
    time: _Instant
    run_id: str | None = None
    note: str | None = None
    edited: bool = False


class RunLine(msgspec.Struct):
    """The receipt of an ingest run."""

    run_id: str
    entries: _Count
    bytes: _Count
    time: _Instant
    source: str | None = None
    file: str | None = None


_LINES: Final[dict[str, type[msgspec.Struct]]] = {
    RECORDS.name: RecordLine,
    SAMPLES.name: SampleLine,
    WINDOWS.name: WindowLine,
    ANOMALIES.name: AnomalyLine,
    DEAD_LETTERS.name: DeadLetterLine,
    DEAD_LETTER_EVENTS.name: DeadLetterEventLine,
    RUNS.name: RunLine,
}
_DECODERS: Final = {table: msgspec.json.Decoder(line) for table, line in _LINES.items()}
_INSTANTS: Final = ("timestamp", "observed_timestamp", "minute", "time")


@dataclass(frozen=True, slots=True)
class InvalidLine:
    """A line that can't become a row, and where it is: element of its table's list in Rows, line in that element."""

    table: str
    element: int
    line: int
    value: bytes
    detail: str


def invalid_lines(rows: Rows) -> list[InvalidLine]:
    """Every line that is not exactly what its table takes. The same rows give the same answer, always."""
    return [
        InvalidLine(table.name, element, number, value, detail)
        for table, elements in rows.by_table()
        for element, lines in enumerate(elements)
        for number, value in enumerate(lines.split(b"\n"))
        if value.strip() and (detail := _fault(table.name, value)) is not None
    ]


def without(rows: Rows, invalid: Iterable[InvalidLine]) -> Rows:
    """The rows less these lines."""
    out: dict[str, dict[int, set[int]]] = {}
    for line in invalid:
        out.setdefault(line.table, {}).setdefault(line.element, set()).add(line.line)
    return Rows(
        **{
            table.name: [_less(lines, out.get(table.name, {}).get(element)) for element, lines in enumerate(elements)]
            for table, elements in rows.by_table()
        }
    )


def _less(lines: bytes, numbers: set[int] | None) -> bytes:
    if not numbers:
        return lines
    return b"\n".join(value for number, value in enumerate(lines.split(b"\n")) if number not in numbers)


def _fault(table: str, value: bytes) -> str | None:
    try:
        line = _DECODERS[table].decode(value)
        _check_keys(value)
        _check_instants(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return str(error)
    return None


def _check_keys(value: bytes) -> None:
    """The engine refuses an object that names a key twice; msgspec takes the last."""
    json.loads(value, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a key is there twice")
    return names


def _check_instants(line: msgspec.Struct) -> None:
    for name in _INSTANTS:
        if text := getattr(line, name, None):
            datetime.fromisoformat(text[:19])
