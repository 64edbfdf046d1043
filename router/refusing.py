"""uvicorn's HTTP protocol that can say no: in its turn, as a problem document, and so that it is read."""

from __future__ import annotations

from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from router.errors import AutopilotError
from router.problem import MEDIA_TYPE, document_of, status_of
from router.trace import Trace

MAX_IGNORED = 1 << 20
"""Bytes that are thrown away behind an answer that ends the connection."""


class _Deaf:
    """Stands where the parser was, once nothing a caller says is understood any more."""

    def feed_data(self, data: bytes) -> None:
        """Take no notice."""


_DEAF: Any = _Deaf()


class Refusing(HttpToolsProtocol):
    """One connection. `room` is how many bytes may come before something has to be complete."""

    # Not in uvicorn's own dictionary: with more than 30 attributes Python looks all of them up the slow way.
    __slots__ = ("room",)

    @property
    def deaf(self) -> bool:
        """Whether nothing more that comes will be understood."""
        return self.parser is _DEAF

    def refuse(self, error: AutopilotError) -> None:
        """Answer that what is coming in cannot be taken, in its turn, and end the connection."""
        cycle = self.cycle
        if self.transport.is_closing() or self.deaf:
            return
        self.logger.info("refused: %s", error)
        if cycle is None or cycle.response_complete:
            if cycle is None or cycle.scope is not self.scope or not cycle.more_body:
                self.tell(error)  # else it is the rest of what was answered without waiting for it
        elif not cycle.more_body:
            cycle.keep_alive = False  # it is something behind that request: answer this one, and no more
            self.ignore()
            return
        elif self.pipeline:
            cycle.keep_alive = cycle.more_body = False
            self.pipeline[0] = (cycle, _teller(error))
            self.ignore()
            return
        else:
            begun, cycle.response_started = cycle.response_started, True
            cycle.response_complete = cycle.disconnected = True  # for its app it is as if the caller had left
            cycle.message_event.set()
            if not begun:
                self.tell(error)
        self.hang_up()

    def hang_up(self) -> None:
        """Say that this is the end, and let the caller read it.

        What is still on its way is thrown away. A socket closed over it would be reset, and the answer lost.
        """
        self.ignore()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def tell(self, error: AutopilotError) -> None:
        """Write a refusal, whatever else was written before."""
        status, headers, body = _problem(error)
        lines = [STATUS_LINE[status].rstrip(), *(b"%b: %b" % header for header in headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))

    def ignore(self) -> None:
        """Understand nothing of what comes from now on."""
        self.parser, self.room = _DEAF, MAX_IGNORED


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
