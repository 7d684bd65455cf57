"""The header, byte for byte, and every way in which chunks of one message can be wrong."""

import hashlib
import io
import struct
import zlib

import pytest

from shared.chunking import (
    ChunkError,
    ChunkHeader,
    Watermark,
    decode_header,
    decode_watermark,
    encode_header,
    encode_watermark,
    split,
)
from shared.errors import Reason, SpoolFullError

ID = bytes(range(16))


def pieces_of(body: bytes, chunk_bytes: int, attempt: int = 7) -> list[tuple[bytes, bytes]]:
    return list(split(io.BytesIO(body), len(body), chunk_bytes, ID, attempt))


def sealed(said: dict[str, int], value: bytes = b"abc", digest: bytes = b"", length: int | None = None) -> bytes:
    """A header with a true CRC that says whatever it is told to, packed without the code under test."""
    fields = {"major": 1, "flags": 0, "attempt": 7, "index": 0, "count": 3, "position": 0, "total": 8} | said
    checked = struct.pack(
        ">BBH16sIIIQQ",
        fields["major"],
        fields["flags"],
        52 + len(digest) if length is None else length,
        ID,
        *(fields[name] for name in ("attempt", "index", "count", "position", "total")),
    )
    return checked + struct.pack(">I", zlib.crc32(checked + value)) + digest


def reason_of(raw: bytes, value: bytes = b"abc") -> Reason:
    with pytest.raises(ChunkError) as caught:
        decode_header(raw, value)
    return caught.value.reason


# golden bytes


def test_the_header_of_a_chunk_is_these_bytes() -> None:
    [first, _, last] = pieces_of(b"abcdefgh", 3)
    assert first == (
        bytes.fromhex(
            "01"  # major version
            "00"  # flags
            "0034"  # 52 bytes of header
            "000102030405060708090a0b0c0d0e0f"  # message id
            "00000007"  # attempt
            "00000000"  # index
            "00000003"  # count
            "0000000000000000"  # byte offset of the chunk
            "0000000000000008"  # total size
            "48e7b533"  # CRC-32 of the above and the value
        ),
        b"abc",
    )
    assert last == (
        bytes.fromhex(
            "01"
            "01"  # the last chunk
            "0054"  # 84 bytes of header
            "000102030405060708090a0b0c0d0e0f"
            "00000007"
            "00000002"
            "00000003"
            "0000000000000006"
            "0000000000000008"
            "a0c086bd"
            "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"  # SHA-256 of abcdefgh
        ),
        b"gh",
    )


def test_the_check_is_the_crc_32_of_the_first_48_bytes_then_the_value() -> None:
    raw, value = pieces_of(b"abcdefgh", 3)[1]
    assert int.from_bytes(raw[48:52], "big") == zlib.crc32(raw[:48] + value)


def test_a_header_is_read_as_it_was_written() -> None:
    header = ChunkHeader(False, ID, 2**32 - 1, 5, 2**32 - 1, 2**62, 2**63, None)
    assert decode_header(encode_header(header, b"value"), b"value") == header


def test_a_longer_header_of_major_1_is_read_and_its_extension_passed_over() -> None:
    digest = hashlib.sha256(b"abc").digest()
    last = sealed({"flags": 1, "count": 1, "total": 3}, digest=digest + b"extension")
    assert decode_header(last, b"abc").digest == digest
    middle = sealed({}, digest=bytes(32) + b"extension")
    assert decode_header(middle, b"abc").digest is None


def test_unknown_flags_of_major_1_are_passed_over() -> None:
    assert decode_header(sealed({"flags": 0x80}), b"abc").index == 0


# headers that lie


@pytest.mark.parametrize("at", range(84))
def test_a_flipped_bit_is_noticed_at_every_byte_of_the_header(at: int) -> None:
    raw, value = pieces_of(b"abcdefgh", 3)[-1]
    for bit in range(8):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << bit
        if at >= 52:  # the digest is held against the whole message, by the assembler
            assert decode_header(bytes(flipped), value).digest != hashlib.sha256(b"abcdefgh").digest()
            continue
        reason = {
            0: Reason.CHUNK_UNKNOWN_VERSION,
            2: Reason.CHUNK_INVALID_HEADER,  # the length is not the header's
            3: Reason.CHUNK_INVALID_HEADER,
        }.get(at, Reason.CHUNK_CRC_MISMATCH)
        assert reason_of(bytes(flipped), value) is reason


def test_a_flipped_bit_is_noticed_at_every_byte_of_the_value() -> None:
    raw, value = pieces_of(b"abcdefgh", 3)[0]
    for at in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value)
            flipped[at] ^= 1 << bit
            assert reason_of(raw, bytes(flipped)) is Reason.CHUNK_CRC_MISMATCH


@pytest.mark.parametrize("length", range(84))
def test_a_header_cut_at_any_byte_is_invalid(length: int) -> None:
    raw, value = pieces_of(b"abcdefgh", 3)[-1]
    assert reason_of(raw[:length], value) is Reason.CHUNK_INVALID_HEADER


@pytest.mark.parametrize("major", [0, 2, 255])
def test_another_major_version_is_told_apart_from_a_broken_header(major: int) -> None:
    assert reason_of(sealed({"major": major})) is Reason.CHUNK_UNKNOWN_VERSION
    assert reason_of(bytes([major])) is Reason.CHUNK_UNKNOWN_VERSION


