"""Entries of one message through the standardizer, as the stage would pass them."""

from collections.abc import Sequence

from standardization.standardize import Arrival, Rejected, Standardized, Standardizer

NDJSON = "application/x-ndjson"
ARRIVAL = Arrival("2026-03-17T09:00:00Z")
PLACE = "0badcafe-3-17"


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
