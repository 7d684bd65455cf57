"""The alert rules as the dashboards need them: read from prometheus/rules/, which is where their constants are.

Every alert's expression ends in the comparison with its threshold, and names its panel and its section of the runbook.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import promql_parser
import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "prometheus" / "rules"
DASHBOARDS: Final = ROOT / "grafana" / "dashboards"

_BOUND = re.compile(r'\ble="([0-9.]+)"')


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule (`record` is its name) or an alerting rule (`alert` is)."""

    group: str
    expr: str
    record: str = ""
    alert: str = ""
    severity: str = ""
    uid: str = ""  # of the dashboard that shows what the alert is about
    panel: int = 0
    runbook: str = ""  # path and anchor, from the root of the repository

    @property
    def threshold(self) -> float | None:
        """The constant that the expression ends in comparing with; None where it does not end so."""
        found = promql_parser.parse(self.expr)
        if isinstance(found, promql_parser.BinaryExpr) and str(found.op) in {">", ">=", "<", "<=", "==", "!="}:
            limit = found.rhs
            if isinstance(limit, promql_parser.NumberLiteral):
                return float(limit.val)
        return None


def load(folder: Path = FOLDER) -> list[Rule]:
    """All rules, in the order of the files."""
    return [rule for path in sorted(folder.glob("*.yml")) for rule in _of(yaml.safe_load(path.read_text()))]


def _of(file: dict[str, Any]) -> Iterator[Rule]:
    for group in file["groups"]:
        for rule in group["rules"]:
            annotations = rule.get("annotations", {})
            url = urlsplit(annotations.get("dashboard_url", ""))
            panel = parse_qs(url.query).get("viewPanel", ["0"])[0]
            yield Rule(
                group=group["name"],
                expr=rule["expr"],
                record=rule.get("record", ""),
                alert=rule.get("alert", ""),
                severity=rule.get("labels", {}).get("severity", ""),
                uid=url.path.rpartition("/")[2],
                panel=int(panel) if panel.isdigit() else 0,
                runbook=annotations.get("runbook_url", ""),
            )


class Alerts:
    """What the dashboards ask of the alert rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def thresholds(self, alert: str) -> list[float]:
        """The constants of an alert, which may have several rules, ascending. Raises KeyError where there is none."""
        found = {rule.threshold for rule in self._rules if rule.alert == alert}
        known = sorted(limit for limit in found if limit is not None)
        if not known:
            raise KeyError(f"prometheus/rules has no alert {alert} that ends in a comparison with a constant")
        return known

    def objective(self, record: str) -> float:
        """The bucket's bound that a recorded ratio counts by: the objective behind it. Raises KeyError."""
        for rule in self._rules:
            if rule.record == record and (bound := _BOUND.search(rule.expr)):
                return float(bound[1])
        raise KeyError(f"prometheus/rules records no {record} with a bucket's bound")

    def limits(self, alert: str) -> set[float]:
        """Every constant that a panel of this alert may draw: its thresholds, and the objectives it is made of."""
        used = " ".join(rule.expr for rule in self._rules if rule.alert == alert)
        behind = {
            float(bound)
            for rule in self._rules
            if rule.record and rule.record in used
            for bound in _BOUND.findall(rule.expr)
        }
        known = {rule.threshold for rule in self._rules if rule.alert == alert}
        return behind | {limit for limit in known if limit is not None}

    def of_panel(self, uid: str, panel: int) -> list[str]:
        """The alerts that link to a panel, by name."""
        return list(dict.fromkeys(rule.alert for rule in self._rules if (rule.uid, rule.panel) == (uid, panel)))

    def runbook(self, alert: str) -> str:
        """Path and anchor of an alert's section of the runbook."""
        return next(rule.runbook for rule in self._rules if rule.alert == alert)
