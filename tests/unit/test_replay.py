"""What a stream sends of a file, and in which order."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ingestion import replay
from ingestion.entries import Large, MalformedBodyError
from ingestion.replay import Item, Spec, check_start, items, lane, stamped


def entry(number: int, **fields: Any) -> bytes:
    at = f"2026-01-05T10:{number // 60:02d}:{number % 60:02d}Z"
    return json.dumps({"n": number, "timestamp": at, "Hostname": f"node-{number % 7}", **fields}).encode()


def entries(count: int) -> Iterator[list[bytes]]:
    for number in range(0, count, 10):
        yield [entry(each) for each in range(number, min(count, number + 10))]


def numbers(found: Iterator[Item]) -> list[int]:
    return [json.loads(item.entry)["n"] for item in found]


def test_a_file_comes_in_its_order() -> None:
    assert numbers(items(entries(25), Spec("f", 1.0), "s", True)) == list(range(25))


@pytest.mark.parametrize(
    ("start_at", "first"),
    [("1", 0), ("8", 7), ("2026-01-05T10:00:20Z", 20), ("2026-01-05T11:00:20+01:00", 20), ("2026-01-05T09:00:00", 0)],
)
def test_it_begins_at_a_number_or_a_time_in_its_first_pass_only(start_at: str, first: int) -> None:
    spec = Spec("f", 1.0, start_at=start_at)
    assert numbers(items(entries(25), spec, "s", True)) == list(range(first, 25))
    assert numbers(items(entries(25), spec, "s", False)) == list(range(25))


@pytest.mark.parametrize("start_at", ["0", "-1", "soon", ""])
def test_a_start_that_is_none_is_refused(start_at: str) -> None:
    with pytest.raises(ValueError, match="number"):
        check_start(start_at)


def test_shuffled_hosts_keep_their_own_order_and_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BLOCK", 70)
    spec = Spec("f", 1.0, shuffle_hosts=True)
    first = numbers(items(entries(200), spec, "a", True))
    assert sorted(first) == list(range(200))
    assert sorted(first[:70]) == list(range(70)), "a block stays where it is"
    for host in range(7):
        own = [number for number in first if number % 7 == host]
        assert own == sorted(own)
    assert first == numbers(items(entries(200), spec, "a", True))
    assert first != numbers(items(entries(200), spec, "b", True))


def test_times_are_rewritten_where_there_is_one_and_what_is_no_object_stays() -> None:
    now = "2030-01-01T00:00:00Z"
    found = items(
        iter([[entry(1), b'{"a":1}', b"[1]", b"not json", b'{"TS":"x","a":"\xc3\xa9"}']]), Spec("f", 1), "s", True
    )
    sent = [stamped(item, now) for item in found]
    assert json.loads(sent[0])["timestamp"] == now
    assert sent[1:4] == [b'{"a":1}', b"[1]", b"not json"]
    assert json.loads(sent[4]) == {"TS": now, "a": "é"}


def test_a_device_keeps_its_lane_and_what_names_none_takes_turns() -> None:
    spec = Spec("f", 1.0, workers=4)
    found = list(items(entries(70), spec, "s", True))
    lanes: dict[int, set[int]] = {}
    for place, item in enumerate(found):
        lanes.setdefault(json.loads(item.entry)["n"] % 7, set()).add(lane(item, place, 4))
    assert all(len(taken) == 1 for taken in lanes.values())
    assert len({lane(Item(b"x", None), place, 4) for place in range(4)}) == 4


def test_an_entry_that_is_too_large_ends_the_stream() -> None:
    with pytest.raises(MalformedBodyError, match="too large"):
        list(items(iter([[entry(1)], Large(50, 10**7)]), Spec("f", 1.0), "s", True))


def test_a_start_beyond_any_file_is_refused_before_it_is_kept() -> None:
    with pytest.raises(ValueError, match="at most 18 digits"):
        check_start("9" * 20)
