"""What the embedded store costs: CPU a record in batches of 20,000, memory, and the queries the API and metrics ask.

    python -m benchmarks.store_insert --rows 2000000

Records have 440 bytes and 280 series; a run has 200,000. CPU is the whole process's (merges included) less what
making the lines took.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from processing.api import counts
from processing.api.filters import EntryQuery
from processing.api.records import RecordQuery, find, recent
from processing.api.runs import find_run
from processing.api.summary import summarize
from processing.api.windows import WindowQuery, windows
from processing.store import Batch, Range, Rows, Store, open_store
from shared.config import Settings
from shared.records import timestamp_of

_RUN = 200_000
_START_NS = 1_767_600_000_000_000_000
_encode = msgspec.json.Encoder().encode


def _record(number: int, chance: random.Random) -> bytes:
    failed = number % 20 == 0
    instant = timestamp_of(_START_NS + number * 1_000_000)
    operation = f"Operation{number % 40}"
    return _encode(
        {
            "kind": "record",
            "record_id": _record_id(number),
            "timestamp": instant,
            "observed_timestamp": instant,
            "service_name": f"source{number % 7}",
            "event_name": operation,
            "outcome": "failure" if failed else "success",
            "run_id": f"run-{number // _RUN}",
            "body": f"Executed {operation} for customer {number}",
            "duration_s": round(chance.lognormvariate(1, 1), 3),
            "memory_bytes": chance.randrange(200_000_000),
            "rows": number % 5_000,
            "attributes": {"customer": f"c{number % 997}", "region": "eu", "attempt": number % 3},
            "efficiency": round(chance.random() * 100, 2),
            "rows_per_s": 1.5,
            "anomalies": ["failure"] if failed else [],
        }
    )


def _record_id(number: int) -> str:
    return f"ab12cd34-{number % 12}-{number // 12_000}-{number // 12 % 1_000}"


def _receipt(run: int) -> bytes:
    return _encode(
        {"run_id": f"run-{run}", "source": None, "entries": _RUN, "bytes": 1, "time": timestamp_of(_START_NS)}
    )


def _windows(first: int) -> list[bytes]:
    """A line for each of the 280 series, as a batch of one minute makes them."""
    minute = timestamp_of(_START_NS + first * 1_000_000)[:16] + ":00Z"
    measures = {
        f"{of}_{name}": value
        for of in ("duration", "memory")
        for name, value in (
            ("count", 70),
            ("sum", 313.2),
            ("min", 0.1),
            ("max", 27.5),
            ("keys", list(range(-10, 40))),
            ("counts", [1] * 50),
        )
    }
    tallies = {"total": 70, "success": 66, "failure": 4, "other": 0, "rows": 90, "transfer_bytes": 0}
    return [
        _encode(
            {
                "minute": minute,
                "service_name": f"source{series % 7}",
                "event_name": f"Operation{series % 40}",
                "efficiency_count": 50,
                "efficiency_sum": 3_500.0,
                **tallies,
                **measures,
            }
        )
        for series in range(280)
    ]


def _memory() -> str:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return f"RSS {int(fields['VmRSS'].split()[0]) // 1024} MB, peak {int(fields['VmHWM'].split()[0]) // 1024} MB"


def _fill(store: Store, rows: int, batch_rows: int) -> None:
    chance = random.Random(7)
    making = 0.0
    slowest = 0.0
    begun, begun_cpu = time.perf_counter(), time.process_time()
    for number, first in enumerate(range(0, rows, batch_rows), start=1):
        before = time.thread_time()
        lines = [_record(n, chance) for n in range(first, first + batch_rows)]
        frames = [b"\n".join(lines[at : at + 500]) for at in range(0, batch_rows, 500)]
        windows = _windows(first)
        making += time.thread_time() - before
        range_ = Range("Zm9v", "processed-metrics", number % 12, first, first + batch_rows - 1)
        batch = Batch(number, f"bench-{number}", (range_,), _START_NS + first * 1_000_000, closed=False)
        entered = time.perf_counter()
        store.open_batch(batch)
        runs = [_receipt(first // _RUN)] if first % _RUN == 0 else []
        store.insert(batch, Rows(frames, [], windows, [], [], runs))
        store.close_batch(batch)
        slowest = max(slowest, time.perf_counter() - entered)
    cpu = time.process_time() - begun_cpu - making
    wall = time.perf_counter() - begun - making
    print(
        f"insert: {cpu / rows * 1e6:.2f} us CPU a record, {rows / wall:,.0f} records/s, slowest batch {slowest:.2f} s"
    )
    print(f"insert: {_memory()}")


def _time(name: str, call: Callable[[], object]) -> None:
    walls = []
    before = time.process_time()
    for _ in range(5):
        begun = time.perf_counter()
        call()
        walls.append(time.perf_counter() - begun)
    cpu = (time.process_time() - before) / 5
    print(
        f"{name:<22} median {sorted(walls)[2] * 1e3:7.1f} ms, worst {max(walls) * 1e3:7.1f} ms, CPU {cpu * 1e3:7.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Settings(_env_file=None), Path(folder))
        _fill(store, arguments.rows, arguments.batch)
        middle = arguments.rows // 2
        everything = EntryQuery()
        one_source = EntryQuery(source="source3")
        _time("counts", lambda: counts(store))
        _time("summary", lambda: summarize(store, everything))
        _time("summary of a source", lambda: summarize(store, one_source))
        _time("recent 5", lambda: recent(store, RecordQuery(limit=5)))
        _time("recent 50 of a source", lambda: recent(store, RecordQuery(limit=50, source="source3")))
        _time("record", lambda: find(store, _record_id(middle)))
        _time("windows by all", lambda: windows(store, WindowQuery(by="all", limit=60)))
        _time("run of 200,000", lambda: find_run(store, f"run-{middle // _RUN}"))
        print(f"queries: {_memory()}")
        store.close()


if __name__ == "__main__":
    main()
