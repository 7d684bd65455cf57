"""Access logs of nginx and Apache: common and combined, with or without a virtual host before them.

127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=1 HTTP/1.1" 200 2326 "http://from/" "Mozilla/5.0" 0.005
"""

import re
from typing import Any, Final

_TIME: Final = re.compile(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AFTER: Final = re.compile(r" (\d{3}) (\d{1,18}|-)(?= |$)")
_METHOD: Final = re.compile(r"[A-Z]{3,10}")
_SECONDS: Final = re.compile(r"\d{1,7}\.\d{1,6}")


def entry_of(text: str) -> dict[str, Any] | None:
    """The entry that the line is, or None where it is no access log."""
    head, bracket, rest = text.partition(" [")
    time = _TIME.match(rest)
    names = head.split(" ")
    if not bracket or time is None or not 3 <= len(names) <= 4 or rest[time.end() : time.end() + 2] != "] ":
        return None
    request = _QUOTED.match(rest, time.end() + 2)
    status = _AFTER.match(rest, request.end()) if request else None
    if request is None or status is None:
        return None
    entry: dict[str, Any] = {
        "timestamp": time[0],
        "http.response.status_code": int(status[1]),
        "message": text,
        **_known({"client.address": names[-3], "user.name": names[-1]}),
        **({"server.address": names[0]} if len(names) == 4 else {}),
        **_request(request[1]),
    }
    if status[2] != "-":
        entry["bytes_sent"] = int(status[2])
    place = status.end()
    for name in ("http.request.header.referer", "user_agent.original"):
        quoted = _QUOTED.match(rest, place + 1)
        if quoted is None:
            break
        entry |= _known({name: quoted[1]})
        place = quoted.end()
    more = rest[place:].strip()
    if _SECONDS.fullmatch(more):  # nginx's $request_time; what else follows stays in the body
        entry["duration_seconds"] = float(more)
    return entry


def _request(line: str) -> dict[str, Any]:
    """Method, path and version of a request line; a client may have sent anything in its place."""
    parts = line.split(" ")
    if len(parts) not in (2, 3) or not _METHOD.fullmatch(parts[0]):
        return {}
    path, _, query = parts[1].partition("?")
    version = parts[2].removeprefix("HTTP/") if len(parts) == 3 else ""
    named = {"url.path": path, "url.query": query, "network.protocol.version": version}
    return {"operation": parts[0], "http.request.method": parts[0], **_known(named)}


def _known(found: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value and value != "-"}
