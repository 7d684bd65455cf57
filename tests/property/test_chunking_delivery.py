"""Whatever is interleaved, repeated, begun again, crowded out of the spool or cut short by a crash: once, and whole.

The stage is simulated as docs/chunking.md asks for it: outputs count when they are committed together with an offset
and its metadata, and a crash or an abort forgets everything else.
"""

import io
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.chunking import (
    Assembler,
    ChunkHeader,
    Payload,
    Poisoned,
    Watermark,
    Whole,
    decode_header,
    decode_watermark,
    encode_header,
    encode_watermark,
    split,
)
from shared.errors import Reason
from shared.spool import Spool
from shared.topics import H_CHUNK

PARTITIONS = 2
MAX_BYTES = 64
HEAD_BYTES = 32  # more than key and headers of these messages take in the spool

Header = tuple[str, bytes | None]
Fed = tuple[bytes | None, bytes, list[Header]]


@dataclass
class Sent:
    """One message as its producers sent it: chunks in the order in which they reach the partition."""

    number: int
    partition: int
    chunks: list[Fed]
    whole: bytes | None  # what must be delivered
    attempt: int
    poison: Reason | None  # or the reason of its one dead letter


def chunks_of(message_id: bytes, attempt: int, body: bytes, chunk_bytes: int) -> list[Fed]:
    pieces = split(io.BytesIO(body), len(body), chunk_bytes, message_id, attempt)
    user: list[Header] = [("user", bytes([attempt]))]
    return [
        (message_id[:2], value, [(H_CHUNK, header), *(user if at == 0 else [])])
        for at, (header, value) in enumerate(pieces)
    ]


