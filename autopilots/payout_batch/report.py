"""The report of a batch, as JSON and CSV. Writing it is the audit: it adds everything up again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from autopilots.kit import Parts
from autopilots.payout_batch.commissions import Commission
from autopilots.payout_batch.gather import Payout, chunk_of
from autopilots.payout_batch.ledger import Unbalanced, entry_of
from infra.blobs import Blob
from infra.table import Table

BUCKET = "autopilot-payouts-logs"

_COLUMNS = (
    "batch_id",
    "payout_id",
    "affiliate_id",
    "currency",
    "commission_id",
    "sale_id",
    "sale_amount",
    "rate_bps",
    "amount",
)


def places_of(batch_id: str) -> dict[str, str]:
    """Return where the report of a batch is."""
    return {"bucket": BUCKET, "json": f"batches/{batch_id}.json", "csv": f"batches/{batch_id}.csv"}


async def report(parts: Parts, result: dict[str, Any], payouts: Sequence[Payout]) -> None:
    """Store the result of a batch with its payouts and commissions.

    Raises `Unbalanced` when commissions, payouts, ledger entries and totals don't agree to the last unit.
    """
    audited = [(payout, await _audited(parts.table, payout)) for payout in payouts]
    _check_totals(result, payouts)
    document = {
        **result,
        "payouts": [
            {**msgspec.to_builtins(payout), "lines": [_row(payout, one) for one in commissions]}
            for payout, commissions in audited
        ],
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(_row(payout, one) for payout, commissions in audited for one in commissions)
    places = places_of(result["batch_id"])
    # What is served as a download never runs as a page: both types are inert.
    pretty = msgspec.json.format(msgspec.json.encode(document), indent=2)
    await parts.blobs.put(BUCKET, places["json"], Blob(pretty, "application/json"))
    csv_blob = Blob(text.getvalue().encode(), "text/csv; charset=utf-8")
    await parts.blobs.put(BUCKET, places["csv"], csv_blob)


def _row(payout: Payout, one: Commission) -> dict[str, Any]:
    return {
        "batch_id": payout.batch_id,
        "payout_id": payout.payout_id,
        "affiliate_id": payout.affiliate_id,
        "currency": payout.currency,
        "commission_id": one.commission_id,
        "sale_id": one.sale_id,
        "sale_amount": one.sale_amount,
        "rate_bps": one.rate_bps,
        "amount": one.amount,
    }


async def _audited(table: Table, payout: Payout) -> list[Commission]:
    """Return the commissions of a payout after comparing their sum with the payout and its entry."""
    found = [one for number in range(payout.chunks) for one, _ in await chunk_of(table, payout, number)]
    if any(one.payout_id != payout.payout_id or one.status != "paid" for one in found):
        raise Unbalanced(f"payout {payout.payout_id} counts a commission that is not its own")
    entry = await entry_of(table, payout.affiliate_id, payout.currency, payout.entry)
    expected = {"payable": payout.amount, "advance": -payout.recovered, "cash": -payout.transferred}
    if entry is None or entry.reference != payout.payout_id or entry.lines != expected:
        raise Unbalanced(f"the ledger's entry of payout {payout.payout_id} is not what was paid")
    if len(found) != payout.commissions or sum(one.amount for one in found) != payout.amount:
        raise Unbalanced(f"the commissions of payout {payout.payout_id} don't sum to {payout.amount}")
    return found


def _check_totals(result: dict[str, Any], payouts: Sequence[Payout]) -> None:
    for total in result["totals"]:
        mine = [payout for payout in payouts if payout.currency == total["currency"]]
        if sum(payout.amount for payout in mine) != total["amount"]:
            raise Unbalanced(f"the payouts of {result['batch_id']} don't sum to its {total}")
