"""Entries for tests: plain ones, and every kind of garbage that a file may hold."""

import json
from collections.abc import Iterator

SOURCES = ("sharepoint_graph", "Efficy", "zohobooks", "EasyProjects", "PowerBI", "zohoprojects")
OPERATIONS = ("Invoices", "Contacts", "Timelogs", "Refresh", "Quotes")


def plain(number: int) -> bytes:
    """One entry of about 250 bytes, the same for the same number."""
    return json.dumps(
        {
            "source": SOURCES[number % len(SOURCES)],
            "api": OPERATIONS[number % len(OPERATIONS)],
            "status": "FAILED" if number % 100 == 99 else "SUCCESS",
            "timestamp": f"2026-01-05T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
            "duration_seconds": 1 + number % 17 / 10,
            "memory_bytes": number % 1000 * 1000,
            "message": f"entry {number}",
            "number": number,
        },
        separators=(",", ":"),
    ).encode()


def plain_lines(count: int) -> bytes:
    return b"\n".join(plain(number) for number in range(count)) + b"\n"


def garbage() -> Iterator[tuple[str, bytes, bool]]:
    """(what it is, the line, whether it is a dead letter) of each kind, none with LF in it."""
    yield "truncated JSON", b'{"source":"x","status":"SUC', True
    yield "wrong types", b'{"source":"x","status":"SUCCESS","duration_seconds":{"much":1},"timestamp":[1]}', True
    yield "invalid UTF-8", b'{"source":"x","message":"\xff\xfe"}', True
    yield "200 levels", b'{"source":"x","deep":' + b"[" * 200 + b"]" * 200 + b"}", True
    yield "20 MB", b'{"source":"x","blob":"' + b"y" * 20_000_000 + b'"}', False
    yield "NaN", b'{"source":"x","duration_seconds":NaN}', True
    yield (
        "numbers as strings",
        b'{"source":"x","status":"SUCCESS","duration_seconds":"12.5","memory_bytes":"1024"}',
        False,
    )
    yield "a duplicate key", b'{"source":"x","status":"SUCCESS","status":"FAILED"}', True
    yield "not an object", b"42", True
