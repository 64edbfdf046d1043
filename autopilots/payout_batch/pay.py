"""The second half of a batch: each payout into the ledger, once, then its commissions to paid."""

from __future__ import annotations

import msgspec

from autopilots.kit import Parts
from autopilots.payout_batch.commissions import written
from autopilots.payout_batch.gather import Batch, Keep, Payout, chunk_of, payout_key, payouts_of
from autopilots.payout_batch.ledger import book_of, posting, settle
from infra.clock import rfc3339
from infra.table import Put, Table


async def pay(parts: Parts, batch: Batch, keep: Keep) -> None:
    """Pay every payout of a batch that is bound completely; what is paid already is left alone."""
    for payout, _ in await payouts_of(parts.table, batch.batch_id):
        if payout.status == "paid":
            continue
        await keep()
        posted = await _post(parts, payout)
        for number in range(posted.chunks):
            await keep()
            await _mark(parts.table, posted, number)
        await _close(parts, posted)


async def _now(table: Table, payout: Payout) -> tuple[Payout, int]:
    item = await table.get(payout_key(payout))
    assert item is not None, "payouts are never removed"
    return msgspec.convert(item.document, Payout), item.revision


async def _post(parts: Parts, payout: Payout) -> Payout:
    """Post an open payout: what was paid ahead is recovered first, the rest is transferred."""

    async def change() -> Payout:
        now, revision = await _now(parts.table, payout)
        if now.status != "open":
            return now
        book, book_revision = await book_of(parts.table, now.affiliate_id, now.currency)
        recovered = min(book.advance, now.amount)
        posted = msgspec.structs.replace(
            now,
            status="posted",
            recovered=recovered,
            transferred=now.amount - recovered,
            entry=book.entries + 1,
        )
        writes = posting(
            book,
            book_revision,
            kind="payout",
            reference=now.payout_id,
            at=rfc3339(parts.clock()),
            lines={"payable": now.amount, "advance": -recovered, "cash": -posted.transferred},
        )
        put = Put(payout_key(now), msgspec.to_builtins(posted), if_revision=revision)
        await parts.table.transact([put, *writes])
        return posted

    return await settle(change)


async def _mark(table: Table, payout: Payout, number: int) -> None:
    """Mark the commissions of one chunk as paid."""

    async def change() -> None:
        bound = [pair for pair in await chunk_of(table, payout, number) if pair[0].status == "batched"]
        if bound:
            paid = [written(msgspec.structs.replace(one, status="paid"), was) for one, was in bound]
            await table.transact(paid)

    await settle(change)


async def _close(parts: Parts, payout: Payout) -> None:
    async def change() -> None:
        now, revision = await _now(parts.table, payout)
        if now.status != "paid":
            paid = msgspec.structs.replace(now, status="paid", paid_at=rfc3339(parts.clock()))
            await parts.table.put(payout_key(now), msgspec.to_builtins(paid), if_revision=revision)

    await settle(change)
