"""Ports that forward to other ports, with connections that can be cut and healed."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any


class Proxy:
    """A proxy on the loopback interface, in its own thread. ways: port -> port; cuts: number of cut connections."""

    def __init__(self, ways: Mapping[int, int]) -> None:
        self.cuts = 0
        self._ways = ways
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.heal()

    def heal(self) -> None:
        """Forward connections."""
        self._do(self._listen())

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._do(self._hang_up())

    def close(self) -> None:
        """Cut, and end the thread."""
        self.cut()
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> None:
        for port, to in self._ways.items():
            serve = lambda reader, writer, to=to: self._lead(reader, writer, to)  # noqa: E731
            self._servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    async def _hang_up(self) -> None:
        for server in self._servers:
            server.close()
        self.cuts += len(self._open) // 2
        for writer in self._open:
            writer.transport.abort()
        self._servers, self._open = [], set()

    async def _finish(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: int) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", to)
        except OSError:  # nobody listens yet: whoever dials tries again
            writer.transport.abort()
            return
        self._open |= {writer, back}
        await asyncio.gather(_pour(reader, back), _pour(there, writer))
        self._open -= {writer, back}


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
