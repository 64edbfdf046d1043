"""The router's inner parts put together on a real table, with scripted stand-ins for what is outside."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from infra.clock import Clock
from infra.ensure import Ensurer
from infra.provider import Bound, Diagnosis, Inventory, Resource, Unread, Want, digest_of
from infra.table import Document, Item, Key, Page, Table, Write
from infra.table.sqlite import SqliteTable
from router.approvals import Approvals
from router.catalogue import Catalogue
from router.choice import Chooser
from router.delivery import Delivery, Errand, Outcome
from router.errors import AutopilotError, StoreUnavailable
from router.forward import AttemptFailed, Forward, Message, Reply
from router.heal import Healer
from router.health import HealthBook, State
from router.journal import Journal
from router.keys import Keys
from router.model import Autopilot, Capability, PlanRequest
from router.planner import Caller, Planner
from router.probe import Prober
from router.readiness import Readiness
from router.registry import Record, Registry
from router.routes import Candidate, Routes
from router.trace import Trace
from tests.fakes import CountingIds, FakeClock

Step = Reply | Exception | Callable[[], Awaitable[Reply]]
"""What a scripted autopilot does with one call: answer, fail, or something of its own."""

OK = Reply(200, b'{"done":true}', None)
UNREACHABLE = AttemptFailed("could not be reached", safe=True)
LOST = AttemptFailed("closed the connection without an answer", safe=False)
LATE = AttemptFailed("did not answer in time", safe=False, late=True)


class Watched:
    """A table that counts what is asked of another one, and fails or waits when told to."""

    kind = "sqlite"

    def __init__(self, inner: Table) -> None:
        self.inner = inner
        self.calls: list[tuple[str, str]] = []
        self.down = False
        self.gate: asyncio.Event | None = None
        """Reads wait here, before or after they look, so that a test can do something meanwhile."""
        self.gate_after = False

    def count(self, verb: str, start: str = "") -> int:
        """Return how often a verb was used on partitions that start so."""
        return sum(1 for name, partition in self.calls if name == verb and partition.startswith(start))

    def _enter(self, verb: str, partition: str) -> None:
        self.calls.append((verb, partition))
        if self.down:
            raise StoreUnavailable("the store is down")

    async def _wait(self, *, after: bool) -> None:
        if self.gate is not None and self.gate_after is after:
            await self.gate.wait()

    async def get(self, key: Key) -> Item | None:
        self._enter("get", key[0])
        return await self.inner.get(key)

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        self._enter("put", key[0])
        return await self.inner.put(key, document, if_revision=if_revision, expires_at=expires_at)

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        self._enter("delete", key[0])
        return await self.inner.delete(key, if_revision=if_revision)

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        self._enter("range", partition)
        await self._wait(after=False)
        page = await self.inner.range(partition, after=after, limit=limit, reverse=reverse)
        await self._wait(after=True)
        return page

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        self._enter("transact", "")
        return await self.inner.transact(writes)

    async def close(self) -> None:
        await self.inner.close()


class Breaking(SqliteTable):
    """An SQLite table whose disk fails at one chosen write inside a transaction."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path, clock)
        self.breaks_at: int | None = None
        self.applied = 0

    def _apply(self, write: Write, body: bytes) -> int:
        self.applied += 1
        if self.applied == self.breaks_at:
            raise sqlite3.OperationalError("disk I/O error")
        return super()._apply(write, body)


