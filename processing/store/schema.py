"""The store's tables: how each is laid out, and how a line of JSON becomes a row of it.

One list of columns per table yields the table, the structure in which the engine reads the lines, and the SELECT
between the two, so that they can't drift apart. Lines are read with plain types and converted in the SELECT:
reading straight into LowCardinality or Map columns costs several times as much.
"""

from dataclasses import dataclass, replace
from typing import Final

ROWS_PER_BATCH: Final = 2**24
"""Room for rows of one table in one batch. A row's `seq` is number * ROWS_PER_BATCH + its place in the batch, so
that it orders rows as they were stored, for good, and a repeated batch gives a row the same one."""

_INSTANT = "DateTime64(9, 'UTC')"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type in the table, its type in the line ("" when it is not of the line), and its value."""

    name: str
    type: str
    read: str
    value: str


def _read(type_: str) -> str:
    """What a line's value is read as: signed, for -0 is a number in JSON, and no unsigned one to the engine."""
    return type_.replace("UInt", "Int")


def _same(name: str, type_: str) -> Column:
    return Column(name, type_, _read(type_), f"`{name}`")


def _text(name: str) -> Column:
    return _same(name, "String")


def _label(name: str, default: str = "") -> Column:
    """Text of few distinct values."""
    return Column(name, "LowCardinality(String)", f"String DEFAULT '{default}'" if default else "String", f"`{name}`")


def _instant(name: str) -> Column:
    return Column(name, _INSTANT, "String", f"parseDateTime64BestEffort(`{name}`, 9, 'UTC')")


def _measure(name: str) -> Column:
    """A number that may be missing. 1e999 is infinite to the engine, and would spoil every sum: it is missing, too."""
    return Column(name, "Nullable(Float64)", "Nullable(Float64)", f"if(isFinite(`{name}`), `{name}`, NULL)")


def _merged(name: str, function: str, type_: str) -> Column:
    """A column whose rows of one key the engine may merge at any time."""
    value = f"ifNotFinite(`{name}`, 0)" if type_ == "Float64" else f"`{name}`"
    return Column(name, f"SimpleAggregateFunction({function}, {type_})", _read(type_), value)


def _distribution(of: str) -> list[Column]:
    """Count, sum, extremes and sketch of a measure; lines hold the sketch as two arrays, keys and counts."""
    sketch = f"{of}_sketch"
    return [
        _merged(f"{of}_count", "sum", "UInt64"),
        _merged(f"{of}_sum", "sum", "Float64"),
        _merged(f"{of}_min", "min", "Nullable(Float64)"),
        _merged(f"{of}_max", "max", "Nullable(Float64)"),
        Column(f"{of}_keys", "", "Array(Int32)", ""),
        Column(f"{of}_counts", "", "Array(Int64)", ""),
        Column(
            sketch,
            "SimpleAggregateFunction(sumMap, Tuple(Array(Int32), Array(UInt64)))",
            "",
            f"(`{of}_keys`, `{of}_counts`)",
        ),
    ]


_SEQ = Column("seq", "UInt64", "", f"{{number:UInt64}} * {ROWS_PER_BATCH} + rowNumberInAllBlocks()")
_STORED_AT = Column("stored_at", _INSTANT, "", "fromUnixTimestamp64Nano({stored_at_ns:Int64}, 'UTC')")


def _coded(column: Column, codec: str) -> Column:
    """The column, compressed so."""
    return replace(column, type=f"{column.type} CODEC({codec})")


@dataclass(frozen=True, slots=True)
class Table:
    """A table that lines are inserted into. What changes here needs a migration; a new table needs none."""

    name: str
    columns: tuple[Column, ...]
    engine: str
    extra: tuple[str, ...] = ()  # indexes and projections
    database: str = ""

    @property
    def place(self) -> str:
        """Its name as a statement has it."""
        return f"{self.database}.{self.name}" if self.database else self.name

    @property
    def has_seq(self) -> bool:
        """Whether its rows carry `seq`, which tells their batch."""
        return any(column.name == "seq" for column in self.columns)

    def within(self, database: str) -> "Table":
        """This table in a database."""
        return replace(self, database=database)

    def create(self) -> str:
        columns = [f"`{column.name}` {column.type}" for column in self.columns if column.type]
        body = ",\n  ".join([*columns, *self.extra])
        return f"CREATE TABLE IF NOT EXISTS {self.place} (\n  {body}\n) ENGINE = {self.engine}"

    def structure(self) -> str:
        """What a line holds, for the engine's reader of JSONEachRow."""
        return ", ".join(f"`{column.name}` {column.read}" for column in self.columns if column.read)

    def insert(self, source: str) -> str:
        """INSERT ... SELECT from a table function that yields the lines by `structure`."""
        stored = [column for column in self.columns if column.type]
        targets = ", ".join(f"`{column.name}`" for column in stored)
        values = ", ".join(column.value for column in stored)
        return f"INSERT INTO {self.place} ({targets}) SELECT {values} FROM {source}"  # noqa: S608 - names of this file


