"""What every dashboard keeps to. Each rule is a function that yields what breaks it; `python -m grafana.lint` runs all.

A rule is shown failing on a broken copy in tests/unit/test_dashboards.py.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import promql_parser
import yaml
from prometheus_client.metrics import MetricWrapperBase

from grafana import queries, rules
from grafana.panels import COLUMNS
from processing.counts import EntriesBySource
from processing.fleet import Families as GpuFamilies
from processing.sources import Families
from shared import metrics

Document = Mapping[str, Any]

PROVISIONING: Final = rules.ROOT / "grafana" / "provisioning"
PROMETHEUS: Final = rules.ROOT / "prometheus" / "prometheus.yml"

UIDS: Final = {"sluice-overview", "sluice-sources", "sluice-pipeline", "sluice-gpus"}
VARIABLES: Final = {
    "sluice-sources": ["datasource", "source"],
    "sluice-gpus": ["datasource", "host", "gpu"],
}  # beside it, every dashboard has `datasource` alone

# Counters that are shown as they are: they are asked of the store, so they are exact, and no restart resets them.
EXACT: Final = re.compile(r"log_entries_by_source_total|sluice_source_\w+")

_ANY_VALUE: Final = {"source": "Efficy", "datasource": "prometheus", "host": "node-1", "gpu": "GPU-1"}
_OVER_TIME: Final = {"rate", "increase", "irate"}
_SCRAPED: Final = frozenset({"job", "instance", "le"})


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as Prometheus knows it: by the name of its samples."""

    labels: frozenset[str]
    counter: bool  # whether it only makes sense as a rate or an increase


@dataclass(frozen=True, slots=True)
class Context:
    """What the dashboards are held against."""

    dashboards: Mapping[str, Document]  # by uid
    alerts: rules.Alerts
    rules: Sequence[rules.Rule]
    metrics: Mapping[str, Metric]
    anchors: Mapping[str, set[str]]  # of each page that alerts link to
    datasources: Sequence[Document]
    scrape_interval: str


Lint = Callable[[Context, Document], Iterator[str]]


def exported(found: Sequence[rules.Rule]) -> dict[str, Metric]:
    """Every metric there is: of our registry, of the store, of the rules, and Prometheus' own about its targets."""
    known = {
        "up": Metric(frozenset(), counter=False),
        "ALERTS": Metric(
            frozenset({"alertname", "alertstate", "severity", "service", "stage", "source", "host", "gpu"}),
            counter=False,
        ),
    }
    for family in metrics.REGISTRY.collect():  # of the process: its registry's collectors have no fixed labels
        if family.name.startswith("process_"):
            suffix = "_total" if family.type == "counter" else ""
            known[family.name + suffix] = Metric(frozenset(), counter=family.type == "counter")
    wrappers = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    described = [(family, _labels_of(wrapper)) for wrapper in wrappers for family in wrapper.describe()]
    described += [
        (family, _labels_of(family)) for family in (*EntriesBySource(dict, 1).describe(), *Families(), *GpuFamilies())
    ]
    for family, labels in described:
        if family.type == "histogram":
            for suffix in ("_bucket", "_count", "_sum"):
                known[family.name + suffix] = Metric(frozenset(labels), counter=True)
        else:
            suffix = "_total" if family.type == "counter" else ""
            known[family.name + suffix] = Metric(frozenset(labels), counter=family.type == "counter")
    for rule in found:
        if rule.record:
            known[rule.record] = Metric(frozenset(_grouped_by(promql_parser.parse(rule.expr))), counter=False)
    return known


def _labels_of(metric: object) -> Sequence[str]:
    return getattr(metric, "_labelnames", ())  # which has no public name


def context(folder: Path = rules.DASHBOARDS) -> Context:
    """The dashboards of a folder, and everything that they are held against."""
    found = rules.load()
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    pages = {rule.runbook.partition("#")[0] for rule in found if rule.alert}
    sources = [
        source
        for path in sorted((PROVISIONING / "datasources").glob("*.yml"))
        for source in yaml.safe_load(path.read_text())["datasources"]
    ]
    return Context(
        dashboards={document["uid"]: document for document in documents},
        alerts=rules.Alerts(found),
        rules=found,
        metrics=exported(found),
        anchors={page: _anchors(rules.ROOT / page) for page in pages},
        datasources=sources,
        scrape_interval=yaml.safe_load(PROMETHEUS.read_text())["global"]["scrape_interval"],
    )


