"""A fault, its alert in Prometheus, in Alertmanager and in the history, and its resolution: with the real programs.

Rules and routes are the checkout's own; only their clock runs faster, for nobody should wait for minutes here.
"""

import time
from collections.abc import Iterator

import pytest

from tests.integration.monitoring import Json, Monitoring
from tests.integration.stack import SERVICES, Stack, eventually

pytestmark = pytest.mark.kafka


class Alerting(Monitoring):
    """What is said of alerts on their way: by Prometheus, by Alertmanager, by processing."""

    def fires(self, name: str) -> bool:
        """Whether the alert fires, by Prometheus."""
        alerts = self.client.get(f"{self.url}/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        return any(each["labels"]["alertname"] == name and each["state"] == "firing" for each in alerts)

    def known(self, name: str) -> list[Json]:
        """What Alertmanager says of the alerts of this name."""
        answer = self.client.get(f"{self.alertmanager_url}/api/v2/alerts", params={"filter": f'alertname="{name}"'})
        found: list[Json] = answer.raise_for_status().json()
        return found

    def tell(self, *labels: dict[str, str]) -> None:
        """Alerts as if Prometheus had sent them."""
        body = [{"labels": each, "annotations": {}, "generatorURL": self.url} for each in labels]
        self.client.post(f"{self.alertmanager_url}/api/v2/alerts", json=body).raise_for_status()

    def firing(self, name: str) -> list[Json]:
        found: list[Json] = [each for each in self._ask("/alerts")["alerts"] if each["alertname"] == name]
        return found

    def history(self, name: str) -> list[Json]:
        found: list[Json] = self._ask("/alerts/history", alertname=name)["alerts"]
        return found

    def watchdog(self) -> bool:
        return bool(self._ask("/alerts")["watchdog"])

    def _ask(self, path: str, **query: str) -> Json:
        found: Json = self.stack.get("processing", path, **query).raise_for_status().json()
        return found


@pytest.fixture(scope="module")
def monitoring(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerting]:
    with Alerting(stack, tmp_path_factory.mktemp("monitoring"), hurried=True) as running:
        yield running


def test_every_target_is_scraped_and_the_watchdog_arrives(monitoring: Alerting) -> None:
    monitoring.wait_until_all_targets_are_up()
    eventually(monitoring.watchdog, 30, "the Watchdog has gone all the way")
    for name in ("sluice_clock_skew_seconds", "sluice_kafka_brokers"):
        eventually(lambda name=name: len(monitoring.query(name)) == len(SERVICES), 30, name)  # type: ignore[misc]
    (skew,) = monitoring.query("max(abs(sluice_clock_skew_seconds))")
    assert float(skew["value"][1]) < 0.5


def test_a_dead_letter_fires_reaches_the_history_and_is_resolved_there_each_once(
    stack: Stack, monitoring: Alerting
) -> None:
    eventually(lambda: monitoring.query('sluice_dead_letters_total{reason="invalid_field"} == 0'), 30, "it stands at 0")
    begun = time.monotonic()
    assert stack.push(b'{"source": "shop", "duration_seconds": "soon"}').status_code == 200
    eventually(lambda: monitoring.fires("SluiceDeadLetters"), 60, "it fires in Prometheus")
    eventually(lambda: monitoring.known("SluiceDeadLetters"), 30, "Alertmanager knows it")
    (shown,) = eventually(lambda: monitoring.firing("SluiceDeadLetters"), 30, "GET /alerts shows it")
    print(f"from the push to GET /alerts: {time.monotonic() - begun:.1f} s")  # noqa: T201 - shown by -s
    assert shown["severity"] == "warning"
    assert shown["labels"]["reason"] == "invalid_field"
    assert shown["runbook_url"] == "docs/runbook.md#sluicedeadletters"
    assert shown["dashboard_url"].endswith("viewPanel=14")
    eventually(lambda: not monitoring.firing("SluiceDeadLetters"), 60, "it is resolved")
    resolved, fired = monitoring.history("SluiceDeadLetters")
    assert (resolved["status"], fired["status"]) == ("resolved", "firing")
    assert resolved["starts_at"] == fired["starts_at"]
    assert resolved["ends_at"] > fired["starts_at"]
    # Alertmanager repeats itself, the history does not: ask again when it has had its chance
    told = float(monitoring.query('sum(alertmanager_notifications_total{integration="webhook"})')[0]["value"][1])
    stack.push(b'{"source": "shop", "duration_seconds": "later"}')
    eventually(
        lambda: (
            float(monitoring.query('sum(alertmanager_notifications_total{integration="webhook"})')[0]["value"][1])
            >= told + 2
        ),
        60,
        "more notifications",
    )
    keys = [
        (each["fingerprint"], each["starts_at"], each["status"]) for each in monitoring.history("SluiceDeadLetters")
    ]
    assert len(keys) == len(set(keys))


def test_the_lag_of_a_dead_stage_rises_and_its_alert_is_silent_behind_that_of_the_dead_service(
    stack: Stack, monitoring: Alerting
) -> None:
    stack.kill("standardization")
    for _ in range(3):
        assert stack.push(b'{"source": "shop", "api": "waits", "status": "ok"}').status_code == 200
    lag = 'sluice:group_lag_seconds:max{group="standardization"}'
    eventually(lambda: monitoring.query(f"{lag} > 5"), 40, "others measure the lag of the dead")
    eventually(lambda: monitoring.firing("SluiceServiceDown"), 40, "the service is told to be down")
    eventually(lambda: monitoring.fires("SluiceConsumerStalled"), 90, "its group stands still")
    (stalled,) = eventually(lambda: monitoring.known("SluiceConsumerStalled"), 30, "Alertmanager knows that, too")
    (down,) = monitoring.known("SluiceServiceDown")
    assert stalled["status"]["inhibitedBy"] == [down["fingerprint"]]
    assert monitoring.history("SluiceConsumerStalled") == []

    stack.start("standardization")
    stack.wait_until_ready()
    eventually(lambda: monitoring.query(f"{lag} == 0"), 40, "all is read")
    eventually(lambda: not monitoring.firing("SluiceServiceDown"), 60, "it is up again")
    assert [each["status"] for each in monitoring.history("SluiceServiceDown")] == ["resolved", "firing"]


def test_a_broker_that_is_down_silences_what_follows_from_it_and_nothing_else(monitoring: Alerting) -> None:
    follows = [
        {"alertname": "SluicePushesFailing", "severity": "critical", "service": "ingestion", "window": "1h"},
        {"alertname": "SluiceStageStalled", "severity": "critical", "service": "processing", "stage": "sink"},
        {"alertname": "SluiceLagRising", "severity": "warning", "service": "processing", "group": "sink"},
    ]
    other = {"alertname": "SluiceClockSkew", "severity": "warning", "service": "processing"}
    monitoring.tell({"alertname": "SluiceKafkaDown", "severity": "critical"}, other, *follows)
    for each in follows:
        name = each["alertname"]
        eventually(
            lambda name=name: [a for a in monitoring.known(name) if a["status"]["inhibitedBy"]],  # type: ignore[misc]
            20,
            f"{name} is silent",
        )
    assert [each["status"]["inhibitedBy"] for each in monitoring.known("SluiceClockSkew")] == [[]]
    assert [each["status"]["inhibitedBy"] for each in monitoring.known("SluiceKafkaDown")] == [[]]


def test_a_service_that_is_down_silences_its_own_alerts_and_no_other_service_s(monitoring: Alerting) -> None:
    own = {
        "alertname": "SluiceFenced",
        "severity": "critical",
        "service": "standardization",
        "stage": "standardization",
    }
    others = {"alertname": "SluiceTransactionsAborting", "severity": "warning", "service": "ingestion"}
    down = {"alertname": "SluiceServiceDown", "severity": "critical", "service": "standardization", "job": "x"}
    monitoring.tell(down, own, others, {"alertname": "SluiceEntriesFailing", "severity": "warning", "source": "shop"})
    eventually(
        lambda: [each for each in monitoring.known("SluiceFenced") if each["status"]["inhibitedBy"]], 20, "silent"
    )
    for name in ("SluiceEntriesFailing",):
        assert [each["status"]["inhibitedBy"] for each in monitoring.known(name)] == [[]]
    # SluiceKafkaDown of the test before silences this one, but the service that is down does not
    (aborting,) = monitoring.known("SluiceTransactionsAborting")
    (source,) = [each for each in monitoring.known("SluiceServiceDown") if each["labels"]["job"] == "x"]
    assert source["fingerprint"] not in aborting["status"]["inhibitedBy"]
