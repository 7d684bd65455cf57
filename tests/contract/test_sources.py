"""The metrics by source say what the store holds: exactly, batch by batch, over restarts, with bounded labels."""

from dataclasses import replace
from typing import Any

import pytest

from processing.detect import AnomalyReason
from processing.sources import RECENT_S, SLOWEST, Sources
from processing.store import Store
from tests.contract.conftest import Open
from tests.contract.samples import anomaly, batch, record, rows, store_rows

Labels = dict[str, str]
_PAST_BIRTH_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def shown(sources: Sources) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in sources.collect()
        for sample in family.samples
    }


def value(sources: Sources, name: str, /, **labels: str) -> float | None:
    return shown(sources).get((name, frozenset(labels.items())))


def followed(store: Store, limit: int = 200) -> tuple[Sources, Clock]:
    """Sources that have caught up with the store."""
    clock = Clock()
    sources = Sources(store, limit, clock)
    while sources.look():
        pass
    return sources, clock


def entries(source: str, number: int, **fields: Any) -> list[bytes]:
    return [record(f"cafe-0-{source}-{n}", service_name=source, **fields) for n in range(number)]


def test_what_is_stored_before_the_start_is_shown_at_once_and_to_the_digit(store: Store) -> None:
    store_rows(
        store,
        records=[
            *entries("Efficy", 3, duration_s=1.5, memory_bytes=2**20, efficiency=80.0),
            *entries("Efficy", 1, outcome="failure", duration_s=40.0, efficiency=None),
            *entries("zoho", 1, outcome="timeout"),
        ],
        anomalies=[anomaly("cafe-0-Efficy-0"), anomaly("x", reason="somebody else's")],
    )
    sources, _ = followed(store)
    assert value(sources, "sluice_source_entries_total", source="Efficy", status="SUCCESS") == 3
    assert value(sources, "sluice_source_entries_total", source="Efficy", status="FAILED") == 1
    assert value(sources, "sluice_source_entries_total", source="zoho", status="TIMEOUT") == 1
    assert value(sources, "sluice_source_entries_total", source="zoho", status="SUCCESS") == 0
    assert value(sources, "sluice_source_anomalies_total", source="Efficy", reason="failure") == 1
    assert value(sources, "sluice_source_anomalies_total", source="Efficy", reason="other") == 1
    assert {
        reason: value(sources, "sluice_source_anomalies_total", source="zoho", reason=reason)
        for reason in AnomalyReason
    } == dict.fromkeys(AnomalyReason, 0)
    buckets = {
        le: value(sources, "sluice_source_duration_seconds_bucket", source="Efficy", le=le)
        for le in ("1.0", "2.0", "30.0", "60.0", "+Inf")
    }
    assert buckets == {"1.0": 0, "2.0": 3, "30.0": 3, "60.0": 4, "+Inf": 4}
    assert value(sources, "sluice_source_duration_seconds_sum", source="Efficy") == 44.5
    assert value(sources, "sluice_source_memory_bytes_bucket", source="Efficy", le="1048576.0") == 3
    assert value(sources, "sluice_source_efficiency_ratio_bucket", source="Efficy", le="0.8") == 3
    assert value(sources, "sluice_source_efficiency_ratio_bucket", source="Efficy", le="0.7") == 0
    assert value(sources, "sluice_source_duration_seconds_count", source="zoho") is None


def test_a_value_on_a_bound_belongs_below_it_and_one_above_all_bounds_to_infinity(store: Store) -> None:
    store_rows(store, records=[*entries("a", 1, duration_s=2.0), *entries("a", 1, duration_s=1e9)])
    sources, _ = followed(store)
    assert value(sources, "sluice_source_duration_seconds_bucket", source="a", le="1.0") == 0
    assert value(sources, "sluice_source_duration_seconds_bucket", source="a", le="2.0") == 1
    assert value(sources, "sluice_source_duration_seconds_bucket", source="a", le="21600.0") == 1
    assert value(sources, "sluice_source_duration_seconds_bucket", source="a", le="+Inf") == 2


def test_a_series_that_is_new_is_0_first_so_that_prometheus_sees_it_grow(store: Store) -> None:
    sources, clock = followed(store)
    store_rows(store, records=entries("new", 5, duration_s=1.0))
    sources.look()
    assert value(sources, "sluice_source_entries_total", source="new", status="SUCCESS") == 0
    assert value(sources, "sluice_source_duration_seconds_count", source="new") == 0
    clock.now += 5.5  # a whole scrape interval later, another reader in between or not
    assert value(sources, "sluice_source_entries_total", source="new", status="SUCCESS") == 0
    clock.now += 1.0
    assert value(sources, "sluice_source_entries_total", source="new", status="SUCCESS") == 5
    assert value(sources, "sluice_source_duration_seconds_count", source="new") == 5