def dump(path: Path) -> dict[Key, tuple[Document, int]]:
    """Return every row of a table's file: its document and its revision."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT partition, sort, document, revision FROM item").fetchall()
    return {(partition, sort): (msgspec.json.decode(body), number) for partition, sort, body, number in rows}


class FakeProvider:
    """Storage in memory that can refuse."""

    name = "local"
    place = "fake"

    def __init__(self) -> None:
        self.there: list[Resource] = []
        self.inventories = 0
        self.created: list[Want] = []
        """What was created or updated, in order."""
        self.refuses: dict[str, AutopilotError] = {}
        """By the name of what it does not make."""
        self.unread: dict[str, Unread] = {}
        """By kind, what cannot be listed."""
        self.gate: asyncio.Event | None = None

    async def inventory(self) -> Inventory:
        self.inventories += 1
        if self.gate is not None:
            await self.gate.wait()
        return Inventory([one for one in self.there if one.kind not in self.unread], dict(self.unread))

    async def find(self, want: Want, id: str = "") -> Resource | None:  # noqa: A002  as in the port
        return next((one for one in self.there if one.key == want.key), None)

    async def create(self, want: Want, bound: Bound) -> Resource:
        if want.name in self.refuses:
            raise self.refuses[want.name]
        digest = digest_of(want, bound)
        resource = Resource(*want.key, f"id-{want.name}", digest, want.jurisdiction, ours=True)
        self.created.append(want)
        self.there = [one for one in self.there if one.key != want.key] + [resource]
        return resource

    async def update(self, want: Want, bound: Bound) -> Resource:
        return await self.create(want, bound)

    async def diagnose(self, found: Inventory, *, probe_writes: bool) -> Diagnosis:
        return Diagnosis({"status": "none"})


class FakeForward(Forward):
    """Autopilots that do what a script says. The last step of a script repeats; without one they answer."""

    def __init__(self) -> None:
        self.scripts: dict[tuple[str, str], list[Step]] = {}
        self.sent: list[tuple[str, str, Message]] = []
        self.states: dict[str, State] = {}
        self.probed: list[str] = []
        self.deadlines: list[float] = []

    def on(self, name: str, *steps: Step, path: str = "/tasks") -> None:
        """Script what an autopilot does with the calls to a path."""
        self.scripts[name, path] = list(steps)

    def names(self, path: str = "/tasks") -> list[str]:
        """Return who was sent to, in order."""
        return [name for name, where, _ in self.sent if where == path]

    async def post(self, candidate: Candidate, path: str, message: Message, deadline: float) -> Reply:
        self.sent.append((candidate.name, path, message))
        self.deadlines.append(deadline)
        steps = self.scripts.get((candidate.name, path), [OK])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Reply):
            return step
        if isinstance(step, Exception):
            raise step
        return await step()

    async def probe(self, candidate: Candidate, deadline: float) -> State:
        self.probed.append(candidate.name)
        return self.states.get(candidate.name, State.HEALTHY)


@dataclass
class Core:
    """The parts as `router.wiring` puts them together, on one clock for both kinds of time."""

    table: Watched
    clock: FakeClock
    routes: Routes
    registry: Registry
    catalogue: Catalogue
    health: HealthBook
    chooser: Chooser
    provider: FakeProvider
    ensurer: Ensurer
    readiness: Readiness
    forward: FakeForward
    journal: Journal
    delivery: Delivery
    keys: Keys
    approvals: Approvals
    planner: Planner
    prober: Prober
    healer: Healer

    async def register(self, *autopilots: Autopilot) -> None:
        """Register autopilots."""
        for autopilot in autopilots:
            await self.registry.put(autopilot)

    async def plan(
        self, task: str, meta: dict[str, Any] | None = None, *, key: str = "", **more: Any
    ) -> Outcome:
        """Plan a task, or a capability when it has a dot."""
        return await self.planner.plan(asking(task, meta, **more), Caller(Trace(), key))

    async def explain(self, task: str, meta: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Explain a task, or a capability when it has a dot."""
        return await self.planner.explain(asking(task, meta, **more), Caller(Trace()))

    async def deliver(self, capability: str, *, key: str = "", seconds: float = 30.0) -> Outcome:
        """Send a task to those that offer a capability now."""
        return await self.delivery.send(
            errand(capability, key=key, seconds=seconds), await self.routes.candidates(capability)
        )

    async def logged(self) -> list[dict[str, Any]]:
        """Return today's log rows, oldest first."""
        await self.journal.flush()
        rows = await self.journal.rows("2026-01-01", limit=20_000)
        return rows[::-1]


