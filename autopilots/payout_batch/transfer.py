"""One payment at once: an advance on commissions, recovered from the next batches.

Whatever is paid here is kept in the account `advance` and taken off the affiliate's later payouts in that
currency. So "pay now" followed by a batch never pays the same commission twice, and nothing has to be chosen
by hand. An advance may go beyond what is owed by at most the affiliate's `advance_limit`.

    ("payout-transfer", HASH)       the transfer, under its reference or idempotency key
"""

from __future__ import annotations

import hashlib
from typing import Any

from autopilots.kit import Parts
from autopilots.payout_batch.affiliates import affiliate_key, affiliate_of
from autopilots.payout_batch.ledger import PROVIDER, SETTLEMENT, Book, book_of, posting, settle
from infra.clock import rfc3339
from infra.table import Check, Put
from router.errors import Conflict


async def transfer(
    parts: Parts,
    *,
    affiliate_id: str,
    amount: int,
    currency: str,
    reason: str,
    reference: str,
    idempotency_key: str,
) -> dict[str, Any]:
    """Pay an onboarded affiliate `amount` now and post it as an advance.

    Done once per reference, or without one per idempotency key: a repeat answers the first transfer with
    `created: false`. Raises `Conflict` for a repeat with other figures, an affiliate who is not onboarded,
    and an amount over what may be advanced.
    """
    transfer_id = parts.new_id("transfer")
    identity = ["reference", affiliate_id, reference] if reference else ["key", idempotency_key]
    if not identity[-1]:
        identity = ["id", transfer_id]
    key = ("payout-transfer", hashlib.sha256("\n".join(identity).encode()).hexdigest())

    async def change() -> dict[str, Any]:
        item = await parts.table.get(key)
        if item:
            _check_same(item.document, affiliate_id, amount, currency)
            return {**item.document, "created": False}
        book, revision, onboarded = await _allowed(parts, affiliate_id, amount, currency)
        now = rfc3339(parts.clock())
        document = {
            "transfer_id": transfer_id,
            "affiliate_id": affiliate_id,
            "amount": amount,
            "currency": currency,
            "kind": "advance",
            "status": "paid",
            "reason": reason,
            "reference": reference,
            "outstanding_advance": book.advance + amount,
            "transferred_at": now,
            "provider": PROVIDER,
            "settlement": SETTLEMENT,
        }
        lines = {"advance": amount, "cash": -amount}
        posted = posting(book, revision, kind="advance", reference=transfer_id, at=now, lines=lines)
        await parts.table.transact([Put(key, document, if_revision=0), onboarded, *posted])
        return {**document, "created": True}

    return await settle(change)


async def _allowed(parts: Parts, affiliate_id: str, amount: int, currency: str) -> tuple[Book, int, Check]:
    """Return the book with its revision, and the condition that the affiliate's record stays as it was.

    Raises `Conflict` when that affiliate may not be paid that much now.
    """
    affiliate, affiliate_revision = await affiliate_of(parts.table, affiliate_id)
    if affiliate is None or not affiliate.onboarded:
        raise Conflict(f"affiliate {affiliate_id} is not onboarded: run onboard_affiliate first")
    book, revision = await book_of(parts.table, affiliate_id, currency)
    available = max(0, book.owed + affiliate.advance_limit - book.advance)
    if amount > available:
        raise Conflict(
            f"{amount} {currency} is over the {available} that {affiliate_id} may be paid at once "
            f"({book.owed} owed, {book.advance} advanced, {affiliate.advance_limit} allowed ahead)",
            available=available,
        )
    return book, revision, Check(affiliate_key(affiliate_id), affiliate_revision)


def _check_same(known: dict[str, Any], affiliate_id: str, amount: int, currency: str) -> None:
    if (known["affiliate_id"], known["amount"], known["currency"]) != (affiliate_id, amount, currency):
        raise Conflict(
            f"that reference or key is transfer {known['transfer_id']} of {known['amount']} "
            f"{known['currency']} to {known['affiliate_id']}"
        )
