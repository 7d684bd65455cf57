"""Any entry under any declared mapping: nothing raises, and nothing is dropped that is not declared."""

import json
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from shared.errors import DeclarationError
from shared.records import Outcome, Record
from standardization.declared import Mappings
from standardization.mappings import read_mappings
from standardization.standardize import Standardizer
from tests.standardizing import ARRIVAL, any_scalar, standardized

LIMIT = 1 << 20
FROM_SHOP = replace(ARRIVAL, source="shop")

keys = st.sampled_from(
    ["a", "b", "c", "a.b", 'q"uote', "time", "status", "message", "duration_ms", "source", "level", "host"]
)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = any_scalar(texts)
entries = st.dictionaries(
    keys,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    ),
    max_size=7,
)


def path_of(path: tuple[str, ...]) -> str:
    """As a mapping writes it."""
    return ".".join('"' + key.replace('"', '\\"') + '"' if set('."') & set(key) else key for key in path)


paths = (st.tuples(keys) | st.tuples(keys, keys)).map(path_of)
one_or_two = st.tuples(paths).map(list) | st.tuples(paths, paths).map(list)
several: st.SearchStrategy[list[str]] = st.just([]) | one_or_two
in_64_bit = scalars.filter(lambda one: not isinstance(one, int) or abs(one) < 2**63)
outcomes = st.sampled_from([one.value for one in Outcome])


def field(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """How a field may be filled: from paths, with any of these options."""
    usual = {"unreadable": st.sampled_from(["dead-letter", "attribute"]), "required": st.just(value=False)}
    rarely = {**usual, "required": st.booleans()}
    return several.flatmap(
        lambda chosen: st.fixed_dictionaries(
            {"from": st.just(chosen)},
            optional={**options, **((rarely if len(chosen) > 1 else usual) if chosen else {})},
        )
    )


fields = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": field(format=st.sampled_from(["epoch_ms", "%d/%m/%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%j"]))
        | field(zone=st.sampled_from(["Europe/Paris", "UTC", "Asia/Kolkata"])),
        "service_name": field() | st.just({"value": "fixed"}),
        "event_name": field(),
        "outcome": field(
            words=st.dictionaries(texts | st.sampled_from(["ok", "5", "info"]), outcomes, max_size=3),
            codes=st.sampled_from(["http", "exit", "flag"]),
        ),
        "severity": field(
            words=st.dictionaries(texts, st.integers(1, 24), max_size=2),
            numbers=st.sampled_from(["syslog", "otel", "python"]),
        ),
        "body": field(),
        "duration_s": field(unit=st.sampled_from(["ns", "ms", "min", "d"])),
        "memory_bytes": field(unit=st.sampled_from(["bytes", "kB", "GiB"])),
        "rows": field(),
        "transfer_bytes": field(),
        "trace_id": field(),
    },
)
kept = st.dictionaries(
    keys | st.just("renamed"), st.fixed_dictionaries({"from": one_or_two}) | st.just({"value": 7}), max_size=3
)
mappings = st.fixed_dictionaries(
    {"revision": st.integers(1, 9), "fields": fields},
    optional={
        "sources": st.just(["shop", "?"]),
        "when": st.dictionaries(paths, in_64_bit, max_size=1)
        | st.dictionaries(paths, st.fixed_dictionaries({"exists": st.booleans()}), max_size=2),
        "resource": kept,
        "attributes": kept,
        "drop": st.lists(st.sampled_from(["c", "level", "a.c"]), max_size=1),
        "template": st.booleans(),
    },
)


def declared(found: list[dict[str, Any]]) -> Mappings | None:
    """The mappings, or None where a random one contradicts itself and is refused."""
    named = [{"name": f"m{number}", "sources": ["*"], **one} for number, one in enumerate(found)]
    try:
        active = read_mappings({"m": yaml.safe_dump({"version": 1, "mappings": named}, allow_unicode=False)})
    except DeclarationError:
        event("refused")
        return None
    event("taken")
    return active


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in leaves_of(inner, (*path, key))]
    return [(path, value)]


def as_kept(value: Any) -> str:
    """A leaf as attributes hold it, so that 1 and true are told apart."""
    if isinstance(value, dict | list):
        return repr(msgspec.json.encode(value).decode())
    return repr(str(value) if type(value) is int and not -(2**63) <= value < 2**63 else value)


@settings(deadline=None)  # the first entry of a shape is slow; this is about what, not how fast
@given(st.lists(mappings, min_size=1, max_size=3), st.lists(entries, min_size=1, max_size=4))
def test_any_entry_under_any_mapping_has_a_record_or_a_reason_the_same_however_often_it_comes(
    found: list[dict[str, Any]], many: list[dict[str, Any]]
) -> None:
    active = declared(found)
    if active is None:
        return
    lines = [json.dumps(entry).encode() for entry in many]
    subject = Standardizer(LIMIT, LIMIT, mappings=active)
    results = [standardized(subject, lines, FROM_SHOP) for _ in range(5)]
    good, rejected = results[0]
    assert len(good) + len(rejected) == len(lines)
    for _, line in good:
        assert msgspec.json.encode(msgspec.json.decode(line, type=Record)) == line
    if any(mapping.template for mapping in active):
        return  # a template learns
    assert all(result == results[0] for result in results)
    alone = [standardized(Standardizer(LIMIT, LIMIT, mappings=active), [line], FROM_SHOP)[0] for line in lines]
    after_its_id = [line.partition(b",")[2] for _, line in good]
    assert after_its_id == [line.partition(b",")[2] for one in alone for _, line in one]


@settings(deadline=None)
@given(mappings, entries)
def test_nothing_is_dropped_but_what_is_declared_to_be(found: dict[str, Any], entry: dict[str, Any]) -> None:
    """A leaf that fills no field of the record is an attribute or in resource, or lies under a path to drop."""
    active = declared([found])
    if active is None:
        return
    subject = Standardizer(LIMIT, LIMIT, mappings=active)
    good, _ = standardized(subject, [json.dumps(entry).encode()], FROM_SHOP)
    if not good:
        event("dead letter")
        return
    (mapping,) = active
    record = msgspec.json.decode(good[0][1], type=Record)
    mapped = record.attributes.get("sluice.mapping") == mapping.label
    event("mapped" if mapped else "not mapped")
    leaves = leaves_of(entry) if entry else []
    dropped = [path for path, _ in leaves if mapped and any(path[: len(one)] == one for one in mapping.dropped)]
    records, values_dropped = subject.mapped()
    assert records == ({mapping.name: 1} if mapped else {})
    assert values_dropped.total() == len(dropped)
    # what is not there fills a field: the mapping's, or one of its own name
    fills = {path for one in mapping.fields.values() for path in one.paths}
    usual = {"time", "status", "message", "duration_ms", "source", "level"}
    kept_for_sure = Counter(
        as_kept(value) for path, value in leaves if path not in dropped and path not in fills and not usual & set(path)
    )
    assert kept_for_sure <= Counter(map(repr, [*record.attributes.values(), *record.resource.values()]))


@settings(deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda data: data.decode(errors="replace")))
def test_any_text_is_a_declaration_or_refused(text: str) -> None:
    with suppress(DeclarationError):
        read_mappings({"m": text})
