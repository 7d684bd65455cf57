"""What the analytics API answers, on a real store."""

import json
import math
import random
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from processing.api import counts
from processing.store import Store
from processing.windows import Delta, lines_of
from shared.paging import cursor_of
from tests.contract.samples import anomaly, dead_letter, dead_letter_event, receipt, record, store_rows, window


def _get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _refused(client: httpx.Client, path: str, status: int, **parameters: Any) -> str:
    answer = client.get(path, params=parameters)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    return detail


def test_an_empty_store_has_an_empty_summary(client: httpx.Client) -> None:
    summary = _get(client, "/analytics/summary")
    assert summary["total"] == 0
    assert summary["by_source"] == {}
    assert summary["success_rate"] is None
    assert summary["first_timestamp"] is None
    assert set(summary["duration_seconds"].values()) == {0, None}
    assert set(summary["memory_bytes"].values()) == {0, None}
    assert summary["slowest"] == []


def test_the_summary_counts_by_source_and_status(client: httpx.Client, store: Store) -> None:
    failed = record("f", service_name="sharepoint_graph", event_name="EventFactureApplication", outcome="failure")
    store_rows(
        store,
        records=[
            *(record(f"s{n}", service_name="sharepoint_graph") for n in range(31)),
            failed,
            record("t", outcome="timeout", timestamp="2026-01-04T00:00:00.000000001Z"),
        ],
        anomalies=[anomaly("f", service_name="sharepoint_graph"), anomaly("t")],
    )
    summary = _get(client, "/analytics/summary")
    assert summary["total"] == 33
    assert summary["by_source"] == {"sharepoint_graph": {"SUCCESS": 31, "FAILED": 1}, "Efficy": {"TIMEOUT": 1}}
    assert summary["by_status"] == {"SUCCESS": 31, "FAILED": 1, "TIMEOUT": 1}
    assert summary["success_rate"] == pytest.approx(31 / 33)
    assert summary["anomalies"] == 2
    assert summary["first_timestamp"] == "2026-01-04T00:00:00.000000001Z"
    assert summary["last_timestamp"] == "2026-01-05T10:00:00Z"
    assert summary["efficiency"] == {"count": 33, "mean": 50.0, "p50": pytest.approx(50, rel=0.01), "min": 50.0}
    only = _get(client, "/analytics/summary", source="sharepoint_graph", outcome="failure")
    assert (only["total"], only["anomalies"], only["by_status"]) == (1, 1, {"FAILED": 1})
    assert counts(store) == {
        ("sharepoint_graph", "success"): 31,
        ("sharepoint_graph", "failure"): 1,
        ("Efficy", "timeout"): 1,
    }


def test_quantiles_are_within_one_percent_and_extremes_exact(client: httpx.Client, store: Store) -> None:
    chance = random.Random(20260105)
    durations = sorted(round(chance.lognormvariate(2, 2), 6) for _ in range(2_000))
    memories = sorted(int(chance.lognormvariate(15, 3)) for _ in range(2_000))
    store_rows(
        store,
        records=[record(f"r{n}", duration_s=durations[n], memory_bytes=memories[n]) for n in range(2_000)],
    )
    summary = _get(client, "/analytics/summary")
    for name, values in (("duration_seconds", durations), ("memory_bytes", memories)):
        found = summary[name]
        assert found["count"] == 2_000
        assert found["max"] == values[-1]
        assert found["mean"] == pytest.approx(math.fsum(values) / 2_000)
        for quantile in (50, 90, 95, 99):
            exact = values[int(quantile / 100 * 1_999)]
            assert found[f"p{quantile}"] == pytest.approx(exact, rel=0.01), f"{name} p{quantile}"


