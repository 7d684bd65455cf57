"""What is sent is cut where entries end, nothing of it is lost, and a send goes on wherever it ended."""

import csv
import gzip
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.exits import UnreadableError
from console.parts import Input, Kind, Part, Place

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES = b"".join(b'{"n":%d,"text":"%s"}\n' % (n, b"x" * (n % 40)) for n in range(500))
PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}
FIELDS = st.text(st.sampled_from('ab,"\n\r\tü '), max_size=6)


class Sent(NamedTuple):
    """A part, as it was when it was there."""

    begin: int
    end: int
    crc_before: int
    crc: int
    body: bytes


def sent(part: Part) -> Sent:
    body = b"".join(part.content())
    assert len(body) == part.size
    assert body == b"".join(part.content()), "a part can be sent again"
    assert not part.blank
    return Sent(part.begin, part.end, part.crc_before, part.crc, body)


def parts_of(path: Path, part_bytes: int, kind: Kind | None = None, place: Place | None = None) -> list[Sent]:
    source = Input(str(path), kind, part_bytes)
    try:
        return list(map(sent, source.parts(place)))
    finally:
        source.close()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_lines_are_cut_at_their_ends_and_packed_ones_are_unpacked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"some.ndjson{ending}"
    path.write_bytes(PACKED[ending](LINES))
    parts = parts_of(path, 1_000)
    assert b"".join(part.body for part in parts) == LINES
    assert len(parts) > 10
    assert all(part.body.endswith(b"\n") and len(part.body) <= 1_000 for part in parts)


def test_packed_files_one_behind_the_other_are_one_input(tmp_path: Path) -> None:
    for name, pack in (("a.gz", gzip.compress), ("a.zst", zstd.compress)):
        path = tmp_path / name
        path.write_bytes(pack(LINES) + pack(LINES))
        assert b"".join(part.body for part in parts_of(path, 1_000)) == LINES + LINES


def test_a_line_longer_than_a_part_is_a_part(tmp_path: Path) -> None:
    path = tmp_path / "long.ndjson"
    long = b'{"text":"' + b"x" * 3_000_000 + b'"}\n'
    path.write_bytes(b"{}\n" + long + b"{}")
    assert [part.body for part in parts_of(path, 1_000)] == [b"{}\n", long, b"{}"]


def test_blank_stretches_are_no_parts_but_count_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "blank.ndjson"
    path.write_bytes(b"{}\n" + b"\n" * 5_000 + b"{}\n\n \n")
    parts = parts_of(path, 1_000)
    assert b"".join(part.body for part in parts).split() == [b"{}", b"{}"]
    path.write_bytes(b" \n\n")
    assert parts_of(path, 1_000) == []


def test_json_goes_whole(tmp_path: Path) -> None:
    path = tmp_path / "array"
    path.write_bytes(b" [" + b'{"n":1},' * 2_000 + b"{}]")
    (part,) = parts_of(path, 1_000)
    assert part.body == path.read_bytes()


def table(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), min_size=1, max_size=30), st.booleans())
def test_rows_stay_whole_each_part_under_the_header(rows: list[list[str]], bom: bool) -> None:
    header = ["a,b", "c\nd"]
    data = (b"\xef\xbb\xbf" if bom else b"") + table([header, *rows])
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    source = Input(f"/dev/fd/{read_end}", Kind.CSV, 40)
    found: list[list[str]] = []
    for part in map(sent, source.parts()):
        first, *others = csv.reader(io.StringIO(part.body.decode("utf-8-sig"), newline=""), strict=True)
        assert first == header
        found += others
    source.close()
    os.close(read_end)
    assert [row for row in found if row] == rows


def test_csv_that_can_not_be_cut_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b'a,b\n1,2\n3,"4"x\n')
    with pytest.raises(UnreadableError, match=r"bad\.csv: line 3: "):
        parts_of(path, 4)
    path.write_bytes(b'a,b\n1,"' + b"x\n" * 200_000)
    with pytest.raises(UnreadableError, match=r"line 2: .*closing quote"):
        parts_of(path, 4)


@pytest.mark.parametrize("name", ["some.ndjson", "some.csv"])
def test_a_send_goes_on_at_any_place_with_the_same_parts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(LINES if name.endswith("ndjson") else b"n,text\n" + b'1,"x\ny"\n' * 400)
    whole = parts_of(path, 1_000)
    for number, part in enumerate(whole):
        assert parts_of(path, 1_000, place=Place("n", number, part.begin, 0, part.crc_before)) == whole[number:]
        # in doubt: sent as long as it was, whatever a part's size is now
        place = Place.read(str(Place("n", number, part.begin, part.end - part.begin, part.crc)))
        first, *others = parts_of(path, 300, place=place)
        assert (first.body, first.crc) == (part.body, part.crc)
        assert (others[-1].end if others else first.end) == whole[-1].end


def test_what_has_grown_goes_on_and_what_has_changed_does_not(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(LINES)
    *_, last = parts_of(path, 1_000)
    place = Place("n", 7, last.begin, last.end - last.begin, last.crc)
    path.write_bytes(LINES + b"{}\n")
    assert [part.body for part in parts_of(path, 1_000, place=place)] == [last.body, b"{}\n"]
    path.write_bytes(LINES.replace(b'"n":3,', b'"n":4,'))
    with pytest.raises(UnreadableError, match="other bytes than what was sent as n"):
        parts_of(path, 1_000, place=place)
    path.write_bytes(LINES[:-5])
    with pytest.raises(UnreadableError, match="is shorter than what was sent"):
        parts_of(path, 1_000, place=place)


def test_a_packed_file_that_ends_too_soon_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.ndjson.gz"
    lines = b"".join(os.urandom(50).hex().encode() + b"\n" for _ in range(60_000))
    path.write_bytes(gzip.compress(lines, 1)[:-1_000])
    source = Input(str(path), part_bytes=100_000)
    bodies: list[bytes] = []
    with pytest.raises(UnreadableError, match=r"cut\.ndjson\.gz can't be read on after byte [1-9]"):
        bodies.extend(sent(part).body for part in source.parts())
    source.close()
    found = b"".join(bodies)
    assert len(found) > len(lines) / 2
    assert lines.startswith(found)


def test_the_name_or_the_first_character_tells_the_kind(tmp_path: Path) -> None:
    for name, content, kind in (
        ("a.json", b"{}", Kind.JSON), ("a.CSV.GZ", b"a\n1", Kind.CSV), ("a.log", b"[x]", Kind.NDJSON),
        ("a.jsonl.zst", b"{}", Kind.NDJSON), ("a", b" [1]", Kind.JSON), ("b", b"{}", Kind.NDJSON),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        source = Input(str(tmp_path / name))
        source.close()
        assert source.kind is kind
