"""A receipt is waited for as long as was said, whatever the service does."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from console.client import Client
from console.exits import UnfinishedError
from console.receipt import follow

IN_FLIGHT = {"run_id": "r1", "accepted": 1, "stored": 0, "dead_lettered": 0, "in_flight": 1, "complete": False}


@contextmanager
def silent(answers: int) -> Iterator[Client]:
    """Of a service that answers so many times that the entry is in flight, and then no more."""
    asked: list[str] = []
    ended = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) > answers:
                ended.wait(60)
                return
            content = json.dumps(IN_FLIGHT).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", as_json=False) as service:
                yield service
        finally:
            ended.set()
            server.shutdown()


def test_a_service_that_does_not_answer_is_waited_for_no_longer_than_was_said() -> None:
    begun = time.monotonic()
    with silent(0) as service, pytest.raises(UnfinishedError, match=r"not known after 1\.5 s .*does not answer"):
        list(follow(service, ["r1"], 1.5, lambda _: None, accepted=True))
    assert 1.5 <= time.monotonic() - begun < 20


def test_a_service_that_falls_silent_leaves_what_was_seen_last() -> None:
    begun = time.monotonic()
    with silent(1) as service:
        assert list(follow(service, ["r1"], 1.5, lambda _: None, accepted=True)) == [IN_FLIGHT]
    assert 1.5 <= time.monotonic() - begun < 20
