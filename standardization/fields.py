"""Which key of an entry fills which field of the record: the names that sources use, in their order of precedence.

Names are compared without case, separators and brackets, so `durationSeconds`, `duration_seconds` and
`Duration (seconds)` are one name. What fills no field goes to resource or attributes under its own name.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from shared.records import Scalar
from standardization import timestamps, values

Path = tuple[str, ...]  # keys from the entry's top to a leaf

TEXT: Final = "text"
NUMBER: Final = "number"  # a number, true, false or null
ARRAY: Final = "array"  # kept as its JSON text
EMPTY: Final = "empty"  # an object without keys, likewise
MAPPING: Final = "sluice.mapping"  # in attributes: name@revision of the mapping that made the record, and never a leaf
TAKEN: Final = -1  # in place of a leaf: the name is no leaf's

Reader = Callable[[Any], Any]  # a leaf's value, but never None, to the field's; raises values.Unreadable


class Leaf(NamedTuple):
    """A value of an entry that is not an object with keys: where it lies and of which kind it is."""

    path: Path
    kind: str

    @property
    def name(self) -> str:
        return ".".join(self.path)


class Name(NamedTuple):
    """What a name stands for."""

    role: str  # one of ROLES
    rank: int  # among the names of its role, the lowest wins
    scale: str  # the unit or scale that the name itself states, or ""
    known: bool  # a value that cannot be read makes a dead letter; else the key only looked like it: an attribute


ROLES: Final = (
    "timestamp", "service_name", "event_name", "outcome", "severity", "severity_number", "body", "duration_s",
    "memory_bytes", "rows", "transfer_bytes", "trace_id", "span_id",
)  # fmt: skip

# Per role: the names that are beyond doubt, then those that also have other meanings, each in order of precedence.
_NAMES: Final[dict[str, tuple[str, str]]] = {
    "timestamp": (
        "timestamp eventtime eventtimestamp occurredat starttime startedat logtime logtimestamp datetime utctimestamp",
        "ts start started time date executedon executedat runat rundate createdat created begin endtime finishedat",
    ),
    "service_name": (
        "source servicename",
        "service system application app appname sourcesystem component program elasticsearchindex",
    ),
    "event_name": (
        "api operation operationname eventname apiname endpoint",
        "event action activity task taskname job jobname procedure function name",
    ),
    "outcome": (
        "",
        "outcome status result state success succeeded issuccess ok statuscode statustext httpstatus httpstatuscode "
        "httpresponsestatuscode responsestatus responsestatuscode responsecode exitcode returncode exitstatus",
    ),
    "severity": ("", "severitytext severity level loglevel levelname lvl levelno"),
    "severity_number": ("", "severitynumber"),
    "body": ("", "body message msg text logmessage"),
    "duration_s": (
        "duration durationtime totalduration executiontime elapsed elapsedtime processingtime",
        "runtime took timetaken responsetime latency runduration",
    ),
    "memory_bytes": (
        "memory memoryused memoryusage usedmemory memorypeak peakmemory maxmemory memorymax",
        "mem memused memusage mempeak peakmem maxmem rss maxrss peakrss ram ramused memoryfootprint",
    ),
    "rows": (
        "rows rowcount rowsprocessed rowcounttotal totalrows rowsaffected recordsprocessed recordcount itemcount "
        "itemsprocessed",
        "records items documents lines nbrows nbrecords rowsread rowswritten",
    ),
    "transfer_bytes": (
        "transferbytes bytestransferred transferred datatransferred bytesprocessed transfersize",
        "bytes bytessent bytesreceived contentlength payload payloadsize responsesize filesize datasize size volume",
    ),
    "trace_id": ("", "traceid oteltraceid"),
    "span_id": ("", "spanid otelspanid"),
}
_UNITS: Final = {
    "timestamp": timestamps.EPOCH_UNITS,
    "duration_s": values.DURATION_UNITS,
    "memory_bytes": values.SIZE_UNITS,
    "transfer_bytes": values.SIZE_UNITS,
}
_SCALES: Final = {
    "success": "flag", "succeeded": "flag", "issuccess": "flag", "ok": "flag",
    "exitcode": "exit", "returncode": "exit", "exitstatus": "exit", "levelno": "python", "severitynumber": "otel",
}  # fmt: skip


def _table() -> Iterator[tuple[str, Name]]:
    for role, (certain, loose) in _NAMES.items():
        first_loose = len(certain.split())
        for order, word in enumerate([*certain.split(), *loose.split()]):
            known = order < first_loose
            yield word, Name(role, 2 * order + 1, _SCALES.get(word, ""), known)
            for unit in _UNITS.get(role, ()):
                yield word + unit, Name(role, 2 * order, unit, known)  # a stated unit is better than an assumed one


NAMES: Final[dict[str, Name]] = {}
for _word, _name in _table():
    NAMES.setdefault(_word, _name)

# Objects that only group: what lies in them is looked up as if it lay beside them.
_WRAPPERS: Final = frozenset({
    "metrics", "metadata", "meta", "fields", "data", "event", "log", "result", "run", "job", "execution", "stats",
    "statistics", "performance", "usage", "details", "properties", "attributes", "context", "info", "payload", "record",
    "entry", "timing", "timings", "operation", "task", "activity", "refresh",
})  # fmt: skip

# Keys that describe where an entry comes from, under their OpenTelemetry names.
_RESOURCE_NAMES: Final = {
    "host": "host.name", "hostname": "host.name", "servername": "host.name", "machinename": "host.name",
    "environment": "deployment.environment.name", "env": "deployment.environment.name",
    "deploymentenvironment": "deployment.environment.name", "serviceversion": "service.version",
    "appversion": "service.version", "containerid": "container.id", "containername": "container.name",
    "container": "container.name", "pod": "k8s.pod.name", "podname": "k8s.pod.name", "region": "cloud.region",
}  # fmt: skip
_RESOURCE_PREFIXES: Final = ("resource.", "host.", "os.", "container.", "k8s.", "cloud.", "deployment.", "service.")

_NOT_IN_NAMES: Final = re.compile(r"[\W_]+")
_IN_SECONDS: Final = re.compile(r"(?:[\W_]+[sS]\W*|(?<=[a-z])S)$")  # duration_s and durationS, but not durations


def folded(name: str) -> str:
    """A name as it is compared: lower case, letters and digits only, a final unit of `_s` in full."""
    return _NOT_IN_NAMES.sub("", _IN_SECONDS.sub("seconds", name)).lower()


def meaning(path: Path) -> Name | None:
    """What a leaf at this path stands for: by its whole path, then by what is left without the wrappers around it."""
    parts = [folded(key) for key in path]
    for depth in range(len(parts)):
        found = NAMES.get("".join(parts[depth:]))
        if found is not None:
            return found
        if parts[depth] not in _WRAPPERS:
            break
    if len(parts) > 1 and parts[0] == "resource":  # OpenTelemetry: resource.service.name
        found = NAMES.get("".join(part for part in parts[1:] if part != "attributes"))
        return found if found is not None and found.role == "service_name" else None
    return None


def resource_name(leaf: Leaf) -> str | None:
    """The name in `resource` of a leaf that describes where the entry comes from, else None."""
    if leaf.name.startswith(_RESOURCE_PREFIXES):
        inner = leaf.name.removeprefix("resource.")
        return inner.removeprefix("attributes.") or leaf.name
    return _RESOURCE_NAMES.get(folded(leaf.name)) if len(leaf.path) == 1 else None


class Filling(NamedTuple):
    """Which leaf of a shape fills a role, and how it is read."""

    leaf: int  # its position in the shape
    read: Reader
    known: bool  # a value that cannot be read makes a dead letter; else the leaf is an attribute


class Assignment(NamedTuple):
    """Where each leaf of a shape goes, as positions in the shape; the last six are a declared mapping's alone."""

    roles: dict[str, Filling]  # in the order of ROLES
    contested: frozenset[str]  # roles for which there is another leaf, should this one turn out blank
    resource: dict[str, int]  # leaves by name
    attributes: dict[str, int]
    by: str = ""  # the mapping, as records and refusals show it
    defaults: Mapping[str, Any] = {}  # what a role is where no leaf gives it a value, as a reader would have it
    required: Mapping[str, str] = {}  # roles without which there is no record, each with where it was looked for
    resource_constants: Mapping[str, Scalar] = {}
    attribute_constants: Mapping[str, Scalar] = {}
    unknown_counts: bool = False  # an outcome that reads as unknown is a value, and gives way to no other leaf


