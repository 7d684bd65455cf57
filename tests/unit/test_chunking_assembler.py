"""What a reader makes of chunks: whole messages, or poison with its reason, and never a guess."""

import hashlib
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from shared.chunking import (
    Assembler,
    ChunkError,
    ChunkHeader,
    Poisoned,
    Refetch,
    Watermark,
    Whole,
    decode_header,
    encode_header,
    split,
)
from shared.errors import ConfigurationError, Reason
from shared.spool import Spool
from shared.topics import H_CHUNK

KIB = 1024
EXPIRY_MS = 30 * 60 * 1000
Header = tuple[str, bytes | None]
Piece = tuple[bytes, bytes]  # header, value
Event = Whole | Poisoned


def id_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def pieces(number: int, body: bytes = b"abcdefgh", chunk_bytes: int = 3, attempt: int = 0) -> list[Piece]:
    return list(split(io.BytesIO(body), len(body), chunk_bytes, id_of(number), attempt))


def resealed(piece: Piece, **changes: int | bytes | None) -> Piece:
    """The same chunk, saying something else under a true CRC."""
    raw, value = piece
    said = decode_header(raw, value)
    fields = {name: getattr(said, name) for name in ChunkHeader.__slots__} | changes
    return encode_header(ChunkHeader(**fields), value), value


class Feeder:
    """Feeds an assembler with the offsets of a partition that nobody else writes to."""

    def __init__(self, assembler: Assembler, partition: int = 0, offset: int = 0) -> None:
        self.assembler = assembler
        self.partition = partition
        self.offset = offset

    def __call__(
        self,
        *chunks: Piece,
        key: bytes | None = b"key",
        headers: Sequence[Header] = (),
        time_ms: int | None = None,
        at: int | None = None,
    ) -> list[Event]:
        events: list[Event] = []
        if at is not None:
            self.offset = at
        for raw, value in chunks:
            time = self.offset if time_ms is None else time_ms
            events += self.assembler.feed(self.partition, self.offset, time, key, value, [(H_CHUNK, raw), *headers])
            self.offset += 1
        return events


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, 64 * KIB)


@pytest.fixture
def assembler(spool: Spool) -> Assembler:
    return Assembler(spool, 16 * KIB)


@pytest.fixture
def feed(assembler: Assembler) -> Feeder:
    return Feeder(assembler)


def only_whole(events: list[Event]) -> Whole:
    [event] = events
    assert isinstance(event, Whole)
    return event


def only_poison(events: list[Event]) -> Poisoned:
    [event] = events
    assert isinstance(event, Poisoned)
    return event


def bodies(events: Iterable[Event]) -> list[bytes]:
    return [event.payload.read() for event in events if isinstance(event, Whole)]


# whole messages


def test_a_message_comes_out_as_its_chunk_0_came_in(feed: Feeder) -> None:
    [first, *rest] = pieces(1)
    user: list[Header] = [("content-type", b"x/y"), ("again", b"1"), ("again", b"2"), ("null", None)]
    assert feed(first, key=b"\x00\xff", headers=user, time_ms=1_000, at=40) == []
    [whole] = feed(*rest, key=b"\x00\xff", time_ms=9_000)
    assert isinstance(whole, Whole)
    assert (whole.partition, whole.offset, whole.timestamp_ms, whole.key) == (0, 40, 1_000, b"\x00\xff")
    assert whole.headers == tuple(user)
    assert whole.payload.size == 8
    assert whole.payload.read() == b"abcdefgh"
    with whole.payload.open() as stream:
        assert stream.read() == b"abcdefgh"


def test_a_null_key_stays_null(feed: Feeder) -> None:
    assert only_whole(feed(*pieces(1), key=None)).key is None


def test_headers_larger_than_any_buffer_come_back_and_wait_on_disk(feed: Feeder, spool: Spool) -> None:
    large: list[Header] = [("large", bytes(10 * KIB)), ("é", b"\xff")]
    first, *rest = pieces(1)
    feed(first, headers=large)
    assert spool.used > 10 * KIB
    assert only_whole(feed(*rest)).headers == tuple(large)


