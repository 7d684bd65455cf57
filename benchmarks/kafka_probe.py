"""Kafka as a bench sees it: fill a topic beforehand, watch a group get through it, count what came out afterwards.

Plain clients of their own, with nothing of what is measured in them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from shared.topics import H_CONTENT_TYPE, H_RUN, NDJSON, partition_of

_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's local codes have no public names
_COORDINATOR_STARTING: Final = {  # while a new broker makes its offsets topic
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


class MeasurementError(Exception):
    """A run is not what it must be, so its figures say nothing."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What a topic holds: how many records the broker appended in which millisecond (LogAppendTime)."""

    by_ms: Counter[int]

    @property
    def records(self) -> int:
        return self.by_ms.total()

    @property
    def first_ms(self) -> int:
        return min(self.by_ms)

    @property
    def last_ms(self) -> int:
        return max(self.by_ms)

    @property
    def rate(self) -> float | None:
        """Records a second from the first append to the last; those of the first are the zero point and not counted.

        None when all came at once.
        """
        milliseconds = self.last_ms - self.first_ms
        return 1000 * (self.records - self.by_ms[self.first_ms]) / milliseconds if milliseconds else None


class KafkaProbe:
    """Clients for one broker."""

    def __init__(self, bootstrap: str) -> None:
        # what goes wrong is raised; the client's own lines would only stand between those of the bench
        self._bootstrap: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 2}
        self._admin = AdminClient(dict(self._bootstrap))

    def partitions(self, topic: str) -> int:
        """How many it has; a topic that was made a moment ago is waited for, since the broker may not know it yet."""
        until = time.monotonic() + 30
        while not (found := len(self._admin.list_topics(topic, timeout=10).topics[topic].partitions)):
            if time.monotonic() > until:
                raise MeasurementError(f"Kafka knows of no partition of {topic}")
            time.sleep(0.1)
        return found

    def fill(self, topic: str, frames: Iterable[bytes]) -> int:
        """Write each frame as a message such as ingestion writes, the partitions in turn; returns how many.

        Headers, key and codec are ingestion's; transactions are not used. The topic must be empty before.
        """
        failed: list[KafkaError] = []

        def on_delivery(error: KafkaError | None, _: object) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer(
            self._bootstrap
            | {
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "queue.buffering.max.messages": 200_000,
                "on_delivery": on_delivery,
            }
        )
        runs = _a_run_for_each(self.partitions(topic))
        places: list[tuple[int, bytes, Any]] = [
            (partition, run, [(H_CONTENT_TYPE, NDJSON.encode()), (H_RUN, run)]) for partition, run in enumerate(runs)
        ]
        count = 0
        for frame in frames:
            partition, run, headers = places[count % len(places)]
            count += 1
            while True:
                try:
                    producer.produce(topic, frame, run, partition, headers=headers)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        left = producer.flush(60)
        if left or failed or sum(self.ends(topic).values()) != count:
            raise MeasurementError(f"{topic} could not be filled with {count} messages: {failed[:1] or 'time-out'}")
        return count

    def ends(self, topic: str) -> dict[int, int]:
        """The end offset of each partition."""
        consumer = Consumer(self._bootstrap | {"group.id": "bench"})
        try:
            return {
                partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
                for partition in range(self.partitions(topic))
            }
        finally:
            consumer.close()

    @contextmanager
    def written(self, topic: str) -> Iterator[Callable[[], int]]:
        """A function that tells how many messages stand in the topic, those of open transactions and markers, too."""
        consumer = Consumer(self._bootstrap | {"group.id": "bench", "isolation.level": "read_uncommitted"})
        places = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        try:
            yield lambda: sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
        finally:
            consumer.close()

    @contextmanager
    def progress(self, group: str, topic: str) -> Iterator[Callable[[], int]]:
        """A function that tells how many messages of the topic the group is through with, by its committed offsets.

        It asks as a consumer of that group which never joins it: the admin client's own call crashes the process
        while the broker still loads its offsets topic (librdkafka 2.16).
        """
        # read_uncommitted: what the last transaction committed, without waiting for the one that is open
        consumer = Consumer(self._bootstrap | {"group.id": group, "isolation.level": "read_uncommitted"})
        places = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]

        def done() -> int:
            until = time.monotonic() + 30
            while True:
                try:
                    return sum(max(0, place.offset) for place in consumer.committed(places, timeout=30))
                except KafkaException as error:
                    if error.args[0].code() not in _COORDINATOR_STARTING or time.monotonic() > until:
                        raise
                    time.sleep(0.1)

        try:
            yield done
        finally:
            consumer.close()

    def appended(self, topic: str) -> Appended:
        """Read all that is committed in the topic, and count records, not messages."""
        consumer = Consumer(
            self._bootstrap
            | {
                "group.id": "bench",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
            }
        )
        by_ms: Counter[int] = Counter()
        open_partitions = set(range(self.partitions(topic)))
        consumer.assign([TopicPartition(topic, partition, 0) for partition in open_partitions])
        try:
            until = time.monotonic() + 600
            while open_partitions and time.monotonic() < until:
                for message in consumer.consume(10_000, 0.1):
                    error = message.error()
                    if error is None:
                        by_ms[message.timestamp()[1]] += (message.value() or b"").count(b"\n") + 1
                    elif error.code() == _END:
                        open_partitions.discard(message.partition())
                    else:
                        raise MeasurementError(f"{topic} could not be read: {error.str()}")
        finally:
            consumer.close()
        if open_partitions:
            raise MeasurementError(f"{topic} could not be read to its end")
        return Appended(by_ms)

    def first(self, topic: str, count: int) -> list[bytes]:
        """The values of the first messages of every partition that has some, up to so many of each."""
        consumer = Consumer(
            self._bootstrap | {"group.id": "bench", "enable.partition.eof": True, "isolation.level": "read_committed"}
        )
        found: list[bytes] = []
        try:
            for partition in range(self.partitions(topic)):
                consumer.assign([TopicPartition(topic, partition, 0)])
                wanted = count
                until = time.monotonic() + 30
                while wanted:
                    messages = consumer.consume(1, 1.0)
                    if any(message.error() is not None for message in messages) or time.monotonic() > until:
                        break  # its end
                    found += [message.value() or b"" for message in messages]
                    wanted -= len(messages)
        finally:
            consumer.close()
        return found

    def delete(self, prefix: str) -> None:
        """Delete the topics whose names begin so, to give their disk back."""
        names = [name for name in self._admin.list_topics(timeout=10).topics if name.startswith(prefix)]
        for future in self._admin.delete_topics(names, request_timeout=30).values():
            future.result()


def _a_run_for_each(partitions: int) -> Sequence[bytes]:
    """A run id for each partition, for it is the key of what a run wrote."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < partitions:
        run = f"{number:032x}".encode()
        found.setdefault(partition_of(run, partitions), run)
        number += 1
    return [found[partition] for partition in range(partitions)]
