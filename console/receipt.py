"""`sluice receipt`: what became of the entries of a run. docs/command-line.md shows it at work."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote

import click

from console.client import AGAIN, INGESTION, TIMEOUT_S, Client, ingestion
from console.exits import CommandError, DeadLetteredError, RefusedError, UnfinishedError, UnreachableError
from console.progress import Progress

_FIRST_LOOK_S: Final = 0.1
_LONGEST_S: Final = 2.0
_ANSWER_S: Final = 1.0  # for an answer at least, however little time is left
_UNKNOWN_S: Final = 15.0  # how long a run may be unknown that nobody has seen accepted


@click.command(short_help="Show what became of the entries of a run.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Until no entry is in flight.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=300.0, show_default=True,
              help="Seconds to wait at most.")  # fmt: skip
@INGESTION
@click.pass_obj
def receipt(client: Client, runs: tuple[str, ...], wait: bool, timeout_s: float, url: str | None) -> None:
    """Show the receipt of each RUN: accepted = stored + dead-lettered + in flight.

    Exit codes: 0 all is stored, 3 all has arrived and some as dead letters, 4 some is in flight, 1 a run is unknown.
    """
    found: list[dict[str, Any]] = []
    refused: list[CommandError] = []
    with ingestion(url, client.as_json) as service, Progress(None, shown=wait and not client.as_json) as progress:
        for run in runs:
            try:
                (one,) = follow(service, [run], timeout_s if wait else 0.0, progress.arrive, accepted=False)
            except CommandError as error:
                if len(runs) == 1:
                    raise
                refused.append(error)
                progress.say(f"{run}: {error}")
                continue
            found.append(one)
            progress.say_nothing()
            client.show(one, line(one))
    if refused:
        raise type(refused[0])(f"{len(refused)} of {len(runs)} receipts can't be shown")
    judge(found)


def follow(
    service: Client, runs: Iterable[str], seconds: float, seen: Callable[[dict[str, Any]], None], *, accepted: bool
) -> Iterator[dict[str, Any]]:
    """The receipt of each run, when it is complete, or as last seen when so many seconds are over, or at once for 0.

    `seen` is told of every look. `accepted` says that the runs are there for sure, though none may know them yet.
    Raises RefusedError for a run that is unknown, UnreachableError and UnfinishedError.
    """
    begun = time.monotonic()
    until = begun + seconds
    for run in runs:
        pause = _FIRST_LOOK_S
        found: dict[str, Any] | None = None  # as it was last seen
        while True:
            try:
                answer_s = max(_ANSWER_S, until - time.monotonic()) if seconds else TIMEOUT_S
                found = service.ask("GET", f"/ingest/runs/{quote(run, safe='')}", {}, timeout_s=answer_s)
            except UnreachableError as error:
                why = str(error)
                if not seconds:
                    raise
            except RefusedError as error:
                why = str(error)
                on_its_way = error.status == 404 and (accepted or time.monotonic() < begun + _UNKNOWN_S)
                if not seconds or not (on_its_way or error.status in AGAIN):
                    raise
            else:
                seen(found)
                if found["complete"]:
                    break
            if time.monotonic() + pause > until:
                break
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_S)
        if found is None:
            raise UnfinishedError(f"run {run} is not known after {seconds:g} s (--timeout): {why}")
        yield found


def line(receipt: dict[str, Any]) -> str:
    return (
        f"{receipt['run_id']}  {receipt['accepted']} accepted = {receipt['stored']} stored + "
        f"{receipt['dead_lettered']} dead-lettered + {receipt['in_flight']} in flight"
    )


def judge(receipts: Iterable[dict[str, Any]]) -> None:
    """Raises UnfinishedError where something is in flight, else DeadLetteredError where there are dead letters."""
    receipts = list(receipts)
    in_flight = sum(each["in_flight"] for each in receipts)
    if in_flight:
        are = "1 entry is" if in_flight == 1 else f"{in_flight} entries are"
        raise UnfinishedError(f"{are} in flight; look again with: sluice receipt --wait RUN")
    dead = [each for each in receipts if each["dead_lettered"]]
    if dead:
        number = sum(each["dead_lettered"] for each in dead)
        are = "1 entry is a dead letter" if number == 1 else f"{number} entries are dead letters"
        raise DeadLetteredError(f"{are}; see: sluice dlq list --run {dead[0]['run_id']}")
