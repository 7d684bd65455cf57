"""Reading: a consumer that reports the ends of partitions, and two ways to read without being in a group."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from shared.config import MIB, Settings
from shared.errors import KafkaUnavailableError
from shared.kafka.client import CALL_S, PARTITION_EOF, Consumed, Place, Position, cause_of, common
from shared.kafka.topics import Topics

READ_S: Final = 30.0  # the longest that a partition may give nothing before its end
_FROM_THE_START: Final[Mapping[Place, int]] = {}


class Reader:
    """A read_committed consumer that commits nothing by itself and reports the end of each partition.

    Its small prefetch with a short back-off is what measured fastest: the default idles a second at its limit.
    """

    def __init__(self, settings: Settings, client: str, group: str, *, subscribes: bool) -> None:
        config = common(settings, client) | {
            "group.id": settings.topic(group),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            # a group's place is decided when it is assigned; from the start again by itself would be everything twice
            "auto.offset.reset": "error" if subscribes else "earliest",
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 5,
            "fetch.error.backoff.ms": 100,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 2_048,
            "fetch.message.max.bytes": MIB,
            "max.poll.interval.ms": 300_000,
        }
        if subscribes and settings.kafka_group_protocol == "consumer":
            config["group.protocol"] = "consumer"
        elif subscribes:
            config["session.timeout.ms"] = settings.kafka_session_timeout_ms
            config["heartbeat.interval.ms"] = settings.kafka_session_timeout_ms // 3
            config["partition.assignment.strategy"] = "cooperative-sticky"
        self._consumer = Consumer(config)
        self._assigned: set[int] = set()  # partitions that were given, perhaps again, since the last poll

    def fetch(self, limit: int, patience: float) -> list[Consumed]:
        """What is there, up to `limit` messages; when nothing is, what comes within `patience` seconds.

        The client's own consume(n, t) waits for n messages or for the whole of t: so it is asked without waiting.
        """
        there = self._consumer.consume(limit, 0.0)
        if not there and (first := self._consumer.poll(patience)) is not None:
            self._assigned.clear()
            there = self._consumer.consume(limit, 0.0)
            if first.partition() not in self._assigned:  # else it is from before that, and comes again
                there.insert(0, first)
        return cast(list[Consumed], there)

    def subscribe(
        self,
        topic: str,
        assigned: Callable[[list[int]], Mapping[int, int]],
        revoked: Callable[[list[int]], None],
        lost: Callable[[list[int]], None],
    ) -> None:
        """Join the group. `assigned` answers with the offset that each new partition is read from."""

        def on_assign(consumer: Consumer, found: list[TopicPartition]) -> None:
            begins = assigned([tp.partition for tp in found])
            self._assigned.update(begins)
            consumer.incremental_assign([TopicPartition(topic, *begin) for begin in begins.items()])

        self._consumer.subscribe(
            [topic],
            on_assign=on_assign,
            on_revoke=lambda _, gone: revoked([tp.partition for tp in gone]),
            on_lost=lambda _, gone: lost([tp.partition for tp in gone]),
        )

    def assign(self, places: Mapping[Place, int]) -> None:
        """Read these partitions, each from its offset, without a group."""
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in places.items()])

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Raises KafkaUnavailableError where the partition is not being read just now."""
        try:
            self._consumer.seek(TopicPartition(topic, partition, offset))
        except KafkaException as error:
            raise KafkaUnavailableError(f"seek {topic} {partition}: {cause_of(error).str()}") from error

    def committed(self, topic: str, partitions: Sequence[int], stopping: threading.Event) -> dict[int, Position]:
        """What the group has committed; a partition without is left out. Waits for offsets of open transactions.

        Raises KafkaUnavailableError after READ_S, or soon after it was told to stop.
        """
        until = time.monotonic() + READ_S
        asked = [TopicPartition(topic, partition) for partition in partitions]
        while True:
            try:
                found = self._consumer.committed(asked, CALL_S)
                break
            except KafkaException as error:
                if stopping.is_set() or time.monotonic() > until:
                    raise KafkaUnavailableError(f"committed offsets of {topic}: {cause_of(error).str()}") from error
        return {tp.partition: Position(tp.offset, tp.metadata) for tp in found if tp.offset >= 0}

    def end(self, topic: str, partition: int) -> int:
        """The end offset as of the last fetch; -1001 before the first."""
        return self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)[1]

    def group(self) -> Any:
        """The group's metadata of this moment, for a transaction; it goes stale with the next rebalance."""
        return self._consumer.consumer_group_metadata()

    def tell(self, positions: Mapping[Place, int]) -> None:
        """Commit offsets outside of any transaction, without waiting: for the eyes of lag tools."""
        self._consumer.commit(
            offsets=[TopicPartition(*place, offset) for place, offset in positions.items()], asynchronous=True
        )

    def close(self) -> None:
        """Leave the group; `revoked` is called for what is held. It can't be used after that."""
        self._consumer.close()
        del self._consumer  # it holds the callbacks, and they their owner: threads and sockets go now, not with the gc


