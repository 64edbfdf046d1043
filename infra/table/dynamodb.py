"""`Table` in one DynamoDB table, over boto3. `dynamodb_requests` says how an item is stored."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from infra.clock import Clock, NewId, new_id
from infra.table import Document, Item, Key, Page, Put, Write, check_key, check_range, check_writes
from infra.table.dynamodb_connection import Connection, Contended, Patience
from infra.table.dynamodb_requests import Requests
from router.errors import StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["DynamoTable", "Patience", "dice"]

T = TypeVar("T")


def dice() -> float:
    """Return a random number from 0 up to 1."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class DynamoTable:
    """The DynamoDB table `name`; the deployment template makes it, or `create`.

    boto3 blocks, so a few threads of our own do the work, and any number of event loops may share them.
    Unless a `client` is given, one is made at the first call from `endpoint_url` and the environment.
    """

    kind = "dynamodb"

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        client: DynamoDBClient | None = None,
        endpoint_url: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = dice,
        new_mark: NewId = new_id,
    ) -> None:
        self._patience = patience or Patience()
        self._connection = Connection(name, client, endpoint_url, self._patience)
        self._requests = Requests(name, clock, self._connection.ask, new_mark)
        self._sleep = sleep
        self._jitter = jitter
        self._threads = ThreadPoolExecutor(self._patience.threads, thread_name_prefix="dynamodb")

    async def get(self, key: Key) -> Item | None:
        """See `Table.get`."""
        check_key(key)
        return await self._do(lambda: self._requests.get(key))

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        """See `Table.put`."""
        [revision] = await self.transact([Put(key, document, if_revision, expires_at)])
        return revision

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        """See `Table.delete`.

        When the answer to a delete was lost and boto3 repeated it, the repetition finds nothing: then
        this returns False, or raises `Stale`, for an item this call did remove.
        """
        check_key(key)
        return await self._do(lambda: self._requests.delete(key, if_revision))

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        """See `Table.range`."""
        check_range(partition, after, limit)
        if after == "" and reverse:  # DynamoDB takes no empty key, not even to compare with
            return Page([], None)
        return await self._do(lambda: self._requests.range(partition, after or None, limit, reverse=reverse))

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        """See `Table.transact`."""
        bodies = check_writes(writes)
        if not writes:
            return []
        if len(writes) == 1:  # a plain call costs half as much as a transaction
            return [await self._do(lambda: self._requests.write(writes[0], bodies[0]))]
        return await self._do(lambda: self._requests.transact(writes, bodies))

    async def close(self) -> None:
        """See `Table.close`. Waits for calls under way; a client that was given stays open."""
        await asyncio.to_thread(self._threads.shutdown)
        self._connection.close()

    async def create(self) -> None:
        """Make the table, billed by request and with expiry on, where it is missing."""
        await self._do(self._requests.create)

    async def _do(self, work: Callable[[], T]) -> T:
        wait = self._patience.wait_seconds
        for _ in range(self._patience.rounds - 1):
            try:
                return await self._in_thread(work)
            except Contended:
                await self._sleep(min(wait, 1.0) * self._jitter())
                wait *= 2
        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            result = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:
            raise StoreUnavailable("the table is closed") from error
        return await result
