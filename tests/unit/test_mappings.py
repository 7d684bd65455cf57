"""Declared mappings: what they make of entries, which entries they are for, and how a bad one is refused."""

import gc
import json
import re
import textwrap
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shared.errors import DeclarationError, Reason
from shared.records import Record
from standardization import dates, mappings
from standardization.mappings import read_mappings
from standardization.redaction import GROUPS, Redaction
from standardization.standardize import Arrival, Rejected, Standardizer
from standardization.values import Unreadable
from tests.standardizing import ARRIVAL, equal_names, standardized

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mappings.md"
AGAIN = 5  # more often than a shape needs to get its struct
FROM_SHOP = replace(ARRIVAL, source="shop")


def declared(body: str, name: str = "m", sources: str = "shop") -> str:
    """A file of one mapping; `body` is what stands in it, at its own indentation."""
    inner = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    return f"version: 1\nmappings:\n  - name: {name}\n    revision: 1\n    sources: [{sources}]\n{inner}"


def reading(*texts: str) -> Standardizer:
    return Standardizer(1 << 20, 1 << 20, mappings=read_mappings({f"{n}.yml": text for n, text in enumerate(texts)}))


def record_of(subject: Standardizer, entry: dict[str, Any], arrival: Arrival = FROM_SHOP) -> Record:
    """The record of an entry, which is the same the first time and when its shape has become known."""
    found = []
    for _ in range(AGAIN):
        good, rejected = standardized(subject, [json.dumps(entry).encode()], arrival)
        assert not rejected, rejected
        found.append(good[0][1])
    assert set(found) == {found[0]}
    return msgspec.json.decode(found[0], type=Record)


def rejection_of(subject: Standardizer, entry: dict[str, Any], arrival: Arrival = FROM_SHOP) -> Rejected:
    found = []
    for _ in range(AGAIN):
        good, rejected = standardized(subject, [json.dumps(entry).encode()], arrival)
        assert not good
        found += rejected
    assert set(found) == {found[0]}
    return found[0]


def grown(work: Callable[[], object]) -> int:
    """By how many bytes the memory in use has grown after this work."""
    tracemalloc.start()
    try:
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def refused(text: str, file: str = "mappings.yml") -> str:
    with pytest.raises(DeclarationError) as error:
        read_mappings({file: text})
    return str(error.value)


# what a mapping makes of an entry


def test_fields_come_from_their_paths_and_the_record_names_its_mapping() -> None:
    subject = reading(declared("""
fields:
  timestamp: {from: at.when, format: epoch_ms}
  service_name: app.id
  event_name: call
  outcome: {from: end, words: {fine: success, "0": failure, 7: timeout}}
  severity: {from: lvl, words: {10: DEBUG, loud: 17}}
  body: said
  duration_s: {from: took, unit: us}
  memory_bytes: {from: used, unit: KiB}
  rows: n
  transfer_bytes: {from: sent, unit: kB}
  trace_id: t
  span_id: s
"""))  # fmt: skip
    entry = {
        "at": {"when": 1773735300123}, "app": {"id": "billing"}, "call": "Close", "end": "FINE", "lvl": 10,
        "said": "done", "took": 1500, "used": 3, "n": "12", "sent": 2, "t": "0" * 31 + "1", "s": "0" * 15 + "2",
        "left": {"over": True},
    }  # fmt: skip
    assert record_of(subject, entry) == Record(
        record_id="0badcafe-3-17-0",
        timestamp="2026-03-17T08:15:00.123Z",
        observed_timestamp=ARRIVAL.observed_timestamp,
        service_name="billing",
        event_name="Close",
        outcome="success",
        severity_number=5,
        severity_text="DEBUG",
        body="done",
        duration_s=0.0015,
        memory_bytes=3072,
        rows=12,
        transfer_bytes=2000,
        trace_id="0" * 31 + "1",
        span_id="0" * 15 + "2",
        resource={"sluice.source": "shop"},
        attributes={"left.over": True, "end": "FINE", "sluice.mapping": "m@1"},
    )
    assert record_of(subject, entry | {"end": 0, "lvl": "Loud"}).outcome == "failure"
    assert record_of(subject, entry | {"end": 7.0, "lvl": "Loud"}).outcome == "timeout"
    assert record_of(subject, entry | {"lvl": "Loud"}).severity_text == "Loud"


