"""Who offers what: the records of registered autopilots.

    ("autopilot", NAME)            the record: registration, signing secret, times

A change writes the record and the rows of `routes` that go with it in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from infra.clock import Clock, rfc3339
from infra.table import Check, Delete, Item, Key, Put, Table, Write
from router.errors import Conflict, NotFound, Stale, StoreUnavailable
from router.model import MAX_CAPABILITIES, Autopilot, Capability
from router.routes import Candidate, Routes, candidate_of, lease_key, lease_of, rows_of

_RECORDS = "autopilot"
_ATTEMPTS = 20


class Record(NamedTuple):
    """A stored registration. Times are epoch seconds."""

    autopilot: Autopilot
    revision: int
    secret: str
    registered_at: float
    updated_at: float

    def candidate(self, capability: Capability) -> Candidate:
        """Return it as a candidate for a capability."""
        return candidate_of(self.autopilot, capability, revision=self.revision, secret=self.secret)

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the rows that go with it."""
        return rows_of(self.autopilot, revision=self.revision, secret=self.secret)

    def document(self, health: str) -> dict[str, Any]:
        """Return what callers see of it: everything but the signing secret."""
        return {
            **self.autopilot.document(),
            "health": health,
            "revision": self.revision,
            "registered_at": rfc3339(self.registered_at),
            "updated_at": rfc3339(self.updated_at),
        }


class Registered(NamedTuple):
    """What a registration came to. `secret` is new when `created`."""

    record: Record
    created: bool


