"""A store of an older schema becomes one of this; a newer one is used where it can be, and else refused."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from processing.store import Store, open_store
from processing.store.migrations import MIGRATIONS, Migration, newest
from shared.config import Settings
from shared.errors import StoreError
from tests.contract.conftest import Open
from tests.contract.samples import batch, count, dead_letter, record, rows, store_rows

OLDEST = (Path(__file__).parent / "store_of_schema_1.sql").read_text()
NEXT = newest(MIGRATIONS) + 1
ADDITION = Migration(
    NEXT,
    needs=1,
    statements=(
        "ALTER TABLE {epoch}.records ADD COLUMN IF NOT EXISTS tenant String DEFAULT 'none'",
        "ALTER TABLE {epoch}.anomalies ADD COLUMN IF NOT EXISTS tenant String DEFAULT 'none'",
        "ALTER TABLE {shared}.alerts ADD COLUMN IF NOT EXISTS tenant String DEFAULT 'none'",
    ),
)
CHANGE = Migration(
    NEXT,
    needs=NEXT,
    statements=(
        "ALTER TABLE {epoch}.runs DROP INDEX IF EXISTS by_run",
        "ALTER TABLE {epoch}.runs RENAME COLUMN IF EXISTS entries TO taken",
    ),
)

embedded_only = pytest.mark.parametrize("settings", ["embedded"], indirect=True)  # the order is the same on both

Reopen = Callable[..., Store]


class PowerError(Exception):
    """Stands for a process that is killed between two statements."""


@pytest.fixture
def reopen(opened: Open) -> Reopen:
    """Opens the test's store with other migrations than there are, on the engine that is open."""
    store = opened()

    def again(*more: Migration, dies_after: int | None = None) -> Store:
        engine = store._engine
        if dies_after is not None:
            engine = _Dying(engine, dies_after)
        return Store(engine, store._catalog._database, (*MIGRATIONS, *more))

    return again


class _Dying:
    """An engine whose process ends after so many statements."""

    def __init__(self, engine: Any, statements: int) -> None:
        self._engine = engine
        self._left = statements

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def execute(self, sql: str) -> None:
        if self._left == 0:
            raise PowerError
        self._left -= 1
        self._engine.execute(sql)


def _database(settings: Settings) -> str:
    return settings.clickhouse_url.rpartition("/")[2] or "sluice"


@pytest.fixture
def oldest(opened: Open, settings: Settings) -> Open:
    """A store as the first version left it, with rows in it, in place of the test's own."""
    store = opened()
    database = _database(settings)
    store._engine.use("default")
    for made in (f"{database}_1", database):
        store._engine.execute(f"DROP DATABASE {made} SYNC")
        store._engine.execute(f"CREATE DATABASE {made}")
    for statement in OLDEST.split(";\n"):
        store._engine.execute(statement.strip().replace("sluice", database))
    return opened


def test_a_store_of_the_first_schema_is_read_on_and_written_on(oldest: Open) -> None:
    store = oldest()
    assert [row["record_id"] for row in store.query("SELECT record_id FROM records ORDER BY seq")] == [
        "cafe-0-0-0",
        "cafe-0-1-0",
    ]
    assert store.positions() == {("cafe", 0): 10}
    assert store.query(f"SELECT fingerprint FROM {store.alerts}") == [{"fingerprint": "f"}]
    store_rows(store, records=[record("cafe-0-3-0")], dead_letters=[dead_letter("cafe-0-4-0")])
    store = oldest()
    assert (count(store, "records"), count(store, "dead_letters")) == (3, 2)
    assert store._catalog.version(store.epoch) == newest(MIGRATIONS)
    (made,) = store.query(
        "SELECT create_table_query AS sql FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'dead_letters'"
    )
    assert "INDEX by_record" in made["sql"]


