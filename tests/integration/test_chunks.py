"""Chunks on a real Kafka: producers that scatter, interleave, die, abort and repeat; readers that crash, move and seek.

The stage sends on every message as it gets it, in chunks again, so that what is compared are the bytes after both ways.
"""

import io
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions

from native.kafka import Broker, free_ports
from shared import kafka
from shared.chunking import Watermark, decode_watermark, split
from shared.config import Settings
from shared.errors import ConfigurationError
from shared.kafka import AbortRequiredError
from shared.records import DeadLetter
from shared.stage import Message, Output
from shared.topics import DEAD_LETTERS, H_CHUNK, RAW_LOGS, STANDARDIZATION_STATE, STANDARDIZED_LOGS
from tests.integration.stack import ROOT, eventually
from tests.integration.stage_thread import messages_in, read, running

pytestmark = pytest.mark.kafka

KIB = 1024
MIB = 1024 * KIB
HALF_AN_HOUR_MS = 30 * 60_000
END = b"and this is the end"
ABORTED = int(os.environ.get("SLUICE_ABORTED_MIB", "64")) * MIB

Headers = list[tuple[str, bytes | None]]
Piece = tuple[bytes | None, Headers]  # value, headers


class Delivered(NamedTuple):
    """A message as the stage got it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]


class Copy:
    """Sends every message on, with its offset and time beside its headers; may be told to fail once at a value."""

    def __init__(self, fails_at: bytes | None = None) -> None:
        self.fails_at = fails_at

    def handle(self, messages: Sequence[Message], topic_id: str, out: Output) -> int:  # noqa: ARG002 - the protocol's
        for message in messages:
            value = message.value if message.payload is None else message.payload.read()
            if value == self.fails_at:
                self.fails_at = None
                raise OSError(28, "as if the disk were full, once")
            place: Headers = [("place", b"%d %d" % (message.offset, message.timestamp_ms))]
            out.send(STANDARDIZED_LOGS, message.key, value, [*message.headers, *place], message.partition)
        return len(messages)

    def finish(self, out: Output) -> None:
        pass

    def changed(self) -> Iterable[tuple[int, bytes, bytes | None]]:
        return ()

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        raise AssertionError(f"there is no state, and {key!r}: {value!r} came of partition {partition}")

    def forget(self, partition: int) -> None:
        pass


@pytest.fixture
def settings(broker: Broker, tmp_path: Path) -> Settings:
    return prepared(broker, tmp_path)


def prepared(broker: Broker, folder: Path, **changes: Any) -> Settings:
    """Topics of a test's own, of two partitions, on which our own chunks are of 64 KiB."""
    made = Settings(
        _env_file=None,
        kafka_bootstrap=broker.bootstrap,
        kafka_group_protocol="consumer",
        topic_prefix=f"c{uuid.uuid4().hex[:8]}-",
        data_dir=folder,
        **{"partitions": 2, "chunk_bytes": 64 * KIB, "entry_max_bytes": 128 * MIB, **changes},
    )
    kafka.Topics(made, "test").create()
    return made


# writing


def body_of(size: int, number: int = 1) -> bytes:
    """Bytes that no other number has."""
    return random.Random(number).randbytes(size)


def pieces(
    body: bytes,
    chunk_bytes: int = 10_000,
    number: int = 1,
    attempt: int = 1,
    own: Sequence[tuple[str, bytes | None]] = (),
) -> list[Piece]:
    """A body in chunks, its own headers on chunk 0."""
    chunks = split(io.BytesIO(body), len(body), chunk_bytes, number.to_bytes(16, "big"), attempt)
    return [(value, [(H_CHUNK, header), *(own if at == 0 else [])]) for at, (header, value) in enumerate(chunks)]


