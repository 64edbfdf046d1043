"""The books: one per affiliate and currency, kept in double entry.

    ("payout-book", "AFFILIATE/CURRENCY")               the balances and the number of the last entry
    ("payout-entries/AFFILIATE", "CURRENCY/NUMBER")     one entry, never changed

A book has four accounts, in minor units, debits positive, credits negative:

    expense   what commissions have cost us
    payable   what we owe the affiliate: negative while we do
    advance   what was paid ahead and is not yet recovered
    cash      what has left us: negative. No bank is behind it; it is our own record

The lines of an entry sum to zero, so the accounts of a book do. An entry is written in one transaction with
its book (under the revision that was read) and with the change it stands for, so none is posted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from infra.table import Put, Table
from router.errors import AutopilotError, Stale, StoreUnavailable

T = TypeVar("T")

PROVIDER = "ledger"
SETTLEMENT = "Recorded in the ledger only: no bank or payment provider was called."
ATTEMPTS = 200


class Unbalanced(AutopilotError):
    """Raise when amounts that must be equal are not: a defect or tampering; nothing may be paid on it."""

    code = "unbalanced"
    title = "The books do not balance"


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """The balances of one affiliate in one currency."""

    affiliate_id: str
    currency: str
    entries: int = 0
    expense: int = 0
    payable: int = 0
    advance: int = 0
    cash: int = 0

    @property
    def owed(self) -> int:
        """Return the approved commissions that are not paid yet."""
        return -self.payable


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One posting. `kind` is commission, payout or advance; `reference` the id of what was posted."""

    affiliate_id: str
    currency: str
    number: int
    kind: str
    reference: str
    at: str
    lines: dict[str, int]


def book_key(affiliate_id: str, currency: str) -> tuple[str, str]:
    """Return the key of a book."""
    return ("payout-book", f"{affiliate_id}/{currency}")


def entry_key(affiliate_id: str, currency: str, number: int) -> tuple[str, str]:
    """Return the key of an entry; numbers sort as text."""
    return (f"payout-entries/{affiliate_id}", f"{currency}/{number:010d}")


async def book_of(table: Table, affiliate_id: str, currency: str) -> tuple[Book, int]:
    """Return a book and its revision; an empty one and 0 when nothing was posted yet."""
    item = await table.get(book_key(affiliate_id, currency))
    if item is None:
        return Book(affiliate_id=affiliate_id, currency=currency), 0
    return msgspec.convert(item.document, Book), item.revision


def posting(
    book: Book, revision: int, *, kind: str, reference: str, at: str, lines: Mapping[str, int]
) -> list[Put]:
    """Return the two writes of an entry. Raises `Unbalanced` unless the lines sum to zero."""
    if sum(lines.values()) != 0:
        raise Unbalanced(f"the lines of {kind} {reference} sum to {sum(lines.values())}")
    entry = Entry(
        affiliate_id=book.affiliate_id,
        currency=book.currency,
        number=book.entries + 1,
        kind=kind,
        reference=reference,
        at=at,
        lines=dict(lines),
    )
    balances = {account: getattr(book, account) + amount for account, amount in lines.items()}
    after = msgspec.structs.replace(book, entries=entry.number, **balances)
    return [
        Put(book_key(book.affiliate_id, book.currency), msgspec.to_builtins(after), if_revision=revision),
        Put(
            entry_key(book.affiliate_id, book.currency, entry.number),
            msgspec.to_builtins(entry),
            if_revision=0,
        ),
    ]


async def entry_of(table: Table, affiliate_id: str, currency: str, number: int) -> Entry | None:
    """Return one entry, or None."""
    item = await table.get(entry_key(affiliate_id, currency, number))
    return msgspec.convert(item.document, Entry) if item else None


async def entries_of(table: Table, affiliate_id: str) -> list[Entry]:
    """Return all entries of an affiliate, by currency, in the order they were posted."""
    entries: list[Entry] = []
    after: str | None = None
    while True:
        page = await table.range(entry_key(affiliate_id, "", 0)[0], after=after, limit=500)
        entries += [msgspec.convert(item.document, Entry) for item in page.items]
        if page.after is None:
            return entries
        after = page.after


async def settle(change: Callable[[], Awaitable[T]]) -> T:
    """Return what `change` returns, read and done afresh as often as somebody else was faster."""
    for _ in range(ATTEMPTS):
        try:
            return await change()
        except Stale:
            await asyncio.sleep(0)
    raise StoreUnavailable("too many simultaneous changes of the same records")
