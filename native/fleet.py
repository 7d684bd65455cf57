"""A fleet of GPUs that does not exist, as NVIDIA's DCGM exporter would tell of it, in CSV or JSON.

    python -m native.fleet --hosts 31 --gpus 247 --metrics 10 --seed 1 > fleet.csv

The same arguments give the same bytes. A GPU's readings belong together: one that works hard is warm, draws power and
holds memory, and so is the fleet: some hosts train, some serve, some idle.
"""

import argparse
import csv
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

COLUMNS: Final = (
    "timestamp", "metric_name", "gpu_id", "device", "uuid", "modelName", "Hostname", "container", "pod", "namespace",
    "value", "labels_raw",
)  # fmt: skip
METRICS: Final = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_MEMORY_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_XID_ERRORS",
)
BLANK: Final = "9223372036854775794"  # what DCGM gives for a field that the GPU does not support
START: Final = datetime(2026, 1, 5, 10, tzinfo=UTC)
_PER_HOST: Final = 16  # GPUs that a host has at most, while there are hosts enough
_XIDS: Final = (13, 31, 43, 48, 63, 79, 94)


class Model(NamedTuple):
    name: str
    memory_mib: int
    idle_w: float
    full_w: float
    idle_mhz: int
    full_mhz: int


_MODELS: Final = (
    Model("NVIDIA H100 80GB HBM3", 81_559, 70.0, 700.0, 345, 1_980),
    Model("NVIDIA A100-SXM4-80GB", 81_920, 60.0, 400.0, 210, 1_410),
    Model("NVIDIA L40S", 46_068, 35.0, 350.0, 210, 2_520),
)
_LOADS: Final = ((0.96, 0.03), (0.45, 0.25), (0.02, 0.02))  # mean and spread of those that train, serve, idle


