"""Payouts when things go wrong: dying at any write, a full disk, tampered books, and any mix of it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilots.payout_batch import batch as batches
from autopilots.payout_batch.gather import CHUNK, chunk_of, payouts_of
from autopilots.payout_batch.ledger import book_of, entries_of, entry_key
from infra.blobs import Blob
from infra.blobs.folder import FolderBlobs
from infra.table import Document, Item, Key, Page, Table, Write
from infra.table.sqlite import SqliteTable
from router.errors import StoreUnavailable
from tests.autopilots.test_payout_batch import Desk
from tests.fakes import FakeClock, parts_for

AFFILIATES = ("aff_1", "aff_2", "aff_3")
CURRENCIES = ("usd", "eur")


class Mortal:
    """A table of a process that dies at write number `last`, before or after the store has done it.

    From then on nothing reaches the store any more, as from a process that is gone.
    """

    kind = "sqlite"

    def __init__(self, table: SqliteTable, last: int = 0, *, after: bool = False) -> None:
        self.table = table
        self.last = last
        self.after = after
        self.writes = 0
        self.dead = False

    async def _write(self, write: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        self._check()
        self.writes += 1
        if self.writes != self.last:
            return await write()
        self.dead = True
        if self.after:
            await write()
        raise StoreUnavailable("the process died")

    def _check(self) -> None:
        if self.dead:
            raise StoreUnavailable("the process is dead")

    async def get(self, key: Key) -> Item | None:
        self._check()
        return await self.table.get(key)

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        self._check()
        return await self.table.range(partition, after=after, limit=limit, reverse=reverse)

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        put = self.table.put
        revision = await self._write(
            lambda: put(key, document, if_revision=if_revision, expires_at=expires_at)
        )
        return int(revision)

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        return bool(await self._write(lambda: self.table.delete(key, if_revision=if_revision)))

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        return list(await self._write(lambda: self.table.transact(writes)))

    async def close(self) -> None:
        await self.table.close()


def with_table(desk: Desk, table: Table) -> Desk:
    """Give the same desk over another table."""
    return Desk(replace(desk.parts, table=table))


async def fill(desk: Desk) -> None:
    """Onboard two of three affiliates; give them an advance, two currencies and more than one chunk."""
    await desk.onboard("aff_1")
    await desk.onboard("aff_2")
    await desk.done("transfer", {"affiliate_id": "aff_1", "amount": 70, "currency": "usd"})
    for n in range(CHUNK + 2):
        await desk.sell("aff_1", f"s{n}", 1_000)
    await desk.sell("aff_2", "a", 3_000)
    await desk.sell("aff_2", "b", 5_000, currency="eur")
    await desk.sell("aff_3", "a", 9_000)


TOTALS = [
    {"currency": "eur", "amount": 500, "transferred": 500, "recovered": 0},
    {"currency": "usd", "amount": 5_300, "transferred": 5_230, "recovered": 70},
]


async def check_books(table: Table) -> None:
    """Assert what must hold whenever no run is under way, whatever happened before.

    Every commission is in one payout or none, payouts are worth their commissions, each is posted once, and
    every book is the sum of its entries.
    """
    commissions = {
        (affiliate, item.key[1]): item.document
        for affiliate in AFFILIATES
        for item in (await table.range(f"payout-commissions/{affiliate}", limit=1_000)).items
    }
    counted: Counter[tuple[str, str]] = Counter()
    posted: Counter[str] = Counter()
    for row in (await table.range("payout-batches", limit=1_000)).items:
        payouts = [payout for payout, _ in await payouts_of(table, row.key[1])]
        for payout in payouts:
            lines = [one for n in range(payout.chunks) for one, _ in await chunk_of(table, payout, n)]
            counted.update((one.affiliate_id, one.sale_id) for one in lines)
            assert sum(one.amount for one in lines) == payout.amount == payout.transferred + payout.recovered
            assert {one.status for one in lines} == {"paid"}
            assert {one.currency for one in lines} == {payout.currency}
            posted[payout.payout_id] += 1
        totals = {total["currency"]: total["amount"] for total in row.document["totals"]}
        for currency, amount in totals.items():
            assert amount == sum(payout.amount for payout in payouts if payout.currency == currency)
    paid = {key for key, one in commissions.items() if one["status"] == "paid"}
    assert counted == Counter(paid)
    for affiliate in AFFILIATES:
        entries = await entries_of(table, affiliate)
        for one in entries:
            assert sum(one.lines.values()) == 0
            if one.kind == "payout":
                posted[one.reference] -= 1
        for currency in CURRENCIES:
            book, _ = await book_of(table, affiliate, currency)
            mine = [one for one in entries if one.currency == currency]
            assert [one.number for one in mine] == list(range(1, book.entries + 1))
            for account in ("expense", "payable", "advance", "cash"):
                assert getattr(book, account) == sum(one.lines.get(account, 0) for one in mine)
            owed = sum(
                one["amount"]
                for key, one in commissions.items()
                if key[0] == affiliate and one["currency"] == currency and one["status"] == "approved"
            )
            assert book.owed == owed
    assert not any(posted.values())


@pytest.fixture
def desk(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Desk:
    """Give the autopilot over a real table and folder."""
    return Desk(parts_for(table, clock, tmp_path / "blobs"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database file with commissions in it, made once."""
    folder = tmp_path_factory.mktemp("filled")

    async def work() -> None:
        clock = FakeClock()
        table = SqliteTable(folder / "table.db", clock)
        await fill(Desk(parts_for(table, clock, folder / "blobs")))
        await table.close()

    asyncio.run(work())
    return folder / "table.db"


