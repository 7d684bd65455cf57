"""What `docker compose up -d --wait` promises, on a real engine: the facts, exactly once, no needless rights.

The tests go on from each other's stack, in this order; each also runs alone.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, TypeVar

import httpx
import pytest

from grafana import queries
from native.client import Client, StackError
from native.fleet import COLUMNS, Plan, rows_of
from native.settings import ROOT
from tests.compose.engine import ComposeStack, EngineError, docker, volumes_of
from tests.e2e.test_quick import FACTS

T = TypeVar("T")
START_SECONDS = 90.0
BATCH = 1_000  # entries of a push
PAUSE = 0.05  # seconds between two pushes: this is about kills, not about speed
INIT = ("/sbin/docker-init", "/usr/sbin/docker-init")


def eventually(look: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """What `look` finds, as soon as it finds something."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return found


def ready(client: Client) -> bool:
    """Whether the three services are."""
    try:
        return all(client.get(service, "/ready")["ready"] for service in ("ingestion", "standardization", "processing"))
    except StackError:
        return False


def query(http: httpx.Client, stack: ComposeStack, expression: str) -> list[dict[str, Any]]:
    answer = http.get(stack.url("prometheus") + "/api/v1/query", params={"query": expression}).raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def targets(http: httpx.Client, stack: ComposeStack) -> dict[str, list[str]]:
    """The health of each job's targets, once each has been scraped."""
    answer = http.get(stack.url("prometheus") + "/api/v1/targets").raise_for_status().json()
    jobs: dict[str, list[str]] = {}
    for target in answer["data"]["activeTargets"]:
        jobs.setdefault(target["labels"]["job"], []).append(target["health"])
    return jobs


# the start


def test_all_is_healthy_within_90_seconds(stack: ComposeStack) -> None:
    print(f"\nfrom nothing to all healthy: {stack.first_start:.1f} s")  # noqa: T201
    assert stack.first_start < START_SECONDS
    for name, container in stack.containers().items():
        state = container["State"]
        if "-topics-" in name:
            assert (state["Status"], state["ExitCode"]) == ("exited", 0), name
        else:
            assert state["Health"]["Status"] == "healthy", name
            assert container["RestartCount"] == 0, name


def test_one_curl_brings_the_72_facts_and_their_receipt(
    client: Client, http: httpx.Client, stack: ComposeStack
) -> None:
    before = client.summary()["by_source"]
    taken = http.get(stack.url("ingestion") + "/ingest/trigger").raise_for_status().json()
    receipt = client.wait_until_drained(taken["run_id"])
    assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (72, 72, 0)
    after = client.summary()["by_source"]
    for source, counts in FACTS.items():
        for status, entries in counts.items():
            assert after[source][status] == before.get(source, {}).get(status, 0) + entries, (source, status)


def test_prometheus_scrapes_everything_and_has_the_facts_to_the_digit(
    client: Client, http: httpx.Client, stack: ComposeStack
) -> None:
    configured = re.findall(r"job_name: (\S+)", (ROOT / "prometheus" / "prometheus.yml").read_text())
    eventually(lambda: targets(http, stack) == {job: ["up"] for job in configured}, f"every one of {configured} is up")
    stored = client.summary()["by_source"]

    def counted() -> bool:
        found = query(http, stack, "max by (source, status) (log_entries_by_source_total)")
        counts: dict[str, dict[str, int]] = {}
        for sample in found:
            labels = sample["metric"]
            counts.setdefault(labels["source"], {})[labels["status"]] = int(float(sample["value"][1]))
        return bool(counts == stored)

    eventually(counted, f"Prometheus counts {stored}")


def test_prometheus_has_loaded_every_rule(http: httpx.Client, stack: ComposeStack) -> None:
    def loaded() -> list[dict[str, Any]]:
        groups = http.get(stack.url("prometheus") + "/api/v1/rules").raise_for_status().json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] == "ok" for rule in rules) else []

    written = sum(
        len(re.findall(r"^ +(?:- )?(?:alert|record): ", path.read_text(), re.MULTILINE))
        for path in (ROOT / "prometheus" / "rules").glob("*.yml")
    )
    assert len(eventually(loaded, "every rule has been evaluated without an error")) == written


def test_what_prometheus_fires_reaches_the_alert_history_of_processing(client: Client) -> None:
    """The Watchdog, which always fires, goes all the way: Prometheus, Alertmanager, the webhook, the store."""

    eventually(lambda: client.get("processing", "/alerts")["watchdog"], "the Watchdog has arrived", 90)