def test_each_batch_is_counted_once_and_only_when_it_is_closed(store: Store) -> None:
    sources, clock = followed(store)
    shown(sources)
    for number in range(1, 4):
        new = batch(number)
        store.open_batch(new)
        store.insert(new, rows(records=entries("a", 10)))
        assert not sources.look()
        store.close_batch(new)
        sources.look()
        sources.look()
        shown(sources)
        clock.now += _PAST_BIRTH_S
        assert value(sources, "sluice_source_entries_total", source="a", status="SUCCESS") == 10 * number


def test_nothing_is_shown_until_all_that_was_there_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processing.sources._PIECE", 2)
    for _ in range(5):
        store_rows(store, records=entries("a", 1))
    sources = Sources(store, 200, Clock())
    looks = 0
    while sources.look():
        looks += 1
        assert shown(sources) == {}
    assert looks == 2
    assert value(sources, "sluice_source_entries_total", source="a", status="SUCCESS") == 5


def test_figures_go_on_where_they_were_after_a_restart(opened: Open) -> None:
    store = opened()
    store_rows(store, records=[*entries("a", 3, duration_s=1.0), *entries("b", 2)], anomalies=[anomaly("x")])
    store_rows(store, records=entries("a", 4, duration_s=3.0))
    before, clock = followed(store)
    shown(before)
    clock.now += _PAST_BIRTH_S
    figures = shown(before)
    after, _ = followed(opened())
    assert figures
    assert shown(after) == figures


def test_sources_beyond_the_limit_share_a_label_and_whoever_has_one_keeps_it(opened: Open) -> None:
    store = opened()
    sources, clock = followed(store, limit=2)
    for number, source in enumerate(("zeta", "alpha", "beta", "gamma", "zeta")):
        store_rows(store, records=entries(source, number + 1, event_name=source))
    sources.look()
    shown(sources)
    clock.now += _PAST_BIRTH_S
    expected = {"zeta": 1 + 5, "alpha": 2, "other": 3 + 4}
    for found in (sources, followed(opened(), limit=2)[0]):
        assert {
            dict(labels)["source"]: number
            for (name, labels), number in shown(found).items()
            if name == "sluice_source_entries_total" and dict(labels)["status"] == "SUCCESS"
        } == expected


def test_the_slowest_operations_are_exactly_those_with_the_longest_entries(store: Store) -> None:
    sources, _ = followed(store)
    longest: dict[str, float] = {}
    for number in range(60):
        operation, seconds = f"op{number % 23}", float((number * 37) % 101)
        longest[operation] = max(longest.get(operation, 0.0), seconds)
        store_rows(store, records=entries("a", 1, event_name=operation, duration_s=seconds))
        if number % 7 == 0:
            sources.look()
    sources.look()
    expected = dict(sorted(longest.items(), key=lambda item: item[1], reverse=True)[:SLOWEST])
    found = {
        dict(labels)["operation"]: seconds
        for (name, labels), seconds in shown(sources).items()
        if name == "sluice_operation_longest_seconds"
    }
    assert found == expected


def test_the_recent_slowest_operations_forget_what_was_stored_more_than_an_hour_ago(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_at = batch(1).stored_at_ns / 1e9
    monkeypatch.setattr("processing.sources.time.time", lambda: stored_at + RECENT_S / 2)
    store_rows(store, records=entries("a", 1, event_name="old", duration_s=9.0))
    sources, _ = followed(store)
    recent: Labels = {"source": "a", "operation": "old"}
    assert value(sources, "sluice_operation_longest_recent_seconds", **recent) == 9.0
    monkeypatch.setattr("processing.sources.time.time", lambda: stored_at + RECENT_S + 301)
    assert value(sources, "sluice_operation_longest_recent_seconds", **recent) is None
    assert value(sources, "sluice_operation_longest_seconds", **recent) == 9.0
    new = replace(batch(2), stored_at_ns=int((stored_at + RECENT_S) * 1e9))
    store.open_batch(new)
    store.insert(new, rows(records=entries("a", 1, event_name="new", duration_s=2.0)))
    store.close_batch(new)
    sources.look()
    assert value(sources, "sluice_operation_longest_recent_seconds", source="a", operation="new") == 2.0