@pytest.mark.parametrize("size", [4, 5, 6, 7, 300])
def test_sizes_about_a_multiple_of_the_chunk_size_come_out_equal(feed: Feeder, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    assert bodies(feed(*pieces(1, body))) == [body]


def test_a_message_of_one_chunk_of_a_foreign_producer_is_whole(feed: Feeder) -> None:
    header = ChunkHeader(True, id_of(1), 0, 0, 1, 0, 3, hashlib.sha256(b"abc").digest())
    assert bodies(feed((encode_header(header, b"abc"), b"abc"))) == [b"abc"]


def test_chunks_of_unequal_sizes_are_a_message_too(feed: Feeder) -> None:
    """The format does not say that chunks are of one size."""
    digest = hashlib.sha256(b"abcdef").digest()
    parts, position = [], 0
    for index, value in enumerate([b"a", b"bcd", b"ef"]):
        last = index == 2
        header = ChunkHeader(last, id_of(1), 0, index, 3, position, 6, digest if last else None)
        parts.append((encode_header(header, value), value))
        position += len(value)
    assert bodies(feed(*parts)) == [b"abcdef"]


def test_producers_with_different_chunk_sizes_interleave(feed: Feeder) -> None:
    one, two = pieces(1, b"one" * 5, 4), pieces(2, b"two" * 5, 7)
    events = feed(one[0], two[0], one[1], one[2], two[1], one[3], two[2])
    assert bodies(events) == [b"one" * 5, b"two" * 5]


def test_chunks_of_one_id_on_two_partitions_are_not_put_together(assembler: Assembler) -> None:
    first, second, last = pieces(1)
    left, right = Feeder(assembler, 0), Feeder(assembler, 1)
    assert left(first) == []
    assert only_poison(right(second)).reason is Reason.CHUNK_MISSING
    assert only_poison(left(last)).reason is Reason.CHUNK_MISSING


def test_the_spool_is_empty_once_a_payload_is_released(feed: Feeder, spool: Spool) -> None:
    whole = only_whole(feed(*pieces(1)))
    assert spool.used == 8
    whole.payload.release()
    assert spool.used == 0
    assert (feed.assembler.open, feed.assembler.complete) == (0, 1)


# duplicates and attempts


@pytest.mark.parametrize(
    "order", [[0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 0, 1, 2], [0, 1, 0, 2], [0, 1, 2, 2], [0, 1, 2, 0, 1, 2], [0, 1, 2, 1]]
)
def test_duplicates_are_passed_over_before_and_after_the_end(feed: Feeder, order: list[int]) -> None:
    parts = pieces(1)
    events = feed(*(parts[index] for index in order))
    assert bodies(events) == [b"abcdefgh"]
    assert len(events) == 1


def test_the_same_index_with_other_bytes_poisons(feed: Feeder) -> None:
    parts, others = pieces(1), pieces(1, b"abcXefgh")
    poison = only_poison(feed(parts[0], parts[1], others[1], parts[2]))
    assert poison.reason is Reason.CHUNK_CONFLICT
    assert poison.value == b"Xef"


def test_the_same_index_at_another_place_poisons(feed: Feeder) -> None:
    parts = pieces(1, b"abcdefgh", 2)
    assert only_poison(feed(*parts[:3], resealed(parts[1], position=4))).reason is Reason.CHUNK_CONFLICT


@pytest.mark.parametrize("changes", [{"total": 9}, {"count": 4}, {"total": 7}])
def test_the_same_id_with_other_totals_poisons(feed: Feeder, changes: dict[str, int]) -> None:
    parts = pieces(1)
    assert only_poison(feed(parts[0], resealed(parts[1], **changes), parts[2])).reason is Reason.CHUNK_CONFLICT


def test_a_duplicate_with_other_totals_poisons(feed: Feeder) -> None:
    parts = pieces(1)
    assert only_poison(feed(parts[0], resealed(parts[0], total=100))).reason is Reason.CHUNK_CONFLICT


def test_a_gap_in_the_bytes_poisons_though_no_index_is_missing(feed: Feeder) -> None:
    parts = pieces(1, b"abcdefghi", 3)
    assert only_poison(feed(parts[0], resealed(parts[1], position=2))).reason is Reason.CHUNK_CONFLICT


def test_a_newer_attempt_drops_the_older_one_and_begins_at_its_own_chunk_0(feed: Feeder, spool: Spool) -> None:
    old, new = pieces(1, attempt=3), pieces(1, b"ABCDEFGHIJ", 4, attempt=4)
    whole = only_whole(feed(old[0], old[1], *new))
    assert (whole.offset, whole.payload.read()) == (2, b"ABCDEFGHIJ")
    assert (feed.assembler.dropped, feed.assembler.poisoned) == (1, 0)
    whole.payload.release()
    assert spool.used == 0


def test_stragglers_of_an_older_attempt_are_passed_over_during_and_after_the_newer(feed: Feeder) -> None:
    old, new = pieces(1, attempt=0), pieces(1, b"ABCDEFGH", attempt=1)
    events = feed(old[0], new[0], old[1], new[1], old[2], old[0], new[2], old[1], old[2])
    assert bodies(events) == [b"ABCDEFGH"]
    assert len(events) == 1


def test_a_straggler_of_an_attempt_never_seen_before_does_not_drop_the_newer(feed: Feeder) -> None:
    old, new = pieces(1, attempt=0), pieces(1, b"ABCDEFGH", attempt=1)
    assert bodies(feed(new[0], old[0], new[1], new[2])) == [b"ABCDEFGH"]


def test_a_newer_attempt_after_the_delivery_is_not_delivered_again(feed: Feeder) -> None:
    """The producer retried although its commit had succeeded."""
    assert len(feed(*pieces(1, attempt=0), *pieces(1, attempt=1))) == 1


def test_a_newer_attempt_after_poison_is_delivered(feed: Feeder) -> None:
    old, new = pieces(1, attempt=0), pieces(1, attempt=1)
    poison, whole = feed(old[0], old[2], *new)
    assert isinstance(poison, Poisoned)
    assert bodies([whole]) == [b"abcdefgh"]


# poison


def test_a_missing_chunk_poisons_once_and_the_rest_is_swallowed(feed: Feeder, spool: Spool) -> None:
    parts = pieces(1, bytes(range(50)), 10)
    feed(parts[0], headers=[("user", b"1")], key=b"first", at=70)
    poison = only_poison(feed(parts[2], parts[3], parts[4], key=b"other"))
    assert poison == Poisoned(
        partition=0,
        offset=70,
        reason=Reason.CHUNK_MISSING,
        detail="chunk 2 came where 1 was due",
        key=b"first",
        headers=(("user", b"1"), (H_CHUNK, parts[2][0])),
        message_id=id_of(1),
        attempt=0,
        value=parts[2][1],
    )
    assert (feed.assembler.open, feed.assembler.poisoned, spool.used) == (0, 1, 0)


def test_a_missing_first_chunk_poisons_once_at_what_was_seen(feed: Feeder) -> None:
    parts = pieces(1)
    poison = only_poison(feed(parts[1], parts[2], at=5))
    assert (poison.reason, poison.offset, poison.value) == (Reason.CHUNK_MISSING, 5, b"def")


def corrupt(piece: Piece) -> Piece:
    return piece[0], bytes([piece[1][0] ^ 1]) + piece[1][1:]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_bit_flip_in_any_chunk_s_value_is_one_dead_letter_of_the_message(feed: Feeder, spool: Spool, at: int) -> None:
    parts = pieces(1)
    parts[at] = corrupt(parts[at])
    poison = only_poison(feed(*parts, *parts))
    assert (poison.reason, poison.message_id, poison.offset) == (Reason.CHUNK_CRC_MISMATCH, id_of(1), 0)
    assert poison.value == parts[at][1]
    assert spool.used == 0


def test_a_corrupt_header_that_names_a_newer_attempt_does_not_drop_the_true_one(feed: Feeder) -> None:
    parts = pieces(1, attempt=0)
    raw = bytearray(parts[1][0])
    raw[23] ^= 4  # the attempt
    poison, whole = feed(parts[0], (bytes(raw), parts[1][1]), *parts[1:])
    assert isinstance(poison, Poisoned)
    assert (poison.reason, poison.attempt) == (Reason.CHUNK_CRC_MISMATCH, 4)
    assert bodies([whole]) == [b"abcdefgh"]


@pytest.mark.parametrize("digest", [bytes(32), hashlib.sha256(b"other").digest()])
def test_a_wrong_digest_poisons(feed: Feeder, spool: Spool, digest: bytes) -> None:
    parts = pieces(1)
    poison = only_poison(feed(*parts[:-1], resealed(parts[-1], digest=digest)))
    assert poison.reason is Reason.CHUNK_DIGEST_MISMATCH
    assert spool.used == 0


def test_a_missing_digest_poisons(feed: Feeder) -> None:
    parts = pieces(1)
    assert only_poison(feed(*parts[:-1], resealed(parts[-1], digest=None))).reason is Reason.CHUNK_INVALID_HEADER


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([(H_CHUNK, b"")], b"x"),
        ([(H_CHUNK, None)], b"x"),
        ([(H_CHUNK, bytes(60))], b"x"),
        ([(H_CHUNK, b"\x01\x00")], None),
        ([(H_CHUNK, pieces(1)[0][0]), (H_CHUNK, pieces(1)[0][0])], b"abc"),  # repeated
        ([(H_CHUNK, pieces(1)[0][0])], b""),
        ([(H_CHUNK, pieces(1)[0][0])], None),
    ],
)
def test_a_header_that_cannot_be_read_goes_to_the_dead_letters_as_it_came(
    assembler: Assembler, headers: list[Header], value: bytes | None
) -> None:
    poison = only_poison(assembler.feed(3, 8, 0, b"k", value, [*headers, ("user", b"1")]))
    assert poison.reason in {Reason.CHUNK_INVALID_HEADER, Reason.CHUNK_UNKNOWN_VERSION, Reason.CHUNK_CRC_MISMATCH}
    assert (poison.partition, poison.offset, poison.key, poison.value) == (3, 8, b"k", value or b"")
    assert poison.headers == (*headers, ("user", b"1"))


