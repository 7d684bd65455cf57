"""`sluice dlq`: dead letters from the terminal. docs/dead-letters.md shows it at work."""

import getpass
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from console.client import Client
from console.exits import RefusedError

PAGE = 1_000  # letters that one call closes
F = TypeVar("F", bound=Callable[..., Any])

_FILTERS = [
    click.option("--reason", help="Only these, such as malformed_json."),
    click.option("--stage", help="Only those of this stage."),
    click.option("--run", help="Only those of this ingest run."),
    click.option("--source", help="Only those of runs that declared this source."),
    click.option("--origin", help="Only those of the entry with this first record_id."),
    click.option("--text", help="Only those whose detail has this text in it."),
    click.option("--from", "from_", help="Only since this RFC 3339 time."),
    click.option("--to", help="Only before this RFC 3339 time."),
]
_WHO = [
    click.option("--actor", help="Who does it; else $USER."),
    click.option("--note", help="Why, for the audit."),
]


def _with(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group(short_help="Look at dead letters, send them again, close them.")
def dlq() -> None:
    """Entries that could not go on: look at them, mend them, send them again, close the rest."""


@dlq.command("list")
@_with(_FILTERS)
@click.option("--state", type=click.Choice(["open", "replayed", "resolved", "all"]), default="open", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.pass_obj
def list_(client: Client, /, state: str, limit: int, **filters: str | None) -> None:
    """List letters, the newest first."""
    query = {**_query(filters), "state": None if state == "all" else state}
    for letter in client.pages("/dead-letters", "dead_letters", query, limit):
        row = (letter["id"], letter["state"], letter["stage"], letter["reason"], str(letter["bytes"]), letter["detail"])
        client.show(letter, "  ".join(row))


@dlq.command()
@click.argument("letter")
@click.pass_obj
def show(client: Client, letter: str) -> None:
    """Show one letter: why, its first bytes, its attempts, what was done."""
    found = client.ask("GET", f"/dead-letters/{letter}", {})
    client.show(found, _described(found))


@dlq.command()
@click.argument("letter")
@click.option("--output", "-o", type=click.File("wb"), default="-", help="Where to; standard output if absent.")
@click.pass_obj
def raw(client: Client, letter: str, output: BinaryIO) -> None:
    """Write the bytes of one letter, as they came."""
    output.writelines(client.stream(f"/dead-letters/{letter}/raw"))


@dlq.command()
@click.argument("letters", nargs=-1)
@_with(_FILTERS)
@_with(_WHO)
@click.option("--all", "everything", is_flag=True, help="Every open letter; needed when nothing else is named.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.pass_obj
def replay(client: Client, /, letters: tuple[str, ...], **options: Any) -> None:
    """Send LETTERS again as they are, or all open ones that match."""
    _close(client, "replay", letters, **options)


@dlq.command()
@click.argument("letters", nargs=-1)
@_with(_FILTERS)
@_with(_WHO)
@click.option("--all", "everything", is_flag=True, help="Every open letter; needed when nothing else is named.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.pass_obj
def resolve(client: Client, /, letters: tuple[str, ...], **options: Any) -> None:
    """Close LETTERS, or all open ones that match; nothing more comes of them."""
    _close(client, "resolve", letters, **options)


@dlq.command()
@click.argument("letter")
@click.option("--file", "file", type=click.File("rb"), help="The new bytes; - is standard input. Else $EDITOR opens.")
@click.option("--content-type", help="Of the new bytes; else what the entry had.")
@_with(_WHO)
@click.pass_obj
def edit(
    client: Client, letter: str, file: BinaryIO | None, content_type: str | None, actor: str | None, note: str | None
) -> None:
    """Send one letter again with other bytes."""
    content = file.read() if file else _edited(client, letter)
    path = f"/dead-letters/{letter}/edit"
    _closed(client, client.ask("POST", path, {"actor": _actor(actor), "note": note}, content, content_type))


@dlq.command()
@click.argument("letter", required=False)
@click.option("--actor", help="Only by them.")
@click.option("--action", type=click.Choice(["replayed", "resolved"]), help="Only this.")
@click.option("--run", help="Only with letters of this ingest run.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.pass_obj
def audit(client: Client, /, letter: str | None, limit: int, **filters: str | None) -> None:
    """Tell who did what, the newest first: to all attempts of LETTER, or at all."""
    if letter is None:
        events = client.pages("/dead-letters/audit", "events", filters, limit)
    elif any(filters.values()):
        raise click.UsageError("name a letter or filters, not both")
    else:
        events = iter(client.ask("GET", f"/dead-letters/{letter}/audit", {})["events"][:limit])
    for event in events:
        client.show(event, _event(event))


def _close(client: Client, verb: str, letters: tuple[str, ...], *, actor: str | None, note: str | None,
           everything: bool, dry_run: bool, **filters: str | None) -> None:  # fmt: skip
    who = {"actor": _actor(actor), "note": note}
    if not letters:
        query = {**_query(filters), **who, "all": everything or None, "dry_run": dry_run, "limit": PAGE}
        _close_many(client, verb, query)
        return
    if any(filters.values()) or everything:
        raise click.UsageError("name letters or filters, not both")
    if dry_run:
        raise click.UsageError("--dry-run is for filters")
    refused = 0
    for letter in letters:
        try:
            _closed(client, client.ask("POST", f"/dead-letters/{letter}/{verb}", who))
        except RefusedError as error:
            refused += 1
            click.echo(f"{letter}: {error}", err=True)
    if refused:
        raise RefusedError(f"{refused} of {len(letters)} letters were refused")


def _close_many(client: Client, verb: str, query: dict[str, Any]) -> None:
    """Call after call, until all that matched when the first began were looked at."""
    total = dict.fromkeys(("done", "closed_before", "refused"), 0)
    cursor: str | None = None
    while True:
        summary = client.ask("POST", f"/dead-letters/{verb}", {**query, "cursor": cursor})
        for refusal in summary["refusals"]:
            click.echo(f"{refusal['id']}: {refusal['detail']}", err=True)
        for name in total:
            total[name] += summary[name]
        cursor = summary["next_cursor"]
        if summary["dry_run"]:
            client.show(summary, f"{summary['matched']} open letters match")
            return
        if cursor is None:
            break
    done = "replayed" if verb == "replay" else "resolved"
    text = f"{total['done']} {done}, {total['closed_before']} closed before, {total['refused']} refused"
    client.show(total, text)
    if total["refused"]:
        raise RefusedError(f"{total['refused']} letters were refused")


def _closed(client: Client, closed: dict[str, Any]) -> None:
    where = f" to {closed['sent_to']}" if closed["sent_to"] else ""
    client.show(closed, f"{closed['id']}  {closed['state']}{where}")


def _edited(client: Client, letter: str) -> bytes:
    """What $EDITOR makes of the letter's bytes. Raises RefusedError where it leaves them as they are."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor or not sys.stdin.isatty():
        raise click.UsageError("set EDITOR and use a terminal, or give the new bytes with --file (- is standard input)")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "entry"
        with file.open("wb") as out:
            out.writelines(client.stream(f"/dead-letters/{letter}/raw"))
        before = file.read_bytes()
        click.edit(filename=str(file), editor=editor)
        after = file.read_bytes()
    if not before.endswith(b"\n"):
        after = after.removesuffix(b"\n")  # which editors add by themselves
    if after == before:
        raise RefusedError("nothing was changed; send it as it is with replay")
    return after


def _query(filters: dict[str, str | None]) -> dict[str, str | None]:
    return {"from" if name == "from_" else name: value for name, value in filters.items()}


def _actor(named: str | None) -> str:
    return named or os.environ.get("USER") or getpass.getuser()


def _described(letter: dict[str, Any]) -> str:
    lines = [
        f"{name:12}{letter[name]}"
        for name in ("id", "state", "reason", "detail", "stage", "topic", "partition", "offset", "index", "record_id",
                     "run_id", "origin", "time", "bytes", "stored_as", "gone")
        if letter[name] is not None
    ]  # fmt: skip
    if letter["key"]:
        lines.append(f"{'key':12}{letter['key']['data']}")
    lines += [
        f"{'header':12}{one['name']}: {one['value']['data'] if one['value'] else ''}" for one in letter["headers"]
    ]
    lines += [f"{'attempt':12}{one['id']}  {one['state']}  {one['reason']}" for one in letter["attempts"]]
    lines += [f"{'audit':12}{_event(event)}" for event in letter["audit"]]
    if letter["preview"]:
        preview = letter["preview"]
        more = ", and more" if preview["truncated"] else ""
        lines += ["", f"{preview['encoding']}{more}:", preview["data"]]
    return "\n".join(lines)


def _event(event: dict[str, Any]) -> str:
    edited = " edited" if event["edited"] else ""
    note = f"  {event['note']}" if event["note"] else ""
    return f"{event['time']}  {event['actor']}  {event['action']}{edited}  {event['letter']}{note}"
