"""An affiliate's statement: commissions, payments and balances, summed from the ledger's entries."""

from __future__ import annotations

from typing import Any

from autopilots.kit import Parts
from autopilots.payout_batch.affiliates import affiliate_of
from autopilots.payout_batch.commissions import partition_of
from autopilots.payout_batch.ledger import PROVIDER, SETTLEMENT, Entry, entries_of
from infra.table import Document
from router.errors import NotFound


async def statement(parts: Parts, affiliate_id: str, currency: str, limit: int) -> dict[str, Any]:
    """Return `balances` per currency, up to `limit` commissions by sale, and the newest payments.

    An empty `currency` means all. Raises `NotFound` for an affiliate nobody has heard of.
    """
    affiliate, _ = await affiliate_of(parts.table, affiliate_id)
    commissions = await _commissions(parts, affiliate_id, currency, limit + 1)
    if affiliate is None and not commissions:
        raise NotFound(f"there is no affiliate {affiliate_id} and no commission of theirs")
    entries = [one for one in await entries_of(parts.table, affiliate_id) if currency in ("", one.currency)]
    paid = sorted((one for one in entries if one.kind != "commission"), key=lambda one: one.at)
    return {
        "affiliate_id": affiliate_id,
        "onboarded": affiliate is not None and affiliate.onboarded,
        "balances": [_balance(code, entries) for code in sorted({one.currency for one in entries})],
        "commissions": commissions[:limit],
        "commissions_left_off": len(commissions) > limit,
        "payments": [_payment(one) for one in paid[-limit:]],
        "payments_left_off": len(paid) > limit,
        "entry_count": len(entries),
        "provider": PROVIDER,
        "settlement": SETTLEMENT,
    }


async def _commissions(parts: Parts, affiliate_id: str, currency: str, enough: int) -> list[Document]:
    found: list[Document] = []
    after: str | None = None
    while len(found) < enough:
        page = await parts.table.range(partition_of(affiliate_id), after=after, limit=500)
        found += [item.document for item in page.items if currency in ("", item.document["currency"])]
        if page.after is None:
            break
        after = page.after
    return found[:enough]


def _balance(currency: str, entries: list[Entry]) -> dict[str, Any]:
    """Return what was earned, was transferred, is owed and was paid ahead, in minor units."""
    sums = {"expense": 0, "payable": 0, "advance": 0, "cash": 0}
    for entry in entries:
        if entry.currency == currency:
            for account, amount in entry.lines.items():
                sums[account] += amount
    return {
        "currency": currency,
        "earned": sums["expense"],
        "transferred": -sums["cash"],
        "owed": -sums["payable"],
        "paid_ahead": sums["advance"],
    }


def _payment(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "reference": entry.reference,
        "currency": entry.currency,
        "transferred": -entry.lines["cash"],
        "recovered": -min(0, entry.lines["advance"]),
        "at": entry.at,
    }
