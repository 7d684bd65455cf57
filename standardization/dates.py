"""Times as a declared mapping says that they are written: in a format such as strptime's, in a zone."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from standardization.timestamps import (
    MONTHS,
    fraction_of_digits,
    is_compact_date,
    minute_in_utc,
    number_of,
    of_number,
    of_text,
)
from standardization.values import Memo, Unreadable, is_blank

EPOCHS: Final = {"epoch_s": "sec", "epoch_ms": "ms", "epoch_us": "us", "epoch_ns": "ns"}  # as timestamps name the units
_LONGEST: Final = 128  # characters
_DIRECTIVES: Final = {
    "Y": r"(?P<Y>\d{4})", "y": r"(?P<y>\d\d)", "m": r"(?P<m>1[0-2]|0?[1-9])", "d": r"(?P<d>3[01]|[12]\d|0?[1-9])",
    "b": r"(?P<b>[A-Za-z]{3})", "B": r"(?P<b>[A-Za-z]{3,9})", "j": r"(?P<j>\d{1,3})",
    "a": r"[A-Za-z]{2,3}", "A": r"[A-Za-z]{3,9}",
    "H": r"(?P<H>2[0-3]|[01]?\d)", "I": r"(?P<I>1[0-2]|0?[1-9])", "p": r"(?P<p>[AaPp][Mm])",
    "M": r"(?P<M>[0-5]?\d)", "S": r"(?P<S>[0-5]?\d)", "f": r"(?P<f>\d{1,9})\d*",
    "z": r"(?P<z>[Zz]|[+-]\d\d(?::?[0-5]\d)?)", "Z": r"(?P<z>UTC|GMT|Z)", "%": "%",
}  # fmt: skip
_HAS_ZONE: Final = re.compile(r":\d\d(?:[.,]\d+)? ?(?:[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)\s*")
Read = Callable[[str], str | None]


def of_format(format_: str, zone: str) -> Read:
    """Reads text in this format, as RFC 3339 in UTC; without a zone of its own it is in `zone` (IANA's name, or UTC).

    strptime's directives but for the locale's (%c, %x, %X) and weeks (%U, %W, %w, %u, %V, %G); %f takes any number of
    digits, and those beyond the nanosecond are cut. Names of months and days are English. Raises ValueError where it
    is no format.
    """
    pattern = _pattern(format_)
    local = _zone(zone)
    accepted = f"a time from 1973 to 2261 in the format {format_}"

    def minute_of(parts: tuple[str | None, ...]) -> str:
        found = dict(zip(pattern.groupindex, parts, strict=True))
        try:
            return minute_in_utc(_moment(found, local))
        except (ValueError, KeyError, OverflowError):  # Unreadable is a ValueError; day 999 of 9999 overflows
            raise Unreadable(accepted) from None

    minutes = Memo(minute_of, 8192)
    passing = [name in {"S", "f"} for name in pattern.groupindex]

    def read(text: str) -> str | None:
        if is_blank(text):
            return None
        found = pattern.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        if found is None:
            raise Unreadable(accepted)
        minute = minutes[tuple(None if skip else part for part, skip in zip(found.groups(), passing, strict=True))]
        known = found.groupdict()
        second = known.get("S") or "00"
        return f"{minute}:{second.zfill(2)}{fraction_of_digits(known.get('f') or '')}"

    # without a fraction many entries have the same time
    return read if "f" in pattern.groupindex else Memo(read, 8192).__getitem__


def in_zone(zone: str) -> Read:
    """Reads any usual spelling; what names no zone is in this one. A number is a time since 1970, in no zone."""
    usual = of_text("")
    local = _zone(zone)

    def shifted(minute: str) -> str:
        return minute_in_utc(datetime.fromisoformat(minute).replace(tzinfo=local))

    minutes = Memo(shifted, 8192)

    def read(text: str) -> str | None:
        found = usual(text)
        if found is None or _HAS_ZONE.search(text):
            return found
        plain = text.strip()
        if number_of(plain) is not None and not is_compact_date(plain):
            return found
        return minutes[found[:16]] + found[16:]

    return read


def of_epoch(unit: str) -> Read:
    """Reads a number in text, in this unit of EPOCHS."""
    by_number = of_number(EPOCHS[unit])
    accepted = f"a number of {EPOCHS[unit]} since 1970"

    def read(text: str) -> str | None:
        if is_blank(text):
            return None
        number = number_of(text.strip()) if len(text) <= _LONGEST else None
        if number is None:
            raise Unreadable(accepted)
        return by_number(number)

    return read


def _zone(name: str) -> tzinfo:
    """The zone of this name. Raises ValueError."""
    if name == "UTC":
        return UTC  # also where the machine has no zones
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"there is no time zone {name!r}; write one such as Europe/Paris, or UTC") from None


def _pattern(format_: str) -> re.Pattern[str]:
    parts: list[str] = []
    place = 0
    used: set[str] = set()
    while place < len(format_):
        character = format_[place]
        place += 1
        if character.isspace():
            if parts[-1:] != [r"\s+"]:  # one for all that stand together, or they could share the text in many ways
                parts.append(r"\s+")
        elif character != "%":
            parts.append(re.escape(character))
        else:
            directive = format_[place : place + 1]
            place += 1
            if directive not in _DIRECTIVES:
                raise ValueError(
                    f"%{directive} is no directive of a format; there are {' '.join(map('%'.__add__, _DIRECTIVES))}"
                )
            named = {"B": "b", "Z": "z"}.get(directive, directive)
            if named in used and named != "%":
                raise ValueError(f"%{directive} says a second time what stands there already")
            used.add(named)
            parts.append(_DIRECTIVES[directive])
    if not (used & {"Y", "y"} and ("j" in used or ("d" in used and used & {"m", "b"}))):
        raise ValueError("a format says the year, the month and the day: %Y-%m-%d")
    if (
        ("f" in used and "S" not in used)
        or ("S" in used and "M" not in used)
        or ("M" in used and not used & {"H", "I"})
    ):
        raise ValueError("a format with %f has %S, with %S has %M, and with %M has %H")
    if ("I" in used) != ("p" in used):
        raise ValueError("%I and %p go together")
    return re.compile("".join(parts), re.ASCII)


def _moment(part: dict[str, str | None], local: tzinfo) -> datetime:
    """The minute that the parts of a format say. Raises ValueError or KeyError where there is none."""
    year = int(part.get("Y") or _in_this_age(int(part.get("y") or "")))
    hour = int(part.get("H") or part.get("I") or 0)
    if half := part.get("p"):
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    zone = part.get("z")
    if zone and zone[0] in "+-":
        ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]) if len(zone) > 3 else 0)
        local = timezone(-ahead if zone[0] == "-" else ahead)
    elif zone:
        local = UTC
    minute = int(part.get("M") or 0)
    if day_of_year := part.get("j"):
        first = datetime(year, 1, 1, hour, minute, tzinfo=local)
        day = first.replace(tzinfo=None) + timedelta(days=int(day_of_year) - 1)
        if day.year != year:
            raise ValueError
        return day.replace(tzinfo=local)
    named = part.get("b")
    month = MONTHS[named[:3].lower()] if named else int(part["m"] or "")
    return datetime(year, month, int(part["d"] or ""), hour, minute, tzinfo=local)


def _in_this_age(year: int) -> int:
    """A year of two digits, as POSIX has it: 69 to 99 are of the last century."""
    return year + (1900 if year >= 69 else 2000)
