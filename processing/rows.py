"""From messages of the topics that the sink reads to rows of the store's tables. Pure."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from processing.detect import AnomalyReason
from shared.errors import Reason
from shared.frames import entries
from shared.records import DeadLetter, Kind, timestamp_of
from shared.topics import (
    DEAD_LETTER_EVENTS,
    DEAD_LETTERS,
    H_CONTENT_TYPE,
    H_KIND,
    H_LINE,
    INGEST_RUNS,
    PROCESSED_METRICS,
)

Headers = Sequence[tuple[str, bytes | None]]

_TABLE_OF_TOPIC: Final = {INGEST_RUNS: "runs", DEAD_LETTER_EVENTS: "dead_letter_events"}
_TABLES: Final[dict[str, str]] = {
    Kind.RECORD: "records",
    Kind.SAMPLE: "samples",
    Kind.WINDOW: "windows",
    Kind.ANOMALY: "anomalies",
}


class Place(NamedTuple):
    """A partition of one of the topics, by our name of it and by Kafka's id."""

    topic: str
    topic_id: str
    partition: int


class Row(NamedTuple):
    """A message's contribution to a batch: lines for one table, kept with the offsets that they came from."""

    offset: int
    last: int  # the offset of a chunked message's last chunk; of a plain message its own
    table: str  # a field of store.Rows
    lines: bytes
    records: int


def rows_of(
    place: Place, offset: int, last: int, timestamp_ms: int, value: bytes, size: int, headers: Headers
) -> list[Row]:
    """The rows of one message: the same each time, for a repeated batch has to be the same.

    `last` is the offset of its last chunk, `size` that of the whole value; a dead letter's own bytes are not needed.
    """
    if place.topic in _TABLE_OF_TOPIC:
        return [Row(offset, last, _TABLE_OF_TOPIC[place.topic], value, 1)]
    if place.topic == DEAD_LETTERS:
        return [Row(offset, last, "dead_letters", _dead_letter_line(place, offset, timestamp_ms, size, headers), 1)]
    named = dict(headers)
    kind = (named.get(H_KIND) or b"").decode(errors="replace")
    if kind in _TABLES:
        return [Row(offset, last, _TABLES[kind], value, value.count(b"\n") + 1)]
    content_type = (named.get(H_CONTENT_TYPE) or b"").decode(errors="replace")
    return [Row(offset, last, _table_of(line), line, 1) for line in entries(value, content_type or None)]


def end_of_batch(rows: Sequence[Row], safe: int) -> int:
    """The highest offset up to `safe` that no message lies across: where a batch of these rows may end (exclusive).

    Chunked messages interleave. A batch that ended between a message's chunks would have its row, but reading the
    batch again would not give it, and the next batch would meet the message's rest without its beginning.
    """
    end = safe
    while across := [row.offset for row in rows if row.offset < end <= row.last]:
        end = min(across)
    return end


def oldest_observed(rows: Iterable[Row]) -> float | None:
    """When the first record or sample among these was seen by raw-logs, Unix seconds: the oldest, by their order.

    None where it does not say, or says what is no instant: foreign messages are judged by the store, not here.
    """
    for row in rows:
        if row.table in ("records", "samples"):
            found = _OBSERVED.search(row.lines, 0, 4096)
            try:
                return datetime.fromisoformat(found.group(1).decode()).timestamp() if found else None
            except (ValueError, OverflowError):
                return None
    return None


def anomaly_reasons(elements: Iterable[bytes]) -> Counter[str]:
    """How many anomalies for which reason; `other` for reasons that are not ours, so that a label stays bounded."""
    reasons: Counter[str] = Counter()
    for lines in elements:
        for line in lines.split(b"\n"):
            if line.strip():
                reasons[_reason_of(line)] += 1
    return reasons


class Identity(msgspec.Struct, frozen=True):
    """What a line says of the entry that it was made of."""

    record_id: str | None = None
    run_id: str | None = None
    origin: str | None = None


def identity_of(line: bytes) -> Identity:
    """The identity in a line, an empty one where it holds none that can be read or is too long to be ours."""
    try:
        found = msgspec.json.decode(line, type=Identity)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Identity()
    longest = max(len(text or "") for text in (found.record_id, found.run_id, found.origin))
    return found if longest <= 1_024 else Identity()


def letter_of(table: str, line: bytes, detail: str, stage: str, place: str) -> DeadLetter:
    """The dead letter of a line that the store can't take: a foreign producer's, for our own are made to fit.

    `place` is the same for the same line of a repeated batch: after a crash there may be two letters of one line, and
    only one of them may be replayed.
    """
    known = identity_of(line)
    kind = [(H_KIND, name.encode()) for name, its in _TABLES.items() if its == table]
    return DeadLetter(
        value=line,
        reason=Reason.INVALID_RECORD,
        detail=f"no row of {table}: {detail}"[:300],
        stage=stage,
        topic=next((topic for topic, its in _TABLE_OF_TOPIC.items() if its == table), PROCESSED_METRICS),
        partition=-1,
        offset=-1,
        index=0,
        record_id=known.record_id or f"{table}-{hashlib.sha256(line).hexdigest()[:16]}",
        time=timestamp_of(time.time_ns()),
        run_id=known.run_id,
        origin=known.origin,
        headers=(*kind, (H_LINE, place.encode())),
    )


class _Reasoned(msgspec.Struct):
    reason: str


class _Kinded(msgspec.Struct):
    kind: str = Kind.RECORD


_OUR_REASONS: Final = frozenset(AnomalyReason)
_OBSERVED = re.compile(rb'"observed_timestamp":"([0-9T:.Z-]{20,30})"')


def _reason_of(line: bytes) -> str:
    try:
        reason = msgspec.json.decode(line, type=_Reasoned).reason
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "other"
    return reason if reason in _OUR_REASONS else "other"


def _table_of(line: bytes) -> str:
    """Where a line without our header belongs; one that can't be read is a record, and is refused as such."""
    try:
        return _TABLES.get(msgspec.json.decode(line, type=_Kinded).kind, "records")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "records"


def _dead_letter_line(place: Place, offset: int, timestamp_ms: int, size: int, headers: Headers) -> bytes:
    try:
        letter = DeadLetter.from_headers(list(headers), b"")
    except ValueError as error:  # somebody else's message on our topic: it is shown as what it is
        letter = DeadLetter(
            value=b"",
            reason=Reason.INVALID_HEADER,
            detail=str(error),
            stage="unknown",
            topic=place.topic,
            partition=place.partition,
            offset=offset,
            index=0,
            record_id=f"{place.topic_id}-{place.partition}-{offset}-0",
            time=timestamp_of(timestamp_ms * 1_000_000),
        )
    return msgspec.json.encode(
        {
            "reason": letter.reason,
            "detail": letter.detail,
            "stage": letter.stage,
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "index": letter.index,
            "record_id": letter.record_id,
            "time": letter.time,
            "run_id": letter.run_id,
            "origin": letter.origin,
            "bytes": size,
            "dead_topic_id": place.topic_id,
            "dead_partition": place.partition,
            "dead_offset": offset,
        }
    )
