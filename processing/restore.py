"""Restore a backup, with Kafka running and the services stopped.

    python -m processing.restore FOLDER
    python -m processing.restore --state FOLDER     the state alone: Kafka was lost, and the store is there

Cut off at any moment, it is run again. docs/backup.md is the procedure.
"""

import sys
import threading
from pathlib import Path

from processing import backup
from processing.store import restored_store
from shared import kafka, logs
from shared.config import Settings, load
from shared.errors import SluiceError

log = logs.logger("restore")


def restore(settings: Settings, folder: Path, *, state_alone: bool) -> None:
    """Put a backup's store and state where a stack of these settings has its own. Raises SluiceError."""
    manifest = backup.manifest_of(folder)
    kafka.Topics(settings, "restore").create()
    nothing = threading.Event()
    if state_alone:
        log.info("state restored", state=backup.restore_state(settings, folder, nothing))
        return
    own = settings.folder("processing")
    # a server finds what it saved under the name that it was given; the embedded engine, wherever the folder is now
    name = manifest.name if settings.clickhouse_url else folder.resolve().name
    with restored_store(settings, own / "store", folder.resolve().parent, name, manifest.store):
        keys = backup.restore_state(settings, folder, nothing)
        if manifest.state and not keys:
            log.info("the state topics hold state already, which stays")
    log.info("restored", backup=manifest.name, of=manifest.time, records=manifest.store.records, state=keys)


def main() -> int:
    """Entry point."""
    settings = load(Settings)
    logs.configure("restore", settings.log_level, settings.log_format)
    match sys.argv[1:]:
        case ["--state", folder]:
            restore(settings, Path(folder), state_alone=True)
        case [folder] if not folder.startswith("-"):
            restore(settings, Path(folder), state_alone=False)
        case _:
            sys.stderr.write("usage: python -m processing.restore [--state] FOLDER\n")
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SluiceError as problem:
        sys.stderr.write(f"restore: {problem}\n")
        sys.exit(1)
