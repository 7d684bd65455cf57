"""Dead letters as an operator meets them: look, mend, send again, close the rest, and each once whatever happens."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from native.kafka import Broker
from processing.desk import Closing, Desk
from processing.letters import Action, Event
from shared import kafka
from shared.config import Settings
from shared.topics import DEAD_LETTERS, H_CONTENT_TYPE, PROCESSED_METRICS, RAW_LOGS, STANDARDIZED_LOGS
from tests.integration.entries import plain
from tests.integration.stack import ROOT, Stack, eventually

pytestmark = pytest.mark.kafka

MANY = 700
BROKEN = b'{"source":"shop","api":"orders","status":"SUC'
MENDED = b'{"source":"shop","api":"orders","status":"SUCCESS"}'
NESTED = b'{"source":"deep","x":' + b"[" * 200 + b"]" * 200 + b',"blob":"' + b"y" * 20_000_000 + b'"}'


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that parses entries of 20 MB, so that they can be refused."""
    folder = tmp_path_factory.mktemp("letters")
    with Stack(broker, folder, f"{folder.name}-", {"PARSE_MAX_BYTES": "33554432"}) as running:
        yield running


def push(stack: Stack, *lines: bytes, source: str | None = None) -> str:
    """Push these entries; returns their run's id, once none is in flight."""
    answer = stack.push(b"\n".join(lines), source=source)
    assert answer.status_code == 200, answer.text
    run_id = str(answer.json()["run_id"])
    stack.receipt(run_id)
    return run_id


