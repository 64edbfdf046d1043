"""What happened, kept for later: one log row per forwarded task.

Rows are committed in groups, at most `DELAY_SECONDS` after they were written, as one document of many rows:
a busy router pays one write for hundreds of them.

    ("log:2026-01-31", MILLISECONDS-WRITER-NUMBER)     {"rows": [row, …]}, kept for `KEEP_SECONDS`
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from infra.clock import Clock, rfc3339
from infra.table import Table
from router.errors import AutopilotError

log = logging.getLogger("router.journal")

DELAY_SECONDS = 0.1
KEEP_SECONDS = 30 * 86_400
ROWS_PER_DOCUMENT = 500
MOST_WAITING = 20_000


class Row(NamedTuple):
    """One forwarded task. `ts` is epoch seconds, `error` empty when it was answered."""

    ts: float
    task: str | None
    capability: str
    autopilot: str
    status: int
    duration_ms: float
    attempts: int
    trace_id: str
    error: str

    def document(self) -> dict[str, Any]:
        """Return it as the log shows it."""
        ok = 200 <= self.status < 300
        return {
            **self._asdict(),
            "ts": rfc3339(self.ts),
            "ok": ok,
            "level": "info" if ok else "warning" if self.status < 500 else "error",
        }


class Journal:
    """Collects rows and writes them to a table. `writer` tells this process from others."""

    def __init__(self, table: Table, *, clock: Clock, writer: str) -> None:
        self._table = table
        self._clock = clock
        self._writer = writer
        self._waiting: list[Row] = []
        self._flushing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._count = 0
        self._failing = False
        self.lost = 0
        """Rows given up because the store did not take them for too long."""

    def forwarded(self, row: Row) -> None:
        """Take a row. It is written soon, by itself."""
        self._waiting.append(row)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._later())

    async def flush(self) -> None:
        """Write what is waiting, and wait for what is just being written.

        What the store does not take stays, up to a limit.
        """
        async with self._turn:
            rows, self._waiting = self._waiting, []
            for at in range(0, len(rows), ROWS_PER_DOCUMENT):
                try:
                    await self._write(rows[at : at + ROWS_PER_DOCUMENT])
                except AutopilotError as error:
                    self._keep(rows[at:], error)
                    return
                self._failing = False

    def _keep(self, rows: list[Row], error: AutopilotError) -> None:
        """Put rows back to the front of those that wait; say so once for as long as the store fails."""
        kept = (rows + self._waiting)[-MOST_WAITING:]
        self.lost += len(rows) + len(self._waiting) - len(kept)
        self._waiting = kept
        if not self._failing:
            log.warning("log rows wait for the store: %s waiting, %s lost: %s", len(kept), self.lost, error)
        self._failing = True

    async def _later(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(DELAY_SECONDS)
                await self.flush()
        finally:
            self._flushing = None

    async def _write(self, rows: list[Row]) -> None:
        self._count += 1
        first = rows[0].ts
        key = (f"log:{rfc3339(first)[:10]}", f"{int(first * 1000):013d}-{self._writer}-{self._count:08d}")
        document = {"fields": Row._fields, "rows": rows}
        await self._table.put(key, document, expires_at=self._clock() + KEEP_SECONDS)

    async def rows(self, day: str, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the last rows of a day (`2026-01-31`), newest first."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while len(found) < limit:
            page = await self._table.range(f"log:{day}", after=after, limit=50, reverse=True)
            for item in page.items:
                found += [Row(*row).document() for row in reversed(item.document["rows"])]
            after = page.after
            if after is None:
                break
        return found[:limit]
