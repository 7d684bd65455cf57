"""A topic of others, without Kafka: what its client tells besides messages."""

from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from ingestion.declared import KafkaTopic
from ingestion.sources.topic import TopicFeed
from shared import kafka
from shared.config import Settings
from shared.errors import KafkaUnavailableError


class Told:
    """What the client gives where there is no message."""

    def __init__(self, code: int) -> None:
        self._error = KafkaError(code)

    def error(self) -> KafkaError:
        return self._error


@pytest.fixture
def feed(tmp_path: Path) -> TopicFeed:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    return TopicFeed(settings, "shop", KafkaTopic(kind="kafka", topic="orders"), None)


def test_a_place_that_the_topic_no_longer_has_begins_the_source_anew(feed: TopicFeed) -> None:
    """The client reads on by itself nowhere: left alone, the partition would stand still."""
    with pytest.raises(KafkaUnavailableError, match="reading orders"):
        feed._is_new(cast(Any, Told(kafka.OUT_OF_RANGE)))


def test_the_end_of_a_partition_and_what_the_client_mends_are_no_messages(feed: TopicFeed) -> None:
    assert not feed._is_new(cast(Any, Told(kafka.PARTITION_EOF)))
    assert not feed._is_new(cast(Any, Told(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
