"""What must not be stored is taken out of records before they are written: secrets, tokens, mail addresses, cards.

Patterns are RE2's, which takes time in proportion to the text whatever the pattern. Nearly all records hold nothing to
redact: one search over the lines of a batch says so, and costs a fraction of a microsecond a record. Pure.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec
import re2

from shared.errors import ConfigurationError
from shared.records import Record, Sample, Scalar
from standardization.fields import folded

GROUPS: Final = ("secrets", "tokens", "emails", "cards")
CUSTOM: Final = "custom"

_TEXTS: Final = ("service_name", "event_name", "severity_text", "body")
_TEXTS_OF_SAMPLES: Final = ("host_name", "hw_model", "device", "container", "pod", "namespace")
_IDENTITY: Final = 100  # bytes that every line begins with: record_id and times
_CARD_DIGITS: Final = range(13, 20)


def _is_card(digits: bytes) -> bool:
    """Whether the Luhn checksum holds, the length is a card's, and the first digit one that cards have."""
    numbers = [digit - 48 for digit in digits if 48 <= digit <= 57]
    if len(numbers) not in _CARD_DIGITS or not 2 <= numbers[0] <= 6 or len(set(numbers)) == 1:
        return False
    doubled = [sum(divmod(2 * number, 10)) for number in numbers[-2::-2]]
    return (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0


class Rule(NamedTuple):
    """What is replaced: the first group of a match, or all of it where there is no group."""

    name: str  # in the replacement and the metric
    group: str  # one of GROUPS, or CUSTOM
    pattern: Any  # compiled by re2, of bytes
    holds: Callable[[bytes], bool] | None = None  # a check of what matched


def _rule(name: str, group: str, pattern: str, holds: Callable[[bytes], bool] | None = None) -> Rule:
    return Rule(name, group, re2.compile(pattern.encode()), holds)


_RULES: Final = (
    _rule(
        "private_key",
        "secrets",
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
        r"(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    _rule("jwt", "tokens", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    _rule(
        "authorization",
        "tokens",
        r"(?i)\bauthorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:basic|bearer|token|digest)\s+([^\s\"'\\,;]{6,})",
    ),
    _rule("bearer", "tokens", r"(?i)\bbearer\s+([A-Za-z0-9._~+/=-]{20,})"),
    _rule(
        "vendor_token",
        "tokens",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{35})",
    ),
    _rule("aws_access_key", "secrets", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    _rule("url_password", "secrets", r"://[^\s:/@]{0,100}:([^\s/@]{1,200})@"),
    _rule(
        "password",
        "secrets",
        r"(?i)(?:passw(?:or)?d|pwd|passphrase|secret|api[_-]?key|(?:access|private|secret)[_-]?key"
        r"|(?:access|auth|refresh|id)[_-]?token)\\?[\"']?\s{0,4}[=:]\s{0,4}"
        r"(\\\"[^\"\\]*\\\"|\"[^\"]*\"|'[^']*'|[^\s,;&\"'()\[\]{}][^\s,;&\"')\]}]*)",
    ),
    _rule(
        "email",
        "emails",
        r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}\b",
    ),
    _rule("card", "cards", r"\b[2-6](?:[ -]?[0-9]){12,18}\b", _is_card),
)
# What the line of a record shows wherever one of the group's rules would match. JSON's escapes must not hide it: no \b.
_SIGNS: Final = {
    "secrets": r"(?i:passw|pwd|passphrase|secret|api[_-]?key|(?:access|private)[_-]?key"
    r"|(?:access|auth|refresh|id)[_-]?token|cookie)|AKIA|ASIA|-----BEGIN|@",
    "tokens": r"(?i:authorization|bearer)|eyJ|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|[sr]k_(?:live|test)_|AIza",
    "emails": r"@",
    "cards": r"[2-6](?:[ -]?[0-9]){12}",
}
# A value under such a name is a secret whatever it looks like; names are compared as those of fields.
_NAMES: Final = {
    "secrets": "password passwd pwd passphrase secret clientsecret secretkey apikey accesskey privatekey cookie "
    "setcookie accesstoken authtoken refreshtoken idtoken",
    "tokens": "authorization proxyauthorization",
}


