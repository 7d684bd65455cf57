"""A bar on the terminal, on standard error, so that standard output can be piped; elsewhere nothing."""

import itertools
import sys
from types import TracebackType
from typing import Any, Self

import click


class Progress:
    """Bytes that are read, or entries that arrive."""

    def __init__(self, total: int | None, *, shown: bool) -> None:
        """`total` is None where nobody knows it. Only a terminal shows it, ever."""
        self._arrived: dict[str, int] = {}  # by run
        self._hidden = not shown or not sys.stderr.isatty()
        self._bar = click.progressbar(
            None if total is not None else itertools.repeat(None), total, hidden=self._hidden, file=sys.stderr
        )

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def advance(self, steps: int, label: str) -> None:
        self._bar.label = label
        self._bar.update(steps)

    def arrive(self, receipt: dict[str, Any]) -> None:
        """Show how many entries of all runs have arrived, as the receipt of one now says."""
        run, arrived = receipt["run_id"], receipt["stored"] + receipt["dead_lettered"]
        steps = arrived - self._arrived.get(run, 0)
        self._arrived[run] = arrived
        self.advance(steps, f"{sum(self._arrived.values()):,} entries have arrived")

    def say(self, text: str) -> None:
        """A line on standard error, with the bar under it."""
        self.say_nothing()
        click.echo(text, err=True)

    def say_nothing(self) -> None:
        """Make room for a line."""
        if not self._hidden:
            click.echo("\r\x1b[K", nl=False, err=True)