def test_what_a_mapping_does_not_name_is_read_by_known_names() -> None:
    record = record_of(reading(declared("fields: {body: text1}")), {"text1": "a", "duration_ms": 5, "status": "ok"})
    assert (record.body, record.duration_s, record.outcome) == ("a", 0.005, "success")


def test_a_field_that_a_mapping_names_is_not_filled_by_a_known_name() -> None:
    subject = reading(declared("fields: {body: text1, duration_s: {from: []}, severity: lvl1}"))
    record = record_of(subject, {"message": "b", "duration": "x", "severity_number": 21})
    assert (record.body, record.duration_s, record.severity_number) == (None, None, 9)
    assert record.attributes == {"message": "b", "duration": "x", "severity_number": 21, "sluice.mapping": "m@1"}


def test_of_alternatives_the_first_with_a_value_wins_and_the_others_are_kept() -> None:
    subject = reading(declared("fields: {event_name: [a.b, '\"a.b\"', c]}"))
    assert record_of(subject, {"a": {"b": "1"}, "c": "3"}).event_name == "1"
    record = record_of(subject, {"a": {"b": None}, "a.b": "N/A", "c": "3"})
    assert record.event_name == "3"
    assert record.attributes == {"a.b": None, "a.b#2": "N/A", "sluice.mapping": "m@1"}
    assert record_of(subject, {"d": 1}).event_name == "unknown"


def test_an_outcome_that_is_unknown_fills_the_field_where_a_mapping_says_where_it_stands() -> None:
    subject = reading(declared("fields: {outcome: {from: [a, b], words: {en cours: unknown}}}"))
    for word in ("en cours", "unknown", "what?"):
        record = record_of(subject, {"a": word, "b": "ok"})
        assert (record.outcome, record.attributes["b"]) == ("unknown", "ok")
    assert record_of(subject, {"a": "n/a", "b": "ok"}).outcome == "success"
    by_known_names = {"outcome": "what?", "status": "ok"}
    assert record_of(reading(declared("drop: [x]")), by_known_names).outcome == "success"
    assert record_of(subject, by_known_names).outcome == "unknown"


def test_constants_and_defaults() -> None:
    subject = reading(declared("""
fields:
  service_name: {value: till}
  outcome: {from: end, default: skipped}
  severity: {from: lvl, default: WARN}
  duration_s: {from: took, unit: ms, default: 250}
  body: {from: said, default: silence}
resource: {site: {value: paris}}
attributes: {team: {value: 7}, "sluice.note": {value: "1e999"}}
"""))  # fmt: skip
    for blank in ({}, {"end": None, "lvl": None, "took": None, "said": None}):
        record = record_of(subject, {"x": 1, **blank})
        assert (record.service_name, record.outcome, record.severity_text) == ("till", "skipped", "WARN")
        assert (record.duration_s, record.body) == (0.25, "silence")
        assert record.resource == {"site": "paris", "sluice.source": "shop"}
        assert record.attributes == {"x": 1, "team": 7, "sluice.note": "1e999", "sluice.mapping": "m@1"}
    assert record_of(subject, {"end": "ok", "took": 1}).duration_s == 0.001


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("value: OK", "success"),
        ("value: 504", "timeout"),
        ("value: null", "unknown"),
        ("value: unknown", "unknown"),
        ("from: end, default: unknown", "unknown"),
        ("from: end, default: En cours, words: {en cours: unknown}", "unknown"),
    ],
)
def test_a_constant_is_one_of_the_fields_values(how: str, expected: str) -> None:
    subject = reading(declared(f"fields: {{outcome: {{{how}}}}}"))
    assert record_of(subject, {"x": 1}).outcome == expected


def test_resource_and_attributes_take_leaves_and_whole_objects_under_new_names() -> None:
    subject = reading(declared("""
resource: {host.name: [node, machine]}
attributes: {http: req, team: "x.y"}
"""))  # fmt: skip
    entry = {"machine": "h1", "req": {"method": "GET", "h": {"a": 1}}, "team": "own", "x": {"y": 2}}
    record = record_of(subject, entry)
    assert record.resource == {"host.name": "h1"}
    assert record.attributes == {
        "http.method": "GET", "http.h.a": 1, "team": 2, "team#2": "own", "sluice.mapping": "m@1",
    }  # fmt: skip


