"""A loopback server that answers with exactly the bytes a test chooses, and counts what reaches it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from infra.outbound import parse_url
from infra.pool import Answer, Pool

Play = Callable[[bytes, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; says whether the connection is kept."""


def ok(body: bytes = b"{}", *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole answer with a content length."""
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def says(*pieces: bytes, close: bool = False) -> Play:
    """Play pieces, each in a write of its own; then close, or wait for the next request."""

    async def play(_: bytes, writer: asyncio.StreamWriter) -> bool:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return not close

    return play


def trickles(head: bytes, piece: bytes) -> Play:
    """Play a head, then the same piece again and again until the other side leaves."""

    async def play(_: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return False

    return play


class Scripted:
    """The server. `play` answers every request; requests are kept whole, head and body."""

    def __init__(self, play: Play, greeting: bytes = b"") -> None:
        self.play = play
        self.greeting = greeting
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a request or the end of a connection has made something true."""
        async with asyncio.timeout(5):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def until_left(self) -> None:
        """Wait until no connection is open."""
        await self.until(lambda: self.connections > 0 and self.open == 0)

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for writer in self.writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        self.open += 1
        self.writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            writer.write(self.greeting)
            while True:
                request = await _request(reader)
                self.requests.append(request)
                self._changed.set()
                if not await self.play(request, writer):
                    break
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            self._changed.set()
            writer.close()

    async def end(self) -> None:
        """Let go of every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def target_of(request: bytes) -> str:
    """Return the target in a request's first line."""
    return request.split(b" ", 2)[1].decode()


def headers_of(request: bytes) -> list[tuple[str, str]]:
    """Return the headers of a request in their order, names as they were sent."""
    lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def body_of(request: bytes) -> bytes:
    """Return the body of a request."""
    return request.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def scripted(
    play: Play, tls: ssl.SSLContext | None = None, *, greeting: bytes = b""
) -> AsyncIterator[Scripted]:
    """Give a running server. `greeting` is what it says before it was asked anything."""
    one = Scripted(play, greeting)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls, limit=1 << 25)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await one.end()


async def refused_port() -> int:
    """Return a loopback port that nobody listens on."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def get(
    pool: Pool, server: Scripted | str, path: str = "/", *, seconds: float = 5.0, limit: int = 1 << 20
) -> Answer:
    """Send a small request and return the answer."""
    url = parse_url((server if isinstance(server, str) else server.url) + path)
    request = f"GET {url.target()} HTTP/1.1\r\nhost: {url.authority}\r\n\r\n".encode()
    return await pool.exchange(
        url, request, deadline=asyncio.get_running_loop().time() + seconds, limit=limit
    )


class Dns:
    """A resolver with successive answers per host; the last one repeats. It counts its look-ups."""

    def __init__(self, answers: dict[str, Sequence[Sequence[str]]]) -> None:
        self.answers = answers
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.lookups.append(host)
        rows = self.answers.get(host)
        if rows is None:
            raise OSError(f"{host} does not resolve")
        return list(rows[min(self.lookups.count(host), len(rows)) - 1])
