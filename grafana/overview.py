"""Observability Stack Dashboard: is it healthy, what came in, how does it flow, what stands out, what does it cost?"""

from typing import Final

from grafana_foundation_sdk.models import dashboard

from grafana.panels import Graph, Link, Number, Panel, Query, Row, Table, dashboard_of
from grafana.rules import Alerts

UID: Final = "sluice-overview"
TITLE: Final = "Observability Stack Dashboard"

_SERVICES: Final = "ingestion|standardization|processing"
_ENTRIES: Final = "max by (source, status) (log_entries_by_source_total)"  # once, however many processings answer
_SUCCESSES: Final = 'max by (source, status) (log_entries_by_source_total{status="SUCCESS"})'

_UP: Final = {0.0: ("down", "red")}
_REACHES: Final = {0.0: ("unreachable", "red"), 1.0: ("connected", "green")}

# Each line is 0 when all is well. `or vector(...)` says what it is when there is nothing to count at all.
_PROBLEMS: Final = f"""
(3 - count(count by (job) (up{{job=~"{_SERVICES}"}} == 1)) or vector(3))
+ (count(sluice_active_connections == 0) or vector(0))
+ (count(ALERTS{{alertstate="firing", severity="critical"}}) or vector(0))
+ (absent(ALERTS{{alertstate="firing", alertname="Watchdog"}}) or vector(0))
""".strip()


def _healthy() -> list[Panel]:
    return [
        Number(
            id=1,
            title="Healthy?",
            about="Healthy while all three services answer, all of them reach Kafka, no critical alert fires, and the "
            "alert rules are being evaluated. What is wrong stands in the panels beside this one.",
            unit="none",
            queries=[Query(_PROBLEMS)],
            meanings={0.0: ("healthy", "green")},
            otherwise=("NOT HEALTHY", "red"),
            empty="unknown",
            width=4,
            height=6,
        ),
        Number(
            id=17,
            title="Services up",
            about="Instances of each service that answer Prometheus. A service that is missing here has no target.",
            unit="none",
            queries=[Query(f'sum by (job) (up{{job=~"{_SERVICES}|prometheus|alertmanager"}})', "{{job}}")],
            meanings=_UP,
            otherwise=("", "green"),
            empty="none",
            width=7,
            height=6,
        ),
        Number(
            id=8,
            title="Kafka connections per service",
            about="Whether each service reaches Kafka; where it has several instances, whether all of them do.",
            unit="none",
            queries=[Query("min by (service) (sluice_active_connections)", "{{service}}")],
            meanings=_REACHES,
            empty="none",
            width=5,
            height=6,
        ),
        Table(
            id=18,
            title="Firing alerts",
            about="What fires now, but the Watchdog, which always does. docs/runbook.md has a section of each alert's "
            "name; the link Alertmanager above shows what is silenced or inhibited.",
            unit="none",
            queries=[
                Query(
                    "count by (alertname, severity, service, stage, source) "
                    '(ALERTS{alertstate="firing", alertname!="Watchdog"})'
                )
            ],
            steps=[
                (
                    "organize",
                    {
                        "excludeByName": {"Time": True},
                        "indexByName": {"alertname": 0, "severity": 1, "service": 2, "stage": 3, "source": 4},
                        "renameByName": {"alertname": "alert", "Value": "series"},
                    },
                )
            ],
            empty="none fires",
            width=8,
            height=6,
        ),
    ]


