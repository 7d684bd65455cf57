"""What the survey says of a real Kafka: while nobody reads, while a transaction hangs, while no broker answers."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.kafka import Broker, free_ports
from shared import kafka, metrics
from shared.config import Settings
from shared.survey import Survey
from shared.topics import GROUPS, RAW_LOGS, STANDARDIZATION_STATE
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

LAG = "sluice_group_lag_messages"
SECONDS = "sluice_group_lag_seconds"
STANDARDIZATION = {"group": "standardization", "topic": RAW_LOGS}


@pytest.fixture
def settings(broker: Broker, tmp_path: Path) -> Settings:
    made = Settings(
        _env_file=None,
        kafka_bootstrap=broker.bootstrap,
        topic_prefix=f"v{uuid.uuid4().hex[:8]}-",
        partitions=3,
        data_dir=tmp_path,
    )
    kafka.Topics(made, "test").create()
    return made


@pytest.fixture
def writer(settings: Settings) -> Iterator[kafka.Transactions]:
    made = kafka.Transactions(settings, "test", f"test-{uuid.uuid4().hex}", timeout_ms=60_000)
    assert made.prepare(threading.Event())
    yield made
    made.discard()


class Looks:
    """A survey that looks when it is told to."""

    def __init__(self, settings: Settings) -> None:
        self.survey = Survey(settings, "test", lambda: True)
        self.topics = kafka.Topics(settings, "test-survey")

    def look(self) -> None:
        self.survey._tell(self.survey._look(self.topics, threading.Event()))


@pytest.fixture
def looks(settings: Settings) -> Iterator[Looks]:
    made = Looks(settings)
    yield made
    made.survey._forget("the test has ended")


def value(name: str, labels: dict[str, str]) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def write(settings: Settings, writer: kafka.Transactions, count: int, partition: int = 0) -> None:
    writer.begin()
    for number in range(count):
        writer.send(settings.topic(RAW_LOGS), b"%d" % number, None, partition)
    writer.commit()


def commit(settings: Settings, offsets: dict[int, int]) -> None:
    """As a consumer would that is dead by now."""
    reader = kafka.Reader(settings, "test", "standardization", subscribes=False)
    topics = kafka.Topics(settings, "test")
    wanted = {(settings.topic(RAW_LOGS), partition): offset for partition, offset in offsets.items()}
    reader.tell(wanted)
    eventually(
        lambda: topics.committed("standardization", list(wanted), 5.0) == wanted, 10, "the offsets are committed"
    )
    reader.close()


def test_a_group_of_which_nobody_lives_lags_by_all_that_came_since(
    settings: Settings, writer: kafka.Transactions, looks: Looks
) -> None:
    write(settings, writer, 10)
    begun = time.time()
    commit(settings, {0: 4})
    write(settings, writer, 5, partition=1)
    looks.look()
    looks.look()
    # offsets 4 to 9 and the marker; 0 to 4 and theirs
    assert value(LAG, STANDARDIZATION) == 7 + 6
    seconds = value(SECONDS, STANDARDIZATION)
    assert seconds is not None
    assert 0 <= time.time() - begun - seconds < 1 or 0 <= seconds - (time.time() - begun) < 1
    time.sleep(1.5)
    looks.look()
    later = value(SECONDS, STANDARDIZATION)
    assert later is not None
    assert later - seconds >= 1.5, "the oldest message is still unread, and older"


def test_a_group_that_has_read_everything_does_not_lag_by_the_markers_behind_it(
    settings: Settings, writer: kafka.Transactions, looks: Looks
) -> None:
    write(settings, writer, 3)
    writer.begin()
    writer.send(settings.topic(RAW_LOGS), b"aborted", None, 0)
    writer.abort()
    commit(settings, {0: 3})  # then a marker, an aborted message and its marker: offsets 3, 4 and 5
    for _ in range(3):
        looks.look()
    assert value(LAG, STANDARDIZATION) == 0
    assert value(SECONDS, STANDARDIZATION) == 0
    write(settings, writer, 2)
    looks.look()
    assert value(LAG, STANDARDIZATION) == 3


def test_every_group_of_the_chain_is_told_of_though_it_never_lived(looks: Looks) -> None:
    looks.look()
    for group, topics in GROUPS.items():
        for topic in topics:
            assert value(LAG, {"group": group, "topic": topic}) == 0
            assert value(SECONDS, {"group": group, "topic": topic}) == 0


def test_a_hung_transaction_is_seen_by_what_it_hides_and_for_how_long(
    settings: Settings, writer: kafka.Transactions, looks: Looks
) -> None:
    writer.begin()
    writer.send(settings.topic(RAW_LOGS), b"open", None, 2)
    raw, state = {"topic": RAW_LOGS}, {"topic": STANDARDIZATION_STATE}

    def hides(offsets: int) -> bool:
        writer.poll()
        looks.look()
        return value("sluice_uncommitted_messages", raw) == offsets

    eventually(lambda: hides(1), 20, "the open transaction is seen")
    other = kafka.Transactions(settings, "test", f"test-{uuid.uuid4().hex}")
    assert other.prepare(threading.Event())
    write(settings, other, 4, partition=2)
    other.discard()
    eventually(lambda: hides(1 + 4 + 1), 20, "and what it hides: four messages and their marker")
    time.sleep(1.0)
    looks.look()
    seconds = value("sluice_uncommitted_seconds", raw)
    assert seconds is not None
    assert seconds >= 1
    assert value("sluice_uncommitted_messages", state) == 0
    assert value(LAG, STANDARDIZATION) == 0, "what nobody could read is no fault of the group"
    writer.abort()
    eventually(lambda: hides(0), 20, "it is open no more")
    assert value("sluice_uncommitted_seconds", raw) == 0


def test_the_skew_is_what_this_clock_says_minus_what_the_brokers_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = kafka.Clock(settings, "test")
    skew = clock.skew()
    assert skew is not None
    assert abs(skew) < 0.2
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() - 40)
    skewed = clock.skew()
    assert skewed is not None
    assert skewed == pytest.approx(-40, abs=0.2)


def test_without_a_broker_nothing_is_told_and_the_survey_ends_when_it_is_told_to(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    nowhere = Settings(_env_file=None, kafka_bootstrap=f"127.0.0.1:{port}", data_dir=tmp_path)
    metrics.GROUP_LAG_RECORDS.labels("standardization", RAW_LOGS).set(7)  # what an earlier look has found
    metrics.CLOCK_SKEW.labels("test").set(7)
    stopping = threading.Event()
    survey = Survey(nowhere, "test", lambda: True)  # the watch has not noticed yet
    thread = threading.Thread(target=survey.run, args=(stopping,))
    thread.start()
    eventually(lambda: value(LAG, STANDARDIZATION) is None, 20, "what is not measured is not told")
    assert value("sluice_clock_skew_seconds", {"service": "test"}) is None
    begun = time.monotonic()
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 8


def test_a_survey_that_runs_tells_by_itself(settings: Settings, writer: kafka.Transactions) -> None:
    write(settings, writer, 2)
    stopping = threading.Event()
    thread = threading.Thread(target=Survey(settings, "test", lambda: True).run, args=(stopping,))
    thread.start()
    try:
        eventually(lambda: value(LAG, STANDARDIZATION) == 3, 20, "the lag is told")
        eventually(lambda: value("sluice_clock_skew_seconds", {"service": "test"}), 20, "and the skew")
    finally:
        stopping.set()
        thread.join(30)
    assert value(LAG, STANDARDIZATION) is None, "one that has ended tells nothing"
