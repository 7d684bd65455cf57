"""The frame of a service: what it tells of itself from the start."""

import asyncio
import threading
import time

import httpx
import pytest
from fastapi import APIRouter

from shared import metrics
from shared.config import Settings
from shared.description import PROBLEM_TYPE
from shared.service import Loop, Service, Together


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


def asked(service: Service, *requests: tuple[str, str]) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as client:
            return [await client.request(method, path) for method, path in requests]

    return asyncio.run(ask())


def test_every_error_is_a_problem_and_the_openapi_says_so() -> None:
    routes = APIRouter()

    @routes.get("/things/{number}")
    def find(number: int) -> int:
        return 1 // number

    @routes.delete("/things/{number}")
    def delete(number: int) -> int:
        return number

    service = Service("told", Settings(_env_file=None), 1, [], [routes], "")
    answers = asked(service, ("GET", "/things/0"), ("GET", "/things/x"), ("GET", "/none"), ("POST", "/things/1"))
    assert [answer.status_code for answer in answers] == [500, 422, 404, 405]
    for answer in answers:
        assert answer.headers["content-type"] == PROBLEM_TYPE
        assert answer.json()["status"] == answer.status_code
    assert answers[-1].headers["allow"] == "DELETE, GET", "the methods of all routes with the path"
    described = service.app.openapi()
    for status in ("422", "503"):
        content = described["paths"]["/things/{number}"]["get"]["responses"][status]["content"]
        assert content == {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "HTTPValidationError" not in described["components"]["schemas"]


def test_loops_that_do_not_depend_on_each_other_have_the_same_time_to_stop() -> None:
    told = threading.Barrier(3)

    def body(stopping: threading.Event) -> None:
        stopping.wait()
        told.wait(30)  # none ends before all are told

    together = Together("all", [Loop(f"loop {n}", body, lambda: ["is slow"]) for n in range(3)])
    together.start(lambda error: pytest.fail(repr(error)))
    assert together.problems() == ["loop 0: is slow", "loop 1: is slow", "loop 2: is slow"]
    assert together.stop(time.monotonic() + 30)