# --- the document --------------------------------------------------------------------------------------------------


def is_classic_json_under_a_fixed_uid(_: Context, document: Document) -> Iterator[str]:
    if document["uid"] not in UIDS:
        yield f"{document['uid']} is not one of the uids that links use"
    if "spec" in document or "elements" in document or not isinstance(document.get("panels"), list):
        yield "it is not classic JSON"
    if document.get("id") is not None:
        yield "it has an id, which is the database's to give"


def has_its_variables_and_no_others(_: Context, document: Document) -> Iterator[str]:
    found = [variable["name"] for variable in document["templating"]["list"]]
    wanted = VARIABLES.get(document["uid"], ["datasource"])
    if found != wanted:
        yield f"its variables are {found}, not {wanted}"
    for variable in document["templating"]["list"]:
        if variable["name"] == "datasource" and (variable["type"], variable["query"]) != ("datasource", "prometheus"):
            yield "`datasource` is no choice of Prometheus data sources"


def asks_the_chosen_datasource(_: Context, document: Document) -> Iterator[str]:
    variables = [variable for variable in document["templating"]["list"] if variable["type"] == "query"]
    for where, holder in [
        *((f"variable {variable['name']}", variable) for variable in variables),
        *((_name(panel), panel) for panel in _panels(document)),
        *((f"{_name(panel)} {target['refId']}", target) for panel, target in _targets(document)),
    ]:
        if holder.get("datasource", {}).get("uid") != "${datasource}":
            yield f"{where}: its data source is not ${{datasource}}"


def suits_a_first_look(_: Context, document: Document) -> Iterator[str]:
    """A range that shows what came in minutes ago, and a refresh that shows the next within seconds."""
    span, end, refresh = document["time"]["from"], document["time"]["to"], document.get("refresh") or "0s"
    if end != "now" or not 15 * 60 <= queries.seconds(span.removeprefix("now-")) <= 3600:
        yield f"it opens on {span} to {end}"
    if not 5 <= queries.seconds(refresh) <= 60:
        yield f"it is refreshed every {refresh}"


def answers_health_first(_: Context, document: Document) -> Iterator[str]:
    """Of the overview. The first row, all in sight without scrolling, says whether it is healthy."""
    if document["uid"] == "sluice-overview":
        first = next((panels for _, panels in _rows(document)), [])
        if not first or first[0]["id"] != 1 or first[0]["type"] != "stat":
            yield "the first panel of the first row is not `Healthy?`"
        if any(panel["gridPos"]["y"] + panel["gridPos"]["h"] > 10 for panel in first):
            yield "the first row is too tall to be seen at once"


# --- panels --------------------------------------------------------------------------------------------------------


def panels_say_what_they_show(_: Context, document: Document) -> Iterator[str]:
    for panel in _panels(document):
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        for name, there in (
            ("title", panel.get("title")),
            ("description", panel.get("description")),
            ("unit", defaults.get("unit")),
            ("query", panel.get("targets")),
        ):
            if not there:
                yield f"{_name(panel)}: it has no {name}"
    for title, _panels_of_row in _rows(document):
        if not title:
            yield "a row has no title"


def words_stand_for_values(_: Context, document: Document) -> Iterator[str]:
    """A value is looked up as JavaScript writes it, and a range without an end would be one up to 0."""
    for panel in _panels(document):
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
            options = mapping["options"]
            if mapping["type"] == "value" and (odd := [key for key in options if key != f"{float(key):g}"]):
                yield f"{_name(panel)}: no value is written {', '.join(odd)}"
            if mapping["type"] == "range" and None in (options.get("from"), options.get("to")):
                yield f"{_name(panel)}: a range of values has no end"


def has_each_id_once(_: Context, document: Document) -> Iterator[str]:
    ids = [panel["id"] for panel in document["panels"]]
    for repeated in sorted({each for each in ids if ids.count(each) > 1}):
        yield f"several panels have the id {repeated}"


