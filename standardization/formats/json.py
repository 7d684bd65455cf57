"""JSON entries: from bytes to the leaves of one object, refusing what would lose or forge something.

The first entries of a shape (its keys, and which of their values are text, numbers or objects) are decoded into
dictionaries and examined leaf by leaf. A shape that comes again gets a struct of its own, which msgspec decodes and
checks in one step; an entry that does not fit it is examined again.

Duplicate keys are found by counting quotes. Each key and each text has two that are not escaped, and decoding keeps
one of several equal keys, so an object has a duplicate key exactly when its bytes hold more quotes than what was
decoded from them accounts for. The number of quotes selects the struct, which therefore never meets a duplicate.
"""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec

from shared.errors import Reason
from shared.records import Record, Sample
from standardization.choice import Choice, Tally, record_plan
from standardization.declared import NO_MAPPINGS, Mappings
from standardization.fields import ARRAY, EMPTY, NUMBER, TEXT, Leaf, Path
from standardization.formats.gpu import GpuPlan, plan_of
from standardization.mapping import Arrival, BatchMapper, Plan
from standardization.refused import Refused, cut, not_utf8

MAX_DEPTH: Final = 64  # objects and arrays within each other, the entry itself included
_COMPILE_AT: Final = 3  # entries of a shape before it gets its struct: making one takes about 200 microseconds
_MAX_KEPT: Final = 1 << 20  # weight of the shapes that are kept; beyond it all are forgotten, cheaper than an order
_MAX_SHAPE: Final = 1 << 15  # a shape that weighs more is not kept
_SHAPE_WEIGHT, _LEAF_WEIGHT = 1024, 64  # of a shape, and of each leaf beside the characters of its name
_MAX_GUESSES: Final = 4  # structs tried for one entry
_START: Final = 5  # bytes of an entry that help to guess its shape: `{"` and some of the first key, none of a value

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_Integer = Annotated[int, msgspec.Meta(ge=_INT64_MIN, le=_INT64_MAX)]
_TYPES: Final[dict[str, Any]] = {TEXT: str, NUMBER: _Integer | float | bool | None}
_BOM: Final = b"\xef\xbb\xbf"

_NOT_OF_THE_SHAPE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class NotJson(Refused):
    """The bytes are no JSON at all; where the sender did not say that they should be, they may be text."""


class JsonEntries:
    """Reads JSON entries, remembering the shapes it has seen. For one thread."""

    def __init__(self, mappings: Mappings = NO_MAPPINGS) -> None:
        self._mappings = mappings
        self.tally = Tally()  # for whoever takes and clears it
        self._shapes: dict[tuple[Leaf, ...], _Shape] = {}
        self._weight = 0
        self._guesses: dict[tuple[int, bytes], tuple[_Shape, ...]] = {}  # by number of quotes and start

    def use(self, mappings: Mappings) -> None:
        """Read by these mappings from now on; what is known of shapes is forgotten."""
        self._mappings = mappings
        self._forget()

    def records(
        self, lines: Sequence[bytes], record_ids: Sequence[str], arrivals: Sequence[Arrival]
    ) -> list[Record | Sample | Refused]:
        """The record of each entry, or why there is none.

        Entries of one shape are read together, whatever lies between them: a struct's decoder and a mapper that run
        again and again cost half of what they cost in turns with others.
        """
        guesses = self._guesses
        alike: dict[tuple[int, bytes], list[int]] = {}
        for position, line in enumerate(lines):
            guess = (line.count(b'"'), line[:_START])
            together = alike.get(guess)
            if together is None:
                if guess not in guesses and b"\\" in line:
                    guess = (_quotes(line), line[:_START])
                together = alike.setdefault(guess, [])
            together.append(position)
        found: list[Record | Sample | Refused | None] = [None] * len(lines)
        work: list[tuple[tuple[int, bytes], Sequence[int], tuple[_Shape, ...]]] = [
            (guess, positions, guesses.get(guess, ())) for guess, positions in alike.items()
        ]
        while work:
            guess, left, shapes = work.pop()
            for shape in shapes:
                left = shape.fill(found, left, lines, record_ids, arrivals)
            known = guesses.get(guess, ())
            for at, position in enumerate(left, start=1):
                found[position] = self._record(lines[position], record_ids[position], arrivals[position])
                if (now := guesses.get(guess, ())) is not known:
                    work.append((guess, left[at:], now[:1]))  # the newest struct; the others have refused these
                    break
        return found  # type: ignore[return-value]  # every place is filled

    def _record(self, line: bytes, record_id: str, arrival: Arrival) -> Record | Sample | Refused:
        """The record of one entry, examined leaf by leaf, or why there is none."""
        try:
            return self._examined(line, record_id, arrival)
        except Refused as refused:
            refused.__context__ = None  # it outlives this call, and must not keep what led to it
            return refused.with_traceback(None)

    def _examined(self, line: bytes, record_id: str, arrival: Arrival) -> Record | Sample:
        entry = _object(line)
        leaves: list[Leaf] = []
        values: list[Any] = []
        quotes = _flatten(entry, (), leaves, values, 1)
        if quotes != _quotes(line):
            raise Refused(Reason.DUPLICATE_KEY, _duplicate(line))
        key = tuple(leaves)
        shape = self._shapes.get(key) or self._kept(_Shape(key, plan_of(key, self._record_plan)))
        shape.seen += 1
        if shape.seen == _COMPILE_AT and shape.compile():
            guess = (quotes, line[:_START])
            self._guesses[guess] = (shape, *self._guesses.get(guess, ())[: _MAX_GUESSES - 1])
        return shape.plan.settle(values, record_id, arrival)

    def _record_plan(self, leaves: tuple[Leaf, ...]) -> Plan | Choice:
        return record_plan(leaves, self._mappings, self.tally)

    def _kept(self, shape: "_Shape") -> "_Shape":
        """Remember a shape, if it is not too large for that, so that hostile keys cannot fill the memory."""
        weight = _SHAPE_WEIGHT + sum(_LEAF_WEIGHT + len(leaf.name) for leaf in shape.leaves)
        if weight <= _MAX_SHAPE:
            self._weight += weight
            if self._weight > _MAX_KEPT:
                self._forget()
                self._weight = weight
            self._shapes[shape.leaves] = shape
        return shape

    def _forget(self) -> None:
        self._shapes.clear()
        self._guesses.clear()
        self._weight = 0


