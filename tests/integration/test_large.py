"""A gigabyte through the whole stack, in the memory of an idle one; and what is too much, or beyond repair, and large.

SLUICE_LARGE_MIB makes it less, for a look; CI takes the gigabyte.
"""

import hashlib
import http.client
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.kafka import Broker
from shared.config import Settings
from shared.topics import DEAD_LETTERS
from tests.integration.stack import SERVICES, Stack, eventually
from tests.integration.stage_thread import messages_in

pytestmark = [pytest.mark.kafka, pytest.mark.large]

MIB = 1024 * 1024
SIZE = int(os.environ.get("SLUICE_LARGE_MIB", "1024")) * MIB
PIECE = MIB
PARSED = 128 * MIB
LETTER = 100_000_000
MAY_GROW = 64 * MIB


@pytest.fixture(scope="module")
def own(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of these tests' own, that parses entries of a hundred megabytes; else the settings that all have."""
    folder = tmp_path_factory.mktemp("large")
    with Stack(broker, folder, f"{folder.name}-", {"PARSE_MAX_BYTES": str(PARSED)}) as running:
        yield running


class Body:
    """One entry of SIZE bytes: JSON of incompressible text, made as it is sent; its digest is known once it was."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        head, tail = b'{"source":"gigabyte","blob":"', b'"}'
        rng = random.Random(5)
        pool = [rng.randbytes(PIECE // 2).hex().encode() for _ in range(8)]
        left = SIZE - len(head) - len(tail)
        yield self._told(head)
        number = 0
        while left:
            piece = pool[number % len(pool)][number % 4096 : number % 4096 + left]  # no chunk is like another
            left -= len(piece)
            number += 1
            yield self._told(piece)
        yield self._told(tail)

    def _told(self, piece: bytes) -> bytes:
        self.digest.update(piece)
        return piece


def forget_peak(stack: Stack, service: str) -> None:
    """From now on VmHWM is the most since now."""
    Path(f"/proc/{stack.processes[service].pid}/clear_refs").write_text("5")


def digest_of_raw(stack: Stack, record_id: str) -> bytes:
    """SHA-256 of the original bytes, as the API gives them back."""
    digest = hashlib.sha256()
    path = f"{stack.urls['processing']}/records/{record_id}/raw"
    with stack.client.stream("GET", path, timeout=300) as raw:
        assert raw.status_code == 200
        for piece in raw.iter_raw():
            digest.update(piece)
    return digest.digest()


def test_a_gigabyte_comes_back_equal_and_no_service_grows_by_64_mib(own: Stack) -> None:
    """VmRSS, as the kernel counts it, files mapped included; the spool's own pages are the page cache's."""
    small = own.push(b'{"source":"gigabyte","api":"idle","status":"SUCCESS"}', kind="application/json").json()
    own.receipt(small["run_id"])
    idle = {name: own.resident_bytes(name) for name in SERVICES}
    for name in SERVICES:
        forget_peak(own, name)
    body = Body()
    begun = time.monotonic()
    answer = own.client.post(
        own.urls["ingestion"] + "/ingest", content=iter(body), headers={"Content-Type": "application/json"},
        timeout=300,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    taken = time.monotonic()
    assert answer.json()["bytes"] == SIZE
    assert own.receipt(answer.json()["run_id"], 300)["stored"] == 1
    stored = time.monotonic()
    (record,) = own.get("processing", "/analytics/recent", source="unknown", limit=1).json()["records"]
    assert record["original_bytes"] == SIZE
    returned = digest_of_raw(own, record["record_id"])
    read = time.monotonic()
    assert returned == body.digest.digest()
    grown = {name: (own.resident_bytes(name, peak=True) - idle[name]) / MIB for name in SERVICES}
    print(  # noqa: T201 - the figures, for `pytest -s`
        f"{SIZE // MIB} MiB: taken in {taken - begun:.1f} s, stored {stored - taken:.1f} s later, read back in "
        f"{read - stored:.1f} s; growth in MiB: " + ", ".join(f"{name} {more:.0f}" for name, more in grown.items())
    )
    for name in SERVICES:
        assert grown[name] < MAY_GROW / MIB, f"{name} grew by {grown[name]:.0f} MiB"
    eventually(lambda: own.metric("ingestion", "sluice_spool_bytes") == 0, 10, "the spool is empty")


def test_a_hundred_megabytes_that_are_no_json_are_a_dead_letter_with_all_their_bytes(own: Stack) -> None:
    body = b'{"broken": "' + random.Random(6).randbytes(LETTER // 2).hex().encode()
    answer = own.push(body)
    assert answer.status_code == 200, answer.text
    run_id = answer.json()["run_id"]
    receipt = own.receipt(run_id, 120)
    assert (receipt["stored"], receipt["dead_lettered"]) == (0, 1)
    [letter] = own.get("processing", "/dead-letters", run=run_id).json()["dead_letters"]
    assert letter["reason"] == "malformed_json"
    assert digest_of_raw(own, letter["record_id"]) == hashlib.sha256(body).digest()
    settings = Settings(
        _env_file=None, kafka_bootstrap=own.broker.bootstrap, topic_prefix=own.prefix, data_dir=own.folder / "reading"
    )
    [(_, key, value, _)] = messages_in(settings, DEAD_LETTERS)
    assert key == letter["record_id"].encode()
    assert value == body


def test_a_body_that_is_announced_as_too_large_is_413_before_it_is_sent(own: Stack) -> None:
    connection = http.client.HTTPConnection(own.urls["ingestion"].removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/ingest")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(1024 * MIB + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"BODY_MAX_BYTES" in answer.read()
    connection.close()
