"""What the store promises, on both engines."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from processing.store import Range, RowRejectedError, Store, invalid_lines, open_store, without
from processing.windows import quantile
from shared.config import Settings
from shared.errors import StoreError
from tests.contract.conftest import Open
from tests.contract.samples import (
    anomaly,
    batch,
    count,
    dead_letter,
    receipt,
    record,
    rows,
    store_rows,
    window,
)

MONTHS = ("2025-11-30T23:59:59.999Z", "2025-12-31T12:00:00Z", "2026-01-05T10:00:00Z")


def test_a_new_store_has_no_batch_and_no_positions(store: Store) -> None:
    assert store.last_batch() is None
    assert store.positions() == {}


def test_the_ledger_survives_reopening_with_the_batch_and_every_position(opened: Open) -> None:
    store = opened()
    first = batch(1, Range("aaa", "processed-metrics", 0, 0, 9), Range("aaa", "processed-metrics", 3, 5, 5))
    second = batch(2, Range("aaa", "processed-metrics", 0, 10, 19), Range("bbb", "dead-letters", 0, 0, 0))
    store.open_batch(first)
    store.close_batch(first)
    store.open_batch(second)

    store = opened()
    assert store.last_batch() == second
    assert store.positions() == {("aaa", 0): 20, ("aaa", 3): 6, ("bbb", 0): 1}
    store.close_batch(second)

    store = opened()
    assert store.last_batch() == replace(second, closed=True)
    assert store.positions() == {("aaa", 0): 20, ("aaa", 3): 6, ("bbb", 0): 1}


def test_a_topic_made_anew_has_positions_of_its_own(store: Store) -> None:
    for number, topic_id in enumerate(("old", "new"), start=1):
        entered = batch(number, Range(topic_id, "processed-metrics", 0, 0, 4))
        store.open_batch(entered)
        store.close_batch(entered)
    assert store.positions() == {("old", 0): 5, ("new", 0): 5}


def test_only_the_newest_ledger_row_is_kept_in_the_end(store: Store) -> None:
    for number in range(1, 6):
        entered = batch(number, Range("aaa", "processed-metrics", 0, number, number))
        store.open_batch(entered)
        store.close_batch(entered)
    (row,) = store.query("SELECT count() AS n, max(number) AS newest FROM ledger FINAL")
    assert row == {"n": 1, "newest": 5}


def test_a_batch_that_was_entered_though_its_answer_was_lost_is_known_after_a_reload(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = batch(1, Range("aaa", "processed-metrics", 0, 0, 9))
    insert = store._engine.insert

    def insert_and_lose_the_answer(*arguments: Any) -> None:
        insert(*arguments)
        raise StoreError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(store._engine, "insert", insert_and_lose_the_answer)
        with pytest.raises(StoreError, match="the answer was lost"):
            store.open_batch(entered)
    store.reload()
    assert store.last_batch() == entered
    assert store.positions() == {("aaa", 0): 10}
    with pytest.raises(StoreError, match="is not the open one"):
        store.open_batch(replace(entered, token="another"))


def test_a_batch_that_never_reached_the_ledger_is_not_there_after_a_reload(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise StoreError("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(store._engine, "insert", refuse)
        with pytest.raises(StoreError, match="no connection"):
            store.open_batch(batch(1))
    store.reload()
    assert store.last_batch() is None
    store.open_batch(replace(batch(1), token="another"))


def test_a_batch_out_of_turn_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="the next is 1"):
        store.open_batch(batch(2))
    store.open_batch(batch(1))
    store.open_batch(batch(1))  # the open one, again
    with pytest.raises(StoreError, match="is not the open one"):
        store.open_batch(replace(batch(1), token="another"))
    with pytest.raises(StoreError, match="is not the open one"):
        store.open_batch(batch(2))
    with pytest.raises(StoreError, match="is not the open one"):
        store.close_batch(batch(2))


def test_each_table_gives_back_what_its_lines_held(store: Store) -> None:
    stored = store_rows(
        store,
        records=[
            record(
                "cafe-0-1-0",
                timestamp="2026-01-05T10:00:00.123456789Z",
                run_id="r",
                origin="cafe-0-0-0",
                severity_number=17,
                severity_text="ERROR",
                body='a "quoted" \n line, \\ and é',
                duration_s=1.25,
                memory_bytes=2**62 + 1,
                rows=3,
                transfer_bytes=4,
                rows_per_s=2.4,
                bytes_per_s=3.2,
                anomalies=["failure", "long_duration"],
                trace_id="0" * 32,
                span_id="1" * 16,
                resource={"host": "a"},
                attributes={"n": 1, "x": None, "t": True},
                truncated_fields=["body"],
                original_bytes=9,
            )
        ],
        anomalies=[anomaly("cafe-0-1-0", value=787.0, expected=10.5, limit=300.0, unit="s")],
        dead_letters=[dead_letter("cafe-0-2-0", run_id="r", offset=2**40)],
        runs=[receipt("r", 2, file="logs.json")],
    )
    (row,) = store.query("SELECT * FROM records")
    assert row == {
        "seq": stored.number * 2**24,
        "record_id": "cafe-0-1-0",
        "run_id": "r",
        "origin": "cafe-0-0-0",
        "timestamp": "2026-01-05T10:00:00.123456789Z",
        "observed_timestamp": "2026-01-05T10:00:01.500000000Z",
        "stored_at": "2026-01-05T08:00:01.000000000Z",
        "service_name": "Efficy",
        "event_name": "Contacts",
        "outcome": "success",
        "severity_number": 17,
        "severity_text": "ERROR",
        "body": 'a "quoted" \n line, \\ and é',
        "duration_s": 1.25,
        "memory_bytes": 2**62 + 1,
        "rows": 3,
        "transfer_bytes": 4,
        "efficiency": 50.0,
        "rows_per_s": 2.4,
        "bytes_per_s": 3.2,
        "anomalies": ["failure", "long_duration"],
        "trace_id": "0" * 32,
        "span_id": "1" * 16,
        "resource": '{"host":"a"}',
        "attributes": '{"n":1,"x":null,"t":true}',
        "truncated_fields": ["body"],
        "original_bytes": 9,
        "schema": 1,
    }
    (row,) = store.query("SELECT value, expected, limit, unit, detail FROM anomalies")
    assert row == {"value": 787.0, "expected": 10.5, "limit": 300.0, "unit": "s", "detail": "the operation failed"}
    (row,) = store.query("SELECT offset, dead_offset, run_id, origin, bytes FROM dead_letters")
    assert row == {"offset": 2**40, "dead_offset": 3, "run_id": "r", "origin": "", "bytes": 12}
    (row,) = store.query("SELECT run_id, entries, file, source FROM runs")
    assert row == {"run_id": "r", "entries": 2, "file": "logs.json", "source": ""}


def test_fields_that_a_line_leaves_out_take_the_record_s_defaults(store: Store) -> None:
    store_rows(store, records=[record("cafe-0-1-0")])
    (row,) = store.query("SELECT severity_number, severity_text, schema, duration_s, body, attributes FROM records")
    assert row == {
        "severity_number": 9,
        "severity_text": "INFO",
        "schema": 1,
        "duration_s": None,
        "body": "",
        "attributes": "",
    }


def test_rows_keep_the_order_in_which_they_were_given(store: Store) -> None:
    store_rows(store, records=[record("a") + b"\n" + record("b"), record("c")])
    store_rows(store, records=[record("d")])
    assert [row["record_id"] for row in store.query("SELECT record_id FROM records ORDER BY seq")] == list("abcd")


def test_window_deltas_add_up_to_the_window_of_all(store: Store) -> None:
    measured = {"duration_count": 2, "duration_sum": 3.0, "duration_min": 1.0, "duration_max": 2.0}
    one = window("2026-01-05T10:00:00Z", **measured, duration_keys=[0, 35], duration_counts=[1, 1])
    two = window("2026-01-05T10:00:00Z", total=3, success=2, other=1)
    more = {"duration_count": 1, "duration_sum": 8.0, "duration_min": 8.0, "duration_max": 8.0}
    store_rows(store, windows=[one, two])
    store_rows(store, windows=[window("2026-01-05T10:00:00Z", **more, duration_keys=[104], duration_counts=[1])])
    (row,) = store.query(
        "SELECT sum(total) AS total, sum(success) AS success, sum(duration_sum) AS seconds, "
        "min(duration_min) AS least, max(duration_max) AS most, sumMap(duration_sketch) AS sketch "
        "FROM windows GROUP BY minute"
    )
    assert row["sketch"] == [[0, 35, 104], [1, 1, 1]]
    assert (row["total"], row["success"], row["seconds"], row["least"], row["most"]) == (5, 4, 11.0, 1.0, 8.0)
    median = quantile(row["sketch"][0], row["sketch"][1], 0.5)
    assert median is not None
    assert math.isclose(median, 2.0, rel_tol=0.011)


def test_a_repeated_batch_changes_nothing(opened: Open) -> None:
    store = opened()
    whole = rows(
        records=[record(f"r{n}", observed_timestamp=MONTHS[n % 3]) for n in range(30)],
        windows=[window("2026-01-05T10:00:00Z"), window("2026-01-05T10:01:00Z")],
        anomalies=[anomaly("r1")],
        dead_letters=[dead_letter("r31")],
        runs=[receipt("run", 31)],
    )
    entered = batch(1)
    store.open_batch(entered)
    store.insert(entered, whole)
    store.insert(entered, whole)
    store = opened()
    store.insert(entered, whole)
    store.close_batch(entered)
    assert [count(store, name) for name in ("records", "anomalies", "dead_letters", "runs")] == [30, 1, 1, 1]
    assert store.query("SELECT sum(total) AS n FROM windows") == [{"n": 2}]


def test_rows_that_the_engine_only_believes_to_have_are_put_in_anew(opened: Open) -> None:
    """A mutation that deletes rows leaves what a kill between a block's token and its rows leaves: the token alone."""
    store = opened()
    whole = rows(
        records=[record(f"r{n}", observed_timestamp=MONTHS[n % 3]) for n in range(30)],
        windows=[window("2026-01-05T10:00:00Z")],
        anomalies=[anomaly("r1")],
        runs=[receipt("run", 31)],
    )
    entered = batch(1)
    store.open_batch(entered)
    store.insert(entered, whole)
    before = store.query("SELECT record_id, seq FROM records ORDER BY seq")
    for table, lost in (("records", "record_id IN ('r1', 'r4', 'r7')"), ("anomalies", "1"), ("runs", "1")):
        store._engine.execute(f"ALTER TABLE {table} DELETE WHERE {lost} SETTINGS mutations_sync = 2")
    store.insert(entered, whole)
    assert count(store, "records") == 27, "while nothing says that there was a crash, the token is believed"

    store = opened()
    again = store.last_batch()
    assert again is not None
    store.insert(again, whole)
    store.insert(again, whole)
    store.close_batch(again)
    assert store.query("SELECT record_id, seq FROM records ORDER BY seq") == before
    assert [count(store, name) for name in ("anomalies", "runs")] == [1, 1]
    assert store.query("SELECT sum(total) AS n FROM windows") == [{"n": 1}]


