"""The command line: `./sluice`, or `python -m console`. It speaks to the services over HTTP; each group is a file."""

import sys

import click

from console import client, dlq, receipt, send, stream, token
from console.exits import CommandError, Exit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="Where processing answers; else PROCESSING_URL, else 127.0.0.1 and PROCESSING_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON, one a line.")
@click.pass_context
def sluice(context: click.Context, url: str | None, as_json: bool) -> None:
    """Sluice's command line.

    Exit codes: 0 done, 1 refused or not reachable, 2 used wrongly, 3 dead letters, 4 not finished, 130 interrupted.
    """
    context.obj = context.with_resource(client.processing(url, as_json))


for command in (send.send, receipt.receipt, dlq.dlq, stream.stream, stream.streams, token.token):
    sluice.add_command(command)


def _answer_as_json(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.obj.as_json = True


def _take_json(command: click.Command) -> None:
    """Let --json stand behind a command's name, too."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _take_json(each)
    else:
        command.params.append(
            click.Option(
                ["--json"], is_flag=True, expose_value=False, callback=_answer_as_json, help="Print JSON, one a line."
            )
        )


for command in sluice.commands.values():
    _take_json(command)


def main() -> int:
    """Run a command; returns the process's exit code. Where the reader of its output has gone, click exits with 1."""
    try:
        sluice.main(prog_name="sluice", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as wrong:  # wrong usage is 2 by itself
        wrong.show()
        return wrong.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return Exit.INTERRUPTED
    except CommandError as error:
        click.echo(f"sluice: {error}", err=True)
        return error.code
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
