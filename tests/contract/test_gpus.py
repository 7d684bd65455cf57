"""The API of the GPU fleet, on both engines: what samples were stored is what it says, to the last one."""

from typing import Any

import httpx
import msgspec
import pytest

from native.fleet import COLUMNS, Plan, fleet_of, rows_of
from processing.store import Batch, Store
from processing.store.lines import invalid_lines
from shared.paging import cursor_of
from standardization.standardize import Arrival, Standardizer
from tests.contract.conftest import Open
from tests.contract.samples import batch, count, dead_letter, receipt, rows, sample, store_rows


def lines_of(plan: Plan, run_id: str, place: str) -> list[bytes]:
    """The samples of a made-up fleet, as standardization passes them on."""
    entries = [msgspec.json.encode(dict(zip(COLUMNS, row, strict=True))) for row in rows_of(plan)]
    found = Standardizer(1 << 20, 1 << 20).entries(
        "application/x-ndjson",
        entries,
        [f"{place}-{index}" for index in range(len(entries))],
        [Arrival("2026-01-05T10:00:01Z", run_id=run_id)] * len(entries),
    )
    assert len(found.samples) == len(entries)
    return [line for _, line in found.samples]


def get(client: httpx.Client, path: str, **query: Any) -> dict[str, Any]:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pages(client: httpx.Client, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
    """All of a list, page by page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(client, path, **query, **cursor)
        found += page[name]
        if page["next_cursor"] is None:
            assert len(found) == page["total"]
            return found
        cursor = {"cursor": page["next_cursor"]}


def problem(answer: httpx.Response, status: int, *, names: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert names in answer.json()["detail"]


class TestAFleet:
    """31 hosts, 247 GPUs, ten metrics: 2,470 samples, and the same again under a second run."""

    PLAN = Plan()

    def test_is_told_exactly_and_a_second_run_adds_samples_but_no_gpus(
        self, store: Store, client: httpx.Client
    ) -> None:
        fleet = fleet_of(self.PLAN)
        for run, samples in (("run-1", 2_470), ("run-2", 4_940)):
            store_rows(store, samples=lines_of(self.PLAN, run, f"cafe-0-{run[-1]}"), runs=[receipt(run, 2_470)])

            hosts = pages(client, "/api/v1/hosts", "hosts", limit=7)
            assert len(hosts) == 31
            assert [host["host"] for host in hosts] == sorted({gpu.host for gpu in fleet})
            assert sum(host["gpus"] for host in hosts) == 247
            assert sum(host["samples"] for host in hosts) == samples

            gpus = pages(client, "/api/v1/gpus", "gpus", limit=100)
            assert [gpu["uuid"] for gpu in gpus] == [gpu.uuid for gpu in fleet]
            assert sum(gpu["samples"] for gpu in gpus) == samples

            metrics = get(client, "/api/v1/metrics")
            assert metrics["total"] == 10
            assert {metric["gpus"] for metric in metrics["metrics"]} == {247}
            assert sum(metric["samples"] for metric in metrics["metrics"]) == samples
            assert get(client, f"/runs/{run}")["stored"] == 2_470
            assert get(client, f"/runs/{run}")["complete"]

        assert sum(get(client, f"/api/v1/gpus/{gpu.uuid}/telemetry")["total"] for gpu in fleet[::50]) == 5 * 20

    def test_is_told_exactly_though_batches_are_repeated(self, opened: Open) -> None:
        lines = lines_of(Plan(hosts=3, gpus=20), "run-1", "cafe-0-1")
        for number in range(3):
            part = lines[number * 70 : (number + 1) * 70]
            for attempt in ("cut off", "whole"):
                store = opened()
                if attempt == "whole":
                    last = store.last_batch()
                    assert last is not None
                    store.insert(last, rows(samples=part))
                    store.insert(last, rows(samples=part))
                    store.close_batch(last)
                else:
                    new: Batch = batch(number + 1)
                    store.open_batch(new)
                    store.insert(new, rows(samples=part))
        assert count(opened(), "samples") == 200

    def test_can_be_filtered_by_host_and_model(self, store: Store, client: httpx.Client) -> None:
        fleet = fleet_of(self.PLAN)
        store_rows(store, samples=lines_of(self.PLAN, "run-1", "cafe-0-1"))
        host = fleet[100].host
        of_host = [gpu for gpu in fleet if gpu.host == host]
        listed = get(client, f"/api/v1/hosts/{host}/gpus")
        assert [gpu["uuid"] for gpu in listed["gpus"]] == [gpu.uuid for gpu in of_host]
        assert get(client, "/api/v1/gpus", host=host) == listed
        model = of_host[0].model.name
        assert get(client, "/api/v1/gpus", model=model)["total"] == sum(gpu.model.name == model for gpu in fleet)
        assert get(client, f"/api/v1/hosts/{host}/gpus", model="none such")["total"] == 0


class TestAGpu:
    def test_shows_the_newest_reading_of_each_metric(self, store: Store, client: httpx.Client) -> None:
        heat = {"source_metric": "DCGM_FI_DEV_GPU_TEMP", "metric": "hw.temperature", "unit": "Cel"}
        store_rows(
            store,
            samples=[
                sample("cafe-0-0-0", timestamp="2026-01-05T10:00:20Z", value=0.9, host_name="node-2"),
                sample("cafe-0-0-1", timestamp="2026-01-05T10:00:10Z", value=0.1),
                sample("cafe-0-0-2", timestamp="2026-01-05T10:00:15Z", value=61.0, **heat),
                sample("cafe-0-0-3", timestamp="2026-01-05T10:00:19Z", value=None, **heat),
            ],
        )
        gpu = get(client, "/api/v1/gpus/GPU-1")
        assert gpu["host"] == "node-2"
        assert (gpu["first_seen"], gpu["last_seen"]) == ("2026-01-05T10:00:10Z", "2026-01-05T10:00:20Z")
        assert gpu["samples"] == 4
        assert [(each["source_metric"], each["value"], each["timestamp"]) for each in gpu["latest"]] == [
            ("DCGM_FI_DEV_GPU_TEMP", None, "2026-01-05T10:00:19Z"),
            ("DCGM_FI_DEV_GPU_UTIL", 0.9, "2026-01-05T10:00:20Z"),
        ]
        listed = get(client, "/api/v1/gpus")["gpus"][0]
        assert listed == {name: gpu[name] for name in listed}

    def test_of_mig_is_one_of_its_own_beside_its_parent(self, store: Store, client: httpx.Client) -> None:
        instances = [
            sample(f"cafe-0-0-{number}", hw_id=f"GPU-1:mig-{number}", hw_parent="GPU-1") for number in range(3)
        ]
        store_rows(store, samples=[sample("cafe-0-0-9"), *instances])
        assert get(client, "/api/v1/gpus")["total"] == 4
        children = get(client, "/api/v1/gpus", parent="GPU-1")
        assert [gpu["uuid"] for gpu in children["gpus"]] == ["GPU-1:mig-0", "GPU-1:mig-1", "GPU-1:mig-2"]
        assert get(client, "/api/v1/gpus/GPU-1:mig-1")["parent"] == "GPU-1"
        assert get(client, "/api/v1/gpus/GPU-1:mig-1/telemetry")["total"] == 1

    def test_that_is_not_known_is_not_found(self, client: httpx.Client) -> None:
        problem(client.get("/api/v1/gpus/GPU-9"), 404, names="GPU-9")
        problem(client.get("/api/v1/gpus/GPU-9/telemetry"), 404, names="GPU-9")
        problem(client.get("/api/v1/hosts/node-9/gpus"), 404, names="node-9")
        assert get(client, "/api/v1/gpus") == {"total": 0, "next_cursor": None, "gpus": []}


@pytest.fixture
def minute(store: Store) -> None:
    """A reading of utilisation each second of a minute, 0.00 to 0.59, two of them blank, and a code every 20 s."""
    readings = [
        sample(f"cafe-0-0-{second}", timestamp=f"2026-01-05T10:00:{second:02d}Z",
               value=None if second in {3, 4} else second / 100)
        for second in range(60)
    ]  # fmt: skip
    codes = [
        sample(f"cafe-0-1-{second}", timestamp=f"2026-01-05T10:00:{second:02d}.5Z", value=code,
               metric="hw.gpu.xid", source_metric="DCGM_FI_DEV_XID_ERRORS")
        for second, code in ((0, 0), (20, 79), (40, 31))
    ]  # fmt: skip
    store_rows(store, samples=readings[::2])
    store_rows(store, samples=[*codes, *readings[1::2]])


@pytest.mark.usefixtures("minute")
class TestTelemetry:
    PATH = "/api/v1/gpus/GPU-1/telemetry"

    def test_comes_in_the_order_of_time_and_page_by_page_none_is_lost(self, client: httpx.Client) -> None:
        whole = get(client, self.PATH)
        assert whole["total"] == 63
        times = [reading["timestamp"] for reading in whole["telemetry"]]
        assert times == sorted(times, key=lambda text: text.removesuffix("Z"))
        assert pages(client, self.PATH, "telemetry", limit=4) == whole["telemetry"]

    def test_names_are_opentelemetrys_or_the_sources(self, client: httpx.Client) -> None:
        for name in ("hw.gpu.xid", "DCGM_FI_DEV_XID_ERRORS"):
            found = get(client, self.PATH, metric=name)
            assert [reading["value"] for reading in found["telemetry"]] == [0, 79, 31]
        assert get(client, self.PATH, metric="hw.nothing")["total"] == 0

    def test_times_include_both_ends(self, client: httpx.Client) -> None:
        found = get(
            client, self.PATH, metric="hw.gpu.utilization",
            start_time="2026-01-05T10:00:10Z", end_time="2026-01-05T11:00:12+01:00",
        )  # fmt: skip
        assert [reading["timestamp"][-4:] for reading in found["telemetry"]] == [":10Z", ":11Z", ":12Z"]

    def test_a_step_is_one_value_of_its_readings(self, client: httpx.Client) -> None:
        expected = {
            "avg": (1.83 / 18, 0.295),
            "min": (0.0, 0.2),
            "max": (0.19, 0.39),
            "last": (0.19, 0.39),
            "sum": (1.83, 5.9),
            "count": (18, 20),
            "p50": (0.105, 0.295),
            "p99": (0.1883, 0.3881),
        }
        for agg, (first, second) in expected.items():
            asked = {"metric": "hw.gpu.utilization", "step": "20s", "agg": agg}
            steps = get(client, self.PATH, **asked)["telemetry"]
            assert [step["timestamp"][-4:] for step in steps] == [":00Z", ":20Z", ":40Z"]
            assert [step["samples"] for step in steps] == [20, 20, 20]
            assert [step["value"] for step in steps[:2]] == [pytest.approx(first), pytest.approx(second)], agg
        paged = pages(client, self.PATH, "telemetry", **asked, limit=1)
        assert [step["timestamp"] for step in paged] == [step["timestamp"] for step in steps]

    def test_a_code_has_no_mean(self, client: httpx.Client) -> None:
        every = get(client, self.PATH, step="1m")["telemetry"]
        assert [(step["source_metric"], step["value"]) for step in every] == [
            ("DCGM_FI_DEV_GPU_UTIL", pytest.approx(17.63 / 58)),
            ("DCGM_FI_DEV_XID_ERRORS", 31),
        ]
        problem(client.get(self.PATH, params={"metric": "hw.gpu.xid", "step": "1m", "agg": "avg"}), 422, names="agg")

    def test_what_can_not_be_meant_is_refused_by_its_name(self, client: httpx.Client) -> None:
        for query, names in (
            ({"start_time": "yesterday"}, "start_time"),
            ({"start_time": "1767607200"}, "start_time"),
            ({"end_time": "2026-01-05T10:00:00"}, "end_time"),
            ({"start_time": "2026-01-05T10:00:01Z", "end_time": "2026-01-05T10:00:00Z"}, "end_time"),
            ({"step": "0s"}, "step"),
            ({"step": "5 minutes"}, "step"),
            ({"step": "99999999999999999999d"}, "step"),
            ({"step": "99999999d"}, "step"),
            ({"agg": "avg"}, "agg"),
            ({"step": "1m", "agg": "mode"}, "agg"),
            ({"limit": "0"}, "limit"),
            ({"metrics": "hw.power"}, "metrics"),
            ({"cursor": "abc"}, "cursor"),
        ):
            problem(client.get(self.PATH, params=query), 422, names=names)

    def test_too_many_steps_are_refused(self, store: Store, client: httpx.Client) -> None:
        store_rows(store, samples=[sample("cafe-0-2-0", timestamp="2026-02-05T10:00:00Z")])
        problem(client.get(self.PATH, params={"step": "1s"}), 422, names="step")
        window = {"start_time": "2026-01-05T10:00:00Z", "end_time": "2026-01-05T10:10:00Z"}
        assert get(client, self.PATH, step="1s", **window)["total"] == 63


def test_hostile_names_and_cursors_find_nothing_and_break_nothing(store: Store, client: httpx.Client) -> None:
    store_rows(store, samples=[sample("cafe-0-0-0")])
    hostile = (
        "%00",
        "%27%20OR%201=1--",
        "%5C",
        "%5C%27",
        "%7Buuid:String%7D",
        "%FF%FE",
        "..%2F..%2Fetc",
        "%09%0A",
        "x" * 500,
    )
    for name in hostile:
        for path in (f"/api/v1/gpus/{name}", f"/api/v1/gpus/{name}/telemetry", f"/api/v1/hosts/{name}/gpus"):
            assert client.get(path).status_code == 404, path
        for path in (f"/api/v1/gpus?host={name}&model={name}", f"/api/v1/gpus/GPU-1/telemetry?metric={name}"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["total"]) == (200, 0), path
    for path in ("gpus/{}", "gpus/{}/telemetry", "hosts/{}/gpus", "gpus?host={}", "gpus/GPU-1/telemetry?metric={}"):
        assert client.get("/api/v1/" + path.format("x" * 5_000)).status_code == 422, path
    for last in ((2**63 - 1, "x", 2**63 - 1), (-(2**63), "\\'\0", -(2**63))):
        cursor = cursor_of("telemetry", *last)
        assert client.get("/api/v1/gpus/GPU-1/telemetry", params={"cursor": cursor}).status_code in (200, 422)


class TestReceipts:
    def test_count_samples_replays_and_dead_letters_once(self, store: Store, client: httpx.Client) -> None:
        store_rows(
            store,
            samples=[sample("cafe-0-0-0"), sample("cafe-0-0-1"), sample("cafe-0-7-0", origin="cafe-0-0-2")],
            dead_letters=[dead_letter("cafe-0-0-2", run_id="run-1"), dead_letter("cafe-0-0-3", run_id="run-1")],
            runs=[receipt("run-1", 5)],
        )
        run = get(client, "/runs/run-1")
        assert (run["stored"], run["dead_lettered"], run["in_flight"]) == (3, 1, 1)


def test_a_foreign_line_that_is_no_sample_is_named_and_the_others_stay(store: Store) -> None:
    good, bad = sample("cafe-0-0-0"), sample("cafe-0-0-1", gpu_index=2**40)
    assert [found.value for found in invalid_lines(rows(samples=[good + b"\n" + bad]))] == [bad]
    store_rows(store, samples=[good])
    assert count(store, "samples") == 1
