"""Syslog's sockets: what arrives is queued, TCP waits where the queue is full, and UDP is counted."""

import errno
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingestion.declared import Syslog, parsed
from ingestion.session import MESSAGES_TOGETHER
from ingestion.sources.syslog import TOGETHER, Message, SyslogFeed, _Queue, _Receiver
from shared import metrics
from shared.config import Settings
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


def test_many_senders_of_tiny_messages_do_not_fill_more_than_the_queue_and_a_transaction_is_bounded() -> None:
    queue = _Queue(1024 * KIB)
    senders = 20
    with receiving(queue, protocols=["tcp"]) as receiver:
        to = address(receiver, "tcp")
        connections = [socket.create_connection(to) for _ in range(senders)]
        eventually(lambda: receiver.connections == senders, 10, "all are connected")
        for connection in connections:
            connection.sendall(b"a\n" * 32 * KIB)
            connection.close()
        eventually(queue.is_full, 10, "the queue is full")
        got, largest = 0, 0
        while got < senders * 32 * KIB:
            largest = max(largest, len(queue))
            taken = queue.take(TOGETHER, 5.0)
            assert 0 < len(taken) <= MESSAGES_TOGETHER
            got += len(taken)
        assert len(queue) == 0
    in_memory = 110  # bytes of such a message, with the object that it is
    assert largest * in_memory < 2 * 1024 * KIB


class FailingSocket:
    """A socket whose reading fails once."""

    def __init__(self, own: socket.socket, failure: Exception) -> None:
        self._own = own
        self._failures = [failure]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def recvmsg(self, *sizes: int) -> Any:
        if self._failures:
            raise self._failures.pop()
        return self._own.recvmsg(*sizes)


def failing_once(receiver: _Receiver, failure: Exception) -> None:
    """Let the receiver's next datagram fail so."""
    read = receiver._datagrams

    def fail(sock: socket.socket) -> None:
        receiver._datagrams = read  # type: ignore[method-assign]
        read(FailingSocket(sock, failure))  # type: ignore[arg-type]

    receiver._datagrams = fail  # type: ignore[method-assign]


def send(to: tuple[str, int], *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, to)


def test_a_socket_that_fails_is_told_and_made_anew_and_what_was_begun_counts() -> None:
    queue = _Queue(64 * KIB)
    with receiving(queue) as receiver, socket.create_connection(address(receiver, "tcp")) as sender:
        sender.sendall(b"<34>begun")
        (connection,) = eventually(lambda: list(receiver._connections), 10, "it is connected")
        eventually(lambda: connection.framing._buffer, 10, "it has arrived")
        failing_once(receiver, OSError(errno.ENOBUFS, "No buffer space available"))
        send(address(receiver, "udp"), b"<34>lost")
        eventually(lambda: "can't receive on" in receiver.problem, 10, "it is told")
        assert "No buffer space available" in receiver.problem
        to = address(receiver, "udp")
        assert receiver.problem == ""
        send(to, b"<34>heard")
        eventually(lambda: len(queue) == 2, 10, "it hears again")
        assert queue.take(KIB, 0) == [Message("127.0.0.1", b"<34>begun"), Message("127.0.0.1", b"<34>heard")]


def test_a_new_socket_begins_to_count_what_the_kernel_dropped_anew(dropped: Callable[[], float]) -> None:
    queue = _Queue(64 * KIB)
    with receiving(queue, protocols=["udp"]) as receiver:
        address(receiver, "udp")
        receiver._overflowed = 1_000
        failing_once(receiver, OSError(errno.ENOBUFS, "No buffer space available"))
        send(address(receiver, "udp"), b"<34>lost")
        eventually(lambda: receiver.problem, 10, "it is told")
        to = address(receiver, "udp")
        read = receiver._datagrams

        class Telling(FailingSocket):
            def recvmsg(self, *sizes: int) -> Any:
                data, _, flags, peer = self._own.recvmsg(*sizes)
                return data, [(socket.SOL_SOCKET, 40, struct.pack("I", 3))], flags, peer

        receiver._datagrams = lambda sock: read(Telling(sock, OSError()))  # type: ignore[method-assign,arg-type]
        send(to, b"<34>heard")
        eventually(lambda: len(queue) == 1, 10, "it hears again")
        assert dropped() == 3


def test_without_descriptors_connections_wait_and_the_receiver_does_not_spin() -> None:
    queue = _Queue(64 * KIB)
    asked = 0
    with receiving(queue) as receiver:
        to = address(receiver, "tcp")
        accept = receiver._accept

        def counted(listener: socket.socket) -> None:
            nonlocal asked
            asked += 1
            accept(listener)

        receiver._accept = counted  # type: ignore[method-assign]
        sender = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with sender:
            resource.setrlimit(resource.RLIMIT_NOFILE, (sender.fileno() - 1, hard))
            try:
                sender.connect(to)
                sender.sendall(b"<34>patient\n")
                eventually(lambda: "can't take connections" in receiver.problem, 10, "it is told")
                time.sleep(0.5)
                assert asked < 5
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            eventually(lambda: len(queue) == 1, 10, "it is taken")
            assert receiver.problem == ""


class Committing:
    """What a feed asks of its session, without a Kafka: everything counts."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.kept: dict[str, bytes] = {}

    def restored(self, _: threading.Event) -> Iterator[tuple[str, bytes]]:
        yield from self.kept.items()

    def send(self, values: list[bytes | None], *_: object) -> None:
        self.values += values

    def keep(self, key: str, place: Any) -> None:
        self.kept[key] = msgspec.json.encode(place)

    def commit(self) -> bool:
        return True


@pytest.fixture
def feed(tmp_path: Path) -> SyslogFeed:
    declared = Syslog.model_validate({"kind": "syslog", "listen": "127.0.0.1:0", "protocols": ["udp"]})
    return SyslogFeed(Settings(_env_file=None, data_dir=tmp_path), "test", declared, None)


def test_a_receiver_that_breaks_fails_the_feed_when_what_it_has_received_is_sent(feed: SyslogFeed) -> None:
    session: Any = Committing()
    with feed.open(threading.Event()):
        to = address(feed._receiver, "udp")
        send(to, b"<34>before")
        eventually(lambda: len(feed._queue) == 1, 10, "the first has arrived")
        failing_once(feed._receiver, ValueError("a fault of ours"))
        send(to, b"<34>lost")
        eventually(feed.faults, 10, "it is told")
        feed.turn(session)
        assert session.values == [b"<34>before"]
        with pytest.raises(ValueError, match="a fault of ours"):
            feed.turn(session)


def test_a_batch_whose_commit_was_found_out_later_is_counted_and_not_sent_again(feed: SyslogFeed) -> None:
    session: Any = Committing()

    def unanswered() -> bool:
        raise TimeoutError

    session.commit = unanswered
    feed._queue.put([Message("h", b"<34>one"), Message("h", b"<34>two")], all_of_them=True)
    with pytest.raises(TimeoutError):
        feed.turn(session)
    assert feed.entries == 0
    feed.begin(session, threading.Event())
    assert (feed.entries, feed.bytes) == (2, 14)
    assert feed.turn(session) == 0.0
    assert session.values == [b"<34>one", b"<34>two"]


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


def test_what_can_be_no_name_of_a_host_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"a\.\.b is no name of a host"):
        parsed(b"sources:\n  a: {kind: syslog, listen: 'a..b:5514'}\n", "s.yaml")
