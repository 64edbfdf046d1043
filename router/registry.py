"""Who offers what: the records of registered autopilots, their leases, and the rows the hot path reads.

    ("autopilot", NAME)            the record: registration, signing secret, times
    ("capability:CAP", NAME)       one row per capability: all that is needed to send a task
    ("family:WORD", NAME)          who may be asked to add a capability of that family
    ("task", TASK/NAME)            a task that a registration brings, and its capability
    ("lease", NAME)                until when a leased registration takes part

A change writes a record and its rows in one transaction, so a plan costs one range read of its capability's
rows, however many autopilots there are. What was read is kept for `bound` seconds and never used longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from infra.clock import Clock, rfc3339
from infra.outbound import Url, parse_url
from infra.table import Check, Delete, Item, Key, Put, Table, Write
from router.errors import Conflict, NotFound, Stale, StoreUnavailable
from router.model import Autopilot, Capability

_RECORDS = "autopilot"
_LEASES = "lease"
_TASKS = "task"
_ATTEMPTS = 20


class Record(NamedTuple):
    """A stored registration. Times are epoch seconds."""

    autopilot: Autopilot
    revision: int
    secret: str
    registered_at: float
    updated_at: float

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


@dataclass(frozen=True, slots=True)
class Candidate:
    """An autopilot as far as one capability is concerned."""

    name: str
    capability: Capability
    endpoint: str
    url: Url | None
    """The endpoint parsed; None for one in this process (`local:NAME`)."""
    priority: int
    weight: int
    leased: bool
    needy: bool
    """Whether something has to exist before it can work."""
    revision: int
    secret: str


class Route(NamedTuple):
    """The candidates of a capability in the order of priority, weight and name, and when they were read."""

    candidates: tuple[Candidate, ...]
    read_at: float


class Registry:
    """The registrations in a table. `bound` is in seconds of the monotonic clock."""

    def __init__(
        self,
        table: Table,
        *,
        clock: Clock,
        monotonic: Clock,
        new_secret: Callable[[], str],
        bound: float = 2.0,
    ) -> None:
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._new_secret = new_secret
        self._bound = bound
        self._routes: dict[str, Route] = {}
        self._reading: dict[str, asyncio.Task[Route]] = {}
        self._used: dict[str, float] = {}
        self._leases: dict[str, float] = {}
        self._changes = 0

    # changes

    async def put(self, autopilot: Autopilot, *, if_revision: int | None = None) -> Registered:
        """Create or replace a registration.

        Raises `Stale` when `if_revision` is given and not the present one, `StoreUnavailable` with nothing
        kept.
        """
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
        """Add a capability to a registration that was configured for it. Raises `NotFound`."""
        record = await self.get(name)
        if record is None:
            raise NotFound(f"no autopilot is registered as '{name}'")
        if any(one.name == capability.name for one in record.autopilot.capabilities):
            return
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
            await self._table.transact(
                [Check((_RECORDS, name), record.revision), Put((_LEASES, name), {"until": until})]
            )
        except Stale:
            raise Conflict(f"'{name}' was registered anew meanwhile: send the heartbeat again") from None
        self._leases[name] = until
        return until

    # reading

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

    async def candidates(self, capability: str) -> tuple[Candidate, ...]:
        """Return who offers a capability, from memory while that is young enough.

        Raises `StoreUnavailable` when it is not and the store does not answer.
        """
        now = self._monotonic()
        route = self._routes.get(capability)
        self._used[capability] = now
        if route is not None and now - route.read_at < self._bound:
            return route.candidates
        return (await self._read(capability)).candidates

    async def family(self, word: str) -> list[str]:
        """Return the names of those that may be asked to add a capability of a family, sorted."""
        page = await self._table.range(f"family:{word}", limit=50)
        return [item.key[1] for item in page.items]

    async def task(self, task: str) -> str | None:
        """Return the capability of a task that a registration brought."""
        page = await self._table.range(_TASKS, after=f"{task}/", limit=1)
        for item in page.items:
            if item.key[1].startswith(f"{task}/"):
                return str(item.document["capability"])
        return None

    async def tasks(self) -> dict[str, tuple[str, str]]:
        """Return every task that registrations brought: its capability and who brought it."""
        brought: dict[str, tuple[str, str]] = {}
        after: str | None = None
        while True:
            page = await self._table.range(_TASKS, after=after, limit=500)
            for item in page.items:
                task, _, name = item.key[1].partition("/")
                brought.setdefault(task, (str(item.document["capability"]), name))
            after = page.after
            if after is None:
                return brought

    def lease_alive(self, name: str) -> bool:
        """Whether a leased registration takes part now, as far as this process has read."""
        return self._leases.get(name, 0.0) > self._clock()

    def used(self) -> list[Candidate]:
        """Return the candidates of the routes that were used lately, each autopilot once."""
        found = {one.name: one for route in self._routes.values() for one in route.candidates}
        return list(found.values())

    async def refresh(self) -> None:
        """Read again, before they are too old, the routes that were used lately; forget the others.

        A store that fails leaves them to age: they are dropped at their bound, not used beyond it.
        """
        now = self._monotonic()
        for capability, used in list(self._used.items()):
            if now - used > 30 * self._bound:
                self._used.pop(capability, None)
                self._routes.pop(capability, None)
                continue
            try:
                await self._read(capability)
            except StoreUnavailable:
                return

    # inside

    async def _read(self, capability: str) -> Route:
        """Read a route once, however many ask for it at the same time."""
        reading = self._reading.get(capability)
        if reading is None:
            reading = asyncio.ensure_future(self._read_now(capability))
            self._reading[capability] = reading

            def done(finished: asyncio.Task[Route]) -> None:
                if self._reading.get(capability) is finished:
                    del self._reading[capability]
                if not finished.cancelled():
                    finished.exception()  # every caller that waited has it; one that left does not mind

            reading.add_done_callback(done)
        return await asyncio.shield(reading)

    async def _read_now(self, capability: str) -> Route:
        changes, read_at = self._changes, self._monotonic()
        found: list[Candidate] = []
        after: str | None = None
        while True:
            page = await self._table.range(f"capability:{capability}", after=after, limit=1000)
            found += [_candidate(item.key[1], item.document) for item in page.items]
            after = page.after
            if after is None:
                break
        for candidate in found:
            if candidate.leased:
                lease = await self._table.get((_LEASES, candidate.name))
                self._leases[candidate.name] = float(lease.document["until"]) if lease else 0.0
        found.sort(key=lambda one: (one.priority, -one.weight, one.name))
        route = Route(tuple(found), read_at)
        if changes == self._changes:  # else something was written while we read: use it once, keep nothing
            self._routes[capability] = route
        return route

    def _changed(self, was: Record | None, record: Record | None) -> None:
        self._changes += 1
        for one in (was, record):
            for capability in one.autopilot.capabilities if one else ():
                self._routes.pop(capability.name, None)
                self._reading.pop(capability.name, None)
        if record is not None and record.autopilot.lease_seconds is not None:
            self._leases[record.autopilot.name] = self._clock() + record.autopilot.lease_seconds

    def _writes(self, was: Record | None, record: Record | None) -> list[Write]:
        """Return the transaction that turns one state of a registration into the other."""
        one = record or was
        assert one is not None
        name = one.autopilot.name
        revision = was.revision if was else 0
        old, new = _rows(was), _rows(record)
        writes: list[Write] = [Delete(key) for key in old if key not in new]
        writes += [Put(key, document) for key, document in new.items() if old.get(key) != document]
        if record is None:
            writes += [Delete((_RECORDS, name), revision), Delete((_LEASES, name))]
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
            writes.append(Put((_LEASES, name), {"until": until}))
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


def _rows(record: Record | None) -> dict[Key, dict[str, Any]]:
    """Return the rows that go with a record."""
    if record is None:
        return {}
    autopilot = record.autopilot
    rows: dict[Key, dict[str, Any]] = {}
    for capability in autopilot.capabilities:
        if capability.extends_family:
            rows[f"family:{capability.family}", autopilot.name] = {}
        if capability.name.endswith(".*"):
            continue
        rows[f"capability:{capability.name}", autopilot.name] = _row(record, capability)
    for task, name in autopilot.tasks.items():
        rows[_TASKS, f"{task}/{autopilot.name}"] = {"capability": name}
    return rows


def candidate_of(record: Record, capability: Capability) -> Candidate:
    """Return a registration as a candidate for a capability."""
    return _candidate(record.autopilot.name, _row(record, capability))


def _row(record: Record, capability: Capability) -> dict[str, Any]:
    autopilot = record.autopilot
    return {
        "capability": msgspec.to_builtins(capability),
        "endpoint": autopilot.endpoint,
        "priority": autopilot.priority,
        "weight": autopilot.weight,
        "leased": autopilot.lease_seconds is not None,
        "needy": bool(autopilot.needs),
        "secret": record.secret,
        "revision": record.revision,
    }


def _candidate(name: str, row: dict[str, Any]) -> Candidate:
    remote = row["endpoint"].startswith(("http:", "https:"))
    return Candidate(
        name=name,
        capability=msgspec.convert(row["capability"], Capability),
        endpoint=row["endpoint"],
        url=parse_url(row["endpoint"]) if remote else None,
        priority=row["priority"],
        weight=row["weight"],
        leased=row["leased"],
        needy=row["needy"],
        revision=row["revision"],
        secret=row["secret"],
    )
