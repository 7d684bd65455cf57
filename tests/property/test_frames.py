"""Frames lose, add and reorder nothing, and stay within their limits."""

from hypothesis import given
from hypothesis import strategies as st

from shared.frames import FrameBuilder, cut, entries

lines = st.lists(
    st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line and bool(line.strip())), max_size=50
)


@given(
    lines,
    st.lists(st.sampled_from([b"a", b"b", None]), min_size=50),
    st.lists(st.integers(1, 20), min_size=50),
    st.integers(1, 10),
    st.integers(1, 60),
)
def test_what_is_framed_comes_out_again_in_order(
    records: list[bytes], keys: list[bytes | None], portions: list[int], max_records: int, max_bytes: int
) -> None:
    builder = FrameBuilder(max_records, max_bytes)
    frames = []
    end = 0
    for portion in portions:
        begin, end = end, min(end + portion, len(records))
        frames += builder.add(list(zip(keys[begin:end], records[begin:end], strict=True)))
    frames += builder.flush()
    runs = [entries(value, "application/x-ndjson") for _, value in frames]
    assert [record for run in runs for record in run] == records
    at = 0
    for (key, value), run in zip(frames, runs, strict=True):
        own = set(keys[at : at + len(run)])
        assert key == (own.pop() if len(own) == 1 else None)
        assert len(run) <= max_records
        assert len(value) <= max_bytes or len(run) == 1
        at += len(run)
    assert [records[run] for run in cut(list(map(len, records)), max_records, max_bytes)] == runs


@given(st.binary(), st.sampled_from([None, "application/x-ndjson", "application/json", "text/plain; x"]))
def test_no_bytes_make_entries_fail(value: bytes, content_type: str | None) -> None:
    found = entries(value, content_type)
    if content_type == "application/x-ndjson":
        assert found == [line for line in value.split(b"\n") if line.strip()]
    elif content_type is not None:
        assert found == [value]


json_texts = st.sampled_from([b"{}", b'{"a": [1, 2]}', b"7", b'"x"', b"null", b'{\n"b": 1\n}'])


@given(st.lists(json_texts, min_size=2, max_size=5).filter(lambda texts: not any(b"\n" in text for text in texts)))
def test_json_lines_of_a_foreign_producer_are_entries_each(texts: list[bytes]) -> None:
    assert entries(b"\n".join(texts), None) == texts
