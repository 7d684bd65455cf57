"""The launcher's own settings: the ports of what it starts beside the services, and where it works."""

from pathlib import Path

from pydantic import Field

from shared import config
from shared.config import Settings

ROOT = Path(__file__).resolve().parent.parent
MOVABLE = ("prometheus", "alertmanager")  # a distribution's package may run one of its own, on the same port


class NativeSettings(Settings):
    """The settings of a native run."""

    kafka_port: int = Field(default=9092, ge=1, le=65535, description="Port of the Kafka that `make run` starts.")
    kafka_controller_port: int = Field(default=19093, ge=1, le=65535, description="Port of that Kafka's controller.")
    prometheus_port: int = Field(
        default=9090, ge=1, le=65535, description="Port of the Prometheus that `make run` starts."
    )
    alertmanager_port: int = Field(
        default=9093, ge=1, le=65535, description="Port of the Alertmanager that `make run` starts."
    )
    grafana_port: int = Field(
        default=3000, ge=1, le=65535, description="Port of the Grafana that `make run` starts, where one is installed."
    )
    grafana_password: str = Field(default="admin123", min_length=1, description="Password of Grafana's user admin.")
    run_dir: Path = Field(
        default=Path(".run"), description="Folder of jars, generated configuration, logs and the supervisor's socket."
    )
    start_seconds: float = Field(default=120.0, gt=0, description="How long `make run` waits for all to be ready.")

    @property
    def bootstrap(self) -> str:
        """Kafka's address for the services: KAFKA_BOOTSTRAP where it is given, else our own broker's."""
        return self.kafka_bootstrap if "kafka_bootstrap" in self.model_fields_set else f"127.0.0.1:{self.kafka_port}"

    @property
    def own_kafka(self) -> bool:
        """Whether the Kafka in use is the one that we start; a KAFKA_BOOTSTRAP of somebody else's is only used."""
        return self.bootstrap in {f"127.0.0.1:{self.kafka_port}", f"localhost:{self.kafka_port}"}

    @property
    def group_protocol(self) -> str:
        """Our own broker has the session time-out that KIP-848 groups need to fail over quickly."""
        if self.own_kafka and "kafka_group_protocol" not in self.model_fields_set:
            return "consumer"
        return self.kafka_group_protocol

    @property
    def reach(self) -> str:
        """The host under which this machine reaches the services: where they listen everywhere, loopback will do."""
        return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound

    @property
    def service_ports(self) -> dict[str, int]:
        """Each service's port, in the order of the flow."""
        return {
            "ingestion": self.ingestion_port,
            "standardization": self.standardization_port,
            "processing": self.processing_port,
        }

    def url(self, program: str) -> str:
        """The base URL of a service, of Prometheus, Alertmanager or Grafana."""
        ours = {
            "prometheus": self.prometheus_port,
            "alertmanager": self.alertmanager_port,
            "grafana": self.grafana_port,
        }
        if program in ours:
            return f"http://127.0.0.1:{ours[program]}"
        return f"http://{self.reach}:{self.service_ports[program]}"

    def on_port(self, program: str, number: int) -> "NativeSettings":
        """These settings with this port for one of MOVABLE, remembered in the run folder for the commands to come."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._chosen(program).write_text(str(number))
        return self.model_copy(update={f"{program}_port": number})

    def as_running(self) -> "NativeSettings":
        """These settings as the run that lives in the run folder uses them."""
        chosen = {
            f"{program}_port": int(self._chosen(program).read_text())
            for program in MOVABLE
            if f"{program}_port" not in self.model_fields_set and self._chosen(program).is_file()
        }
        return self.model_copy(update=chosen)

    def _chosen(self, program: str) -> Path:
        return self.run_dir / f"{program}.port"


def load() -> NativeSettings:
    """Read the settings. Raises ConfigurationError that names each bad key."""
    return config.load(NativeSettings)
