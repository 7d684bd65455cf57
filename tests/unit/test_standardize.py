"""Entries become records, or dead letters that say why; nothing that the source said is lost."""

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shared.errors import Reason
from shared.records import Record
from standardization.formats.json import _Shape
from standardization.refused import Refused
from standardization.standardize import Arrival, Rejected, Standardizer
from tests.standardizing import ARRIVAL, NDJSON, PLACE, standardized

AGAIN = 5  # more often than a shape needs to get its struct


def standardizer(parse_max_bytes: int = 1 << 20, record_max_bytes: int = 16 << 10) -> Standardizer:
    return Standardizer(parse_max_bytes, record_max_bytes)


def record_of(
    entry: dict[str, Any] | bytes,
    arrival: Arrival = ARRIVAL,
    subject: Standardizer | None = None,
    content_type: str | None = NDJSON,
) -> Record:
    """The record of one entry, which is the same the first time and when its shape has become known."""
    line = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    subject = subject or standardizer()
    found = []
    for _ in range(AGAIN):
        good, rejected = standardized(subject, [line], arrival, content_type)
        assert not rejected
        found.append(good[0][1])
    assert set(found) == {found[0]}
    return msgspec.json.decode(found[0], type=Record)


def rejection_of(line: bytes, content_type: str | None = NDJSON) -> Rejected:
    good, rejected = standardized(standardizer(), [line], content_type=content_type)
    assert not good
    assert rejected[0].value == line
    assert len(rejected[0].detail) <= 300
    return rejected[0]


def test_an_entry_in_its_plainest_form_fills_the_record() -> None:
    entry = {
        "source": "sharepoint_graph", "api": "Sites", "status": "FAILED", "timestamp": "2026-03-17T08:15:00.5+01:00",
        "duration_seconds": 1.5, "memory_bytes": 1024, "rows": 3, "message": "no access", "tenant": "acme",
    }  # fmt: skip
    assert record_of(entry, replace(ARRIVAL, run_id="r1", origin="0badcafe-0-1-0")) == Record(
        record_id="0badcafe-3-17-0",
        timestamp="2026-03-17T07:15:00.500Z",
        observed_timestamp="2026-03-17T09:00:00Z",
        service_name="sharepoint_graph",
        event_name="Sites",
        outcome="failure",
        run_id="r1",
        origin="0badcafe-0-1-0",
        severity_number=17,
        severity_text="ERROR",
        body="no access",
        duration_s=1.5,
        memory_bytes=1024,
        rows=3,
        attributes={"tenant": "acme"},
    )


def test_the_key_is_the_series_and_the_line_begins_with_the_record_id() -> None:
    good, _ = standardized(standardizer(), [b'{"source":"s","api":"a"}', b'{"source":"s","api":"b"}'])
    assert [key for key, _ in good] == [b"s/a", b"s/b"]
    assert [line.startswith(b'{"record_id":"0badcafe-3-17-%d",' % n) for n, (_, line) in enumerate(good)] == [
        True,
        True,
    ]
    assert all(line.endswith(b"}") and b"\n" not in line for _, line in good)


def test_an_entry_without_names_has_the_declared_source_and_the_time_it_was_seen() -> None:
    record = record_of({"x": 1}, replace(ARRIVAL, source="crm"))
    assert (record.service_name, record.event_name, record.outcome) == ("crm", "unknown", "unknown")
    assert record.timestamp == ARRIVAL.observed_timestamp
    assert (record.severity_number, record.severity_text) == (9, "INFO")
    assert record_of({"x": 1}).service_name == "unknown"


def test_the_entrys_own_source_wins_and_the_declared_one_goes_to_resource() -> None:
    arrival = replace(ARRIVAL, source="crm")
    record = record_of({"source": "erp", "resource": {"sluice.source": "mine"}}, arrival)
    assert record.service_name == "erp"
    assert record.resource == {"sluice.source": "mine", "sluice.source#2": "crm"}
    assert record_of({"source": "crm"}, arrival).resource == {}


