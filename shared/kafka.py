"""The one door to Kafka: reading, transactions with their three kinds of errors, topics, and a watch on the broker."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from shared import logs, metrics
from shared.config import KIB, MIB, Settings, load
from shared.errors import ConfigurationError, FencedError, KafkaUnavailableError, SluiceError
from shared.topics import CLOCK, specs

Headers = Sequence[tuple[str, bytes | None]]
Place = tuple[str, int]
"""A topic, by its name in Kafka, and one of its partitions."""

MESSAGE_MAX_BYTES: Final = 10 * MIB
ClientError = KafkaError
PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's local codes have no public names
PATIENCE_S: Final = 6.0  # when a call was repeated for so long, a new client is back sooner than the old one
CALL_S: Final = 2.0  # the longest that one call waits
READ_S: Final = 30.0  # the longest that a partition may give nothing before its end
MESSAGE_S: Final = 30.0  # the longest that a message may wait for a broker
TRANSIENT: Final = {  # the client mends these by itself
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - likewise
    KafkaError._TRANSPORT,  # noqa: SLF001 - likewise
    KafkaError._TIMED_OUT,  # noqa: SLF001 - likewise
    KafkaError._RESOLVE,  # noqa: SLF001 - likewise
}

_SOON: Final = {  # a broker that was asked a moment too early
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
_NOWHERE: Final[dict[int, "Position"]] = {}
_FROM_THE_START: Final[dict[Place, int]] = {}

log = logs.logger("kafka")


class AbortRequiredError(SluiceError):
    """The open transaction can't be committed; abort it and begin again from what is committed."""


# clients


def _common(settings: Settings, client: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": client,
        "allow.auto.create.topics": False,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        "topic.metadata.refresh.interval.ms": 60_000,
        "logger": log,
        # Starting over from the bootstrap servers while no broker is there kept producers from their coordinator.
        "metadata.recovery.strategy": "none",
    }


class Consumed(Protocol):
    """A message as the client gives it. `error` is looked at first: a fatal one comes without an offset."""

    def error(self) -> KafkaError | None: ...
    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...


class Position(NamedTuple):
    """Where a partition is to be read from, and what its commit said beside it."""

    offset: int
    metadata: str | None


class Reader:
    """A read_committed consumer that commits nothing by itself and reports the end of each partition.

    Its small prefetch with a short back-off is what measured fastest: the default idles a second at its limit.
    """

    def __init__(self, settings: Settings, client: str, group: str, *, subscribes: bool) -> None:
        config = _common(settings, client) | {
            "group.id": settings.topic(group),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
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

    def fetch(self, limit: int, patience: float) -> list[Consumed]:
        """What is there, up to `limit` messages; when nothing is, what comes within `patience` seconds.

        The client's own consume(n, t) waits for n messages or for the whole of t: so it is asked without waiting.
        """
        there = self._consumer.consume(limit, 0.0)
        if not there and (first := self._consumer.poll(patience)) is not None:
            there = [first, *self._consumer.consume(limit, 0.0)]
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
        self._consumer.seek(TopicPartition(topic, partition, offset))

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, Position]:
        """What the group has committed; a partition without is left out. Waits for offsets of open transactions."""
        try:
            found = self._consumer.committed([TopicPartition(topic, partition) for partition in partitions], 30.0)
        except KafkaException as error:
            raise KafkaUnavailableError(f"committed offsets of {topic}: {_cause(error).str()}") from error
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


# transactions