@pytest.mark.parametrize(
    "said",
    [
        {"count": 0},
        {"index": 3, "position": 3},
        {"index": 2**32 - 1, "position": 5, "count": 2**32 - 1},
        {"position": 1},  # chunk 0 not at the beginning
        {"index": 1, "position": 0},  # a later chunk at the beginning
        {"index": 2, "position": 1, "count": 4},  # two chunks in one byte
        {"index": 1, "position": 6},  # beyond the total
        {"index": 1, "position": 2**63},
        {"index": 1, "position": 2**64 - 1, "total": 2**64 - 1},
        {"count": 2**32 - 1},  # eight bytes cannot fill so many chunks
        {"total": 0},
        {"total": 2},
        {"total": 3},  # complete, with chunks to come
        {"count": 1, "total": 3},  # complete, without the flag of the last
        {"index": 2, "position": 5},  # the last index without the flag
    ],
)
def test_numbers_that_cannot_be_are_an_invalid_header(said: dict[str, int]) -> None:
    assert reason_of(sealed(said)) is Reason.CHUNK_INVALID_HEADER


@pytest.mark.parametrize(
    "said",
    [
        {},  # the flag of the last on the first of three
        {"index": 1, "position": 3},
        {"index": 2, "position": 4},  # the last, and a byte is missing
        {"index": 2, "position": 6},
        {"count": 1},
    ],
)
def test_a_flag_of_the_last_chunk_that_numbers_deny_is_an_invalid_header(said: dict[str, int]) -> None:
    assert reason_of(sealed(said | {"flags": 1}, digest=bytes(32))) is Reason.CHUNK_INVALID_HEADER


def test_a_last_chunk_without_a_digest_is_an_invalid_header() -> None:
    assert reason_of(sealed({"flags": 1, "index": 2, "position": 5})) is Reason.CHUNK_INVALID_HEADER


def test_a_length_that_is_not_the_header_s_is_an_invalid_header() -> None:
    assert reason_of(sealed({}, length=53)) is Reason.CHUNK_INVALID_HEADER
    assert reason_of(sealed({}) + b"more") is Reason.CHUNK_INVALID_HEADER


def test_a_chunk_of_no_bytes_is_an_invalid_header() -> None:
    assert reason_of(sealed({}, value=b""), b"") is Reason.CHUNK_INVALID_HEADER


@pytest.mark.parametrize("total", [2**63, 2**64 - 1])
def test_the_largest_numbers_are_only_compared_never_allocated(total: int) -> None:
    assert decode_header(sealed({"count": 2**32 - 1, "total": total}), b"abc").total == total


# writing


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_what_fits_in_one_message_is_not_split(size: int) -> None:
    with pytest.raises(ValueError, match="without chunks"):
        next(split(io.BytesIO(bytes(size)), size, 10, ID, 0))


@pytest.mark.parametrize(("size", "sizes"), [(11, [10, 1]), (19, [10, 9]), (20, [10, 10]), (30, [10, 10, 10])])
def test_a_value_over_the_chunk_size_is_split_and_no_chunk_is_empty(size: int, sizes: list[int]) -> None:
    assert [len(value) for _, value in pieces_of(bytes(size), 10)] == sizes


def test_a_source_that_returns_less_than_asked_is_read_on() -> None:
    class Trickle(io.RawIOBase):
        def __init__(self, body: bytes) -> None:
            self._body = io.BytesIO(body)

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return self._body.read(min(size, 2))

    source = Trickle(b"abcdefgh")
    assert [value for _, value in split(source, 8, 3, ID, 7)] == [b"abc", b"def", b"gh"]  # type: ignore[arg-type]  # raw


def test_a_source_that_ends_early_is_an_error_and_gives_no_last_chunk() -> None:
    chunks = split(io.BytesIO(b"abcdef"), 8, 3, ID, 7)
    assert [next(chunks)[1], next(chunks)[1]] == [b"abc", b"def"]
    with pytest.raises(ValueError, match="2 bytes before"):
        next(chunks)


def test_splitting_holds_one_chunk_at_a_time() -> None:
    class Counting(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1) -> bytes:
            self.asked += 1
            return super().read(size)

    source = Counting(bytes(100))
    chunks = split(source, 100, 10, ID, 0)
    next(chunks)
    next(chunks)
    assert source.asked == 2


# the commit's metadata


def test_the_metadata_of_a_watermark_is_short_and_readable() -> None:
    assert encode_watermark(Watermark(150)) == "w1 150"
    assert encode_watermark(Watermark(150, (20, 148))) == "w1 150 130 2"


@pytest.mark.parametrize("metadata", [None, "", "150", "w2 150", "w1", "w1 -3", "w1 150 x", "consumer-1-host"])
def test_metadata_of_others_is_no_watermark(metadata: str | None) -> None:
    assert decode_watermark(metadata) is None


def test_more_than_a_broker_s_metadata_holds_is_refused_with_the_remedy() -> None:
    with pytest.raises(SpoolFullError, match=r"2000 large messages.*SPOOL_MAX_BYTES"):
        encode_watermark(Watermark(10_000, tuple(range(2_000))))
