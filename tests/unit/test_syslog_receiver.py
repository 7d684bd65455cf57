"""Syslog's sockets: what arrives is queued, TCP waits where the queue is full, and UDP is counted."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ingestion.declared import Syslog, parsed
from ingestion.sources.syslog import _Queue, _Receiver
from shared import metrics
from shared.errors import ConfigurationError
from tests.integration.stack import eventually

KIB = 1024


@contextmanager
def receiving(queue: _Queue, **declared: object) -> Iterator[_Receiver]:
    given = {"kind": "syslog", "listen": "127.0.0.1:0", **declared}
    receiver = _Receiver("test", Syslog.model_validate(given), queue)
    stopping = threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stopping,))
    thread.start()
    try:
        yield receiver
    finally:
        stopping.set()
        thread.join(10)
        assert not thread.is_alive()


def address(receiver: _Receiver, protocol: str) -> tuple[str, int]:
    found = eventually(lambda: receiver.addresses.get(protocol), 10, "it listens")
    host, _, port = found.rpartition(":")
    return host, int(port)


@pytest.fixture
def dropped() -> Callable[[], float]:
    counter = metrics.DECLARED_DROPPED_DATAGRAMS.labels("test")
    before = counter._value.get()
    return lambda: counter._value.get() - before


def test_tcp_is_not_read_while_the_queue_is_full_and_nothing_of_it_is_lost() -> None:
    queue = _Queue(64 * KIB)
    lines = [b"<34>%d " % number + b"x" * 1000 for number in range(20_000)]
    with receiving(queue) as receiver:
        sender = socket.create_connection(address(receiver, "tcp"))
        sent = threading.Event()

        def send() -> None:
            sender.sendall(b"\n".join(lines) + b"\n")
            sender.close()
            sent.set()

        thread = threading.Thread(target=send)
        thread.start()
        eventually(queue.is_full, 10, "the queue is full")
        assert not sent.wait(0.5)
        assert len(queue) < 1_000
        got: list[bytes] = []
        while len(got) < len(lines):
            taken = queue.take(16 * KIB, 5.0)
            assert taken
            got += [message.text for message in taken]
        thread.join()
        assert got == lines
        eventually(lambda: receiver.connections == 0, 10, "the connection is closed")


def test_datagrams_that_find_no_room_are_counted(dropped: Callable[[], float]) -> None:
    queue = _Queue(64 * KIB)
    with receiving(queue, protocols=["udp"]) as receiver:
        to = address(receiver, "udp")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(2_000):
                sender.sendto(b"<34>%d " % number + b"x" * 1000 + b"\n", to)

            def all_counted() -> bool:
                sender.sendto(b"\0", to)  # empty, it is none; it brings the kernel's count
                return len(queue) + dropped() == 2_000

            eventually(all_counted, 10, "each is in the queue or counted")
        assert 0 < len(queue) < 100
        assert dropped() > 1_900
        assert queue.take(1, 1.0)[0].text.startswith(b"<34>0 ")


def test_connections_are_bounded_and_what_one_has_begun_counts_at_its_end() -> None:
    queue = _Queue(64 * KIB)
    with receiving(queue, connections_max=1) as receiver:
        to = address(receiver, "tcp")
        with socket.create_connection(to) as first, socket.create_connection(to, 10) as second:
            first.sendall(b"11 <34>counted<34>unended")
            eventually(lambda: len(queue) == 1, 10, "the first message")
            assert second.recv(1) == b""
        eventually(lambda: len(queue) == 2, 10, "the second")
        assert [message.text for message in queue.take(KIB, 0)] == [b"<34>counted", b"<34>unended"]
        assert receiver.refused == 1


def test_an_address_in_use_is_told_and_taken_when_it_is_free() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        host, port = holder.getsockname()
        with receiving(_Queue(KIB), listen=f"{host}:{port}", protocols=["tcp"]) as receiver:
            eventually(lambda: "can't listen" in receiver.problem, 10, "it is told")
            holder.close()
            eventually(lambda: receiver.addresses, 10, "it listens")
            assert receiver.problem == ""


@pytest.mark.parametrize("listen", ["5514", ":5514", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "::1:5514", "[::1]"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="an address and a port are needed"):
        parsed(f"sources:\n  a: {{kind: syslog, listen: '{listen}'}}\n".encode(), "s.yaml")
