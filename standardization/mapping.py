"""From the leaves of an entry to its record, by a plan made once for each shape of entry.

A plan is written out as Python code, as dataclasses are: one statement per field that the shape fills, none for the
others. For a shape that comes often the code reads a struct's attributes; until then it is code that all shapes with
the same roles share, and reads a tuple. `_body` writes what both do, so they cannot differ.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from textwrap import indent
from typing import Any, Final, NamedTuple

import msgspec

from shared.errors import Reason
from shared.records import Outcome, Record, Sample
from standardization.fields import NUMBER, ROLES, Assignment, Leaf, assign, free_name
from standardization.refused import Refused, cut
from standardization.values import Unreadable

UNKNOWN: Final = "unknown"  # the source or operation of an entry that names none
DECLARED_SOURCE: Final = "sluice.source"  # in resource: the declared source, where the entry names another
SEVERITY_OF_OUTCOME: Final = {
    Outcome.SUCCESS.value: (9, "INFO"),
    Outcome.FAILURE.value: (17, "ERROR"),
    Outcome.TIMEOUT.value: (17, "ERROR"),
    Outcome.CANCELLED.value: (13, "WARN"),
    Outcome.SKIPPED.value: (9, "INFO"),
    Outcome.UNKNOWN.value: (9, "INFO"),
}
_KEPT_DEEP, _KEPT_WIDE = 3, 4  # plans without a leaf that are kept with a shape: at most 4 + 16 + 64
_SHOWN: Final = 60  # characters of a key or a value in a refusal


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """What is known of entries besides their bytes and their record_ids: all entries of one message share it."""

    observed_timestamp: str  # RFC 3339, UTC
    source: str | None = None  # declared source
    run_id: str | None = None
    origin: str | None = None  # only on a replay
    partition: int = 0  # of raw-logs
    at_ms: int = 0  # observed_timestamp, ms since the epoch


def unmapped(
    record_id: str,
    arrival: Arrival,
    body: str,
    severity: tuple[int, str] = SEVERITY_OF_OUTCOME[Outcome.UNKNOWN.value],
    original_bytes: int | None = None,
) -> Record:
    """The record of an entry of which nothing is known but how it arrived, and a text."""
    return Record(
        record_id=record_id,
        timestamp=arrival.observed_timestamp,
        observed_timestamp=arrival.observed_timestamp,
        service_name=arrival.source or UNKNOWN,
        event_name=UNKNOWN,
        outcome=Outcome.UNKNOWN.value,
        run_id=arrival.run_id,
        origin=arrival.origin,
        severity_number=severity[0],
        severity_text=severity[1],
        body=body,
        original_bytes=original_bytes,
    )


# entry, record_id, arrival; raises Unreadable
Mapper = Callable[[Any, str, Arrival], Record]
# entries, their record_ids, their arrivals: what those become that can be read, and the positions of the others
BatchMapper = Callable[[Sequence[Any], Sequence[str], Sequence[Arrival]], tuple[list[Record | Sample], list[int]]]


# leaves, those that fill no field: where each goes
Assign = Callable[[Sequence[Leaf], frozenset[int]], Assignment]


class Plan:
    """What becomes of each leaf of one shape; `struck` leaves fill no field."""

    def __init__(self, leaves: tuple[Leaf, ...], struck: frozenset[int] = frozenset(), assign: Assign = assign) -> None:
        where = assign(leaves, struck)
        self._leaves = leaves
        self._struck = struck
        self._assign = assign
        self._where = where
        self._without: dict[int, Plan] = {}
        self._filled = {role: filling.leaf for role, filling in where.roles.items()}
        self._unknown_gives_way = "outcome" in where.contested and not where.unknown_counts
        self._rules = _Rules(
            where.contested, frozenset(where.defaults), frozenset(where.required), self._unknown_gives_way
        )
        outcome = self._filled.get("outcome")
        named = {**where.attributes, **where.attribute_constants}
        self._outcome_name = "" if outcome is None else free_name(leaves[outcome].name, named)
        shared_code = _shared_code(tuple(self._filled), self._rules)
        self._map: Mapper = self._bound(shared_code)
        self._pick = itemgetter(*self._filled.values(), -1, -1)  # always a tuple

    def settle(self, values: list[Any], record_id: str, arrival: Arrival) -> Record:
        """The record of an entry, from the values of the shape's leaves.

        A contested role whose best leaf is blank (or unknown, where only a known name says how it ended), and a name
        that only looked like a field, give way: the leaf becomes an attribute, and the next best fills the role.
        Raises Refused where a known field cannot be read.
        """
        plan = self
        while True:
            try:
                return plan._map(plan._shared_entry(values), record_id, arrival)
            except Unreadable:
                plan = plan._after(values)

    def mapper(self, attribute_of: Sequence[str]) -> BatchMapper:
        """A mapper of objects that have each leaf as the (dotted) attribute listed. It does not settle."""
        expressions = {role: f"e.{attribute_of[leaf]}" for role, leaf in self._filled.items()}
        nullable = {role for role, leaf in self._filled.items() if self._leaves[leaf].kind == NUMBER}
        resource, attributes = (
            "{" + ", ".join([
                *(f"{name!r}: e.{attribute_of[leaf]}" for name, leaf in found.items()),
                *(f"{name!r}: {value!r}" for name, value in constants.items()),
            ]) + "}"
            for found, constants in (
                (self._where.resource, self._where.resource_constants),
                (self._where.attributes, self._where.attribute_constants),
            )
        )  # fmt: skip
        body = _body(expressions, nullable, self._rules, resource, attributes)
        mapper: BatchMapper = self._bound(compile(_BATCH.format(body=indent(body, 12 * " ")), "<plan>", "exec"))
        return mapper

    def _bound(self, code: Any) -> Any:
        """The function `mapped` that this code defines, with this plan's readers."""
        names: dict[str, Any] = {
            "DECLARED_SOURCE": DECLARED_SOURCE,
            "SEVERITY_OF_OUTCOME": SEVERITY_OF_OUTCOME,
            "UNKNOWN": UNKNOWN,
            "Record": Record,
            "Unreadable": Unreadable,
            "free_name": free_name,
            "outcome_name": self._outcome_name,
            **{f"read_{role}": filling.read for role, filling in self._where.roles.items()},
            **{f"default_{role}": value for role, value in self._where.defaults.items()},
        }
        exec(code, names)  # noqa: S102 - the code is ours; of the entry it holds only quoted names
        return names["mapped"]

    def _shared_entry(self, values: list[Any]) -> tuple[Any, ...]:
        where = self._where
        *filled, _, _ = self._pick([*values, None])
        resource = {name: values[leaf] for name, leaf in where.resource.items()}
        attributes = {name: values[leaf] for name, leaf in where.attributes.items()}
        return (*filled, {**resource, **where.resource_constants}, {**attributes, **where.attribute_constants})

    def _after(self, values: list[Any]) -> "Plan":
        """The plan for an entry that this one could not read: without the leaf that was at fault."""
        where = self._where
        for role, (leaf, read, known) in where.roles.items():
            try:
                found = None if values[leaf] is None else read(values[leaf])
            except Unreadable as error:
                if known:
                    raise self._invalid(leaf, values[leaf], str(error)) from None
                at_fault = True
            else:
                gives_way = found is None or (role == "outcome" and self._unknown_gives_way and found[0] == UNKNOWN)
                at_fault = role in where.contested and gives_way
                if found is None and not at_fault and role in where.required:
                    raise self._missing(role)
            if at_fault:
                plan = self._without.get(leaf) or Plan(self._leaves, self._struck | {leaf}, self._assign)
                if len(self._struck) < _KEPT_DEEP and len(self._without) < _KEPT_WIDE:
                    self._without[leaf] = plan
                return plan
        for role in where.required:
            if role not in where.roles:
                raise self._missing(role)
        raise AssertionError("a plan that could not read its leaves must have one at fault")

    def _invalid(self, leaf: int, value: Any, accepted: str) -> Refused:
        shown = repr(value[:_SHOWN] if isinstance(value, str) else value)
        text = f"{cut(self._leaves[leaf].name, _SHOWN)} is {cut(shown, _SHOWN)}; accepted: {accepted}"
        return Refused(Reason.INVALID_FIELD, f"mapping {self._where.by}: {text}" if self._where.by else text)

    def _missing(self, role: str) -> Refused:
        looked = self._where.required[role]
        return Refused(Reason.INVALID_FIELD, f"mapping {self._where.by}: {role} is required, and {looked} has no value")


