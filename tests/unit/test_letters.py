"""What a replay of a dead letter sends, and what it refuses to."""

from typing import Any

import msgspec
import pytest

from processing.letters import RefusedError, check_value, entry_of, outgoing
from processing.rows import letter_of
from shared.records import DeadLetter
from shared.topics import DEAD_LETTERS, INGEST_RUNS, PROCESSED_METRICS, RAW_LOGS, STANDARDIZED_LOGS

LETTER = DeadLetter(
    value=b'{"broken',
    reason="malformed_json",
    detail="cut off",
    stage="standardization",
    topic="raw-logs",
    partition=3,
    offset=7,
    index=2,
    record_id="feedfeed-3-7-2",
    time="2026-01-05T10:00:00Z",
    run_id="r",
    key=b"shop",
    headers=(
        ("content-type", b"application/x-ndjson"),
        ("sluice-run", b"r"),
        ("sluice-source", b"shop"),
        ("sluice-push", b"r:1"),
        ("sluice-chunk", b"\x01"),
        ("theirs", b"\xff"),
        ("theirs", None),
    ),
)


def letter(**changes: Any) -> DeadLetter:
    return msgspec.structs.replace(LETTER, **changes)


def test_an_entry_goes_back_where_it_was_read_with_its_key_and_headers_and_the_first_record_id() -> None:
    to = outgoing(LETTER, RAW_LOGS, edited=False)
    assert (to.topic, to.key, to.partition) == (RAW_LOGS, b"shop", 3)
    assert to.headers == (
        ("content-type", b"application/x-ndjson"),
        ("sluice-source", b"shop"),
        ("theirs", b"\xff"),
        ("theirs", None),
        ("sluice-run", b"r"),
        ("sluice-origin", b"feedfeed-3-7-2"),
    )


def test_a_replay_that_failed_again_keeps_its_first_origin() -> None:
    again = letter(origin="feedfeed-0-0-0", headers=(("sluice-origin", b"feedfeed-0-0-0"),))
    assert outgoing(again, RAW_LOGS, edited=False).headers == (
        ("sluice-run", b"r"),
        ("sluice-origin", b"feedfeed-0-0-0"),
    )


@pytest.mark.parametrize(
    ("original", "given", "sent"),
    [
        (b"application/x-ndjson", None, b"application/json"),  # several lines are one entry then
        (b"text/plain", None, b"text/plain"),
        (None, None, None),
        (b"text/plain", "application/json", b"application/json"),
    ],
)
def test_edited_bytes_have_their_own_content_type(
    original: bytes | None, given: str | None, sent: bytes | None
) -> None:
    headers = (("content-type", original),) if original else ()
    to = outgoing(letter(headers=headers), RAW_LOGS, edited=True, content_type=given)
    assert dict(to.headers).get("content-type") == sent


def test_an_edit_leaves_out_the_header_that_no_record_could_carry() -> None:
    overlong = letter(reason="invalid_header", headers=(("sluice-source", b"x" * 2_000), ("sluice-run", b"r")))
    assert "sluice-source" in dict(outgoing(overlong, RAW_LOGS, edited=False).headers)
    assert "sluice-source" not in dict(outgoing(overlong, RAW_LOGS, edited=True).headers)


def test_a_piece_of_a_chunked_message_is_sent_only_as_an_edit() -> None:
    piece = letter(reason="chunk_missing")
    with pytest.raises(RefusedError, match="one chunk"):
        outgoing(piece, RAW_LOGS, edited=False)
    assert outgoing(piece, RAW_LOGS, edited=True, content_type="application/json").partition == 3


def test_what_lies_on_another_topic_than_the_chain_s_is_not_sent() -> None:
    with pytest.raises(RefusedError, match="can't be sent"):
        outgoing(letter(topic="elsewhere"), "elsewhere", edited=False)


def test_only_one_entry_is_sent_in_place_of_one() -> None:
    to = outgoing(LETTER, RAW_LOGS, edited=False)
    check_value(LETTER, to, b'{"a":1}', edited=False)
    for value, number in ((b'{"a":1}\n{"a":2}', 2), (b"\n\n", 0)):
        with pytest.raises(RefusedError, match=f"these bytes are {number};"):
            check_value(LETTER, to, value, edited=False)


def test_an_edited_line_keeps_the_names_that_it_is_counted_under() -> None:
    line = b'{"record_id":"a-0-0-0","run_id":"r","duration_s":"x"}'
    refused = letter(value=line, topic=STANDARDIZED_LOGS, record_id="a-0-0-0")
    to = outgoing(refused, STANDARDIZED_LOGS, edited=True)
    check_value(refused, to, b'{"record_id":"a-0-0-0","run_id":"r","duration_s":1}', edited=True)
    for value in (b'{"record_id":"b-0-0-0","run_id":"r"}', b'{"record_id":"a-0-0-0"}', b"[]"):
        with pytest.raises(RefusedError, match="must keep"):
            check_value(refused, to, value, edited=True)


@pytest.mark.parametrize(
    ("table", "topic", "kind"),
    [("records", PROCESSED_METRICS, b"record"), ("windows", PROCESSED_METRICS, b"window"), ("runs", INGEST_RUNS, None)],
)
def test_a_line_that_the_store_refused_goes_back_as_what_it_was(table: str, topic: str, kind: bytes | None) -> None:
    refused = letter_of(table, b"{}", "no", "sink", "token/records/0/0")
    to = outgoing(refused, refused.topic, edited=False)
    assert (to.topic, to.partition, to.key) == (topic, None, refused.record_id.encode())
    assert dict(to.headers).get("sluice-kind") == kind
    assert "sluice-line" not in dict(to.headers)


def test_two_letters_of_one_line_are_one_entry_and_all_others_are_their_own() -> None:
    one = letter_of("records", b"{}", "no", "sink", "token/records/0/0")
    assert entry_of(one, "first") == entry_of(one, "second") == "token/records/0/0"
    assert entry_of(letter_of("records", b"{}", "no", "sink", "token/records/0/1"), "third") == "token/records/0/1"
    assert entry_of(LETTER, "fourth") == "fourth"


def test_letters_are_none_of_the_topics_that_are_sent_to() -> None:
    with pytest.raises(RefusedError):
        outgoing(letter(topic=DEAD_LETTERS), DEAD_LETTERS, edited=False)
