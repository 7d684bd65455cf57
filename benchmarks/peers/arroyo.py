"""sentry-arroyo: map, produce, and commit once a second what was delivered."""

import signal
from collections.abc import Mapping as Partitions
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.configuration import build_kafka_configuration, build_kafka_consumer_configuration
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategyFactory, RunTask
from arroyo.processing.strategies.produce import Produce
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic

from benchmarks.peers.job import PRODUCER, Job, Mapping


class _Standardization(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, producer: KafkaProducer, standardized: Topic) -> None:
        self._mapping = Mapping()
        self._producer = producer
        self._standardized = standardized

    def create_with_partitions(self, commit: Commit, _: Partitions[Partition, int]) -> Any:
        return RunTask(self._standardize, Produce(self._producer, self._standardized, CommitOffsets(commit)))

    def _standardize(self, message: Message[KafkaPayload]) -> KafkaPayload:
        payload, read = message.payload, message.value
        assert isinstance(read, BrokerValue)
        milliseconds = round(read.timestamp.timestamp() * 1000)
        key, line = self._mapping.record(
            payload.value, read.partition.index, read.offset, milliseconds, payload.headers
        )
        return KafkaPayload(key, line, [])


def main() -> None:
    job = Job.told()
    consumer = KafkaConsumer(
        build_kafka_consumer_configuration(
            {}, bootstrap_servers=[job.bootstrap], group_id=job.group, auto_offset_reset="earliest"
        )
    )
    producer = KafkaProducer(build_kafka_configuration({}, bootstrap_servers=[job.bootstrap], override_params=PRODUCER))
    factory = _Standardization(producer, Topic(job.standardized))
    processor = StreamProcessor(consumer, Topic(job.raw), factory, ONCE_PER_SECOND)
    signal.signal(signal.SIGTERM, lambda *_: processor.signal_shutdown())
    processor.run()


if __name__ == "__main__":
    main()
