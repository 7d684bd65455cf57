"""The frame of a service: its parts started in order and stopped in the flow's, around one FastAPI application.

main() -> load settings -> build parts -> Service(...).run() -> exit code for the supervisor
"""

import asyncio
import faulthandler
import gc
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Protocol

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from shared import backstep, logs, metrics
from shared.config import Settings, load
from shared.description import PROBLEM_TYPE, Application
from shared.errors import KafkaUnavailableError, SluiceError, StoreError

VERSION = "0.1.0"
log = logs.logger("service")


class Part(Protocol):
    """Something a service runs beside its API: a stage, a sink, a writer, a watch on Kafka."""

    @property
    def name(self) -> str: ...

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Begin; call `failed` if the part can't go on, which ends the process for the supervisor to restart it."""

    def stop(self, deadline: float) -> bool:
        """Finish what is in hand and end, before this moment of time.monotonic(); returns whether it did."""

    @property
    def problems(self) -> Callable[[], list[str]]:
        """Says why the service is not ready because of this part; nothing when it is."""


class ProblemError(Exception):
    """An HTTP answer other than success, told as application/problem+json (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> Response:
        return JSONResponse(
            {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail},
            self.status,
            self.headers,
            media_type=PROBLEM_TYPE,
        )


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str = Field(description="The kind of problem, in a few words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong with this request, and what to do.")


_UNAVAILABLE: Final[dict[int | str, dict[str, Any]]] = {503: {"model": Problem}}  # the handlers below know every route


class Health(BaseModel):
    """How a service is."""

    status: str = Field(description="healthy, degraded (it runs, but not all is well) or unhealthy (a part has ended).")
    service: str
    version: str
    uptime_seconds: float
    problems: list[str] = Field(description="Why it is not healthy.")


class Readiness(BaseModel):
    """Whether a service can do its work now."""

    ready: bool
    problems: list[str] = Field(description="Why it is not ready.")


class Service:
    """A named service with its parts, in the order in which they start."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        port: int,
        parts: Sequence[Part],
        routers: Sequence[APIRouter],
        about: str,
        closing: Callable[[], None] | None = None,
        remarks: Callable[[], list[str]] = list,
    ) -> None:
        """`closing` is called when every part has stopped; `remarks` say why it is degraded though it is ready."""
        self.name = name
        self._settings = settings
        self._port = port
        self._parts = parts
        self._closing = closing
        self._remarks = remarks
        self._started = time.monotonic()
        self._failure: BaseException | None = None
        self._server: uvicorn.Server | None = None
        self.app = self._application(routers, about)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until a part fails; returns the process's exit code."""
        config = uvicorn.Config(
            self.app,
            host=self._settings.host,
            port=self._port,
            log_config=None,
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, int(self._settings.stop_seconds / 3)),
        )
        self._server = uvicorn.Server(config)
        # uvicorn raises the signal that stopped it once more; what is asked for in order ends with 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        log.info("starting", service=self.name, port=self._port, kafka=self._settings.kafka_bootstrap)
        self._server.run()
        if self._failure is not None:
            log.error("ended by a failure", error=repr(self._failure))
            return 1
        return 0 if self._server.started else 1

    def fail(self, error: BaseException) -> None:
        """End the process because a part can't go on."""
        self._failure = error
        self._end()

    def _end(self) -> None:
        if self._server is not None:
            self._server.should_exit = True

    def problems(self) -> list[str]:
        return [f"{part.name}: {problem}" for part in self._parts for problem in part.problems()]

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        for part in self._parts:
            await asyncio.to_thread(part.start, self.fail)
        yield
        deadline = time.monotonic() + self._settings.stop_seconds * 2 / 3  # a third was the open requests'
        stopped = [await asyncio.to_thread(part.stop, deadline) for part in reversed(self._parts)]
        if self._closing is not None and all(stopped):
            self._closing()
        log.info("stopped", service=self.name)

    def _application(self, routers: Sequence[APIRouter], about: str) -> FastAPI:
        app = Application(title=f"Sluice {self.name}", version=VERSION, description=about, lifespan=self._lifespan)
        app.add_middleware(HttpMetrics, service=self.name)
        app.add_exception_handler(ProblemError, _problem)
        app.add_exception_handler(HTTPException, _http_error(routers))
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(KafkaUnavailableError, _unavailable)
        app.add_exception_handler(StoreError, _unavailable)
        app.add_exception_handler(Exception, _broken)

        @app.get("/health", tags=["service"], responses={503: {"model": Health}})
        def health(response: Response) -> Health:
            """Whether the process lives; 503 only when a part of it has ended."""
            problems = [repr(self._failure)] if self._failure else [*self.problems(), *self._remarks()]
            status = "unhealthy" if self._failure else "degraded" if problems else "healthy"
            response.status_code = 503 if self._failure else 200
            return Health(
                status=status,
                service=self.name,
                version=VERSION,
                uptime_seconds=round(time.monotonic() - self._started, 3),
                problems=problems,
            )

        @app.get("/ready", tags=["service"], responses={503: {"model": Readiness}})
        def ready(response: Response) -> Readiness:
            """Whether it can do its work: Kafka and store reachable, partitions assigned, not stalled."""
            problems = self.problems()
            response.status_code = 503 if problems else 200
            return Readiness(ready=not problems, problems=problems)

        @app.get("/metrics", tags=["service"], response_class=Response)
        def exposition() -> Response:
            """Metrics in Prometheus' text format."""
            return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)

        for router in routers:
            app.include_router(router, responses=_UNAVAILABLE)
        self._touch([*app.routes, *(route for router in routers for route in router.routes)])
        return app

    def _touch(self, routes: Iterable[BaseRoute]) -> None:
        """Each route's success and its 503 are there at 0, so that the first is an increase and no new series."""
        for route in routes:
            if isinstance(route, APIRoute):
                for method in route.methods or ():
                    for status in (route.status_code or 200, 503):
                        metrics.HTTP_REQUESTS.labels(self.name, method, route.path, str(status))
                metrics.HTTP_DURATION.labels(self.name, route.path)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()


