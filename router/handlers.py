"""What AWS Lambda calls: `http` for the events of function URLs, APIs and load balancers.

One process keeps one event loop and builds the system on it once, so connections and what was read from the
store live from event to event. Nothing runs between events: what has to be kept is kept before the answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from infra.body import Receive
from router import gateway
from router.api.http import Send
from router.errors import Invalid, Malformed, StoreUnavailable
from router.settings import Settings, read
from router.wiring import System, build

log = logging.getLogger("router")

WHERE = "AWS Lambda"
"""What is served on, for the settings: no loopback, so a key is needed and `local` is refused."""
_TEXT = ["text/", "application/json", "application/problem+json", "application/javascript", "image/svg+xml"]
_TURNS = 3

Adapter = Callable[[dict[str, Any], Any], dict[str, Any]]


class Process:
    """What one process keeps from event to event."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._loop: asyncio.AbstractEventLoop | None = None
        self._system: System | None = None
        self._adapter: Adapter | None = None

    def http(self, event: object, context: object) -> dict[str, Any]:
        """Answer an HTTP event; any other is answered 400.

        Raises `Invalid` for settings nobody can be served with.
        """
        try:
            request = gateway.read(event)
            adapter = self._adapter or self._start(request.domain)
        except (Malformed, StoreUnavailable) as error:
            log.warning("refused an event: %s", error)
            return gateway.refusal(event, error)
        asyncio.set_event_loop(self._loop)  # the one that Mangum runs an event on
        return adapter(request.event, context)

    def close(self) -> None:
        """Let go of everything."""
        loop, system = self._loop, self._system
        if loop is not None and system is not None:
            loop.run_until_complete(system.close())
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            asyncio.set_event_loop(None)
            loop.close()
            self._loop = self._system = self._adapter = None

    def _start(self, domain: str) -> Adapter:
        from mangum import Mangum

        settings = read(self._environment, host=WHERE)
        url = settings.public_url or (f"https://{domain}" if domain else "")
        if not url:
            unknown = "is needed: the event does not tell where the function is reached"
            raise Invalid([("AUTOPILOT_PUBLIC_URL", unknown)])
        loop = asyncio.new_event_loop()
        try:
            self._system = loop.run_until_complete(_build(settings, url))
        except BaseException:
            loop.close()
            raise
        self._loop = loop
        asyncio.set_event_loop(loop)
        self._adapter = Mangum(self._answer, lifespan="off", text_mime_types=_TEXT)
        return self._adapter

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, and keep what it leaves behind."""
        assert self._system is not None
        for _ in range(_TURNS):  # whoever hung up since the last event is heard of before anything is sent
            await asyncio.sleep(0)
        scope["client"] = (scope["aws.event"]["client"], 0)
        try:
            await self._system.app(scope, receive, send)
        finally:
            await self._system.inside.journal.flush()


async def _build(settings: Settings, url: str) -> System:
    return build(settings, url=url, stays=False)


http = Process(os.environ).http
