"""Declarations: YAML files of an operator's, checked as a whole, every error told with its line.

file > nodes, which know their lines > plain values > a pydantic model
"""

from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from shared.errors import ConfigurationError

At = tuple[str | int, ...]  # the path to a value: keys and places in lists

_BYTES_MAX: Final = 4 * 1024 * 1024
_DEPTH_MAX: Final = 32
_VALUES_MAX: Final = 200_000  # aliases of aliases are few bytes, and many values
_ERRORS_MAX: Final = 20  # told at a time
_SHOWN_MAX: Final = 80  # characters of a bad value
_MERGE: Final = "tag:yaml.org,2002:merge"

M = TypeVar("M", bound=BaseModel)


def load_declarations(path: Path, model: type[M]) -> M:
    """What the file declares. Raises ConfigurationError: a line for each error, `FILE:LINE: KEY: what is wrong`."""
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}; correct the setting or the file") from error
    if len(data) > _BYTES_MAX:
        raise ConfigurationError(f"{path}: over {_BYTES_MAX} bytes; this is no file of declarations")
    return parse_declarations(data, str(path), model)


def parse_declarations(data: bytes, name: str, model: type[M]) -> M:
    """Likewise, of bytes that came from somewhere; `name` is what errors call it."""
    try:
        root = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{name}:{line}: byte 0x{data[error.start]:02x} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem or 'no YAML'}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{name}: no YAML: {error or 'nested too deeply'}") from error
    reading = _Reading(name)
    value = {} if root is None else reading.value(root, ())
    try:
        return model.model_validate(value)
    except ValidationError as error:
        told = [reading.told(each) for each in error.errors(include_url=False)]
        more = f"\n... and {len(told) - _ERRORS_MAX} more" if len(told) > _ERRORS_MAX else ""
        raise ConfigurationError("\n".join(told[:_ERRORS_MAX]) + more) from None


class _Reading:
    """The plain values of nodes, and the line of each by its path."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._safe = yaml.constructor.SafeConstructor()
        self.lines: dict[At, int] = {}

    def value(self, node: yaml.Node, path: At) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > _DEPTH_MAX:  # an alias within what it stands for has no end
            raise self._refused(node, f"nested over {_DEPTH_MAX} deep")
        if len(self.lines) > _VALUES_MAX:
            raise self._refused(node, f"over {_VALUES_MAX} values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, number)) for number, each in enumerate(node.value)]
        try:
            return self._safe.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = getattr(error, "problem", None) or error
            raise self._refused(node, f"{'.'.join(map(str, path))}: {problem}") from error

    def told(self, error: Any) -> str:
        """An error of pydantic's, with the line of the value that it is about, or of the innermost that holds it."""
        at = self._known(error["loc"])
        line, shown = self.lines[at], ""
        match error["type"]:
            case "extra_forbidden":
                problem = "is no key that is known here; correct or remove it"
            case "missing":
                at, problem = (*at, error["loc"][-1]), "is missing"
            case "union_tag_not_found":
                at, problem = (*at, _discriminator(error)), "is missing"
            case "union_tag_invalid":
                at = (*at, _discriminator(error))
                line = self.lines[at]
                problem = f"is {error['ctx']['tag']!r}; it is one of {error['ctx']['expected_tags']}"
            case kind:
                problem = str(error["ctx"]["error"]) if kind == "value_error" else error["msg"]
                value = repr(error["input"])
                if not isinstance(error["input"], dict | list) and len(value) <= _SHOWN_MAX:
                    shown = f" (is {value})"
        return f"{self._name}:{line}: {'.'.join(map(str, at)) or 'the file'}: {problem}{shown}"

    def _known(self, path: At) -> At:
        """The part of pydantic's path that is in the file: without the names of a union's members."""
        at: At = ()
        for step in path:
            if (*at, step) in self.lines:
                at = (*at, step)
        return at

    def _mapping(self, node: yaml.MappingNode, path: At) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE or not isinstance(key_node, yaml.ScalarNode):
                raise self._refused(key_node, "a key is text; `<<` is not taken")
            key = str(key_node.value)
            if key in found:
                before = self.lines[(*path, key)]
                raise self._refused(key_node, f"{'.'.join(map(str, (*path, key)))}: stands on line {before} already")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*path, key))
        return found

    def _refused(self, node: yaml.Node, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._name}:{node.start_mark.line + 1}: {problem}")


def _discriminator(error: Any) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")
