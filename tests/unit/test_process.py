"""Lines in, lines out: what is accepted, what is put into a line, and what is kept between calls."""

import json
from typing import Any

import msgspec
import pytest

from processing.detect import Rules
from processing.process import Processor, _StrictRecord
from shared.config import Settings
from shared.errors import Reason
from shared.records import Outcome, Record

PLAIN = Record(
    "a1b2c3d4-3-17-0", "2026-01-05T10:00:30.250Z", "2026-01-05T10:00:31Z", "EasyProjects", "Timelogs", "success",
    duration_s=10.0, attributes={"région": "Île", "n": 1},
)  # fmt: skip


def processor(**settings: Any) -> Processor:
    return Processor(Rules.of(Settings(_env_file=None, **settings)))


def encoded(record: Record = PLAIN, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(record, **changes))


LINE = encoded()


def measured(line: bytes) -> dict[str, Any]:
    """What a lone line becomes, read strictly: no key twice, and one line."""
    done = processor().process(0, [line])
    assert done.rejected == []
    (out,) = done.records
    assert b"\n" not in out
    assert out.endswith(b"}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    found: dict[str, Any] = json.loads(out, object_pairs_hook=unique)
    return found


def rejection(line: bytes) -> str:
    done = processor().process(0, [LINE, line, LINE])
    assert len(done.records) == 2
    (rejected,) = done.rejected
    assert (rejected.index, rejected.reason, rejected.value) == (1, Reason.INVALID_RECORD, line)
    return rejected.detail


# the record line


def test_the_metrics_are_put_in_before_the_last_brace_and_nothing_else_changes() -> None:
    line = encoded(rows=123, transfer_bytes=4567, duration_s=400.0)
    (out,) = processor().process(0, [line]).records
    assert out[: len(line)] == line[:-1] + b","
    assert out[len(line) :] == (
        b'"kind":"record","efficiency":2.2,"rows_per_s":0.3075,"bytes_per_s":11.4175,"anomalies":["long_duration"]}'
    )


def test_what_is_unknown_is_left_out() -> None:
    assert processor().process(0, [encoded(duration_s=None, rows=5)]).records == [
        encoded(duration_s=None, rows=5)[:-1] + b',"kind":"record"}'
    ]
    assert "rows_per_s" not in measured(encoded(duration_s=0.0, rows=5))
    assert "rows_per_s" not in measured(encoded(duration_s=5e-324, rows=2**62))  # beyond what a number holds


@pytest.mark.parametrize(
    "line",
    [
        LINE + b" \n",
        b" \t" + LINE,
        LINE[:-1] + b" \n }",
        json.dumps(msgspec.to_builtins(PLAIN), indent=2).encode(),
        json.dumps(msgspec.to_builtins(PLAIN), indent=2, ensure_ascii=False).replace("\n", "\r\n").encode(),
        LINE.replace(b'"duration_s":10.0', b'"duration_s":10'),
        LINE.replace(b'"n":1', b'"n":123456789012345678901234567890'),
        LINE.replace(b'"EasyProjects"', b'"Easy\\u0050rojects"'),
    ],
    ids=["space after", "space before", "space within", "pretty", "pretty, CR LF", "integer", "huge integer", "escape"],
)
def test_a_foreign_producers_line_is_measured_as_it_is(line: bytes) -> None:
    found = measured(line)
    assert (found.pop("kind"), found.pop("efficiency")) == ("record", 97.3)
    assert found == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"null",
        b"{}",
        b"[]",
        b"\x00\xff\xfe",
        b"\xef\xbb\xbf" + LINE,
        LINE[:-1],
        LINE + LINE,
        LINE + b"\n" + LINE,
        b"[" * 100_000,
        LINE.replace(b'{"r', b'{"x":' + b"[" * 100_000 + b',"r', 1),
        LINE.replace(b'"n":1', b'"n":' + b'{"a":' * 100_000),
        LINE.replace(b'"n":1', b'"n":"\xff"'),
        LINE.replace(b'"n":1', b'"\xff":1'),
        LINE.replace(b"Timelogs", b"\xed\xa0\x80"),
        LINE.replace(b"Timelogs", b"\\ud800"),
        LINE.replace(b'"n":1', b'"n":1e999'),
        LINE.replace(b'"n":1', b'"n":NaN'),
        LINE.replace(b'"n":1', b'"n":' + b"9" * 5000),
        LINE.replace(b"10.0", b"-1.0"),
        LINE.replace(b"10.0", b"1e999"),
        LINE.replace(b"10.0", b'"10.0"'),
        LINE.replace(b'"success"', b'"SUCCESS"'),
        LINE.replace(b'"attributes"', b'"kind":"record","attributes"'),
        LINE.replace(b'"attributes"', b'"efficiency":100,"attributes"'),
        LINE.replace(b'"attributes"', b'"duration_s":11.0,"attributes"'),
        LINE.replace(b'"attributes"', b'"memory_bytes":9223372036854775808,"attributes"'),
        LINE.replace(b'"attributes"', b'"memory_bytes":1.0,"attributes"'),
        LINE.replace(b'"attributes"', b'"schema":2,"attributes"'),
        LINE.replace(b"2026-01-05T10:00:30.250Z", b"2026-02-30T10:00:30.250Z"),
        LINE.replace(b"2026-01-05T10:00:30.250Z", b"2026-01-05T10:00:30.250+01:00"),
        LINE.replace(b"2026-01-05T10:00:30.250Z", b"2026-01-05T10:00:30.25Z"),
        LINE.replace(b"2026-01-05T10:00:30.250Z", b"0000-01-05T10:00:30Z"),
        LINE.replace(b"2026-01-05T10:00:30.250Z", b"9999-01-05T10:00:30Z"),
        LINE.replace(b"2026-01-05T10:00:30.250Z", b"2026-01-05T10:00:30Z\\n2026-01-05T10:00:30Z"),
        LINE.replace(b"2026-01-05T10:00:30.250Z", "\u0662\u0660\u0662\u0666-01-05T10:00:30Z".encode()),
        LINE.replace(b"2026-01-05T10:00:31Z", b"yesterday"),
    ],
    ids=lambda line: f"{len(line)} bytes",
)
def test_what_is_no_record_is_rejected_and_its_neighbours_are_not(line: bytes) -> None:
    assert 0 < len(rejection(line)) <= 300


