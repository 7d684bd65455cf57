"""Lists, page by page: what every list has in common, and cursors that are opaque to clients."""

import base64
import binascii
from typing import Any, Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from shared.service import ProblemError

_CURSOR_VERSION: Final = 1


class Page(BaseModel):
    """How much of a list, and from where."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=1000, description="At most this many.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before; none for the first page.")


class Listing(BaseModel):
    """What every list has beside its items."""

    total: int = Field(description="How many match, on all pages, now.")
    next_cursor: str | None = Field(description="The cursor of the next page; null on the last.")


def cursor_of(kind: str, *last: int | str) -> str:
    """The opaque cursor that continues a list after this item."""
    return base64.urlsafe_b64encode(msgspec.json.encode([_CURSOR_VERSION, kind, *last])).decode().rstrip("=")


def after(kind: str, cursor: str, *types: type) -> list[Any]:
    """What `cursor_of` was given. Raises ProblemError (422) where the cursor is not one of this list."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        version, found, *last = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=list)
    except (binascii.Error, ValueError, RecursionError):
        raise _bad_cursor(kind) from None
    if version != _CURSOR_VERSION or found != kind or [type(value) for value in last] != list(types):
        raise _bad_cursor(kind)
    if any(type(value) is int and not -(2**63) <= value < 2**63 for value in last):
        raise _bad_cursor(kind)
    return last


def _bad_cursor(kind: str) -> ProblemError:
    return ProblemError(
        422, "Invalid request", f"cursor: not a next_cursor of {kind}; leave it out to start from the first page"
    )
