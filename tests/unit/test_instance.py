"""Who a process is: the same after a restart, and nobody else at the same time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.instance import Instance

HOLD = """
import sys
from pathlib import Path
from shared.instance import Instance
instance = Instance(Path(sys.argv[1]))
print(instance.id, flush=True)
sys.stdin.read()
"""


def test_a_second_process_on_one_folder_is_refused_with_the_remedy_and_the_id_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        held = holder.stdout.readline().strip()
        with pytest.raises(
            ConfigurationError, match=rf"in use by another process \(pid {holder.pid} on .+\).*DATA_DIR"
        ):
            Instance(tmp_path)
        holder.kill()
    assert held
    assert Instance(tmp_path).id == held


def test_two_folders_are_two_instances(tmp_path: Path) -> None:
    assert Instance(tmp_path / "a").id != Instance(tmp_path / "b").id


def test_copies_take_the_first_folder_that_nobody_holds_and_the_identity_that_lies_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "standardization"
    first = Instance(folder, copies=3)
    second = Instance(folder, copies=3)
    third = Instance(folder, copies=3)
    assert [each.folder.name for each in (first, second, third)] == [
        "standardization",
        "standardization-2",
        "standardization-3",
    ]
    assert len({first.id, second.id, third.id}) == 3
    with pytest.raises(ConfigurationError, match=r"all 3 folders .*standardization\* are in use"):
        Instance(folder, copies=3)
    os.close(second._lock)  # as the kernel does when its process ends, however it ends
    successor = Instance(folder, copies=3)
    assert (successor.folder, successor.id) == (second.folder, second.id)