class Registry:
    """The registrations in a table."""

    def __init__(self, table: Table, routes: Routes, *, clock: Clock, new_secret: Callable[[], str]) -> None:
        self._table = table
        self._routes = routes
        self._clock = clock
        self._new_secret = new_secret
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Changes of one name queue here; only those of other processes collide in the table."""

    async def put(self, autopilot: Autopilot, *, if_revision: int | None = None) -> Registered:
        """Create or replace a registration.

        Raises `Stale` when `if_revision` is given and not the present one, `StoreUnavailable` with nothing
        kept.
        """
        async with self._turn(autopilot.name):
            return await self._put(autopilot, if_revision)

    async def _put(self, autopilot: Autopilot, if_revision: int | None) -> Registered:
        for _ in range(_ATTEMPTS):
            was = await self.get(autopilot.name)
            revision = was.revision if was else 0
            if if_revision is not None and if_revision != revision:
                raise Stale(f"'{autopilot.name}' is at revision {revision}, not {if_revision}")
            now = self._clock()
            record = Record(
                autopilot=autopilot,
                revision=revision + 1,
                secret=was.secret if was else self._new_secret(),
                registered_at=was.registered_at if was else now,
                updated_at=now,
            )
            try:
                await self._table.transact(self._writes(was, record))
            except Stale:
                continue  # somebody registered it at the same moment: take theirs into account
            self._changed(was, record)
            return Registered(record, was is None)
        raise StoreUnavailable(f"'{autopilot.name}' is being changed by too many at once")

    async def delete(self, name: str, *, if_revision: int | None = None) -> None:
        """Remove a registration. Raises `NotFound`, or `Stale` as `put`."""
        async with self._turn(name):
            await self._delete(name, if_revision)

    async def _delete(self, name: str, if_revision: int | None) -> None:
        for _ in range(_ATTEMPTS):
            was = await self.get(name)
            if was is None:
                raise NotFound(f"no autopilot is registered as '{name}'")
            if if_revision is not None and if_revision != was.revision:
                raise Stale(f"'{name}' is at revision {was.revision}, not {if_revision}")
            try:
                await self._table.transact(self._writes(was, None))
            except Stale:
                continue
            self._changed(was, None)
            return
        raise StoreUnavailable(f"'{name}' is being changed by too many at once")

    async def add_capability(self, name: str, capability: Capability) -> None:
        """Add a capability to a registration that was configured for it.

        Raises `NotFound`, and `Conflict` when it has as many as it may.
        """
        record = await self.get(name)
        if record is None:
            raise NotFound(f"no autopilot is registered as '{name}'")
        if any(one.name == capability.name for one in record.autopilot.capabilities):
            return
        if len(record.autopilot.capabilities) >= MAX_CAPABILITIES:
            raise Conflict(f"'{name}' has {MAX_CAPABILITIES} capabilities already")
        extended = msgspec.structs.replace(
            record.autopilot, capabilities=(*record.autopilot.capabilities, capability)
        )
        try:
            await self.put(extended, if_revision=record.revision)
        except Stale:
            await self.add_capability(name, capability)

    async def heartbeat(self, name: str) -> float | None:
        """Renew a lease; return until when it runs, in epoch seconds, None for one that needs no lease.

        Raises `NotFound`.
        """
        record = await self.get(name)
        if record is None:
            raise NotFound(f"no autopilot is registered as '{name}'")
        if record.autopilot.lease_seconds is None:
            return None
        until = self._clock() + record.autopilot.lease_seconds
        try:
            await self._table.transact([Check((_RECORDS, name), record.revision), lease_of(name, until)])
        except Stale:
            raise Conflict(f"'{name}' was registered anew meanwhile: send the heartbeat again") from None
        self._routes.leased(name, until)
        return until

    async def get(self, name: str) -> Record | None:
        """Return a registration."""
        item = await self._table.get((_RECORDS, name))
        return _record(item) if item else None

    async def page(
        self, *, after: str | None, limit: int, capability: str | None = None
    ) -> tuple[list[Record], str | None]:
        """Return up to `limit` registrations by name, all or those with a capability, and a cursor."""
        if capability is None:
            page = await self._table.range(_RECORDS, after=after, limit=limit)
            return [_record(item) for item in page.items], page.after
        rows = await self._table.range(f"capability:{capability}", after=after, limit=limit)
        records = [await self.get(row.key[1]) for row in rows.items]
        return [record for record in records if record is not None], rows.after

    def _turn(self, name: str) -> asyncio.Lock:
        return self._changing.setdefault(name, asyncio.Lock())

    def _changed(self, was: Record | None, record: Record | None) -> None:
        self._routes.changed(*(one.autopilot for one in (was, record) if one))
        if record is not None and record.autopilot.lease_seconds is not None:
            self._routes.leased(record.autopilot.name, self._clock() + record.autopilot.lease_seconds)

    def _writes(self, was: Record | None, record: Record | None) -> list[Write]:
        """Return the transaction that turns one state of a registration into the other."""
        one = record or was
        assert one is not None
        name = one.autopilot.name
        revision = was.revision if was else 0
        old, new = was.rows() if was else {}, record.rows() if record else {}
        writes: list[Write] = [Delete(key) for key in old if key not in new]
        writes += [Put(key, document) for key, document in new.items() if old.get(key) != document]
        if record is None:
            writes += [Delete((_RECORDS, name), revision), Delete(lease_key(name))]
            return writes
        document = {
            "autopilot": msgspec.to_builtins(record.autopilot),
            "secret": record.secret,
            "registered_at": record.registered_at,
            "updated_at": record.updated_at,
        }
        writes.append(Put((_RECORDS, name), document, if_revision=revision))
        if record.autopilot.lease_seconds is not None:
            until = self._clock() + record.autopilot.lease_seconds
            writes.append(lease_of(name, until))
        elif was is not None and was.autopilot.lease_seconds is not None:
            writes.append(Delete(lease_key(name)))
        return writes


def _record(item: Item) -> Record:
    document = item.document
    return Record(
        autopilot=msgspec.convert(document["autopilot"], Autopilot),
        revision=item.revision,
        secret=document["secret"],
        registered_at=document["registered_at"],
        updated_at=document["updated_at"],
    )
