"""Another epoch beside the one that is read, and backups: on both engines, without Kafka."""

import threading
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from processing.api import counts
from processing.sources import Sources
from processing.store import Range, Snapshot, Store, open_store, restored_store
from processing.store.catalog import Catalog
from shared.config import Settings
from shared.errors import StoreError
from tests.contract.conftest import Open
from tests.contract.samples import batch, count, dead_letter, receipt, record, rows, store_rows, window

embedded_only = pytest.mark.parametrize("settings", ["embedded"], indirect=True)  # nothing in it is an engine's own
ALERT = b'{"fingerprint":"f","status":"firing","starts_at":"2026-01-05T10:00:00Z"}'


def _ids(store: Store) -> list[str]:
    return [row["record_id"] for row in store.query("SELECT record_id FROM records ORDER BY seq")]


# a rebuild


def test_a_rebuild_is_written_beside_what_is_read_and_read_when_it_is_switched_to(store: Store) -> None:
    store_rows(store, records=[record("old")])
    store.add_alerts([ALERT])
    assert store.rebuild() == 2
    store.reload()
    assert (store.last_batch(), store.positions()) == (None, {})
    store_rows(store, records=[record("new"), record("newer")])
    assert _ids(store) == ["old"]
    store.switch()
    assert _ids(store) == ["new", "newer"]
    assert store.query(f"SELECT fingerprint FROM {store.alerts}") == [{"fingerprint": "f"}]
    assert counts(store) == {("Efficy", "success"): 2}


def test_a_batch_under_way_when_a_rebuild_begins_is_ended_in_its_own_epoch(store: Store) -> None:
    entered = batch(1)
    store.open_batch(entered)
    store.rebuild()
    store.insert(entered, rows(records=[record("a")]))
    store.close_batch(entered)
    assert _ids(store) == ["a"]
    store.reload()
    assert store.last_batch() is None


def test_a_rebuild_goes_on_after_a_restart_and_a_switch_lasts(opened: Open) -> None:
    store = opened()
    store_rows(store, records=[record("old")])
    store.rebuild()
    store.reload()
    store_rows(store, records=[record("one")])
    store = opened()
    assert (store.epoch, store.rebuilding, store.writes) == (1, 2, 2)
    assert store.last_batch() is not None
    store_rows(store, records=[record("two")])
    assert _ids(store) == ["old"]
    store.switch()
    store = opened()
    assert (store.epoch, store.rebuilding, _ids(store)) == (2, None, ["one", "two"])


def test_only_one_epoch_is_left_after_a_switch_and_after_an_end_without_effect(opened: Open) -> None:
    store = opened()
    store_rows(store, records=[record("old")])
    store.rebuild()
    with pytest.raises(StoreError, match="under way already"):
        store.rebuild()
    store.abandon()
    store.reload()
    assert (_epochs(store), store.rebuilding, _ids(store)) == (1, None, ["old"])
    store = opened()
    assert store.rebuilding is None
    store_rows(store, records=[record("more")])
    assert store.rebuild() == 3
    store.reload()
    store_rows(store, records=[record("new")])
    store.switch()
    assert (_epochs(store), _ids(store)) == (1, ["new"])


def test_no_switch_within_a_batch_or_before_the_sink_has_turned(store: Store) -> None:
    store.rebuild()
    with pytest.raises(StoreError, match="between two batches"):
        store.switch()
    store.reload()
    store.open_batch(batch(1))
    with pytest.raises(StoreError, match="between two batches"):
        store.switch()


def test_figures_by_source_are_those_of_the_epoch_that_is_read(store: Store) -> None:
    store_rows(store, records=[record("a"), record("b")])
    sources = Sources(store, 10)
    assert _entries(sources) == 2
    store.rebuild()
    store.reload()
    store_rows(store, records=[record(f"r{n}") for n in range(3)])
    assert _entries(sources) == 2
    store.switch()
    assert _entries(sources) == 3


# backups


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> tuple[Settings, Path]:
    """Settings and a folder of another store, with nothing in it."""
    url = f"{settings.clickhouse_url}_other" if settings.clickhouse_url else ""
    return settings.model_copy(update={"clickhouse_url": url}), tmp_path / "elsewhere"


def test_a_backup_brings_all_back_where_nothing_was(
    store: Store, elsewhere: tuple[Settings, Path], backups: Path
) -> None:
    name = _name()
    batches = [
        store_rows(
            store,
            records=[record(f"{n}")],
            windows=[window("2026-01-05T10:00:00Z")],
            dead_letters=[dead_letter(f"d{n}")],
            runs=[receipt(f"r{n}", 1)],
        )
        for n in range(3)
    ]
    store.add_alerts([ALERT])
    positions = store.positions()
    snapshot = store.back_up(name)
    store_rows(store, records=[record("after the backup")])
    assert (snapshot.records, snapshot.batch) == (3, batches[-1].number)

    store.close()
    settings, folder = elsewhere
    restore(settings, folder, backups, name, snapshot)
    restored = open_store(settings, folder)
    try:
        assert _ids(restored) == ["0", "1", "2"]
        assert [count(restored, table) for table in ("dead_letters", "runs")] == [3, 3]
        assert restored.query("SELECT sum(total) AS n FROM windows") == [{"n": 3}]
        assert restored.query(f"SELECT fingerprint FROM {restored.alerts}") == [{"fingerprint": "f"}]
        assert restored.positions() == positions
        assert restored.last_batch() is not None
        store_rows(restored, records=[record("after the restore")])
        assert counts(restored) == {("Efficy", "success"): 4}
    finally:
        restored.close()


