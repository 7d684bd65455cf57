"""supervisord as we configure it: a real one, over programs that take no time to start."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from native.machine import leftovers, program_of, stop
from native.stack import RUN_MARK, Program
from native.supervisor import Supervisor, configuration

T = TypeVar("T")

_SLEEPER = """
import signal, sys, time
name, diary = sys.argv[1:]
def note(what):
    with open(diary, "a") as file:
        print(name, what, file=file)
def end(*_):
    note("ends")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
note("begins")
time.sleep(600)
"""


def eventually(look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + 30
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not come about within 30 s"
        time.sleep(0.05)
    return found


class Run:
    """A supervisor with three sleepers, and the diary that they keep of their beginnings and ends."""

    def __init__(self, folder: Path) -> None:
        self.diary = folder / "diary 100%"
        self.diary.parent.mkdir(parents=True, exist_ok=True)
        self.diary.touch()
        sleeper = folder / "sleeper.py"
        sleeper.write_text(_SLEEPER)
        self.supervisor = Supervisor(folder / "run 100%")  # a blank and a percent sign are no trouble
        self.supervisor.folder.mkdir()
        names = ("reader", "mapper", "writer")
        self.programs = [Program(name, (sys.executable, str(sleeper), name, str(self.diary)), 10.0) for name in names]
        environment = {**os.environ, RUN_MARK: str(self.supervisor.folder)}
        self.process = self.supervisor.start(self.programs, environment)

    def start_all(self) -> None:
        for program in self.programs:
            self.supervisor.start_program(program.name)
            eventually(partial(self.began, program.name))

    def began(self, name: str) -> bool | None:
        return f"{name} begins" in self.lines() or None

    def lines(self) -> list[str]:
        return self.diary.read_text().splitlines()

    def pid(self, name: str) -> int:
        return next(state.pid for state in self.supervisor.states() if state.name == name)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.terminate()
    made.process.wait(30)


def test_a_program_that_is_killed_is_started_again(run: Run) -> None:
    run.start_all()
    first = run.pid("mapper")
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: pid if (pid := run.pid("mapper")) not in {0, first} else None)
    eventually(lambda: run.lines().count("mapper begins") == 2 or None)
    assert second != first
    assert run.pid("reader")
    assert run.pid("writer")


def test_a_shutdown_stops_one_after_the_other_in_reverse_order_of_the_start(run: Run) -> None:
    run.start_all()
    run.supervisor.shut_down()
    assert run.lines()[-3:] == ["writer ends", "mapper ends", "reader ends"]
    assert run.process.wait(30) == 0
    assert not run.supervisor.running()


def test_nothing_runs_until_it_is_started_and_starting_twice_is_harmless(run: Run) -> None:
    assert {state.pid for state in run.supervisor.states()} == {0}
    run.supervisor.start_program("reader")
    run.supervisor.start_program("reader")
    eventually(lambda: run.lines() == ["reader begins"] or None)
    run.supervisor.stop_program("reader")
    run.supervisor.stop_program("reader")
    assert run.lines() == ["reader begins", "reader ends"]


def test_what_a_dead_supervisor_leaves_is_found_in_stopping_order_and_stopped(tmp_path: Path) -> None:
    folder = tmp_path
    run = Run(folder)
    run.start_all()
    run.process.kill()
    run.process.wait()
    left = leftovers(run.supervisor.folder)
    assert sorted(program_of(process) for process in left) == ["mapper", "reader", "writer"]
    stop(left, 10)
    assert leftovers(run.supervisor.folder) == []
    assert sorted(run.lines()[-3:]) == ["mapper ends", "reader ends", "writer ends"]


def test_a_folder_too_deep_for_a_socket_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    run = Run(tmp_path / ("deep" * 20) / ("deeper" * 10))
    try:
        assert run.supervisor.running()
        assert len(str(run.supervisor.socket)) <= 100
    finally:
        run.supervisor.shut_down()
        run.process.wait(30)


def test_two_folders_have_two_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    assert Supervisor(deep / "a").socket != Supervisor(deep / "b").socket


def test_every_program_restarts_without_end_and_is_a_group_of_its_own() -> None:
    text = configuration(
        Supervisor(Path("/run")), [Program("kafka", ("java",), 30.0), Program("sink", ("sink",), 20.0)]
    )
    assert text.count("autorestart = true") == text.count("startretries = 1000000") == 2
    assert text.index("[program:kafka]") < text.index("priority = 1") < text.index("[program:sink]")
    assert "[group:" not in text
