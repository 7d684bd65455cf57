"""`sluice send`: files and standard input, to ingestion. docs/command-line.md shows it at work."""

import shlex
import signal
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import Any, Final

import click

from console.client import INGESTION, Client, ingestion
from console.exits import CommandError, InterruptedByUserError, RefusedError, UnwritableError
from console.parts import Input, Kind, Place, size_of
from console.progress import Progress
from console.push import Pusher
from console.receipt import follow, judge, line

_ALL_IN: Final = "all is accepted, see: sluice receipt --wait RUN"


class _PlaceType(click.ParamType[Place]):
    name = "PLACE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        try:
            return Place.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Place.read(f"{value}:0:0:0:00000000")
        except ValueError:
            raise click.BadParameter("up to 100 letters, digits, points, hyphens and underscores") from None
    return value


@click.command(short_help="Send files or standard input.")
@click.argument("files", metavar="FILE...|-", nargs=-1, required=True)
@click.option("--source", help="The source of entries that name none.")
@click.option("--type", "kind", type=click.Choice(Kind, case_sensitive=False),
              help="What the input holds; else its name and first character tell.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Until all entries are stored or dead letters.")
@click.option("--name", callback=_name, help="A name of your own: the same input sent again under it counts once.")
@click.option("--resume", "place", type=_PlaceType(), help="Go on where a send has ended, as it printed.")
@click.option("--token", envvar="SLUICE_TOKEN", show_envvar=True, help="Of the source, where it needs one.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=300.0, show_default=True,
              help="Seconds for which each part is tried, and then for which --wait waits.")  # fmt: skip
@INGESTION
@click.pass_obj
def send(client: Client, /, files: tuple[str, ...], name: str | None, place: Place | None, token: str | None,
         url: str | None, **options: Any) -> None:  # fmt: skip
    """Send each FILE to ingestion, - is standard input: JSON, NDJSON or CSV, plain, gzip or zstd.

    Large inputs go in parts, each of them a run with a receipt. A part that gets no answer is sent again and counts
    once; what was interrupted goes on with --resume. The same file sent twice counts twice.

    Exit codes: 0 done, 1 refused or not readable, 2 used wrongly, 3 (--wait) some entries are dead letters, 4 given up
    for now, 130 interrupted.
    """
    if name and place:
        raise click.UsageError("--resume has the name of its send already; leave --name out")
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    with _terminable(), ingestion(url, client.as_json, token) as service:
        name = name or (place.name if place else uuid.uuid4().hex[:16])
        _Send(service, name, url=url, **options).run(files, place)