class Foreign:
    """A producer that is not ours: plain librdkafka; every message has arrived when `send` returns."""

    def __init__(self, settings: Settings, **config: Any) -> None:
        self._topic = settings.topic(RAW_LOGS)
        self.client = Producer(
            {"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 0, "message.max.bytes": 10 * MIB, **config}
        )
        self.transactional = "transactional.id" in config
        if self.transactional:
            self.client.init_transactions(30)
            self.client.begin_transaction()

    def send(
        self, partition: int, *messages: Piece, key: bytes | None = b"key", timestamp_ms: int | None = None
    ) -> None:
        assert self._failures(partition, messages, key, timestamp_ms or 0) == []

    def arrives(self, partition: int, value: bytes) -> bool:
        """Whether the broker takes this."""
        return not self._failures(partition, [(value, [])], None, 0)

    def _failures(
        self, partition: int, messages: Sequence[Piece], key: bytes | None, timestamp_ms: int
    ) -> list[object]:
        errors: list[object] = []

        def told(error: object, _: object) -> None:
            if error is not None:
                errors.append(error)

        for value, headers in messages:
            self.client.produce(
                self._topic, value, key, partition, on_delivery=told, timestamp=timestamp_ms, headers=[*headers]
            )
        assert self.client.flush(30) == 0
        return errors

    def commit(self) -> None:
        self.client.commit_transaction(30)


def transaction(settings: Settings, name: str) -> kafka.Transactions:
    writer = kafka.Transactions(settings, "test", name)
    assert writer.prepare(threading.Event())
    writer.begin()
    return writer


def write(writer: kafka.Transactions, settings: Settings, messages: Iterable[Piece], partition: int = 0) -> None:
    for value, headers in messages:
        writer.send(settings.topic(RAW_LOGS), value, b"key", partition, headers)


def produce(settings: Settings, *messages: Piece, partition: int = 0) -> None:
    """Send with our own producer, in a transaction."""
    writer = transaction(settings, f"test-{uuid.uuid4().hex}")
    write(writer, settings, messages, partition)
    writer.commit()
    writer.discard()


def plain(number: int) -> Piece:
    return b"plain %d" % number, []


# reading


def delivered(settings: Settings) -> list[Delivered]:
    found = []
    for partition, key, value, headers in messages_in(settings, STANDARDIZED_LOGS):
        name, place = headers.pop()
        assert name == "place"
        offset, timestamp_ms = map(int, (place or b"").split())
        found.append(Delivered(partition, offset, timestamp_ms, key, value, tuple(headers)))
    return found


def drained(settings: Settings, partitions: Sequence[int] = (0, 1)) -> list[Delivered]:
    """All that was delivered once the stage is through with everything that stands in these partitions by now."""
    ends = Foreign(settings)
    for partition in partitions:
        ends.send(partition, (END, []))

    def look() -> list[Delivered] | None:
        found = delivered(settings)
        return found if sum(one.value == END for one in found) >= len(partitions) else None

    return [one for one in eventually(look, 60, "the ends") if one.value != END]


def values(found: Iterable[Delivered]) -> list[bytes]:
    return [one.value for one in found]


def letters(settings: Settings) -> list[DeadLetter]:
    return [DeadLetter.from_headers(headers, value) for _, _, value, headers in messages_in(settings, DEAD_LETTERS)]


def reasons(settings: Settings) -> list[tuple[str, int, int]]:
    return sorted((letter.reason, letter.partition, letter.offset) for letter in letters(settings))


def taken(settings: Settings, count: int) -> None:
    """Wait until the stage has committed so many deliveries."""
    eventually(lambda: len(delivered(settings)) >= count, 60, f"{count} deliveries")


def committed(settings: Settings, partition: int = 0) -> tuple[int, Watermark | None]:
    """Where the group stands: offset and watermark."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": settings.topic("standardization")})
    try:
        [place] = consumer.committed([TopicPartition(settings.topic(RAW_LOGS), partition)], 30)
    finally:
        consumer.close()
    _, _, text = (place.metadata or "").partition(" ")
    return place.offset, decode_watermark(text)


def begin_at(settings: Settings, offset: int) -> None:
    """Move the group, which nobody is in, to this offset of partition 0, as a tool does: without a watermark."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": settings.topic("standardization")})
    try:
        consumer.commit(offsets=[TopicPartition(settings.topic(RAW_LOGS), 0, offset)], asynchronous=False)
    finally:
        consumer.close()


def administer(settings: Settings, call: str, what: object) -> None:
    """Make one call of the admin client's, and wait until it is done."""
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    for future in getattr(client, call)(what).values():
        future.result(30)


def alter(settings: Settings, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.topic(topic), incremental_configs=[entry])
    administer(settings, "incremental_alter_configs", [resource])
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})

    def known() -> bool:
        [described] = client.describe_configs([ConfigResource(ResourceType.TOPIC, settings.topic(topic))]).values()
        return bool(described.result(30)[name].value == value)

    eventually(known, 30, f"{name} is {value}")


