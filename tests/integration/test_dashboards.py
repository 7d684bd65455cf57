"""Every query of every panel and rule, asked of a real Prometheus over the real stack."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafana import queries, rules
from native.fleet import COLUMNS, Plan, rows_of
from native.kafka import Broker
from tests.integration.monitoring import Monitoring
from tests.integration.stack import Stack, eventually
from tests.integration.test_chain import FACTS, trigger

pytestmark = pytest.mark.kafka

DEADLINE_S = 150.0  # the objectives over days are computed once a minute
CHOSEN = {"source": "EasyProjects", "host": ".*", "gpu": ".*"}
FLEET = Plan(hosts=2, gpus=5, xids=1.0)


@pytest.fixture(scope="module")
def watched(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Monitoring]]:
    """A stack with nothing in it but a mapping, and a Prometheus that has seen it so."""
    mappings = tmp_path_factory.mktemp("mappings")
    (mappings / "a.yml").write_text("version: 1\nmappings: [{name: a, revision: 1, sources: EasyProjects}]\n")
    settings = {"MAPPINGS_DIR": str(mappings)}
    with (
        Stack(broker, tmp_path_factory.mktemp("watched"), f"t{uuid.uuid4().hex[:8]}-", settings) as stack,
        Monitoring(stack, tmp_path_factory.mktemp("monitoring")) as prometheus,
    ):
        prometheus.wait_until_all_targets_are_up()
        yield stack, prometheus


def test_every_panel_and_every_rule_is_answered_after_one_ingest_and_one_fault(
    watched: tuple[Stack, Monitoring],
) -> None:
    stack, prometheus = watched
    asked = [*queries.of_dashboards(CHOSEN), *queries.of_rules()]
    before = queries.unanswered(prometheus.url, asked)
    assert any("'Log Entries by Source'" in missing for missing in before), "nothing was ingested, yet it has entries"

    trigger(stack)  # its anomalies are two faults of the entries' own
    garbage = b'{"source": "shop", "duration_seconds": "soon"}'
    assert stack.push(garbage, kind="application/json").status_code == 200
    samples = [json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows_of(FLEET)]
    assert stack.push("\n".join(samples).encode()).status_code == 200
    missing = before

    def answered() -> bool:
        nonlocal missing
        missing = queries.unanswered(prometheus.url, asked)
        return not missing

    try:
        eventually(answered, DEADLINE_S, "every query is answered")
    except AssertionError:
        pytest.fail("no data for:\n" + "\n".join(missing))


MOVED = {
    "sluice-overview": {2, 4, 6, 7, 9, 12, 13, 14, 15, 16, 30, 32, 33, 34},
    "sluice-sources": {1, 2, 3, 4, 5, 6, 7, 30, 31, 32, 33, 34, 35},
    "sluice-pipeline": {1, 2, 6, 11, 36},
    "sluice-gpus": {1, 2, 3, 4, 5, 6, 7, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40},
}
"""Panels that show more than 0 after one ingest: a series born with its value would return data, and none of it."""


def test_after_one_ingest_the_panels_show_what_happened_and_not_just_zeros(watched: tuple[Stack, Monitoring]) -> None:
    _, prometheus = watched
    of = {f"{uid} {id_} " for uid, ids in MOVED.items() for id_ in ids}
    asked = [each for each in queries.of_dashboards(CHOSEN) if each.where.startswith(tuple(of))]
    assert len({each.where.rpartition(" ")[0] for each in asked}) == len(of)

    def still() -> list[str]:
        return [each.where for each in asked if not _highest(prometheus, each)]

    try:
        eventually(lambda: not still(), 60, "every such panel shows something")
    except AssertionError:
        pytest.fail("only zeros: " + ", ".join(still()))


def _highest(prometheus: Monitoring, asked: queries.Asked) -> float:
    expr = (
        f"max(max_over_time(({asked.expr})[{asked.range_s}s:{asked.step_s}s]))"
        if asked.range_s
        else f"max({asked.expr})"
    )
    (series,) = prometheus.query(f"({expr}) or vector(0)")
    value = float(series["value"][1])
    return 0.0 if value != value else value


def test_the_exact_panel_shows_the_72_entries_as_integers(watched: tuple[Stack, Monitoring]) -> None:
    """After the first test's single trigger, and with the row of all sources together."""
    _, prometheus = watched
    (panel,) = (asked for asked in queries.of_dashboards(CHOSEN) if "'Log Entries by Source'" in asked.where)
    shown: dict[str, dict[str, int]] = {}
    for series in prometheus.query(panel.expr):
        labels = series["metric"]
        shown.setdefault(labels["source"], {})[labels["status"]] = int(series["value"][1])
    assert shown == {**FACTS, "all sources": {"SUCCESS": 71, "FAILED": 1}}


def test_the_health_panel_tells_a_service_that_is_down(watched: tuple[Stack, Monitoring]) -> None:
    stack, prometheus = watched
    (panel,) = (asked for asked in queries.of_dashboards(CHOSEN) if "'Healthy?'" in asked.where)

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


def test_a_query_without_data_is_told(watched: tuple[Stack, Monitoring], tmp_path: Path) -> None:
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
