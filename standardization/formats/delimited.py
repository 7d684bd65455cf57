"""Lines of columns: CSV and TSV, whose header stands in the content-type, and W3C extended log lines (IIS).

text/csv; columns="time,level,message"
text/csv; header=present                      each entry is the header's line and a row
application/x-w3c-extended-log; columns="date time c-ip cs-method cs-uri-stem sc-status time-taken"
"""

import csv
from collections.abc import Sequence
from typing import Any, Final

# W3C's and IIS' names of fields, as ours; times are UTC, time-taken is ms
_W3C: Final = {
    "c-ip": "client.address", "c-port": "client.port", "cs-username": "user.name", "s-ip": "server.address",
    "s-port": "server.port", "s-computername": "host.name", "s-sitename": "iis.site",
    "cs-method": "http.request.method",
    "cs-uri-stem": "url.path", "cs-uri-query": "url.query", "sc-status": "http.response.status_code",
    "sc-substatus": "iis.substatus", "sc-win32-status": "iis.win32_status", "sc-bytes": "bytes_sent",
    "cs-bytes": "http.request.size", "time-taken": "duration_ms", "cs-version": "network.protocol.name",
    "cs-host": "http.request.header.host", "cs(user-agent)": "user_agent.original",
    "cs(referer)": "http.request.header.referer", "cs(cookie)": "http.request.header.cookie",
}  # fmt: skip
_COLUMNS_MAX: Final = 1_000


def row(text: str, columns: Sequence[str], delimiter: str) -> dict[str, Any] | None:
    """The entry that one line of these columns is, or None where it has another number of them."""
    values = _cells(text, delimiter)
    return None if values is None else _entry(columns, values)


def header_and_row(text: str, delimiter: str) -> dict[str, Any] | None:
    """The entry of a header's line and a row; a row may go over lines within quotes."""
    header, found, rest = text.partition("\n")
    columns = _cells(header.removesuffix("\r"), delimiter)
    return row(rest, columns, delimiter) if found and columns is not None else None


def w3c(text: str, columns: Sequence[str]) -> dict[str, Any] | None:
    """The entry that a W3C extended log line is; `+` stands for a space, `-` for nothing."""
    values = text.split()
    if text.startswith("#"):
        return None
    found = _entry([column.lower() for column in columns], values)
    if found is None:
        return None
    date, time = found.pop("date", None), found.pop("time", None)
    entry: dict[str, Any] = {"message": text}
    if date and time:
        entry["timestamp"] = f"{date}T{time}Z"
    for name, value in found.items():
        if value != "-":
            entry[_W3C.get(name, name)] = value.replace("+", " ") if name.startswith("cs(") else value
    if "http.request.method" in entry:
        entry["operation"] = entry["http.request.method"]
    return entry


def columns_of(text: str, delimiter: str) -> list[str]:
    """The names in a content-type's `columns`."""
    return [name.strip() for name in (_cells(text, delimiter) or [])]


def _entry(columns: Sequence[str], values: Sequence[str]) -> dict[str, str] | None:
    if not columns or len(columns) != len(values):
        return None
    entry = {name.strip(): value for name, value in zip(columns, values, strict=True) if name.strip()}
    return entry if len(entry) == len(columns) else None  # a name twice would lose a value


def _cells(text: str, delimiter: str) -> list[str] | None:
    try:
        rows = list(csv.reader([text] if "\n" not in text else text.splitlines(keepends=True), delimiter=delimiter))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 and len(rows[0]) <= _COLUMNS_MAX else None
