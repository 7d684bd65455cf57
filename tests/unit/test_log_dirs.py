"""The one request that is spoken to a broker by hand."""

import io
import struct

import pytest

from shared.errors import KafkaUnavailableError
from shared.kafka.log_dirs import answer_of, request, sizes, topic_bytes


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def partition(number: int, size: int) -> bytes:
    return struct.pack(">iqqb", number, size, 0, 0)


def folder(error: int, *topics: tuple[str, list[int]]) -> bytes:
    found = struct.pack(">h", error) + text("/data") + struct.pack(">i", len(topics))
    for name, partitions in topics:
        found += text(name) + struct.pack(">i", len(partitions))
        found += b"".join(partition(number, size) for number, size in enumerate(partitions))
    return found


def answer(*folders: bytes) -> bytes:
    return struct.pack(">iii", 1, 0, len(folders)) + b"".join(folders)


def test_sizes_are_added_up_over_partitions_and_folders() -> None:
    found = sizes(answer(folder(0, ("raw-logs", [1, 20]), ("clock", [0])), folder(0, ("raw-logs", [2**40]))))
    assert found == {"raw-logs": 2**40 + 21, "clock": 0}


def test_a_broker_s_error_and_an_answer_cut_off_are_told() -> None:
    with pytest.raises(ValueError, match="error 31"):
        sizes(answer(folder(31)))
    with pytest.raises((ValueError, struct.error)):
        sizes(answer(folder(0, ("raw-logs", [1])))[:-3][:30])
    with pytest.raises(ValueError, match="too soon"):
        answer_of(io.BytesIO(struct.pack(">i", 100) + b"short"))
    with pytest.raises(ValueError, match="-1 bytes"):
        answer_of(io.BytesIO(struct.pack(">i", -1)))


def test_the_request_carries_its_length() -> None:
    asked = request()
    assert struct.unpack(">i", asked[:4])[0] == len(asked) - 4
    assert struct.unpack(">hh", asked[4:8]) == (35, 1)


def test_a_broker_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(KafkaUnavailableError, match=r"127.0.0.1:1\b"):
        topic_bytes([("127.0.0.1", 1)], 1.0)
