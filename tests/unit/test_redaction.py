"""What is taken out of a record, what is not, and that it is nowhere in what is written."""

import json
from pathlib import Path

import pytest

from shared.config import Settings
from shared.errors import ConfigurationError
from standardization.main import build
from standardization.redaction import GROUPS, Redaction, custom_rules, groups_of
from standardization.standardize import Arrival, Standardizer
from standardization.templates import TemplateMemory
from tests.standardizing import standardized

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("password=hunter2 ok", "password=[redacted:password] ok"),
        ("db_password: 's3 cret', x", "db_password: [redacted:password], x"),
        ("?access_token=abc123&page=2", "?access_token=[redacted:password]&page=2"),
        ("API-KEY = Zm9v", "API-KEY = [redacted:password]"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key [redacted:aws_access_key] used"),
        (f"key {KEY} end", "key [redacted:private_key] end"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "[redacted:private_key]"),
        (f"got {JWT}.", "got [redacted:jwt]."),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted:authorization]"),
        ("bearer 0123456789abcdef0123456789", "bearer [redacted:bearer]"),
        ("ghp_" + "a1" * 18, "[redacted:vendor_token]"),
        ("postgres://app:p%40ss@db:5432/x", "postgres://app:[redacted:url_password]@db:5432/x"),
        ("from Anna.B+x@mail.example.com to", "from [redacted:email] to"),
        ("card 4111 1111 1111 1111.", "card [redacted:card]."),
        ("card 5500-0000-0000-0004", "card [redacted:card]"),
    ],
)
def test_what_must_not_be_stored_is_taken_out(text: str, redacted: str) -> None:
    assert Redaction(GROUPS).text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "Failed password for root from 10.0.0.1 port 22", "the secret of success", "Bearer authentication failed",
        "card 4111 1111 1111 1112",
        "order 1700000000000123456", "uid 9999999999999999", "2026-03-17 09:00:00", "@timestamp",
        "user@host", "http://host:80/a@b.c", "tokens: many", "eyJust a word", "4444 4444 4444 4444", "é ü \U0001f512",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_stays(text: str) -> None:
    redaction = Redaction(GROUPS)
    assert redaction.text(text) == text
    assert not redaction.counted


def test_redacting_twice_changes_nothing_more() -> None:
    redaction = Redaction(GROUPS)
    once = redaction.text(f"password=hunter2 api_key: {JWT} mail a@b.example pwd='x'")
    assert redaction.text(once) == once


@pytest.mark.parametrize("escaped", ["a\nAKIAIOSFODNN7EXAMPLE", 'say \\"password\\": \\"hunter2\\"', f"\t{JWT}", KEY])
def test_escapes_of_json_hide_nothing(escaped: str) -> None:
    line = json.dumps({"source": "shop", "message": escaped}).encode()
    subject = Standardizer(1 << 24, 1 << 21, redaction=Redaction(GROUPS))
    ((_, written),), _ = standardized(subject, [line])
    assert b"[redacted:" in written


def test_nothing_of_a_secret_is_in_the_record_and_each_is_counted() -> None:
    entry = {
        "source": "shop", "api": "pay for anna@shop.example", "message": "card 4111111111111111 of bob@shop.example",
        "db": {"password": "hunter2", "Authorization": "x", "host": "db-1"}, "card": 4111111111111111, "count": 5,
        "host": "anna@laptop.example", "list": ["carol@shop.example"],
    }  # fmt: skip
    subject = Standardizer(1 << 24, 1 << 21, redaction=Redaction(GROUPS))
    lines = [b'{"source":"a"}', json.dumps(entry).encode(), b'{"source":"b"}']
    good, rejected = standardized(subject, lines)
    assert rejected == []
    assert [json.loads(line)["service_name"] for _, line in good] == ["a", "shop", "b"]
    key, written = good[1]
    for secret in (b"anna", b"bob", b"carol", b"4111111111111111", b"hunter2"):
        assert secret not in written
        assert secret not in key
    attributes = json.loads(written)["attributes"]
    assert attributes["db.password"] == attributes["db.Authorization"] == "[redacted:password]"
    assert (attributes["card"], attributes["count"], attributes["db.host"]) == ("[redacted:card]", 5, "db-1")
    assert dict(subject.redactions()) == {"email": 4, "card": 2, "password": 2}
    assert dict(subject.redactions()) == {}


