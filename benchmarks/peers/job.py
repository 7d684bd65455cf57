"""What every peer in Python is told on its command line, and the mapping that all of them call.

    python -m benchmarks.peers.quix BOOTSTRAP RAW STANDARDIZED GROUP FOLDER

A peer reads RAW from its beginning and writes a record for each entry to STANDARDIZED until it is terminated. The
mapping is our own, one entry a call, so that what differs is the framework alone. It is imported by programs whose
environments have msgspec and their framework, and nothing else of ours.
"""

import sys
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

from shared.records import timestamp_of
from shared.topics import H_CONTENT_TYPE, H_RUN
from standardization.standardize import Arrival, Standardizer

TOPIC_ID: Final = "00000000"  # in record_ids; the stage asks the broker for it

# What our own producer is told, for peers that have librdkafka beneath them and do not wait for each message.
PRODUCER: Final = {"compression.type": "lz4", "linger.ms": 100, "batch.size": 262_144}


class Job(NamedTuple):
    """What to read and what to write."""

    bootstrap: str
    raw: str
    standardized: str
    group: str
    folder: str  # the peer's own, empty

    @classmethod
    def told(cls) -> Self:
        """From the command line."""
        return cls(*sys.argv[1:6])


class Mapping:
    """From an entry to the key and the line of its record."""

    def __init__(self) -> None:
        self._standardizer = Standardizer(16 << 20, 2 << 20)

    def record(
        self,
        value: bytes,
        partition: int,
        offset: int,
        timestamp_ms: int,
        headers: Iterable[tuple[str, bytes | None]] | None,
    ) -> tuple[bytes, bytes]:
        """Raises ValueError where the entry cannot be standardized: the bench has none such."""
        content_type = run_id = None
        for name, content in headers or ():
            if name == H_CONTENT_TYPE and content is not None:
                content_type = content.decode()
            elif name == H_RUN and content is not None:
                run_id = content.decode()
        arrival = Arrival(timestamp_of(timestamp_ms * 1_000_000), run_id=run_id)
        record_id = f"{TOPIC_ID}-{partition}-{offset}-0"
        good, _, rejected = self._standardizer.entries(content_type, [value], [record_id], [arrival])
        if rejected:
            raise ValueError(rejected[0].detail)
        return good[0]
