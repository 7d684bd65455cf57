"""Syslog lines, with and without priority: RFC 5424, RFC 3164, and the form that daemons leave in /var/log.

<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 [exampleSDID@32473 iut="3"] 'su root' failed
<34>Oct 11 22:14:15 mymachine su[231]: 'su root' failed for lonvick on /dev/pts/8
Oct 11 22:14:15 mymachine su[231]: 'su root' failed for lonvick on /dev/pts/8
"""

import re
from typing import Any, Final

MONTHS: Final = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
_FACILITY_NAMES: Final = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2 "
    "local3 local4 local5 local6 local7"
)
_FACILITIES: Final = tuple(_FACILITY_NAMES.split())
_CLOCK: Final = re.compile(r"[0-2]\d:[0-5]\d:[0-6]\d(?:\.\d{1,9})?")
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_TAG: Final = re.compile(r"([^\s\[\]:]{1,128})(?:\[([^\[\]\s]{0,64})\])?:(?: |$)")
_PARAMETER: Final = re.compile(r' ([^\s=\]"]{1,64})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_ID: Final = re.compile(r'\[([^\s=\]"]{1,64})')


def entry_of(text: str, observed: str) -> dict[str, Any] | None:
    """The entry that the line is, or None where it is no syslog. `observed` is RFC 3339 in UTC: it gives the year."""
    entry: dict[str, Any] = {}
    if text.startswith("<"):
        end = text.find(">", 1, 6)
        number = text[1:end]
        if end < 0 or not (number.isascii() and number.isdigit()) or int(number) > 191:
            return None
        facility, severity = divmod(int(number), 8)
        entry = {"severity": severity, "syslog.facility.code": facility, "syslog.facility.name": _FACILITIES[facility]}
        text = text[end + 1 :]
        if text.startswith("1 "):
            return _rfc5424(text[2:], entry)
    return _rfc3164(text, observed, entry)


def _rfc5424(text: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    parts = text.split(" ", 5)
    if len(parts) < 6 or (parts[0] != "-" and not _ISO.match(parts[0])):
        return None
    time, host, app, process, message_id, rest = parts
    entry |= _known(timestamp=time, host=host, appname=app, event=message_id) | _known(**{"process.pid": process})
    if rest.startswith("["):
        rest = _structured(rest, entry)
    elif rest == "-" or rest.startswith("- "):
        rest = rest[2:]
    else:
        return None
    entry["message"] = rest.removeprefix("\ufeff")
    return entry


def _structured(text: str, entry: dict[str, Any]) -> str:
    """Take structured data into the entry; returns what follows. What is malformed is left to the message."""
    place = 0
    while (element := _ID.match(text, place)) is not None:
        place = element.end()
        while (parameter := _PARAMETER.match(text, place)) is not None:
            value = re.sub(r'\\(["\\\]])', r"\1", parameter[2])
            entry.setdefault(f"syslog.data.{element[1]}.{parameter[1]}", value)
            place = parameter.end()
        if text[place : place + 1] != "]":
            return text
        place += 1
    return text[place:].removeprefix(" ")


def _rfc3164(text: str, observed: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    time, rest = _time(text, observed)
    if time is None:
        if not entry:
            return None
        entry["message"] = rest  # RFC 3164, 4.3.3: a priority and anything after it
        return entry
    entry["timestamp"] = time
    host, _, rest = rest.partition(" ")
    tag = _TAG.match(host + " " + rest) if host.endswith(":") else None
    if tag is None:  # else there is no host: `Oct 11 22:14:15 su: ...`
        entry |= _known(host=host)
        tag = _TAG.match(rest)
        if tag is None:
            entry["message"] = rest
            return entry
        rest = rest[tag.end() :]
    entry |= _known(appname=tag[1]) | _known(**{"process.pid": tag[2]})
    entry["message"] = rest
    return entry


def _time(text: str, observed: str) -> tuple[str | None, str]:
    """The time that a line begins with, as RFC 3339, and the rest; the year is the one that makes it no later than
    a day after it was observed."""
    month = MONTHS.get(text[:3])
    day = text[4:6].strip()
    if month is None or text[3:4] != " " or not (day.isascii() and day.isdigit() and 1 <= int(day) <= 31):
        stamp, _, rest = text.partition(" ")
        return (stamp, rest) if _ISO.match(stamp) and len(stamp) <= 40 else (None, text)
    clock = _CLOCK.match(text, 7)
    if clock is None or text[6:7] != " " or text[clock.end() : clock.end() + 1] not in ("", " ", ":"):
        return None, text
    year = int(observed[:4])
    # months apart, so that a line of December that comes in January is last year's
    if (month, int(day)) > (int(observed[5:7]), int(observed[8:10]) + 1):
        year -= 1
    rest = text[clock.end() :].removeprefix(":").removeprefix(" ")
    return f"{year}-{month:02d}-{int(day):02d}T{clock[0]}Z", rest


def _known(**found: str | None) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value and value != "-"}
