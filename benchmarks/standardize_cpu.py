"""CPU microseconds per record of the standardization core alone: decode, map, encode; no Kafka.

    python -m benchmarks.standardize_cpu [--records 200000] [--runs 5] [--seed 1]

The entries are those of benchmarks/entries.py. CPU time, not the clock; beside it a bare msgspec decode of the
same bytes, so that machines and moments can be compared, and the same entries read by declared mappings
(benchmarks/mappings.yml), which make the same records but for the mapping's name.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.entries import SIZE, generate
from shared.records import Record
from shared.topics import NDJSON
from standardization.declared import NO_MAPPINGS, Mappings
from standardization.fields import MAPPING
from standardization.mappings import read_mappings
from standardization.standardize import Arrival, Standardizer


def _microseconds(work: Callable[[list[list[bytes]]], None], frames: list[list[bytes]]) -> float:
    """CPU microseconds per record of one pass."""
    begun = time.process_time()
    work(frames)
    return (time.process_time() - begun) * 1e6 / sum(map(len, frames))


def _standardized(frames: list[list[bytes]], mappings: Mappings = NO_MAPPINGS) -> None:
    standardizer = Standardizer(16 << 20, 2 << 20, mappings=mappings)
    arrival = Arrival("2026-03-17T09:00:00.123Z", run_id="run-1")
    for frame in frames:
        record_ids = [f"0badcafe-0-123456-{index}" for index in range(len(frame))]
        good, _, rejected = standardizer.entries(NDJSON, frame, record_ids, [arrival] * len(frame))
        if rejected or len(good) != len(frame):
            raise SystemExit(f"an entry of the benchmark was refused: {rejected[0]}")


def _same_but_for_the_mapping(frame: list[bytes], mappings: Mappings) -> None:
    """Both ways make the same records. Raises SystemExit."""
    ids, arrivals = [str(index) for index in range(len(frame))], [Arrival("2026-03-17T09:00:00.123Z")] * len(frame)
    usual = Standardizer(16 << 20, 2 << 20).entries(NDJSON, frame, ids, arrivals).records
    mapped = Standardizer(16 << 20, 2 << 20, mappings=mappings).entries(NDJSON, frame, ids, arrivals).records
    for entry, (_, one), (_, other) in zip(frame, usual, mapped, strict=True):
        expected, found = msgspec.json.decode(one, type=Record), msgspec.json.decode(other, type=Record)
        if found.attributes.pop(MAPPING, None) is None or found != expected:
            raise SystemExit(f"declared mappings make another record of {entry!r}: {found}, not {expected}")


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
    mappings = read_mappings({"mappings.yml": (Path(__file__).parent / "mappings.yml").read_text()})
    _same_but_for_the_mapping(lines[:2_000], mappings)
    for length in (2_000, 100, 1):
        frames = [lines[at : at + length] for at in range(0, len(lines), length)]
        decoded, standardized, mapped = [], [], []
        for _ in range(options.runs):  # in turn, so that both see the same machine
            decoded.append(_microseconds(_decoded, frames))
            standardized.append(_microseconds(_standardized, frames))
            mapped.append(_microseconds(partial(_standardized, mappings=mappings), frames))
        ours, bare = statistics.median(standardized), statistics.median(decoded)
        print(
            f"{length:>5} a call: {ours:.2f} microseconds of CPU a record (least {min(standardized):.2f}), "
            f"{ours / bare:.1f} times a bare decode ({bare:.2f}); declared mappings {statistics.median(mapped):.2f} "
            f"(least {min(mapped):.2f}), {statistics.median(mapped) / ours:.2f} times known names"
        )


if __name__ == "__main__":
    main()
