"""Readers of single values: what a source wrote, as a base unit or a word of the record; None for a vendor's blank.

Every reader raises Unreadable, whose text says what would be accepted. docs/standardization.md has the rules in tables.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any, Final, Generic, TypeVar

from shared.records import Outcome

Value = Any  # a JSON scalar: str, int, float, bool or None; readers are never given None

K = TypeVar("K")
V = TypeVar("V")

MAX_SECONDS: Final = 100 * 365.25 * 86_400  # a century: a longer duration is a mistake
MAX_COUNT: Final = 2**60  # likewise an exbibyte, or as many rows
BLANK_INTEGERS: Final = range(2**63 - 16, 2**63)  # GPU tools: 9223372036854775794 is "not supported", and so on
_BLANK_WORDS: Final = frozenset(
    ["", "-", "--", "n/a", "[n/a]", "na", "nan", "null", "(null)", "none", "nil", "undefined", "[not supported]"]
    + [str(integer) for integer in BLANK_INTEGERS]
)
_LONGEST = 64  # characters; no duration, size or word is longer, and no cache keeps more


class Unreadable(ValueError):  # noqa: N818 - it is a verdict on a value; whether it is an error, the field decides
    """A value that cannot be read as its field; the text says what would be."""


class Memo(dict[K, V], Generic[K, V]):
    """A bounded cache of one function: `memo[key]`. When full it is emptied, which costs less than keeping an order."""

    def __init__(self, compute: Callable[[K], V], limit: int) -> None:
        super().__init__()
        self._compute = compute
        self._limit = limit

    def __missing__(self, key: K) -> V:
        value = self._compute(key)
        if len(self) >= self._limit:
            self.clear()
        parts = key if isinstance(key, tuple) else (key,)
        if all(not isinstance(part, str) or len(part) <= _LONGEST for part in parts):
            self[key] = value
        return value


def is_blank(value: Value) -> bool:
    """Whether a vendor says with this that it has no value."""
    if isinstance(value, str):
        return len(value) <= _LONGEST and value.strip().lower() in _BLANK_WORDS
    return value is None or value in BLANK_INTEGERS


# numbers

_PLAIN = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", re.ASCII)  # 1,250,000.5
_GROUPED_DOTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+,\d+", re.ASCII)  # 1.250.000,5
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)  # 12,5


def number(text: str, accepted: str) -> float | int:
    """A number in text. A point is a decimal point; a comma is a decimal comma, unless it can only group thousands.

    "1,250" may be either and is refused; "0,125", "12,5", "1,250.5", "1,250,000" and "1.250,5" can be only one. Raises
    Unreadable, saying what the caller would have accepted.
    """
    if _PLAIN.fullmatch(text):
        return float(text) if "." in text or "e" in text or "E" in text else int(text)
    if _GROUPED.fullmatch(text) and ("." in text or text.count(",") > 1):
        return number(text.replace(",", ""), accepted)
    if _GROUPED_DOTS.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    if _COMMA.fullmatch(text) and not _GROUPED.fullmatch(text):
        return float(text.replace(",", "."))
    raise Unreadable(accepted)


def _short(text: str, accepted: str) -> str:
    if len(text) > _LONGEST:
        raise Unreadable(accepted)
    return text.strip()


# durations

_SECONDS_IN: Final[dict[str, tuple[int, int]]] = {  # unit: seconds as a fraction, so that 12437 ms is 12.437 s exactly
    spelling: ratio
    for spellings, ratio in (
        ("ns nano nanos nanosecond nanoseconds", (1, 1_000_000_000)),
        ("us µs μs micro micros microsecond microseconds", (1, 1_000_000)),
        ("ms msec msecs milli millis millisecond milliseconds", (1, 1_000)),
        ("s sec secs second seconds", (1, 1)),
        ("m min mins minute minutes", (60, 1)),
        ("h hr hrs hour hours", (3_600, 1)),
        ("d day days", (86_400, 1)),
    )
    for spelling in spellings.split()
}
DURATION_SPELLINGS: Final = frozenset(_SECONDS_IN)
DURATION_UNITS: Final = tuple(unit for unit in _SECONDS_IN if len(unit) > 1)  # as a name's ending
_DURATION_HELP = (
    'a duration from 0 to 100 years: a number in the unit of the name (seconds if it has none), "850 ms", "13m 07s", '
    '"00:13:07.5" or "PT13M7S"'
)
_ISO_DURATION = re.compile(
    r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:[.,]\d+)?)S)?)?", re.ASCII | re.IGNORECASE
)
_CLOCK = re.compile(r"(?:(?:(\d+)(?: days?,? |\.))?(\d+):)?([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)", re.ASCII)
_PART = re.compile(r"(\d[\d.,]*) ?([a-zµμ]+)(?:, | |$|(?=\d))", re.ASCII | re.IGNORECASE)


def duration_of_number(unit: str) -> Callable[[Value], float | None]:
    """Reads a number in this unit (seconds if it is empty) as seconds; a fraction of another unit to the nanosecond."""
    times, over = _SECONDS_IN[unit or "s"]
    in_seconds = times == over
    most = MAX_SECONDS * over / times
    nanoseconds = times * 1_000_000_000 // over

    def read(value: Value) -> float | None:
        if value.__class__ is not bool:
            if 0 <= value <= most:
                if value.__class__ is int:
                    return value * times / over
                return value if in_seconds else int(value * nanoseconds + 0.5) / 1_000_000_000
            if is_blank(value):
                return None
        raise Unreadable(_DURATION_HELP)

    return read


@cache  # one memory for all shapes
def duration_of_text(unit: str) -> Callable[[str], float | None]:
    """Reads a duration in text as seconds. A unit in the text wins over that of the name."""
    plain = duration_of_number(unit)

    def read(text: str) -> float | None:
        text = _short(text, _DURATION_HELP)
        if ":" in text:
            seconds = _clock(text)
        elif text[:1] in {"P", "p"}:
            seconds = _iso_duration(text)
        elif text[-1:].isalpha() and text[0].isdigit():
            seconds = _parts(text)
        elif is_blank(text):
            return None
        else:
            return plain(number(text, _DURATION_HELP))
        if seconds is None or seconds > MAX_SECONDS:
            raise Unreadable(_DURATION_HELP)
        return seconds

    return Memo(read, 4096).__getitem__


def _clock(text: str) -> float | None:
    """HH:MM:SS with a fraction and days before it; MM:SS only with a fraction, since "02:15" may be hours too."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    if hours is None and not {".", ","} & set(seconds):
        return None
    whole = int(days or 0) * 86_400 + int(hours or 0) * 3_600 + int(minutes) * 60
    return _exact(whole, seconds)


