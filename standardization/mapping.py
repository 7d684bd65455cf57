"""From the leaves of an entry to its record, by a plan made once for each shape of entry.

A plan is written out as Python code, as dataclasses are: one statement per field that the shape fills, none for the
others. For a shape that comes often the code reads a struct's attributes; until then it is code that all shapes with
the same roles share, and reads a tuple. `_code` writes both, so they cannot differ.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import msgspec

from shared.errors import Reason
from shared.records import Outcome, Record
from standardization.fields import NUMBER, ROLES, Leaf, Reader, assign, free_name, reader
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
    """What is known of an entry besides its bytes."""

    place: str  # "<topic id, 8 hex>-<partition>-<offset>"; the record_id is f"{place}-{index in frame}"
    observed_timestamp: str  # RFC 3339, UTC
    source: str | None = None  # declared source
    run_id: str | None = None
    origin: str | None = None  # only on a replay
    content_type: str | None = None


Mapper = Callable[[Any, str, Arrival], Record]  # an entry, its record_id, its arrival; raises Unreadable


class Plan:
    """What becomes of each leaf of one shape; `struck` leaves fill no field."""

    def __init__(self, leaves: tuple[Leaf, ...], struck: frozenset[int] = frozenset()) -> None:
        where = assign(leaves, struck)
        self._leaves = leaves
        self._struck = struck
        self._without: dict[int, Plan] = {}
        self._filled = {role: leaf for role, leaf in zip(ROLES, where.roles, strict=True) if leaf is not None}
        self._names = {role: name for role, name in zip(ROLES, where.names, strict=True) if name is not None}
        self._contested = frozenset(ROLES[slot] for slot in where.contested)
        self._readers = {role: reader(self._names[role], leaves[leaf].kind) for role, leaf in self._filled.items()}
        self._resource = dict(where.resource)
        self._attributes = dict(where.attributes)
        outcome = self._filled.get("outcome")
        self._outcome_name = "" if outcome is None else free_name(leaves[outcome].name, self._attributes)
        shared_code = _shared_code(tuple(self._filled), self._contested)
        self._map = _bound(shared_code, self._readers, self._outcome_name)
        self._pick = itemgetter(*self._filled.values(), -1, -1)  # always a tuple

    def settle(self, values: list[Any], record_id: str, arrival: Arrival) -> Record:
        """The record of an entry, from the values of the shape's leaves.

        A contested role whose best leaf is blank, and a name that only looked like a field, give way: the leaf
        becomes an attribute, and the next best fills the role. Raises Refused where a known field cannot be read.
        """
        plan = self
        while True:
            try:
                return plan._map(plan._shared_entry(values), record_id, arrival)
            except Unreadable:
                plan = plan._after(values)

    def mapper(self, attribute_of: Sequence[str]) -> Mapper:
        """A mapper of objects that have each leaf as the (dotted) attribute listed. It does not settle."""
        expressions = {role: f"e.{attribute_of[leaf]}" for role, leaf in self._filled.items()}
        nullable = {role for role, leaf in self._filled.items() if self._leaves[leaf].kind == NUMBER}
        resource, attributes = (
            "{" + ", ".join(f"{name!r}: e.{attribute_of[leaf]}" for name, leaf in found.items()) + "}"
            for found in (self._resource, self._attributes)
        )
        code = _code(expressions, nullable, self._contested, resource, attributes)
        return _bound(compile(code, "<plan>", "exec"), self._readers, self._outcome_name)

    def _shared_entry(self, values: list[Any]) -> tuple[Any, ...]:
        *filled, resource, attributes = self._pick([*values, None])
        resource = {name: values[leaf] for name, leaf in self._resource.items()}
        attributes = {name: values[leaf] for name, leaf in self._attributes.items()}
        return (*filled, resource, attributes)

    def _after(self, values: list[Any]) -> "Plan":
        """The plan for an entry that this one could not read: without the leaf that was at fault."""
        for role, leaf in self._filled.items():
            try:
                found = None if values[leaf] is None else self._readers[role](values[leaf])
                at_fault = role in self._contested and (found is None or (role == "outcome" and found[0] == UNKNOWN))
            except Unreadable as error:
                if self._names[role].known:
                    raise _invalid(self._leaves[leaf], values[leaf], str(error)) from None
                at_fault = True
            if at_fault:
                plan = self._without.get(leaf) or Plan(self._leaves, self._struck | {leaf})
                if len(self._struck) < _KEPT_DEEP and len(self._without) < _KEPT_WIDE:
                    self._without[leaf] = plan
                return plan
        raise AssertionError("a plan that could not read its leaves must have one at fault")


def _invalid(leaf: Leaf, value: Any, accepted: str) -> Refused:
    shown = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return Refused(Reason.INVALID_FIELD, f"{cut(leaf.name, _SHOWN)} is {cut(shown, _SHOWN)}; accepted: {accepted}")


@lru_cache(maxsize=1024)
def _shared_code(filled: tuple[str, ...], contested: frozenset[str]) -> Any:
    """The code for all shapes with these roles filled: the entry is a tuple of their values, resource, attributes."""
    code = _code({role: f"e[{slot}]" for slot, role in enumerate(filled)}, set(filled), contested, "e[-2]", "e[-1]")
    return compile(code, "<plan>", "exec")


def _code(
    expressions: Mapping[str, str], nullable: set[str], contested: frozenset[str], resource: str, attributes: str
) -> str:
    """The text of `record`: the record of entry `e`, whose fields are found by these expressions."""
    lines = [
        "def record(e, record_id, arrival):",
        "    observed, declared = arrival.observed_timestamp, arrival.source",
        f"    resource = {resource}",
        f"    attributes = {attributes}",
    ]
    for role in ROLES:
        expression = expressions.get(role)
        if expression is None:
            lines.append(f"    {role} = None")
        elif role in nullable:
            lines.append(f"    {role} = None if (value := {expression}) is None else read_{role}(value)")
        else:
            lines.append(f"    {role} = {expression}" if role == "body" else f"    {role} = read_{role}({expression})")
        if role in contested:
            unknown = " or outcome[0] == UNKNOWN" if role == "outcome" else ""
            lines += [f"    if {role} is None{unknown}:", "        raise Unreadable"]
    lines += [
        "    if service_name is None:",
        "        service_name = declared or UNKNOWN",
        "    elif declared and declared != service_name:",
        "        resource[free_name(DECLARED_SOURCE, resource)] = declared",
        "    if outcome is None:",
        "        outcome = UNKNOWN",
        "    else:",
        "        outcome, stays = outcome",
        "        if stays:",
        f"            attributes[outcome_name] = {expressions.get('outcome')}",
        "    level, text = severity or severity_number or SEVERITY_OF_OUTCOME[outcome]",
        "    if severity_number is not None:",
        "        level = severity_number[0]",
        "    return Record(",
        "        record_id, timestamp or observed, observed, service_name, event_name or UNKNOWN, outcome,",
        "        arrival.run_id, arrival.origin, level, text, body, duration_s, memory_bytes, rows, transfer_bytes,",
        "        trace_id, span_id,",
        "        resource, attributes,",
        "    )",
    ]
    return "\n".join(lines)


def _bound(code: Any, readers: Mapping[str, Reader], outcome_name: str) -> Mapper:
    """The function that this code defines, with these readers."""
    names: dict[str, Any] = {
        "DECLARED_SOURCE": DECLARED_SOURCE,
        "SEVERITY_OF_OUTCOME": SEVERITY_OF_OUTCOME,
        "UNKNOWN": UNKNOWN,
        "Record": Record,
        "Unreadable": Unreadable,
        "free_name": free_name,
        "outcome_name": outcome_name,
        **{f"read_{role}": read for role, read in readers.items()},
    }
    exec(code, names)  # noqa: S102 - the code is ours; of the entry it holds only quoted names
    mapper: Mapper = names["record"]
    return mapper
