"""The codec of chunks: what is written is read, and no bytes break the reader."""

import hashlib
import io
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from shared.chunking import (
    MAJOR,
    ChunkError,
    ChunkHeader,
    Watermark,
    decode_header,
    decode_watermark,
    encode_header,
    encode_watermark,
    split,
)

ids = st.binary(min_size=16, max_size=16)


@given(st.binary(min_size=2, max_size=2_000), st.integers(1, 500), ids, st.integers(0, 2**32 - 1))
def test_the_chunks_of_a_value_are_the_value(body: bytes, chunk_bytes: int, message_id: bytes, attempt: int) -> None:
    chunk_bytes = min(chunk_bytes, len(body) - 1)
    pieces = list(split(io.BytesIO(body), len(body), chunk_bytes, message_id, attempt))
    headers = [decode_header(raw, value) for raw, value in pieces]
    assert b"".join(value for _, value in pieces) == body
    assert all(0 < len(value) <= chunk_bytes for _, value in pieces)
    assert [header.index for header in headers] == list(range(len(pieces)))
    assert {(h.message_id, h.attempt, h.count, h.total) for h in headers} == {
        (message_id, attempt, len(pieces), len(body))
    }
    assert [header.position for header in headers] == list(range(0, len(body), chunk_bytes))
    assert [header.last for header in headers] == [False] * (len(pieces) - 1) + [True]
    assert [header.digest for header in headers] == [None] * (len(pieces) - 1) + [hashlib.sha256(body).digest()]


@given(st.binary(max_size=120), st.binary(max_size=40))
@example(b"", b"")
@example(bytes([MAJOR]) + bytes(51), b"x")
def test_any_bytes_are_a_header_or_a_chunk_error(raw: bytes, value: bytes) -> None:
    with suppress(ChunkError):
        decode_header(raw, value)


numbers = st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1), st.just(2**32 - 1))
sizes = st.one_of(st.integers(0, 10), st.integers(0, 2**64 - 1), st.sampled_from([2**63, 2**64 - 1]))


@given(ids, numbers, numbers, numbers, sizes, sizes, st.booleans(), st.binary(max_size=8))
def test_numbers_that_the_reader_lets_through_can_be_true(
    message_id: bytes, attempt: int, index: int, count: int, position: int, total: int, last: bool, value: bytes
) -> None:
    claim = ChunkHeader(last, message_id, attempt, index, count, position, total, bytes(32) if last else None)
    try:
        header = decode_header(encode_header(claim, value), value)
    except ChunkError:
        return
    assert header == claim
    assert header.index < header.count
    assert 0 < len(value) <= header.total - header.position
    assert header.last == (header.index == header.count - 1)
    assert header.last == (header.position + len(value) == header.total)
    assert (header.index == 0) == (header.position == 0)


@given(st.binary(min_size=3, max_size=60), st.integers(1, 59), st.data())
def test_one_flipped_bit_of_header_or_value_is_always_noticed(
    body: bytes, chunk_bytes: int, data: st.DataObject
) -> None:
    pieces = list(split(io.BytesIO(body), len(body), min(chunk_bytes, len(body) - 1), bytes(16), 0))
    raw, value = data.draw(st.sampled_from(pieces))
    checked = bytearray(raw[:52] + value)
    bit = data.draw(st.integers(0, len(checked) * 8 - 1))
    checked[bit // 8] ^= 1 << bit % 8
    try:
        decode_header(bytes(checked[:52]) + raw[52:], bytes(checked[52:]))
    except ChunkError:
        return
    raise AssertionError(f"bit {bit} of byte {bit // 8} was not noticed")


@given(st.integers(0, 2**63 - 1), st.sets(st.integers(1, 10_000), max_size=50))
def test_a_watermark_comes_back_from_the_metadata(offset: int, distances: set[int]) -> None:
    owed = tuple(sorted(offset - distance for distance in distances if distance <= offset))
    assert decode_watermark(encode_watermark(Watermark(offset, owed))) == Watermark(offset, owed)


@given(st.text())
@example("w1 1 99999999999999999999")
@example("w1 \u0661")
def test_no_metadata_breaks_the_reader(metadata: str) -> None:
    found = decode_watermark(metadata)
    assert found is None or found.offset >= 0
