"""The network between services and brokers, as TCP proxies that can be cut, stalled, slowed, or robbed of one answer.

network = Network()
link = network.link(target_port)     # clients connect to link.port
link.cut(); ...; link.mend()
link.lose_answer(END_TXN)            # the next request of this kind arrives, and its answer does not
"""

import asyncio
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"
TXN_OFFSET_COMMIT: Final = 28
END_TXN: Final = 26
_LIMIT: Final = 64 * 1024


class Link:
    """One way to one broker. Its methods are called from any thread and hold for all of its connections."""

    def __init__(self, network: "Network", target_port: int) -> None:
        self._network = network
        self._target_port = target_port
        self._cut = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay_s = 0.0
        self._ambush: int | None = None
        self._sprung = threading.Event()
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._reset()

    # what may happen to it

    def cut(self) -> None:
        """Reset every connection, and every new one at once."""

        def now() -> None:
            self._cut = True
            self._reset()

        self._network.soon(now)

    def stall(self) -> None:
        """Hold what is sent, either way, without a word: as a cable pulled out."""
        self._network.soon(self._flowing.clear)

    def delay(self, seconds: float) -> None:
        """Add this to every message, either way."""
        self._delay_s = seconds

    def lose_answer(self, api_key: int) -> threading.Event:
        """Let the next request of this kind through, and reset its connection when the broker has answered it.

        The event is set when that has happened.
        """
        self._sprung = threading.Event()
        self._ambush = api_key
        return self._sprung

    def mend(self) -> None:
        """As good as new. What a stall held is sent now."""

        def now() -> None:
            self._cut = False
            self._ambush = None
            self._delay_s = 0.0
            self._flowing.set()

        self._network.soon(now)

    # how it works

    def _reset(self) -> None:
        for connection in list(self._open):
            connection.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            upstream = await asyncio.open_connection(HOST, self._target_port, limit=_LIMIT)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, upstream[1])
        self._open.add(connection)
        try:
            await asyncio.gather(
                self._requests(connection, reader, upstream[1]), self._answers(connection, upstream[0], writer)
            )
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone, so the other goes, too
        finally:
            connection.reset()
            self._open.discard(connection)

    async def _requests(
        self, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            size, body = await _message(reader)
            api_key, _, correlation = struct.unpack_from(">hhi", body)
            await self._pass()
            if api_key == self._ambush:
                self._ambush = None
                connection.awaited = correlation
            writer.write(size + body)
            await writer.drain()

    async def _answers(
        self, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            size, body = await _message(reader)
            await self._pass()
            if connection.awaited == struct.unpack_from(">i", body)[0]:
                self._sprung.set()
                connection.reset()
                return
            writer.write(size + body)
            await writer.drain()

    async def _pass(self) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await self._flowing.wait()


class _Connection:
    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.awaited: int | None = None  # the correlation id of the request whose answer is lost

    def reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    size = await reader.readexactly(4)
    return size, await reader.readexactly(struct.unpack(">i", size)[0])


class Network:
    """All links, served by one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: list[Link] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            self.soon(link.close)
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, target_port: int) -> Link:
        made = Link(self, target_port)
        self._links.append(made)
        self._wait(made.listen())
        return made

    def soon(self, what: Any) -> None:
        """Do it in the network's thread, and wait until it is done."""

        async def done() -> None:
            what()

        self._wait(done())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(10)

    @staticmethod
    async def _end() -> None:
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
