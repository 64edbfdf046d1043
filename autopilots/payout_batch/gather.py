"""The first half of a batch: binding each due commission to one payout, at most 100 writes at a time.

    ("payout-batches", BATCH)                       the batch: its intent first, later its result
    ("payout-batch/BATCH", "AFFILIATE/CURRENCY")    one payout
    ("payout-lines/PAYOUT", CHUNK)                  the sales of up to 48 commissions of a payout

A chunk is one transaction: the payout's sum, the chunk, each commission from approved to batched, and its due
row. So a payout's sum is always that of the commissions bound to it, wherever a run dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec

from autopilots.kit import Parts
from autopilots.payout_batch.affiliates import affiliate_of
from autopilots.payout_batch.commissions import DUE, Commission, Due, commission_of, due_key, written
from autopilots.payout_batch.ledger import settle
from infra.table import Delete, Put, Table, Write

Keep = Callable[[], Awaitable[None]]
"""Renews the right to go on; raises when somebody else has it now."""

CHUNK = 48
"""Commissions bound in one transaction: 2 writes each, and 3 more."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. `cutoff` is inclusive; an empty `currency` means all; sums are in minor units.

    `status` is created (binding), processing (bound, being paid), or final: paid, partial (some affiliates
    were refused), failed (all were), empty (nothing was due).
    """

    batch_id: str
    cutoff: str
    currency: str
    status: str
    created_at: str
    finished_at: str = ""
    payout_count: int = 0
    commission_count: int = 0
    totals: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    refused_count: int = 0

    @property
    def is_final(self) -> bool:
        """Return whether nothing is left to do."""
        return self.status not in ("created", "processing")


class Payout(msgspec.Struct, frozen=True, kw_only=True):
    """What one affiliate gets from a batch in one currency.

    `amount` is the sum of the commissions; `recovered` of it was paid ahead, `transferred` is paid now.
    `status` is open, posted (in the ledger as entry number `entry`), or paid (its commissions say so too).
    """

    payout_id: str
    batch_id: str
    affiliate_id: str
    currency: str
    status: str = "open"
    commissions: int = 0
    amount: int = 0
    chunks: int = 0
    recovered: int = 0
    transferred: int = 0
    entry: int = 0
    paid_at: str = ""


def batch_key(batch_id: str) -> tuple[str, str]:
    """Return the key of a batch."""
    return ("payout-batches", batch_id)


def payout_key(payout: Payout) -> tuple[str, str]:
    """Return the key of a payout."""
    return (f"payout-batch/{payout.batch_id}", f"{payout.affiliate_id}/{payout.currency}")


def chunk_key(payout: Payout, number: int) -> tuple[str, str]:
    """Return the key of a chunk, counted from 0."""
    return (f"payout-lines/{payout.payout_id}", f"{number:06d}")


async def batch_of(table: Table, batch_id: str) -> tuple[Batch | None, int]:
    """Return a batch with its revision; None and 0 when there is none."""
    item = await table.get(batch_key(batch_id))
    return (msgspec.convert(item.document, Batch), item.revision) if item else (None, 0)


async def payouts_of(table: Table, batch_id: str) -> list[tuple[Payout, int]]:
    """Return the payouts of a batch with their revisions."""
    found: list[tuple[Payout, int]] = []
    after: str | None = None
    while True:
        page = await table.range(f"payout-batch/{batch_id}", after=after, limit=500)
        found += [(msgspec.convert(item.document, Payout), item.revision) for item in page.items]
        if page.after is None:
            return found
        after = page.after


async def chunk_of(table: Table, payout: Payout, number: int) -> list[tuple[Commission, int]]:
    """Return the commissions of a chunk with their revisions."""
    item = await table.get(chunk_key(payout, number))
    assert item is not None, "a chunk is written with the payout that counts it"
    return await _commissions(table, payout.affiliate_id, item.document["sales"])


async def gather(parts: Parts, batch: Batch, keep: Keep) -> list[dict[str, Any]]:
    """Bind all due commissions up to the cutoff; return who was refused: affiliate, currency, sums, reason.

    The commissions of affiliates who are not onboarded stay approved and due.
    """
    refused: dict[tuple[str, str], dict[str, Any]] = {}
    async for dues in _due(parts.table, batch):
        groups: dict[tuple[str, str], list[Due]] = {}
        for due in dues:
            groups.setdefault((due.affiliate_id, due.currency), []).append(due)
        for (affiliate_id, currency), group in groups.items():
            affiliate, _ = await affiliate_of(parts.table, affiliate_id)
            if affiliate is None or not affiliate.onboarded:
                _refuse(refused, group)
                continue
            for start in range(0, len(group), CHUNK):
                await keep()
                payout = Payout(
                    payout_id=parts.new_id("payout"),
                    batch_id=batch.batch_id,
                    affiliate_id=affiliate_id,
                    currency=currency,
                )
                await _bind(parts.table, payout, group[start : start + CHUNK])
    return [refused[key] for key in sorted(refused)]


async def _due(table: Table, batch: Batch) -> AsyncIterator[list[Due]]:
    """Yield due commissions of the batch's currency up to its cutoff, oldest first."""
    after: str | None = None
    while True:
        page = await table.range(DUE, after=after, limit=500)
        dues = [msgspec.convert(item.document, Due) for item in page.items]
        in_time = [due for due in dues if due.approved_at <= batch.cutoff]
        yield [due for due in in_time if batch.currency in ("", due.currency)]
        if page.after is None or len(in_time) < len(dues):
            return
        after = page.after


