"""What has to be on the machine before anything else: Python with venv, Java, Maven, Prometheus, Alertmanager.

Runs on the system's Python with the standard library alone, for it comes before the virtual environment:

    python3 native/prerequisites.py python java maven prometheus alertmanager

What is missing is installed by apt-get when run as root; otherwise the command to type is printed, and the exit
code is 1.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON_MIN = (3, 11)
JAVA_MIN = 17
POLICY = Path("/usr/sbin/policy-rc.d")
DAEMONS = ("prometheus", "alertmanager")  # their packages start one of their own, now and at every boot


@dataclass(frozen=True)
class Tool:
    """A prerequisite: the Debian package that brings it, and how its version is found (None: missing or too old)."""

    name: str
    package: str
    version: Callable[[], "str | None"]
    why: str


def _output(*command: str) -> str:
    """What a command prints, on either stream; empty if it can't be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def python_version() -> "str | None":
    """This interpreter's version, if it is new enough and can make a virtual environment with pip in it."""
    complete = importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")
    return sys.version.split()[0] if sys.version_info >= PYTHON_MIN and complete else None


def java_version() -> "str | None":
    """The version of the java that JAVA_HOME or PATH gives, if it is new enough for Kafka."""
    home = os.environ.get("JAVA_HOME")
    java = (shutil.which("java", path=str(Path(home) / "bin")) if home else None) or "java"
    found = re.search(r'version "(\d+)[^"]*"', _output(java, "-version"))
    return found.group(0).split('"')[1] if found and int(found.group(1)) >= JAVA_MIN else None


def maven_version() -> "str | None":
    found = re.search(r"Apache Maven (\S+)", _output("mvn", "-version"))
    return re.sub(r"\x1b\[\d*m", "", found.group(1)) if found else None


def prometheus_version() -> "str | None":
    found = re.search(r"prometheus, version (\S+)", _output("prometheus", "--version"))
    return found.group(1) if found else None


def faketime_version() -> "str | None":
    found = re.search(r"faketime: Version (\S+)", _output("faketime", "--version"))
    return found.group(1) if found else None


def alertmanager() -> "str | None":
    """Where Alertmanager's program is: Debian gives it another name than its authors."""
    return shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")


def alertmanager_version() -> "str | None":
    found = re.search(r"alertmanager, version (\S+)", _output(alertmanager() or "alertmanager", "--version"))
    return found.group(1) if found else None


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("python", "python3-venv", python_version, "Python 3.11 or later with venv runs the services"),
        Tool("java", "openjdk-17-jre-headless", java_version, f"Java {JAVA_MIN} or later runs Kafka"),
        Tool("maven", "maven", maven_version, "Maven fetches Kafka's jars"),
        Tool("prometheus", "prometheus", prometheus_version, "Prometheus keeps the metrics"),
        Tool("alertmanager", "prometheus-alertmanager", alertmanager_version, "Alertmanager tells of alerts"),
        Tool("faketime", "faketime", faketime_version, "the fault tests let a service's clock jump"),
    )
}


def missing(names: Sequence[str]) -> list[Tool]:
    """The tools of these that are not there, or too old."""
    return [TOOLS[name] for name in names if TOOLS[name].version() is None]


def packages(tools: Sequence[Tool]) -> list[str]:
    """The packages that bring these tools. A Debian newer than 12 has no Java 17 any more, but a default one."""
    names = [tool.package for tool in tools]
    if "openjdk-17-jre-headless" in names and not re.search(
        r"Candidate: \d", _output("apt-cache", "policy", "openjdk-17-jre-headless")
    ):
        names[names.index("openjdk-17-jre-headless")] = "default-jre-headless"
    return names


def remedy(tools: Sequence[Tool]) -> str:
    """The command to type. Packages with a daemon start it when installed, on a port that ours takes by default."""
    command = "sudo apt-get update && sudo apt-get install --no-install-recommends -y " + " ".join(packages(tools))
    if daemons := [tool.package for tool in tools if tool.name in DAEMONS]:
        command += f" && sudo systemctl disable --now {' '.join(daemons)}"
    return command


@contextmanager
def _daemons_kept_off() -> Iterator[None]:
    """Let no package start a daemon meanwhile, in Debian's way: a policy-rc.d that answers 101, `forbidden`."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink()


def install(tools: Sequence[Tool]) -> None:
    """Install with apt-get, as root; the packages' daemons neither start now nor at the next boot."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    subprocess.run([*apt, "update"], env=environment, check=True, stdin=subprocess.DEVNULL)
    with _daemons_kept_off():
        subprocess.run(
            [*apt, "install", "--no-install-recommends", "-y", *packages(tools)],
            env=environment, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    for tool in tools:
        if tool.name in DAEMONS:
            subprocess.run(["update-rc.d", tool.package, "disable"], check=True)


def main(names: Sequence[str]) -> int:
    absent = missing(names)
    if not absent:
        return 0
    for tool in absent:
        sys.stderr.write(f"Missing: {tool.name} ({tool.why}).\n")
    if sys.version_info < PYTHON_MIN:
        sys.stderr.write(f"This is Python {sys.version.split()[0]}; name a newer one: make PYTHON=python3.13 ...\n")
        return 1
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.stderr.write(f"Install what is missing, then try again:\n\n    {remedy(absent)}\n\n")
        return 1
    sys.stderr.write(f"Installing {', '.join(packages(absent))} with apt-get; this takes a minute or two.\n")
    try:
        install(absent)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"apt-get failed: {error}\n")
        return 1
    absent = missing(names)
    for tool in absent:
        sys.stderr.write(f"Still missing after the installation: {tool.name} ({tool.why}).\n")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
