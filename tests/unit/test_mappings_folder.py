"""The folder of mappings: what is there at the start, what changes, what is refused; and what the API tells of it."""

import asyncio
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import Metric

from shared import metrics
from shared.errors import ConfigurationError
from shared.service import ProblemError
from standardization import api, mappings_folder
from standardization.declared import Mappings
from standardization.mappings_folder import MappingsFolder
from standardization.templates import TemplateMemory
from tests.integration.stack import eventually


def text_of(name: str, revision: int = 1, drop: str = "x") -> str:
    return f"version: 1\nmappings:\n  - {{name: {name}, revision: {revision}, sources: shop, drop: {drop}}}\n"


class Stage:
    """Takes mappings as the stage does."""

    def __init__(self) -> None:
        self.taken: list[Mappings] = []

    @property
    def labels(self) -> list[str]:
        return [mapping.label for mapping in self.taken[-1]]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def opened(folder: Path, stage: Stage) -> MappingsFolder:
    return MappingsFolder(str(folder), stage.taken.append)


def settle(folder: MappingsFolder) -> None:
    """Two looks that agree."""
    folder.look()
    folder.look()


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def test_without_a_folder_there_are_no_mappings(stage: Stage) -> None:
    folder = MappingsFolder("", stage.taken.append)
    settle(folder)
    assert (stage.taken, folder.active.mappings, folder.active.loaded_at) == ([], (), None)


def test_what_is_there_at_the_start_is_taken_in_the_order_of_names(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "b.yaml").write_text(text_of("b"))
    (tmp_path / "a.yml").write_text(text_of("a"))
    for other in (".b.yml.swp", ".hidden.yml", "README.md", "c.yml~"):
        (tmp_path / other).write_text("no mapping")
    (tmp_path / "folder.yml").mkdir()
    opened(tmp_path, stage)
    assert stage.labels == ["a@1", "b@1"]
    assert value("sluice_mappings_loaded") == 2
    assert value("sluice_mapped_records_total", mapping="a") == 0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.yml", b"version: 1\nmappings: 5\n", r"a\.yml, line 2: mappings"),
        ("a.yml", b"version: 1\n# \xff\n", r"a\.yml, line 2: not UTF-8"),
        ("a.yml", b"#" * 300_000, r"a\.yml, line 1: longer than"),
    ],
)
def test_a_bad_file_stops_the_start(tmp_path: Path, stage: Stage, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=told):
        opened(tmp_path, stage)
    assert stage.taken == []


def test_a_folder_that_is_none_stops_the_start(tmp_path: Path, stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match=r"MAPPINGS_DIR: .*nowhere can't be read: No such file"):
        opened(tmp_path / "nowhere", stage)


def test_a_change_is_taken_once_two_looks_agree_on_it(tmp_path: Path, stage: Stage) -> None:
    folder = opened(tmp_path, stage)
    (tmp_path / "a.yml").write_text("version: 1\nmappings:\n")  # half written, and good as it is
    folder.look()
    (tmp_path / "a.yml").write_text(text_of("a"))
    folder.look()
    assert len(stage.taken) == 1
    folder.look()
    assert stage.labels == ["a@1"]
    folder.look()
    assert len(stage.taken) == 2


def test_a_change_that_keeps_size_and_times_is_seen(tmp_path: Path, stage: Stage) -> None:
    file = tmp_path / "a.yml"
    file.write_text(text_of("a", 1))
    os.utime(file, (1, 1))
    folder = opened(tmp_path, stage)
    file.write_text(text_of("a", 2))
    os.utime(file, (1, 1))
    settle(folder)
    assert stage.labels == ["a@2"]


def test_a_bad_change_is_refused_and_what_was_active_stays(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "a.yml").write_text(text_of("a"))
    folder = opened(tmp_path, stage)
    (tmp_path / "a.yml").write_text(text_of("a", 2))
    (tmp_path / "b.yml").write_text("version: 1\nmappings:\n  - name: b\n")
    settle(folder)
    assert stage.labels == ["a@1"]
    assert value("sluice_mappings_refused") == 1
    refusal = folder.active.refusal
    assert refusal is not None
    assert (refusal.file, refusal.line) == (str(tmp_path / "b.yml"), 3)
    assert "b.yml, line 3: " in folder.remarks()[0]
    settle(folder)
    assert folder.active.refusal is refusal  # judged once

    (tmp_path / "b.yml").unlink()
    settle(folder)
    assert stage.labels == ["a@2"]
    assert (folder.remarks(), value("sluice_mappings_refused")) == ([], 0)


