"""What all clients of Kafka share: their configuration, the words of their interface, and errors by their kind."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException

from shared import logs
from shared.config import Settings
from shared.errors import SluiceError

Headers = Sequence[tuple[str, bytes | None]]
Place = tuple[str, int]
"""A topic, by its name in Kafka, and one of its partitions."""

ClientError = KafkaError
PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's local codes have no public names
OUT_OF_RANGE: Final = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - likewise
TRANSIENT: Final = {  # the client mends these by itself
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - likewise
    KafkaError._TRANSPORT,  # noqa: SLF001 - likewise
    KafkaError._TIMED_OUT,  # noqa: SLF001 - likewise
    KafkaError._RESOLVE,  # noqa: SLF001 - likewise
}
CALL_S: Final = 2.0  # the longest that one call waits

log = logs.logger("kafka")


class AbortRequiredError(SluiceError):
    """The open transaction can't be committed; abort it and begin again from what is committed."""


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


def common(settings: Settings, client: str) -> dict[str, Any]:
    """The configuration that every client begins with."""
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


def cause_of(error: KafkaException) -> KafkaError:
    """The error that an exception of the client carries."""
    cause: KafkaError = error.args[0]
    return cause