def test_slowest_and_heaviest_name_each_operation_once_with_its_worst_entry(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        records=[
            record("long", service_name="EasyProjects", event_name="Timelogs", duration_s=787.0, memory_bytes=5),
            record("big", service_name="EasyProjects", event_name="Timelogs", duration_s=3.0, memory_bytes=177_000_000),
            *(record(f"o{n}", event_name=f"Op{n}", duration_s=float(n)) for n in range(7)),
            record("unknown", event_name="NoDuration"),
        ],
    )
    summary = _get(client, "/analytics/summary")
    assert summary["slowest"][0] == {
        "source": "EasyProjects",
        "operation": "Timelogs",
        "record_id": "long",
        "duration_seconds": 787.0,
        "memory_bytes": 5,
        "entries": 2,
    }
    assert [entry["operation"] for entry in summary["slowest"]] == ["Timelogs", "Op6", "Op5", "Op4", "Op3"]
    assert [entry["record_id"] for entry in summary["heaviest"]] == ["big"]
    assert summary["duration_seconds"]["max"] == 787.0
    assert summary["memory_bytes"]["max"] == 177_000_000


def test_recent_gives_the_newest_stored_first_whatever_their_time(client: httpx.Client, store: Store) -> None:
    store_rows(store, records=[record("a", timestamp="2026-03-01T00:00:00Z")])
    store_rows(store, records=[record("b", timestamp="2024-03-01T00:00:00Z"), record("c")])
    page = _get(client, "/analytics/recent", limit=2)
    assert [entry["record_id"] for entry in page["records"]] == ["c", "b"]
    assert page["total"] == 3


def test_a_record_is_shown_as_it_was_standardized(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        records=[
            record(
                "cafe-0-1-0",
                timestamp="2026-01-05T10:00:00.123Z",
                observed_timestamp="2026-01-05T10:00:00.123456789Z",
                outcome="failure",
                memory_bytes=2**62 + 1,
                duration_s=2.0,
                anomalies=["failure"],
                attributes={"é": "ü", "n": 1, "none": None},
            )
        ],
    )
    found = _get(client, "/records/cafe-0-1-0")
    expected = {
        "record_id": "cafe-0-1-0",
        "timestamp": "2026-01-05T10:00:00.123Z",
        "observed_timestamp": "2026-01-05T10:00:00.123456789Z",
        "status": "FAILED",
        "memory_bytes": 2**62 + 1,
        "duration_s": 2.0,
        "anomalies": ["failure"],
        "attributes": {"é": "ü", "n": 1, "none": None},
        "resource": {},
        "run_id": None,
        "body": None,
        "trace_id": None,
    }
    assert {name: found[name] for name in expected} == expected
    assert _get(client, "/analytics/recent")["records"] == [found]


def test_numbers_that_json_has_no_word_for_are_null(client: httpx.Client, store: Store) -> None:
    """1e999 is infinite to the engine; only a foreign producer would write it."""
    infinite = window("2026-01-05T10:00:00Z", duration_count=1).replace(b'"duration_sum":0', b'"duration_sum":1e999')
    store_rows(
        store,
        records=[record("a", duration_s=1.0).replace(b'"duration_s":1.0', b'"duration_s":1e999')],
        windows=[infinite],
    )
    answer = client.get("/records/a")
    assert json.loads(answer.text, parse_constant=pytest.fail)["duration_s"] is None
    answer = client.get("/analytics/summary")
    assert json.loads(answer.text, parse_constant=pytest.fail)["total"] == 1
    answer = client.get("/analytics/windows")
    assert json.loads(answer.text, parse_constant=pytest.fail)["total"] == 1


def test_an_unknown_record_is_404(client: httpx.Client) -> None:
    assert "cafe-0-1-0" in _refused(client, "/records/cafe-0-1-0", 404)
    assert client.get("/records/" + quote("x' OR 1=1\n\\", safe="")).status_code == 404