def test_a_rejection_says_what_is_wrong() -> None:
    assert "unknown field `kind`" in rejection(LINE.replace(b'"attributes"', b'"kind":"window","attributes"'))
    assert "'duration_s' twice" in rejection(LINE.replace(b'"attributes"', b'"duration_s":11.0,"attributes"'))
    assert "2026-02-30T10:00" in rejection(LINE.replace(b"2026-01-05T10:00:30.250Z", b"2026-02-30T10:00:30.250Z"))


def test_a_rejected_line_is_named_by_its_index_in_a_call_of_any_size() -> None:
    lines = [encoded(record_id=str(index)) for index in range(1000)]
    bad = {0, 127, 128, 300, 999}
    done = processor().process(0, [b"{}" if index in bad else line for index, line in enumerate(lines)])
    assert {rejected.index for rejected in done.rejected} == bad
    kept = [int(msgspec.json.decode(line)["record_id"]) for line in done.records]
    assert kept == [index for index in range(1000) if index not in bad]


def test_no_lines_make_nothing() -> None:
    assert processor().process(0, []) == ([], [], [])


def test_every_field_and_outcome_of_a_record_is_known() -> None:
    assert set(_StrictRecord.__struct_fields__) == set(Record.__struct_fields__)
    for outcome in Outcome:
        assert measured(encoded(outcome=outcome.value))["outcome"] == outcome


# judging


def anomalies_of(lines: list[bytes]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in lines]


def test_an_anomaly_names_its_record_and_its_reason() -> None:
    line = encoded(outcome="failure", run_id="r1", body="HTTP 500", duration_s=787.0)
    failure, long = anomalies_of(processor().process(0, [line]).anomalies)
    assert failure == {
        "kind": "anomaly",
        "record_id": PLAIN.record_id,
        "run_id": "r1",
        "timestamp": PLAIN.timestamp,
        "observed_timestamp": PLAIN.observed_timestamp,
        "service_name": "EasyProjects",
        "event_name": "Timelogs",
        "outcome": "failure",
        "reason": "failure",
        "value": 1.0,
        "expected": 0.0,
        "limit": None,
        "unit": "1",
        "detail": "Timelogs of EasyProjects ended in failure: HTTP 500",
    }
    assert (long["reason"], long["value"], long["expected"], long["limit"]) == ("long_duration", 787.0, None, 300.0)


@pytest.mark.parametrize("others", [[], [10.0] * 3, [4.0, 25.0, 9.0]])
def test_the_one_long_entry_of_a_file_stands_out_each_time_the_file_is_ingested(others: list[float]) -> None:
    core = processor()
    for _ in range(3):
        lines = [encoded(duration_s=seconds) for seconds in [*others[:1], 787.0, *others[1:]]]
        found = anomalies_of(core.process(0, lines).anomalies)
        assert [(anomaly["reason"], anomaly["value"]) for anomaly in found] == [("long_duration", 787.0)]
        core.windows()
        core.changed()


