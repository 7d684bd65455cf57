"""The topics of the chain, the headers on them, and how a key finds its partition."""

import json
from dataclasses import dataclass, field
from typing import Final

RAW_LOGS: Final = "raw-logs"
STANDARDIZED_LOGS: Final = "standardized-logs"
PROCESSED_METRICS: Final = "processed-metrics"
DEAD_LETTERS: Final = "dead-letters"
DEAD_LETTER_EVENTS: Final = "dead-letter-events"
INGEST_RUNS: Final = "ingest-runs"
INGESTION_STATE: Final = "ingestion-state"
STANDARDIZATION_STATE: Final = "standardization-state"
PROCESSING_STATE: Final = "processing-state"
CLOCK: Final = "clock"

TEMPLATE_KEYS: Final = b"template/"  # of standardization-state: a template, by its id
TALLY_KEYS: Final = b"template-tally/"  # likewise: how often it was seen
STATE_TOPICS: Final = (STANDARDIZATION_STATE, PROCESSING_STATE)
CHAIN: Final = (*STATE_TOPICS, INGEST_RUNS, DEAD_LETTERS, PROCESSED_METRICS, STANDARDIZED_LOGS, RAW_LOGS)
"""Every topic that has as many partitions as the chain. State first, raw-logs last: the order in which they grow."""

GROUPS: Final = {
    "standardization": (RAW_LOGS,),
    "processing": (STANDARDIZED_LOGS,),
    "sink": (PROCESSED_METRICS, DEAD_LETTERS, DEAD_LETTER_EVENTS, INGEST_RUNS),
}
"""Every consumer group of the chain, and what it reads. The sink resumes from its ledger, but tells Kafka, too."""

H_SOURCE: Final = "sluice-source"  # raw-logs: the declared source, UTF-8
H_RUN: Final = "sluice-run"  # the ingest run's id
H_PUSH: Final = "sluice-push"  # "<run id>:<random attempt>", on a push with an Idempotency-Key
BRIEFLY: Final = "~"  # before the attempt: the push is known by its content, and only for as long as clients retry
H_ORIGIN: Final = "sluice-origin"  # the first record_id, on a replay
H_CHUNK: Final = "sluice-chunk"
H_KIND: Final = "sluice-kind"  # processed-metrics: record, window or anomaly
H_LINE: Final = "sluice-line"  # on a dead letter of the sink: the batch, table and place that its line had
H_CONTENT_TYPE: Final = "content-type"
NDJSON: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is created: never by auto-creation, so that every setting is a decision."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def specs(partitions: int, retention_hours: int) -> list[TopicSpec]:
    """Every topic of the stack. State topics share the chain's partitioning: partition n's state is partition n's.
    Ingestion's is no partition's: it holds the places of streams.

    The clock is no part of the chain: services write to it to be told the broker's time.
    """
    flow = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_hours * 3_600_000),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(10 * 1024 * 1024),
        "compression.type": "producer",
    }
    state = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        # a restart reads it all: what is superseded goes within minutes
        "segment.ms": str(10 * 60_000),
        "segment.bytes": str(16 * 1024 * 1024),
        "max.compaction.lag.ms": str(10 * 60_000),
        # Kafka refuses what a clock that is over an hour ahead has stamped
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(10 * 1024 * 1024),
    }
    # What was done with a dead letter has to be known for as long as the letter is there, in its oldest segment.
    events = flow | {"retention.ms": str((2 * retention_hours + 90 * 24) * 3_600_000)}
    clock = {
        "cleanup.policy": "delete",
        "retention.ms": str(10 * 60_000),
        "segment.ms": str(10 * 60_000),
        "message.timestamp.type": "LogAppendTime",
    }
    return [
        TopicSpec(RAW_LOGS, partitions, flow),
        TopicSpec(STANDARDIZED_LOGS, partitions, flow),
        TopicSpec(PROCESSED_METRICS, partitions, flow),
        TopicSpec(DEAD_LETTERS, partitions, flow),
        TopicSpec(DEAD_LETTER_EVENTS, partitions, events),
        TopicSpec(INGEST_RUNS, partitions, flow),
        TopicSpec(INGESTION_STATE, 1, state),
        TopicSpec(STANDARDIZATION_STATE, partitions, state),
        TopicSpec(PROCESSING_STATE, partitions, state),
        TopicSpec(CLOCK, 1, clock),
    ]


def series_key(service_name: str, event_name: str) -> bytes:
    """The key of a series: all state of one source's one operation lives on one partition."""
    return f"{service_name}/{event_name}".encode()


def key_of_state(topic: str, key: bytes) -> bytes | None:
    """The key whose partition a piece of state belongs to: of a series for processing, of a push for standardization.

    None where it belongs to the partition it is on: templates were learned from all that came on theirs. Raises
    ValueError where `key` is none of that topic's.
    """
    if topic == STANDARDIZATION_STATE:
        if key.startswith((TEMPLATE_KEYS, TALLY_KEYS)):
            return None
        return key  # the run's id, which is the key of its messages
    service_name, event_name = json.loads(key)
    return series_key(service_name, event_name)


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit murmur2 (seed 0x9747b28c), as org.apache.kafka.common.utils.Utils computes it, unsigned."""
    m = 0x5BD1E995
    length = len(key)
    h = 0x9747B28C ^ length
    tail = length & ~3
    for i in range(0, tail, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if tail < length:
        h = (h ^ int.from_bytes(key[tail:], "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that a Java client would choose for this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
