"""Syslog over UDP and TCP: messages are framed here, and read by standardization.

    sockets > framing > a bounded queue > transaction(messages, the batch's number) > raw-logs, ingestion-state

One thread receives, the feed's own sends. When the queue is full, TCP is not read, so that its senders wait; UDP can't
be told, so that what has to be dropped is counted.
"""

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ingestion.declared import Syslog, key_of
from ingestion.feeds import Feed
from ingestion.framing import Framing
from ingestion.lines import Lines
from ingestion.session import MESSAGES_TOGETHER, Session
from shared import logs, metrics
from shared.config import MIB, Settings

CONTENT_TYPE: Final = "application/syslog"
QUEUE_BYTES: Final = 16 * MIB  # of messages that wait for Kafka, as they are in memory
TOGETHER: Final = 4 * MIB  # bytes that share a transaction, and MESSAGES_TOGETHER
GATHER_S: Final = 0.05  # between transactions
AGAIN_S: Final = 2.0  # before an address that is in use is tried again, and so after other failures
_WAKE_S: Final = 0.1
_PAUSE_S: Final = 0.01  # between looks whether the queue has room again
_DATAGRAM: Final = 65_535
_RECEIVED: Final = 8_192  # bytes of a stream at a time: as messages of one letter they are 60 times as much
_OVERHEAD: Final = 120  # of a message in memory
_NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # for a connection; it stays to be taken
_SO_RXQ_OVFL: Final = 40  # Linux: each datagram tells how many the socket had to drop
_AT_ONCE: Final = 500  # datagrams that are taken before others have their turn

_BATCH: Final = "batch"  # the key of the last

log = logs.logger("syslog")


class Message(NamedTuple):
    """A message and who sent it."""

    host: str
    text: bytes


class _Batch(msgspec.Struct, frozen=True):
    """What was committed last, so that a commit that was never answered is told from one that failed."""

    process: str
    number: int
    schema: int = 1


