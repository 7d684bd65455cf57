"""Pipeline: is every record delivered exactly once, and what holds it up?"""

from typing import Final

from grafana_foundation_sdk.models import dashboard

from grafana.panels import Graph, Number, Panel, Query, Row, dashboard_of
from grafana.rules import Alerts

UID: Final = "sluice-pipeline"
TITLE: Final = "Pipeline"


def _moving(alerts: Alerts) -> list[Panel]:
    return [
        Graph(
            id=10,
            title="Stage progress",
            about="How long ago each stage last committed, or found its topics read to the end. Ingestion is left out: it "
            "makes progress only when somebody pushes.",
            unit="s",
            queries=[
                Query(
                    'time() - max by (stage) (sluice_last_progress_timestamp_seconds{stage!="ingestion"})', "{{stage}}"
                )
            ],
            limits=alerts.thresholds("SluiceStageStalled"),
            width=8,
        ),
        Graph(
            id=8,
            title="Group lag",
            about="Age of the oldest message that each consumer group of the chain has yet to read, the sink's included. "
            "Every service measures all groups, so that it is seen though the reader is dead.",
            unit="s",
            queries=[Query("sluice:group_lag_seconds:max", "{{group}} · {{topic}}")],
            limits=alerts.thresholds("SluiceConsumerStalled"),
            width=8,
        ),
        Graph(
            id=7,
            title="Uncommitted messages, for how long",
            about="For how long the same transaction has been open on a topic: what lies behind its first message is "
            "hidden from every reader. The lines are for the stages' transactions, and for those of large entries.",
            unit="s",
            queries=[Query("max by (topic) (sluice_uncommitted_seconds)", "{{topic}}")],
            limits=alerts.thresholds("SluiceTransactionHung"),
            width=8,
        ),
        Graph(
            id=30,
            title="Uncommitted messages",
            about="Messages behind the first of an open transaction, which hides them until it ends.",
            unit="short",
            queries=[Query("max by (topic) (sluice_uncommitted_messages)", "{{topic}}")],
            width=8,
        ),
        Graph(
            id=31,
            title="Group lag in messages",
            about="Messages that each consumer group has yet to read.",
            unit="short",
            queries=[Query("sluice:group_lag_messages:max", "{{group}} · {{topic}}")],
            limits=alerts.thresholds("SluiceLagRising"),
            limits_of=["SluiceLagRising"],
            width=8,
        ),
        Graph(
            id=32,
            title="Lag as each stage sees it",
            about="Offsets between the end of a topic and what the stage has read, before it has committed.",
            unit="short",
            queries=[Query("sum by (stage, topic) (sluice_consumer_lag_messages)", "{{stage}} · {{topic}}")],
            width=8,
        ),
    ]


def _delivery() -> list[Panel]:
    return [
        Graph(
            id=1,
            title="Transactions by result",
            about="Transactions that ended. An aborted one is done again; fenced means that another process took over "
            "the transactional id. Both are normal when a replica comes, goes or dies, and at no other time.",
            unit="ops",
            queries=[
                Query(
                    "sum by (stage, result) (rate(sluice_transactions_total[$__rate_interval]))", "{{stage}} {{result}}"
                )
            ],
            width=8,
        ),
        Graph(
            id=2,
            title="Commit duration",
            about="Sending the offsets and committing, which waits for every message of the transaction: half, and 95 of "
            "100 at most.",
            unit="s",
            queries=[
                Query(
                    f"histogram_quantile({q}, sum by (stage, le) "
                    "(rate(sluice_transaction_commit_duration_seconds_bucket[$__rate_interval])))",
                    f"{{{{stage}}}} p{q * 100:.0f}",
                )
                for q in (0.5, 0.95)
            ],
            width=8,
        ),
        Graph(
            id=3,
            title="Rebalances",
            about="Assignments that stages took, gave up or lost. Some when a replica comes or goes; lost ones when it was "
            "too slow for its group.",
            unit="short",
            queries=[
                Query(
                    "sum by (stage, event) (increase(sluice_rebalances_total[$__rate_interval]))", "{{stage}} {{event}}"
                )
            ],
            style="bars",
            width=8,
        ),
    ]


