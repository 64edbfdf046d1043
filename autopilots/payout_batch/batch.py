"""A payout batch from intent to report. It may die anywhere and be run again.

The intent (which cutoff, which currency) is written first and never changes. Then come binding, sealing,
paying, the report, and the result. Each step looks at what is there and does what is missing, with
conditional writes; so a run that died is resumed by any later one: of the same batch, by its id or
idempotency key, or of another batch, which finishes what it finds open before its own work.

A lease per batch keeps simultaneous runs from doing the same work twice. It is a courtesy: what keeps them
from paying twice are the conditions.

    ("payout-lease", BATCH)     the lease
    ("payout-open", BATCH)      a batch without a result yet
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from autopilots.kit import Parts
from autopilots.payout_batch.gather import Batch, Keep, Payout, batch_key, batch_of, gather, payouts_of
from autopilots.payout_batch.ledger import PROVIDER, SETTLEMENT, Unbalanced, settle
from autopilots.payout_batch.pay import pay
from autopilots.payout_batch.report import places_of, report
from infra.clock import rfc3339
from infra.table import Delete, Lease, Put, claim, release
from router.errors import AutopilotError, Conflict, StoreUnavailable

LEASE_SECONDS = 60.0
MAX_LISTED = 500
"""Refused affiliates named in a result; `refused_count` counts all of them."""


class Busy(AutopilotError):
    """Raise when another run holds the batch now. Never leaves this module."""


def id_from(key: str) -> str:
    """Return the batch id that stands for an idempotency key."""
    return f"batch_{hashlib.sha256(key.encode()).hexdigest()[:24]}"


async def run(parts: Parts, batch_id: str, *, cutoff: str | None, currency: str) -> dict[str, Any]:
    """Run a batch to its end, or find out that it is done, and return its result.

    `cutoff` is RFC 3339 with milliseconds, None for now. Raises `Conflict` when the id is that of a batch
    with another cutoff or currency, and `Unbalanced` rather than a result that doesn't add up.
    """
    lease = await claim(
        parts.table, parts.clock, ("payout-lease", batch_id), parts.new_id("run"), LEASE_SECONDS
    )
    try:
        batch = await settle(lambda: _intended(parts, batch_id, cutoff, currency))
        if lease is None or batch.is_final:
            return {**result_of(batch), "resumed": []}
        resumed = await _resume_others(parts, batch_id)
        return {**result_of(await _finish(parts, batch_id, lease)), "resumed": resumed}
    finally:
        if lease:
            await _let_go(parts, lease)


def result_of(batch: Batch) -> dict[str, Any]:
    """Return what a batch came to. Amounts are in minor units."""
    return {
        "batch_id": batch.batch_id,
        "status": batch.status,
        "outcome": _outcome(batch),
        "cutoff_date": batch.cutoff,
        "currency": batch.currency or None,
        "payout_count": batch.payout_count,
        "commission_count": batch.commission_count,
        "totals": batch.totals,
        "refused": batch.refused,
        "refused_count": batch.refused_count,
        "provider": PROVIDER,
        "settlement": SETTLEMENT,
        "report": places_of(batch.batch_id) if batch.is_final else None,
        "created_at": batch.created_at,
        "finished_at": batch.finished_at or None,
    }


def _outcome(batch: Batch) -> str:
    refused = f"{batch.refused_count} refused for want of onboarding" if batch.refused_count else ""
    if batch.status == "empty":
        return "nothing to pay"
    if batch.status == "failed":
        return f"nothing paid: {refused}"
    if not batch.is_final:
        return "not finished: another run is at work on it, or it is resumed by the next one"
    paid = f"{batch.commission_count} commissions paid in {batch.payout_count} payouts"
    return f"{paid}; {refused}" if refused else paid


async def _intended(parts: Parts, batch_id: str, cutoff: str | None, currency: str) -> Batch:
    """Return the batch as it is; one that isn't yet is written down with what it is to pay."""
    known, _ = await batch_of(parts.table, batch_id)
    if known:
        if cutoff not in (None, known.cutoff) or currency not in ("", known.currency):
            raise Conflict(
                f"batch {batch_id} has the cutoff {known.cutoff} and the currency {known.currency or 'any'}"
            )
        return known
    now = rfc3339(parts.clock())
    batch = Batch(
        batch_id=batch_id, cutoff=cutoff or now, currency=currency, status="created", created_at=now
    )
    await parts.table.transact(
        [
            Put(batch_key(batch_id), msgspec.to_builtins(batch), if_revision=0),
            Put(("payout-open", batch_id), {"created_at": now}),
        ]
    )
    return batch


