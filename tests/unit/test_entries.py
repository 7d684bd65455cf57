"""What a body holds, entry by entry: the edges."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ingestion import entries
from ingestion.entries import Entries, Large, MalformedBodyError, Section, json_array, json_value, ndjson
from ingestion.ingest import Shape, shape_of, shape_of_file
from shared.spool import Entry, Spool

INLINE = 10
Splitter = Callable[[Entry, int], Entries]


@pytest.fixture
def spooled(tmp_path: Path) -> Callable[[bytes], Entry]:
    spool = Spool(tmp_path / "spool", 1 << 30)

    def make(body: bytes) -> Entry:
        entry = spool.create(1 << 20)
        entry.append(body)
        return entry

    return make


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", []),
        (b"\n\n \n\t", []),
        (b"a", [[b"a"]]),
        (b"a\n", [[b"a"]]),
        (b"a\r\nb", [[b"a\r"], [b"b"]]),
        (b"\n a \n\nb\n", [[b" a ", b"b"]]),
        (b"[1,2]\n{}", [[b"[1,2]"], [b"{}"]]),
        (b"0123456789\n", [[b"0123456789"]]),
        (b"a\n0123456789A\nb\n", [[b"a"], Large(2, 11), [b"b"]]),
        (b"0123456789A", [Large(0, 11)]),
        (b"           \nb\n", [[b"b"]]),
        (b"           ", []),
        (b"      {}   \n", [Large(0, 11)]),
    ],
)
def test_lines_are_entries_and_blank_ones_are_none(
    spooled: Callable[[bytes], Entry], body: bytes, found: list[list[bytes] | Large]
) -> None:
    assert list(ndjson(spooled(body), INLINE)) == found


@pytest.mark.parametrize("block", [2, 3, 7, 1024])
def test_a_large_line_is_one_entry_wherever_blocks_end(
    spooled: Callable[[bytes], Entry], monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(entries, "BLOCK", block)
    body = b"a\n" + b"x" * 25 + b"\n\n" + b" " * 25 + b"\n" + b"y" * 11
    found = list(ndjson(spooled(body), INLINE))
    assert found == [[b"a"], Large(2, 25), Large(55, 11)]


@pytest.mark.parametrize("whole", [0, 1024], ids=["scanned", "decoded"])
@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[]", []),
        (b" [ \n ] ", []),
        (b"[1]", [[b"1"]]),
        (b"[ 1 ,\t{} ]\n", [[b"1", b"{}"]]),
        (b'["]","\\"",","]', [[b'"]"', b'"\\""', b'","']]),
        (b'[[1],{"a":[]}]', [[b"[1]", b'{"a":[]}']]),
        (b'[1,"0123456789",2]', [[b"1"], Large(3, 12), [b"2"]]),
        (b'[{"a":1},{"b":nope}]', [[b'{"a":1}'], [b'{"b":nope}']]),
        (b"[\xff,1]", [[b"\xff", b"1"]]),
    ],
)
def test_elements_are_entries_also_where_one_is_no_json(
    spooled: Callable[[bytes], Entry],
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    found: list[list[bytes] | Large],
    whole: int,
) -> None:
    monkeypatch.setattr(entries, "WHOLE", whole)
    assert flat(json_array(spooled(body), INLINE)) == flat(found)


def flat(found: Entries | list[list[bytes] | Large]) -> list[bytes | Large]:
    return [one for each in found for one in ([each] if isinstance(each, Large) else each)]


def test_scanned_elements_come_many_at_a_time_so_that_they_fill_frames(
    spooled: Callable[[bytes], Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "WHOLE", 0)
    assert [len(each) for each in json_array(spooled(b"[" + b"1," * 999 + b"1]"), INLINE)] == [1000]


@pytest.mark.parametrize("block", [2, 3, 1024])
@pytest.mark.parametrize(
    ("split", "body", "says"),
    [
        (json_array, b"", "byte 0: an array begins with"),
        (json_array, b'{"a":1}', "byte 0: an array begins with"),
        (json_array, b"[", "byte 1: the array does not end"),
        (json_array, b"[1", "byte 2: the array does not end"),
        (json_array, b"[1,]", "byte 3: an element is missing"),
        (json_array, b"[,1]", "byte 1: an element is missing"),
        (json_array, b"[1,,2]", "byte 3: an element is missing"),
        (json_array, b'["abc', "byte 5: a string does not end"),
        (json_array, b'["abc\\', "byte 6: a string does not end"),
        (json_array, b"[{]}]", "byte 2: ']' closes nothing"),
        (json_array, b"[}]", "byte 1: '}' closes nothing"),
        (json_array, b"[1]  2", "byte 5: something follows"),
        (json_value, b"  42", "byte 2: an entry is a JSON object"),
        (json_value, b"", "byte 0: an entry is a JSON object"),
        (json_value, b'{"a":1', "not one JSON object"),
        (json_value, b"{} {}", "not one JSON object"),
        (json_value, b'{"a":"0123456789"', "byte 17: the object does not end"),
    ],
)
def test_what_can_not_be_followed_is_refused_with_its_place(
    spooled: Callable[[bytes], Entry],
    monkeypatch: pytest.MonkeyPatch,
    split: Splitter,
    body: bytes,
    says: str,
    block: int,
) -> None:
    monkeypatch.setattr(entries, "BLOCK", block)
    with pytest.raises(MalformedBodyError) as refused:
        list(split(spooled(body), INLINE))
    assert says in str(refused.value)


def test_an_object_is_one_entry_and_a_large_one_is_only_looked_at(spooled: Callable[[bytes], Entry]) -> None:
    assert list(json_value(spooled(b' {"a":1}\n'), INLINE)) == [[b'{"a":1}']]
    assert list(json_value(spooled(b' {"a":nonsense}\n'), INLINE)) == [Large(1, 14)]


def test_a_section_is_the_entry_and_nothing_around_it(spooled: Callable[[bytes], Entry]) -> None:
    assert Section(spooled(b"0123456789"), Large(2, 5)).read() == b"23456"


@pytest.mark.parametrize("body", [b"[1,2]\n", b" " * 300 + b"[1]"])
def test_lines_stay_lines_whatever_the_first_one_begins_with(spooled: Callable[[bytes], Entry], body: bytes) -> None:
    assert shape_of(spooled(body), json=False) is Shape.NDJSON
    assert shape_of(spooled(body), json=True) is Shape.ARRAY
    assert shape_of(spooled(b"{}"), json=True) is Shape.VALUE


@pytest.mark.parametrize(
    ("name", "of_array", "of_object"),
    [
        ("a.json", Shape.ARRAY, Shape.VALUE),
        ("a.JSON", Shape.ARRAY, Shape.VALUE),
        ("a.ndjson", Shape.NDJSON, Shape.NDJSON),
        ("a.jsonl", Shape.NDJSON, Shape.NDJSON),
        ("folder.json/a.log", Shape.NDJSON, Shape.NDJSON),
        ("a.txt", Shape.ARRAY, Shape.NDJSON),
        ("a", Shape.ARRAY, Shape.NDJSON),
    ],
)
def test_the_ending_of_a_file_tells_its_shape_and_its_content_where_the_ending_does_not(
    spooled: Callable[[bytes], Entry], name: str, of_array: Shape, of_object: Shape
) -> None:
    assert shape_of_file(spooled(b"\n[1,2]"), name) is of_array
    assert shape_of_file(spooled(b'\n{"a":1}'), name) is of_object
