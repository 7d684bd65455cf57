"""A send that ends before its time says how to go on, and what goes on counts each entry once."""

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.stack import ROOT
from tests.unit.test_push import scripted


def sluice(*arguments: str | Path) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, and standard error."""
    command = [sys.executable, "-m", "console", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def resumed(told: str) -> str:
    """The place that was told."""
    found = re.search(r"--resume (\S+)", told)
    assert found, told
    return found[1]


@pytest.mark.parametrize("unanswered", [0, 500, 503, 520])
def test_a_part_that_may_be_in_goes_on_as_it_was_though_it_was_refused_later(tmp_path: Path, unanswered: int) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b'{"n":1}\n')
    # 520 is a proxy's: it isn't tried again, and says as little of what became of the push
    statuses = [520, 403] if unanswered == 520 else [unanswered, 403, 403]
    with scripted(*((status, {}) for status in statuses)) as (url, asked):
        code, _, told = sluice("send", "--ingestion", url, path)
        assert code == 1
        assert "the next may be" in told
        path.write_bytes(b'{"n":1}\n{"n":2}\n')  # it has grown since
        code, _, told = sluice("send", "--ingestion", url, "--resume", resumed(told), path)
        assert code == 1
        assert "the next may be" in told, "a refusal of the second send says nothing of the first"
        code, lines, told = sluice("send", "--ingestion", url, "--resume", resumed(told), path)
    assert (code, len(lines)) == (0, 3), told
    *again, rest = [(headers["Idempotency-Key"], body) for headers, body in asked]
    assert len(set(again)) == 1
    assert (again[0][1], rest[1]) == (b'{"n":1}\n', b'{"n":2}\n')


def test_a_part_that_was_refused_at_once_is_not_in(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b'{"n":1}\n')
    with scripted((429, {"Retry-After": "0"}), (403, {})) as (url, _):
        code, _, told = sluice("send", "--ingestion", url, path)
    assert (code, "nothing was sent" in told) == (1, True), told


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("output", ["pipe", "full"])
def test_output_that_can_not_be_written_ends_a_send_and_it_goes_on(
    tmp_path: Path, options: list[str], output: str
) -> None:
    paths = [tmp_path / name for name in ("a.ndjson", "b.ndjson")]
    for path in paths:
        path.write_bytes(b"{}\n")
    with unwritable(output) as out, scripted() as (url, asked):
        command = [sys.executable, "-m", "console", "send", *options, "--ingestion", url, *map(str, paths)]
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        first, place, *_ = done.stderr.splitlines()
        assert (done.returncode, len(asked)) == (1, 1), done.stderr
        assert first.startswith("sluice: standard output can't be written: "), done.stderr
        assert "1 part is in. To send the rest" in first
        assert len(done.stderr.splitlines()) == 2, "no traceback follows"
        code, lines, told = sluice("send", "--ingestion", url, "--resume", resumed(place), *paths)
    assert (code, len(lines), len(asked)) == (0, 2, 2), told


def test_output_that_can_not_be_written_when_all_is_in_says_that(tmp_path: Path) -> None:
    path = tmp_path / "empty.ndjson"
    path.write_bytes(b"")
    with unwritable("pipe") as out:
        command = [sys.executable, "-m", "console", "send", str(path)]
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "all is accepted" in done.stderr


def test_more_files_than_may_be_open_at_once_are_sent(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.ndjson" for n in range(60)]
    for path in paths:
        path.write_bytes(b"{}\n")
    with scripted() as (url, asked):
        command = shlex.join([sys.executable, "-m", "console", "send", "--ingestion", url, *map(str, paths)])
        done = subprocess.run(
            ["sh", "-c", f"ulimit -n 40; exec {command}"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, len(asked)) == (0, 60), done.stderr


def test_a_missing_file_is_told_before_any_is_sent_and_pipes_are_opened_once(tmp_path: Path) -> None:
    whole, pipe = tmp_path / "whole.ndjson", tmp_path / "pipe"
    whole.write_bytes(b'{"n":1}\n')
    os.mkfifo(pipe)

    def write() -> None:
        pipe.write_bytes(b'{"n":2}\n')

    with scripted() as (url, asked):
        code, _, told = sluice("send", "--ingestion", url, whole, tmp_path / "none.ndjson")
        assert (code, len(asked)) == (1, 0), told
        assert "nothing was sent" in told
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        code, lines, told = sluice("send", "--ingestion", url, whole, pipe)
        writer.join(10)
    assert (code, len(lines)) == (0, 3), told
    assert [body for _, body in asked] == [b'{"n":1}\n', b'{"n":2}\n']


@contextmanager
def unwritable(output: str) -> Iterator[int]:
    """A pipe that nobody reads, or a full disk."""
    if output == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    try:
        yield writer
    finally:
        os.close(writer)
