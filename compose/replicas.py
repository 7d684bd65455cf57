"""Where the services are, among containers: for Prometheus, and for who asks for standardization's one port.

    python -m compose.replicas /targets standardization:8002 ingestion:8001 processing:8003 ...

The first service may run in several copies (`--scale standardization=3`), which Docker's DNS knows under one name, and
whose port can't be published several times. So this program does for them what has to be done once:

- it writes targets/<service>.json, the files that prometheus/prometheus.yml reads: a target for each copy of the first
  service, under its container's name; a name that does not resolve stays a target, so that it is seen to be down;
- it listens on the first service's port, and passes each connection on to one of the copies, in turn.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOOK_S = 2.0  # between two questions to the DNS
CONNECT_S = 2.0
STOPPED = b'{"detail": "no copy of the service takes the connection"}\n'

Copies = Mapping[str, str]  # address -> the name of the container that has it


def targets(service: str, port: int, copies: Copies) -> list[dict[str, object]]:
    """The content of a targets file. Without any copy the service's own name is the target: it will be seen as down."""
    if not copies:
        return [{"targets": [f"{service}:{port}"]}]
    return [
        {"targets": [f"{address}:{port}"], "labels": {"instance": f"{name}:{port}"}}
        for address, name in sorted(copies.items(), key=lambda copy: (copy[1], copy[0]))
    ]


def write(folder: Path, service: str, content: list[dict[str, object]]) -> bool:
    """Put a targets file in its place, whole or not at all. False if it said so already."""
    path = folder / f"{service}.json"
    text = json.dumps(content, indent=1) + "\n"
    if path.exists() and path.read_text() == text:
        return False
    partial = path.with_suffix(".new")
    partial.write_text(text)
    partial.replace(path)
    return True


def resolve(service: str) -> Copies:
    """The copies that Docker's DNS knows now. Names are `<project>-<service>-<number>`, without the network's."""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(service, None, socket.AF_INET, socket.SOCK_STREAM)}
    except socket.gaierror:
        return {}
    copies = {}
    for address in found:
        try:
            copies[address] = socket.gethostbyaddr(address)[0].split(".")[0]
        except OSError:
            copies[address] = address
    return copies


class Front:
    """Passes connections on to the copies of a service, in turn; one that can't be reached is passed over."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses: Sequence[str] = ()
        self._turn = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Begin to listen."""
        return await asyncio.start_server(self._pass_on, host, port)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await self._connected()
        except OSError:
            await _read_head(reader)
            head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(STOPPED)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + STOPPED)
            await _closed(writer)
            return
        try:
            await asyncio.gather(_copied(reader, back), _copied(there, writer))
        finally:
            await asyncio.gather(_closed(back), _closed(writer))

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the next copy that takes one. Raises OSError if none does."""
        for _ in range(len(self.addresses)):
            self._turn += 1
            address = self.addresses[self._turn % len(self.addresses)]
            with suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(address, self.port), CONNECT_S)
        raise ConnectionRefusedError("no copy takes the connection")


async def _read_head(reader: asyncio.StreamReader) -> None:
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECT_S)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read until its end, then pass the end on too."""
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def _closed(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()


async def run(folder: Path, services: Sequence[tuple[str, int]]) -> None:
    (copied, port), *single = services
    front = Front(port)
    server = await front.serve("0.0.0.0", port)  # noqa: S104 - in its container; the engine publishes it on loopback
    for service, its_port in single:
        write(folder, service, [{"targets": [f"{service}:{its_port}"]}])
    async with server:
        while True:
            copies = await asyncio.to_thread(resolve, copied)
            front.addresses = sorted(copies)
            if write(folder, copied, targets(copied, port, copies)):
                sys.stdout.write(
                    json.dumps({"event": "copies", "service": copied, "names": sorted(copies.values())}) + "\n"
                )
            await asyncio.sleep(LOOK_S)


def main(folder: str, *services: str) -> None:
    named = [(name, int(port)) for name, _, port in (each.partition(":") for each in services)]
    with suppress(KeyboardInterrupt):
        asyncio.run(run(Path(folder), named))


if __name__ == "__main__":
    main(*sys.argv[1:])
