"""CPU microseconds per record of the standardization core alone: decode, map, encode; no Kafka.

    python -m benchmarks.standardize_cpu [--records 200000] [--runs 5] [--seed 1]

Entries are about 250 bytes of JSON in seven shapes in the style of logs.json, interleaved at random, each with its own
timestamp and figures. CPU time, not the clock; beside it a bare msgspec decode of the same bytes, so that machines and
moments can be compared.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from standardization.standardize import Arrival, Standardizer

_START = datetime(2026, 3, 17, 6, 0, tzinfo=UTC)
_PAD = "page token carried over, nothing skipped, next link followed until the end of the list"


def _graph(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "source": "sharepoint_graph", "api": r.choice(["Sites", "Lists", "Drives"]), "status": "SUCCESS",
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration_seconds": round(r.uniform(0.8, 90), 3), "memory_bytes": r.randrange(10**8), "rows": r.randrange(5000),
        "message": _PAD[:40],
    }  # fmt: skip


def _crm(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "Application": "Efficy", "Operation": r.choice(["Contacts", "Companies"]), "Result": "Success",
        "StartTime": at.strftime("%d/%m/%Y %H:%M:%S"),
        "ElapsedTime": str(timedelta(seconds=r.randrange(60, 3000))).zfill(8),
        "MemoryUsed": f"{r.randrange(1, 170)} MB", "RowCount": r.randrange(5000), "User": "svc-efficy",
        "Note": _PAD[:60],
    }  # fmt: skip


def _books(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "service": "zohobooks", "operation": {"name": r.choice(["Invoices", "Bills"]), "page": r.randrange(40)},
        "status_code": 200, "ts": int(at.timestamp() * 1000), "metrics": {"durationMs": r.randrange(800, 90_000),
        "memoryMiB": round(r.uniform(1, 90), 1), "bytesTransferred": r.randrange(10**7)}, "msg": _PAD[:60],
    }  # fmt: skip


def _tracker(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "system": "EasyProjects", "task": r.choice(["Timelogs", "Projects"]), "state": "ok",
        "date": at.strftime("%Y-%m-%d %H:%M:%S"), "took": f"{r.randrange(1, 14)}m {r.randrange(60):02d}s",
        "mem": f"{round(r.uniform(1, 90), 1)} MiB", "worker": {"host": "ep-sync-02", "pid": r.randrange(30_000)},
        "text": _PAD[:70],
    }  # fmt: skip


def _datasets(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "Service": "PowerBI", "Activity": "RefreshDataset", "Succeeded": True,
        "CreatedAt": at.isoformat(timespec="seconds"),
        "DurationSeconds": r.randrange(1, 600), "PeakMemoryMB": r.randrange(170), "Dataset": "Sales margin",
        "Capacity": {"Region": "West Europe", "Sku": "P1"}, "Message": _PAD[:60],
    }  # fmt: skip


def _projects(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "app": "zohoprojects", "event": "Tasks", "status": "Success", "time": int(at.timestamp()),
        "elapsed_ms": round(r.uniform(800, 90_000), 2), "mem_kb": r.randrange(100_000), "items": r.randrange(900),
        "level": "info", "host": "zp-01", "environment": "prod",
        "request_id": f"{r.getrandbits(64):016x}", "message": _PAD[:40],
    }  # fmt: skip


def _service(at: datetime, r: random.Random) -> dict[str, Any]:
    return {
        "timestamp": at.isoformat(timespec="microseconds"), "severity_text": "INFO", "service.name": "billing-api",
        "event.name": "Reconcile", "outcome": "success", "duration": round(r.uniform(0.001, 3), 6),
        "trace_id": f"{r.getrandbits(128):032x}", "span_id": f"{r.getrandbits(64):016x}", "body": _PAD[:50],
    }  # fmt: skip


def _entries(count: int, seed: int) -> list[bytes]:
    r = random.Random(seed)
    shapes: list[Callable[[datetime, random.Random], dict[str, Any]]] = [
        _graph, _crm, _books, _tracker, _datasets, _projects, _service,
    ]  # fmt: skip
    return [
        json.dumps(r.choice(shapes)(_START + timedelta(milliseconds=37 * n), r), separators=(",", ":")).encode()
        for n in range(count)
    ]


def _microseconds(work: Callable[[list[list[bytes]]], None], frames: list[list[bytes]]) -> float:
    """CPU microseconds per record of one pass."""
    begun = time.process_time()
    work(frames)
    return (time.process_time() - begun) * 1e6 / sum(map(len, frames))


def _standardized(frames: list[list[bytes]]) -> None:
    standardizer = Standardizer(16 << 20, 2 << 20)
    arrival = Arrival("0badcafe-0-123456", "2026-03-17T09:00:00.123Z", None, "run-1", None, "application/x-ndjson")
    for frame in frames:
        good, rejected = standardizer.entries(frame, arrival)
        if rejected or len(good) != len(frame):
            raise SystemExit(f"an entry of the benchmark was refused: {rejected[0]}")


def _decoded(frames: list[list[bytes]]) -> None:
    decode = msgspec.json.Decoder().decode
    for frame in frames:
        for line in frame:
            decode(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    lines = _entries(options.records, options.seed)
    size = sum(map(len, lines)) / len(lines)
    print(
        f"Python {platform.python_version()}, {len(lines)} entries of {size:.0f} bytes, 7 shapes, seed {options.seed}"
    )
    for length in (100, 1):
        frames = [lines[at : at + length] for at in range(0, len(lines), length)]
        decoded, standardized = [], []
        for _ in range(options.runs):  # in turn, so that both see the same machine
            decoded.append(_microseconds(_decoded, frames))
            standardized.append(_microseconds(_standardized, frames))
        ours, bare = statistics.median(standardized), statistics.median(decoded)
        print(
            f"{length:>4} a call: {ours:.2f} microseconds of CPU a record (least {min(standardized):.2f}), "
            f"{ours / bare:.1f} times a bare decode ({bare:.2f})"
        )


if __name__ == "__main__":
    main()
