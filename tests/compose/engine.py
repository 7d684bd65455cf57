"""A compose stack of its own, on whatever Docker engine answers: own project, own ports, own image tag.

So it runs beside another stack of the same checkout, and leaves neither containers nor volumes behind.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from native.kafka import free_ports
from native.settings import ROOT, NativeSettings

PORTS = ("INGESTION", "STANDARDIZATION", "PROCESSING", "KAFKA", "PROMETHEUS", "ALERTMANAGER", "GRAFANA", "KAFKA_UI")


class EngineError(Exception):
    """A command of docker's failed; the message holds what it said."""


def docker(*arguments: str, environment: dict[str, str] | None = None, seconds: float = 300) -> str:
    """Run docker, and return what it prints. Raises EngineError."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT, env={**os.environ, **(environment or {})}, timeout=seconds,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EngineError(f"docker {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def missing() -> str | None:
    """Why no compose stack can be started here; None if it can."""
    for what, command in (("a Docker engine", ["version"]), ("Docker Compose", ["compose", "version"])):
        try:
            docker(*command, seconds=30)
        except FileNotFoundError:
            return "docker is not installed"
        except (EngineError, subprocess.TimeoutExpired) as error:
            return f"{what} does not answer: {str(error).strip().splitlines()[-1]}"
    return None


class ComposeStack:
    """docker-compose.yml of this checkout under a project name of its own."""

    def __init__(self) -> None:
        self.project = f"sluice-e2e-{uuid.uuid4().hex[:6]}"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._mappings = Path(tempfile.mkdtemp(prefix="mappings-"))
        self._mappings.chmod(0o755)  # the service is another user
        (self._mappings / "a.yml").write_text("version: 1\nmappings: [{name: a, revision: 1, sources: EasyProjects}]\n")
        # what the user has set for a stack of theirs is not for this one
        self._environment = {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_ENV_FILES": os.devnull,
            "COMPOSE_PROFILES": "kafka-ui",
            "TAG": "e2e",
            "MAPPINGS_DIR": str(self._mappings),
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
        }
        self.services: list[str] = []
        self.left_out: list[str] = []
        self.first_start = 0.0  # seconds

    @property
    def settings(self) -> NativeSettings:
        """The addresses, as the client and the system tests want them."""
        return NativeSettings(
            host="127.0.0.1",
            ingestion_port=self.ports["INGESTION"],
            standardization_port=self.ports["STANDARDIZATION"],
            processing_port=self.ports["PROCESSING"],
            kafka_port=self.ports["KAFKA"],
            prometheus_port=self.ports["PROMETHEUS"],
        )

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service.upper().replace('-', '_')]}"

    def compose(self, *arguments: str, seconds: float = 300) -> str:
        return docker("compose", *arguments, environment=self._environment, seconds=seconds)

    def build(self) -> None:
        """Build our images, and see which of the others can be had; `left_out` are the services whose image can't."""
        self.compose("build", "--quiet", seconds=1200)
        for name, service in self.configuration()["services"].items():
            if "build" in service or self._had(service["image"]):
                self.services.append(name)
            else:
                self.left_out.append(name)

    def configuration(self) -> dict[str, Any]:
        """docker-compose.yml as compose understands it."""
        found: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))
        return found

    @staticmethod
    def _had(image: str) -> bool:
        try:
            docker("image", "inspect", image)
        except EngineError:
            try:
                docker("pull", "--quiet", image, seconds=600)
            except EngineError:
                return False
        return True

    def up(self, *arguments: str) -> float:
        """Start what is not running, and wait until all is healthy; how many seconds that took."""
        begun = time.monotonic()
        self.compose("up", "--detach", "--wait", "--no-build", *arguments, *self.services)
        return time.monotonic() - begun

    def scale(self, copies: int) -> None:
        self.up("--no-recreate", "--scale", f"standardization={copies}")

    def down(self, *arguments: str) -> None:
        self.compose("down", "--timeout", "60", *arguments)

    def remove(self) -> None:
        """Take away all that is left of it, whatever state it is in."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        shutil.rmtree(self._mappings)

    def containers(self, *services: str) -> dict[str, dict[str, Any]]:
        """What the engine knows of the containers, by name; all of them, or those of some services."""
        identifiers = self.compose("ps", "--all", "--quiet", *services).split()
        found = json.loads(docker("inspect", *identifiers)) if identifiers else []
        return {each["Name"].lstrip("/"): each for each in found}

    def kill(self, service: str) -> None:
        """End the first container of a service as a power cut would. The engine starts no container killed by hand."""
        self.compose("kill", "--signal", "SIGKILL", service)

    def crash(self, service: str) -> None:
        """Kill the service's process inside its container; the engine's restart policy has to bring it back."""
        before = self._started(service)
        # all processes but the container's first, which is docker-init and ends with its child
        with suppress(EngineError):  # it ends with the container
            self.compose("exec", "--no-TTY", service, "python", "-c", "import os; os.kill(-1, 9)")
        deadline = time.monotonic() + 60
        while self._started(service) == before:
            assert time.monotonic() < deadline, f"{service} was not started again"
            time.sleep(0.2)

    def _started(self, service: str) -> str:
        (container,) = self.containers(service).values()
        state = container["State"]
        return str(state["StartedAt"]) if state["Running"] else ""

    def account(self) -> str:
        """What helps to see why a test failed: the containers, and the ends of their logs."""
        said = []
        for command in (("ps", "--all"), ("logs", "--tail", "40")):
            try:
                said.append(self.compose(*command))
            except (EngineError, subprocess.TimeoutExpired) as error:
                said.append(str(error))
        return "\n".join(said)


def volumes_of(project: str) -> list[str]:
    return docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project}").split()