# rights


def test_no_container_runs_as_root_or_with_more_rights_than_it_needs(stack: ComposeStack) -> None:
    for name, container in stack.containers().items():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), name
        assert host["Memory"] > 0, name
        assert host["LogConfig"]["Config"]["max-size"], name
        for bindings in (host["PortBindings"] or {}).values():
            assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}, name
        if container["State"]["Running"]:
            _, *processes = docker("top", container["Id"], "-eo", "uid,pid,args").splitlines()
            assert processes, name
            assert [line for line in processes if line.split()[0] == "0"] == [], name


def test_no_container_writes_outside_of_its_volumes(stack: ComposeStack) -> None:
    for name, container in stack.containers().items():
        mounts = container["Mounts"]
        for mount in mounts:
            if mount["Type"] == "bind":
                assert not mount["RW"], (name, mount["Destination"])
            elif mount["Type"] == "volume":
                assert mount["Name"].startswith(stack.project + "_"), f"{name} has an anonymous volume: {mount}"
        # where a mount has no place in the image, the engine makes one, as for its init: nothing else may be new
        places = [*(mount["Destination"] for mount in mounts), *(container["HostConfig"].get("Tmpfs") or {}), *INIT]
        expected = {place for each in places for place in (each, *map(str, PurePosixPath(each).parents))}
        changed = [line.split(maxsplit=1)[1] for line in docker("diff", container["Id"]).splitlines()]
        assert [path for path in changed if path not in expected] == [], name


# load, copies and kills


