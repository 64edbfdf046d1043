"""A table whose store fails, or where something else happens, at a chosen call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from infra.table import Document, Item, Key, Page, Table, Write
from router.errors import StoreUnavailable

T = TypeVar("T")
Action = Callable[[], Awaitable[object]]


class Fault(NamedTuple):
    """What happens at the `nth` call of a verb from when it was asked for."""

    verb: str
    nth: int
    before: Action | None
    after: Action | None


async def fail() -> None:
    """Be a store that cannot be reached."""
    raise StoreUnavailable("the store is down")


class Failing:
    """Another table, with faults. One after the call is a write whose answer was lost."""

    kind = "sqlite"

    def __init__(self, inner: Table) -> None:
        self.inner = inner
        self.calls: list[str] = []
        self._faults: list[Fault] = []

    def at(
        self, verb: str, nth: int = 1, *, before: Action | None = None, after: Action | None = None
    ) -> None:
        """Do something before or after the `nth` call of a verb from now on."""
        self._faults.append(Fault(verb, self.calls.count(verb) + nth, before, after))

    async def _do(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(verb)
        number = self.calls.count(verb)
        due = [fault for fault in self._faults if (fault.verb, fault.nth) == (verb, number)]
        for fault in due:
            if fault.before:
                await fault.before()
        result = await call()
        for fault in due:
            if fault.after:
                await fault.after()
        return result

    async def get(self, key: Key) -> Item | None:
        return await self._do("get", lambda: self.inner.get(key))

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        return await self._do(
            "put", lambda: self.inner.put(key, document, if_revision=if_revision, expires_at=expires_at)
        )

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        return await self._do("delete", lambda: self.inner.delete(key, if_revision=if_revision))

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        return await self._do(
            "range", lambda: self.inner.range(partition, after=after, limit=limit, reverse=reverse)
        )

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        return await self._do("transact", lambda: self.inner.transact(writes))

    async def close(self) -> None:
        await self.inner.close()
