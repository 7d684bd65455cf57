"""The broker's clock."""

import time
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer

from shared.config import Settings
from shared.kafka.client import CALL_S, common
from shared.topics import CLOCK


class Clock:
    """Asks for the broker's time, by the only call that tells it: a message to a topic that stamps its own time."""

    def __init__(self, settings: Settings, client: str) -> None:
        self._topic = settings.topic(CLOCK)
        self._producer = Producer(
            common(settings, f"{client}-clock") | {"linger.ms": 0, "acks": 1, "message.timeout.ms": int(CALL_S * 1000)}
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
