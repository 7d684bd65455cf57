"""`sluice stream` and `sluice streams`: files replayed at a rate. docs/gpu.md shows them at work."""

import json
import time
from pathlib import Path
from typing import Any, Final

import click

from console.client import INGESTION, Client, ingestion
from console.exits import RefusedError
from shared.config import Settings, load

_LOOK_S: Final = 1.0
_PATH: Final = "/ingest/streams"


@click.command(short_help="Replay a file at a rate.")
@click.argument("file")
@click.option("--rate", type=click.FloatRange(0.001, min_open=True), default=100.0, show_default=True,
              help="Entries a second.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True,
              help="Partitions that it writes to at once.")  # fmt: skip
@click.option("--loop", is_flag=True, help="Begin again at the end of the file.")
@click.option("--shuffle-hosts", is_flag=True, help="Change the order of hosts.")
@click.option("--start-at", help="The number of the first entry, from 1, or an RFC 3339 time.")
@click.option("--timestamps", type=click.Choice(["now", "keep"]), default="now", show_default=True,
              help="Whether an entry's time becomes that of sending it.")  # fmt: skip
@click.option("--source", help="The source of entries that name none.")
@click.option("--detach", is_flag=True, help="Return at once; the stream goes on by itself.")
@INGESTION
@click.pass_obj
def stream(client: Client, /, file: str, detach: bool, url: str | None, **spec: Any) -> None:
    """Replay FILE, which lies under the ingest folder, and show how far it is; Ctrl-C stops it."""
    with ingestion(url, client.as_json) as service:
        begun = _send(service, "POST", _PATH, {"file": _name(file), **{k: v for k, v in spec.items() if v is not None}})
        if detach:
            service.show(begun, f"stream {begun['id']} is running")
            return
        try:
            found = _follow(service, begun)
        except KeyboardInterrupt:
            found = _send(service, "DELETE", f"{_PATH}/{begun['id']}")
            service.show(found, f"stopped after {found['sent']} entries")
            return
    if found["status"] == "failed":
        raise RefusedError(f"the stream failed after {found['sent']} entries: {found['error']}")


@click.group(short_help="Look at streams, change, pause, resume and stop them.")
@INGESTION
@click.pass_context
def streams(context: click.Context, url: str | None) -> None:
    """Streams that are there: list, change, pause, resume, stop."""
    context.obj = context.with_resource(ingestion(url, context.obj.as_json))


@streams.command("list")
@click.pass_obj
def list_(client: Client) -> None:
    """List the streams of this ingestion, the oldest first."""
    for found in client.ask("GET", _PATH, {})["streams"]:
        client.show(found, _line(found))


@streams.command()
@click.argument("stream_id", metavar="ID")
@click.argument("rate", type=click.FloatRange(0.001, min_open=True))
@click.pass_obj
def rate(client: Client, stream_id: str, rate: float) -> None:
    """Go on at RATE entries a second."""
    found = _send(client, "PATCH", f"{_PATH}/{stream_id}", {"rate": rate})
    client.show(found, _line(found))


@streams.command()
@click.argument("stream_id", metavar="ID")
@click.pass_obj
def pause(client: Client, stream_id: str) -> None:
    """Send nothing until it is resumed."""
    found = _send(client, "POST", f"{_PATH}/{stream_id}/pause")
    client.show(found, _line(found))


@streams.command()
@click.argument("stream_id", metavar="ID")
@click.pass_obj
def resume(client: Client, stream_id: str) -> None:
    """Go on where it was paused."""
    found = _send(client, "POST", f"{_PATH}/{stream_id}/resume")
    client.show(found, _line(found))


@streams.command()
@click.argument("stream_id", metavar="ID")
@click.pass_obj
def stop(client: Client, stream_id: str) -> None:
    """End it for good."""
    found = _send(client, "DELETE", f"{_PATH}/{stream_id}")
    client.show(found, f"stopped after {found['sent']} entries")


def _send(client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    return client.ask(method, path, {}, content, None if body is None else "application/json")


def _follow(client: Client, stream: dict[str, Any]) -> dict[str, Any]:
    """Show the stream every second until it ends; returns what it is then."""
    while stream["status"] in ("running", "paused"):
        time.sleep(_LOOK_S)
        before, stream = stream, client.ask("GET", f"{_PATH}/{stream['id']}", {})
        client.show(stream, f"{_line(stream)}  {(stream['sent'] - before['sent']) / _LOOK_S:.0f}/s")
    return stream


def _line(stream: dict[str, Any]) -> str:
    return f"{stream['id']}  {stream['status']:8}  {stream['file']}  pass {stream['passes']}  {stream['sent']} sent"


def _name(file: str) -> str:
    """The file as ingestion knows it: by its path under the ingest folder."""
    folder = load(Settings).ingest_dir.resolve()
    path = Path(file).resolve()
    return str(path.relative_to(folder)) if path.is_file() and path.is_relative_to(folder) else file