def keep_producers_times(settings: Settings) -> None:
    """Make the producer's timestamps count, so that a test can tell the time."""
    alter(settings, RAW_LOGS, "message.timestamp.type", "CreateTime")

    def counts() -> bool:
        Foreign(settings).send(1, (END, []), timestamp_ms=1_000)
        return any(message.timestamp()[1] == 1_000 for message in read(settings, RAW_LOGS))

    eventually(counts, 30, "the topic keeps the producer's time")


# what a message is


def test_sizes_about_the_chunk_size_and_none_at_all_pass_both_ways_and_only_larger_ones_are_chunked(
    settings: Settings,
) -> None:
    size = settings.chunk_bytes
    sizes = [0, 1, size - 1, size, size + 1, 2 * size, 2 * size + 1]
    bodies = [body_of(length, length) for length in sizes]
    foreign = Foreign(settings)
    foreign.send(0, *((body, []) for body in bodies if len(body) <= size), (None, []))
    for body in bodies[4:]:
        foreign.send(0, *pieces(body, size - 7, number=len(body)))
    with running(settings, Copy()):
        found = drained(settings)
    assert values(found) == [*bodies[:4], b"", *bodies[4:]]
    assert letters(settings) == []
    chunked = [
        len(message.value() or b"")
        for message in read(settings, STANDARDIZED_LOGS)
        if any(name == H_CHUNK for name, _ in message.headers() or [])
    ]
    assert chunked == [size, 1, size, size, size, size, 1]


def test_keys_headers_and_time_are_those_of_chunk_0(settings: Settings) -> None:
    large = body_of(200_000, 99)
    own: Headers = [
        ("a", b"1"),
        ("a", b"2"),
        ("none", None),
        ("empty", b""),
        ("large", large),
        ("bin\u00e4r", b"\xff\0"),
    ]
    keys = [None, b"", b"\x00\xff\xfe", b"k" * 5_000]
    foreign = Foreign(settings)
    for number, key in enumerate(keys):
        foreign.send(0, *pieces(body_of(30_000, number), number=number, own=own), key=key)
    with running(settings, Copy()):
        found = drained(settings)
    raw = [message for message in read(settings, RAW_LOGS) if message.partition() == 0]
    appended = {message.offset(): message.timestamp()[1] for message in raw}
    assert [(one.key, one.value) for one in found] == [(key, body_of(30_000, n)) for n, key in enumerate(keys)]
    assert all(one.headers == tuple(own) for one in found)
    assert [one.offset for one in found] == [0, 3, 6, 9]
    assert [one.timestamp_ms for one in found] == [appended[one.offset] for one in found]


def test_a_message_arrives_whole_under_every_codec(settings: Settings) -> None:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    bodies = [bytes(range(256)) * 400 + body_of(50_000, number) for number, _ in enumerate(codecs)]
    for number, codec in enumerate(codecs):
        config = {"compression.type": codec, "enable.idempotence": True}
        Foreign(settings, **config).send(0, *pieces(bodies[number], 20_000, number))
    with running(settings, Copy()):
        assert values(drained(settings)) == bodies
    assert letters(settings) == []


# producers


def test_producers_of_different_chunk_sizes_and_small_messages_interleave(settings: Settings) -> None:
    bodies = [body_of(40_000, 1), body_of(90_000, 2)]
    one = Foreign(settings, **{"transactional.id": settings.topic("one")})
    two = Foreign(settings, **{"transactional.id": settings.topic("two")})
    third = Foreign(settings)
    first, second = pieces(bodies[0], 10_000, 1), pieces(bodies[1], 15_001, 2)
    for at in range(6):
        one.send(0, *first[at : at + 1])
        third.send(0, plain(at))
        two.send(0, *second[at : at + 1])
    two.commit()
    one.commit()
    with running(settings, Copy()):
        found = drained(settings)
    assert sorted(values(found)) == sorted([*bodies, *(plain(at)[0] or b"" for at in range(6))])
    assert {one.value: one.offset for one in found if one.value in bodies} == {bodies[0]: 0, bodies[1]: 2}
    assert letters(settings) == []


