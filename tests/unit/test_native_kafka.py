"""What we tell Kafka in server.properties, and how we tell a Kafka from anything else that answers."""

import socket
import threading
from pathlib import Path

import pytest

from native.kafka import Broker, free_ports, java, new_cluster_id, prepare_jars, speaks_kafka
from shared.errors import ConfigurationError


def test_one_server_is_its_own_quorum_and_keeps_single_copies() -> None:
    told = Broker(Path("/k"), Path("/libs"), port=9092, controller_port=19093).server_properties()
    assert told["controller.quorum.voters"] == "1@127.0.0.1:19093"
    assert told["listeners"] == "BROKER://127.0.0.1:9092,CONTROLLER://127.0.0.1:19093"
    assert told["transaction.state.log.replication.factor"] == told["transaction.state.log.min.isr"] == "1"
    assert told["auto.create.topics.enable"] == "false"


def test_three_servers_keep_three_copies_of_which_two_must_be_in_sync() -> None:
    voters = {node: f"127.0.0.1:{19093 + node}" for node in (1, 2, 3)}
    told = Broker(Path("/k"), Path("/libs"), 9093, 19094, node_id=1, voters=voters).server_properties()
    assert told["controller.quorum.voters"] == "1@127.0.0.1:19094,2@127.0.0.1:19095,3@127.0.0.1:19096"
    assert told["offsets.topic.replication.factor"] == told["default.replication.factor"] == "3"
    assert told["min.insync.replicas"] == told["transaction.state.log.min.isr"] == "2"


def test_the_largest_chunk_fits_and_a_dead_consumer_is_noticed_in_seconds() -> None:
    told = Broker(Path("/k"), Path("/libs"), 9092, 19093).server_properties()
    assert int(told["message.max.bytes"]) >= 8 * 1024 * 1024 + 65536
    session = int(told["group.consumer.session.timeout.ms"])
    assert int(told["group.consumer.min.session.timeout.ms"]) <= session <= 6000
    assert int(told["group.consumer.min.heartbeat.interval.ms"]) <= int(told["group.consumer.heartbeat.interval.ms"])
    assert int(told["group.consumer.heartbeat.interval.ms"]) <= session / 3


def test_overrides_win() -> None:
    broker = Broker(Path("/k"), Path("/libs"), 9092, 19093, overrides={"message.max.bytes": "1000"})
    assert broker.server_properties()["message.max.bytes"] == "1000"


def test_a_cluster_id_never_begins_like_an_option() -> None:
    for identifier in (new_cluster_id() for _ in range(500)):
        assert len(identifier) == 22
        assert not identifier.startswith("-")


def test_a_closed_port_does_not_speak_kafka() -> None:
    (port,) = free_ports(1)
    assert not speaks_kafka("127.0.0.1", port)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_listener_of_another_kind_does_not_speak_kafka(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert not speaks_kafka("127.0.0.1", server.getsockname()[1])
        thread.join()


def test_a_missing_maven_or_java_is_named_with_the_package_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ConfigurationError, match="apt-get install maven"):
        prepare_jars(tmp_path / "libs")
    with pytest.raises(ConfigurationError, match="apt-get install openjdk-17-jre-headless"):
        java()


def test_a_maven_that_fails_leaves_no_half_of_the_jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text('#!/bin/sh\necho "[ERROR] no such artifact"\nexit 1\n')
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ConfigurationError, match="no such artifact"):
        prepare_jars(tmp_path / "kafka" / "libs")
    assert list((tmp_path / "kafka").iterdir()) == []
