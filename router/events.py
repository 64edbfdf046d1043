"""Events: what happened, in the order it did, for whoever watches.

    ("event", ID)     {"type", "source", "payload", "trace_id", "at"}

They tell, and are kept for a month; what has to be proved is in the audit. An id is in the order of time.
One that was written by another process at the very same moment may appear before one already seen: whoever
goes on from an id can miss it, by the milliseconds that the processes' clocks and writes are apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from infra.clock import Clock, rfc3339
from infra.redact import Redactor
from infra.table import Item, Put, Table
from router.audit import Audit, Deed
from router.errors import StoreUnavailable

log = logging.getLogger("router")

T = TypeVar("T")

KEEP_SECONDS = 30 * 86_400
SCAN = 1_000
"""How many events one page looks through at most when only some type is asked for."""
_RECORDS = "event"
EVENT_ID = re.compile(r"[0-9]{13}-[A-Za-z0-9_]{1,64}-[0-9]{8}")


class News(NamedTuple):
    """An event that is not written yet. `kind` is its type, `source` who or what made it happen."""

    kind: str
    source: str
    payload: dict[str, Any]
    trace_id: str = ""


class Events:
    """Writes and reads events. `writer` is unique to this process."""

    def __init__(self, table: Table, *, clock: Clock, writer: str, redactor: Redactor) -> None:
        self._table = table
        self._clock = clock
        self._writer = writer
        self._redactor = redactor
        self._turn = asyncio.Lock()
        self._count = 0
        self._latest = 0
        self._news = asyncio.Event()
        self._closed = False

    async def publish(self, kind: str, source: str, payload: dict[str, Any], trace_id: str = "") -> str:
        """Write an event and return its id. `kind` is its type: `infra.heal`. Raises `StoreUnavailable`."""

        async def put(writes: list[Put]) -> str:
            [write] = writes
            await self._table.put(write.key, write.document, expires_at=write.expires_at)
            return write.key[1]

        return await self.together([News(kind, source, payload, trace_id)], put)

    async def together(self, news: Sequence[News], write: Callable[[list[Put]], Awaitable[T]]) -> T:
        """Let `write` write these events in its own transaction: with what they tell of, or not at all.

        Return what it returns. Raises what it raises.
        """
        async with self._turn:  # or one could be seen before another that comes earlier
            result = await write([self._put(one) for one in news])
        self._wake()
        return result

    def _put(self, news: News) -> Put:
        now = self._clock()
        self._latest = max(self._latest, int(now * 1000))  # also where the clock is put back
        self._count += 1
        document = {
            "type": news.kind,
            "source": self._redactor.text(news.source),
            "payload": self._redactor.value(news.payload),
            "trace_id": news.trace_id,
            "at": rfc3339(now),
        }
        event_id = f"{self._latest:013d}-{self._writer}-{self._count:08d}"
        return Put((_RECORDS, event_id), document, expires_at=now + KEEP_SECONDS)

    async def wait(self, seconds: float) -> bool:
        """Wait for an event of this process, or `seconds`: others' are only found by looking.

        Return whether there is any use in waiting on.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        return not self._closed

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        if not self._closed:
            self._news = asyncio.Event()

    async def page(
        self, *, after: str | None, limit: int, kind: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return events after an id, oldest first, and where to go on: None when these were the last.

        Of one `kind` only, a page may hold none and yet not be the last.
        """
        found: list[dict[str, Any]] = []
        seen = 0
        while True:
            page = await self._table.range(_RECORDS, after=after, limit=min(limit, 200))
            seen += len(page.items)
            for item in page.items:
                if kind is None or item.document["type"] == kind:
                    found.append(_shown(item))
                    if len(found) == limit:
                        last = item is page.items[-1] and page.after is None
                        return found, None if last else item.key[1]
            after = page.after
            if after is None or seen >= SCAN:
                return found, after


class Record:
    """Writes what was done where it belongs: into the audit, which must not miss it, and among the events."""

    def __init__(self, audit: Audit, events: Events) -> None:
        self._audit = audit
        self._events = events

    async def write(self, deed: Deed) -> None:
        """Record a deed. Raises `StoreUnavailable` when the audit does not take it."""
        await self._audit.write(deed)
        try:
            payload = {"target": deed.target, **deed.detail}
            await self._events.publish(deed.action, deed.actor, payload, deed.trace_id)
        except StoreUnavailable:
            log.warning("%s is in the audit, but not among the events", deed.action)


def is_id(text: str) -> bool:
    """Whether a text may be the id of an event."""
    return EVENT_ID.fullmatch(text) is not None


def _shown(item: Item) -> dict[str, Any]:
    document = item.document
    return {
        "id": item.key[1],
        "type": document["type"],
        "source": document["source"],
        "timestamp": document["at"],
        "payload": document["payload"],
        "trace_id": document["trace_id"],
    }
