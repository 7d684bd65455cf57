"""A stage at work in a thread of a test, and what its topics hold."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared import kafka
from shared.chunking import Assembler, Whole
from shared.config import Settings
from shared.errors import ConfigurationError
from shared.spool import Spool
from shared.stage import Stage, Transform
from shared.topics import H_CHUNK, RAW_LOGS, STANDARDIZATION_STATE, STANDARDIZED_LOGS

GIB = 1024 * 1024 * 1024

Sent = tuple[int, bytes | None, bytes, list[tuple[str, bytes | None]]]
"""Partition, key, value and headers of a message as its producer meant it."""


@contextmanager
def running(
    settings: Settings, transform: Transform, instance: str = "one", quota: int | None = None
) -> Iterator[tuple[Stage, list[BaseException]]]:
    """A stage from raw-logs to standardized-logs; what it failed with is in the list. Its spool is empty afterwards."""
    spool = Spool(settings.data_dir / f"spool-{instance}", quota or settings.spool_max_bytes)
    stage = Stage(
        "standardization", settings, RAW_LOGS, [STANDARDIZED_LOGS], STANDARDIZATION_STATE, transform, instance, spool
    )
    stopping = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            stage.run(stopping)
        except (OSError, ConfigurationError) as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stage, failures
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()
    assert spool.used == 0
    assert list(spool.folder.iterdir()) == []


def read(settings: Settings, topic: str) -> list[kafka.Consumed]:
    """All that is committed in a topic."""
    places = [(settings.topic(topic), partition) for partition in range(settings.partitions)]
    topics = kafka.Topics(settings, "test")
    return list(kafka.read_to_end(settings, topics, places, threading.Event()))


def messages_in(settings: Settings, topic: str) -> list[Sent]:
    """All that is committed in a topic, chunked messages put together."""
    assembler = Assembler(Spool(settings.data_dir / "reading", GIB), settings.entry_max_bytes)
    found: list[Sent] = []
    for message in read(settings, topic):
        headers = message.headers() or []
        if not any(name == H_CHUNK for name, _ in headers):
            found.append((message.partition(), message.key(), message.value() or b"", list(headers)))
            continue
        place = message.partition(), message.offset(), message.timestamp()[1]
        for whole in assembler.feed(*place, message.key(), message.value(), headers):
            assert isinstance(whole, Whole), whole
            with whole.payload.open() as stream:
                found.append((whole.partition, whole.key, stream.read(), list(whole.headers)))
            whole.payload.release()
    assert assembler.open == 0
    return found