class _Shape:
    """One shape of entry: its plan, and once it has come often enough its struct."""

    __slots__ = ("_decode", "_map", "leaves", "plan", "seen")

    _decode: Callable[[bytes], Any]  # bytes to the struct
    _map: BatchMapper  # structs to records

    def __init__(self, leaves: tuple[Leaf, ...], plan: Plan | Choice | GpuPlan) -> None:
        self.leaves = leaves
        self.plan = plan
        self.seen = 0

    def compile(self) -> bool:
        """Make the struct; False where msgspec has none for it."""
        if not all(leaf.kind in _TYPES for leaf in self.leaves):
            return False
        tree: dict[str, Any] = {}
        for leaf in self.leaves:
            node = tree
            for part in leaf.path[:-1]:
                node = node.setdefault(part, {})
            node[leaf.path[-1]] = leaf.kind
        attributes: dict[Path, str] = {}
        try:
            struct = _struct(tree, (), "", attributes)
        except ValueError:  # a key with a quote, a backslash or a control character
            return False
        self._map = self.plan.mapper([attributes[leaf.path] for leaf in self.leaves])
        self._decode = msgspec.json.Decoder(struct).decode
        return True

    def fill(
        self,
        found: list[Record | Sample | Refused | None],
        positions: Sequence[int],
        lines: Sequence[bytes],
        record_ids: Sequence[str],
        arrivals: Sequence[Arrival],
    ) -> Sequence[int]:
        """Put the records of those entries that are of this shape into `found`; returns the positions of the others.

        Among them is what the plan can't read, and has to settle.
        """
        if not positions:
            return positions
        decode = self._decode
        try:
            entries = [decode(lines[position]) for position in positions]
            left: list[int] = []
        except _NOT_OF_THE_SHAPE:
            entries, positions, left = self._sifted(positions, lines)
        records, unreadable = self._map(
            entries, [record_ids[position] for position in positions], [arrivals[position] for position in positions]
        )
        if unreadable:
            left += [positions[at] for at in unreadable]
            passed = set(unreadable)
            positions = [position for at, position in enumerate(positions) if at not in passed]
        for position, record in zip(positions, records, strict=True):
            found[position] = record
        return left

    def _sifted(self, positions: Sequence[int], lines: Sequence[bytes]) -> tuple[list[Any], list[int], list[int]]:
        """The entries of this shape, their positions, and the positions of the others."""
        entries: list[Any] = []
        ours: list[int] = []
        others: list[int] = []
        for position in positions:
            try:
                entries.append(self._decode(lines[position]))
                ours.append(position)
            except _NOT_OF_THE_SHAPE:
                others.append(position)
        return entries, ours, others


