"""Files that are followed, from outside: each line once on raw-logs, whatever is killed, renamed or truncated."""

import json
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.kafka import Broker
from tests.integration.declaring import Ingestion
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

SOURCES = """\
sources:
  app:
    kind: tail
    path: {folder}/app/*.log
    exclude: ["*skip*"]
    partial_seconds: 1.5
    rotated_seconds: 1.5
  killed:
    kind: tail
    path: {folder}/killed/app.log*
    rotated_seconds: 1.5
  large:
    kind: tail
    path: {folder}/large/*
    key: round-robin
    line_bytes: 2097152
  late:
    kind: tail
    path: {folder}/late/deep/**/*.txt
    format: text
    start: end
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tails")


@pytest.fixture(scope="module")
def ingestion(broker: Broker, folder: Path) -> Iterator[Ingestion]:
    for name in ("app", "killed", "large"):
        (folder / name).mkdir()
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    with Ingestion(broker, folder, prefix, SOURCES.format(folder=folder)) as running:
        running.supervise()
        yield running


def append(path: Path, *lines: bytes, ends: bool = True) -> None:
    with path.open("ab") as file:
        file.write(b"\n".join(lines) + (b"\n" if ends else b""))


def offset(ingestion: Ingestion, source: str, path: Path) -> int:
    files = ingestion.source(source)["details"]["files"]
    return next((file["offset"] for file in files if file["path"] == str(path)), -1)


def test_lines_of_json_and_text_come_in_order_and_a_line_without_end_after_a_while(
    ingestion: Ingestion, folder: Path
) -> None:
    log = folder / "app" / "a.log"
    lines = [b'{"n":1}', b"plain", b"", b"[brackets]", b'{"n":2}', b'{"n":3}\r', b"\xff\xfe"]
    append(log, *lines)
    append(folder / "app" / "skip.log", b"never")
    append(log, b"unended", ends=False)
    wanted = [b'{"n":1}', b"plain", b"[brackets]", b'{"n":2}', b'{"n":3}', b"\xff\xfe", b"unended"]
    ingestion.wait_for("app", wanted)
    assert ingestion.entries("app") == wanted
    append(log, b" goes on", b"next")
    ingestion.wait_for("app", [*wanted, b" goes on", b"next"])


def test_a_file_that_is_renamed_goes_on_and_one_that_is_truncated_begins_again(
    ingestion: Ingestion, folder: Path
) -> None:
    log, old = folder / "app" / "a.log", folder / "app" / "a.log.1"
    before = ingestion.entries("app")
    log.rename(old)
    append(old, b"written after the rename")
    append(log, b"in the new file")
    append(old, b"the last, unended", ends=False)
    new = [b"written after the rename", b"in the new file", b"the last, unended"]
    ingestion.wait_for("app", before + new)
    eventually(
        lambda: {file["path"] for file in ingestion.source("app")["details"]["files"]} == {str(log)},
        30,
        "the old file is let go",
    )
    append(log, b"before truncation")
    size = log.stat().st_size
    eventually(lambda: offset(ingestion, "app", log) == size, 30, "all is read")
    os.truncate(log, 0)
    append(log, b"first after it", b"and a second that makes the file longer than it was when it was truncated")
    new += [b"before truncation", b"first after it"]
    new += [b"and a second that makes the file longer than it was when it was truncated"]
    ingestion.wait_for("app", before + new)


def test_over_kill_9_again_and_again_each_line_comes_once(ingestion: Ingestion, folder: Path) -> None:
    """A writer rotates by renaming, all the time; ingestion dies at any moment."""
    seed = int(os.environ.get("SLUICE_SEED") or random.randrange(2**32))
    sys.stdout.write(f"SLUICE_SEED={seed}\n")
    chance = random.Random(seed)
    log = folder / "killed" / "app.log"
    written: list[bytes] = []
    ended = threading.Event()

    def write() -> None:
        rotations = 0
        until = time.monotonic() + 30
        while time.monotonic() < until:
            lines = [
                json.dumps({"n": len(written) + n, "pad": "x" * chance.randrange(300)}).encode() for n in range(50)
            ]
            written.extend(lines)
            data = b"\n".join(lines) + b"\n"
            cut = chance.randrange(len(data))
            with log.open("ab") as file:  # in two pieces, so that a reader sees lines without their ends
                file.write(data[:cut])
                file.flush()
                time.sleep(0.01)
                file.write(data[cut:])
            if chance.random() < 0.01:
                rotations += 1
                log.rename(log.with_name(f"app.log.{rotations}"))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    kills = 0
    while not ended.is_set():
        time.sleep(chance.uniform(0.5, 4.0))  # the subject is that it may happen at any time
        ingestion.kill("ingestion")
        kills += 1
    writer.join()
    ingestion.wait_until_ready()
    assert kills >= 5
    ingestion.wait_for("killed", written, 120)


def test_what_was_renamed_while_nobody_looked_is_read_to_its_end(ingestion: Ingestion, folder: Path) -> None:
    """The pattern does not cover the new name; it is found beside the old one by its number."""
    log = folder / "app" / "b.log"
    before = ingestion.entries("app")
    append(log, b"b1")
    ingestion.wait_for("app", [*before, b"b1"])
    ingestion.kill("ingestion")
    append(log, b"b2")
    log.rename(folder / "app" / "b.old")
    append(log, b"b3")
    ingestion.wait_until_ready()
    ingestion.wait_for("app", [*before, b"b1", b"b2", b"b3"])


def test_a_line_too_long_for_a_message_goes_in_chunks_and_one_over_the_maximum_in_pieces(
    ingestion: Ingestion, folder: Path
) -> None:
    line = b'{"blob":"' + b"y" * 1_500_000 + b'"}'
    log = folder / "large" / "a"
    append(log, line, b"after it")
    ingestion.wait_for("large", [line, b"after it"])
    append(log, b"z" * 5_000_000)
    eventually(lambda: offset(ingestion, "large", log) == log.stat().st_size, 60, "it is read")
    found = [entry for entry in ingestion.entries("large") if entry.startswith(b"z")]
    assert sorted(map(len, found)) == [5_000_000 - 2 * 2_097_152, 2_097_152, 2_097_152]


def test_a_file_that_was_there_is_skipped_where_that_is_declared_and_one_that_comes_later_is_not(
    ingestion: Ingestion, folder: Path
) -> None:
    assert "late" in str(ingestion.get("ingestion", "/health").json()["problems"])
    assert ingestion.ready("ingestion")
    deep = folder / "late" / "deep" / "er"
    deep.mkdir(parents=True)
    append(deep / "a.txt", b'{"text": "though it looks like JSON"}')
    ingestion.wait_for("late", [b'{"text": "though it looks like JSON"}'])
    eventually(lambda: ingestion.get("ingestion", "/health").json()["problems"] == [], 30, "all is well")
    (folder / "late" / "deep" / "b.gz.txt").write_bytes(b"\x1f\x8b\x08\x00")
    eventually(lambda: ingestion.source("late")["problems"], 30, "a compressed file is told")
    assert "compressed" in ingestion.source("late")["problems"][0]
    assert ingestion.metric("ingestion", "sluice_declared_entries_total", source="late") == 1
