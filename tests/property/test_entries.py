"""Entries are the same wherever a block happens to end, and the same that a parser of the whole would find."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion import entries
from ingestion.entries import Entries, json_array, ndjson
from shared.spool import Entry, Spool

INLINE = 40

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
blocks = st.integers(2, 64)  # a block of one byte could not hold an escape
lines = st.lists(st.sampled_from([b'{"a":1}', b"", b" \t", b"x" * 41, b" " * 41, b"\r", b"[1,2]", b"\xff", b"y" * 40]))


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    return Spool(tmp_path_factory.mktemp("spool"), 1 << 30)


def spooled(spool: Spool, body: bytes) -> Entry:
    body_of = spool.create(1 << 20)
    body_of.append(body)
    return body_of


def whole(source: Entry, found: Entries) -> list[bytes]:
    """The bytes of every entry; holds that exactly those over INLINE are Large."""
    read: list[bytes] = []
    for each in found:
        if isinstance(each, list):
            assert each
            assert all(len(entry) <= INLINE for entry in each)
            read += each
        else:
            assert each.size > INLINE
            read.append(source.read(each.offset, each.size))
    return read


@given(
    array=st.lists(values, max_size=12),
    block=blocks,
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    at_once=st.booleans(),
    space=st.sampled_from(["", " \n", " " * 300]),
)
def test_an_array_has_the_elements_that_a_parser_finds_for_any_block(
    spool: Spool, array: list[Any], block: int, indent: int | None, ascii_only: bool, at_once: bool, space: str
) -> None:
    text = json.dumps(array, indent=indent, ensure_ascii=ascii_only)
    with spooled(spool, f"{space}{text}{space}".encode()) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "BLOCK", block)
        patch.setattr(entries, "WHOLE", source.size if at_once else 0)
        found = whole(source, json_array(source, INLINE))
    assert [json.loads(entry) for entry in found] == array
    assert all(entry == entry.strip() and entry.decode() in text for entry in found)


@given(lines=lines, block=blocks, ending=st.sampled_from([b"", b"\n"]))
def test_lines_are_those_that_are_not_blank_for_any_block(
    spool: Spool, lines: list[bytes], block: int, ending: bytes
) -> None:
    with spooled(spool, b"\n".join(lines) + ending) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "BLOCK", block)
        found = whole(source, ndjson(source, INLINE))
    assert found == [line for line in lines if line and not line.isspace()]


@given(array=st.lists(values, min_size=1, max_size=6), block=blocks, data=st.data())
def test_an_array_that_is_cut_anywhere_is_refused(
    spool: Spool, array: list[Any], block: int, data: st.DataObject
) -> None:
    body = json.dumps(array).encode()
    end = data.draw(st.integers(1, len(body) - 1), "cut at")
    with spooled(spool, body[:end]) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "BLOCK", block)
        patch.setattr(entries, "WHOLE", 0)
        with pytest.raises(entries.MalformedBodyError):
            list(json_array(source, INLINE))
