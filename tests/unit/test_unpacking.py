"""What is packed comes out whole, in bounded pieces, and a bomb does not."""

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from ingestion.entries import BLOCK
from ingestion.sources.file import FileSource
from ingestion.unpacking import (
    FILE_WINDOW,
    PUSH_WINDOW,
    PackedWronglyError,
    Packing,
    Unpacker,
    UnpacksTooLargeError,
    packing_of,
    unpacked,
)
from shared.spool import Spool

MIB = 1024 * 1024
PLAIN = os.urandom(3 * MIB) + b"x" * 5 * MIB
PACK: dict[Packing, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
PACKINGS: list[Packing] = ["gzip", "zstd"]


def fed(unpacker: Unpacker, data: bytes, step: int) -> list[bytes]:
    return [piece for at in range(0, len(data), step) for piece in unpacker.feed(data[at : at + step])]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("step", [7_001, 1 << 30])
def test_members_come_out_whole_in_pieces_of_a_block(packing: Packing, step: int) -> None:
    data = PACK[packing](PLAIN) + PACK[packing](b"") + PACK[packing](b"more")
    assert packing_of(data) == packing
    unpacker = Unpacker(packing, 1 << 30, "LIMIT")
    pieces = fed(unpacker, data, step)
    unpacker.end()
    assert b"".join(pieces) == PLAIN + b"more"
    assert max(map(len, pieces)) <= BLOCK


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_ends_early_or_is_something_else_is_refused(packing: Packing) -> None:
    data = PACK[packing](PLAIN)
    unpacker = Unpacker(packing, 1 << 30, "LIMIT")
    fed(unpacker, data[:-5], MIB)
    with pytest.raises(PackedWronglyError, match="ends within"):
        unpacker.end()
    for wrong in (b"plain text, not packed", data + b"rubbish behind it"):
        with pytest.raises(PackedWronglyError, match="no " + packing):
            fed(Unpacker(packing, 1 << 30, "LIMIT"), wrong, MIB)
    with pytest.raises(PackedWronglyError):
        Unpacker(packing, 1 << 30, "LIMIT").end()


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_bomb_is_refused_before_it_has_unpacked_much(packing: Packing) -> None:
    bomb = PACK[packing](bytes(64 * MIB))
    unpacker = Unpacker(packing, 1 << 30, "LIMIT")
    out: list[int] = []

    def explode() -> None:
        for at in range(0, len(bomb), 1024):
            out.extend(len(piece) for piece in unpacker.feed(bomb[at : at + 1024]))

    with pytest.raises(UnpacksTooLargeError, match="times its"):
        explode()
    assert sum(out) <= 18 * MIB
    with pytest.raises(UnpacksTooLargeError, match=r"over 1000 bytes \(LIMIT\)"):
        fed(Unpacker(packing, 1000, "LIMIT"), bomb, MIB)


def test_a_push_may_not_ask_for_a_window_that_is_out_of_proportion_and_a_file_may() -> None:
    def packed(window: int) -> bytes:
        options: dict[int, int] = {
            zstd.CompressionParameter.window_log: window,
            zstd.CompressionParameter.compression_level: 1,
        }
        packer = zstd.ZstdCompressor(options=options)
        return packer.compress(PLAIN * 3) + packer.flush()

    pushed = Unpacker("zstd", 1 << 30, "LIMIT", PUSH_WINDOW)
    with pytest.raises(PackedWronglyError, match="window of 8 MiB at most"):
        list(pushed.feed(packed(24)))
    for data, window in (
        (packed(23), PUSH_WINDOW),
        (zstd.compress(PLAIN * 3, 19), PUSH_WINDOW),
        (packed(27), FILE_WINDOW),
    ):
        assert sum(map(len, Unpacker("zstd", 1 << 30, "LIMIT", window).feed(data))) == 3 * len(PLAIN)


@pytest.mark.parametrize("packing", PACKINGS)
def test_tiny_members_cost_what_their_number_does_however_many_come_at_once(packing: Packing) -> None:
    member = PACK[packing](b"")
    few, many = (member * (size // len(member)) for size in (64 * 1024, 2048 * 1024))

    def seconds(data: bytes) -> float:
        begun = time.thread_time()
        assert not any(Unpacker(packing, 1 << 30, "LIMIT").feed(data))
        return time.thread_time() - begun

    assert seconds(many) < 32 * 2.5 * max(seconds(few) for _ in range(3))


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_is_spooled_unpacked_and_one_too_large_leaves_nothing(tmp_path: Path, packing: Packing) -> None:
    (tmp_path / "a").write_bytes(PACK[packing](PLAIN))
    spool = Spool(tmp_path / "spool", 1 << 30)
    source = FileSource(tmp_path / "a")
    with unpacked(source, packing, spool, 1 << 30, "LIMIT") as body:
        assert body.read() == PLAIN
    with pytest.raises(UnpacksTooLargeError):
        unpacked(source, packing, spool, MIB, "LIMIT")
    source.release()
    assert spool.used == 0
    assert list(spool.folder.iterdir()) == []
