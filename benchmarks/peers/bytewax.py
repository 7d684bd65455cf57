"""Bytewax: one worker, and a recovery store, without which it would begin anew after a crash."""

from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from benchmarks.peers.job import PRODUCER, Job, Mapping


def main() -> None:
    job = Job.told()
    mapping = Mapping()

    def standardize(message: KafkaSourceMessage) -> KafkaSinkMessage:
        _, timestamp = message.timestamp
        return KafkaSinkMessage(
            *mapping.record(message.value, message.partition, message.offset, timestamp, message.headers)
        )

    flow = Dataflow("standardization")
    source = KafkaSource([job.bootstrap], [job.raw], batch_size=1_000)
    stream = op.input("raw", flow, source)
    kop.output(
        "standardized",
        op.map("standardize", stream, standardize),
        brokers=[job.bootstrap],
        topic=job.standardized,
        add_config={name: str(value) for name, value in PRODUCER.items()},
    )
    store = Path(job.folder) / "recovery"
    store.mkdir()
    init_db_dir(store, 1)
    cli_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(store))


if __name__ == "__main__":
    main()