@pytest.mark.parametrize("month", ["202511", "202512", "202601"])
def test_a_batch_that_a_crash_left_in_some_partitions_is_completed(store: Store, month: str) -> None:
    """Dropping a partition, and its tokens with it, leaves what a crash between two partitions' blocks leaves."""
    whole = rows(records=[record(f"r{n}", observed_timestamp=MONTHS[n % 3]) for n in range(30)])
    entered = batch(1)
    store.open_batch(entered)
    store.insert(entered, whole)
    store._engine.execute(f"ALTER TABLE records DROP PARTITION {month}")
    assert count(store, "records") == 20
    store.insert(entered, whole)
    assert store.query("SELECT count() AS n, uniqExact(seq) AS seqs FROM records") == [{"n": 30, "seqs": 30}]


def test_equal_rows_of_different_batches_are_all_kept(store: Store) -> None:
    for _ in range(2):
        store_rows(store, records=[record("same")])
    assert count(store, "records") == 2


def test_counts_beside_the_rows_stay_exact_through_repeats_and_merges(store: Store) -> None:
    for number in range(1, 6):
        entered = batch(number)
        lines = [record(f"{number}-{n}", outcome="failure" if n == 0 else "success") for n in range(10)]
        store.open_batch(entered)
        for _ in range(2):
            store.insert(entered, rows(records=lines))
        store.close_batch(entered)
    counted = "SELECT outcome, count() AS n FROM records GROUP BY service_name, outcome ORDER BY outcome"
    expected = [{"outcome": "failure", "n": 5}, {"outcome": "success", "n": 45}]
    assert store.query(counted + " SETTINGS force_optimize_projection = 1") == expected
    store._engine.execute("OPTIMIZE TABLE records FINAL")
    assert store.query(counted + " SETTINGS force_optimize_projection = 1") == expected