class _Queue:
    """Messages between the threads, bounded by their bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._size = 0
        self._changed = threading.Condition()

    def put(self, messages: list[Message], *, all_of_them: bool) -> int:
        """Add messages; those that find no room are left out, unless all have to be taken. Returns how many are."""
        added = 0
        with self._changed:
            for message in messages:
                size = len(message.text) + _OVERHEAD
                if self._size + size > self._limit and not all_of_them:
                    break
                self._messages.append(message)
                self._size += size
                added += 1
            if added:
                self._changed.notify()
        return added

    def is_full(self) -> bool:
        return self._size >= self._limit

    def take(self, limit: int, patience: float) -> list[Message]:
        """The messages that are there, about `limit` bytes in memory and MESSAGES_TOGETHER; waits a moment for one."""
        with self._changed:
            if not self._messages:
                self._changed.wait(patience)
            taken: list[Message] = []
            size = 0
            while self._messages and size < limit and len(taken) < MESSAGES_TOGETHER:
                taken.append(self._messages.popleft())
                size += len(taken[-1].text) + _OVERHEAD
            self._size -= size
            return taken

    def __len__(self) -> int:
        return len(self._messages)


class _Connection:
    """A TCP sender."""

    def __init__(self, sock: socket.socket, host: str, limit: int) -> None:
        self.socket = sock
        self.host = host
        self.framing = Framing(limit)


class _Receiver:
    """The sockets of a source, and the thread that reads them."""

    def __init__(self, source: str, declared: Syslog, queue: _Queue) -> None:
        self._source = source
        self._declared = declared
        self._queue = queue
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
        self._paused = False
        self._resting: tuple[socket.socket, float] | None = None  # the listener, and until when it is not asked
        self._overflowed = 0  # datagrams that the kernel has told of
        self._dropped = metrics.DECLARED_DROPPED_DATAGRAMS.labels(source)
        self.addresses: dict[str, str] = {}
        self.problem = ""
        self.refused = 0  # connections, for there were too many

    @property
    def connections(self) -> int:
        return len(self._connections)

    def run(self, stopping: threading.Event) -> None:
        """Receive until told to stop; where a socket fails, begin again with new ones."""
        while not stopping.is_set():
            doing = "listen"
            try:
                self._listen()
                self.problem = ""
                log.info("listening", source=self._source, **self.addresses)
                doing = "receive"
                while not stopping.is_set():
                    self._serve()
                self._drain()
            except OSError as error:
                self.problem = f"can't {doing} on {self._declared.listen}: {error.strerror or error}"
                log.warning(f"can't {doing}", source=self._source, address=self._declared.listen, error=str(error))
            finally:
                self._close()
            stopping.wait(AGAIN_S)

    def _listen(self) -> None:
        host, port = self._declared.address
        self._overflowed = 0  # a new socket begins to count anew
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0]
        for protocol in self._declared.protocols:
            kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
            sock = socket.socket(family, kind)
            self._selector.register(sock, selectors.EVENT_READ, protocol)
            sock.setblocking(False)
            if protocol == "udp":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * MIB)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
                sock.bind(address)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
                sock.listen(128)
            bound = sock.getsockname()
            self.addresses[protocol] = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    def _serve(self) -> None:
        self._pause_or_go_on()
        if self._resting is not None and time.monotonic() >= self._resting[1]:
            self._selector.register(self._resting[0], selectors.EVENT_READ, "tcp")
            self._resting = None
            self.problem = ""
        for key, _ in self._selector.select(_PAUSE_S if self._paused else _WAKE_S):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if key.data == "udp":
                self._datagrams(sock)
            elif key.data == "tcp":
                self._accept(sock)
            elif not self._queue.is_full():  # others of this round may have filled it
                self._stream(key.data)

    def _pause_or_go_on(self) -> None:
        """Stop reading from TCP's senders while the queue is full: then they wait."""
        is_full = self._queue.is_full()
        if is_full and not self._paused:
            for connection in self._connections:
                self._selector.unregister(connection.socket)
        elif self._paused and not is_full:
            for connection in self._connections:
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._paused = is_full

    def _datagrams(self, sock: socket.socket) -> None:
        messages: list[Message] = []
        for _ in range(_AT_ONCE):
            try:
                data, extras, _, peer = sock.recvmsg(_DATAGRAM, 64)
            except (BlockingIOError, InterruptedError):
                break
            for level, kind, value in extras:
                if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                    (told,) = struct.unpack("I", value[:4])
                    self._dropped.inc((told - self._overflowed) % 2**32)
                    self._overflowed = told
            text = data.rstrip(b"\r\n\0")
            if text.strip():
                messages.append(Message(peer[0], text))
        self._dropped.inc(len(messages) - self._queue.put(messages, all_of_them=False))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._rest(listener, error)
            return  # else it has gone already
        if len(self._connections) >= self._declared.connections_max:
            self.refused += 1
            log.warning("too many connections", source=self._source, peer=peer[0])
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = _Connection(sock, peer[0], self._declared.message_bytes)
        self._connections.add(connection)
        if not self._paused:
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """Leave the connections that wait where they are for a while: to be asked again at once would be to spin."""
        self._selector.unregister(listener)
        self._resting = listener, time.monotonic() + AGAIN_S
        self.problem = f"can't take connections on {self._declared.listen}: {error.strerror}"
        log.warning("can't take a connection", source=self._source, error=str(error))

    def _stream(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_RECEIVED)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the sender has broken off; what it has sent counts
            data = b""
        found = connection.framing.feed(data) if data else connection.framing.rest()
        self._queue.put([Message(connection.host, text) for text in found], all_of_them=True)
        if not data:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        with contextlib.suppress(KeyError):  # while paused it is not registered
            self._selector.unregister(connection.socket)
        self._connections.discard(connection)
        connection.socket.close()

    def _drain(self) -> None:
        """Take what has arrived already: nobody else will."""
        until = time.monotonic() + 1.0
        while time.monotonic() < until and not self._queue.is_full() and self._selector.select(0):
            self._serve()

    def _close(self) -> None:
        """Close all sockets. What their senders have begun counts, as at the end of a connection."""
        for key in list(self._selector.get_map().values()):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            self._selector.unregister(sock)
            sock.close()
        if self._resting is not None:
            self._resting[0].close()
            self._resting = None
        for connection in self._connections:
            rest = connection.framing.rest()
            self._queue.put([Message(connection.host, text) for text in rest], all_of_them=True)
            connection.socket.close()
        self._connections.clear()
        self._paused = False
        self.addresses = {}


