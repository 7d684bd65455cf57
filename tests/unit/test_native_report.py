"""What a person reads on the terminal."""

import io

import pytest
from rich.console import Console

from native import report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (0.8, "0.8 s"),
        (59.4, "59.4 s"),
        (59.99, "60 s"),
        (787.0, "13m 07s"),
        (7260, "2h 01m"),
    ],
)
def test_durations_read_as_people_write_them(value: float | None, text: str) -> None:
    assert report.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0 B"), (999, "999 B"), (177_000_000, "177 MB"), (5e13, "50 TB")]
)
def test_sizes_read_as_people_write_them(value: float | None, text: str) -> None:
    assert report.size(value) == text


def test_the_summary_shows_each_source_by_status_and_the_totals() -> None:
    quantiles = {"p50": 2.0, "p90": 300.0, "p95": 500.0, "p99": 780.0, "max": 787.0}
    found = {
        "total": 48,
        "by_source": {"Efficy": {"SUCCESS": 16}, "sharepoint_graph": {"SUCCESS": 31, "FAILED": 1}},
        "success_rate": 47 / 48,
        "duration_seconds": quantiles,
        "memory_bytes": quantiles,
        "slowest": [
            {"source": "EasyProjects", "operation": "Timelogs", "duration_seconds": 787.0, "memory_bytes": None}
        ],
        "heaviest": [],
    }
    anomaly = {
        "service_name": "EasyProjects",
        "event_name": "Timelogs",
        "reason": "long_duration",
        "detail": "too long",
    }
    console = Console(width=120, file=io.StringIO())
    console.print(report.summary(found, {"total": 1, "anomalies": [anomaly]}))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert ["sharepoint_graph", "31", "1", "32"] in rows
    assert ["Efficy", "16", "0", "16"] in rows
    assert ["total", "47", "1", "48"] in rows
    assert ["EasyProjects", "Timelogs", "13m 07s", "-"] in rows
    assert ["EasyProjects", "Timelogs", "long_duration", "too long"] in rows
    assert "97.92 %" in shown
