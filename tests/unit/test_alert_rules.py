"""The alert rules are whole: each says what a person needs, links to what exists, and has its cases for promtool."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from processing.counts import EntriesBySource
from processing.fleet import Families as GpuFamilies
from processing.sources import Families
from shared import metrics

ROOT = Path(__file__).resolve().parents[2]
RULE_FILES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
RULES: list[dict[str, Any]] = [
    rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
CASES: list[dict[str, Any]] = [
    case
    for path in sorted((ROOT / "prometheus" / "tests").glob("*.yml"))
    for case in yaml.safe_load(path.read_text())["tests"]
]

# the panels of each dashboard, by their fixed ids; from 30 on a dashboard may have more
PANELS = {
    "sluice-overview": range(1, 19),
    "sluice-pipeline": range(1, 13),
    "sluice-sources": range(1, 8),
    "sluice-gpus": range(1, 8),
}
COUNTS = re.compile(r"\b(?:rate|increase|changes)\(|:(?:ratio_rate|increase)\d")
ALWAYS_TRUE_OF_NOTHING = {"Watchdog", "SluiceServiceAbsent"}  # no threshold, and absence is what they are about


def _cases(alert: str) -> dict[str, list[dict[str, Any]]]:
    """What promtool is told to expect of an alert: its checks by the name of the case."""
    found = {}
    for case in CASES:
        name, _, what = case["name"].partition(": ")
        if name == alert:
            assert {check["alertname"] for check in case["alert_rule_test"]} == {alert}, case["name"]
            found[what] = case["alert_rule_test"]
    return found


def _fires(check: dict[str, Any]) -> bool:
    return bool(check["exp_alerts"])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_why_and_where_to_go_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "none"}
    assert (alert["labels"]["severity"] == "none") == (alert["alert"] == "Watchdog")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert len(alert["annotations"]["summary"]) <= 150
    assert alert["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_a_runbook_section_of_the_alert_s_own_exists_and_has_its_four_parts(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    sections = re.split(r"^### ", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)
    (section,) = (section for section in sections if section.splitlines()[0] == name)
    for part in ("**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Remedy.**"):
        assert part in section, part


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == [
        name for name in re.findall(r"^### (\w+)$", page, re.MULTILINE) if name in NAMES
    ]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_a_panel_that_is_promised(alert: dict[str, Any]) -> None:
    found = re.fullmatch(
        r"http://localhost:3000/d/([\w-]+)\?viewPanel=(\d+)", alert["annotations"]["dashboard_url"]
    )  # fmt: skip
    assert found is not None
    assert int(found[2]) in PANELS[found[1]]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_expression_ends_in_the_comparison_with_its_threshold(alert: dict[str, Any]) -> None:
    """The dashboards read it from there."""
    if alert["alert"] not in ALWAYS_TRUE_OF_NOTHING:
        assert re.search(r"[\s)](?:>|<|==|>=|<=) [\d.]+$", alert["expr"].strip())


def test_rules_use_only_metrics_that_are_exported_and_records_that_are_recorded() -> None:
    text = "".join(rule["expr"] for rule in RULES)
    exported = {sample for family in metrics.REGISTRY.collect() for sample in (family.name, f"{family.name}_total")}
    exported |= {f"{name}_{part}" for name in exported for part in ("bucket", "count", "sum")}
    exported |= {f"{family.name}_total" for family in (*EntriesBySource(dict, 1).describe(), *Families())}
    exported |= {family.name for family in GpuFamilies()}
    used = set(re.findall(r"(?<![\w:])(?:sluice_|log_entries_)\w+", text))
    assert used
    assert used <= exported
    assert set(re.findall(r"(?<![\w:])sluice:[\w:]+", text)) <= {rule.get("record") for rule in RULES}


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_in_which_it_fires_and_resolves(name: str) -> None:
    if name == "Watchdog":
        assert all(map(_fires, _cases(name)["fires whatever there is"]))
        return
    checks = _cases(name)["fires and resolves"]
    last = max(number for number, check in enumerate(checks) if _fires(check))
    assert last < len(checks) - 1, "it never resolves"
    assert not _fires(checks[0]), "it fires before anything has happened"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Watchdog"])
def test_every_alert_has_a_case_in_which_it_stays_silent(name: str) -> None:
    silent = [checks for what, checks in _cases(name).items() if what.startswith("stays silent")]
    assert silent
    assert not any(_fires(check) for checks in silent for check in checks)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Watchdog"])
def test_every_alert_has_a_case_in_which_its_target_is_absent(name: str) -> None:
    checks = _cases(name)["target absent"]
    assert _fires(checks[-1]) == (name in ALWAYS_TRUE_OF_NOTHING)


@pytest.mark.parametrize("name", sorted({rule["alert"] for rule in ALERTS if COUNTS.search(rule["expr"])}))
def test_every_alert_that_counts_has_a_case_in_which_its_counter_starts_anew(name: str) -> None:
    checks = _cases(name)["counter reset"]
    assert not any(map(_fires, checks))


def test_no_case_is_of_an_alert_that_is_gone() -> None:
    assert {case["name"].partition(": ")[0] for case in CASES} == set(NAMES)
