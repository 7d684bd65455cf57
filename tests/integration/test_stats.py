"""GET /stats on the real stack: the topics as they are, and every part's health in one place."""

import time
from datetime import datetime
from typing import Any

import pytest

from tests.integration.entries import plain_lines
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka


def stats(stack: Stack) -> dict[str, Any]:
    answer = stack.get("processing", "/stats")
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def test_topics_tell_what_they_hold_and_what_is_pending(stack: Stack) -> None:
    assert stats(stack)["topics"]["raw-logs"]["oldest"] is None
    begun = time.time()
    taken = stack.push(plain_lines(1_000)).json()
    stack.receipt(taken["run_id"])

    def drained() -> dict[str, Any] | None:
        topics: dict[str, Any] = stats(stack)["topics"]
        chain = [topics[name] for name in ("raw-logs", "standardized-logs", "processed-metrics", "ingest-runs")]
        return topics if all(topic["pending_messages"] == 0 for topic in chain) else None

    topics = eventually(drained, 40, "nothing is pending any more")
    raw = topics["raw-logs"]
    assert raw["pending_by_group"] == {"standardization": 0}
    assert {name: topics[name]["subscriber_count"] for name in ("raw-logs", "standardized-logs", "dead-letters")} == {
        "raw-logs": 1,
        "standardized-logs": 1,
        "dead-letters": 1,
    }
    assert raw["queue_size"] >= 1
    assert raw["bytes"] > 1_000
    assert begun - 5 <= datetime.fromisoformat(raw["oldest"]).timestamp() <= time.time() + 5
    assert raw["oldest"] <= raw["newest"]
    assert topics["dead-letters"]["queue_size"] == 0


def test_the_status_is_that_of_the_worst_part(stack: Stack) -> None:
    status = eventually(lambda: (s := stats(stack)["status"])["status"] == "healthy" and s, 30, "all is healthy")
    assert set(status["components"]) == {"ingestion", "standardization", "processing", "kafka", "store"}

    stack.terminate("standardization")
    waiting = stack.push(plain_lines(10)).json()
    try:
        status = stats(stack)["status"]
        assert status["status"] == "unreachable"
        assert status["components"]["standardization"]["status"] == "unreachable"
        assert status["components"]["ingestion"]["status"] == "healthy"
        pending = eventually(lambda: stats(stack)["topics"]["raw-logs"]["pending_messages"], 30, "it is pending")
        assert pending in (1, 2), "ten entries in one frame are one message; the end of its transaction may count, too"
        assert stats(stack)["topics"]["raw-logs"]["subscriber_count"] == 0
    finally:
        stack.start("standardization")
    stack.receipt(waiting["run_id"])
