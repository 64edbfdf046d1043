"""What every adapter of the `Table` port does when several want the same: leases and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.table import (
    Item,
    Key,
    Put,
    Table,
    claim,
    release,
)
from infra.table.sqlite import SqliteTable
from router.errors import Stale
from tests.contract.tables import KEY
from tests.fakes import FakeClock


class TestClaim:
    """Leases with a fencing number."""

    async def test_one_holder(self, table: Table, clock: FakeClock) -> None:
        """While one holds a lease nobody else gets it."""
        lease = await claim(table, clock, KEY, "a", 10)
        assert lease is not None
        assert (lease.owner, lease.fence, lease.until) == ("a", 1, clock() + 10)
        assert await claim(table, clock, KEY, "b", 10) is None

    async def test_renewal(self, table: Table, clock: FakeClock) -> None:
        """The owner's renewal moves the end and keeps the fence."""
        await claim(table, clock, KEY, "a", 10)
        clock.forward(9)
        renewed = await claim(table, clock, KEY, "a", 10)
        assert renewed is not None
        assert (renewed.fence, renewed.until) == (1, clock() + 10)
        clock.forward(9)
        assert await claim(table, clock, KEY, "b", 10) is None

    async def test_over(self, table: Table, clock: FakeClock) -> None:
        """A lease that ran out goes to whoever asks, with a higher fence, even to the same owner."""
        await claim(table, clock, KEY, "a", 10)
        for fence, owner in ((2, "b"), (3, "b"), (4, "a")):
            clock.forward(10)
            lease = await claim(table, clock, KEY, owner, 10)
            assert lease is not None
            assert lease.fence == fence

    async def test_release(self, table: Table, clock: FakeClock) -> None:
        """A lease given back is free at once, and the next fence is higher."""
        first = await claim(table, clock, KEY, "a", 10)
        assert first is not None
        await release(table, first)
        second = await claim(table, clock, KEY, "b", 10)
        assert second is not None
        assert second.fence == 2

    async def test_late_predecessor(self, table: Table, clock: FakeClock) -> None:
        """One who held a lease before can neither release nor outrank the present holder."""
        late = await claim(table, clock, KEY, "a", 10)
        clock.forward(10)
        holder = await claim(table, clock, KEY, "b", 10)
        assert late is not None
        assert holder is not None
        assert late.fence < holder.fence
        await release(table, late)
        assert await claim(table, clock, KEY, "c", 10) is None

    async def test_contenders(self, shared: Table, clock: FakeClock) -> None:
        """Of eight who ask at once exactly one gets the lease, round after round."""
        for turn in range(5):
            leases = await asyncio.gather(*(claim(shared, clock, KEY, f"owner {n}", 10) for n in range(8)))
            assert [lease.fence for lease in leases if lease] == [turn + 1]
            clock.forward(10)


class Overtaken(SqliteTable):
    """A table where somebody takes the lease right after each time it is read."""

    async def get(self, key: Key) -> Item | None:
        item = await super().get(key)
        await self.put(key, {"owner": "quick", "fence": 9, "until": 1e11})
        return item


async def test_overtaken_lease(tmp_path: Path, clock: FakeClock) -> None:
    """Whoever is overtaken between reading and writing gets no lease, and gives none back."""
    table = SqliteTable(tmp_path / "table.db", clock)
    overtaken = Overtaken(tmp_path / "table.db", clock)
    assert await claim(overtaken, clock, KEY, "slow", 10) is None
    await table.delete(KEY)
    lease = await claim(table, clock, KEY, "slow", 10)
    assert lease is not None
    await release(overtaken, lease)
    item = await table.get(KEY)
    assert item is not None
    assert item.document["owner"] == "quick"
    await table.close()
    await overtaken.close()


THREADS, INCREMENTS = 8, 200


async def _increment(table: Table, key: Key, times: int) -> None:
    for _ in range(times):
        while True:
            item = await table.get(key)
            count = item.document["count"] if item else 0
            try:
                await table.put(key, {"count": count + 1}, if_revision=item.revision if item else 0)
            except Stale:
                continue
            break


async def _in_threads(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run each work in a thread and an event loop of its own."""

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        await work()

    with ThreadPoolExecutor(len(works)) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, asyncio.run, run(work)) for work in works))


class TestConcurrency:
    """Several threads, each with its own event loop, on one table."""

    async def test_increments(self, shared: Table) -> None:
        """1600 conditional increments by eight threads, two to a counter, lose nothing."""
        keys = [("count", str(number // 2)) for number in range(THREADS)]
        await _in_threads([lambda key=key: _increment(shared, key, INCREMENTS) for key in keys])  # type: ignore[misc]
        items = (await shared.range("count")).items
        assert [item.document["count"] for item in items] == [2 * INCREMENTS] * (THREADS // 2)
        assert [item.revision for item in items] == [2 * INCREMENTS] * (THREADS // 2)

    async def test_one_counter(self, shared: Table) -> None:
        """Eight threads on a single counter lose nothing either."""
        await _in_threads([lambda: _increment(shared, KEY, 10)] * THREADS)
        item = await shared.get(KEY)
        assert item is not None
        assert (item.document["count"], item.revision) == (THREADS * 10, THREADS * 10)

    async def test_unconditional_puts(self, shared: Table) -> None:
        """Every unconditional put gets a revision of its own, alone and in a transaction."""
        revisions: list[int] = []

        async def alone() -> None:
            revisions.extend([await shared.put(KEY, {}) for _ in range(10)])

        async def together() -> None:
            writes = [Put(KEY, {}), Put(("thing", "two"), {})]
            revisions.extend([(await shared.transact(writes))[0] for _ in range(5)])

        await _in_threads([alone, together] * 2)
        assert sorted(revisions) == list(range(1, 31))

    async def test_transfers(self, shared: Table) -> None:
        """Transactions that move amounts between two items keep the sum, whoever is stale tries again."""
        left, right = ("sum", "left"), ("sum", "right")
        await shared.transact([Put(left, {"n": 0}), Put(right, {"n": 0})])

        async def move() -> None:
            for _ in range(10):
                while True:
                    one, two = (await shared.range("sum")).items
                    try:
                        await shared.transact(
                            [
                                Put(left, {"n": one.document["n"] + 1}, if_revision=one.revision),
                                Put(right, {"n": two.document["n"] - 1}, if_revision=two.revision),
                            ]
                        )
                    except Stale:
                        continue
                    break

        await _in_threads([move] * 4)
        assert [item.document["n"] for item in (await shared.range("sum")).items] == [40, -40]
