"""How many bytes each topic takes on the brokers' disks.

The client has no call for it, so the one request is spoken here: DescribeLogDirs (key 35), version 1, as Kafka's
protocol guide gives it. All integers are big-endian; a string is its length in two bytes, and the bytes.
"""

import io
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Final

from shared.errors import KafkaUnavailableError

_KEY: Final = 35
_VERSION: Final = 1
_ALL_TOPICS: Final = -1
_ANSWER_MAX: Final = 64 * 1024 * 1024


def topic_bytes(brokers: Iterable[tuple[str, int]], patience: float) -> Counter[str]:
    """Bytes of each topic, all replicas of all these brokers together. Raises KafkaUnavailableError."""
    found: Counter[str] = Counter()
    for host, port in brokers:
        try:
            with socket.create_connection((host, port), patience) as connection:
                connection.sendall(request())
                with connection.makefile("rb") as answers:
                    found += sizes(answer_of(answers))
        except (OSError, struct.error, ValueError) as error:
            raise KafkaUnavailableError(f"sizes of the topics on {host}:{port}: {error}") from error
    return found


def request() -> bytes:
    """The request for all topics, with its length before it."""
    client = b"sluice"
    body = struct.pack(">hhih", _KEY, _VERSION, 1, len(client)) + client + struct.pack(">i", _ALL_TOPICS)
    return struct.pack(">i", len(body)) + body


def answer_of(answers: io.BufferedIOBase) -> bytes:
    """One answer, without its length. Raises ValueError where the broker hangs up in the middle of it."""
    (size,) = struct.unpack(">i", _exactly(answers, 4))
    if not 0 <= size <= _ANSWER_MAX:
        raise ValueError(f"an answer of {size} bytes")
    return _exactly(answers, size)


def sizes(answer: bytes) -> Counter[str]:
    """Bytes by topic. Raises ValueError or struct.error where it is no such answer."""
    found: Counter[str] = Counter()
    stream = io.BytesIO(answer)
    stream.read(8)  # correlation id, throttle time
    for _ in range(_integer(stream, ">i")):
        error = _integer(stream, ">h")
        if error:
            raise ValueError(f"the broker answers with error {error}")
        _text(stream)  # the folder
        for _ in range(_integer(stream, ">i")):
            topic = _text(stream)
            for _ in range(_integer(stream, ">i")):
                stream.read(4)  # partition
                found[topic] += _integer(stream, ">q")
                stream.read(9)  # lag, and whether it is only a replica to be
    return found


def _integer(stream: io.BytesIO, kind: str) -> int:
    number: int = struct.unpack(kind, stream.read(struct.calcsize(kind)))[0]
    return number


def _text(stream: io.BytesIO) -> str:
    return _exactly(stream, _integer(stream, ">h")).decode()


def _exactly(stream: io.BufferedIOBase, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("the answer ends too soon")
    return data
