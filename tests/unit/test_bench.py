"""What the bench computes from a run, and that its entries are what it says."""

import re
from collections import Counter

import msgspec
import pytest

from benchmarks import loss, preparation
from benchmarks.bench import MEASURES, NAMED, chosen
from benchmarks.beside import PEERS, Peer
from benchmarks.comparison import RATIOS, SIDE_BY_SIDE, comparison
from benchmarks.entries import SIZE, frames, generate
from benchmarks.figures import Target, percentile
from benchmarks.growth import Step, verdict
from benchmarks.kafka_probe import Appended
from standardization.fields import MAPPING
from standardization.mappings import read_mappings
from standardization.standardize import Standardizer
from tests.integration.stack import ROOT, SERVICES
from tests.standardizing import standardized


def test_every_entry_has_the_stated_size_and_is_standardized_with_all_that_is_measured_of_it() -> None:
    entries = generate(2_000, seed=1)
    assert {len(entry) for entry in entries} == {SIZE}
    good, rejected = standardized(Standardizer(1 << 20, 1 << 20), entries)
    assert not rejected
    records = [msgspec.json.decode(line) for _, line in good]
    assert len({record["service_name"] for record in records}) == 7
    assert {record["outcome"] for record in records} == {"success", "failure"}
    assert all("duration_s" in record and "timestamp" in record for record in records)


def test_a_seed_makes_the_same_entries_again_and_another_seed_others() -> None:
    assert generate(100, seed=1) == generate(100, seed=1)
    assert generate(100, seed=1) != generate(100, seed=2)


def test_frames_hold_every_entry_once_in_order() -> None:
    entries = generate(25, seed=1)
    assert [frame.count(b"\n") + 1 for frame in frames(entries, 10)] == [10, 10, 5]
    assert b"\n".join(frames(entries, 10)).split(b"\n") == entries


def test_the_rate_leaves_out_what_came_with_the_first_append_for_that_took_its_time_before_it() -> None:
    assert Appended(Counter({1_000: 500, 1_500: 100, 2_000: 100})).rate == pytest.approx(200.0)
    assert Appended(Counter({1_000: 500})).rate is None


def test_speed_is_judged_by_the_median_and_a_limit_by_the_worst_run() -> None:
    assert Target(100, "at least").met([90, 100, 200])
    assert not Target(100, "at least").met([90, 99, 200])
    assert Target(300, "below").met([100, 100, 400])
    assert not Target(300, "below", "worst").met([100, 100, 300])


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([7.0], 99) == 7


def test_peers_are_measured_only_when_they_are_asked_for() -> None:
    assert not [each for each in MEASURES if isinstance(each, Peer)]
    assert [each.name for each in chosen(["peers"])] == [each.name for each in SIDE_BY_SIDE]
    assert [each.name for each in chosen(["quix", "lone", "quix"])] == ["quix", "lone"]
    assert {each.name for each in chosen(["stage-1", "peers"])} == {each.name for each in SIDE_BY_SIDE}


def test_a_peer_is_compared_with_one_record_a_message_by_medians() -> None:
    figures = {"rate_per_cpu_second": 50.0, "kafka_rate_per_cpu_second": 1.0, "start_seconds": 0.5, "records": 9.0}
    found = {
        "stage-1": [figures | {"rate": rate, "peak_mb": 100.0} for rate in (390.0, 400.0, 900.0)],
        "quix": [figures | {"rate": rate, "peak_mb": 50.0} for rate in (99.0, 100.0, 200.0)],
    }
    lines = comparison(found, 1_000).splitlines()
    (quix,) = [line for line in lines if line.startswith("| Quix Streams")]
    assert "| 100 | 99 to 200 | 50 |" in quix
    assert quix.endswith("| 4.00 times | 1.00 times |")
    judged = [line for line in lines if line.endswith((" pass |", " **fail** |"))]
    assert judged == ["| one record a message to Quix Streams exactly once, records/s | 4.00 | at least 4 | pass |"]
    found["quix"] = found["stage-1"]
    assert "| 1.00 | at least 4 | **fail** |" in comparison(found, 1_000)


def test_every_ratio_is_of_two_that_are_measured_together() -> None:
    names = {each.name for each in SIDE_BY_SIDE}
    assert all(ratio.ours in names and ratio.other in names for ratio in RATIOS)


@pytest.mark.parametrize("peer", preparation.IN_PYTHON)
def test_every_version_of_a_peers_environment_is_pinned(peer: str) -> None:
    lines = (preparation.PEERS / f"{peer}.txt").read_text().splitlines()
    assert lines
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]


def test_every_peer_has_its_program_and_its_environment() -> None:
    environments = {each.environment for each in PEERS if each.environment}
    assert environments == set(preparation.IN_PYTHON)
    assert all((preparation.PEERS / f"{each.module}.py").is_file() for each in PEERS if each.module)


def test_a_share_of_the_ceiling_is_taken_turn_by_turn_and_a_fifth_of_it_may_not_be_lost() -> None:
    def runs(*rates: float) -> list[dict[str, float | None]]:
        return [{"rate_per_cpu_second": rate} for rate in rates]

    found = {"ceiling": runs(400, 200, 300), "stage-1": runs(100, 50, 90)}  # the machine was half as fast once
    assert loss.shares(found) == {"stage-1": pytest.approx(0.25)}
    assert loss.verdict({"stage-1": 0.25}, {"stage-1": 0.30})[1]
    table, kept = loss.verdict({"stage-1": 0.23}, {"stage-1": 0.30})
    assert not kept
    assert "| stage-1 | 0.230 | 0.300 | 77%, at least 80% | **fail** |" in table


def test_every_stored_share_is_of_something_that_can_be_measured() -> None:
    assert set(loss.stored()) <= set(NAMED)


def test_growth_is_that_of_the_last_million_over_the_second_for_the_first_warms_up() -> None:
    def step(number: int, cost: float, memory: float) -> Step:
        own = dict.fromkeys(SERVICES, memory)
        return Step(number * 10**6, 50_000.0, {"ingestion": 1.0, "kafka": cost - 1}, own, 1.0, 1.0)

    kept = verdict([step(1, 40, 50), step(2, 20, 100), step(3, 21.9, 109)])
    assert [(round(growth, 3), good) for _, growth, _, good in kept] == [(0.095, True), *[(0.09, True)] * 3]
    lost = verdict([step(1, 40, 50), step(2, 20, 100), step(3, 22.1, 111)])
    assert [good for _, _, _, good in lost] == [False] * 4


def test_the_declared_mappings_of_the_bench_make_the_records_that_known_names_make() -> None:
    """So that the two are measured doing the same."""
    mappings = read_mappings({"mappings.yml": (ROOT / "benchmarks" / "mappings.yml").read_text()})
    entries = generate(1_000, seed=2)
    usual, _ = standardized(Standardizer(1 << 20, 1 << 20), entries)
    mapped, _ = standardized(Standardizer(1 << 20, 1 << 20, mappings=mappings), entries)
    for (_, one), (_, other) in zip(usual, mapped, strict=True):
        found = msgspec.json.decode(other)
        assert found["attributes"].pop(MAPPING)
        assert found == msgspec.json.decode(one) | {"attributes": found["attributes"]}
        assert found["attributes"] == msgspec.json.decode(one).get("attributes", {})
