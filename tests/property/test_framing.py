"""Messages of a stream are the same however its pieces fall."""

from hypothesis import given
from hypothesis import strategies as st

from ingestion.framing import Framing

LIMIT = 200
texts = st.binary(min_size=0, max_size=60).map(lambda text: b"<34>" + text.replace(b"\n", b" ").rstrip(b"\r\0") + b".")
messages = st.lists(st.tuples(st.sampled_from(["counted", "counted LF", "line", "CRLF", "empty", "over"]), texts))


def framed(how: str, text: bytes) -> tuple[bytes, list[bytes]]:
    """The bytes of a message in the stream, and what is to come of it."""
    match how:
        case "counted":
            return b"%d %s" % (len(text), text), [text]
        case "counted LF":  # several lines, and an end that some senders add to what they count
            text = text.replace(b" ", b"\n") + b"."
            return b"%d %s\n" % (len(text) + 1, text), [text]
        case "line":
            return text + b"\n", [text]
        case "CRLF":
            return text + b"\r\n", [text]
        case "over":
            text = (text * 100)[: 2 * LIMIT + 9] + b"."
            pieces = [text[at : at + LIMIT] for at in range(0, len(text), LIMIT)]
            return b"%d %s" % (len(text), text), [piece.rstrip(b"\r\n\0") for piece in pieces]
    return b"\n", []


@given(messages=messages, cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_messages_are_told_apart_wherever_the_stream_is_cut(messages: list[tuple[str, bytes]], cuts: list[int]) -> None:
    made = [framed(how, text) for how, text in messages]
    stream = b"".join(data for data, _ in made)
    wanted = [message for _, found in made for message in found if message.strip()]
    framing = Framing(LIMIT)
    got: list[bytes] = []
    at = number = 0
    while at < len(stream):
        step = cuts[number % len(cuts)]
        got += framing.feed(stream[at : at + step])
        at, number = at + step, number + 1
    assert got == wanted
    assert framing.rest() == []


def test_what_only_begins_with_a_number_is_a_line_and_one_too_long_is_cut() -> None:
    framing = Framing(LIMIT)
    assert framing.feed(b"2026-01-05 text\n12\n5 hello\n") == [b"2026-01-05 text", b"12", b"5 hello"]
    assert framing.feed(b"y" * 450) == [b"y" * 200, b"y" * 200]
    assert framing.feed(b"\n<1>unended") == [b"y" * 50]
    assert framing.rest() == [b"<1>unended"]