def test_what_would_have_the_name_of_a_constant_gets_out_of_its_way() -> None:
    record = record_of(
        reading(declared("attributes: {http.method: {value: any}, http: req}\nresource: {a: {value: 1}, a.b: x}")),
        {"req": {"method": "GET"}, "host": "h", "x": {"c": 5}, "http.method": "PUT"},
    )
    assert record.attributes == {
        "http.method": "any", "http.method#2": "GET", "http.method#3": "PUT", "sluice.mapping": "m@1",
    }  # fmt: skip
    assert record.resource == {"a": 1, "a.b.c": 5, "host.name": "h"}


@pytest.mark.parametrize("body", ["when: {none: 1}", "template: false", "attributes: {b: a}", "resource: {b: a}"])
def test_sixteen_thousand_equal_names_are_kept_in_a_moment(body: str) -> None:
    entry = {"a": equal_names(14)}
    began = time.process_time()
    good, rejected = standardized(reading(declared(body)), [json.dumps(entry).encode()], FROM_SHOP)
    assert time.process_time() - began < 5  # the square of it took 15
    assert not rejected
    record = msgspec.json.decode(good[0][1], type=Record)
    names = Counter(name.partition("#")[0] for name in record.attributes | record.resource)
    assert max(names.values()) == 2**14


def test_an_entry_cannot_pose_as_made_by_a_mapping() -> None:
    record = record_of(reading(declared("template: false")), {"sluice.mapping": "other@9"})
    assert record.attributes == {"sluice.mapping": "m@1", "sluice.mapping#2": "other@9"}


@pytest.mark.parametrize("posing", [{"sluice.mapping": "m@1"}, {"sluice": {"mapping": "m@1"}}])
def test_nor_can_an_entry_that_no_mapping_is_for(posing: dict[str, Any]) -> None:
    record = record_of(reading(declared("template: true")), {"message": "a b", **posing}, ARRIVAL)
    assert record.attributes == {"sluice.mapping#2": "m@1"}


