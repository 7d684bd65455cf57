"""What the GPU fleet is like now: metrics by host and, of a bounded number, by GPU.

store > [every few seconds: the newest reading of each series] > figures > /metrics

Prometheus gets what alerts and dashboards need of the present; history is asked of the API. Only what has arrived
lately is present, whenever it was taken: a GPU that says nothing any more drops out, and its host has one fewer.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from processing.api.gpus import SERIES_SQL
from processing.counts import OTHER
from processing.store import Store
from shared import logs
from shared.errors import StoreError

NAME: Final = "fleet"
PRESENT_S: Final = 300  # a GPU of which nothing arrived for longer is not there
REMEMBERED_S: Final = 3600  # a host without any is shown, with 0, for so long
_LOOK_S: Final = 5.0  # between two looks, or fifty times as long as the last one took, but no longer than ...
_LOOK_MAX_S: Final = 30.0
_XIDS_MAX: Final = 1_000  # codes are below; whatever a foreign producer writes, labels stay bounded

UTILIZATION: Final = "DCGM_FI_DEV_GPU_UTIL"
MEMORY_USED: Final = "DCGM_FI_DEV_FB_USED"
MEMORY_FREE: Final = "DCGM_FI_DEV_FB_FREE"
TEMPERATURE: Final = "DCGM_FI_DEV_GPU_TEMP"
POWER: Final = "DCGM_FI_DEV_POWER_USAGE"
XID: Final = "DCGM_FI_DEV_XID_ERRORS"
_WANTED: Final = (UTILIZATION, MEMORY_USED, MEMORY_FREE, TEMPERATURE, POWER, XID)

_READINGS: Final = f"""
SELECT hw_id AS gpu, source_metric AS name, host_name AS host, value, toUnixTimestamp(arrived) AS arrived
FROM {SERIES_SQL.format(where="WHERE source_metric IN {wanted:Array(String)}")} AS series
WHERE series.arrived >= fromUnixTimestamp64Nano({{since_ns:Int64}}, 'UTC') ORDER BY host, gpu
"""  # noqa: S608 - our own names

log = logs.logger(NAME)


@dataclass(slots=True)
class _Host:
    devices: set[str] = field(default_factory=set)
    readings: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by DCGM's name
    xids: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # GPUs by the code of their last XID


class Families:
    """The metrics, with nothing in them."""

    def __init__(self) -> None:
        host, gpu = ["host"], ["host", "gpu"]
        self.host_devices = GaugeMetricFamily(
            "sluice_gpu_host_devices", "GPUs of which a sample arrived lately, by host.", labels=host
        )
        self.host_utilization = GaugeMetricFamily(
            "sluice_gpu_host_utilization_ratio", "Mean utilization of a host's GPUs.", labels=host
        )
        self.host_used = GaugeMetricFamily(
            "sluice_gpu_host_memory_used_bytes", "Memory in use on a host's GPUs.", labels=host
        )
        self.host_memory = GaugeMetricFamily(
            "sluice_gpu_host_memory_bytes", "Memory of a host's GPUs, in use or free.", labels=host
        )
        self.host_temperature = GaugeMetricFamily(
            "sluice_gpu_host_temperature_celsius", "The hottest of a host's GPUs.", labels=host
        )
        self.host_power = GaugeMetricFamily(
            "sluice_gpu_host_power_watts", "Power that a host's GPUs draw.", labels=host
        )
        self.host_xids = GaugeMetricFamily(
            "sluice_gpu_host_xid_devices",
            "GPUs of a host by the code of their last XID error; those without one are not counted.",
            labels=["host", "xid"],
        )
        self.utilization = GaugeMetricFamily("sluice_gpu_utilization_ratio", "Utilization of a GPU.", labels=gpu)
        self.temperature = GaugeMetricFamily("sluice_gpu_temperature_celsius", "Temperature of a GPU.", labels=gpu)
        self.power = GaugeMetricFamily("sluice_gpu_power_watts", "Power that a GPU draws.", labels=gpu)
        self.used = GaugeMetricFamily("sluice_gpu_memory_used_bytes", "Memory in use on a GPU.", labels=gpu)

    def __iter__(self) -> Iterator[GaugeMetricFamily]:
        yield from vars(self).values()

    def of_gpu(self, name: str) -> GaugeMetricFamily | None:
        """The metric of one GPU that this reading of DCGM is shown as."""
        return {
            UTILIZATION: self.utilization,
            TEMPERATURE: self.temperature,
            POWER: self.power,
            MEMORY_USED: self.used,
        }.get(name)


class Fleet(Collector):
    """The metrics of the fleet. Hosts beyond the limit share the label `other`; GPUs beyond theirs have none."""

    def __init__(self, store: Store, hosts: int, gpus: int, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._host_labels = _Labels(hosts)
        self._gpu_labels = _Labels(gpus)
        self._rows: list[dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def run(self, stopping: threading.Event) -> None:
        """Follow the store until told to stop; while it does not answer there are no figures."""
        while not stopping.is_set():
            begun = time.monotonic()
            try:
                self.look()
            except StoreError as error:
                with self._lock:
                    self._rows = None
                log.warning("no figures of the fleet for now", error=str(error))
            stopping.wait(min(max(_LOOK_S, 50 * (time.monotonic() - begun)), _LOOK_MAX_S))

    def look(self) -> None:
        """Ask for the newest readings. Raises StoreError."""
        since_ns = int((self._clock() - REMEMBERED_S) * 1e9)
        rows = self._store.query(_READINGS, {"wanted": list(_WANTED), "since_ns": since_ns})
        with self._lock:
            self._rows = rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._lock:
            rows = self._rows
        families = Families()
        if rows:
            self._show(families, rows)
        yield from families

    def _show(self, families: Families, rows: Iterable[dict[str, Any]]) -> None:
        hosts: dict[str, _Host] = defaultdict(_Host)
        present = self._clock() - PRESENT_S
        for row in rows:
            label = self._host_labels.of(row["host"]) or OTHER
            host = hosts[label]
            if row["arrived"] < present:
                continue
            host.devices.add(row["gpu"])
            name, value = row["name"], row["value"]
            if value is None:
                continue
            if name == XID:
                if value > 0:
                    host.xids[str(int(value)) if value < _XIDS_MAX else OTHER] += 1
                continue
            host.readings[name].append(value)
            family = families.of_gpu(name)
            if family is not None and self._gpu_labels.of(row["gpu"]):
                family.add_metric([label, row["gpu"]], value)
        for label, host in hosts.items():
            _show_host(families, label, host)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Known without asking the store, so that registering needs none."""
        yield from Families()

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self)


class _Labels:
    """The values that have a label of their own: the first so many, for good."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def of(self, value: str) -> str | None:
        if value not in self._known and len(self._known) < self._limit:
            self._known.add(value)
        return value if value in self._known else None


def _show_host(families: Families, label: str, host: _Host) -> None:
    families.host_devices.add_metric([label], len(host.devices))
    readings = host.readings
    if readings[UTILIZATION]:
        families.host_utilization.add_metric([label], sum(readings[UTILIZATION]) / len(readings[UTILIZATION]))
    if readings[MEMORY_USED]:
        families.host_used.add_metric([label], sum(readings[MEMORY_USED]))
        families.host_memory.add_metric([label], sum(readings[MEMORY_USED]) + sum(readings[MEMORY_FREE]))
    if readings[TEMPERATURE]:
        families.host_temperature.add_metric([label], max(readings[TEMPERATURE]))
    if readings[POWER]:
        families.host_power.add_metric([label], sum(readings[POWER]))
    for xid, devices in host.xids.items():
        families.host_xids.add_metric([label, xid], devices)
