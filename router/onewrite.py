"""Our HTTP protocol under uvicorn, with a short cut for answers that are there as a whole.

ASGI sends an answer in two messages, which uvicorn writes apart: two awaits, two system calls and two packets
each time. Here the scope's extension `autopilot.whole` takes status, headers and body at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from router.api.http import WHOLE
from router.strict import Strict


class OneWrite(Strict):
    """The protocol that `serve` gives uvicorn."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # One for all requests of a connection. A scope that led to its own request would be a circle, which
        # only the garbage collector can free.
        self.extensions[WHOLE] = self._answer

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the circle through this object too."""
        super().connection_lost(exc)
        self.extensions.clear()

    def _answer(
        self, scope: Mapping[str, Any], status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Answer a request in one write. False when that cannot be done now: ASGI's way is still open."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.response_started or cycle.flow.write_paused:
            return False  # the first: a pipelined request came in meanwhile
        if cycle.more_body:  # it need not be waited for: the answer does not depend on the rest
            cycle.keep_alive = False
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(headers) + 1 + (not cycle.keep_alive):
            raise ValueError("a header has a line break")
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.transport.write(head + b"\r\n" if scope["method"] == "HEAD" else b"%b\r\n%b" % (head, body))
        if cycle.more_body:
            self.hang_up()
        elif not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True
