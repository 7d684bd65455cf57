"""The history of alerts: taken from Alertmanager's webhook, each firing and each resolution once, on both engines."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from processing.api import routers
from processing.api.alerts import ALERTS_MAX, BODY_MAX, TEXT_MAX
from processing.store import Store
from shared.config import Settings
from shared.service import Service
from tests.contract.conftest import Open
from tests.contract.samples import record, store_rows

NEVER = "0001-01-01T00:00:00Z"


def alert(
    name: str = "SluiceDeadLetters",
    status: str = "firing",
    starts: str = "2026-11-20T10:00:00.123Z",
    ends: str = NEVER,
    fingerprint: str = "",
    **labels: str,
) -> dict[str, Any]:
    """An alert as Alertmanager tells it; its fingerprint is made of its name unless it is given."""
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "warning", **labels},
        "annotations": {"summary": f"{name} fires", "description": "why", "runbook_url": "docs/runbook.md#x"},
        "startsAt": starts,
        "endsAt": ends,
        "generatorURL": "http://127.0.0.1:9090/graph",
        "fingerprint": fingerprint or name.encode().hex()[-16:],
    }


def notification(*alerts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The whole payload, as Alertmanager 0.25 and 0.33 send it."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="x"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "warning",
        "groupLabels": {"alertname": "x"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:9093",
        "alerts": list(alerts),
        **fields,
    }


def tell(client: httpx.Client, *alerts: dict[str, Any]) -> dict[str, int]:
    answer = client.post("/alerts/webhook", json=notification(*alerts))
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = answer.json()
    return found


def get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    return detail


def test_without_any_alert_nothing_fires_and_the_watchdog_is_missed(client: httpx.Client) -> None:
    assert get(client, "/alerts") == {"total": 0, "alerts": [], "next_cursor": None, "watchdog": False}
    assert get(client, "/alerts/history") == {"total": 0, "alerts": [], "next_cursor": None}


def test_a_firing_is_shown_with_all_that_was_told(client: httpx.Client) -> None:
    assert tell(client, alert(service="processing", stage="sink")) == {"added": 1, "known": 0}
    (shown,) = get(client, "/alerts")["alerts"]
    assert shown.pop("stored_at") > "2026"
    assert shown == {
        "alertname": "SluiceDeadLetters",
        "status": "firing",
        "severity": "warning",
        "service": "processing",
        "summary": "SluiceDeadLetters fires",
        "description": "why",
        "starts_at": "2026-11-20T10:00:00.123Z",
        "ends_at": None,
        "labels": {
            "alertname": "SluiceDeadLetters",
            "severity": "warning",
            "service": "processing",
            "stage": "sink",
        },
        "annotations": {
            "summary": "SluiceDeadLetters fires",
            "description": "why",
            "runbook_url": "docs/runbook.md#x",
        },
        "runbook_url": "docs/runbook.md#x",
        "dashboard_url": None,
        "fingerprint": b"SluiceDeadLetters".hex()[-16:],
    }


def test_a_notification_that_is_repeated_adds_nothing(client: httpx.Client) -> None:
    fired, again = alert(), alert()
    again["annotations"]["summary"] = "another value by now"
    assert tell(client, fired) == {"added": 1, "known": 0}
    assert tell(client, again) == {"added": 0, "known": 1}
    assert tell(client, fired, again) == {"added": 0, "known": 2}
    page = get(client, "/alerts/history")
    assert page["total"] == 1
    assert page["alerts"][0]["summary"] == "SluiceDeadLetters fires"


def test_a_resolution_ends_a_firing_and_both_stay_in_the_history(client: httpx.Client) -> None:
    tell(client, alert())
    assert tell(client, alert(status="resolved", ends="2026-11-20T10:05:00Z")) == {"added": 1, "known": 0}
    assert tell(client, alert(status="resolved", ends="2026-11-20T10:05:00Z")) == {"added": 0, "known": 1}
    assert get(client, "/alerts")["total"] == 0
    resolved, fired = get(client, "/alerts/history")["alerts"]
    assert (resolved["status"], resolved["ends_at"]) == ("resolved", "2026-11-20T10:05:00Z")
    assert (fired["status"], fired["ends_at"]) == ("firing", None)


def test_an_alert_that_fires_again_fires_and_has_two_firings_in_its_history(client: httpx.Client) -> None:
    tell(client, alert())
    tell(client, alert(status="resolved", ends="2026-11-20T10:05:00Z"))
    tell(client, alert(starts="2026-11-20T11:00:00Z"))
    (shown,) = get(client, "/alerts")["alerts"]
    assert shown["starts_at"] == "2026-11-20T11:00:00Z"
    statuses = [each["status"] for each in get(client, "/alerts/history")["alerts"]]
    assert statuses == ["firing", "resolved", "firing"]


def test_a_firing_that_is_told_after_its_resolution_does_not_fire_again(client: httpx.Client) -> None:
    """Alertmanager repeats what was not answered; what counts is when it happened, not when it was told."""
    tell(client, alert(status="resolved", ends="2026-11-20T10:05:00Z"))
    tell(client, alert())
    assert get(client, "/alerts")["total"] == 0
    assert get(client, "/alerts/history")["total"] == 2


def test_notifications_at_the_same_time_leave_each_firing_once(client: httpx.Client, settings: Settings) -> None:
    payload = notification(*(alert(f"A{n}", fingerprint=f"{n:016x}") for n in range(20)))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/alerts/webhook", json=payload), range(16)))
    assert {answer.status_code for answer in answers} == {200}, settings
    assert get(client, "/alerts/history")["total"] == 20
    names = [each["alertname"] for each in get(client, "/alerts/history", limit=100)["alerts"]]
    assert sorted(names) == sorted(f"A{n}" for n in range(20))


def test_the_watchdog_says_that_the_way_here_works_and_is_no_trouble(client: httpx.Client) -> None:
    tell(client, alert("Watchdog", severity="none"), alert())
    page = get(client, "/alerts")
    assert (page["watchdog"], page["total"]) == (True, 1)
    assert get(client, "/alerts/history", alertname="Watchdog")["total"] == 1
    tell(client, alert("Watchdog", "resolved", ends="2026-11-20T10:05:00Z", severity="none"))
    assert get(client, "/alerts")["watchdog"] is False


def test_filters_select_by_name_severity_service_status_and_time(client: httpx.Client) -> None:
    tell(
        client,
        alert("A", starts="2026-11-20T10:00:00Z", severity="critical", service="sink"),
        alert("B", starts="2026-11-20T11:00:00Z"),
        alert("B", status="resolved", starts="2026-11-20T11:00:00Z", ends="2026-11-20T11:30:00Z"),
    )

    def total(**by: str) -> int:
        found: int = get(client, "/alerts/history", **by)["total"]
        return found

    assert total() == 3
    assert total(alertname="B") == 2
    assert total(severity="critical") == total(service="sink") == total(status="resolved") == 1
    assert total(**{"from": "2026-11-20T11:00:00Z"}) == 2
    assert total(to="2026-11-20T11:00:00Z") == 1
    assert get(client, "/alerts", severity="critical")["total"] == 1
    assert get(client, "/alerts", severity="warning")["total"] == 0
    assert "status" in refused(client.get("/alerts", params={"status": "firing"}), 422), "it would say nothing"
    assert "colour" in refused(client.get("/alerts/history", params={"colour": "red"}), 422)


def test_pages_neither_skip_nor_repeat_while_more_comes(client: httpx.Client) -> None:
    for number in range(7):
        tell(client, alert(f"A{number}", fingerprint=f"{number:016x}"))
    seen: list[str] = []
    cursor = None
    while True:
        page = get(client, "/alerts/history", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [each["alertname"] for each in page["alerts"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        tell(client, alert(f"new{len(seen)}", fingerprint=f"{100 + len(seen):016x}"))
    assert seen == [f"A{number}" for number in reversed(range(7))]


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ({"version": "4"}, "alerts"),
        ({"version": "3", "alerts": []}, "version"),
        (notification({**alert(), "status": "maybe"}), "alerts.0.status"),
        (notification({**alert(), "startsAt": "yesterday"}), "alerts.0.startsAt"),
        (notification({**alert(), "fingerprint": "' OR 1"}), "alerts.0.fingerprint"),
        (notification({**alert(), "labels": {f"l{n}": "" for n in range(101)}}), "alerts.0.labels"),
        (notification(*[alert()] * (ALERTS_MAX + 1)), "alerts"),
    ],
    ids=["no alerts", "version", "status", "time", "fingerprint", "labels", "too many"],
)
def test_what_is_no_notification_is_refused_with_its_reason(
    client: httpx.Client, payload: dict[str, Any], named: str
) -> None:
    assert named in refused(client.post("/alerts/webhook", json=payload), 422)
    assert get(client, "/alerts/history")["total"] == 0


def test_a_body_beyond_its_bound_is_not_read_to_its_end(client: httpx.Client) -> None:
    def endless() -> Any:
        for _ in range(BODY_MAX // 65_536 + 2):
            yield b" " * 65_536

    assert "bytes" in refused(client.post("/alerts/webhook", content=endless()), 413)


def test_long_and_hostile_text_is_cut_and_kept(client: httpx.Client) -> None:
    hostile = "x' OR 1=1 --\\ \n {name:String} é"
    told = alert(source=hostile)
    told["annotations"]["description"] = "y" * (TEXT_MAX + 1_000)
    tell(client, told)
    (shown,) = get(client, "/alerts")["alerts"]
    assert shown["labels"]["source"] == hostile
    assert shown["description"] == "y" * TEXT_MAX


def test_a_notification_without_alerts_is_taken(client: httpx.Client) -> None:
    assert tell(client) == {"added": 0, "known": 0}


def test_the_history_survives_reopening_and_a_store_made_before_there_was_one_gets_it(opened: Open) -> None:
    store = opened()
    store_rows(store, records=[record("a")])
    store._engine.execute(f"DROP TABLE {store.alerts}")  # as an older Sluice left it
    store = opened()
    assert store.query(f"SELECT count() AS n FROM {store.alerts}") == [{"n": 0}]
    assert store.query("SELECT count() AS n FROM records") == [{"n": 1}]
    store.add_alerts([b'{"fingerprint":"a","status":"firing","starts_at":"2026-11-20T10:00:00Z"}'])
    store = opened()
    assert store.query(f"SELECT fingerprint, ends_at FROM {store.alerts}") == [{"fingerprint": "a", "ends_at": None}]


def test_later_alerts_come_after_also_when_the_clock_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, now in enumerate((2_000_000_000_000_000_000, 1_900_000_000_000_000_000, 1_900_000_000_000_000_000)):
        monkeypatch.setattr("processing.store.store.time.time_ns", lambda now=now: now)
        line = b'{"fingerprint":"%d","status":"firing","starts_at":"2026-11-20T10:00:00Z"}' % number
        store.add_alerts([line, line.replace(b"firing", b"resolved")])
    rows = store.query(f"SELECT fingerprint, status, seq FROM {store.alerts} ORDER BY seq")
    assert [(row["fingerprint"], row["status"]) for row in rows] == [
        (f"{number}", status) for number in range(3) for status in ("firing", "resolved")
    ]
    assert len({row["seq"] for row in rows}) == 6


def test_the_webhook_is_described(store: Store, settings: Settings) -> None:
    service = Service("processing", settings, settings.processing_port, [], routers(store), "")
    described = service.app.openapi()["paths"]["/alerts/webhook"]["post"]
    assert "application/json" in described["requestBody"]["content"]
