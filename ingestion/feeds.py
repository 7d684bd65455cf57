"""Feeds: declared sources that read by themselves, each in a thread with a producer of its own.

One process at a time runs a feed: the copies of ingestion that share a data folder have its lock in turn.
"""

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Final

from ingestion.session import Session, hold_sessions
from shared import logs, metrics
from shared.config import Settings
from shared.errors import ConfigurationError
from shared.instance import Instance

STAND_BY_S: Final = 1.0  # between looks whether the other copy still runs it

log = logs.logger("feeds")


class Feed(ABC):
    """A source that reads by itself.

    In its thread, for each session: `begin`, then `turn` again and again, `interrupted` after either; at last `end`.
    """

    kind: str

    def __init__(self, settings: Settings, source: str, node: str | None, timeout_ms: int | None = None) -> None:
        self.source = source
        self.name = f"source {source}"
        self._settings = settings
        self._node = node
        self._timeout_ms = timeout_ms
        self._state = "has not begun yet"
        self._faults: list[str] = []  # made anew, never changed: other threads look at it
        self.entries = 0  # of this process
        self.bytes = 0
        metrics.DECLARED_ENTRIES.labels(source)
        metrics.DECLARED_BYTES.labels(source)

    # what a kind does, in its thread

    @abstractmethod
    def begin(self, session: Session, stopping: threading.Event) -> None:
        """Find its places again; raises what a session raises."""

    @abstractmethod
    def turn(self, session: Session) -> float:
        """Send what is there and commit it; returns the seconds until more may be."""

    @abstractmethod
    def end(self) -> None:
        """Let go of what is open."""

    def open(self, stopping: threading.Event) -> AbstractContextManager[None]:  # noqa: ARG002 - others wait for it
        """What has to be open as long as it runs, whether Kafka is there or not."""
        return nullcontext()

    def interrupted(self) -> None:
        """A session has ended, maybe not the last: nothing of its open transaction counts."""
        self.end()

    def finish(self, session: Session) -> None:  # noqa: B027 - most have nothing to do
        """Called at the end, if Kafka is there: send what would be lost."""

    # what others ask, from any thread

    def problems(self) -> list[str]:
        """Why it does not run. The service is ready without it."""
        return [self._state] if self._state and not self.stands_by else []

    def faults(self) -> list[str]:
        """What is wrong with what it reads, though it runs."""
        return self._faults

    @abstractmethod
    def shown(self) -> dict[str, Any]:
        """What it is at, for GET /ingest/sources."""

    @property
    def stands_by(self) -> bool:
        """Whether another copy runs it."""
        return self._state == _STANDS_BY

    @property
    def state(self) -> str:
        """Running, standing by, or why it does neither."""
        return self._state or "running"

    # the thread

    def run(self, stopping: threading.Event) -> None:
        """Read until told to stop; after a failure again, from what counts."""
        instance = self._instance(stopping)
        if instance is None:
            return
        owner = f"{self.kind}/{self._node or instance.id}/{self.source}"
        with self.open(stopping), ExitStack() as leaving:
            leaving.callback(self.end)
            hold_sessions(
                self._settings, "ingestion", owner, lambda session: self._work(session, stopping), self._ended,
                stopping, self._timeout_ms,
            )  # fmt: skip
        instance.release()

    def sent(self, entries: int, size: int) -> None:
        """Count what has been committed."""
        self.entries += entries
        self.bytes += size
        metrics.DECLARED_ENTRIES.labels(self.source).inc(entries)
        metrics.DECLARED_BYTES.labels(self.source).inc(size)

    def _instance(self, stopping: threading.Event) -> Instance | None:
        while not stopping.is_set():
            try:
                return Instance(self._settings.data_dir / "ingestion-sources" / self.source)
            except ConfigurationError:
                if not self.stands_by:
                    log.info("another copy runs it, standing by", source=self.source)
                self._state = _STANDS_BY
                stopping.wait(STAND_BY_S)
        return None

    def _work(self, session: Session, stopping: threading.Event) -> None:
        self.begin(session, stopping)
        self._state = ""
        while not stopping.is_set():
            stopping.wait(self.turn(session))
        self.finish(session)

    def _ended(self, failure: str) -> None:
        self._state = failure or "has ended"
        self.interrupted()


_STANDS_BY: Final = "stands by: another copy runs it"