def test_what_is_dropped_is_gone_and_counted_and_nothing_else_is() -> None:
    subject = reading(declared("drop: [pid, req.headers, '\"a.b\"']"))
    good, _ = standardized(
        subject,
        [b'{"pid":1,"req":{"headers":{"a":1,"b":2},"url":"/"},"a":{"b":5},"a.b":6,"pid2":7}'] * AGAIN,
        FROM_SHOP,
    )
    for _, line in good:
        record = msgspec.json.decode(line, type=Record)
        assert record.attributes == {"req.url": "/", "a.b": 5, "pid2": 7, "sluice.mapping": "m@1"}
    assert subject.mapped() == ({"m": AGAIN}, {"m": 4 * AGAIN})
    assert subject.mapped() == ({}, {})


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        ("format: epoch_s", 1773735300, "2026-03-17T08:15:00Z"),
        ("format: epoch_s", "1773735300", "2026-03-17T08:15:00Z"),
        ("format: epoch_s", "1773735300.1239", "2026-03-17T08:15:00.123900Z"),
        ("format: epoch_ms", " 1773735300123.25 ", "2026-03-17T08:15:00.123250Z"),
        ("format: epoch_us", 1773735300123456, "2026-03-17T08:15:00.123456Z"),
        ("format: epoch_ns", 1773735300123456789, "2026-03-17T08:15:00.123456789Z"),
        ("zone: Europe/Paris", "2026-03-17 09:15:00", "2026-03-17T08:15:00Z"),
        ("zone: Europe/Paris", "2026-07-17 10:15:00.25", "2026-07-17T08:15:00.250Z"),
        ("zone: Europe/Paris", "2026-03-17T09:15:00+09:00", "2026-03-17T00:15:00Z"),
        ("zone: Europe/Paris", "2026-03-17T09:15:00Z", "2026-03-17T09:15:00Z"),
        ("zone: Europe/Paris", "2026-03-17", "2026-03-16T23:00:00Z"),
        ("zone: Europe/Paris", "20260317", "2026-03-16T23:00:00Z"),
        ("zone: Europe/Paris", " 1773735300.5", "2026-03-17T08:15:00.500Z"),
        ("zone: Europe/Paris", "2026-10-25 02:30:00", "2026-10-25T00:30:00Z"),  # comes twice
        ("zone: Europe/Paris", "2026-03-29 02:30:00", "2026-03-29T01:30:00Z"),  # never comes
        ("{format: '%d.%m.%Y %H:%M', zone: Europe/Paris}", "25.10.2026 02:30", "2026-10-25T00:30:00Z"),
        ("zone: Europe/Paris", "1773735300", "2026-03-17T08:15:00Z"),
        ("format: '%m/%d/%Y %I:%M:%S %p'", "03/17/2026 08:15:09 PM", "2026-03-17T20:15:09Z"),
        ("format: '%m/%d/%Y %I:%M %p'", "03/17/2026 12:15 AM", "2026-03-17T00:15:00Z"),
        ("format: '%d %b %y %H:%M:%S,%f'", "17 Mar 26 08:15:00,1234567899", "2026-03-17T08:15:00.123456789Z"),
        ("format: '%Y%m%d%H%M%S'", 20260317081500, "2026-03-17T08:15:00Z"),
        ("format: '%Y-%jT%H:%M:%S%z'", "2026-076T08:15:00+0100", "2026-03-17T07:15:00Z"),
        ("{format: '%d.%m.%Y %H:%M', zone: Asia/Kolkata}", "17.03.2026 08:15", "2026-03-17T02:45:00Z"),
        ("format: '%Y-%m-%d \t %H:%M  100%% %%'", "2026-03-17 08:15 \t 100% %", "2026-03-17T08:15:00Z"),
    ],
)
def test_times_are_read_as_the_mapping_says(how: str, value: Any, expected: str) -> None:
    inner = how.strip("{}")
    subject = reading(declared(f"fields: {{timestamp: {{from: at, {inner}}}}}"))
    assert record_of(subject, {"at": value}).timestamp == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timestamp: {from: x, format: epoch_ms}", "yesterday"),
        ("timestamp: {from: x, format: epoch_ms}", "2026-03-17T08:15:00Z"),
        ("timestamp: {from: x, format: epoch_s}", "1773735300.1.2"),
        ("timestamp: {from: x, format: epoch_s}", "."),
        ("timestamp: {from: x, format: epoch_s}", "9" * 128),
        ("timestamp: {from: x, format: epoch_s}", "20260317"),
        ("timestamp: {from: x, format: '%d/%m/%Y'}", "2026-03-17"),
        ("timestamp: {from: x, format: '%d/%m/%Y'}", "31/02/2026"),
        ("timestamp: {from: x, format: '%d/%m/%Y'}", "01/01/1970"),
        ("timestamp: {from: x, format: '%Y-%j'}", "9999-999"),
        ("timestamp: {from: x, format: '%Y-%j'}", "9999-366"),
        ("timestamp: {from: x, zone: Europe/Paris}", "03/17/2026 08:00:00"),
        ("duration_s: {from: x, unit: ms}", -1),
        ("severity: {from: x, words: {loud: ERROR}}", "quiet"),
        ("rows: x", [1]),
    ],
)
def test_what_a_mapping_names_and_cannot_read_makes_a_dead_letter_that_says_so(field: str, value: Any) -> None:
    bad = rejection_of(reading(declared(f"fields: {{{field}}}")), {"x": value, "y": 1})
    assert bad.reason == Reason.INVALID_FIELD
    assert bad.detail.startswith("mapping m@1: x is ")
    assert "accepted: " in bad.detail


def test_a_format_of_many_spaces_is_no_slower_at_a_text_of_many_spaces() -> None:
    read = dates.of_format(f"%Y{' ' * 20}%m-%d", "UTC")
    began = time.process_time()
    with pytest.raises(Unreadable):
        read(f"2026{' ' * 100}03")
    assert time.process_time() - began < 1  # each space on its own would take years


def test_what_cannot_be_read_may_be_declared_to_be_an_attribute() -> None:
    subject = reading(declared("fields: {severity: {from: [x, y], unreadable: attribute}}"))
    record = record_of(subject, {"x": "quiet", "y": "ERROR"})
    assert (record.severity_text, record.attributes["x"]) == ("ERROR", "quiet")


