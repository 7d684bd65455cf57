"""A question that a broker can't answer yet is asked again; one that it refuses is not."""

import itertools
import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from shared.errors import KafkaUnavailableError
from shared.kafka import topics


def failing(*codes: int) -> tuple[list[float], Callable[[], str]]:
    """A call that fails with each of these codes, then answers; and when it was asked."""
    asked: list[float] = []

    def ask() -> str:
        asked.append(time.monotonic())
        if len(asked) <= len(codes):
            raise KafkaException(KafkaError(codes[len(asked) - 1]))
        return "answer"

    return asked, ask


def test_a_broker_that_will_know_soon_is_asked_again_after_a_pause() -> None:
    asked, ask = failing(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR)
    assert topics._patiently(ask, "offsets", 10.0) == "answer"
    assert len(asked) == 3
    assert all(later - earlier >= 0.04 for earlier, later in itertools.pairwise(asked))


@pytest.mark.parametrize("code", [KafkaError.NOT_CONTROLLER, KafkaError._TRANSPORT])
def test_who_decides_on_topics_may_be_unknown_for_a_while(code: int) -> None:
    _, ask = failing(code)
    assert topics._patiently(ask, "create topics", 10.0, topics._SOON | topics._NO_CONTROLLER) == "answer"


def test_a_refusal_is_told_at_once() -> None:
    asked, ask = failing(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaUnavailableError, match=r"create topics: .*uthorization"):
        topics._patiently(ask, "create topics", 10.0, topics._SOON | topics._NO_CONTROLLER)
    assert len(asked) == 1


def test_patience_ends() -> None:
    _, ask = failing(*[KafkaError.LEADER_NOT_AVAILABLE] * 1_000)
    with pytest.raises(KafkaUnavailableError, match="offsets"):
        topics._patiently(ask, "offsets", 0.2)
