"""Self-healing: all that registered autopilots need exists, one pass at a time, nothing is ever removed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.plan import Demand
from infra.provider import Inventory, Resource, Unread, Want
from infra.table.sqlite import SqliteTable
from router.demand import demanded
from router.errors import Conflict, Forbidden, StoreUnavailable
from router.heal import shown
from router.model import Needs, Worker
from tests.fakes import START, FakeClock
from tests.router.parts import Core, autopilot, core, until

KV = Needs(kv_namespaces=("CACHE",))


async def kept(parts: Core) -> list[dict[str, Any]]:
    """Return the reports that were kept, oldest first."""
    page = await parts.table.inner.range("heal")
    return [item.document for item in page.items]


async def test_what_is_needed_is_the_union_with_who_needs_it(parts: Core) -> None:
    """Of all registrations, also beyond a page of them."""
    worker = Worker("w", "export default 1")
    await parts.register(
        autopilot("a", needs=Needs(kv_namespaces=("CACHE", "OTHER"), workers=(worker,))),
        autopilot("b", needs=Needs(kv_namespaces=("CACHE",), queues=("CACHE",))),
        autopilot("c"),
    )
    assert await demanded(parts.registry) == [
        Demand(Want("kv", "CACHE"), ("a", "b")),
        Demand(Want("kv", "OTHER"), ("a",)),
        Demand(Want("workers", "w", worker), ("a",)),
        Demand(Want("queues", "CACHE"), ("b",)),
    ]


async def test_a_large_registry_is_read_to_its_end(parts: Core) -> None:
    """The last one's needs count like the first one's."""
    await parts.register(*(autopilot(f"n{number:04d}") for number in range(501)))
    await parts.register(autopilot("zz", needs=KV))
    assert await demanded(parts.registry) == [Demand(Want("kv", "CACHE"), ("zz",))]


async def test_a_pass_creates_what_is_missing_and_keeps_its_report(parts: Core) -> None:
    """What exists is left alone; the report says what was done and when."""
    parts.provider.there.append(Resource("queues", "jobs", "id-jobs"))
    await parts.register(autopilot("a", needs=Needs(kv_namespaces=("CACHE",), queues=("jobs",))))
    report = await parts.healer.heal()
    assert report["ok"]
    assert report["created"]["kv"] == [{"name": "CACHE", "id": "id-CACHE"}]
    assert report["skipped"]["queues"] == [{"name": "jobs", "id": "id-jobs"}]
    assert report["timestamp"] == "2026-01-01T00:00:00.000Z"
    assert parts.provider.created == [Want("kv", "CACHE")]
    [one] = await kept(parts)
    assert (one["id"], one["created"], one["errors"]) == (report["id"], report["created"], [])
    assert one["plan"] == [
        {
            "action": "create",
            "kind": "kv",
            "name": "CACHE",
            "why": "it does not exist",
            "needed_by": ["a"],
        },
        {
            "action": "adopt",
            "kind": "queues",
            "name": "jobs",
            "why": "it exists already",
            "needed_by": ["a"],
        },
    ]


async def test_a_pass_over_a_healthy_account_writes_nothing_there(parts: Core) -> None:
    """The second pass finds everything as it should be; here it leaves its report, and its lease twice."""
    await parts.register(autopilot("a", needs=KV))
    await parts.healer.heal()
    parts.provider.created.clear()
    parts.table.calls.clear()
    parts.clock.forward(900)
    report = await parts.healer.heal()
    assert report["ok"]
    assert [action["action"] for action in report["plan"]] == ["keep"]
    assert parts.provider.created == []
    assert [one for one in parts.table.calls if one[0] not in {"get", "range"}] == [
        ("put", "lease"),  # taken, renewed before anything is done, given back
        ("put", "lease"),
        ("put", "heal"),
        ("put", "lease"),
    ]


async def test_what_cannot_be_created_is_reported_and_the_rest_is_done(parts: Core) -> None:
    """One refusal does not stop the pass."""
    await parts.register(autopilot("a", needs=Needs(kv_namespaces=("A", "B", "C"))))
    parts.provider.refuses["B"] = Forbidden("no permission")
    report = await parts.healer.heal()
    assert not report["ok"]
    [error] = report["errors"]
    assert (error["kind"], error["name"], error["code"], error["message"]) == (
        "kv", "B", "forbidden", "no permission",
    )  # fmt: skip
    assert [want.name for want in parts.provider.created] == ["A", "C"]
    assert (await kept(parts))[0]["errors"] == report["errors"]


async def test_a_report_of_many_thousand_resources_is_kept(parts: Core) -> None:
    """What was only looked at is not written down, and of long lists a part: they would outgrow the store."""
    for batch in range(40):
        names = tuple(f"bucket-{batch}-{number}" for number in range(150))
        await parts.register(autopilot(f"a{batch}", needs=Needs(r2_buckets=names)))
        parts.provider.there += [Resource("r2", name, f"id-{name}") for name in names]
    report = await parts.healer.heal()
    assert {action["action"] for action in report["plan"]} == {"adopt"}
    parts.clock.forward(900)
    assert len((await parts.healer.heal())["plan"]) == 6000
    parts.clock.forward(900)
    parts.provider.unread["r2"] = Unread("10000", "x" * 2000, "")
    assert len((await parts.healer.heal())["errors"]) == 6000
    adopting, keeping, failing = await kept(parts)
    assert 0 < len(adopting["plan"]) < 6000
    assert adopting["omitted"] == 6000 - len(adopting["plan"])
    assert (keeping["plan"], keeping["omitted"]) == ([], 0)
    assert len(failing["alerts"]) == 1
    assert len(failing["errors"]) + len(failing["plan"]) + failing["omitted"] == 12_000


async def test_two_passes_never_run_at_once(parts: Core, table: SqliteTable, clock: FakeClock) -> None:
    """The second one is told, in this process and in another; afterwards it may."""
    await parts.register(autopilot("a", needs=KV))
    parts.provider.gate = asyncio.Event()
    running = asyncio.create_task(parts.healer.heal())
    await until(lambda: parts.provider.inventories)
    other = core(table, clock)
    for healer in (parts.healer, other.healer):
        with pytest.raises(Conflict):
            await healer.heal()
    parts.provider.gate.set()
    assert (await running)["ok"]
    assert parts.provider.inventories == 1
    other.provider.there = parts.provider.there
    assert (await other.healer.heal())["ok"]


async def test_a_pass_that_died_is_followed_by_another(parts: Core) -> None:
    """Its lease runs out after five minutes."""
    await parts.table.inner.put(("lease", "#heal"), {"owner": "dead", "fence": 1, "until": START + 300})
    with pytest.raises(Conflict):
        await parts.healer.heal()
    parts.clock.forward(300)
    assert (await parts.healer.heal())["ok"]


async def test_a_pass_that_fails_gives_its_lease_back(parts: Core) -> None:
    """The next one need not wait, and no report claims anything."""
    running = asyncio.create_task(parts.healer.heal())
    parts.provider.gate = asyncio.Event()
    await until(lambda: parts.provider.inventories)
    parts.table.down = True
    parts.provider.gate.set()
    with pytest.raises(StoreUnavailable):
        await running
    parts.table.down = False
    assert await kept(parts) == []


async def test_the_lease_of_a_pass_is_no_registrations(parts: Core) -> None:
    """Nobody can register under its name, and no heartbeat reaches it."""
    await parts.healer.heal()
    assert not parts.routes.lease_alive("#heal")


async def test_reports_are_kept_for_ninety_days(parts: Core) -> None:
    """And then no longer."""
    await parts.healer.heal()
    parts.clock.forward(90 * 86_400 - 1)
    assert len(await kept(parts)) == 1
    parts.clock.forward(1)
    assert await kept(parts) == []


async def test_a_dry_run_only_plans(parts: Core) -> None:
    """For everything needed, or for what was asked."""
    await parts.register(autopilot("a", needs=KV))
    report = await parts.healer.ensure(None, dry_run=True)
    assert [(one.action, one.want.name) for one in report.plan] == [("create", "CACHE")]
    report = await parts.healer.ensure([Want("queues", "jobs")], dry_run=True)
    assert [(one.action, one.want.name) for one in report.plan] == [("create", "jobs")]
    assert parts.provider.created == []
    report = await parts.healer.ensure([Want("queues", "jobs")], dry_run=False)
    assert parts.provider.created == [Want("queues", "jobs")]


async def test_drift_is_what_is_missing_changed_or_needed_by_nobody(parts: Core) -> None:
    """Compared by kind and name, of Workers by content; of a kind that was not read nothing is said."""
    await parts.register(
        autopilot("a", needs=Needs(kv_namespaces=("CACHE",), workers=(Worker("w", "new"), Worker("x", "x")))),
        autopilot("b", needs=Needs(kv_namespaces=("CACHE",), queues=("jobs",), r2_buckets=("assets",))),
    )
    there = [
        Resource("kv", "jobs", "1"),
        Resource("workers", "w", "2", "old", ours=True),
        Resource("workers", "x", "4", ours=False),
        Resource("d1", "db", "3"),
    ]
    found = Inventory(there, {"r2": Unread("10000", "no", "")})
    drift = await parts.healer.drift(found)
    assert [(one["kind"], one["name"], one["needed_by"]) for one in drift["missing"]] == [
        ("kv", "CACHE", ["a", "b"]),
        ("queues", "jobs", ["b"]),
    ]
    assert [(one["name"], one["why"].partition(":")[0]) for one in drift["changed"]] == [
        ("w", "it is not as it is wanted"),
        ("x", "it exists, and it is not ours"),
    ]
    assert drift["unmanaged"] == [{"kind": "kv", "name": "jobs"}, {"kind": "d1", "name": "db"}]
    assert drift["unread"] == ["r2"]


async def test_a_pass_that_lost_its_lease_changes_nothing(parts: Core) -> None:
    """Another one may have begun while it looked around."""
    await parts.register(autopilot("a", needs=KV))
    parts.provider.gate = asyncio.Event()
    running = asyncio.create_task(parts.healer.heal())
    await until(lambda: parts.provider.inventories)
    parts.clock.forward(301)
    parts.provider.gate.set()
    with pytest.raises(Conflict):
        await running
    assert parts.provider.created == []


async def test_what_somebody_asks_for_is_held_to_what_others_need(parts: Core) -> None:
    """A Worker that a registration wants otherwise is not overwritten; names others need are no errors."""
    parts.provider.there.append(Resource("kv", "CACHE-1", "1"))
    await parts.register(
        autopilot("a", needs=Needs(kv_namespaces=("CACHE-1",), workers=(Worker("w", "one"),))),
    )
    wanted = [Want("workers", "w", Worker("w", "two")), Want("kv", "CACHE-2")]
    report = await parts.healer.ensure(wanted, dry_run=False)
    assert [(one.action, one.code, one.needed_by) for one in report.plan] == [
        ("blocked", "conflict", ("a",)),
        ("create", "", ()),
    ]


async def test_what_two_registrations_want_differently_is_refused_to_a_third(parts: Core) -> None:
    """Their conflict is not settled by somebody who asks for one of the two."""
    await parts.register(
        autopilot("a", needs=Needs(workers=(Worker("w", "one"),))),
        autopilot("b", needs=Needs(workers=(Worker("w", "two"),))),
    )
    report = await parts.healer.ensure([Want("workers", "w", Worker("w", "one"))], dry_run=False)
    assert [(one.action, one.code) for one in report.plan] == [("blocked", "conflict")]


async def test_a_name_that_is_meant_is_made(parts: Core) -> None:
    """Who asks may say that it is no typing error."""
    parts.provider.there.append(Resource("kv", "CACHE", "1"))
    wanted = [Want("kv", "CACHES")]
    report = await parts.healer.ensure(wanted, dry_run=False)
    assert [one.code for one in report.plan] == ["did_you_mean"]
    report = await parts.healer.ensure(wanted, dry_run=False, meant=["CACHES"])
    assert report.ok
    assert parts.provider.created == wanted


def test_an_inventory_in_the_spelling_of_the_seed() -> None:
    """Titles for namespaces, bare names for Workers, every kind there, or why it could not be read."""
    inventory = [
        Resource(kind, f"{kind}-name", f"{kind}-id", "digest")
        for kind in ("kv", "r2", "workers", "d1", "queues")
    ]
    inventory.append(Resource("r2", "far", "far", jurisdiction="eu"))
    assert shown(Inventory(inventory)) == {
        "kv": [{"id": "kv-id", "title": "kv-name"}],
        "r2": [{"name": "r2-name"}, {"name": "far", "jurisdiction": "eu"}],
        "workers": ["workers-name"],
        "d1": [{"id": "d1-id", "name": "d1-name"}],
        "queues": [{"id": "queues-id", "name": "queues-name"}],
    }
    why = Unread("10042", "not enabled", "Enable it.")
    assert shown(Inventory([], {"r2": why})) == {"kv": [], "r2": why, "workers": [], "d1": [], "queues": []}
