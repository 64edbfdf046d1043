"""The `Table` port: keyed documents with revisions, conditional writes, ordered reads and expiry.

A key is `(partition, sort)`, neither of them empty. Within a partition items are ordered by `sort`,
compared by code point. A document is a JSON object. Every successful write raises the item's revision by
one, starting at 1. Expired items are as good as absent: no read returns them and no condition sees them,
whether or not the server has got round to deleting them.

Six verbs: `get`, `put`, `delete`, `range`, `transact` on the adapter, and `claim`, which is built on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from infra.clock import Clock
from router.errors import Stale, TooLarge

Key = tuple[str, str]
Document = dict[str, Any]

MAX_DOCUMENT = 350_000
"""Bytes of JSON one document may have: below DynamoDB's item limit of 400 KB, on every adapter."""

MAX_TRANSACTION = 100
"""Writes in one transaction: DynamoDB's limit, on every adapter."""

MAX_TRANSACTION_BYTES = 3_500_000
"""Bytes of JSON all documents of one transaction may have together: DynamoDB refuses over 4 MB."""

MAX_PARTITION, MAX_SORT = 2048, 1024
"""Bytes of UTF-8 the parts of a key may have: DynamoDB's limits, on every adapter."""


@dataclass(frozen=True, slots=True)
class Item:
    """A stored document. `expires_at` is in seconds since the epoch, or None."""

    key: Key
    document: Document
    revision: int
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some items in order. `after` is the cursor of the next page, None at the end."""

    items: list[Item]
    after: str | None


@dataclass(frozen=True, slots=True)
class Put:
    """Write a document. `if_revision` 0 means: only if absent; n: only if that is the revision now."""

    key: Key
    document: Document
    if_revision: int | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an item; absent is fine unless `if_revision` is given."""

    key: Key
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing, but fail the transaction unless the revision is this (0: absent)."""

    key: Key
    if_revision: int


Write = Put | Delete | Check


def check_key(key: Key) -> None:
    """Raise `ValueError` for a key no adapter can hold: an empty or overlong part, or half a surrogate."""
    for name, part, limit in zip(("partition", "sort"), key, (MAX_PARTITION, MAX_SORT), strict=True):
        if not 0 < len(part.encode()) <= limit:
            raise ValueError(f"a {name} key has 1 to {limit} bytes, not {len(part.encode())}: {part[:80]!r}")


def check_range(partition: str, after: str | None, limit: int) -> None:
    """Raise `ValueError` for a range no adapter can read. An empty `after` is before everything."""
    check_key((partition, after or "first"))
    if limit < 1:
        raise ValueError(f"a page has at least one item, not {limit}")


def check_writes(writes: Sequence[Write]) -> list[bytes]:
    """Return the document of each write as JSON, empty for deletes and checks.

    Raises `ValueError` for a transaction no adapter can do, and `TooLarge`.
    """
    if len(writes) > MAX_TRANSACTION:
        raise ValueError(f"{len(writes)} writes are over the limit of {MAX_TRANSACTION}")
    if len({write.key for write in writes}) != len(writes):
        raise ValueError("a transaction may name a key only once")
    bodies = [_check_write(write) for write in writes]
    if (total := sum(map(len, bodies))) > MAX_TRANSACTION_BYTES:
        raise TooLarge(f"documents of {total} bytes are over the limit of {MAX_TRANSACTION_BYTES}")
    return bodies


def _check_write(write: Write) -> bytes:
    check_key(write.key)
    if not isinstance(write, Put):
        return b""
    if write.expires_at is not None and not math.isfinite(write.expires_at):
        raise ValueError(f"an item cannot expire at {write.expires_at}")
    body = msgspec.json.encode(write.document)
    if len(body) > MAX_DOCUMENT:
        raise TooLarge(f"a document of {len(body)} bytes is over the limit of {MAX_DOCUMENT}")
    return body


class Table(Protocol):
    """What an adapter has to do. `tests/contract/test_table*.py` hold all of them to it.

    Raises `Stale` when a condition does not hold, `TooLarge` for a document over `MAX_DOCUMENT`,
    `ValueError` for a key that is empty or too long and `StoreUnavailable` when the store cannot be reached;
    in each case nothing was written. One exception: a server across a network may have done a write whose
    answer was lost, so after `StoreUnavailable` read before you repeat what must not happen twice.
    An adapter may be used from several threads and event loops at once.
    """

    kind: str
    """`sqlite` or `dynamodb`, as `/health` shows it."""

    async def get(self, key: Key) -> Item | None:
        """Return the item, or None."""
        ...

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        """Write one document (see `Put`) and return its new revision."""
        ...

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        """Remove an item (see `Delete`) and return whether there was one."""
        ...

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        """Return up to `limit` items of a partition whose sort key comes after `after`, in order.

        With `reverse` the order is descending and "after" means below. `limit` is at least 1 and counts
        live items, so a page is shorter than it only at the end.
        """
        ...

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        """Do all writes or none; return the new revisions, 0 for deletes and checks.

        At most `MAX_TRANSACTION` writes, no key twice: otherwise `ValueError`. Their documents together
        have at most `MAX_TRANSACTION_BYTES`: otherwise `TooLarge`.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads; afterwards every verb raises `StoreUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do something until `until` (epoch seconds).

    `fence` rises with every new holder, so whoever is guarded by it can refuse a late predecessor.
    """

    key: Key
    owner: str
    fence: int
    until: float


async def claim(table: Table, clock: Clock, key: Key, owner: str, seconds: float) -> Lease | None:
    """Take or renew a lease; None when somebody else holds it. The owner's renewal keeps the fence."""
    now = clock()
    item = await table.get(key)
    held: Document = item.document if item else {"owner": "", "fence": 0, "until": 0.0}
    if held["owner"] != owner and held["until"] > now:
        return None
    renewal = held["owner"] == owner and held["until"] > now
    fence = int(held["fence"]) + (0 if renewal else 1)
    document = {"owner": owner, "fence": fence, "until": now + seconds}
    try:
        await table.put(key, document, if_revision=item.revision if item else 0)
    except Stale:
        return None
    return Lease(key, owner, fence, now + seconds)


async def release(table: Table, lease: Lease) -> None:
    """Give a lease back early. A lease that somebody else took over meanwhile is left alone."""
    item = await table.get(lease.key)
    if item and item.document["owner"] == lease.owner and item.document["fence"] == lease.fence:
        try:
            await table.put(lease.key, {**item.document, "until": 0.0}, if_revision=item.revision)
        except Stale:
            return