async def _bind(table: Table, new: Payout, group: Sequence[Due]) -> None:
    """Bind those of `group` that are still free to the payout, or to `new` when there is none yet."""

    async def change() -> None:
        batch, batch_revision = await batch_of(table, new.batch_id)
        if batch is None or batch.status != "created":
            return  # Another run sealed the batch meanwhile: its payouts may be paid already.
        item = await table.get(payout_key(new))
        payout, revision = (msgspec.convert(item.document, Payout), item.revision) if item else (new, 0)
        known = await _commissions(table, new.affiliate_id, [due.sale_id for due in group])
        free = [(one, was) for one, was in known if one.status == "approved"]
        if not free:
            return
        after = msgspec.structs.replace(
            payout,
            commissions=payout.commissions + len(free),
            amount=payout.amount + sum(one.amount for one, _ in free),
            chunks=payout.chunks + 1,
        )
        count = msgspec.structs.replace(batch, commission_count=batch.commission_count + len(free))
        writes: list[Write] = [
            # Counting in the batch itself makes sealing fail when a commission joins at the same moment.
            Put(batch_key(new.batch_id), msgspec.to_builtins(count), if_revision=batch_revision),
            Put(payout_key(payout), msgspec.to_builtins(after), if_revision=revision),
            Put(chunk_key(payout, payout.chunks), {"sales": [one.sale_id for one, _ in free]}, if_revision=0),
        ]
        for one, was in free:
            bound = msgspec.structs.replace(one, status="batched", payout_id=payout.payout_id)
            writes += [written(bound, was), Delete(due_key(one))]
        await table.transact(writes)

    await settle(change)


async def _commissions(table: Table, affiliate_id: str, sales: Sequence[str]) -> list[tuple[Commission, int]]:
    found = await asyncio.gather(*(commission_of(table, affiliate_id, sale) for sale in sales))
    return [(one, revision) for one, revision in found if one is not None]


def _refuse(refused: dict[tuple[str, str], dict[str, Any]], group: Sequence[Due]) -> None:
    first = group[0]
    row = refused.setdefault(
        (first.affiliate_id, first.currency),
        {
            "affiliate_id": first.affiliate_id,
            "currency": first.currency,
            "commission_count": 0,
            "amount": 0,
            "reason": "not onboarded: run onboard_affiliate, then another batch",
        },
    )
    row["commission_count"] += len(group)
    row["amount"] += sum(due.amount for due in group)