def test_without_what_is_required_there_is_no_record() -> None:
    subject = reading(declared("fields: {timestamp: {from: [a, b.c], required: true}}"))
    for entry in ({"x": 1}, {"a": None}, {"a": "N/A", "b": {"c": ""}}):
        bad = rejection_of(subject, entry)
        assert bad.reason == Reason.INVALID_FIELD
        assert bad.detail == "mapping m@1: timestamp is required, and a or b.c has no value"
    assert record_of(subject, {"a": None, "b": {"c": "2026-03-17"}}).timestamp == "2026-03-17T00:00:00Z"


# which entries a mapping is for


def test_a_mapping_is_for_its_sources_declared_or_named_by_the_entry() -> None:
    subject = reading(declared("attributes: {hit: {value: true}}", sources='shop, "till-*"'))
    assert "hit" in record_of(subject, {"x": 1}, replace(ARRIVAL, source="shop")).attributes
    assert "hit" in record_of(subject, {"source": "till-7"}, ARRIVAL).attributes
    assert "hit" in record_of(subject, {"source": None, "app": "shop"}, replace(ARRIVAL, source="z")).attributes
    assert "hit" not in record_of(subject, {"source": "z"}, ARRIVAL).attributes
    assert "hit" not in record_of(subject, {"x": 1}, ARRIVAL).attributes


def test_in_the_name_of_a_source_only_stars_and_question_marks_are_more_than_themselves() -> None:
    subject = reading(declared("drop: [x]", sources='"api-[x]", "web[!1]-?"'))
    found = {
        name: record_of(subject, {"source": name}, ARRIVAL).attributes.get("sluice.mapping")
        for name in ("api-[x]", "api-x", "web[!1]-7", "web2-7", "web[!1]-77")
    }
    assert found == {"api-[x]": "m@1", "api-x": None, "web[!1]-7": "m@1", "web2-7": None, "web[!1]-77": None}


def test_where_a_mapping_says_what_the_source_is_its_sources_are_looked_for_there() -> None:
    subject = reading(declared("fields: {service_name: name}"))
    assert record_of(subject, {"name": "shop"}, ARRIVAL).service_name == "shop"
    assert record_of(subject, {"name": "z"}, ARRIVAL).event_name == "z"


@pytest.mark.parametrize(
    ("condition", "entry", "holds"),
    [
        ("v: 0", {"v": 0}, True),
        ("v: 0", {"v": 0.0}, True),
        ("v: 0", {"v": False}, False),
        ("v: 0", {"v": "0"}, False),
        ("v: 0", {}, False),
        ("v: true", {"v": 1}, False),
        ("v: true", {"v": True}, True),
        ("v: [a, b]", {"v": "b"}, True),
        ("v: null", {"v": None}, True),
        ("v: null", {}, False),
        ("a.b: x", {"a": {"b": "x"}}, True),
        ("a.b: x", {"a.b": "x"}, False),
        ("'\"a.b\"': x", {"a.b": "x"}, True),
        ("a: {exists: true}", {"a": {"b": 1}}, True),
        ("a: {exists: true}", {"b": 1}, False),
        ("a: {exists: false}", {"b": 1}, True),
        ("{v: 1, w: 2}", {"v": 1, "w": 2}, True),
        ("{v: 1, w: 2}", {"v": 1, "w": 3}, False),
    ],
)
def test_a_mapping_is_for_entries_of_which_its_conditions_hold(
    condition: str, entry: dict[str, Any], holds: bool
) -> None:
    inner = condition if condition.startswith("{v") else f"{{{condition}}}"
    subject = reading(declared(f"when: {inner}"))
    assert ("sluice.mapping" in record_of(subject, entry | {"z": 1}).attributes) is holds


def test_equal_numbers_and_truth_values_are_told_apart_in_one_shape() -> None:
    subject = reading(declared("when: {v: 1}"))
    lines = [b'{"v":1}', b'{"v":true}', b'{"v":1.0}', b'{"v":2}'] * AGAIN
    good, _ = standardized(subject, lines, FROM_SHOP)
    found = ["sluice.mapping" in json.loads(line)["attributes"] for _, line in good]
    assert found == [True, False, True, False] * AGAIN


def test_the_first_mapping_that_fits_is_the_one() -> None:
    subject = reading(declared("when: {k: a}", "first"), declared("when: {k: [a, b]}", "second"))
    made = [record_of(subject, {"k": k}).attributes.get("sluice.mapping") for k in "abc"]
    assert made == ["first@1", "second@1", None]


