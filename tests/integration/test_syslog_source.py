"""Syslog over the network, from outside: each message once on raw-logs, over restarts and without Kafka."""

import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.kafka import Broker, free_ports
from tests.integration.declaring import Ingestion
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

RFC5424 = b'<165>1 2026-01-05T22:14:15.003Z host app 12 ID47 [x@1 k="v"] said\nin two lines'
RFC3164 = b"<34>Jan  5 22:14:15 host su[12]: 'su root' failed"


@pytest.fixture(scope="module")
def own(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, subprocess.Popen[bytes]]]:
    """A Kafka that may be stopped for a while."""
    port, controller_port = free_ports(2)
    broker = Broker(tmp_path_factory.mktemp("kafka"), kafka_libs, port, controller_port)
    process = broker.start()
    try:
        broker.wait_until_ready(process)
        yield broker, process
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture(scope="module")
def ingestion(
    own: tuple[Broker, subprocess.Popen[bytes]], tmp_path_factory: pytest.TempPathFactory, port: int
) -> Iterator[Ingestion]:
    folder: Path = tmp_path_factory.mktemp("syslog")
    sources = f"sources:\n  net:\n    kind: syslog\n    listen: 127.0.0.1:{port}\n    key: host\n"
    with Ingestion(own[0], folder, f"t{uuid.uuid4().hex[:8]}-", sources) as running:
        running.supervise()
        yield running


def connect(port: int) -> socket.socket:
    def attempt() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            return None

    return eventually(attempt, 30, "it listens")


def test_messages_come_over_udp_and_tcp_in_either_framing(ingestion: Ingestion, port: int) -> None:
    eventually(lambda: ingestion.source("net")["details"]["addresses"].get("udp"), 30, "it listens")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(RFC3164 + b"\n", ("127.0.0.1", port))
        udp.sendto(RFC5424, ("127.0.0.1", port))
    with connect(port) as tcp:
        tcp.sendall(b"%d " % len(RFC5424) + RFC5424 + RFC3164 + b"\nno priority, a line\n")
    ingestion.wait_for("net", [RFC3164, RFC5424, RFC5424, RFC3164, b"no priority, a line"])
    assert ingestion.source("net")["entries"] == 5


def test_a_restart_in_order_loses_nothing_that_was_received(ingestion: Ingestion, port: int) -> None:
    before = ingestion.entries("net")
    lines = [b"<34>Jan  5 22:14:15 host app: %d" % number for number in range(20_000)]
    with connect(port) as tcp:
        tcp.sendall(b"\n".join(lines) + b"\n")
        tcp.shutdown(socket.SHUT_WR)
        assert tcp.recv(1) == b""  # all of it was read
    assert ingestion.terminate("ingestion") == 0
    ingestion.wait_for("net", [*before, *lines])
    ingestion.wait_until_ready()


def test_while_kafka_is_away_tcp_waits_and_each_message_comes_once(
    ingestion: Ingestion, own: tuple[Broker, subprocess.Popen[bytes]], port: int
) -> None:
    before = ingestion.entries("net")
    lines = [b"<34>Jan  5 22:14:16 host app: %d " % number + b"x" * 500 for number in range(20_000)]
    with connect(port) as tcp:
        own[1].send_signal(signal.SIGSTOP)
        try:
            tcp.sendall(b"\n".join(lines) + b"\n")
            time.sleep(12)  # longer than a call of the client's is repeated: its commit is in doubt
        finally:
            own[1].send_signal(signal.SIGCONT)
    ingestion.wait_for("net", [*before, *lines], 120)
