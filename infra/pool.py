"""The forward path's HTTP/1.1 client: kept-alive connections over the guard of `outbound`.

One exchange is one request written and one answer read, whole, within one deadline and one size. Nothing is
repeated here: each failure says whether any of the request was sent, and the caller decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple, cast

import httptools

from infra.outbound import Guard, Url

MAX_ANSWER = 5 << 20
MAX_HEADERS = 64 << 10
IDLE_SECONDS = 4.0
"""An unused connection is given up before common servers close it (after 5 s), so that a request is seldom
written to a connection that is just going away."""
MAX_IDLE = 256


class ExchangeError(Exception):
    """Base of what can go wrong in an exchange."""


class NotSent(ExchangeError):
    """Raise when no byte of the request left: it is safe to send it elsewhere."""


class Unanswered(ExchangeError):
    """Raise when the request was sent, wholly or in part, and no whole answer came."""


class AnswerTooLarge(Unanswered):
    """Raise when the answer is over the size limit."""


class Late(Unanswered):
    """Raise when the deadline passed. `sent` tells whether the request had left by then."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Answer(NamedTuple):
    """What came back. Header names are lower-case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection: idle, or in one exchange, or closed."""

    __slots__ = (
        "_body",
        "_done",
        "_headers",
        "_limit",
        "_loop",
        "_parser",
        "_size",
        "_timer",
        "_transport",
        "closed",
        "idle_since",
        "reusable",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False
        self.reusable = False
        self.idle_since = 0.0

    def exchange(self, request: bytes, deadline: float, limit: int) -> asyncio.Future[Answer]:
        """Write a request and return the future of its answer. `deadline` is in the loop's time."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._limit = limit
        self.reusable = False
        self._done = self._loop.create_future()
        self._timer = self._loop.call_at(deadline, self._late)
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        """Drop the connection."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail(Unanswered("the connection was closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        if self._done is None:
            self.close()  # bytes nobody asked for: whatever comes next would be misread
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Unanswered("the answer is not valid HTTP"))

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > MAX_HEADERS:
            self._fail(AnswerTooLarge("the headers of the answer are too large"))
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._size = 0

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._limit:
            self._fail(AnswerTooLarge(f"the answer has more than {self._limit} bytes"))
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100-continue, early hints: the answer is still to come
            self._parser = httptools.HttpResponseParser(self)
            return
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
        self.reusable = self._parser.should_keep_alive() and not self.closed
        if done is not None and not done.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            done.set_result(Answer(status, self._headers, body))

    def _late(self) -> None:
        self._fail(Late("no answer in time", sent=True))

    def _fail(self, error: ExchangeError) -> None:
        done, self._done = self._done, None
        if done is not None and not done.done():
            done.set_exception(error)
        self.close()


class Pool:
    """Connections to many origins. Belongs to one event loop."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}

    async def exchange(self, url: Url, request: bytes, *, deadline: float, limit: int = MAX_ANSWER) -> Answer:
        """Send the whole text of a request to the origin of `url` and return the answer.

        `deadline` is a moment of the running loop's clock, `limit` the most bytes of the body. Raises an
        `ExchangeError`; a cancelled exchange drops its connection.
        """
        origin = (url.scheme, url.host, url.port)
        connection = self._waiting(origin) or await self._open(url, deadline)
        try:
            answer = await connection.exchange(request, deadline, limit)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            idle = self._idle.setdefault(origin, deque(maxlen=MAX_IDLE))
            if len(idle) == MAX_IDLE:
                idle.popleft().close()
            idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Drop every idle connection."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _waiting(self, origin: tuple[str, str, int]) -> _Connection | None:
        idle = self._idle.get(origin)
        if not idle:
            return None
        oldest_good = asyncio.get_running_loop().time() - IDLE_SECONDS
        while idle:
            connection = idle.pop()  # the one used last is the likeliest to be alive
            if connection.closed:
                continue
            if connection.idle_since >= oldest_good:
                return connection
            connection.close()
        del self._idle[origin]
        return None

    async def _open(self, url: Url, deadline: float) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                _, protocol = await self._guard.dial(url, lambda: _Connection(loop))
        except OSError as error:
            if loop.time() >= deadline:
                raise Late("no connection in time", sent=False) from None
            raise NotSent("the autopilot cannot be reached") from error
        assert isinstance(protocol, _Connection)
        return protocol