def test_what_fits_no_field_keeps_its_name_and_its_type() -> None:
    entry = {"a": {"b": 1, "c": {"d": None}}, "a.b": "two", "list": [1, {"k": "v"}], "none": {}, "t": True, "f": 1.5}
    assert record_of(entry).attributes == {
        "a.b": 1, "a.c.d": None, "a.b#2": "two", "list": '[1,{"k":"v"}]', "none": "{}", "t": True, "f": 1.5,
    }  # fmt: skip


def test_a_name_with_a_suffix_does_not_hide_one_that_really_is_so_called() -> None:
    assert record_of({"a": {"b": 1}, "a.b": 2, "a.b#2": 3}).attributes == {"a.b": 1, "a.b#2": 2, "a.b#2#2": 3}


def test_integers_beyond_64_bit_are_kept_as_text() -> None:
    attributes = record_of({"big": 2**63, "small": -(2**63) - 1, "most": 2**63 - 1}).attributes
    assert attributes == {"big": "9223372036854775808", "small": "-9223372036854775809", "most": 2**63 - 1}


def test_the_loser_of_a_role_goes_to_attributes() -> None:
    record = record_of({"duration_ms": 1500, "duration": 9, "elapsed": 7})
    assert record.duration_s == 1.5
    assert record.attributes == {"duration": 9, "elapsed": 7}


@pytest.mark.parametrize("blank", [None, "", "N/A", 9223372036854775794])
def test_a_blank_gives_way_to_the_next_name_of_its_role(blank: Any) -> None:
    record = record_of({"duration_ms": blank, "elapsed": 7})
    assert record.duration_s == 7
    assert record.attributes == {"duration_ms": blank}


def test_a_blank_alone_is_null() -> None:
    record = record_of({"duration": "-", "memory": 9223372036854775794, "source": "n/a", "timestamp": None})
    assert (record.duration_s, record.memory_bytes, record.service_name) == (None, None, "unknown")
    assert record.timestamp == ARRIVAL.observed_timestamp
    assert record.attributes == {}


def test_a_name_that_only_looked_like_a_field_goes_to_attributes() -> None:
    record = record_of({"time": "late", "size": "XL", "level": 30, "records": [1], "trace_id": "abc"})
    assert record.timestamp == ARRIVAL.observed_timestamp
    assert record.attributes == {"time": "late", "size": "XL", "level": 30, "records": "[1]", "trace_id": "abc"}


def test_an_unknown_word_of_outcome_gives_way_to_one_that_is_known() -> None:
    record = record_of({"status": "half", "result": "ok"})
    assert (record.outcome, record.attributes) == ("success", {"status": "half"})
    record = record_of({"status": "half"})
    assert (record.outcome, record.attributes) == ("unknown", {"status": "half"})


def test_a_code_stays_beside_the_outcome() -> None:
    record = record_of({"http": {"status_code": 404}, "http.status_code": "x"})
    assert record.outcome == "failure"
    assert record.attributes == {"http.status_code": "x", "http.status_code#2": 404}


def test_severity_number_and_text_may_come_together() -> None:
    record = record_of({"severity_number": 14, "severity_text": "warn"})
    assert (record.severity_number, record.severity_text) == (14, "warn")


@pytest.mark.parametrize(
    ("outcome", "severity"), [("timeout", (17, "ERROR")), ("cancelled", (13, "WARN")), ("ok", (9, "INFO"))]
)
def test_without_a_severity_the_outcome_says_it(outcome: str, severity: tuple[int, str]) -> None:
    record = record_of({"status": outcome})
    assert (record.severity_number, record.severity_text) == severity


