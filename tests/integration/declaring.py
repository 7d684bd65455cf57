"""Ingestion with declared sources, alone with a Kafka; and what it has put on raw-logs."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

from shared.config import Settings
from shared.frames import entries
from shared.topics import H_CONTENT_TYPE, H_SOURCE, RAW_LOGS
from tests.integration.stack import Kafka, Stack, eventually
from tests.integration.stage_thread import messages_in

STILL_S = 1.0  # without another entry


class Ingestion(Stack):
    """A stack whose ingestion alone is started, with a SOURCES_FILE."""

    services = ("ingestion",)

    def __init__(self, broker: Kafka, folder: Path, prefix: str, sources: str, **settings: str) -> None:
        (folder / "sources.yaml").write_text(sources)
        settings = {"SOURCES_FILE": str(folder / "sources.yaml"), "PARTITIONS": "3"} | settings
        super().__init__(broker, folder, prefix, settings)
        self.settings = Settings(
            _env_file=None,
            kafka_bootstrap=broker.bootstrap,
            topic_prefix=prefix,
            partitions=3,
            data_dir=folder / "reading",
        )

    def source(self, name: str) -> dict[str, Any]:
        """What GET /ingest/sources says of one."""
        sources = self.get("ingestion", "/ingest/sources").json()["sources"]
        found: dict[str, Any] = next(source for source in sources if source["name"] == name)
        return found

    def entries(self, source: str) -> list[bytes]:
        """Every entry of a source that counts, partition after partition, in their order."""
        found: list[bytes] = []
        for _, _, value, headers in messages_in(self.settings, RAW_LOGS):
            named = dict(headers)
            if named.get(H_SOURCE) == source.encode():
                content_type = named.get(H_CONTENT_TYPE)
                found += entries(value, None if content_type is None else content_type.decode())
        return found

    def wait_for(self, source: str, wanted: list[bytes], seconds: float = 60.0) -> None:
        """Until so many entries of the source are there and no more come; then they are these, whatever their order."""
        eventually(lambda: len(self.entries(source)) >= len(wanted), seconds, f"{len(wanted)} entries of {source}")
        found: list[bytes] = []
        until = time.monotonic()

        def is_still() -> bool:
            """Whether as many are there as were a while ago: what comes twice comes a bit later."""
            nonlocal found, until
            now = self.entries(source)
            if len(now) != len(found):
                found, until = now, time.monotonic() + STILL_S
            return time.monotonic() >= until

        eventually(is_still, seconds, f"{source} stands still")
        twice = [entry for entry, times in (Counter(found) - Counter(wanted)).items() if times]
        missing = list((Counter(wanted) - Counter(found)).elements())
        assert (twice[:5], missing[:5]) == ([], [])
