"""From an entry's bytes to its record, or to the reason why there is none. Pure: no I/O, no clock."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from shared.errors import Reason
from shared.records import Outcome, Record
from shared.topics import NDJSON, series_key
from standardization.cutting import fit
from standardization.formats import text
from standardization.formats.json import JsonEntries, NotJson
from standardization.mapping import UNKNOWN, Arrival
from standardization.refused import Refused, not_utf8
from standardization.values import Memo

__all__ = ["Arrival", "Rejected", "Standardizer"]


class Rejected(NamedTuple):
    """An entry that becomes a dead letter."""

    index: int  # type: ignore[assignment]  # in its frame; hides tuple.index, which nobody needs here
    reason: Reason
    detail: str  # what was wrong and what to do, at most 300 characters
    value: bytes  # the original bytes


def _series_key(names: tuple[str, str]) -> bytes:
    return series_key(*names)


class Standardizer:
    """Standardizes entries, remembering the shapes it has seen. For one thread."""

    def __init__(self, parse_max_bytes: int, record_max_bytes: int) -> None:
        self._parse_max_bytes = parse_max_bytes
        self._record_max_bytes = record_max_bytes
        self._json = JsonEntries()
        self._encode: Final = msgspec.json.Encoder().encode
        self._keys: Final = Memo(_series_key, 4096)
        self._readers: Final = Memo(self._reader, 64)

    def entries(self, lines: Sequence[bytes], arrival: Arrival) -> tuple[list[tuple[bytes, bytes]], list[Rejected]]:
        """The series key and the record's line of each good entry, in order, and the rejected ones.

        A line is one JSON object without LF, `record_id` first. Never raises, whatever the bytes are.
        """
        good: list[tuple[bytes, bytes]] = []
        rejected: list[Rejected] = []
        encode, keys = self._encode, self._keys
        parse_max_bytes, record_max_bytes = self._parse_max_bytes, self._record_max_bytes
        read = self._readers[arrival.content_type]
        place = arrival.place
        for index, line in enumerate(lines):
            if len(line) > parse_max_bytes:
                good.append(self._unparsed(len(line), index, arrival))
                continue
            try:
                record = read(line, f"{place}-{index}", arrival)
            except Refused as refused:
                rejected.append(Rejected(index, refused.reason, refused.detail, line))
                continue
            encoded = encode(record)
            if len(encoded) > record_max_bytes:
                record, encoded = fit(record, len(line), record_max_bytes)
            good.append((keys[record.service_name, record.event_name], encoded))
        return good, rejected

    def unparsed(self, size: int, arrival: Arrival) -> tuple[bytes, bytes]:
        """The record of an entry over parse_max_bytes, of which only the size is known here (its bytes are on disk)."""
        return self._unparsed(size, 0, arrival)

    def _unparsed(self, size: int, index: int, arrival: Arrival) -> tuple[bytes, bytes]:
        record = Record(
            record_id=f"{arrival.place}-{index}",
            timestamp=arrival.observed_timestamp,
            observed_timestamp=arrival.observed_timestamp,
            service_name=arrival.source or UNKNOWN,
            event_name=UNKNOWN,
            outcome=Outcome.UNKNOWN.value,
            run_id=arrival.run_id,
            origin=arrival.origin,
            body=f"An entry of {size} bytes; over {self._parse_max_bytes} bytes an entry is kept but not parsed.",
            original_bytes=size,
        )
        record, encoded = fit(record, size, self._record_max_bytes)
        return self._keys[record.service_name, record.event_name], encoded

    def _reader(self, content_type: str | None) -> Callable[[bytes, str, Arrival], Record]:
        """How entries of this type are read: as JSON, as text, or, where the type says neither, by what they are."""
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind in {NDJSON, "application/json", "application/jsonl"} or kind.endswith("+json"):
            return self._json.record
        return _text_record if kind.startswith("text/") else self._json_or_text

    def _json_or_text(self, line: bytes, record_id: str, arrival: Arrival) -> Record:
        """An entry of no stated type: JSON if it is JSON or begins as an object does, else text."""
        try:
            return self._json.record(line, record_id, arrival)
        except NotJson:
            if line.lstrip().startswith(b"{"):
                raise
            return _text_record(line, record_id, arrival)


def _text_record(line: bytes, record_id: str, arrival: Arrival) -> Record:
    try:
        return text.record_of(line.decode(), record_id, arrival)
    except UnicodeDecodeError as error:
        raise not_utf8(error) from None
