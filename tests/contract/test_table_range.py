"""What every adapter of the `Table` port does: ordered reads, and items that expired."""

from __future__ import annotations

import pytest

from infra.table import (
    Check,
    Delete,
    Item,
    Key,
    Put,
    Table,
    claim,
)
from router.errors import Stale
from tests.contract.tables import KEY, fill, sorts
from tests.fakes import FakeClock


class TestRange:
    """Ordered reads of a partition."""

    async def test_nothing(self, table: Table) -> None:
        """A partition without items gives an empty last page."""
        page = await table.range("p")
        assert (page.items, page.after) == ([], None)

    async def test_whole_items(self, table: Table) -> None:
        """A range returns items exactly as get does."""
        await table.put(("p", "a"), {"n": 1}, expires_at=5_000_000_000.5)
        await table.put(("p", "b"), {"n": 1})
        await table.put(("p", "b"), {"n": 2})
        assert (await table.range("p")).items == [await table.get(("p", "a")), await table.get(("p", "b"))]

    async def test_order_is_by_code_point(self, table: Table) -> None:
        """Sort keys are ordered by code point, so capitals come first and faces after all other letters."""
        names = ["a", "Z", "é", "e\u0301", "\uffee", "😀", "10", "9", "a b", "a-b", "ab", "~", "\u0131", "ß"]
        await fill(table, names)
        assert await sorts(table) == sorted(names)
        assert await sorts(table, reverse=True) == sorted(names, reverse=True)

    async def test_partitions_do_not_bleed(self, table: Table) -> None:
        """A partition whose name begins like another's has its own items only."""
        for partition in ("a", "ab", "a#", "A", "a\uffff"):
            await fill(table, [f"in {partition}"], partition)
        assert await sorts(table, "a") == ["in a"]
        assert await sorts(table, "ab") == ["in ab"]

    async def test_pages(self, table: Table) -> None:
        """Pages follow each other by cursor without gap or repetition; the last one has none."""
        names = [f"{number:02}" for number in range(7)]
        await fill(table, names)
        for reverse in (False, True):
            seen: list[str] = []
            after = None
            for size in (3, 3, 1):
                page = await table.range("p", after=after, limit=3, reverse=reverse)
                assert len(page.items) == size
                seen += [item.key[1] for item in page.items]
                after = page.after
            assert after is None
            assert seen == sorted(names, reverse=reverse)

    async def test_full_last_page(self, table: Table) -> None:
        """A page that holds exactly what is left has no cursor."""
        await fill(table, ["a", "b", "c", "d"])
        first = await table.range("p", limit=2)
        assert first.after == "b"
        assert (await table.range("p", after="b", limit=2)).after is None

    async def test_after_a_key_that_is_not_there(self, table: Table) -> None:
        """`after` need not exist: the page starts beyond where it would stand."""
        await fill(table, ["b", "d", "f"])
        assert await sorts(table, after="c") == ["d", "f"]
        assert await sorts(table, after="c", reverse=True) == ["b"]
        assert await sorts(table, after="z") == []
        assert await sorts(table, after="a", reverse=True) == []

    async def test_after_nothing(self, table: Table) -> None:
        """An empty `after` stands before all keys: everything is above it and nothing below."""
        await fill(table, ["a", "b"])
        assert await sorts(table, after="") == ["a", "b"]
        assert await sorts(table, after="", reverse=True) == []

    async def test_more_than_a_megabyte(self, table: Table) -> None:
        """A page may be larger than DynamoDB returns at once."""
        for number in range(5):
            await table.put(("p", str(number)), {"a": "a" * 300_000})
        page = await table.range("p", limit=4)
        assert [len(item.document["a"]) for item in page.items] == [300_000] * 4
        assert page.after == "3"

    async def test_written_before_is_seen(self, table: Table) -> None:
        """A read sees every write that was acknowledged before it."""
        for number in range(10):
            await table.put(("p", f"{number}"), {})
            assert len(await sorts(table)) == number + 1