def test_an_unknown_major_version_is_a_dead_letter_by_default(feed: Feeder) -> None:
    raw, value = pieces(1)[0]
    poison = only_poison(feed((b"\x02" + raw[1:], value)))
    assert (poison.reason, poison.message_id) == (Reason.CHUNK_UNKNOWN_VERSION, None)


def test_an_unknown_major_version_stops_the_partition_by_a_setting_and_takes_nothing(spool: Spool) -> None:
    feed = Feeder(Assembler(spool, KIB, unknown_version="stop"))
    raw, value = pieces(1)[0]
    with pytest.raises(ChunkError) as caught:
        feed((b"\x02" + raw[1:], value))
    assert caught.value.reason is Reason.CHUNK_UNKNOWN_VERSION
    assert (feed.assembler.poisoned, feed.assembler.open) == (0, 0)
    assert bodies(feed(*pieces(1))) == [b"abcdefgh"]
    assert only_poison(feed(corrupt(pieces(2)[0]))).reason is Reason.CHUNK_CRC_MISMATCH, "only versions stop it"


def test_a_message_over_the_maximum_is_poisoned_at_its_first_chunk_and_spools_nothing(
    feed: Feeder, spool: Spool
) -> None:
    parts = pieces(1, bytes(16 * KIB + 1), 8 * KIB)
    poison = only_poison(feed(*parts))
    assert poison.reason is Reason.CHUNK_TOO_LARGE
    assert spool.used == 0
    assert bodies(feed(*pieces(2, bytes(16 * KIB), 8 * KIB))) == [bytes(16 * KIB)]