def test_where_an_entry_comes_from_goes_to_resource_under_opentelemetry_names() -> None:
    entry = {"host": "h1", "hostname": "h2", "env": "prod", "k8s": {"pod": {"name": "p"}}, "service.version": "1.2"}
    record = record_of({**entry, "resource": {"attributes": {"cloud.zone": "b", "service.name": "api"}}})
    assert record.service_name == "api"
    assert record.resource == {
        "host.name": "h1", "deployment.environment.name": "prod", "k8s.pod.name": "p", "service.version": "1.2",
        "cloud.zone": "b",
    }  # fmt: skip
    assert record.attributes == {"hostname": "h2"}


def test_a_message_may_be_of_any_type() -> None:
    assert record_of({"message": 5}).body == "5"
    assert record_of({"message": False}).body == "false"
    assert record_of({"message": ["a"]}).body == '["a"]'
    assert record_of({"message": "-"}).body == "-"


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"a":1', Reason.MALFORMED_JSON, "byte 6"),
        (b'{"a":tru}', Reason.MALFORMED_JSON, "byte"),
        (b'{"a":1} {"b":2}', Reason.MALFORMED_JSON, "byte 8"),
        (b'{"a":"\\ud800"}', Reason.MALFORMED_JSON, "byte"),
        (b"plain text", Reason.MALFORMED_JSON, "byte 0"),
        (b'{"a":"\xff"}', Reason.INVALID_UTF8, "byte 6 (0xff)"),
        (b'{"\xff":1}', Reason.INVALID_UTF8, "byte 2"),
        (b"\xff\xfe", Reason.INVALID_UTF8, "byte 0"),
        (b'{"a":"\xed\xa0\x80"}', Reason.INVALID_UTF8, "byte 6"),
        (b'{"a":NaN}', Reason.NUMBER_OUT_OF_RANGE, "byte 5"),
        (b'{"a":-Infinity}', Reason.NUMBER_OUT_OF_RANGE, "byte 6"),
        (b'{"a":1e999}', Reason.NUMBER_OUT_OF_RANGE, "double"),
        (b'{"a":' + b"9" * 5000 + b"}", Reason.NUMBER_OUT_OF_RANGE, "text"),
        (b'{"a":' * 64 + b"1" + b"}" * 64, None, ""),
        (b'{"a":' * 65 + b"1" + b"}" * 65, Reason.NESTED_TOO_DEEPLY, "64"),
        (b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", None, ""),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", Reason.NESTED_TOO_DEEPLY, "64"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", Reason.NESTED_TOO_DEEPLY, "64"),
        (b"[1]", Reason.NOT_AN_OBJECT, "an array"),
        (b'"text"', Reason.NOT_AN_OBJECT, "a string"),
        (b"5", Reason.NOT_AN_OBJECT, "a number"),
        (b"null", Reason.NOT_AN_OBJECT, "null"),
        (b'{"a":1,"a":1}', Reason.DUPLICATE_KEY, "'a'"),
        (b'{"a":1,"a" \t:1}', Reason.DUPLICATE_KEY, "'a'"),
        (b'{"b":":","a":1,"a" :1}', Reason.DUPLICATE_KEY, "'a'"),
        (b'{"a":"x","\\u0061":[1,2]}', Reason.DUPLICATE_KEY, "'a'"),
        (b'{"n":{"a":1,"a":{"b":2}}}', Reason.DUPLICATE_KEY, "'a'"),
        (b'{"n":[{"a":1,"a":2}]}', Reason.DUPLICATE_KEY, "'a'"),
        (b'{"a":"\\"","b":1,"b":2}', Reason.DUPLICATE_KEY, "'b'"),
        (b'{"a":"\\\\","b":1,"b":2}', Reason.DUPLICATE_KEY, "'b'"),
        (b'{"duration":"soon"}', Reason.INVALID_FIELD, "duration is 'soon'; accepted: a duration"),
        (b'{"memory_bytes":-1}', Reason.INVALID_FIELD, "memory_bytes is -1"),
        (b'{"timestamp":"yesterday"}', Reason.INVALID_FIELD, "day first"),
        (b'{"metrics":{"duration_ms":true}}', Reason.INVALID_FIELD, "metrics.duration_ms is True"),
        (b'{"source":["a"]}', Reason.INVALID_FIELD, "source"),
    ],
)
def test_garbage_is_refused_with_its_reason(line: bytes, reason: Reason | None, detail: str) -> None:
    if reason is None:
        record_of(line)
        return
    rejected = rejection_of(line)
    assert rejected.reason is reason
    assert detail in rejected.detail


