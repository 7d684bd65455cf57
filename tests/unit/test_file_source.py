"""A file as a source: only what lies under the folder, and only as long as it stays as it was."""

import os
from pathlib import Path

import pytest

from ingestion.entries import Large, Section, UnreadableSourceError, ndjson
from ingestion.sources.file import FileRefusedError, FileSource, open_file


def test_a_file_is_read_at_any_place_and_what_is_appended_later_is_not_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"0123456789")
    source = open_file(tmp_path, "a.log")
    try:
        with path.open("ab") as more:
            more.write(b"later")
        assert (source.size, source.read(8, 100), source.read(10, 1), source.read(99, 1)) == (10, b"89", b"", b"")
    finally:
        source.release()


def test_a_link_is_followed_within_the_folder_and_not_out_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.log").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (folder / "in").symlink_to("a.log")
    (folder / "out").symlink_to(tmp_path / "secret")
    source = open_file(folder, "in")
    assert source.read(0, 6) == b"inside"
    source.release()
    with pytest.raises(FileRefusedError, match="outside"):
        open_file(folder, "out")


@pytest.mark.parametrize(
    "name", ["", ".", "a\0b", "../x", "/etc/passwd", "none", "a" * 300, "x/" * 3_000, "loop", "\ud800"]
)
def test_a_name_that_is_no_readable_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileRefusedError):
        open_file(tmp_path, name)


def test_a_file_that_shrinks_while_it_is_read_is_no_shorter_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"a":1}\n' * 100)
    source = FileSource(path)
    try:
        os.truncate(path, 12)
        with pytest.raises(UnreadableSourceError, match="ended at byte 12 and had 800"):
            list(ndjson(source, 1_000))
        with pytest.raises(UnreadableSourceError):
            Section(source, Large(8, 700)).read()
    finally:
        source.release()
