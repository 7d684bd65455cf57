"""`sluice send` and `sluice receipt` on the whole stack: what is sent counts once, whatever dies."""

import gzip
import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from native.kafka import Broker
from tests.integration.stack import ROOT, Stack

pytestmark = pytest.mark.kafka

ENTRY = b'{"source":"%s","api":"sales","status":"SUCCESS","n":%d,"text":"%s"}\n'
BROKEN = b'{"source":"till","api":"sales","status":"SUC\n'
FILLING = b"x" * 40_000


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(broker, tmp_path_factory.mktemp("cli"), f"t{uuid.uuid4().hex[:8]}-") as running:
        running.supervise()
        yield running


def begin(stack: Stack, *arguments: str | Path) -> subprocess.Popen[bytes]:
    environment = {**stack.environment, "INGESTION_URL": stack.urls["ingestion"]}
    command = [sys.executable, "-m", "console", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def sluice(stack: Stack, *arguments: str | Path, given: bytes = b"") -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, and standard error."""
    process = begin(stack, *arguments)
    out, err = process.communicate(given, timeout=120)
    return process.returncode, out.decode().splitlines(), err.decode()


def sent(stack: Stack, *arguments: str | Path, given: bytes = b"") -> list[dict[str, Any]]:
    code, lines, err = sluice(stack, "send", "--json", *arguments, given=given)
    assert code == 0, err
    return [json.loads(line) for line in lines]


def stored(stack: Stack, source: str) -> int:
    return sum(stack.summary(source=source)["by_source"].get(source, {}).values())


def large(path: Path, source: str, entries: int = 1_000) -> Path:
    """A file of some parts."""
    path.write_bytes(b"".join(ENTRY % (source.encode(), n, FILLING) for n in range(entries)))
    return path


def test_files_packed_or_not_and_standard_input_are_sent_and_waited_for(stack: Stack, tmp_path: Path) -> None:
    lines = b"".join(ENTRY % (b"files", n, b"") for n in range(10))
    (tmp_path / "lines.ndjson.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "rows.csv").write_bytes(b'source,api,text\nfiles,a,"two\nlines"\nfiles,b,\n')
    (tmp_path / "array.json").write_bytes(b"[" + lines.strip().replace(b"\n", b",") + b"]")
    files = [tmp_path / name for name in ("lines.ndjson.gz", "rows.csv", "array.json")]
    *parts, total = sent(stack, *files, "-", given=lines)
    assert [part["accepted"] for part in parts] == [10, 2, 10, 10]
    assert (total["parts"], total["accepted"]) == (4, 32)
    code, receipts, err = sluice(stack, "receipt", "--wait", "--json", *(part["run_id"] for part in parts))
    assert code == 0, err
    assert [json.loads(line)["stored"] for line in receipts] == [10, 2, 10, 10]
    assert stored(stack, "files") == 32
    # twice on purpose is twice; the same name is once
    *_, total = sent(stack, "--wait", files[0])
    assert (total["stored"], stored(stack, "files")) == (10, 42)
    for _ in range(2):
        sent(stack, "--wait", "--name", "nightly", files[0])
    assert stored(stack, "files") == 52


def test_text_output_is_a_line_a_run_and_a_total(stack: Stack) -> None:
    code, lines, err = sluice(stack, "send", "-", "--source", "plain", "--wait", given=b'{"api":"a"}\n{"api":"b"}\n')
    assert (code, err) == (0, "")
    run = lines[0].split()[0]
    assert lines == [
        f"{run}  2 accepted  standard input",
        f"{run}  2 accepted = 2 stored + 0 dead-lettered + 0 in flight",
        "2 entries, 24 bytes, 1 run",
    ]


def test_dead_letters_make_an_exit_code_of_their_own(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "till.ndjson"
    path.write_bytes(ENTRY % (b"till", 1, b"") + BROKEN)
    code, lines, err = sluice(stack, "send", "--wait", "--json", path)
    assert code == 3
    total = json.loads(lines[-1])
    assert (total["accepted"], total["stored"], total["dead_lettered"], total["in_flight"]) == (2, 1, 1, 0)
    run = json.loads(lines[0])["run_id"]
    assert err == f"sluice: 1 entry is a dead letter; see: sluice dlq list --run {run}\n"
    assert sluice(stack, "receipt", run)[0] == 3
    assert sluice(stack, "send", path)[0] == 0, "who does not wait does not know"


def test_a_receipt_says_what_is_in_flight_and_waits_for_it(stack: Stack) -> None:
    with stack.frozen("standardization"):
        part, _ = sent(stack, "-", given=ENTRY % (b"flight", 1, b""))
        code, lines, err = sluice(stack, "receipt", part["run_id"])
        assert (code, lines) == (4, [f"{part['run_id']}  1 accepted = 0 stored + 0 dead-lettered + 1 in flight"])
        assert "1 entry is in flight" in err
        assert sluice(stack, "receipt", "--wait", "--timeout", "1", part["run_id"])[0] == 4
    assert sluice(stack, "receipt", "--wait", part["run_id"])[0] == 0


def test_what_can_not_be_sent_says_why_and_nothing_was(stack: Stack, tmp_path: Path) -> None:
    assert sluice(stack, "send", tmp_path / "none.ndjson")[0] == 1
    assert sluice(stack, "send")[0] == 2
    assert sluice(stack, "send", "-", "--resume", "soon")[0] == 2
    code, lines, err = sluice(stack, "send", "-", "--type", "json", given=b'{"a":1}{"b":2}')
    assert (code, lines) == (1, [])
    assert "No entries can be told apart" in err
    assert "nothing was sent" in err
    code, lines, err = sluice(stack, "receipt", "0" * 32)
    assert (code, lines) == (1, [])
    assert "no receipt of run" in err
    code, _, err = sluice(stack, "send", "-", "--timeout", "1", "--ingestion", "http://127.0.0.1:9", given=b"{}")
    assert code == 4
    assert "given up after 1 s" in err
    assert sluice(stack, "send", "-", "--ingestion", stack.urls["processing"], given=b"{}")[0] == 1


def test_ingestion_killed_in_the_middle_of_a_send_takes_every_entry_once(stack: Stack, tmp_path: Path) -> None:
    process = begin(stack, "send", "--json", "--wait", large(tmp_path / "large.ndjson", "killed"))
    assert process.stdout is not None
    for _ in range(2):
        assert json.loads(process.stdout.readline())["accepted"]
        stack.kill("ingestion")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"trying again for up to" in err
    total = json.loads(out.splitlines()[-1])
    assert (total["parts"], total["accepted"], total["stored"], total["in_flight"]) == (5, 1_000, 1_000, 0)
    assert stored(stack, "killed") == 1_000


class Forgetful(BaseHTTPRequestHandler):
    """Between a client and ingestion: passes requests on, and hangs up instead of giving some of the answers."""

    ingestion: ClassVar[str]
    answers: ClassVar[list[bool]]  # whether the next ones are given; all that follow are

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = {name: self.headers[name] for name in ("Content-Type", "Idempotency-Key")}
        answer = httpx.post(self.ingestion + self.path, content=body, headers=kept, timeout=60)
        if not self.answers or self.answers.pop(0):
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at what arrives."""


@contextmanager
def forgetful(stack: Stack, *answers: bool) -> Iterator[str]:
    """The address of one."""
    own = type("Own", (Forgetful,), {"ingestion": stack.urls["ingestion"], "answers": list(answers)})
    with ThreadingHTTPServer(("127.0.0.1", 0), own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_part_whose_answer_is_lost_is_sent_again_and_counts_once(stack: Stack, tmp_path: Path) -> None:
    with forgetful(stack, True, False, False, True, False) as url:
        *parts, total = sent(stack, "--ingestion", url, large(tmp_path / "large.ndjson", "lost"))
    assert total["accepted"] == 1_000
    code, _, err = sluice(stack, "receipt", "--wait", *(part["run_id"] for part in parts))
    assert code == 0, err
    assert stored(stack, "lost") == 1_000


def test_an_interrupted_send_goes_on_where_it_was_each_entry_once(stack: Stack, tmp_path: Path) -> None:
    path = large(tmp_path / "large.ndjson", "resumed")
    with forgetful(stack, True, True, *([False] * 100)) as url:
        process = begin(stack, "send", "--json", "--ingestion", url, path)
        assert process.stderr is not None
        assert b"trying again" in process.stderr.readline(), "the third part was taken, and its answer was lost"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    *taken, last = map(json.loads, out.splitlines())
    assert [part["part"] for part in taken] == [0, 1]
    _, part, offset, length, _ = last["resume"].split(":")
    assert (int(part), int(offset)) == (2, sum(part["bytes"] for part in taken))
    assert int(length) > 0
    assert f"sluice send --ingestion {url} --resume {last['resume']} -- {path}" in err.decode()
    *parts, total = sent(stack, "--wait", "--resume", last["resume"], path)
    assert [part["part"] for part in parts if "part" in part] == [2, 3, 4]
    assert sum(part["accepted"] for part in taken) + total["accepted"] == 1_000
    assert stored(stack, "resumed") == 1_000
    # another file is not taken for the rest of this one
    code, _, told = sluice(stack, "send", "--resume", last["resume"], large(path, "other"))
    assert code == 1
    assert "other bytes than what was sent" in told
    assert stored(stack, "other") == 0
