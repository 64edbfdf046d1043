"""Events: read them a page at a time, or have them sent as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from router.api.http import Call, Endpoint, Reply, encode, json, limit_of
from router.auth import Scope
from router.errors import AutopilotError, Invalid
from router.events import Events, is_id

POLL_SECONDS = 1.0
BEAT_SECONDS = 15.0
"""After so long without an event a comment is sent, so that nothing in between takes the line for dead."""
_RETRY = b"retry: 2000\n\n"
_PAGE = 200


class EventsApi:
    """`/autopilot/events`. `streams`: this process can answer for as long as somebody listens."""

    def __init__(self, events: Events, *, streams: bool, poll_seconds: float = POLL_SECONDS) -> None:
        self._events = events
        self._streams = streams
        self._poll_seconds = poll_seconds

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [Endpoint("GET", "/autopilot/events", Scope.READ, self.listing)]

    async def listing(self, call: Call) -> Reply:
        """List events, oldest first, or stream them."""
        query = call.query("after", "type", "limit")
        problems: list[tuple[str, str]] = []
        limit = limit_of(query, problems)
        last = call.headers.get(b"last-event-id")
        places = {
            "Last-Event-ID": None if last is None else last.decode("latin-1"),
            "after": query.get("after"),
        }
        given = {name: place for name, place in places.items() if place is not None}
        problems += [
            (name, "must be the id of an event") for name, place in given.items() if not is_id(place)
        ]
        if problems:
            raise Invalid(problems)
        after = next(iter(given.values()), None)
        kind = query.get("type")
        if b"text/event-stream" not in call.headers.get(b"accept", b""):
            found, following = await self._events.page(after=after, limit=limit, kind=kind)
            return json({"events": found, "next": following})
        # Read before anything is sent: a store that does not answer is still a problem.
        first, following = await self._events.page(after=after, limit=_PAGE, kind=kind)
        start = _RETRY + b"".join(map(_sent, first))
        if not self._streams:
            return Reply(200, start, media_type=b"text/event-stream")
        after = following or (first[-1]["id"] if first else after)
        return Reply(200, start, media_type=b"text/event-stream", stream=self._follow(after, kind))

    async def _follow(self, after: str | None, kind: str | None) -> AsyncIterator[bytes]:
        """Give what happens from now on. A store that does not answer is asked again."""
        now = asyncio.get_running_loop().time
        told = now()
        while True:
            try:
                found, following = await self._events.page(after=after, limit=_PAGE, kind=kind)
            except AutopilotError:
                found, following = [], None
            if found:
                yield b"".join(map(_sent, found))
                told = now()
            after = following or (found[-1]["id"] if found else after)
            if following is not None:
                continue
            if not await self._events.wait(self._poll_seconds):
                return
            if now() - told >= BEAT_SECONDS:
                yield b":\n\n"
                told = now()


def _sent(event: dict[str, Any]) -> bytes:
    """Return an event as the stream sends it: one line of JSON under its id and type."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event["id"].encode(), event["type"].encode(), encode(event))
