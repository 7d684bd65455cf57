"""Declarations of mappings: what their YAML may say (docs/mappings.md), and the mappings that it makes. Pure."""

import fnmatch
import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic import Field as Of

from shared.declarations import Declaration, listed, read
from shared.errors import DeclarationError
from shared.records import Outcome, Scalar
from standardization import dates, fields, values
from standardization.declared import Condition, DeclaredMapping, Field, Kept, Mappings
from standardization.fields import MAPPING, NUMBER, TEXT, Path, Reader

MAX_MAPPINGS: Final = 200  # an entry of a source that was not seen lately is held against each: 0.1 ms
_KEY: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"|([^."]+)')
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


# values of a declaration


def _path(text: Any) -> Path:
    """`req.url`, `"service.name"`, `labels."a.b"`: keys from the entry's top to a value, or to an object."""
    keys: list[str] = []
    place = 0
    while isinstance(text, str) and (key := _KEY.match(text, place)):
        keys.append(key[2] if key[1] is None else re.sub(r"\\(.)", r"\1", key[1]))
        place = key.end()
        if place == len(text):
            return tuple(keys)
        if text[place] != ".":
            break
        place += 1
    raise ValueError(f'{text!r} is no path: keys with dots between, a key that holds a dot in double quotes: "a.b".c')


def _short(value: Any) -> Any:
    """A path or several is short for `from`."""
    if value is None:
        raise ValueError("says nothing; write a path, several in [], or from: and how it is read, or value:")
    return value if isinstance(value, dict) else {"from": value}


def _condition(value: Any) -> Any:
    """A value or several is short for `is`."""
    return value if isinstance(value, dict) else {"is": value}