def test_a_refusal_never_shows_a_whole_long_value() -> None:
    secret = "x" * 1000
    rejected = rejection_of(json.dumps({"duration": secret}).encode())
    assert "x" * 61 not in rejected.detail


@pytest.mark.parametrize(
    "line",
    [b'{"a":":","b" : "c"}', b'{"a":"\\"a\\":1","b":2}', b'{"a":"\\\\","b":"\\\\\\""}', b' { "a" : "\\u0022" } ',
     b'{"":1}', b'\xef\xbb\xbf{"a":1}', b'{"a\\"b":"c\\\\"}', b'{"\\u0061":1}'],
)  # fmt: skip
def test_odd_but_correct_json_is_taken(line: bytes) -> None:
    entry = json.loads(line.decode("utf-8-sig"))
    assert record_of(line).attributes == entry


def test_a_duplicate_key_is_found_in_a_shape_that_is_known() -> None:
    subject = standardizer()
    record_of(b'{"a":"x","b":1}', subject=subject)
    for line in (b'{"a":"x","b":1,"b":2}', b'{"a":"x","b":1,"b" :2}', b'{"b":1,"b":2}', b'{"a":"x","a":"y","b":1}'):
        assert standardized(subject, [line])[1][0].reason is Reason.DUPLICATE_KEY


def test_garbage_is_found_in_a_shape_that_is_known() -> None:
    subject = standardizer()
    record_of(b'{"a":"x","duration":1}', subject=subject)
    for line, reason in (
        (b'{"a":"\xff","duration":1}', Reason.INVALID_UTF8),
        (b'{"a":"x","duration":1e999}', Reason.NUMBER_OUT_OF_RANGE),
        (b'{"a":"x","duration":-1}', Reason.INVALID_FIELD),
        (b'{"a":"x","duration":1', Reason.MALFORMED_JSON),
        (b'{"a":"x","duration":1}}', Reason.MALFORMED_JSON),
    ):
        assert standardized(subject, [line])[1][0].reason is reason


def test_a_known_shape_with_other_types_and_orders_is_read_all_the_same() -> None:
    subject = standardizer()
    record_of(b'{"a":"x","b":1,"c":2}', subject=subject)
    for line in (
        b'{"a":"x","c":2,"b":1}',
        b'{"a":1,"b":"x","c":2}',
        b'{"a":"x","b":1,"d":2}',
        b'{"a":"\\"","b":1,"c":null}',
    ):
        assert record_of(line, subject=subject).attributes == json.loads(line)
        assert record_of(line).attributes == json.loads(line)


def test_good_and_bad_entries_of_a_frame_are_told_apart_by_index() -> None:
    good, rejected = standardized(standardizer(), [b'{"a":1}', b"{", b'{"a":2}', b"[]"])
    assert [json.loads(line)["record_id"] for _, line in good] == ["0badcafe-3-17-0", "0badcafe-3-17-2"]
    assert [(bad.index, bad.reason) for bad in rejected] == [(1, Reason.MALFORMED_JSON), (3, Reason.NOT_AN_OBJECT)]


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", None, "application/octet-stream"])
def test_text_becomes_a_record_whose_body_it_is(content_type: str | None) -> None:
    arrival = replace(ARRIVAL, source="cron", run_id="r")
    record = record_of(b"[warning] disk is 91 % full\n  on /var", arrival, content_type=content_type)
    assert record.body == "[warning] disk is 91 % full\n  on /var"
    assert (record.service_name, record.event_name, record.outcome) == ("cron", "unknown", "unknown")
    assert (record.severity_number, record.severity_text, record.run_id) == (13, "warning", "r")
    assert record_of(b"erroneous", arrival, content_type=content_type).severity_number == 9
    assert record_of(b"ERROR: x", arrival, content_type=content_type).severity_number == 17