def _iso_duration(text: str) -> float | None:
    found = _ISO_DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    weeks, days, hours, minutes, seconds = found.groups()
    whole = int(weeks or 0) * 604_800 + int(days or 0) * 86_400 + int(hours or 0) * 3_600 + int(minutes or 0) * 60
    return _exact(whole, seconds or "0")


def _exact(whole: int, seconds: str) -> float:
    """Whole seconds and a decimal text of seconds, rounded once."""
    before, _, after = seconds.replace(",", ".").partition(".")
    return float(f"{whole + int(before)}.{after}") if after else float(whole + int(before))


def _parts(text: str) -> float | None:
    """ "13m 07s", "1h2m3.5s", "850 ms", "1 hour, 5 minutes": the shares of each unit, added exactly."""
    position = 0
    whole = 0  # nanoseconds
    fractions = Decimal()  # likewise
    while position < len(text):
        part = _PART.match(text, position)
        ratio = _SECONDS_IN.get(part[2].lower()) if part else None
        if part is None or ratio is None:
            return None
        nanoseconds = ratio[0] * 1_000_000_000 // ratio[1]
        if part[1].isdigit():
            whole += int(part[1]) * nanoseconds
        else:
            fractions += Decimal(str(number(part[1], _DURATION_HELP))) * nanoseconds
        position = part.end()
    return float((whole + fractions) / 1_000_000_000) if fractions else whole / 1_000_000_000


# sizes and counts

_BYTES_IN: Final[dict[str, int]] = {
    **dict.fromkeys(("b", "byte", "bytes", "o", "octet", "octets"), 1),
    **{
        spelling: 1000**power
        for power, prefix in enumerate("kmgtp", 1)
        for spelling in (prefix, f"{prefix}b", f"{prefix}o", f"{prefix}bytes")
    },
    **{
        spelling: 1024**power
        for power, prefix in enumerate("kmgtp", 1)
        for spelling in (f"{prefix}i", f"{prefix}ib", f"{prefix}io", f"{prefix}ibytes")
    },
    **{
        spelling: factor**power
        for factor, names in (
            (1000, ("kilo", "mega", "giga", "tera", "peta")),
            (1024, ("kibi", "mebi", "gibi", "tebi", "pebi")),
        )
        for power, name in enumerate(names, 1)
        for spelling in (f"{name}byte", f"{name}bytes")
    },
}
SIZE_SPELLINGS: Final = frozenset(_BYTES_IN)
SIZE_UNITS: Final = tuple(unit for unit in _BYTES_IN if len(unit) > 1 and "o" not in unit[-1:])  # as a name's ending
_SIZE_HELP = (
    'a size from 0 to 2^60 bytes: a number in the unit of the name (bytes if it has none), "177 MB" (1,000,000 each) '
    'or "12.5 MiB" (1,048,576 each)'
)
_SIZE = re.compile(r"([+-]?\d[\d.,]*(?:[eE][+-]?\d{1,3})?)\s?([a-z]*)", re.ASCII | re.IGNORECASE)