async def _resume_others(parts: Parts, batch_id: str) -> list[dict[str, Any]]:
    """Finish batches whose run died, lest their commissions stay bound for ever; return their results."""
    resumed = []
    for item in (await parts.table.range("payout-open")).items:
        other = item.key[1]
        if other == batch_id:
            continue
        key = ("payout-lease", other)
        lease = await claim(parts.table, parts.clock, key, parts.new_id("run"), LEASE_SECONDS)
        if lease is None:
            continue
        try:
            resumed.append(result_of(await _finish(parts, other, lease)))
        except Unbalanced as error:
            # One batch that doesn't add up is for a person to look at; it must not stop all others.
            resumed.append({"batch_id": other, "status": "processing", "outcome": str(error)})
        finally:
            await _let_go(parts, lease)
    return resumed


async def _finish(parts: Parts, batch_id: str, lease: Lease) -> Batch:
    """Do what is missing of a batch; return it as it is then, which is final unless another run took over."""
    until = lease.until

    async def keep() -> None:
        nonlocal until
        if until - parts.clock() > LEASE_SECONDS / 2:
            return
        renewed = await claim(parts.table, parts.clock, lease.key, lease.owner, LEASE_SECONDS)
        if renewed is None:
            raise Busy(f"another run took over batch {batch_id}")
        until = renewed.until

    try:
        return await settle(lambda: _steps(parts, batch_id, keep))
    except Busy:
        return (await _known(parts, batch_id))[0]


async def _known(parts: Parts, batch_id: str) -> tuple[Batch, int]:
    batch, revision = await batch_of(parts.table, batch_id)
    assert batch is not None, "a batch is never removed"
    return batch, revision


async def _steps(parts: Parts, batch_id: str, keep: Keep) -> Batch:
    batch, revision = await _known(parts, batch_id)
    if batch.status == "created":
        refused = await gather(parts, batch, keep)
        # Read again before the payouts: whatever is bound after this makes the sealing stale.
        batch, revision = await _known(parts, batch_id)
        payouts = [payout for payout, _ in await payouts_of(parts.table, batch_id)]
        if batch.status == "created":
            batch = _sealed(batch, payouts, refused)
            document = msgspec.to_builtins(batch)
            revision = await parts.table.put(batch_key(batch_id), document, if_revision=revision)
    if batch.status == "processing":
        await pay(parts, batch, keep)
        payouts = [payout for payout, _ in await payouts_of(parts.table, batch_id)]
        batch = _final(batch, payouts, rfc3339(parts.clock()))
        await keep()
        await report(parts, result_of(batch), payouts)
        final = Put(batch_key(batch_id), msgspec.to_builtins(batch), if_revision=revision)
        await parts.table.transact([final, Delete(("payout-open", batch_id))])
    return batch


def _sealed(batch: Batch, payouts: Sequence[Payout], refused: list[dict[str, Any]]) -> Batch:
    """Return the batch with everything it will pay."""
    sums: dict[str, int] = {}
    for payout in payouts:
        sums[payout.currency] = sums.get(payout.currency, 0) + payout.amount
    return msgspec.structs.replace(
        batch,
        status="processing",
        payout_count=len(payouts),
        commission_count=sum(payout.commissions for payout in payouts),
        totals=[{"currency": code, "amount": sums[code]} for code in sorted(sums)],
        refused=refused[:MAX_LISTED],
        refused_count=len(refused),
    )


def _final(batch: Batch, payouts: Sequence[Payout], now: str) -> Batch:
    """Return the batch with its final status, and in its totals what was transferred and recovered."""
    totals = []
    for total in batch.totals:
        mine = [payout for payout in payouts if payout.currency == total["currency"]]
        recovered = sum(payout.recovered for payout in mine)
        transferred = sum(payout.transferred for payout in mine)
        totals.append({**total, "transferred": transferred, "recovered": recovered})
    if payouts:
        status = "partial" if batch.refused_count else "paid"
    else:
        status = "failed" if batch.refused_count else "empty"
    return msgspec.structs.replace(batch, status=status, finished_at=now, totals=totals)


async def _let_go(parts: Parts, lease: Lease) -> None:
    """Give the lease back; when the store is down it simply runs out."""
    try:
        await release(parts.table, lease)
    except StoreUnavailable:
        return