def test_stated_text_stays_text_even_if_it_is_json() -> None:
    assert record_of(b'{"a":1}', content_type="text/plain").body == '{"a":1}'


def test_text_must_be_utf_8() -> None:
    assert rejection_of(b"caf\xe9", "text/plain").reason is Reason.INVALID_UTF8
    assert rejection_of(b"caf\xe9", None).reason is Reason.INVALID_UTF8


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8", "application/problem+json"])
def test_json_is_read_under_any_type_that_allows_it(content_type: str | None) -> None:
    assert record_of(b'{\n "a": 1\n}', content_type=content_type).attributes == {"a": 1}


def test_without_a_type_what_begins_as_an_object_is_not_taken_for_text() -> None:
    assert rejection_of(b' {"a":1', None).reason is Reason.MALFORMED_JSON
    assert rejection_of(b"[1]", None).reason is Reason.NOT_AN_OBJECT


def test_an_entry_too_large_to_parse_is_recorded_by_its_size() -> None:
    subject = standardizer(parse_max_bytes=1024)
    arrival = replace(ARRIVAL, source="dump", run_id="r")
    [(key, line)] = standardized(subject, [b"{" * 1025], arrival)[0]
    record = msgspec.json.decode(line, type=Record)
    assert key == b"dump/unknown"
    assert (record.record_id, record.original_bytes, record.run_id) == ("0badcafe-3-17-0", 1025, "r")
    assert "1025 bytes" in (record.body or "")
    assert subject.unparsed(1025, f"{PLACE}-0", arrival) == (key, line)


def test_a_large_record_has_its_largest_fields_cut_and_named() -> None:
    line = json.dumps({"message": "m" * 20_000, "note": "n" * 3_000, "small": "s" * 500, "source": "s"}).encode()
    [(_, encoded)] = standardized(standardizer(), [line])[0]
    record = msgspec.json.decode(encoded, type=Record)
    assert 15 << 10 < len(encoded) <= 16 << 10
    assert record.truncated_fields == ("body",)
    assert record.original_bytes == len(line)
    assert ("m" * 20_000).startswith(record.body or "?")
    assert record.attributes == {"note": "n" * 3_000, "small": "s" * 500}


@pytest.mark.parametrize(
    "entry",
    [
        {f"key-{n}": n for n in range(5_000)},
        {"k" * 30_000: 1, "a": 2},
        {"source": "s" * 30_000, "api": "a" * 30_000, "level": "info"},
        {f"key-{n}": "\u0001" * 2_000 for n in range(50)},
        {"n" * 2_000 + str(n): "v" * 2_000 for n in range(50)},
    ],
)
def test_a_record_fits_whatever_makes_it_large(entry: dict[str, Any]) -> None:
    good, rejected = standardized(standardizer(), [json.dumps(entry).encode()])
    assert not rejected
    assert len(good[0][1]) <= 16 << 10
    record = msgspec.json.decode(good[0][1], type=Record)
    assert record.truncated_fields
    assert good[0][0] == f"{record.service_name}/{record.event_name}".encode()


def test_hostile_keys_do_not_fill_the_memory() -> None:
    subject = standardizer()
    most = 0
    for number in range(2_000):
        standardized(subject, [b'{"key-%d":1}' % number] * 3)
        most = max(most, len(subject._json._shapes))
    assert 500 < most < 1_000
    assert sum(map(len, subject._json._guesses.values())) <= most
    assert record_of(b'{"key-1":1}', subject=subject).attributes == {"key-1": 1}


def test_a_huge_shape_is_not_remembered() -> None:
    subject = standardizer()
    standardized(subject, [json.dumps({f"key-{n}": n for n in range(1_000)}).encode(), b'{"%s":1}' % (b"k" * 40_000)])
    assert not subject._json._shapes


