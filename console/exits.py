"""How a command ends: every exit code, and the errors that carry one. docs/command-line.md has the table."""

from enum import IntEnum
from typing import ClassVar

from shared.errors import SluiceError


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    REFUSED = 1  # a service said no or does not answer, an input can't be read, or the output can't be written
    USAGE = 2  # the command was used wrongly; click's own
    DEAD_LETTERED = 3  # all has arrived, and some of it as dead letters
    UNFINISHED = 4  # given up for now: repeated, it goes on
    INTERRUPTED = 130  # Ctrl-C, or SIGTERM


class CommandError(SluiceError):
    """A command can't go on; the message says why and what to do."""

    code: ClassVar[Exit] = Exit.REFUSED


class RefusedError(CommandError):
    """The service answered that this can't be done; `status` is its answer's."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(CommandError):
    """The service did not answer."""


class UnreadableError(CommandError):
    """An input can't be read on, or is not what it was."""


class UnwritableError(CommandError):
    """Standard output can't be written on, as when its reader has gone."""


class DeadLetteredError(CommandError):
    """All has arrived, and some of it as dead letters."""

    code = Exit.DEAD_LETTERED


class UnfinishedError(CommandError):
    """The time that the command was given is over."""

    code = Exit.UNFINISHED


class InterruptedByUserError(CommandError):
    """Ctrl-C, or SIGTERM."""

    code = Exit.INTERRUPTED