def test_filters_select_by_source_operation_outcome_and_time(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        records=[
            record("a", service_name="A", event_name="X", timestamp="2026-01-05T10:00:00Z"),
            record("b", service_name="A", event_name="Y", timestamp="2026-01-05T11:00:00Z", outcome="failure"),
            record("c", service_name="B", event_name="X", timestamp="2026-01-05T12:00:00Z"),
        ],
        anomalies=[anomaly("b", service_name="A", event_name="Y"), anomaly("z", reason="high_memory")],
    )

    def ids(path: str = "/analytics/recent", name: str = "records", **filters: str) -> str:
        return "".join(sorted(entry["record_id"] for entry in _get(client, path, **filters)[name]))

    assert ids(source="A") == "ab"
    assert ids(operation="X") == "ac"
    assert ids(outcome="failure") == "b"
    assert ids(source="A", operation="X") == "a"
    assert ids(**{"from": "2026-01-05T11:00:00Z"}) == "bc"  # inclusive
    assert ids(to="2026-01-05T11:00:00Z") == "a"  # exclusive
    assert ids(**{"from": "2026-01-05T11:30:00+01:00", "to": "2026-01-05T12:00:00.000001Z"}) == "bc"
    assert ids("/analytics/anomalies", "anomalies", source="A") == "b"
    assert ids("/analytics/anomalies", "anomalies", reason="high_memory") == "z"
    assert _get(client, "/analytics/recent", source="A", limit=1)["total"] == 2


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "1767600000"}, "from"),
        ({"to": "2026-01-05T10:00:00"}, "to"),  # no zone
        ({"to": "9999-01-01T00:00:00Z"}, "to"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "five"}, "limit"),
        ({"outcome": "maybe"}, "outcome"),
        ({"sauce": "A"}, "sauce"),
        ({"cursor": "*"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": ""}, "cursor"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client: httpx.Client, parameters: dict[str, Any], named: str) -> None:
    assert named in _refused(client, "/analytics/recent", 422, **parameters)


def test_pages_show_each_item_once_while_more_is_stored(client: httpx.Client, store: Store) -> None:
    for number in range(5):
        store_rows(store, records=[record(f"{number}{n}") for n in range(3)])
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = _get(client, "/analytics/recent", limit=4, **cursor)
        seen.extend(entry["record_id"] for entry in page["records"])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        store_rows(store, records=[record("new")])
    assert seen == [f"{number}{n}" for number in range(4, -1, -1) for n in range(2, -1, -1)]


def test_a_full_last_page_has_no_next(client: httpx.Client, store: Store) -> None:
    store_rows(store, records=[record("a"), record("b")])
    assert _get(client, "/analytics/recent", limit=2)["next_cursor"] is None


def test_a_cursor_of_one_list_is_refused_by_another(client: httpx.Client, store: Store) -> None:
    store_rows(store, records=[record("a"), record("b")], anomalies=[anomaly("a")])
    cursor = _get(client, "/analytics/recent", limit=1)["next_cursor"]
    assert "cursor" in _refused(client, "/analytics/anomalies", 422, cursor=cursor)
    assert "cursor" in _refused(client, "/analytics/windows", 422, cursor=cursor)


@pytest.mark.parametrize("last", [["soon", "A", "X"], [2**63, "A", "X"], [1], [], [1, None, "X"], [True, "A", "X"]])
def test_a_forged_cursor_is_refused(client: httpx.Client, last: list[Any]) -> None:
    forged = cursor_of("windows by series", *last)
    assert "cursor" in _refused(client, "/analytics/windows", 422, cursor=forged)


def test_anomalies_tell_value_and_expectation(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        anomalies=[
            anomaly("a"),
            anomaly("b", outcome="success", reason="long_duration", value=787.0, expected=20.5, limit=300.0, unit="s"),
        ],
    )
    page = _get(client, "/analytics/anomalies")
    assert [entry["record_id"] for entry in page["anomalies"]] == ["b", "a"]
    first = page["anomalies"][0]
    assert (first["value"], first["expected"], first["limit"], first["unit"]) == (787.0, 20.5, 300.0, "s")
    assert page["anomalies"][1]["status"] == "FAILED"


def _delta(durations: list[float], memories: list[int]) -> Delta:
    delta = Delta()
    delta.total, delta.success = len(durations) + 1, len(durations)
    delta.durations, delta.memories = durations, memories
    delta.scored = delta.success  # the failure without a score must not weigh on the mean
    delta.efficiency_tenths = 500 * delta.scored
    return delta


def test_windows_merge_deltas_and_sum_series(client: httpx.Client, store: Store) -> None:
    chance = random.Random(3)
    values = {
        (source, operation, minute): [round(chance.uniform(0, 100), 3) for _ in range(50)]
        for source in ("A", "B")
        for operation in ("X", "Y")
        for minute in ("2026-01-05T10:00", "2026-01-05T10:01")
    }
    for half in (slice(0, 20), slice(20, 50)):
        store_rows(store, windows=lines_of({key: _delta(found[half], [7]) for key, found in values.items()}))

    page = _get(client, "/analytics/windows")
    assert page["total"] == 8
    keys = [(entry["source"], entry["operation"], entry["minute"][:16]) for entry in page["windows"]]
    assert keys == [(s, o, m) for m in ("2026-01-05T10:01", "2026-01-05T10:00") for s in "AB" for o in "XY"]
    for key, entry in zip(keys, page["windows"], strict=True):
        exact = sorted(values[key])
        assert (entry["total"], entry["success"], entry["other"]) == (52, 50, 2)
        assert entry["success_rate"] == pytest.approx(50 / 52)
        assert entry["efficiency_mean"] == pytest.approx(50)
        assert (entry["duration_seconds"]["min"], entry["duration_seconds"]["max"]) == (exact[0], exact[-1])
        assert entry["duration_seconds"]["p90"] == pytest.approx(exact[int(0.9 * 49)], rel=0.011)
        assert entry["memory_bytes"]["count"] == 2

    by_source = _get(client, "/analytics/windows", by="source", source="A")["windows"]
    assert [(entry["source"], entry["operation"], entry["total"]) for entry in by_source] == [("A", None, 104)] * 2
    (latest,) = _get(client, "/analytics/windows", by="all", **{"from": "2026-01-05T10:01:00Z"})["windows"]
    assert (latest["source"], latest["total"]) == (None, 208)
    exact = sorted(value for key, found in values.items() if key[2].endswith("01") for value in found)
    assert latest["duration_seconds"]["p50"] == pytest.approx(exact[int(0.5 * 199)], rel=0.011)


def test_windows_are_paged_without_gaps_or_repeats(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        windows=[
            window(f"2026-01-05T10:0{minute}:00Z", service_name=source, event_name=operation)
            for minute in range(3)
            for source in ("A", "B")
            for operation in ("X", "Y", "Z")
        ],
    )
    for by, expected in (("series", 18), ("source", 6), ("all", 3)):
        seen: list[tuple[str, ...]] = []
        cursor: dict[str, str] = {}
        while True:
            page = _get(client, "/analytics/windows", by=by, limit=2, **cursor)
            assert page["total"] == expected
            seen.extend((entry["minute"], entry["source"], entry["operation"]) for entry in page["windows"])
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert len(seen) == len(set(seen)) == expected


def test_a_window_without_measures_has_nulls(client: httpx.Client, store: Store) -> None:
    store_rows(store, windows=[window("2026-01-05T10:00:00Z")])
    (found,) = _get(client, "/analytics/windows")["windows"]
    assert set(found["duration_seconds"].values()) == {0, None}


def test_a_receipt_adds_up(client: httpx.Client, store: Store) -> None:
    store_rows(store, runs=[receipt("run", 10, source="Efficy", file="logs.json")])
    assert _get(client, "/runs/run") == {
        "run_id": "run",
        "source": "Efficy",
        "file": "logs.json",
        "time": "2026-01-05T10:00:00Z",
        "accepted": 10,
        "bytes": 100,
        "stored": 0,
        "dead_lettered": 0,
        "in_flight": 10,
        "complete": False,
    }
    store_rows(store, records=[record(f"r{n}", run_id="run") for n in range(7)])
    store_rows(store, dead_letters=[dead_letter("r7", run_id="run"), dead_letter("r8", run_id="run")])
    store_rows(store, records=[record("other", run_id="another")], dead_letters=[dead_letter("x", run_id="another")])
    found = _get(client, "/runs/run")
    assert (found["stored"], found["dead_lettered"], found["in_flight"], found["complete"]) == (7, 2, 1, False)
    store_rows(store, records=[record("r9", run_id="run")])
    found = _get(client, "/runs/run")
    assert (found["stored"], found["dead_lettered"], found["in_flight"], found["complete"]) == (8, 2, 0, True)


def test_an_entry_is_stored_or_dead_lettered_but_never_both(client: httpx.Client, store: Store) -> None:
    """Replays carry the origin: one that failed again is one dead letter, one that succeeded is none any more."""
    store_rows(store, runs=[receipt("run", 2)], dead_letters=[dead_letter(name, run_id="run") for name in ("a", "b")])
    store_rows(store, dead_letters=[dead_letter("a2", origin="a", run_id="run")])
    found = _get(client, "/runs/run")
    assert (found["stored"], found["dead_lettered"], found["in_flight"]) == (0, 2, 0)
    store_rows(store, records=[record("a3", origin="a", run_id="run")])
    found = _get(client, "/runs/run")
    assert (found["stored"], found["dead_lettered"], found["in_flight"]) == (1, 1, 0)


def test_a_retried_push_counts_the_receipt_of_its_first_attempt_only(client: httpx.Client, store: Store) -> None:
    later = receipt("run", 3, time="2026-01-05T10:00:09Z")
    store_rows(store, runs=[later, receipt("run", 2), later])
    found = _get(client, "/runs/run")
    assert (found["accepted"], found["time"]) == (2, "2026-01-05T10:00:00Z")
    page = _get(client, "/runs")
    assert (page["total"], len(page["runs"])) == (1, 1)


def test_runs_are_listed_newest_first_with_their_progress(client: httpx.Client, store: Store) -> None:
    for number in range(3):
        store_rows(store, runs=[receipt(f"run-{number}", 1)], records=[record(f"r{number}", run_id=f"run-{number}")])
    first = _get(client, "/runs", limit=2)
    assert [(run["run_id"], run["stored"]) for run in first["runs"]] == [("run-2", 1), ("run-1", 1)]
    second = _get(client, "/runs", limit=2, cursor=first["next_cursor"])
    assert [(run["run_id"], run["complete"]) for run in second["runs"]] == [("run-0", True)]
    assert second["next_cursor"] is None


def test_a_run_without_a_receipt_is_404(client: httpx.Client, store: Store) -> None:
    store_rows(store, records=[record("a", run_id="early")])
    assert "early" in _refused(client, "/runs/early", 404)


def test_dead_letters_are_filtered_by_reason_stage_and_run(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        dead_letters=[
            dead_letter("a", run_id="r1"),
            dead_letter("b", reason="invalid_utf8"),
            dead_letter("c", stage="processing", time="2026-01-06T00:00:00Z"),
        ],
    )

    def ids(**filters: str) -> str:
        return "".join(letter["record_id"] for letter in _get(client, "/dead-letters", **filters)["dead_letters"])

    assert ids() == "cba"
    assert ids(run="r1") == "a"
    assert ids(reason="invalid_utf8") == "b"
    assert ids(stage="processing") == "c"
    assert ids(**{"from": "2026-01-06T00:00:00Z"}) == "c"
    assert "reason" in _refused(client, "/dead-letters", 422, reason="because")


def test_a_letter_s_state_is_that_of_its_event(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        runs=[receipt("r1", 3, source="shop"), receipt("r2", 1, source="till")],
        dead_letters=[
            dead_letter("a", run_id="r1", dead_offset=1),
            dead_letter("b", run_id="r1", dead_offset=2, detail="Expecting VALUE"),
            dead_letter("c", run_id="r2", dead_offset=3, origin="a"),
        ],
        dead_letter_events=[
            dead_letter_event("feed-0-1-0"),
            dead_letter_event("feed-0-2-0", action="resolved", note="known", actor="bob"),
        ],
    )

    def ids(**filters: str) -> str:
        return "".join(letter["record_id"] for letter in _get(client, "/dead-letters", **filters)["dead_letters"])

    assert (ids(state="open"), ids(state="replayed"), ids(state="resolved")) == ("c", "a", "b")
    assert (ids(source="shop"), ids(source="till"), ids(origin="a"), ids(text="value")) == ("ba", "c", "ca", "b")
    (letter,) = _get(client, "/dead-letters", state="resolved")["dead_letters"]
    assert (letter["id"], letter["state"]) == ("feed-0-2-0", "resolved")


def test_what_was_done_with_letters_is_listed_by_who_and_what(client: httpx.Client, store: Store) -> None:
    store_rows(
        store,
        dead_letters=[dead_letter("a", dead_offset=1), dead_letter("c", dead_offset=3, origin="a")],
        dead_letter_events=[
            dead_letter_event("feed-0-1-0", edited=True, run_id="r1"),
            dead_letter_event("feed-0-3-0", action="resolved", note="known", actor="bob"),
            dead_letter_event("feed-0-9-0", origin="z", time="2026-01-06T00:00:00Z"),
        ],
    )

    def done(path: str = "/dead-letters/audit", **filters: str) -> list[str]:
        return [event["letter"][5:] for event in _get(client, path, **filters)["events"]]

    assert done() == ["0-9-0", "0-3-0", "0-1-0"]
    assert done(actor="bob") == done(action="resolved") == ["0-3-0"]
    assert done(run="r1") == done(letter="feed-0-1-0") == ["0-1-0"]
    assert done(**{"from": "2026-01-06T00:00:00Z"}) == ["0-9-0"]
    assert done("/dead-letters/feed-0-1-0/audit") == ["0-3-0", "0-1-0"], "all attempts of its entry"
    (event,) = _get(client, "/dead-letters/audit", actor="bob")["events"]
    assert (event["note"], event["edited"], event["run_id"], event["origin"]) == ("known", False, None, "a")
    assert "no dead letter" in _refused(client, "/dead-letters/feed-0-7-0/audit", 404)


def test_a_receipt_adds_up_before_within_and_after_a_replay(client: httpx.Client, store: Store) -> None:
    def counts() -> tuple[int, int, int]:
        found = _get(client, "/runs/r1")
        return found["stored"], found["dead_lettered"], found["in_flight"]

    letter = dead_letter("a", run_id="r1", dead_offset=1)
    store_rows(store, runs=[receipt("r1", 2)], records=[record("b", run_id="r1")], dead_letters=[letter])
    assert counts() == (1, 1, 0)
    store_rows(store, dead_letter_events=[dead_letter_event("feed-0-1-0", run_id="r1")])
    assert counts() == (1, 0, 1), "on its way again"
    store_rows(store, dead_letters=[dead_letter("a2", origin="a", run_id="r1", dead_offset=2)])
    assert counts() == (1, 1, 0), "it failed again"
    store_rows(store, dead_letter_events=[dead_letter_event("feed-0-2-0", run_id="r1", action="resolved")])
    assert counts() == (1, 1, 0), "resolved is dead-lettered for good"


def test_a_line_replayed_under_its_own_record_id_is_stored_and_no_dead_letter(
    client: httpx.Client, store: Store
) -> None:
    letter = dead_letter("a", run_id="r1", dead_offset=1, stage="sink")
    twice = dead_letter("a", run_id="r1", dead_offset=2, stage="sink")  # the sink may write two of one line
    store_rows(store, runs=[receipt("r1", 1)], dead_letters=[letter, twice])
    store_rows(store, dead_letter_events=[dead_letter_event("feed-0-1-0", run_id="r1")])
    store_rows(store, records=[record("a", run_id="r1")])
    found = _get(client, "/runs/r1")
    assert (found["stored"], found["dead_lettered"], found["in_flight"]) == (1, 0, 0)


def test_a_store_that_fails_is_503(client: httpx.Client, store: Store) -> None:
    store._engine.execute("DROP TABLE anomalies")
    answer = client.get("/analytics/anomalies")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_every_parameter_of_the_api_is_described(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    ours = {
        path: methods
        for path, methods in described["paths"].items()
        if path.split("/")[1] not in ("health", "ready", "metrics")
    }
    assert len(ours) == 19
    for path, methods in ours.items():
        (route,) = methods.values()
        for parameter in route.get("parameters", []):
            assert parameter.get("description"), f"{path}: {parameter['name']}"
        assert route["description"], path
        schema = route["responses"]["200"]["content"]["application/json"]["schema"]
        assert "$ref" in schema, path
