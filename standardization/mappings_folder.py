"""The folder of declared mappings (MAPPINGS_DIR): read at the start, then watched.

look at all files > the same twice, and not judged before? > parse > the stage takes them | refused, with the line

The folder is one declaration: a change takes effect as a whole, or not at all. What was active stays until then.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from shared import logs, metrics
from shared.declarations import content_of, decoded
from shared.errors import ConfigurationError, DeclarationError
from standardization.declared import NO_MAPPINGS, Mappings
from standardization.mappings import read_mappings

MAX_FILES: Final = 200
_LOOK_SECONDS: Final = 1.0  # a change counts once two looks agree on it: nobody writes a file in no time
_SUFFIXES: Final = frozenset({".yml", ".yaml"})

_MISTAKE: Final = "what changed is more than Sluice can judge ({error!r}), a mistake of ours; undo it, and report it"

log = logs.logger("mappings")

Files = dict[str, bytes]


class Refusal(NamedTuple):
    """Why what lies in the folder is not what is active."""

    detail: str  # with the file and the line, and what to do
    since: float  # Unix time
    file: str | None = None
    line: int | None = None


class Active(NamedTuple):
    """The mappings in use, and what keeps newer ones from it."""

    mappings: Mappings = NO_MAPPINGS
    loaded_at: float | None = None  # Unix time; None: there is no folder
    refusal: Refusal | None = None


class MappingsFolder:
    """Holds the active mappings, and tells `use` of each new set."""

    def __init__(self, folder: str, use: Callable[[Mappings], None]) -> None:
        """Reads the folder; an empty name is none. Raises ConfigurationError, so that a bad one stops the start."""
        self._folder = Path(folder) if folder else None
        self._use = use
        self._judged: Files | str = {}  # what was last taken or refused
        self._seen: Files | str = {}  # at the last look
        self.active = Active()  # replaced as a whole: the API reads it from other threads
        metrics.MAPPINGS_REFUSED.set(0)
        metrics.MAPPINGS_LOADED.set(0)
        if self._folder is not None:
            files = self._look()
            if isinstance(files, str):
                raise ConfigurationError(f"MAPPINGS_DIR: {files}")
            self._judged = self._seen = files
            self._take(self._parsed(files))

    def watch(self, stopping: threading.Event) -> None:
        """Follow the folder until told to stop."""
        while not stopping.wait(_LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Look at the folder once; take or refuse what is new there and was the same at the last look."""
        if self._folder is None:
            return
        found = self._look()
        settled = found == self._seen
        self._seen = found
        if not settled or found == self._judged:
            return
        self._judged = found
        if isinstance(found, str):
            self._refuse(Refusal(found, time.time()))
            return
        try:
            mappings = self._parsed(found)
        except DeclarationError as error:
            self._refuse(Refusal(str(error), time.time(), error.file, error.line))
        except Exception as error:  # noqa: BLE001 - our mistake, which must not end a stage that reads by the others
            self._refuse(Refusal(_MISTAKE.format(error=error), time.time()))
        else:
            self._take(mappings)

    def remarks(self) -> list[str]:
        """What keeps the service from being wholly well, though it does its work."""
        refusal = self.active.refusal
        return [] if refusal is None else [f"mappings: the folder was refused, the ones before stay: {refusal.detail}"]

    def _look(self) -> Files | str:
        """The contents of the folder's files, or why they can't be read."""
        assert self._folder is not None
        try:
            # what begins with a dot is an editor's, or the machinery of a mounted ConfigMap
            paths = [path for path in sorted(self._folder.iterdir()) if _is_ours(path)]
            if len(paths) > MAX_FILES:
                return f"{self._folder} holds over {MAX_FILES} files; put several mappings into one"
            return {str(path): content_of(path) for path in paths}
        except OSError as error:
            return f"{self._folder} can't be read: {error.strerror}; it has to be a folder of .yml files"

    def _parsed(self, files: Files) -> Mappings:
        """Raises DeclarationError."""
        return read_mappings({file: decoded(content, file) for file, content in files.items()})

    def _take(self, mappings: Mappings) -> None:
        known = {mapping.label: mapping.digest for mapping in self.active.mappings}
        for mapping in mappings:
            metrics.MAPPED_RECORDS.labels(mapping.name)
            metrics.MAPPED_VALUES_DROPPED.labels(mapping.name)
            if known.get(mapping.label, mapping.digest) != mapping.digest:
                log.warning("a mapping changed and its revision did not: its records can't be told apart",
                            mapping=mapping.label, file=mapping.file)  # fmt: skip
        self.active = Active(mappings, time.time())
        metrics.MAPPINGS_LOADED.set(len(mappings))
        metrics.MAPPINGS_REFUSED.set(0)
        self._use(mappings)
        log.info("mappings taken", folder=str(self._folder), mappings=[mapping.label for mapping in mappings])

    def _refuse(self, refusal: Refusal) -> None:
        self.active = self.active._replace(refusal=refusal)
        metrics.MAPPINGS_REFUSED.set(1)
        log.warning("mappings refused; the ones before stay", folder=str(self._folder), why=refusal.detail)


def _is_ours(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file()
