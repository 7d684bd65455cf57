"""What Prometheus, Alertmanager and Grafana are given: today's addresses, and the checkout's own configuration."""

import json
import os
import re
from pathlib import Path

import pytest

from native import prerequisites, stack
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


def test_alertmanager_tells_the_processing_of_this_run_and_prometheus_the_alertmanager_of_this_run(
    tmp_path: Path,
) -> None:
    settings = NativeSettings(run_dir=tmp_path, processing_port=28003, alertmanager_port=29093)
    write_monitoring_files(settings)
    folder = tmp_path / "prometheus"
    assert "http://127.0.0.1:28003/alerts/webhook" in (folder / "alertmanager.yml").read_text()
    assert json.loads((folder / "targets" / "alertmanager.json").read_text()) == [{"targets": ["127.0.0.1:29093"]}]
    (program,) = (each for each in stack.programs(settings) if each.name == "alertmanager")
    assert f"--config.file={folder / 'alertmanager.yml'}" in program.command
    assert "--web.listen-address=127.0.0.1:29093" in program.command
    assert program.ready_url == "http://127.0.0.1:29093/-/ready"


def test_the_remedy_keeps_off_the_daemons_that_the_packages_bring() -> None:
    tools = [prerequisites.TOOLS[name] for name in ("maven", "prometheus", "alertmanager")]
    assert prerequisites.remedy(tools).endswith("systemctl disable --now prometheus prometheus-alertmanager")
    assert "systemctl" not in prerequisites.remedy(tools[:1])


@pytest.mark.parametrize(("name", "words"), [("grafana", ["server"]), ("grafana-server", [])])
def test_a_grafana_that_is_installed_is_started_with_the_checkout_s_provisioning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    home = tmp_path / "opt"
    (home / "public").mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin" / name).write_text("#!/bin/sh\n")
    (home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=os.pathsep)
    settings = NativeSettings(run_dir=tmp_path / "run", grafana_port=23000, prometheus_port=29090)
    (program,) = (each for each in stack.programs(settings) if each.name == "grafana")
    assert list(program.command[: 1 + len(words)]) == [str(home / "bin" / name), *words]
    assert f"--homepath={home}" in program.command
    told = stack.environment(settings)
    assert told["GF_SERVER_HTTP_PORT"] == "23000"
    assert told["GF_SECURITY_ADMIN_PASSWORD"] == "admin123"
    assert told["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert told["GF_PATHS_PROVISIONING"] == str(ROOT / "grafana" / "provisioning")
    assert told["PROMETHEUS_URL"] == "http://127.0.0.1:29090"
    assert 23000 in {port.number for port in stack.ports(settings)}


def test_without_a_grafana_there_is_no_program_no_port_and_no_word_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "grafana", lambda: None)
    settings = NativeSettings()
    assert "grafana" not in {program.name for program in stack.programs(settings)}
    assert "grafana" not in {port.program for port in stack.ports(settings)}
    assert not [name for name in stack.environment(settings) if name.startswith("GF_")]


def test_every_variable_of_grafana_s_provisioning_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "grafana", lambda: tmp_path / "grafana")
    text = "".join(path.read_text() for path in (ROOT / "grafana" / "provisioning").rglob("*.yml"))
    assert set(re.findall(r"\$(\w+)", re.sub(r"#.*", "", text))) <= set(stack.environment(NativeSettings()))