def test_a_claimed_size_allocates_nothing(spool: Spool) -> None:
    feed = Feeder(Assembler(Spool(spool.folder / "x", 2**62), 2**62))
    claim = ChunkHeader(False, id_of(1), 0, 0, 2**32 - 1, 0, 2**61, None)
    assert feed((encode_header(claim, b"abc"), b"abc")) == []
    assert feed.assembler.open == 1


# expiry


def test_an_unfinished_message_expires_after_its_last_chunk_in_record_time(feed: Feeder, spool: Spool) -> None:
    parts = pieces(1)
    feed(parts[0], time_ms=0, headers=[("user", b"1")], at=9)
    feed(parts[1], time_ms=1_000)
    assert feed.assembler.expire(0, EXPIRY_MS + 999, None) == []
    [poison] = feed.assembler.expire(0, EXPIRY_MS + 1_000, None)
    assert (poison.reason, poison.offset, poison.value) == (Reason.CHUNK_EXPIRED, 9, b"abc")
    assert poison.headers == (("user", b"1"),)
    assert "chunk 1 of 3" in poison.detail
    assert "6 of 8 bytes" in poison.detail
    assert spool.used == 0
    assert feed(parts[2]) == [], "what comes after the expiry is swallowed"


def test_idle_time_counts_only_at_the_end_of_the_partition(feed: Feeder) -> None:
    feed(pieces(1)[0], time_ms=5_000)
    assert feed.assembler.expire(0, 5_000, None) == [], "paused or lagging, however long"
    assert feed.assembler.expire(0, 5_000, EXPIRY_MS - 1) == []
    assert len(feed.assembler.expire(0, 5_000, EXPIRY_MS)) == 1


