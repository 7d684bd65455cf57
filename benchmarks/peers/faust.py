"""faust-streaming: an agent that sends a record for each event, at least once."""

import sys
from typing import Any

import faust

from benchmarks.peers.job import Job, Mapping


def main() -> None:
    job = Job.told()
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        value_serializer="raw",
        key_serializer="raw",
        datadir=job.folder,
        consumer_auto_offset_reset="earliest",
        producer_compression_type="lz4",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    raw = app.topic(job.raw)
    standardized = app.topic(job.standardized)
    mapping = Mapping()

    @app.agent(raw)
    async def standardize(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            key, line = mapping.record(
                message.value,
                message.partition,
                message.offset,
                round(message.timestamp * 1000),
                message.headers.items() if isinstance(message.headers, dict) else message.headers,
            )
            await standardized.send(key=key, value=line)

    sys.argv[1:] = ["worker", "--loglevel", "warn"]
    app.main()


if __name__ == "__main__":
    main()
