"""The store's schema versions: what each changed, and how a store of the one before becomes one of it.

A table that is new needs no entry here: it is made wherever it is missing, and an older Sluice leaves it alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Migration:
    """The step from the version before to this one.

    Statements may be repeated any number of times, and a crash may come between any two of them: IF [NOT] EXISTS, or
    nothing that minds. They are given the databases as {shared}, what outlives an epoch, and {epoch}, its tables.
    """

    version: int
    needs: int
    """The oldest version that may use the store afterwards. Additions, a column with a default or an index, leave it as
    it was, and Sluice can be rolled back. Anything that an older version would misread or break needs this version."""
    statements: tuple[str, ...]


MIGRATIONS: Final[tuple[Migration, ...]] = (
    Migration(
        2,
        needs=1,
        statements=(
            "ALTER TABLE {epoch}.dead_letters"
            " ADD INDEX IF NOT EXISTS by_record record_id TYPE bloom_filter(0.01) GRANULARITY 1",
        ),
    ),
    Migration(
        3,
        needs=1,
        statements=("ALTER TABLE {epoch}.ledger ADD COLUMN IF NOT EXISTS windows_block Int64 DEFAULT -1",),
    ),
)
"""In their order, one for each version since the first."""

FIRST: Final = 1


def newest(migrations: Sequence[Migration]) -> int:
    """The version that a store has after these."""
    return migrations[-1].version if migrations else FIRST


def needed(migrations: Sequence[Migration]) -> int:
    """The oldest version that may use a store after these."""
    return max((migration.needs for migration in migrations), default=FIRST)
