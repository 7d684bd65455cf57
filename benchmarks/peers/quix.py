"""Quix Streams: the last word of the command line is its processing guarantee."""

import sys
from typing import Any

from quixstreams import Application, message_context
from quixstreams.models import BytesSerializer

from benchmarks.peers.job import PRODUCER, Job, Mapping


class _Line(BytesSerializer):
    """The second half of a record's key and line."""

    def __call__(self, value: Any, ctx: Any) -> Any:
        return super().__call__(value[1], ctx)


def main() -> None:
    job = Job.told()
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        processing_guarantee=sys.argv[6],
        producer_extra_config=dict(PRODUCER),
        state_dir=job.folder,
        auto_create_topics=False,
        loglevel="WARNING",
    )
    raw = app.topic(job.raw, value_deserializer="bytes", key_deserializer="bytes")
    standardized = app.topic(job.standardized, value_serializer=_Line(), key_serializer="bytes")
    mapping = Mapping()

    def standardize(value: bytes, _: bytes, timestamp: int, headers: Any) -> tuple[bytes, bytes]:
        context = message_context()
        return mapping.record(value, context.partition, context.offset, timestamp, headers)

    stream = app.dataframe(raw).apply(standardize, metadata=True)
    stream.to_topic(standardized, key=lambda record: record[0])
    app.run()


if __name__ == "__main__":
    main()