class Transactions:
    """A transactional producer, one transaction at a time, used by one thread.

    Retriable errors repeat the call for a while. AbortRequiredError asks for `abort`. After KafkaUnavailableError and
    FencedError the client is beyond repair: a new Transactions has to be made.
    """

    def __init__(self, settings: Settings, stage: str, transactional_id: str, timeout_ms: int | None = None) -> None:
        self._stage = stage
        self.open = False
        self._producer = Producer(
            _common(settings, f"{stage}-producer")
            | {
                "transactional.id": settings.topic(transactional_id),
                "transaction.timeout.ms": timeout_ms or settings.transaction_timeout_ms,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "message.timeout.ms": min(timeout_ms or settings.transaction_timeout_ms, int(MESSAGE_S * 1000)),
                # A commit flushes at once, so this delays nothing; what fills a batch is on its way meanwhile.
                "linger.ms": 100,
                "batch.size": 256 * KIB,
                "message.max.bytes": MESSAGE_MAX_BYTES,
                "queue.buffering.max.kbytes": 32 * 1024,
                "queue.buffering.max.messages": 100_000,
            }
        )
        self._produce = self._producer.produce

    def prepare(self, stopping: threading.Event) -> bool:
        """Fence this id's past; waits for Kafka as long as it takes. False when told to stop meanwhile."""
        while not stopping.is_set():
            try:
                self._producer.init_transactions(CALL_S)
            except KafkaException as error:
                cause = _cause(error)
                if cause.fatal():
                    raise FencedError(f"init_transactions: {cause.str()}") from error
                if not cause.retriable():
                    log.warning("waiting for the transaction coordinator", error=cause.str())
                stopping.wait(0.2)
            else:
                return True
        return False

    def begin(self) -> None:
        self._call(self._producer.begin_transaction)
        self.open = True

    def send(self, topic: str, value: bytes | None, key: bytes | None, partition: int, headers: Headers = ()) -> None:
        """Queue one message. A full queue waits: the produce is retried, never the work."""
        self.send_each(topic, ((key, value),), partition, headers)

    def send_each(
        self, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]], partition: int, headers: Headers = ()
    ) -> None:
        """Queue messages, a key and a value each, in order."""
        # without headers a produce takes half the time that it takes with an empty list of them
        named: dict[str, Any] = {"headers": headers} if headers else {}
        produce = self._produce
        for key, value in messages:
            while True:
                try:
                    produce(topic, value, key, partition, **named)
                except BufferError:
                    self._producer.poll(0.05)
                except KafkaException as error:
                    raise self._translated(error) from error
                else:
                    break

    def poll(self) -> None:
        """Serve delivery reports, without waiting."""
        self._producer.poll(0)

    def commit(self, topic: str = "", positions: Mapping[int, Position] = _NOWHERE, group: Any = None) -> None:
        """Commit what was sent, together with these positions of that consumer group in the topic."""
        begun = time.perf_counter()
        if positions:
            offsets = [TopicPartition(topic, partition, *position) for partition, position in positions.items()]
            self._call(self._producer.send_offsets_to_transaction, offsets, group, CALL_S)
        self._call(self._producer.commit_transaction, CALL_S)
        self.open = False
        metrics.TRANSACTIONS.labels(self._stage, "committed").inc()
        metrics.TRANSACTION_DURATION.labels(self._stage).observe(time.perf_counter() - begun)

    def abort(self) -> None:
        """End the open transaction, if any, without effect."""
        if not self.open:
            return
        self._call(self._producer.abort_transaction, CALL_S)
        self.open = False
        metrics.TRANSACTIONS.labels(self._stage, "aborted").inc()

    def discard(self) -> None:
        """Drop the client and what it has queued, without asking the broker. It can't be used after that."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        del self._producer, self._produce

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                function(*arguments)
            except KafkaException as error:
                if _cause(error).retriable() and time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                raise self._translated(error) from error
            else:
                return

    def _translated(self, error: KafkaException) -> SluiceError:
        cause = _cause(error)
        metrics.ERRORS.labels(self._stage, "kafka").inc()
        if cause.fatal():
            metrics.TRANSACTIONS.labels(self._stage, "fenced").inc()
            return FencedError(f"{cause.name()}: {cause.str()}")
        if cause.txn_requires_abort():
            return AbortRequiredError(f"{cause.name()}: {cause.str()}")
        return KafkaUnavailableError(f"{cause.name()}: {cause.str()}")


def _cause(error: KafkaException) -> KafkaError:
    cause: KafkaError = error.args[0]
    return cause


# topics


class Topics:
    """What the cluster knows of our topics."""

    def __init__(self, settings: Settings, client: str) -> None:
        self._settings = settings
        self._admin = AdminClient(_common(settings, f"{client}-admin"))

    def ids(self, names: Sequence[str], patience: float = 10.0) -> dict[str, str]:
        """The first 8 hex digits of each topic's id. Raises KafkaUnavailableError after so many seconds."""
        described = self._describe(names, patience)
        return {
            name: f"{described[name].topic_id.get_most_significant_bits() >> 32 & 0xFFFFFFFF:08x}" for name in names
        }

    def partitions(self, names: Sequence[str], patience: float = 10.0) -> dict[str, int]:
        """How many partitions each topic has."""
        described = self._describe(names, patience)
        return {name: len(described[name].partitions) for name in names}

    def ends(self, places: Sequence[Place], patience: float = 10.0, *, stable: bool = False) -> dict[Place, int]:
        """The end offset of each partition: open transactions included, or `stable`, what a reader gets up to."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the client left it untyped
        return self._offsets(places, latest, patience, stable=stable)

    def starts(self, places: Sequence[Place], patience: float = 10.0) -> dict[Place, int]:
        """The first offset that each partition still holds."""
        return self._offsets(places, OffsetSpec.earliest(), patience)  # type: ignore[no-untyped-call]  # likewise

    def committed(self, group: str, patience: float) -> dict[Place, int]:
        """What a group, by our name of it, has committed, whether anybody is in it or not. Waits for no transaction."""
        name = self._settings.topic(group)
        asked = [ConsumerGroupTopicPartitions(name)]
        found = _answers(
            lambda: self._admin.list_consumer_group_offsets(asked, request_timeout=patience),
            f"offsets of group {name}",
            patience,
        )
        return {(tp.topic, tp.partition): tp.offset for tp in found[name].topic_partitions if tp.offset >= 0}

    def create(self) -> list[str]:
        """Create the topics that are missing, with explicit settings; returns the names of those created."""
        wanted = [
            NewTopic(
                self._settings.topic(spec.name),
                num_partitions=spec.partitions,
                replication_factor=self._settings.replication_factor,
                config=spec.config,
            )
            for spec in specs(self._settings.partitions, self._settings.retention_hours)
        ]
        made: list[str] = []
        for name, future in self._admin.create_topics(wanted, request_timeout=10.0).items():
            try:
                future.result()
                made.append(name)
            except KafkaException as error:
                if _cause(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise KafkaUnavailableError(f"create {name}: {_cause(error).str()}") from error
        return made

    def delete(self, names: Sequence[str]) -> None:
        """Delete these topics, by our names of them."""
        for future in self._admin.delete_topics([self._settings.topic(name) for name in names]).values():
            future.result()

    def reachable(self, timeout: float) -> bool:
        """Whether a broker answers within this many seconds."""
        try:
            self._admin.list_topics(self._settings.topic(specs(1, 1)[0].name), timeout=timeout)
        except KafkaException:
            return False
        return True

    def _describe(self, names: Sequence[str], patience: float) -> dict[str, Any]:
        asked = TopicCollection(list(names))
        return _answers(
            lambda: self._admin.describe_topics(asked, request_timeout=patience), "describe topics", patience
        )

    def _offsets(
        self, places: Sequence[Place], which: OffsetSpec, patience: float, *, stable: bool = False
    ) -> dict[Place, int]:
        if not places:
            return {}
        asked = {TopicPartition(topic, partition): which for topic, partition in places}
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        found = _answers(
            lambda: self._admin.list_offsets(asked, isolation_level=level, request_timeout=patience),
            "list offsets",
            patience,
        )
        return {(tp.topic, tp.partition): info.offset for tp, info in found.items()}


def _answers(ask: Callable[[], Mapping[Any, Any]], what: str, patience: float) -> dict[Any, Any]:
    """The results of an admin call, asked again while a broker says that it will know soon."""
    until = time.monotonic() + patience
    while True:
        try:
            return {key: future.result() for key, future in ask().items()}
        except KafkaException as error:
            cause = _cause(error)
            if cause.code() not in _SOON or time.monotonic() > until:
                raise KafkaUnavailableError(f"{what}: {cause.str()}") from error
            time.sleep(0.05)


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
    reader = Reader(settings, "state-reader", "state-reader", subscribes=False)
    try:
        reader.assign({place: begins.get(place, OFFSET_BEGINNING) for place in behind})
        until = time.monotonic() + READ_S
        while behind:
            if stopping.is_set() or time.monotonic() > until:
                raise KafkaUnavailableError(f"could not read {sorted(behind)} to their end")
            for message in reader.fetch(1_000, 0.1):
                error = message.error()
                if error is None:
                    until = time.monotonic() + READ_S
                    yield message
                elif error.code() == PARTITION_EOF:
                    place = (message.topic(), message.partition())
                    if message.offset() >= behind.get(place, 0):
                        behind.pop(place, None)
                elif error.fatal():
                    raise KafkaUnavailableError(f"reading state: {error.str()}")
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


# the broker's clock


class Clock:
    """Asks for the broker's time, by the only call that tells it: a message to a topic that stamps its own time."""

    def __init__(self, settings: Settings, client: str) -> None:
        self._topic = settings.topic(CLOCK)
        self._producer = Producer(
            _common(settings, f"{client}-clock") | {"linger.ms": 0, "acks": 1, "message.timeout.ms": int(CALL_S * 1000)}
        )

    def skew(self) -> float | None:
        """This machine's clock minus the broker's, in seconds; None where that can't be told.

        Right within half the time that the message took: the quickest of three counts.
        """
        best: tuple[float, float] | None = None
        for _ in range(3):
            told = self._ask()
            if told is None:
                break
            best = min(best or told, told)
            if best[0] < 0.02:
                break
        return best[1] if best else None

    def _ask(self) -> tuple[float, float] | None:
        """How long one message took, and the skew by it."""
        told: list[tuple[float, float]] = []
        asked, begun = time.time(), time.perf_counter()

        def stamped(error: KafkaError | None, message: Any) -> None:
            took = time.perf_counter() - begun
            if error is None and message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME:
                told.append((took, asked + took / 2 - message.timestamp()[1] / 1000))

        try:
            self._producer.produce(self._topic, b"", partition=0, on_delivery=stamped)
        except (KafkaException, BufferError):
            return None
        self._producer.flush(CALL_S)
        return told[0] if told else None


