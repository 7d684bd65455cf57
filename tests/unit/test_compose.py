"""docker-compose.yml, the Dockerfile and the images' locks: what they must hold, whoever edits them next."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from native.kafka import shared_properties
from native.settings import ROOT
from shared.config import Settings

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
GIB = 1024


def _default(value: str) -> str:
    """What `${NAME:-default}` is where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def _mebibytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([mg])", _default(size)).groups()  # type: ignore[union-attr]  # or it fails
    return int(number) * {"m": 1, "g": GIB}[unit]


def _seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert _mebibytes(service["mem_limit"]) > 0
    assert service["restart"] == ("on-failure:5" if name == "topics" else "unless-stopped")
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_every_published_port_is_on_loopback_unless_a_setting_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"\$\{\w*HOST:-127\.0\.0\.1\}:\$\{\w+_PORT:-\d+\}:\d+", port), port


@pytest.mark.parametrize("name", SERVICES)
def test_only_named_volumes_are_written_to(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, _ = volume.partition(":")
        assert source in COMPOSE["volumes"] or volume.endswith(":ro"), volume
    for each in SERVICES[name].get("tmpfs", []):
        assert re.search(r"size=\d+m", each), f"{each}: memory without a limit"


def test_every_service_is_waited_for_by_its_health_and_the_topics_by_their_end() -> None:
    checked = {name for name, service in SERVICES.items() if "healthcheck" in service}
    checked |= {name for name in SERVICES if _health_check_of(name)}
    assert checked == set(SERVICES) - {"topics"}
    for name in ("ingestion", "standardization", "processing"):
        assert SERVICES[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}


def _health_check_of(target: str) -> bool:
    stage = re.search(rf"^FROM \w+ AS {target}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
    return stage is not None and "\nHEALTHCHECK " in stage[1]


def test_all_that_starts_by_default_fits_4_gib() -> None:
    limits = {name: _mebibytes(service["mem_limit"]) for name, service in SERVICES.items() if "profiles" not in service}
    del limits["topics"]  # ends before the services begin
    assert sum(limits.values()) <= 4 * GIB, limits


def test_a_graceful_stop_ends_before_the_engine_kills() -> None:
    for name in ("ingestion", "standardization", "processing"):
        deadline = float(SERVICES[name]["environment"]["STOP_SECONDS"])
        assert deadline < _seconds(SERVICES[name]["stop_grace_period"])


def test_every_setting_of_the_services_is_passed_on_or_fixed() -> None:
    known = {name.upper() for name in Settings.model_fields}
    assert set(COMPOSE["x-settings"]) == known
    for name in ("topics", "ingestion", "standardization", "processing"):
        assert SERVICES[name]["environment"] == COMPOSE["x-settings"]


def test_kafka_is_told_in_compose_only_what_differs_from_run_to_run() -> None:
    told = {
        name.removeprefix("KAFKA_").lower().replace("_", ".")
        for name in SERVICES["kafka"]["environment"]
        if name.startswith("KAFKA_") and name not in {"KAFKA_HEAP_OPTS", "KAFKA_LOG4J_OPTS"}
    }
    assert told & set(shared_properties()) == {"listener.security.protocol.map"}  # one listener more
    assert "./kafka:/mnt/shared/config:ro" in SERVICES["kafka"]["volumes"]
    folder = SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]
    assert f"kafka-data:{folder}" in SERVICES["kafka"]["volumes"]


def test_prometheus_is_given_a_targets_file_for_each_of_its_jobs() -> None:
    read = set(re.findall(r"targets/(\w+)\.json", (ROOT / "prometheus" / "prometheus.yml").read_text()))
    folder, *services = SERVICES["replicas"]["command"][3:]
    assert folder == "/targets"
    assert services[0] == "standardization:8002"  # the one that may have copies
    assert read <= {service.partition(":")[0] for service in services} <= set(SERVICES)


def test_images_of_others_have_a_version() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_every_image_of_ours_is_a_target_that_ends_without_root() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            continue
        target = service["build"]["target"]
        stage = re.search(rf"^FROM \w+ AS {target}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
        assert stage is not None, name
        assert re.findall(r"^USER (\w+)$", stage[1], re.MULTILINE) == ["sluice"], name


def test_every_variable_of_the_compose_file_is_documented_and_in_the_example() -> None:
    page, example = (ROOT / "docs" / "docker.md").read_text(), (ROOT / ".env.example").read_text()
    used = set(re.findall(r"\$\{(\w+)", TEXT.replace("$${", ""))) | {"GRAFANA_PASSWORD"}
    assert {name for name in used if f"`{name}`" not in page} == set()
    assert {name for name in used if f"#{name}=" not in example} == set()


def _pins(lock: Path) -> Iterator[tuple[str, str]]:
    """Each package of a lock with its version, and its hashes."""
    for found in re.finditer(
        r"^([\w.-]+==[^\n\\]+?) *\\\n((?: +--hash=\S+(?: \\)?\n)+)", lock.read_text(), re.MULTILINE
    ):
        yield found[1], found[2].strip()


def test_images_hold_the_packages_that_are_tested_and_no_tools() -> None:
    tested = dict(_pins(ROOT / "requirements.lock"))
    for name in ("services", "processing"):
        pinned = dict(_pins(ROOT / "compose" / f"{name}.lock"))
        assert pinned
        assert {pin: tested.get(pin) for pin in pinned} == pinned
        packages = {pin.partition("==")[0] for pin in pinned}
        assert not packages & {"pandas", "pyarrow", "rich", "supervisor", "pytest"}


def test_nothing_is_sent_to_the_engine_but_what_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert not {"!.env", "!data", "!.git", "!.venv"} & set(lines)
