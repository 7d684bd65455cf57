"""Declared files, from outside: each is read once, whatever its format, packed or not, over kill -9 and restarts."""

import gzip
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from native.kafka import Broker
from tests.integration.declaring import Ingestion
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

SOURCES = """\
sources:
  drop:
    kind: file
    path: drop/*
    exclude: ["*.tmp"]
    settle_seconds: 0.5
  large:
    kind: file
    path: {folder}/large/*.gz
    settle_seconds: 0
"""
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def ingestion(broker: Broker, folder: Path) -> Iterator[Ingestion]:
    for name in ("drop", "large"):
        (folder / name).mkdir()
    settings = {"INGEST_DIR": str(folder), "BODY_MAX_BYTES": str(64 * MIB)}
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    with Ingestion(broker, folder, prefix, SOURCES.format(folder=folder), **settings) as running:
        running.supervise()
        yield running


def file_of(ingestion: Ingestion, source: str, path: Path) -> dict[str, Any]:
    """What is told of a file that is read, or can't be."""

    def look() -> dict[str, Any] | None:
        files = ingestion.source(source)["details"].get("files", [])
        found = next((file for file in files if file["path"] == str(path)), None)
        return found if found and found["status"] != "reading" else None

    return eventually(look, 60, f"{path} is read")


def test_files_of_each_format_are_read_once_each(ingestion: Ingestion, folder: Path) -> None:
    drop = folder / "drop"
    rows = b"name,n\na,1\nb,2\n"
    written = {
        "a.json": b'[{"n":1},\n {"n":\n2}]',
        "b.ndjson.gz": gzip.compress(b'{"n":3}\n') + gzip.compress(b'{"n":4}\n'),
        "c.csv.zst": zstd.compress(rows),
        "d.tsv": rows.replace(b",", b"\t"),
        "e.log": b'[12:00] a text\n{"n":5}\n\n{not json\n',
        "f": b"[INFO] no ending\n",
        "g.tmp": b"never\n",
    }
    for name, data in written.items():
        (drop / name).write_bytes(data)
    wanted = [b'{"n":1}', b'{"n":\n2}', b'{"n":3}', b'{"n":4}']
    wanted += [b'{"name":"a","n":"1"}', b'{"name":"b","n":"2"}'] * 2
    wanted += [b"[12:00] a text", b'{"n":5}', b"{not json", b"[INFO] no ending"]
    ingestion.wait_for("drop", wanted)
    assert file_of(ingestion, "drop", drop / "b.ndjson.gz")["entries"] == 2
    ingestion.kill("ingestion")
    (drop / "a.json").rename(drop / "z.json")
    os.utime(drop / "d.tsv")
    (drop / "new.ndjson").write_bytes(b'{"n":6}\n')
    ingestion.wait_until_ready()
    ingestion.wait_for("drop", [*wanted, b'{"n":6}'])
    (drop / "new.ndjson").write_bytes(b'{"n":7}\n{"n":8}\n')  # the same file, with other bytes
    ingestion.wait_for("drop", [*wanted, b'{"n":6}', b'{"n":7}', b'{"n":8}'])


def test_what_can_not_be_read_is_told_and_the_others_go_on(ingestion: Ingestion, folder: Path) -> None:
    drop = folder / "drop"
    (drop / "bad.json").write_bytes(b'[{"n":1}, {"n":2}')
    (drop / "bomb.ndjson.gz").write_bytes(gzip.compress(bytes(128 * MIB)))
    (drop / "cut.ndjson.zst").write_bytes(zstd.compress(os.urandom(100_000))[:-10])
    errors = {
        name: file_of(ingestion, "drop", drop / name)["error"]
        for name in ("bad.json", "bomb.ndjson.gz", "cut.ndjson.zst")
    }
    assert "the array does not end" in errors["bad.json"]
    assert "unpacks to over" in errors["bomb.ndjson.gz"]
    assert "ends within its zstd stream" in errors["cut.ndjson.zst"]
    problems = ingestion.get("ingestion", "/health").json()["problems"]
    assert any(str(drop / "bad.json") in problem for problem in problems)
    assert ingestion.ready("ingestion")
    (drop / "good.ndjson").write_bytes(b'{"n":9}\n')
    assert file_of(ingestion, "drop", drop / "good.ndjson")["status"] == "read"


def test_over_kill_9_in_mid_file_each_entry_comes_once(ingestion: Ingestion, folder: Path) -> None:
    lines = [json.dumps({"n": n, "pad": "x" * 200}).encode() for n in range(200_000)]
    path = folder / "large" / "a.ndjson.gz"
    part = path.with_suffix(".part")
    part.write_bytes(gzip.compress(b"\n".join(lines), 1))
    part.rename(path)
    for share in (0.1, 0.5):

        def look(share: float = share) -> bool:
            files = ingestion.source("large")["details"].get("files", [])
            return bool(files) and files[0]["entries"] > len(lines) * share

        eventually(look, 60, "it has begun")
        ingestion.kill("ingestion")
        ingestion.wait_until_ready()
    done = file_of(ingestion, "large", path)
    assert (done["status"], done["entries"]) == ("read", len(lines))
    ingestion.wait_for("large", lines)


def test_pushes_and_triggers_take_what_is_packed_and_refuse_bombs(ingestion: Ingestion, folder: Path) -> None:
    def push(body: bytes, encoding: str) -> Any:
        headers = {"content-type": "application/x-ndjson", "content-encoding": encoding}
        return ingestion.client.post(ingestion.urls["ingestion"] + "/ingest", content=body, headers=headers)

    plain = b'{"n":1}\n{"n":2}\n'
    for encoding, body in (("gzip", gzip.compress(plain)), ("zstd", zstd.compress(plain)), ("identity", plain)):
        answer = push(body, encoding)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == 2
        assert answer.json()["bytes"] == len(plain)
    before = ingestion.resident_bytes("ingestion", peak=True)
    begun = time.monotonic()
    for encoding, bomb in (("gzip", gzip.compress(bytes(256 * MIB))), ("zstd", zstd.compress(bytes(256 * MIB)))):
        assert push(bomb, encoding).status_code == 413
    assert time.monotonic() - begun < 20
    assert ingestion.resident_bytes("ingestion", peak=True) < before + 128 * MIB
    assert ingestion.metric("ingestion", "sluice_spool_bytes") == 0
    assert push(plain, "gzip").status_code == 400
    assert push(gzip.compress(plain)[:-9], "gzip").status_code == 400
    assert push(plain, "br").status_code == 415
    assert push(plain, "snappy").status_code == 415
    (folder / "packed.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    (folder / "bomb.zst").write_bytes(zstd.compress(bytes(256 * MIB)))
    assert ingestion.get("ingestion", "/ingest/trigger", file="packed.csv.gz").json()["accepted"] == 1
    assert ingestion.get("ingestion", "/ingest/trigger", file="bomb.zst").status_code == 413
