"""Processing, the pure core: standardized lines in; measured lines, anomalies, window deltas and series state out.

Each record is judged by its series' history as it was before it, then folded in, so the result depends on the order of
a partition's records only, not on how they are cut into calls and transactions. docs/analytics.md explains the figures.
"""

import functools
import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from processing import detect, windows
from processing.detect import Anomaly, Rules, Series
from shared.errors import Reason
from shared.records import SUCCESS, Record

_INT64_MAX = 2**63 - 1
_DETAIL_MAX = 300  # characters; a message may quote the line
_PIECE = 128  # lines that are read together: enough to share the cost of a check, few enough to stay in the cache
_FORGOTTEN_SHARE = 10  # when a partition has too many series, one in this many is forgotten at once, so that it is rare

Whole = Annotated[int, msgspec.Meta(ge=0, le=_INT64_MAX)]  # what the store's integer columns hold


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is no Record, for dead-letters."""

    index: int  # in the lines of the call
    reason: Reason
    detail: str
    value: bytes


class Processed(NamedTuple):
    """What a call makes of its lines, each list in their order."""

    records: list[bytes]  # the accepted lines, with their metrics
    anomalies: list[bytes]
    rejected: list[Rejected]


class _StrictRecord(Record, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A Record as the store takes it: nothing skipped when it is read, so that nothing hides in a line."""

    outcome: Literal["success", "failure", "timeout", "cancelled", "skipped", "unknown"]
    severity_number: Annotated[int, msgspec.Meta(ge=0, le=24)] = 9
    duration_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    memory_bytes: Whole | None = None
    rows: Whole | None = None
    transfer_bytes: Whole | None = None
    original_bytes: Whole | None = None
    schema: Literal[1] = 1


class _Partition:
    """What is known of one partition: the histories of its series, and what this transaction changed."""

    __slots__ = ("changed", "clock", "deltas", "forgotten", "saved_at", "series")

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Series] = {}  # as restored, in the order of their changes, then the new ones
        self.clock = 0  # counts the changes of histories
        self.saved_at = 0  # the clock when the changes were last handed out
        self.changed: list[Series] = []  # since then
        self.forgotten: list[tuple[str, str]] = []  # for want of room, since then
        self.deltas: dict[tuple[str, str, str], windows.Delta] = {}


_decoder = msgspec.json.Decoder(_StrictRecord)
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode
_seconds = r":[0-5]\d(?:\.\d{3}|\.\d{6}|\.\d{9})?Z"
_instants = re.compile(rf"(?:\d{{4}}-\d\d-\d\dT\d\d:\d\d{_seconds}\n)*+", re.ASCII).fullmatch

# what every measured line is given, by its efficiency in tenths
_UNSCORED: Final = b',"kind":"record"'
_SCORED: Final = [b',"kind":"record","efficiency":%.1f' % (tenths / 10) for tenths in range(1001)]