def test_another_partition_s_time_expires_nothing(assembler: Assembler) -> None:
    Feeder(assembler, 1)(pieces(1)[0], time_ms=0)
    assert assembler.expire(0, 10 * EXPIRY_MS, EXPIRY_MS) == []


# committing and restarting


def test_the_safe_offset_is_the_first_chunk_of_the_oldest_open_message(feed: Feeder) -> None:
    one, two = pieces(1), pieces(2)
    assert feed.assembler.safe_offset(0, 7) == 7
    feed(one[0], two[0], one[1], at=10)
    assert feed.assembler.safe_offset(0, 13) == 10
    feed(one[2])
    assert feed.assembler.safe_offset(0, 14) == 11
    feed(two[1], two[2])
    assert feed.assembler.safe_offset(0, 16) == 16


def restarted(assembler: Assembler, spool: Spool, next_offset: int) -> tuple[Feeder, int]:
    """A new reader of partition 0 where the old one committed, and the offset it begins at."""
    offset, watermark = assembler.safe_offset(0, next_offset), assembler.watermark(0, next_offset)
    assembler.drop(0)
    fresh = Assembler(spool, 16 * KIB)
    fresh.restore(0, watermark)
    return Feeder(fresh, offset=offset), offset


def test_after_a_restart_what_ended_below_the_watermark_is_not_delivered_again(feed: Feeder, spool: Spool) -> None:
    log = [(one := pieces(1))[0], *pieces(2), one[1]]
    assert bodies(feed(*log)) == [b"abcdefgh"]
    again, begin = restarted(feed.assembler, spool, 5)
    assert begin == 0
    assert bodies(again(*log, one[2])) == [b"abcdefgh"]
    assert again.assembler.complete == 1


def test_a_message_that_began_below_the_watermark_and_ends_above_it_is_delivered(feed: Feeder, spool: Spool) -> None:
    one = pieces(1)
    feed(one[0], one[1])
    again, _ = restarted(feed.assembler, spool, 2)
    whole = only_whole(again(*one))
    assert (whole.offset, whole.payload.read()) == (0, b"abcdefgh")


def test_chunks_without_a_head_are_skipped_below_the_watermark_and_poison_above_it(assembler: Assembler) -> None:
    assembler.restore(0, Watermark(10))
    feed = Feeder(assembler)
    one = pieces(1, bytes(range(12)))
    assert feed(one[1], at=8) == []
    assert feed(one[2], at=9) == []
    poison = only_poison(feed(one[3], at=10))
    assert (poison.reason, poison.offset) == (Reason.CHUNK_MISSING, 10)


def test_poison_is_told_once_though_a_restart_reads_it_again(feed: Feeder, spool: Spool) -> None:
    """The rest of a poisoned attempt comes after the restart: its head must be read again to know that it is poison."""
    parts = pieces(1, bytes(range(12)))
    only_poison(feed(parts[0], parts[2]))
    again, begin = restarted(feed.assembler, spool, 2)
    assert begin == 0
    assert again(parts[0], parts[2], parts[3]) == []
    assert again.assembler.safe_offset(0, 3) == 3, "its last chunk has passed"


def test_a_poisoned_attempt_whose_rest_never_comes_holds_the_offset_no_longer_than_the_expiry(feed: Feeder) -> None:
    parts = pieces(1, bytes(range(12)))
    feed(parts[0], parts[2], time_ms=0)
    assert feed.assembler.expire(0, EXPIRY_MS - 1, None) == []
    assert feed.assembler.safe_offset(0, 50) == 0
    assert feed.assembler.expire(0, EXPIRY_MS, None) == []
    assert feed.assembler.safe_offset(0, 50) == 50


