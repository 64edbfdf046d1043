"""Deadlines for callers: a look at every open connection each second, so that a request pays nothing for it.

What a connection waits for is read off what is there already. Where that has been the same thing for too
long, and it is the caller's to do, the connection is closed: answered 408 if a request was begun.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from router.errors import TooSlow
from router.strict import Strict

HEAD_SECONDS = 10.0
REQUEST_SECONDS = 12.0
"""Head and body together; an answer waits as long for a reader. The looks add up to two seconds to each."""
LEAVE_SECONDS = 3.0
"""For a caller to leave who was told that the connection is at its end."""

_STALLED, _LEAVING = "stalled", "leaving"


class _Watch:
    """What one connection waits for, and since when."""

    __slots__ = ("owed", "since", "unsent")

    def __init__(self) -> None:
        self.owed: object = None
        self.since = 0.0
        self.unsent = 0

    def look(self, connection: Strict, now: float) -> None:
        """End a connection that has waited for too long."""
        owed, seconds = self._owed_by(connection)
        if owed is not self.owed:
            self.owed, self.since = owed, now
        elif owed is not None and now - self.since >= seconds:
            if owed is connection.scope:
                connection.refuse(TooSlow(f"a request has to arrive in {seconds:.0f} seconds"))
                connection.transport.close()
            else:
                connection.transport.abort()

    def _owed_by(self, connection: Strict) -> tuple[object, float]:
        """Return what the caller owes, and the seconds it has; None when it is for us to do something."""
        cycle = connection.cycle
        scope: Any = connection.scope  # None before anything came
        before, self.unsent = self.unsent, connection.transport.get_write_buffer_size()
        if before and before == self.unsent:
            return _STALLED, REQUEST_SECONDS
        answering = cycle is not None and not cycle.response_complete and not cycle.more_body
        if answering or connection.transport.is_closing():
            return None, 0.0
        if connection.deaf:
            return _LEAVING, LEAVE_SECONDS
        if connection.flow.read_paused or connection.timeout_keep_alive_task is not None:
            return None, 0.0  # it is not read from; or idle, and uvicorn sees to that
        if cycle is not None and cycle.scope is scope:
            return (scope, REQUEST_SECONDS) if cycle.more_body else (cycle, HEAD_SECONDS)
        return (connection if scope is None else scope), HEAD_SECONDS


class Hurry:
    """Watches `connections`, which uvicorn adds to and takes from."""

    def __init__(self, connections: Collection[Any]) -> None:
        self._connections = connections
        self._watches: dict[Strict, _Watch] = {}

    def look(self, now: float) -> None:
        """Look at all of them, once a second. `now` is monotonic."""
        self._watches = {one: self._watches.get(one) or _Watch() for one in self._connections}
        for connection, watch in self._watches.items():
            watch.look(connection, now)