def test_a_line_that_is_no_row_is_named_and_the_rest_of_its_batch_can_be_stored(store: Store) -> None:
    broken = rows(records=[record("a") + b"\n" + b'{"record_id":"b"', record("c")], runs=[receipt("run", 3)])
    entered = batch(1)
    store.open_batch(entered)
    with pytest.raises(RowRejectedError) as rejected:
        store.insert(entered, broken)
    assert rejected.value.table == "records"
    assert count(store, "records") == 0
    (invalid,) = invalid_lines(broken)
    assert (invalid.table, invalid.element, invalid.line, invalid.value) == ("records", 0, 1, b'{"record_id":"b"')
    store.insert(entered, without(broken, [invalid]))
    store.close_batch(entered)
    assert [row["record_id"] for row in store.query("SELECT record_id FROM records ORDER BY seq")] == ["a", "c"]
    assert count(store, "runs") == 1


def test_a_batch_of_which_nothing_is_left_is_written_as_an_empty_one(store: Store) -> None:
    broken = rows(records=[b"a", b"b\nc"])
    entered = batch(1)
    store.open_batch(entered)
    store.insert(entered, without(broken, invalid_lines(broken)))
    store.close_batch(entered)
    assert count(store, "records") == 0


def test_parameters_are_values_and_never_sql(store: Store) -> None:
    hostile = "x' OR 1=1 --\\ \n {name:String}"
    store_rows(store, records=[record("a", service_name=hostile), record("b")])
    found = store.query("SELECT record_id FROM records WHERE service_name = {name:String}", {"name": hostile})
    assert found == [{"record_id": "a"}]
    found = store.query("SELECT record_id FROM records WHERE record_id IN {ids:Array(String)}", {"ids": ["b", hostile]})
    assert found == [{"record_id": "b"}]


