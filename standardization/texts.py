"""Entries that are not JSON by their type: each read in its declared format, or in the one that it is seen to be in.

A format turns a line into an entry, which then is read as the same JSON object would be. A line that is not of its
format is free text: nothing of it is lost, and nothing is guessed. Free text gets its template.
"""

from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from shared.records import Record, Sample
from standardization.fields import MAPPING
from standardization.formats import access, delimited, logfmt, otlp, syslog, text, traces
from standardization.formats.json import JsonEntries
from standardization.mapping import Arrival
from standardization.redaction import Redaction
from standardization.refused import Refused, not_utf8
from standardization.templates import PARAMETERS, TEMPLATE, TEMPLATE_ID, TemplateMemory

FORMATS: Final = ("text", "syslog", "access", "logfmt", "csv", "w3c", "stacktrace", "otlp")
# the others are no free text; JSON is asked for by a declared mapping
_TEMPLATED: Final = frozenset({"text", "syslog", "logfmt", "stacktrace", "otlp", "json"})
NOT_IN_FORMAT: Final = "sluice.not_in_format"  # in attributes: the declared format that the line is not in
_LOOKED_AT: Final = 64 * 1024  # characters; a longer text is free text
_PARAMETERS_MAX: Final = 4_096  # characters of JSON; a line with more keeps its template, and its body has them all

Found = Record | Sample | Refused
Reader = Callable[[Sequence[bytes], Sequence[str], Sequence[Arrival]], list[Found]]
Parse = Callable[[str, Arrival], dict[str, Any] | None]

_encode: Final = msgspec.json.Encoder().encode


class Seen(NamedTuple):
    """What a text turned out to be: an entry in a format."""

    format: str
    entry: dict[str, Any]


class Texts:
    """Reads entries that are not JSON. For one thread."""

    def __init__(self, json: JsonEntries, templates: TemplateMemory, redaction: Redaction | None = None) -> None:
        self._json = json
        self._templates = templates
        self._redaction = redaction
        self.counted: Counter[str] = Counter()  # entries by format, for whoever takes and clears it

    def reader(self, content_type: str) -> Reader | None:
        """The reader of entries of this type; None where it names no format of ours."""
        kind, _, rest = content_type.partition(";")
        kind = kind.strip().lower()
        if kind == "application/vnd.sluice.otlp+json":
            return self._otlp_records
        name = _TYPES.get(kind)
        if name is None:
            return self.records if kind.startswith("text/") else None
        return partial(self._of, name, _parser(name, kind, _parameters(rest)))

    def records(self, lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]) -> list[Found]:
        """The records of texts of no stated format."""
        return self._read(lines, record_ids, arrivals, seen_to_be, None)

    def _of(
        self, name: str, parse: Parse, lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]
    ) -> list[Found]:
        """The records of texts of a declared format."""

        def look(line: str, arrival: Arrival) -> Seen | None:
            entry = parse(line, arrival)
            return None if entry is None else Seen(name, entry)

        return self._read(lines, record_ids, arrivals, look, name)

    def _read(
        self,
        lines: Sequence[bytes],
        record_ids: Sequence[str],
        arrivals: Sequence[Arrival],
        look: Callable[[str, Arrival], Seen | None],
        declared: str | None,
    ) -> list[Found]:
        found: dict[int, Found] = {}
        bodies: dict[int, str] = {}
        formats: dict[int, str] = {}  # of those that are to be read as an entry
        entries: list[bytes] = []
        for place, (line, arrival) in enumerate(zip(lines, arrivals, strict=True)):
            try:
                body = line.decode()
            except UnicodeDecodeError as error:
                found[place] = not_utf8(error)
                continue
            if self._redaction is not None:
                body = self._redaction.text(body)  # before a template learns it
            bodies[place] = body
            seen = look(body, arrival)
            if seen is not None:
                formats[place] = seen.format
                entries.append(_encode(seen.entry))
        if entries:
            read = self._json.records(
                entries, [record_ids[place] for place in formats], [arrivals[place] for place in formats]
            )
            # what is refused only looked like an entry: a time or a duration of it can't be read
            found.update(pair for pair in zip(formats, read, strict=True) if not isinstance(pair[1], Refused))
        for place, body in bodies.items():
            form = formats[place] if place in found else "text"
            if place not in found:
                found[place] = record = text.record_of(body, record_ids[place], arrivals[place])
                if declared is not None:
                    record.attributes[NOT_IN_FORMAT] = declared
            self.counted[form] += 1
            if isinstance(known := found[place], Record):
                self._give_template(known, form, arrivals[place])
        return [found[place] for place in range(len(lines))]

    def give_templates(self, found: Sequence[Found], arrivals: Sequence[Arrival], mappings: Container[Any]) -> None:
        """Give those records that these mappings made (by their labels) the template of their body."""
        for record, arrival in zip(found, arrivals, strict=True):
            if isinstance(record, Record) and record.attributes.get(MAPPING) in mappings:
                self._give_template(record, "json", arrival)

    def _give_template(self, record: Record, form: str, arrival: Arrival) -> None:
        """The template of what a record says in free text; a stack trace has that of its message."""
        said = str(record.attributes.get("exception.message", "")) if form == "stacktrace" else record.body
        if form not in _TEMPLATED or not said or said.isspace() or TEMPLATE in record.attributes:
            return
        if self._redaction is not None and form in {"otlp", "json"}:  # the others were redacted as text
            said = self._redaction.text(said)
        seen = self._templates.see(arrival.partition, said, arrival.at_ms)
        attributes = record.attributes
        attributes[TEMPLATE] = seen.template
        attributes[TEMPLATE_ID] = seen.template_id
        if seen.parameters:
            parameters = _encode(seen.parameters).decode()
            if len(parameters) <= _PARAMETERS_MAX:
                attributes[PARAMETERS] = parameters

    def _otlp_records(
        self, lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]
    ) -> list[Found]:
        found: list[Found] = []
        for line, record_id, arrival in zip(lines, record_ids, arrivals, strict=True):
            try:
                entry = _encode(otlp.entry_of(line))
            except Refused as refused:
                found.append(refused.with_traceback(None))
                continue
            (record,) = self._json.records([entry], [record_id], [arrival])
            found.append(record)
            self.counted["otlp"] += 1
            if isinstance(record, Record):
                self._give_template(record, "otlp", arrival)
        return found


