"""What Prometheus is given: today's addresses, and the checkout's configuration and rules."""

import json
import re
from pathlib import Path

from native.settings import ROOT, NativeSettings
from native.stack import write_monitoring_files

CONFIGURATION = (ROOT / "prometheus" / "prometheus.yml").read_text()


def test_targets_are_the_services_addresses_and_the_rest_is_the_checkouts_own(tmp_path: Path) -> None:
    settings = NativeSettings(run_dir=tmp_path, ingestion_port=28001)
    write_monitoring_files(settings)
    write_monitoring_files(settings)  # the second start finds the first one's files
    folder = tmp_path / "prometheus"
    assert json.loads((folder / "targets" / "ingestion.json").read_text()) == [{"targets": ["127.0.0.1:28001"]}]
    assert (folder / "prometheus.yml").read_text() == CONFIGURATION
    assert sorted(path.name for path in (folder / "rules").iterdir()) == sorted(
        path.name for path in (ROOT / "prometheus" / "rules").iterdir()
    )


def test_every_job_finds_its_targets_and_none_is_a_kafka_port(tmp_path: Path) -> None:
    settings = NativeSettings(run_dir=tmp_path)
    write_monitoring_files(settings)
    read = set(re.findall(r"files: \[(\S+)\]", CONFIGURATION))
    assert {tmp_path / "prometheus" / path for path in read} == set((tmp_path / "prometheus" / "targets").iterdir())
    assert "static_configs" not in CONFIGURATION
    for path in (tmp_path / "prometheus" / "targets").iterdir():
        assert not {"9092", "19093"} & set(re.findall(r":(\d+)", path.read_text()))
