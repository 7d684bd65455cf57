CREATE TABLE sluice_1.records (
  `seq` UInt64,
  `record_id` String,
  `run_id` String,
  `origin` String,
  `timestamp` DateTime64(9, 'UTC'),
  `observed_timestamp` DateTime64(9, 'UTC'),
  `stored_at` DateTime64(9, 'UTC'),
  `service_name` LowCardinality(String),
  `event_name` LowCardinality(String),
  `outcome` LowCardinality(String),
  `severity_number` UInt8,
  `severity_text` LowCardinality(String),
  `body` String,
  `duration_s` Nullable(Float64),
  `memory_bytes` Nullable(Int64),
  `rows` Nullable(Int64),
  `transfer_bytes` Nullable(Int64),
  `efficiency` Nullable(Float64),
  `rows_per_s` Nullable(Float64),
  `bytes_per_s` Nullable(Float64),
  `anomalies` Array(String),
  `trace_id` String,
  `span_id` String,
  `resource` String,
  `attributes` String,
  `truncated_fields` Array(String),
  `original_bytes` Nullable(Int64),
  `schema` UInt16,
  INDEX by_record record_id TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX by_timestamp timestamp TYPE minmax GRANULARITY 1,
  PROJECTION counts (SELECT service_name, outcome, count() GROUP BY service_name, outcome)
) ENGINE = MergeTree PARTITION BY toYYYYMM(observed_timestamp) ORDER BY seq SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE sluice_1.windows (
  `minute` DateTime64(0, 'UTC'),
  `service_name` LowCardinality(String),
  `event_name` LowCardinality(String),
  `total` SimpleAggregateFunction(sum, UInt64),
  `success` SimpleAggregateFunction(sum, UInt64),
  `failure` SimpleAggregateFunction(sum, UInt64),
  `other` SimpleAggregateFunction(sum, UInt64),
  `duration_count` SimpleAggregateFunction(sum, UInt64),
  `duration_sum` SimpleAggregateFunction(sum, Float64),
  `duration_min` SimpleAggregateFunction(min, Nullable(Float64)),
  `duration_max` SimpleAggregateFunction(max, Nullable(Float64)),
  `duration_sketch` SimpleAggregateFunction(sumMap, Tuple(Array(Int32), Array(UInt64))),
  `memory_count` SimpleAggregateFunction(sum, UInt64),
  `memory_sum` SimpleAggregateFunction(sum, Float64),
  `memory_min` SimpleAggregateFunction(min, Nullable(Float64)),
  `memory_max` SimpleAggregateFunction(max, Nullable(Float64)),
  `memory_sketch` SimpleAggregateFunction(sumMap, Tuple(Array(Int32), Array(UInt64))),
  `efficiency_count` SimpleAggregateFunction(sum, UInt64),
  `efficiency_sum` SimpleAggregateFunction(sum, Float64),
  `rows` SimpleAggregateFunction(sum, Int64),
  `transfer_bytes` SimpleAggregateFunction(sum, Int64)
) ENGINE = AggregatingMergeTree ORDER BY (minute, service_name, event_name) SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE sluice_1.anomalies (
  `seq` UInt64,
  `record_id` String,
  `run_id` String,
  `timestamp` DateTime64(9, 'UTC'),
  `observed_timestamp` DateTime64(9, 'UTC'),
  `stored_at` DateTime64(9, 'UTC'),
  `service_name` LowCardinality(String),
  `event_name` LowCardinality(String),
  `outcome` LowCardinality(String),
  `reason` LowCardinality(String),
  `value` Nullable(Float64),
  `expected` Nullable(Float64),
  `limit` Nullable(Float64),
  `unit` LowCardinality(String),
  `detail` String
) ENGINE = MergeTree PARTITION BY toYYYYMM(observed_timestamp) ORDER BY seq SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE sluice_1.dead_letters (
  `seq` UInt64,
  `stored_at` DateTime64(9, 'UTC'),
  `reason` LowCardinality(String),
  `detail` String,
  `stage` LowCardinality(String),
  `topic` LowCardinality(String),
  `partition` Int32,
  `offset` Int64,
  `index` Int64,
  `record_id` String,
  `time` DateTime64(9, 'UTC'),
  `run_id` String,
  `origin` String,
  `bytes` UInt64,
  `dead_topic_id` LowCardinality(String),
  `dead_partition` Int32,
  `dead_offset` Int64,
  INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree PARTITION BY toYYYYMM(time) ORDER BY seq SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE sluice_1.runs (
  `seq` UInt64,
  `stored_at` DateTime64(9, 'UTC'),
  `run_id` String,
  `source` String,
  `entries` UInt64,
  `bytes` UInt64,
  `time` DateTime64(9, 'UTC'),
  `file` String,
  INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree ORDER BY seq SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE sluice_1.ledger (
  `writer` UInt8,
  `number` UInt64,
  `closed` Bool,
  `version` UInt64,
  `token` String,
  `stored_at_ns` Int64,
  `ranges` String,
  `positions` String
) ENGINE = ReplacingMergeTree(version) ORDER BY writer SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE sluice.alerts (
  `seq` UInt64,
  `version` UInt64,
  `stored_at` DateTime64(9, 'UTC'),
  `fingerprint` String,
  `status` LowCardinality(String),
  `alertname` LowCardinality(String),
  `severity` LowCardinality(String),
  `service` LowCardinality(String),
  `starts_at` DateTime64(9, 'UTC'),
  `ends_at` Nullable(DateTime64(9, 'UTC')),
  `summary` String,
  `description` String,
  `runbook_url` String,
  `dashboard_url` String,
  `labels` String,
  `annotations` String
) ENGINE = ReplacingMergeTree(version) ORDER BY (fingerprint, starts_at, status)
;

CREATE TABLE sluice.epochs (epoch UInt32, schema UInt16) ENGINE = MergeTree ORDER BY epoch;

INSERT INTO sluice.epochs VALUES (1, 1);

INSERT INTO sluice_1.records (seq, record_id, service_name, outcome, observed_timestamp, severity_number)
  VALUES (16777216, 'cafe-0-0-0', 'Efficy', 'success', '2026-01-05 10:00:00', 9), (16777217, 'cafe-0-1-0', 'Efficy', 'failure', '2026-01-05 10:00:00', 17);

INSERT INTO sluice_1.dead_letters (seq, record_id, reason, time) VALUES (16777216, 'cafe-0-2-0', 'malformed_json', '2026-01-05 10:00:00');

INSERT INTO sluice_1.ledger VALUES (0, 1, true, 3, 't1', 1767600000000000000, '[{"topic_id":"cafe","topic":"processed-metrics","partition":0,"first":0,"last":9}]', '[["cafe",0,10]]');

INSERT INTO sluice.alerts (seq, fingerprint, status, starts_at) VALUES (1, 'f', 'firing', '2026-01-05 10:00:00')
