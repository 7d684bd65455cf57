"""A real Prometheus, and a real Alertmanager where one is installed, on the checkout's own configuration."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from native.kafka import free_ports
from tests.integration.stack import ROOT, eventually

FILES = ROOT / "prometheus"


class Prometheus:
    """Scrapes these services, evaluates the rules, and sends what fires to its Alertmanager."""

    def __init__(self, folder: Path, services: Mapping[str, str]) -> None:
        """`services` are the base URLs of the jobs, by name. `folder` is its own."""
        self.folder = folder
        self.services = dict(services)
        self.has_alertmanager = shutil.which("prometheus-alertmanager") is not None
        port, alertmanager_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self.alertmanager_url = f"http://127.0.0.1:{alertmanager_port}"
        self._running = ExitStack()

    @staticmethod
    def installed() -> bool:
        return shutil.which("prometheus") is not None

    def __enter__(self) -> Self:
        targets = self.folder / "targets"
        targets.mkdir(parents=True)
        for name in ("prometheus.yml", "rules"):
            (self.folder / name).symlink_to(FILES / name)
        jobs = {**self.services, "prometheus": self.url}
        if self.has_alertmanager:
            jobs["alertmanager"] = self.alertmanager_url
        for job, url in jobs.items():
            (targets / f"{job}.json").write_text(json.dumps([{"targets": [url.removeprefix("http://")]}]))
        with ExitStack() as starting:
            if self.has_alertmanager:
                self._start(
                    starting,
                    "prometheus-alertmanager",
                    f"--config.file={self._alertmanager_configuration()}",
                    f"--storage.path={self.folder / 'alertmanager'}",
                    f"--web.listen-address={self.alertmanager_url.removeprefix('http://')}",
                    "--cluster.listen-address=",
                )
            self._start(
                starting,
                "prometheus",
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            )
            eventually(self._is_ready, 30, f"Prometheus is ready; see {self.folder}/prometheus.log")
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def wait_until_all_targets_are_up(self, seconds: float = 60.0) -> None:
        expected = len(self.services) + 1 + self.has_alertmanager
        eventually(lambda: len(self.query("up == 1")) == expected, seconds, "all targets are up")

    def _alertmanager_configuration(self) -> Path:
        """One that sends nothing anywhere."""
        path = self.folder / "alertmanager.yml"
        path.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
        return path

    def _start(self, running: ExitStack, program: str, *arguments: str) -> None:
        log = running.enter_context((self.folder / f"{program}.log").open("ab"))
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        running.callback(process.wait, 30)
        running.callback(process.terminate)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False
