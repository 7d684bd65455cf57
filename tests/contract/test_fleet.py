"""The metrics of the GPU fleet, on both engines."""

from datetime import UTC, datetime
from typing import Any

import pytest

from processing.fleet import PRESENT_S, REMEMBERED_S, Fleet
from processing.store import Store
from tests.contract.samples import sample, store_rows

NOW = datetime(2026, 1, 5, 10, 10, tzinfo=UTC).timestamp()
FIELDS = {
    "util": ("DCGM_FI_DEV_GPU_UTIL", "hw.gpu.utilization"),
    "used": ("DCGM_FI_DEV_FB_USED", "hw.gpu.memory.usage"),
    "free": ("DCGM_FI_DEV_FB_FREE", "hw.gpu.memory.free"),
    "heat": ("DCGM_FI_DEV_GPU_TEMP", "hw.temperature"),
    "power": ("DCGM_FI_DEV_POWER_USAGE", "hw.power"),
    "xid": ("DCGM_FI_DEV_XID_ERRORS", "hw.gpu.xid"),
}


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def readings(host: str, gpu: str, arrived: str = "2026-01-05T10:09:00Z", **values: float | None) -> list[bytes]:
    """One sample of each of these, taken years before it arrived."""
    return [
        sample(f"cafe-0-{host}-{gpu}-{name}", hw_id=gpu, host_name=host, value=value, timestamp="2020-01-05T10:09:00Z",
               observed_timestamp=arrived, source_metric=FIELDS[name][0], metric=FIELDS[name][1])
        for name, value in values.items()
    ]  # fmt: skip


def shown(fleet: Fleet) -> dict[str, dict[tuple[str, ...], float]]:
    fleet.look()
    return {
        family.name.removeprefix("sluice_gpu_"): {tuple(each.labels.values()): each.value for each in family.samples}
        for family in fleet.collect()
    }


def test_hosts_add_up_their_gpus_and_blanks_are_left_out(store: Store) -> None:
    store_rows(
        store,
        samples=[
            *readings("node-1", "GPU-1", util=0.25, used=10.0, free=30.0, heat=60.0, power=100.0, xid=0.0),
            *readings("node-1", "GPU-2", util=0.75, used=20.0, free=20.0, heat=80.0, power=None, xid=79.0),
            *readings("node-2", "GPU-3", util=None, xid=79.0),
        ],
    )
    found = shown(Fleet(store, 10, 10, Clock(NOW)))
    assert found["host_devices"] == {("node-1",): 2, ("node-2",): 1}
    assert found["host_utilization_ratio"] == {("node-1",): pytest.approx(0.5)}
    assert found["host_memory_used_bytes"] == {("node-1",): 30}
    assert found["host_memory_bytes"] == {("node-1",): 80}
    assert found["host_temperature_celsius"] == {("node-1",): 80}
    assert found["host_power_watts"] == {("node-1",): 100}
    assert found["host_xid_devices"] == {("node-1", "79"): 1, ("node-2", "79"): 1}
    assert found["utilization_ratio"] == {("node-1", "GPU-1"): 0.25, ("node-1", "GPU-2"): 0.75}
    assert found["power_watts"] == {("node-1", "GPU-1"): 100}


def test_labels_are_bounded_and_kept_and_nothing_is_left_out_of_the_sums(store: Store) -> None:
    store_rows(
        store, samples=[line for number in range(6) for line in readings(f"n{number}", f"G{number}", power=10.0)]
    )
    fleet = Fleet(store, 2, 3, Clock(NOW))
    first = shown(fleet)
    assert first["host_devices"] == {("n0",): 1, ("n1",): 1, ("other",): 4}
    assert first["host_power_watts"] == {("n0",): 10, ("n1",): 10, ("other",): 40}
    assert len(first["power_watts"]) == 3
    store_rows(store, samples=readings("a", "A", power=5.0))
    again = shown(fleet)
    assert again["host_power_watts"] == {("n0",): 10, ("n1",): 10, ("other",): 45}
    assert again["power_watts"] == first["power_watts"]


def test_a_host_that_says_nothing_any_more_is_0_for_an_hour_and_then_forgotten(store: Store) -> None:
    store_rows(store, samples=readings("node-1", "GPU-1", util=0.5))
    clock = Clock(NOW)
    fleet = Fleet(store, 10, 10, clock)
    assert shown(fleet)["host_devices"] == {("node-1",): 1}
    clock.now = NOW + PRESENT_S
    gone: dict[str, Any] = shown(fleet)
    assert gone["host_devices"] == {("node-1",): 0}
    assert gone["host_utilization_ratio"] == gone["utilization_ratio"] == {}
    clock.now = NOW + REMEMBERED_S
    assert shown(fleet)["host_devices"] == {}


def test_what_is_no_code_is_no_label(store: Store) -> None:
    store_rows(store, samples=readings("node-1", "GPU-1", xid=1e9))
    assert shown(Fleet(store, 10, 10, Clock(NOW)))["host_xid_devices"] == {("node-1", "other"): 1}