def seen_to_be(line: str, arrival: Arrival) -> Seen | None:
    """The format that a text shows, by its first characters and then by being read whole; None: it is free text."""
    if len(line) > _LOOKED_AT:
        return None
    if "\n" in line and (entry := traces.entry_of(line)) is not None:
        return Seen("stacktrace", entry)
    first = line[:1]
    if (first == "<" or line[:3] in syslog.MONTHS) and (entry := syslog.entry_of(line, arrival.observed_timestamp)):
        return Seen("syslog", entry)
    if '] "' in line[:512] and (entry := access.entry_of(line)) is not None:
        return Seen("access", entry)
    if "=" in line[:128] and first not in "{[" and (entry := logfmt.guessed(line)) is not None:
        return Seen("logfmt", entry)
    return None


_TYPES: Final = {
    "application/syslog": "syslog", "text/syslog": "syslog", "text/x-syslog": "syslog",
    "text/x-access-log": "access", "application/x-access-log": "access",
    "text/logfmt": "logfmt", "text/x-logfmt": "logfmt", "application/logfmt": "logfmt",
    "text/csv": "csv", "application/csv": "csv", "text/tab-separated-values": "csv",
    "text/x-w3c-extended-log": "w3c", "application/x-w3c-extended-log": "w3c",
    "text/x-stacktrace": "stacktrace",
}  # fmt: skip


def _parser(name: str, kind: str, parameters: dict[str, str]) -> Parse:
    if name == "syslog":
        return lambda line, arrival: syslog.entry_of(line, arrival.observed_timestamp)
    if name == "w3c":
        columns = parameters.get("columns", "").replace(",", " ").split()
        return lambda line, _: delimited.w3c(line, columns)
    if name == "csv":
        delimiter = "\t" if kind == "text/tab-separated-values" else ","
        if parameters.get("header", "").lower() == "present":
            return lambda line, _: delimited.header_and_row(line, delimiter)
        columns = delimited.columns_of(parameters.get("columns", ""), delimiter)
        return lambda line, _: delimited.row(line, columns, delimiter)
    parse = {"access": access.entry_of, "logfmt": logfmt.entry_of, "stacktrace": traces.entry_of}[name]
    return lambda line, _: parse(line)


def _parameters(text: str) -> dict[str, str]:
    """The parameters of a content-type; a quoted value may hold semicolons."""
    found: dict[str, str] = {}
    while text:
        name, _, text = text.partition("=")
        text = text.lstrip()
        if text.startswith('"'):
            value, _, text = text[1:].partition('"')
        else:
            value, _, text = text.partition(";")
        found.setdefault(name.strip(" ;").lower(), value.strip())
    return found
