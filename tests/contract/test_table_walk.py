"""Every adapter of the `Table` port beside a dict: after any steps they hold the same."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from infra.table import (
    Check,
    Delete,
    Item,
    Key,
    Put,
    Table,
    Write,
)
from router.errors import Stale
from tests.fakes import FakeClock


class Model:
    """The same table as a dict: what the random walk expects."""

    def __init__(self, clock: FakeClock) -> None:
        self.items: dict[Key, Item] = {}
        self.clock = clock

    def get(self, key: Key) -> Item | None:
        item = self.items.get(key)
        return item if item and (item.expires_at is None or item.expires_at > self.clock()) else None

    def transact(self, writes: Sequence[Write]) -> list[int] | None:
        """Return the revisions, None when a condition does not hold."""
        held = {write.key: item.revision if (item := self.get(write.key)) else 0 for write in writes}
        if any(write.if_revision not in {None, held[write.key]} for write in writes):
            return None
        for write in writes:
            if isinstance(write, Put):
                revision = held[write.key] + 1
                self.items[write.key] = Item(write.key, write.document, revision, write.expires_at)
            elif isinstance(write, Delete):
                self.items.pop(write.key, None)
        return [held[write.key] + 1 if isinstance(write, Put) else 0 for write in writes]

    def range(self, partition: str, *, reverse: bool) -> list[Item]:
        keys = sorted((key for key in self.items if key[0] == partition), reverse=reverse)
        return [item for key in keys if (item := self.get(key))]


class Walk:
    """Random steps, the same for the same seed."""

    def __init__(self, seed: int, clock: FakeClock) -> None:
        self.dice = random.Random(seed)
        self.clock = clock
        self.model = Model(clock)

    def write(self, key: Key) -> Write:
        item = self.model.get(key)
        revision = item.revision if item else 0
        condition = self.dice.choice([None, None, revision, revision, revision, 0, 1])
        expires_at = self.dice.choice([None, None, self.clock() + self.dice.choice([0.5, 1, 3])])
        put = Put(key, {"n": self.dice.random()}, condition, expires_at)
        check = Check(key, revision if condition is None else condition)
        writes: list[Write] = [put, put, Delete(key, condition), check]
        return self.dice.choice(writes)

    async def step(self, table: Table) -> None:
        """Do one thing to both and compare."""
        keys = self.dice.sample([(p, s) for p in "ab" for s in "123"], self.dice.choice([1, 1, 1, 2, 3]))
        writes = [self.write(key) for key in keys]
        expected = self.model.transact(writes)
        try:
            assert await table.transact(writes) == expected, writes
        except Stale:
            assert expected is None, writes
        self.clock.forward(self.dice.choice([0, 0, 0, 0.5, 1]))
        assert await table.get(keys[0]) == self.model.get(keys[0]), writes
        if self.dice.random() < 0.25:
            await self.read(table)

    async def read(self, table: Table) -> None:
        """Compare a whole partition, read in pages of two."""
        partition, reverse = self.dice.choice("ab"), self.dice.random() < 0.5
        page = await table.range(partition, limit=2, reverse=reverse)
        found = page.items
        while page.after:
            page = await table.range(partition, after=page.after, limit=2, reverse=reverse)
            found += page.items
        assert found == self.model.range(partition, reverse=reverse)


@pytest.mark.parametrize("seed", range(3))
async def test_random_walk(table: Table, clock: FakeClock, seed: int) -> None:
    """Sixty random steps leave the table as they leave a dict, seen through every read."""
    walk = Walk(seed, clock)
    for _ in range(60):
        await walk.step(table)
