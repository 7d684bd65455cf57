"""What holds for any entry: nothing raises, nothing is lost, nothing depends on what was seen before."""

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.records import Record, timestamp_of
from standardization.fields import NUMBER, TEXT, meaning, reader
from standardization.standardize import Standardizer
from standardization.values import is_blank
from tests.standardizing import any_scalar, standardized

LIMIT = 16 << 10

texts = st.text(st.characters(codec="utf-8"), max_size=30)
keys = texts | st.sampled_from([
    "source", "api", "status", "timestamp", "duration", "duration_ms", "memory", "rows", "level", "message", "host",
    "trace_id", "a.b", "a", "b", "metrics", "size", "resource", "service",
])  # fmt: skip
scalars = any_scalar(texts)
entries = st.dictionaries(
    keys,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    ),
    max_size=8,
)


def line_of(entry: Any) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode()


def record_of(subject: Standardizer, line: bytes) -> Record | None:
    good, rejected = standardized(subject, [line])
    assert len(good) + len(rejected) == 1
    return msgspec.json.decode(good[0][1], type=Record) if good else None


@given(
    st.lists(st.binary(max_size=60) | entries.map(line_of) | st.text(max_size=40).map(str.encode), max_size=6),
    st.sampled_from([None, "application/x-ndjson", "application/json", "text/plain", "image/png", ""]),
)
def test_any_bytes_are_accepted_or_rejected_and_never_raise(lines: list[bytes], content_type: str | None) -> None:
    good, rejected = standardized(Standardizer(1 << 20, LIMIT), lines, content_type=content_type)
    assert len(good) + len(rejected) == len(lines)
    indices = {int(json.loads(line)["record_id"].rpartition("-")[2]) for _, line in good} | {
        bad.index for bad in rejected
    }
    assert indices == set(range(len(lines)))
    assert all(len(bad.detail) <= 300 and bad.value == lines[bad.index] for bad in rejected)


@given(entries, st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_entry_never_raises_even_in_a_known_shape(entry: dict[str, Any], at: int, damage: bytes) -> None:
    line = line_of(entry)
    subject = Standardizer(1 << 20, LIMIT)
    standardized(subject, [line] * 4)
    at %= len(line)
    damaged = [line[:at] + damage + line[at:], line[:at] + damage + line[at + 1 :], line[:at]]
    known, fresh = standardized(subject, damaged), standardized(Standardizer(1 << 20, LIMIT), damaged)
    assert known == fresh


@given(entries)
def test_every_line_is_a_record_that_encodes_identically(entry: dict[str, Any]) -> None:
    for _, line in standardized(Standardizer(1 << 20, LIMIT), [line_of(entry)])[0]:
        assert msgspec.json.encode(msgspec.json.decode(line, type=Record)) == line
        assert line.startswith(b'{"record_id":"0badcafe-3-17-0",')


@given(entries)
def test_a_known_shape_gives_the_same_as_an_unknown_one(entry: dict[str, Any]) -> None:
    line = line_of(entry)
    subject = Standardizer(1 << 20, LIMIT)
    results = [standardized(subject, [line]) for _ in range(5)]
    assert all(result == results[0] for result in results)


@given(st.lists(entries, max_size=4), entries)
def test_what_was_seen_before_changes_nothing(before: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    subject = Standardizer(1 << 20, LIMIT)
    standardized(subject, [line_of(one) for one in before] * 3)
    assert standardized(subject, [line_of(entry)]) == standardized(Standardizer(1 << 20, LIMIT), [line_of(entry)])


@given(entries, st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_nothing(entry: dict[str, Any], random: Any) -> None:
    shuffled = dict(random.sample(list(entry.items()), len(entry)))
    subject = Standardizer(1 << 20, LIMIT)
    good, _ = standardized(subject, [line_of(entry)])
    assert standardized(subject, [line_of(shuffled)])[0] == good


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=12), scalars, max_size=8))
def test_every_value_of_unknown_names_is_an_attribute_under_its_name(entry: dict[str, Any]) -> None:
    entry = {f"x {key}": value for key, value in entry.items()}
    record = record_of(Standardizer(1 << 20, LIMIT), line_of(entry))
    assert record is not None
    assert record.attributes == {
        name: str(value) if type(value) is int and not -(2**63) <= value < 2**63 else value
        for name, value in entry.items()
    }


