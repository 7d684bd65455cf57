"""/store/...: rebuild the store from the topics, back it up. docs/upgrade.md and docs/backup.md are the procedures."""

import threading
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from processing import backup
from processing.api.values import OptionalText
from processing.backup import BackupError
from processing.rebuild import forecast
from processing.store import Store
from shared.config import Settings
from shared.records import timestamp_of
from shared.service import Problem, ProblemError

_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": Problem}}


class Rebuild(BaseModel):
    """A rebuild of the store from the topics, under way or possible."""

    running: bool = Field(description="Whether one is under way.")
    epoch: int = Field(description="The epoch that is read; a rebuild ends with a greater one.")
    records: int = Field(description="Records in it.")
    rebuilt: int | None = Field(description="Records that the rebuild has brought so far.")
    complete_from: OptionalText = Field(
        description="What came before this instant can't be brought back, for the topics don't hold it; null: all can."
    )
    records_before: int = Field(description="Records stored before that instant, most or all of which would be lost.")


class Backup(BaseModel):
    """A backup of the store and of the state topics."""

    name: str
    time: str = Field(description="When the store was saved.")
    folder: str = Field(description="Where it lies, on the machine or in the container of processing.")
    records: int = Field(description="Records in it.")
    state: int = Field(description="Keys of the state topics in it.")


class Backups(BaseModel):
    """The backups that lie in processing's folder, the newest first."""

    total: int
    backups: list[Backup]


def router(settings: Settings, store: Store, folder: Path) -> APIRouter:
    """The routes, on this store; backups go to `folder`."""
    routes = APIRouter(tags=["upkeep"])
    saving = threading.Lock()

    def shown(manifest: backup.Manifest) -> Backup:
        place = str((folder / manifest.name).resolve())
        return Backup(
            name=manifest.name, time=manifest.time, folder=place, records=manifest.store.records, state=manifest.state
        )

    def status() -> Rebuild:
        running = store.rebuilding
        if running is not None:
            return Rebuild(
                running=True,
                epoch=store.epoch,
                records=store.records(),
                rebuilt=store.records(epoch=running),
                complete_from=None,
                records_before=0,
            )
        found = forecast(settings, store)
        since = None if found.complete_from_ns is None else timestamp_of(found.complete_from_ns)
        return Rebuild(
            running=False,
            epoch=store.epoch,
            records=store.records(),
            rebuilt=None,
            complete_from=since,
            records_before=found.records_before,
        )

    @routes.get("/store/rebuild")
    def rebuild_status() -> Rebuild:
        """How far a rebuild is, or what one would lose."""
        return status()

    @routes.post("/store/rebuild", status_code=202, responses=_CONFLICT)
    def rebuild(confirm: Annotated[bool, Query(description="Lose what can't be brought back.")] = False) -> Rebuild:
        """Build the store anew from the topics, beside the one that is read, and switch when it has caught up."""
        before = status()
        if before.running:
            raise ProblemError(409, "A rebuild is under way", f"it has brought {before.rebuilt} records so far")
        if before.complete_from is not None and before.records and not confirm:
            raise ProblemError(
                409,
                "A rebuild would lose records",
                f"the topics hold what came since {before.complete_from}; about {before.records_before} of "
                f"{before.records} records are older. Make a backup, then ask again with confirm=true.",
            )
        store.rebuild()
        return status()

    @routes.delete("/store/rebuild", responses=_CONFLICT)
    def abandon() -> Rebuild:
        """End a rebuild without effect."""
        if store.rebuilding is None:
            raise ProblemError(409, "No rebuild is under way", "so there is nothing to end")
        store.abandon()
        return status()

    @routes.get("/store/backups")
    def list_backups() -> Backups:
        """The backups in processing's folder."""
        found = [shown(manifest) for manifest in backup.backups(folder)]
        return Backups(total=len(found), backups=found)

    @routes.post("/store/backups", status_code=201, responses=_CONFLICT)
    def back_up(
        name: Annotated[str | None, Query(description="Its name; without one, the time.")] = None,
    ) -> Backup:
        """Save the store and the state topics while all is running; answers when the backup is there."""
        if not saving.acquire(blocking=False):
            raise ProblemError(409, "A backup is under way", "one at a time; GET /store/backups shows when it is there")
        try:
            chosen = name or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            return shown(backup.back_up(settings, store, folder, chosen))
        except BackupError as error:
            raise ProblemError(409, "No backup was made", str(error)) from None
        finally:
            saving.release()

    return routes