def read_to_end(
    settings: Settings,
    topics: Topics,
    places: Sequence[Place],
    stopping: threading.Event,
    begins: Mapping[Place, int] = _FROM_THE_START,
) -> Iterator[Consumed]:
    """Every committed message of these partitions, from `begins` or else their start up to the end they have now.

    Waits for transactions that are open below that end: what they commit belongs to it.
    Raises KafkaUnavailableError when nothing comes for READ_S, or when told to stop.
    """
    behind = {place: end for place, end in topics.ends(places).items() if end > begins.get(place, 0)}
    if not behind:
        return
    limits: dict[Place, int] = {}  # of places that have come to their end: where the last whole transaction ends
    reader = Reader(settings, "state-reader", "state-reader", subscribes=False)
    try:
        reader.assign({place: begins.get(place, OFFSET_BEGINNING) for place in behind})
        until = time.monotonic() + READ_S
        while behind:
            if stopping.is_set() or time.monotonic() > until:
                raise KafkaUnavailableError(f"could not read {sorted(behind)} to their end")
            for message in reader.fetch(1_000, 0.1):
                error = message.error()
                if error is not None and error.code() != PARTITION_EOF:
                    if error.fatal():
                        raise KafkaUnavailableError(f"reading state: {error.str()}")
                    continue
                place, following = (message.topic(), message.partition()), message.offset()
                if error is None and following < limits.get(place, sys.maxsize):
                    until = time.monotonic() + READ_S
                    yield message
                    following += 1
                if place not in limits and following >= behind.get(place, sys.maxsize):
                    # where others go on writing, a partition's end may never be met, and a transaction may lie across
                    # the one that was asked for: so it is read on to what is decided by now
                    limits[place] = following if error else topics.ends([place], stable=True)[place]
                if following >= limits.get(place, sys.maxsize):
                    behind.pop(place, None)
    finally:
        reader.close()


class First(NamedTuple):
    """What a reader gets first from a place: the message at `offset`, or nothing up to there."""

    offset: int
    timestamp_ms: int | None


def first_messages(
    settings: Settings, client: str, places: Mapping[Place, int], patience: float, stopping: threading.Event
) -> dict[Place, First]:
    """What a reader of each place would get first, from this offset on. A place that does not answer is left out.

    Markers of transactions and what was aborted take offsets, too, but no reader ever gets them.
    """
    found: dict[Place, First] = {}
    reader = Reader(settings, client, client, subscribes=False)
    try:
        waiting = dict(places)
        reader.assign(waiting)
        until = time.monotonic() + patience
        while waiting and time.monotonic() < until and not stopping.is_set():
            before = len(waiting)
            for message in reader.fetch(1_000, 0.1):
                place = (message.topic(), message.partition())
                error = message.error()
                if place in waiting and error is None:
                    found[place] = First(message.offset(), message.timestamp()[1])
                elif place in waiting and error is not None and error.code() == PARTITION_EOF:
                    found[place] = First(message.offset(), None)
                else:
                    continue
                del waiting[place]
            if waiting and len(waiting) < before:
                reader.assign(waiting)  # what has answered is not read on
    finally:
        reader.close()
    return found
