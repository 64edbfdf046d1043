"""uvicorn's HTTP protocol for callers nobody knows: requests that can be read in two ways are refused.

So are trailers, heads without an end, and more connections than there is room for. A refusal is answered in
its turn, as a problem document, and ends the connection. See `router.framing` for what is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from router.errors import AutopilotError, Malformed, Overloaded, TooLarge
from router.framing import Head, judge, path_of
from router.refusing import Refusing

MAX_HEAD = 64 << 10
"""Bytes of a head, give or take what one read brings."""
MAX_CHUNKED = 4 << 20
"""Bytes of a chunked body with all there is around its chunks."""
MAX_WAITING = 100
"""Requests of one connection that wait for the answer to another."""
MAX_CONNECTIONS = 10_000
"""Open at once."""


class _NoTrailers(list[tuple[bytes, bytes]]):
    """Stands where the headers of a request were, once they are complete."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Refuse a field that came behind the body: uvicorn would put it among those that came before."""
        raise Malformed("fields behind a chunked body are not accepted")


class Strict(Refusing):
    """One connection. At most `most` may be open at once; the next is turned away."""

    # Not in uvicorn's own dictionary: with more than 30 attributes Python looks all of them up the slow way.
    __slots__ = ("_host", "_most", "extensions")

    def __init__(self, *arguments: Any, most: int = MAX_CONNECTIONS, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._most = most
        self._host = b""  # one that was found well-formed
        self.room = MAX_HEAD
        self.extensions: dict[str, Any] = {}

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or turn it away: one that cannot be served would take from those that are."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self.tell(Overloaded(f"{self._most} connections are open already", retry_after=1))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what came. What is no request, or no single one, is refused and ends the connection."""
        self._unset_keepalive_if_required()
        self.room -= len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._refuse(error.__context__)
        except httptools.HttpParserUpgrade:
            self.ignore()  # the rest would be of a protocol that is not spoken here
        if self.room < 0:
            if self.deaf:
                self.transport.abort()
            else:
                self.refuse(TooLarge(f"the head of a request may have at most {MAX_HEAD} bytes"))

    def _refuse(self, reason: BaseException | None) -> None:
        """Refuse what the parser stopped at, or one of its callbacks below."""
        if isinstance(reason, AutopilotError):
            self.refuse(reason)
            return
        if reason is not None:
            self.logger.error("a request could not be taken", exc_info=reason)
        self.refuse(Malformed("this is no request of HTTP/1.1"))

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin with a request, unless it could be understood in two ways."""
        parser, url, scope = self.parser, self.url, cast(dict[str, Any], self.scope)
        names = dict(self.headers)
        length = names.get(b"content-length")
        odd = (
            length is None
            or len(names) != len(self.headers)
            or names.get(b"host") != self._host
            or url[:1] != b"/"
            or parser.should_upgrade()
        )
        keep_alive = parser.should_keep_alive()
        if b"connection" in names or not keep_alive:  # without that field only HTTP/1.1 is kept alive
            scope["http_version"] = version = parser.get_http_version()
            keep_alive = keep_alive and version == "1.1"
            odd = odd or version != "1.1"
        last = odd and self._judge()
        self.room = MAX_HEAD + int(length or 0)
        raw, _, query = (path_of(url) if odd else url).partition(b"?")
        path = raw.decode("ascii")
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw
        scope["query_string"] = query
        scope["extensions"] = self.extensions
        self.expect_100_continue = names.get(b"expect", b"").lower() == b"100-continue"
        self._begin(keep_alive=keep_alive and not last)
        if last:
            self.room += MAX_CHUNKED
            self.headers = _NoTrailers()

    def _judge(self) -> bool:
        """Look closer at a request that is not like most. See `judge`."""
        parser = self.parser
        version, upgrade = parser.get_http_version(), parser.should_upgrade()
        head = Head(parser.get_method(), self.url, version, self.headers, upgrade)
        last = judge(head)
        self._host = next(iter(head.values(b"host")), self._host)
        return last

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        cycle = self.cycle
        if cycle.response_complete:
            raise Malformed("the answer did not wait for this body")
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Take note that a request is there as a whole."""
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def _begin(self, *, keep_alive: bool) -> None:
        """Let the app answer, now or when it has answered what came before."""
        if len(self.pipeline) >= MAX_WAITING:
            raise Malformed("too many requests before the first is answered")
        before = self.cycle
        self.cycle = cycle = RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
