"""A declared mapping: for which entries it is, and which leaf of such an entry fills which field. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.records import Scalar
from standardization.fields import (
    EMPTY,
    MAPPING,
    ROLES,
    TAKEN,
    Assignment,
    Filling,
    Leaf,
    Path,
    Reader,
    by_known_names,
    free_name,
    keep,
)


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field of the record comes from, and how it is read."""

    paths: tuple[Path, ...]  # the first that has a value fills it
    reader: Callable[[str], Reader]  # by a leaf's kind
    known: bool  # a value that cannot be read makes a dead letter; else it is an attribute
    required: bool
    default: Any = None  # what the field is where no path has a value, as a reader would have it


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands in resource or in attributes under a name: the first of the paths that is there, or a constant."""

    paths: tuple[Path, ...]
    value: Scalar = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What an entry must show: that there is something at a path or not, or that one of these values is."""

    path: Path
    values: tuple[Scalar, ...] = ()
    exists: bool = True

    def may_hold(self, leaves: Sequence[Leaf]) -> bool:
        """Whether it can hold for entries of these leaves."""
        if self.values:
            return any(leaf.path == self.path for leaf in leaves)
        return any(_within(leaf.path, self.path) for leaf in leaves) is self.exists

    def holds(self, value: Scalar) -> bool:
        return any(value == wanted and _kind(value) is _kind(wanted) for wanted in self.values)


@dataclass(frozen=True, slots=True)
class DeclaredMapping:
    """One mapping of a declaration."""

    name: str
    revision: str
    file: str
    line: int
    sources: tuple[str, ...]  # names, `*` and `?` as in file names; empty: of whatever source
    wanted: re.Pattern[str] | None  # the same; None: of whatever source
    when: tuple[Condition, ...]  # all must hold
    fields: Mapping[str, Field]  # by role
    resource: Mapping[str, Kept]
    attributes: Mapping[str, Kept]
    dropped: tuple[Path, ...]  # what lies there, and within
    digest: str = ""  # of what it declares, so that a change without a new revision is seen
    template: bool = False  # the message of its records gets a template

    @property
    def label(self) -> str:
        """As records and refusals show it."""
        return f"{self.name}@{self.revision}"

    def may_fit(self, leaves: Sequence[Leaf]) -> bool:
        """Whether it can be for an entry of these leaves, as far as they tell."""
        return all(condition.may_hold(leaves) for condition in self.when)

    def is_for(self, sources: Sequence[str | None]) -> bool:
        """Whether it is for an entry that has one of these sources."""
        return self.wanted is None or any(source is not None and self.wanted.match(source) for source in sources)

    def drops(self, leaf: Leaf) -> bool:
        return any(_within(leaf.path, path) for path in self.dropped)

    def assign(self, leaves: Sequence[Leaf], struck: frozenset[int] = frozenset()) -> Assignment:
        """Where each leaf goes: as the mapping says, else by known names, else under its own name.

        A field that the mapping names is filled by it alone. A leaf that it names fills no other field by its name.
        """
        candidates = self._candidates(leaves)
        roles: dict[str, Filling] = {}
        contested: set[str] = set()
        for role, found in candidates.items():
            if left := [position for position in found if position not in struck]:
                field = self.fields[role]
                roles[role] = Filling(left[0], field.reader(leaves[left[0]].kind), field.known)
                if len(left) > 1:
                    contested.add(role)
        gone = {position for position, leaf in enumerate(leaves) if self.drops(leaf)}
        resource_constants = _constants(self.resource)
        attribute_constants = {**_constants(self.attributes), MAPPING: self.label}
        resource = _renamed(self.resource, resource_constants, leaves, gone)
        attributes = _renamed(self.attributes, attribute_constants, leaves, gone)
        named = {*gone, *resource.values(), *attributes.values()}.union(*candidates.values())
        eligible = [position for position in range(len(leaves)) if position not in named and position not in struck]
        usual, usually_contested = by_known_names(leaves, eligible, self._undeclared)
        roles = {role: filling for role in ROLES if (filling := roles.get(role) or usual.get(role)) is not None}
        placed = {filling.leaf for filling in roles.values()} | {*gone, *resource.values(), *attributes.values()}
        keep(leaves, [position for position in range(len(leaves)) if position not in placed], resource, attributes)
        return Assignment(
            roles,
            usually_contested | contested,
            {name: leaf for name, leaf in resource.items() if leaf != TAKEN},
            {name: leaf for name, leaf in attributes.items() if leaf != TAKEN},
            self.label,
            {role: field.default for role, field in self.fields.items() if field.default is not None},
            {role: _listed(field.paths) for role, field in self.fields.items() if field.required},
            resource_constants,
            attribute_constants,
            "outcome" in self.fields,
        )

    def _candidates(self, leaves: Sequence[Leaf]) -> dict[str, list[int]]:
        """Of each field the leaves that may fill it, in order."""
        at = {leaf.path: position for position, leaf in enumerate(leaves) if leaf.kind != EMPTY}
        return {role: [at[path] for path in field.paths if path in at] for role, field in self.fields.items()}

    @property
    def _undeclared(self) -> list[str]:
        """The roles that known names fill; who says what the severity is says it of its number, too."""
        return [
            role
            for role in ROLES
            if role not in self.fields and not (role == "severity_number" and "severity" in self.fields)
        ]


def _constants(declared: Mapping[str, Kept]) -> dict[str, Scalar]:
    return {name: kept.value for name, kept in declared.items() if not kept.paths}


def _renamed(
    declared: Mapping[str, Kept], constants: Mapping[str, Scalar], leaves: Sequence[Leaf], gone: set[int]
) -> dict[str, int]:
    """The leaves that are declared to stand under other names; of an object all that lies in it.

    The names of constants are in it, too, so that every other gets out of their way.
    """
    found = dict.fromkeys(constants, TAKEN)
    numbers: dict[str, int] = {}
    placed = set(gone)
    for name, kept in declared.items():
        for path in kept.paths:
            under = [
                position for position, leaf in enumerate(leaves) if _within(leaf.path, path) and position not in placed
            ]
            for position in under:
                inner = ".".join((name, *leaves[position].path[len(path) :]))
                found[free_name(inner, found, numbers)] = position
            placed.update(under)
            if under:
                break
    return found


def _within(path: Path, outer: Path) -> bool:
    return path[: len(outer)] == outer


def _listed(paths: Sequence[Path]) -> str:
    return " or ".join(".".join(path) for path in paths) or "nothing"


def _kind(value: Scalar) -> type:
    """Numbers are equal as numbers, but true is no 1."""
    return float if value.__class__ is int else value.__class__


class Mappings(tuple[DeclaredMapping, ...]):
    """The mappings that are active, in their order: the first that fits an entry is the one that makes its record."""

    __slots__ = ()

    def candidates(self, leaves: Sequence[Leaf]) -> list[DeclaredMapping]:
        """Those that can be for an entry of these leaves."""
        return [mapping for mapping in self if mapping.may_fit(leaves)]


NO_MAPPINGS: Final = Mappings()