def test_chunks_scattered_round_robin_are_one_dead_letter_a_partition_and_no_message(
    settings: Settings,
) -> None:
    foreign = Foreign(settings)
    for at, piece in enumerate(pieces(body_of(60_000))):
        foreign.send(at % 2, piece)
    foreign.send(0, plain(1))
    with running(settings, Copy()):
        assert values(drained(settings)) == [b"plain 1"]
    # chunk 2 after chunk 0 on one, chunk 1 without a chunk 0 on the other
    assert reasons(settings) == [("chunk_missing", 0, 0), ("chunk_missing", 1, 0)]
    by_partition = {letter.partition: letter for letter in letters(settings)}
    assert by_partition[0].detail == "chunk 2 came where 1 was due"
    assert by_partition[1].detail == "chunk 1 came without the chunks before it"


def test_a_message_without_a_key_keeps_to_one_partition_whatever_the_partitioner(settings: Settings) -> None:
    bodies = [body_of(200_000, number) for number in range(8)]
    foreign = Foreign(settings)
    for body in bodies:
        foreign.send(0, (body, []), key=None)

    class Scatter(Copy):
        def handle(self, messages: Sequence[Message], topic_id: str, out: Output) -> int:  # noqa: ARG002 - likewise
            for message in messages:
                out.send(STANDARDIZED_LOGS, message.key, message.value, [("place", b"0 0")])  # no partition said
            return len(messages)

    with running(settings, Scatter()):
        drained(settings)
    # looked at once more: an end may lie on another partition than what came before it, and be seen before that
    assert sorted(value for value in values(delivered(settings)) if value != END) == sorted(bodies)


def test_partitions_that_are_added_in_mid_message_do_not_tear_it(settings: Settings) -> None:
    body = body_of(50_000)
    chunks = pieces(body)
    with running(settings, Copy()) as (stage, _):
        writer = transaction(settings, "test-growing")
        write(writer, settings, chunks[:2], partition=1)
        names = [settings.topic(name) for name in (RAW_LOGS, STANDARDIZED_LOGS, STANDARDIZATION_STATE)]
        administer(settings, "create_partitions", [NewPartitions(name, 5) for name in names])
        write(writer, settings, chunks[2:], partition=1)
        writer.commit()
        found = drained(settings)
        assert values(found) == [body]
        assert found[0].partition == 1
        eventually(lambda: stage.assigned == set(range(5)), 60, "the stage reads the new ones, too")
    assert letters(settings) == []


def write_some_and_wait(topic: str, bootstrap: str, transactional_id: str) -> None:
    """What the process does that is killed: it writes three chunks, says so, and never ends."""
    config: dict[str, Any] = {"bootstrap.servers": bootstrap, "linger.ms": 0}
    producer = Producer(config | ({"transactional.id": transactional_id} if transactional_id else {}))
    if transactional_id:
        producer.init_transactions(30)
        producer.begin_transaction()
    for value, headers in pieces(body_of(50_000))[:3]:
        producer.produce(topic, value, b"key", 0, headers=[*headers])
    assert producer.flush(30) == 0
    sys.stdout.write("written\n")
    sys.stdout.flush()
    time.sleep(600)


def killed_in_mid_message(settings: Settings, transactional_id: str) -> None:
    arguments = (settings.topic(RAW_LOGS), settings.kafka_bootstrap, transactional_id)
    code = f"from tests.integration.test_chunks import write_some_and_wait as go; go(*{arguments!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()


def test_of_a_producer_killed_within_its_transaction_no_chunk_is_seen_and_its_successor_s_message_is_whole(
    settings: Settings,
) -> None:
    body = body_of(50_000)
    with running(settings, Copy()) as (stage, _):
        killed_in_mid_message(settings, settings.topic("dying"))
        successor = Foreign(settings, **{"transactional.id": settings.topic("dying")})
        successor.send(0, *pieces(body, attempt=2), plain(1))
        successor.commit()
        found = drained(settings)
        assert stage.spool.used == 0
    assert [(one.value, one.offset) for one in found] == [(body, 4), (b"plain 1", 9)]  # 3 chunks and a marker before
    assert letters(settings) == []


