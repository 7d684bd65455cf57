"""Every line comes once through a tail, whatever becomes of its sessions, its paths, its process and its machine."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ingesting import Ledger, Tailing, append, places, renumbered

appends = st.tuples(st.integers(1, 4), st.booleans())
steps = st.lists(
    st.one_of(
        appends,
        appends,
        appends,
        st.sampled_from(["turn", "turn", "fail", "unanswered", "crash", "reboot"]),
        st.sampled_from(["rotate", "late", "remove", "truncate", "away", "back", "wait"]),
    ),
    max_size=40,
)


class World:
    """A log that somebody writes, rotates, truncates and moves, and its source."""

    def __init__(self, tailing: Tailing) -> None:
        self.tailing = tailing
        self.folder = tailing.folder / "logs"
        self.folder.mkdir()
        self.log = "app.log"
        self.written: list[bytes] = []
        self.begun = False  # the last line has no end yet
        self.rotated: list[str] = []  # and not removed
        self.rotations = self.reboots = 0
        self.removed = False  # since the last start: its end is in no folder any more
        self.ledger = Ledger()
        (self.folder / self.log).touch()
        self.run = tailing.start(self.ledger, "logs/app.log", partial_seconds=1_000.0)

    @property
    def is_away(self) -> bool:
        return self.folder.name != "logs"

    def write(self, count: int, ends: bool) -> None:
        self._end_line()
        lines = [b"%d" % (len(self.written) + n) for n in range(count)]
        self.begun = not ends and not self.is_away
        append(self.folder / self.log, b"\n".join(lines) + (b"" if self.begun else b"\n"))
        self.written += lines

    def _end_line(self) -> None:
        if self.begun:
            self.written[-1] += b"-end"
            append(self.folder / self.log, b"-end\n")
            self.begun = False

    def turn(self) -> None:
        self.tailing.turns(self.run, 0.2)

    def fail(self) -> None:
        self.run.fail()

    def unanswered(self) -> None:
        self.run.fail(late_answer=True)

    def crash(self) -> None:
        if self.removed:
            self.tailing.turns(self.run, 2)
        self.removed = False
        self.run.end()
        self.run = self.tailing.start(self.ledger, "logs/app.log", partial_seconds=1_000.0)

    def reboot(self) -> None:
        self.crash()
        self.run.end()
        self.reboots += 1
        renumbered(self.ledger, self.folder.stat().st_dev, 1_000_000 + self.reboots)
        self.crash()

    def rotate(self) -> None:
        """A file that came and was renamed between two looks would not be found."""
        self._end_line()
        self.tailing.turns(self.run, 1.2)
        if number(self.folder / self.log) not in places(self.ledger):
            return
        self.rotations += 1
        name = f"old-{self.rotations}"
        (self.folder / self.log).rename(self.folder / name)
        self.rotated.append(name)
        (self.folder / self.log).touch()

    def late(self) -> None:
        """Who had it open still writes to a file that was renamed."""
        self._end_line()
        if self.rotated:
            append(self.folder / self.rotated[-1], b"late %d\n" % len(self.written))
            self.written.append(b"late %d" % len(self.written))

    def remove(self) -> None:
        """As logrotate does with what it has packed: what is open then is read to its end, if its process lives."""
        for name in self.rotated:
            if number(self.folder / name) in self.run.feed._files:  # type: ignore[attr-defined]
                (self.folder / name).unlink()
                self.rotated.remove(name)
                self.removed = True
                return

    def truncate(self) -> None:
        """As copytruncate does; what was not read would be lost."""
        if self.is_away:
            return
        self._end_line()
        self.tailing.turns(self.run, 2)
        os.truncate(self.folder / self.log, 0)

    def away(self) -> None:
        self._end_line()
        if not self.is_away:
            self.folder = self.folder.rename(self.folder.with_name("elsewhere"))

    def back(self) -> None:
        if self.is_away:
            self.folder = self.folder.rename(self.folder.with_name("logs"))

    def wait(self) -> None:
        """Longer than a file that was rotated is waited for."""
        self._end_line()
        self.tailing.turns(self.run, 12)


def number(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev:x}-{status.st_ino:x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tailing")


@settings(max_examples=200, deadline=None)
@given(steps=steps)
@example(steps=[(2, True), "rotate", "late", "remove", "fail"])
@example(steps=[(2, True), "rotate", "late", "remove", "unanswered"])
@example(steps=[(2, True), "turn", "away", "wait", "back"])
@example(steps=[(2, True), "turn", "away", "reboot", "crash", "back", "reboot"])
@example(steps=[(2, True), "rotate", "wait", "late"])
def test_each_line_comes_once(folder: Path, steps: list[object]) -> None:
    own = folder / os.urandom(8).hex()
    own.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        world = World(Tailing(own, patch))
        try:
            for step in steps:
                if isinstance(step, tuple):
                    world.write(*step)
                else:
                    getattr(world, str(step))()
            world._end_line()
            world.back()
            world.crash()
            world.tailing.turns(world.run, 3)
            assert sorted(world.ledger.sent) == sorted(world.written)
        finally:
            world.tailing.close()
