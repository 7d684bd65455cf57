"""Chunks: a value too large for one message travels in several, and is put together again where it is read.

    writing     split                   a spooled value -> (header, value) of each chunk
    on the way  encode_header, decode_header
    reading     Assembler               what a partition delivers -> whole messages, or poison with its reason
    committing  Watermark               what the commit's metadata remembers for the next reader

Pure: no I/O and no clock. Bytes that must wait lie in a spool that is passed in. docs/chunking.md has the rules.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Protocol

import msgspec

from shared.errors import ConfigurationError, Reason, SluiceError, SpoolFullError
from shared.hashing import Hasher
from shared.topics import H_CHUNK

MAJOR: Final = 1

Headers = Sequence[tuple[str, bytes | None]]

# major, flags, header length, message id, attempt, index, count, byte offset of the chunk, total size, CRC-32
_HEADER: Final = struct.Struct(">BBH16sIIIQQI")
_CHECKED: Final = _HEADER.size - 4  # the CRC-32 covers what stands before it, then the value
_LAST: Final = 0x01
_DIGEST_END: Final = _HEADER.size + hashlib.sha256().digest_size
_IDENTITY_END: Final = 24  # message id and attempt stand before this

_HEAD_MEMORY_BYTES: Final = 1024  # a key and headers up to this wait in memory, larger ones on disk
_REMEMBERED: Final = 1024  # ended messages a partition remembers, to know what comes late
# what a broker takes by default (offset.metadata.max.bytes), less room for the topic id that the stage puts before it
_METADATA_BYTES: Final = 4096 - 16


def is_chunk(headers: Headers) -> bool:
    """Whether a message with these headers is a chunk."""
    return H_CHUNK in dict(headers)


# the header


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What the header `sluice-chunk` says, once it has been checked against the value and against itself."""

    last: bool
    message_id: bytes  # 16 bytes
    attempt: int
    index: int  # of this chunk, from 0
    count: int  # chunks of the message
    position: int  # of this chunk's first byte in the whole
    total: int  # bytes of the whole
    digest: bytes | None  # SHA-256 of the whole, on the last chunk


