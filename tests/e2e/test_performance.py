"""Numbers of the running stack, printed and not judged: a bound would judge the machine. `make bench` has more."""

import json
import statistics
import time

import httpx
import pytest

from native.client import Client
from native.settings import NativeSettings

pytestmark = pytest.mark.performance

_ENTRIES = 200_000
_LONE = 50


def test_a_burst(client: Client, http: httpx.Client, settings: NativeSettings, source: str) -> None:
    body = b"\n".join(
        json.dumps(
            {
                "source": source,
                "api": f"operation-{i % 20}",
                "status": "SUCCESS",
                "timestamp": "2026-01-05T10:00:00Z",
                "duration_seconds": 0.5 + i % 100 / 50,
                "memory_bytes": 1_000_000 + i,
                "message": "a burst of entries of about 250 bytes, as an operation's export would have them "
                + "x" * 40,
            }
        ).encode()
        for i in range(_ENTRIES)
    )
    begun = time.perf_counter()
    taken = http.post(
        settings.url("ingestion") + "/ingest", content=body, headers={"content-type": "application/x-ndjson"}
    ).raise_for_status()
    accepted = time.perf_counter()
    receipt = client.wait_until_drained(taken.json()["run_id"])
    stored = time.perf_counter()
    assert receipt["stored"] == _ENTRIES
    print(
        f"\n{_ENTRIES} entries of {len(body) // _ENTRIES} bytes: "
        f"accepted in {accepted - begun:.2f} s ({_ENTRIES / (accepted - begun):,.0f}/s), "
        f"stored in {stored - begun:.2f} s ({_ENTRIES / (stored - begun):,.0f}/s)"
    )


def test_a_lone_entry(client: Client, http: httpx.Client, settings: NativeSettings, source: str) -> None:
    waits = []
    for number in range(1, _LONE + 1):
        begun = time.perf_counter()
        http.post(
            settings.url("ingestion") + "/ingest", json={"source": source, "api": "lone", "status": "ok"}
        ).raise_for_status()
        while client.get("processing", "/analytics/recent", source=source, limit=1)["total"] < number:
            assert time.perf_counter() - begun < 60, f"entry {number} did not arrive"
            time.sleep(0.005)
        waits.append(time.perf_counter() - begun)
    waits.sort()
    print(
        f"\na lone entry, push to /analytics/recent, of {_LONE}: p50 {1000 * statistics.median(waits):.0f} ms, "
        f"p90 {1000 * waits[int(0.9 * _LONE)]:.0f} ms, worst {1000 * waits[-1]:.0f} ms"
    )