def quoted(text: str) -> str:
    """A string literal of ClickHouse's SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# A batch is repeated only while it is the newest, so the window need only span the blocks of one batch.
_DEDUPLICATION = "non_replicated_deduplication_window = 1000"

_MONTHLY = f"MergeTree PARTITION BY toYYYYMM({{}}) ORDER BY seq SETTINGS {_DEDUPLICATION}"

RECORDS = Table(
    "records",
    (
        _SEQ,
        _text("record_id"),
        _text("run_id"),
        _text("origin"),
        _instant("timestamp"),
        _instant("observed_timestamp"),
        _STORED_AT,
        _label("service_name"),
        _label("event_name"),
        _label("outcome"),
        Column("severity_number", "UInt8", "Int16 DEFAULT 9", "`severity_number`"),
        _label("severity_text", "INFO"),
        _text("body"),
        _measure("duration_s"),
        _same("memory_bytes", "Nullable(Int64)"),
        _same("rows", "Nullable(Int64)"),
        _same("transfer_bytes", "Nullable(Int64)"),
        _measure("efficiency"),
        _measure("rows_per_s"),
        _measure("bytes_per_s"),
        _same("anomalies", "Array(String)"),
        _text("trace_id"),
        _text("span_id"),
        _text("resource"),  # a JSON object, or empty
        _text("attributes"),  # likewise
        _same("truncated_fields", "Array(String)"),
        _same("original_bytes", "Nullable(Int64)"),
        Column("schema", "UInt16", "Int32 DEFAULT 1", "`schema`"),
    ),
    # by when raw-logs took the entry: the event's own time is the user's, and one batch could hold a hundred months
    _MONTHLY.format("observed_timestamp"),
    (
        "INDEX by_record record_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX by_timestamp timestamp TYPE minmax GRANULARITY 1",
        # part of each part, so it is exact whenever the rows are; read instead of the rows, whatever their number
        "PROJECTION counts (SELECT service_name, outcome, count() GROUP BY service_name, outcome)",
    ),
)

GPU_FIELDS: Final = ("host_name", "hw_model", "hw_parent", "gpu_index", "device")
GPUS: Final = (
    "count()",
    "min(timestamp)",
    "max(timestamp)",
    f"argMax(tuple({', '.join(GPU_FIELDS)}), tuple(timestamp, seq))",
)
"""What is kept of each GPU: how many samples, the first, the last, and what the newest says of it."""

LATEST_FIELDS: Final = ("metric", "unit", "value", "host_name")
SERIES: Final = (
    "count()",
    "max(timestamp)",
    "max(observed_timestamp)",
    f"argMax(tuple({', '.join(LATEST_FIELDS)}), tuple(timestamp, seq))",
)
"""What is kept of each series of samples, by hw_id and source_metric: how many, the last, the last arrival, and the
newest itself. A query that asks for just these, so spelt, reads the projection; so it is with those of GPUS."""

SAMPLES = Table(
    "samples",
    (
        _label("hw_id"),
        _label("metric"),
        _label("source_metric"),
        _coded(_instant("timestamp"), "DoubleDelta, ZSTD"),
        _coded(_SEQ, "Delta, ZSTD"),
        _coded(_measure("value"), "ZSTD"),
        _label("unit"),
        _coded(_text("record_id"), "ZSTD(3)"),
        _label("run_id"),
        _text("origin"),
        _coded(_instant("observed_timestamp"), "DoubleDelta, ZSTD"),
        _coded(_STORED_AT, "DoubleDelta, ZSTD"),
        _label("host_name"),
        _label("hw_model"),
        _label("hw_parent"),
        _same("gpu_index", "Nullable(Int32)"),
        _label("device"),
        _label("container"),
        _label("pod"),
        _label("namespace"),
        _coded(_text("attributes"), "ZSTD(3)"),  # a JSON object, or empty
        Column("schema", "UInt16", "Int32 DEFAULT 1", "`schema`"),
    ),
    # by when raw-logs took it, as records; within a month a GPU's metric lies together, in the order of time
    "MergeTree PARTITION BY toYYYYMM(observed_timestamp) ORDER BY (hw_id, source_metric, timestamp, seq) "
    f"SETTINGS {_DEDUPLICATION}",
    (
        "INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1",
        f"PROJECTION gpus (SELECT hw_id, {', '.join(GPUS)} GROUP BY hw_id)",
        f"PROJECTION series (SELECT hw_id, source_metric, {', '.join(SERIES)} GROUP BY hw_id, source_metric)",
    ),
)
"""Readings of GPUs. The projections are part of each part, like the rows: however often a batch was repeated, they hold
what the rows hold, and the list of a fleet costs what it has of GPUs, not of samples."""

WINDOWS = Table(
    "windows",
    (
        Column("minute", "DateTime64(0, 'UTC')", "String", "parseDateTime64BestEffort(`minute`, 0, 'UTC')"),
        _label("service_name"),
        _label("event_name"),
        _merged("total", "sum", "UInt64"),
        _merged("success", "sum", "UInt64"),
        _merged("failure", "sum", "UInt64"),
        _merged("other", "sum", "UInt64"),
        *_distribution("duration"),
        *_distribution("memory"),
        _merged("efficiency_count", "sum", "UInt64"),
        _merged("efficiency_sum", "sum", "Float64"),
        _merged("rows", "sum", "Int64"),
        _merged("transfer_bytes", "sum", "Int64"),
    ),
    # lines are deltas; the engine adds them up when it merges, the queries when they read
    f"AggregatingMergeTree ORDER BY (minute, service_name, event_name) SETTINGS {_DEDUPLICATION}",
)

ANOMALIES = Table(
    "anomalies",
    (
        _SEQ,
        _text("record_id"),
        _text("run_id"),
        _instant("timestamp"),
        _instant("observed_timestamp"),
        _STORED_AT,
        _label("service_name"),
        _label("event_name"),
        _label("outcome"),
        _label("reason"),
        _measure("value"),
        _measure("expected"),
        _measure("limit"),
        _label("unit"),
        _text("detail"),
    ),
    _MONTHLY.format("observed_timestamp"),
)

DEAD_LETTERS = Table(
    "dead_letters",
    (
        _SEQ,
        _STORED_AT,
        _label("reason"),
        _text("detail"),
        _label("stage"),
        _label("topic"),
        _same("partition", "Int32"),
        _same("offset", "Int64"),
        _same("index", "Int64"),
        _text("record_id"),
        _instant("time"),
        _text("run_id"),
        _text("origin"),
        _same("bytes", "UInt64"),
        _label("dead_topic_id"),
        _same("dead_partition", "Int32"),
        _same("dead_offset", "Int64"),
    ),
    _MONTHLY.format("time"),
    (
        "INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX by_record record_id TYPE bloom_filter(0.01) GRANULARITY 1",
    ),
)

RUNS = Table(
    "runs",
    (
        _SEQ,
        _STORED_AT,
        _text("run_id"),
        _text("source"),
        _same("entries", "UInt64"),
        _same("bytes", "UInt64"),
        _instant("time"),
        _text("file"),
    ),
    f"MergeTree ORDER BY seq SETTINGS {_DEDUPLICATION}",
    ("INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1",),
)

DEAD_LETTER_EVENTS = Table(
    "dead_letter_events",
    (
        _SEQ,
        _STORED_AT,
        _text("event_id"),
        _text("letter"),  # dead_topic_id, dead_partition and dead_offset of the letter, as its id
        _text("entry"),
        _text("origin"),
        _text("run_id"),
        _label("action"),
        _text("actor"),
        _instant("time"),
        _text("note"),
        _same("edited", "Bool"),
    ),
    f"MergeTree ORDER BY seq SETTINGS {_DEDUPLICATION}",
)
"""What was done with dead letters, by whom: one row at most for each letter."""

LEDGER = Table(
    "ledger",
    (
        Column("writer", "UInt8", "", "0"),  # the sorting key: rows of one writer replace each other
        _same("number", "UInt64"),
        _same("closed", "Bool"),
        Column("version", "UInt64", "", "`number` * 2 + `closed`"),
        _text("token"),
        _same("stored_at_ns", "Int64"),
        _text("ranges"),  # JSON: the exact offsets of this batch
        _text("positions"),  # JSON: the next offset of every partition, after this batch
        Column("windows_block", "Int64 DEFAULT -1", "Int64 DEFAULT -1", "`windows_block`"),
    ),
    f"ReplacingMergeTree(version) ORDER BY writer SETTINGS {_DEDUPLICATION}",
)

ALERTS = Table(
    "alerts",
    (
        # no batch of the sink's: alerts reach the store by themselves, also while there is no Kafka
        Column("seq", "UInt64", "", "toUInt64({stored_at_ns:Int64}) + rowNumberInAllBlocks()"),
        # the first of those with one key is kept
        Column("version", "UInt64", "", "bitNot(toUInt64({stored_at_ns:Int64}))"),
        _STORED_AT,
        _text("fingerprint"),
        _label("status"),
        _label("alertname"),
        _label("severity"),
        _label("service"),
        _instant("starts_at"),
        # when it was resolved; a firing alert has none
        Column(
            "ends_at",
            f"Nullable({_INSTANT})",
            "String DEFAULT ''",
            "if(`ends_at` = '', NULL, parseDateTime64BestEffort(`ends_at`, 9, 'UTC'))",
        ),
        _text("summary"),
        _text("description"),
        _text("runbook_url"),
        _text("dashboard_url"),
        _text("labels"),  # a JSON object
        _text("annotations"),  # likewise
    ),
    "ReplacingMergeTree(version) ORDER BY (fingerprint, starts_at, status)",
)
"""Firings and resolutions, each once. It belongs to no epoch, for it does not come from the topics."""

TABLES: Final = (RECORDS, SAMPLES, WINDOWS, ANOMALIES, DEAD_LETTERS, DEAD_LETTER_EVENTS, RUNS)

OTEL_LOGS: Final = """
CREATE OR REPLACE VIEW {view} AS SELECT
  timestamp AS Timestamp,
  toDateTime(timestamp) AS TimestampTime,
  trace_id AS TraceId,
  span_id AS SpanId,
  toUInt8(0) AS TraceFlags,
  severity_text AS SeverityText,
  severity_number AS SeverityNumber,
  service_name AS ServiceName,
  body AS Body,
  toLowCardinality('') AS ResourceSchemaUrl,
  {resource} AS ResourceAttributes,
  toLowCardinality('') AS ScopeSchemaUrl,
  'sluice' AS ScopeName,
  toLowCardinality('') AS ScopeVersion,
  CAST(map(), 'Map(LowCardinality(String), String)') AS ScopeAttributes,
  {attributes} AS LogAttributes,
  event_name AS EventName
FROM {records}
"""


def otel_logs(view: str, records: str) -> str:
    """The view in the column layout of the OpenTelemetry collector's ClickHouse exporter, which log tools read.

    Our own measures join the attributes, under their names in the record.
    """
    measures = (
        "map('record_id', record_id, 'run_id', run_id, 'outcome', toString(outcome), "
        "'duration_s', ifNull(toString(duration_s), ''), 'memory_bytes', ifNull(toString(memory_bytes), ''))"
    )
    return OTEL_LOGS.format(
        view=view,
        records=records,
        resource=f"CAST({_as_map('resource')}, 'Map(LowCardinality(String), String)')",
        attributes=f"CAST(mapUpdate({_as_map('attributes')}, mapFilter((k, v) -> v != '', {measures})), "
        "'Map(LowCardinality(String), String)')",
    )


def _as_map(column: str) -> str:
    """A JSON object of scalars as a map of strings; text loses its quotes, other values are as they were written."""
    return (
        f"mapFromArrays(arrayMap(p -> p.1, JSONExtractKeysAndValuesRaw({column})), "
        f"arrayMap(p -> if(startsWith(p.2, '\"'), JSONExtractString(p.2), p.2), JSONExtractKeysAndValuesRaw({column})))"
    )