def _copy(filled: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(filled, folder / "table.db")
    return folder


async def _die_and_resume(folder: Path, last: int, *, after: bool, named: bool) -> bool:
    """Run a batch that dies at write `last`, then another run; return whether it died at all."""
    clock = FakeClock()
    table = SqliteTable(folder / "table.db", clock)
    alive = Desk(parts_for(table, clock, folder / "blobs"))
    mortal = Mortal(table, last, after=after)
    meta = {"batch_id": "b"} if named else {}
    first = await with_table(alive, mortal).do("batch", meta)
    # A run that dies while it gives its lease back has done its work, and may say so.
    assert first.status_code in ((200, 503) if mortal.dead else (200,))
    clock.forward(batches.LEASE_SECONDS + 1)
    result = await alive.done("batch", meta)
    every = [result, *result["resumed"], *([first.json()] if first.status_code == 200 else [])]
    done = {one["batch_id"]: one for one in every if one["status"] != "empty" and one["totals"]}
    # A batch that died right after its last write is done, and is not told of by another one.
    if done or named:
        [batch] = done.values()
        assert (batch["status"], batch["totals"]) == ("partial", TOTALS)
        assert [one["affiliate_id"] for one in batch["refused"]] == ["aff_3"]
    await check_books(table)
    assert (await table.range("payout-open")).items == []
    assert (await alive.balance("aff_1"))["transferred"] == CHUNK * 100 + 200
    assert (await alive.balance("aff_2"))["transferred"] == 300
    assert (await alive.balance("aff_3"))["owed"] == 900
    await table.close()
    return mortal.dead


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("after", [False, True])
async def test_a_batch_may_die_at_any_write(
    filled: Path, tmp_path: Path, *, after: bool, named: bool
) -> None:
    """Wherever a run dies the next one ends with the same totals, and nothing is paid twice."""
    last = 1
    while await _die_and_resume(_copy(filled, tmp_path / str(last)), last, after=after, named=named):
        last += 1
    assert last > 10


async def test_a_batch_may_die_while_its_report_is_written(desk: Desk, tmp_path: Path) -> None:
    """Without its report a batch is not finished; the next run writes it and has the same totals."""

    class Full(FolderBlobs):
        async def put(self, bucket: str, key: str, blob: Blob) -> None:
            raise StoreUnavailable("disk full")

    await fill(desk)
    broken = Desk(replace(desk.parts, blobs=Full(tmp_path)))
    assert (await broken.do("batch", {"batch_id": "b"})).status_code == 503
    result = await desk.done("batch", {"batch_id": "b"})
    assert (result["status"], result["totals"]) == ("partial", TOTALS)
    await check_books(desk.parts.table)


async def _more_commission(table: Table) -> None:
    key = ("payout-commissions/aff_2", "a")
    item = await table.get(key)
    assert item is not None
    await table.put(key, {**item.document, "amount": 3_000})


async def _free_commission(table: Table) -> None:
    key = ("payout-commissions/aff_2", "a")
    item = await table.get(key)
    assert item is not None
    await table.put(key, {**item.document, "payout_id": "another"})


async def _other_entry(table: Table) -> None:
    item = await table.get(entry_key("aff_2", "eur", 2))
    assert item is not None
    await table.put(item.key, {**item.document, "lines": {"payable": 9, "advance": 0, "cash": -9}})


async def _other_total(table: Table) -> None:
    item = await table.get(("payout-batches", "b"))
    assert item is not None
    [first, *others] = item.document["totals"]
    await table.put(item.key, {**item.document, "totals": [{**first, "amount": 1}, *others]})


@pytest.mark.parametrize("tamper", [_more_commission, _free_commission, _other_entry, _other_total])
async def test_a_batch_that_does_not_add_up_has_no_result(
    desk: Desk, tmp_path: Path, tamper: Callable[[Table], Coroutine[Any, Any, None]]
) -> None:
    """When a record was changed behind the ledger's back the batch fails, and others go on without it."""

    class Full(FolderBlobs):
        async def put(self, bucket: str, key: str, blob: Blob) -> None:
            raise StoreUnavailable("disk full")

    await fill(desk)
    broken = Desk(replace(desk.parts, blobs=Full(tmp_path)))
    assert (await broken.do("batch", {"batch_id": "b"})).status_code == 503
    await tamper(desk.parts.table)
    reply = await desk.do("batch", {"batch_id": "b"})
    assert (reply.status_code, reply.json()["code"]) == (500, "unbalanced")
    await desk.sell("aff_1", "new", 1_000)
    other = await desk.done("batch", {})
    assert other["totals"][0]["amount"] == 100
    assert [(one["batch_id"], one["status"]) for one in other["resumed"]] == [("b", "processing")]


Deed = tuple[str, str, int, int]
deeds: st.SearchStrategy[Deed] = st.one_of(
    st.tuples(st.just("sell"), st.sampled_from(AFFILIATES), st.integers(0, 12), st.integers(1, 10**9)),
    st.tuples(st.just("transfer"), st.sampled_from(AFFILIATES), st.integers(0, 3), st.integers(1, 60_000)),
    st.tuples(st.just("batch"), st.sampled_from(["", "b1", "b2"]), st.integers(0, 25), st.integers(0, 1)),
    st.tuples(st.just("onboard"), st.sampled_from(AFFILIATES), st.just(0), st.just(0)),
)


async def _deed(desk: Desk, table: SqliteTable, clock: FakeClock, deed: Deed) -> None:
    """Do one thing. A batch with a number dies at that write."""
    kind, name, number, amount = deed
    clock.forward(batches.LEASE_SECONDS + 1)
    currency = CURRENCIES[number % 2]
    meta: dict[str, Any] = {"affiliate_id": name, "amount": amount, "currency": currency}
    if kind == "sell":
        reply = await desk.do("commission", {**meta, "sale_id": f"s{number}", "rate_bps": 1_250})
    elif kind == "transfer":
        reply = await desk.do("transfer", {**meta, "reference": f"r{number}"})
    elif kind == "onboard":
        await desk.onboard(name)
        return
    else:
        mortal = Mortal(table, number, after=bool(amount))
        reply = await with_table(desk, mortal).do("batch", {"batch_id": name} if name else {})
        assert reply.status_code == 200 or mortal.dead
        return
    assert reply.status_code in (200, 409)


@settings(max_examples=20, deadline=None)
@given(st.lists(deeds, max_size=25))
def test_whatever_happens_the_books_balance(todo: list[Deed]) -> None:
    """After any mix of sales, transfers, onboarding and dying batches, two more runs leave true books."""

    async def work(folder: Path) -> None:
        clock = FakeClock()
        table = SqliteTable(folder / "table.db", clock)
        desk = Desk(parts_for(table, clock, folder / "blobs"))
        for deed in [*todo, ("batch", "", 0, 0)]:
            await _deed(desk, table, clock, deed)
        await check_books(table)
        for affiliate in AFFILIATES:
            await desk.onboard(affiliate)
        await desk.done("batch", {})
        await check_books(table)
        for affiliate in AFFILIATES:
            for currency in CURRENCIES:
                book, _ = await book_of(table, affiliate, currency)
                # All that was earned is paid: what left us is that and what is still advanced.
                assert book.owed == 0
                assert -book.cash == book.expense + book.advance
        await table.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder)))
