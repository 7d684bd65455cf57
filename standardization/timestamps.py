"""Reading points in time: any usual spelling, as RFC 3339 in UTC, exact to the nanosecond.

A time without a zone is UTC. A date with slashes, dots or dashes that does not begin with the year begins with the
day. A bare number is seconds, milliseconds, microseconds or nanoseconds since 1970 by its magnitude.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

from shared.records import timestamp_of
from standardization.values import BLANK_INTEGERS, Memo, Unreadable, Value, is_blank

_HELP = (
    'a time from 1973 to 2261: "2026-03-17T08:15:00.123Z", "2026-03-17 09:15:00+01:00", "17/03/2026 08:15:00" '
    "(day first), or seconds, ms, us or ns since 1970"
)
_EARLIEST: Final = 1_666_667  # minutes since 1970, March 1973: a smaller number is a count or a duration, not a date
_LATEST: Final = 153_577_440  # minutes, 2262-01-01: the store's nanoseconds since 1970 end in that year
MONTHS: Final = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_SECOND_TEXTS: Final = tuple(f":{second:02d}" for second in range(60))
_SECONDS: Final = frozenset(_SECOND_TEXTS)
_MILLISECOND_TEXTS: Final = ("Z", *(f".{millisecond:03d}Z" for millisecond in range(1, 1000)))
_PER_SECOND: Final = {
    "sec": 1, "seconds": 1, "epoch": 1,
    "ms": 1_000, "millis": 1_000, "milliseconds": 1_000,
    "us": 1_000_000, "micros": 1_000_000, "microseconds": 1_000_000,
    "ns": 1_000_000_000, "nano": 1_000_000_000, "nanos": 1_000_000_000, "nanoseconds": 1_000_000_000,
    "unixnano": 1_000_000_000,
}  # fmt: skip
EPOCH_UNITS: Final = tuple(_PER_SECOND)  # as a name's ending

_MINUTE = re.compile(
    r"(?:(?P<y>\d{4})(?P<s>[-/.])(?P<mo>\d\d)(?P=s)(?P<d>\d\d)|(?P<d2>\d\d)(?P<s2>[-/.])(?P<mo2>\d\d)(?P=s2)(?P<y2>\d{4}))"
    r"[Tt ](?P<h>\d\d):(?P<mi>\d\d)",
    re.ASCII,
)
_TAIL = re.compile(r"(?:[.,](\d+))? ?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
_OTHER = re.compile(
    r"(?:[A-Za-z]{3,9},? )?"
    r"(?:(?P<y>\d{4})(?P<s>[-/.]?)(?P<mo>\d\d)(?P=s)(?P<d>\d\d)"
    r"|(?P<d2>\d{1,2})(?P<s2>[-/. ])(?P<mo2>\d{1,2}|[A-Za-z]{3,9})(?P=s2)(?P<y2>\d{4}))"
    r"(?:(?:[Tt:]|,? )(?P<h>\d{1,2}):(?P<mi>\d\d)(?P<sec>:\d\d)?(?P<tail>.*))?",
    re.ASCII,
)


def of_text(unit: str) -> Callable[[str], str | None]:
    """Reads a time in text. A number in text is read as `of_number` does."""
    by_number = of_number(unit)

    def read(text: str) -> str | None:
        second = text[16:19]
        if second in _SECONDS:  # "2026-03-17T08:15:00..." or "17/03/2026 08:15:00...": minutes and tails repeat
            try:
                if len(text) > 24 and text[19] == ".":  # microseconds repeat only when cut in two
                    thousandths = _thousandths[text[19:23]]
                    finer, zone = _finer[text[23:]]
                    fraction = thousandths + finer if finer else _tails[thousandths][0]
                else:
                    fraction, zone = _tails[text[19:]]
                return _minutes[text[:16] + zone] + second + fraction
            except Unreadable:
                pass
        return _other(text.strip(), by_number)

    return read


def of_number(unit: str) -> Callable[[Value], str | None]:
    """Reads a number in this unit since 1970; without a unit, in that which its magnitude says. 0 means not known."""
    stated = _PER_SECOND[unit] if unit else 0

    def read(value: Value) -> str | None:
        per_second = stated or _by_magnitude(value)
        if value.__class__ is not int:
            if value.__class__ is bool:
                raise Unreadable(_HELP)
            # The decimal digits that the source wrote are what it meant, not the binary fraction nearest to them.
            value = int(Decimal(str(value)) * (1_000_000_000 // per_second))
            per_second = 1_000_000_000
        if value == 0 or value in BLANK_INTEGERS:
            return None
        whole: int = value
        second, fraction = divmod(whole, per_second)
        minute, second = divmod(second, 60)
        if per_second == 1_000:
            return _epoch_minutes[minute] + _SECOND_TEXTS[second] + _MILLISECOND_TEXTS[fraction]
        tail = fraction_of_digits(f"{fraction * (1_000_000_000 // per_second):09d}") if fraction else "Z"
        return _epoch_minutes[minute] + _SECOND_TEXTS[second] + tail

    return read


def _by_magnitude(value: float) -> int:
    """How many of the unit a second has, in which this number would be a time of our age."""
    if value < 100_000_000_000:
        return 1
    if value < 100_000_000_000_000:
        return 1_000
    return 1_000_000 if value < 100_000_000_000_000_000 else 1_000_000_000


def fraction_of_digits(digits: str) -> str:
    """The fewest of 0, 3, 6 or 9 digits that hold the fraction; what is finer than a nanosecond is cut."""
    digits = digits[:9].rstrip("0")
    return f".{digits.ljust(-(-len(digits) // 3) * 3, '0')}Z" if digits else "Z"


def _read_tail(tail: str) -> tuple[str, str]:
    """What follows the seconds: the fraction as we write it, and the zone as "" (UTC) or "+01:00"."""
    found = _TAIL.fullmatch(tail) if len(tail) <= 64 else None
    if found is None:
        raise Unreadable(_HELP)
    digits, zone = found.groups()
    if zone is None or zone in {"Z", "z", "UTC", "GMT"}:
        return fraction_of_digits(digits or ""), ""
    hours, minutes = zone[1:3], zone[-2:] if len(zone) > 3 else "00"
    return fraction_of_digits(digits or ""), f"{zone[0]}{hours}:{minutes}"


def _read_thousandths(text: str) -> str:
    """ ".123" itself, if that is what it is."""
    if not (len(text) == 4 and text.isascii() and text[1:].isdigit()):
        raise Unreadable(_HELP)
    return text


def _read_finer(tail: str) -> tuple[str, str]:
    """What follows the milliseconds: further digits as we write them, or "" where there are none, and the zone."""
    fraction, zone = _read_tail(f".001{tail}")
    return fraction[4:] if len(fraction) > 5 else "", zone


def _read_minute(text: str) -> str:
    """ "2026-03-17 09:15+01:00" or "17/03/2026 08:15" as "2026-03-17T08:15" in UTC."""
    found = _MINUTE.match(text)
    if found is None:
        raise Unreadable(_HELP)
    part = found.groupdict()
    year, month, day = part["y"] or part["y2"], part["mo"] or part["mo2"], part["d"] or part["d2"]
    return _in_utc(int(year), int(month), int(day), int(part["h"]), int(part["mi"]), text[16:])


def _in_utc(year: int, month: int, day: int, hour: int, minute: int, zone: str) -> str:
    """The minute in UTC. Raises Unreadable where there is no such minute, or it is not one that the store holds."""
    ahead = timedelta()
    if zone:
        ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6])) * (-1 if zone[0] == "-" else 1)
    try:
        return minute_in_utc(datetime(year, month, day, hour, minute, tzinfo=timezone(ahead)))
    except ValueError:
        raise Unreadable(_HELP) from None


def minute_in_utc(moment: datetime) -> str:
    """A minute of any zone as "2026-03-17T08:15" in UTC. Raises Unreadable where the store holds no such minute."""
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise Unreadable(_HELP) from None
    if not _EARLIEST <= moment.timestamp() // 60 < _LATEST:
        raise Unreadable(_HELP)
    return moment.strftime("%Y-%m-%dT%H:%M")


def _other(text: str, by_number: Callable[[Value], str | None]) -> str | None:
    """The spellings whose minute is not in the first 16 characters: names of months, single digits, a date alone."""
    if is_blank(text):
        return None
    if len(text) > 64:
        raise Unreadable(_HELP)
    if (number := number_of(text)) is not None and not is_compact_date(text):
        return by_number(number)
    found = _OTHER.fullmatch(text)
    if found is None:
        raise Unreadable(_HELP)
    part = found.groupdict()
    named = (part["mo"] or part["mo2"]).lower()
    month = int(named) if named.isdigit() else MONTHS.get(named[:3], 0)
    fraction, zone = _tails[part["tail"] or ""]
    second = part["sec"] or ":00"
    if second not in _SECONDS:
        raise Unreadable(_HELP)
    year, day = int(part["y"] or part["y2"]), int(part["d"] or part["d2"])
    minute = _in_utc(year, month, day, int(part["h"] or 0), int(part["mi"] or 0), zone)
    return minute + second + fraction


def number_of(text: str) -> int | Decimal | None:
    """The number that a text of digits is, with one point at most, or None. Of a text that is known to be short."""
    if not (text.isascii() and text.replace(".", "", 1).isdigit()):
        return None
    return Decimal(text) if "." in text else int(text)


def is_compact_date(text: str) -> bool:
    """Whether eight digits are a date and no number: 20260317."""
    return len(text) == 8 and text.isdigit() and text.startswith(("19", "20", "21"))


def _read_epoch_minute(minute: int) -> str:
    if not _EARLIEST <= minute < _LATEST:
        raise Unreadable(_HELP)
    return timestamp_of(minute * 60_000_000_000)[:16]


_tails: Final = Memo(_read_tail, 8192)
_thousandths: Final = Memo(_read_thousandths, 1000)
_finer: Final = Memo(_read_finer, 8192)
_minutes: Final = Memo(_read_minute, 8192)
_epoch_minutes: Final = Memo(_read_epoch_minute, 8192)
