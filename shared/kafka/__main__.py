"""Entry point: wait for Kafka, then create the topics that are missing."""

import sys
import time

from shared import logs
from shared.config import Settings, load
from shared.errors import ConfigurationError, KafkaUnavailableError
from shared.kafka import Topics
from shared.kafka.client import log


def _main() -> int:
    settings = load(Settings)
    logs.configure("topics", settings.log_level, settings.log_format)
    topics = Topics(settings, "topics")
    deadline = time.monotonic() + 60
    while not topics.reachable(2.0):
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(f"no answer from {settings.kafka_bootstrap} for 60 s; is Kafka running?")
    made = topics.create()
    log.info("topics are there", created=made)
    topics.check(30.0)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_main())
    except (ConfigurationError, KafkaUnavailableError) as problem:
        sys.stderr.write(f"topics: {problem}\n")
        sys.exit(1)
