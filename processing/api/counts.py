"""Exact counts of stored entries, cheap at any size: the store keeps them beside the rows."""

from processing.api.filters import Where
from processing.store import Store

_EVERYTHING = Where()


def counts(store: Store, where: Where = _EVERYTHING) -> dict[tuple[str, str], int]:
    """Stored entries by (source, outcome). Each entry is counted once, whatever crashed in between."""
    rows = store.query(
        f"SELECT service_name, outcome, count() AS entries FROM records {where} GROUP BY service_name, outcome",  # noqa: S608 - our own names
        where.parameters,
    )
    return {(row["service_name"], row["outcome"]): row["entries"] for row in rows}