def _entries(alerts: Alerts) -> list[Panel]:
    return [
        Table(
            id=3,
            title="Log Entries by Source",
            about="Entries in the store, each counted once, by source and status: exact integers, of all time, whenever "
            "they happened. Select a source to see its own dashboard.",
            unit="locale",
            queries=[
                Query(f'{_ENTRIES} or label_replace(sum by (status) ({_ENTRIES}), "source", "all sources", "", "")')
            ],
            steps=[
                (
                    "groupingToMatrix",
                    {"rowField": "source", "columnField": "status", "valueField": "Value", "emptyValue": "null"},
                ),
                ("organize", {"renameByName": {"source\\status": "source"}}),
                ("calculateField", {"mode": "reduceRow", "alias": "all", "reduce": {"reducer": "sum"}}),
            ],
            sort="all",
            link=Link(
                "Its dashboard",
                "/d/sluice-sources?var-source=${__value.text:percentencode}&${__url_time_range}",
                column="source",
            ),
            empty="0",
            width=9,
            height=9,
        ),
        Number(
            id=7,
            title="Total Messages Processed",
            about="Entries that have gone all the way into the store: exact, of all time, each once.",
            unit="locale",
            queries=[Query(f"sum({_ENTRIES})")],
            color="blue",
            empty="none yet",
            width=4,
            height=9,
        ),
        Number(
            id=6,
            title="Success Rate",
            about="Share of entries whose operation succeeded, as the entries themselves report it: of all that are "
            "stored, and of those stored in the time range. Red below what SluiceEntriesFailing tolerates.",
            unit="percentunit",
            queries=[
                Query(
                    f"(sum({_SUCCESSES}) or vector(0)) / (sum({_ENTRIES}) > 0)",
                    "all",
                ),
                Query(
                    'sum(increase(sluice_source_entries_total{status="SUCCESS"}[$__range])) '
                    "/ (sum(increase(sluice_source_entries_total[$__range])) > 0)",
                    "in range",
                ),
            ],
            limits=[1 - limit for limit in alerts.thresholds("SluiceEntriesFailing")],
            limits_of=["SluiceEntriesFailing"],
            good_above=True,
            decimals=2,
            width=4,
            height=9,
        ),
        Graph(
            id=30,
            title="Entries stored, by source",
            about="Entries a second, by when they were stored, whenever they happened.",
            unit="recps",
            queries=[Query("sum by (source) (rate(sluice_source_entries_total[$__rate_interval]))", "{{source}}")],
            style="stacked",
            width=7,
            height=9,
        ),
    ]


def _work(alerts: Alerts) -> list[Panel]:
    return [
        Graph(
            id=2,
            title="Request Rate by Service",
            about="HTTP requests a second that users make; probes and scrapes are left out.",
            unit="reqps",
            queries=[
                Query(
                    'sum by (service) (rate(sluice_http_requests_total{route!~"/(ready|health|metrics)"}[$__rate_interval]))',
                    "{{service}}",
                )
            ],
            width=6,
        ),
        Graph(
            id=4,
            title="Message Processing Duration",
            about="How long one batch of messages takes, half of them at most and 95 of 100 at most: through a stage's "
            "transform, without waiting for Kafka, and into the store.",
            unit="s",
            queries=[
                *(
                    Query(
                        f"histogram_quantile({q}, sum by (stage, le) "
                        "(rate(sluice_processing_duration_seconds_bucket[$__rate_interval])))",
                        f"{{{{stage}}}} p{q * 100:.0f}",
                    )
                    for q in (0.5, 0.95)
                ),
                *(
                    Query(
                        f"histogram_quantile({q}, sum by (le) "
                        "(rate(sluice_store_write_duration_seconds_bucket[$__rate_interval])))",
                        f"sink p{q * 100:.0f}",
                    )
                    for q in (0.5, 0.95)
                ),
            ],
            width=6,
        ),
        Graph(
            id=5,
            title="Processing Errors",
            about="Errors of Kafka, of the store, and losses to Kafka's retention, by stage. Stages try again; entries "
            "that can't go on are no errors but dead letters. None is normal.",
            unit="short",
            queries=[
                Query("sum by (stage, kind) (increase(sluice_errors_total[$__rate_interval]))", "{{stage}} {{kind}}")
            ],
            style="bars",
            width=6,
        ),
        Graph(
            id=31,
            title="Error budgets: burn rate",
            about="How many times faster than the month allows the last hour used up each budget: pushes that were "
            "answered with a 5xx status (0.1 %), and batches that were not in the store within the objective (1 %). "
            "Nothing is drawn where there was no traffic.",
            unit="none",
            queries=[
                Query("sluice:push_errors:ratio_rate1h / 0.001", "pushes"),
                Query("sluice:freshness_late:ratio_rate1h / 0.01", "freshness"),
            ],
            limits=alerts.thresholds("SluicePushesFailing")[-1:],
            limits_of=["SluicePushesFailing", "SluiceEntriesLate"],
            width=6,
        ),
    ]


