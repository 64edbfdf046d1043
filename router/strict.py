"""uvicorn's HTTP protocol for callers nobody knows: strict about what a request is and when it arrives.

llhttp refuses most of what request smuggling is made of. What it lets pass is refused here: requests that
name no host or two, codings other than `chunked`, versions we do not speak, targets of another origin,
trailers, bodies behind an `Upgrade`, heads without an end. After a request whose end another server might see
elsewhere the connection is closed, so that nothing behind it is ever taken for the next one.

`hurry`, called every second, closes connections whose caller owes us something for too long. It looks at what
is there already: a request pays nothing for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from router.errors import AutopilotError, Malformed, Overloaded, TooLarge, TooSlow
from router.problem import MEDIA_TYPE, document_of, status_of
from router.trace import Trace

MAX_HEAD = 64 << 10
"""Bytes of a head, give or take what one read brings."""
MAX_FIELDS = 100
MAX_CHUNKED = 4 << 20
"""Bytes of a chunked body with all there is around its chunks."""
MAX_IGNORED = 1 << 20
"""Bytes that are thrown away behind an answer that ends the connection."""
MAX_CONNECTIONS = 10_000
"""Open at once."""

HEAD_SECONDS = 10.0
REQUEST_SECONDS = 12.0
"""Head and body together; an answer may wait for its reader as long. With `hurry` every second the caller has
up to two seconds more."""
LEAVE_SECONDS = 3.0
"""For a caller to leave who was told that the connection is at its end."""

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ORIGIN = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_VERSIONS = ("1.0", "1.1")
_BODIED = (b"POST", b"PUT", b"PATCH")


class _Deaf:
    """Stands where the parser was, once nothing a caller says is understood any more."""

    def feed_data(self, data: bytes) -> None:
        """Take no notice."""


class _NoTrailers(list[tuple[bytes, bytes]]):
    """Stands where the headers of a request were, once they are complete."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Refuse a field that came behind the body: uvicorn would put it among those that came before."""
        raise Malformed("fields behind a chunked body are not accepted")


_DEAF: Any = _Deaf()
_STALLED = object()


