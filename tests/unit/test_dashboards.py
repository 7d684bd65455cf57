"""The dashboards are what grafana/build.py makes, keep to every rule of grafana/lint.py, and each rule can fail."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as sdk

from grafana import build, lint, queries, rules
from grafana.lint import Context, Lint

Document = dict[str, Any]


@pytest.fixture(scope="module")
def given() -> Context:
    return lint.context()


def panel(document: Document, id_: int) -> Document:
    found: Document = next(each for each in document["panels"] if each["id"] == id_ and each["type"] != "row")
    return found


def test_the_files_are_what_build_makes_of_the_rules() -> None:
    assert build.drift() == []


def test_drift_is_told_of_a_file_that_was_edited_one_that_is_missing_and_one_too_many(tmp_path: Path) -> None:
    for name, document in build.documents().items():
        (tmp_path / name).write_text(document)
    assert build.drift(tmp_path) == []
    (tmp_path / "sluice-overview.json").write_text("{}\n")
    (tmp_path / "sluice-sources.json").unlink()
    (tmp_path / "mine.json").write_text("{}\n")
    assert build.drift(tmp_path) == ["mine.json", "sluice-overview.json", "sluice-sources.json"]


def test_every_dashboard_keeps_to_every_rule(given: Context) -> None:
    assert set(given.dashboards) == lint.UIDS
    assert lint.findings(given) == []


@pytest.mark.parametrize("uid", sorted(lint.UIDS))
def test_a_dashboard_is_read_by_the_sdks_own_model_and_written_the_same(given: Context, uid: str) -> None:
    """So nothing in it is unknown to the schema: what the model does not know, it does not write."""
    document = given.dashboards[uid]
    read = sdk.Dashboard.from_json(copy.deepcopy(document))  # type: ignore[arg-type]
    written = json.loads(json.dumps(read, cls=JSONEncoder))
    for link in written["links"]:
        assert link.pop("placement") == "inControlsMenu"  # a default of the model's, see panels.py
    assert written == document


def test_the_panels_that_alerts_and_people_know_have_their_names(given: Context) -> None:
    titles = {each["title"] for each in given.dashboards["sluice-overview"]["panels"]}
    assert titles >= {
        "Request Rate by Service",
        "Log Entries by Source",
        "Message Processing Duration",
        "Processing Errors",
        "Success Rate",
        "Total Messages Processed",
        "Kafka connections per service",
    }
    assert given.dashboards["sluice-overview"]["title"] == "Observability Stack Dashboard"


class Broken(NamedTuple):
    """A rule, what is done to a copy of a dashboard so that it breaks, and what the rule then says."""

    lint: Lint
    uid: str
    breaking: Callable[[Document], object]
    said: str


def _expr(id_: int, expr: str) -> Callable[[Document], object]:
    return lambda document: panel(document, id_)["targets"][0].update(expr=expr)


def _defaults(id_: int, **changes: Any) -> Callable[[Document], object]:
    return lambda document: panel(document, id_)["fieldConfig"]["defaults"].update(changes)


def _place(id_: int, **changes: int) -> Callable[[Document], object]:
    return lambda document: panel(document, id_)["gridPos"].update(changes)


def _drop(*ids: int) -> Callable[[Document], object]:
    return lambda document: document.update(panels=[each for each in document["panels"] if each["id"] not in ids])


def _title_of_row(document: Document) -> None:
    next(each for each in document["panels"] if each["type"] == "row")["title"] = ""


def _empty_row(document: Document) -> None:
    document["panels"].append(
        {"id": 99, "type": "row", "title": "Nothing", "gridPos": {"x": 0, "y": 999, "w": 24, "h": 1}}
    )


OVERVIEW, SOURCES, PIPELINE = "sluice-overview", "sluice-sources", "sluice-pipeline"

BROKEN = [
    Broken(lint.is_classic_json_under_a_fixed_uid, OVERVIEW, lambda d: d.update(uid="f3a9"), "uids that links use"),
    Broken(lint.is_classic_json_under_a_fixed_uid, OVERVIEW, lambda d: d.update(spec={}), "not classic JSON"),
    Broken(lint.is_classic_json_under_a_fixed_uid, OVERVIEW, lambda d: d.update(id=3), "it has an id"),
    Broken(
        lint.has_its_variables_and_no_others,
        OVERVIEW,
        lambda d: d["templating"]["list"].append({"name": "job", "type": "query"}),
        "its variables are ['datasource', 'job']",
    ),
    Broken(
        lint.has_its_variables_and_no_others, SOURCES, lambda d: d["templating"]["list"].pop(), "not ['datasource', 'so"
    ),
    Broken(
        lint.has_its_variables_and_no_others,
        OVERVIEW,
        lambda d: d["templating"]["list"][0].update(query="loki"),
        "no choice of Prometheus",
    ),
    Broken(
        lint.asks_the_chosen_datasource,
        OVERVIEW,
        lambda d: panel(d, 2)["targets"][0].update(datasource={"uid": "prometheus"}),
        "'Request Rate by Service' A: its data source",
    ),
    Broken(
        lint.asks_the_chosen_datasource,
        SOURCES,
        lambda d: d["templating"]["list"][1].update(datasource={"uid": "prometheus"}),
        "variable source: its data source",
    ),
    Broken(lint.suits_a_first_look, OVERVIEW, lambda d: d["time"].update({"from": "now-6h"}), "it opens on now-6h"),
    Broken(lint.suits_a_first_look, OVERVIEW, lambda d: d.update(refresh=""), "it is refreshed every 0s"),
    Broken(lint.answers_health_first, OVERVIEW, _drop(1), "is not `Healthy?`"),
    Broken(lint.answers_health_first, OVERVIEW, _place(18, h=20), "too tall"),
    Broken(lint.panels_say_what_they_show, OVERVIEW, lambda d: panel(d, 9).update(title=""), "it has no title"),
    Broken(lint.panels_say_what_they_show, OVERVIEW, lambda d: panel(d, 9).pop("description"), "it has no description"),
    Broken(lint.panels_say_what_they_show, OVERVIEW, _defaults(9, unit=""), "it has no unit"),
    Broken(lint.panels_say_what_they_show, OVERVIEW, lambda d: panel(d, 9).update(targets=[]), "it has no query"),
    Broken(lint.panels_say_what_they_show, OVERVIEW, _title_of_row, "a row has no title"),
    Broken(
        lint.words_stand_for_values,
        OVERVIEW,
        _defaults(1, mappings=[{"type": "value", "options": {"0.0": {}}}]),
        "no value is written 0.0",
    ),
    Broken(
        lint.words_stand_for_values,
        OVERVIEW,
        _defaults(1, mappings=[{"type": "range", "options": {"from": 1, "to": None}}]),
        "has no end",
    ),
    Broken(lint.has_each_id_once, OVERVIEW, lambda d: panel(d, 9).update(id=10), "several panels have the id 10"),
    Broken(lint.lies_within_the_grid_without_overlaps, OVERVIEW, _place(18, x=18), "outside the 24 columns"),
    Broken(lint.lies_within_the_grid_without_overlaps, OVERVIEW, _place(17, x=3), "it overlaps panel 1 'Healthy?'"),
    Broken(lint.has_no_empty_row_and_no_hole, OVERVIEW, _empty_row, "the row 'Nothing' is empty"),
    Broken(lint.has_no_empty_row_and_no_hole, OVERVIEW, _drop(8), "the row 'Is it healthy?' has holes"),
    Broken(
        lint.has_no_empty_row_and_no_hole, OVERVIEW, lambda d: d["panels"].pop(0), "its first panels belong to no row"
    ),
    Broken(
        lint.draws_only_the_alerts_own_constants,
        OVERVIEW,
        _defaults(10, thresholds={"steps": [{"value": None}, {"value": 99}]}),
        "'Lag in messages': 99 is no threshold of its alerts: SluiceLagRising",
    ),
    Broken(
        lint.draws_only_the_alerts_own_constants,
        OVERVIEW,
        _defaults(9, thresholds={"steps": [{"value": None}, {"value": 100}]}),
        "'Rate per topic': 100 is no threshold of its alerts: it has none",
    ),
    Broken(
        lint.names_the_alerts_that_link_to_it,
        PIPELINE,
        lambda d: panel(d, 10).update(description="Progress."),
        "it does not tell of SluiceStageStalled",
    ),
    Broken(lint.queries_parse, OVERVIEW, _expr(2, "sum(rate(x[$__rate_interval])"), "'Request Rate by Service' A"),
    Broken(lint.ranges_are_the_rate_interval, OVERVIEW, _expr(9, "rate(sluice_messages_out_total[5m])"), "[5m] is not"),
    Broken(
        lint.ranges_are_the_rate_interval, OVERVIEW, _expr(9, "rate(sluice_messages_out_total[$__range])"), "[$__range]"
    ),
    Broken(
        lint.counters_are_rates_or_exact,
        OVERVIEW,
        _expr(9, "sum(sluice_messages_out_total)"),
        "sluice_messages_out_total is a counter",
    ),
    Broken(
        lint.counters_are_rates_or_exact,
        OVERVIEW,
        _expr(4, "histogram_quantile(0.5, sum by (le) (sluice_freshness_seconds_bucket))"),
        "sluice_freshness_seconds_bucket is a counter",
    ),
    Broken(
        lint.metrics_are_exported, OVERVIEW, _expr(16, "sum(process_resident_bytes)"), "nobody exports process_resi"
    ),
    Broken(
        lint.metrics_are_exported, OVERVIEW, _expr(10, "sluice:group_lag:max"), "nobody exports sluice:group_lag:max"
    ),
    Broken(
        lint.labels_are_those_of_the_metric,
        OVERVIEW,
        _expr(10, 'sluice_errors_total{service="sink"}'),
        "sluice_errors_total has no label service",
    ),
    Broken(
        lint.labels_are_those_of_the_metric,
        OVERVIEW,
        _expr(10, "sum by (service) (sluice_errors_total)"),
        "there is no label service to group by",
    ),
    Broken(lint.shows_no_traffic_as_such, OVERVIEW, _defaults(6, noValue=""), "does not say what no data means"),
    Broken(
        lint.shows_no_traffic_as_such,
        OVERVIEW,
        _expr(6, "sum(log_entries_by_source_total) / sum(log_entries_by_source_total)"),
        "it divides by what may be 0",
    ),
    Broken(
        lint.shows_no_traffic_as_such,
        OVERVIEW,
        _expr(6, "sum(log_entries_by_source_total) / (sum(log_entries_by_source_total) > 0) or vector(1)"),
        "it makes up a share",
    ),
    Broken(lint.links_lead_somewhere, OVERVIEW, lambda d: d.update(links=[]), "it links to no other dashboard"),
    Broken(
        lint.links_lead_somewhere,
        OVERVIEW,
        lambda d: d["links"][0].update(placement="inControlsMenu"),
        "hidden in a menu",
    ),
    Broken(
        lint.links_lead_somewhere, OVERVIEW, lambda d: d["links"][0].update(url="/d/sluice-source"), "no dashboard /d/"
    ),
    Broken(
        lint.links_lead_somewhere,
        OVERVIEW,
        lambda d: d["links"][0].update(url="http://localhost:3000/d/sluice-sources"),
        "leaves Grafana",
    ),
    Broken(
        lint.links_lead_somewhere,
        OVERVIEW,
        lambda d: panel(d, 3)["fieldConfig"]["overrides"][0]["properties"][0].update(
            value=[{"title": "x", "url": "/d/sluice-sources?var-src=a"}]
        ),
        "var-src is no variable",
    ),
    Broken(
        lint.links_lead_somewhere,
        OVERVIEW,
        lambda d: d["links"][0].update(url="/alerting/groups?alertmanager=main"),
        "no Alertmanager that is provisioned",
    ),
    Broken(
        lint.links_lead_somewhere, OVERVIEW, lambda d: d["links"][0].update(url="/explore"), "no page that this rule"
    ),
    Broken(
        lint.alerts_lead_to_panels_and_the_runbook,
        OVERVIEW,
        _drop(10),
        "alert SluiceLagRising: there is no panel 10 on sluice-overview",
    ),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.lint.__name__}: {broken.said}")
def test_a_rule_fails_on_a_broken_copy_and_only_there(given: Context, broken: Broken) -> None:
    document = copy.deepcopy(dict(given.dashboards[broken.uid]))
    assert not [found for found in broken.lint(given, document) if broken.said in found]
    broken.breaking(document)
    told = list(broken.lint(given, document))
    assert any(broken.said in found for found in told), told


def _with_rule(given: Context, **changes: Any) -> Context:
    rule = next(each for each in given.rules if each.alert == "SluiceLagRising")
    return dataclasses.replace(given, rules=[dataclasses.replace(rule, **changes)])


def _with_datasource(given: Context, of: str, **changes: Any) -> Context:
    return dataclasses.replace(
        given,
        datasources=[{**source, **(changes if source["uid"] == of else {})} for source in given.datasources],
    )


SURROUNDINGS: list[tuple[Callable[[Context], Context], Lint, str]] = [
    (lambda g: _with_rule(g, uid="gone"), lint.alerts_lead_to_panels_and_the_runbook, "there is no dashboard gone"),
    (lambda g: _with_rule(g, runbook="docs/runbook.md#gone"), lint.alerts_lead_to_panels_and_the_runbook, "no section"),
    (lambda g: dataclasses.replace(g, scrape_interval="15s"), lint.datasources_fit, "Prometheus scrapes every 15s"),
    (lambda g: _with_datasource(g, "prometheus", jsonData={}), lint.datasources_fit, "timeInterval is None"),
    (lambda g: _with_datasource(g, "alertmanager", uid="am"), lint.datasources_fit, "the data sources are"),
    (
        lambda g: _with_datasource(g, "prometheus", url="http://127.0.0.1:9090"),
        lint.datasources_fit,
        "the address of prometheus is not from the environment",
    ),
]


@pytest.mark.parametrize(
    ("change", "rule", "said"), SURROUNDINGS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_fails_where_what_surrounds_the_dashboards_does_not_fit(
    given: Context, change: Callable[[Context], Context], rule: Lint, said: str
) -> None:
    document = given.dashboards[OVERVIEW]
    assert any(said in found for found in rule(change(given), document))
    assert not any(said in found for found in rule(given, document))


def test_every_rule_is_shown_failing() -> None:
    assert {broken.lint for broken in BROKEN} | {rule for _, rule, _ in SURROUNDINGS} == set(lint.LINTS)


def test_thresholds_follow_the_alerts_constant() -> None:
    """What build draws is read from the rules, not written twice."""
    found = [
        dataclasses.replace(rule, expr=rule.expr.replace("> 100", "> 250")) if rule.alert == "SluiceLagRising" else rule
        for rule in rules.load()
    ]
    from grafana import overview

    made = json.loads(json.dumps(overview.build(rules.Alerts(found)), cls=JSONEncoder))
    assert [step["value"] for step in panel(made, 10)["fieldConfig"]["defaults"]["thresholds"]["steps"]] == [None, 250]


def _all_exprs() -> Iterator[queries.Asked]:
    yield from queries.of_dashboards({"source": "Efficy", "host": "node-1", "gpu": "GPU-1"})
    yield from queries.of_rules()


def test_no_variable_is_left_in_a_query_that_is_filled_in() -> None:
    asked = list(_all_exprs())
    assert len(asked) > 100
    assert not [each for each in asked if "$" in each.expr]
    with pytest.raises(KeyError):
        queries.of_dashboards({})  # `source` has no value


def test_variables_are_filled_in_as_grafana_does() -> None:
    document = {
        "uid": "x",
        "time": {"from": "now-30m"},
        "panels": [
            {
                "id": 1,
                "title": "t",
                "interval": "30s",
                "targets": [{"refId": "A", "expr": "rate(x[$__rate_interval])"}, {"refId": "B", "expr": 'y{z="$s"}'}],
            }
        ],
    }
    first, second = queries.of_dashboard(document, {"s": "a"})
    assert (first.expr, first.step_s, first.range_s) == ("rate(x[35s])", 30, 1800)
    assert second.expr == 'y{z="a"}'


def test_of_an_alert_every_operand_is_asked_without_its_comparison() -> None:
    def asked(expr: str) -> list[str]:
        return ["".join(each.expr.split()) for each in queries.of_rules([rules.Rule("g", expr, alert="A")])]

    assert asked("sum(rate(a[5m])) / sum(rate(b[5m])) > 0.1") == ["sum(rate(a[5m]))/sum(rate(b[5m]))"]
    assert asked("(a and b > 14 and c >= 10) > 6") == ["a", "b", "c"]
    assert asked("absent(up{job='x'}) or absent(up{job='y'})") == ['up{job="x"}', 'up{job="y"}']
    assert asked("rate(a[5m]) > 5 * rate(a[1d] offset 5m)") == ["rate(a[5m])", "5*rate(a[1d])"]


def test_a_record_of_what_was_minutes_ago_stands_for_its_expression() -> None:
    found = [
        rules.Rule("g", "avg_over_time(a[1d] offset 10m)", record="sluice:a:avg1d"),
        rules.Rule("g", "a > 5 * sluice:a:avg1d", alert="A"),
    ]
    assert [each.expr for each in queries.of_rules(found)] == [
        "avg_over_time(a[1d])",
        "a",
        "5 * (avg_over_time(a[1d]))",
    ]