class Pushing:
    """Pushes of numbered entries, one after another, each repeated with its key until it is taken."""

    def __init__(self, stack: ComposeStack, source: str) -> None:
        self.source = source
        self.runs: list[str] = []
        self._url = stack.url("ingestion") + "/ingest"
        self._stopping = threading.Event()

    def push(self, http: httpx.Client) -> None:
        """One push of BATCH entries; returns when it is taken."""
        number = len(self.runs)
        entries = (
            {"source": self.source, "api": f"operation-{i % 40}", "status": "ok", "duration_seconds": 0.1, "n": i}
            for i in range(number * BATCH, (number + 1) * BATCH)
        )
        body = b"\n".join(json.dumps(entry).encode() for entry in entries)
        headers = {"content-type": "application/x-ndjson", "idempotency-key": f"{self.source}-{number}"}

        def taken() -> str | None:
            try:
                answer = http.post(self._url, content=body, headers=headers)
            except httpx.TransportError:
                return None
            return str(answer.json()["run_id"]) if answer.is_success else None

        self.runs.append(eventually(taken, f"push {number} is taken", 120))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Push one after another meanwhile."""

        def forever() -> None:
            with httpx.Client(timeout=30.0) as http:
                while not self._stopping.wait(PAUSE):
                    self.push(http)

        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(forever)
            try:
                yield
            finally:
                self._stopping.set()
                pushing.result()

    def settle(self, client: Client) -> None:
        """Every entry of every push is stored once, and nothing else of this source is."""
        eventually(lambda: ready(client), "all services are ready", 120)
        for run in self.runs:
            receipt = client.wait_until_drained(run)
            assert (receipt["accepted"], receipt["stored"], receipt["dead_lettered"]) == (BATCH, BATCH, 0)
        total = client.get("processing", "/analytics/summary", source=self.source)["total"]
        assert total == len(self.runs) * BATCH
        print(f"\n{self.source}: {len(self.runs)} pushes, {total} entries, each stored once")  # noqa: T201


@pytest.fixture
def pushing(stack: ComposeStack, request: pytest.FixtureRequest) -> Pushing:
    return Pushing(stack, f"{re.sub(r'[^a-z]+', '-', request.node.name)[5:29]}-{uuid.uuid4().hex[:4]}")


def _pushed(pushing: Pushing, more: int = 3) -> None:
    """Wait until so many more pushes have been taken."""
    aim = len(pushing.runs) + more
    eventually(lambda: len(pushing.runs) >= aim, f"{more} more pushes are taken", 120)


def test_copies_of_standardization_come_and_go_under_load(
    client: Client, http: httpx.Client, stack: ComposeStack, pushing: Pushing
) -> None:
    with pushing.going_on():
        _pushed(pushing)
        stack.scale(3)
        eventually(lambda: targets(http, stack)["standardization"] == ["up"] * 3, "Prometheus scrapes three copies")
        # partitions are assigned within a heartbeat or two: then every copy has its part of the work
        working = 'sum by (instance) (rate(sluice_records_in_total{job="standardization"}[15s])) > 0'
        eventually(lambda: len(query(http, stack, working)) == 3, "all three copies work", 90)
        _pushed(pushing)
        stack.scale(1)
        eventually(lambda: targets(http, stack)["standardization"] == ["up"], "Prometheus forgets two of them")
        _pushed(pushing)
    pushing.settle(client)
    assert client.get("standardization", "/ready")["ready"]


def test_a_second_processing_is_refused_and_says_why(stack: ComposeStack) -> None:
    with pytest.raises(EngineError, match=r"/data/processing is in use by another process"):
        stack.compose("run", "--rm", "--no-deps", "processing")
    with pytest.raises(EngineError, match="port is already allocated"):
        stack.up("--no-recreate", "--scale", "processing=2")
    stack.up("--no-recreate", "--scale", "processing=1")


@pytest.mark.parametrize("service", ["ingestion", "standardization", "processing"])
def test_a_service_that_crashes_is_back_by_itself_with_nothing_lost_or_doubled(
    client: Client, stack: ComposeStack, pushing: Pushing, service: str
) -> None:
    with pushing.going_on():
        _pushed(pushing)
        stack.crash(service)
        _pushed(pushing)
    pushing.settle(client)


@pytest.mark.parametrize("service", ["standardization", "processing", "kafka"])
def test_a_container_killed_under_an_ingest_loses_and_doubles_nothing(
    client: Client, stack: ComposeStack, pushing: Pushing, service: str
) -> None:
    with pushing.going_on():
        _pushed(pushing)
        stack.kill(service)
        time.sleep(1)  # the others shall notice, not be spared
        stack.compose("start", service)
        _pushed(pushing)
    pushing.settle(client)


# what is shown


def test_every_query_of_every_panel_and_rule_returns_data(
    client: Client, http: httpx.Client, stack: ComposeStack
) -> None:
    client.wait_until_drained(client.trigger()["run_id"])
    broken = {"source": "shop", "duration_seconds": "soon"}
    http.post(stack.url("ingestion") + "/ingest", json=broken).raise_for_status()  # a fault: one dead letter
    fleet = [dict(zip(COLUMNS, row, strict=True)) for row in rows_of(Plan(hosts=2, gpus=5, xids=1.0))]
    http.post(stack.url("ingestion") + "/ingest", json=fleet).raise_for_status()
    chosen = {"source": "EasyProjects", "host": ".*", "gpu": ".*"}
    asked = [*queries.of_dashboards(chosen), *queries.of_rules()]
    missing: list[str] = []

    def answered() -> bool:
        missing[:] = queries.unanswered(stack.url("prometheus"), asked)
        return not missing

    try:
        eventually(answered, "every query is answered", 180)  # what looks back over days is recorded once a minute
    except AssertionError:
        pytest.fail("no data for:\n" + "\n".join(missing))


# the end


def test_down_and_up_keep_everything(client: Client, http: httpx.Client, stack: ComposeStack) -> None:
    client.wait_until_drained(client.trigger()["run_id"])
    before = client.summary()
    (recent,) = client.get("processing", "/analytics/recent", limit=1)["records"]
    began = time.time()
    stack.down()
    stopped = time.time() - began
    assert stack.containers() == {}
    print(f"\nall stopped in {stopped:.1f} s, healthy again in {stack.up():.1f} s")  # noqa: T201
    after = client.summary()
    assert (after["total"], after["by_source"]) == (before["total"], before["by_source"])
    raw = http.get(stack.url("processing") + f"/records/{recent['record_id']}/raw")
    assert raw.status_code == httpx.codes.OK
    older = f'count_over_time(up{{job="ingestion"}}[1h] offset {int(time.time() - began) + 1}s)'
    eventually(lambda: query(http, stack, older), "Prometheus has samples of before")
    receipt = client.wait_until_drained(client.trigger()["run_id"])
    assert (receipt["accepted"], receipt["stored"]) == (72, 72)
    assert client.summary()["total"] == before["total"] + 72


def test_down_with_volumes_leaves_nothing_behind(stack: ComposeStack) -> None:
    assert volumes_of(stack.project)
    stack.down("--volumes")
    assert volumes_of(stack.project) == []
    assert stack.containers() == {}
    assert docker("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project}") == ""
