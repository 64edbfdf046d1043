"""The forward path's HTTP/1.1 client: kept-alive connections over the guard of `outbound`.

One exchange is one request written and one answer read, whole, within one deadline and one size. Nothing is
repeated here: each failure says whether any of the request was sent, and the caller decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
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


class _Watch:
    """Calls `late` when a deadline has passed, be it that nobody waits any more.

    Its timer stays from one deadline to the next: to set one for each answer would be dear.
    """

    __slots__ = ("_at", "_deadline", "_late", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[], None]) -> None:
        self._loop = loop
        self._late = late
        self._deadline = 0.0
        self._at = 0.0
        """When the timer goes off."""
        self._timer: asyncio.TimerHandle | None = None

    def until(self, deadline: float) -> None:
        """Watch for a deadline, in the loop's time, in place of the one before."""
        self._deadline = deadline
        if self._timer is None or self._at > deadline:
            self.end()
            self._set()

    def end(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._at = self._deadline
        self._timer = self._loop.call_at(self._at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline > self._at:
            self._set()
        else:
            self._late()


class _Connection(asyncio.Protocol):
    """One connection: idle, or in one exchange, or closed."""

    __slots__ = (
        "_body",
        "_done",
        "_headed",
        "_headers",
        "_limit",
        "_loop",
        "_parser",
        "_size",
        "_transport",
        "_unread",
        "_watch",
        "closed",
        "idle_since",
        "reusable",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        """One for all answers: it begins anew after each that leaves the connection open."""
        self._done: asyncio.Future[Answer] | None = None
        self._watch = _Watch(loop, self._late)
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self.closed = False
        self.reusable = False
        self.idle_since = 0.0

    def exchange(self, request: bytes, deadline: float, limit: int) -> asyncio.Future[Answer]:
        """Write a request and return the future of its answer. `deadline` is in the loop's time."""
        assert self._transport is not None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = []
        self._size = 0
        self._limit = limit
        self._headed = False
        self._unread = 0
        self.reusable = False
        self._done = self._loop.create_future()
        self._watch.until(deadline)
        self._transport.write(request)
        return self._done

    @property
    def usable(self) -> bool:
        """Whether another request may be written: neither side has begun to close."""
        return not (self.closed or self._transport is None or self._transport.is_closing())

    def close(self) -> None:
        """Drop the connection, and what came of an answer: the parser holds on to us for a while."""
        self._body.clear()
        self.closed = True
        self.reusable = False
        self._watch.end()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if exc is None and self._ends_with_connection():
            self._finish()
        else:
            self._fail(Unanswered("the connection was closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        if self._done is None:
            self.close()  # bytes nobody asked for: whatever comes next would be misread
            return
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Unanswered("the answer is not valid HTTP"))
        if self._unread > MAX_HEADERS and self._done is not None:
            # The parser shows a header when it is whole, and keeps one that never ends.
            self._fail(AnswerTooLarge("the headers of the answer are too large"))

    # the parser's callbacks

    def on_message_begin(self) -> None:
        if self._done is None:
            self.close()  # more than one answer: the rest would be taken for the answer to the next request
        self._headers = []
        self._body = []
        self._size = 0
        self._headed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            return  # a trailer is no header
        self._size += len(name) + len(value)
        if self._size > MAX_HEADERS:
            self._fail(AnswerTooLarge("the headers of the answer are too large"))
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._size = 0
        self._headed = True

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        self._size += len(body)
        if self._size > self._limit:
            self._fail(AnswerTooLarge(f"the answer has more than {self._limit} bytes"))
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if 100 <= self._parser.get_status_code() < 200:
            self._headed = False
            return  # 100-continue, early hints: the answer is still to come
        self.reusable = self._parser.should_keep_alive() and not self.closed
        self._finish()

    def _ends_with_connection(self) -> bool:
        """Whether this is the kind of answer whose end is the end of the connection."""
        framed = {b"content-length", b"transfer-encoding"}
        return self._done is not None and self._headed and not any(h[0] in framed for h in self._headers)

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None and not done.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()  # an idle connection need not keep what it brought last
            done.set_result(Answer(self._parser.get_status_code(), self._headers, body))

    def _late(self) -> None:
        if self._done is not None:
            self._fail(Late("no answer in time", sent=True))

    def _fail(self, error: ExchangeError) -> None:
        done, self._done = self._done, None
        if done is not None and not done.done():
            done.set_exception(error)
        self.close()


class Pool:
    """Connections to many origins, each kept for `idle_seconds` unused. Belongs to one event loop."""

    def __init__(self, guard: Guard, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._guard = guard
        self._idle_seconds = idle_seconds
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def exchange(self, url: Url, request: bytes, *, deadline: float, limit: int = MAX_ANSWER) -> Answer:
        """Send the whole text of a request to the origin of `url` and return the answer.

        `deadline` is a moment of the running loop's clock, `limit` the most bytes of the body. Raises an
        `ExchangeError`, or `EndpointRefused`; a cancelled exchange drops its connection.
        """
        loop = self._loop
        if loop is None:  # asking for it each time is a system call on some Pythons
            loop = self._loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= deadline:
            raise Late("no time is left", sent=False)
        origin = (url.scheme, url.host, url.port)
        connection = self._waiting(origin, now) or await self._open(url, deadline)
        try:
            answer = await connection.exchange(request, deadline, limit)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            connection.idle_since = loop.time()
            idle = self._idle.setdefault(origin, deque(maxlen=MAX_IDLE))
            if len(idle) == MAX_IDLE:
                idle.popleft().close()
            idle.append(connection)
            if self._sweeping is None:
                self._sweeping = loop.call_later(self._idle_seconds, self._sweep)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Drop every idle connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _waiting(self, origin: tuple[str, str, int], now: float) -> _Connection | None:
        idle = self._idle.get(origin)
        if not idle:
            return None
        oldest_good = now - self._idle_seconds
        while idle:
            connection = idle.pop()  # the one used last is the likeliest to be alive
            if connection.usable and connection.idle_since >= oldest_good:
                return connection
            connection.close()
        del self._idle[origin]
        return None

    def _sweep(self) -> None:
        """Drop what has been idle for too long: an origin may never be called again."""
        loop = asyncio.get_running_loop()
        oldest_good = loop.time() - self._idle_seconds
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].closed or idle[0].idle_since <= oldest_good):
                idle.popleft().close()
            if not idle:
                del self._idle[origin]
        self._sweeping = loop.call_later(self._idle_seconds, self._sweep) if self._idle else None

    async def _open(self, url: Url, deadline: float) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline) as time_left:
                _, protocol = await self._guard.dial(url, lambda: _Connection(loop))
        except OSError as error:
            if time_left.expired():
                raise Late("no connection in time", sent=False) from None
            raise NotSent("the autopilot cannot be reached") from error
        assert isinstance(protocol, _Connection)
        return protocol
