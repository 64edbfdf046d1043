"""The ledger: a row for each thing that was made or taken over, written before it is made and after.

The row of a thing is also the right to make it. Whoever wants to writes an intent on condition that the row
is as it was before the inventory was read: who comes second finds it changed and makes nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from infra.clock import Clock, rfc3339
from infra.plan import Entry
from infra.provider import Key, Resource
from infra.table import Item, Table
from router.errors import Stale

GRACE = 120.0
"""Seconds an intent is its owner's: longer than any call that may still have its effect."""


class Ledger:
    """The rows of one place."""

    def __init__(self, table: Table, place: str, clock: Clock) -> None:
        self._table = table
        self._partition = f"infra:{place}"
        self._clock = clock

    async def entries(self) -> dict[Key, Entry]:
        """Return everything that is recorded. Read it before the inventory, never after."""
        found: dict[Key, Entry] = {}
        after = None
        while True:
            page = await self._table.range(self._partition, after=after, limit=500)
            for item in page.items:
                kind, _, name = item.key[1].partition("/")
                found[kind, name] = _entry(item)
            after = page.after
            if after is None:
                return found

    async def entry(self, key: Key) -> Entry | None:
        """Return what is recorded of one thing now."""
        item = await self._table.get(self._key(key))
        return _entry(item) if item else None

    async def intend(self, key: Key, before: Entry | None, owner: str) -> Entry:
        """Take the right to make something and return the intent.

        Raises `Stale` when its row is no longer as it was `before`, or the right is still somebody else's.
        """
        now = self._clock()
        if before and before.state == "making" and before.until > now:
            raise Stale("somebody else is making it")
        intent = (before or Entry("making"))._replace(state="making", until=now + GRACE)
        revision = await self._write(key, intent, before, owner)
        return intent._replace(revision=revision)

    async def record(
        self, key: Key, resource: Resource, before: Entry | None, state: Literal["made", "adopted"]
    ) -> None:
        """Write that something is there. Raises `Stale` when somebody else wrote something meanwhile."""
        entry = Entry(state, resource.id, resource.digest, resource.version)
        await self._write(key, entry, before, "")

    async def withdraw(self, key: Key, intent: Entry, before: Entry | None, *, absent: bool) -> None:
        """Give the right back: nothing was made, and the row is as it was `before`.

        `absent`: it is surely not there, so that no earlier intent has to be remembered either.
        """
        try:
            if before is None or (absent and not before.id):
                await self._table.delete(self._key(key), if_revision=intent.revision)
            else:
                await self._write(key, before._replace(until=0.0), intent, "")
        except Stale:
            return  # it took so long that somebody else has the right

    async def _write(self, key: Key, entry: Entry, before: Entry | None, owner: str) -> int:
        document: dict[str, Any] = {
            "state": entry.state,
            "id": entry.id,
            "digest": entry.digest,
            "version": entry.version,
            "until": entry.until,
            "by": owner,
            "at": rfc3339(self._clock()),
        }
        return await self._table.put(self._key(key), document, if_revision=before.revision if before else 0)

    def _key(self, key: Key) -> tuple[str, str]:
        return self._partition, "/".join(key)


def _entry(item: Item) -> Entry:
    row = item.document
    return Entry(row["state"], row["id"], row["digest"], row["version"], row["until"], item.revision)
