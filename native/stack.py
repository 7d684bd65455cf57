"""What a native run consists of: the programs in the order of the start, their commands, their ports."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from native.kafka import Broker
from native.settings import ROOT, NativeSettings

PROMETHEUS_FILES = ROOT / "prometheus"

# Marks every process of a run, so that leftovers are found by what they are and not by their names.
RUN_MARK = "SLUICE_RUN_DIR"
PROGRAM_MARK = "SLUICE_PROGRAM"

_GRACE_SECONDS = 5.0  # beyond a program's own deadline, before the supervisor kills it


@dataclass(frozen=True)
class Port:
    """A port of ours: who listens there, and the setting that moves it."""

    program: str
    setting: str
    host: str
    number: int


@dataclass(frozen=True)
class Program:
    """A process that the supervisor keeps alive."""

    name: str
    command: tuple[str, ...]
    stop_seconds: float
    ready_url: str = ""  # answers 200 when it is ready; empty: it is Kafka, which is asked in its own protocol


def run_folder(settings: NativeSettings) -> Path:
    return settings.run_dir.resolve()


def libs(settings: NativeSettings) -> Path:
    return run_folder(settings) / "kafka" / "libs"


def broker(settings: NativeSettings) -> Broker:
    """The one Kafka of a native run; all it has to keep lies in the data folder."""
    return Broker(settings.data_dir / "kafka", libs(settings), settings.kafka_port, settings.kafka_controller_port)


def programs(settings: NativeSettings) -> list[Program]:
    """In the order of the start: Kafka, then readers before writers. The stop goes the other way."""
    ours = [
        Program("prometheus", _prometheus(settings), 10.0, settings.url("prometheus") + "/-/ready"),
        *(
            Program(
                name,
                (sys.executable, "-m", f"{name}.main"),
                settings.stop_seconds + _GRACE_SECONDS,
                settings.url(name) + "/ready",
            )
            for name in reversed(settings.service_ports)
        ),
    ]
    if settings.own_kafka:
        ours.insert(0, Program("kafka", tuple(broker(settings).command()), 30.0))
    return ours


def ports(settings: NativeSettings) -> list[Port]:
    """Every port that a native run takes."""
    ours = [
        Port(name, f"{name.upper()}_PORT", settings.host, number) for name, number in settings.service_ports.items()
    ]
    ours.append(Port("prometheus", "PROMETHEUS_PORT", "127.0.0.1", settings.prometheus_port))
    if settings.own_kafka:
        ours.append(Port("kafka", "KAFKA_PORT", "127.0.0.1", settings.kafka_port))
        ours.append(Port("kafka", "KAFKA_CONTROLLER_PORT", "127.0.0.1", settings.kafka_controller_port))
    return ours


def environment(settings: NativeSettings) -> dict[str, str]:
    """What the programs find in their environment: ours, what the launcher derived, and the mark."""
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP": settings.bootstrap,
        "KAFKA_GROUP_PROTOCOL": settings.group_protocol,
        "PYTHONUNBUFFERED": "1",
        RUN_MARK: str(run_folder(settings)),
    }


def write_prometheus_files(settings: NativeSettings) -> None:
    """Prometheus' folder: the checkout's own configuration and rules, linked, beside targets with today's addresses."""
    folder = run_folder(settings) / "prometheus"
    targets = folder / "targets"
    targets.mkdir(parents=True, exist_ok=True)
    for name in ("prometheus.yml", "rules"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(PROMETHEUS_FILES / name)
    for service in settings.service_ports:
        address = settings.url(service).removeprefix("http://")
        (targets / f"{service}.json").write_text(json.dumps([{"targets": [address]}]))


def _prometheus(settings: NativeSettings) -> tuple[str, ...]:
    return (
        shutil.which("prometheus") or "prometheus",
        f"--config.file={run_folder(settings) / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={(settings.data_dir / 'prometheus').resolve()}",
        f"--web.listen-address={settings.url('prometheus').removeprefix('http://')}",
    )