def assign(leaves: Sequence[Leaf], struck: frozenset[int] = frozenset()) -> Assignment:
    """Give each role its best leaf. `struck` leaves fill none: their value turned out blank or to be something else.

    Among leaves of one rank the one nearer to the top wins, then the first by name; a loser keeps its own name in
    attributes. Two leaves of one name (a key "a.b" beside b in a) are both kept, the second as "a.b#2".
    """
    roles, contested = by_known_names(leaves, [leaf for leaf in range(len(leaves)) if leaf not in struck])
    taken = {filling.leaf for filling in roles.values()}
    resource: dict[str, int] = {}
    attributes: dict[str, int] = {MAPPING: TAKEN}  # an entry can't pose as made by a mapping
    keep(leaves, [leaf for leaf in range(len(leaves)) if leaf not in taken], resource, attributes)
    del attributes[MAPPING]
    return Assignment(roles, contested, resource, attributes)


def by_known_names(
    leaves: Sequence[Leaf], eligible: Sequence[int], roles: Sequence[str] = ROLES
) -> tuple[dict[str, Filling], frozenset[str]]:
    """What fills these roles by the names of the eligible leaves, and for which of them there are several."""
    candidates: dict[str, list[tuple[int, int, int, Name]]] = {role: [] for role in roles}
    for position in eligible:
        leaf = leaves[position]
        name = meaning(leaf.path) if leaf.kind != EMPTY else None
        if name is not None and name.role in candidates:
            candidates[name.role].append((name.rank, len(leaf.path), position, name))
    best = {role: min(found) for role, found in candidates.items() if found}
    fillings = {
        role: Filling(position, reader(name, leaves[position].kind), name.known)
        for role, (_, _, position, name) in best.items()
    }
    return fillings, frozenset(role for role, found in candidates.items() if len(found) > 1)


