"""Any topic of the same Kafka, whoever writes it: its messages onto raw-logs, exactly once.

    topic > messages > transaction(messages, the group's offsets) > raw-logs

The source is a consumer group of its own, so that replicas share the partitions, and each message counts once: its
offset is committed in the transaction that it is in.
"""

import io
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from ingestion.declared import KafkaTopic, key_of
from ingestion.feeds import Feed
from ingestion.session import Session
from shared import kafka, logs, metrics
from shared.config import MIB, Settings
from shared.errors import ConfigurationError, KafkaUnavailableError
from shared.kafka import Headers, Position
from shared.topics import H_CONTENT_TYPE, H_SOURCE, specs

FETCH_S: Final = 0.2
TOGETHER: Final = 8 * MIB  # bytes that share a transaction
TELL_S: Final = 1.0
_OURS: Final = "sluice-"

log = logs.logger("topic")


class TopicFeed(Feed):
    """One declared topic."""

    kind = "kafka"

    def __init__(self, settings: Settings, source: str, declared: KafkaTopic, node: str | None) -> None:
        """Raises ConfigurationError where the topic is one of the chain's own."""
        super().__init__(settings, source, node)
        if declared.topic in {settings.topic(spec.name) for spec in specs(1, 1)}:
            raise ConfigurationError(
                f"{settings.sources_file}: sources.{source}.topic: {declared.topic} is a topic of the chain itself: "
                "what it read it would write again, without end"
            )
        self._declared = declared
        self._topic = declared.topic
        self._reader: kafka.Reader | None = None
        self._topics: kafka.Topics | None = None
        self._topic_id = ""
        self._next: dict[int, int] = {}  # of the partitions that it has: the offset that comes next
        self._moved: dict[int, int] = {}  # offsets to be committed
        self._stopping = threading.Event()
        self._wrong = ""
        self._tell_at = 0.0
        self._tombstones = 0
        self._shown: dict[str, Any] = {}
        metrics.DECLARED_BEHIND_MESSAGES.labels(source)

    def shown(self) -> dict[str, Any]:
        return {"topic": self._topic, "group": self._group, **self._shown}

    @property
    def _group(self) -> str:
        return self._settings.topic(f"ingestion-source-{self.source}")

    # the thread

    def begin(self, session: Session, stopping: threading.Event) -> None:  # noqa: ARG002 - the group has its places
        self._stopping = stopping
        self._topics = kafka.Topics(self._settings, self.name)
        self._topic_id = self._topics.ids([self._topic])[self._topic]
        self._reader = kafka.Reader(self._settings, self.name, f"ingestion-source-{self.source}", subscribes=True)
        self._reader.subscribe(self._topic, self._assigned, self._given_up, self._given_up)

    def turn(self, session: Session) -> float:
        assert self._reader is not None
        entries = size = 0
        until = time.monotonic() + FETCH_S
        while size < TOGETHER and (time.monotonic() < until or not entries):
            found = self._reader.fetch(self._settings.fetch_records, FETCH_S)
            for message in found:
                if self._is_new(message):
                    sent = self._send(session, message)
                    entries, size = entries + (sent is not None), size + (sent or 0)
            if not found:
                break
        if self._moved:
            positions = {partition: Position(offset, self._topic_id) for partition, offset in self._moved.items()}
            session.commit(self._topic, positions, self._reader.group())
            self._moved.clear()
        self.sent(entries, size)
        self._tell()
        return 0.0

    def end(self) -> None:
        """Leave the group; what was not committed is read again by whoever comes next."""
        self._moved.clear()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        self._next.clear()

    # messages

    def _is_new(self, message: kafka.Consumed) -> bool:
        """Whether it is the next of a partition that is ours: a fetch may give some of one that it gave up since."""
        error = message.error()
        if error is not None:
            if error.fatal() or error.code() == kafka.OUT_OF_RANGE:  # begun anew, it is told from where it goes on
                raise KafkaUnavailableError(f"reading {self._topic}: {error.str()}")
            if error.code() != kafka.PARTITION_EOF:
                self._wrong = f"{self._topic}: {error.str()}"
            return False
        return self._next.get(message.partition(), message.offset() + 1) <= message.offset()

    def _send(self, session: Session, message: kafka.Consumed) -> int | None:
        """Send a message; returns its bytes, or None of a tombstone, which is no entry."""
        self._next[message.partition()] = self._moved[message.partition()] = message.offset() + 1
        value = message.value()
        if value is None:
            self._tombstones += 1
            return None
        key = message.key() if self._declared.key == "message" else key_of(self._declared.key, self.source, "")
        headers = self._headers(message.headers() or ())
        if len(value) > self._settings.chunk_bytes:
            session.send_large(io.BytesIO(value), len(value), key, headers)
        else:
            session.send([value], key, headers, 1)
        return len(value)

    def _headers(self, theirs: Headers) -> Headers:
        """Theirs, and ours; what looks like ours and is theirs would say what is not so here."""
        own = self._declared.content_type
        kept = [
            header
            for header in theirs
            if not header[0].startswith(_OURS) and not (own is not None and header[0] == H_CONTENT_TYPE)
        ]
        made: list[tuple[str, bytes | None]] = [(H_SOURCE, self.source.encode())]
        if own is not None:
            made.append((H_CONTENT_TYPE, own.encode()))
        return [*made, *kept]

    # partitions, called within a fetch

    def _assigned(self, partitions: list[int]) -> Mapping[int, int]:
        if not partitions:
            return {}
        assert self._reader is not None
        assert self._topics is not None
        places = [(self._topic, partition) for partition in partitions]
        starts = self._topics.starts(places)
        count = self._topics.partitions([self._topic])[self._topic]
        committed = self._reader.committed(self._topic, list(range(count)), self._stopping)
        skips = self._declared.start == "end" and not committed
        ends = self._topics.ends(places, stable=True) if skips else {}
        for partition in partitions:
            known = committed.get(partition)
            start = starts[self._topic, partition]
            if known is None:
                self._next[partition] = ends.get((self._topic, partition), start)
            elif known.metadata and known.metadata != self._topic_id:
                log.warning("topic was made anew, beginning at its start", topic=self._topic, partition=partition)
                self._next[partition] = start
            else:
                self._next[partition] = max(known.offset, start)
                if known.offset < start:
                    metrics.ERRORS.labels("ingestion", "retention").inc()
                    log.error("retention removed what was not read yet", topic=self._topic, partition=partition,
                              from_offset=known.offset, to_offset=start)  # fmt: skip
            if skips:  # so that the next start is no first one
                self._moved[partition] = self._next[partition]
        log.info("partitions assigned", source=self.source, partitions=sorted(self._next))
        return {partition: self._next[partition] for partition in partitions}

    def _given_up(self, partitions: list[int]) -> None:
        """What was read of them in this fetch is in no transaction that will commit: it begins anew."""
        lost = self._moved.keys() & set(partitions)
        for partition in partitions:
            self._next.pop(partition, None)
        if lost:
            raise KafkaUnavailableError(f"partitions {sorted(lost)} went to another reader in mid transaction")

    def _tell(self) -> None:
        if time.monotonic() < self._tell_at or self._reader is None:
            return
        self._tell_at = time.monotonic() + TELL_S
        self._faults = [self._wrong] if self._wrong else []
        self._wrong = ""
        ends = {partition: self._reader.end(self._topic, partition) for partition in self._next}
        behind = {partition: max(0, ends[partition] - at) for partition, at in self._next.items()}
        self._shown = {
            "partitions": {str(partition): at for partition, at in sorted(self._next.items())},
            "behind": sum(behind.values()),
            "tombstones": self._tombstones,
        }
        metrics.DECLARED_BEHIND_MESSAGES.labels(self.source).set(sum(behind.values()))
