"""A topic that others write, from outside: each of its messages once on raw-logs, over kill -9 and over two readers."""

import os
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from native.kafka import Broker
from shared.topics import H_SOURCE, RAW_LOGS
from tests.integration.declaring import Ingestion
from tests.integration.stack import eventually
from tests.integration.stage_thread import messages_in

pytestmark = pytest.mark.kafka

SOURCES = """\
sources:
  others:
    kind: kafka
    topic: {topic}
  late:
    kind: kafka
    topic: {topic}
    start: end
    key: source
    content_type: text/logfmt
"""


@pytest.fixture(scope="module")
def topic(broker: Broker) -> str:
    name = f"others-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for made in admin.create_topics([NewTopic(name, num_partitions=4, replication_factor=1)]).values():
        made.result()
    return name


@pytest.fixture(scope="module")
def producer(broker: Broker) -> Producer:
    return Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "message.max.bytes": 5_000_000})


@pytest.fixture(scope="module")
def ingestion(
    broker: Broker, tmp_path_factory: pytest.TempPathFactory, topic: str, producer: Producer
) -> Iterator[Ingestion]:
    producer.produce(topic, b"before the first start", b"k")
    producer.flush()
    folder = tmp_path_factory.mktemp("topic")
    with Ingestion(broker, folder, f"t{uuid.uuid4().hex[:8]}-", SOURCES.format(topic=topic)) as running:
        running.supervise()
        yield running


def test_bytes_keys_and_headers_stay_and_a_tombstone_is_no_entry(
    ingestion: Ingestion, topic: str, producer: Producer
) -> None:
    eventually(lambda: ingestion.source("late")["details"].get("partitions"), 60, "it reads")
    large = b"\x00" * 2_000_000
    producer.produce(
        topic, b'{"n":1}', b"k", headers=[("mine", b"1"), ("sluice-run", b"forged"), ("content-type", b"x/y")]
    )
    producer.produce(topic, b"\xff\x00 no key")
    producer.produce(topic, None, b"k")
    producer.produce(topic, large, b"k")
    producer.flush()
    ingestion.wait_for("others", [b"before the first start", b'{"n":1}', b"\xff\x00 no key", large])
    found = {value: (key, headers) for _, key, value, headers in messages_in(ingestion.settings, RAW_LOGS)
             if dict(headers).get(H_SOURCE) == b"others"}  # fmt: skip
    key, headers = found[b'{"n":1}']
    assert key == b"k"
    assert sorted(headers) == [("content-type", b"x/y"), ("mine", b"1"), (H_SOURCE, b"others")]
    assert found[b"\xff\x00 no key"][0] is None
    late = [(key, dict(headers)["content-type"]) for _, key, value, headers in messages_in(ingestion.settings, RAW_LOGS)
            if dict(headers).get(H_SOURCE) == b"late" and value == b'{"n":1}']  # fmt: skip
    assert late == [(b"late", b"text/logfmt")]
    assert b"before the first start" not in ingestion.entries("late")
    assert eventually(lambda: ingestion.source("others")["details"].get("tombstones"), 10, "it is told") == 1


def test_over_kill_9_and_beside_a_second_reader_each_message_comes_once(
    ingestion: Ingestion, broker: Broker, topic: str, producer: Producer, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SLUICE_SEED") or random.randrange(2**32))
    sys.stdout.write(f"SLUICE_SEED={seed}\n")
    chance = random.Random(seed)
    before = ingestion.entries("others")
    second = Ingestion(broker, tmp_path, ingestion.prefix, SOURCES.format(topic=topic))
    written: list[bytes] = []
    until = time.monotonic() + 25
    kills = 0
    kill_at = time.monotonic() + 3
    try:
        while time.monotonic() < until:
            for _ in range(200):
                written.append(b"%d" % len(written))
                producer.produce(topic, written[-1], chance.choice([b"a", b"b", b"c", None]))
            producer.flush()
            if time.monotonic() > kill_at:
                if kills % 2:
                    second.kill("ingestion")
                else:
                    ingestion.kill("ingestion")  # and it is started again
                    second.start("ingestion")
                kills += 1
                kill_at = time.monotonic() + chance.uniform(2, 5)
            time.sleep(0.02)
        assert kills >= 3
        eventually(lambda: len(ingestion.entries("others")) >= len(before) + len(written), 120, "all of them")
    finally:
        second.stop()
    found = Counter(ingestion.entries("others"))
    assert found == Counter(before + written)


def test_a_topic_of_the_chain_itself_is_refused(broker: Broker, tmp_path: Path) -> None:
    own = Ingestion(broker, tmp_path, "loop-", SOURCES.format(topic="loop-raw-logs"))
    own.start("ingestion")
    try:
        assert own.processes["ingestion"].wait(30) == 2
    finally:
        own.stop()
    assert "is a topic of the chain itself" in (tmp_path / "ingestion.log").read_text()