# the watch


class Watch:
    """Knows whether Kafka is reachable: an answer each second, and the client's own alarm the moment it is not."""

    name = "kafka"

    def __init__(self, settings: Settings, service: str) -> None:
        self._gauge = metrics.ACTIVE_CONNECTIONS.labels(service)
        self._gauge.set(0)
        self.reachable = False
        self._stopping = threading.Event()
        self._admin = AdminClient(_common(settings, f"{service}-watch") | {"error_cb": self._alarm})
        self._thread = threading.Thread(target=self._look, name="kafka-watch", daemon=True)

    def start(self, _: Callable[[BaseException], None]) -> None:
        self._thread.start()

    def stop(self, deadline: float) -> bool:
        self._stopping.set()
        self._thread.join(max(0.1, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def problems(self) -> list[str]:
        return [] if self.reachable else ["no broker answers; it is tried again every second"]

    def _alarm(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's local codes have no public names
            self._tell(reachable=False)

    def _look(self) -> None:
        asked = 0.0
        while not self._stopping.wait(0.1):
            self._admin.poll(0)
            if time.monotonic() - asked < 1.0:
                continue
            try:
                found = self._admin.list_topics("-", timeout=1.0)
                self._tell(reachable=True)
                metrics.BROKERS.set(len(found.brokers))
            except KafkaException:
                self._tell(reachable=False)
            asked = time.monotonic()

    def _tell(self, *, reachable: bool) -> None:
        if reachable != self.reachable:
            log.warning("kafka is reachable" if reachable else "kafka is not reachable")
        self.reachable = reachable
        self._gauge.set(int(reachable))
        if not reachable:
            metrics.BROKERS.set(0)


def _create_topics() -> int:
    """Entry point: wait for Kafka, then create what is missing."""
    settings = load(Settings)
    logs.configure("topics", settings.log_level, settings.log_format)
    topics = Topics(settings, "topics")
    deadline = time.monotonic() + 60
    while not topics.reachable(2.0):
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(f"no answer from {settings.kafka_bootstrap} for 60 s; is Kafka running?")
    made = topics.create()
    log.info("topics are there", created=made)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_create_topics())
    except (ConfigurationError, KafkaUnavailableError) as problem:
        sys.stderr.write(f"topics: {problem}\n")
        sys.exit(1)
