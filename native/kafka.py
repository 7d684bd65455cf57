"""A real Apache Kafka from its published jars: fetch them, write server.properties, format the folder, start it.

The launcher runs one through the supervisor; the integration tests start their own on free ports:

    jars = prepare_jars(Path(".run/kafka/libs"))
    broker = Broker(folder, jars, port=19092, controller_port=19093)
    process = broker.start()            # formats the folder first, where it is new
    broker.wait_until_ready(process)
    process.kill(); process.wait()      # as a crash would
    process = broker.start()            # the same folder: the same topics, offsets and transactions
"""

import base64
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ConfigurationError, KafkaUnavailableError

ROOT = Path(__file__).resolve().parent.parent
POM = ROOT / "native" / "pom.xml"
SERVER = ROOT / "kafka" / "server.properties"
LOG4J = ROOT / "kafka" / "log4j2.properties"
_STAMP = "pom.sha256"  # in the folder of the jars: the digest of the pom.xml that they are from

# Half a GiB of heap carries this stack.
_JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")


def shared_properties() -> dict[str, str]:
    """What every Kafka of ours is told: kafka/server.properties, which docker-compose.yml mounts too."""
    lines = (line.strip() for line in SERVER.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def prepare_jars(libs: Path, say: Callable[[str], object] | None = None) -> Path:
    """Copy the jars that pom.xml names into `libs`, unless they are there already; return `libs`.

    A server is then started once, to archive its classes: from there every start takes half the CPU time.
    `say` gets Maven's lines as they come. Raises ConfigurationError if Maven is missing or fails.
    """
    if jars_ready(libs):
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError("Maven is missing: it fetches Kafka's jars. Debian: apt-get install maven")
    libs.parent.mkdir(parents=True, exist_ok=True)
    fresh = libs.with_name(f"{libs.name}.{os.getpid()}")  # renamed when whole, so that nobody sees half of it
    command = [maven, "-B", "--strict-checksums", "-f", str(POM), "prepare-package", f"-Dlibs={fresh.resolve()}"]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if say is not None:
                say(line.rstrip())
            last = line.strip() if "[ERROR]" in line and not last else last
    if process.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        raise ConfigurationError(f"Maven could not fetch Kafka's jars; {' '.join(command)} says: {last}")
    (fresh / _STAMP).write_text(_pom_digest())
    shutil.rmtree(libs, ignore_errors=True)
    fresh.rename(libs)
    if say is not None:
        say("starting a server once, to archive its classes")
    _archive_classes(libs)
    return libs


def jars_ready(libs: Path) -> bool:
    """Whether the jars that today's pom.xml names are in `libs`."""
    stamp = libs / _STAMP
    return stamp.is_file() and stamp.read_text() == _pom_digest()


def _pom_digest() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _archive(libs: Path) -> Path:
    return libs.with_name("classes.jsa")


def _archive_classes(libs: Path) -> None:
    """Have the JVM write down the classes that a server loads (class data sharing)."""
    archive = _archive(libs)
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-kafka-") as folder:
        port, controller_port = free_ports(2)
        broker = Broker(Path(folder), libs, port, controller_port)
        process = broker.start(extra=(f"-XX:ArchiveClassesAtExit={archive}",))
        try:
            broker.wait_until_ready(process)
        finally:
            process.terminate()
            process.wait()


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on at the moment."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def java() -> str:
    """The java to run: JAVA_HOME's, else the PATH's. Raises ConfigurationError if there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and (found := shutil.which("java", path=str(Path(home) / "bin"))):
        return found
    if found := shutil.which("java"):
        return found
    raise ConfigurationError(
        "Java is missing: Kafka needs 17 or later. Debian: apt-get install openjdk-17-jre-headless"
    )


def new_cluster_id() -> str:
    """A cluster id as Kafka writes them: a UUID in 22 characters of URL-safe base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")


@dataclass(frozen=True)
class Broker:
    """One Kafka server, broker and controller in one process, with all its files in `folder`.

    `voters` names every controller of a cluster as {node id: "host:port"}; empty, it is this one alone, and then
    its ports may change from one start to the next. Servers of one cluster share `cluster_id`.
    """

    folder: Path
    libs: Path
    port: int
    controller_port: int
    node_id: int = 1
    host: str = "127.0.0.1"
    voters: Mapping[int, str] = field(default_factory=dict)
    cluster_id: str = field(default_factory=new_cluster_id)
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def configuration(self) -> Path:
        return self.folder / "server.properties"

    def server_properties(self) -> dict[str, str]:
        """The whole content of server.properties."""
        voters = self.voters or {self.node_id: f"{self.host}:{self.controller_port}"}
        replicas = min(3, len(voters))
        in_sync = max(1, replicas - 1)
        return {
            **shared_properties(),
            "node.id": str(self.node_id),
            "listeners": f"BROKER://{self.host}:{self.port},CONTROLLER://{self.host}:{self.controller_port}",
            "controller.quorum.voters": ",".join(f"{node}@{address}" for node, address in voters.items()),
            "log.dirs": str(self.data.resolve()),
            "default.replication.factor": str(replicas),
            "min.insync.replicas": str(in_sync),
            "offsets.topic.replication.factor": str(replicas),
            "transaction.state.log.replication.factor": str(replicas),
            "transaction.state.log.min.isr": str(in_sync),
            **self.overrides,
        }

    def prepare(self) -> None:
        """Write server.properties, and format the folder where it is new."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}={value}\n" for key, value in self.server_properties().items()]
        self.configuration.write_text("".join(lines))
        if (self.data / "meta.properties").is_file():
            return
        done = subprocess.run(
            [*self._java(), "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format",
             "--cluster-id", self.cluster_id, "--config", str(self.configuration)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ConfigurationError(f"Kafka's folder {self.data} could not be formatted:\n{done.stdout}{done.stderr}")

    def command(self) -> list[str]:
        """The command that runs the prepared server in the foreground; SIGTERM stops it in order."""
        archive = _archive(self.libs.resolve())
        # Made by another JVM or from jars elsewhere, an archive is left unused, and nothing is said about it.
        sharing = (
            [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:class+path=off"] if archive.exists() else []
        )
        return [*self._java(), *_JVM, *sharing, "kafka.Kafka", str(self.configuration)]

    def start(self, extra: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Prepare and start the server as a child of this process, logging to folder/kafka.log.

        `extra` are options of the JVM.
        """
        self.prepare()
        java_command, *rest = self.command()
        with (self.folder / "kafka.log").open("ab") as output:
            return subprocess.Popen(
                [java_command, *extra, *rest],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_ready(self, process: "subprocess.Popen[bytes] | None" = None, seconds: float = 60.0) -> None:
        """Wait until the server answers. Raises KafkaUnavailableError if `process` ends or `seconds` pass first."""
        deadline = time.monotonic() + seconds
        while not speaks_kafka(self.host, self.port):
            if process is not None and process.poll() is not None:
                raise KafkaUnavailableError(f"Kafka ended with {process.returncode}; its log is in {self.folder}")
            if time.monotonic() > deadline:
                raise KafkaUnavailableError(f"Kafka on {self.bootstrap} did not answer within {seconds:.0f} s")
            time.sleep(0.05)

    def _java(self) -> list[str]:
        return [java(), f"-Dlog4j2.configurationFile={LOG4J}", "-cp", f"{self.libs.resolve()}/*"]


def speaks_kafka(host: str, port: int, seconds: float = 2.0) -> bool:
    """Whether a Kafka broker answers there: an ApiVersions request, version 0, comes back with our correlation id."""
    correlation = 0x51
    body = struct.pack(">hhih", 18, 0, correlation, -1)  # api key, version, correlation id, no client id
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.recv(8, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == 8 and struct.unpack(">ii", answer)[1] == correlation
