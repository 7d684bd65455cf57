"""Free text through the running stack: its template in the store, and what standardization knows after a kill -9."""

import threading
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from shared import kafka
from shared.config import Settings
from shared.topics import H_CONTENT_TYPE, RAW_LOGS
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka

NAMES = ("anna", "bob", "carol", "dave", "erin", "frank")
OPENED = "session opened for user <*> today"


def write(stack: Stack, texts: Sequence[str]) -> None:
    """As a producer of others would: messages of plain text, in one transaction."""
    settings = Settings(
        kafka_bootstrap=stack.broker.bootstrap, topic_prefix=stack.prefix, data_dir=stack.folder / "producer"
    )
    writer = kafka.Transactions(settings, "test", f"test-{uuid.uuid4().hex}")
    assert writer.prepare(threading.Event())
    writer.begin()
    for text in texts:
        writer.send(settings.topic(RAW_LOGS), text.encode(), b"hosts", 0, [(H_CONTENT_TYPE, b"text/plain")])
    writer.commit()
    writer.discard()


def stored(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The records, the newest first, once there are so many."""

    def look() -> list[dict[str, Any]] | None:
        page = stack.get("processing", "/analytics/recent", limit=100).json()
        found: list[dict[str, Any]] = page["records"]
        return found if page["total"] >= count else None

    records = eventually(look, 60, f"{count} records are stored")
    assert len(records) == count
    return records


def known(stack: Stack) -> dict[str, dict[str, Any]]:
    answer = stack.get("standardization", "/standardization/templates")
    assert answer.status_code == 200, answer.text
    return {template["template"]: template for template in answer.json()["templates"]}


def test_templates_are_in_the_store_and_outlive_a_kill_of_standardization(stack: Stack) -> None:
    write(stack, [f"session opened for user {name} today" for name in NAMES])
    records = {record["body"]: record for record in stored(stack, len(NAMES))}
    last = records["session opened for user frank today"]["attributes"]
    assert last["log_template"] == OPENED
    assert last["log_template_params"] == '["frank"]'
    before = known(stack)
    assert before[OPENED]["count"] == len(NAMES)
    assert before[OPENED]["template_id"] == last["log_template_id"]
    ids = {record["attributes"]["log_template_id"] for record in records.values()}
    assert ids == {before[OPENED]["template_id"], *before[OPENED]["former_ids"]}

    stack.kill("standardization")
    stack.start("standardization")
    eventually(lambda: stack.ready("standardization"), 60, "standardization is ready again")
    assert known(stack) == before
    write(stack, ["session opened for user grace today"])
    newest = stored(stack, len(NAMES) + 1)[0]["attributes"]
    assert newest["log_template_id"] == last["log_template_id"], "no word is learned twice"
    assert known(stack)[OPENED]["count"] == len(NAMES) + 1


def test_a_line_of_syslog_is_read_as_one_through_the_running_stack(stack: Stack) -> None:
    before = stack.get("processing", "/analytics/recent", limit=1).json()["total"]
    write(stack, ["<34>1 2026-01-11T22:14:15.003Z host-1 su 42 ID47 - 'su root' failed for 7"])
    record = stored(stack, before + 1)[0]
    assert (record["service_name"], record["event_name"], record["severity_number"]) == ("su", "ID47", 18)
    assert record["resource"]["host.name"] == "host-1"
    assert record["attributes"]["log_template"] == "'su root' failed for <*>"
    assert stack.metric("standardization", "sluice_text_entries_total", format="syslog") == 1.0


def test_what_must_not_be_stored_is_in_no_record_but_in_the_original(stack: Stack) -> None:
    before = stack.get("processing", "/analytics/recent", limit=1).json()["total"]
    entry = b'{"source":"shop","message":"paid by anna@shop.example","password":"hunter2"}'
    assert stack.push(entry).status_code == 200
    record = stored(stack, before + 1)[0]
    assert record["body"] == "paid by [redacted:email]"
    assert record["attributes"] == {"password": "[redacted:password]"}
    assert stack.metric("standardization", "sluice_redactions_total", rule="email") == 1.0
    assert stack.get("processing", f"/records/{record['record_id']}/raw").content == entry

    url = stack.urls["standardization"] + "/standardization/preview?source=shop"
    seen = stack.client.post(url, content=entry, headers={"Content-Type": "application/json"}).json()
    assert seen["record"]["body"] == record["body"]
    assert stack.get("processing", "/analytics/recent", limit=1).json()["total"] == before + 1, "nothing was written"
