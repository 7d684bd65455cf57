"""The small programs that live in the images: the health check, and what stands before standardization's copies."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from compose import ready, replicas
from native.kafka import free_ports


@contextmanager
def _service(host: str, port: int, status: int, body: str) -> Iterator[int]:
    """A service that answers every GET like this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


# the health check


def test_a_ready_service_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    with _service("127.0.0.1", 0, 200, '{"ready":true}') as port:
        assert ready.main(port) == 0
    assert capsys.readouterr().out == '{"ready":true}\n'


def test_a_service_that_is_not_ready_is_unhealthy_and_its_reasons_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with _service("127.0.0.1", 0, 503, "no broker answers") as port:
        assert ready.main(port) == 1
    assert "no broker answers" in capsys.readouterr().out


def test_a_port_where_nobody_or_somebody_else_answers_is_unhealthy() -> None:
    (port,) = free_ports(1)
    assert ready.main(port) == 1


# targets


def test_every_copy_is_a_target_under_its_containers_name() -> None:
    assert replicas.targets("s", 8002, {"10.0.0.3": "sluice-s-2", "10.0.0.2": "sluice-s-1"}) == [
        {"targets": ["10.0.0.2:8002"], "labels": {"instance": "sluice-s-1:8002"}},
        {"targets": ["10.0.0.3:8002"], "labels": {"instance": "sluice-s-2:8002"}},
    ]


def test_a_service_without_any_copy_stays_a_target_so_that_it_is_seen_to_be_down() -> None:
    assert replicas.targets("s", 8002, {}) == [{"targets": ["s:8002"]}]


def test_a_name_that_does_not_resolve_has_no_copies() -> None:
    assert replicas.resolve("standardization.invalid") == {}


def test_a_targets_file_is_written_when_it_changes_and_only_then(tmp_path: Path) -> None:
    content = replicas.targets("s", 8002, {})
    assert replicas.write(tmp_path, "s", content)
    assert not replicas.write(tmp_path, "s", content)
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    assert json.loads((tmp_path / "s.json").read_text()) == content


# the one port


async def _asked(addresses: list[str], port: int, times: int) -> list[tuple[int, str]]:
    """The answers of connections through the front to copies at these addresses."""
    front = replicas.Front(port)
    front.addresses = addresses
    async with await front.serve("127.0.0.1", 0) as server, httpx.AsyncClient() as client:
        own = server.sockets[0].getsockname()[1]
        answers = []
        for _ in range(times):
            answer = await client.get(f"http://127.0.0.1:{own}/", headers={"Connection": "close"})
            answers.append((answer.status_code, answer.text))
        return answers


def test_connections_go_to_the_copies_in_turn() -> None:
    with _service("127.0.0.2", 0, 200, "first") as port, _service("127.0.0.3", port, 200, "second"):
        answers = asyncio.run(_asked(["127.0.0.2", "127.0.0.3"], port, 4))
    assert sorted(answers) == [(200, "first"), (200, "first"), (200, "second"), (200, "second")]


def test_a_copy_that_died_is_passed_over() -> None:
    with _service("127.0.0.2", 0, 200, "alive") as port:
        assert asyncio.run(_asked(["127.0.0.2", "127.0.0.3"], port, 4)) == [(200, "alive")] * 4


def test_without_any_copy_the_answer_is_503() -> None:
    (port,) = free_ports(1)
    ((status, body),) = asyncio.run(_asked([], port, 1))
    assert status == 503
    assert "no copy" in body


def test_a_large_answer_comes_through_whole() -> None:
    body = "0123456789" * 500_000
    with _service("127.0.0.2", 0, 200, body) as port:
        assert asyncio.run(_asked(["127.0.0.2"], port, 1)) == [(200, body)]