class Strict(HttpToolsProtocol):
    """One connection. At most `most` may be open at once; the next is turned away."""

    # Not in uvicorn's own dictionary: with more than 30 attributes Python looks all of them up the slow way.
    __slots__ = ("_host", "_most", "_owed", "_owed_since", "_room", "_unsent", "extensions")

    def __init__(self, *arguments: Any, most: int = MAX_CONNECTIONS, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._most = most
        self._host = b""  # one that was found well-formed
        self._room = MAX_HEAD  # bytes that may come before the next head is complete
        self.extensions: dict[str, Any] = {}
        self._owed: object = None
        self._owed_since = 0.0
        self._unsent = 0

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or turn it away: one that cannot be served would take from those that are."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._tell(Overloaded(f"{self._most} connections are open already", retry_after=1))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection."""
        super().connection_lost(exc)
        self._owed = None

    def data_received(self, data: bytes) -> None:
        """Parse what came. What is no request, or no single one, is refused and ends the connection."""
        self._unset_keepalive_if_required()
        self._room -= len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            reason = error.__context__  # what one of the callbacks below raised
            unclear = Malformed("this is no request of HTTP/1.1")
            self.refuse(reason if isinstance(reason, AutopilotError) else unclear)
        except httptools.HttpParserUpgrade:
            self.parser = _DEAF  # the rest would be of a protocol that is not spoken here
        if self._room < 0:
            if self.parser is _DEAF:
                self.transport.abort()
            else:
                self.refuse(TooLarge(f"the head of a request may have at most {MAX_HEAD} bytes"))

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
        last = odd and self._check(names)
        self._room = MAX_HEAD + int(length or 0)
        raw, _, query = (self._target() if odd else url).partition(b"?")
        path = raw.decode("ascii")
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw
        scope["query_string"] = query
        scope["extensions"] = self.extensions
        self.expect_100_continue = names.get(b"expect", b"").lower() == b"100-continue"
        self._begin(keep_alive=keep_alive and not last)
        if last:
            self._room += MAX_CHUNKED
            self.headers = _NoTrailers()

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

    def _target(self) -> bytes:
        """Return what is asked for without the origin that may stand before it."""
        return self.url if self.url[:1] == b"/" else _ORIGIN.sub(b"", self.url, 1) or b"/"

    def _begin(self, *, keep_alive: bool) -> None:
        """Let the app answer, now or when it has answered what came before."""
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

    def _check(self, names: Mapping[bytes, bytes]) -> bool:
        """Look closer at a request that is not like most. Return whether it has to be the last.

        Raises `Malformed`. Lengths that are wrong, given twice or beside a coding are llhttp's to refuse.
        """
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise Malformed("this server speaks HTTP/1.1")
        if len(self.headers) > MAX_FIELDS:
            raise Malformed(f"a request may have at most {MAX_FIELDS} header fields")
        self._check_host(required=version == "1.1")
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (version != "1.1" or len(codings) > 1 or codings[0].lower() != b"chunked"):
            raise Malformed("the only transfer coding is chunked")
        upgrade = self.parser.should_upgrade()
        unsized = b"content-length" not in names
        if upgrade and (codings or not unsized):
            raise Malformed("there is nothing to upgrade to, and a body is not sent before one")
        return upgrade or bool(codings) or (unsized and self.parser.get_method() in _BODIED)

    def _check_host(self, *, required: bool) -> None:
        """Raise `Malformed` unless one host is named, and it is the same all over."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (required and not hosts):
            raise Malformed("a request names its host, and once")
        host = hosts[0] if hosts else b""
        if not _HOST.fullmatch(host):
            raise Malformed("the Host header is none")
        if self.url[:1] != b"/" and self.url != b"*":
            origin = _ORIGIN.match(self.url)
            if origin is None or origin[1].lower() != host.lower():
                raise Malformed("this server is no proxy for other hosts")
        if hosts:
            self._host = host

    # refusing

    def refuse(self, error: AutopilotError) -> None:
        """Answer that what is coming in cannot be taken, in its turn, and end the connection."""
        cycle = self.cycle
        if self.transport.is_closing() or self.parser is _DEAF:
            return
        self.logger.info("refused: %s", error)
        if cycle is None or cycle.response_complete:
            if cycle is None or cycle.scope is not self.scope or not cycle.more_body:
                self._tell(error)  # else it is the rest of what was answered without waiting for it
        elif not cycle.more_body:
            cycle.keep_alive = False  # it is something behind that request: answer this one, and no more
            self.parser, self._room = _DEAF, MAX_IGNORED
            return
        elif self.pipeline:
            cycle.keep_alive = cycle.more_body = False
            self.pipeline[0] = (cycle, _teller(error))
            self.parser, self._room = _DEAF, MAX_IGNORED
            return
        else:
            begun, cycle.response_started = cycle.response_started, True
            cycle.response_complete = cycle.disconnected = True  # for its app it is as if the caller had left
            cycle.message_event.set()
            if not begun:
                self._tell(error)
        self.hang_up()

    def hang_up(self) -> None:
        """Say that this is the end, and let the caller read it.

        What is still on its way is thrown away. A socket closed over it would be reset, and the answer lost.
        """
        self.parser, self._room = _DEAF, MAX_IGNORED
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _tell(self, error: AutopilotError) -> None:
        status, headers, body = _problem(error)
        lines = [STATUS_LINE[status].rstrip(), *(b"%b: %b" % header for header in headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))

    # hurrying

    def hurry(self, now: float) -> None:
        """End the connection when its caller has owed us the same for too long. `now` is monotonic."""
        owed, seconds = self._owing()
        if owed is not self._owed:
            self._owed, self._owed_since = owed, now
        elif owed is not None and now - self._owed_since >= seconds:
            if owed is self.scope:
                self.refuse(TooSlow(f"a request has to arrive in {seconds:.0f} seconds"))
                self.transport.close()
            else:
                self.transport.abort()

    def _owing(self) -> tuple[object, float]:
        """Return what the caller owes us, and the seconds it has; None when it is for us to do something."""
        cycle, scope = self.cycle, cast(object, self.scope)  # none before anything came
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent:
            return _STALLED, REQUEST_SECONDS
        answering = cycle is not None and not cycle.response_complete and not cycle.more_body
        if answering or self.transport.is_closing():
            return None, 0.0
        if self.parser is _DEAF:
            return _DEAF, LEAVE_SECONDS
        if self.flow.read_paused or self.timeout_keep_alive_task is not None:
            return None, 0.0  # it is not read from; or idle, and uvicorn sees to that
        if cycle is not None and cycle.scope is scope:
            return (scope, REQUEST_SECONDS) if cycle.more_body else (cycle, HEAD_SECONDS)
        return (self if scope is None else scope), HEAD_SECONDS


def hurry(connections: Iterable[Any], now: float) -> None:
    """Look at every open connection."""
    for connection in tuple(connections):
        connection.hurry(now)


def _problem(error: AutopilotError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of a refusal."""
    body = msgspec.json.encode(document_of(error, Trace().id))
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    if "retry_after" in error.extra:
        headers.append((b"retry-after", b"%d" % error.extra["retry_after"]))
    return status_of(error), headers, body


def _teller(error: AutopilotError) -> Any:
    """Return an app that answers with a refusal."""

    async def app(_: Any, __: Any, send: Any) -> None:
        status, headers, body = _problem(error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
