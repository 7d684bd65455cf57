"""Chunks that were tampered with, for a bounded time: `make fuzz`, or FUZZ_SECONDS for each target here.

Each round is Hypothesis with a seed of its own, counted up from FUZZ_SEED, which is printed: the same number repeats
what was found.
"""

import hashlib
import io
import os
import random
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from shared.chunking import Assembler, ChunkError, ChunkHeader, Poisoned, Whole, decode_header, encode_header, split
from shared.errors import Reason
from shared.spool import Spool
from shared.topics import H_CHUNK
from tests.property import test_chunking_delivery as delivery

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "2"))
FIXED: Final = 52  # bytes of a header before the digest
FIELDS: Final = {"length": (2, 2), "attempt": (20, 4), "index": (24, 4), "count": (28, 4), "position": (32, 8),
                 "total": (40, 8), "crc": (48, 4)}  # fmt: skip
TOLD: Final = {Reason.CHUNK_INVALID_HEADER, Reason.CHUNK_UNKNOWN_VERSION, Reason.CHUNK_CRC_MISMATCH}

Chunk = tuple[bytes, bytes]  # header, value


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Iterator[Iterator[int]]:
    """Seeds, until the time is over."""
    first = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
    print(f"\nFUZZ_SEED={first}")  # noqa: T201 - shown when the test fails, and by `make fuzz`
    counted = 0

    def numbers() -> Iterator[int]:
        nonlocal counted
        until = time.monotonic() + SECONDS
        while counted == 0 or time.monotonic() < until:
            yield first + counted
            counted += 1

    yield numbers()
    print(f"{request.node.name}: {counted} rounds, the last of seed {first + counted - 1}")  # noqa: T201 - likewise


small = settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def sealed(raw: bytes, value: bytes) -> bytes:
    """The header with the CRC-32 that is right for it, where it has room for one."""
    if len(raw) < FIXED:
        return raw
    return raw[:48] + zlib.crc32(value, zlib.crc32(raw[:48])).to_bytes(4, "big") + raw[FIXED:]


@st.composite
def chunks(draw: st.DrawFn) -> list[Chunk]:
    """All chunks of one message of one of a few ids."""
    body = draw(st.binary(min_size=2, max_size=40))
    chunk_bytes = draw(st.integers(1, len(body) - 1))
    message_id, attempt = bytes([draw(st.integers(0, 2))] * 16), draw(st.integers(0, 2))
    return list(split(io.BytesIO(body), len(body), chunk_bytes, message_id, attempt))


