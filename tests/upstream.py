"""An autopilot on a real socket that does what a test tells it to, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(self.body)


@dataclass
class Told:
    """What to answer, `after` how many seconds. `hang` answers nothing; `cut` closes after the bytes."""

    status: int = 200
    body: bytes = b'{"done":true}'
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False
    after: float = 0.0


Tell = Callable[[Received], Told]


class Upstream:
    """A loopback server. `tell` decides each answer; by default every request gets a 200."""

    def __init__(self) -> None:
        self.tell: Tell = lambda _: Told()
        self.received: list[Received] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._hanging = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def tasks(self) -> list[Received]:
        """The tasks it was sent; probes of its health are left out."""
        return [one for one in self.received if one.path.split("?")[0].endswith("/tasks")]

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        self._hanging.set()
        assert self._server is not None
        self._server.close()
        writers = list(self._writers)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Received(method, path, headers, body)
                self.received.append(request)
                told = self.tell(request)
                if told.hang:
                    await self._hanging.wait()
                    return
                if told.after:
                    await asyncio.sleep(told.after)
                lines = [f"HTTP/1.1 {told.status} X", f"content-length: {len(told.body)}"]
                lines += [f"{name}: {value}" for name, value in told.headers.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
                writer.write(told.body[: len(told.body) // 2] if told.cut else told.body)
                await writer.drain()
                if told.cut:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            self._writers.discard(writer)


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """Give a running upstream."""
    one = Upstream()
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
