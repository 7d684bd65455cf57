"""Declared sources through the whole chain, and copies of ingestion that share them."""

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from native.kafka import Broker, free_ports
from tests.integration.declaring import Ingestion
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path, int]]:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "logs").mkdir()
    (port,) = free_ports(1)
    (folder / "sources.yaml").write_text(f"""\
sources:
  access:
    kind: tail
    path: {folder}/logs/access.log
    content_type: text/x-access-log
  routers:
    kind: syslog
    listen: 127.0.0.1:{port}
  drop:
    kind: file
    path: {folder}/logs/*.csv
    settle_seconds: 0
""")
    settings = {"SOURCES_FILE": str(folder / "sources.yaml")}
    with Stack(broker, folder, f"t{uuid.uuid4().hex[:8]}-", settings) as running:
        yield running, folder, port


def test_what_declared_sources_bring_is_stored_under_their_names(stack: tuple[Stack, Path, int]) -> None:
    running, folder, port = stack
    line = '10.0.0.7 - - [05/Jan/2026:22:14:15 +0000] "GET /cart HTTP/1.1" 500 12 "-" "curl"\n'
    (folder / "logs" / "access.log").write_text(line * 3)
    (folder / "logs" / "a.csv").write_text("api,status\nExport,ok\nExport,failed\n")
    with socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall(b"<27>Jan  5 22:14:15 edge-1 bgpd[7]: session lost\nno syslog\n")
    eventually(lambda: running.summary()["total"] == 7, 60, "all are stored")
    assert running.summary()["by_source"] == {
        "access": {"FAILED": 3},
        "drop": {"SUCCESS": 1, "FAILED": 1},
        "bgpd": {"UNKNOWN": 1},
        "routers": {"UNKNOWN": 1},
    }
    sources = running.get("ingestion", "/ingest/sources").json()
    assert [(each["name"], each["entries"]) for each in sources["sources"]] == [
        ("access", 3),
        ("routers", 2),
        ("drop", 2),
    ]
    receipt = running.receipt(sources["sources"][2]["details"]["files"][0]["run_id"])
    assert (receipt["accepted"], receipt["stored"], receipt["source"]) == (2, 2, "drop")


def test_of_copies_one_runs_a_source_and_another_takes_over(broker: Broker, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"one\n")
    sources = f"sources:\n  app:\n    kind: tail\n    path: {log}\n"
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    with Ingestion(broker, tmp_path, prefix, sources, COPIES="2") as first:
        first.wait_for("app", [b"one"])
        second = Ingestion(broker, tmp_path, prefix, sources, COPIES="2")
        second.start("ingestion")
        try:
            state = eventually(lambda: _state(second), 60, "the second stands by")
            assert "stands by" in state
            second.wait_until_ready()
            log.write_bytes(b"one\ntwo\n")
            first.wait_for("app", [b"one", b"two"])
            first.kill("ingestion")
            with log.open("ab") as file:
                file.write(b"three\n")
            eventually(lambda: _state(second) == "running", 60, "the second takes over")
            second.wait_for("app", [b"one", b"two", b"three"])
        finally:
            second.stop()


def _state(ingestion: Ingestion) -> str:
    """What the source is at, once its thread is at anything."""
    try:
        state: str = ingestion.source("app")["state"]
    except httpx.HTTPError:
        return ""
    return "" if "not begun" in state else state
