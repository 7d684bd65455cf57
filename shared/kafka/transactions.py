"""Writing: a transactional producer with its three kinds of errors."""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, Final

from confluent_kafka import KafkaException, Producer, TopicPartition

from shared import metrics
from shared.chunking import split
from shared.config import KIB, MIB, Settings
from shared.errors import FencedError, KafkaUnavailableError, SluiceError
from shared.kafka.client import CALL_S, AbortRequiredError, Headers, Position, cause_of, common, log
from shared.topics import H_CHUNK

MESSAGE_MAX_BYTES: Final = 10 * MIB
PATIENCE_S: Final = 6.0  # when a call was repeated for so long, a new client is back sooner than the old one
MESSAGE_S: Final = 30.0  # the longest that a message may wait for a broker

_NOWHERE: Final[dict[int, Position]] = {}


class Transactions:
    """A transactional producer, one transaction at a time, used by one thread.

    Retriable errors repeat the call for a while. AbortRequiredError asks for `abort`. After KafkaUnavailableError and
    FencedError the client is beyond repair: a new Transactions has to be made.
    """

    def __init__(self, settings: Settings, stage: str, transactional_id: str, timeout_ms: int | None = None) -> None:
        self._stage = stage
        self.open = False
        self._producer = Producer(
            common(settings, f"{stage}-producer")
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
                cause = cause_of(error)
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

    def send_in_chunks(
        self,
        topic: str,
        source: BinaryIO,
        size: int,
        chunk_bytes: int,
        key: bytes | None,
        partition: int,
        headers: Headers = (),
    ) -> int:
        """Queue one message of `size` bytes, which is over `chunk_bytes`, in chunks; returns how many."""
        count = 0
        for header, piece in split(source, size, chunk_bytes, uuid.uuid4().bytes, 1):
            own = headers if count == 0 else ()
            self.send(topic, piece, key, partition, [(H_CHUNK, header), *own])
            count += 1
        return count

    def poll(self) -> None:
        """Serve delivery reports, without waiting."""
        self._producer.poll(0)

    def commit(self, topic: str = "", positions: Mapping[int, Position] = _NOWHERE, group: Any = None) -> None:
        """Commit what was sent, together with these positions of that consumer group in the topic."""
        begun = time.perf_counter()
        if positions:
            offsets = [TopicPartition(topic, partition, *position) for partition, position in positions.items()]
            self._call(self._send_offsets, offsets, group)
        try:
            self._call(self._producer.commit_transaction, CALL_S)
        except KafkaUnavailableError:
            # asked for, and never answered: committed or not, the committed offsets tell the client that comes next
            metrics.TRANSACTIONS.labels(self._stage, "unknown").inc()
            raise
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

    def _send_offsets(self, offsets: list[TopicPartition], group: Any) -> None:
        """Raises KafkaUnavailableError where the client does not answer: it forgets its own time-out, and may wait for
        ever, when the group's coordinator is gone (https://github.com/confluentinc/librdkafka/issues/5456, 5511).

        The thread that waits is left behind with its client. Should it go on, the broker refuses it: the transaction
        is ended by whoever takes the transactional id next.
        """
        answers: SimpleQueue[Exception | None] = SimpleQueue()
        send = self._producer.send_offsets_to_transaction

        def ask() -> None:
            try:
                send(offsets, group, CALL_S)
            except Exception as error:  # noqa: BLE001 - raised below, in the thread that waits for it
                answers.put(error)
            else:
                answers.put(None)

        threading.Thread(target=ask, name="offsets", daemon=True).start()
        try:
            error = answers.get(timeout=PATIENCE_S)
        except Empty:
            metrics.ERRORS.labels(self._stage, "kafka").inc()
            raise KafkaUnavailableError(f"offsets: no answer from the client within {PATIENCE_S:.0f} s") from None
        if error is not None:
            raise error

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                function(*arguments)
            except KafkaException as error:
                if cause_of(error).retriable() and time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                raise self._translated(error) from error
            else:
                return

    def _translated(self, error: KafkaException) -> SluiceError:
        cause = cause_of(error)
        metrics.ERRORS.labels(self._stage, "kafka").inc()
        if cause.fatal():
            metrics.TRANSACTIONS.labels(self._stage, "fenced").inc()
            return FencedError(f"{cause.name()}: {cause.str()}")
        if cause.txn_requires_abort():
            return AbortRequiredError(f"{cause.name()}: {cause.str()}")
        return KafkaUnavailableError(f"{cause.name()}: {cause.str()}")
