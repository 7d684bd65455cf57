"""Three Kafka servers in KRaft, brokers and controllers in one, and between them and each service a network of its own.

Every server has a listener for each service, advertised at the port of a proxy: so one service can be cut off
from one broker while all the others talk on.
"""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient

from native.kafka import Broker, free_ports, java, new_cluster_id
from tests.chaos.network import HOST, Link, Network

NODES: Final = (1, 2, 3)


class Cluster:
    """The servers, by node id, and the links, by service and node id."""

    def __init__(
        self, folder: Path, libs: Path, network: Network, services: Sequence[str], nodes: Sequence[int] = NODES
    ) -> None:
        controllers = dict(zip(nodes, free_ports(len(nodes)), strict=True))
        ports = iter(free_ports(len(nodes) * (1 + len(services))))
        voters = {node: f"{HOST}:{port}" for node, port in controllers.items()}
        cluster_id = new_cluster_id()
        self.brokers: dict[int, Broker] = {}
        self.links: dict[str, dict[int, Link]] = {service: {} for service in services}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for node in nodes:
            own = next(ports)
            behind = {service: next(ports) for service in services}
            for service, port in behind.items():
                self.links[service][node] = network.link(port)
            self.brokers[node] = Broker(
                folder / f"node-{node}",
                libs,
                own,
                controllers[node],
                node_id=node,
                voters=voters,
                cluster_id=cluster_id,
                overrides=self._listeners(node, own, controllers[node], behind),
            )

    def _listeners(self, node: int, own: int, controller: int, behind: dict[str, int]) -> dict[str, str]:
        listeners = [f"BROKER://{HOST}:{own}", f"CONTROLLER://{HOST}:{controller}"]
        advertised = [f"BROKER://{HOST}:{own}"]
        for service, port in behind.items():
            listeners.append(f"{service.upper()}://{HOST}:{port}")
            advertised.append(f"{service.upper()}://{HOST}:{self.links[service][node].port}")
        names = ["BROKER", "CONTROLLER", *map(str.upper, behind)]
        return {
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
            "num.network.threads": "1",  # of each listener
        }

    def __enter__(self) -> Self:
        try:
            for node in self.brokers:
                self.start(node)
            for node in self.brokers:
                self.wait_until_ready(node)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Past the proxies: for the test's own clients."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def bootstrap_of(self, service: str) -> str:
        return ",".join(f"{HOST}:{link.port}" for link in self.links[service].values())

    # servers

    def start(self, node: int) -> None:
        self._processes[node] = self.brokers[node].start()

    def wait_until_ready(self, node: int) -> None:
        self.brokers[node].wait_until_ready(self._processes[node])

    def kill(self, node: int) -> None:
        """As a crash would."""
        self._processes[node].kill()
        self._processes[node].wait()

    def shut_down(self, node: int) -> None:
        """In order: it hands over its leaders first."""
        self._processes[node].terminate()
        self._processes[node].wait(60)

    def freeze(self, node: int) -> None:
        self._processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        self._processes[node].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()  # nothing of it is needed any more
        for process in self._processes.values():
            process.wait()

    # leaders

    def leaders(self) -> dict[tuple[str, int], int]:
        """Who leads each partition."""
        found = self._admin().list_topics(timeout=10)
        return {
            (topic, partition): about.leader
            for topic, metadata in found.topics.items()
            for partition, about in metadata.partitions.items()
        }

    def elect_preferred(self) -> None:
        """Give every partition to the first of its replicas, as an operator does after a restart."""
        admin = self._admin()  # named, for the election ends with it
        admin.elect_leaders(ElectionType.PREFERRED, None).result(20)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def tool(self, name: str, *arguments: str) -> str:
        """What one of Kafka's own command-line tools says."""
        any_broker = next(iter(self.brokers.values()))
        done = subprocess.run(
            [java(), "-cp", f"{any_broker.libs.resolve()}/*", f"org.apache.kafka.tools.{name}",
             "--bootstrap-server", self.bootstrap, *arguments],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # the network

    @contextmanager
    def mending(self, *services: str) -> Iterator[list[Link]]:
        """The links of these services; whatever is done to them is over at the end of the block."""
        links = [link for service in services for link in self.links[service].values()]
        try:
            yield links
        finally:
            for link in links:
                link.mend()
