"""Every metric of the stack, each explained. docs/metrics.md lists them; a test holds that it does.

Labels are bounded: routes are templates, reasons and stages are enumerations, sources are capped by a setting.
The hot paths tally per batch and touch a metric once a batch.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asks for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _FAST) -> Histogram:
    return Histogram(name, text, labels, buckets=buckets, registry=REGISTRY)


# HTTP
HTTP_REQUESTS = _counter(
    "sluice_http_requests_total", "HTTP requests answered.", "service", "method", "route", "status"
)
HTTP_DURATION = _histogram(
    "sluice_http_request_duration_seconds", "From the request's first byte to the answer's last.", "service", "route"
)

# flow; stage is ingestion, standardization, processing or sink
MESSAGES_IN = _counter("sluice_messages_in_total", "Kafka messages read and committed.", "stage", "topic")
MESSAGES_OUT = _counter("sluice_messages_out_total", "Kafka messages written and committed.", "stage", "topic")
RECORDS_IN = _counter("sluice_records_in_total", "Entries or records read and committed.", "stage")
RECORDS_OUT = _counter("sluice_records_out_total", "Entries or records written and committed.", "stage")
BYTES_IN = _counter("sluice_bytes_in_total", "Bytes of the values read and committed.", "stage")
BYTES_OUT = _counter("sluice_bytes_out_total", "Bytes of the values written and committed.", "stage")
PROCESSING_DURATION = _histogram(
    "sluice_processing_duration_seconds", "One batch through a stage's transform, without waiting for Kafka.", "stage"
)
ERRORS = _counter("sluice_errors_total", "Errors, by stage and kind.", "stage", "kind")
DEAD_LETTERS = _counter("sluice_dead_letters_total", "Dead letters written, by reason.", "stage", "reason")
DEAD_LETTERS_CLOSED = _counter("sluice_dead_letters_closed_total", "Dead letters replayed or resolved.", "action")
PUSHES_DEDUPLICATED = _counter(
    "sluice_push_attempts_dropped_total", "Messages of a push's attempt dropped, for another attempt came first."
)
TEXT_ENTRIES = _counter(
    "sluice_text_entries_total", "Entries that are not JSON, by the format they were read in.", "format"
)
MAPPINGS_LOADED = _gauge("sluice_mappings_loaded", "Declared mappings that are active.")
MAPPINGS_REFUSED = _gauge(
    "sluice_mappings_refused", "1 while MAPPINGS_DIR holds what was refused, and the mappings before it stay."
)
MAPPED_RECORDS = _counter("sluice_mapped_records_total", "Records made by a declared mapping.", "mapping")
MAPPED_VALUES_DROPPED = _counter(
    "sluice_mapped_values_dropped_total", "Values left out of records, for a declared mapping drops them.", "mapping"
)
REDACTIONS = _counter("sluice_redactions_total", "Values taken out of records before they were written.", "rule")
PUSH_REQUESTS = _gauge("sluice_push_requests_in_flight", "Pushes that ingestion is receiving or writing.")
PUSH_BYTES = _gauge("sluice_push_bytes_in_flight", "Bytes of OTLP, Loki and _bulk bodies in ingestion's memory.")
PUSHES_REFUSED = _counter("sluice_pushes_refused_total", "Pushes answered with 429, for too much was in flight.")
# declared sources of ingestion; source is one that SOURCES_FILE names
DECLARED_ENTRIES = _counter("sluice_declared_entries_total", "Entries of a declared source that count.", "source")
DECLARED_BYTES = _counter("sluice_declared_bytes_total", "Bytes of these entries.", "source")
DECLARED_BEHIND_BYTES = _gauge("sluice_declared_behind_bytes", "Bytes of its files that are not read yet.", "source")
DECLARED_BEHIND_MESSAGES = _gauge(
    "sluice_declared_behind_messages", "Offsets of its topic that are not read yet.", "source"
)
DECLARED_LOST_BYTES = _counter(
    "sluice_declared_lost_bytes_total", "Bytes that a followed file no longer had when their turn came.", "source"
)
DECLARED_DROPPED_DATAGRAMS = _counter(
    "sluice_declared_dropped_datagrams_total", "Datagrams of syslog that found no room.", "source"
)
DECLARED_LIMITED = _counter(
    "sluice_declared_limited_total", "Pushes answered with 429 for the source's limit.", "source"
)
TOKENS_REFUSED = _counter(
    "sluice_tokens_refused_total", "Pushes answered with 401: without a token, or with a wrong one."
)
STAGE_STOPPED = _gauge(
    "sluice_stage_stopped", "1 while a stage takes no more, for too much of it would be dead letters.", "stage"
)
LAST_PROGRESS = _gauge(
    "sluice_last_progress_timestamp_seconds",
    "When the stage last committed or found nothing to do, Unix time.",
    "stage",
)

# Kafka
ACTIVE_CONNECTIONS = _gauge(
    "sluice_active_connections", "1 while Kafka is reachable, 0 the moment it is not.", "service"
)
ASSIGNED_PARTITIONS = _gauge("sluice_assigned_partitions", "Partitions that the stage holds.", "stage")
LAG_RECORDS = _gauge(
    "sluice_consumer_lag_messages", "Offsets between the end of a topic and what the stage has read.", "stage", "topic"
)
LAG_SECONDS = _gauge(
    "sluice_consumer_lag_seconds",
    "Age of the last message read while more wait; 0 when all are read.",
    "stage",
    "topic",
)
GROUP_LAG_RECORDS = _gauge(
    "sluice_group_lag_messages",
    "Offsets between what a consumer group has committed and what it could read, whoever lives.",
    "group",
    "topic",
)
GROUP_LAG_SECONDS = _gauge(
    "sluice_group_lag_seconds", "Age of the oldest message that a consumer group has not read.", "group", "topic"
)
UNCOMMITTED = _gauge(
    "sluice_uncommitted_messages", "Offsets behind the first of an open transaction, which hides them.", "topic"
)
UNCOMMITTED_SECONDS = _gauge(
    "sluice_uncommitted_seconds", "For how long the same transaction has been seen open; the oldest one.", "topic"
)
CLOCK_SKEW = _gauge("sluice_clock_skew_seconds", "The service's clock minus the broker's.", "service")
BROKERS = _gauge("sluice_kafka_brokers", "Brokers of the cluster, as the one that answers says; 0 when none does.")
TRANSACTIONS = _counter(
    "sluice_transactions_total",
    "Transactions ended, by result: committed, aborted, fenced or unknown.",
    "stage",
    "result",
)
TRANSACTION_DURATION = _histogram(
    "sluice_transaction_commit_duration_seconds", "The commit call of a transaction.", "stage"
)
REBALANCES = _counter("sluice_rebalances_total", "Assignments taken, given up or lost.", "stage", "event")

# chunks and the spool
CHUNK_ASSEMBLIES = _counter(
    "sluice_chunk_assemblies_total",
    "Chunked messages ended, by result: complete, poisoned or dropped.",
    "stage",
    "result",
)
CHUNK_OPEN = _gauge("sluice_chunk_assemblies_open", "Chunked messages begun and not ended.", "stage")
SPOOL_BYTES = _gauge("sluice_spool_bytes", "Disk in use by bodies and open chunked messages.", "service")
SPOOL_QUOTA = _gauge("sluice_spool_quota_bytes", "Disk that the spool may use.", "service")

# the store
STORED_ROWS = _counter("sluice_store_rows_total", "Rows written to the store, by table.", "table")
STORE_DURATION = _histogram("sluice_store_write_duration_seconds", "One batch into the store.", buckets=_SLOW)
FRESHNESS = _histogram(
    "sluice_freshness_seconds", "From raw-logs taking an entry to its row in the store; the oldest of each batch.",
    buckets=_SLOW,
)  # fmt: skip
ANOMALIES = _counter("sluice_anomalies_total", "Anomalies found, by reason.", "reason")


def touch(stage: str, reasons: Iterable[str], reads: Iterable[str] = (), writes: Iterable[str] = ()) -> None:
    """Create at 0 the children that are known from the start, so that a first event is an increase and no new series.

    `reads` and `writes` are topics by their plain names.
    """
    for result in ("committed", "aborted", "fenced", "unknown"):
        TRANSACTIONS.labels(stage, result)
    for result in ("complete", "poisoned", "dropped"):
        CHUNK_ASSEMBLIES.labels(stage, result)
    for reason in reasons:
        DEAD_LETTERS.labels(stage, reason)
    for kind in ("kafka", "store", "retention") if stage == "sink" else ("kafka", "retention", "truncated"):
        ERRORS.labels(stage, kind)
    for event in ("assigned", "revoked", "lost"):
        REBALANCES.labels(stage, event)
    for topic in reads:
        MESSAGES_IN.labels(stage, topic)
    for topic in writes:
        MESSAGES_OUT.labels(stage, topic)
    for counter in (RECORDS_IN, RECORDS_OUT):
        counter.labels(stage)
    if stage != "sink":
        for counter in (BYTES_IN, BYTES_OUT):
            counter.labels(stage)
        TRANSACTION_DURATION.labels(stage)