def test_a_template_never_learns_a_secret() -> None:
    memory = TemplateMemory()
    subject = Standardizer(1 << 24, 1 << 21, memory, Redaction(GROUPS))
    standardized(subject, [b"login of anna@shop.example with password=hunter2"], content_type="text/plain")
    state = b"".join(value for _, _, value in memory.changed() if value is not None)
    assert b"anna" not in state
    assert b"hunter2" not in state
    assert b"[redacted:email]" in state


def test_the_detail_of_a_dead_letter_holds_no_secret() -> None:
    subject = Standardizer(1 << 24, 1 << 21, redaction=Redaction(GROUPS))
    _, (bad,) = standardized(subject, [b'{"duration":"anna@shop.example"}'])
    assert "anna" not in bad.detail
    assert bad.value == b'{"duration":"anna@shop.example"}', "a dead letter keeps the original"


def test_a_group_that_is_off_redacts_nothing() -> None:
    redaction = Redaction(["cards"])
    assert redaction.text("a@b.example password=x 4111111111111111") == "a@b.example password=x [redacted:card]"


def test_custom_patterns_replace_their_group_wherever_it_stands() -> None:
    rules = custom_rules('# ours\nbadge = badge "(\\d+)"\n\niban = [A-Z]{2}\\d{20}\n', "rules.txt")
    subject = Standardizer(1 << 24, 1 << 21, redaction=Redaction([], rules))
    line = json.dumps({"message": 'badge "4711" of DE89370400440532013000', "x": "y"}).encode()
    ((_, written),), _ = standardized(subject, [line])
    assert json.loads(written)["body"] == 'badge "[redacted:badge]" of [redacted:iban]'
    assert dict(subject.redactions()) == {"badge": 1, "iban": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = (", 1), ("\n# x\nno pattern", 3), ("x-y = a", 1), ("a =", 1), ("a = x*", 1), ("a = (?=x)", 1)],
)
def test_a_bad_pattern_stops_the_start_and_its_line_is_named(text: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=f"rules.txt, line {line}"):
        custom_rules(text, "rules.txt")


def test_a_group_that_is_none_stops_the_start() -> None:
    assert groups_of("off") == []
    assert groups_of(" emails , cards") == ["emails", "cards"]
    with pytest.raises(ConfigurationError, match="REDACT: 'email' is none of"):
        groups_of("email")


def test_a_file_of_patterns_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="REDACT_FILE"):
        build(Settings(data_dir=tmp_path, redact_file=str(tmp_path / "absent")))


def test_a_record_that_grows_by_redaction_still_fits() -> None:
    subject = Standardizer(1 << 24, 1 << 14, redaction=Redaction(GROUPS))
    text = " ".join(["a@b.co"] * 2_200)
    ((_, written),), _ = standardized(subject, [json.dumps({"message": text}).encode()])
    assert len(written) <= 1 << 14
    assert json.loads(written)["truncated_fields"] == ["body"]


def test_the_arrival_is_no_secret() -> None:
    """What we write ourselves before an entry's own fields is never searched, and never redacted."""
    subject = Standardizer(1 << 24, 1 << 21, redaction=Redaction(GROUPS))
    arrival = Arrival("2026-03-17T09:00:00Z", source="shop")
    good, _, _ = subject.entries(None, [b'{"a":1}'], ["41111111-11-11111111-0"], [arrival])
    assert json.loads(good[0][1])["record_id"] == "41111111-11-11111111-0"