def test_entries_of_several_mappings_keep_their_order_within_a_batch() -> None:
    subject = reading(
        declared("fields: {duration_s: {from: took1, unit: ms}}\nwhen: {k: a}", "first"),
        declared("fields: {duration_s: {from: took1, unit: min}}\nwhen: {k: b}", "second"),
    )
    lines = [json.dumps({"k": "abc"[n % 3], "took1": n if n % 7 else "?"}).encode() for n in range(40)]
    expected: list[Any] = [
        ("bad", n) if not n % 7 and n % 3 < 2 else [n / 1000, n * 60.0, None][n % 3] for n in range(40)
    ]
    for _ in range(3):
        good, rejected = standardized(subject, lines, FROM_SHOP)
        found: list[Any] = [("bad", n) for n in range(40)]
        assert [json.loads(line)["record_id"] for _, line in good] == [
            f"0badcafe-3-17-{n}" for n, one in enumerate(expected) if one != ("bad", n)
        ]
        for _, line in good:
            record = msgspec.json.decode(line, type=Record)
            found[int(record.record_id.rpartition("-")[2])] = record.duration_s
        assert found == expected
        assert [bad.index for bad in rejected] == [n for n, one in enumerate(expected) if one == ("bad", n)]


def test_declared_words_are_remembered_once_and_not_for_each_shape() -> None:
    subject = reading(declared("fields: {outcome: {from: end, words: {fine: success}}}"))

    def read(shapes: range) -> None:
        for shape in shapes:
            lines = [json.dumps({"end": f"{n:064}", f"k{shape}": 1}).encode() for n in range(1_000)]
            assert len(standardized(subject, lines, FROM_SHOP)[0]) == len(lines)

    read(range(1))
    assert grown(lambda: read(range(1, 31))) < 2 << 20


def test_an_entry_does_not_choose_how_much_is_remembered_of_its_sources() -> None:
    """A hundred of its keys may name its source, each with a text that never comes again."""
    subject = reading(declared("drop: [x]"))
    names = ("source", "service", "system", "application", "app", "component", "program", "appname", "servicename")
    wrappers = ("meta", "metadata", "fields", "data", "event", "log", "result", "run", "job", "stats", "context")

    def read(shapes: range) -> None:
        for shape in shapes:
            named = [dict.fromkeys(names, f"{n:060}") for n in range(200)]
            lines = [json.dumps(dict.fromkeys(wrappers, one) | {f"k{shape}": 1}).encode() for one in named]
            assert len(standardized(subject, lines, FROM_SHOP)[0]) == len(lines)

    read(range(1))
    assert grown(lambda: read(range(1, 6))) < 3 << 20


def test_entries_of_formats_of_text_are_mapped_too() -> None:
    subject = reading(declared("fields: {duration_s: {from: lag, unit: ms}}"))
    good, _ = standardized(subject, [b"level=info msg=hello lag=20"], FROM_SHOP, "text/plain")
    record = msgspec.json.decode(good[0][1], type=Record)
    assert (record.duration_s, record.attributes["sluice.mapping"]) == (0.02, "m@1")


def test_a_new_set_of_mappings_holds_from_the_next_call() -> None:
    subject = reading(declared("fields: {duration_s: {from: x, unit: ms}}"))
    assert record_of(subject, {"x": 60}).duration_s == 0.06
    subject.use(read_mappings({"a": declared("fields: {duration_s: {from: x, unit: min}}")}))
    assert record_of(subject, {"x": 60}).duration_s == 3600
    subject.use(read_mappings({}))
    assert record_of(subject, {"x": 60}).duration_s is None


