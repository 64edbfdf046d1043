"""Commissions: one per affiliate and sale, and the list of those that are due.

    ("payout-commissions/AFFILIATE", SALE)              the commission
    ("payout-due", "APPROVED_AT/AFFILIATE/SALE")        one row while it is approved and in no batch

A commission is pending, approved (posted to the ledger, due), batched (bound to one payout), then paid.
Each step is a conditional write on the commission, so only one batch can ever bind it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from autopilots.kit import Parts
from autopilots.payout_batch.affiliates import affiliate_of
from autopilots.payout_batch.ledger import book_of, posting, settle
from autopilots.payout_batch.money import share_of
from infra.clock import rfc3339
from infra.table import Put, Table, Write
from router.errors import Conflict, Invalid

DUE = "payout-due"


class Commission(msgspec.Struct, frozen=True, kw_only=True):
    """What one sale earned one affiliate: `amount` is `rate_bps` of `sale_amount`."""

    commission_id: str
    affiliate_id: str
    sale_id: str
    sale_amount: int
    rate_bps: int
    amount: int
    currency: str
    status: str
    created_at: str
    approved_at: str = ""
    payout_id: str = ""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A commission that can be paid."""

    affiliate_id: str
    sale_id: str
    currency: str
    amount: int
    approved_at: str


def partition_of(affiliate_id: str) -> str:
    """Return the partition of an affiliate's commissions."""
    return f"payout-commissions/{affiliate_id}"


def due_key(one: Commission | Due) -> tuple[str, str]:
    """Return the key of a due row: in order of approval."""
    return (DUE, f"{one.approved_at}/{one.affiliate_id}/{one.sale_id}")


async def commission_of(table: Table, affiliate_id: str, sale_id: str) -> tuple[Commission | None, int]:
    """Return a commission with its revision; None and 0 when there is none."""
    item = await table.get((partition_of(affiliate_id), sale_id))
    return (msgspec.convert(item.document, Commission), item.revision) if item else (None, 0)


def written(commission: Commission, revision: int) -> Put:
    """Return the conditional write of a commission."""
    key = (partition_of(commission.affiliate_id), commission.sale_id)
    return Put(key, msgspec.to_builtins(commission), if_revision=revision)


async def calculate(
    parts: Parts,
    *,
    affiliate_id: str,
    sale_id: str,
    amount: int,
    currency: str,
    rate_bps: int | None,
    approved: bool,
) -> dict[str, Any]:
    """Record the commission of a sale of `amount`, once; a pending one is approved by a second call.

    Returns the commission with `created`. Raises `Conflict` when the sale is known with other figures and
    `Invalid` when neither the call nor the affiliate's record has a rate.
    """

    async def change() -> dict[str, Any]:
        known, revision = await commission_of(parts.table, affiliate_id, sale_id)
        if known:
            _check_same(known, amount, currency, rate_bps)
        wanted = known or await _new(parts, affiliate_id, sale_id, amount, currency, rate_bps)
        if approved and wanted.status == "pending":
            wanted = await _approve(parts, wanted, revision)
        elif known is None:
            await parts.table.transact([written(wanted, 0)])
        return {**msgspec.to_builtins(wanted), "created": known is None}

    return await settle(change)


def _check_same(known: Commission, amount: int, currency: str, rate_bps: int | None) -> None:
    rate = known.rate_bps if rate_bps is None else rate_bps
    if (known.sale_amount, known.currency, known.rate_bps) != (amount, currency, rate):
        raise Conflict(
            f"sale {known.sale_id} is recorded for {known.affiliate_id} with {known.sale_amount} "
            f"{known.currency} at {known.rate_bps} basis points",
            commission_id=known.commission_id,
        )


async def _new(
    parts: Parts, affiliate_id: str, sale_id: str, amount: int, currency: str, rate_bps: int | None
) -> Commission:
    if rate_bps is None:
        affiliate, _ = await affiliate_of(parts.table, affiliate_id)
        if affiliate is None:
            raise Invalid([("meta.rate_bps", f"needed, as {affiliate_id} has no record with a rate")])
        rate_bps = affiliate.rate_bps
    return Commission(
        commission_id=parts.new_id("com"),
        affiliate_id=affiliate_id,
        sale_id=sale_id,
        sale_amount=amount,
        rate_bps=rate_bps,
        amount=share_of(amount, rate_bps),
        currency=currency,
        status="pending",
        created_at=rfc3339(parts.clock()),
    )


async def _approve(parts: Parts, pending: Commission, revision: int) -> Commission:
    """Post a commission to the ledger and make it due, in one transaction."""
    now = rfc3339(parts.clock())
    approved = msgspec.structs.replace(pending, status="approved", approved_at=now)
    due = Due(
        affiliate_id=approved.affiliate_id,
        sale_id=approved.sale_id,
        currency=approved.currency,
        amount=approved.amount,
        approved_at=now,
    )
    book, book_revision = await book_of(parts.table, approved.affiliate_id, approved.currency)
    writes: list[Write] = [
        written(approved, revision),
        Put(due_key(due), msgspec.to_builtins(due), if_revision=0),
        *posting(
            book,
            book_revision,
            kind="commission",
            reference=approved.commission_id,
            at=now,
            lines={"expense": approved.amount, "payable": -approved.amount},
        ),
    ]
    await parts.table.transact(writes)
    return approved