def test_after_every_migration_a_store_is_as_a_new_one(oldest: Open, settings: Settings) -> None:
    columns = (
        "SELECT table, name, type, default_expression FROM system.columns "
        "WHERE database = currentDatabase() ORDER BY table, name"
    )
    indexes = (
        "SELECT table, name, expr, type_full FROM system.data_skipping_indices "
        "WHERE database = currentDatabase() ORDER BY table, name"
    )
    store = oldest()
    migrated = store.query(columns), store.query(indexes)
    store._engine.use("default")
    store._engine.execute(f"DROP DATABASE {_database(settings)} SYNC")
    store._engine.execute(f"DROP DATABASE {_database(settings)}_1 SYNC")
    store = oldest()
    assert count(store, "records") == 0
    assert migrated == (store.query(columns), store.query(indexes))


def test_an_older_version_may_use_a_store_with_an_addition_and_the_newer_one_again(reopen: Reopen) -> None:
    newer = reopen(ADDITION)
    store_rows(newer, records=[record("a")])
    older = reopen()
    store_rows(older, records=[record("b")])
    assert [row["record_id"] for row in older.query("SELECT record_id FROM records ORDER BY seq")] == ["a", "b"]
    newer = reopen(ADDITION)
    assert newer.query("SELECT record_id, tenant FROM records ORDER BY seq") == [
        {"record_id": "a", "tenant": "none"},
        {"record_id": "b", "tenant": "none"},
    ]


def test_an_older_version_refuses_a_store_whose_change_it_would_misread(reopen: Reopen) -> None:
    newer = reopen(CHANGE)
    assert newer.query("SELECT taken FROM runs") == []
    with pytest.raises(
        StoreError, match=rf"has schema {NEXT}, made by a newer Sluice; this one knows up to {NEXT - 1}"
    ):
        reopen()
    assert reopen(CHANGE).query("SELECT taken FROM runs") == []


@embedded_only
def test_a_change_that_was_cut_off_is_refused_by_an_older_version_and_completed_by_the_newer(reopen: Reopen) -> None:
    """The store is as it was before, or closed to the older version, after any number of statements."""
    died = 0
    while True:
        try:
            reopen(CHANGE, dies_after=died)
        except PowerError:
            died += 1
        else:
            break
        columns = _columns(reopen(CHANGE) if _refused(reopen) else reopen(), "runs")
        assert ("taken" in columns) == _refused(reopen)
        if "taken" in columns:
            break
    assert died > 10
    assert "taken" in _columns(reopen(CHANGE), "runs")


@embedded_only
@pytest.mark.parametrize("statements", range(11, 17))
def test_an_addition_that_was_cut_off_anywhere_is_completed(reopen: Reopen, statements: int) -> None:
    store_rows(reopen(), records=[record("a")])
    with suppress(PowerError):
        reopen(ADDITION, dies_after=statements)
    store = reopen(ADDITION)
    assert store.query("SELECT tenant FROM records") == [{"tenant": "none"}]
    for table in ("records", "anomalies"):
        assert "tenant" in _columns(store, table)
    assert store._catalog.version(1) == NEXT


def test_a_batch_left_open_by_the_older_version_is_repeated_by_the_newer_without_doubling(reopen: Reopen) -> None:
    older = reopen()
    entered, lines = batch(1), rows(records=[record("a")], dead_letters=[dead_letter("b")])
    older.open_batch(entered)
    older.insert(entered, rows(records=lines.records))  # and no dead letters: the crash came between
    newer = reopen(ADDITION)
    assert newer.last_batch() == entered
    newer.insert(entered, lines)
    newer.close_batch(entered)
    assert (count(newer, "records"), count(newer, "dead_letters")) == (1, 1)


def test_a_store_made_by_a_newer_version_from_the_start_is_refused_too(
    opened: Open, settings: Settings, tmp_path: Path
) -> None:
    store = opened()
    store._engine.execute(f"INSERT INTO {_database(settings)}.epochs VALUES (1, 99)")
    store.close()
    with pytest.raises(StoreError, match=r"run the newer version, restore a backup of before its upgrade"):
        open_store(settings, tmp_path)


def _refused(reopen: Reopen) -> bool:
    try:
        reopen()
    except StoreError:
        return True
    return False


def _columns(store: Store, table: str) -> set[str]:
    found = store.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
        {"table": table},
    )
    return {row["name"] for row in found}