def core(table: Table, clock: FakeClock, *patterns: str) -> Core:
    """Put the parts together. Tasks of capabilities of these patterns wait for approval."""
    watched = Watched(table)
    ids = CountingIds()
    routes = Routes(watched, clock=clock, monotonic=clock)
    registry = Registry(watched, routes, clock=clock, new_secret=lambda: ids("secret"))
    catalogue = Catalogue(routes, monotonic=clock)
    health = HealthBook(clock)
    chooser = Chooser(routes, health)
    provider = FakeProvider()
    ensurer = Ensurer(provider, watched, clock=clock, patience=0.2)
    readiness = Readiness(registry, ensurer, clock)
    forward = FakeForward()
    journal = Journal(watched, clock=clock, writer="w1")
    delivery = Delivery(
        chooser=chooser, health=health, readiness=readiness, forward=forward, journal=journal, clock=clock
    )
    keys = Keys(watched, clock=clock, monotonic=clock, random_bytes=os.urandom)
    approvals = Approvals(watched, keys, clock=clock, new_id=ids, patterns=patterns)
    planner = Planner(
        registry=registry,
        routes=routes,
        catalogue=catalogue,
        chooser=chooser,
        health=health,
        readiness=readiness,
        forward=forward,
        delivery=delivery,
        approvals=approvals,
        new_id=ids,
    )
    return Core(
        watched,
        clock,
        routes,
        registry,
        catalogue,
        health,
        chooser,
        provider,
        ensurer,
        readiness,
        forward,
        journal,
        delivery,
        keys,
        approvals,
        planner,
        Prober(registry, routes, forward, health),
        Healer(registry, ensurer, watched, clock=clock, new_id=ids),
    )


def autopilot(name: str, *capabilities: str | Capability, **more: Any) -> Autopilot:
    """Give an autopilot; capabilities may be plain names."""
    given = [one if isinstance(one, Capability) else Capability(one) for one in capabilities]
    return Autopilot(
        name, f"https://{name}.example", tuple(given or [Capability("web.pages.generate")]), **more
    )


def asking(task: str, meta: dict[str, Any] | None = None, **more: Any) -> PlanRequest:
    """Give a plan request for a task, or for a capability when it has a dot."""
    direct = "." in task
    value = meta or {}
    return PlanRequest(
        task=None if direct else task,
        capability=task if direct else None,
        meta=msgspec.json.encode(value),
        value=value,
        **more,
    )


def errand(capability: str, *, key: str = "", seconds: float = 30.0, **meta: Any) -> Errand:
    """Give an errand as the planner would."""
    request = asking(capability, meta)
    message = Message("msg_1", request.meta, Trace(), key or "msg_1", 0)
    deadline = asyncio.get_running_loop().time() + seconds
    return Errand(request, capability, message, bool(key), "ann", deadline, started=0.0)


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until something is so."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


async def record_of(core: Core, name: str) -> Record:
    """Return a registration that must be there."""
    record = await core.registry.get(name)
    assert record is not None
    return record


def rows_expected(*records: Record) -> dict[Key, Document]:
    """Return the rows that these registrations and no others leave, but the times of leases."""
    rows: dict[Key, Document] = {}
    for record in records:
        rows.update(record.rows())
        name = record.autopilot.name
        rows["autopilot", name] = {
            "autopilot": msgspec.json.decode(msgspec.json.encode(record.autopilot)),
            "secret": record.secret,
            "registered_at": record.registered_at,
            "updated_at": record.updated_at,
        }
        if record.autopilot.lease_seconds is not None:
            rows["lease", name] = {"until": record.updated_at + record.autopilot.lease_seconds}
    return rows
