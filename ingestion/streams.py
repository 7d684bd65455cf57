"""Streams: files replayed at a rate. One thread paces and writes them all.

    file > replay > pace > transaction(entries, every stream's place) > raw-logs, ingestion-state

A stream's place is written in the transaction that its entries are in, so that after a crash it goes on behind the last
entry that counts: none is lost, none comes twice. Each pass of a file is an ingest run, whose receipt is written with
its last entries. Streams belong to the instance that runs them.
"""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Final, Literal

import msgspec

from ingestion.entries import MalformedBodyError, UnreadableSourceError
from ingestion.ingest import Push, framed, shape_of_file
from ingestion.pacing import Pace
from ingestion.replay import Item, Spec, items, lane, stamped
from ingestion.session import MESSAGES_TOGETHER, Session, hold_sessions
from ingestion.sources.file import FileRefusedError, FileSource, open_file
from shared import logs
from shared.config import Settings
from shared.errors import KafkaUnavailableError, SluiceError
from shared.records import timestamp_of
from shared.topics import H_CONTENT_TYPE, H_RUN, H_SOURCE

TICK_S: Final = 0.05  # entries that fall due within it share a transaction
PASSES: Final = 100  # of a file so short that several fall due at once, in one transaction
STREAMS_MAX: Final = 100

log = logs.logger("streams")

Status = Literal["running", "paused", "finished", "failed"]


class Stream(msgspec.Struct, frozen=True):
    """A stream and its place, as ingestion-state keeps it."""

    id: str
    spec: Spec
    created: str  # RFC 3339, UTC
    size: int  # bytes of the file when the stream began; another size is another file
    status: Status = "running"
    passes: int = 1  # of the file, the one that is under way included
    place: int = 0  # entries of this pass that are sent
    bytes: int = 0  # of these
    sent: int = 0  # entries of all passes
    error: str | None = None
    schema: int = 1

    @property
    def run_id(self) -> str:
        """The ingest run that the pass under way is."""
        return f"{self.id}{self.passes:08d}"


class NoSuchStreamError(SluiceError):
    """There is no stream of this id here."""


class NotPossibleError(SluiceError):
    """The stream is not in a state in which this can be done."""


_FAULTS: Final = (MalformedBodyError, UnreadableSourceError, FileRefusedError, OSError)

Change = Callable[[Stream | None], Stream | None]


class _Command(msgspec.Struct):
    """A change of one stream, and who waits for it."""

    id: str
    change: Change
    done: Future[Stream]


class _Runner:
    """A running stream's file, open at its place."""

    def __init__(self, stream: Stream, settings: Settings) -> None:
        self._source = open_file(settings.ingest_dir, stream.spec.file)
        self.pace = Pace(stream.spec.rate, time.monotonic())
        try:
            self._items = self._begun(settings, stream)
            for _ in islice(self._items, stream.place):
                pass
        except BaseException:
            self.close()
            raise

    def _begun(self, settings: Settings, stream: Stream) -> Iterator[Item]:
        if self._source.size != stream.size:
            raise UnreadableSourceError(
                f"{stream.spec.file} has {self._source.size} bytes and had {stream.size} when the stream began"
            )
        shape = shape_of_file(self._source, stream.spec.file)
        entries = Push(self._source, shape, stream.run_id).entries(settings.chunk_bytes)
        return items(entries, stream.spec, stream.run_id, stream.passes == 1)

    def take(self, count: int) -> list[Item]:
        """The next entries; fewer than asked for only at the end of the file."""
        return list(islice(self._items, count))

    def close(self) -> None:
        self._source.release()


