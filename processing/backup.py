"""Backups: the store and the state topics, saved while all is running, and restored into an empty stack.

    BACKUP/manifest.json   written last: a folder without it is no backup
    BACKUP/state.ndjson    the state topics, a line a key, in the order of the last changes
    BACKUP/store/          the store's tables as the engine backs them up, between two batches of the sink

The state is read first, and the store waits until it has what that state came from. So a push that is remembered is
stored, and a client that repeats one of which the backup knows nothing is taken for new.
"""

import base64
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from processing.sink import TOPICS as STORED
from processing.store import Snapshot, Store
from processing.transform import STAGE
from shared import kafka, logs
from shared.config import Settings
from shared.errors import SluiceError
from shared.partitions import states
from shared.records import timestamp_of
from shared.topics import STANDARDIZED_LOGS, STATE_TOPICS, key_of_state, partition_of

FORMAT: Final = 1
PATIENCE_S: Final = 120.0  # how long the store may take to get to where the state was
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MANIFEST: Final = "manifest.json"
_STATE: Final = "state.ndjson"

log = logs.logger("backup")


class BackupError(SluiceError):
    """A backup can't be made, or what is there is none that can be restored; the message says why and what to do."""


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds."""

    name: str
    time: str  # RFC 3339, UTC: when the store was saved
    store: Snapshot
    state: int  # keys of the state topics
    format: int = FORMAT


class _Line(msgspec.Struct, frozen=True):
    topic: str  # our name of it
    key: str  # base64, as are values: they are bytes
    value: str
    partition: int = 0  # that it was on; only what stays on its own goes by it


def back_up(settings: Settings, store: Store, folder: Path, name: str) -> Manifest:
    """Save the store and the state topics as `folder`/`name`. Raises BackupError, StoreError, KafkaUnavailableError."""
    if not _NAME.fullmatch(name):
        raise BackupError(f"{name!r} can't be the name of a backup: letters, digits, '.', '_' and '-', at most 100")
    target = folder / name
    if target.exists():
        raise BackupError(f"there is a backup {name} already: choose another name, or remove {target}")
    target.mkdir(parents=True)
    try:
        topics = kafka.Topics(settings, "backup")
        state = states(settings, topics, threading.Event())
        _wait_for_store(settings, topics, store)
        saved_at = timestamp_of(time.time_ns())
        snapshot = store.back_up(name)
        lines = [_Line(record.topic, _text(record.key), _text(record.value), record.partition) for record in state]
        (target / _STATE).write_bytes(msgspec.json.Encoder().encode_lines(lines))
        manifest = Manifest(name, saved_at, snapshot, len(lines))
        made = target / "manifest.new"
        made.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        made.rename(target / _MANIFEST)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    log.info("backup is there", name=name, folder=str(target), state=len(lines))
    return manifest


def backups(folder: Path) -> list[Manifest]:
    """The backups of a folder, the newest first."""
    found = [manifest_of(path.parent) for path in folder.glob(f"*/{_MANIFEST}")]
    return sorted(found, key=lambda manifest: manifest.time, reverse=True)


def manifest_of(folder: Path) -> Manifest:
    """What the backup in this folder holds. Raises BackupError where it is none that this version can restore."""
    path = folder / _MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise BackupError(f"{folder} is no complete backup: {error}") from None
    if manifest.format > FORMAT:
        raise BackupError(f"{folder} has format {manifest.format}, this version reads {FORMAT}: run the newer version")
    return manifest


def restore_state(settings: Settings, folder: Path, stopping: threading.Event) -> int:
    """Put a backup's state into state topics that are empty, by the number of partitions they have now.

    One transaction, so that all of it is there or nothing; returns how many keys. Topics that hold state already keep
    it, for it is newer: Kafka has survived, and only the store was lost. Raises BackupError, KafkaUnavailableError.
    """
    topics = kafka.Topics(settings, "restore")
    if states(settings, topics, stopping):
        return 0
    lines = msgspec.json.Decoder(_Line).decode_lines((folder / _STATE).read_bytes())
    counts = topics.partitions([settings.topic(name) for name in STATE_TOPICS])
    writer = kafka.Transactions(settings, "restore", "restore", timeout_ms=60_000)
    if not writer.prepare(stopping):
        raise BackupError("stopped before the state was restored")
    writer.begin()
    for line in lines:
        full, key = settings.topic(line.topic), base64.b64decode(line.key)
        belongs = key_of_state(line.topic, key)
        partition = line.partition % counts[full] if belongs is None else partition_of(belongs, counts[full])
        writer.send(full, base64.b64decode(line.value), key, partition)
    writer.commit()
    return len(lines)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _wait_for_store(settings: Settings, topics: kafka.Topics, store: Store) -> None:
    """Until the store holds all that the topics of this moment lead to. Raises BackupError when that takes too long."""
    until = time.monotonic() + PATIENCE_S
    read = _ends(settings, topics, [STANDARDIZED_LOGS])
    _wait(settings, until, read, lambda: topics.committed(STAGE, list(read), _CALL_S))
    written = _ends(settings, topics, STORED)
    ids = topics.ids([settings.topic(name) for name in STORED])
    _wait(
        settings,
        until,
        written,
        lambda: {place: store.positions().get((ids[place[0]], place[1]), 0) for place in written},
    )


_CALL_S: Final = 10.0


def _ends(settings: Settings, topics: kafka.Topics, names: Sequence[str]) -> dict[kafka.Place, int]:
    counts = topics.partitions([settings.topic(name) for name in names])
    return topics.ends([(name, partition) for name, count in counts.items() for partition in range(count)], stable=True)


def _wait(
    settings: Settings,
    until: float,
    ends: Mapping[kafka.Place, int],
    positions: Callable[[], Mapping[kafka.Place, int]],
) -> None:
    waiting = {place: end for place, end in ends.items() if end > 0}
    while True:
        reached = positions()
        waiting = {place: end for place, end in waiting.items() if reached.get(place, 0) < end}
        # up to the end there may be nothing but markers of transactions, which no reader ever gets
        asked = {place: reached.get(place, 0) for place in waiting}
        firsts = kafka.first_messages(settings, "backup", asked, 2.0, threading.Event()) if asked else {}
        for place, first in firsts.items():
            if first.offset >= waiting[place] or first.timestamp_ms is None:
                del waiting[place]
        if not waiting:
            return
        if time.monotonic() > until:
            raise BackupError(
                f"the store is too far behind the topics for a backup: {len(waiting)} partitions, such as "
                f"{next(iter(waiting))}; try again when the lag is small"
            )
        time.sleep(0.2)
