"""Which entries a message holds, and when a frame closes."""

import pytest

from shared.frames import FrameBuilder, cut, entries

NDJSON = "application/x-ndjson"


@pytest.mark.parametrize("content_type", [NDJSON, "Application/X-NDJSON", NDJSON + "; charset=utf-8", f" {NDJSON} "])
def test_ndjson_is_split_on_lf(content_type: str) -> None:
    assert entries(b'{"a":1}\n{"b":2}\n', content_type) == [b'{"a":1}', b'{"b":2}']


def test_ndjson_is_split_on_lf_even_where_a_line_is_no_json() -> None:
    assert entries(b'{"a":1}\ngarbage\n{"b":', NDJSON) == [b'{"a":1}', b"garbage", b'{"b":']


def test_empty_lines_are_not_entries() -> None:
    assert entries(b'\n{"a":1}\n\n  \r\n\n{"b":2}\n', NDJSON) == [b'{"a":1}', b'{"b":2}']
    assert entries(b"", NDJSON) == []
    assert entries(b" \n\t\n", NDJSON) == []
    assert entries(b"  ", NDJSON) == []


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-protobuf", ""])
@pytest.mark.parametrize("value", [b'{\n "a": 1\n}', b'{"a":1}\n{"b":2}', b"\n\n", b"\x08\n\x0a\x00", b""])
def test_any_other_content_type_is_one_entry_untouched(content_type: str, value: bytes) -> None:
    assert entries(value, content_type) == [value]


def test_without_a_content_type_one_json_value_is_one_entry_though_it_has_many_lines() -> None:
    pretty = b'{\n  "a": [\n    1,\n    2\n  ]\n}\n'
    assert entries(pretty, None) == [pretty]


def test_without_a_content_type_lines_that_are_all_json_are_entries() -> None:
    assert entries(b'{"a":1}\n\n{"b":2}\n', None) == [b'{"a":1}', b'{"b":2}']
    assert entries(b"1\n2", None) == [b"1", b"2"]


@pytest.mark.parametrize(
    "text",
    [
        b'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: x',
        b'{"a":1}\nnot json',
        b'{"a":1}\n{"b":',
        b"\n\n",
        b"\xff\xfe\n{}",
        b"",
    ],
)
def test_without_a_content_type_anything_else_is_one_entry_of_text(text: bytes) -> None:
    assert entries(text, None) == [text]


def test_deep_nesting_does_not_end_the_reader() -> None:
    deep = b"[" * 100_000 + b"\n" + b"]" * 100_000
    assert entries(deep, None) == [deep]


def test_a_frame_closes_on_records() -> None:
    builder = FrameBuilder(max_records=2, max_bytes=1_000)
    assert builder.add([(b"k", b"1")]) == []
    assert builder.add([(b"k", b"2")]) == [(b"k", b"1\n2")]
    assert builder.flush() == []


def test_a_frame_of_one_record_is_the_record_itself() -> None:
    builder = FrameBuilder(max_records=1, max_bytes=1_000)
    assert builder.add([(b"k", b'{"a":1}')]) == [(b"k", b'{"a":1}')]


def test_a_frame_closes_before_it_would_exceed_its_bytes() -> None:
    builder = FrameBuilder(max_records=100, max_bytes=9)
    assert builder.add([(b"k", b"1234")]) == []
    assert builder.add([(b"k", b"56789")]) == [(b"k", b"1234")]
    assert builder.flush() == [(b"k", b"56789")]


def test_a_frame_that_is_full_to_the_byte_closes_at_once() -> None:
    builder = FrameBuilder(max_records=100, max_bytes=9)
    builder.add([(b"k", b"1234")])
    assert builder.add([(b"k", b"5678")]) == [(b"k", b"1234\n5678")]


def test_a_record_over_the_limit_is_a_frame_of_its_own_and_comes_in_order() -> None:
    builder = FrameBuilder(max_records=100, max_bytes=9)
    builder.add([(b"k", b"12")])
    assert builder.add([(b"k", b"0123456789")]) == [(b"k", b"12"), (b"k", b"0123456789")]
    assert builder.flush() == []


def test_a_frame_s_key_is_its_records_own_or_none_when_they_differ() -> None:
    builder = FrameBuilder(max_records=2, max_bytes=1_000)
    builder.add([(b"a", b"1")])
    assert builder.add([(b"b", b"2")]) == [(None, b"1\n2")]
    builder.add([(b"a", b"3")])
    assert builder.add([(b"a", b"4")]) == [(b"a", b"3\n4")], "a mixed frame must not colour the next one"
    builder.add([(None, b"5")])
    assert builder.add([(b"a", b"6")]) == [(None, b"5\n6")]


def test_cut_gives_what_the_builder_would_gather() -> None:
    lines = [b"1234", b"5678", b"9", b"0123456789", b"1"]
    runs = cut(list(map(len, lines)), 100, 9)
    assert [lines[run] for run in runs] == [[b"1234", b"5678"], [b"9"], [b"0123456789"], [b"1"]]
    assert list(cut([], 100, 9)) == []