def test_names_of_any_length_do_not_fill_the_memory() -> None:
    subject = standardizer()
    standardized(subject, [json.dumps({"source": "s" * 5_000 + str(n), "api": "a"}).encode() for n in range(10)])
    assert not subject._keys


def test_what_gives_way_in_ever_new_ways_does_not_fill_the_memory() -> None:
    subject = standardizer()
    names = ["time", "ts", "date", "start", "level", "lvl", "size", "bytes", "mem", "rss", "took", "items", "lines"]
    for pattern in range(256):
        entry = {name: "-" if pattern >> bit & 1 else "odd" for bit, name in enumerate(names)}
        attributes = record_of(entry, subject=subject).attributes
        assert {name for name, value in entry.items() if value == "odd"} <= attributes.keys()
    (shape,) = subject._json._shapes.values()

    def kept(plan: Any) -> int:
        return 1 + sum(map(kept, plan._without.values()))

    assert kept(shape.plan) <= 1 + 4 + 16 + 64


def test_shapes_that_alternate_come_out_in_the_order_in_which_they_came() -> None:
    subject = standardizer()
    lines = [
        b'{"source":"a","n":%d}' % n if n % 3 else b'{"source":"a","m":"%d"}' % n if n % 2 else b'{"source":%d}' % n
        for n in range(60)
    ]
    good, rejected = standardized(subject, [*lines[:30], b"[]", *lines[30:]])
    assert [bad.index for bad in rejected] == [30]
    numbers = []
    for _, line in good:
        record = msgspec.json.decode(line, type=Record)
        numbers.append(int(record.attributes.get("n") or record.attributes.get("m") or record.service_name))
    assert numbers == list(range(60))


def test_shapes_that_cannot_be_told_apart_beforehand_are_each_read_as_what_they_are() -> None:
    """The same number of quotes and the same beginning: only decoding tells which is which."""
    subject = standardizer()
    lines = [b'{"source":"a","alpha":1}', b'{"source":"a","omega":1}'] * 5
    for _ in range(2):
        good, _ = standardized(subject, lines)
        assert [sorted(msgspec.json.decode(line)["attributes"]) for _, line in good] == [["alpha"], ["omega"]] * 5


def test_what_a_struct_cannot_settle_keeps_its_place_among_those_that_it_can() -> None:
    subject = standardizer()
    lines = [b'{"source":"a","ts":"2026-03-17T08:00:00Z","n":%d}' % n for n in range(9)]
    lines[4] = lines[4].replace(b"2026-03-17T08:00:00Z", b"sometime")  # `ts` is no time here, and becomes an attribute
    for _ in range(2):
        records = [msgspec.json.decode(line, type=Record) for _, line in standardized(subject, lines)[0]]
        assert [record.attributes["n"] for record in records] == list(range(9))
        assert [record.attributes.get("ts") for record in records] == [None] * 4 + ["sometime"] + [None] * 4


def test_a_refusal_keeps_nothing_of_what_led_to_it() -> None:
    """It lives as long as its batch: with its traceback it held five kilobytes of the entry's leaves and values."""
    (refused,) = standardizer()._json.records([b'{"timestamp":"soon"}'], ["id"], [ARRIVAL])
    assert isinstance(refused, Refused)
    assert (refused.__traceback__, refused.__context__) == (None, None)


def test_ever_new_shapes_that_look_alike_are_not_tried_on_each_other_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = 0
    fill = _Shape.fill

    def counted(self: _Shape, found: Any, positions: Any, *others: Any) -> Any:
        nonlocal tried
        tried += len(positions)
        return fill(self, found, positions, *others)

    monkeypatch.setattr(_Shape, "fill", counted)
    lines = [b'{"aaa%06d":1}' % (n // 3) for n in range(240)]  # each shape comes just often enough to get its struct
    good, _ = standardized(standardizer(), lines)
    assert len(good) == 240
    assert tried <= 80 * 240 / 2, "the newest struct alone is tried on the rest"