def test_a_backup_waits_for_the_end_of_the_batch_so_that_none_is_half_in_it(store: Store) -> None:
    entered = batch(1)
    store.open_batch(entered)
    made = threading.Thread(target=lambda: found.append(store.back_up(_name())))
    found: list[object] = []
    made.start()
    time.sleep(0.3)
    assert found == []
    store.insert(entered, rows(records=[record("a")]))
    store.close_batch(entered)
    made.join(30)
    assert [getattr(snapshot, "records", None) for snapshot in found] == [1]


@embedded_only
def test_the_sink_goes_on_while_a_backup_is_written(store: Store) -> None:
    for n in range(5):
        store_rows(store, records=[record(f"{n}-{i}") for i in range(1000)])
    stopping = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            while not stopping.is_set():
                store_rows(store, records=[record("more")])
        except StoreError as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    snapshots = [store.back_up(_name()) for _ in range(3)]
    stopping.set()
    writer.join()
    assert failed == []
    for snapshot in snapshots:
        assert snapshot.records == 5000 + snapshot.batch - 5  # a batch is one record, and none is half in it


@embedded_only
def test_a_restore_is_refused_where_something_is_stored(
    store: Store, settings: Settings, opened: Open, tmp_path: Path, backups: Path
) -> None:
    name = _name()
    store_rows(store, records=[record("a")])
    snapshot = store.back_up(name)
    store.close()
    with pytest.raises(StoreError, match="holds something already"):
        restore(settings, tmp_path, backups, name, snapshot)
    assert _ids(opened()) == ["a"]


@embedded_only
def test_a_restore_that_was_cut_off_is_no_store_until_it_is_repeated(
    store: Store, elsewhere: tuple[Settings, Path], backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _name()
    store_rows(store, records=[record("a")])
    snapshot = store.back_up(name)
    store.close()
    settings, folder = elsewhere
    finish = Catalog._finish

    def dies(catalog: Catalog, command: str) -> None:
        finish(catalog, command)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "_finish", dies)
        with pytest.raises(KeyboardInterrupt):
            restore(settings, folder, backups, name, snapshot)
    with pytest.raises(StoreError, match="run the restore again"):
        open_store(settings, folder)
    restore(settings, folder, backups, name, snapshot)
    restored = open_store(settings, folder)
    try:
        assert _ids(restored) == ["a"]
    finally:
        restored.close()


@embedded_only
def test_a_backup_of_a_newer_schema_is_refused_before_anything_is_restored(
    store: Store, elsewhere: tuple[Settings, Path], backups: Path
) -> None:
    name = _name()
    newer = msgspec.structs.replace(store.back_up(name), schema=99)
    store.close()
    settings, folder = elsewhere
    with pytest.raises(StoreError, match="restore it with the newer version"):
        restore(settings, folder, backups, name, newer)
    open_store(settings, folder).close()


@embedded_only
def test_a_restored_batch_that_was_whole_is_not_taken_for_open(
    store: Store, elsewhere: tuple[Settings, Path], backups: Path
) -> None:
    """Tokens are not part of a backup, so a batch that was repeated after it would be there twice."""
    name = _name()
    store_rows(store, records=[record("a")])
    snapshot = store.back_up(name)
    store.close()
    settings, folder = elsewhere
    restore(settings, folder, backups, name, snapshot)
    restored = open_store(settings, folder)
    try:
        last = restored.last_batch()
        assert last is not None
        assert last.closed
        with pytest.raises(StoreError, match="the next is 2"):
            restored.open_batch(batch(1, Range("cafe", "processed-metrics", 0, 0, 0)))
    finally:
        restored.close()


def restore(settings: Settings, folder: Path, backups: Path, name: str, snapshot: Snapshot) -> None:
    with restored_store(settings, folder, backups, name, snapshot):
        pass


def _name() -> str:
    return f"backup-{uuid.uuid4().hex[:12]}"


def _epochs(store: Store) -> int:
    return len(store._catalog._databases())


def _entries(sources: Sources) -> float:
    """The successes that are shown once all that is new is counted."""
    while sources.look():
        pass
    return sum(
        sample.value
        for family in sources.collect()
        for sample in family.samples
        if sample.name == "sluice_source_entries_total" and sample.labels["status"] == "SUCCESS"
    )
