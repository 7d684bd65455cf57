"""The settings of a native run: what is derived, and that two copies can differ in everything."""

from pathlib import Path

import pytest

from native import settings as native_settings
from native.settings import ROOT, NativeSettings
from native.stack import environment, ports
from shared.config import Settings
from shared.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NativeSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)  # where no .env lies


def test_services_are_told_of_the_port_that_our_kafka_takes() -> None:
    told = environment(NativeSettings(kafka_port=19092))
    assert told["KAFKA_BOOTSTRAP"] == "127.0.0.1:19092"
    assert told["KAFKA_GROUP_PROTOCOL"] == "consumer"


def test_a_kafka_of_somebody_elses_is_used_and_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "broker:9092")
    settings = NativeSettings()
    assert not settings.own_kafka
    assert environment(settings)["KAFKA_BOOTSTRAP"] == "broker:9092"
    assert environment(settings)["KAFKA_GROUP_PROTOCOL"] == "classic"  # its session time-out is unknown
    assert "kafka" not in {port.program for port in ports(settings)}


def test_a_bootstrap_that_names_our_own_port_is_our_own_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "localhost:9092")
    assert NativeSettings().own_kafka


def test_a_group_protocol_that_is_given_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_GROUP_PROTOCOL", "classic")
    assert NativeSettings().group_protocol == "classic"


def test_a_bad_value_names_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PORT", "kafka")
    with pytest.raises(ConfigurationError, match="KAFKA_PORT"):
        native_settings.load()


def test_every_port_has_a_setting_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ports(NativeSettings())
    assert len({port.number for port in ours}) == len(ours) == 7
    for port in ours:
        monkeypatch.setenv(port.setting, "23456")
        assert getattr(NativeSettings(), port.setting.lower()) == 23456


def test_a_port_given_way_to_another_prometheus_is_remembered_until_one_is_chosen() -> None:
    NativeSettings().on_port("prometheus", 9091)
    NativeSettings().on_port("alertmanager", 9094)
    assert NativeSettings().as_running().url("prometheus") == "http://127.0.0.1:9091"
    assert NativeSettings().as_running().url("alertmanager") == "http://127.0.0.1:9094"
    assert NativeSettings(prometheus_port=9095).as_running().prometheus_port == 9095


def test_services_that_listen_everywhere_are_reached_on_loopback() -> None:
    assert NativeSettings(host="0.0.0.0").url("ingestion") == "http://127.0.0.1:8001"
    assert NativeSettings(host="10.1.2.3").url("ingestion") == "http://10.1.2.3:8001"


def test_every_setting_of_the_launcher_is_documented() -> None:
    page = (ROOT / "docs" / "makefile.md").read_text()
    own = set(NativeSettings.model_fields) - set(Settings.model_fields)
    assert {name for name in own if f"`{name.upper()}`" not in page} == set()
