"""A TCP relay before the API server that can be cut: silently, holding what was sent, or with a reset."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter


class Relay:
    """Listens on a port of its own. TLS passes through it untouched."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._refusing = False
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()
        self._open.set()
        await asyncio.sleep(0)

    def hold(self) -> None:
        """Forward nothing more; what is sent meanwhile arrives when the relay is healed."""
        self._open.clear()

    def reset(self) -> None:
        """Cut all connections and refuse new ones."""
        self._refusing = True
        for writer in list(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        self._refusing = False
        self._open.set()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            above_reader, above = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(above)
        try:
            await asyncio.gather(self._pump(reader, above), self._pump(above_reader, writer))
        finally:
            for one in (writer, above):
                self._writers.discard(one)
                one.transport.abort()

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
