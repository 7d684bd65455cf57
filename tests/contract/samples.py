"""Lines as they arrive from Kafka, for tests of the store and of what asks it."""

from typing import Any

import msgspec

from processing.store import Batch, Range, Rows, Store

_encode = msgspec.json.Encoder().encode
_T0_NS = 1_767_600_000_000_000_000


def record(record_id: str, **fields: Any) -> bytes:
    return _encode(
        {
            "kind": "record",
            "record_id": record_id,
            "timestamp": "2026-01-05T10:00:00Z",
            "observed_timestamp": "2026-01-05T10:00:01.5Z",
            "service_name": "Efficy",
            "event_name": "Contacts",
            "outcome": "success",
            "efficiency": 50.0,
            "anomalies": [],
            **fields,
        }
    )


def sample(record_id: str, **fields: Any) -> bytes:
    return _encode(
        {
            "kind": "sample",
            "record_id": record_id,
            "timestamp": "2026-01-05T10:00:00Z",
            "observed_timestamp": "2026-01-05T10:00:01.5Z",
            "hw_id": "GPU-1",
            "metric": "hw.gpu.utilization",
            "source_metric": "DCGM_FI_DEV_GPU_UTIL",
            "unit": "1",
            "value": 0.5,
            "run_id": "run-1",
            "host_name": "node-1",
            "hw_model": "NVIDIA H100 80GB HBM3",
            "gpu_index": 0,
            "device": "nvidia0",
            "attributes": {"hw.gpu.task": "general"},
            **fields,
        }
    )


def window(minute: str, **fields: Any) -> bytes:
    empty = {f"{of}_{name}": 0 for of in ("duration", "memory") for name in ("count", "sum")}
    extremes = {f"{of}_{name}": None for of in ("duration", "memory") for name in ("min", "max")}
    sketches: dict[str, Any] = {f"{of}_{name}": [] for of in ("duration", "memory") for name in ("keys", "counts")}
    tallies = {
        "total": 1,
        "success": 1,
        "failure": 0,
        "other": 0,
        "efficiency_count": 0,
        "efficiency_sum": 0.0,
        "rows": 0,
        "transfer_bytes": 0,
    }
    series = {"kind": "window", "minute": minute, "service_name": "Efficy", "event_name": "Contacts"}
    return _encode({**series, **tallies, **empty, **extremes, **sketches, **fields})


def anomaly(record_id: str, **fields: Any) -> bytes:
    return _encode(
        {
            "kind": "anomaly",
            "record_id": record_id,
            "run_id": None,
            "timestamp": "2026-01-05T10:00:00Z",
            "observed_timestamp": "2026-01-05T10:00:01Z",
            "service_name": "Efficy",
            "event_name": "Contacts",
            "outcome": "failure",
            "reason": "failure",
            "value": None,
            "expected": None,
            "limit": None,
            "unit": None,
            "detail": "the operation failed",
            **fields,
        }
    )


def dead_letter(record_id: str, **fields: Any) -> bytes:
    return _encode(
        {
            "reason": "malformed_json",
            "detail": "not JSON",
            "stage": "standardization",
            "topic": "raw-logs",
            "partition": 0,
            "offset": 7,
            "index": 0,
            "record_id": record_id,
            "time": "2026-01-05T10:00:02Z",
            "run_id": None,
            "origin": None,
            "bytes": 12,
            "dead_topic_id": "feed",
            "dead_partition": 0,
            "dead_offset": 3,
            **fields,
        }
    )


def dead_letter_event(letter: str, **fields: Any) -> bytes:
    return _encode(
        {
            "event_id": f"event of {letter}",
            "letter": letter,
            "entry": letter,
            "origin": "a",
            "action": "replayed",
            "actor": "ann",
            "time": "2026-01-05T10:00:03Z",
            **fields,
        }
    )


def receipt(run_id: str, entries: int, **fields: Any) -> bytes:
    time = "2026-01-05T10:00:00Z"
    return _encode({"run_id": run_id, "source": None, "entries": entries, "bytes": 100, "time": time, **fields})


def rows(**tables: list[bytes]) -> Rows:
    """Rows with lines for these tables only."""
    empty: dict[str, list[bytes]] = {
        name: [] for name in ("records", "samples", "windows", "anomalies", "dead_letters", "runs")
    }
    return Rows(**{**empty, **tables})


def batch(number: int, *ranges: Range) -> Batch:
    return Batch(number, f"token-{number}", ranges, _T0_NS + number * 1_000_000_000, closed=False)


def store_rows(store: Store, **tables: list[bytes]) -> Batch:
    """Write one whole batch, the next one."""
    last = store.last_batch()
    new = batch(last.number + 1 if last else 1)
    store.open_batch(new)
    store.insert(new, rows(**tables))
    store.close_batch(new)
    return new


def count(store: Store, table: str) -> int:
    (row,) = store.query(f"SELECT count() AS n FROM {table}")
    number: int = row["n"]
    return number