def _http_error(routers: Sequence[APIRouter]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def told(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_allowed(routers, request.scope["path"]))) or headers.get("Allow", "")
        return ProblemError(
            error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail), headers
        ).response()

    return told


def _allowed(routers: Sequence[APIRouter], path: str) -> set[str]:
    """The methods of all routes with this path; the framework names those of the first alone."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    first = next((route.path for route in routes if route.path_regex.match(path)), None)
    return {method for route in routes if route.path == first for method in route.methods or ()}


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors())
    return ProblemError(422, "Invalid request", detail).response()


async def _unavailable(_: Request, error: Exception) -> Response:
    return ProblemError(503, "Temporarily unavailable", str(error), {"Retry-After": "2"}).response()


async def _broken(_: Request, __: Exception) -> Response:
    """A fault of ours: the server logs it with its traceback once this is answered."""
    return ProblemError(500, "Internal error", "this is no fault of the request; the service's log has more").response()


Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class HttpMetrics:
    """Counts and times requests by route template, so that a path with an id is no new label value."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = "500"

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.HTTP_REQUESTS.labels(self._service, method, route, status).inc()
            metrics.HTTP_DURATION.labels(self._service, route).observe(time.perf_counter() - begun)


_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}


class Loop:
    """A part that is one thread: runs `body(stopping)` until told to stop; any error out of it ends the process."""

    def __init__(self, name: str, body: Callable[[threading.Event], None], problems: Callable[[], list[str]]) -> None:
        self.name = name
        self._body = body
        self.problems = problems
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, failed: Callable[[BaseException], None]) -> None:
        def guarded() -> None:
            try:
                self._body(self._stopping)
            except BaseException as error:  # whatever it is, the process ends and is restarted
                log.exception("part failed", part=self.name)
                failed(error)

        self._thread = threading.Thread(target=guarded, name=self.name, daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Tell it to stop, and don't wait."""
        self._stopping.set()

    def stop(self, deadline: float) -> bool:
        self.tell()
        if self._thread is None:
            return True
        self._thread.join(max(0.1, deadline - time.monotonic()))
        if self._thread.is_alive():
            log.warning("part did not stop within the deadline", part=self.name)
        return not self._thread.is_alive()


class Together:
    """Loops that don't depend on each other, as one part: all are told to stop before one is waited for."""

    def __init__(self, name: str, loops: Sequence[Loop]) -> None:
        self.name = name
        self._loops = loops

    def start(self, failed: Callable[[BaseException], None]) -> None:
        for loop in self._loops:
            loop.start(failed)

    def stop(self, deadline: float) -> bool:
        for loop in self._loops:
            loop.tell()
        stopped = [loop.stop(deadline) for loop in self._loops]
        return all(stopped)

    def problems(self) -> list[str]:
        return [f"{loop.name}: {problem}" for loop in self._loops for problem in loop.problems()]


def main(name: str, build: Callable[[Settings], Service]) -> None:
    """Entry point of a service's process: settings, logs, parts, run, exit code."""
    try:
        settings = load(Settings)
        logs.configure(name, settings.log_level, settings.log_format)
        # A batch is thousands of small objects and no cycle: at its default the collector took a tenth of the time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        service = build(settings)
        _die_of_fatal_signals()
        backstep.watch()
        code = service.run()
    except SluiceError as error:  # a bad setting, a folder or store in use, a newer schema
        sys.stderr.write(f"{name}: {error}\n")
        code = 2
    sys.exit(code)


def _die_of_fatal_signals() -> None:
    """Let what is beyond repair be gone at once, with its threads on stderr, so that the supervisor starts it again.

    The store's engine (chdb) catches these signals for itself, and then the process would neither work nor end.
    """
    for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # a look at what the threads are at; all goes on
