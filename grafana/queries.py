"""Every query of every panel and rule, with its variables filled in; and which of them a live Prometheus can't answer.

    asked = [*of_dashboards({"source": "Efficy", "host": ".*", "gpu": ".*"}), *of_rules()]
    missing = unanswered("http://127.0.0.1:9090", asked)      # after traffic, and one fault of each kind

A panel's query has to return a number, over the dashboard's default range where it is drawn over time. So has a
recorded expression. An alert's is empty while all is well: of it, every operand that is compared or combined has to.
"""

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import promql_parser

from grafana import rules

SCRAPE: Final = "5s"  # the scrape interval, and with it the least step of a graph

_COMPARED: Final = {">", ">=", "<", "<=", "==", "!="}
_COMBINED: Final = {"and", "or", "unless"}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_OFFSET = re.compile(r" offset \w+")
_RECORD = re.compile(r"\bsluice:[\w:]+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as Prometheus gets it."""

    where: str  # who asks: dashboard, panel and letter, or the rule
    expr: str
    range_s: int = 0  # how far back it is drawn; 0: only the present
    step_s: int = 5


def of_dashboards(variables: Mapping[str, str], folder: Path = rules.DASHBOARDS) -> list[Asked]:
    """The queries of all panels of the dashboards in a folder. Raises KeyError where a variable has no value."""
    return [
        asked
        for path in sorted(folder.glob("*.json"))
        for asked in of_dashboard(json.loads(path.read_text()), variables)
    ]


def of_dashboard(document: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Asked]:
    """The queries of a dashboard's panels, filled in as Grafana would over the default range."""
    range_s = seconds(document["time"]["from"].removeprefix("now-"))
    scrape_s = seconds(SCRAPE)
    for panel in document["panels"]:
        step_s = max(seconds(panel.get("interval", SCRAPE)), scrape_s)
        own = {
            "__interval": f"{step_s}s",
            "__rate_interval": f"{max(step_s + scrape_s, 4 * scrape_s)}s",
            "__range": f"{range_s}s",
            **variables,
        }
        for target in panel.get("targets", []):
            where = f"{document['uid']} {panel['id']} {panel['title']!r} {target['refId']}"
            drawn = 0 if target.get("instant") else range_s
            yield Asked(where, filled(target["expr"], own), drawn, step_s)


def of_rules(found: Sequence[rules.Rule] | None = None) -> list[Asked]:
    """What the rules ask: recorded expressions whole, alerts' by their operands.

    In a stack that has just begun there is nothing yet of ten minutes ago, nor of what is recorded from it: an offset
    is left out, and such a record stands for its expression.
    """
    known = rules.load() if found is None else found
    later = {rule.record: f"({_now(rule.expr)})" for rule in known if rule.record and _now(rule.expr) != rule.expr}
    asked = []
    for rule in known:
        if rule.record:
            asked.append(Asked(f"record {rule.record}", _now(rule.expr)))
            continue
        operands = dict.fromkeys(_operands(promql_parser.parse(_now(rule.expr))))
        asked += [
            Asked(f"alert {rule.alert}", _RECORD.sub(lambda name: later.get(name[0], name[0]), operand))
            for operand in operands
        ]
    return asked


def filled(expr: str, values: Mapping[str, str]) -> str:
    """The expression with its variables replaced. Raises KeyError for one that has no value."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def seconds(duration: str) -> int:
    """A duration of one unit, such as 30m."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def unanswered(prometheus: str, asked: Iterable[Asked]) -> list[str]:
    """Who gets no data, and for which query, from the Prometheus at this URL; empty when all is answered."""
    at = time.time()
    with httpx.Client(base_url=prometheus, timeout=30.0) as client:
        return [f"{each.where}: {each.expr}" for each in asked if not _answered(client, each, at)]


def selectors(expr: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    """Every selector within an expression."""
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr
    for inner in inside(expr):
        yield from selectors(inner)


def inside(expr: promql_parser.Expr) -> list[promql_parser.Expr]:
    """The expressions directly within this one."""
    if isinstance(expr, promql_parser.BinaryExpr):
        return [expr.lhs, expr.rhs]
    if isinstance(expr, promql_parser.Call):
        return list(expr.args)
    if isinstance(expr, promql_parser.MatrixSelector):
        return [expr.vector_selector]
    if isinstance(expr, promql_parser.AggregateExpr):
        return [expr.expr, *([expr.param] if isinstance(expr.param, promql_parser.Expr) else [])]
    if isinstance(expr, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        return [expr.expr]
    return []


def _operands(expr: promql_parser.Expr) -> Iterator[str]:
    """What an alert compares and combines; `absent(x)` is empty while there is x, so it is x that has to be there."""
    if isinstance(expr, promql_parser.ParenExpr):
        yield from _operands(expr.expr)
    elif isinstance(expr, promql_parser.BinaryExpr) and str(expr.op) in _COMPARED | _COMBINED:
        yield from _operands(expr.lhs)
        yield from _operands(expr.rhs)
    elif isinstance(expr, promql_parser.Call) and expr.func.name == "absent":
        yield from _operands(expr.args[0])
    elif not isinstance(expr, promql_parser.NumberLiteral):
        yield expr.prettify()


def _now(expr: str) -> str:
    """The expression without its offsets."""
    return _OFFSET.sub("", expr)


def _answered(client: httpx.Client, asked: Asked, at: float) -> bool:
    if asked.range_s:
        query: dict[str, str | float] = {
            "query": asked.expr,
            "start": at - asked.range_s,
            "end": at,
            "step": asked.step_s,
        }
        answer = client.get("/api/v1/query_range", params=query)
    else:
        answer = client.get("/api/v1/query", params={"query": asked.expr, "time": at})
    if answer.status_code != httpx.codes.OK:
        raise ValueError(f"{asked.where}: Prometheus refuses {asked.expr}: {answer.text}")
    data = answer.json()["data"]
    if data["resultType"] == "scalar":
        return not math.isnan(float(data["result"][1]))
    return any(
        not math.isnan(float(value))
        for series in data["result"]
        for _, value in (series.get("values") or [series["value"]])
    )
