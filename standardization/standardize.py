"""From an entry's bytes to its record, or to the reason why there is none. Pure: no I/O, no clock."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from shared.errors import Reason
from shared.records import Record, Sample
from shared.topics import NDJSON, series_key
from standardization.cutting import fit
from standardization.formats import text
from standardization.formats.json import JsonEntries, NotJson
from standardization.mapping import Arrival, unmapped
from standardization.refused import Refused, not_utf8
from standardization.values import Memo

__all__ = ["Arrival", "Rejected", "Standardized", "Standardizer"]


class Rejected(NamedTuple):
    """An entry that becomes a dead letter."""

    index: int  # type: ignore[assignment]  # in its frame; hides tuple.index, which nobody needs here
    reason: Reason
    detail: str  # what was wrong and what to do, at most 300 characters
    value: bytes  # the original bytes


class Standardized(NamedTuple):
    """What became of some entries, each list in their order; of a good one its key and its line."""

    records: list[tuple[bytes, bytes]]  # by series
    samples: list[tuple[bytes, bytes]]  # by GPU
    rejected: list[Rejected]


Found = Record | Sample | Refused
EntriesReader = Callable[[Sequence[bytes], Sequence[str], Sequence[Arrival]], list[Found]]


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

    def entries(
        self,
        content_type: str | None,
        lines: Sequence[bytes],
        record_ids: Sequence[str],
        arrivals: Sequence[Arrival],
    ) -> Standardized:
        """What becomes of these entries.

        A line is one JSON object without LF; a record's has `record_id` first. Never raises, whatever the bytes are.
        The more entries of one type in a call, the less each costs.
        """
        if lines and max(map(len, lines)) > self._parse_max_bytes:
            found = [
                self._unparsed_record(len(line), record_id, arrival)
                if len(line) > self._parse_max_bytes
                else self._readers[content_type]([line], [record_id], [arrival])[0]
                for line, record_id, arrival in zip(lines, record_ids, arrivals, strict=True)
            ]
        else:
            found = self._readers[content_type](lines, record_ids, arrivals)
        records: list[tuple[bytes, bytes]] = []
        samples: list[tuple[bytes, bytes]] = []
        rejected: list[Rejected] = []
        encode, keys, limit = self._encode, self._keys, self._record_max_bytes
        for index, record in enumerate(found):
            if isinstance(record, Refused):
                rejected.append(Rejected(index, record.reason, record.detail, lines[index]))
                continue
            encoded = encode(record)
            if isinstance(record, Sample):
                samples.append((record.hw_id.encode(), encoded))
                continue
            if len(encoded) > limit:
                record, encoded = fit(record, len(lines[index]), limit)
            records.append((keys[record.service_name, record.event_name], encoded))
        return Standardized(records, samples, rejected)

    def unparsed(self, size: int, record_id: str, arrival: Arrival) -> tuple[bytes, bytes]:
        """Key and line of an entry over parse_max_bytes, of which only the size is known: its bytes are on disk."""
        record, encoded = fit(self._unparsed_record(size, record_id, arrival), size, self._record_max_bytes)
        return self._keys[record.service_name, record.event_name], encoded

    def _unparsed_record(self, size: int, record_id: str, arrival: Arrival) -> Record:
        body = f"An entry of {size} bytes; over {self._parse_max_bytes} bytes an entry is kept but not parsed."
        return unmapped(record_id, arrival, body, original_bytes=size)

    def _reader(self, content_type: str | None) -> EntriesReader:
        """How entries of this type are read: as JSON, as text, or, where the type says neither, by what they are."""
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind in {NDJSON, "application/json", "application/jsonl"} or kind.endswith("+json"):
            return self._json.records
        return _text_records if kind.startswith("text/") else self._json_or_text

    def _json_or_text(
        self, lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]
    ) -> list[Found]:
        """Entries of no stated type: JSON if it is JSON or begins as an object does, else text."""
        found = self._json.records(lines, record_ids, arrivals)
        for index, record in enumerate(found):
            if isinstance(record, NotJson) and not lines[index].lstrip().startswith(b"{"):
                found[index] = _text_record(lines[index], record_ids[index], arrivals[index])
        return found


def _text_records(lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]) -> list[Found]:
    return list(map(_text_record, lines, record_ids, arrivals))


def _text_record(line: bytes, record_id: str, arrival: Arrival) -> Found:
    try:
        return text.record_of(line.decode(), record_id, arrival)
    except UnicodeDecodeError as error:
        return not_utf8(error)
