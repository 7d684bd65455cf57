"""What Prometheus is given: today's addresses, the checkout's rules, and metrics and pages that exist."""

import json
import re
from pathlib import Path

import pytest

from native.settings import ROOT, NativeSettings
from native.stack import write_prometheus_files
from shared import metrics

RULES = "".join(path.read_text() for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml")))
CONFIGURATION = (ROOT / "prometheus" / "prometheus.yml").read_text()


def test_targets_are_the_services_addresses_and_the_rest_is_the_checkouts_own(tmp_path: Path) -> None:
    settings = NativeSettings(run_dir=tmp_path, ingestion_port=28001)
    write_prometheus_files(settings)
    write_prometheus_files(settings)  # the second start finds the first one's files
    folder = tmp_path / "prometheus"
    assert json.loads((folder / "targets" / "ingestion.json").read_text()) == [{"targets": ["127.0.0.1:28001"]}]
    assert (folder / "prometheus.yml").read_text() == CONFIGURATION
    assert sorted(path.name for path in (folder / "rules").iterdir()) == sorted(
        path.name for path in (ROOT / "prometheus" / "rules").iterdir()
    )


def test_every_job_finds_its_targets_and_none_is_a_kafka_port(tmp_path: Path) -> None:
    settings = NativeSettings(run_dir=tmp_path)
    write_prometheus_files(settings)
    read = set(re.findall(r"files: \[(\S+)\]", CONFIGURATION))
    assert {tmp_path / "prometheus" / path for path in read} == set((tmp_path / "prometheus" / "targets").iterdir())
    assert "static_configs" not in CONFIGURATION
    for path in (tmp_path / "prometheus" / "targets").iterdir():
        assert not {"9092", "19093"} & set(re.findall(r":(\d+)", path.read_text()))


def test_rules_use_only_metrics_that_are_exported() -> None:
    exported = {sample for family in metrics.REGISTRY.collect() for sample in (family.name, f"{family.name}_total")}
    used = set(re.findall(r"\bsluice_\w+", RULES))
    assert used
    assert used <= exported


def test_every_alert_has_a_severity_a_summary_a_description_and_a_page_that_exists() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    alerts = RULES.split("- alert: ")[1:]
    assert alerts
    for alert in alerts:
        name = alert.split()[0]
        for field in ("severity: ", "summary: ", "description: "):
            assert field in alert, f"{name} has no {field}"
        runbook = re.search(r"runbook_url: docs/troubleshooting\.md#(\S+)", alert)
        assert runbook is not None, name
        assert runbook[1] in anchors, f"{name}: docs/troubleshooting.md has no section #{runbook[1]}"


@pytest.mark.parametrize("name", re.findall(r"- alert: (\S+)", RULES))
def test_every_alert_has_a_promtool_test_in_which_it_fires(name: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "prometheus" / "tests").glob("*.yml"))
    assert re.search(rf"alertname: {name}\n +eval_time: .+\n +exp_alerts:\n +- exp_labels", tests), name
