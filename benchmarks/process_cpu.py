"""CPU microseconds per record of the processing core: process() in calls of 1,000 lines, then windows() and changed().

    python benchmarks/process_cpu.py [records]

100 series, lines of about 300 bytes over 2 minutes, 2 % failures; histories are warm. Prints medians of 7 rounds.
"""

import gc
import math
import random
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec

from processing.detect import Rules
from processing.process import Processor
from shared.config import Settings
from shared.records import Record

CALL = 1_000
SERIES = 100
ROUNDS = 7

decode = msgspec.json.Decoder(Record).decode
encode = msgspec.json.Encoder().encode


def lines_of(count: int, rng: random.Random) -> list[bytes]:
    """Encoded records as standardization writes them: durations and memory log-normal, each series with its own."""
    typical = [(rng.uniform(0.5, 60), rng.uniform(5e6, 1.5e8)) for _ in range(SERIES)]
    lines = []
    for index in range(count):
        series = rng.randrange(SERIES)
        seconds, memory = typical[series]
        instant = f"2026-01-05T10:{index * 2 // count:02}:{rng.randrange(60):02}.{rng.randrange(1000):03}Z"
        record = Record(
            record_id=f"a1b2c3d4-3-{index // 500}-{index % 500}",
            timestamp=instant,
            observed_timestamp=f"2026-01-05T10:05:{index // 500 % 60:02}.250Z",
            service_name=f"system_{series % 10}",
            event_name=f"Operation{series}",
            outcome="failure" if rng.random() < 0.02 else "success",
            run_id="0198c0ffee",
            duration_s=round(seconds * math.exp(rng.gauss(0, 0.3)), 3),
            memory_bytes=int(memory * math.exp(rng.gauss(0, 0.2))),
            rows=rng.randrange(1000) if series % 4 == 0 else None,
            attributes={"region": "eu-west-1"},
        )
        lines.append(msgspec.json.encode(record))
    return lines


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    lines = lines_of(count, random.Random(1))
    size = sum(map(len, lines)) / count
    print(f"{count} records of {size:.0f} bytes, {SERIES} series, calls of {CALL}, one transaction")
    processor = Processor(Rules.of(Settings()))
    rounds: list[list[float]] = []
    for _ in range(ROUNDS + 1):  # the first warms the histories
        gc.collect()
        marks = [time.process_time()]
        for start in range(0, count, CALL):
            processor.process(0, lines[start : start + CALL])
        marks.append(time.process_time())
        processor.windows()
        marks.append(time.process_time())
        processor.changed()
        marks.append(time.process_time())
        for line in lines:
            encode(decode(line))
        marks.append(time.process_time())
        rounds.append([(after - before) / count * 1e6 for before, after in pairwise(marks)])
    process, windows, changed, codec = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    for name, part in (("process", process), ("windows", windows), ("changed", changed)):
        print(f"{name:10} {part:6.2f} us")
    together = process + windows + changed
    print(
        f"together   {together:6.2f} us, {together / codec:.1f} times the {codec:.2f} us of a decode and encode alone"
    )


if __name__ == "__main__":
    main()