def lies_within_the_grid_without_overlaps(_: Context, document: Document) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in document["panels"]:
        place = panel["gridPos"]
        if place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > COLUMNS:
            yield f"{_name(panel)}: it lies outside the {COLUMNS} columns"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken and taken[x, y] != _name(panel):
                    yield f"{_name(panel)}: it overlaps {taken[x, y]}"
                    break
                taken[x, y] = _name(panel)
            else:
                continue
            break


def has_no_empty_row_and_no_hole(_: Context, document: Document) -> Iterator[str]:
    if document["panels"][0]["type"] != "row":
        yield "its first panels belong to no row"
    for title, panels in _rows(document):
        covered = sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
        if not panels:
            yield f"the row {title!r} is empty"
        else:
            top = min(panel["gridPos"]["y"] for panel in panels)
            height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - top
            if covered != height * COLUMNS:
                yield f"the row {title!r} has holes"


def draws_only_the_alerts_own_constants(given: Context, document: Document) -> Iterator[str]:
    """A share's limit may also be the rest of the constant: 10 % may fail is 90 % must succeed."""
    for panel in _panels(document):
        defaults = panel["fieldConfig"]["defaults"]
        drawn = {
            step["value"] for step in defaults.get("thresholds", {}).get("steps", []) if step.get("value") is not None
        }
        named = re.findall(r"^Alert (\w+):", panel.get("description", ""), re.MULTILINE)
        allowed = {limit for alert in named for limit in given.alerts.limits(alert)}
        if defaults.get("unit") == "percentunit":
            allowed |= {1 - limit for limit in allowed}
        for limit in sorted(drawn - allowed):
            yield f"{_name(panel)}: {limit} is no threshold of its alerts: {', '.join(named) or 'it has none'}"


def names_the_alerts_that_link_to_it(given: Context, document: Document) -> Iterator[str]:
    for panel in _panels(document):
        for alert in given.alerts.of_panel(document["uid"], panel["id"]):
            if f"Alert {alert}: {given.alerts.runbook(alert)}" not in panel.get("description", ""):
                yield f"{_name(panel)}: it does not tell of {alert}, which links to it, and of its runbook"


# --- queries -------------------------------------------------------------------------------------------------------


def queries_parse(_: Context, document: Document) -> Iterator[str]:
    for asked in queries.of_dashboard(document, _ANY_VALUE):
        try:
            promql_parser.parse(asked.expr)
        except ValueError as error:
            yield f"{asked.where}: {error}: {asked.expr}"


def ranges_are_the_rate_interval(_: Context, document: Document) -> Iterator[str]:
    """`$__range` is for what is shown as one number of the whole range."""
    for panel, target in _targets(document):
        allowed = {"$__rate_interval"} | ({"$__range"} if target.get("instant") else set())
        for span in re.findall(r"\[([^\]]*)\]", target["expr"]):
            if span not in allowed:
                yield f"{_name(panel)} {target['refId']}: [{span}] is not [$__rate_interval]"


def counters_are_rates_or_exact(given: Context, document: Document) -> Iterator[str]:
    for where, parsed in _parsed(document):
        for name in _bare(parsed):
            if given.metrics.get(name, Metric(frozenset(), counter=False)).counter and not EXACT.fullmatch(name):
                yield f"{where}: {name} is a counter, and stands outside of rate and increase"


def metrics_are_exported(given: Context, document: Document) -> Iterator[str]:
    for where, parsed in _parsed(document):
        for selector in queries.selectors(parsed):
            if selector.name not in given.metrics:
                yield f"{where}: nobody exports {selector.name}"


def labels_are_those_of_the_metric(given: Context, document: Document) -> Iterator[str]:
    for where, parsed in _parsed(document):
        for selector in queries.selectors(parsed):
            metric = given.metrics.get(selector.name or "")
            asked = {matcher.name for matcher in selector.matchers.matchers}
            if metric and (unknown := asked - metric.labels - _SCRAPED):
                yield f"{where}: {selector.name} has no label {', '.join(sorted(unknown))}"
        for aggregate in _aggregates(parsed):
            there = {"job", "instance", "le"} | _made_labels(parsed)
            for selector in queries.selectors(aggregate):
                there |= given.metrics.get(selector.name or "", Metric(frozenset(), counter=False)).labels
            labels = set(aggregate.modifier.labels) if aggregate.modifier else set()
            if unknown := labels - there:
                yield f"{where}: there is no label {', '.join(sorted(unknown))} to group by"


