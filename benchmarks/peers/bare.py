"""The ceiling: consume, produce and commit in transactions, by confluent-kafka alone; no work is done on a message.

It runs in our own environment. Transactions are as large as the stage's.
"""

import time

from confluent_kafka import Consumer, Producer

from benchmarks.peers.job import PRODUCER, Job

RECORDS, SECONDS = 20_000, 0.2  # of a transaction


def main() -> None:
    job = Job.told()
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": job.bootstrap,
            "transactional.id": job.group,
            "queue.buffering.max.messages": 2 * RECORDS,
        }
        | PRODUCER
    )
    producer.init_transactions()
    consumer.subscribe([job.raw])
    while True:
        messages = consumer.consume(RECORDS, SECONDS)
        begun = time.monotonic()
        if not messages:
            continue
        producer.begin_transaction()
        count = 0
        while messages:
            for message in messages:
                partition = message.partition()
                assert partition is not None
                producer.produce(job.standardized, message.value(), message.key(), partition)
            producer.poll(0)
            count += len(messages)
            room = RECORDS - count
            left = SECONDS - (time.monotonic() - begun)
            messages = consumer.consume(room, 0.005) if room and left > 0 else []
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.commit_transaction()


if __name__ == "__main__":
    main()
