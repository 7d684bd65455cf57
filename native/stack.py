"""What a native run consists of: the programs in the order of the start, their commands, their ports."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from native.kafka import Broker
from native.prerequisites import alertmanager
from native.settings import ROOT, NativeSettings
from shared.errors import ConfigurationError

PROMETHEUS_FILES = ROOT / "prometheus"
GRAFANA_FILES = ROOT / "grafana"

_WEBHOOK = "http://processing:8003/alerts/webhook"  # in alertmanager.yml; processing's address inside Docker Compose

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
    grafana = _grafana(settings)
    ours = [
        Program("alertmanager", _alertmanager(settings), 10.0, settings.url("alertmanager") + "/-/ready"),
        Program("prometheus", _prometheus(settings), 10.0, settings.url("prometheus") + "/-/ready"),
        *([Program("grafana", grafana, 10.0, settings.url("grafana") + "/api/health")] if grafana else []),
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
    ours.append(Port("alertmanager", "ALERTMANAGER_PORT", "127.0.0.1", settings.alertmanager_port))
    if grafana_home() is not None:
        ours.append(Port("grafana", "GRAFANA_PORT", "127.0.0.1", settings.grafana_port))
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
        **_grafana_environment(settings),
        RUN_MARK: str(run_folder(settings)),
    }


def write_monitoring_files(settings: NativeSettings) -> None:
    """The folders of Prometheus and Alertmanager: the checkout's own configuration, with today's addresses beside it.

    Prometheus' configuration and rules are linked, and its targets written. Alertmanager knows no such files, so its
    configuration is copied, with the one address in it replaced.
    """
    folder = run_folder(settings) / "prometheus"
    targets = folder / "targets"
    targets.mkdir(parents=True, exist_ok=True)
    for name in ("prometheus.yml", "rules"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(PROMETHEUS_FILES / name)
    for job in (*settings.service_ports, "prometheus", "alertmanager"):
        address = settings.url(job).removeprefix("http://")
        (targets / f"{job}.json").write_text(json.dumps([{"targets": [address]}]))
    (folder / "alertmanager.yml").write_text(alertmanager_configuration(settings.url("processing")))


def alertmanager_configuration(processing: str) -> str:
    """The checkout's alertmanager.yml with processing at this base URL. Raises ConfigurationError."""
    text = (PROMETHEUS_FILES / "alertmanager.yml").read_text()
    if _WEBHOOK not in text:
        raise ConfigurationError(f"prometheus/alertmanager.yml has no receiver at {_WEBHOOK}, the alert history")
    return text.replace(_WEBHOOK, f"{processing}/alerts/webhook")


def _prometheus(settings: NativeSettings) -> tuple[str, ...]:
    return (
        shutil.which("prometheus") or "prometheus",
        f"--config.file={run_folder(settings) / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={(settings.data_dir / 'prometheus').resolve()}",
        f"--web.listen-address={settings.url('prometheus').removeprefix('http://')}",
    )


def _alertmanager(settings: NativeSettings) -> tuple[str, ...]:
    return (
        alertmanager() or "alertmanager",
        f"--config.file={run_folder(settings) / 'prometheus' / 'alertmanager.yml'}",
        f"--storage.path={(settings.data_dir / 'alertmanager').resolve()}",
        f"--web.listen-address={settings.url('alertmanager').removeprefix('http://')}",
        "--cluster.listen-address=",  # one alone; else it listens on a port more
    )


def grafana_home() -> Path | None:
    """Where an installed Grafana has its own files; None where none is installed."""
    found = shutil.which("grafana") or shutil.which("grafana-server")
    if found is None:
        return None
    unpacked = Path(found).resolve().parent.parent  # a release's archive holds bin/ beside public/
    return unpacked if (unpacked / "public").is_dir() else Path("/usr/share/grafana")


def _grafana(settings: NativeSettings) -> tuple[str, ...]:
    """Its command; empty where none is installed. Where it looks is told by the environment."""
    home = grafana_home()
    if home is None:
        return ()
    newer = shutil.which("grafana")
    command = (newer, "server") if newer else (shutil.which("grafana-server") or "grafana-server",)
    return (*command, f"--homepath={home}", f"--config={_grafana_defaults(settings)}")


def _grafana_defaults(settings: NativeSettings) -> Path:
    """An empty file: a package's own /etc/grafana/grafana.ini is for another Grafana, on another port."""
    return run_folder(settings) / "grafana.ini"


def _grafana_environment(settings: NativeSettings) -> dict[str, str]:
    """Grafana's settings, and the variables that grafana/provisioning names."""
    if grafana_home() is None:
        return {}
    data = (settings.data_dir / "grafana").resolve()
    return {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
        "GF_SECURITY_ADMIN_USER": "admin",
        "GF_SECURITY_ADMIN_PASSWORD": settings.grafana_password,
        "GF_AUTH_ANONYMOUS_ENABLED": "false",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_LOG_MODE": "console",
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_LOGS": str(data / "log"),
        "GF_PATHS_PLUGINS": str(data / "plugins"),
        "GF_PATHS_PROVISIONING": str(GRAFANA_FILES / "provisioning"),
        "PROMETHEUS_URL": settings.url("prometheus"),
        "ALERTMANAGER_URL": settings.url("alertmanager"),
        "GRAFANA_DASHBOARDS_DIR": str(GRAFANA_FILES / "dashboards"),
    }