class Redaction:
    """Redacts records and texts by the groups that are on, and counts by rule. For one thread."""

    def __init__(self, groups: Sequence[str], custom: Iterable[Rule] = ()) -> None:
        custom = tuple(custom)
        self._rules = (*(rule for rule in _RULES if rule.group in groups), *custom)
        signs = "|".join(_SIGNS[group] for group in GROUPS if group in groups)
        # what a pattern of others looks like in JSON's escapes can't be known: every line is suspect then
        self._signs: Any = re2.compile(b"" if custom else signs.encode())
        self._names = {name: name for group in groups for name in _NAMES.get(group, "").split()}
        self._cards = "cards" in groups
        self.counted: Counter[str] = Counter()  # for whoever takes and clears it

    def suspects(self, lines: Sequence[bytes]) -> list[int]:
        """Which of these records' lines may hold something to redact, in order."""
        searched = [line[_IDENTITY:] for line in lines]
        together = b"\n".join(searched)  # one search over all lines: to begin one costs as much as to search a line
        found: list[int] = []
        match = self._signs.search(together)
        if match is None:
            return found
        ends = list(accumulate(len(line) + 1 for line in searched))
        while match is not None and (line := bisect_right(ends, match.start())) < len(lines):
            found.append(line)
            match = self._signs.search(together, ends[line]) if ends[line] < len(together) else None
        return found

    def text(self, text: str) -> str:
        """The text without what must not be stored."""
        data = text.encode()
        if not self._signs.search(data):
            return text
        redacted = self._redacted(data)
        return text if redacted == data else redacted.decode(errors="replace")

    def record(self, record: Record) -> Record:
        """The record without what must not be stored; the same object where there was nothing."""
        changed: dict[str, Any] = {}
        for name in _TEXTS:
            value = getattr(record, name)
            if value is not None and (redacted := self.text(value)) != value:
                changed[name] = redacted
        for name, known in (("resource", record.resource), ("attributes", record.attributes)):
            new = {key: self._value(key, value) for key, value in known.items()}
            if new != known:
                changed[name] = new
        return msgspec.structs.replace(record, **changed) if changed else record

    def sample(self, sample: Sample) -> Sample:
        """The sample without what must not be stored; the same object where there was nothing. `hw_id` stays."""
        changed: dict[str, Any] = {}
        for name in _TEXTS_OF_SAMPLES:
            value = getattr(sample, name)
            if value is not None and (redacted := self.text(value)) != value:
                changed[name] = redacted
        new = {key: self._value(key, value) for key, value in sample.attributes.items()}
        if new != sample.attributes:
            changed["attributes"] = new
        return msgspec.structs.replace(sample, **changed) if changed else sample

    def _value(self, key: str, value: Scalar) -> Scalar:
        if isinstance(value, str):
            if value and folded(key.rpartition(".")[2]) in self._names and not value.startswith("[redacted:"):
                return self._marked("password").decode()
            return self.text(value)
        if self._cards and type(value) is int and value > 10**12 and _is_card(str(value).encode()):
            return self._marked("card").decode()
        return value

    def _redacted(self, data: bytes) -> bytes:
        for rule in self._rules:
            data = rule.pattern.sub(lambda match, rule=rule: self._replaced(rule, match), data)
        return data

    def _replaced(self, rule: Rule, match: Any) -> bytes:
        whole: bytes = match.group()
        secret: bytes = match.group(1) if rule.pattern.groups else whole
        if not secret or secret.startswith(b"[redacted:") or (rule.holds is not None and not rule.holds(secret)):
            return whole
        if secret is whole:
            return self._marked(rule.name)
        start, end = match.start(1) - match.start(), match.end(1) - match.start()
        return whole[:start] + self._marked(rule.name) + whole[end:]

    def _marked(self, name: str) -> bytes:
        self.counted[name] += 1
        return f"[redacted:{name}]".encode()


def names(groups: Sequence[str], custom: Iterable[Rule]) -> list[str]:
    """The rules that are on, which are the values of the metric's label."""
    return [rule.name for rule in _RULES if rule.group in groups] + [rule.name for rule in custom]


def groups_of(text: str) -> list[str]:
    """The groups that a setting names, separated by commas. Raises ConfigurationError."""
    found = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "off"]
    for name in found:
        if name not in GROUPS:
            raise ConfigurationError(f"REDACT: {name!r} is none of {', '.join(GROUPS)}, or off")
    return found


def custom_rules(text: str, file: str) -> list[Rule]:
    """The rules of a file: `name = pattern` a line, RE2's syntax; # begins a comment. Raises ConfigurationError."""
    found: list[Rule] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, pattern = (part.strip() for part in line.partition("="))
        if not equals or not name.isidentifier() or not pattern:
            raise ConfigurationError(f"{file}, line {number}: a rule is `name = pattern`, its name letters, digits, _")
        try:
            compiled = re2.compile(pattern.encode(), _quiet)
        except re2.error as error:
            raise ConfigurationError(f"{file}, line {number}: not a pattern of RE2: {error}") from None
        if compiled.search(b"") is not None:
            raise ConfigurationError(f"{file}, line {number}: the pattern matches the empty text")
        found.append(Rule(name, CUSTOM, compiled))
    return found


_quiet: Final = re2.Options()
_quiet.log_errors = False