def shows_no_traffic_as_such(_: Context, document: Document) -> Iterator[str]:
    """Where nothing came there is no share: nothing is divided by what may be 0, no share is made up where there is
    none, and an empty answer has words."""
    for panel in _panels(document):
        defaults = panel["fieldConfig"]["defaults"]
        if not defaults.get("noValue"):
            yield f"{_name(panel)}: it does not say what no data means"
        for where, parsed in _parsed({**document, "panels": [panel]}):
            for part in _everything(parsed):
                if isinstance(part, promql_parser.BinaryExpr) and str(part.op) == "/" and not _is_positive(part.rhs):
                    yield f"{where}: it divides by what may be 0: {part.rhs.prettify()}"
                if defaults.get("unit") == "percentunit" and _is_made_up(part):
                    yield f"{where}: it makes up a share where there is none: {part.prettify()}"


# --- links ---------------------------------------------------------------------------------------------------------


def links_lead_somewhere(given: Context, document: Document) -> Iterator[str]:
    if not document.get("links"):
        yield "it links to no other dashboard"
    if any(link.get("placement") for link in document.get("links", [])):
        yield "a link to another dashboard is hidden in a menu"
    for where, url in _urls(document):
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if parts.scheme or not parts.path.startswith("/"):
            yield f"{where}: {url} leaves Grafana, which may run anywhere"
        elif parts.path.startswith("/d/"):
            target = given.dashboards.get(parts.path.removeprefix("/d/"))
            if target is None:
                yield f"{where}: there is no dashboard {url}"
                continue
            known = {f"var-{variable['name']}" for variable in target["templating"]["list"]}
            if unknown := {name for name in query if name.startswith("var-")} - known:
                yield f"{where}: {', '.join(sorted(unknown))} is no variable of that dashboard"
        elif parts.path == "/alerting/groups":
            names = {source["name"] for source in given.datasources if source["type"] == "alertmanager"}
            if set(query.get("alertmanager", [])) - names or "alertmanager" not in query:
                yield f"{where}: {url} names no Alertmanager that is provisioned"
        else:
            yield f"{where}: {url} is no page that this rule knows"


def alerts_lead_to_panels_and_the_runbook(given: Context, document: Document) -> Iterator[str]:
    ids = {panel["id"] for panel in _panels(document)}
    for rule in given.rules:
        if not rule.alert:
            continue
        if rule.uid not in given.dashboards:
            yield f"alert {rule.alert}: there is no dashboard {rule.uid}"
        elif rule.uid == document["uid"] and rule.panel not in ids:
            yield f"alert {rule.alert}: there is no panel {rule.panel} on {rule.uid}"
        page, _, anchor = rule.runbook.partition("#")
        if rule.uid == document["uid"] and anchor not in given.anchors.get(page, set()):
            yield f"alert {rule.alert}: {page} has no section #{anchor}"


def datasources_fit(given: Context, _: Document) -> Iterator[str]:
    """The time interval that Grafana makes $__rate_interval of is the one that Prometheus scrapes at."""
    by_uid = {source["uid"]: source for source in given.datasources}
    if set(by_uid) != {"prometheus", "alertmanager"}:
        yield f"the data sources are {sorted(by_uid)}"
        return
    interval = by_uid["prometheus"]["jsonData"].get("timeInterval")
    if not interval == queries.SCRAPE == given.scrape_interval:
        yield f"timeInterval is {interval}, but Prometheus scrapes every {given.scrape_interval}"
    for source in given.datasources:
        if not str(source["url"]).startswith("$"):
            yield f"the address of {source['uid']} is not from the environment"


LINTS: Final[tuple[Lint, ...]] = (
    is_classic_json_under_a_fixed_uid,
    has_its_variables_and_no_others,
    asks_the_chosen_datasource,
    suits_a_first_look,
    answers_health_first,
    panels_say_what_they_show,
    words_stand_for_values,
    has_each_id_once,
    lies_within_the_grid_without_overlaps,
    has_no_empty_row_and_no_hole,
    draws_only_the_alerts_own_constants,
    names_the_alerts_that_link_to_it,
    queries_parse,
    ranges_are_the_rate_interval,
    counters_are_rates_or_exact,
    metrics_are_exported,
    labels_are_those_of_the_metric,
    shows_no_traffic_as_such,
    links_lead_somewhere,
    alerts_lead_to_panels_and_the_runbook,
    datasources_fit,
)


