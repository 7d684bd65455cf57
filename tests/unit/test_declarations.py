"""A file of declarations is taken as a whole, or refused with the line of each error."""

from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from ingestion.declared import declared_in, parsed
from shared.config import Settings
from shared.declarations import read
from shared.errors import ConfigurationError


def refusal(text: bytes) -> list[str]:
    with pytest.raises(ConfigurationError) as found:
        parsed(text, "s.yaml")
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
    assert (
        found[0] == "s.yaml, line 4: sources.a.pth: there is no such key; check its spelling and how far it is indented"
    )
    assert found[1].startswith("s.yaml, line 7: sources.b.kind: is 'tali'; it is one of ")
    assert found[2].startswith("s.yaml, line 8: sources.c.start: ")
    assert found[3] == "s.yaml, line 9: sources.d.kind: is missing; write it"
    assert found[4].startswith("s.yaml, line 11: sources.e e: a name has ")
    assert found[5].startswith("s.yaml, line 12: nodes: there is no such key")
    assert found[6] == "s.yaml, line 2: sources.a.path: is missing; write it"
    assert len(found) == 7


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"sources:\n  a: {kind: tail, path: x}\n  a: {kind: tail}\n", 3, "the key 'a' comes twice, first on line 2"),
        (b"sources: {}\nsources: {}\n", 2, "comes twice, first on line 1"),
        (b"sources:\n  a: [\n", 3, ""),
        (b"sources:\n  a: b: c\n", 2, ""),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        (b"sources: &a\n  b: *a\n", 1, "too deep"),
        (b"<<: {}\n", 1, "<<: there is no such key"),
        (b"- a\n", 1, "the file: "),
        (b"sources:\n  ? [a]\n  : 1\n", 2, "a key is one word"),
        (b"--- a\n--- b\n", 2, "document"),
    ],
)  # fmt: skip
def test_what_is_no_such_yaml_is_refused_at_its_line(text: bytes, line: int, words: str) -> None:
    (found,) = refusal(text)
    assert found.startswith(f"s.yaml, line {line}: ")
    assert words in found


def test_aliases_of_aliases_end() -> None:
    names = "abcdefghijklmnop"
    lines = ["a: &a [1, 1, 1, 1]"]
    lines += [f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}]" for old, new in pairwise(names)]
    (found,) = refusal("\n".join(lines).encode())
    assert "too much" in found


def test_an_alias_stands_for_what_it_names() -> None:
    class Two(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: list[int]
        b: list[int]

    assert read("a: &x [1, 2]\nb: *x\n", "s.yaml", Two).model == Two(a=[1, 2], b=[1, 2])


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml can't be read: No such file"):
        declared_in(Settings(_env_file=None, sources_file="none.yaml"))


def test_without_a_file_nothing_is_declared(tmp_path: Path) -> None:
    assert declared_in(Settings(_env_file=None)).sources == {}
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert declared_in(Settings(_env_file=None, sources_file=str(tmp_path / "empty.yaml"))).sources == {}