def test_a_change_that_our_own_mistake_keeps_from_being_read_is_refused_too(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yml").write_text(text_of("a"))
    folder = opened(tmp_path, stage)

    def mistaken(files: Mapping[str, str]) -> Mappings:
        raise AttributeError(*files.values())

    with monkeypatch.context() as patch:
        patch.setattr(mappings_folder, "read_mappings", mistaken)
        (tmp_path / "a.yml").write_text("odd")
        settle(folder)
    assert "AttributeError('odd')" in folder.remarks()[0]
    assert (stage.labels, value("sluice_mappings_refused")) == (["a@1"], 1)
    (tmp_path / "a.yml").write_text(text_of("a", 2))
    settle(folder)
    assert (stage.labels, folder.remarks()) == (["a@2"], [])


def test_a_refused_change_that_is_taken_back_is_no_trouble_any_more(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "a.yml").write_text(text_of("a"))
    folder = opened(tmp_path, stage)
    (tmp_path / "a.yml").write_text("nonsense")
    settle(folder)
    assert folder.remarks()
    (tmp_path / "a.yml").write_text(text_of("a"))
    settle(folder)
    assert (folder.remarks(), stage.labels) == ([], ["a@1"])


def test_a_folder_that_goes_away_leaves_what_was_active(tmp_path: Path, stage: Stage) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.yml").write_text(text_of("a"))
    folder = opened(inner, stage)
    (inner / "a.yml").rename(tmp_path / "a.yml")
    inner.rmdir()
    settle(folder)
    assert "can't be read" in folder.remarks()[0]
    assert [mapping.label for mapping in folder.active.mappings] == ["a@1"]
    inner.mkdir()
    settle(folder)
    assert (folder.remarks(), stage.labels) == ([], [])


def test_the_links_of_a_configmap_are_followed_when_they_are_swapped(tmp_path: Path, stage: Stage) -> None:
    """Kubernetes writes a new folder and then turns one link, ..data, to it."""
    for number in (1, 2):
        (tmp_path / f"..version{number}").mkdir()
        (tmp_path / f"..version{number}" / "a.yml").write_text(text_of("a", number))
    (tmp_path / "..data").symlink_to("..version1")
    (tmp_path / "a.yml").symlink_to("..data/a.yml")
    folder = opened(tmp_path, stage)
    assert stage.labels == ["a@1"]
    (tmp_path / "..data_tmp").symlink_to("..version2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    settle(folder)
    assert stage.labels == ["a@2"]


@pytest.fixture
def watching(tmp_path: Path, stage: Stage) -> Iterator[MappingsFolder]:
    folder = opened(tmp_path, stage)
    stopping = threading.Event()
    thread = threading.Thread(target=folder.watch, args=[stopping])
    thread.start()
    yield folder
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.usefixtures("watching")
def test_a_watched_folder_is_looked_at_by_itself(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "a.yml").write_text(text_of("a"))
    eventually(lambda: stage.labels == ["a@1"], 10, "the new mapping is taken")


def get(folder: MappingsFolder, query: str = "") -> httpx.Response:
    app = FastAPI()
    app.add_exception_handler(ProblemError, lambda _, error: error.response())
    app.include_router(api.router(TemplateMemory(), active=lambda: folder.active))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://in-process") as client:
            return await client.get("/standardization/mappings" + query)

    return asyncio.run(ask())


def test_the_list_tells_what_is_active_and_what_was_refused(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "a.yml").write_text(text_of("one") + text_of("two").partition("mappings:\n")[2])
    folder = opened(tmp_path, stage)
    shown: dict[str, Any] = get(folder).json()
    assert (shown["total"], shown["refused"], shown["next_cursor"]) == (2, None, None)
    first = shown["mappings"][0]
    assert first | {"digest": ""} == {
        "name": "one", "revision": "1", "digest": "", "file": str(tmp_path / "a.yml"), "line": 3, "sources": ["shop"],
        "when": [], "fields": [], "template": False, "records": 0, "values_dropped": 0,
    }  # fmt: skip
    metrics.MAPPED_RECORDS.labels("one").inc(3)
    assert get(folder).json()["mappings"][0]["records"] == 3

    page = get(folder, "?limit=1").json()
    assert [one["name"] for one in page["mappings"]] == ["one"]
    page = get(folder, f"?limit=1&cursor={page['next_cursor']}").json()
    assert ([one["name"] for one in page["mappings"]], page["next_cursor"]) == (["two"], None)
    assert get(folder, "?cursor=x").status_code == 422

    (tmp_path / "a.yml").write_text("version: 1\nmapings: []\n")
    settle(folder)
    shown = get(folder).json()
    assert (shown["total"], shown["refused"]["line"], shown["refused"]["file"]) == (2, 2, str(tmp_path / "a.yml"))
    assert "no such key" in shown["refused"]["detail"]


def test_a_page_of_the_list_reads_the_counters_once(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each mapping it would be the square of their number: a minute's work for some hundred."""
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yml").write_text(text_of(name))
    folder = opened(tmp_path, stage)
    reads = 0
    collect = metrics.MAPPED_RECORDS.collect

    def counted() -> Iterable[Metric]:
        nonlocal reads
        reads += 1
        return collect()

    monkeypatch.setattr(metrics.MAPPED_RECORDS, "collect", counted)
    assert len(get(folder).json()["mappings"]) == 3
    assert reads == 1