class _Rules(NamedTuple):
    """What the code of a plan depends on beside which roles are filled."""

    contested: frozenset[str]
    defaults: frozenset[str]
    required: frozenset[str]
    unknown_gives_way: bool


_ONE: Final = """
def mapped(e, record_id, arrival):
    observed, declared = arrival.observed_timestamp, arrival.source
    run_id, origin = arrival.run_id, arrival.origin
{body}
    return record
"""
_BATCH: Final = """
def mapped(entries, record_ids, arrivals):
    records, unreadable = [], []
    add = records.append
    latest = None
    for position, (e, record_id, arrival) in enumerate(zip(entries, record_ids, arrivals)):
        if arrival is not latest:
            latest, observed, declared = arrival, arrival.observed_timestamp, arrival.source
            run_id, origin = arrival.run_id, arrival.origin
        try:
{body}
        except Unreadable:
            unreadable.append(position)
        else:
            add(record)
    return records, unreadable
"""


@lru_cache(maxsize=1024)
def _shared_code(filled: tuple[str, ...], rules: _Rules) -> Any:
    """The code for all shapes with these roles filled: the entry is a tuple of their values, resource, attributes."""
    body = _body({role: f"e[{slot}]" for slot, role in enumerate(filled)}, set(filled), rules, "e[-2]", "e[-1]")
    return compile(_ONE.format(body=indent(body, 4 * " ")), "<plan>", "exec")


