"""Who offers what: the records of registered autopilots.

    ("autopilot", NAME)            the record: registration, signing secrets, times

A change writes the record and the rows of `routes` that go with it in one transaction.

A signing secret that is rotated goes on beside the new one for a while: forwards carry both signatures, so
that the autopilot may change over at any moment of it. Processes sign with what they read of a registration,
which may be as old as the bound of `Routes`: where there are several, an overlap should be longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from infra.clock import Clock, rfc3339
from infra.table import Check, Delete, Item, Key, Put, Table, Write
from router.errors import Conflict, NotFound, Stale, StoreUnavailable
from router.model import MAX_CAPABILITIES, Autopilot, Capability
from router.routes import Candidate, Retired, Routes, candidate_of, lease_key, lease_of, retired_of, rows_of

RECORDS = "autopilot"
_ATTEMPTS = 20
MAX_RETIRED = 3
"""How many earlier secrets may sign beside the present one."""


class Record(NamedTuple):
    """A stored registration. Times are epoch seconds."""

    autopilot: Autopilot
    revision: int
    secret: str
    registered_at: float
    updated_at: float
    retired: tuple[Retired, ...] = ()
    """Earlier secrets that still sign, the latest first."""

    def candidate(self, capability: Capability) -> Candidate:
        """Return it as a candidate for a capability."""
        return candidate_of(
            self.autopilot, capability, revision=self.revision, secret=self.secret, retired=self.retired
        )

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the rows that go with it."""
        return rows_of(self.autopilot, revision=self.revision, secret=self.secret, retired=self.retired)

    def document(self, health: str) -> dict[str, Any]:
        """Return what callers see of it: everything but the signing secrets."""
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

        def changed(was: Record | None) -> Record:
            _check_revision(autopilot.name, was, if_revision)
            now = self._clock()
            return Record(
                autopilot=autopilot,
                revision=was.revision + 1 if was else 1,
                secret=was.secret if was else self._new_secret(),
                registered_at=was.registered_at if was else now,
                updated_at=now,
                retired=_retired(was.retired, now) if was else (),
            )

        was, record = await self._change(autopilot.name, changed, leases=True)
        assert record is not None
        return Registered(record, was is None)

    async def delete(self, name: str, *, if_revision: int | None = None) -> None:
        """Remove a registration. Raises `NotFound`, or `Stale` as `put`."""

        def removed(was: Record | None) -> None:
            _check_revision(name, _there(name, was), if_revision)

        await self._change(name, removed, leases=True)

    async def rotate(self, name: str, *, overlap: float) -> tuple[Record, float]:
        """Give a registration a new signing secret; return it, and until when (epoch seconds) others sign.

        Every earlier secret ends with the overlap, in seconds, if it would not end before. A lease is not
        renewed. Raises `NotFound`, `Conflict` when too many earlier secrets still sign, and
        `StoreUnavailable` with nothing kept.
        """
        until = self._clock() + overlap

        def rotated(was: Record | None) -> Record:
            was, now = _there(name, was), self._clock()
            earlier = [Retired(was.secret, until), *was.retired]
            retired = _retired([one._replace(until=min(one.until, until)) for one in earlier], now)
            if len(retired) > MAX_RETIRED:
                raise Conflict(
                    f"{MAX_RETIRED} earlier secrets of '{name}' still sign, one of them until "
                    f"{rfc3339(min(one.until for one in was.retired))}: wait, or rotate without an overlap"
                )
            return was._replace(
                revision=was.revision + 1, secret=self._new_secret(), updated_at=now, retired=retired
            )

        _, record = await self._change(name, rotated, leases=False)
        assert record is not None
        return record, until

    async def _change(
        self, name: str, changed: Callable[[Record | None], Record | None], *, leases: bool
    ) -> tuple[Record | None, Record | None]:
        """Write what `changed` makes of a registration, from the state nobody else changes meanwhile.

        Return the state before and the one after. `leases`: the change starts its lease anew, or ends it.
        """
        async with self._turn(name):
            for _ in range(_ATTEMPTS):
                was = await self.get(name)
                record = changed(was)
                writes = _writes(name, was, record)
                if leases:
                    writes += _lease_writes(name, was, record, self._clock())
                try:
                    await self._table.transact(writes)
                except Stale:
                    continue  # another process changed it at the same moment: take theirs into account
                self._routes.changed(*(one.autopilot for one in (was, record) if one))
                if leases and record is not None and record.autopilot.lease_seconds is not None:
                    self._routes.leased(name, self._clock() + record.autopilot.lease_seconds)
                return was, record
        raise StoreUnavailable(f"'{name}' is being changed by too many at once")

    async def add_capability(self, name: str, capability: Capability) -> None:
        """Add a capability to a registration that was configured for it.

        Raises `NotFound`, and `Conflict` when it has as many as it may.
        """
        record = _there(name, await self.get(name))
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
        record = _there(name, await self.get(name))
        if record.autopilot.lease_seconds is None:
            return None
        until = self._clock() + record.autopilot.lease_seconds
        try:
            await self._table.transact([Check((RECORDS, name), record.revision), lease_of(name, until)])
        except Stale:
            raise Conflict(f"'{name}' was registered anew meanwhile: send the heartbeat again") from None
        self._routes.leased(name, until)
        return until

    async def get(self, name: str) -> Record | None:
        """Return a registration."""
        item = await self._table.get((RECORDS, name))
        return _record(item) if item else None

    async def page(
        self, *, after: str | None, limit: int, capability: str | None = None
    ) -> tuple[list[Record], str | None]:
        """Return up to `limit` registrations by name, all or those with a capability, and a cursor."""
        if capability is None:
            page = await self._table.range(RECORDS, after=after, limit=limit)
            return [_record(item) for item in page.items], page.after
        rows = await self._table.range(f"capability:{capability}", after=after, limit=limit)
        records = [await self.get(row.key[1]) for row in rows.items]
        return [record for record in records if record is not None], rows.after

    def _turn(self, name: str) -> asyncio.Lock:
        return self._changing.setdefault(name, asyncio.Lock())


