"""A real Prometheus and a real Alertmanager over a running stack, on the checkout's own rules and routes."""

import json
import os
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from native.kafka import free_ports
from native.prerequisites import alertmanager
from native.stack import PROMETHEUS_FILES, alertmanager_configuration
from tests.integration.stack import Stack, eventually

Json = dict[str, Any]


class Monitoring:
    """Scrapes the stack's services, evaluates the rules, and tells processing of what fires."""

    def __init__(self, stack: Stack, folder: Path, *, hurried: bool = False) -> None:
        """`folder` is its own. `hurried`: shorter intervals, windows and patience, for who must wait for an alert.

        Where one of the programs is not installed the test is skipped; in CI it fails.
        """
        missing = [
            name
            for name, there in (("prometheus", shutil.which("prometheus")), ("alertmanager", alertmanager()))
            if not there
        ]
        if missing:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"not installed here: {', '.join(missing)}")
        self.stack = stack
        self.folder = folder
        self.hurried = hurried
        port, alertmanager_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self.alertmanager_url = f"http://127.0.0.1:{alertmanager_port}"
        self.jobs = {**stack.urls, "prometheus": self.url, "alertmanager": self.alertmanager_url}
        self.client = httpx.Client(timeout=10.0)
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._write()
        with ExitStack() as starting:
            starting.enter_context(self.client)
            self._start(
                starting,
                "alertmanager",
                self.alertmanager_url,
                alertmanager() or "alertmanager",
                f"--storage.path={self.folder / 'alertmanager'}",
                "--cluster.listen-address=",
            )
            self._start(
                starting,
                "prometheus",
                self.url,
                "prometheus",
                f"--storage.tsdb.path={self.folder / 'data'}",
                *(["--rules.alert.resend-delay=2s"] if self.hurried else []),
            )
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def query(self, expression: str) -> list[Json]:
        """The result of an instant query."""
        answer = self.client.get(f"{self.url}/api/v1/query", params={"query": expression}).raise_for_status()
        found: list[Json] = answer.json()["data"]["result"]
        return found

    def wait_until_all_targets_are_up(self) -> None:
        eventually(lambda: len(self.query("up == 1")) == len(self.jobs), 60, f"all of {sorted(self.jobs)} are up")

    def _write(self) -> None:
        """As the launcher does it."""
        configuration = (PROMETHEUS_FILES / "prometheus.yml").read_text()
        rules = {path.name: path.read_text() for path in (PROMETHEUS_FILES / "rules").glob("*.yml")}
        routes = alertmanager_configuration(self.stack.urls["processing"])
        if self.hurried:
            configuration = configuration.replace("_interval: 5s", "_interval: 1s").replace("t: 4s", "t: 900ms")
            rules = {
                name: re.sub(r"for: \w+", "for: 2s", re.sub(r"\[(?:1m|5m)\]", "[15s]", text))
                for name, text in rules.items()
            }
            routes = re.sub(r"group_wait: \w+", "group_wait: 1s", routes)
            routes = re.sub(r"group_interval: \w+", "group_interval: 2s", routes)
        files = {"prometheus.yml": configuration, "alertmanager.yml": routes}
        files |= {f"rules/{name}": text for name, text in rules.items()}
        files |= {
            f"targets/{job}.json": json.dumps([{"targets": [url.removeprefix("http://")]}])
            for job, url in self.jobs.items()
        }
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _start(self, running: ExitStack, name: str, url: str, *command: str) -> None:
        log = running.enter_context((self.folder / f"{name}.log").open("wb"))
        own = (f"--config.file={self.folder / name}.yml", f"--web.listen-address={url.removeprefix('http://')}")
        process = subprocess.Popen([*command, *own], stdout=log, stderr=log)
        running.callback(process.wait, 30)
        running.callback(process.terminate)
        eventually(lambda: self._is_ready(url), 30, f"{name} is ready; see {self.folder}")

    def _is_ready(self, url: str) -> bool:
        try:
            return self.client.get(f"{url}/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