def test_only_successes_make_a_history() -> None:
    core = processor()
    core.process(0, [encoded(outcome=outcome.value) for outcome in Outcome if outcome != "success" for _ in range(50)])
    assert core.changed() == []


# windows


def test_windows_are_deltas_of_a_series_and_minute_each_handed_out_once() -> None:
    core = processor()
    core.process(3, [LINE, encoded(event_name="Other"), encoded(timestamp="2026-01-05T10:01:00Z")])
    core.process(3, [LINE])
    core.process(5, [LINE])
    found = [(partition, msgspec.json.decode(line)) for partition, line in core.windows()]
    assert sorted((partition, line["event_name"], line["minute"], line["total"]) for partition, line in found) == [
        (3, "Other", "2026-01-05T10:00:00Z", 1),
        (3, "Timelogs", "2026-01-05T10:00:00Z", 2),
        (3, "Timelogs", "2026-01-05T10:01:00Z", 1),
        (5, "Timelogs", "2026-01-05T10:00:00Z", 1),
    ]
    assert core.windows() == []


def test_rejected_lines_are_in_no_window() -> None:
    core = processor()
    core.process(0, [b"{}", b"\xff"])
    assert core.windows() == []


# state


def test_changes_are_handed_out_once_and_restore_the_history() -> None:
    core = processor()
    core.process(3, [encoded(duration_s=10.0)] * 8)
    ((partition, key, value),) = core.changed()
    assert partition == 3
    assert core.changed() == []
    assert value is not None

    again = processor()
    again.restore(3, key, value)
    assert again.changed() == []
    (anomaly,) = anomalies_of(again.process(3, [encoded(duration_s=100.0)]).anomalies)
    assert anomaly["expected"] == pytest.approx(10.0)
    assert again.process(4, [encoded(duration_s=100.0)]).anomalies == []


@pytest.mark.parametrize("deletion", [None, b""])
def test_a_deletion_on_the_state_topic_deletes(deletion: bytes | None) -> None:
    core = processor()
    core.process(0, [LINE] * 8)
    ((_, key, value),) = core.changed()
    again = processor()
    again.restore(0, key, value)
    again.restore(0, key, deletion)
    assert again.process(0, [encoded(duration_s=100.0)]).anomalies == []


def test_forgetting_a_partition_drops_its_history_its_windows_and_its_changes() -> None:
    core = processor()
    for partition in (0, 1):
        core.process(partition, [LINE] * 8)
    core.forget(0)
    core.forget(7)
    assert [partition for partition, _ in core.windows()] == [1]
    assert [partition for partition, _, _ in core.changed()] == [1]
    assert core.process(0, [encoded(duration_s=100.0)]).anomalies == []


def names_kept(changes: list[tuple[int, bytes, bytes | None]], kept: dict[str, bytes]) -> dict[str, bytes]:
    for _, key, value in changes:
        name = msgspec.json.decode(key)[1]
        kept.pop(name, None)
        if value is not None:
            kept[name] = value
    return kept


def test_the_series_that_changed_least_recently_give_way_and_leave_the_state_topic() -> None:
    core = processor(series_max=10)
    core.process(0, [encoded(event_name=f"op{n}") for n in range(10)] + [encoded(event_name="op0")])
    kept = names_kept(core.changed(), {})
    assert list(kept) == [f"op{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)]  # by their last change
    core.process(0, [encoded(event_name="new")])
    changes = core.changed()
    assert [(key, value is None) for _, key, value in changes] == [
        (b'["EasyProjects","op1"]', True),
        (b'["EasyProjects","op2"]', True),
        (b'["EasyProjects","new"]', False),
    ]


def test_a_flood_of_series_keeps_memory_bounded_and_topic_and_memory_alike() -> None:
    core = processor(series_max=20)
    kept: dict[str, bytes] = {}
    for n in range(200):
        core.process(0, [encoded(event_name=f"op{n}"), encoded(event_name=f"op{n % 3}")])
        if n % 7 == 0:
            names_kept(core.changed(), kept)
    names_kept(core.changed(), kept)
    assert {key[1] for key in core._partitions[0].series} == set(kept)
    assert len(kept) <= 20
    assert {"op0", "op1", "op2"} <= set(kept)  # what is in use stays