class ChunkError(SluiceError):
    """A header that lies or cannot be read. `claimed` is the (message id, attempt) that it names, unproven."""

    def __init__(self, reason: Reason, detail: str, claimed: tuple[bytes, int] | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.claimed = claimed


def encode_header(header: ChunkHeader, value: bytes) -> bytes:
    """The bytes of the header of this chunk. Raises struct.error where a number does not fit its field."""
    checked = _HEADER.pack(
        MAJOR,
        _LAST if header.last else 0,
        _DIGEST_END if header.last else _HEADER.size,
        header.message_id,
        header.attempt,
        header.index,
        header.count,
        header.position,
        header.total,
        0,
    )[:_CHECKED]
    crc = zlib.crc32(value, zlib.crc32(checked))
    return checked + crc.to_bytes(4, "big") + (header.digest or b"")


def decode_header(raw: bytes, value: bytes) -> ChunkHeader:
    """Read and check the header of a chunk. Raises ChunkError; no other error, whatever the bytes.

    What a longer header of major 1 adds is not looked at.
    """
    if not raw:
        raise ChunkError(Reason.CHUNK_INVALID_HEADER, "the chunk header is empty")
    if raw[0] != MAJOR:
        raise ChunkError(
            Reason.CHUNK_UNKNOWN_VERSION, f"the chunk header is of major version {raw[0]}, this reader knows {MAJOR}"
        )
    claimed = (raw[4:20], int.from_bytes(raw[20:_IDENTITY_END], "big")) if len(raw) >= _IDENTITY_END else None
    if len(raw) < _HEADER.size:
        raise ChunkError(
            Reason.CHUNK_INVALID_HEADER, f"the chunk header ends after {len(raw)} of {_HEADER.size} bytes", claimed
        )
    _, flags, length, message_id, attempt, index, chunks, position, total, crc = _HEADER.unpack_from(raw)
    if length != len(raw):
        raise ChunkError(
            Reason.CHUNK_INVALID_HEADER, f"the chunk header has {len(raw)} bytes and says {length}", claimed
        )
    if zlib.crc32(value, zlib.crc32(memoryview(raw)[:_CHECKED])) != crc:
        raise ChunkError(Reason.CHUNK_CRC_MISMATCH, "the CRC-32 of the chunk is not the one in its header", claimed)
    last = bool(flags & _LAST)
    if last and len(raw) < _DIGEST_END:
        raise ChunkError(Reason.CHUNK_INVALID_HEADER, "the last chunk carries no digest", claimed)
    digest = raw[_HEADER.size : _DIGEST_END] if last else None
    header = ChunkHeader(last, message_id, attempt, index, chunks, position, total, digest)
    lie = _contradiction(header, len(value))
    if lie is not None:
        raise ChunkError(Reason.CHUNK_INVALID_HEADER, lie, claimed)
    return header


def _contradiction(header: ChunkHeader, size: int) -> str | None:
    """What cannot be in a header of a chunk of this many bytes; every chunk has at least one."""
    end = header.position + size
    later = header.count - 1 - header.index
    if size == 0:
        return "a chunk of no bytes"
    if later < 0:
        return f"index {header.index} is beyond the count of {header.count}"
    if end > header.total:
        return f"the chunk reaches to byte {end}, beyond the total of {header.total}"
    if header.position < header.index or (header.index == 0 and header.position):
        return f"chunk {header.index} cannot begin at byte {header.position}"
    if header.last != (later == 0) or header.last != (end == header.total):
        return "the flag of the last chunk, index and count, and position and total do not agree on which chunk is last"
    if header.total - end < later:
        return f"{header.total - end} bytes cannot fill the {later} chunks to come"
    return None


# writing


def split(
    source: BinaryIO, total: int, chunk_bytes: int, message_id: bytes, attempt: int
) -> Iterator[tuple[bytes, bytes]]:
    """(header, value) of each chunk of the `total` bytes that `source` holds; one chunk at a time is in memory.

    Raises ValueError for what fits in one message, which travels plain, and where the source ends early.
    """
    if total <= chunk_bytes:
        raise ValueError(f"{total} bytes fit in one message of {chunk_bytes} and travel without chunks")
    chunks = -(-total // chunk_bytes)
    digest = hashlib.sha256()
    for index in range(chunks):
        position = index * chunk_bytes
        value = _read(source, min(chunk_bytes, total - position))
        digest.update(value)
        last = index == chunks - 1
        header = ChunkHeader(
            last, message_id, attempt, index, chunks, position, total, digest.digest() if last else None
        )
        yield encode_header(header, value), value


def _read(source: BinaryIO, size: int) -> bytes:
    value = source.read(size)
    while len(value) < size:  # an unbuffered stream may return less than it was asked for
        more = source.read(size - len(value))
        if not more:
            raise ValueError(f"the source ended {size - len(value)} bytes before its announced size")
        value += more
    return value


# committing


class Watermark(NamedTuple):
    """How far a partition was delivered, beyond the offset that is committed with it.

    The committed offset waits at the first chunk of a message that is still open; whatever ended below `offset` was
    delivered all the same. `owed` are exceptions: first offsets of messages that the spool had no room for.
    """

    offset: int
    owed: tuple[int, ...] = ()


_METADATA: Final = re.compile(r"w1 (\d{1,19})((?: \d{1,19})*)", re.ASCII)


def encode_watermark(watermark: Watermark) -> str:
    """The metadata of the commit. Raises SpoolFullError where more is owed than a broker's metadata can hold."""
    distances = (watermark.offset - first for first in watermark.owed)  # shorter than the offsets themselves
    metadata = " ".join(["w1", str(watermark.offset), *map(str, distances)])
    if len(metadata) > _METADATA_BYTES:
        raise SpoolFullError(
            f"{len(watermark.owed)} large messages of one partition wait for room in the spool; raise SPOOL_MAX_BYTES"
        )
    return metadata


def decode_watermark(metadata: str | None) -> Watermark | None:
    """What encode_watermark wrote; None for anything else."""
    found = _METADATA.fullmatch(metadata or "")
    if found is None:
        return None
    offset = int(found[1])
    return Watermark(offset, tuple(offset - int(distance) for distance in found[2].split()))


# reading


class Payload(Protocol):
    """The bytes of a whole message, in the spool until they are released."""

    @property
    def size(self) -> int: ...
    def read(self, start: int = 0, length: int | None = None) -> bytes: ...
    def open(self) -> BinaryIO: ...
    def release(self) -> None: ...


class SpoolEntry(Payload, Protocol):
    """A payload while it grows. `append` raises SpoolFullError, and then has added nothing."""

    def append(self, data: bytes) -> None: ...


class Spool(Protocol):
    """Where bytes wait. `free` are the bytes that it would still take, by its quota and by its disk."""

    @property
    def quota(self) -> int: ...
    def free(self) -> int: ...
    def create(self, memory_bytes: int = 0) -> SpoolEntry: ...


class Whole(NamedTuple):
    """A complete message, as one plain message would have come, its payload still in the spool."""

    partition: int
    offset: int  # of chunk 0
    timestamp_ms: int  # of chunk 0
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # of chunk 0, without sluice-chunk
    payload: Payload  # the caller releases it, once the transaction that delivers it has ended


class Poisoned(NamedTuple):
    """A message that can never be put together: one dead letter for each (id, attempt)."""

    partition: int
    offset: int  # the first of the message that was seen
    reason: Reason
    detail: str
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # of chunk 0 where it was seen, and the offending sluice-chunk
    message_id: bytes | None
    attempt: int | None
    value: bytes  # of the offending chunk; of chunk 0 when the rest never came


class Refetch(NamedTuple):
    """There is room again for a message that had lost its bytes: the partition must be read again from here."""

    partition: int
    offset: int


class _Chunk(NamedTuple):
    """A message of Kafka's that carries the header, as it was fed."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Headers


class _Message:
    """A message begun and not ended. Its size does not depend on that of the message, nor on its headers'.

    Without `body` it waits: it holds no bytes, and only the chunk at `first` begins it again.
    """

    __slots__ = (
        "age", "attempt", "body", "count", "digest", "first", "first_size", "head", "head_size", "last_ms",
        "message_id", "next_index", "owed", "partition", "settled", "timestamp_ms", "total",
    )  # fmt: skip

    def __init__(self, age: int, chunk: _Chunk, header: ChunkHeader, settled: int, owed: bool) -> None:
        self.age = age
        self.partition = chunk.partition
        self.message_id = header.message_id
        self.attempt = header.attempt
        self.count = header.count
        self.total = header.total
        self.first = chunk.offset
        self.first_size = len(chunk.value)
        self.timestamp_ms = chunk.timestamp_ms
        self.last_ms = chunk.timestamp_ms
        self.settled = settled  # what ends it below this offset was told before
        self.owed = owed  # a chunk passed by that it could not take, so it may end below the watermark
        self.next_index = 0
        self.digest = hashlib.sha256()
        self.head_size = 0
        self.head: SpoolEntry | None = None  # key and headers of chunk 0
        self.body: SpoolEntry | None = None

    @property
    def held(self) -> int:
        """Bytes in the spool."""
        return (self.head.size if self.head else 0) + (self.body.size if self.body else 0)

    @property
    def lacking(self) -> int:
        """Bytes that it still needs in the spool."""
        return self.head_size + self.total - self.held


class _Swallowed:
    """An attempt that has ended otherwise than whole: what still comes of it is passed over."""

    __slots__ = ("first", "last_ms")

    def __init__(self, first: int | None, last_ms: int) -> None:
        self.first = first  # where a new reader must begin to know that it has ended; None when that is past
        self.last_ms = last_ms


class _Partition:
    """What is known of one partition."""

    __slots__ = ("delivered", "expected", "open", "position", "swallowed", "watermark")

    def __init__(self, watermark: Watermark) -> None:
        self.watermark = watermark.offset
        self.position = 0  # the offset after the last chunk that was fed
        self.open: dict[bytes, _Message] = {}  # by message id
        self.delivered: dict[bytes, None] = {}
        self.swallowed: dict[tuple[bytes, int], _Swallowed] = {}
        # First offsets that must come next time the partition passes them, of a message that waits for it or, after
        # a restart, of one that the watermark says is owed.
        self.expected: dict[int, _Message | None] = dict.fromkeys(watermark.owed)


class Assembler:
    """Puts the chunked messages of one topic together; for one thread.

    A message begins at its chunk 0 and ends whole, poisoned, expired, or dropped for a newer attempt. Any number may be
    open at once. Over quota the youngest lose their bytes first and wait, so that the oldest can always finish.
    What others keep in the same spool makes messages wait longer, but none waits with bytes in its hands.
    """

    def __init__(
        self,
        spool: Spool,
        max_bytes: int,
        expiry_ms: int = 30 * 60 * 1000,
        unknown_version: Literal["dead-letter", "stop"] = "dead-letter",
    ) -> None:
        """Raises ConfigurationError where a message of `max_bytes` could never be spooled."""
        if spool.quota < max_bytes:
            raise ConfigurationError(
                f"SPOOL_MAX_BYTES: {spool.quota} bytes do not hold one message of the largest size, {max_bytes}"
            )
        self._spool = spool
        self._max_bytes = max_bytes
        self._expiry_ms = expiry_ms
        self._hasher = Hasher()
        self._stop_on_unknown = unknown_version == "stop"
        self._partitions: dict[int, _Partition] = {}
        self._ages = count()
        self._by_age: dict[int, _Message] = {}  # every open message, the oldest first
        self._waiting: set[_Message] = set()
        self.complete = 0  # messages ended, by how
        self.poisoned = 0
        self.dropped = 0

    @property
    def open(self) -> int:
        """Messages begun and not ended."""
        return len(self._by_age)

    @property
    def waiting(self) -> int:
        """Open messages that lost their bytes and will be fetched again."""
        return len(self._waiting)

    # assignment

    def restore(self, partition: int, watermark: Watermark) -> None:
        """Begin a partition where its last reader committed."""
        self._partitions[partition] = _Partition(watermark)

    def drop(self, partition: int) -> None:
        """Forget a partition that was revoked, or is read again after an abort; its open messages are dropped."""
        part = self._partitions.pop(partition, None)
        if part is not None:
            self.dropped += len(part.open)
            for message in list(part.open.values()):
                self._close(part, message)

    # reading

    def feed(
        self,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
    ) -> list[Whole | Poisoned]:
        """Take a message that carries the header sluice-chunk; returns what it ended, in order.

        Raises ChunkError, and takes nothing, for an unknown major version where the setting is to stop.
        """
        part = self._partitions.get(partition)
        if part is None:
            part = self._partitions[partition] = _Partition(Watermark(0))
        chunk = _Chunk(partition, offset, timestamp_ms, key, value or b"", headers)
        ended: list[Whole | Poisoned | None] = []
        try:
            header = decode_header(_only_header(headers), chunk.value)
        except ChunkError as error:
            if self._stop_on_unknown and error.reason is Reason.CHUNK_UNKNOWN_VERSION:
                raise
            ended += self._lost(part, chunk)
            ended.append(self._lie(part, chunk, error))
        else:
            ended += self._lost(part, chunk)
            ended.append(self._take(part, chunk, header))
        part.position = offset + 1
        part.expected.pop(offset, None)
        return [event for event in ended if event is not None]

    def _take(self, part: _Partition, chunk: _Chunk, header: ChunkHeader) -> Whole | Poisoned | None:
        """A chunk whose own header is true."""
        identity = (header.message_id, header.attempt)
        if header.message_id in part.delivered:
            return None
        if identity in part.swallowed:
            self._swallow(part, identity, None if header.last else part.swallowed[identity].first, chunk.timestamp_ms)
            return None
        message = part.open.get(header.message_id)
        if message is not None and header.attempt < message.attempt:
            return None  # a straggler of an attempt that was given up
        if message is not None and header.attempt > message.attempt:
            self.dropped += 1
            self._swallow(part, (message.message_id, message.attempt), None, chunk.timestamp_ms)
            self._close(part, message)
            message = None
        if message is None:
            if header.index:
                detail = f"chunk {header.index} came without the chunks before it"
                return self._poison(part, chunk, identity, Reason.CHUNK_MISSING, detail)
            if header.total > min(self._max_bytes, self._spool.quota - len(_head(chunk))):
                detail = f"a message of {header.total} bytes, over the maximum of {self._max_bytes}"
                return self._poison(part, chunk, identity, Reason.CHUNK_TOO_LARGE, detail, hold=not header.last)
            message = self._begin(part, chunk, header)
        return self._continue(part, message, chunk, header)

    def _continue(
        self, part: _Partition, message: _Message, chunk: _Chunk, header: ChunkHeader
    ) -> Whole | Poisoned | None:
        """A chunk of a message that is open."""
        if message.body is None and chunk.offset == message.first:
            self._start(message, chunk)
        if message.body is None:
            self._pass_by(part, message, chunk, header.last)
            return None
        message.last_ms = max(message.last_ms, chunk.timestamp_ms)
        fault = self._fault(message, message.body, chunk, header)
        if fault is not None:
            return self._end_poisoned(part, message, chunk, *fault, last=header.last)
        if header.index < message.next_index:
            return None  # a duplicate
        if not self._append(message, message.body, chunk.value):
            self._pass_by(part, message, chunk, header.last)
            return None
        message.next_index += 1
        self._hasher.update(message.digest, chunk.value)
        if not header.last:
            return None
        self._hasher.settle()
        if message.digest.digest() != header.digest:
            detail = "the SHA-256 of the whole message is not the one in its last chunk"
            return self._end_poisoned(part, message, chunk, Reason.CHUNK_DIGEST_MISMATCH, detail, last=True)
        return self._end_whole(part, message, chunk.offset)

    @staticmethod
    def _fault(message: _Message, body: SpoolEntry, chunk: _Chunk, header: ChunkHeader) -> tuple[Reason, str] | None:
        """Why this chunk cannot belong to what came before it."""
        if (header.count, header.total) != (message.count, message.total):
            return Reason.CHUNK_CONFLICT, (
                f"chunk {header.index} speaks of {header.total} bytes in {header.count} chunks, "
                f"chunk 0 of {message.total} in {message.count}"
            )
        if header.index > message.next_index:
            return Reason.CHUNK_MISSING, f"chunk {header.index} came where {message.next_index} was due"
        if header.index == message.next_index:
            if header.position != body.size:
                return Reason.CHUNK_CONFLICT, (
                    f"chunk {header.index} begins at byte {header.position}, the one before it ended at {body.size}"
                )
        elif body.read(header.position, len(chunk.value)) != chunk.value:
            return Reason.CHUNK_CONFLICT, f"chunk {header.index} came twice with different bytes"
        return None

    def _lie(self, part: _Partition, chunk: _Chunk, error: ChunkError) -> Poisoned | None:
        """A chunk whose header is not true: it ends the message that it names, if that one is open."""
        if error.claimed is None:
            return self._poison(part, chunk, None, error.reason, error.detail)
        message_id, attempt = error.claimed
        message = part.open.get(message_id)
        if message is not None and message.attempt == attempt:
            if message.body is None:
                self._pass_by(part, message, chunk, last=False)
                return None
            return self._end_poisoned(part, message, chunk, error.reason, error.detail, last=False)
        if error.claimed in part.swallowed:
            return None
        return self._poison(part, chunk, error.claimed, error.reason, error.detail)

    def _lost(self, part: _Partition, chunk: _Chunk) -> list[Poisoned]:
        """Messages that had to begin below this offset and did not: the topic no longer has their first chunk."""
        lost = []
        for first in [first for first in part.expected if first < chunk.offset]:
            message = part.expected.pop(first)
            message_id = attempt = None
            if message is not None:
                message_id, attempt = message.message_id, message.attempt
                self._swallow(part, (message_id, attempt), None, chunk.timestamp_ms)
                self._close(part, message)
            self.poisoned += 1
            detail = "the first chunk is gone from the topic, before there was room for the message in the spool"
            lost.append(
                Poisoned(chunk.partition, first, Reason.CHUNK_MISSING, detail, None, (), message_id, attempt, b"")
            )
        return lost

    def expire(self, partition: int, record_time_ms: int, idle_ms: int | None) -> list[Poisoned]:
        """End the messages whose rest has not come within the expiry, in record time.

        `record_time_ms` is the timestamp of the last message read; `idle_ms` how long the partition has been read to
        its end since, or None while it is paused or lags. A message that waits for room does not expire.
        """
        part = self._partitions.get(partition)
        if part is None:
            return []
        latest = record_time_ms + (idle_ms or 0) - self._expiry_ms
        for swallowed in part.swallowed.values():
            if swallowed.last_ms <= latest:
                swallowed.first = None
        return [
            self._end_expired(part, message)
            for message in list(part.open.values())
            if message.body is not None and message.last_ms <= latest
        ]

    # committing

    def safe_offset(self, partition: int, next_offset: int) -> int:
        """The offset to commit when `next_offset` is read next: no open message begins below it."""
        part = self._partitions.get(partition)
        if part is None:
            return next_offset
        firsts = [message.first for message in part.open.values()]
        firsts += [swallowed.first for swallowed in part.swallowed.values() if swallowed.first is not None]
        return min([next_offset, *firsts])

    def watermark(self, partition: int, next_offset: int) -> Watermark:
        """What to commit beside it: it never goes back, though `next_offset` does while a partition is read again."""
        part = self._partitions.get(partition)
        if part is None:
            return Watermark(next_offset)
        owed = {first for first, message in part.expected.items() if message is None}
        owed.update(message.first for message in part.open.values() if message.owed)
        return Watermark(max(part.watermark, next_offset), tuple(sorted(owed)))

    def refetch(self, partition: int, next_offset: int) -> Refetch | None:
        """Whether messages that wait have room now; to be asked after each commit, when payloads are released.

        The caller seeks there before it feeds anything more of this partition, and passes over the plain messages that
        come again, which are those below `next_offset`, the offset that it would have read next.
        """
        part = self._partitions.get(partition)
        if part is None or not self._waiting:
            return None
        oldest = next(iter(self._by_age.values()))
        free = self._spool.free() - oldest.lacking
        targets = []
        for message in sorted(self._waiting, key=lambda waiting: waiting.age):
            if message is oldest:
                if free + self._held_by_younger(oldest) < 0:
                    break
            elif message.lacking > free:
                break
            else:
                free -= message.lacking
            if message.partition == partition and message.first not in part.expected:
                targets.append(message)
        if not targets:
            return None
        part.expected.update((message.first, message) for message in targets)
        target = min(message.first for message in targets)
        if target >= part.position:
            return None  # a reread that is under way will come past it
        part.watermark = max(part.watermark, next_offset)
        part.position = target
        return Refetch(partition, target)

    # beginnings and ends

    def _begin(self, part: _Partition, chunk: _Chunk, header: ChunkHeader) -> _Message:
        owed = chunk.offset in part.expected
        message = _Message(next(self._ages), chunk, header, 0 if owed else part.watermark, owed)
        part.open[header.message_id] = self._by_age[message.age] = message
        self._waiting.add(message)
        return message

    def _start(self, message: _Message, chunk: _Chunk) -> None:
        """Let a message that waits take bytes, from its first chunk on, if there is room."""
        head = _head(chunk)
        message.head_size = len(head)
        if self._make_room(message, len(head) + len(chunk.value)):
            message.head = self._spool.create(_HEAD_MEMORY_BYTES)
            message.body = self._spool.create()
            self._waiting.discard(message)
            self._append(message, message.head, head)

    def _end_whole(self, part: _Partition, message: _Message, offset: int) -> Whole | None:
        _remember(part.delivered, message.message_id, None)
        if offset < message.settled:  # delivered before a restart
            self._close(part, message)
            return None
        key, headers = _read_head(message)
        payload, message.body = message.body, None
        assert payload is not None
        self._close(part, message)
        self.complete += 1
        return Whole(message.partition, message.first, message.timestamp_ms, key, headers, payload)

    def _end_poisoned(
        self, part: _Partition, message: _Message, chunk: _Chunk, reason: Reason, detail: str, *, last: bool
    ) -> Poisoned | None:
        """Poison an open message. Until its last chunk has passed, a new reader must begin at its first again."""
        key, headers = _read_head(message)
        identity = (message.message_id, message.attempt)
        self._close(part, message)
        self._swallow(part, identity, None if last else message.first, chunk.timestamp_ms)
        if chunk.offset < message.settled:
            return None
        self.poisoned += 1
        offending = tuple(header for header in chunk.headers if header[0] == H_CHUNK)
        return Poisoned(
            chunk.partition, message.first, reason, detail, key, headers + offending, *identity, chunk.value
        )

    def _end_expired(self, part: _Partition, message: _Message) -> Poisoned:
        assert message.body is not None
        key, headers = _read_head(message)
        detail = (
            f"after chunk {message.next_index - 1} of {message.count} nothing more came; "
            f"{message.body.size} of {message.total} bytes are there"
        )
        value = message.body.read(0, message.first_size)
        identity = (message.message_id, message.attempt)
        self._close(part, message)
        self._swallow(part, identity, None, message.last_ms)
        self.poisoned += 1
        return Poisoned(message.partition, message.first, Reason.CHUNK_EXPIRED, detail, key, headers, *identity, value)

    def _poison(
        self,
        part: _Partition,
        chunk: _Chunk,
        identity: tuple[bytes, int] | None,
        reason: Reason,
        detail: str,
        *,
        hold: bool = False,
    ) -> Poisoned | None:
        """Poison what is not open. Below the watermark it has been told, or has been delivered."""
        told = chunk.offset < part.watermark and chunk.offset not in part.expected
        if identity is not None and not (told and reason is Reason.CHUNK_MISSING):
            self._swallow(part, identity, chunk.offset if hold else None, chunk.timestamp_ms)
        if told:
            return None
        self.poisoned += 1
        message_id, attempt = identity or (None, None)
        return Poisoned(
            chunk.partition,
            chunk.offset,
            reason,
            detail,
            chunk.key,
            tuple(chunk.headers),
            message_id,
            attempt,
            chunk.value,
        )

    def _close(self, part: _Partition, message: _Message) -> None:
        _release(message)
        if part.expected.get(message.first) is message:
            del part.expected[message.first]
        del part.open[message.message_id]
        del self._by_age[message.age]
        self._waiting.discard(message)

    @staticmethod
    def _swallow(part: _Partition, identity: tuple[bytes, int], first: int | None, now_ms: int) -> None:
        _remember(part.swallowed, identity, _Swallowed(first, now_ms))

    # room

    def _append(self, message: _Message, entry: SpoolEntry, data: bytes) -> bool:
        """Spool these bytes; where there is no room even then, the message loses what it has and waits."""
        if self._make_room(message, len(data)):
            try:
                entry.append(data)
            except SpoolFullError:  # the disk filled up beside us
                pass
            else:
                return True
        self._evict(message)
        return False

    def _make_room(self, message: _Message, size: int) -> bool:
        """Whether so many bytes fit for this message, after younger ones have lost theirs where that helps.

        All but the oldest leave free what the oldest still lacks.
        """
        oldest = next(iter(self._by_age.values()))
        needed = size if message is oldest else size + oldest.lacking
        if self._spool.free() >= needed:
            return True
        if self._spool.free() + self._held_by_younger(message) < needed:
            return False
        for younger in reversed(self._by_age.values()):
            if younger.body is not None:
                self._evict(younger)
                if self._spool.free() >= needed:
                    return True
        raise AssertionError("the younger messages held what they were counted for")

    def _held_by_younger(self, message: _Message) -> int:
        return sum(other.held for other in self._by_age.values() if other.age > message.age)

    def _evict(self, message: _Message) -> None:
        _release(message)
        message.next_index = 0
        message.digest = hashlib.sha256()
        self._waiting.add(message)

    def _pass_by(self, part: _Partition, message: _Message, chunk: _Chunk, last: bool) -> None:
        """Let a chunk go that a waiting message cannot take now: it will be fetched again."""
        if chunk.offset >= message.settled:
            message.owed = True
        elif last:  # it had ended before a restart, and need not be fetched
            self._close(part, message)


def _only_header(headers: Headers) -> bytes:
    found = [value for name, value in headers if name == H_CHUNK]
    if len(found) != 1:
        raise ChunkError(Reason.CHUNK_INVALID_HEADER, f"the header {H_CHUNK} stands {len(found)} times")
    return found[0] or b""


_head_codec: Final = msgspec.msgpack.Decoder(tuple[bytes | None, tuple[tuple[str, bytes | None], ...]])


def _head(chunk: _Chunk) -> bytes:
    """Key and headers of chunk 0 in bytes, for the spool: they may be large, and many messages may be open."""
    return msgspec.msgpack.encode((chunk.key, [header for header in chunk.headers if header[0] != H_CHUNK]))


def _read_head(message: _Message) -> tuple[bytes | None, tuple[tuple[str, bytes | None], ...]]:
    assert message.head is not None
    return _head_codec.decode(message.head.read())


def _release(message: _Message) -> None:
    """Give back the message's bytes."""
    for entry in (message.head, message.body):
        if entry is not None:
            entry.release()
    message.head = message.body = None


def _remember(memory: dict[Any, Any], key: object, value: object) -> None:
    """Put it last in a memory that forgets its oldest."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