def test_a_dropped_partition_leaves_nothing_behind_and_touches_no_other(assembler: Assembler, spool: Spool) -> None:
    left, right = Feeder(assembler, 0), Feeder(assembler, 1)
    left(pieces(1)[0])
    right(pieces(2)[0])
    used = spool.used
    assembler.drop(0)
    assert (assembler.open, assembler.dropped, spool.used) == (1, 1, used // 2)
    assert bodies(right(*pieces(2)[1:])) == [b"abcdefgh"]
    assembler.drop(7)


# the spool's quota


def crowded(spool: Spool, quota: int, maximum: int) -> Assembler:
    return Assembler(Spool(spool.folder / "crowded", quota), maximum)


def big(number: int, size: int = 900) -> list[Piece]:
    return pieces(number, bytes([number]) * size, 300)


def test_a_quota_below_the_largest_message_is_refused(spool: Spool) -> None:
    with pytest.raises(ConfigurationError, match="SPOOL_MAX_BYTES"):
        Assembler(spool, 64 * KIB + 1)


def test_over_quota_the_youngest_waits_the_oldest_finishes_and_nothing_is_lost(spool: Spool) -> None:
    assembler = crowded(spool, 1_500, 1_000)
    feed = Feeder(assembler)
    one, two = big(1), big(2)
    events = feed(one[0], two[0], one[1], two[1])
    assert (events, assembler.open, assembler.waiting) == ([], 2, 1), "the younger leaves room for the older's rest"
    assert assembler.refetch(0, 4) is None, "there is no room yet"
    whole = only_whole(feed(one[2], two[2]))
    assert whole.payload.read() == bytes([1]) * 900
    assert assembler.safe_offset(0, 6) == 1
    assert assembler.watermark(0, 6) == Watermark(6, (1,)), "the metadata says that it is still owed"
    whole.payload.release()
    assert assembler.refetch(0, 6) == Refetch(0, 1)
    assert assembler.refetch(0, 6) is None, "once asked for, it is awaited"
    again = feed(two[0], one[1], two[1], one[2], two[2], at=1)
    assert bodies(again) == [bytes([2]) * 900]
    assert assembler.watermark(0, 6) == Watermark(6)


def test_what_a_payload_occupies_until_its_commit_is_not_waited_for_in_vain(spool: Spool) -> None:
    assembler = crowded(spool, 1_000, 950)
    feed = Feeder(assembler)
    whole = only_whole(feed(*big(1)))
    assert feed(*big(2)) == []
    assert assembler.refetch(0, 6) is None
    whole.payload.release()
    assert assembler.refetch(0, 6) == Refetch(0, 3)
    assert bodies(feed(*big(2), at=3)) == [bytes([2]) * 900]


def test_when_the_oldest_waits_the_younger_make_room_for_it(spool: Spool) -> None:
    assembler = crowded(spool, 1_100, 950)
    feed, other = Feeder(assembler, 0), Feeder(assembler, 1)
    small, younger = pieces(9, bytes(10), 5), pieces(3, bytes(510), 170)
    feed(small[0])
    delivered = only_whole(feed(*big(1)))
    feed(*big(2), at=4)  # no room beside what is delivered
    delivered.payload.release()
    other(younger[0], younger[1])
    only_whole(feed(small[1])).payload.release()
    assert assembler.refetch(0, 8) == Refetch(0, 4), "the younger one's bytes are room for the oldest"
    assert bodies(feed(*big(2), at=4)) == [bytes([2]) * 900]
    assert assembler.waiting == 1


def test_a_younger_message_loses_its_bytes_only_where_that_helps(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    assembler = Assembler(spool, KIB)
    feed = Feeder(assembler)
    feed(big(1)[0], pieces(2)[0])
    monkeypatch.setattr(spool, "free", lambda: 0)  # the disk filled up
    feed(big(1)[1])
    monkeypatch.undo()
    assert assembler.waiting == 1, "the younger's few bytes would not have made room for the older"
    assert bodies(feed(*pieces(2)[1:])) == [b"abcdefgh"]


def test_a_reread_that_is_under_way_is_not_sought_forward(spool: Spool) -> None:
    assembler = crowded(spool, 1_000, 950)
    feed = Feeder(assembler)
    whole = only_whole(feed(*big(1)))
    feed(big(2)[0], big(2)[1], pieces(3, bytes(12), 6)[0], big(2)[2], pieces(3, bytes(12), 6)[1])
    assert assembler.waiting == 2
    whole.payload.release()
    assert assembler.refetch(0, 8) == Refetch(0, 3)
    events = feed(big(2)[0], at=3)
    assert assembler.refetch(0, 8) is None
    events += feed(big(2)[1], pieces(3, bytes(12), 6)[0], big(2)[2], pieces(3, bytes(12), 6)[1])
    assert bodies(events) == [bytes([2]) * 900, bytes(12)]


def test_a_head_that_the_topic_lost_while_its_message_waited_is_told(spool: Spool) -> None:
    assembler = crowded(spool, 1_000, 950)
    feed = Feeder(assembler)
    whole = only_whole(feed(*big(1)))
    feed(*big(2))
    whole.payload.release()
    assert assembler.refetch(0, 6) == Refetch(0, 3)
    poison = only_poison(feed(big(2)[2], at=5))
    assert (poison.reason, poison.offset, poison.message_id) == (Reason.CHUNK_MISSING, 3, id_of(2))
    assert assembler.open == 0


def test_a_head_that_the_topic_lost_while_nobody_read_is_told_if_it_was_owed(assembler: Assembler) -> None:
    assembler.restore(0, Watermark(100, (20,)))
    lost, *rest = Feeder(assembler, offset=50)(*pieces(9))
    assert isinstance(lost, Poisoned)
    assert (lost.reason, lost.offset) == (Reason.CHUNK_MISSING, 20)
    assert rest == [], "the other message had ended below the watermark"


def test_after_a_restart_an_owed_message_is_delivered_though_it_ends_below_the_watermark(assembler: Assembler) -> None:
    assembler.restore(0, Watermark(100, (3,)))
    assert assembler.watermark(0, 2) == Watermark(100, (3,)), "it stays owed until it has been read"
    feed = Feeder(assembler)
    assert bodies(feed(*pieces(1), at=0)) == []
    assert bodies(feed(*pieces(2), at=3)) == [b"abcdefgh"]
    assert assembler.watermark(0, 6) == Watermark(100)


def test_a_message_delivered_before_a_restart_is_not_fetched_for_nothing(spool: Spool) -> None:
    assembler = crowded(spool, 1_000, 950)
    assembler.restore(0, Watermark(6))
    feed = Feeder(assembler)
    feed(big(1)[0])  # open, and leaves the next one no room
    feed(*big(2))
    assert (assembler.open, assembler.waiting) == (1, 0)


def test_a_message_that_turns_out_to_have_been_delivered_is_not_awaited_any_more(spool: Spool) -> None:
    assembler = crowded(spool, 2_000, 1_900)
    assembler.restore(0, Watermark(100))
    feed = Feeder(assembler)
    large, first, second = pieces(1, bytes(1_900), 950), big(2), big(3)
    feed(large[0], first[0], second[2], second[0], large[1], at=0)  # second[2] is a late duplicate
    assert assembler.waiting == 2
    assert assembler.refetch(0, 5) == Refetch(0, 1)
    feed(first[0], second[2], at=1)
    assert assembler.open == 1, "the last chunk lies below the watermark: the message was delivered"
    assert feed(second[0], second[1], second[2], at=3) == []


def test_a_message_that_waits_for_room_does_not_expire(spool: Spool) -> None:
    assembler = crowded(spool, 1_000, 950)
    feed = Feeder(assembler)
    whole = only_whole(feed(*big(1)))
    feed(*big(2), time_ms=0)
    assert assembler.expire(0, 10 * EXPIRY_MS, EXPIRY_MS) == []
    whole.payload.release()
    assert assembler.open == 1


def test_a_disk_that_fills_up_makes_a_message_wait_until_there_is_room(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembler = Assembler(spool, KIB)
    feed = Feeder(assembler)
    feed(big(1)[0])
    left = 100
    real: Callable[[], int] = spool.free
    monkeypatch.setattr(spool, "free", lambda: min(left, real()))
    assert feed(*big(1)[1:]) == []
    assert (assembler.waiting, spool.used) == (1, 0)
    assert assembler.refetch(0, 3) is None
    left = 10_000
    assert assembler.refetch(0, 3) == Refetch(0, 0)
    assert bodies(feed(*big(1), at=0)) == [bytes([1]) * 900]


def test_ten_thousand_open_messages_take_little_memory_and_all_finish(tmp_path: Path) -> None:
    assembler = Assembler(Spool(tmp_path, 4 << 20), KIB)
    feed = Feeder(assembler)
    body = bytes(100)
    first = [split(io.BytesIO(body), 100, 60, id_of(number), 0) for number in range(10_000)]
    for chunks in first:
        feed(next(chunks))
    assert assembler.open == 10_000
    message = next(iter(assembler._by_age.values()))
    fields = [getattr(message, name) for name in message.__slots__]
    assert sum(map(sys.getsizeof, [message, *fields])) < 2 * KIB
    assert assembler.safe_offset(0, 10_000) == 0
    for chunks in first:
        only_whole(feed(next(chunks))).payload.release()
    assert (assembler.open, assembler.complete) == (0, 10_000)