class _Send:
    """One send: what is in, and how to go on with the rest."""

    def __init__(
        self, service: Client, name: str, *, url: str | None, source: str | None, kind: Kind | None, wait: bool,
        timeout_s: float,
    ) -> None:  # fmt: skip
        self._service = service
        self._name = name
        self._url = url
        self._source = source
        self._kind = kind
        self._wait = wait
        self._timeout_s = timeout_s
        self._runs: list[str] = []
        self._accepted = 0
        self._bytes = 0
        self._left: tuple[str, ...] = ()  # files that are not wholly in
        self._place: Place | None = None  # in the first of them

    def run(self, files: tuple[str, ...], place: Place | None) -> None:
        try:
            self._send(files, place)
        except KeyboardInterrupt:
            raise InterruptedByUserError(f"interrupted; {self._rest()}") from None
        except CommandError as error:
            raise type(error)(f"{error}; {self._rest()}") from error
        except OSError as error:
            raise UnwritableError(f"{error.strerror}; {self._rest()}") from error
        receipts: list[dict[str, Any]] = []
        arrived: dict[str, int] = {}
        try:
            if self._wait:
                receipts = self._receipts()
                arrived = {
                    name: sum(each[name] for each in receipts) for name in ("stored", "dead_lettered", "in_flight")
                }
            self._service.show({**self._sums(), **arrived}, self._total())
        except KeyboardInterrupt:
            raise InterruptedByUserError(f"interrupted; {_ALL_IN}") from None
        except OSError as error:
            raise UnwritableError(f"{error.strerror}; {_ALL_IN}") from error
        judge(receipts)

    def _send(self, files: tuple[str, ...], place: Place | None) -> None:
        number = place.part if place else 0
        # of all, so that a missing one is told before any is sent; they are opened in turn, for they may be many
        sizes = [size_of(file, self._kind) for file in files]
        total = None if None in sizes else sum(filter(None, sizes))
        with Progress(total, shown=not self._service.as_json) as progress:
            pusher = Pusher(self._service, self._name, self._source, self._timeout_s, progress.say)
            for index, file in enumerate(files):
                self._left = files[index:]
                self._place = place or Place(self._name, number, 0, 0, 0)
                with closing(Input(file, self._kind)) as opened:
                    number = self._send_parts(opened, self._place, pusher, progress)
                place = None
            self._left = ()

    def _send_parts(self, opened: Input, place: Place, pusher: Pusher, progress: Progress) -> int:
        """Send what an input holds from a place on; returns the number of the next part."""
        number, in_doubt = place.part, place.length > 0  # an earlier send had no answer to it
        for part in opened.parts(place):
            self._place = Place(self._name, number, part.begin, part.end - part.begin, part.crc)
            try:
                taken = pusher.push(part, number, opened.kind)
            except RefusedError:
                if not (in_doubt or pusher.in_doubt):
                    self._place = Place(self._name, number, part.begin, 0, part.crc_before)
                raise
            number, in_doubt = number + 1, False
            self._place = Place(self._name, number, part.end, 0, part.crc)
            self._count(opened.label, number - 1, taken, progress)
            progress.advance(opened.progress(), f"{self._accepted:,} entries")
        return number

    def _count(self, label: str, number: int, taken: dict[str, Any], progress: Progress) -> None:
        self._runs.append(taken["run_id"])
        self._accepted += taken["accepted"]
        self._bytes += taken["bytes"]
        progress.say_nothing()
        self._service.show(
            {"part": number, "file": label, **taken}, f"{taken['run_id']}  {taken['accepted']} accepted  {label}"
        )

    def _total(self) -> str:
        runs = "1 run" if len(self._runs) == 1 else f"{len(self._runs)} runs"
        return f"{self._accepted} entries, {self._bytes} bytes, {runs}"

    def _receipts(self) -> list[dict[str, Any]]:
        found = []
        with Progress(self._accepted, shown=not self._service.as_json) as progress:
            for receipt in follow(self._service, self._runs, self._timeout_s, progress.arrive, accepted=True):
                progress.say_nothing()
                self._service.show(receipt, line(receipt))
                found.append(receipt)
        return found

    def _sums(self) -> dict[str, Any]:
        return {"name": self._name, "parts": len(self._runs), "accepted": self._accepted, "bytes": self._bytes}

    def _rest(self) -> str:
        """What is in, and the command that sends the rest."""
        if self._place is None or not (self._place.part or self._place.length):
            return "nothing was sent"
        if self._service.as_json:
            with suppress(OSError):  # Ctrl-C ends who reads this, too
                self._service.show({**self._sums(), "resume": str(self._place), "left": list(self._left)}, "")
        options = {"--ingestion": self._url, "--source": self._source, "--type": self._kind, "--resume": self._place}
        words = [word for name, value in options.items() if value for word in (name, str(value))]
        command = shlex.join(["sluice", "send", *(["--wait"] if self._wait else []), *words, "--", *self._left])
        doubt = ", the next may be" if self._place.length else ""
        parts = "1 part is" if self._place.part == 1 else f"{self._place.part} parts are"
        return (
            f"{parts} in{doubt}. To send the rest, each entry once, give the same input within 24 "
            f"hours to:\n  {command}"
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is as Ctrl-C is: what was sent, and how to go on, is told."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
