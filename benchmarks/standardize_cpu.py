"""CPU microseconds per record of the standardization core alone: decode, map, encode; no Kafka.

    python -m benchmarks.standardize_cpu [--records 200000] [--runs 5] [--seed 1]

The entries are those of benchmarks/entries.py. CPU time, not the clock; beside it a bare msgspec decode of the
same bytes, so that machines and moments can be compared.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import msgspec

from benchmarks.entries import SIZE, generate
from shared.topics import NDJSON
from standardization.standardize import Arrival, Standardizer


def _microseconds(work: Callable[[list[list[bytes]]], None], frames: list[list[bytes]]) -> float:
    """CPU microseconds per record of one pass."""
    begun = time.process_time()
    work(frames)
    return (time.process_time() - begun) * 1e6 / sum(map(len, frames))


def _standardized(frames: list[list[bytes]]) -> None:
    standardizer = Standardizer(16 << 20, 2 << 20)
    arrival = Arrival("2026-03-17T09:00:00.123Z", run_id="run-1")
    for frame in frames:
        record_ids = [f"0badcafe-0-123456-{index}" for index in range(len(frame))]
        good, _, rejected = standardizer.entries(NDJSON, frame, record_ids, [arrival] * len(frame))
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
    lines = generate(options.records, options.seed)
    print(f"Python {platform.python_version()}, {len(lines)} entries of {SIZE} bytes, 7 shapes, seed {options.seed}")
    for length in (2_000, 100, 1):
        frames = [lines[at : at + length] for at in range(0, len(lines), length)]
        decoded, standardized = [], []
        for _ in range(options.runs):  # in turn, so that both see the same machine
            decoded.append(_microseconds(_decoded, frames))
            standardized.append(_microseconds(_standardized, frames))
        ours, bare = statistics.median(standardized), statistics.median(decoded)
        print(
            f"{length:>5} a call: {ours:.2f} microseconds of CPU a record (least {min(standardized):.2f}), "
            f"{ours / bare:.1f} times a bare decode ({bare:.2f})"
        )


if __name__ == "__main__":
    main()
