"""From messages of raw-logs to records and dead letters: what lies between the stage loop and the pure core.

message -> is it a repeated push? -> frame -> entries -> standardize -> standardized-logs | dead-letters
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from shared import metrics
from shared.config import Settings
from shared.errors import Reason
from shared.frames import entries
from shared.records import DeadLetter, Kind, timestamp_of
from shared.stage import NO_HEADERS, Message, Output, RawHeaders, Stream
from shared.state import StateCodec
from shared.topics import (
    BRIEFLY,
    H_CONTENT_TYPE,
    H_KIND,
    H_ORIGIN,
    H_PUSH,
    H_RUN,
    H_SOURCE,
    RAW_LOGS,
    STANDARDIZED_LOGS,
)
from standardization.declared import NO_MAPPINGS, Mappings
from standardization.redaction import Redaction
from standardization.standardize import Arrival, Standardizer
from standardization.templates import TemplateMemory

STAGE = "standardization"
PUSH_MEMORY_S = 24 * 3600
BRIEF_MEMORY_S = 600  # of pushes that are known by their content: exporters give up a retry after 5 minutes
_BATCH = 256  # entries read together: many of each shape, and few enough to stay in the cache


class _Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """The attempt of a run that came first, and when (Unix seconds)."""

    attempt: str
    at: int
    schema: int = 1


_state = StateCodec(_Seen)


class PushMemory:
    """Which attempt of each push came first, so that a client may retry and count once.

    A push's run has one partition, so the first attempt in its order is the same for every reader of it.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], OrderedDict[str, _Seen]] = {}  # by partition and how long it remembers
        self._changed: list[tuple[int, bytes, bytes | None]] = []

    def is_repeat(self, partition: int, push: str, at: int) -> bool:
        """Whether another attempt of this push came first; `at` is the message's time in Unix seconds."""
        run, _, attempt = push.partition(":")
        seconds = _memory_of(attempt)
        known = self._first.setdefault((partition, seconds), OrderedDict())
        seen = known.get(run)
        if seen is None:
            seen = known[run] = _Seen(attempt, at)
            self._changed.append((partition, run.encode(), msgspec.json.encode(seen)))
            self._expire(partition, seconds, at)
        return seen.attempt != attempt

    def changed(self) -> Iterator[tuple[int, bytes, bytes | None]]:
        yield from self._changed
        self._changed = []

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        seen = _state.read(value)
        self._first.setdefault((partition, _memory_of(seen.attempt)), OrderedDict())[key.decode()] = seen

    def forget(self, partition: int) -> None:
        for seconds in (PUSH_MEMORY_S, BRIEF_MEMORY_S):
            self._first.pop((partition, seconds), None)
        self._changed = [change for change in self._changed if change[0] != partition]

    def _expire(self, partition: int, seconds: int, now: int) -> None:
        known = self._first[partition, seconds]
        while known:
            run, seen = next(iter(known.items()))
            if now - seen.at < seconds:
                return
            del known[run]
            self._changed.append((partition, run.encode(), None))


def _memory_of(attempt: str) -> int:
    """For how many seconds a push of this attempt is remembered."""
    return BRIEF_MEMORY_S if attempt.startswith(BRIEFLY) else PUSH_MEMORY_S


class _Batch:
    """Entries of one content type, read together: four lists that have a place for each."""

    __slots__ = ("arrivals", "content_type", "lines", "messages", "record_ids")

    def __init__(self, content_type: str | None) -> None:
        self.content_type = content_type
        self.lines: list[bytes] = []
        self.record_ids: list[str] = []
        self.arrivals: list[Arrival] = []
        self.messages: list[Message] = []  # that the entry came in


