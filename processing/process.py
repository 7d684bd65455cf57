"""Processing, the pure core: standardized lines in; measured lines, anomalies, window deltas and series state out.

Each record is judged by its series' history as it was before it, then folded in, so the result depends on the order of
a partition's records only, not on how they are cut into calls and transactions. docs/analytics.md explains the figures.
"""

import functools
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
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
        self.clock = 0  # counts records
        self.saved_at = 0  # the clock when the changes were last handed out
        self.changed: list[Series] = []  # since then
        self.forgotten: list[tuple[str, str]] = []  # for want of room, since then
        self.deltas: dict[tuple[str, str, str], windows.Delta] = {}


_decoder = msgspec.json.Decoder(_StrictRecord)
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode
_seconds = r":[0-5]\d(?:\.\d{3}|\.\d{6}|\.\d{9})?Z"
_instants = re.compile(rf"(?:\d{{4}}-\d\d-\d\dT\d\d:\d\d{_seconds}\n)*+", re.ASCII).fullmatch

_REASONS: Final = b',"anomalies":%b}'

# what every measured line is given, by its efficiency in tenths
_UNSCORED: Final = b',"kind":"record"'
_SCORED: Final = [b',"kind":"record","efficiency":%.1f' % (tenths / 10) for tenths in range(1001)]


class Processor:
    """Measures, judges and counts the records of its partitions. Pure but for the histories it keeps."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._partitions: dict[int, _Partition] = {}

    def process(self, partition: int, lines: Sequence[bytes]) -> Processed:
        """Measure and judge lines of a partition of standardized-logs, in order, and add them to this transaction."""
        state = self._partitions.setdefault(partition, _Partition())
        rejected: list[Rejected] = []
        records, measured = _read(lines, rejected)
        anomalies: list[tuple[int, Anomaly]] = []
        for key, positions in self._together(state, records):
            series = state.series.get(key) or Series(key, self._rules)
            theirs = [records[at] for at in positions]
            scores, found = series.follow(theirs)
            _splice(measured, positions, theirs, scores)
            for number, unusual in found.items():
                at = positions[number]
                measured[at] = measured[at][:-1] + _REASONS % _encode([anomaly.reason for anomaly in unusual])
                anomalies += [(at, anomaly) for anomaly in unusual]
            _add_to_windows(state.deltas, key, theirs, scores)
            taught = next((at for at in reversed(positions) if _teaches(records[at])), None)
            if taught is not None:
                self._keep(state, series, state.clock + 1 + taught)
        state.clock += len(records)
        anomalies.sort(key=itemgetter(0))
        return Processed(measured, [_encode(anomaly) for _, anomaly in anomalies], rejected)

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

    def _together(
        self, state: _Partition, records: Sequence[Record]
    ) -> Iterable[tuple[tuple[str, str], Sequence[int]]]:
        """The positions of the records of each series: they are judged in one go, for no series knows of another.

        Where a history may have to give way, it is one record after the other: which one does depends on their order.
        """
        together: dict[tuple[str, str], list[int]] = {}
        for at, record in enumerate(records):
            key = (record.service_name, record.event_name)
            positions = together.get(key)
            if positions is None:
                together[key] = [at]
            else:
                positions.append(at)
        if len(state.series) + len(together.keys() - state.series.keys()) <= self._rules.series_max:
            return together.items()
        return [((record.service_name, record.event_name), (at,)) for at, record in enumerate(records)]

    def _keep(self, state: _Partition, series: Series, clock: int) -> None:
        """Note that a history changed. A new one begins; where they are too many, a tenth is forgotten."""
        if series.key not in state.series:
            if len(state.series) >= self._rules.series_max:
                by_age = sorted(state.series.values(), key=_changed_at)
                for old in by_age[: len(by_age) // _FORGOTTEN_SHARE + 1]:
                    del state.series[old.key]
                    state.forgotten.append(old.key)
            state.series[series.key] = series
        if series.changed_at <= state.saved_at:
            state.changed.append(series)
        series.changed_at = clock


def _teaches(record: Record) -> bool:
    """Whether a history changes by this record."""
    return record.outcome == SUCCESS and not (record.duration_s is None and record.memory_bytes is None)


def _add_to_windows(
    deltas: dict[tuple[str, str, str], windows.Delta],
    key: tuple[str, str],
    records: Sequence[Record],
    scores: Sequence[int | None],
) -> None:
    """Add records of a series to the minutes that they belong to."""
    minutes: dict[str, list[int]] = {}
    for at, record in enumerate(records):
        minutes.setdefault(record.timestamp[:16], []).append(at)
    for minute, positions in minutes.items():
        delta = deltas.get((*key, minute))
        if delta is None:
            delta = deltas[*key, minute] = windows.Delta()
        delta.add([records[at] for at in positions], [scores[at] for at in positions])


def _changed_at(series: Series) -> int:
    return series.changed_at


def _read(lines: Sequence[bytes], rejected: list[Rejected]) -> tuple[list[Record], list[bytes]]:
    """The records of the lines, each with its line fit to be spliced; lines that are none are added to `rejected`."""
    records: list[Record] = []
    fit: list[bytes] = []
    for start in range(0, len(lines), _PIECE):
        piece = lines[start : start + _PIECE]
        try:
            records += _read_canonical(piece)
            fit += piece
        except (msgspec.DecodeError, ValueError):  # find out which, one by one
            for index, line in enumerate(piece, start):
                try:
                    record, line = _read_one(line)
                except (msgspec.DecodeError, ValueError) as error:  # UnicodeDecodeError is a ValueError
                    rejected.append(Rejected(index, Reason.INVALID_RECORD, str(error)[:_DETAIL_MAX], line))
                else:
                    records.append(record)
                    fit.append(line)
    return records, fit


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


def _splice(
    lines: list[bytes], positions: Sequence[int], records: Sequence[Record], scores: Sequence[int | None]
) -> None:
    """Put the metrics of these records into their lines, before the last brace, their own bytes untouched."""
    for at, record, tenths in zip(positions, records, scores, strict=True):
        metrics = _UNSCORED if tenths is None else _SCORED[tenths]
        seconds = record.duration_s
        if seconds:
            rows, transferred = record.rows, record.transfer_bytes
            if rows is not None:
                metrics += _rate(b',"rows_per_s":%.6g', rows / seconds)
            if transferred is not None:
                metrics += _rate(b',"bytes_per_s":%.6g', transferred / seconds)
        lines[at] = lines[at][:-1] + (metrics + b"}")  # the long part is copied once


def _rate(field: bytes, rate: float) -> bytes:
    """The field, unless the duration is so short that its rate is beyond numbers."""
    return field % rate if rate < math.inf else b""
