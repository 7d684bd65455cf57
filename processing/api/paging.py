"""Lists, page by page: the newest stored first, and cursors that stay in place while more is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from processing.api.filters import Where
from processing.store import Store
from shared.paging import Page, after, cursor_of


@dataclass(frozen=True, slots=True)
class Found:
    """A page of rows."""

    total: int
    rows: list[dict[str, Any]]
    next_cursor: str | None


def newest(store: Store, kind: str, source: str, where: Where, page: Page) -> Found:
    """A page of a table (or subquery) that has `seq`, the newest stored first.

    The cursor is the last row's seq, and seq only grows: rows stored meanwhile come before the first page.
    """
    (counted,) = store.query(f"SELECT count() AS total FROM {source} {where}", where.parameters)  # noqa: S608 - our own names
    if page.cursor is not None:
        (seq,) = after(kind, page.cursor, int)
        where = where.and_("seq < {before:Int64}", before=seq)
    rows = store.query(
        f"SELECT * FROM {source} {where} ORDER BY seq DESC LIMIT {page.limit + 1}",  # noqa: S608 - our own names
        where.parameters,
    )
    return cut(counted["total"], rows, page.limit, kind, ("seq",))


def cut(total: int, rows: list[dict[str, Any]], limit: int, kind: str, key: Sequence[str]) -> Found:
    """A page from up to limit + 1 rows: one more than is shown tells that there is a next page."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Found(total, shown, cursor_of(kind, *(shown[-1][name] for name in key)) if more else None)
