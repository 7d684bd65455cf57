"""Sources: what one source's entries are like."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from grafana.panels import SOURCE_OF_DATA, Graph, Number, Panel, Query, Row, Table, dashboard_of
from grafana.rules import Alerts

UID: Final = "sluice-sources"
TITLE: Final = "Sources"

_ALL_TIME: Final = "Of all its entries that are stored, whenever they happened."
_STORED: Final = "By when entries were stored, whenever they happened."


def _measured(metric: str, *quantiles: float) -> list[Query]:
    """Quantiles of a histogram by source, as its entries come in."""
    return [
        Query(
            f'histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{source="$source"}}[$__rate_interval])))',
            f"p{q * 100:.0f}",
        )
        for q in quantiles
    ]


def _ever() -> list[Panel]:
    entries = 'max by (status) (log_entries_by_source_total{source="$source"})'
    success = 'max by (status) (log_entries_by_source_total{source="$source", status="SUCCESS"})'
    efficiency = 'sluice_source_efficiency_ratio_{0}{{source="$source"}}'
    return [
        Number(
            id=30,
            title="Entries",
            about=f"Exact. {_ALL_TIME}",
            unit="locale",
            queries=[Query(f"sum({entries})")],
            color="blue",
            empty="none yet",
            width=4,
            height=4,
        ),
        Number(
            id=31,
            title="Success rate",
            about=f"Share of entries whose operation succeeded, exact. {_ALL_TIME}",
            unit="percentunit",
            queries=[Query(f"(sum({success}) or vector(0)) / (sum({entries}) > 0)")],
            decimals=2,
            width=4,
            height=4,
        ),
        Number(
            id=32,
            title="Duration, 95 of 100 within",
            about=f"Interpolated within a histogram's buckets; GET /analytics/summary of processing is within 1 %. {_ALL_TIME}",
            unit="s",
            queries=[
                Query('histogram_quantile(0.95, sum by (le) (sluice_source_duration_seconds_bucket{source="$source"}))')
            ],
            empty="none has one",
            width=4,
            height=4,
        ),
        Number(
            id=33,
            title="Memory, 95 of 100 within",
            about=f"Interpolated within a histogram's buckets; GET /analytics/summary of processing is within 1 %. {_ALL_TIME}",
            unit="bytes",
            queries=[
                Query('histogram_quantile(0.95, sum by (le) (sluice_source_memory_bytes_bucket{source="$source"}))')
            ],
            empty="none has any",
            width=4,
            height=4,
        ),
        Number(
            id=34,
            title="Efficiency",
            about=f"The mean of the entries that have a score; docs/analytics.md says how it is made. {_ALL_TIME}",
            unit="percentunit",
            queries=[Query(f"sum({efficiency.format('sum')}) / (sum({efficiency.format('count')}) > 0)")],
            empty="none has one",
            decimals=1,
            width=4,
            height=4,
        ),
        Number(
            id=35,
            title="Anomalies",
            about=f"An entry may have several. {_ALL_TIME}",
            unit="locale",
            queries=[Query('sum(max by (reason) (sluice_source_anomalies_total{source="$source"}))')],
            color="orange",
            empty="none yet",
            width=4,
            height=4,
        ),
    ]


def _lately(alerts: Alerts) -> list[Panel]:
    entries = 'sluice_source_entries_total{source="$source"}'
    return [
        Graph(
            id=1,
            title="Rate",
            about=f"Entries a second. {_STORED}",
            unit="recps",
            queries=[Query(f"sum(rate({entries}[$__rate_interval]))", "$source")],
            width=12,
        ),
        Graph(
            id=2,
            title="Outcome",
            about=f"Share of the entries that had each status. {_STORED} Where nothing was stored nothing is drawn. The line "
            "is what SluiceEntriesFailing tolerates of FAILED.",
            unit="percentunit",
            queries=[
                Query(
                    f"sum by (status) (rate({entries}[$__rate_interval])) "
                    f"/ ignoring (status) group_left () (sum(rate({entries}[$__rate_interval])) > 0)",
                    "{{status}}",
                )
            ],
            limits=alerts.thresholds("SluiceEntriesFailing"),
            maximum=1,
            width=12,
        ),
    ]


def _measures() -> list[Panel]:
    ratio = 'sluice_source_efficiency_ratio_{0}{{source="$source"}}[$__rate_interval]'
    return [
        Graph(
            id=3,
            title="Duration quantiles",
            about=f"How long its operations take: half, 95 and 99 of 100 of them at most. {_STORED}",
            unit="s",
            queries=_measured("sluice_source_duration_seconds", 0.5, 0.95, 0.99),
            width=8,
        ),
        Graph(
            id=4,
            title="Memory",
            about=f"What its operations use: half, and 95 of 100 of them at most. {_STORED}",
            unit="bytes",
            queries=_measured("sluice_source_memory_bytes", 0.5, 0.95),
            width=8,
        ),
        Graph(
            id=5,
            title="Efficiency",
            about=f"The mean score of the entries that have one; docs/analytics.md says how it is made. {_STORED}",
            unit="percentunit",
            queries=[
                Query(
                    f"sum(rate({ratio.format('sum')})) / (sum(rate({ratio.format('count')})) > 0)",
                    "mean",
                )
            ],
            maximum=1,
            width=8,
        ),
    ]


def _apart() -> list[Panel]:
    return [
        Table(
            id=6,
            title="Slowest operations",
            about="The ten operations with the longest entry, of those stored in the last hour, and of all that are "
            "stored; the entry itself may have happened at any time.",
            unit="s",
            queries=[
                Query('max by (operation) (sluice_operation_longest_recent_seconds{source="$source"})'),
                Query('max by (operation) (sluice_operation_longest_seconds{source="$source"})'),
            ],
            steps=[
                ("joinByField", {"byField": "operation", "mode": "outer"}),
                (
                    "organize",
                    {
                        "excludeByName": {"Time": True, "Time 1": True, "Time 2": True},
                        "renameByName": {"Value #A": "stored in the last hour", "Value #B": "of all"},
                    },
                ),
            ],
            sort="of all",
            empty="-",
            width=12,
            height=9,
        ),
        Graph(
            id=7,
            title="Anomalies",
            about=f"Failures, and entries far longer or heavier than their operation usually is. {_STORED}",
            unit="short",
            queries=[
                Query(
                    'sum by (reason) (increase(sluice_source_anomalies_total{source="$source"}[$__rate_interval]))',
                    "{{reason}}",
                )
            ],
            style="bars",
            width=12,
            height=9,
        ),
    ]


def build(alerts: Alerts) -> dashboard.Dashboard:
    rows = [
        Row("What has $source sent, ever?", _ever()),
        Row("What does it send now?", _lately(alerts)),
        Row("What are its entries like?", _measures()),
        Row("What stands out?", _apart()),
    ]
    links = [("Overview", "/d/sluice-overview"), ("Pipeline", "/d/sluice-pipeline"), ("GPU fleet", "/d/sluice-gpus")]
    source = (
        builders.QueryVariable("source")
        .label("Source")
        .datasource(SOURCE_OF_DATA)
        .query({"query": "label_values(log_entries_by_source_total, source)", "refId": "source"})
        .definition("label_values(log_entries_by_source_total, source)")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(multi=False)
        .include_all(include_all=False)
    )
    about = "One source at a time: how much, how well, how long, how heavy, and what stands out."
    return dashboard_of(UID, TITLE, about, rows, alerts, links, [source])
