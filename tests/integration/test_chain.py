"""From a push to the store and its API, on a real Kafka."""

import os
import threading
from collections.abc import Iterator

import pytest

from native.kafka import Broker
from shared import kafka
from shared.config import Settings
from shared.topics import H_KIND, PROCESSED_METRICS
from tests.integration.entries import garbage, plain, plain_lines
from tests.integration.stack import Stack, eventually

pytestmark = pytest.mark.kafka

MIB = 1024 * 1024

FACTS = {
    "sharepoint_graph": {"SUCCESS": 31, "FAILED": 1},
    "Efficy": {"SUCCESS": 16},
    "zohobooks": {"SUCCESS": 9},
    "EasyProjects": {"SUCCESS": 8},
    "PowerBI": {"SUCCESS": 6},
    "zohoprojects": {"SUCCESS": 1},
}


@pytest.fixture
def fresh(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of one test's own, with nothing in it."""
    folder = tmp_path_factory.mktemp("fresh")
    with Stack(broker, folder, f"{folder.name}-") as running:
        yield running


def trigger(stack: Stack) -> str:
    answer = stack.get("ingestion", "/ingest/trigger")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["accepted"] == 72
    assert found["file"] == "logs.json"
    run_id: str = found["run_id"]
    assert stack.receipt(run_id)["stored"] == 72
    return run_id


def test_the_facts_of_logs_json_come_out_to_the_digit_and_threefold_after_three_triggers(fresh: Stack) -> None:
    trigger(fresh)
    summary = fresh.summary()
    assert summary["total"] == 72
    assert summary["by_source"] == FACTS
    assert summary["duration_seconds"]["max"] == 787
    assert summary["slowest"][0]["source"] == "EasyProjects"
    assert summary["slowest"][0]["operation"] == "Timelogs"
    assert summary["memory_bytes"]["max"] == 177_000_000
    assert summary["success_rate"] == pytest.approx(71 / 72)
    anomalies = fresh.get("processing", "/analytics/anomalies").json()["anomalies"]
    assert {(a["event_name"], a["reason"]) for a in anomalies} == {
        ("EventFactureApplication", "failure"),
        ("Timelogs", "long_duration"),
    }

    trigger(fresh)
    trigger(fresh)
    summary = fresh.summary()
    assert summary["total"] == 216
    assert summary["by_source"] == {
        source: {status: 3 * count for status, count in counts.items()} for source, counts in FACTS.items()
    }
    for source, counts in FACTS.items():
        for status, count in counts.items():
            assert fresh.metric("processing", "log_entries_by_source_total", source=source, status=status) == 3 * count

    for name in ("processing", "standardization", "ingestion"):
        assert fresh.terminate(name) == 0
        fresh.start(name)
    fresh.wait_until_ready()
    assert fresh.summary()["total"] == 216
    assert fresh.metric("processing", "log_entries_by_source_total", source="Efficy", status="SUCCESS") == 48


def test_a_record_and_its_anomaly_travel_under_the_key_of_their_series(stack: Stack) -> None:
    answer = stack.push(b'{"source": "keyed", "api": "Fails", "status": "FAILED"}', kind="application/json")
    stack.receipt(answer.raise_for_status().json()["run_id"])
    settings = Settings(_env_file=None, kafka_bootstrap=stack.broker.bootstrap, topic_prefix=stack.prefix)
    topic = settings.topic(PROCESSED_METRICS)
    places = [(topic, partition) for partition in range(settings.partitions)]
    found = [
        (dict(message.headers() or ())[H_KIND], message.key())
        for message in kafka.read_to_end(settings, kafka.Topics(settings, "test"), places, threading.Event())
        if b'"keyed"' in (message.value() or b"") and dict(message.headers() or ())[H_KIND] != b"window"
    ]
    assert sorted(found) == [(b"anomaly", b"keyed/Fails"), (b"record", b"keyed/Fails")]


def test_a_dead_letter_of_a_large_frame_leads_back_to_its_own_bytes(stack: Stack) -> None:
    """Entries are standardized in pieces of a frame; the place of each is its place in the frame."""
    lines = [b'{"source": "pieces", "n": %d}' % number for number in range(600)]
    broken = {number: b'{"broken": %d' % number for number in (0, 255, 256, 300, 599)}
    for number, line in broken.items():
        lines[number] = line
    run_id = stack.push(b"\n".join(lines)).raise_for_status().json()["run_id"]
    receipt = stack.receipt(run_id)
    assert (receipt["stored"], receipt["dead_lettered"]) == (595, 5)
    letters = stack.get("processing", "/dead-letters", run=run_id, limit=10).json()["dead_letters"]
    assert {255, 256, 300} <= {letter["index"] for letter in letters}, "all but the last lie in one frame"
    found = {stack.get("processing", f"/records/{letter['record_id']}/raw").content for letter in letters}
    assert found == set(broken.values())


def test_a_receipt_adds_up_when_every_tenth_entry_is_garbage(stack: Stack) -> None:
    kinds = list(garbage())
    lines: list[bytes] = []
    dead = 0
    for number in range(200):
        if number % 10 == 9:
            _, line, is_dead = kinds[number // 10 % len(kinds)]
            lines += [line, b"", b"   "]  # empty lines are no entries
            dead += is_dead
        else:
            lines.append(plain(number))
    answer = stack.push(b"\n".join(lines))
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == 200
    receipt = stack.receipt(answer.json()["run_id"])
    assert receipt["dead_lettered"] == dead
    assert receipt["stored"] == 200 - dead
    letters = stack.get("processing", "/dead-letters", run=answer.json()["run_id"], limit=100).json()
    assert letters["total"] == dead
    assert all(letter["reason"] and letter["detail"] for letter in letters["dead_letters"])


def test_a_64_mib_entry_travels_in_chunks_and_its_bytes_come_back_identical(stack: Stack) -> None:
    body = b'{"source":"big","blob":"' + os.urandom(32 * MIB).hex().encode() + b'"}'
    answer = stack.push(body, kind="application/json")
    assert answer.status_code == 200, answer.text
    assert stack.receipt(answer.json()["run_id"])["stored"] == 1
    (record,) = stack.get("processing", "/analytics/recent", source="unknown", limit=1).json()["records"]
    assert record["original_bytes"] == len(body)
    with stack.client.stream("GET", f"{stack.urls['processing']}/records/{record['record_id']}/raw") as raw:
        assert raw.status_code == 200
        assert b"".join(raw.iter_raw()) == body
    assert stack.resident_bytes("ingestion", peak=True) < 300_000_000
    assert stack.resident_bytes("standardization", peak=True) < 300_000_000
    assert stack.resident_bytes("processing", peak=True) < 800_000_000


def test_a_record_leads_to_its_original_line_within_a_frame(stack: Stack) -> None:
    lines = [plain(number) for number in range(50)]
    run_id = stack.push(b"\n".join(lines)).json()["run_id"]
    stack.receipt(run_id)
    records = stack.get("processing", "/analytics/recent", limit=50).json()["records"]
    for record in records[:5]:
        raw = stack.get("processing", f"/records/{record['record_id']}/raw")
        assert raw.content == lines[record["attributes"]["number"]]


def test_raw_bytes_of_no_record_are_404_and_of_a_topic_made_anew_410(stack: Stack) -> None:
    assert stack.get("processing", "/records/what/raw").status_code == 404
    assert stack.get("processing", "/records/00000000-0-0-0/raw").status_code == 410


def test_all_of_a_push_is_in_the_store_once_though_it_is_pushed_twice_with_one_key(stack: Stack) -> None:
    body = plain_lines(1_000)
    before = stack.summary()["total"]
    first = stack.push(body, key="once", source="shop").json()
    second = stack.push(body, key="once", source="shop").json()
    other = stack.push(body, key="once", source="another shop").json()
    assert first == second
    assert other["run_id"] != first["run_id"]
    stack.receipt(first["run_id"])
    stack.receipt(other["run_id"])
    eventually(
        lambda: (stack.metric("standardization", "sluice_push_attempts_dropped_total") or 0) >= 1,
        30,
        "the second attempt is dropped",
    )
    marker = stack.push(plain(1)).json()["run_id"]
    stack.receipt(marker)
    assert stack.summary()["total"] == before + 2_001
    assert stack.receipt(first["run_id"])["stored"] == 1_000


def test_a_lone_entry_is_soon_among_the_recent(stack: Stack) -> None:
    run_id = stack.push(plain(7)).json()["run_id"]
    eventually(
        lambda: stack.get("processing", "/analytics/recent", limit=1).json()["records"][0]["run_id"] == run_id,
        10,
        "recent",
    )
