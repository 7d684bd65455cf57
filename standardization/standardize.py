"""From an entry's bytes to its record, or to the reason why there is none. Pure: no I/O, no clock."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from shared.errors import Reason
from shared.records import Record, Sample
from shared.topics import NDJSON, series_key
from standardization.cutting import fit
from standardization.declared import NO_MAPPINGS, Mappings
from standardization.formats.json import JsonEntries, NotJson
from standardization.mapping import Arrival, unmapped
from standardization.redaction import Redaction
from standardization.refused import Refused
from standardization.templates import TemplateMemory
from standardization.texts import Found, Reader, Texts
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


def _series_key(names: tuple[str, str]) -> bytes:
    return series_key(*names)


def _templating(mappings: Mappings) -> frozenset[str]:
    """The labels of those whose records get a template."""
    return frozenset(mapping.label for mapping in mappings if mapping.template)


class Standardizer:
    """Standardizes entries, remembering the shapes it has seen. For one thread."""

    def __init__(
        self,
        parse_max_bytes: int,
        record_max_bytes: int,
        templates: TemplateMemory | None = None,
        redaction: Redaction | None = None,
        mappings: Mappings = NO_MAPPINGS,
    ) -> None:
        self._parse_max_bytes = parse_max_bytes
        self._record_max_bytes = record_max_bytes
        self._json = JsonEntries(mappings)
        self._templating = _templating(mappings)
        self._texts = Texts(self._json, templates or TemplateMemory(), redaction)
        self._redaction = redaction
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
        if self._templating:
            self._texts.give_templates(found, arrivals, self._templating)
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
        if self._redaction is not None:
            if suspects := self._redaction.suspects([line for _, line in records]):
                self._redact(self._redaction, suspects, found, lines, records)
            if suspects := self._redaction.suspects([line for _, line in samples]):
                taken = [sample for sample in found if isinstance(sample, Sample)]
                for index in suspects:
                    samples[index] = samples[index][0], encode(self._redaction.sample(taken[index]))
            rejected = [bad._replace(detail=self._redaction.text(bad.detail)) for bad in rejected]
        return Standardized(records, samples, rejected)

    def redactions(self) -> Counter[str]:
        """How many values were redacted by which rule, since this was last called."""
        if self._redaction is None:
            return Counter()
        counted, self._redaction.counted = self._redaction.counted, Counter()
        return counted

    def formats(self) -> Counter[str]:
        """How many entries that are no JSON were read in which format, since this was last called."""
        counted, self._texts.counted = self._texts.counted, Counter()
        return counted

    def use(self, mappings: Mappings) -> None:
        """Read entries by these mappings from now on."""
        self._json.use(mappings)
        self._templating = _templating(mappings)

    def mapped(self) -> tuple[Counter[str], Counter[str]]:
        """How many records each mapping made, and how many values it dropped, since this was last called."""
        return self._json.tally.taken()

    def unparsed(self, size: int, record_id: str, arrival: Arrival) -> tuple[bytes, bytes]:
        """Key and line of an entry over parse_max_bytes, of which only the size is known: its bytes are on disk."""
        record, encoded = fit(self._unparsed_record(size, record_id, arrival), size, self._record_max_bytes)
        return self._keys[record.service_name, record.event_name], encoded

    def _redact(
        self,
        redaction: Redaction,
        suspects: Sequence[int],
        found: Sequence[Found],
        lines: Sequence[bytes],
        good: list[tuple[bytes, bytes]],
    ) -> None:
        """Replace those of the good ones that hold what must not be stored."""
        records = [(record, len(line)) for record, line in zip(found, lines, strict=True) if isinstance(record, Record)]
        for index in suspects:
            record, size = records[index]
            if (redacted := redaction.record(record)) is not record:
                fitted, encoded = fit(redacted, redacted.original_bytes or size, self._record_max_bytes)
                good[index] = self._keys[fitted.service_name, fitted.event_name], encoded

    def _unparsed_record(self, size: int, record_id: str, arrival: Arrival) -> Record:
        body = f"An entry of {size} bytes; over {self._parse_max_bytes} bytes an entry is kept but not parsed."
        return unmapped(record_id, arrival, body, original_bytes=size)

    def _reader(self, content_type: str | None) -> Reader:
        """How entries of this type are read: as JSON, as text, or, where the type says neither, by what they are."""
        kind = (content_type or "").partition(";")[0].strip().lower()
        if (known := self._texts.reader(content_type or "")) is not None:
            return known
        if kind in {NDJSON, "application/json", "application/jsonl"} or kind.endswith("+json"):
            return self._json.records
        return self._json_or_text

    def _json_or_text(
        self, lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]
    ) -> list[Found]:
        """Entries of no stated type: JSON if it is JSON or begins as an object does, else text."""
        found = self._json.records(lines, record_ids, arrivals)
        texts = [
            index
            for index, record in enumerate(found)
            if isinstance(record, NotJson) and not lines[index].lstrip().startswith(b"{")
        ]
        if texts:
            read = self._texts.records(
                [lines[index] for index in texts],
                [record_ids[index] for index in texts],
                [arrivals[index] for index in texts],
            )
            for index, record in zip(texts, read, strict=True):
                found[index] = record
        return found