class Streams:
    """The streams of this instance, by their ids, and the thread that sends them."""

    name = "streams"

    def __init__(self, settings: Settings, instance_id: str) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._commands: queue.Queue[_Command] = queue.Queue(STREAMS_MAX)
        self._streams: dict[str, Stream] = {}
        self._runners: dict[str, _Runner] = {}
        self._ready = threading.Event()

    # asked from any thread

    def all(self) -> list[Stream]:
        """The streams as they are, the oldest first."""
        return sorted(self._streams.values(), key=lambda stream: (stream.created, stream.id))

    def find(self, stream_id: str) -> Stream:
        """Raises NoSuchStreamError."""
        found = self._streams.get(stream_id)
        if found is None:
            raise NoSuchStreamError(f"there is no stream {stream_id} here; GET /ingest/streams lists those that are")
        return found

    def start(self, spec: Spec) -> Future[Stream]:
        """Begin a stream. Raises FileRefusedError; the future fails as the others do."""
        source: FileSource = open_file(self._settings.ingest_dir, spec.file)
        size = source.size
        source.release()
        stream = Stream(uuid.uuid4().hex[:12], spec, timestamp_of(time.time_ns()), size)
        return self._submit(stream.id, lambda _: stream)

    def change_rate(self, stream_id: str, rate: float) -> Future[Stream]:
        return self._change(
            stream_id, lambda stream: _with(stream, spec=msgspec.structs.replace(stream.spec, rate=rate))
        )

    def pause(self, stream_id: str) -> Future[Stream]:
        return self._change(stream_id, lambda stream: _turned(stream, "running", "paused"))

    def resume(self, stream_id: str) -> Future[Stream]:
        return self._change(stream_id, lambda stream: _turned(stream, "paused", "running"))

    def stop(self, stream_id: str) -> Future[Stream]:
        """End a stream and forget it. What it has sent of a pass gets its receipt."""

        def removed(stream: Stream | None) -> None:
            if stream is None:
                raise NoSuchStreamError(f"there is no stream {stream_id} here")

        return self._submit(stream_id, removed)

    def problems(self) -> list[str]:
        return [] if self._ready.is_set() else ["the producer of streams is not ready yet"]

    def _change(self, stream_id: str, changed: Callable[[Stream], Stream]) -> Future[Stream]:
        def change(stream: Stream | None) -> Stream:
            if stream is None:
                raise NoSuchStreamError(f"there is no stream {stream_id} here")
            return changed(stream)

        return self._submit(stream_id, change)

    def _submit(self, stream_id: str, change: Change) -> Future[Stream]:
        done: Future[Stream] = Future()
        try:
            self._commands.put_nowait(_Command(stream_id, change, done))
        except queue.Full:
            done.set_exception(KafkaUnavailableError("too many changes of streams wait already"))
        if not self._ready.is_set():
            self._refuse_waiting()
        return done

    # the thread

    def run(self, stopping: threading.Event) -> None:
        """Send until told to stop. After a failure every stream's place is read again: the topic knows what counts."""

        def work(session: Session) -> None:
            _Sending(self._settings, session, self._streams, self._runners).run(self._commands, self._ready, stopping)

        def ended(_: str) -> None:
            self._ready.clear()
            self._refuse_waiting()
            for runner in self._runners.values():
                runner.close()
            self._runners.clear()

        hold_sessions(self._settings, "ingestion-streams", self._instance_id, work, ended, stopping)

    def _refuse_waiting(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command.done.set_exception(KafkaUnavailableError("the producer of streams is not ready"))


class _Sending:
    """The thread's work with one producer."""

    def __init__(
        self, settings: Settings, session: Session, streams: dict[str, Stream], runners: dict[str, _Runner]
    ) -> None:
        self._settings = settings
        self._session = session
        self._streams = streams
        self._runners = runners
        self._changed: dict[str, Stream | None] = {}  # by this transaction

    def run(self, commands: "queue.Queue[_Command]", ready: threading.Event, stopping: threading.Event) -> None:
        self._restore(stopping)
        ready.set()
        while not stopping.is_set():
            begun = time.monotonic()
            taken = self._drained(commands)
            try:
                answers = [(command, self._applied(command)) for command in taken]
                self._send_due()
                self._commit()
            except SluiceError as error:
                for command in taken:
                    if not command.done.done():
                        command.done.set_exception(KafkaUnavailableError(f"Kafka did not take it: {error}"))
                raise
            for command, stream in answers:
                if stream is not None:
                    command.done.set_result(stream)
            stopping.wait(self._pause(begun, commands))

    def _restore(self, stopping: threading.Event) -> None:
        found = {key: msgspec.json.decode(value, type=Stream) for key, value in self._session.restored(stopping)}
        for gone in self._streams.keys() - found.keys():
            del self._streams[gone]
        self._streams.update(found)

    def _drained(self, commands: "queue.Queue[_Command]") -> list[_Command]:
        taken = []
        while True:
            try:
                taken.append(commands.get_nowait())
            except queue.Empty:
                return taken

    def _current(self, stream_id: str) -> Stream | None:
        return self._changed[stream_id] if stream_id in self._changed else self._streams.get(stream_id)

    def _applied(self, command: _Command) -> Stream | None:
        """The stream after a command; None, and the command answered, where it is refused."""
        before = self._current(command.id)
        try:
            if before is None and len(self._streams) >= STREAMS_MAX:
                raise NotPossibleError(f"there are {STREAMS_MAX} streams already; stop one")
            after = command.change(before)
        except SluiceError as error:
            command.done.set_exception(error)
            return None
        self._changed[command.id] = after
        runner = self._runners.get(command.id)
        if runner is not None and after is not None and after.status == "running":
            runner.pace.change(after.spec.rate, time.monotonic())
        if after is None and before is not None and before.status in ("running", "paused"):
            self._receipt(before)
        return after or before

    def _send_due(self) -> None:
        for stream_id in list({**self._streams, **self._changed}):
            stream = self._current(stream_id)
            if stream is None or stream.status != "running":
                self._closed(stream_id)
                continue
            try:
                runner = self._runners.get(stream_id)
                if runner is None:
                    runner = self._runners[stream_id] = _Runner(stream, self._settings)
                due = min(runner.pace.due(time.monotonic()), MESSAGES_TOGETHER)
                for _ in range(PASSES):
                    if not due or stream.status != "running":
                        break
                    stream, sent = self._send(stream, due)
                    due -= sent
            except _FAULTS as error:
                log.warning("a stream failed", stream=stream_id, file=stream.spec.file, error=str(error))
                self._closed(stream_id)
                failed = _with(self._current(stream_id) or stream, status="failed", error=str(error)[:500])
                self._changed[stream_id] = failed
                self._receipt(failed)

    def _send(self, stream: Stream, due: int) -> tuple[Stream, int]:
        """Send what is due, up to the end of a pass; returns what the stream is then, and how many went."""
        runner = self._runners[stream.id]
        taken = runner.take(due)
        if taken:
            size = self._write(stream, taken)
            runner.pace.spend(len(taken))
            stream = self._changed[stream.id] = _with(
                stream, place=stream.place + len(taken), bytes=stream.bytes + size, sent=stream.sent + len(taken)
            )
        if len(taken) < due:
            if not stream.place:
                raise MalformedBodyError("there is no entry in it, or none at or after start_at")
            stream = self._changed[stream.id] = self._ended(stream)
        return stream, len(taken)

    def _ended(self, stream: Stream) -> Stream:
        """The stream at the end of a pass, which gets its receipt."""
        self._receipt(stream)
        pace = self._runners[stream.id].pace
        self._closed(stream.id)
        if not stream.spec.loop:
            return _with(stream, status="finished")
        again = _with(stream, passes=stream.passes + 1, place=0, bytes=0)
        runner = self._runners[stream.id] = _Runner(again, self._settings)
        runner.pace = pace  # what is owed is owed by the next pass
        return again

    def _write(self, stream: Stream, taken: list[Item]) -> int:
        """Send entries, framed, each on its lane; returns their bytes."""
        now = timestamp_of(time.time_ns() // 1_000_000 * 1_000_000)
        rewrite = stream.spec.timestamps == "now"
        lanes: list[list[bytes]] = [[] for _ in range(stream.spec.workers)]
        for number, item in enumerate(taken, stream.place):
            entry = stamped(item, now) if rewrite else item.entry
            lanes[lane(item, number, len(lanes))].append(entry)
        for number, entries in enumerate(lanes):
            key = (stream.spec.source or stream.id) + (f"/{number}" if len(lanes) > 1 else "")
            for frame in framed(entries, self._settings):
                assert isinstance(frame.value, bytes)
                self._session.send([frame.value], key.encode(), _headers(stream, frame.content_type), frame.entries)
        return sum(len(entry) for entries in lanes for entry in entries)

    def _receipt(self, stream: Stream) -> None:
        """Tell what a pass brought, that has ended, however it did."""
        if stream.place:
            spec = stream.spec
            self._session.receipt(stream.run_id, spec.source, stream.place, stream.bytes, spec.file)

    def _commit(self) -> None:
        """Write the places of the streams that moved, and make all of it count."""
        if not self._changed:
            return
        for stream_id, stream in self._changed.items():
            self._session.keep(stream_id, stream)
        self._session.commit()
        for stream_id, stream in self._changed.items():
            if stream is None:
                self._streams.pop(stream_id, None)
            else:
                self._streams[stream_id] = stream
        self._changed.clear()

    def _closed(self, stream_id: str) -> None:
        runner = self._runners.pop(stream_id, None)
        if runner is not None:
            runner.close()

    def _pause(self, begun: float, commands: "queue.Queue[_Command]") -> float:
        """Seconds until the next tick: when something is due, and not before this tick is over."""
        if not commands.empty():
            return 0.0
        now = time.monotonic()
        waits = [runner.pace.wait(now) for runner in self._runners.values()]
        return max(begun + TICK_S - now, min([TICK_S * 2, *waits]), 0.0)


def _headers(stream: Stream, content_type: str) -> list[tuple[str, bytes | None]]:
    headers: list[tuple[str, bytes | None]] = [
        (H_CONTENT_TYPE, content_type.encode()),
        (H_RUN, stream.run_id.encode()),
    ]
    return headers if stream.spec.source is None else [*headers, (H_SOURCE, stream.spec.source.encode())]


def _with(stream: Stream, **changes: object) -> Stream:
    return msgspec.structs.replace(stream, **changes)


def _turned(stream: Stream, before: Status, after: Status) -> Stream:
    if stream.status not in (before, after):
        raise NotPossibleError(f"the stream is {stream.status}, and can't become {after}")
    return _with(stream, status=after)
