"""The peers' own environments: `make bench-peers-prepare`. Each is made once, and anew when its requirements change.

.run/peers/quix/bin/python         the packages of benchmarks/peers/quix.txt, in the versions that stand there
.run/peers/kafka-streams/libs      the jars of benchmarks/peers/kafka-streams/pom.xml
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from native.kafka import ROOT
from shared.errors import ConfigurationError

PEERS: Final = ROOT / "benchmarks" / "peers"
IN_PYTHON: Final = ("quix", "bytewax", "arroyo", "faust", "faststream")
_HOME: Final = ROOT / ".run" / "peers"
_STREAMS: Final = "kafka-streams"
_STAMP: Final = "sources.sha256"  # in each environment: the digest of what it was made from

Say = Callable[[str], object]


def python_of(peer: str, say: Say) -> Path:
    """The interpreter of the peer's environment, made first where it is missing or old.

    Raises ConfigurationError where its packages cannot be installed, for instance since they have no build for this
    Python.
    """
    requirements = PEERS / f"{peer}.txt"
    folder = _HOME / peer
    python = folder / "bin" / "python"
    digest = _digest([requirements], sys.version)
    if _stands(folder, digest):
        return python
    say(f"installing the packages of {requirements.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)])
    (folder / _STAMP).write_text(digest)
    return python


def jars_of_streams(say: Say) -> Path:
    """The folder of the jars of the program on Kafka Streams, built first where it is missing or old."""
    project = PEERS / _STREAMS
    folder = _HOME / _STREAMS
    digest = _digest([project / "pom.xml", *sorted(project.glob("src/**/*.java"))])
    if _stands(folder, digest):
        return folder / "libs"
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError("Maven is missing: it builds the peer on Kafka Streams. Debian: apt-get install maven")
    say(f"building {project.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([maven, "-B", "-q", "--strict-checksums", "-f", str(project / "pom.xml"), "package", f"-Dbuild={folder}"])
    (folder / _STAMP).write_text(digest)
    return folder / "libs"


def _stands(folder: Path, digest: str) -> bool:
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text() == digest


def _digest(files: list[Path], more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main() -> None:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    for peer in IN_PYTHON:
        python_of(peer, say)
    jars_of_streams(say)


if __name__ == "__main__":
    main()