def size_of_number(unit: str) -> Callable[[Value], int | None]:
    """Reads a number in this unit (bytes if it is empty) as whole bytes, rounded."""
    factor = _BYTES_IN[unit or "b"]
    most = MAX_COUNT // factor

    def read(value: Value) -> int | None:
        if value.__class__ is not bool:
            if 0 <= value <= most:
                return value * factor if value.__class__ is int else int(value * factor + 0.5)
            if is_blank(value):
                return None
        raise Unreadable(_SIZE_HELP)

    return read


@cache  # one memory for all shapes
def size_of_text(unit: str) -> Callable[[str], int | None]:
    """Reads a size in text as whole bytes. A unit in the text wins over that of the name."""

    def read(text: str) -> int | None:
        found = _SIZE.fullmatch(_short(text, _SIZE_HELP))
        factor = _BYTES_IN.get(found[2].lower() or unit or "b") if found else None
        if is_blank(text):
            return None
        if found is None or factor is None:
            raise Unreadable(_SIZE_HELP)
        size = number(found[1], _SIZE_HELP) * factor
        if not 0 <= size <= MAX_COUNT:
            raise Unreadable(_SIZE_HELP)
        return int(size + 0.5)

    return Memo(read, 4096).__getitem__


_COUNT_HELP = "a whole number from 0 to 2^60"


def count_of_number(value: Value) -> int | None:
    """Reads a whole number."""
    if value.__class__ is not bool:
        if 0 <= value <= MAX_COUNT and (value.__class__ is int or value.is_integer()):
            return int(value)
        if is_blank(value):
            return None
    raise Unreadable(_COUNT_HELP)


def count_of_text(text: str) -> int | None:
    """Reads a whole number in text; in a count a comma before three digits can only group thousands."""
    if is_blank(text):
        return None
    text = _short(text, _COUNT_HELP)
    return count_of_number(number(text.replace(",", "") if _GROUPED.fullmatch(text) else text, _COUNT_HELP))


# names and identifiers


def _name(text: str) -> str | None:
    return None if is_blank(text) else text.strip()


name_of_text: Final = Memo(_name, 4096).__getitem__


def name_of_number(value: Value) -> str:
    """A source or an operation that is called by a number."""
    if value.__class__ is bool:
        raise Unreadable("a name")
    return str(value)


def body_of_number(value: Value) -> str:
    """A message that is a number, as JSON writes it."""
    return str(value).lower() if value.__class__ is bool else str(value)


def identifier_of_text(digits: int) -> Callable[[str], str | None]:
    """Reads a trace or span identifier of this many hexadecimal digits; all zeros is none, as W3C has it."""

    def read(text: str) -> str | None:
        if len(text) == digits + 4:
            text = text.replace("-", "")  # written as a UUID
        if len(text) == digits and text.isascii() and text.isalnum():
            try:
                return text.lower() if int(text, 16) else None
            except ValueError:
                pass
        if is_blank(text):
            return None
        raise Unreadable(f"{digits} hexadecimal digits")

    return read


def refuse(accepted: str) -> Callable[[Value], Any]:
    """The reader of a type of value that a field never has."""

    def read(_: Value) -> Any:
        raise Unreadable(accepted)

    return read


# outcomes

_OUTCOME_WORDS: Final[dict[str, Outcome]] = {
    word: outcome
    for outcome, words in (
        (Outcome.SUCCESS, "success successful successfully succeeded succeed ok okay done completed complete finished"
                          " passed pass true yes accepted delivered"),
        (Outcome.FAILURE, "failure failed fail error errored err ko false no aborted crashed killed rejected refused"
                          " denied faulted exception fatal invalid"),
        (Outcome.TIMEOUT, "timeout timedout timeouted deadlineexceeded expired"),
        (Outcome.CANCELLED, "cancelled canceled cancel stopped interrupted revoked"),
        (Outcome.SKIPPED, "skipped skip ignored disabled noop notrun notmodified"),
        (Outcome.UNKNOWN, "unknown"),
    )
    for word in words.split()
}  # fmt: skip
_SEPARATORS = str.maketrans("", "", " _-.")
Ended = tuple[str, bool]  # an outcome, and whether the value says more than it and stays in attributes
NOT_AN_OUTCOME: Final[Ended] = (Outcome.UNKNOWN.value, True)  # of a word or a code that is none


