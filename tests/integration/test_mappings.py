"""Declared mappings in the running stack: changed under load, refused with what was active staying, a start refused."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from native.kafka import Broker
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka

PUSH = 500


def text_of(revision: int, unit: str) -> str:
    return f"""version: 1
mappings:
  - name: till
    revision: {revision}
    sources: till
    fields:
      duration_s: {{from: lag, unit: {unit}}}
      event_name: {{from: what, required: true}}
    drop: [noise]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mappings")
    (made / "till.yml").write_text(text_of(1, "ms"))
    return made


@pytest.fixture(scope="module")
def mapped(broker: Broker, tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Stack]:
    settings = {"MAPPINGS_DIR": str(folder)}
    with Stack(broker, tmp_path_factory.mktemp("stack"), f"t{uuid.uuid4().hex[:8]}-", settings) as running:
        yield running


def push(stack: Stack, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The receipt of entries of the source till, once they are through."""
    answer = stack.push(b"\n".join(json.dumps(entry).encode() for entry in entries), source="till")
    assert answer.status_code == 200, answer.text
    return stack.receipt(answer.json()["run_id"])


def listed(stack: Stack) -> dict[str, Any]:
    answer = stack.get("standardization", "/standardization/mappings")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def records(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = stack.get("processing", "/analytics/recent", limit=1000, **cursor).json()
        found += page["records"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_mappings_are_changed_under_load_and_refused_with_what_was_active_staying(mapped: Stack, folder: Path) -> None:
    # a change under load: each entry is read by the one or the other, and none by none
    pushed = 0

    def more() -> None:
        nonlocal pushed
        receipt = push(mapped, [{"lag": 60, "what": "sell", "noise": n, "n": pushed + n} for n in range(PUSH)])
        assert receipt["stored"] == PUSH
        pushed += PUSH

    more()
    (folder / "till.yml").write_text(text_of(2, "min"))

    def taken() -> bool:
        more()
        (shown,) = listed(mapped)["mappings"]
        return bool(shown["revision"] == "2")

    eventually(taken, 30, "the changed mapping is taken")
    more()
    found = records(mapped)
    assert sorted(record["attributes"]["n"] for record in found) == list(range(pushed))
    made = Counter((record["attributes"]["sluice.mapping"], record["duration_s"]) for record in found)
    assert set(made) == {("till@1", 0.06), ("till@2", 3600.0)}
    assert made["till@2", 3600.0] >= PUSH
    assert all("noise" not in record["attributes"] for record in found)
    (shown,) = listed(mapped)["mappings"]
    assert (shown["records"], shown["values_dropped"]) == (pushed, pushed)
    assert mapped.metric("standardization", "sluice_mapped_records_total", mapping="till") == pushed

    # what does not fit is a dead letter that names the mapping
    assert push(mapped, [{"lag": 1, "what": None}])["dead_lettered"] == 1
    (letter,) = mapped.get("processing", "/dead-letters").json()["dead_letters"]
    assert letter["detail"] == "mapping till@2: event_name is required, and what has no value"

    # a bad file is refused: healthy enough to work, not wholly well
    (folder / "other.yml").write_text(
        "version: 1\nmappings:\n  - name: other\n    revision: 1\n    sources: x\n    drp: a\n"
    )
    refused = eventually(lambda: listed(mapped)["refused"], 30, "the bad file is refused")
    assert (refused["line"], Path(refused["file"]).name) == (6, "other.yml")
    health = mapped.get("standardization", "/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert "other.yml, line 6" in health.json()["problems"][0]
    assert mapped.get("standardization", "/ready").status_code == 200
    assert mapped.metric("standardization", "sluice_mappings_refused") == 1
    more()
    assert records(mapped)[0]["attributes"]["sluice.mapping"] == "till@2"

    # it stops a start, with the reason; mended, the start goes on where the killed one was
    mapped.kill("standardization")
    mapped.start("standardization")
    assert mapped.processes["standardization"].wait(30) == 2
    assert (
        "other.yml, line 6: mappings.0.drp: there is no such key" in (mapped.folder / "standardization.log").read_text()
    )
    (folder / "other.yml").unlink()
    mapped.start("standardization")
    mapped.wait_until_ready()
    assert mapped.get("standardization", "/health").json()["status"] == "healthy"
    more()
    assert len(records(mapped)) == pushed
