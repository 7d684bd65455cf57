"""The example data says what README and the issue promise, once it is standardized."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from shared.records import Record, status_of
from standardization.standardize import Standardizer
from tests.standardizing import standardized

LOGS = Path(__file__).parents[2] / "logs.json"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    lines = [json.dumps(entry).encode() for entry in json.loads(LOGS.read_text())]
    good, rejected = standardized(Standardizer(16 << 20, 2 << 20), lines, content_type="application/json")
    assert not rejected
    return [msgspec.json.decode(line, type=Record) for _, line in good]


def test_it_holds_72_entries_of_six_systems_of_which_one_failed(records: list[Record]) -> None:
    assert Counter((record.service_name, status_of(record.outcome)) for record in records) == {
        ("sharepoint_graph", "SUCCESS"): 31,
        ("sharepoint_graph", "FAILED"): 1,
        ("Efficy", "SUCCESS"): 16,
        ("zohobooks", "SUCCESS"): 9,
        ("EasyProjects", "SUCCESS"): 8,
        ("PowerBI", "SUCCESS"): 6,
        ("zohoprojects", "SUCCESS"): 1,
    }


def test_the_failed_one_is_event_facture_application(records: list[Record]) -> None:
    assert [record.event_name for record in records if record.outcome == "failure"] == ["EventFactureApplication"]


def test_durations_reach_from_800_ms_to_the_787_s_of_timelogs(records: list[Record]) -> None:
    by_duration = sorted(records, key=lambda record: record.duration_s or 0)
    assert all(record.duration_s is not None for record in records)
    assert by_duration[0].duration_s == 0.8
    assert (by_duration[-1].service_name, by_duration[-1].event_name) == ("EasyProjects", "Timelogs")
    assert by_duration[-1].duration_s == 787.0


def test_only_timelogs_is_longer_than_five_minutes(records: list[Record]) -> None:
    assert [record.event_name for record in records if (record.duration_s or 0) > 300] == ["Timelogs"]


def test_memory_reaches_from_0_bytes_to_177_mb(records: list[Record]) -> None:
    memory = [record.memory_bytes for record in records if record.memory_bytes is not None]
    assert (len(memory), min(memory), max(memory)) == (72, 0, 177_000_000)


def test_every_entry_names_its_operation_and_a_time_of_that_morning(records: list[Record]) -> None:
    assert all(record.event_name != "unknown" for record in records)
    assert all("2026-03-17T05:00:00Z" <= record.timestamp <= "2026-03-17T10:00:00Z" for record in records)


def test_some_entries_report_rows_and_some_bytes(records: list[Record]) -> None:
    assert sum(record.rows is not None for record in records) > 50
    assert sum(record.transfer_bytes is not None for record in records) == 9


def test_every_system_has_an_export_style_of_its_own() -> None:
    entries = json.loads(LOGS.read_text())
    first_keys = Counter(next(iter(entry)) for entry in entries)
    assert sorted(first_keys.values()) == [1, 6, 8, 9, 16, 32]