# what is no mapping


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 1, "version: is missing"),
        ("version: 2\n", 1, "version: input should be 1"),
        ("- a\n", 1, "is keys with values"),
        ("version: 1\nmappings: [\n", 3, "no YAML"),
        ("version: 1\nversion: 1\n", 2, "'version' comes twice"),
        ("version: 1\nmappings: !!python/object:os.system []\n", 2, "no tags here"),
        ("version: 1\nmappings: &a [*a]\n", 2, "too deep"),
        ("version: 1\nmapings: []\n", 2, "there is no such key"),
        ("version: 1\nmappings:\n  - name: a b\n    revision: 1\n    sources: x\n", 3, "name: string should match"),
        ("version: 1\nmappings:\n  - name: a\n    sources: x\n", 3, "revision: is missing"),
        ("version: 1\nmappings:\n  - name: a\n    revisoin: 1\n    sources: x\n", 4, "revisoin: there is no such key"),
        ("version: 1\nmappings:\n  - name: a\n    revision: 1\n", 3, "which entries it is for"),
        (declared("fields:\n  body: a..b"), 7, "'a..b' is no path"),
        (declared("fields:\n  body: [a, b.]"), 7, "'b.' is no path"),
        (declared("fields:\n  body:"), 7, "says nothing"),
        (declared("fields:\n  bodi: a"), 7, "there is no such key"),
        (declared("fields:\n  body: {from: a, value: b}"), 7, "one of the two"),
        (declared("fields:\n  body: {default: b}"), 7, "one of the two"),
        (declared("fields:\n  rows: {value: 1.5}"), 7, "a constant is not a whole number"),
        (declared("fields:\n  severity: {from: a, default: lout}"), 7, "a constant is not a severity such as INFO"),
        (declared("fields:\n  outcome: {value: sucess}"), 7, "a constant is not one of success, failure, timeout"),
        (declared("fields:\n  outcome: {from: a, default: 700}"), 7, "a constant is not one of success, failure"),
        (declared("fields:\n  outcome: {value: n/a}"), 7, "says that there is no value; write null"),
        (declared("fields:\n  service_name: {from: a, default: ''}"), 7, "says that there is no value; write null"),
        (declared("fields:\n  duration_s:\n    from: a\n    unit: fortnight"), 9, "no unit of a duration"),
        (declared("fields:\n  memory_bytes:\n    from: a\n    unit: ms"), 9, "no unit of a size"),
        (declared("fields:\n  timestamp:\n    from: a\n    zone: Mars/Base"), 9, "no time zone 'Mars/Base'"),
        (declared("fields:\n  timestamp:\n    from: a\n    zone: ../../etc/passwd"), 9, "no time zone"),
        (declared("fields:\n  timestamp: {from: a, format: epoch_s, zone: UTC}"), 7, "in no zone"),
        (declared("fields:\n  timestamp:\n    from: a\n    format: '%H:%M'"), 9, "the year, the month and the day"),
        (declared("fields:\n  timestamp:\n    from: a\n    format: '%Y-%m-%d %q'"), 9, "%q is no directive"),
        (declared("fields:\n  timestamp:\n    from: a\n    format: '%Y-%m-%d %y-%Y'"), 9, "a second time"),
        (declared("fields:\n  timestamp:\n    from: a\n    format: '%Y-%m-%d %a%a'"), 9, "a second time"),
        (declared("fields:\n  outcome:\n    from: a\n    words:\n      OK: fine"), 10, "input should be 'success'"),
        (declared("fields:\n  severity:\n    from: a\n    words:\n      10: 25"), 10, "25 is no severity number"),
        (declared("fields:\n  severity:\n    from: a\n    words:\n      10: lout"), 10, "'lout' is no severity"),
        *(
            (declared(f"fields:\n  severity:\n    from: a\n    words:\n      x: {level}"), 10, "a severity is a word")
            for level in ("", "true", "1.5", "[ERROR]", "{is: ERROR}")
        ),
        (declared("fields:\n  body: {from: a, required: true, default: b}"), 7, "needs no default"),
        (declared("fields: {body: a.b}\ndrop:\n  - c\n  - a"), 9, "a is dropped, and used above"),
        (declared("attributes:\n  sluice.mapping: a"), 7, "is ours"),
        (declared("attributes:\n  a: {value: 99999999999999999999}"), 7, "beyond 64 bit"),
        (declared("when:\n  a: {exists: yes}"), 7, "valid boolean"),
        ("version: 1\n# \x01\n", 2, "special characters"),
        (declared('attributes:\n  a: {value: "\\ud800"}'), 7, "half a character"),
        (declared('attributes:\n  "\\udc00": x'), 7, "half a character"),
    ],
)
def test_a_bad_declaration_is_refused_with_its_line(text: str, line: int, told: str) -> None:
    found = refused(text)
    assert found.startswith(f"mappings.yml, line {line}: "), found
    assert told in found