@dataclass(frozen=True, slots=True)
class Gpu:
    host: str
    index: int
    uuid: str
    model: Model
    load: float
    spread: float
    pod: str
    instance: str  # of MIG, empty for a whole GPU
    phase: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Which fleet to make. Counts are exact: hosts with a GPU each at least, GPUs, and gpus * metrics * rounds rows."""

    hosts: int = 31
    gpus: int = 247
    metrics: int = len(METRICS)
    rounds: int = 1
    interval_s: float = 10.0
    start: datetime = START
    seed: int = 1
    mig: float = 0.0  # share of GPUs that are MIG instances
    blanks: float = 0.0  # share of readings that are blank
    xids: float = 0.002  # share of the XID readings that are an error

    def __post_init__(self) -> None:
        if not 1 <= self.hosts <= self.gpus:
            raise ValueError(f"{self.gpus} GPUs can't be spread over {self.hosts} hosts: each has one at least")
        if not 1 <= self.metrics <= len(METRICS):
            raise ValueError(f"there are 1 to {len(METRICS)} metrics")
        if self.rounds < 1 or self.interval_s < 0:
            raise ValueError("there is one round at least, and time does not run back")


def fleet_of(plan: Plan) -> list[Gpu]:
    """The GPUs of a plan, host by host."""
    chance = random.Random(plan.seed)  # noqa: S311 - a made-up fleet is no secret
    made = []
    for host, count in enumerate(_spread(plan.hosts, plan.gpus, chance)):
        name = f"dgx-{host + 1:03d}.gpu.example.net"
        model = _MODELS[chance.choices(range(len(_MODELS)), (6, 3, 1))[0]]
        load, spread = _LOADS[chance.choices(range(len(_LOADS)), (5, 3, 2))[0]]
        for index in range(count):
            mig = chance.random() < plan.mig
            uuid = f"{chance.getrandbits(128):032x}"
            made.append(
                Gpu(
                    host=name,
                    index=index,
                    uuid=f"GPU-{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}",
                    model=model,
                    load=load,
                    spread=spread,
                    pod=f"job-{chance.randrange(10_000):04d}-{index}" if load > 0.1 else "",
                    instance=str(chance.randrange(1, 8)) if mig else "",
                    phase=chance.random() * math.tau,
                )
            )
    return made


def rows_of(plan: Plan) -> Iterator[tuple[str, ...]]:
    """The rows of a plan, in the order of COLUMNS: round by round, GPU by GPU, metric by metric."""
    fleet = fleet_of(plan)
    chance = random.Random(plan.seed + 1)  # noqa: S311
    energy_mj = [chance.randrange(10**9, 10**12) for _ in fleet]
    xids = ["0"] * len(fleet)
    for number in range(plan.rounds):
        at_s = number * plan.interval_s
        stamp = (plan.start + timedelta(seconds=at_s)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for place, gpu in enumerate(fleet):
            busy = min(1.0, max(0.0, chance.gauss(gpu.load, gpu.spread) + 0.05 * math.sin(at_s / 300 + gpu.phase)))
            power = gpu.model.idle_w + (gpu.model.full_w - gpu.model.idle_w) * busy
            energy_mj[place] += round(power * plan.interval_s * 1000)
            if chance.random() < plan.xids:
                xids[place] = str(chance.choice(_XIDS))
            used = round(gpu.model.memory_mib * (0.01 + 0.85 * gpu.load * (0.9 + 0.1 * busy)))
            values = (
                str(round(busy * 100)),
                str(round(busy * 60)),
                str(used),
                str(gpu.model.memory_mib - used),
                str(round(30 + 45 * busy + chance.random() * 3)),
                str(round(34 + 50 * busy + chance.random() * 3)),
                f"{power:.3f}",
                str(energy_mj[place]),
                str(round(gpu.model.idle_mhz + (gpu.model.full_mhz - gpu.model.idle_mhz) * min(1.0, busy * 3))),
                xids[place],
            )
            for metric, value in zip(METRICS[: plan.metrics], values, strict=False):
                if chance.random() < plan.blanks:
                    value = BLANK
                yield (
                    stamp, metric, str(gpu.index), f"nvidia{gpu.index}", gpu.uuid, gpu.model.name, gpu.host,
                    "main" if gpu.pod else "", gpu.pod, "ml" if gpu.pod else "", value, _labels(gpu, metric),
                )  # fmt: skip


def _spread(hosts: int, gpus: int, chance: random.Random) -> Sequence[int]:
    """How many GPUs each host has: one at least, and otherwise uneven."""
    counts = [1] * hosts
    most = max(_PER_HOST, -(-gpus // hosts))
    open_hosts = list(range(hosts))
    for _ in range(gpus - hosts):
        place = chance.randrange(len(open_hosts))
        counts[open_hosts[place]] += 1
        if counts[open_hosts[place]] == most:
            open_hosts.pop(place)
    return counts


def _labels(gpu: Gpu, metric: str) -> str:
    labels = {
        "DCGM_FI_DRIVER_VERSION": "550.90.07",
        **({"GPU_I_ID": gpu.instance, "GPU_I_PROFILE": "1g.10gb"} if gpu.instance else {}),
        "Hostname": gpu.host,
        "UUID": gpu.uuid,
        "__name__": metric,
        "device": f"nvidia{gpu.index}",
        "gpu": str(gpu.index),
        "instance": f"{gpu.host}:9400",
        "job": "dcgm-exporter",
        "modelName": gpu.model.name,
        "pci_bus_id": f"00000000:{gpu.index + 1:02X}:00.0",
    }
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m native.fleet", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--hosts", type=int, default=31)
    parser.add_argument("--gpus", type=int, default=247)
    parser.add_argument("--metrics", type=int, default=len(METRICS), help=f"how many of the {len(METRICS)}")
    parser.add_argument("--rounds", type=int, default=1, help="readings of each metric")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two rounds")
    parser.add_argument("--start", type=datetime.fromisoformat, default=START, help="RFC 3339, of the first round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mig", type=float, default=0.0, help="share of GPUs that are MIG instances")
    parser.add_argument("--blanks", type=float, default=0.0, help="share of readings that are blank")
    parser.add_argument("--xids", type=float, default=0.002, help="share of rounds in which a GPU has an XID error")
    parser.add_argument("--format", choices=("csv", "ndjson"), default="csv")
    given = parser.parse_args(arguments)
    try:
        plan = Plan(
            given.hosts, given.gpus, given.metrics, given.rounds, given.interval, given.start.astimezone(UTC),
            given.seed, given.mig, given.blanks, given.xids,
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    if given.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows_of(plan))
    else:
        for row in rows_of(plan):
            sys.stdout.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