def _large(alerts: Alerts) -> list[Panel]:
    return [
        Graph(
            id=4,
            title="Chunk assemblies",
            about="Large messages that travelled in chunks: complete, poisoned (a dead letter), or dropped because a newer "
            "attempt came or the partition went. All stages together.",
            unit="short",
            queries=[
                Query(
                    "sum by (result) (increase(sluice_chunk_assemblies_total[$__rate_interval]))",
                    "{{result}}",
                )
            ],
            style="bars",
            width=8,
        ),
        Graph(
            id=33,
            title="Chunk assemblies open",
            about="Large messages that have begun and not ended.",
            unit="short",
            queries=[Query("sum by (stage) (sluice_chunk_assemblies_open)", "{{stage}}")],
            width=8,
        ),
        Graph(
            id=5,
            title="Spool use",
            about="Disk that bodies and open chunked messages take, as a share of what they may. When it is full, "
            "ingestion refuses large pushes with 503, and stages put chunked messages off.",
            unit="percentunit",
            queries=[Query("max by (service) (sluice_spool_bytes / (sluice_spool_quota_bytes > 0))", "{{service}}")],
            limits=alerts.thresholds("SluiceSpoolFilling"),
            maximum=1,
            empty="no spool",
            width=8,
        ),
    ]


def _refused(alerts: Alerts) -> list[Panel]:
    return [
        Graph(
            id=6,
            title="Dead letters by reason",
            about="Entries that could not go on, all stages together. GET /dead-letters of processing tells each, and why.",
            unit="short",
            queries=[
                Query("sum by (reason) (increase(sluice_dead_letters_total[$__rate_interval])) > 0", "{{reason}}")
            ],
            style="bars",
            empty="none",
            width=8,
        ),
        Graph(
            id=12,
            title="Declared mappings",
            about="Records by the declared mapping that made them, and whether MAPPINGS_DIR holds what was refused: then "
            "the mappings of before stay. GET /standardization/mappings tells which, and why.",
            unit="short",
            queries=[
                Query("sum by (mapping) (increase(sluice_mapped_records_total[$__rate_interval])) > 0", "{{mapping}}"),
                Query("max(sluice_mappings_refused)", "refused"),
            ],
            limits=alerts.thresholds("SluiceMappingsRefused"),
            empty="none",
            width=8,
        ),
        Graph(
            id=34,
            title="Push attempts dropped",
            about="Messages dropped because another attempt of the same push, with the same Idempotency-Key, came first: "
            "a client that repeats what was in fact taken.",
            unit="short",
            queries=[Query("sum(increase(sluice_push_attempts_dropped_total[$__rate_interval]))", "messages")],
            style="bars",
            width=8,
        ),
    ]


def _clients(alerts: Alerts) -> list[Panel]:
    (skew,) = alerts.thresholds("SluiceClockSkew")
    return [
        Number(
            id=35,
            title="Brokers",
            about="Brokers of the Kafka cluster, as the one that answers says; the least that any service sees.",
            unit="none",
            queries=[Query("min(sluice_kafka_brokers)")],
            meanings={0.0: ("none answers", "red")},
            otherwise=("", "green"),
            empty="unknown",
            width=4,
        ),
        Graph(
            id=9,
            title="Clock skew",
            about="Each service's clock minus the broker's, whichever is ahead. Freshness and lag in seconds are wrong by as "
            "much.",
            unit="s",
            queries=[Query("max by (service) (abs(sluice_clock_skew_seconds))", "{{service}}")],
            limits=[skew],
            width=6,
        ),
        Graph(
            id=11,
            title="Client figures: partitions held",
            about="Partitions that each stage reads, all its instances together. Less than all for long means that a part of "
            "the topic is read by nobody.",
            unit="short",
            queries=[Query("sum by (stage) (sluice_assigned_partitions)", "{{stage}}")],
            width=7,
        ),
        Graph(
            id=36,
            title="Client figures: bytes read and written",
            about="Bytes a second of the values that each stage read and wrote, in committed transactions; of ingestion "
            "the bodies it took. The sink writes to the store.",
            unit="Bps",
            queries=[
                Query("sum by (stage) (rate(sluice_bytes_in_total[$__rate_interval]))", "{{stage}} in"),
                Query("sum by (stage) (rate(sluice_bytes_out_total[$__rate_interval]))", "{{stage}} out"),
            ],
            width=7,
        ),
    ]


def build(alerts: Alerts) -> dashboard.Dashboard:
    rows = [
        Row("Does it move?", _moving(alerts)),
        Row("Is it delivered exactly once?", _delivery()),
        Row("Do large entries get through?", _large(alerts)),
        Row("What is refused?", _refused(alerts)),
        Row("How are the broker and its clients?", _clients(alerts)),
    ]
    links = [("Overview", "/d/sluice-overview"), ("Sources", "/d/sluice-sources"), ("GPU fleet", "/d/sluice-gpus")]
    about = "Delivery: does it move, is it exactly once, do large entries get through, what is refused, how are the clients?"
    return dashboard_of(UID, TITLE, about, rows, alerts, links)
