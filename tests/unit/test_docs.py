"""The pages say what the code says: every metric, every setting, every link."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.metrics import MetricWrapperBase

from native.settings import NativeSettings
from processing.counts import EntriesBySource
from processing.fleet import Families as GpuFamilies
from processing.sources import Families
from shared import dcgm, metrics
from shared.config import Settings

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+)(?!`)(?:(?!\n\n).)*?(?<!`)\1(?!`)", re.DOTALL)  # within a paragraph
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_CELL = re.compile(r"(?<!\\)\|")
_REGISTRY = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|sonatype|crates|golang|maven(?:\.apache)?|docker|ghcr|quay"
    r"|(?:deb|archive|security|snapshot)\.(?:debian|ubuntu))\.(?:org|com|io|net|dev)\b",
    re.IGNORECASE,
)


class Metric(NamedTuple):
    """A metric as a page or the code tells it."""

    name: str
    kind: str
    labels: tuple[str, ...]


def _relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _tables(page: Path, first: str) -> Iterator[list[str]]:
    """The rows of each table of a page whose first column has this heading."""
    inside = False
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in _CELL.split(line)[1:-1]]
        if cells[0] == first:
            inside = True
        elif inside and set(cells[0]) - set("-: "):
            yield cells


def _exported() -> set[Metric]:
    found = set()
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            family = next(iter(metric.describe()))
            suffix = "_total" if family.type == "counter" else ""
            found.add(Metric(family.name + suffix, family.type, metric._labelnames))
    for family in EntriesBySource(lambda: {("shop", "success"): 1}, limit=200).collect():
        (sample,) = family.samples
        found.add(Metric(sample.name, family.type, tuple(sample.labels)))
    for family in (*Families(), *GpuFamilies()):
        suffix = "_total" if family.type == "counter" else ""
        found.add(Metric(family.name + suffix, family.type, family._labelnames))
    return found


def _documented_metrics() -> list[Metric]:
    return [
        Metric(name.strip("`"), kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in _tables(ROOT / "docs/metrics.md", "metric")
    ]


def _settings() -> dict[str, str]:
    """The name and default of every setting, as a page shows them."""
    fields = {**Settings.model_fields, **NativeSettings.model_fields}
    return {name.upper(): f"`{field.default}`" if field.default != "" else "empty" for name, field in fields.items()}


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    anchors: set[str] = set()
    for heading in _HEADING.findall(_CODE_BLOCK.sub("", page.read_text())):
        text = _LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeated = (f"{anchor}-{number}" for number in range(1, 100))
        anchors.add(anchor if anchor not in anchors else next(each for each in repeated if each not in anchors))
    return anchors


def _links(page: Path) -> list[str]:
    """The targets of a page's links to files, what stands in code left out."""
    text = _CODE_SPAN.sub("", _CODE_BLOCK.sub("", page.read_text()))
    return [target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    documented = _documented_metrics()
    assert len(documented) == len(set(documented)), "a metric stands there twice"
    assert set(documented) == _exported()


def test_every_setting_is_documented_with_its_default_and_no_other_is() -> None:
    rows = [(name.strip("`"), default) for name, default, _ in _tables(ROOT / "docs/settings.md", "setting")]
    assert len(rows) == len(dict(rows)), "a setting stands there twice"
    assert dict(rows) == _settings()


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for target in _links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(f"{target}: there is no such file")
        elif anchor and anchor not in _anchors(file):
            broken.append(f"{target}: {path or page.name} has no heading with this anchor")
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [README]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        linked = [(page.parent / target.partition("#")[0]).resolve() for target in _links(page)]
        ahead += [file for file in linked if file.suffix == ".md" and file.exists()]
    assert not set(PAGES) - reached


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_no_page_names_the_host_of_a_package_registry(page: Path) -> None:
    assert _REGISTRY.findall(page.read_text()) == []


def test_hosts_of_registries_are_recognized() -> None:
    for words in (("files", "pythonhosted", "org"), ("repo", "maven", "apache", "org"), ("hub", "docker", "com")):
        assert _REGISTRY.search(f"see https://{'.'.join(words)}/x")
    assert not _REGISTRY.search("pip, Maven and docker.")


def test_an_anchor_is_what_github_makes_of_a_heading(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# Kafka logs "Invalid receive (size = 1 ...)"\n\n## `make run`\n\n## `make run`\n\n```\n# no heading\n```\n'
    )
    assert _anchors(page) == {"kafka-logs-invalid-receive-size--1-", "make-run", "make-run-1"}


def test_every_field_of_dcgm_is_documented_with_its_metric_and_unit_and_no_other_is() -> None:
    rows = [cells[:3] for cells in _tables(ROOT / "docs/gpu.md", "field of DCGM")]
    known = [[f"`{name}`", f"`{field.metric}`", field.unit] for name, field in dcgm.FIELDS.items()]
    assert rows == known


def test_every_test_that_shows_a_case_of_chunking_exists() -> None:
    rows = list(_tables(ROOT / "docs" / "chunking-tests.md", "case"))
    named = [(file.strip("`"), name) for _, file, names in rows for name in re.findall(r"`(test_\w+)`", names)]
    assert len(named) >= len(rows)
    missing = [(file, name) for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text()]
    assert missing == []
