"""What is particular to the embedded engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from processing.store import open_store
from shared.config import Settings
from shared.errors import StoreError
from tests.contract.samples import count, record, store_rows

_HOLD = """
import sys
from pathlib import Path
from processing.store import open_store
from shared.config import Settings
store = open_store(Settings(_env_file=None, clickhouse_url=""), Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_remedy_until_the_first_has_ended(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, clickhouse_url="")
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=rf"in use by process {holder.pid}: .*CLICKHOUSE_URL"):
            open_store(settings, tmp_path)
        holder.kill()
    open_store(settings, tmp_path).close()


def test_without_files_in_memory_lines_pass_through_the_folder_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    store = open_store(Settings(_env_file=None, clickhouse_url=""), tmp_path)
    try:
        before = sorted(path.name for path in tmp_path.iterdir())
        store_rows(store, records=[record("a"), record("b")])
        assert count(store, "records") == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    finally:
        store.close()
