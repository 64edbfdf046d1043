"""A process that dies at a chosen write to its store, or loses the answer to it, and is started again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from infra.table import Document, Item, Key, Page, Table, Write
from router.errors import StoreUnavailable
from tests.router.running import Crash

T = TypeVar("T")
How = Literal["before", "after", "lost"]
HOWS: tuple[How, ...] = ("before", "after", "lost")


class Dying:
    """Another table whose process dies before or after its `at`th write, or does not hear of that one."""

    kind = "sqlite"

    def __init__(self, inner: Table, at: int = 0, how: How = "before") -> None:
        self.inner = inner
        self.at = at
        self.how = how
        self.writes = 0
        self.dead = False

    async def get(self, key: Key) -> Item | None:
        self._alive()
        return await self.inner.get(key)

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        return await self._write(
            lambda: self.inner.put(key, document, if_revision=if_revision, expires_at=expires_at)
        )

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        return await self._write(lambda: self.inner.delete(key, if_revision=if_revision))

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        self._alive()
        return await self.inner.range(partition, after=after, limit=limit, reverse=reverse)

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        return await self._write(lambda: self.inner.transact(writes))

    async def close(self) -> None:
        """Leave it to the next process."""

    def _alive(self) -> None:
        if self.dead:
            raise Crash

    async def _write(self, write: Callable[[], Awaitable[T]]) -> T:
        self._alive()
        self.writes += 1
        if self.writes != self.at:
            return await write()
        if self.how == "before":
            self.dead = True
            raise Crash
        await write()
        if self.how == "lost":
            raise StoreUnavailable("the answer was lost")
        self.dead = True
        raise Crash