def test_a_query_that_fails_raises_a_store_error_and_the_store_goes_on(store: Store) -> None:
    with pytest.raises(StoreError, match="no_such_column"):
        store.query("SELECT no_such_column FROM records")
    store.ping()


def test_nan_and_infinity_are_answered_as_null(store: Store) -> None:
    assert store.query("SELECT nan AS a, inf AS b, -inf AS c") == [{"a": None, "b": None, "c": None}]


def test_text_that_is_not_utf8_is_shown_with_replacements(store: Store) -> None:
    assert store.query("SELECT unhex('61ff62') AS a") == [{"a": "a\ufffdb"}]


def test_threads_may_query_while_a_batch_is_written(store: Store) -> None:
    seen: list[int] = []

    def ask() -> None:
        seen.extend(count(store, "records") for _ in range(20))

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask) for _ in range(6)]
        for number in range(10):
            store_rows(store, records=[record(f"{number}-{n}") for n in range(100)])
        for one in asked:
            one.result()
    assert {number % 100 for number in seen} == {0}  # whole batches only
    assert count(store, "records") == 1000


def test_a_store_of_a_newer_schema_is_refused_with_the_remedy(opened: Open, settings: Settings, tmp_path: Path) -> None:
    store = opened()
    database = settings.clickhouse_url.rpartition("/")[2] or "sluice"
    store._engine.execute(f"INSERT INTO {database}.epochs VALUES (1, 99)")
    store.close()
    with pytest.raises(StoreError, match=r"schema 99, made by a newer Sluice.*run the newer version"):
        open_store(settings, tmp_path)


def test_log_tools_find_the_columns_of_the_collector_s_clickhouse_exporter(opened: Open, settings: Settings) -> None:
    store = opened()
    store_rows(
        store,
        records=[
            record(
                "cafe-0-1-0",
                body="hello",
                duration_s=1.5,
                resource={"host.name": "a\n\"b'"},
                attributes={"n": 1, "text": 'tab\tquote"', "none": None},
            )
        ],
    )
    database = settings.clickhouse_url.rpartition("/")[2] or "sluice"
    (row,) = store.query(f"SELECT * FROM {database}.otel_logs")
    assert row["Timestamp"] == "2026-01-05T10:00:00.000000000Z"
    assert (row["ServiceName"], row["SeverityText"], row["SeverityNumber"]) == ("Efficy", "INFO", 9)
    assert (row["Body"], row["EventName"]) == ("hello", "Contacts")
    assert row["ResourceAttributes"] == {"host.name": "a\n\"b'"}
    assert row["LogAttributes"] == {
        "n": "1",
        "text": 'tab\tquote"',
        "none": "null",
        "record_id": "cafe-0-1-0",
        "outcome": "success",
        "duration_s": "1.5",
    }
    types = {
        column["name"]: column["type"]
        for column in store.query(
            "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = 'otel_logs'",
            {"database": database},
        )
    }
    map_type = "Map(LowCardinality(String), String)"
    assert types["Timestamp"].startswith("DateTime64(9")
    assert {types[name] for name in ("ResourceAttributes", "ScopeAttributes", "LogAttributes")} == {map_type}
    assert types["SeverityNumber"] == "UInt8"
    assert {"TimestampTime", "TraceId", "SpanId", "TraceFlags", "ScopeName", "ResourceSchemaUrl"} <= types.keys()