def message(rng: Random, number: int, kinds: list[str]) -> Sent:
    """Attempts that were given up, then one that is whole, unfinished or poisonous; with duplicates on the way."""
    message_id = number.to_bytes(16, "big")
    body = rng.randbytes(rng.randint(2, MAX_BYTES))
    chunks: list[Fed] = []
    attempts = rng.choice([1, 1, 2, 3])
    for attempt in range(attempts):
        chunk_bytes = rng.randint(max(1, len(body) // 6), len(body) - 1)
        pieces = chunks_of(message_id, attempt, body, chunk_bytes)
        final = attempt == attempts - 1
        sent = pieces if final else pieces[: rng.randint(1, len(pieces) - 1)]
        for at, piece in enumerate(sent):
            chunks.append(piece)
            if at < len(pieces) - 1:
                chunks += rng.choice([[], [], [rng.choice(pieces[: at + 1])], pieces[: at + 1]])
    kind = rng.choice(kinds)
    poison: Reason | None = None
    key, value, headers = chunks[-1]
    if kind == "unfinished":
        chunks.pop()
        poison = Reason.CHUNK_EXPIRED
    elif kind == "digest":
        chunks[-1] = (key, value, [(H_CHUNK, wrong_digest(headers[0][1] or b"", value))])
        poison = Reason.CHUNK_DIGEST_MISMATCH
    elif kind == "corrupt":
        at = rng.randrange(len(pieces))
        key, value, headers = pieces[at]
        chunks = [*pieces[:at], (key, bytes([value[0] ^ 1]) + value[1:], headers), *pieces[at + 1 :]]
        poison = Reason.CHUNK_CRC_MISMATCH
    elif kind == "gap" and len(pieces) > 2:
        lost = rng.randint(1, len(pieces) - 2)
        chunks = [*pieces[:lost], *pieces[lost + 1 :]]
        poison = Reason.CHUNK_MISSING
    whole = None if poison else body
    return Sent(number, rng.randrange(PARTITIONS), chunks, whole, attempts - 1, poison)


def wrong_digest(raw: bytes, value: bytes) -> bytes:
    said = decode_header(raw, value)
    return encode_header(
        ChunkHeader(
            said.last, said.message_id, said.attempt, said.index, said.count, said.position, said.total, bytes(32)
        ),
        value,
    )


def logs(rng: Random, kinds: list[str]) -> tuple[list[Sent], list[list[Fed]]]:
    """What producers sent, and each partition's log of it: interleaved freely, with plain messages between."""
    sent = [message(rng, number, kinds) for number in range(1, rng.randint(1, 8) + 1)]
    turns = [at for at, one in enumerate(sent) for _ in one.chunks] + [-1] * rng.randint(0, 8)
    rng.shuffle(turns)
    rest = [list(one.chunks) for one in sent]
    partitions: list[list[Fed]] = [[] for _ in range(PARTITIONS)]
    for place, turn in enumerate(turns):
        if turn < 0:
            partitions[place % PARTITIONS].append((None, b"plain %d" % place, []))
        else:
            partitions[sent[turn].partition].append(rest[turn].pop(0))
    return sent, partitions


DeadLetter = tuple[bytes | None, int | None, Reason]  # message id, attempt, reason
Delivery = tuple[int, int, bytes, tuple[Header, ...]]  # partition, offset, bytes, headers


@dataclass
class Stage:
    """A reader of all partitions with one transaction at a time."""

    log: list[list[Fed]]
    spool: Spool
    committed: dict[int, tuple[int, str]] = field(default_factory=dict)
    delivered: list[Delivery] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.assembler = Assembler(self.spool, MAX_BYTES)
        self.payloads: list[Payload] = []
        self.begin()

    def begin(self) -> None:
        self.position: dict[int, int] = {}
        self.skip: dict[int, int] = {}
        self.hand: list[Delivery] = []
        self.hand_dead: list[DeadLetter] = []
        for partition in range(PARTITIONS):
            offset, metadata = self.committed.get(partition, (0, ""))
            watermark = decode_watermark(metadata) or Watermark(offset)
            self.position[partition] = offset
            self.skip[partition] = watermark.offset
            self.assembler.restore(partition, watermark)

    def read(self, partition: int, number: int) -> bool:
        """Read up to so many messages; whether there were any."""
        log = self.log[partition]
        before = self.position[partition]
        for offset in range(before, min(before + number, len(log))):
            key, value, headers = log[offset]
            self.position[partition] = offset + 1
            if not headers:
                if offset >= self.skip[partition]:
                    self.hand.append((partition, offset, value, ()))
                continue
            for event in self.assembler.feed(partition, offset, offset, key, value, headers):
                if isinstance(event, Whole):
                    self.hand.append((partition, event.offset, event.payload.read(), event.headers))
                    self.payloads.append(event.payload)
                else:
                    self.bury([event])
        return self.position[partition] > before

    def bury(self, poisoned: list[Poisoned]) -> None:
        self.hand_dead += [(event.message_id, event.attempt, event.reason) for event in poisoned]

    def commit(self) -> bool:
        """Commit all; whether the spool then had room to fetch something again."""
        for partition, following in self.position.items():
            self.committed[partition] = (
                self.assembler.safe_offset(partition, following),
                encode_watermark(self.assembler.watermark(partition, following)),
            )
        self.delivered += self.hand
        self.dead += self.hand_dead
        self.hand, self.hand_dead = [], []
        self.release()
        sought = False
        for partition, following in self.position.items():
            wanted = self.assembler.refetch(partition, following)
            if wanted is not None:
                assert wanted.offset < following
                self.skip[partition] = max(self.skip[partition], following)
                self.position[partition] = wanted.offset
                sought = True
        return sought

    def abort(self) -> None:
        """The transaction failed: seek back."""
        for partition in range(PARTITIONS):
            self.assembler.drop(partition)
        assert self.assembler.open == 0
        self.release()
        assert self.spool.used == 0, "bytes are still booked for messages that were dropped"
        self.begin()

    def crash(self) -> None:
        """The process died: the next one finds an empty spool and what was committed."""
        for partition in range(PARTITIONS):
            self.assembler.drop(partition)
        self.release()
        self.assembler = Assembler(self.spool, MAX_BYTES)
        self.begin()

    def release(self) -> None:
        for payload in self.payloads:
            payload.release()
        self.payloads.clear()

    def drain(self) -> None:
        """Read everything, and everything that is fetched again, to the end; then let the unfinished expire."""
        rounds = 0
        expiry = 30 * 60 * 1000
        while True:
            rounds += 1
            assert rounds < 500, "messages crowd each other out of the spool for ever"
            for partition in range(PARTITIONS):
                while self.read(partition, 3):
                    pass
            if self.commit():
                continue
            if not self.assembler.open:
                return
            for partition in range(PARTITIONS):
                self.bury(self.assembler.expire(partition, len(self.log[partition]), expiry))


def run(rng: Random, log: list[list[Fed]], quota: int) -> Stage:
    """Read it all, with commits, aborts and crashes at any moment."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(log, Spool(Path(folder), quota))
        for _ in range(rng.randint(0, 60)):
            deed = rng.choice(["read"] * 6 + ["commit"] * 2 + ["abort", "crash"])
            if deed == "read":
                stage.read(rng.randrange(PARTITIONS), rng.randint(1, 8))
            else:
                getattr(stage, deed)()
        stage.drain()
        assert stage.spool.used == 0, "bytes are still booked though nothing is open"
    return stage


def expected(sent: list[Sent], log: list[list[Fed]]) -> Counter[Delivery]:
    deliveries: list[Delivery] = []
    for partition, messages_of in enumerate(log):
        firsts: dict[tuple[bytes, int], int] = {}
        for offset, (_, value, headers) in enumerate(messages_of):
            if not headers:
                deliveries.append((partition, offset, value, ()))
            else:
                raw = headers[0][1] or b""
                firsts.setdefault((raw[4:20], int.from_bytes(raw[20:24], "big")), offset)
        deliveries += [
            (
                partition,
                firsts[message.number.to_bytes(16, "big"), message.attempt],
                message.whole,
                (("user", bytes([message.attempt])),),
            )
            for message in sent
            if message.partition == partition and message.whole is not None
        ]
    return Counter(deliveries)


def dead_letters(sent: list[Sent]) -> Counter[DeadLetter]:
    return Counter((m.number.to_bytes(16, "big"), m.attempt, m.poison) for m in sent if m.poison is not None)


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_every_message_is_delivered_once_and_only_the_unfinished_expire(seed: int) -> None:
    rng = Random(seed)
    sent, log = logs(rng, ["whole", "whole", "whole", "unfinished"])
    stage = run(rng, log, rng.randint(MAX_BYTES + HEAD_BYTES, 6 * MAX_BYTES))
    assert Counter(stage.delivered) == expected(sent, log)
    assert Counter(stage.dead) == dead_letters(sent)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_poison_is_one_dead_letter_for_each_attempt_and_harms_no_other_message(seed: int) -> None:
    rng = Random(seed)
    sent, log = logs(rng, ["whole", "unfinished", "gap", "digest"])
    stage = run(rng, log, 100 * MAX_BYTES)
    assert Counter(stage.delivered) == expected(sent, log)
    assert Counter(stage.dead) == dead_letters(sent)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_no_dead_letter_is_lost_when_the_spool_is_crowded(seed: int) -> None:
    rng = Random(seed)
    sent, log = logs(rng, ["whole", "unfinished", "gap", "corrupt", "digest"])
    stage = run(rng, log, rng.randint(MAX_BYTES + HEAD_BYTES, 6 * MAX_BYTES))
    assert Counter(stage.delivered) == expected(sent, log)
    assert set(stage.dead) >= set(dead_letters(sent))


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_no_order_of_chunks_breaks_the_reader_or_makes_it_deliver_what_nobody_sent(seed: int) -> None:
    rng = Random(seed)
    sent, log = logs(rng, ["whole", "gap", "corrupt", "digest"])
    for messages in log:
        messages += rng.choices(messages, k=len(messages) // 2) if messages else []
        rng.shuffle(messages)
    stage = run(rng, log, rng.randint(MAX_BYTES + HEAD_BYTES, 6 * MAX_BYTES))
    bodies = {digest for one in sent for _, _, headers in one.chunks if (digest := digest_of(headers))}
    for _, _, value, headers in stage.delivered:
        assert not headers or sha256(value).digest() in bodies


def digest_of(headers: list[Header]) -> bytes | None:
    raw = headers[0][1] or b""
    return raw[52:84] or None
