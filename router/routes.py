"""The rows the hot path reads, and the memory of them.

    ("capability:CAP", NAME)       one row per capability: all that is needed to send a task
    ("family:WORD", NAME)          who may be asked to add a capability of that family
    ("task", TASK/NAME)            a task that a registration brings, and its capability
    ("lease", NAME)                until when a leased registration takes part

A plan costs one range read of its capability's rows, however many autopilots there are. What was read is
kept for `bound` seconds and never used longer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from infra.clock import Clock
from infra.outbound import Url, parse_url
from infra.table import Document, Item, Key, Put, Table
from router.errors import StoreUnavailable
from router.model import Autopilot, Capability

_TASKS = "task"
_LEASES = "lease"


class Retired(NamedTuple):
    """A signing secret that was rotated: until then (epoch seconds) it signs beside the present one."""

    secret: str
    until: float


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
    retired: tuple[Retired, ...] = ()
    guarded: bool = False
    """Whether its tasks wait for approval: it asks for that, or another one that offers the capability."""

    @property
    def version(self) -> tuple[str, int]:
        """What tells one state of a registration from all others.

        Revisions alone do not: a registration that was removed and comes back under its name starts at 1
        again, but with another secret.
        """
        return self.secret, self.revision


class Route(NamedTuple):
    """The candidates of a capability in the order of priority, weight and name, and when they were read."""

    candidates: tuple[Candidate, ...]
    read_at: float


class Routes:
    """Reads rows and remembers them for `bound` seconds of the monotonic clock."""

    def __init__(self, table: Table, *, clock: Clock, monotonic: Clock, bound: float = 2.0) -> None:
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._bound = bound
        self._routes: dict[str, Route] = {}
        self._reading: dict[str, asyncio.Task[Route]] = {}
        self._used: dict[str, float] = {}
        self._leases: dict[str, float] = {}
        self.changes = 0
        """How often this process changed registrations: what was read before is not to be remembered."""

    async def candidates(self, capability: str) -> tuple[Candidate, ...]:
        """Return who offers a capability, from memory while that is young enough.

        Raises `StoreUnavailable` when it is not and the store does not answer.
        """
        now = self._monotonic()
        route = self._routes.get(capability)
        if route is None or now - route.read_at >= self._bound:
            route = await self._read(capability)
        if route.candidates:
            self._used[capability] = now
        return route.candidates

    async def family(self, word: str) -> list[str]:
        """Return the names of those that may be asked to add a capability of a family, sorted."""
        page = await self._table.range(f"family:{word}", limit=50)
        return [item.key[1] for item in page.items]

    async def task(self, task: str, *, but: str = "") -> str | None:
        """Return the capability of a task that a registration brought, other than that of `but`."""
        page = await self._table.range(_TASKS, after=f"{task}/", limit=2 if but else 1)
        for item in page.items:
            if item.key[1].startswith(f"{task}/") and item.key[1] != f"{task}/{but}":
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

    def leased(self, name: str, until: float) -> None:
        """Take note of a lease that this process wrote; `until` is in epoch seconds."""
        self._leases[name] = until

    def changed(self, *autopilots: Autopilot) -> None:
        """Forget what a registration that this process wrote makes untrue."""
        self.changes += 1
        for autopilot in autopilots:
            for capability in autopilot.capabilities:
                self._routes.pop(capability.name, None)
                self._reading.pop(capability.name, None)

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
        changes, read_at = self.changes, self._monotonic()
        rows: list[Item] = []
        after: str | None = None
        while True:
            page = await self._table.range(f"capability:{capability}", after=after, limit=1000)
            rows += page.items
            after = page.after
            if after is None:
                break
        guarded = any(item.document["capability"].get("requires_approval") for item in rows)
        found = [_candidate(item.key[1], item.document, guarded=guarded) for item in rows]
        for candidate in found:
            if candidate.leased:
                lease = await self._table.get((_LEASES, candidate.name))
                self._leases[candidate.name] = float(lease.document["until"]) if lease else 0.0
        found.sort(key=lambda one: (one.priority, -one.weight, one.name))
        route = Route(tuple(found), read_at)
        # Nobody offers it: remembering that would let callers fill the memory with names they make up.
        # Something was written while we read: use it once, keep nothing.
        if found and changes == self.changes:
            self._routes[capability] = route
        else:
            self._routes.pop(capability, None)
        return route


def lease_key(name: str) -> Key:
    """Return where the lease of a registration is kept: `{"until": epoch seconds}`."""
    return _LEASES, name


def lease_of(name: str, until: float) -> Put:
    """Return the write that makes a lease run until then."""
    return Put(lease_key(name), {"until": until})


def retired_of(document: Document) -> tuple[Retired, ...]:
    """Return the earlier secrets in a row or record; those written before there were any have none."""
    return tuple(Retired(**one) for one in document.get("retired", ()))


def rows_of(
    autopilot: Autopilot, *, revision: int, secret: str, retired: tuple[Retired, ...] = ()
) -> dict[Key, Document]:
    """Return the rows that go with a registration."""
    rows: dict[Key, Document] = {}
    for capability in autopilot.capabilities:
        if capability.extends_family:
            rows[f"family:{capability.family}", autopilot.name] = {}
        if not capability.name.endswith(".*"):
            row = _row(autopilot, capability, revision=revision, secret=secret, retired=retired)
            rows[f"capability:{capability.name}", autopilot.name] = row
    for task, name in autopilot.tasks.items():
        rows[_TASKS, f"{task}/{autopilot.name}"] = {"capability": name}
    return rows


def candidate_of(
    autopilot: Autopilot,
    capability: Capability,
    *,
    revision: int,
    secret: str,
    retired: tuple[Retired, ...] = (),
) -> Candidate:
    """Return a registration as a candidate for a capability."""
    row = _row(autopilot, capability, revision=revision, secret=secret, retired=retired)
    return _candidate(autopilot.name, row)


def _row(
    autopilot: Autopilot,
    capability: Capability,
    *,
    revision: int,
    secret: str,
    retired: tuple[Retired, ...],
) -> Document:
    row: Document = {
        "capability": msgspec.to_builtins(capability),
        "endpoint": autopilot.endpoint,
        "priority": autopilot.priority,
        "weight": autopilot.weight,
        "leased": autopilot.lease_seconds is not None,
        "needy": bool(autopilot.needs),
        "secret": secret,
        "revision": revision,
    }
    if retired:
        row["retired"] = [one._asdict() for one in retired]
    return row


def _candidate(name: str, row: Document, *, guarded: bool = False) -> Candidate:
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
        retired=retired_of(row),
        guarded=guarded,
    )
