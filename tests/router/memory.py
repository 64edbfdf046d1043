"""A table in memory that never waits: what is done on it is done in the same order every time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import msgspec

from infra.clock import Clock
from infra.table import (
    Check,
    Delete,
    Document,
    Item,
    Key,
    Page,
    Put,
    Write,
    check_key,
    check_range,
    check_writes,
)
from router.errors import Stale

Row = tuple[bytes, int, float | None]


class MemoryTable:
    """See `infra.table.Table`."""

    kind = "sqlite"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[Key, Row] = {}
        self.sorts: dict[str, list[str]] = {}

    async def get(self, key: Key) -> Item | None:
        check_key(key)
        row = self._live(key)
        return None if row is None else Item(key, msgspec.json.decode(row[0]), row[1], row[2])

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        [revision] = await self.transact([Put(key, document, if_revision, expires_at)])
        return revision

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        was = self._live(key) is not None
        await self.transact([Delete(key, if_revision)])
        return was

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        check_range(partition, after, limit)
        sorts = self.sorts.get(partition, [])
        if reverse:
            start = len(sorts) if after is None else bisect_left(sorts, after)
            names = iter(sorts[:start][::-1])
        else:
            start = 0 if after is None else bisect_right(sorts, after)
            names = iter(sorts[start : start + 2 * limit + 50])
        items = []
        for name in names:
            row = self._live((partition, name))
            if row is not None:
                items.append(Item((partition, name), msgspec.json.decode(row[0]), row[1], row[2]))
            if len(items) > limit:
                break
        more = len(items) > limit
        items = items[:limit]
        return Page(items, items[-1].key[1] if more else None)

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        bodies = check_writes(writes)
        for write in writes:
            row = self._live(write.key)
            now = row[1] if row else 0
            if write.if_revision is not None and write.if_revision != now:
                raise Stale(f"{'/'.join(write.key)} is at revision {now}, not {write.if_revision}")
        return [self._apply(write, body) for write, body in zip(writes, bodies, strict=True)]

    async def close(self) -> None:
        """Keep everything: it is reopened as it is."""

    def _apply(self, write: Write, body: bytes) -> int:
        row = self._live(write.key)
        if isinstance(write, Check):
            return 0
        partition, sort = write.key
        sorts = self.sorts.setdefault(partition, [])
        if isinstance(write, Delete):
            if self.rows.pop(write.key, None) is not None:
                sorts.pop(bisect_left(sorts, sort))
            return 0
        revision = (row[1] if row else 0) + 1
        if write.key not in self.rows:
            insort(sorts, sort)
        self.rows[write.key] = body, revision, write.expires_at
        return revision

    def _live(self, key: Key) -> Row | None:
        row = self.rows.get(key)
        return None if row is None or (row[2] is not None and row[2] <= self.clock()) else row
