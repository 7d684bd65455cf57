"""The entries that everything is measured with: 250 bytes of JSON each, in the seven shapes that logs.json has.

Every entry is made anew, with a time and figures of its own, so that no cache is flattered; one in fifty has failed.
The same count and seed make the same bytes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

SIZE: Final = 250  # bytes of an entry

_START: Final = datetime(2026, 3, 17, 6, 0, tzinfo=UTC)
_STEP: Final = timedelta(milliseconds=37)
_FAILING: Final = 0.02
_TEXT: Final = (
    "page token carried over, nothing skipped, next link followed until the end of the list; "
    "delta applied to 6 drives, 2 renamed, none removed, quota of the tenant left at 81 percent; "
    "rows compared with those of the last export, differences written to the staging table, indexes kept; "
    "session renewed once, throttled for 2 s, second attempt answered at once, connection returned to the pool. "
)

Fields = dict[str, Any]
Shape = Callable[[datetime, random.Random, bool], Fields]  # its last field is the message, empty until it is filled


def generate(count: int, seed: int) -> list[bytes]:
    """So many entries, the shapes interleaved at random."""
    r = random.Random(seed)
    made = []
    for number in range(count):
        fields = r.choice(_SHAPES)(_START + number * _STEP, r, r.random() < _FAILING)
        entry = msgspec.json.encode(fields)
        begin = r.randrange(len(_TEXT) - SIZE)
        made.append(entry[:-2] + _TEXT[begin : begin + SIZE - len(entry)].encode() + b'"}')
    return made


def frames(entries: Sequence[bytes], records: int) -> Iterator[bytes]:
    """Frames of so many entries each; the last may have fewer."""
    for begin in range(0, len(entries), records):
        yield b"\n".join(entries[begin : begin + records])


def write_bodies(entries: Sequence[bytes], folder: Path, size: int) -> None:
    """NDJSON files of up to `size` bytes each, to be pushed one after the other in the order of their names."""
    folder.mkdir()
    for number, body in enumerate(frames(entries, size // (SIZE + 1))):
        (folder / f"{number:06}.ndjson").write_bytes(body + b"\n")


def _graph(at: datetime, r: random.Random, failed: bool) -> Fields:
    return {
        "source": "sharepoint_graph",
        "api": r.choice(["Sites", "SitePermissions", "DriveItemsDelta", "EventContrat", "UsersDelta", "GroupMembers"]),
        "status": "FAILED" if failed else "SUCCESS",
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration_seconds": round(r.uniform(0.8, 90), 3),
        "memory_bytes": r.randrange(10**8),
        "rows": r.randrange(5000),
        "message": "",
    }


def _crm(at: datetime, r: random.Random, failed: bool) -> Fields:
    minutes, seconds = divmod(r.randrange(20, 3000), 60)
    return {
        "Application": "Efficy",
        "Operation": r.choice(["Contacts", "Companies", "Opportunities", "Quotes", "Tasks"]),
        "Result": "Failed" if failed else "Success",
        "StartTime": at.strftime("%d/%m/%Y %H:%M:%S"),
        "ElapsedTime": f"00:{minutes:02}:{seconds:02}",
        "MemoryUsed": f"{r.randrange(1, 170)},{r.randrange(10)} MB",
        "RowCount": r.randrange(5000),
        "User": "svc_export",
        "Note": "",
    }


def _books(at: datetime, r: random.Random, failed: bool) -> Fields:
    return {
        "service": "zohobooks",
        "operation": {"name": r.choice(["Invoices", "Bills", "CustomerPayments", "Items"]), "page": r.randrange(40)},
        "status_code": 500 if failed else 200,
        "ts": int(at.timestamp() * 1000),
        "metrics": {
            "durationMs": r.randrange(800, 90_000),
            "memoryMiB": round(r.uniform(1, 90), 1),
            "bytesTransferred": r.randrange(10**7),
        },
        "msg": "",
    }


def _tracker(at: datetime, r: random.Random, failed: bool) -> Fields:
    return {
        "system": "EasyProjects",
        "task": r.choice(["Timelogs", "Projects", "Tasks", "Customers"]),
        "state": "error" if failed else "ok",
        "date": at.strftime("%Y-%m-%d %H:%M:%S"),
        "took": f"{r.randrange(1, 14)}m {r.randrange(60):02}s",
        "mem": f"{round(r.uniform(1, 90), 1)} MiB",
        "items": r.randrange(5000),
        "worker": {"host": f"sync-{r.randrange(1, 9):02}", "queue": "nightly"},
        "text": "",
    }


def _datasets(at: datetime, r: random.Random, failed: bool) -> Fields:
    return {
        "Service": "PowerBI",
        "Activity": r.choice(["DatasetRefresh", "DataflowRefresh", "ReportExport"]),
        "Artifact": {"Title": r.choice(["Ventes", "Finance", "Projets"]), "Workspace": "Pilotage"},
        "Succeeded": not failed,
        "StartedAt": at.isoformat(timespec="seconds"),
        "DurationSeconds": round(r.uniform(1, 600), 1),
        "PeakMemory": f"{r.randrange(1, 178)} MB",
        "Message": "",
    }


def _projects(at: datetime, r: random.Random, failed: bool) -> Fields:
    return {
        "app": "zohoprojects",
        "event": r.choice(["Tasks", "Milestones", "Issues"]),
        "status": "Failure" if failed else "Success",
        "time": int(at.timestamp()),
        "elapsed_ms": r.randrange(800, 90_000),
        "mem_kb": r.randrange(1, 100_000),
        "records": r.randrange(900),
        "portal": "acme",
        "request_id": f"{r.getrandbits(64):016x}",
        "message": "",
    }


def _service(at: datetime, r: random.Random, failed: bool) -> Fields:
    return {
        "timestamp": at.isoformat(timespec="microseconds"),
        "service.name": "billing-api",
        "event.name": r.choice(["Reconcile", "Dunning", "Close"]),
        "outcome": "failure" if failed else "success",
        "duration": round(r.uniform(0.001, 3), 6),
        "trace_id": f"{r.getrandbits(128):032x}",
        "span_id": f"{r.getrandbits(64):016x}",
        "body": "",
    }


_SHAPES: Final[Sequence[Shape]] = (_graph, _crm, _books, _tracker, _datasets, _projects, _service)