class Processor:
    """Measures, judges and counts the records of its partitions. Pure but for the histories it keeps."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._unknown = Series(("", ""), rules)  # judges an operation without history; never learns
        self._partitions: dict[int, _Partition] = {}

    def process(self, partition: int, lines: Sequence[bytes]) -> Processed:
        """Measure and judge lines of a partition of standardized-logs, in order, and add them to this transaction."""
        state = self._partitions.setdefault(partition, _Partition())
        histories, deltas = state.series, state.deltas
        log_duration_of, log_memory_of = self._rules.duration.log_of, self._rules.memory.log_of
        measured: list[bytes] = []
        anomalies: list[bytes] = []
        rejected: list[Rejected] = []
        for record, line in _read(lines, rejected):
            service_name, event_name = record.service_name, record.event_name
            known = histories.get((service_name, event_name))
            log_duration = None if record.duration_s is None else log_duration_of(record.duration_s)
            log_memory = None if record.memory_bytes is None else log_memory_of(record.memory_bytes)
            tenths, found = detect.judge(record, known or self._unknown, log_duration, log_memory)
            measured.append(_spliced(line, record, tenths, found))
            if found:
                anomalies += map(_encode, found)

            window = (service_name, event_name, record.timestamp[:16])
            delta = deltas.get(window)
            if delta is None:
                delta = deltas[window] = windows.Delta()
            delta.add(record, tenths)

            if record.outcome == SUCCESS and not (log_duration is None and log_memory is None):
                series = known or self._admit(state, (service_name, event_name))
                if series.changed_at <= state.saved_at:
                    state.changed.append(series)
                state.clock += 1
                series.changed_at = state.clock
                series.learn(log_duration, log_memory)
        return Processed(measured, anomalies, rejected)

    def windows(self) -> list[tuple[int, bytes]]:
        """(partition, line) of what this transaction adds to each window; then nothing is left to add."""
        lines: list[tuple[int, bytes]] = []
        for partition, state in self._partitions.items():
            if state.deltas:
                lines += [(partition, line) for line in windows.lines_of(state.deltas)]
                state.deltas = {}
        return lines

    def changed(self) -> list[tuple[int, bytes, bytes | None]]:
        """(partition, key, value) of each history that changed since the last call; the value None deletes it.

        In the order of their last changes, so that the state topic, read from its start, restores who is least recent.
        """
        changes: list[tuple[int, bytes, bytes | None]] = []
        for partition, state in self._partitions.items():
            changes += [(partition, detect.key_to_bytes(key), None) for key in state.forgotten]  # it may be back below
            changes += [
                (partition, detect.key_to_bytes(series.key), detect.series_to_bytes(series))
                for series in sorted(state.changed, key=_changed_at)
                if state.series.get(series.key) is series  # and not forgotten again
            ]
            state.forgotten, state.changed, state.saved_at = [], [], state.clock
        return changes

    def restore(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Take up one message of the state topic. Raises StateError where it is none that this version reads."""
        state = self._partitions.setdefault(partition, _Partition())
        name = detect.key_from_bytes(key)
        state.series.pop(name, None)
        if value:
            state.series[name] = detect.series_from_bytes(name, value, self._rules)

    def forget(self, partition: int) -> None:
        """Drop all that is known of a partition: it was given up, or its transaction was aborted."""
        self._partitions.pop(partition, None)

    def _admit(self, state: _Partition, key: tuple[str, str]) -> Series:
        """Begin a history; where there are too many, the tenth that changed least recently is forgotten."""
        if len(state.series) >= self._rules.series_max:
            by_age = sorted(state.series.values(), key=_changed_at)
            for series in by_age[: len(by_age) // _FORGOTTEN_SHARE + 1]:
                del state.series[series.key]
                state.forgotten.append(series.key)
        series = state.series[key] = Series(key, self._rules)
        return series


def _changed_at(series: Series) -> int:
    return series.changed_at


def _read(lines: Sequence[bytes], rejected: list[Rejected]) -> Iterator[tuple[Record, bytes]]:
    """The records of the lines, each with its line fit to be spliced; lines that are none are added to `rejected`."""
    for start in range(0, len(lines), _PIECE):
        piece = lines[start : start + _PIECE]
        try:
            yield from zip(_read_canonical(piece), piece, strict=True)
        except (msgspec.DecodeError, ValueError):  # find out which, one by one
            for index, line in enumerate(piece, start):
                try:
                    yield _read_one(line)
                except (msgspec.DecodeError, ValueError) as error:  # UnicodeDecodeError is a ValueError
                    rejected.append(Rejected(index, Reason.INVALID_RECORD, str(error)[:_DETAIL_MAX], line))


def _read_canonical(lines: Sequence[bytes]) -> list[_StrictRecord]:
    """Lines that are exactly what our own codec writes: no key twice, no white space, one line each.

    Raises ValueError or msgspec.DecodeError where one is not.
    """
    text = b"\n".join(lines)
    records = _decoder.decode_lines(text)
    if len(records) != len(lines) or _encoder.encode_lines(records) != text + b"\n":
        raise ValueError("not as our own codec writes it")
    _check_instants([record.timestamp for record in records])
    _check_instants({record.observed_timestamp for record in records})
    return records


def _read_one(line: bytes) -> tuple[Record, bytes]:
    """A line that need not be canonical, and its bytes as one line from brace to brace; only white space is changed.

    Raises ValueError or msgspec.DecodeError where it is no record, or where an object names a key twice.
    """
    record = _decoder.decode(line)
    _check_instants([record.timestamp, record.observed_timestamp])
    if _encode(record) != line:
        json.loads(line, object_pairs_hook=_check_unique)
        line = line.strip().replace(b"\n", b" ").replace(b"\r", b" ")  # in a string, JSON allows no raw LF
    return record, line


def _check_unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"it names the key {name!r} twice")
        seen.add(name)


def _check_instants(texts: Collection[str]) -> None:
    """Raises ValueError unless each is a timestamp as Record has it, in the years that the store holds."""
    together = "\n".join([*texts, ""])
    if not _instants(together) or together.count("\n") > len(texts):
        raise ValueError("a timestamp is not RFC 3339 in UTC with 0, 3, 6 or 9 digits of fraction")
    for minute in {text[:16] for text in texts}:
        if not _exists(minute):
            raise ValueError(f"there is no {minute} in the years 1900 to 2261")


@functools.lru_cache(maxsize=4096)
def _exists(minute: str) -> bool:
    try:
        return 1900 <= datetime.fromisoformat(minute).year <= 2261
    except ValueError:
        return False


def _spliced(line: bytes, record: Record, tenths: int | None, anomalies: Sequence[Anomaly]) -> bytes:
    """The line with the metrics put in before its last brace, its own bytes untouched."""
    metrics = _UNSCORED if tenths is None else _SCORED[tenths]
    if record.duration_s:
        if record.rows is not None:
            metrics += _rate(b',"rows_per_s":%.6g', record.rows / record.duration_s)
        if record.transfer_bytes is not None:
            metrics += _rate(b',"bytes_per_s":%.6g', record.transfer_bytes / record.duration_s)
    if anomalies:
        metrics += b',"anomalies":' + _encode([anomaly.reason for anomaly in anomalies])
    return line[:-1] + (metrics + b"}")  # the long part is copied once


def _rate(field: bytes, rate: float) -> bytes:
    """The field, unless the duration is so short that its rate is beyond numbers."""
    return field % rate if rate < math.inf else b""