def findings(given: Context) -> list[str]:
    """Everything that is wrong with any dashboard."""
    return [
        f"{uid}: {found}"
        for uid, document in given.dashboards.items()
        for lint in LINTS
        for found in lint(given, document)
    ]


# --- looking -------------------------------------------------------------------------------------------------------


def _panels(document: Document) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def _rows(document: Document) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each row's title, with the panels up to the next row."""
    row: tuple[str, list[dict[str, Any]]] | None = None
    for panel in document["panels"]:
        if panel["type"] == "row":
            if row is not None:
                yield row
            row = (panel.get("title", ""), list(panel.get("panels", [])))
        elif row is not None:
            row[1].append(panel)
    if row is not None:
        yield row


def _targets(document: Document) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for panel in _panels(document):
        for target in panel.get("targets", []):
            yield panel, target


def _name(panel: Document) -> str:
    return f"panel {panel['id']} {panel.get('title', '')!r}"


def _parsed(document: Document) -> Iterator[tuple[str, promql_parser.Expr]]:
    """The queries that parse; those that do not have a rule of their own."""
    for asked in queries.of_dashboard(document, _ANY_VALUE):
        try:
            yield asked.where, promql_parser.parse(asked.expr)
        except ValueError:
            continue


def _everything(expr: promql_parser.Expr) -> Iterator[promql_parser.Expr]:
    yield expr
    for inner in queries.inside(expr):
        yield from _everything(inner)


def _aggregates(expr: promql_parser.Expr) -> list[promql_parser.AggregateExpr]:
    return [part for part in _everything(expr) if isinstance(part, promql_parser.AggregateExpr)]


def _grouped_by(expr: promql_parser.Expr) -> set[str]:
    found = next(iter(_aggregates(expr)), None)
    return set(found.modifier.labels) if found is not None and found.modifier else set()


def _made_labels(expr: promql_parser.Expr) -> set[str]:
    """The labels that label_replace sets."""
    made = set()
    for part in _everything(expr):
        if isinstance(part, promql_parser.Call) and part.func.name == "label_replace":
            target = part.args[1]
            if isinstance(target, promql_parser.StringLiteral):
                made.add(target.val)
    return made


def _bare(expr: promql_parser.Expr) -> Iterator[str]:
    """The metrics that are selected outside of rate and increase."""
    if isinstance(expr, promql_parser.Call) and expr.func.name in _OVER_TIME:
        return
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr.name or ""
    for inner in queries.inside(expr):
        yield from _bare(inner)


def _is_positive(expr: promql_parser.Expr) -> bool:
    if isinstance(expr, promql_parser.ParenExpr):
        return _is_positive(expr.expr)
    if isinstance(expr, promql_parser.NumberLiteral):
        return expr.val > 0
    limit = expr.rhs if isinstance(expr, promql_parser.BinaryExpr) and str(expr.op) == ">" else None
    return isinstance(limit, promql_parser.NumberLiteral) and limit.val >= 0


def _is_made_up(expr: promql_parser.Expr) -> bool:
    """Whether it is a vector of a constant other than 0."""
    value = expr.args[0] if isinstance(expr, promql_parser.Call) and expr.func.name == "vector" else None
    return isinstance(value, promql_parser.NumberLiteral) and value.val != 0


def _urls(document: Document) -> Iterator[tuple[str, str]]:
    for link in document.get("links", []):
        yield f"link {link['title']!r}", link["url"]
    for panel in _panels(document):
        config = panel["fieldConfig"]
        for link in [*panel.get("links", []), *config["defaults"].get("links", [])]:
            yield _name(panel), link["url"]
        for override in config.get("overrides", []):
            for property_ in override["properties"]:
                if property_["id"] == "links":
                    yield from ((_name(panel), link["url"]) for link in property_["value"])


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    if not page.exists():
        return set()
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main() -> int:
    found = findings(context())
    sys.stderr.writelines(f"{each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
