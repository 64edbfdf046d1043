"""What every adapter of the `Table` port does: keys, documents, single writes and transactions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from infra.table import (
    MAX_DOCUMENT,
    MAX_PARTITION,
    MAX_SORT,
    MAX_TRANSACTION,
    MAX_TRANSACTION_BYTES,
    Check,
    Delete,
    Item,
    Key,
    Put,
    Table,
    Write,
    claim,
)
from router.errors import Stale, StoreUnavailable, TooLarge
from tests.contract.tables import KEY, fill, sorts
from tests.fakes import FakeClock


class TestOneItem:
    """get, put and delete."""

    async def test_absent(self, table: Table) -> None:
        """A key that was never written gives None."""
        assert await table.get(KEY) is None

    async def test_put_then_get(self, table: Table) -> None:
        """What was put comes back with its key, revision 1 and its expiry, to the fraction of a second."""
        expires = 5_000_000_000.123456
        assert await table.put(KEY, {"a": 1}, expires_at=expires) == 1
        assert await table.get(KEY) == Item(KEY, {"a": 1}, 1, expires)

    async def test_overwrite(self, table: Table) -> None:
        """A second put replaces the whole document and raises the revision by one."""
        await table.put(KEY, {"a": 1, "b": 2})
        assert await table.put(KEY, {"c": 3}) == 2
        assert await table.get(KEY) == Item(KEY, {"c": 3}, 2)

    async def test_expiry_is_replaced_too(self, table: Table) -> None:
        """An overwrite without an expiry takes the old one away, one with it sets it."""
        await table.put(KEY, {}, expires_at=5_000_000_000)
        await table.put(KEY, {})
        assert await table.get(KEY) == Item(KEY, {}, 2, None)
        await table.put(KEY, {}, expires_at=6_000_000_000)
        assert await table.get(KEY) == Item(KEY, {}, 3, 6_000_000_000)

    async def test_keys_are_separate(self, table: Table) -> None:
        """Neither the same sort key elsewhere nor the two parts swapped is the same item."""
        for number, key in enumerate([("a", "b"), ("b", "a"), ("a", "ab"), ("ab", "b"), ("a", "B")]):
            await table.put(key, {"n": number})
        found = [await table.get(key) for key in [("a", "b"), ("b", "a"), ("ab", "b")]]
        assert [item.document["n"] for item in found if item] == [0, 1, 3]

    async def test_only_if_absent(self, table: Table) -> None:
        """`if_revision=0` writes an absent item and is refused for one that is there."""
        assert await table.put(KEY, {"by": "first"}, if_revision=0) == 1
        with pytest.raises(Stale):
            await table.put(KEY, {"by": "second"}, if_revision=0)
        assert await table.get(KEY) == Item(KEY, {"by": "first"}, 1)

    async def test_only_if_unchanged(self, table: Table) -> None:
        """`if_revision=n` writes only over revision n."""
        await table.put(KEY, {"n": 1})
        assert await table.put(KEY, {"n": 2}, if_revision=1) == 2
        for wrong in (1, 3, 99):
            with pytest.raises(Stale):
                await table.put(KEY, {"n": 3}, if_revision=wrong)
        assert await table.get(KEY) == Item(KEY, {"n": 2}, 2)

    async def test_revision_of_nothing(self, table: Table) -> None:
        """`if_revision=1` is refused where there is nothing."""
        with pytest.raises(Stale):
            await table.put(KEY, {}, if_revision=1)
        assert await table.get(KEY) is None

    async def test_delete(self, table: Table) -> None:
        """A delete says whether there was something, and the next put starts at revision 1 again."""
        await table.put(KEY, {})
        await table.put(KEY, {})
        assert await table.delete(KEY) is True
        assert await table.get(KEY) is None
        assert await table.delete(KEY) is False
        assert await table.put(KEY, {}) == 1

    async def test_delete_if_unchanged(self, table: Table) -> None:
        """A conditional delete removes only the revision it names."""
        await table.put(KEY, {})
        await table.put(KEY, {})
        for wrong in (0, 1, 3):
            with pytest.raises(Stale):
                await table.delete(KEY, if_revision=wrong)
        assert await table.delete(KEY, if_revision=2) is True
        assert await table.get(KEY) is None

    async def test_delete_if_absent(self, table: Table) -> None:
        """A conditional delete of nothing is refused for a revision and fine for 0."""
        with pytest.raises(Stale):
            await table.delete(KEY, if_revision=1)
        assert await table.delete(KEY, if_revision=0) is False


class TestDocuments:
    """What a document may hold."""

    @pytest.mark.parametrize(
        "document",
        [
            {},
            {"": "", "empty": {}, "none": None, "list": []},
            {"text": "é 😀 \x00 \u2028 \\ \" ' </script> $ref :now #ttl"},
            {"yes": True, "no": False, "int": 1, "float": 1.0, "tenth": 0.1, "huge": 1e308, "tiny": 5e-324},
            {"big": 2**63, "bigger": 2**64, "biggest": 10**60 + 1, "negative": -(2**70)},
            {"deep": {"er": [{"and": [{"deeper": [[[["x"]]]]}]}]}},
            {"pk": "p", "sk": "s", "rev": 9, "exp": 0, "ttl": 0, "doc": "d", "revision": 0},
        ],
        ids=["empty", "nothings", "text", "numbers", "big integers", "nested", "our own names"],
    )
    async def test_comes_back(self, table: Table, document: dict[str, Any]) -> None:
        """A document comes back equal, with integers still integers and floats still floats."""
        await table.put(KEY, document)
        found = await table.get(KEY)
        assert found is not None
        assert repr(found.document) == repr(document)
        [ranged] = (await table.range("thing")).items
        assert repr(ranged.document) == repr(document)

    async def test_largest(self, table: Table) -> None:
        """A document of exactly the limit is stored, also one of two-byte letters."""
        for letter, count in (("a", MAX_DOCUMENT - 8), ("é", MAX_DOCUMENT // 2 - 4)):
            await table.put(("thing", letter), {"a": letter * count})
            found = await table.get(("thing", letter))
            assert found is not None
            assert found.document == {"a": letter * count}

    async def test_largest_over_largest(self, shared: Table) -> None:
        """The largest document may replace another one. Not on moto: it adds the two sizes up."""
        for number in (1, 2):
            assert await shared.put(KEY, {"a": str(number) * (MAX_DOCUMENT - 8)}) == number
        found = await shared.get(KEY)
        assert found is not None
        assert found.document == {"a": "2" * (MAX_DOCUMENT - 8)}

    async def test_too_large(self, table: Table) -> None:
        """A document one byte over the limit is refused, alone and in a transaction."""
        document = {"a": "a" * (MAX_DOCUMENT - 7)}
        with pytest.raises(TooLarge):
            await table.put(KEY, document)
        with pytest.raises(TooLarge):
            await table.transact([Put(("thing", "two"), {}), Put(KEY, document)])
        assert (await table.range("thing")).items == []

    async def test_transaction_too_large(self, table: Table) -> None:
        """Documents that are too large only together are refused together."""
        text = "a" * (MAX_TRANSACTION_BYTES // 11)
        with pytest.raises(TooLarge):
            await table.transact([Put(("thing", str(n)), {"a": text}) for n in range(12)])
        assert (await table.range("thing")).items == []


class TestKeys:
    """What a key may be."""

    @pytest.mark.parametrize(
        "key",
        [
            ("", "s"),
            ("p", ""),
            ("p" * (MAX_PARTITION + 1), "s"),
            ("p", "é" * (MAX_SORT // 2) + "x"),
            ("p", "\ud800"),
        ],
        ids=["no partition", "no sort", "long partition", "long sort", "half a surrogate"],
    )
    async def test_refused(self, table: Table, key: Key) -> None:
        """A key with an empty part or one over DynamoDB's limit is a `ValueError` in every verb."""
        for call in (
            lambda: table.get(key),
            lambda: table.put(key, {}),
            lambda: table.delete(key),
            lambda: table.transact([Put(KEY, {}), Delete(key)]),
            lambda: table.transact([Check(key, 0)]),
        ):
            with pytest.raises(ValueError):
                await call()
        assert await table.get(KEY) is None

    async def test_range_refused(self, table: Table) -> None:
        """A range over no partition, after an overlong key or of no items is a `ValueError`."""
        with pytest.raises(ValueError):
            await table.range("")
        with pytest.raises(ValueError):
            await table.range("p", after="s" * (MAX_SORT + 1))
        for limit in (0, -1):
            with pytest.raises(ValueError):
                await table.range("p", limit=limit)

    @pytest.mark.parametrize("expires_at", [float("inf"), float("nan")])
    async def test_no_instant(self, table: Table, expires_at: float) -> None:
        """An expiry that is no instant is a `ValueError`."""
        with pytest.raises(ValueError):
            await table.put(KEY, {}, expires_at=expires_at)

    async def test_longest(self, table: Table) -> None:
        """A key of the longest parts, of any characters, is stored and found."""
        key = ("é" * (MAX_PARTITION // 2), "#/%*\n" + "s" * (MAX_SORT - 5))
        await table.put(key, {"a": 1})
        assert await table.get(key) == Item(key, {"a": 1}, 1)
        assert await sorts(table, key[0]) == [key[1]]


class TestTransaction:
    """All writes or none."""

    async def test_nothing(self, table: Table) -> None:
        """A transaction without writes is fine."""
        assert await table.transact([]) == []

    @pytest.mark.parametrize("alone", [True, False])
    async def test_new_revisions(self, table: Table, alone: bool) -> None:
        """New revisions come back in order: one more for puts, 0 for deletes and checks."""
        for name, times in (("put", 1), ("if", 2), ("gone", 1), ("checked", 3)):
            for _ in range(times):
                await table.put(("t", name), {})
        writes: list[Write] = [
            Put(("t", "put"), {"n": 1}),
            Put(("t", "if"), {"n": 2}, if_revision=2, expires_at=5_000_000_000.5),
            Put(("t", "new"), {"n": 3}, if_revision=0),
            Put(("t", "fresh"), {"n": 4}),
            Delete(("t", "gone"), if_revision=1),
            Delete(("t", "never")),
            Check(("t", "checked"), 3),
            Check(("t", "absent"), 0),
        ]
        if alone:
            revisions = [revision for write in writes for revision in await table.transact([write])]
        else:
            revisions = await table.transact(writes)
        assert revisions == [2, 3, 1, 1, 0, 0, 0, 0]
        assert (await table.range("t")).items == [
            Item(("t", "checked"), {}, 3),
            Item(("t", "fresh"), {"n": 4}, 1),
            Item(("t", "if"), {"n": 2}, 3, 5_000_000_000.5),
            Item(("t", "new"), {"n": 3}, 1),
            Item(("t", "put"), {"n": 1}, 2),
        ]

    @pytest.mark.parametrize(
        "refused",
        [
            Check(("t", "a"), 2),
            Check(("t", "a"), 0),
            Check(("t", "absent"), 1),
            Put(("t", "a"), {"x": 1}, if_revision=0),
            Put(("t", "a"), {"x": 1}, if_revision=2),
            Delete(("t", "a"), if_revision=2),
            Delete(("t", "absent"), if_revision=1),
        ],
        ids=repr,
    )
    async def test_all_or_nothing(self, table: Table, refused: Write) -> None:
        """One condition that does not hold, wherever it stands, undoes all the others."""
        await fill(table, ["a", "b"], "t")
        others: list[Write] = [Put(("t", "b"), {"n": 1}), Put(("t", "c"), {}), Check(("t", "d"), 0)]
        for place in range(4):
            with pytest.raises(Stale):
                await table.transact([*others[:place], refused, *others[place:]])
        with pytest.raises(Stale):
            await table.transact([refused])
        assert (await table.range("t")).items == [Item(("t", "a"), {}, 1), Item(("t", "b"), {}, 1)]

    async def test_over_partitions(self, table: Table) -> None:
        """One transaction may write several partitions."""
        assert await table.transact([Put(("a", "x"), {}), Put(("b", "x"), {})]) == [1, 1]
        assert await sorts(table, "a") == await sorts(table, "b") == ["x"]

    async def test_most_writes(self, table: Table) -> None:
        """The largest transaction works, unconditional and over what is there."""
        writes = [Put(("t", f"{number:03}"), {"n": number}) for number in range(MAX_TRANSACTION)]
        assert await table.transact(writes) == [1] * MAX_TRANSACTION
        assert await table.transact(writes) == [2] * MAX_TRANSACTION

    async def test_too_many_writes(self, table: Table) -> None:
        """One write more than the limit is a `ValueError` and nothing is written."""
        with pytest.raises(ValueError):
            await table.transact([Put(("t", str(number)), {}) for number in range(MAX_TRANSACTION + 1)])
        assert await sorts(table, "t") == []

    async def test_same_key_twice(self, table: Table) -> None:
        """A key named twice is a `ValueError`, whatever is done to it."""
        with pytest.raises(ValueError):
            await table.transact([Put(KEY, {}), Check(KEY, 0)])
        assert await table.get(KEY) is None


class TestDown:
    """A store that cannot be reached."""

    async def test_every_verb(self, down: Table, clock: FakeClock) -> None:
        """Every verb raises `StoreUnavailable`, which says that trying later may help."""
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: down.get(KEY),
            lambda: down.put(KEY, {}),
            lambda: down.put(KEY, {}, if_revision=0),
            lambda: down.delete(KEY),
            lambda: down.range("p"),
            lambda: down.transact([Put(KEY, {}), Check(("thing", "two"), 0)]),
            lambda: claim(down, clock, KEY, "me", 5),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable) as caught:
                await call()
            assert caught.value.retryable

    async def test_close_twice(self, down: Table) -> None:
        """Closing what is closed already does nothing."""
        await down.close()
        await down.close()
        with pytest.raises(StoreUnavailable):
            await down.get(("a", "b"))
