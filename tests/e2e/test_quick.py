"""What a newcomer is promised, in seconds."""

import json

import httpx
import pytest

from native.client import Client
from native.settings import NativeSettings

pytestmark = pytest.mark.quick

FACTS = {
    "sharepoint_graph": {"SUCCESS": 31, "FAILED": 1},
    "Efficy": {"SUCCESS": 16},
    "zohobooks": {"SUCCESS": 9},
    "EasyProjects": {"SUCCESS": 8},
    "PowerBI": {"SUCCESS": 6},
    "zohoprojects": {"SUCCESS": 1},
}


def test_every_trigger_of_logs_json_adds_its_facts_to_the_digit(client: Client) -> None:
    before = client.summary()["by_source"]
    taken = client.trigger()
    assert taken["file"] == "logs.json"
    assert taken["accepted"] == 72
    receipt = client.wait_until_drained(taken["run_id"])
    assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (72, 72, 0)
    after = client.summary()["by_source"]
    for source, counts in FACTS.items():
        for status, entries in counts.items():
            assert after[source][status] == before.get(source, {}).get(status, 0) + entries, (source, status)


def test_the_failed_entry_and_the_longest_one_stand_out(client: Client) -> None:
    run_id = client.trigger()["run_id"]
    client.wait_until_drained(run_id)
    failed = client.get("processing", "/analytics/anomalies", source="sharepoint_graph", reason="failure", limit=1)
    assert failed["anomalies"][0]["event_name"] == "EventFactureApplication"
    slowest = client.summary()["slowest"][0]
    assert (slowest["source"], slowest["operation"], slowest["duration_seconds"]) == ("EasyProjects", "Timelogs", 787.0)


def test_an_entry_pushed_is_found_with_its_original_bytes(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    body = json.dumps({"source": source, "api": "hello", "status": "SUCCESS", "duration_seconds": 0.25, "är": [1, 2]})
    taken = http.post(
        settings.url("ingestion") + "/ingest", content=body.encode(), headers={"content-type": "application/json"}
    ).raise_for_status()
    client.wait_until_drained(taken.json()["run_id"])
    (record,) = client.get("processing", "/analytics/recent", source=source)["records"]
    assert (record["event_name"], record["duration_s"], record["outcome"]) == ("hello", 0.25, "success")
    raw = http.get(settings.url("processing") + f"/records/{record['record_id']}/raw").raise_for_status()
    assert raw.content == body.encode()


def test_garbage_is_accounted_for_and_not_lost(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    lines = [json.dumps({"source": source, "api": "a", "status": "ok"}).encode() for _ in range(9)]
    body = b"\n".join([*lines, b'{"source": "cut off'])
    taken = http.post(
        settings.url("ingestion") + "/ingest", content=body, headers={"content-type": "application/x-ndjson"}
    ).raise_for_status()
    receipt = client.wait_until_drained(taken.json()["run_id"])
    assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (10, 9, 1)


def test_a_push_repeated_with_its_key_counts_once(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    body = json.dumps({"source": source, "api": "once", "status": "ok"}).encode()
    headers = {"content-type": "application/json", "idempotency-key": source}
    runs = {
        http.post(settings.url("ingestion") + "/ingest", content=body, headers=headers)
        .raise_for_status()
        .json()["run_id"]
        for _ in range(3)
    }
    (run_id,) = runs
    client.wait_until_drained(run_id)
    assert client.get("processing", "/analytics/summary", source=source)["total"] == 1


def test_a_file_outside_the_ingest_folder_is_refused(http: httpx.Client, settings: NativeSettings) -> None:
    for name in ("../../etc/passwd", "/etc/passwd"):
        answer = http.post(settings.url("ingestion") + "/ingest/trigger", params={"file": name})
        assert 400 <= answer.status_code < 500, name
        assert answer.headers["content-type"] == "application/problem+json"


def test_every_service_is_healthy_and_exports_its_metrics(
    client: Client, http: httpx.Client, settings: NativeSettings
) -> None:
    for service in settings.service_ports:
        assert client.get(service, "/health")["status"] == "healthy"
        exposition = http.get(settings.url(service) + "/metrics").raise_for_status().text
        assert f'sluice_active_connections{{service="{service}"}} 1.0' in exposition


def test_the_exact_counts_are_a_metric_too(client: Client, http: httpx.Client, settings: NativeSettings) -> None:
    client.wait_until_drained(client.trigger()["run_id"])
    stored = client.summary()["by_source"]["EasyProjects"]["SUCCESS"]
    exposition = http.get(settings.url("processing") + "/metrics").raise_for_status().text
    (line,) = [
        line
        for line in exposition.splitlines()
        if line.startswith("log_entries_by_source_total{") and '"EasyProjects"' in line and '"SUCCESS"' in line
    ]
    assert float(line.rsplit(" ", 1)[1]) == stored
