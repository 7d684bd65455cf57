"""A file of declarations is taken as a whole, or refused with the line of each error."""

from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from ingestion.declared import Declared, declared_in
from shared.config import Settings
from shared.declarations import load_declarations, parse_declarations
from shared.errors import ConfigurationError


def refusal(text: bytes) -> list[str]:
    with pytest.raises(ConfigurationError) as found:
        parse_declarations(text, "s.yaml", Declared)
    return str(found.value).splitlines()


def test_every_error_of_the_shape_is_told_with_its_line() -> None:
    text = b"""\
sources:
  a:
    kind: tail
    pth: /var/log/a.log
  b:
    path: /var/log/b.log
    kind: tali
  c: {kind: tail, path: x, start: middle}
  d:
    path: y
  e e: {kind: tail, path: x}
nodes: 3
"""
    found = refusal(text)
    assert found[0] == "s.yaml:2: sources.a.path: is missing"
    assert found[1] == "s.yaml:4: sources.a.pth: is no key that is known here; correct or remove it"
    assert found[2].startswith("s.yaml:7: sources.b.kind: is 'tali'; it is one of ")
    assert found[3].startswith("s.yaml:8: sources.c.start: ")
    assert found[3].endswith("(is 'middle')")
    assert found[4] == "s.yaml:9: sources.d.kind: is missing"
    assert found[5].startswith("s.yaml:11: sources.e e: a name has ")
    assert found[6].startswith("s.yaml:12: nodes: is no key")
    assert len(found) == 7


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"sources:\n  a: {kind: tail, path: x}\n  a: {kind: tail}\n", 3, "sources.a: stands on line 2 already"),
        (b"sources: {}\nsources: {}\n", 2, "sources: stands on line 1 already"),
        (b"sources:\n  a: [\n", 3, ""),
        (b"sources:\n  a: b: c\n", 2, ""),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        (b"sources: &a\n  b: *a\n", 1, "nested over"),
        (b"x: &x {a: 1}\ny:\n  <<: *x\n", 3, "a key is text"),
        (b"- a\n", 1, "the file: "),
        (b"sources:\n  ? [a]\n  : 1\n", 2, "a key is text"),
        (b"--- a\n--- b\n", 2, "document"),
    ],
)  # fmt: skip
def test_what_is_no_such_yaml_is_refused_at_its_line(text: bytes, line: int, words: str) -> None:
    (found,) = refusal(text)
    assert found.startswith(f"s.yaml:{line}: ")
    assert words in found


def test_aliases_of_aliases_end() -> None:
    names = "abcdefghijklmnop"
    lines = ["a: &a [1, 1, 1, 1]"]
    lines += [f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}]" for old, new in pairwise(names)]
    (found,) = refusal("\n".join(lines).encode())
    assert "values" in found


def test_an_alias_stands_for_what_it_names() -> None:
    class Two(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: list[int]
        b: list[int]

    assert parse_declarations(b"a: &x [1, 2]\nb: *x\n", "s.yaml", Two) == Two(a=[1, 2], b=[1, 2])


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: can't be read: No such file"):
        load_declarations(Path("none.yaml"), Declared)


def test_without_a_file_nothing_is_declared(tmp_path: Path) -> None:
    assert declared_in(Settings(_env_file=None)).sources == {}
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert declared_in(Settings(_env_file=None, sources_file=str(tmp_path / "empty.yaml"))).sources == {}