@given(entries)
def test_every_leaf_is_found_again(entry: dict[str, Any]) -> None:
    """In an attribute, in resource, or in a field that its name stands for, unless the vendor left it blank."""
    record = record_of(Standardizer(1 << 20, 1 << 20), line_of(entry))
    if record is None:
        return
    kept = [*record.attributes.values(), *record.resource.values()]
    fields = list(msgspec.structs.astuple(record)[: Record.__struct_fields__.index("resource")])
    for path, value in leaf_paths(entry):
        if isinstance(value, list | dict):
            shown: Any = msgspec.json.encode(value).decode()
        elif type(value) is int and not -(2**63) <= value < 2**63:
            shown = str(value)
        else:
            shown = value
        if any(type(shown) is type(other) and shown == other for other in kept):
            continue
        name = meaning(path)
        assert name is not None, path
        if value is None or is_blank(shown):
            continue
        if name.role == "body":
            assert str(shown).lower() == str(record.body).lower()
            continue
        read = reader(name, TEXT if isinstance(shown, str) else NUMBER)(shown)
        found = read[0] if isinstance(read, tuple) else read
        assert found is None or found in fields


def leaf_paths(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            found += leaf_paths(inner, (*path, key))
        else:
            found.append(((*path, key), inner))
    return found


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=50)
@given(
    st.dictionaries(
        keys, st.integers(0, 9_000).flatmap(lambda n: st.sampled_from(["x" * n, "é" * n, "\u0000" * n])), max_size=12
    )
)
def test_a_record_is_never_over_its_limit(entry: dict[str, str]) -> None:
    line = line_of(entry)
    for key, encoded in standardized(Standardizer(1 << 20, LIMIT), [line])[0]:
        record = msgspec.json.decode(encoded, type=Record)
        assert len(encoded) <= LIMIT
        assert bool(record.truncated_fields) == (record.original_bytes is not None)
        assert key == f"{record.service_name}/{record.event_name}".encode()


@given(entries.filter(bool), st.data())
def test_a_duplicate_key_is_always_found_whatever_the_spacing(entry: dict[str, Any], data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(sorted(entry)))
    space = data.draw(st.sampled_from(["", " ", "\t", "\n", " \r\n"]))
    inner = line_of(entry).decode()[1:-1]
    line = f"{{{inner},{space}{json.dumps(twice)}{space}:{space}{json.dumps(data.draw(scalars))}}}".encode()
    subject = Standardizer(1 << 20, LIMIT)
    standardized(subject, [line_of(entry)] * 4)
    (rejected,) = standardized(subject, [line])[1]
    assert rejected.reason == "duplicate_key"


def read(name: str, value: Any) -> Any:
    found = meaning((name,))
    assert found is not None
    return reader(found, TEXT if isinstance(value, str) else NUMBER)(value)


@given(st.integers(150_000_000 * 10**9, 9_214_646_399 * 10**9), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_times_are_exact_to_the_nanosecond_in_text_and_as_numbers(nanoseconds: int, unit: int) -> None:
    nanoseconds -= nanoseconds % unit
    text = timestamp_of(nanoseconds)
    assert read("timestamp", text) == text
    assert read("timestamp", text.replace("T", " ").removesuffix("Z")) == text
    assert read("timestamp", text.replace("Z", "+00:00")) == text
    assert read("time_ns", nanoseconds) == text
    assert read("timestamp", f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}") == text
    names = {1: "time_ns", 10**3: "time_us", 10**6: "time_ms", 10**9: "time_seconds"}
    assert read(names[unit], nanoseconds // unit) == text


@given(st.integers(150_000_000, 9_214_000_000), st.integers(-14 * 60, 14 * 60))
def test_a_zone_shifts_the_time_by_itself(seconds: int, minutes: int) -> None:
    sign, ahead = ("-" if minutes < 0 else "+"), abs(minutes)
    local = timestamp_of((seconds + minutes * 60) * 10**9).removesuffix("Z")
    assert read("timestamp", f"{local}{sign}{ahead // 60:02d}:{ahead % 60:02d}") == timestamp_of(seconds * 10**9)


@given(st.integers(0, 3_000_000_000_000))
def test_a_duration_is_the_same_in_every_spelling(milliseconds: int) -> None:
    seconds, ms = divmod(milliseconds, 1000)
    expected = milliseconds / 1000
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"
    for name, value in (
        ("duration", expected), ("duration_ms", milliseconds), ("duration", f"{milliseconds} ms"), ("duration", clock),
        ("duration", f"{seconds // 60}m {seconds % 60}.{ms:03d}s"), ("duration", f"PT{seconds}.{ms:03d}S"),
        ("duration", f"{seconds},{ms:03d}0 s"), ("duration_us", milliseconds * 1000),
        ("duration", clock.replace(".", ",")),
    ):  # fmt: skip
        assert read(name, value) == expected


@given(st.integers(0, 2**50), st.sampled_from([("kB", 1000), ("MB", 10**6), ("KiB", 1024), ("MiB", 1024**2)]))
def test_a_size_is_the_same_in_its_name_and_in_its_text(count: int, unit: tuple[str, int]) -> None:
    count //= unit[1]
    assert read("memory", f"{count} {unit[0]}") == read(f"memory_{unit[0]}", count) == count * unit[1]