def _writes(name: str, was: Record | None, record: Record | None) -> list[Write]:
    """Return the transaction that turns one state of a registration into the other, but for its lease."""
    revision = was.revision if was else 0
    old, new = was.rows() if was else {}, record.rows() if record else {}
    writes: list[Write] = [Delete(key) for key in old if key not in new]
    writes += [Put(key, document) for key, document in new.items() if old.get(key) != document]
    if record is None:
        return [*writes, Delete((RECORDS, name), revision)]
    document = {
        "autopilot": msgspec.to_builtins(record.autopilot),
        "secret": record.secret,
        "registered_at": record.registered_at,
        "updated_at": record.updated_at,
    }
    if record.retired:
        document["retired"] = [one._asdict() for one in record.retired]
    return [*writes, Put((RECORDS, name), document, if_revision=revision)]


def _lease_writes(name: str, was: Record | None, record: Record | None, now: float) -> list[Write]:
    """Return what starts the lease of a registration anew, or ends that of one that has none any more."""
    if record is not None and record.autopilot.lease_seconds is not None:
        return [lease_of(name, now + record.autopilot.lease_seconds)]
    if record is None or (was is not None and was.autopilot.lease_seconds is not None):
        return [Delete(lease_key(name))]
    return []


def _there(name: str, record: Record | None) -> Record:
    if record is None:
        raise NotFound(f"no autopilot is registered as '{name}'")
    return record


def _check_revision(name: str, record: Record | None, wanted: int | None) -> None:
    revision = record.revision if record else 0
    if wanted is not None and wanted != revision:
        raise Stale(f"'{name}' is at revision {revision}, not {wanted}")


def _retired(secrets: Iterable[Retired], now: float) -> tuple[Retired, ...]:
    """Return those that still sign."""
    return tuple(one for one in secrets if one.until > now)


def _record(item: Item) -> Record:
    document = item.document
    return Record(
        autopilot=msgspec.convert(document["autopilot"], Autopilot),
        revision=item.revision,
        secret=document["secret"],
        registered_at=document["registered_at"],
        updated_at=document["updated_at"],
        retired=retired_of(document),
    )
