"""Where each alert goes, asked of amtool; and that alertmanager.yml names only what there is."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from native.stack import alertmanager_configuration
from processing.api.alerts import ALERTS_MAX
from tests.unit.test_alert_rules import ALERTS, NAMES

PATH = Path(__file__).resolve().parents[2] / "prometheus" / "alertmanager.yml"
CONFIGURATION: dict[str, Any] = yaml.safe_load(PATH.read_text())


@pytest.fixture(scope="session")
def amtool() -> str:
    found = shutil.which("amtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("amtool is missing (Debian: prometheus-alertmanager)")
        pytest.skip("amtool is not installed (Debian: prometheus-alertmanager)")
    return found


def ask(amtool: str, *arguments: str) -> str:
    done = subprocess.run([amtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_takes_the_configuration_and_the_native_run_s_copy(amtool: str, tmp_path: Path) -> None:
    assert "SUCCESS" in ask(amtool, "check-config", str(PATH))
    copy = tmp_path / "alertmanager.yml"
    copy.write_text(alertmanager_configuration("http://127.0.0.1:28003"))
    assert "SUCCESS" in ask(amtool, "check-config", str(copy))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_goes_to_the_history_and_where_its_severity_belongs_and_the_watchdog_to_a_place_of_its_own(
    amtool: str, alert: dict[str, Any]
) -> None:
    severity = alert["labels"]["severity"]
    receiver = "watchdog" if alert["alert"] == "Watchdog" else f"history,{severity}"
    told = ask(
        amtool, "config", "routes", "test", f"--config.file={PATH}", f"--verify.receivers={receiver}",
        f"alertname={alert['alert']}", f"severity={severity}",
    )  # fmt: skip
    assert told.strip() == receiver


def test_an_alert_of_another_severity_is_at_least_kept(amtool: str) -> None:
    told = ask(
        amtool, "config", "routes", "test", f"--config.file={PATH}", "--verify.receivers=history",
        "alertname=Mine", "severity=info",
    )  # fmt: skip
    assert told.strip() == "history"


def test_the_native_run_s_copy_differs_by_processing_s_address_alone() -> None:
    copy = alertmanager_configuration("http://127.0.0.1:28003")
    assert copy.replace("http://127.0.0.1:28003", "http://processing:8003") == PATH.read_text()
    hooks = [receiver.get("webhook_configs", []) for receiver in yaml.safe_load(copy)["receivers"]]
    urls = [hook["url"] for each in hooks for hook in each]
    assert set(urls) == {"http://127.0.0.1:28003/alerts/webhook"}


def test_the_history_is_told_of_resolutions_too_and_of_no_more_than_it_takes() -> None:
    receivers = {receiver["name"]: receiver.get("webhook_configs", []) for receiver in CONFIGURATION["receivers"]}
    for name in ("history", "watchdog"):
        (hook,) = receivers[name]
        assert hook["send_resolved"] is True
        assert hook["max_alerts"] == ALERTS_MAX


def test_inhibitions_name_alerts_that_there_are_and_none_silences_itself() -> None:
    for rule in CONFIGURATION["inhibit_rules"]:
        sources, targets = (
            {name for matcher in rule[side] for name in re.findall(r"(?:Sluice|Prometheus|Alertmanager)\w+", matcher)}
            for side in ("source_matchers", "target_matchers")
        )
        assert sources
        assert targets
        assert sources | targets <= set(NAMES)
        assert not sources & targets


def test_what_an_inhibition_compares_every_alert_of_it_carries() -> None:
    """Alertmanager takes two alerts that both lack a label for equal in it."""
    carried = {
        rule["alert"]: set(rule["labels"]) | set(re.findall(r"by \(([\w, ]+)\)", rule["expr"])) for rule in ALERTS
    }
    for rule in CONFIGURATION["inhibit_rules"]:
        if "service" not in rule.get("equal", []):
            continue
        for matcher in rule["source_matchers"]:
            for name in re.findall(r"Sluice\w+", matcher):
                assert "service" in carried[name] or "sluice_active_connections" in str(
                    next(each["expr"] for each in ALERTS if each["alert"] == name)
                ), name
