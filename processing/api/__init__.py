"""The analytics API on the store; each file is a topic, with its answer's shape, its query and its routes."""

from fastapi import APIRouter

from processing.api import alerts, anomalies, dead_letters, gpus, records, runs, summary, telemetry, windows
from processing.api.counts import counts
from processing.store import Store

__all__ = ["counts", "routers"]


def routers(store: Store) -> list[APIRouter]:
    """Every route that the store answers."""
    return [
        topic.router(store)
        for topic in (summary, anomalies, records, windows, runs, dead_letters, alerts, gpus, telemetry)
    ]
