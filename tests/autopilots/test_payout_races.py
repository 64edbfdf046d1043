"""Payouts at once: simultaneous runs and batches, lost leases, and whatever comes between two writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilots.payout_batch import batch as batches
from autopilots.payout_batch.gather import CHUNK
from infra.table import Document, Item, Key, Page, Put, Write, claim
from infra.table.sqlite import SqliteTable
from tests.autopilots.test_payout_batch import Desk
from tests.autopilots.test_payout_faults import TOTALS, Mortal, check_books, fill, with_table
from tests.fakes import FakeClock, parts_for


@pytest.fixture
def desk(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Desk:
    """Give the autopilot over a real table and folder."""
    return Desk(parts_for(table, clock, tmp_path / "blobs"))


async def test_simultaneous_runs_of_one_batch_pay_once(desk: Desk) -> None:
    """Ten identical runs at once pay once; who is not at work says that another is."""
    await fill(desk)
    results = await asyncio.gather(
        *(desk.done("batch", {"cutoff_date": "2026-01-01"}, "k") for _ in range(10))
    )
    assert len({result["batch_id"] for result in results}) == 1
    assert {result["status"] for result in results} <= {"created", "processing", "partial"}
    assert [result["totals"] for result in results if result["status"] == "partial"] == [TOTALS]
    busy = next(result for result in results if result["status"] != "partial")
    assert "another run is at work" in busy["outcome"]
    assert busy["report"] is None
    await check_books(desk.parts.table)
    assert (await desk.done("batch", {}, "k"))["totals"] == TOTALS


async def test_simultaneous_batches_share_nothing(desk: Desk) -> None:
    """Five different batches, sales and transfers at once: each commission is in one batch at most."""
    await fill(desk)
    work = [desk.done("batch", {}) for _ in range(5)]
    work += [desk.sell("aff_2", f"late{n}", 1_000) for n in range(5)]
    transfer = {"affiliate_id": "aff_2", "amount": 10, "currency": "usd"}
    work += [desk.done("transfer", transfer) for _ in range(5)]
    await asyncio.gather(*work)
    await desk.done("batch", {})
    await check_books(desk.parts.table)
    assert (await desk.balance("aff_2"))["owed"] == 0


async def test_runs_without_any_lease_pay_once(desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """Even when every run believes that it holds the lease, the conditions let each payment through once."""

    class Lax(SqliteTable):
        """Never shows a lease."""

        async def get(self, key: Key) -> Item | None:
            return None if key[0] == "payout-lease" else await super().get(key)

        async def transact(self, writes: Sequence[Write]) -> list[int]:
            lax = [
                replace(one, if_revision=None)
                if isinstance(one, Put) and one.key[0] == "payout-lease"
                else one
                for one in writes
            ]
            return await super().transact(lax)

    await fill(desk)
    lax = Lax(tmp_path / "table.db", clock)
    runs = [with_table(desk, lax).done("batch", {"batch_id": "b"}) for _ in range(6)]
    results = await asyncio.gather(*runs)
    await lax.close()
    assert [result["totals"] for result in results] == [TOTALS] * 6
    await check_books(desk.parts.table)


class Slow(Mortal):
    """A table whose bindings and payments take seconds each, while somebody wants the lease of batch b."""

    def __init__(self, table: SqliteTable, clock: FakeClock, seconds: float) -> None:
        super().__init__(table)
        self.clock = clock
        self.seconds = seconds
        self.stolen = 0

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        revisions = await super().transact(writes)
        if all(write.key[0] != "payout-open" for write in writes):
            self.clock.forward(self.seconds)
        stolen = await claim(self.table, self.clock, ("payout-lease", "b"), "thief", 1)
        self.stolen += stolen is not None
        return revisions


async def test_a_long_batch_keeps_its_lease(table: SqliteTable, desk: Desk, clock: FakeClock) -> None:
    """A run that goes on for minutes renews its lease and is never taken for dead."""
    await fill(desk)
    slow = Slow(table, clock, 25)
    result = await with_table(desk, slow).done("batch", {"batch_id": "b"})
    assert (result["status"], result["totals"]) == ("partial", TOTALS)
    assert slow.stolen == 0


async def test_a_run_that_lost_its_lease_stops(table: SqliteTable, desk: Desk, clock: FakeClock) -> None:
    """A run that was taken over says how far the batch is, and leaves the rest to who has it."""
    await fill(desk)
    slow = Slow(table, clock, batches.LEASE_SECONDS + 5)
    stopped = await with_table(desk, slow).done("batch", {"batch_id": "b"})
    assert slow.stolen > 0
    assert (stopped["status"], stopped["commission_count"]) == ("created", CHUNK)
    clock.forward(2)
    assert (await desk.done("batch", {"batch_id": "b"}))["totals"] == TOTALS
    await check_books(table)


async def test_a_run_that_was_overtaken_adds_nothing(desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """A run that slept before its first binding finds the batch done by another, and adds nothing to it."""

    class Sleepy(SqliteTable):
        slept = False

        async def transact(self, writes: Sequence[Write]) -> list[int]:
            if len(writes) > CHUNK and not self.slept:
                self.slept = True
                clock.forward(batches.LEASE_SECONDS + 1)
                assert (await desk.done("batch", {"batch_id": "b"}))["totals"] == TOTALS
                await desk.onboard("aff_3")
            return await super().transact(writes)

    await fill(desk)
    sleepy = Sleepy(tmp_path / "table.db", clock)
    result = await with_table(desk, sleepy).done("batch", {"batch_id": "b"})
    await sleepy.close()
    assert (result["status"], result["totals"]) == ("partial", TOTALS)
    await check_books(desk.parts.table)
    assert (await desk.balance("aff_3"))["owed"] == 900


async def test_nothing_joins_a_batch_while_it_is_sealed(desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """A commission that one run binds while another seals the batch stays out, and due."""
    about_to_bind, sealed = asyncio.Event(), asyncio.Event()

    class Binder(SqliteTable):
        async def transact(self, writes: Sequence[Write]) -> list[int]:
            if any(write.key == ("payout-batch/b", "aff_3/usd") for write in writes):
                about_to_bind.set()
                await sealed.wait()
            return await super().transact(writes)

    binder = Binder(tmp_path / "table.db", clock)
    late: list[asyncio.Task[dict[str, Any]]] = []

    class Sealer(SqliteTable):
        async def put(
            self,
            key: Key,
            document: Document,
            *,
            if_revision: int | None = None,
            expires_at: float | None = None,
        ) -> int:
            if key == ("payout-batches", "b") and not late:
                await desk.onboard("aff_3")
                clock.forward(batches.LEASE_SECONDS + 1)
                late.append(asyncio.create_task(with_table(desk, binder).done("batch", {"batch_id": "b"})))
                await about_to_bind.wait()
            revision = await super().put(key, document, if_revision=if_revision, expires_at=expires_at)
            if key == ("payout-batches", "b"):
                sealed.set()
            return revision

    await fill(desk)
    sealer = Sealer(tmp_path / "table.db", clock)
    early = await with_table(desk, sealer).done("batch", {"batch_id": "b"})
    assert early["status"] == "processing"
    assert (await late[0])["totals"] == TOTALS
    await sealer.close()
    await binder.close()
    await check_books(desk.parts.table)
    assert (await desk.balance("aff_3"))["owed"] == 900


async def test_what_was_bound_just_before_the_sealing_is_in(
    desk: Desk, clock: FakeClock, tmp_path: Path
) -> None:
    """A run that seals with what it read before another bound more reads again, and counts all."""
    done: list[dict[str, Any]] = []

    class Sealer(SqliteTable):
        async def put(
            self,
            key: Key,
            document: Document,
            *,
            if_revision: int | None = None,
            expires_at: float | None = None,
        ) -> int:
            if key == ("payout-batches", "b") and not done:
                await desk.onboard("aff_3")
                clock.forward(batches.LEASE_SECONDS + 1)
                done.append(await desk.done("batch", {"batch_id": "b"}))
            return await super().put(key, document, if_revision=if_revision, expires_at=expires_at)

    await fill(desk)
    sealer = Sealer(tmp_path / "table.db", clock)
    assert await with_table(desk, sealer).done("batch", {"batch_id": "b"}) == done[0]
    await sealer.close()
    assert done[0]["status"] == "paid"
    assert [total["amount"] for total in done[0]["totals"]] == [500, 6_200]
    await check_books(desk.parts.table)


async def test_a_limit_lowered_in_the_last_moment_holds(desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """A transfer is judged by the affiliate's record as it is when the money moves."""

    class Interrupted(SqliteTable):
        async def transact(self, writes: Sequence[Write]) -> list[int]:
            if any(write.key[0] == "payout-transfer" for write in writes):
                await desk.onboard("aff_1", advance_limit=10)
            return await super().transact(writes)

    await desk.onboard("aff_1", advance_limit=100)
    interrupted = Interrupted(tmp_path / "table.db", clock)
    meta = {"affiliate_id": "aff_1", "amount": 50, "currency": "usd"}
    assert (await with_table(desk, interrupted).do("transfer", meta)).status_code == 409
    await interrupted.close()


async def test_what_is_read_in_pages_is_read_to_the_end(desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """Batches and statements are complete however short the pages of the store are."""

    class Narrow(SqliteTable):
        async def range(
            self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
        ) -> Page:
            return await super().range(partition, after=after, limit=1, reverse=reverse)

    await fill(desk)
    narrow = Narrow(tmp_path / "table.db", clock)
    other = with_table(desk, narrow)
    assert (await other.done("batch", {"batch_id": "b"}))["totals"] == TOTALS
    statement = await other.done("statement", {"affiliate_id": "aff_1", "currency": "usd"})
    await narrow.close()
    assert len(statement["commissions"]) == CHUNK + 2
    assert statement["balances"][0]["transferred"] == CHUNK * 100 + 200
    await check_books(desk.parts.table)
