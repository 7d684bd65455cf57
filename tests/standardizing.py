"""Entries of one message through the standardizer, as the stage would pass them."""

import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from standardization.standardize import Arrival, Rejected, Standardized, Standardizer

NDJSON = "application/x-ndjson"
ARRIVAL = Arrival("2026-03-17T09:00:00Z")
PLACE = "0badcafe-3-17"


def any_scalar(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """A value of JSON's that holds no other: of these texts, or one that means something to us."""
    return (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.integers(0, 600)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts
        | st.sampled_from(
            ["ok", "FAILED", "12 s", "3 MB", "N/A", "2026-03-17T08:00:00Z", "17/03/2026 08:00:00", "9999-999", "info"]
        )
    )


def standardized(
    subject: Standardizer, lines: Sequence[bytes], arrival: Arrival = ARRIVAL, content_type: str | None = NDJSON
) -> tuple[list[tuple[bytes, bytes]], list[Rejected]]:
    """The keys and lines of the good entries, and the rejected ones."""
    found = all_of(subject, lines, arrival, content_type)
    assert found.samples == []
    return found.records, found.rejected


def all_of(
    subject: Standardizer, lines: Sequence[bytes], arrival: Arrival = ARRIVAL, content_type: str | None = NDJSON
) -> Standardized:
    """Likewise, with the samples."""
    record_ids = [f"{PLACE}-{index}" for index in range(len(lines))]
    return subject.entries(content_type, lines, record_ids, [arrival] * len(lines))


def equal_names(dots: int, key: str = "x") -> dict[str, Any]:
    """An object of 2 ** dots leaves that have one name: each of its dots stands within a key or between two."""
    found: dict[str, Any] = {}
    for between in itertools.product(".\0", repeat=dots):
        *outer, last = (key + "".join(mark + key for mark in between)).split("\0")
        inner = found
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = 1
    return found