def keep(leaves: Sequence[Leaf], others: Sequence[int], resource: dict[str, int], attributes: dict[str, int]) -> None:
    """Put the leaves that fill nothing under their own names, beside those that are there."""
    numbers: dict[str, int] = {}
    for position in others:
        leaf = leaves[position]
        name_there = resource_name(leaf)
        if name_there is not None and name_there not in resource:
            resource[name_there] = position
        else:
            attributes[free_name(leaf.name, attributes, numbers)] = position


def free_name(name: str, taken: Mapping[str, Any], numbers: dict[str, int] | None = None) -> str:
    """The name, or with the lowest "#n" after it that makes it free.

    Who names many leaves gives all calls the same `numbers`, by name the number to begin with, which this keeps: an
    entry may hold one name some ten thousand times, and must not cost the square of that.
    """
    if name not in taken:
        return name
    number = 2 if numbers is None else numbers.get(name, 2)
    while f"{name}#{number}" in taken:
        number += 1
    if numbers is not None:
        numbers[name] = number + 1
    return f"{name}#{number}"


_READERS: Final[dict[str, dict[str, Callable[[str], Reader]]]] = {
    "timestamp": {TEXT: timestamps.of_text, NUMBER: timestamps.of_number},
    "service_name": {TEXT: lambda _: values.name_of_text, NUMBER: lambda _: values.name_of_number},
    "event_name": {TEXT: lambda _: values.name_of_text, NUMBER: lambda _: values.name_of_number},
    "outcome": {TEXT: values.outcome_of_text, NUMBER: values.outcome_of_number},
    "severity": {TEXT: values.severity_of_text, NUMBER: values.severity_of_number},
    "severity_number": {TEXT: values.severity_of_text, NUMBER: values.severity_of_number},
    "body": {TEXT: lambda _: str, NUMBER: lambda _: values.body_of_number, ARRAY: lambda _: str},
    "duration_s": {TEXT: values.duration_of_text, NUMBER: values.duration_of_number},
    "memory_bytes": {TEXT: values.size_of_text, NUMBER: values.size_of_number},
    "rows": {TEXT: lambda _: values.count_of_text, NUMBER: lambda _: values.count_of_number},
    "transfer_bytes": {TEXT: values.size_of_text, NUMBER: values.size_of_number},
    "trace_id": {TEXT: lambda _: values.identifier_of_text(32)},
    "span_id": {TEXT: lambda _: values.identifier_of_text(16)},
}


def reader(name: Name, kind: str) -> Reader:
    """The reader of a value of this kind under this name. It raises values.Unreadable; None is never given to it."""
    make = _READERS[name.role].get(kind)
    return make(name.scale) if make is not None else values.refuse(f"one value, not {kind}")