class Standardization:
    """The transform of the standardization stage."""

    def __init__(self, settings: Settings, redaction: Redaction | None = None) -> None:
        self._parse_max = settings.parse_max_bytes
        self._topic = settings.topic(RAW_LOGS)
        self.templates = TemplateMemory()
        self._standardizer = Standardizer(
            settings.parse_max_bytes, settings.record_max_bytes, self.templates, redaction
        )
        self._mappings = self._used = NO_MAPPINGS
        self._pushes = PushMemory()
        self._records: Stream | None = None
        self._samples: Stream | None = None
        self._out: Output | None = None

    def use(self, mappings: Mappings) -> None:
        """Read what comes from now on by these mappings; may be called from another thread."""
        self._mappings = mappings

    def handle(self, messages: Sequence[Message], topic_id: str, out: Output) -> int:
        if out is not self._out:
            self._out, self._records = out, out.stream(STANDARDIZED_LOGS)
            self._samples = out.stream(STANDARDIZED_LOGS, [(H_KIND, Kind.SAMPLE.encode())])
        if self._mappings is not self._used:  # between batches, so that a batch is read by one set
            self._used = self._mappings
            self._standardizer.use(self._used)
        batch = _Batch(None)
        count = 0
        named = _NOTHING
        arrival: Arrival | None = None
        seen: tuple[RawHeaders, int, int] = (NO_HEADERS, 0, 0)
        for message in messages:
            headers, at_ms, partition = message.headers, message.timestamp_ms, message.partition
            if arrival is None or headers is not seen[0] or at_ms != seen[1] or partition != seen[2]:
                if headers is not seen[0]:
                    named = _read(headers)
                seen = headers, at_ms, partition
                time_taken = timestamp_of(at_ms * 1_000_000)
                arrival = Arrival(time_taken, named.source, named.run_id, named.origin, partition, at_ms)
            place = f"{topic_id}-{message.partition}-{message.offset}"
            if named.unusable is not None:
                self._refuse(message, place, arrival, named.unusable)
                count += 1
                continue
            if named.push is not None and self._pushes.is_repeat(message.partition, named.push, at_ms // 1000):
                out.count(metrics.PUSHES_DEDUPLICATED)
                continue
            value = message.value
            if message.payload is not None:
                if message.payload.size > self._parse_max:
                    batch = self._done(batch)  # what came before goes before
                    self._send([self._standardizer.unparsed(message.payload.size, f"{place}-0", arrival)])
                    count += 1
                    continue
                value = message.payload.read()
            if named.content_type != batch.content_type:
                batch = self._done(batch, named.content_type)
            lines = entries(value, named.content_type)
            if len(lines) == 1:
                batch.lines.append(lines[0])
                batch.record_ids.append(place + "-0")
                batch.arrivals.append(arrival)
                batch.messages.append(message)
            else:
                batch.lines += lines
                batch.record_ids += [f"{place}-{index}" for index in range(len(lines))]
                batch.arrivals += [arrival] * len(lines)
                batch.messages += [message] * len(lines)
            count += len(lines)
            if len(batch.lines) >= _BATCH or message.payload is not None:
                batch = self._done(batch, named.content_type)
        self._done(batch)
        return count

    def finish(self, out: Output) -> None:
        """Nothing is gathered over a transaction."""

    def changed(self) -> Iterable[tuple[int, bytes, bytes | None]]:
        yield from self._pushes.changed()
        yield from self.templates.changed()

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        memory = self.templates if self.templates.owns(key) else self._pushes
        memory.restore(partition, key, value)

    def forget(self, partition: int) -> None:
        self._pushes.forget(partition)
        self.templates.forget(partition)

    def _done(self, batch: _Batch, content_type: str | None = None) -> _Batch:
        """Standardize a batch and send what became of it; a new one for what follows.

        A message may hold any number of entries: they go piece by piece, so that memory does not grow with it.
        """
        for begin in range(0, len(batch.lines), _BATCH):
            piece = slice(begin, begin + _BATCH)
            found = self._standardizer.entries(
                batch.content_type, batch.lines[piece], batch.record_ids[piece], batch.arrivals[piece]
            )
            self._send(found.records)
            if found.samples:
                assert self._samples is not None
                self._samples.add(found.samples)
            self._count()
            for bad in found.rejected:
                at = begin + bad.index
                self._dead(
                    batch.messages[at], batch.record_ids[at], batch.arrivals[at], bad.reason, bad.detail, bad.value
                )
        return _Batch(content_type)

    def _send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        assert self._records is not None
        self._records.add(records)

    def _count(self) -> None:
        assert self._out is not None
        for form, number in self._standardizer.formats().items():
            self._out.count(metrics.TEXT_ENTRIES.labels(form), number)
        for rule, number in self._standardizer.redactions().items():
            self._out.count(metrics.REDACTIONS.labels(rule), number)
        records, dropped = self._standardizer.mapped()
        for name, number in records.items():
            self._out.count(metrics.MAPPED_RECORDS.labels(name), number)
        for name, number in dropped.items():
            self._out.count(metrics.MAPPED_VALUES_DROPPED.labels(name), number)

    def _refuse(self, message: Message, place: str, arrival: Arrival, header: str) -> None:
        """A foreign producer's header that no record could carry: the message is one dead letter."""
        value = message.value if message.payload is None else message.payload.read()
        detail = f"header {header} is longer than {_HEADER_MAX} characters, or names no run of ours"
        bare = Arrival(arrival.observed_timestamp, None, _short(arrival.run_id), _short(arrival.origin))
        self._dead(message, f"{place}-0", bare, Reason.INVALID_HEADER, detail, value)

    def _dead(
        self, message: Message, record_id: str, arrival: Arrival, reason: Reason, detail: str, value: bytes
    ) -> None:
        assert self._out is not None
        self._out.dead_letter(
            DeadLetter.of(
                message,
                record_id,
                stage=STAGE,
                topic=self._topic,
                reason=reason,
                detail=detail,
                value=value,
                run_id=arrival.run_id,
                origin=arrival.origin,
            )
        )


class _Named(NamedTuple):
    """Our own headers of a message, as text; bytes of a foreign producer's that are no UTF-8 are shown, not refused."""

    source: str | None = None
    run_id: str | None = None
    origin: str | None = None
    content_type: str | None = None
    push: str | None = None
    unusable: str | None = None  # the name of one that no record could carry


_NOTHING = _Named()
_FIELDS = {H_SOURCE: "source", H_RUN: "run_id", H_ORIGIN: "origin", H_CONTENT_TYPE: "content_type", H_PUSH: "push"}
_HEADER_MAX = 1_024


def _short(text: str | None) -> str | None:
    return text if text is not None and len(text) <= _HEADER_MAX else None


def _read(raw: Sequence[tuple[str, bytes | None]]) -> _Named:
    found = {name: value.decode(errors="replace") for name, value in raw if value is not None and name in _FIELDS}
    unusable = next((name for name, text in found.items() if len(text) > _HEADER_MAX), None)
    if unusable is None and "/" in found.get(H_PUSH, "").partition(":")[0]:
        unusable = H_PUSH  # no run of ours: among the state's keys it could be taken for another kind's
    return _Named(unusable=unusable, **{_FIELDS[name]: text for name, text in found.items()})
