"""Declarations: YAML that people write, read into a model; every error names the line and what is wrong with it.

Scalars are read as YAML 1.2 has them: `no`, `on` and `12:30` are text. Keys are text, whatever they look like, so that
`200: success` and `"200": success` are the same, and a key that comes twice is an error.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from shared.errors import DeclarationError

MAX_CHARACTERS: Final = 256 * 1024
_MAX_ERRORS: Final = 20  # told at a time
_MAX_NODES: Final = 50_000  # aliases count each time: they could repeat each other beyond any memory
_MAX_DEPTH: Final = 32
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_PLAIN_TAGS: Final = "tag:yaml.org,2002:"

Place = tuple[str | int, ...]  # keys and positions from the top to a value
M = TypeVar("M", bound=BaseModel)


class Declaration(NamedTuple, Generic[M]):
    """What a text declares."""

    model: M
    file: str
    lines: Mapping[Place, int]

    def line(self, *place: str | int) -> int:
        """The line of what lies there, or of the nearest that holds it."""
        return line_at(self.lines, place)

    def error(self, message: str, *place: str | int) -> DeclarationError:
        """An error about what lies there."""
        return DeclarationError(self.file, self.line(*place), f"{'.'.join(map(str, place))}: {message}")


def content_of(path: Path) -> bytes:
    """What a file holds, not more than is needed to see that it is too much. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4 * MAX_CHARACTERS + 1)


def decoded(content: bytes, file: str) -> str:
    """The text of a file. Raises DeclarationError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DeclarationError(file, line, "not UTF-8; save the file as UTF-8") from None


def read(text: str, file: str, model: type[M]) -> Declaration[M]:
    """The declaration in a text; `file` is its name for people. Raises DeclarationError, which tells all that is wrong
    with its shape, a line each."""
    if len(text) > MAX_CHARACTERS:
        raise DeclarationError(file, 1, f"longer than {MAX_CHARACTERS} characters; declare less in one file")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DeclarationError(file, mark.line + 1 if mark else 1, f"no YAML: {error.problem or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "reason", error)
        raise DeclarationError(file, line, f"no YAML: {reason}") from None
    values = _Values(file)
    data = {} if node is None else values.of(node, ())
    try:
        return Declaration(model.model_validate(data), file, values.lines)
    except ValidationError as error:
        raise _refusal(error, file, values.lines) from None


def _refusal(error: ValidationError, file: str, lines: Mapping[Place, int]) -> DeclarationError:
    """All that is wrong, by line, but what is missing last: it may be there under a name that was misspelt."""
    found = sorted((each["type"] == "missing", *_told(each, lines)) for each in error.errors(include_url=False))
    (_, first, message), *others = found
    told = [message, *(f"{file}, line {line}: {what}" for _, line, what in others[: _MAX_ERRORS - 1])]
    if len(others) >= _MAX_ERRORS:
        told.append(f"... and {len(others) - _MAX_ERRORS + 1} more")
    return DeclarationError(file, first, "\n".join(told))


def line_at(lines: Mapping[Place, int], place: Place) -> int:
    """The line of what lies there, or of the nearest that holds it."""
    return lines.get(_written(lines, place), 1)


def _written(lines: Mapping[Place, int], place: Place) -> Place:
    """The part of a place that is in the file: a model's place also has the names of a union's members."""
    at: Place = ()
    for step in place:
        if (*at, step) in lines:
            at = (*at, step)
    return at


class _Values:
    """Turns nodes into plain values, and remembers the line of each."""

    def __init__(self, file: str) -> None:
        self.lines: dict[Place, int] = {}
        self._file = file
        self._nodes = 0

    def of(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(place) > _MAX_DEPTH:
            raise DeclarationError(self._file, line, "too much, or too deep: more than a declaration can need")
        if not node.tag.startswith(_PLAIN_TAGS) or node.tag.removeprefix(_PLAIN_TAGS).startswith("python"):
            raise DeclarationError(self._file, line, f"no tags here; leave out {node.tag}")
        if isinstance(node, yaml.ScalarNode):
            self._writable(node)
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(inner, (*place, number)) for number, inner in enumerate(node.value)]
        found: dict[str, Any] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise DeclarationError(self._file, at, "a key is one word or text")
            self._writable(key)
            if key.value in found:
                before = self.lines[*place, key.value]
                raise DeclarationError(
                    self._file, at, f"the key {key.value!r} comes twice, first on line {before}; write it once"
                )
            self.lines[*place, key.value] = at
            found[key.value] = self.of(value, (*place, key.value))
        return found

    def _writable(self, node: yaml.ScalarNode) -> None:
        """An escape may make half a character, which nobody downstream could write."""
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise DeclarationError(
                self._file,
                node.start_mark.line + 1,
                "half a character (\\uD800 to \\uDFFF); write the character itself",
            ) from None


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style is not None:  # quoted, or a block of text
        return text
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _told(error: Any, lines: Mapping[Place, int]) -> tuple[int, str]:
    """A validation's finding: its line, and a sentence that begins with where it is."""
    at = _written(lines, error["loc"])
    match error["type"]:
        case "extra_forbidden":
            what = "there is no such key; check its spelling and how far it is indented"
        case "missing":
            at, what = (*at, error["loc"][-1]), "is missing; write it"
        case "union_tag_not_found":
            at, what = (*at, _discriminator(error)), "is missing; write it"
        case "union_tag_invalid":
            at = (*at, _discriminator(error))
            what = f"is {error['ctx']['tag']!r}; it is one of {error['ctx']['expected_tags']}"
        case "model_type" | "dict_type":
            what = "is keys with values, `key: value`"
        case _:
            message = error["msg"].removeprefix("Value error, ")
            what = f"{message[:1].lower()}{message[1:]}"  # the value stays out of it: it may be a secret
    return line_at(lines, at), f"{'.'.join(map(str, at)) or 'the file'}: {what}"


def _discriminator(error: Any) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def listed(value: Any) -> Any:
    """One value, or several: for a validator that runs before a list's."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