def test_of_a_producer_killed_without_a_transaction_the_next_attempt_takes_the_place(settings: Settings) -> None:
    body = body_of(50_000)
    with running(settings, Copy()):
        killed_in_mid_message(settings, "")
        Foreign(settings).send(0, plain(1), *pieces(body, attempt=2))
        found = drained(settings)
    assert [(one.value, one.offset) for one in found] == [(b"plain 1", 3), (body, 4)]
    assert letters(settings) == []


def test_a_large_message_that_was_aborted_costs_the_next_one_nothing(settings: Settings) -> None:
    """SLUICE_ABORTED_MIB=1024 for the gigabyte."""
    noise = body_of(MIB)
    with running(settings, Copy()) as (stage, _):
        writer = transaction(settings, "test-aborting")
        stream = Repeated(noise, ABORTED)
        for header, value in split(stream, ABORTED, 896 * KIB, bytes(16), 1):  # type: ignore[arg-type]
            writer.send(settings.topic(RAW_LOGS), value, b"key", 0, [(H_CHUNK, header)])
        writer.abort()

        def sent() -> bool:
            """What was in flight when it was aborted may cost the next transaction an abort, as every caller allows."""
            writer.begin()
            write(writer, settings, [plain(1)])
            try:
                writer.commit()
            except AbortRequiredError:
                writer.abort()
                return False
            return True

        eventually(sent, 60, "the small message is committed")
        found = drained(settings)
        assert stage.spool.used == 0
    assert values(found) == [b"plain 1"]
    assert letters(settings) == []


