"""The one door to Kafka: reading, transactions with their three kinds of errors, topics, and a watch on the broker."""

from shared.kafka.client import (
    OUT_OF_RANGE,
    PARTITION_EOF,
    TRANSIENT,
    AbortRequiredError,
    ClientError,
    Consumed,
    Headers,
    Place,
    Position,
)
from shared.kafka.clock import Clock
from shared.kafka.log_dirs import topic_bytes
from shared.kafka.reader import First, Reader, first_messages, read_to_end
from shared.kafka.topics import Topics
from shared.kafka.transactions import Transactions
from shared.kafka.watch import Watch

__all__ = [
    "OUT_OF_RANGE",
    "PARTITION_EOF",
    "TRANSIENT",
    "AbortRequiredError",
    "ClientError",
    "Clock",
    "Consumed",
    "First",
    "Headers",
    "Place",
    "Position",
    "Reader",
    "Topics",
    "Transactions",
    "Watch",
    "first_messages",
    "read_to_end",
    "topic_bytes",
]
