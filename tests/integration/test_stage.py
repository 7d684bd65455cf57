"""The stage loop on a real Kafka, with a transform that only passes on what it gets."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from native.kafka import Broker
from shared import kafka, metrics
from shared.config import Settings
from shared.frames import entries
from shared.records import DeadLetter
from shared.stage import Message, Output
from shared.topics import (
    DEAD_LETTERS,
    H_CHUNK,
    H_CONTENT_TYPE,
    NDJSON,
    RAW_LOGS,
    STANDARDIZED_LOGS,
)
from tests.integration.stack import eventually
from tests.integration.stage_thread import read, running

pytestmark = pytest.mark.kafka


class Pass:
    """Passes every line on, and counts lines in its state; may be told to fail once at a line."""

    def __init__(self, fails_at: bytes | None = None) -> None:
        self.fails_at = fails_at
        self.counts: dict[int, int] = {}
        self.handled = 0
        self._dirty: set[int] = set()

    def handle(self, messages: Sequence[Message], topic_id: str, out: Output) -> int:  # noqa: ARG002 - the protocol's
        stream = out.stream(STANDARDIZED_LOGS)
        count = 0
        for message in messages:
            for line in entries(message.value, NDJSON):
                if line == self.fails_at:
                    self.fails_at = None
                    raise OSError(28, "as if the disk were full, once")
                stream.add_to(message.partition, b"key", [line])
                self.counts[message.partition] = self.counts.get(message.partition, 0) + 1
                self._dirty.add(message.partition)
                count += 1
        self.handled += count
        return count

    def finish(self, out: Output) -> None:
        pass

    def changed(self) -> Iterable[tuple[int, bytes, bytes | None]]:
        changed = [(partition, b"count", b"%d" % self.counts[partition]) for partition in self._dirty]
        self._dirty.clear()
        return changed

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        assert key == b"count"
        self.counts[partition] = int(value)

    def forget(self, partition: int) -> None:
        self.counts.pop(partition, None)
        self._dirty.discard(partition)


@pytest.fixture(params=["consumer", "classic"])
def settings(request: pytest.FixtureRequest, broker: Broker, tmp_path: Path) -> Settings:
    made = Settings(
        _env_file=None,
        kafka_bootstrap=broker.bootstrap,
        kafka_group_protocol=request.param,
        topic_prefix=f"s{uuid.uuid4().hex[:8]}-",
        partitions=4,
        data_dir=tmp_path,
    )
    kafka.Topics(made, "test").create()
    return made


def produce(settings: Settings, messages: Iterable[tuple[int, bytes, list[tuple[str, bytes | None]]]]) -> None:
    writer = kafka.Transactions(settings, "test", f"test-{uuid.uuid4().hex}")
    assert writer.prepare(threading.Event())
    writer.begin()
    for partition, value, headers in messages:
        writer.send(settings.topic(RAW_LOGS), value, None, partition, headers)
    writer.commit()
    writer.discard()


def numbered(begin: int, end: int) -> list[tuple[int, bytes, list[tuple[str, bytes | None]]]]:
    return [(n % 4, b'{"n":%d}' % n, []) for n in range(begin, end)]


def lines(settings: Settings) -> list[bytes]:
    return [line for message in read(settings, STANDARDIZED_LOGS) for line in entries(message.value() or b"", NDJSON)]


def eventually_put(put: Callable[[int], None], offset: int) -> None:
    """Commit for a group that its members have just left, and that may not have noticed."""

    def done() -> bool:
        try:
            put(offset)
        except KafkaException:
            return False
        return True

    eventually(done, 60, f"offset {offset} is committed")


def until(settings: Settings, count: int) -> list[bytes]:
    found: Callable[[], list[bytes] | None] = lambda: got if len(got := lines(settings)) >= count else None  # noqa: E731
    return eventually(found, 60, f"{count} lines")


def test_what_a_failure_left_half_done_is_not_committed_and_done_again(settings: Settings) -> None:
    produce(settings, [(0, b'{"n":%d}' % n, []) for n in range(10)])
    transform = Pass(fails_at=b'{"n":5}')
    with running(settings, transform) as (_, failures):
        eventually(lambda: failures, 60, "the failure")
    assert lines(settings) == []
    with running(settings, transform):
        assert until(settings, 10) == [b'{"n":%d}' % n for n in range(10)]


def test_state_is_there_again_after_a_restart_and_counts_each_line_once(settings: Settings) -> None:
    produce(settings, numbered(0, 400))
    with running(settings, Pass()):
        until(settings, 400)
    again = Pass()
    produce(settings, numbered(400, 800))
    with running(settings, again):
        until(settings, 800)
        eventually(lambda: sum(again.counts.values()) == 800, 30, "the counts")
    assert sorted(lines(settings)) == sorted(value for _, value, _ in numbered(0, 800))
    assert again.handled == 400


def test_lines_keep_their_order_whatever_batches_they_come_in_and_frames_they_go_in(settings: Settings) -> None:
    produce(settings, [(0, b'{"n":%d}' % n, []) for n in range(100)])
    with running(settings.model_copy(update={"fetch_records": 7, "frame_records": 5}), Pass()):
        assert until(settings, 100) == [b'{"n":%d}' % n for n in range(100)]


def test_replicas_that_join_and_leave_in_mid_flow_lose_and_double_nothing(settings: Settings) -> None:
    batches = 12
    with running(settings, Pass(), "one"):

        def feed() -> None:
            for batch in range(batches):
                produce(settings, numbered(batch * 500, (batch + 1) * 500))

        producer = threading.Thread(target=feed)
        producer.start()
        eventually(lambda: lines(settings), 60, "the first lines")
        with running(settings, Pass(), "two") as (second, _):
            eventually(lambda: second.assigned, 60, "the second replica has partitions")
            time.sleep(0.2)  # some flow through both; the assertion does not depend on how much
        producer.join(120)
        found = until(settings, batches * 500)
    assert sorted(found) == sorted(value for _, value, _ in numbered(0, batches * 500))
    for partition in range(4):
        mine = [m for m in read(settings, STANDARDIZED_LOGS) if m.partition() == partition]
        order = [line for message in mine for line in entries(message.value() or b"", NDJSON)]
        assert order == [b'{"n":%d}' % n for n in range(partition, batches * 500, 4)]


def test_a_topic_made_anew_is_read_from_its_start(settings: Settings) -> None:
    produce(settings, numbered(0, 50))
    with running(settings, Pass()):
        until(settings, 50)
    topics = kafka.Topics(settings, "test")
    before = topics.ids([settings.topic(RAW_LOGS)])
    topics.delete([RAW_LOGS])
    eventually(lambda: settings.topic(RAW_LOGS) in topics.create(), 60, "the topic is made anew")
    assert topics.ids([settings.topic(RAW_LOGS)]) != before
    produce(settings, numbered(50, 120))
    with running(settings, Pass()):
        found = until(settings, 120)
    assert sorted(found) == sorted(value for _, value, _ in numbered(0, 120))


def errors(kind: str) -> float:
    return float(metrics.ERRORS.labels("standardization", kind)._value.get())


def test_what_retention_takes_from_under_a_reader_is_told_and_the_rest_is_read_once(settings: Settings) -> None:
    """The client alone would begin at the start again, and tell nobody."""
    produce(settings, numbered(0, 4))
    with running(settings, Pass()):
        until(settings, 4)  # so that it is known from where it has to go on
    noise = [os.urandom(300_000).hex().encode() for _ in range(40)]
    produce(settings, [(0, b'{"n":%d, "noise": "%s"}' % each, []) for each in enumerate(noise)])
    told, going_on = errors("retention"), threading.Event()

    class Waiting(Pass):
        def handle(self, messages: Sequence[Message], topic_id: str, out: Output) -> int:
            going_on.wait(60)
            return super().handle(messages, topic_id, out)

    with running(settings.model_copy(update={"fetch_records": 1}), Waiting()) as (stage, _):
        eventually(lambda: stage.assigned, 60, "it reads")
        topics, place = kafka.Topics(settings, "test"), (settings.topic(RAW_LOGS), 0)
        eventually(lambda: topics.ends([place], stable=True)[place] >= 40, 30, "the broker knows its end")
        last = topics.ends([place])[place] - 2  # behind it lies the marker of its transaction
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
        cut_off = [TopicPartition(*place, last)]
        for future in admin.delete_records(cut_off).values():
            future.result(30)
        going_on.set()
        found: Callable[[], bool] = lambda: any(line.startswith(b'{"n":39,') for line in lines(settings))  # noqa: E731
        eventually(found, 60, "the last line")
    assert errors("retention") > told
    assert len(lines(settings)) == len(set(lines(settings))) < 44


def test_a_partition_that_ends_before_what_was_read_is_not_read_from_its_start(settings: Settings) -> None:
    produce(settings, numbered(0, 40))
    with running(settings, Pass()):
        until(settings, 40)
    client = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": settings.topic("standardization")})

    def put(offset: int) -> None:
        client.commit(offsets=[TopicPartition(settings.topic(RAW_LOGS), 0, offset)], asynchronous=False)

    eventually_put(put, 1_000)
    told = errors("truncated")
    with running(settings, Pass()) as (stage, _):
        eventually(lambda: errors("truncated") > told, 60, "it is told")
        assert stage.problems()
    assert len(lines(settings)) == 40
    eventually_put(
        put, kafka.Topics(settings, "test").ends([(settings.topic(RAW_LOGS), 0)])[settings.topic(RAW_LOGS), 0]
    )
    client.close()
    produce(settings, numbered(40, 80))
    with running(settings, Pass()):
        assert sorted(until(settings, 80)) == sorted(value for _, value, _ in numbered(0, 80))


def test_a_chunk_that_lies_is_one_dead_letter_and_what_is_around_it_flows(settings: Settings) -> None:
    large: list[tuple[str, bytes | None]] = [("note", b"x" * 200_000), (H_CONTENT_TYPE, NDJSON.encode())]
    produce(
        settings,
        [(0, b'{"n":1}', []), (0, b'{"n":2}', [(H_CHUNK, b"\x01 and no more"), *large]), (0, b'{"n":3}', [])],
    )
    with running(settings, Pass()):
        assert until(settings, 2) == [b'{"n":1}', b'{"n":3}']
        (message,) = eventually(lambda: read(settings, DEAD_LETTERS), 30, "the dead letter")
    letter = DeadLetter.from_headers(message.headers() or [], message.value() or b"")
    assert letter.reason == "chunk_invalid_header"
    assert letter.value == b'{"n":2}'
    assert "too large to keep" in letter.detail


def test_a_stage_stops_before_too_much_is_poison_and_goes_on_when_the_setting_allows_it(settings: Settings) -> None:
    strict = settings.model_copy(update={"dead_letter_stop_ratio": 0.5, "dead_letter_stop_count": 10})
    broken: list[tuple[int, bytes, list[tuple[str, bytes | None]]]] = [(0, b"x", [(H_CHUNK, b"\x01")])] * 20
    with running(strict, Pass()) as (stage, failures):
        produce(settings, broken[:9])
        eventually(lambda: len(read(settings, DEAD_LETTERS)) == 9, 30, "a few are dead letters")
        assert stage.stopped is None
        produce(settings, [*broken, (1, b'{"n":1}', [])])
        eventually(lambda: stage.stopped, 30, "it stops")
        (problem,) = stage.problems()
        assert "DEAD_LETTER_STOP_RATIO" in problem
        assert not failures
    assert len(read(settings, DEAD_LETTERS)) == 9
    with running(settings, Pass(), "two"):
        eventually(lambda: len(read(settings, DEAD_LETTERS)) == 29, 30, "each is a dead letter, once")
        eventually(lambda: lines(settings) == [b'{"n":1}'], 30, "and what was good goes on")
