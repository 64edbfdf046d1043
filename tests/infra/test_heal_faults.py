"""Healing under faults: it converges, it never makes anything twice, and it stops where it cannot know."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.ensure import Ensurer, Report
from infra.ledger import Ledger
from infra.plan import Allowance, Demand, Entry, union
from infra.provider import Resource, Unread, Want, digest_of
from infra.table.sqlite import SqliteTable
from router.model import Binding, Worker
from tests.fakes import FakeClock
from tests.infra.storage import Faulty, Storage

PASSES = 5
FAR = ("north", "meadow", "quartz", "violin", "harbour", "pumpkin")
"""Names that nobody takes for one another."""


class World:
    """Some storage, a ledger in a table, and time."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.table = SqliteTable(folder / "ledger.db", self.clock)
        self.renew()

    def renew(self) -> None:
        """Begin anew with empty storage; its ledger is another one than all before."""
        self.storage = Storage(self.clock)
        self.clock.forward(1)
        self.place = f"place-{self.clock.now}"

    def way(self, luck: random.Random, faults: float) -> Faulty:
        """Give a way to the storage."""
        way = Faulty(self.storage, luck, faults)
        way.place = self.place
        way.lags = (0.0, 200.0) if faults else (0.0,)
        return way

    def good(self) -> Faulty:
        """Give a way to the storage that always works."""
        return self.way(random.Random(1), 0.0)

    def ensurer(self, way: Faulty, *, patience: float = 0.0, recreate: bool = False) -> Ensurer:
        """Give one that makes sure of things."""
        allowance = Allowance(recreate=recreate)
        return Ensurer(way, self.table, clock=self.clock, allowance=allowance, patience=patience)

    @property
    def ledger(self) -> Ledger:
        """The ledger of this storage."""
        return Ledger(self.table, self.place, self.clock)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Give a world."""
    made = World(tmp_path)
    yield made
    await made.table.close()


def demands_of(luck: random.Random) -> list[Demand]:
    """Give up to six things that are wanted, among them maybe a Worker bound to some of them."""
    names = luck.sample(FAR, luck.randint(1, 5))
    wants = [Want(luck.choice(("kv", "r2", "d1", "queues")), name) for name in names]
    if luck.random() < 0.5:
        kinds = {"kv": "kv", "r2": "r2", "d1": "d1", "queues": "queue"}
        bound = luck.sample(wants, min(len(wants), 2))
        bindings = {f"B{at}": Binding(**{kinds[one.kind]: one.name}) for at, one in enumerate(bound)}
        wants.append(Want("workers", "edge", Worker("edge", "export default 1", bindings=bindings)))
    return union(("a", want) for want in wants)


async def half_done(world: World, luck: random.Random, demands: list[Demand]) -> None:
    """Leave some of it there and some of it recorded, as passes may that ended anywhere."""
    for demand in demands:
        want = demand.want
        state = luck.choice(("nothing", "there", "made", "begun", "begun and there"))
        there: Resource | None = None
        if state in {"there", "made", "begun and there"}:
            ours = want.kind == "workers" or None
            there = world.storage.put(*want.key, digest="before" if ours else "", ours=ours)
        if state == "made" and there is not None:
            await world.ledger.record(want.key, there, None, luck.choice(("made", "adopted")))
        elif state.startswith("begun"):
            await world.ledger.intend(want.key, None, "somebody who died")
    for name in luck.sample(("alpine", "bracket", "cinema"), 2):
        world.storage.put(luck.choice(("kv", "r2", "d1")), name)
    world.clock.forward(900)


def is_settled(report: Report) -> bool:
    """Whether a pass found everything as it should be."""
    return report.ok and all(action.action == "keep" for action in report.plan)


async def test_from_any_state_and_through_faults_it_converges(world: World) -> None:
    """1,000 half-done states, each healed through 20 % faults and processes that die (H1).

    Five passes after the faults stop all is there once, recorded, and nothing is left to do.
    """
    luck = random.Random(20_260_101)
    for _ in range(1000):
        world.renew()
        demands = demands_of(luck)
        await half_done(world, luck, demands)
        faulty = world.way(luck, 0.2)
        faulty.tells_all = luck.random() < 0.5
        for _ in range(luck.randrange(4)):
            await one_pass(world.ensurer(faulty), demands, dies=luck.random() < 0.2, luck=luck)
            world.clock.forward(luck.choice((1, 130, 900)))
            assert world.storage.twins() == []
        way = world.way(luck, 0.0)
        way.tells_all = faulty.tells_all
        passes = 0
        while not is_settled(await world.ensurer(way).ensure(demands, by="heal")):
            world.clock.forward(900)
            passes += 1
            assert passes <= PASSES
        assert world.storage.twins() == []
        await is_recorded(world, demands)
        way.calls.clear()
        world.clock.forward(900)
        await world.ensurer(way).ensure(demands, by="heal")
        assert way.calls == [("list", "")]


async def one_pass(ensurer: Ensurer, demands: list[Demand], *, dies: bool, luck: random.Random) -> None:
    """Run a pass; one that dies is gone in the middle of a call."""
    way = ensurer.provider
    assert isinstance(way, Faulty)
    running = asyncio.ensure_future(ensurer.ensure(demands, by="heal"))
    if dies:
        last = luck.randrange(1, 6)

        def count(verb: str) -> None:
            nonlocal last
            last -= 1
            if last == 0:
                running.cancel()

        way.before = count
    try:
        await running
    except asyncio.CancelledError:
        pass
    finally:
        way.before = lambda verb: None


async def is_recorded(world: World, demands: list[Demand]) -> None:
    """Check that the ledger has the ids of what is there."""
    entries = await world.ledger.entries()
    there = {one.key: one for one in world.storage.there}
    for demand in demands:
        entry = entries[demand.want.key]
        assert entry.state in {"made", "adopted"}
        assert (entry.id, entry.digest) == (there[demand.want.key].id, there[demand.want.key].digest)


async def test_two_at_once_never_make_anything_twice(world: World) -> None:
    """500 rounds of two healers, 20 % faults and no lease between them (H5); nothing goes away either."""
    luck = random.Random(5)
    done = 0
    for _ in range(500):
        world.renew()
        demands = demands_of(luck)
        await half_done(world, luck, demands)
        there = {one.id for one in world.storage.there}
        for _ in range(3):
            two = [world.ensurer(world.way(luck, 0.2)) for _ in range(2)]
            reports = await asyncio.gather(*(one.ensure(demands, by=str(id(one))) for one in two))
            done += sum(len(report.created) for report in reports)
            assert world.storage.twins() == []
            assert there <= (there := {one.id for one in world.storage.there})
            world.clock.forward(luck.choice((1, 130, 900)))
    assert done > 500


async def test_the_one_that_waits_gets_what_the_other_one_makes(world: World) -> None:
    """Two at once both report what is there now, by one id."""
    demands = union([("a", Want("kv", "CACHE"))])
    ways = [world.good(), world.good()]
    reports = await asyncio.gather(
        *(world.ensurer(way, patience=1.0).ensure(demands, by="x") for way in ways)
    )
    assert [report.ok for report in reports] == [True, True]
    [made] = world.storage.there
    assert sorted(len(report.created) for report in reports) == [0, 1]
    assert {one.id for report in reports for one in [*report.created, *report.skipped]} == {made.id}


@pytest.mark.parametrize("trouble", ["empty", "empty and blind", "unread"])
@pytest.mark.parametrize("kind", ["kv", "workers"])
async def test_a_list_that_may_not_be_true_stops_its_kind(world: World, trouble: str, kind: str) -> None:
    """Empty where there was something, or broken off: no write of that kind, and one alert (H4)."""

    def want(name: str) -> Want:
        return Want(kind, name, Worker(name, "x") if kind == "workers" else None)

    before = union(("a", want(name)) for name in FAR[:2])
    way = world.good()
    ensurer = world.ensurer(way)
    assert (await ensurer.ensure(before, by="heal")).ok
    if trouble != "unread":
        way.lies.add(kind)
        way.blind = trouble.endswith("blind")
    else:
        way.unread[kind] = Unread("1001", "page 2 was not answered", "")
    way.calls.clear()
    after = union([*(("a", want(name)) for name in FAR[:4]), ("a", Want("d1", "other"))])
    report = await ensurer.ensure(after, by="heal")
    assert way.writes == ["other"]
    assert [(one["kind"], one["name"]) for one in report.alerts] == [(kind, "")]
    known = "keep" if trouble == "empty" else "blocked"
    assert [action.action for action in report.plan] == [known] * 2 + ["blocked"] * 2 + ["create"]
    assert world.storage.twins() == []


async def test_nobody_elses_worker_is_overwritten(world: World) -> None:
    """It is taken over by its mark alone; without one there is an alert, pass after pass (H7)."""
    demands = union([("a", Want("workers", "edge", Worker("edge", "ours")))])
    for ours in (False, None):
        world.renew()
        there = world.storage.put("workers", "edge", digest="theirs", ours=ours)
        way = world.good()
        for _ in range(2):
            report = await world.ensurer(way).ensure(demands, by="heal")
            assert [one["code"] for one in report.alerts] == ["not_ours"]
            assert [one["code"] for one in report.errors] == ["not_ours"]
        assert way.writes == []
        assert world.storage.there == [there]
    world.renew()
    world.storage.put("workers", "edge", digest="older", ours=True)
    report = await world.ensurer(world.good()).ensure(demands, by="heal")
    assert [action.action for action in report.plan] == ["update"]
    assert world.storage.there[0].digest == digest_of(demands[0].want, {})


async def test_a_worker_of_ours_that_somebody_replaced_is_left_alone(world: World) -> None:
    """What we made once is not ours any more when it lost our mark."""
    demands = union([("a", Want("workers", "edge", Worker("edge", "ours")))])
    way = world.good()
    await world.ensurer(way).ensure(demands, by="heal")
    world.storage.there[0] = world.storage.there[0]._replace(digest="", ours=False, version="v9")
    way.calls.clear()
    report = await world.ensurer(way).ensure(demands, by="heal")
    assert way.writes == []
    assert "somebody else uploaded it since" in report.alerts[0]["message"]


async def test_a_late_creation_is_waited_for(world: World) -> None:
    """One whose answer was lost may still have its effect; nobody tries again before it cannot any more."""
    demands = union([("a", Want("kv", "CACHE"))])
    await world.ledger.intend(("kv", "CACHE"), None, "somebody")
    way = world.good()
    report = await world.ensurer(way).ensure(demands, by="heal")
    assert (way.writes, [one["code"] for one in report.errors]) == ([], ["conflict"])
    world.storage.put("kv", "CACHE")
    world.clock.forward(900)
    report = await world.ensurer(way).ensure(demands, by="heal")
    assert (report.ok, way.writes) == (True, [])
    assert [action.action for action in report.plan] == ["adopt"]
    entry = (await world.ledger.entries())["kv", "CACHE"]
    assert entry == Entry("made", "id1", revision=2)