class TestExpiry:
    """An expired item is as good as absent, deleted or not."""

    @pytest.fixture
    async def expired(self, table: Table, clock: FakeClock) -> Key:
        """Plant an item at revision 2 that has expired but that no server has deleted."""
        await table.put(KEY, {"old": True})
        await table.put(KEY, {"old": True}, expires_at=clock() + 10)
        clock.forward(10)
        return KEY

    async def test_until_the_instant(self, table: Table, clock: FakeClock) -> None:
        """An item is there until just before its instant and gone at it, to the fraction of a second."""
        instant = clock() + 10.5
        await table.put(KEY, {}, expires_at=instant)
        clock.forward(10.25)
        assert await table.get(KEY)
        assert await sorts(table, "thing") == ["one"]
        clock.forward(0.25)
        assert await table.get(KEY) is None
        assert await sorts(table, "thing") == []

    async def test_put(self, table: Table, expired: Key) -> None:
        """A put over an expired item starts at revision 1, without the old expiry."""
        assert await table.put(expired, {"new": True}) == 1
        assert await table.get(expired) == Item(expired, {"new": True}, 1)

    async def test_put_if_absent(self, table: Table, expired: Key) -> None:
        """`if_revision=0` holds for an expired item, its last revision does not."""
        with pytest.raises(Stale):
            await table.put(expired, {}, if_revision=2)
        assert await table.put(expired, {"new": True}, if_revision=0) == 1
        assert await table.get(expired) == Item(expired, {"new": True}, 1)

    async def test_delete(self, table: Table, expired: Key) -> None:
        """A delete of an expired item finds nothing."""
        with pytest.raises(Stale):
            await table.delete(expired, if_revision=2)
        assert await table.delete(expired, if_revision=0) is False
        assert await table.delete(expired) is False

    async def test_transaction(self, table: Table, expired: Key) -> None:
        """In a transaction an expired item is absent for checks, puts and deletes."""
        other = ("thing", "two")
        for write in (Check(expired, 2), Put(expired, {}, if_revision=2), Delete(expired, if_revision=2)):
            with pytest.raises(Stale):
                await table.transact([write, Put(other, {})])
        assert await table.transact([Check(expired, 0), Put(other, {})]) == [0, 1]
        assert await table.transact([Put(expired, {}, if_revision=0), Put(other, {})]) == [1, 2]

    async def test_unconditional_in_a_transaction(self, table: Table, expired: Key) -> None:
        """An unconditional put of a transaction over an expired item starts at revision 1."""
        assert await table.transact([Put(expired, {"n": 1}), Put(("thing", "two"), {})]) == [1, 1]
        assert await table.get(expired) == Item(expired, {"n": 1}, 1)

    async def test_single_check(self, table: Table, expired: Key) -> None:
        """A transaction of one check sees an expired item as absent."""
        assert await table.transact([Check(expired, 0)]) == [0]
        with pytest.raises(Stale):
            await table.transact([Check(expired, 2)])

    async def test_claim(self, table: Table, clock: FakeClock, expired: Key) -> None:
        """A lease may be taken where an expired item lies, whatever it holds."""
        lease = await claim(table, clock, expired, "me", 5)
        assert lease is not None
        assert lease.fence == 1

    async def test_limit_counts_live_items(self, table: Table, clock: FakeClock) -> None:
        """Expired items between live ones neither fill a page nor end it."""
        names = [f"{number:02}" for number in range(30)]
        living = names[::10] + names[-1:]
        await fill(table, living)
        await fill(table, [name for name in names if name not in living], expires_at=clock() + 1)
        clock.forward(1)
        page = await table.range("p", limit=2)
        assert ([item.key[1] for item in page.items], page.after) == (["00", "10"], "10")
        page = await table.range("p", after="10", limit=2)
        assert ([item.key[1] for item in page.items], page.after) == (["20", "29"], None)
        page = await table.range("p", limit=3, reverse=True)
        assert ([item.key[1] for item in page.items], page.after) == (["29", "20", "10"], "10")

    async def test_cursor_over_an_expired_tail(self, table: Table, clock: FakeClock) -> None:
        """A page followed by expired items only is the last one."""
        await fill(table, ["a", "b"])
        await fill(table, ["c", "d"], expires_at=clock() + 1)
        clock.forward(1)
        assert (await table.range("p", limit=2)).after is None
