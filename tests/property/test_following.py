"""Every line of a file that grows comes once, whatever happens to the file and to who reads it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestion.following import Followed, Place

PARTIAL_S = 5.0
LINE_MAX = 64

appends = st.tuples(st.just("append"), st.lists(st.integers(0, 100), min_size=1, max_size=6), st.booleans())
steps = st.lists(
    st.one_of(
        appends,
        appends,
        appends,
        st.sampled_from(["read", "read", "commit", "commit", "crash", "truncate", "rotate", "wait"]),
    ),
    max_size=40,
)


@dataclass
class World:
    """A log that somebody writes and rotates, and its reader, as a source of kind tail is one."""

    path: Path
    block: int
    now: float = 0.0
    written: list[bytes] = field(default_factory=list)  # the lines that are to come, in the order of their writing
    open_line: bytes = b""  # what the writer has begun of a line
    number: int = 0
    files: list[Followed] = field(default_factory=list)
    kept: dict[str, Place] = field(default_factory=dict)  # as of the last commit
    got: list[bytes] = field(default_factory=list)  # likewise
    fresh: list[bytes] = field(default_factory=list)  # since then
    rotated: int = 0

    def append(self, lengths: list[int], ends: bool) -> None:
        with self.path.open("ab") as file:
            for place, length in enumerate(lengths):
                self.number += 1
                own = self.open_line + b"%d" % self.number + b"x" * length
                ended = ends or place < len(lengths) - 1
                file.write(own[len(self.open_line) :] + (b"\n" if ended else b""))
                if ended:
                    self._wrote(own)
                self.open_line = b"" if ended else own

    def _wrote(self, line: bytes) -> None:
        self.written.append(line)

    def find(self) -> None:
        """Follow what the path leads to, as a look at the folder does."""
        if not self.path.exists():
            return
        status = self.path.stat()
        if any((file.place.device, file.place.inode) == (status.st_dev, status.st_ino) for file in self.files):
            return
        self.files.append(self.followed(self.path))

    def followed(self, path: Path) -> Followed:
        file = Followed(str(path), PARTIAL_S, LINE_MAX, self.block)
        if (place := self.kept.get(file.place.key)) is not None:
            file.resume(place)
        return file

    def read(self, *, last: bool = False) -> None:
        self.find()
        for file in self.files:
            while (piece := file.next(self.now, last=last)) is not None:
                self.fresh += piece.lines
                if piece.long is not None:
                    self.fresh.append(piece.long.read(0, piece.long.size))

    def commit(self) -> None:
        self.got += self.fresh
        self.fresh = []
        self.kept.update((file.place.key, file.place) for file in self.files)

    def crash(self) -> None:
        """What was not committed is lost, and all files are found again: the old ones beside the new."""
        self.close()
        self.fresh = []
        for path in sorted(self.path.parent.iterdir()):
            if path != self.path:
                self.files.append(self.followed(path))
        self.find()

    def close(self) -> None:
        for file in self.files:
            file.close()
        self.files = []

    def truncate(self) -> None:
        """As copytruncate does; a reader that is behind would lose what it has not read. What it holds of a line
        without end it gives out then; of one over a block it holds nothing."""
        self.read(last=self.block <= LINE_MAX)
        was_open = bool(self.open_line)
        self._end_open_line()
        self.commit()
        os.truncate(self.path, 0)
        if was_open:  # it is given out when the truncation is seen
            self.read()
            self.commit()

    def rotate(self) -> None:
        """The writer ends in the old file and begins in a new one, of the same name."""
        self.find()
        self._end_open_line()
        self.rotated += 1
        self.path.rename(self.path.with_name(f"old-{self.rotated}"))
        self.path.touch()

    def wait(self) -> None:
        """Longer than a line without its end is waited for."""
        self.read()
        self.now += PARTIAL_S
        self.read()
        self._end_open_line()
        self.commit()  # else the line is whole when it is read again

    def _end_open_line(self) -> None:
        if self.open_line:
            self._wrote(self.open_line)
            self.open_line = b""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("following")


@settings(max_examples=300, deadline=None)
@given(steps=steps, block=st.sampled_from([16, 64, 4096]), crashes=st.booleans())
@example(steps=[("append", [0], False), "truncate"], block=4096, crashes=False)
@example(steps=[("append", [0], True), "commit", "truncate", ("append", [9], True)], block=4096, crashes=False)
def test_each_line_comes_once_over_rotations_truncations_and_crashes(
    folder: Path, steps: list[object], block: int, crashes: bool
) -> None:
    own = folder / os.urandom(8).hex()
    own.mkdir()
    (own / "app.log").touch()
    world = World(own / "app.log", block)
    try:
        for step in steps:
            if isinstance(step, tuple):
                world.append(step[1], step[2])
            else:
                getattr(world, str(step))()
        world._end_open_line()
        if crashes:  # else it has to come right by itself
            world.crash()
        world.read(last=True)
        world.commit()
    finally:
        world.close()
    if block > LINE_MAX:  # else a line that is longer than both comes in pieces
        assert sorted(world.got) == sorted(world.written)
    assert {line for line in world.written if len(line) <= block} <= set(world.got)
    assert sorted(b"".join(world.got)) == sorted(b"".join(world.written))
    if "rotate" not in steps:  # the last line of a file that was rotated may be waited for longer than the next file's
        assert b"".join(world.got) == b"".join(world.written)
