"""The sink's own dead letters: of chunked messages that can't be put together, of lines that the store refuses."""

import io
import threading
import uuid
from collections.abc import Hashable, Iterable, Mapping

from processing.rows import letter_of
from processing.store import InvalidLine
from shared import kafka, metrics
from shared.chunking import Poisoned
from shared.config import Settings
from shared.errors import SluiceError
from shared.reading import poisoned_letter
from shared.records import DeadLetter, fitted
from shared.topics import DEAD_LETTERS, partition_of


class StoppedError(SluiceError):
    """Told to stop in the middle of what the ledger will have done again."""


class Burial:
    """Sends dead letters, each in its own right once, however often the batch that it comes from fails.

    `buried` is what has its letter already; it outlives sessions, and its owner clears it when a batch is closed.
    After a crash letters may be sent again: receipts count origins, not letters.
    """

    def __init__(
        self, settings: Settings, stage: str, topics: kafka.Topics, buried: set[Hashable], stopping: threading.Event
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._topics = topics
        self._buried = buried
        self._stopping = stopping

    def of_messages(self, topic: str, topic_id: str, poisoned: Iterable[Poisoned]) -> None:
        self._bury(
            {
                (topic_id, found.partition, found.offset, found.message_id, found.attempt): poisoned_letter(
                    found, self._stage, topic, topic_id
                )
                for found in poisoned
            }
        )

    def of_lines(self, token: str, invalid: Iterable[InvalidLine]) -> None:
        """Of lines of the batch with this token: repeated, it has the same lines in the same places."""
        self._bury(
            {
                (token, line.table, line.element, line.line): letter_of(
                    line.table, line.value, line.detail, self._stage, f"{token}/{line.table}/{line.element}/{line.line}"
                )
                for line in invalid
            }
        )

    def _bury(self, letters: Mapping[Hashable, DeadLetter]) -> None:
        """Send those that are new in one transaction. Raises StoppedError, with none sent, when told to stop."""
        new = {of: letter for of, letter in letters.items() if of not in self._buried}
        if not new:
            return
        topic, chunk_bytes = self._settings.topic(DEAD_LETTERS), self._settings.chunk_bytes
        count = self._topics.partitions([topic])[topic]
        writer = kafka.Transactions(self._settings, self._stage, f"{self._stage}-{uuid.uuid4().hex[:12]}")
        try:
            if not writer.prepare(self._stopping):
                raise StoppedError(f"writing {len(new)} dead letters")
            writer.begin()
            for letter in map(fitted, new.values()):
                key, size = letter.record_id.encode(), len(letter.value)
                partition, headers = partition_of(key, count), letter.to_headers()
                if size <= chunk_bytes:
                    writer.send(topic, letter.value, key, partition, headers)
                else:
                    writer.send_in_chunks(topic, io.BytesIO(letter.value), size, chunk_bytes, key, partition, headers)
            writer.commit()
        finally:
            writer.discard()
        self._buried.update(new)
        for letter in new.values():
            metrics.DEAD_LETTERS.labels(self._stage, letter.reason).inc()