def _body(expressions: Mapping[str, str], nullable: set[str], rules: _Rules, resource: str, attributes: str) -> str:
    """The statements that make `record` of entry `e`, whose fields are found by these expressions.

    What no entry of the shape has is written as a constant, and what does not depend on the entry is not looked at.
    """
    lines = [f"resource = {resource}", f"attributes = {attributes}"]
    for role in ROLES:
        if role in expressions:
            expression = expressions[role]
            if role in nullable:
                lines.append(f"{role} = None if (value := {expression}) is None else read_{role}(value)")
            else:
                lines.append(f"{role} = {expression}" if role == "body" else f"{role} = read_{role}({expression})")
            if role in rules.contested or role in rules.required:
                unknown = " or outcome[0] == UNKNOWN" if role == "outcome" and rules.unknown_gives_way else ""
                lines += [f"if {role} is None{unknown}:", "    raise Unreadable"]
            elif role in rules.defaults:
                lines += [f"if {role} is None:", f"    {role} = default_{role}"]
        elif role in rules.required:
            lines.append("raise Unreadable")
        elif role in rules.defaults:
            lines.append(f"{role} = default_{role}")
    filled = expressions.keys() | rules.defaults
    if "service_name" in filled:
        lines += [
            "if service_name is None:",
            "    service_name = declared or UNKNOWN",
            "elif declared and declared != service_name:",
            "    resource[free_name(DECLARED_SOURCE, resource)] = declared",
        ]
    else:
        lines.append("service_name = declared or UNKNOWN")
    if "outcome" in filled:
        lines += ["if outcome is None:", "    outcome = UNKNOWN", "else:", "    outcome, stays = outcome"]
        if "outcome" in expressions:
            lines += ["    if stays:", f"        attributes[outcome_name] = {expressions['outcome']}"]
    else:
        lines.append("outcome = UNKNOWN")
    severities = [role for role in ("severity", "severity_number") if role in filled]
    lines.append(f"level, text = {' or '.join([*severities, 'SEVERITY_OF_OUTCOME[outcome]'])}")
    if "severity_number" in severities:
        lines += ["if severity_number is not None:", "    level = severity_number[0]"]
    fields = {role: role if role in filled else "None" for role in ROLES}
    timestamp = "timestamp or observed" if "timestamp" in filled else "observed"
    event_name = "event_name or UNKNOWN" if "event_name" in filled else "UNKNOWN"
    lines += [
        "record = Record(",
        f"    record_id, {timestamp}, observed, service_name, {event_name}, outcome, run_id, origin, level, text,",
        f"    {', '.join(fields[role] for role in _MEASURES)}, resource, attributes,",
        ")",
    ]
    return "\n".join(lines)


_MEASURES: Final = ("body", "duration_s", "memory_bytes", "rows", "transfer_bytes", "trace_id", "span_id")
