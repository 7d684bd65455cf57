"""The settings: read once, from the environment and from .env; a bad value names its key and stops start-up.

docs/settings.md lists them all; a test holds that it does.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigurationError

KIB = 1024
MIB = 1024 * KIB


class Settings(BaseSettings):
    """Every setting of the three services. The environment's name of a setting is its name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    # addresses
    host: str = Field(default="127.0.0.1", description="Address that the services listen on.")
    ingestion_port: int = Field(default=8001, ge=1, le=65535, description="Port of ingestion.")
    standardization_port: int = Field(default=8002, ge=1, le=65535, description="Port of standardization.")
    processing_port: int = Field(default=8003, ge=1, le=65535, description="Port of processing.")
    processing_url: str = Field(
        default="", description="Where ingestion asks for receipts; empty: http://127.0.0.1:PROCESSING_PORT."
    )
    ingestion_url: str = Field(
        default="", description="Where processing asks how ingestion is; empty: http://127.0.0.1:INGESTION_PORT."
    )
    standardization_url: str = Field(
        default="", description="Likewise of standardization; empty: http://127.0.0.1:STANDARDIZATION_PORT."
    )
    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka's bootstrap servers, host:port, comma-separated."
    )

    # files
    data_dir: Path = Field(
        Path("data"), description="Folder of all state; each service uses a folder of its own in it."
    )
    copies: int = Field(
        default=1,
        ge=1,
        le=1_000,
        description="Copies of ingestion or of standardization that may share DATA_DIR, each in a folder of its own.",
    )
    ingest_dir: Path = Field(
        default=Path(), description="Folder whose files /ingest/trigger may read; logs.json lies in it."
    )
    sources_file: str = Field(
        default="", description="A YAML file that declares sources: tails, tokens and limits of pushes; empty: none."
    )

    # Kafka
    topic_prefix: str = Field(
        default="", description="Put before every topic and group name, so that two stacks share a Kafka."
    )
    partitions: int = Field(default=12, ge=1, le=1000, description="Partitions of each topic, at its creation.")
    replication_factor: int = Field(default=1, ge=1, le=9, description="Replicas of each topic, at its creation.")
    retention_hours: int = Field(default=168, ge=1, description="How long topics keep messages, at their creation.")
    kafka_group_protocol: Literal["consumer", "classic"] = Field(
        default="classic",
        description="`consumer` (KIP-848) where the broker's group.consumer.session.timeout.ms is 6 s or so.",
    )
    kafka_session_timeout_ms: int = Field(
        default=6_000, ge=1_000, description="Session time-out of the classic protocol."
    )
    transaction_timeout_ms: int = Field(
        default=10_000, ge=1_000, description="After this a dead process's open transaction is aborted by the broker."
    )

    # frames, chunks and limits
    frame_records: int = Field(
        default=1_000, ge=1, description="A frame closes on this many records; 1: one record a message."
    )
    frame_bytes: int = Field(default=256 * KIB, ge=KIB, description="A frame closes on this many bytes.")
    chunk_bytes: int = Field(
        896 * KIB,
        ge=KIB,
        le=8 * MIB,
        description="A value over this is split; at most 8 MiB, on a broker that takes 10.",
    )
    entry_max_bytes: int = Field(default=1024 * MIB, ge=KIB, description="The largest entry that ingestion takes.")
    body_max_bytes: int = Field(
        default=1024 * MIB, ge=KIB, description="The largest body of POST /ingest; more is 413."
    )
    push_max_bytes: int = Field(
        default=16 * MIB, ge=KIB, description="The largest body of OTLP, Loki and _bulk, unpacked; more is 413."
    )
    push_bytes_max: int = Field(
        default=64 * MIB, ge=KIB, description="Bytes of such bodies in memory at a time; beyond, a push is 429."
    )
    push_requests_max: int = Field(
        default=256, ge=1, le=100_000, description="Pushes in flight at a time, of any kind; beyond, a push is 429."
    )
    body_seconds: float = Field(
        default=30.0, gt=0, description="A body has this long, and a second more for every 16 KiB; then it is 408."
    )
    parse_max_bytes: int = Field(default=16 * MIB, ge=KIB, description="An entry over this is carried but not parsed.")
    record_max_bytes: int = Field(
        default=2 * MIB, ge=16 * KIB, description="A record over this has its largest fields cut."
    )
    spool_max_bytes: int = Field(
        default=4096 * MIB, ge=MIB, description="Disk that each service may use for bodies and open chunked messages."
    )

    redact: str = Field(
        default="secrets,tokens,emails,cards",
        description="What is taken out of records before they are written: some of these, or `off`.",
    )
    redact_file: str = Field(
        default="", description="A file of further patterns to redact, `name = pattern` a line (RE2); empty: none."
    )
    mappings_dir: str = Field(
        default="", description="Folder of declared mappings (YAML), read again when it changes; empty: none."
    )
    unknown_chunk_version: Literal["dead-letter", "stop"] = Field(
        default="dead-letter", description="What a chunk of an unknown major version does: a dead letter, or a stop."
    )

    # the stage loop
    commit_records: int = Field(
        default=20_000, ge=1, description="A transaction is committed after this many records ..."
    )
    commit_interval_ms: int = Field(default=200, ge=1, description="... or this long, or when nothing more is waiting.")
    fetch_records: int = Field(default=2_000, ge=1, description="Messages taken from the client at a time.")
    stall_seconds: float = Field(default=60.0, gt=0, description="A stage without progress for this long is not ready.")
    dead_letter_stop_ratio: float = Field(
        default=0.0, ge=0, le=1, description="A stage stops when this share of its entries is poison; 0: never ..."
    )
    dead_letter_stop_count: int = Field(default=100, ge=1, description="... and it is at least this many ...")
    dead_letter_stop_seconds: float = Field(default=60.0, gt=0, description="... within this long.")
    stop_seconds: float = Field(default=15.0, gt=0, description="Deadline of a graceful stop.")

    # the store
    clickhouse_url: str = Field(
        default="", description="A ClickHouse server (http://user:password@host:8123/db); empty: embedded."
    )
    store_rows: int = Field(default=50_000, ge=1, description="The sink writes a batch after this many rows ...")
    store_interval_ms: int = Field(
        default=200, ge=1, description="... or this long after its first row, or when nothing more waits."
    )

    # analytics
    source_labels: int = Field(
        default=200, ge=1, description="Sources that keep their own metric label; the rest are `other`."
    )
    gpu_host_labels: int = Field(
        default=200, ge=1, description="GPU hosts that keep their own metric label; the rest are `other`."
    )
    gpu_labels: int = Field(
        default=300, ge=0, description="GPUs that have metrics of their own; of the rest only their host's tell."
    )
    history_min: int = Field(
        default=8, ge=2, le=100, description="Successes before an operation is judged by its own history."
    )
    history_weight: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Weight of the newest success in a history; 0.05 remembers some 40 of them.",
    )
    series_max: int = Field(
        default=5_000, ge=10, description="Operations per partition whose history is kept; the least recent give way."
    )
    long_duration_seconds: float = Field(
        default=300.0, gt=0, description="Without history, longer than this is an anomaly."
    )
    high_memory_bytes: int = Field(
        default=512 * MIB, gt=0, description="Without history, more than this is an anomaly."
    )
    deviation: float = Field(
        default=4.0, gt=0, description="Spreads above its history at which a value is an anomaly ..."
    )
    anomaly_ratio: float = Field(
        default=2.0, gt=1, description="... if it is also this many times the expected value ..."
    )
    anomaly_excess_seconds: float = Field(
        default=0.5, ge=0, description="... and a duration exceeds it by this much ..."
    )
    anomaly_excess_bytes: int = Field(default=16 * MIB, ge=0, description="... or a memory use by this much.")
    reference_seconds: float = Field(
        default=60.0, gt=0, description="Efficiency without history: the duration that scores 50."
    )
    reference_memory_bytes: int = Field(
        256 * MIB, gt=0, description="Efficiency without history: memory that scores 50."
    )

    # logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: coloured on a terminal, else JSON."
    )

    def topic(self, name: str) -> str:
        """The name of a topic or group in Kafka."""
        return self.topic_prefix + name

    def folder(self, service: str) -> Path:
        """The service's own folder, made if absent."""
        path = self.data_dir / service
        path.mkdir(parents=True, exist_ok=True)
        return path


S = TypeVar("S", bound=Settings)


def load(kind: type[S]) -> S:
    """Read the settings. Raises ConfigurationError that names each bad key."""
    try:
        return kind()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']} (is {e['input']!r})" for e in error.errors()]
        raise ConfigurationError(
            "bad settings, correct them in the environment or .env:\n  " + "\n  ".join(lines)
        ) from None