def _flow(alerts: Alerts) -> list[Panel]:
    return [
        Graph(
            id=9,
            title="Rate per topic",
            about="Kafka messages a second that our stages write to each topic, in committed transactions. Under load a "
            "message is a frame of hundreds of entries.",
            unit="mps",
            queries=[Query("sum by (topic) (rate(sluice_messages_out_total[$__rate_interval]))", "{{topic}}")],
            width=6,
        ),
        Graph(
            id=10,
            title="Lag in messages",
            about="Messages that each consumer group has yet to read, measured by every service, so that it is seen "
            "though the reader is dead.",
            unit="short",
            queries=[Query("sluice:group_lag_messages:max", "{{group}} · {{topic}}")],
            limits=alerts.thresholds("SluiceLagRising"),
            width=6,
        ),
        Graph(
            id=11,
            title="Lag in seconds",
            about="Age of the oldest message that each consumer group has yet to read; 0 when it has read all.",
            unit="s",
            queries=[Query("sluice:group_lag_seconds:max", "{{group}} · {{topic}}")],
            limits=alerts.thresholds("SluiceEntriesWaiting"),
            width=6,
        ),
        Graph(
            id=12,
            title="Freshness",
            about="How old an entry is when it is stored, counted from when raw-logs took it: the oldest of each batch. "
            "The line is the objective, which 99 of 100 batches keep.",
            unit="s",
            queries=[
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(sluice_freshness_seconds_bucket[$__rate_interval])))",
                    f"p{q * 100:.0f}",
                )
                for q in (0.5, 0.95, 0.99)
            ],
            limits=[alerts.objective("sluice:freshness_late:ratio_rate5m")],
            width=6,
        ),
        Graph(
            id=33,
            title="Entries per second, by stage",
            about="Entries and records that each stage read, in committed transactions; of the sink, rows of all tables.",
            unit="recps",
            queries=[Query("sum by (stage) (rate(sluice_records_in_total[$__rate_interval]))", "{{stage}}")],
            width=12,
        ),
        Graph(
            id=34,
            title="Rows stored, by table",
            about="Rows a second that the sink wrote to each table of the store.",
            unit="rps",
            queries=[Query("sum by (table) (rate(sluice_store_rows_total[$__rate_interval]))", "{{table}}")],
            width=12,
        ),
    ]


def _apart() -> list[Panel]:
    return [
        Number(
            id=32,
            title="In the time range",
            about="Anomalies stored and dead letters written in the time range; the panels beside say why.",
            unit="locale",
            queries=[
                Query("sum(increase(sluice_source_anomalies_total[$__range]))", "anomalies"),
                Query("sum(increase(sluice_dead_letters_total[$__range]))", "dead letters"),
            ],
            color="orange",
            decimals=0,
            width=4,
            height=8,
        ),
        Graph(
            id=13,
            title="Anomalies by reason",
            about="Anomalies stored: failures, and entries far longer or heavier than their operation usually is.",
            unit="short",
            queries=[Query("sum by (reason) (increase(sluice_anomalies_total[$__rate_interval]))", "{{reason}}")],
            style="bars",
            width=10,
        ),
        Graph(
            id=14,
            title="Dead letters by reason",
            about="Entries that could not go on, by the stage that refused them. Their bytes are kept: GET /dead-letters "
            "of processing tells each, and why.",
            unit="short",
            queries=[
                Query(
                    "sum by (stage, reason) (increase(sluice_dead_letters_total[$__rate_interval])) > 0",
                    "{{stage}}: {{reason}}",
                )
            ],
            style="bars",
            empty="none",
            width=10,
        ),
    ]


def _cost() -> list[Panel]:
    return [
        Graph(
            id=15,
            title="CPU per service",
            about="Processor time a second, all instances together: 1 is one core. Kafka is not scraped.",
            unit="short",
            queries=[Query("sum by (job) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{job}}")],
            width=8,
        ),
        Graph(
            id=16,
            title="Memory per service",
            about="Resident memory, all instances together. Processing holds the store's engine. Kafka is not scraped.",
            unit="bytes",
            queries=[Query("sum by (job) (process_resident_memory_bytes)", "{{job}}")],
            width=8,
        ),
        Graph(
            id=35,
            title="Open files per service",
            about="Open files and sockets, as a share of what the system allows the process.",
            unit="percentunit",
            queries=[Query("max by (job) (process_open_fds / (process_max_fds > 0))", "{{job}}")],
            width=8,
        ),
    ]


def build(alerts: Alerts) -> dashboard.Dashboard:
    rows = [
        Row("Is it healthy?", _healthy()),
        Row("What came in?", _entries(alerts)),
        Row("Does the work get done?", _work(alerts)),
        Row("How does it flow, from topic to topic into the store?", _flow(alerts)),
        Row("What stands out, and what could not go on?", _apart()),
        Row("What does it cost?", _cost()),
    ]
    links = [
        ("Sources", "/d/sluice-sources"),
        ("Pipeline", "/d/sluice-pipeline"),
        ("GPU fleet", "/d/sluice-gpus"),
        ("Alertmanager", "/alerting/groups?alertmanager=Alertmanager"),
    ]
    about = "Is it healthy, what came in, how does it flow, what stands out, and what does it cost?"
    return dashboard_of(UID, TITLE, about, rows, alerts, links)
