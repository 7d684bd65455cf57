"""What a loop knows of the partitions that it reads: how far it is, which are at their end, what is in pieces."""

import time
from collections import Counter
from typing import Final

from shared import kafka, logs, metrics
from shared.chunking import Assembler, Headers, Poisoned, Watermark, Whole
from shared.errors import FencedError, KafkaUnavailableError
from shared.records import DeadLetter
from shared.topics import H_ORIGIN, H_RUN

_ENDS: Final = ("complete", "poisoned", "dropped")
_NAME_MAX: Final = 1_024  # bytes of a header that names a run or an origin; a longer one is a foreign producer's

log = logs.logger("reading")


class Reading:
    """The partitions of one topic that are being read, from `begin` to `release`; for one thread.

    A loop tells it of every message by `note`. One that is too hot for a call a message may do by itself what `note`
    does, and tell of a run of them by `noted`: so `next`, `delivered` and `at_end` are open.
    """

    def __init__(self, stage: str, topic: str, full_name: str, reader: kafka.Reader, assembler: Assembler) -> None:
        """`topic` is our name of it, `full_name` Kafka's."""
        self.assembler = assembler
        self.next: dict[int, int] = {}  # what was read: the offset that comes next
        self.delivered: dict[int, int] = {}  # plain messages below this were delivered before
        self.last_ms: dict[int, int] = {}  # the timestamp of the last message read
        self.at_end: dict[int, float] = {}  # since when (time.monotonic()) nothing more was there
        self._stage = stage
        self._topic = topic
        self._full_name = full_name
        self._reader = reader
        self._counted: Counter[str] = Counter()  # ended chunked messages that are counted, by result

    def begin(self, partition: int, offset: int, watermark: Watermark) -> None:
        """Read this partition, from now on or again, from where its last reader committed."""
        self.next[partition] = offset
        self.delivered[partition] = watermark.offset
        self.at_end.pop(partition, None)
        self.assembler.drop(partition)
        self.assembler.restore(partition, watermark)

    def release(self, partition: int) -> None:
        for known in (self.next, self.delivered, self.last_ms, self.at_end):
            known.pop(partition, None)
        self.assembler.drop(partition)

    # messages

    def note(self, message: kafka.Consumed) -> bool:
        """Note that a message was read; returns whether it was before: then it is passed over, unless it is a chunk."""
        partition, offset = message.partition(), message.offset()
        if offset < self.next[partition]:
            self.went_back(partition)
        self.next[partition] = offset + 1
        self.last_ms[partition] = message.timestamp()[1]
        self.at_end.pop(partition, None)
        return offset < self.delivered[partition]

    def noted(self, partition: int, following: int, last_ms: int) -> None:
        """Note a run of messages: the offset after the last one, and its timestamp. None of a partition below 0."""
        if partition >= 0:
            self.next[partition], self.last_ms[partition] = following, last_ms

    def went_back(self, partition: int) -> int:
        """Note that messages come again: for a chunked one that was sought, or since the client was given the
        partition anew between the messages of one fetch. Returns what is passed over: all below this offset."""
        self.delivered[partition] = found = self.furthest(partition)
        return found

    def feed(self, message: kafka.Consumed, headers: Headers) -> list[Whole | Poisoned]:
        """Take a chunk; returns what it ended."""
        return self.assembler.feed(
            message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(), headers
        )

    def ended(self, partition: int) -> None:
        """Note that a partition has nothing more for now."""
        self.at_end.setdefault(partition, time.monotonic())

    # chunked messages

    def refetch(self) -> bool:
        """Go back for messages that the spool had no room for; returns whether there was anything to go back for."""
        found = False
        for partition, following in self.next.items():
            wanted = self.assembler.refetch(partition, following)
            if wanted is not None:
                found = True
                self.went_back(partition)
                self.at_end.pop(partition, None)
                self._reader.seek(self._full_name, partition, wanted.offset)
        return found

    def expire(self, now: float) -> list[Poisoned]:
        """End chunked messages whose rest never came; `now` is time.monotonic()."""
        expired: list[Poisoned] = []
        for partition, last_ms in self.last_ms.items():
            since = self.at_end.get(partition)
            idle_ms = None if since is None else int((now - since) * 1000)
            expired += self.assembler.expire(partition, last_ms, idle_ms)
        return expired

    # positions

    def furthest(self, partition: int) -> int:
        """The offset up to which all was read, though the partition may be at an earlier one again."""
        return max(self.next[partition], self.delivered[partition])

    def whole_until(self, partition: int) -> int:
        """The offset up to which all was read, and no chunked message is open."""
        return self.assembler.safe_offset(partition, self.furthest(partition))

    def place(self, partition: int) -> tuple[int, Watermark]:
        """What to commit, for the next reader to begin with."""
        return (
            self.assembler.safe_offset(partition, self.next[partition]),
            self.assembler.watermark(partition, self.furthest(partition)),
        )

    # measures

    def measure(self) -> int:
        """Measure the lag, and count the chunked messages that ended; returns by how many messages it is behind."""
        behind = 0
        oldest = 0.0
        for partition, following in self.next.items():
            if partition in self.at_end:
                continue
            end = self._reader.end(self._full_name, partition)
            if end > following:
                behind += end - following
                if partition in self.last_ms:
                    oldest = max(oldest, time.time() - self.last_ms[partition] / 1000)
        metrics.LAG_RECORDS.labels(self._stage, self._topic).set(behind)
        metrics.LAG_SECONDS.labels(self._stage, self._topic).set(oldest)
        for result in _ENDS:
            total = getattr(self.assembler, result)
            metrics.CHUNK_ASSEMBLIES.labels(self._stage, result).inc(total - self._counted[result])
            self._counted[result] = total
        return behind


def is_end(error: kafka.ClientError, stage: str) -> bool:
    """Whether this is the end of a partition. Others are counted, unless the client mends them by itself.

    Raises FencedError where the client is beyond repair, and KafkaUnavailableError where a partition has nothing at
    the place that it was to be read from.
    """
    if error.code() == kafka.PARTITION_EOF:
        return True
    if error.code() == kafka.OUT_OF_RANGE:
        raise KafkaUnavailableError(f"consumer: {error.str()}")
    if error.fatal():
        raise FencedError(f"consumer: {error.str()}")
    if error.code() not in kafka.TRANSIENT:
        metrics.ERRORS.labels(stage, "kafka").inc()
        log.warning("consumer error", stage=stage, error=error.str())
    return False


def poisoned_letter(found: Poisoned, stage: str, topic: str, topic_id: str) -> DeadLetter:
    """The dead letter of a chunked message that can't be put together; of its run, where chunk 0 names it."""
    named = {name: value.decode(errors="replace") for name, value in found.headers if value and len(value) <= _NAME_MAX}
    return DeadLetter.of(
        found,
        f"{topic_id}-{found.partition}-{found.offset}-0",
        stage=stage,
        topic=topic,
        reason=found.reason,
        detail=found.detail,
        value=found.value,
        run_id=named.get(H_RUN),
        origin=named.get(H_ORIGIN),
    )
