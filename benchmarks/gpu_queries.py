"""The API of the GPU fleet at 20 million samples of 1,000 GPUs: each query's p50, p95, worst and CPU, over HTTP.

    python -m benchmarks.gpu_queries --samples 20000000

A GPU has ten metrics, read every 10 s. Samples go into an embedded store in batches of 50,000, as the sink writes them;
queries begin when the last is in, while the engine still merges.
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import uvicorn

from native.fleet import COLUMNS, START, Plan, fleet_of, rows_of
from processing.api import routers
from processing.store import Batch, Range, Rows, Store, open_store
from shared.config import Settings
from shared.records import Receipt, timestamp_of
from shared.service import Service
from standardization.standardize import Arrival, Standardizer

_INTERVAL_S = 10
_BATCH = 50_000
_METRICS = 10


def _templates(plan: Plan) -> list[bytes]:
    """A sample of each series, as standardization writes it, with places for its id, times and value."""
    entries = [msgspec.json.encode(dict(zip(COLUMNS, row, strict=True))) for row in rows_of(plan)]
    arrival = Arrival("2000-01-01T00:00:00Z", run_id="fleet")
    found = Standardizer(1 << 20, 1 << 20).entries(
        "application/x-ndjson", entries, ["PLACE"] * len(entries), [arrival] * len(entries)
    )
    made = []
    for _, line in found.samples:
        sample = msgspec.json.decode(line)
        sample |= {"record_id": "@id@", "timestamp": "@time@", "observed_timestamp": "@time@", "value": "@value@"}
        text = msgspec.json.encode(sample).replace(b"%", b"%%").replace(b'"@value@"', b"%.4g")
        made.append(text.replace(b"@id@", b"%s").replace(b"@time@", b"%s"))
    return made


def fill(store: Store, plan: Plan, samples: int) -> float:
    """Store samples up to this many, round by round, from where the store ends; returns the store's own seconds."""
    templates = _templates(plan)
    chance = random.Random(plan.seed)
    start_ns = int(START.timestamp() * 1e9)
    last = store.last_batch()
    number, taken = (0, 0) if last is None else (last.number, last.ranges[0].last + 1)
    lines: list[bytes] = []
    spent = 0.0
    while taken < samples:
        stamp = timestamp_of(start_ns + taken // len(templates) * _INTERVAL_S * 1_000_000_000).encode()
        for template in templates[taken % len(templates) :]:
            place = b"ab12cd34-%d-%d-%d" % (taken % 12, taken // 12_000, taken // 12 % 1_000)
            lines.append(template % (place, stamp, stamp, chance.random()))
            taken += 1
            if len(lines) == _BATCH or taken == samples:
                number += 1
                begun = time.perf_counter()
                range_ = Range("ab12cd34", "processed-metrics", 0, taken - len(lines), taken - 1)
                batch = Batch(number, f"token-{number}", (range_,), time.time_ns(), closed=False)
                receipt = msgspec.json.encode(Receipt("fleet", None, samples, 1, timestamp_of(time.time_ns())))
                store.open_batch(batch)
                store.insert(batch, Rows([], [b"\n".join(lines)], [], [], [], [receipt]))
                store.close_batch(batch)
                spent += time.perf_counter() - begun
                lines = []
                if taken == samples:
                    break
    return spent


@contextmanager
def serving(store: Store) -> Iterator[httpx.Client]:
    settings = Settings(_env_file=None)
    service = Service("processing", settings, settings.processing_port, [], routers(store), "")
    server = uvicorn.Server(uvicorn.Config(service.app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()


def measured(ask: Callable[[], httpx.Response], times: int) -> tuple[list[float], float]:
    """Milliseconds of each, sorted, and of the process's CPU for one; two before them warm up."""
    found = []
    for _ in range(2):
        ask().raise_for_status()
    used = time.process_time()
    for _ in range(times):
        begun = time.perf_counter()
        answer = ask()
        found.append((time.perf_counter() - begun) * 1000)
        answer.raise_for_status()
    return sorted(found), (time.process_time() - used) * 1000 / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000_000)
    parser.add_argument("--gpus", type=int, default=1_000)
    parser.add_argument("--times", type=int, default=100, help="of each query; 0: only fill")
    parser.add_argument("--folder", type=Path, help="where the store lies, kept; what is there is filled up")
    given = parser.parse_args()
    plan = Plan(hosts=max(1, given.gpus // 8), gpus=given.gpus, metrics=_METRICS, seed=7)
    fleet = fleet_of(plan)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        store = open_store(Settings(_env_file=None, clickhouse_url=""), folder)
        used = time.process_time()
        spent = fill(store, plan, given.samples)
        print(
            f"filled: {spent:.0f} s in the store, {time.process_time() - used:.0f} s of CPU, making the lines included"
        )
        (disk,) = store.query(
            "SELECT sum(bytes_on_disk) AS bytes, sum(rows) AS rows, count() AS parts FROM system.parts "
            "WHERE table = 'samples' AND active"
        )
        print(
            f"on disk: {disk['bytes'] / disk['rows']:.1f} bytes a sample, {disk['rows']} rows in {disk['parts']} parts"
        )
        rounds = given.samples // (given.gpus * _METRICS)
        chance = random.Random(1)

        with serving(store) as client:

            def hour(**query: str) -> Callable[[], httpx.Response]:
                def ask() -> httpx.Response:
                    latest = max(0, rounds * _INTERVAL_S - 3_600)
                    begin = START.astimezone(UTC) + timedelta(seconds=chance.randrange(latest + 1))
                    times = {"start_time": _text(begin), "end_time": _text(begin + timedelta(hours=1))}
                    path = f"/api/v1/gpus/{chance.choice(fleet).uuid}/telemetry"
                    return client.get(path, params={**times, **query})

                return ask

            def list_of(path: str, **query: str) -> Callable[[], httpx.Response]:
                return lambda: client.get(path, params=query)

            queries = {
                "an hour of one GPU, one metric": hour(metric="hw.power", limit="11000"),
                "an hour of one GPU, all metrics": hour(limit="11000"),
                "an hour of one GPU, a page of 1,000": hour(),
                "an hour of one GPU by the minute, avg": hour(step="1m", limit="11000"),
                "an hour of one GPU by the minute, p99": hour(step="1m", agg="p99", limit="11000"),
                "one GPU": lambda: client.get(f"/api/v1/gpus/{chance.choice(fleet).uuid}"),
                "the fleet, all GPUs": list_of("/api/v1/gpus", limit="1000"),
                "the fleet, a page of 50": list_of("/api/v1/gpus"),
                "hosts": list_of("/api/v1/hosts", limit="1000"),
                "metrics": list_of("/api/v1/metrics"),
                "the receipt of a run of all samples": list_of("/runs/fleet"),
            }
            for name, ask in queries.items() if given.times else ():
                found, used = measured(ask, given.times)
                print(
                    f"{name:40} p50 {found[len(found) // 2]:6.1f} ms   p95 {found[int(len(found) * 0.95)]:6.1f} ms   "
                    f"worst {found[-1]:6.1f} ms   CPU {used:6.1f} ms"
                )
        store.close()


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    main()
