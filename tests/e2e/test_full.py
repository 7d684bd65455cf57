"""What takes longer: volume, size, paging, and what Prometheus makes of it."""

import hashlib
import json
import time

import httpx

from native.client import Client
from native.settings import NativeSettings

MIB = 1024 * 1024


def test_twenty_thousand_entries_are_stored_once_each(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    body = b"\n".join(
        json.dumps(
            {"source": source, "api": f"op{i % 7}", "status": "ok", "duration_seconds": i / 1000, "n": i}
        ).encode()
        for i in range(20_000)
    )
    taken = http.post(
        settings.url("ingestion") + "/ingest", content=body, headers={"content-type": "application/x-ndjson"}
    ).raise_for_status()
    receipt = client.wait_until_drained(taken.json()["run_id"])
    assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (20_000, 20_000, 0)
    assert client.get("processing", "/analytics/summary", source=source)["by_source"] == {source: {"SUCCESS": 20_000}}


def test_a_large_entry_travels_in_chunks_and_comes_back_identical(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    entry = json.dumps({"source": source, "api": "large", "status": "ok", "payload": "ab" * (4 * MIB)}).encode()
    taken = http.post(
        settings.url("ingestion") + "/ingest", content=entry, headers={"content-type": "application/json"}
    ).raise_for_status()
    assert client.wait_until_drained(taken.json()["run_id"])["stored"] == 1
    (record,) = client.get("processing", "/analytics/recent", source=source)["records"]
    digest = hashlib.sha256()
    with http.stream("GET", settings.url("processing") + f"/records/{record['record_id']}/raw") as answer:
        assert answer.status_code == httpx.codes.OK, answer.read()
        for piece in answer.iter_bytes():
            digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(entry).hexdigest()


def test_pages_show_every_record_once(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    entries = [{"source": source, "api": "paged", "status": "ok", "n": i} for i in range(25)]
    taken = http.post(settings.url("ingestion") + "/ingest", json=entries).raise_for_status()
    client.wait_until_drained(taken.json()["run_id"])
    seen: list[str] = []
    cursor: dict[str, str | int] = {}
    while True:
        page = client.get("processing", "/analytics/recent", source=source, limit=10, **cursor)
        assert page["total"] == 25
        seen += [record["record_id"] for record in page["records"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(set(seen)) == 25


def test_prometheus_scrapes_all_three_services_itself_and_alertmanager(
    http: httpx.Client, settings: NativeSettings
) -> None:
    deadline = time.monotonic() + 30  # it may just have started: a scrape comes every 5 s
    while True:
        found = http.get(settings.url("prometheus") + "/api/v1/targets").raise_for_status().json()
        health = {target["labels"]["job"]: target["health"] for target in found["data"]["activeTargets"]}
        if health == dict.fromkeys([*settings.service_ports, "prometheus", "alertmanager"], "up"):
            break
        assert time.monotonic() < deadline, health
        time.sleep(0.5)


def test_prometheus_has_loaded_the_alert_rules(http: httpx.Client, settings: NativeSettings) -> None:
    found = http.get(settings.url("prometheus") + "/api/v1/rules").raise_for_status().json()
    rules = [rule for group in found["data"]["groups"] for rule in group["rules"]]
    assert {"SluiceServiceDown", "SluiceKafkaUnreachable"} <= {rule["name"] for rule in rules}
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


def test_a_dead_letter_is_told_of_by_an_alert_and_kept_in_its_history(
    client: Client, http: httpx.Client, settings: NativeSettings, source: str
) -> None:
    body = json.dumps({"source": source, "duration_seconds": "soon"}).encode()
    http.post(
        settings.url("ingestion") + "/ingest", content=body, headers={"content-type": "application/json"}
    ).raise_for_status()
    deadline = time.monotonic() + 120
    while True:
        firing = client.get("processing", "/alerts", alertname="SluiceDeadLetters")
        reasons = {alert["labels"]["reason"]: alert for alert in firing["alerts"]}
        # the Watchdog is sent again each minute, and is first sent before Alertmanager is there
        if "invalid_field" in reasons and firing["watchdog"]:
            break
        assert time.monotonic() < deadline, f"not told of within 120 s: {firing}"
        time.sleep(0.5)
    shown = reasons["invalid_field"]
    told = client.get("processing", "/alerts/history", alertname="SluiceDeadLetters", status="firing")["alerts"]
    keys = [(alert["fingerprint"], alert["starts_at"]) for alert in told]
    assert keys.count((shown["fingerprint"], shown["starts_at"])) == 1
    known = http.get(settings.url("alertmanager") + "/api/v2/alerts").raise_for_status().json()
    assert shown["fingerprint"] in {alert["fingerprint"] for alert in known}
