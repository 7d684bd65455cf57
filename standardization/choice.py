"""Which declared mapping an entry has, where its shape alone does not say: by its source, and by values in it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shared.records import Record, Sample
from standardization import fields
from standardization.declared import DeclaredMapping, Mappings
from standardization.fields import NUMBER, TEXT, Leaf, Path, meaning
from standardization.mapping import Arrival, BatchMapper, Plan
from standardization.values import Memo, Unreadable

# of one shape; an entry chooses by what it says, so it must not choose how much is kept
_PLANS_KEPT: Final = 8
_KEPT: Final = 256  # values, in all the choices that are remembered: each choice is one of every leaf it depends on
_NONE: Final = -1  # no mapping: known names
_OTHER: Final = object()  # any value that no condition asks for


class Tally:
    """What mappings have done since it was last taken."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()  # by name of the mapping
        self.dropped: Counter[str] = Counter()  # values that were declared to be dropped, likewise

    def taken(self) -> tuple[Counter[str], Counter[str]]:
        """Both, which begin anew."""
        records, dropped = self.records, self.dropped
        self.records, self.dropped = Counter(), Counter()
        return records, dropped


def record_plan(leaves: tuple[Leaf, ...], mappings: Mappings, tally: Tally) -> "Plan | Choice":
    """What becomes of entries of this shape that are records."""
    candidates = mappings.candidates(leaves)
    return Choice(leaves, candidates, tally) if candidates else Plan(leaves)


