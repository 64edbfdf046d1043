"""Affiliates: who may be paid, at which rate, and how far ahead of their commissions."""

from __future__ import annotations

from typing import Any

import msgspec

from autopilots.kit import Parts
from autopilots.payout_batch.ledger import settle
from infra.clock import rfc3339
from infra.table import Table

DEFAULT_RATE_BPS = 1_000
DEFAULT_ADVANCE_LIMIT = 50_000


class Affiliate(msgspec.Struct, frozen=True, kw_only=True):
    """An onboarded affiliate. `advance_limit` is in minor units of whichever currency is advanced."""

    affiliate_id: str
    email: str
    name: str
    payout_method: dict[str, str]
    rate_bps: int
    advance_limit: int
    onboarded: bool
    onboarded_at: str


def affiliate_key(affiliate_id: str) -> tuple[str, str]:
    """Return the key of an affiliate's record."""
    return ("payout-affiliate", affiliate_id)


async def affiliate_of(table: Table, affiliate_id: str) -> tuple[Affiliate | None, int]:
    """Return an affiliate with the record's revision; None and 0 for an unknown one."""
    item = await table.get(affiliate_key(affiliate_id))
    return (msgspec.convert(item.document, Affiliate), item.revision) if item else (None, 0)


async def onboard(
    parts: Parts,
    affiliate_id: str,
    *,
    email: str,
    name: str,
    payout_method: dict[str, str],
    rate_bps: int | None,
    advance_limit: int | None,
) -> dict[str, Any]:
    """Make or change an affiliate; rate and limit keep their value, or the default, when None.

    Returns the record with `created` and `changed`.
    """

    async def change() -> dict[str, Any]:
        known, revision = await affiliate_of(parts.table, affiliate_id)
        rate = known.rate_bps if known else DEFAULT_RATE_BPS
        limit = known.advance_limit if known else DEFAULT_ADVANCE_LIMIT
        after = Affiliate(
            affiliate_id=affiliate_id,
            email=email,
            name=name,
            payout_method=payout_method,
            rate_bps=rate if rate_bps is None else rate_bps,
            advance_limit=limit if advance_limit is None else advance_limit,
            onboarded=True,
            onboarded_at=known.onboarded_at if known else rfc3339(parts.clock()),
        )
        document: dict[str, Any] = msgspec.to_builtins(after)
        if after != known:
            await parts.table.put(affiliate_key(affiliate_id), document, if_revision=revision)
        return {**document, "created": known is None, "changed": known is not None and after != known}

    return await settle(change)
