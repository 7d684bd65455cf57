"""What the store consists of: its databases, the epochs in them, and the schema version of each.

Tables live in a database of their epoch, `<database>_<epoch>`. `<database>` itself holds what outlives an epoch:

    epochs     (epoch, schema)     the newest is the one that is read; `schema` is the oldest version that may use it
    versions   (epoch, version)    the schema version that an epoch has reached
    rebuilds   (epoch, abandoned)  epochs that are, or were, filled from the topics, beside the one that is read
    alerts, otel_logs              the history of alerts; the view for log tools

Rows of the first three are only ever added, each by one insert, so a crash leaves them as they were before or after.
"""

import time
from collections.abc import Sequence
from typing import Final

from processing.store.engine import Engine
from processing.store.migrations import FIRST, MIGRATIONS, Migration, needed, newest
from processing.store.schema import ALERTS, LEDGER, RECORDS, TABLES, Table, otel_logs
from shared.errors import StoreError

_OWN: Final = {
    "epochs": "epoch UInt32, schema UInt16",
    "versions": "epoch UInt32, version UInt16",
    "rebuilds": "epoch UInt32, abandoned Bool",
}
UNFINISHED: Final = "unfinished_restore"
"""A table that is there while a restore is under way: what it has brought so far is no store."""


class Catalog:
    """The databases of one store on one engine."""

    def __init__(self, engine: Engine, database: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._engine = engine
        self._database = database
        self._migrations = migrations
        self.alerts = ALERTS.within(database)
        self.epoch = FIRST  # the one that is read
        self.rebuilding: int | None = None  # the one that is filled from the topics, meanwhile

    def of_epoch(self, epoch: int) -> str:
        """The database of an epoch."""
        return f"{self._database}_{epoch}"

    def table(self, table: Table, epoch: int) -> Table:
        """A table in its epoch."""
        return table.within(self.of_epoch(epoch))

    def prepare(self) -> None:
        """Make what is missing, migrate what is older. A crash in between is made up for by the next call.

        Raises StoreError where the store needs a newer version, or is half restored; then nothing is changed.
        """
        engine, database = self._engine, self._database
        self.refuse_unfinished_restore()
        engine.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
        for name, columns in _OWN.items():
            engine.execute(
                f"CREATE TABLE IF NOT EXISTS {database}.{name} ({columns}) ENGINE = MergeTree ORDER BY epoch"
            )
        current = self._largest("epoch", "epochs")
        schema = self._largest("schema", "epochs")
        known = newest(self._migrations)
        if schema > known:
            raise StoreError(
                f"the store {database} has schema {schema}, made by a newer Sluice; this one knows up to {known}: "
                "run the newer version, restore a backup of before its upgrade (docs/upgrade.md), "
                "or give this one another store (DATA_DIR or CLICKHOUSE_URL)"
            )
        self.epoch = current or FIRST
        self.rebuilding = self._unfinished_rebuild()
        engine.execute(self.alerts.create())
        for epoch in filter(None, (self.epoch, self.rebuilding)):
            self._migrate(epoch, new=not current)
        if not current:
            self._add("epochs", self.epoch, needed(self._migrations))
        self._read(self.epoch)
        self._drop_others()
        self.drop_copy()

    def refuse_unfinished_restore(self) -> None:
        """Raise StoreError where a restore was cut off."""
        if self._exists(UNFINISHED):
            raise StoreError(
                f"a restore into {self._database} was cut off, so it holds a part of the backup: "
                "run the restore again, which begins anew (docs/backup.md)"
            )

    def version(self, epoch: int) -> int:
        """The schema version that an epoch has reached."""
        where = f"WHERE epoch = {epoch}"
        return self._largest("version", "versions", where) or FIRST

    # a rebuild

    def begin(self) -> int:
        """Make the tables of the next epoch, to be filled beside the one that is read; returns its number."""
        if self.rebuilding is not None:
            raise StoreError(f"a rebuild is under way already, as epoch {self.rebuilding}")
        epoch = max(self.epoch, self._largest("epoch", "rebuilds")) + 1
        self._engine.execute(f"DROP DATABASE IF EXISTS {self.of_epoch(epoch)}")
        self._migrate(epoch, new=True)
        self._add("rebuilds", epoch, "false")
        self.rebuilding = epoch
        return epoch

    def switch(self) -> None:
        """Read the epoch that was rebuilt from now on, and drop the one before."""
        if self.rebuilding is None:
            raise StoreError("no rebuild is under way")
        self._add("epochs", self.rebuilding, needed(self._migrations))
        self.epoch, self.rebuilding = self.rebuilding, None
        self._read(self.epoch)
        self._drop_others()

    def abandon(self) -> None:
        """End the rebuild without effect."""
        if self.rebuilding is None:
            raise StoreError("no rebuild is under way")
        self._add("rebuilds", self.rebuilding, "true")
        self.rebuilding = None
        self._drop_others()

    # backups

    def copy(self) -> str:
        """Copy all tables of the store, by links to their files, into a database of its own; returns its name.

        Tokens of inserts are not copied.
        """
        self.drop_copy()
        self._engine.execute(f"CREATE DATABASE {self._copy}")
        for name, source in self._all_tables(self._database, self.epoch).items():
            self._engine.execute(f"CREATE TABLE {self._copy}.{name} CLONE AS {source}")
        return self._copy

    def records_of(self, copy: str) -> int:
        """How many records a copy has."""
        (row,) = self._engine.query(f"SELECT count() AS n FROM {copy}.{RECORDS.name}", {})  # noqa: S608 - our own names
        return int(row["n"])

    def drop_copy(self) -> None:
        self._engine.execute(f"DROP DATABASE IF EXISTS {self._copy} SYNC")

    def needs(self) -> int:
        """The oldest schema version that may use the store."""
        return self._largest("schema", "epochs")

    def back_up(self, copy: str, target: str) -> None:
        """Have the engine save a copy. Raises StoreError."""
        self._finish(f"BACKUP DATABASE {copy} TO File('{target}') ASYNC")

    def begin_restore(self, schema: int) -> None:
        """Mark the store as half restored. Raises StoreError where it holds something, or the backup is newer."""
        engine, database = self._engine, self._database
        if schema > newest(self._migrations):
            raise StoreError(
                f"the backup has schema {schema}, made by a newer Sluice; this one knows up to "
                f"{newest(self._migrations)}: restore it with the newer version"
            )
        engine.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
        if not self._exists(UNFINISHED):
            if self._holds_something():
                raise StoreError(
                    f"the store {database} holds something already, and a restore would mix the two: give it an empty "
                    "place (move DATA_DIR/processing/store away, or name another database in CLICKHOUSE_URL)"
                )
            engine.execute(
                f"CREATE TABLE {database}.{UNFINISHED} (restored UInt8) ENGINE = MergeTree ORDER BY restored"
            )

    def restore(self, source: str, copy: str, epoch: int) -> None:
        """Bring back what `back_up` saved, after `begin_restore`. Raises StoreError.

        What a restore that was cut off has brought is dropped first.
        """
        engine, database = self._engine, self._database
        tables = self._all_tables(database, epoch)
        for found in self._databases():
            engine.execute(f"DROP DATABASE {found} SYNC")
        engine.execute(f"DROP VIEW IF EXISTS {database}.otel_logs")
        for place in tables.values():
            engine.execute(f"DROP TABLE IF EXISTS {place} SYNC")
        engine.execute(f"CREATE DATABASE IF NOT EXISTS {self.of_epoch(epoch)}")
        chosen = ", ".join(f"TABLE {copy}.{name} AS {place}" for name, place in tables.items())
        self._finish(f"RESTORE {chosen} FROM File('{source}') ASYNC")
        engine.execute(f"DROP TABLE {database}.{UNFINISHED} SYNC")

    # parts

    @property
    def _copy(self) -> str:
        return f"{self._database}_copy"

    def _all_tables(self, database: str, epoch: int) -> dict[str, str]:
        """Every table of ours by its name, with its place: those of an epoch, and those that outlive it."""
        own = {name: f"{database}.{name}" for name in (*_OWN, ALERTS.name)}
        return own | {table.name: self.table(table, epoch).place for table in (*TABLES, LEDGER)}

    def _holds_something(self) -> bool:
        """Whether any epoch has a batch."""
        for found in self._databases():
            (row,) = self._engine.query(
                "SELECT sum(total_rows) AS n FROM system.tables WHERE database = {database:String}", {"database": found}
            )
            if row["n"]:
                return True
        return False

    def _finish(self, command: str) -> None:
        """Have a BACKUP or RESTORE done; it may take longer than a query may. Raises StoreError where it fails."""
        (begun,) = self._engine.query(command, {})
        while True:
            known = self._engine.query(
                "SELECT toString(status) AS status, error FROM system.backups WHERE id = {id:String}",
                {"id": begun["id"]},
            )
            if not known:
                raise StoreError(f"{command[:60]} ...: the engine knows of it no more; was it restarted? Begin again")
            (found,) = known
            if found["status"] in ("BACKUP_CREATED", "RESTORED"):
                return
            if found["status"] not in ("CREATING_BACKUP", "RESTORING"):
                raise StoreError(f"{command[:60]} ...: {found['status']}: {found['error'][:1000]}")
            time.sleep(0.05)

    def _databases(self) -> list[str]:
        """The databases of all epochs that there are."""
        found = self._engine.query(
            "SELECT name FROM system.databases WHERE match(name, {pattern:String}) ORDER BY name",
            {"pattern": f"^{self._database}_[0-9]+$"},
        )
        return [row["name"] for row in found]

    def _migrate(self, epoch: int, *, new: bool) -> None:
        """Bring an epoch's tables to the newest version, one version after the other."""
        engine, database = self._engine, self.of_epoch(epoch)
        engine.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
        for table in (*TABLES, LEDGER):
            engine.execute(self.table(table, epoch).create())
        reached = newest(self._migrations) if new else self.version(epoch)
        for migration in self._migrations:
            if migration.version > reached:
                # said first: an older version must not open what is half changed
                if migration.needs > self._largest("schema", "epochs"):
                    self._add("epochs", self.epoch, migration.needs)
                for statement in migration.statements:
                    engine.execute(statement.format(shared=self._database, epoch=database))
                self._add("versions", epoch, migration.version)
        if new:
            self._add("versions", epoch, reached)

    def _read(self, epoch: int) -> None:
        self._engine.use(self.of_epoch(epoch))
        self._engine.execute(otel_logs(f"{self._database}.otel_logs", f"{self.of_epoch(epoch)}.records"))

    def _drop_others(self) -> None:
        """Drop what a switch, or the end of a rebuild, has left behind."""
        kept = {self.of_epoch(epoch) for epoch in (self.epoch, self.rebuilding) if epoch is not None}
        for found in self._databases():
            if found not in kept:
                self._engine.execute(f"DROP DATABASE IF EXISTS {found}")

    def _unfinished_rebuild(self) -> int | None:
        epoch = self._largest("epoch", "rebuilds")
        ended = self._largest("epoch", "rebuilds", "WHERE abandoned")
        return epoch if epoch > max(self.epoch, ended) else None

    def _largest(self, column: str, table: str, where: str = "") -> int:
        """The largest value in a table of ours; 0 where there is none."""
        sql = f"SELECT max({column}) AS found FROM {self._database}.{table} {where}"  # noqa: S608 - our own names
        (row,) = self._engine.query(sql, {})
        return int(row["found"])

    def _add(self, table: str, epoch: int, value: object) -> None:
        self._engine.execute(f"INSERT INTO {self._database}.{table} VALUES ({epoch}, {value})")  # noqa: S608 - likewise

    def _exists(self, table: str) -> bool:
        found = self._engine.query(
            "SELECT name FROM system.tables WHERE database = {database:String} AND name = {table:String}",
            {"database": self._database, "table": table},
        )
        return bool(found)