class Choice:
    """The plans of a shape that mappings can be for, one for each and one for none. Used like a mapping.Plan."""

    def __init__(self, leaves: tuple[Leaf, ...], candidates: Sequence[DeclaredMapping], tally: Tally) -> None:
        self._leaves = leaves
        self._candidates = candidates
        self._tally = tally
        at = {leaf.path: position for position, leaf in enumerate(leaves)}
        # of each candidate: the leaves that may name the entry's source, and those that its conditions are about
        usual = _source_leaves(leaves)
        self._sources = [_named_by(mapping, leaves, at, usual) for mapping in candidates]
        self._conditions = [[(at[one.path], one) for one in mapping.when if one.values] for mapping in candidates]
        named = {leaf for found in self._sources for leaf in found}
        asked: dict[int, set[Any]] = {}
        for found in self._conditions:
            for leaf, condition in found:
                asked.setdefault(leaf, set()).update(condition.values)
        self._looked_at = sorted(named | asked.keys())
        # of a leaf that only conditions are about, no more is looked at than which of their values it has
        self._asked = {leaf: frozenset(values) for leaf, values in asked.items() if leaf not in named}
        self._chosen: Memo[tuple[Any, ...], int] = Memo(self._choose, max(1, _KEPT // (1 + len(self._looked_at))))
        self._plans: dict[int, Plan] = {}
        self._mappers: dict[int, BatchMapper] = {}
        self._drops: dict[int, int] = {}  # by plan: how many values it drops

    def settle(self, values: list[Any], record_id: str, arrival: Arrival) -> Record:
        """The record of an entry, by its mapping. Raises Refused."""
        seen = [
            _OTHER if leaf in self._asked and values[leaf] not in self._asked[leaf] else values[leaf]
            for leaf in self._looked_at
        ]
        classes = [values[leaf].__class__ for leaf in self._looked_at if self._leaves[leaf].kind == NUMBER]
        chosen = self._chosen[arrival.source, *seen, *classes]
        record = self._plan(chosen).settle(values, record_id, arrival)
        self._count(chosen, 1)
        return record

    def mapper(self, attribute_of: Sequence[str]) -> BatchMapper:
        """A mapper of objects that have each leaf as the (dotted) attribute listed. It does not settle."""
        key = self._key(attribute_of)
        chosen_by = self._chosen

        def mapped(
            entries: Sequence[Any], record_ids: Sequence[str], arrivals: Sequence[Arrival]
        ) -> tuple[list[Record | Sample], list[int]]:
            chosen = [chosen_by[one] for one in key(entries, arrivals)]
            first = chosen[0] if chosen else _NONE
            if chosen.count(first) == len(chosen):
                records, unreadable = self._mapper(first, attribute_of)(entries, record_ids, arrivals)
                self._count(first, len(records))
                return records, unreadable
            return self._sorted(chosen, attribute_of, entries, record_ids, arrivals)

        return mapped

    def _sorted(
        self,
        chosen: Sequence[int],
        attribute_of: Sequence[str],
        entries: Sequence[Any],
        record_ids: Sequence[str],
        arrivals: Sequence[Arrival],
    ) -> tuple[list[Record | Sample], list[int]]:
        """Entries of several mappings, each mapping's together, their records in the entries' order."""
        found: list[Record | Sample | None] = [None] * len(entries)
        for one in set(chosen):
            ours = [position for position, other in enumerate(chosen) if other == one]
            records, unreadable = self._mapper(one, attribute_of)(
                [entries[position] for position in ours],
                [record_ids[position] for position in ours],
                [arrivals[position] for position in ours],
            )
            self._count(one, len(records))
            passed = set(unreadable)
            read = (position for at, position in enumerate(ours) if at not in passed)
            for position, record in zip(read, records, strict=True):
                found[position] = record
        return [one for one in found if one is not None], [at for at, one in enumerate(found) if one is None]

    def _key(self, attribute_of: Sequence[str]) -> Callable[[Sequence[Any], Sequence[Arrival]], list[tuple[Any, ...]]]:
        """What the choice depends on, of each entry: written out, for it is done for every entry.

        With the class of a number: 1 and true are equal, and would have one place among what is remembered.
        """
        value_of = {leaf: f"e.{attribute_of[leaf]}" for leaf in self._looked_at}
        values = [
            f"({value} if {value} in asked[{leaf}] else other)" if leaf in self._asked else value
            for leaf, value in value_of.items()
        ]
        classes = [f"{value}.__class__" for leaf, value in value_of.items() if self._leaves[leaf].kind == NUMBER]
        parts = ", ".join(["a.source", *values, *classes])
        code = f"lambda entries, arrivals: [({parts},) for e, a in zip(entries, arrivals)]"
        made: Callable[[Sequence[Any], Sequence[Arrival]], list[tuple[Any, ...]]]
        made = eval(code, {"asked": self._asked, "other": _OTHER})  # noqa: S307 - the code is ours
        return made

    def _choose(self, key: tuple[Any, ...]) -> int:
        """Which of the candidates an entry has, from what it depends on."""
        declared, *seen = key
        value_of = dict(zip(self._looked_at, seen, strict=False))  # the classes of numbers come after
        for number, mapping in enumerate(self._candidates):
            sources = (declared, self._own_source(self._sources[number], value_of))
            if mapping.is_for(sources) and all(
                condition.holds(value_of[leaf]) for leaf, condition in self._conditions[number]
            ):
                return number
        return _NONE

    def _own_source(self, leaves: Sequence[int], value_of: Mapping[int, Any]) -> str | None:
        """The source that the entry names."""
        for leaf in leaves:
            value = value_of[leaf]
            try:
                name: str | None = None if value is None else _READERS[self._leaves[leaf].kind](value)
            except Unreadable:
                continue
            if name is not None:
                return name
        return None

    def _plan(self, chosen: int) -> Plan:
        plan = self._plans.get(chosen)
        if plan is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
                self._mappers.clear()
            if chosen == _NONE:
                plan = Plan(self._leaves)
            else:
                mapping = self._candidates[chosen]
                plan = Plan(self._leaves, assign=mapping.assign)
                self._drops[chosen] = sum(map(mapping.drops, self._leaves))
            self._plans[chosen] = plan
        return plan

    def _mapper(self, chosen: int, attribute_of: Sequence[str]) -> BatchMapper:
        mapper = self._mappers.get(chosen)
        if mapper is None:
            made = self._plan(chosen).mapper(attribute_of)
            mapper = self._mappers[chosen] = made
        return mapper

    def _count(self, chosen: int, records: int) -> None:
        if chosen != _NONE and records:
            name = self._candidates[chosen].name
            self._tally.records[name] += records
            if self._drops[chosen]:
                self._tally.dropped[name] += records * self._drops[chosen]


def _named_by(
    mapping: DeclaredMapping, leaves: Sequence[Leaf], at: Mapping[Path, int], usual: Sequence[int]
) -> Sequence[int]:
    """The leaves that may name the source of a mapping's entries, the best first: where it says, else the usual."""
    if not mapping.sources:
        return ()
    service = mapping.fields.get("service_name")
    if service is None or not service.paths:
        return usual
    return [at[path] for path in service.paths if path in at and leaves[at[path]].kind in (TEXT, NUMBER)]


def _source_leaves(leaves: Sequence[Leaf]) -> list[int]:
    """The leaves that may name the entry's source by their names, the best first."""
    found = []
    for position, leaf in enumerate(leaves):
        name = meaning(leaf.path) if leaf.kind in (TEXT, NUMBER) else None
        if name is not None and name.role == "service_name":
            found.append((name.rank, len(leaf.path), position))
    return [position for _, _, position in sorted(found)]


_READERS: Final = {
    kind: fields.reader(fields.Name("service_name", 0, "", known=False), kind) for kind in (TEXT, NUMBER)
}