@cache  # one memory for all shapes
def outcome_of_text(scale: str) -> Callable[[str], Ended | None]:
    """Reads how it ended: a word in any case, or a code in text. Any other word is `unknown`, and stays."""
    by_code = outcome_of_number(scale)

    def read(text: str) -> Ended | None:
        if is_blank(text):
            return None
        if len(text) > _LONGEST:
            return NOT_AN_OUTCOME
        word = text.strip().lower().translate(_SEPARATORS)
        outcome = _OUTCOME_WORDS.get(word)
        if outcome is not None:
            return outcome.value, False
        if word.isascii() and word.isdigit():
            return by_code(int(word))[0], True
        return NOT_AN_OUTCOME

    return Memo(read, 1024).__getitem__


@cache  # one memory for all shapes
def outcome_of_number(scale: str) -> Callable[[Value], Ended]:
    """Reads a truth value, an HTTP status, an exit code (scale `exit`) or a flag of 0 and 1 (scale `flag`).

    HTTP: 100 to 399 success; 408 and 504 timeout; 499 cancelled; the other 400 to 599 failure.
    """

    def read_code(code: float) -> Ended:
        if scale == "exit":
            return (Outcome.FAILURE if code else Outcome.SUCCESS).value, True
        if scale == "flag" and code in (0, 1):
            return (Outcome.SUCCESS if code else Outcome.FAILURE).value, True
        return _of_http(code).value, True

    codes = Memo(read_code, 1024)

    def read(value: Value) -> Ended:
        if value.__class__ is bool:
            return (Outcome.SUCCESS if value else Outcome.FAILURE).value, False
        return codes[value]

    return read


def _of_http(status: float) -> Outcome:
    if status in (408, 504):
        return Outcome.TIMEOUT
    if status == 499:
        return Outcome.CANCELLED
    if 100 <= status < 400:
        return Outcome.SUCCESS
    return Outcome.FAILURE if 400 <= status < 600 else Outcome.UNKNOWN


# severities: numbers and the mapping of words are those of the OpenTelemetry log data model, appendix B

SEVERITY_NAMES: Final = tuple(
    f"{name}{n if n > 1 else ''}" for name in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL") for n in range(1, 5)
)
_SEVERITY_WORDS: Final[dict[str, int]] = {
    **{name.lower(): number for number, name in enumerate(SEVERITY_NAMES, 1)},
    **dict.fromkeys(("verbose", "finest", "silly"), 1),
    **dict.fromkeys(("dbg", "fine"), 5),
    **dict.fromkeys(("information", "informational", "inf"), 9),
    "notice": 10,
    **dict.fromkeys(("warning", "wrn"), 13),
    **dict.fromkeys(("err", "severe"), 17),
    **dict.fromkeys(("critical", "crit"), 18),
    "alert": 19,
    **dict.fromkeys(("emergency", "emerg", "panic"), 21),
}
_SYSLOG: Final = (21, 19, 18, 17, 13, 10, 9, 5)  # by syslog's 0 to 7
_PYTHON: Final = {10: 5, 20: 9, 30: 13, 40: 17, 50: 21}
_SEVERITY_HELP = "a severity such as INFO, warning or ERROR, or syslog's 0 to 7"
Severity = tuple[int, str]  # 1 to 24, and the source's own word


def severity_of_word(word: str) -> Severity | None:
    """The severity that a word names in any case, or None."""
    found = _SEVERITY_WORDS.get(word.lower())
    return None if found is None else (found, word)


@cache  # one memory for all shapes
def severity_of_text(scale: str) -> Callable[[str], Severity | None]:
    """Reads a word, or a number in text."""
    by_number = severity_of_number(scale)

    def read(text: str) -> Severity | None:
        if is_blank(text):
            return None
        word = _short(text, _SEVERITY_HELP)
        found = severity_of_word(word)
        if found is None and word.isascii() and word.isdigit():
            return by_number(int(word))
        if found is None:
            raise Unreadable(_SEVERITY_HELP)
        return found

    return Memo(read, 1024).__getitem__


def severity_of_number(scale: str) -> Callable[[Value], Severity]:
    """Reads a number on the scale that the name stands for: `otel` 1 to 24, `python` 10 to 50, else syslog's 0 to 7.

    A bare level of 10, 20, ... is on Python's scale or on Bunyan's, which disagree, and is not guessed.
    """

    def read(value: Value) -> Severity:
        found: int | None = None
        if value.__class__ is int:
            if scale == "otel":
                found = value if 1 <= value <= 24 else None
            elif scale == "python":
                found = _PYTHON.get(value)
            elif 0 <= value <= 7:
                found = _SYSLOG[value]
        if found is None:
            raise Unreadable(_SEVERITY_HELP)
        return found, SEVERITY_NAMES[found - 1]

    return read