def _struct(tree: dict[str, Any], path: Path, prefix: str, attributes: dict[Path, str]) -> type[msgspec.Struct]:
    """A struct with exactly these keys; `attributes` learns by which dotted attribute each leaf is reached."""
    fields: list[tuple[str, Any]] = []
    keys: dict[str, str] = {}
    for number, (key, node) in enumerate(tree.items()):
        name = f"f{number}"
        keys[name] = key
        if isinstance(node, dict):
            fields.append((name, _struct(node, (*path, key), f"{prefix}{name}.", attributes)))
        else:
            fields.append((name, _TYPES[node]))
            attributes[*path, key] = prefix + name
    return msgspec.defstruct("Entry", fields, rename=keys, forbid_unknown_fields=True, gc=False)


def _object(line: bytes) -> dict[str, Any]:
    """The object that the bytes are. Raises Refused."""
    line = line.removeprefix(_BOM)
    try:
        entry = _decode(line)
    except UnicodeDecodeError:
        raise _malformed(line, "") from None
    except RecursionError:
        raise Refused(Reason.NESTED_TOO_DEEPLY, _TOO_DEEP) from None
    except msgspec.ValidationError:
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, "a number is beyond a double (1.8e308); write it as text") from None
    except msgspec.DecodeError as error:
        raise _malformed(line, str(error)) from None
    if not isinstance(entry, dict):
        raise Refused(
            Reason.NOT_AN_OBJECT,
            f"an entry is one JSON object, this is {_JSON_NAMES[type(entry)]}; wrap it in an object",
        )
    return entry


_JSON_NAMES: Final = {
    list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null",
}  # fmt: skip
_TOO_DEEP: Final = f"objects and arrays lie within each other more than {MAX_DEPTH} deep; flatten the entry"


def _malformed(line: bytes, message: str) -> Refused:
    """What is wrong with bytes that are not JSON, with the position that msgspec's message names."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return not_utf8(error)
    position = message.rpartition("(byte ")[2].removesuffix(")")
    if not position.isdigit():
        return NotJson(
            Reason.MALFORMED_JSON, f"the JSON ends at byte {len(line)} before it is complete; send the whole entry"
        )
    what = message.removeprefix("JSON is malformed: ").partition(" (byte ")[0]
    at = int(position) - (what == "trailing characters")  # there msgspec names the byte after
    if line.startswith((b"NaN", b"Infinity"), at):
        return Refused(
            Reason.NUMBER_OUT_OF_RANGE,
            f"NaN or Infinity at byte {at} is no JSON number; send null or leave the key out",
        )
    return NotJson(Reason.MALFORMED_JSON, f"not JSON at byte {at}: {what}; send one JSON object")


def _flatten(entry: dict[str, Any], path: Path, leaves: list[Leaf], values: list[Any], depth: int) -> int:
    """Append the leaves of an object, keys in sorted order, and return how many quotes it accounts for."""
    if depth > MAX_DEPTH:
        raise Refused(Reason.NESTED_TOO_DEEPLY, _TOO_DEEP)
    quotes = 2 * len(entry)
    for key in sorted(entry):
        value = entry[key]
        kind = TEXT
        if isinstance(value, str):
            quotes += 2
        elif isinstance(value, dict):
            if value:
                quotes += _flatten(value, (*path, key), leaves, values, depth + 1)
                continue
            kind, value = EMPTY, "{}"
        elif isinstance(value, list):
            quotes += _quotes_within(value, depth + 1)
            kind, value = ARRAY, _encode(value).decode()
        elif isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
            value = str(value)  # as text, since nothing downstream holds it as a number
        else:
            kind = NUMBER
        leaves.append(Leaf((*path, key), kind))
        values.append(value)
    return quotes


def _quotes_within(value: Any, depth: int) -> int:
    """How many quotes an array, or what lies in it, accounts for."""
    if isinstance(value, str):
        return 2
    if not isinstance(value, list | dict):
        return 0
    if depth > MAX_DEPTH:
        raise Refused(Reason.NESTED_TOO_DEEPLY, _TOO_DEEP)
    if isinstance(value, dict):
        return 2 * len(value) + sum(_quotes_within(inner, depth + 1) for inner in value.values())
    return sum(_quotes_within(inner, depth + 1) for inner in value)


def _quotes(line: bytes) -> int:
    """The quotes of a JSON text that are not escaped."""
    if b"\\" not in line:
        return line.count(b'"')
    line = line.replace(b"\\\\", b"")  # what escapes now escapes what follows
    return line.count(b'"') - line.count(b'\\"')


def _duplicate(line: bytes) -> str:
    """Which key comes twice, for people; the decision is made."""
    names: list[str] = []

    def see(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        names.extend(key for key in keys if keys.count(key) > 1)

    try:
        json.loads(line.removeprefix(_BOM), object_pairs_hook=see)
    except RecursionError:
        names.append("(nested too deeply to tell)")
    return f"the key {cut(names[0], 100)!r} comes more than once in one object; send each key once"