class SyslogFeed(Feed):
    """One declared address."""

    kind: Literal["syslog"] = "syslog"

    def __init__(self, settings: Settings, source: str, declared: Syslog, node: str | None) -> None:
        super().__init__(settings, source, node)
        self._declared = declared
        self._queue = _Queue(QUEUE_BYTES)
        self._receiver = _Receiver(source, declared, self._queue)
        self._lines = Lines(settings, source, "text", declared.content_type or CONTENT_TYPE)
        self._process = uuid.uuid4().hex
        self._number = 0
        self._thread: threading.Thread | None = None  # that receives
        self._broken: Exception | None = None  # what it ended by
        self._in_hand: list[Message] = []  # taken from the queue, and not committed for sure

    def faults(self) -> list[str]:
        return [self._receiver.problem] if self._receiver.problem else []

    def shown(self) -> dict[str, Any]:
        return {
            "addresses": self._receiver.addresses,
            "connections": self._receiver.connections,
            "refused_connections": self._receiver.refused,
            "waiting": len(self._queue),
        }

    # the threads

    @contextlib.contextmanager
    def open(self, stopping: threading.Event) -> Iterator[None]:
        self._thread = threading.Thread(target=self._receive, args=(stopping,), name=f"{self.name} receiver")
        self._thread.start()
        try:
            yield
        finally:
            stopping.set()
            self._thread.join()
            if self._in_hand or len(self._queue):
                log.warning(
                    "stopped without Kafka: these messages are lost",
                    source=self.source, messages=len(self._in_hand) + len(self._queue),
                )  # fmt: skip

    def _receive(self, stopping: threading.Event) -> None:
        try:
            self._receiver.run(stopping)
        except Exception as error:  # noqa: BLE001 - the feed's own thread raises it, which the service watches
            self._broken = error
            self._receiver.problem = f"the receiver has ended: {error!r}"

    def begin(self, session: Session, stopping: threading.Event) -> None:
        for key, value in session.restored(stopping):
            last = msgspec.json.decode(value, type=_Batch)
            if key == _BATCH and (last.process, last.number) == (self._process, self._number):
                self._count()  # it was committed, though nobody said so

    def turn(self, session: Session) -> float:
        if not self._in_hand:
            self._in_hand = self._queue.take(TOGETHER, _WAKE_S)
            self._number += 1
        if not self._in_hand:
            if self._broken is not None:
                raise self._broken
            return 0.0
        if self._declared.key == "host":
            by_host = sorted(self._in_hand, key=lambda message: message.host)  # stable: each host's stay in order
            for host, some in groupby(by_host, lambda message: message.host):
                key = key_of("host", self.source, host)
                self._lines.send(session, [message.text for message in some], key)
        else:
            key = key_of(self._declared.key, self.source, "")
            self._lines.send(session, [message.text for message in self._in_hand], key)
        session.keep(_BATCH, _Batch(self._process, self._number))
        session.commit()
        self._count()
        return GATHER_S

    def _count(self) -> None:
        """What is in hand has been committed."""
        self.sent(len(self._in_hand), sum(len(message.text) for message in self._in_hand))
        self._in_hand = []

    def finish(self, session: Session) -> None:
        """Send what has arrived: nobody sends it again."""
        assert self._thread is not None
        self._thread.join()
        until = time.monotonic() + self._settings.stop_seconds / 3
        while (self._in_hand or len(self._queue)) and time.monotonic() < until:
            self.turn(session)

    def end(self) -> None:
        """What is in hand is sent again by the next session."""