class Repeated:
    """A stream of so many bytes: one block again and again."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block, self._left = block, size

    def read(self, size: int) -> bytes:
        piece = self._block[: min(size, self._left)]
        self._left -= len(piece)
        return piece


def test_after_a_commit_whose_answer_was_lost_the_repetition_is_not_delivered_again(settings: Settings) -> None:
    body = body_of(50_000)
    produce(settings, *pieces(body, attempt=1))  # committed, but the producer never heard of it
    produce(settings, *pieces(body, attempt=2), plain(1))
    with running(settings, Copy()):
        found = drained(settings)
        produce(settings, *pieces(body, attempt=3))
        assert drained(settings) == found
    assert [(one.value, one.offset) for one in found] == [(body, 0), (b"plain 1", 11)]
    assert letters(settings) == []


def test_a_delivery_that_fails_at_chunk_k_leaves_nothing_and_the_next_attempt_is_whole(settings: Settings) -> None:
    alter(settings, RAW_LOGS, "max.message.bytes", "200000")
    eventually(lambda: not Foreign(settings).arrives(1, body_of(300_000)), 30, "the broker refuses what is too large")
    body = body_of(50_000)
    chunks = pieces(body)
    chunks[3] = (chunks[3][0], [*chunks[3][1], ("too-much", body_of(300_000, 2))])
    with running(settings, Copy()):
        writer = transaction(settings, "test-failing")
        write(writer, settings, chunks)
        with pytest.raises(AbortRequiredError):
            writer.commit()
        writer.abort()
        writer.begin()
        write(writer, settings, pieces(body, attempt=2))
        writer.commit()
        assert [one.value for one in drained(settings) if one.partition == 0] == [body]
    assert letters(settings) == []


def test_a_message_larger_than_the_producer_s_queue_goes_through_it(settings: Settings) -> None:
    noise = body_of(MIB)
    size = 40 * MIB  # the queue takes 32
    digest = sha256()
    with running(settings, Copy()):
        writer = transaction(settings, "test-queue")
        for header, value in split(Repeated(noise, size), size, 896 * KIB, bytes(16), 1):  # type: ignore[arg-type]
            digest.update(value)
            writer.send(settings.topic(RAW_LOGS), value, b"key", 0, [(H_CHUNK, header)])
        writer.commit()
        [one] = drained(settings)
    assert (len(one.value), sha256(one.value).digest()) == (size, digest.digest())


# readers


def test_after_a_crash_with_one_message_done_and_one_open_each_is_delivered_once(settings: Settings) -> None:
    done, opened = body_of(30_000, 1), body_of(50_000, 2)
    rest = pieces(opened, number=2)
    crash = b"crash here"
    produce(settings, *rest[:2], *pieces(done, number=1), plain(1))
    transform = Copy(fails_at=crash)
    with running(settings, transform) as (_, failures):
        taken(settings, 2)
        produce(settings, plain(2), (crash, []))
        eventually(lambda: failures, 60, "the crash")
    assert committed(settings)[0] == 0, "the open message begins there"
    _, watermark = committed(settings)
    assert watermark is not None
    assert watermark.offset >= 6, "but what ended below was delivered"
    produce(settings, *rest[2:])
    with running(settings, transform):
        found = drained(settings)
    assert sorted(values(found)) == sorted([done, opened, b"plain 1", b"plain 2", crash])
    assert letters(settings) == []


def test_a_rebalance_after_k_chunks_moves_the_open_message_to_the_next_reader(broker: Broker, tmp_path: Path) -> None:
    settings = prepared(broker, tmp_path, partitions=4)
    bodies = [body_of(50_000, number) for number in range(4)]
    chunks = [pieces(body, number=number) for number, body in enumerate(bodies)]
    with running(settings, Copy(), "one") as (first, _):
        for partition, mine in enumerate(chunks):
            produce(settings, plain(partition), *mine[:3], partition=partition)
        taken(settings, 4)
        with running(settings, Copy(), "two") as (second, _):
            eventually(lambda: first.assigned and second.assigned, 60, "each has partitions")
            for partition, mine in enumerate(chunks):
                produce(settings, *mine[3:], partition=partition)
            found = drained(settings, range(4))
    assert sorted(values(found)) == sorted([*bodies, *(plain(at)[0] or b"" for at in range(4))])
    assert {one.value: one.offset for one in found if one.value in bodies} == dict.fromkeys(bodies, 1)
    assert letters(settings) == []


def test_a_reader_that_closes_in_mid_message_leaves_it_to_the_next(settings: Settings) -> None:
    body = body_of(50_000)
    chunks = pieces(body)
    produce(settings, plain(1), *chunks[:3])
    with running(settings, Copy()):
        taken(settings, 1)
    assert committed(settings)[0] == 1
    produce(settings, *chunks[3:])
    with running(settings, Copy()):
        assert values(drained(settings)) == [b"plain 1", body]
    assert letters(settings) == []


@pytest.mark.parametrize(
    ("offset", "whole", "dead"),
    [
        (0, [1, 2], []),
        (2, [2], [("chunk_missing", 0, 2)]),  # amid the first message
        (5, [2], []),  # between the two
        (10, [], []),  # the end
    ],
)
def test_a_group_that_is_moved_reads_from_there(
    settings: Settings, offset: int, whole: list[int], dead: list[tuple[str, int, int]]
) -> None:
    bodies = {number: body_of(50_000, number) for number in (1, 2)}
    for number, body in bodies.items():
        Foreign(settings).send(0, *pieces(body, number=number))
    begin_at(settings, offset)
    with running(settings, Copy()):
        assert values(drained(settings)) == [bodies[number] for number in whole]
    assert reasons(settings) == dead


def test_a_message_whose_head_retention_cut_off_is_one_dead_letter(settings: Settings) -> None:
    bodies = [body_of(50_000, number) for number in (1, 2)]
    foreign = Foreign(settings)
    foreign.send(0, *pieces(bodies[0], number=1), plain(1), *pieces(bodies[1], number=2))
    administer(settings, "delete_records", [TopicPartition(settings.topic(RAW_LOGS), 0, 2)])
    with running(settings, Copy()):
        assert values(drained(settings)) == [b"plain 1", bodies[1]]
    [letter] = letters(settings)
    assert (letter.reason, letter.offset, letter.value) == ("chunk_missing", 2, bodies[0][20_000:30_000])


def test_a_message_paused_for_longer_than_the_expiry_is_delivered_and_one_that_never_ends_expires(
    settings: Settings,
) -> None:
    keep_producers_times(settings)
    begun = int(time.time() * 1000) - 4 * HALF_AN_HOUR_MS
    paused, unfinished = body_of(50_000, 1), body_of(50_000, 2)
    chunks = pieces(paused, number=1)
    foreign = Foreign(settings)
    foreign.send(0, plain(1), *chunks[:2], timestamp_ms=begun)
    with running(settings, Copy()):
        eventually(lambda: plain(1)[0] in values(delivered(settings)), 60, "the first chunks are read")
    later = begun + HALF_AN_HOUR_MS + 60_000
    foreign.send(0, *chunks[2:], *pieces(unfinished, number=2, own=[("own", b"1")])[:4], timestamp_ms=later)
    with running(settings, Copy()):
        eventually(lambda: paused in values(delivered(settings)), 60, "the message that was paused")
        assert letters(settings) == []
        foreign.send(0, plain(2), timestamp_ms=later + HALF_AN_HOUR_MS)
        [letter] = eventually(lambda: letters(settings), 30, "what never ended")
    assert (letter.reason, letter.offset, letter.value) == ("chunk_expired", 6, unfinished[:10_000])
    assert letter.detail == "after chunk 3 of 5 nothing more came; 40000 of 50000 bytes are there"
    assert ("own", b"1") in letter.headers
    assert letter.key == b"key"


def test_more_open_messages_than_the_spool_holds_are_all_delivered_once(broker: Broker, tmp_path: Path) -> None:
    settings = prepared(broker, tmp_path, entry_max_bytes=300_000)
    bodies = [body_of(250_000, number) for number in range(5)]
    chunks = [pieces(body, 50_000, number) for number, body in enumerate(bodies)]
    foreign = Foreign(settings)
    for at in range(5):
        foreign.send(0, *(mine[at] for mine in chunks), plain(at))
    with running(settings, Copy(), quota=MIB // 2):
        found = drained(settings)
        taken(settings, 11)
        found = [one for one in delivered(settings) if one.value != END]
    assert sorted(values(found)) == sorted([*bodies, *(plain(at)[0] or b"" for at in range(5))])
    assert letters(settings) == []


def test_a_message_over_the_maximum_is_one_dead_letter_and_spools_nothing(broker: Broker, tmp_path: Path) -> None:
    settings = prepared(broker, tmp_path, entry_max_bytes=49_999)
    Foreign(settings).send(0, *pieces(body_of(50_000), number=1), *pieces(body_of(49_999, 2), number=2))
    with running(settings, Copy()) as (stage, _):
        assert values(drained(settings)) == [body_of(49_999, 2)]
        assert stage.spool.used == 0
    [letter] = letters(settings)
    assert (letter.reason, letter.offset, letter.value) == ("chunk_too_large", 0, body_of(50_000)[:10_000])


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_topic_is_refused_by_name_at_the_start(settings: Settings, policy: str) -> None:
    alter(settings, RAW_LOGS, "cleanup.policy", policy)
    with running(settings, Copy()) as (stage, failures):
        [error] = eventually(lambda: failures, 60, "the refusal")
        assert stage.assigned == set()
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith(f"topic {settings.topic(RAW_LOGS)} has cleanup.policy={policy}, ")


# the broker


@pytest.fixture
def mortal(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, list[Any]]]:
    """A broker that a test may kill; the list holds its process."""
    port, controller_port = free_ports(2)
    broker = Broker(tmp_path_factory.mktemp("mortal"), kafka_libs, port, controller_port)
    processes: list[Any] = [broker.start()]
    broker.wait_until_ready(processes[0])
    yield broker, processes
    processes[0].terminate()
    processes[0].wait(30)


def test_a_broker_that_dies_in_mid_message_delays_it_only(mortal: tuple[Broker, list[Any]], tmp_path: Path) -> None:
    broker, processes = mortal
    settings = prepared(broker, tmp_path)
    inside, outside = body_of(50_000, 1), body_of(50_000, 2)
    chunks = pieces(outside, number=2)
    with running(settings, Copy()) as (stage, _):
        eventually(lambda: stage.assigned, 60, "the stage reads")
        Foreign(settings).send(0, *chunks[:3])
        writer = transaction(settings, "test-broker")
        write(writer, settings, pieces(inside, number=1)[:2], partition=1)
        eventually(lambda: stage.spool.used >= 30_000, 60, "three chunks wait")
        processes[0].kill()
        processes[0].wait()
        write(writer, settings, pieces(inside, number=1)[2:], partition=1)
        processes[0] = broker.start()
        broker.wait_until_ready(processes[0])
        try:
            writer.commit()
        except AbortRequiredError:
            writer.abort()
            writer.begin()
            write(writer, settings, pieces(inside, number=1, attempt=2), partition=1)
            writer.commit()
        Foreign(settings).send(0, *chunks[3:])
        found = drained(settings)
    assert sorted(values(found)) == sorted([inside, outside])
    assert letters(settings) == []
