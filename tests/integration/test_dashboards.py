"""Every query of every panel and rule, asked of a real Prometheus over the real stack."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafana import queries, rules
from native.kafka import Broker
from tests.integration.prometheus import Prometheus
from tests.integration.stack import Stack, eventually
from tests.integration.test_chain import FACTS, trigger

pytestmark = pytest.mark.kafka

DEADLINE_S = 150.0  # the objectives over days are computed once a minute
SOURCE = "EasyProjects"


@pytest.fixture(scope="module")
def watched(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Prometheus]]:
    """A stack with nothing in it, and a Prometheus that has seen it so."""
    if not Prometheus.installed():
        if os.environ.get("CI"):
            pytest.fail("Prometheus is not installed")
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    with (
        Stack(broker, tmp_path_factory.mktemp("watched"), f"t{uuid.uuid4().hex[:8]}-") as stack,
        Prometheus(tmp_path_factory.mktemp("prometheus") / "own", stack.urls) as prometheus,
    ):
        prometheus.wait_until_all_targets_are_up()
        yield stack, prometheus


def test_every_panel_and_every_rule_is_answered_after_one_ingest_and_one_fault(
    watched: tuple[Stack, Prometheus],
) -> None:
    stack, prometheus = watched
    asked = [*queries.of_dashboards({"source": SOURCE}), *queries.of_rules()]
    excused = () if prometheus.has_alertmanager else _alertmanagers(asked)
    before = queries.unanswered(prometheus.url, asked, excused=excused)
    assert any("'Log Entries by Source'" in missing for missing in before), "nothing was ingested, yet it has entries"

    trigger(stack)  # its anomalies are two faults of the entries' own
    garbage = b'{"source": "shop", "duration_seconds": "soon"}'
    assert stack.push(garbage, kind="application/json").status_code == 200
    missing = before

    def answered() -> bool:
        nonlocal missing
        missing = queries.unanswered(prometheus.url, asked, excused=excused)
        return not missing

    try:
        eventually(answered, DEADLINE_S, "every query is answered")
    except AssertionError:
        pytest.fail("no data for:\n" + "\n".join(missing))


def test_the_exact_panel_shows_the_72_entries_as_integers(watched: tuple[Stack, Prometheus]) -> None:
    """After the first test's single trigger, and with the row of all sources together."""
    _, prometheus = watched
    (panel,) = (
        asked for asked in queries.of_dashboards({"source": SOURCE}) if "'Log Entries by Source'" in asked.where
    )
    shown: dict[str, dict[str, int]] = {}
    for series in prometheus.query(panel.expr):
        labels = series["metric"]
        shown.setdefault(labels["source"], {})[labels["status"]] = int(series["value"][1])
    assert shown == {**FACTS, "all sources": {"SUCCESS": 71, "FAILED": 1}}


def test_the_health_panel_tells_a_service_that_is_down(watched: tuple[Stack, Prometheus]) -> None:
    stack, prometheus = watched
    (panel,) = (asked for asked in queries.of_dashboards({"source": SOURCE}) if "'Healthy?'" in asked.where)

    def problems() -> float:
        (series,) = prometheus.query(panel.expr)
        return float(series["value"][1])

    eventually(lambda: problems() == 0, 60, "it is healthy")
    stack.terminate("standardization")
    try:
        eventually(lambda: problems() >= 1, 30, "it is not healthy")
    finally:
        stack.start("standardization")
    eventually(lambda: problems() == 0, 120, "it is healthy again")


def test_a_query_without_data_is_told(watched: tuple[Stack, Prometheus], tmp_path: Path) -> None:
    """The check itself can fail: for a metric that is not there, and for a panel that asks of a label that is not."""
    _, prometheus = watched
    document = json.loads((rules.DASHBOARDS / "sluice-overview.json").read_text())
    document["panels"] = [panel for panel in document["panels"] if panel["id"] in {2, 7}]
    for panel in document["panels"]:
        for target in panel["targets"]:
            target["expr"] = target["expr"].replace("sluice_http", "sluice_htpp").replace("by (source", "by (sauce")
    (tmp_path / "broken.json").write_text(json.dumps(document))
    broken = [
        *queries.of_dashboards({}, tmp_path),
        *queries.of_rules([rules.Rule("group", "increase(nothing_total[5m]) > 0", alert="Nothing")]),
    ]
    told = queries.unanswered(prometheus.url, broken)
    assert len(told) == 2
    assert "'Request Rate by Service'" in told[0]
    assert told[1].startswith("alert Nothing: increase(nothing_total")


def _alertmanagers(asked: list[queries.Asked]) -> tuple[str, ...]:
    """Metrics that only a running Alertmanager gives."""
    used = {name for each in asked for name in queries.metrics_of(each.expr)}
    return tuple(sorted(name for name in used if name.startswith("alertmanager_")))
