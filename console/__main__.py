"""The command line: `./sluice`, or `python -m console`. It speaks to the services over HTTP; each group is a file."""

import sys

import click

from console import dlq, stream, token
from console.client import Client, RefusedError, UnreachableError, default_url


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="Where processing answers; else PROCESSING_URL, else 127.0.0.1 and PROCESSING_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON, one a line.")
@click.pass_context
def sluice(context: click.Context, url: str | None, as_json: bool) -> None:
    """Sluice's command line. Exit codes: 0 done, 1 refused or not reachable, 2 used wrongly."""
    context.obj = context.with_resource(Client(url or default_url(), as_json))


sluice.add_command(dlq.dlq)
sluice.add_command(stream.stream)
sluice.add_command(stream.streams)
sluice.add_command(token.token)


def main() -> int:
    """Run a command; returns the process's exit code."""
    try:
        sluice.main(prog_name="sluice", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as wrong:  # wrong usage is 2 by itself
        wrong.show()
        return wrong.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return 1
    except (RefusedError, UnreachableError) as error:
        click.echo(f"sluice: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