@st.composite
def tampered(draw: st.DrawFn) -> Chunk:
    """A true chunk after a few changes, its CRC made right again or not."""
    raw, value = draw(st.sampled_from(draw(chunks())))
    for _ in range(draw(st.integers(1, 4))):
        deed = draw(st.sampled_from(["bit", "number", "cut", "longer", "value", "flags"]))
        if deed == "bit" and raw:
            at = draw(st.integers(0, len(raw) - 1))
            raw = raw[:at] + bytes([raw[at] ^ 1 << draw(st.integers(0, 7))]) + raw[at + 1 :]
        elif deed == "number" and len(raw) >= FIXED:
            at, size = draw(st.sampled_from(list(FIELDS.values())))
            top = 2 ** (8 * size) - 1
            number = draw(st.sampled_from([0, 1, 2, top, top - 1, (top + 1) // 2]) | st.integers(0, top))
            raw = raw[:at] + number.to_bytes(size, "big") + raw[at + size :]
        elif deed == "cut":
            raw = raw[: draw(st.integers(0, len(raw)))]
        elif deed == "longer":
            raw += draw(st.binary(max_size=40))
            if len(raw) >= FIXED and draw(st.booleans()):
                raw = raw[:2] + struct.pack(">H", len(raw)) + raw[4:]
        elif deed == "value":
            value = draw(st.binary(max_size=50))
        elif deed == "flags" and len(raw) > 1:
            raw = raw[:1] + bytes([draw(st.integers(0, 255))]) + raw[2:]
    return (sealed(raw, value) if draw(st.booleans()) else raw), value


def read_or_refused(raw: bytes, value: bytes) -> ChunkHeader | ChunkError:
    try:
        return decode_header(raw, value)
    except ChunkError as error:
        return error


@small
@given(st.one_of(tampered(), st.tuples(st.binary(max_size=120), st.binary(max_size=20))))
@example((b"", b""))
def whatever_is_read_is_true(chunk: Chunk) -> None:
    raw, value = chunk
    header = read_or_refused(raw, value)
    if isinstance(header, ChunkError):
        assert header.reason in TOLD
        assert header.claimed in {None, (raw[4:20], int.from_bytes(raw[20:24], "big"))}
        return
    assert raw[0] == 1
    assert len(raw) == int.from_bytes(raw[2:4], "big") >= (84 if header.last else FIXED)
    assert int.from_bytes(raw[48:52], "big") == zlib.crc32(raw[:48] + value)
    assert 0 <= header.index < header.count
    assert 0 < len(value) <= header.total - header.position
    assert header.last == (header.index == header.count - 1) == (header.position + len(value) == header.total)
    assert header.digest == (raw[FIXED:84] if header.last else None)
    again = encode_header(header, value)
    assert again[4:48] == raw[4:48]
    assert decode_header(again, value) == header


@small
@given(
    st.lists(st.tuples(chunks(), st.lists(tampered(), max_size=2)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def whatever_is_delivered_was_sent(messages: list[tuple[list[Chunk], list[Chunk]]], rng: random.Random) -> None:
    stream = [chunk for whole, others in messages for chunk in [*whole, *others]]
    for _ in range(rng.randrange(4)):
        at, other = rng.randrange(len(stream)), rng.randrange(len(stream))
        stream[at], stream[other] = stream[other], stream[at]
    digests = {raw[FIXED:84] for raw, _ in stream}
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), 256)
        assembler = Assembler(spool, 128)
        told: set[tuple[bytes, int]] = set()
        for offset, (raw, value) in enumerate(stream):
            for event in assembler.feed(0, offset, offset, b"key", value, [(H_CHUNK, raw)]):
                if isinstance(event, Whole):
                    assert hashlib.sha256(event.payload.read()).digest() in digests
                    event.payload.release()
                elif event.message_id is not None and event.attempt is not None:
                    assert event.value in {value for _, value in stream}
                    told.add((event.message_id, event.attempt))
            assert 0 <= assembler.safe_offset(0, offset + 1) <= offset + 1
            assert spool.used <= spool.quota
        for event in assembler.expire(0, 2**40, None):
            assert isinstance(event, Poisoned)
            assert (event.message_id, event.attempt) not in told, "told twice"
        assembler.drop(0)
        assert spool.used == 0


@pytest.mark.parametrize("target", [whatever_is_read_is_true, whatever_is_delivered_was_sent])
def test_tampered_chunks(target: Callable[[], None], rounds: Iterator[int]) -> None:
    for number in rounds:
        seed(number)(target)()


@pytest.mark.parametrize(
    "target",
    [
        delivery.test_every_message_is_delivered_once_and_only_the_unfinished_expire,
        delivery.test_poison_is_one_dead_letter_for_each_attempt_and_harms_no_other_message,
        delivery.test_no_dead_letter_is_lost_when_the_spool_is_crowded,
        delivery.test_no_order_of_chunks_breaks_the_reader_or_makes_it_deliver_what_nobody_sent,
    ],
)
def test_crashes_aborts_and_full_spools(target: Any, rounds: Iterator[int]) -> None:
    """The simulation of test_chunking_delivery with as many seeds as there is time for."""
    for number in rounds:
        target.hypothesis.inner_test(number % 2**32)


def test_a_fault_of_the_decoder_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.chunking._contradiction", lambda *_: None)
    with pytest.raises((AssertionError, ExceptionGroup)):
        test_tampered_chunks(whatever_is_read_is_true, iter(range(50)))