def letters(stack: Stack, **filters: str) -> list[dict[str, Any]]:
    answer = stack.get("processing", "/dead-letters", limit=1_000, **filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["dead_letters"]
    return found


def letter_of(stack: Stack, run_id: str) -> dict[str, Any]:
    (letter,) = letters(stack, run=run_id)
    return letter


def show(stack: Stack, letter_id: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.get("processing", f"/dead-letters/{letter_id}").raise_for_status().json()
    return found


def post(stack: Stack, path: str, content: bytes = b"", **query: Any) -> httpx.Response:
    url = f"{stack.urls['processing']}/dead-letters{path}"
    return stack.client.post(url, content=content, params=query, headers={"Sluice-Actor": "tester"})


def counts(stack: Stack, run_id: str) -> tuple[int, int, int, int]:
    found = stack.get("processing", f"/runs/{run_id}").json()
    return found["accepted"], found["stored"], found["dead_lettered"], found["in_flight"]


def becomes(stack: Stack, run_id: str, expected: tuple[int, int, int, int], seconds: float = 30.0) -> None:
    """The receipt comes to this, and adds up all the while."""

    def look() -> bool:
        accepted, stored, dead, in_flight = found = counts(stack, run_id)
        assert accepted == stored + dead + in_flight
        return found == expected

    eventually(look, seconds, f"the receipt of {run_id} becomes {expected}, is {counts(stack, run_id)}")


def settled(stack: Stack) -> None:
    """Whatever was on its way when this was called has been stored."""
    push(stack, *(plain(n) for n in range(100)), source="settled")


def sluice(stack: Stack, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**stack.environment, "USER": "operator"}
    return subprocess.run(
        [ROOT / "sluice", *arguments], input=given, capture_output=True, env=environment, timeout=60, check=False
    )


def test_letters_are_found_by_filters_and_shown_with_bytes_and_reason(stack: Stack) -> None:
    run_id = push(stack, plain(1), BROKEN, b'{"source":"\xff"}', source="till")
    found = {letter["reason"]: letter for letter in letters(stack, run=run_id)}
    assert set(found) == {"malformed_json", "invalid_utf8"}
    assert {letter["state"] for letter in found.values()} == {"open"}
    broken = found["malformed_json"]
    assert letters(stack, source="till", reason="malformed_json") == [broken]
    assert letters(stack, run=run_id, text="UTF-8") == [found["invalid_utf8"]]
    assert letters(stack, run=run_id, state="resolved") == []
    shown = show(stack, broken["id"])
    assert shown["preview"] == {"encoding": "utf-8", "data": BROKEN.decode(), "truncated": False}
    assert {"name": "sluice-source", "value": {"encoding": "utf-8", "data": "till", "truncated": False}} in shown[
        "headers"
    ]
    assert show(stack, found["invalid_utf8"]["id"])["preview"]["encoding"] == "base64"
    assert stack.get("processing", f"/dead-letters/{broken['id']}/raw").content == BROKEN
    assert stack.get("processing", "/dead-letters/00000000-0-0-0").status_code == 404


def test_an_edited_letter_is_stored_and_the_receipt_stays_exact(stack: Stack) -> None:
    run_id = push(stack, plain(1), BROKEN, source="till")
    letter = letter_of(stack, run_id)
    assert counts(stack, run_id) == (2, 1, 1, 0)
    two = stack.client.post(
        f"{stack.urls['processing']}/dead-letters/{letter['id']}/edit",
        content=MENDED + b"\n" + MENDED,
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert (two.status_code, "these bytes are 2" in two.text) == (409, True)
    answer = post(stack, f"/{letter['id']}/edit", MENDED, note="cut off by the till")
    assert answer.status_code == 200, answer.text
    assert answer.json()["sent_to"] == "raw-logs"
    becomes(stack, run_id, (2, 2, 0, 0))
    shown = show(stack, letter["id"])
    assert shown["state"] == "replayed"
    record = stack.get("processing", f"/records/{shown['stored_as']}").json()
    assert (record["origin"], record["run_id"], record["service_name"]) == (
        shown["origin"] or shown["record_id"],
        run_id,
        "shop",
    )
    (event,) = [event for event in shown["audit"] if event["letter"] == letter["id"]]
    assert (event["actor"], event["note"], event["edited"]) == ("tester", "cut off by the till", True)


def test_a_letter_replayed_as_it_is_fails_again_and_keeps_its_history(stack: Stack) -> None:
    run_id = push(stack, BROKEN)
    first = letter_of(stack, run_id)
    assert post(stack, f"/{first['id']}/replay").status_code == 200
    second = eventually(
        lambda: [one for one in letters(stack, run=run_id, state="open") if one["id"] != first["id"]],
        30,
        "it failed again",
    )[0]
    becomes(stack, run_id, (1, 0, 1, 0))
    assert second["origin"] == first["record_id"]
    assert post(stack, f"/{second['id']}/replay").status_code == 200
    third = eventually(
        lambda: [one for one in letters(stack, run=run_id, state="open") if one["id"] != second["id"]], 30, "and again"
    )[0]
    assert third["origin"] == first["record_id"]
    shown = show(stack, third["id"])
    assert [(one["id"], one["state"]) for one in shown["attempts"]] == [
        (first["id"], "replayed"), (second["id"], "replayed"), (third["id"], "open"),
    ]  # fmt: skip
    events = stack.get("processing", f"/dead-letters/{first['id']}/audit").json()["events"]
    assert [event["letter"] for event in events] == [second["id"], first["id"]]
    assert counts(stack, run_id) == (1, 0, 1, 0)


def test_a_letter_that_is_replayed_many_times_at_once_counts_once(stack: Stack) -> None:
    run_id = push(stack, BROKEN)
    letter = letter_of(stack, run_id)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(stack, f"/{letter['id']}/edit", MENDED), range(8)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(200) == 1, [answer.text for answer in answers]
    assert set(codes) <= {200, 409, 503}
    becomes(stack, run_id, (1, 1, 0, 0))
    again = post(stack, f"/{letter['id']}/replay")
    assert (again.status_code, "replayed already" in again.text) == (409, True)
    settled(stack)
    assert counts(stack, run_id) == (1, 1, 0, 0)
    records = stack.get("processing", "/analytics/recent", limit=1_000, source="shop").json()["records"]
    assert [record["run_id"] for record in records].count(run_id) == 1


def test_two_desks_of_two_processes_close_each_letter_once(stack: Stack) -> None:
    """Each fences the other, over and over; what a fenced one sent is never committed."""
    settings = Settings(
        _env_file=None,
        kafka_bootstrap=stack.environment["KAFKA_BOOTSTRAP"],
        topic_prefix=stack.prefix,
    )
    ids = [f"two-desks-{n}" for n in range(4)]

    def act(desk: Desk, actor: str) -> list[str]:
        won = []
        for letter in ids:
            event = Event(f"{actor}-{letter}", letter, letter, "o", Action.RESOLVED, actor, "2026-01-05T10:00:00Z")
            if desk.close([Closing(event)]) == [None]:
                won.append(letter)
        return won

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(act, (Desk(settings), Desk(settings)), ("one", "other")))
    assert sorted(won[0] + won[1]) == ids

    def audited() -> list[dict[str, Any]]:
        page = stack.get("processing", "/dead-letters/audit", origin="o", limit=100).json()
        return list(page["events"]) if page["total"] >= len(ids) else []

    events = eventually(audited, 30, "the events are stored")
    assert sorted(event["letter"] for event in events) == ids


def test_two_letters_of_one_line_are_sent_once_together_or_one_after_the_other(stack: Stack) -> None:
    """As the sink writes them when it is killed between its letters and the end of their batch."""
    settings = Settings(_env_file=None, kafka_bootstrap=stack.environment["KAFKA_BOOTSTRAP"], topic_prefix=stack.prefix)

    def closing(letter: str) -> Closing:
        return Closing(Event(f"of {letter}", letter, "one line", "o2", Action.REPLAYED, "t", "2026-01-05T10:00:00Z"))

    first, second = Desk(settings).close([closing("letter-1"), closing("letter-2")])
    assert (first, second and second.letter) == (None, "letter-1")
    (third,) = Desk(settings).close([closing("letter-3")])
    assert third is not None
    assert third.letter == "letter-1"


def test_processing_killed_within_a_replay_by_filter_sends_each_entry_once(stack: Stack) -> None:
    run_id = push(stack, *[BROKEN] * MANY)
    dry = post(stack, "/replay", run=run_id, dry_run=True).json()
    assert (dry["matched"], dry["done"]) == (MANY, 0)
    closed = threading.Event()
    before = stack.metric("processing", "sluice_dead_letters_closed_total", action="replayed") or 0

    def replay() -> None:
        try:
            post(stack, "/replay", run=run_id, limit=10_000)
        except httpx.HTTPError:
            closed.set()

    replaying = threading.Thread(target=replay)
    replaying.start()
    closed_metric = "sluice_dead_letters_closed_total"

    def begun() -> bool:
        return (stack.metric("processing", closed_metric, action="replayed") or 0) >= before + 200

    eventually(begun, 60, "the first letters are replayed")
    stack.kill("processing")
    replaying.join(30)
    assert closed.is_set(), "it was killed in the middle"
    stack.start("processing")
    eventually(lambda: stack.ready("processing"), 60, "processing is back")
    left = post(stack, "/replay", run=run_id, dry_run=True).json()["matched"]
    assert left  # what failed again is among these
    # each of the first letters was replayed once, by one of the two; so there is one more letter of each entry
    firsts = [letter for letter in letters_all(stack, run_id) if not letter["origin"]]
    assert len(firsts) == MANY
    cli = sluice(stack, "--json", "dlq", "replay", "--run", run_id, "--note", "after the crash")
    assert cli.returncode == 0, cli.stderr
    becomes(stack, run_id, (MANY, 0, MANY, 0), 60)
    settled(stack)
    everything = letters_all(stack, run_id)
    by_origin: dict[str, int] = {}
    replays: dict[str, int] = {}
    for letter in everything:
        origin = letter["origin"] or letter["record_id"]
        by_origin[origin] = by_origin.get(origin, 0) + 1
        replays[origin] = replays.get(origin, 0) + (letter["state"] == "replayed")
    assert len(by_origin) == MANY
    # a letter for the entry itself and for each replay of it: none was sent twice, and none was lost
    assert all(by_origin[origin] == replays[origin] + 1 for origin in by_origin)
    assert all(number >= 1 for number in replays.values())


def letters_all(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = {"run": run_id, "limit": 1_000, **({"cursor": cursor} if cursor else {})}
        page = stack.get("processing", "/dead-letters", **query).raise_for_status().json()
        found += page["dead_letters"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_resolved_letters_are_closed_with_a_note_and_stay_dead_lettered(stack: Stack) -> None:
    run_id = push(stack, BROKEN, BROKEN, BROKEN)
    one, *_ = letters(stack, run=run_id)
    assert post(stack, f"/{one['id']}/resolve", note="a test of the till").status_code == 200
    assert post(stack, f"/{one['id']}/replay").status_code == 409
    summary = post(stack, "/resolve", run=run_id).json()
    assert (summary["done"] + summary["closed_before"], summary["refused"]) in {(2, 0), (3, 0)}
    assert summary["done"] == 2
    eventually(lambda: len(letters(stack, run=run_id, state="resolved")) == 3, 30, "all are resolved")
    assert counts(stack, run_id) == (3, 0, 3, 0)
    events = stack.get("processing", "/dead-letters/audit", run=run_id, action="resolved").json()
    assert (events["total"], {event["actor"] for event in events["events"]}) == (3, {"tester"})
    assert post(stack, "/resolve").status_code == 422, "no filter is not every letter"
    assert post(stack, "/resolve", rum=run_id).status_code == 422


def test_a_letter_of_20_mb_is_replayed_and_its_bytes_stay_the_same(stack: Stack) -> None:
    answer = stack.push(NESTED, kind="application/json")
    run_id = answer.json()["run_id"]
    stack.receipt(run_id)
    first = letter_of(stack, run_id)
    assert first["bytes"] == len(NESTED)
    shown = show(stack, first["id"])
    assert shown["preview"]["data"] == NESTED[:4096].decode()
    assert shown["preview"]["truncated"]
    assert post(stack, f"/{first['id']}/replay").status_code == 200
    second = eventually(
        lambda: [x for x in letters(stack, run=run_id, state="open") if x["id"] != first["id"]], 60, "it failed again"
    )[0]
    assert second["origin"] == first["record_id"]
    assert stack.get("processing", f"/dead-letters/{second['id']}/raw").content == NESTED
    mended = b'{"source":"deep","blob":"' + os.urandom(10_000_000).hex().encode() + b'"}'
    assert post(stack, f"/{second['id']}/edit", mended).status_code == 200
    becomes(stack, run_id, (1, 1, 0, 0))
    stored = show(stack, second["id"])["stored_as"]
    assert stack.get("processing", f"/records/{stored}/raw").content == mended


def test_a_line_that_processing_or_the_sink_refused_goes_back_to_its_own_topic(stack: Stack) -> None:
    """As after an upgrade in the wrong order: it holds its identity, and its run's receipt counts it throughout."""
    settings = Settings(_env_file=None, kafka_bootstrap=stack.environment["KAFKA_BOOTSTRAP"], topic_prefix=stack.prefix)
    receipt = json.dumps(
        {"run_id": "foreign", "source": "x", "entries": 2, "bytes": 9, "time": "2026-01-05T10:00:00Z"}
    ).encode()
    line = {
        "timestamp": "2026-01-05T10:00:00Z", "observed_timestamp": "2026-01-05T10:00:00Z", "service_name": "foreign",
        "event_name": "f", "outcome": "success", "run_id": "foreign",
    }  # fmt: skip
    bad = [json.dumps({**line, "record_id": f"feedfeed-0-{n}-0", "duration_s": "long"}).encode() for n in range(2)]
    good = [json.dumps({**line, "record_id": f"feedfeed-0-{n}-0", "duration_s": 1.5}).encode() for n in range(2)]
    writer = kafka.Transactions(settings, "test", "foreign")
    assert writer.prepare(threading.Event())
    writer.begin()
    writer.send(settings.topic("ingest-runs"), receipt, b"foreign", 0)
    for topic, value in ((STANDARDIZED_LOGS, bad[0]), (PROCESSED_METRICS, bad[1])):
        writer.send(settings.topic(topic), value, b"foreign", 0, [(H_CONTENT_TYPE, b"application/x-ndjson")])
    writer.commit()
    writer.discard()
    eventually(lambda: len(letters(stack, run="foreign")) == 2, 30, "both are dead letters")
    becomes(stack, "foreign", (2, 0, 2, 0))
    for letter in letters(stack, run="foreign"):
        number = int(letter["record_id"].split("-")[2])
        other = post(stack, f"/{letter['id']}/edit", good[1 - number])
        assert other.status_code == 409, "under another name it would be another entry"
        answer = post(stack, f"/{letter['id']}/edit", good[number])
        assert answer.status_code == 200, answer.text
        assert answer.json()["sent_to"] == (PROCESSED_METRICS if letter["stage"] == "sink" else STANDARDIZED_LOGS)
    becomes(stack, "foreign", (2, 2, 0, 0))
    assert DEAD_LETTERS not in {letter["topic"] for letter in letters(stack, run="foreign")}


def test_an_entry_refused_for_a_header_keeps_its_origin_and_is_mended_by_an_edit(stack: Stack) -> None:
    settings = Settings(_env_file=None, kafka_bootstrap=stack.environment["KAFKA_BOOTSTRAP"], topic_prefix=stack.prefix)
    writer = kafka.Transactions(settings, "test", "overlong")
    assert writer.prepare(threading.Event())
    writer.begin()
    headers: list[tuple[str, bytes | None]] = [("sluice-source", b"x" * 2_000), ("sluice-run", b"overlong")]
    writer.send(settings.topic(RAW_LOGS), MENDED, b"k", 0, headers)
    writer.commit()
    writer.discard()
    (first,) = eventually(lambda: letters(stack, run="overlong"), 30, "it is a dead letter of its run")
    assert post(stack, f"/{first['id']}/replay").status_code == 200
    (second,) = eventually(
        lambda: [x for x in letters(stack, run="overlong", state="open") if x["id"] != first["id"]], 30, "again"
    )
    assert second["origin"] == first["record_id"]
    assert post(stack, f"/{second['id']}/edit", MENDED).status_code == 200
    stored = eventually(lambda: show(stack, second["id"])["stored_as"], 30, "it is stored")
    assert stack.get("processing", f"/records/{stored}").json()["origin"] == first["record_id"]


def test_the_command_line_lists_shows_edits_resolves_and_audits(stack: Stack) -> None:
    run_id = push(stack, BROKEN, BROKEN)
    listed = sluice(stack, "--json", "dlq", "list", "--run", run_id)
    assert listed.returncode == 0, listed.stderr
    one, other = (json.loads(line)["id"] for line in listed.stdout.splitlines())
    assert BROKEN in sluice(stack, "dlq", "show", one).stdout
    assert sluice(stack, "dlq", "raw", one).stdout == BROKEN
    assert b"2 open letters match" in sluice(stack, "dlq", "replay", "--run", run_id, "--dry-run").stdout
    edited = sluice(stack, "dlq", "edit", one, "--file", "-", "--note", "mended", given=MENDED)
    assert edited.returncode == 0, edited.stderr
    becomes(stack, run_id, (2, 1, 1, 0))
    assert sluice(stack, "dlq", "resolve", other).returncode == 0
    refused = sluice(stack, "dlq", "replay", one)
    assert (refused.returncode, b"replayed already" in refused.stderr) == (1, True)
    assert sluice(stack, "dlq", "replay").returncode == 2
    assert sluice(stack, "dlq", "list", "--state", "shut").returncode == 2
    assert sluice(stack, "--url", "http://127.0.0.1:1", "dlq", "list").returncode == 1
    eventually(lambda: len(letters(stack, run=run_id, state="resolved")) == 1, 30, "the resolution is stored")
    audit = sluice(stack, "dlq", "audit", "--run", run_id).stdout.decode().splitlines()
    assert [line.split("  ")[1:3] for line in audit] == [["operator", "resolved"], ["operator", "replayed edited"]]