def test_there_are_not_more_mappings_than_can_be_tried_for_each_entry() -> None:
    files = {f"{n}.yml": declared("drop: [x]", f"m{n}") for n in range(201)}
    with pytest.raises(DeclarationError, match="over 200 mappings in all; declare fewer"):
        read_mappings(files)
    del files["0.yml"]
    assert len(read_mappings(files)) == 200


def test_names_are_unique_over_all_files() -> None:
    with pytest.raises(DeclarationError, match=r"b\.yml, line 3: .*'m' is declared in a\.yml, line 3, too"):
        read_mappings({"b.yml": declared("drop: [x]"), "a.yml": declared("drop: [y]")})


def test_words_that_older_yaml_takes_for_truth_values_are_words() -> None:
    subject = reading(declared("fields: {outcome: {from: end, words: {no: success, on: failure, 12:30: timeout}}}"))
    assert [record_of(subject, {"end": end}).outcome for end in ("no", "ON", "12:30")] == [
        "success", "failure", "timeout",
    ]  # fmt: skip


def test_a_change_of_what_is_declared_changes_the_digest_and_a_comment_does_not() -> None:
    (one,), (same,), (other,) = (
        read_mappings({"a": text})
        for text in (declared("drop: [x]"), "# a comment\n" + declared("drop: ['x']"), declared("drop: [y]"))
    )
    assert one.digest == same.digest != other.digest


def test_a_mapping_may_ask_for_the_template_of_the_message() -> None:
    subject = reading(
        declared("fields: {body: said}\ntemplate: true", "asks", "shop"), declared("drop: [q]", "quiet", "till")
    )
    record = record_of(subject, {"said": "user 7 of a@b.example logged in"})
    assert record.attributes["log_template"] == "user <*> of <*> logged in"
    assert "log_template" not in record_of(subject, {"said": 7}, replace(ARRIVAL, source="till")).attributes
    assert "log_template" not in record_of(subject, {"said": " "}).attributes
    assert record_of(subject, {"said": "a b", "log_template": "mine"}).attributes["log_template"] == "mine"


def test_the_template_of_a_message_holds_no_secret() -> None:
    subject = Standardizer(
        1 << 20, 1 << 20, redaction=Redaction(GROUPS), mappings=read_mappings({"a": declared("template: true")})
    )
    record = record_of(subject, {"message": "sent to anna.b@c.example today"})
    assert record.body == "sent to [redacted:email] today"
    assert "c.example" not in json.dumps(record.attributes)


# the page


def _examples() -> list[tuple[str, bytes, bytes]]:
    """Each mapping of the page, an entry, and the record that the page says it becomes."""
    blocks = re.findall(r"^```(yaml|json)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["yaml", "json", "json"] * 2
    texts = [text for _, text in blocks]
    return [
        (texts[at], texts[at + 1].strip().encode(), texts[at + 2].strip().encode()) for at in range(0, len(texts), 3)
    ]


@pytest.mark.parametrize(("mapping", "entry", "expected"), _examples())
def test_the_examples_of_the_page_make_the_records_that_it_shows(mapping: str, entry: bytes, expected: bytes) -> None:
    subject = Standardizer(1 << 20, 1 << 20, mappings=read_mappings({"page": mapping}))
    for _ in range(AGAIN):
        good, rejected = standardized(subject, [entry])
        assert not rejected
        assert json.loads(good[0][1]) == json.loads(expected)


def test_every_field_and_every_key_of_a_mapping_is_on_the_page() -> None:
    page = PAGE.read_text()
    for model in (mappings._Mapping, mappings._Fields, mappings._Time, mappings._Duration, mappings._Outcome):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in page


def test_what_comes_by_otlp_gets_templates_by_the_mapping_that_the_page_shows() -> None:
    shown = re.search(r"^    version: 1\n(?:    .*\n)+", PAGE.read_text(), re.MULTILINE)
    assert shown is not None
    subject = reading(textwrap.dedent(shown[0]))
    entry = {"timestamp_unix_nano": 1773735300123456789, "severity_number": 9, "body": "user 7 logged in"}
    record = record_of(subject, entry, ARRIVAL)
    assert record.attributes["log_template"] == "user <*> logged in"
    assert record_of(subject, {"message": "user 8 left"}, ARRIVAL).attributes["log_template"] == "user <*> left"
