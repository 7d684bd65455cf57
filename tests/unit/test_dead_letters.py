"""A dead letter keeps everything, and gives it back."""

import pytest
from msgspec.structs import replace

from shared.chunking import Poisoned
from shared.errors import Reason
from shared.reading import poisoned_letter
from shared.records import DeadLetter, fitted

LETTER = DeadLetter(
    value=b'{"broken": \xff',
    reason=Reason.INVALID_UTF8,
    detail="byte 0xff at 11 is no UTF-8",
    stage="standardization",
    topic="raw-logs",
    partition=3,
    offset=2**53,
    index=999,
    record_id="0a1b2c3d-3-9007199254740992-999",
    time="2024-05-01T10:00:00.000001Z",
    run_id="run-é",
    origin="0a1b2c3d-0-1-0",
    key=b"\x00key\xff",
    headers=(("content-type", b"x/y"), ("again", b"1"), ("again", None), ("", b""), ("binary", b"\xff\x00")),
)


def test_it_comes_back_as_it_was() -> None:
    assert DeadLetter.from_headers(LETTER.to_headers(), LETTER.value) == LETTER


def test_what_is_absent_comes_back_absent() -> None:
    bare = DeadLetter(b"", "chunk_missing", "", "s", "t", 0, 0, 0, "id", "now")
    assert DeadLetter.from_headers(bare.to_headers(), b"") == bare


def test_an_empty_key_is_not_a_null_key() -> None:
    empty = DeadLetter(b"", "chunk_missing", "", "s", "t", 0, 0, 0, "id", "now", key=b"")
    assert DeadLetter.from_headers(empty.to_headers(), b"").key == b""


@pytest.mark.parametrize("key", [None, b"the message's own"])
def test_an_original_header_named_key_is_not_taken_for_the_message_s_key(key: bytes | None) -> None:
    letter = DeadLetter(
        b"", "chunk_missing", "", "s", "t", 0, 0, 0, "id", "now", key=key, headers=(("key", b"a header"),)
    )
    assert DeadLetter.from_headers(letter.to_headers(), b"") == letter


def test_a_dead_letter_that_dies_again_keeps_its_first_story_among_its_headers() -> None:
    again = DeadLetter(
        LETTER.value, "malformed_json", "again", "s", "t", 1, 2, 0, "id", "now", headers=tuple(LETTER.to_headers())
    )
    found = DeadLetter.from_headers(again.to_headers(), again.value)
    assert (found.reason, found.offset) == ("malformed_json", 2)
    assert DeadLetter.from_headers(list(found.headers), found.value) == LETTER


def test_the_originals_stand_under_their_own_names_for_any_tool() -> None:
    headers = LETTER.to_headers()
    assert ("orig.content-type", b"x/y") in headers
    assert ("sluice-dead-reason", b"invalid_utf8") in headers
    assert ("sluice-dead-offset", b"9007199254740992") in headers


def test_a_message_that_is_no_dead_letter_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="no header sluice-dead-reason"):
        DeadLetter.from_headers([("content-type", b"x/y")], b"")


def test_a_place_that_is_no_number_is_refused() -> None:
    headers = [(name, b"x" if name == "sluice-dead-offset" else value) for name, value in LETTER.to_headers()]
    with pytest.raises(ValueError, match="x"):
        DeadLetter.from_headers(headers, b"")


def test_text_that_utf_8_cannot_carry_does_not_stop_a_dead_letter() -> None:
    odd = DeadLetter(b"", "chunk_missing", "lone \ud800", "s", "t", 0, 0, 0, "id", "now")
    assert DeadLetter.from_headers(odd.to_headers(), b"").detail == "lone ?"


def test_a_letter_that_fits_goes_as_it_is() -> None:
    assert fitted(LETTER) is LETTER


def test_headers_too_large_to_keep_are_left_out_and_that_is_said() -> None:
    small: tuple[str, bytes | None] = ("small", b"1")
    large = replace(LETTER, headers=(small, ("large", b"x" * 100_000), ("after", b"2")))
    sent = fitted(large)
    assert sent.headers == (small,)
    assert sent.key == LETTER.key
    assert sent.value == LETTER.value
    assert "too large to keep" in sent.detail


def test_a_key_too_large_to_keep_is_left_out() -> None:
    sent = fitted(replace(LETTER, key=b"k" * 100_000))
    assert sent.key is None
    assert sum(len(name) + len(value or b"") for name, value in sent.to_headers()) < 100_000


def test_a_message_that_cannot_be_put_together_counts_for_the_run_that_chunk_0_names() -> None:
    headers = (("sluice-run", b"run-1"), ("sluice-origin", b"0a1b2c3d-0-1-0"), ("sluice-chunk", b"\x01"))
    found = Poisoned(3, 42, Reason.CHUNK_MISSING, "chunk 2 came where 1 was due", None, headers, bytes(16), 1, b"x")
    letter = poisoned_letter(found, "standardization", "raw-logs", "0a1b2c3d")
    assert (letter.run_id, letter.origin, letter.record_id) == ("run-1", "0a1b2c3d-0-1-0", "0a1b2c3d-3-42-0")
    nameless = poisoned_letter(found._replace(headers=(("sluice-run", b"r" * 1_025),)), "sink", "t", "0a1b2c3d")
    assert nameless.run_id is None
