"""A watch on the broker."""

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from shared import metrics
from shared.config import Settings
from shared.errors import ConfigurationError, KafkaUnavailableError
from shared.kafka.client import common, log
from shared.kafka.topics import Topics


class Watch:
    """Knows whether Kafka is reachable: an answer each second, and the client's own alarm the moment it is not.

    It ends the service when the topics don't have as many partitions as PARTITIONS says.
    """

    name = "kafka"

    def __init__(self, settings: Settings, service: str) -> None:
        self._gauge = metrics.ACTIVE_CONNECTIONS.labels(service)
        self._gauge.set(0)
        self.reachable = False
        self._stopping = threading.Event()
        self._admin = AdminClient(common(settings, f"{service}-watch") | {"error_cb": self._alarm})
        self._topics = Topics(settings, f"{service}-watch")
        self._thread = threading.Thread()

    def start(self, failed: Callable[[BaseException], None]) -> None:
        self._thread = threading.Thread(target=self._look, args=(failed,), name="kafka-watch", daemon=True)
        self._thread.start()

    def stop(self, deadline: float) -> bool:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(max(0.1, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def problems(self) -> list[str]:
        return [] if self.reachable else ["no broker answers; it is tried again every second"]

    def _alarm(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's local codes have no public names
            self._tell(reachable=False)

    def _look(self, failed: Callable[[BaseException], None]) -> None:
        asked = 0.0
        while not self._stopping.wait(0.1):
            self._admin.poll(0)
            if time.monotonic() - asked < 1.0:
                continue
            try:
                found = self._admin.list_topics("-", timeout=1.0)
                self._tell(reachable=True)
                metrics.BROKERS.set(len(found.brokers))
                self._topics.check(1.0)
            except KafkaException:
                self._tell(reachable=False)
            except KafkaUnavailableError:
                pass  # the topics are not there, or not all of the cluster
            except ConfigurationError as error:
                failed(error)
                return
            asked = time.monotonic()

    def _tell(self, *, reachable: bool) -> None:
        if reachable != self.reachable:
            log.warning("kafka is reachable" if reachable else "kafka is not reachable")
        self.reachable = reachable
        self._gauge.set(int(reachable))
        if not reachable:
            metrics.BROKERS.set(0)
