"""A sink in small, for tests to kill: it writes a made-up topic into a store by the ledger's rules, until all is in.

    python -m tests.contract.store_writer FOLDER SEED     (the engine is of CLICKHOUSE_URL, or embedded in FOLDER)

What lies at an offset depends on the offset alone, as on a topic. How batches are cut is random, as in life. A line on
stdout tells each step before it is taken.
"""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from processing.store import Batch, Range, Rows, Store, open_store
from shared.config import Settings
from tests.contract.samples import anomaly, dead_letter, receipt, record, rows, window

PARTITIONS = 3
OFFSETS = 2_000  # of each partition
MONTHS = ("2025-11-30T23:59:59.999Z", "2025-12-31T12:00:00Z", "2026-01-05T10:00:00Z", "2026-02-01T00:00:00Z")


def content(partition: int, offset: int) -> Rows:
    """What lies at an offset: a record and its window, often with more; neighbours are of different months."""
    record_id = f"cafe-{partition}-{offset}-0"
    found = rows(
        records=[
            record(
                record_id, observed_timestamp=MONTHS[offset % 4], outcome="failure" if offset % 10 == 0 else "success"
            )
        ],
        windows=[window(f"2026-01-05T10:{offset % 60:02d}:00Z")],
    )
    if offset % 10 == 0:
        found.anomalies.append(anomaly(record_id, observed_timestamp=MONTHS[offset % 4]))
    if offset % 100 == 0:
        found.dead_letters.append(dead_letter(f"dead-{partition}-{offset}", time=MONTHS[offset // 100 % 4]))
        found.runs.append(receipt(f"run-{partition}-{offset}", 1))
    return found


def _rows(ranges: tuple[Range, ...]) -> Rows:
    gathered = rows()
    for range_ in ranges:
        for offset in range(range_.first, range_.last + 1):
            for table, lines in content(range_.partition, offset).by_table():
                getattr(gathered, table.name).extend(lines)
    return gathered


def _cuts(store: Store, chance: random.Random) -> Iterator[tuple[Range, ...]]:
    """The next batch's ranges, until every partition is at its end."""
    while True:
        positions = store.positions()
        ranges = []
        for partition in range(PARTITIONS):
            first = positions.get(("cafe", partition), 0)
            last = min(OFFSETS, first + chance.randrange(60)) - 1
            if last >= first:
                ranges.append(Range("cafe", "processed-metrics", partition, first, last))
        if ranges:
            yield tuple(ranges)
        elif all(positions.get(("cafe", partition)) == OFFSETS for partition in range(PARTITIONS)):
            return


def _tell(step: str, number: int) -> None:
    sys.stdout.write(f"{step} {number}\n")
    sys.stdout.flush()


def _insert(store: Store, batch: Batch) -> None:
    _tell("insert", batch.number)
    store.insert(batch, _rows(batch.ranges))
    _tell("close", batch.number)
    store.close_batch(batch)


def main() -> None:
    chance = random.Random(int(sys.argv[2]))
    _tell("begin", 0)
    store = open_store(Settings(_env_file=None), Path(sys.argv[1]))
    last = store.last_batch()
    if last is not None and not last.closed:
        _tell("repeat", last.number)
        _insert(store, last)
    number = last.number if last is not None else 0
    for ranges in _cuts(store, chance):
        number += 1
        batch = Batch(number, f"{number}-{chance.getrandbits(64):x}", ranges, time.time_ns(), closed=False)
        _tell("open", number)
        store.open_batch(batch)
        _insert(store, batch)
    _tell("done", number)
    store.close()


if __name__ == "__main__":
    main()
