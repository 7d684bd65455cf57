"""What holds for any bytes in any format: nothing raises, nothing is lost, time is bounded."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from standardization.masking import VALUE, Masking, words_of
from standardization.redaction import GROUPS, Redaction
from standardization.standardize import Standardizer
from tests.standardizing import standardized

TYPES = [
    None,
    "text/plain",
    "application/syslog",
    "text/x-access-log",
    "text/logfmt",
    'text/csv; columns="a,b"',
    "text/csv; header=present",
    'text/csv; columns="a,a',
    "application/x-w3c-extended-log; columns=date time c-ip",
    "text/x-stacktrace",
    "application/vnd.sluice.otlp+json",
    "text/csv; columns",
]
pieces = st.sampled_from(
    [
        "<34>",
        "1 ",
        "Oct 11 22:14:15 ",
        "2026-01-01T00:00:00Z ",
        "host ",
        "app[1]: ",
        '[a b="c"]',
        "- ",
        " [",
        '] "',
        '" 200 1',
        "10/Oct/2000:13:55:36 -0700",
        "GET / HTTP/1.1",
        "level=",
        'msg="',
        '"',
        "\\",
        "\n",
        "Traceback (most recent call last):",
        "\n\tat a.b(c:1)",
        "panic: ",
        "goroutine 1 [x]:",
        "x.Error: ",
        ",",
        "\t",
        "password=",
        "a@b.example",
        "4111111111111111",
        "{",
        "}",
        "<*>",
        "/",
        "12",
        "\0",
        "é",
    ]
)
texts = st.lists(pieces | st.text(st.characters(codec="utf-8"), max_size=5), max_size=14).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TYPES), st.lists(texts.map(str.encode) | st.binary(max_size=30), min_size=1, max_size=4))
def test_any_bytes_in_any_format_become_a_record_or_a_dead_letter(kind: str | None, lines: list[bytes]) -> None:
    subject = Standardizer(1 << 24, 1 << 16, redaction=Redaction(GROUPS))
    good, rejected = standardized(subject, lines, content_type=kind)
    assert len(good) + len(rejected) == len(lines)
    for _, line in good:
        assert json.loads(line)["record_id"]
        assert b"\n" not in line
    for bad in rejected:
        assert bad.value == lines[bad.index]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_a_template_with_its_values_is_the_line_but_for_white_space(text: str) -> None:
    line = Masking().line(text)
    words, separators = words_of(line)
    filled = [line.value(word) if word.text == VALUE else word.text for word in words]
    rebuilt = "".join(part for pair in zip(separators, [*filled, ""], strict=True) for part in pair)
    assert rebuilt.split() == text.split()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 200_000,
        '"' * 200_000,
        "\\" * 200_001,
        "[" * 200_000,
        "=" * 200_000,
        "a=" * 100_000,
        "@" * 200_000,
        "<34>1 - - - - - " + '[a b="' * 30_000,
        "1" * 200_000,
        "4 " * 100_000,
        "a." * 100_000,
        "-----BEGIN " * 20_000,
        "\n\tat " + "(" * 100_000 + "\n" * 100_000,
        "x\n" * 50_000 + "\tat a(b)",
        "Traceback (most recent call last):\n" * 5_000,
        'a b c [10/Oct/2000:13:55:36 -0700] "' + "\\a" * 100_000,
        "://" * 60_000,
        "password=" * 20_000,
        "/" * 200_000,
    ],
    ids=lambda hostile: repr(hostile[:12]),
)
def test_hostile_text_takes_no_longer_than_its_length_explains(kind: str | None, hostile: str) -> None:
    subject = Standardizer(1 << 24, 1 << 20, redaction=Redaction(GROUPS))
    begun = time.process_time()
    good, rejected = standardized(subject, [hostile.encode()], content_type=kind)
    assert len(good) + len(rejected) == 1
    assert time.process_time() - begun < 2.0, "some microseconds a character, on any machine"
