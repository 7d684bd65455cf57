"""FastStream on confluent-kafka, in batches: a batch is committed when all of its records are delivered.

Its plain handler, one message at a time, waits for the broker with each record that it publishes.
"""

import asyncio
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage, KafkaPublishMessage

from benchmarks.peers.job import Job, Mapping

_BATCH = 500  # messages


def main() -> None:
    job = Job.told()
    broker = KafkaBroker(job.bootstrap, compression_type="lz4", graceful_timeout=5)
    publisher = broker.publisher(job.standardized, batch=True)
    mapping = Mapping()

    @broker.subscriber(
        job.raw,
        group_id=job.group,
        auto_offset_reset="earliest",
        batch=True,
        max_records=_BATCH,
        ack_policy=AckPolicy.ACK,
        decoder=_undecoded,
    )
    async def standardize(message: KafkaMessage) -> None:
        records = [
            mapping.record(raw.value(), raw.partition(), raw.offset(), raw.timestamp()[1], raw.headers())
            for raw in message.raw_message
        ]
        await publisher.publish(*[KafkaPublishMessage(line, key=key) for key, line in records])

    asyncio.run(FastStream(broker, logger=None).run())


async def _undecoded(message: KafkaMessage) -> Any:
    return message.body


if __name__ == "__main__":
    main()