def _revision(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _constant(value: Scalar) -> Scalar:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number beyond 64 bit; write it as text")
    return value


def _duration_unit(unit: str) -> str:
    if unit not in values.DURATION_SPELLINGS:
        raise ValueError(f"{unit!r} is no unit of a duration; there are ns, us, ms, s, min, h, d and their long names")
    return unit


def _size_unit(unit: str) -> str:
    if unit.lower() not in values.SIZE_SPELLINGS:
        raise ValueError(f"{unit!r} is no unit of a size; there are bytes, kB, MB, GB (1000) and KiB, MiB, GiB (1024)")
    return unit.lower()


def _format(text: str) -> str:
    if text not in dates.EPOCHS:
        try:
            dates.of_format(text, "UTC")
        except ValueError as error:
            raise ValueError(f"{error}; or one of {', '.join(dates.EPOCHS)}") from None
    return text


def _zone(name: str) -> str:
    dates.in_zone(name)
    return name


def _level(level: Any) -> int:
    """The severity number of a word or a number."""
    if isinstance(level, str):
        found = values.severity_of_word(level)
        if found is not None:
            return found[0]
        raise ValueError(f"{level!r} is no severity; there are {', '.join(values.SEVERITY_NAMES[::4])}, ...")
    if isinstance(level, int) and not isinstance(level, bool):
        if 1 <= level <= 24:
            return level
        raise ValueError(f"{level} is no severity number; those of OpenTelemetry are 1 to 24")
    raise ValueError(f"a severity is a word such as {values.SEVERITY_NAMES[8]}, or OpenTelemetry's 1 to 24")


Paths = Annotated[list[Annotated[Path, BeforeValidator(_path)]], BeforeValidator(listed), Of(max_length=50)]
Constant = Annotated[Scalar, AfterValidator(_constant)]
Name = Annotated[str, Of(pattern=_NAME)]
Level = Annotated[int, BeforeValidator(_level)]
Short = BeforeValidator(_short)


# what a declaration may say


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Kept(_Strict):
    """What stands in resource or attributes under a name."""

    paths: Paths = Of(default=[], alias="from")
    value: Constant = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "_Kept":
        if bool(self.paths) is ("value" in self.model_fields_set):
            raise ValueError(_ONE_OF_BOTH)
        return self

    def made(self) -> Kept:
        return Kept(tuple(self.paths), self.value)


class _Field(_Strict):
    """Where a field comes from and how it is read."""

    paths: Paths = Of(default=[], alias="from")
    value: Constant = None
    default: Constant = None
    required: bool = False
    unreadable: Literal["dead-letter", "attribute"] = "dead-letter"

    @model_validator(mode="after")
    def _consistent(self) -> "_Field":
        said = self.model_fields_set
        if ("value" in said) is ("paths" in said):
            raise ValueError(_ONE_OF_BOTH)
        if said & {"required", "default", "unreadable"} and not self.paths:
            raise ValueError("required, default and unreadable are about what comes from somewhere: name a path")
        if self.required and "default" in said:
            raise ValueError("what is required needs no default; leave out one of the two")
        return self

    @property
    def scale(self) -> str:
        """The unit or scale of its values, as readers name it."""
        return ""

    def reader(self, role: str) -> Callable[[str], Reader]:
        """Its readers, by the kind of a leaf."""
        name = fields.Name(role, 0, self.scale, known=True)
        return lambda kind: fields.reader(name, kind)

    def made(self, role: str) -> Field:
        """Raises ValueError where a constant is not one of the field's values."""
        reader = self.reader(role)
        constant = self.value if "value" in self.model_fields_set else self.default
        default = None if constant is None else self._read(reader, constant)
        return Field(tuple(self.paths), reader, self.unreadable == "dead-letter", self.required, default)

    def _read(self, reader: Callable[[str], Reader], constant: Scalar) -> Any:
        try:
            found = reader(TEXT if isinstance(constant, str) else NUMBER)(constant)
        except values.Unreadable as error:
            raise ValueError(f"a constant is not {error}") from None
        if found is None:
            raise ValueError("a constant says that there is no value; write null, or a value")
        return found


_ONE_OF_BOTH: Final = "says where it comes from (from:) or what it is (value:), one of the two"


class _Time(_Field):
    format: Annotated[str, Of(max_length=128), AfterValidator(_format)] = ""
    zone: Annotated[str, Of(max_length=64), AfterValidator(_zone)] = ""

    @model_validator(mode="after")
    def _zone_has_a_use(self) -> "_Time":
        if self.zone and self.format in dates.EPOCHS:
            raise ValueError("a time since 1970 is in no zone; leave zone out")
        return self

    def reader(self, role: str) -> Callable[[str], Reader]:
        usual = fields.Name(role, 0, dates.EPOCHS.get(self.format, ""), known=True)
        readers = {TEXT: fields.reader(usual, TEXT), NUMBER: fields.reader(usual, NUMBER)}
        if self.format in dates.EPOCHS:
            readers[TEXT] = dates.of_epoch(self.format)
        elif self.format:
            readers[TEXT] = of_text = dates.of_format(self.format, self.zone or "UTC")
            readers[NUMBER] = lambda value: of_text(values.body_of_number(value))
        elif self.zone:
            readers[TEXT] = dates.in_zone(self.zone)
        return lambda kind: readers.get(kind) or values.refuse(f"one value, not {kind}")


class _Duration(_Field):
    unit: Annotated[str, AfterValidator(_duration_unit)] = ""

    @property
    def scale(self) -> str:
        return self.unit


class _Size(_Field):
    unit: Annotated[str, AfterValidator(_size_unit)] = ""

    @property
    def scale(self) -> str:
        return self.unit


class _Outcome(_Field):
    words: dict[str, Annotated[Outcome, Of(strict=False)]] = Of(default={}, max_length=1_000)
    codes: Literal["http", "exit", "flag"] = "http"

    @property
    def scale(self) -> str:
        return "" if self.codes == "http" else self.codes

    def reader(self, role: str) -> Callable[[str], Reader]:
        usual = super().reader(role)
        ended = {_folded(word): (outcome.value, True) for word, outcome in self.words.items()}
        return _worded(usual, lambda text: ended.get(_folded(text))) if ended else usual

    def _read(self, reader: Callable[[str], Reader], constant: Scalar) -> Any:
        found = super()._read(reader, constant)
        if found == values.NOT_AN_OUTCOME and _folded(str(constant)) not in map(_folded, self.words):
            raise ValueError(f"a constant is not one of {', '.join(Outcome)}")
        return found


class _Severity(_Field):
    words: dict[str, Level] = Of(default={}, max_length=1_000)
    numbers: Literal["syslog", "otel", "python"] = "syslog"

    @property
    def scale(self) -> str:
        return "" if self.numbers == "syslog" else self.numbers

    def reader(self, role: str) -> Callable[[str], Reader]:
        usual = super().reader(role)
        levels = {_folded(word): level for word, level in self.words.items()}

        def severity(text: str) -> values.Severity | None:
            word = text.strip()
            level = levels.get(_folded(word))
            if level is None:
                return None
            return level, values.SEVERITY_NAMES[level - 1] if word.isdigit() else word

        return _worded(usual, severity) if levels else usual


class _Fields(_Strict):
    timestamp: Annotated[_Time | None, Short] = None
    service_name: Annotated[_Field | None, Short] = None
    event_name: Annotated[_Field | None, Short] = None
    outcome: Annotated[_Outcome | None, Short] = None
    severity: Annotated[_Severity | None, Short] = None
    body: Annotated[_Field | None, Short] = None
    duration_s: Annotated[_Duration | None, Short] = None
    memory_bytes: Annotated[_Size | None, Short] = None
    rows: Annotated[_Field | None, Short] = None
    transfer_bytes: Annotated[_Size | None, Short] = None
    trace_id: Annotated[_Field | None, Short] = None
    span_id: Annotated[_Field | None, Short] = None


class _When(_Strict):
    values: Annotated[list[Constant], BeforeValidator(listed), Of(min_length=1, max_length=100)] = Of(
        default=[], alias="is"
    )
    exists: bool = True

    @model_validator(mode="after")
    def _one_of_both(self) -> "_When":
        if len(self.model_fields_set) != 1:
            raise ValueError("is a value, several in [], or exists: true or false")
        return self


class _Mapping(_Strict):
    name: Name
    revision: Annotated[Name, BeforeValidator(_revision)]
    sources: Annotated[
        list[Annotated[str, Of(min_length=1, max_length=1_024)]], BeforeValidator(listed), Of(max_length=1_000)
    ] = []
    when: dict[Annotated[Path, BeforeValidator(_path)], Annotated[_When, BeforeValidator(_condition)]] = {}
    fields: _Fields = _Fields()
    resource: dict[Annotated[str, Of(min_length=1)], Annotated[_Kept, Short]] = {}
    attributes: dict[Annotated[str, Of(min_length=1)], Annotated[_Kept, Short]] = {}
    drop: Paths = []
    template: bool = False

    @model_validator(mode="after")
    def _is_for_something(self) -> "_Mapping":
        if not self.sources and not self.when:
            raise ValueError("says which entries it is for: sources, when, or both")
        return self


class _File(_Strict):
    """A file of mappings"""

    version: Literal[1]
    mappings: Annotated[list[_Mapping], Of(max_length=MAX_MAPPINGS)] = []


# from declarations to mappings


def read_mappings(files: Mapping[str, str]) -> Mappings:
    """The mappings of these texts, by the names of their files; in the order of names. Raises DeclarationError."""
    made: list[DeclaredMapping] = []
    known: dict[str, DeclaredMapping] = {}
    for file in sorted(files):
        declaration = read(files[file], file, _File)
        for number, one in enumerate(declaration.model.mappings):
            if (other := known.get(one.name)) is not None:
                raise declaration.error(
                    f"mapping {one.name!r} is declared in {other.file}, line {other.line}, too; names are unique",
                    "mappings", number, "name",
                )  # fmt: skip
            known[one.name] = mapping = _made(declaration, number, one)
            made.append(mapping)
    if len(made) > MAX_MAPPINGS:
        raise DeclarationError(made[-1].file, made[-1].line, f"over {MAX_MAPPINGS} mappings in all; declare fewer")
    return Mappings(made)


def _made(declaration: Declaration[_File], number: int, one: _Mapping) -> DeclaredMapping:
    place = ("mappings", number)
    made: dict[str, Field] = {}
    for role in _Fields.model_fields:
        field: _Field | None = getattr(one.fields, role)
        if field is not None:
            try:
                made[role] = field.made(role)
            except ValueError as error:
                raise declaration.error(str(error), *place, "fields", role) from None
    if MAPPING in one.attributes:
        raise declaration.error(f"the name {MAPPING} is ours", *place, "attributes", MAPPING)
    resource = {name: kept.made() for name, kept in one.resource.items()}
    attributes = {name: kept.made() for name, kept in one.attributes.items()}
    used = [path for part in (made, resource, attributes) for each in part.values() for path in each.paths]
    for at, dropped in enumerate(one.drop):
        if any(path[: len(dropped)] == dropped for path in used):
            raise declaration.error(
                f"{'.'.join(dropped)} is dropped, and used above; leave out one of the two", *place, "drop", at
            )
    conditions = (Condition(path, tuple(when.values), when.exists) for path, when in one.when.items())
    return DeclaredMapping(
        one.name,
        one.revision,
        declaration.file,
        declaration.line(*place),
        tuple(one.sources),
        re.compile("|".join(map(_pattern, one.sources))) if one.sources else None,
        tuple(conditions),
        made,
        resource,
        attributes,
        tuple(one.drop),
        hashlib.sha256(one.model_dump_json().encode()).hexdigest()[:12],
        one.template,
    )


def _pattern(source: str) -> str:
    """Of names: only `*` and `?` are more than themselves."""
    return fnmatch.translate(source.replace("[", "[[]"))


def _worded(usual: Callable[[str], Reader], declared: Callable[[str], Any]) -> Callable[[str], Reader]:
    """Readers, by a leaf's kind, of what the declared words say; all else as usual."""

    @cache  # one memory for all shapes
    def reader(kind: str) -> Reader:
        read = usual(kind)

        def read_value(value: Any) -> Any:
            found = declared(value if isinstance(value, str) else _number_word(value))
            return read(value) if found is None else found

        return values.Memo(read_value, 1024).__getitem__ if kind == TEXT else read_value

    return reader


def _number_word(value: Any) -> str:
    """A number as a declaration writes it: 30.0 is 30."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else values.body_of_number(value)


def _folded(word: str) -> str:
    return word.strip().lower()
