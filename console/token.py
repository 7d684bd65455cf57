"""`sluice token`: a token for a declared source, and the hash that SOURCES_FILE holds of it."""

import hashlib
import json
import secrets

import click

from console.client import Client


@click.command()
@click.pass_obj
def token(client: Client) -> None:
    """Make a token for pushes. It is shown once; SOURCES_FILE gets its hash alone."""
    made = secrets.token_urlsafe(32)
    hashed = f"sha256:{hashlib.sha256(made.encode()).hexdigest()}"
    if client.as_json:
        click.echo(json.dumps({"token": made, "hash": hashed}))
        return
    click.echo(f"token, for the sender (Authorization: Bearer TOKEN):  {made}")
    click.echo(f"its hash, for `tokens` in SOURCES_FILE:               {hashed}")
