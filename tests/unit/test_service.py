"""The frame of a service: what it tells of itself from the start."""

from fastapi import APIRouter

from shared import metrics
from shared.config import Settings
from shared.service import Service


def test_every_routes_success_and_503_are_counted_from_0_on() -> None:
    """Prometheus sees no increase in a series that begins with its first request."""
    routes = APIRouter()

    @routes.post("/things/{name}")
    def make(name: str) -> str:
        return name

    Service("touched", Settings(_env_file=None), 1, [], [routes], "")
    counted = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in metrics.HTTP_REQUESTS.collect()
        for sample in family.samples
        if sample.labels["service"] == "touched"
    }
    assert counted.keys() >= {("POST", "/things/{name}", "200"), ("POST", "/things/{name}", "503")}
    assert counted.keys() >= {("GET", "/ready", "200"), ("GET", "/ready", "503")}
    assert set(counted.values()) == {0}
