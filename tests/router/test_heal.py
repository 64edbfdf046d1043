"""Self-healing: all that registered autopilots need exists, one pass at a time, nothing is ever removed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.former import Resource, Want
from infra.table.sqlite import SqliteTable
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
    assert await parts.healer.needed() == {
        Want("kv", "CACHE"): ["a", "b"],
        Want("kv", "OTHER"): ["a"],
        Want("workers", "w", "export default 1"): ["a"],
        Want("queues", "CACHE"): ["b"],
    }


async def test_a_large_registry_is_read_to_its_end(parts: Core) -> None:
    """The last one's needs count like the first one's."""
    await parts.register(*(autopilot(f"n{number:04d}") for number in range(501)))
    await parts.register(autopilot("zz", needs=KV))
    assert await parts.healer.needed() == {Want("kv", "CACHE"): ["zz"]}


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
    assert one["plan"] == [{"action": "create", "kind": "kv", "name": "CACHE", "why": "it does not exist"}]


async def test_a_pass_over_a_healthy_account_writes_nothing_there(parts: Core) -> None:
    """The second pass finds everything as it should be."""
    await parts.register(autopilot("a", needs=KV))
    await parts.healer.heal()
    parts.provider.created.clear()
    parts.clock.forward(900)
    report = await parts.healer.heal()
    assert report["ok"]
    assert parts.provider.created == []
    assert len(await kept(parts)) == 2


async def test_what_cannot_be_created_is_reported_and_the_rest_is_done(parts: Core) -> None:
    """One refusal does not stop the pass."""
    await parts.register(autopilot("a", needs=Needs(kv_namespaces=("A", "B", "C"))))
    parts.provider.refuses["B"] = Forbidden("no permission")
    report = await parts.healer.heal()
    assert not report["ok"]
    assert report["errors"] == [{"kind": "kv", "name": "B", "code": "forbidden", "message": "no permission"}]
    assert [want.name for want in parts.provider.created] == ["A", "C"]
    assert (await kept(parts))[0]["errors"] == report["errors"]


async def test_a_report_of_many_thousand_resources_is_kept(parts: Core) -> None:
    """What was only looked at is not written down, or the report would outgrow the store."""
    for batch in range(40):
        names = tuple(f"bucket-{batch}-{number}" for number in range(150))
        await parts.register(autopilot(f"a{batch}", needs=Needs(r2_buckets=names)))
        parts.provider.there += [Resource("r2", name, f"id-{name}") for name in names]
    report = await parts.healer.heal()
    assert len(report["plan"]) == 6000
    [one] = await kept(parts)
    assert one["plan"] == []


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
    parts.provider.broken = StoreUnavailable("no connection")
    with pytest.raises(StoreUnavailable):
        await parts.healer.heal()
    assert await kept(parts) == []
    parts.provider.broken = None
    assert (await parts.healer.heal())["ok"]


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
    assert [(one.action, one.name) for one in report.plan] == [("create", "CACHE")]
    report = await parts.healer.ensure([Want("queues", "jobs")], dry_run=True)
    assert [(one.action, one.name) for one in report.plan] == [("create", "jobs")]
    assert parts.provider.created == []
    report = await parts.healer.ensure([Want("queues", "jobs")], dry_run=False)
    assert parts.provider.created == [Want("queues", "jobs")]


async def test_drift_is_what_is_missing_and_what_nobody_needs(parts: Core) -> None:
    """Compared by kind and name; a Worker of another content is not missing."""
    await parts.register(
        autopilot("a", needs=Needs(kv_namespaces=("CACHE",), workers=(Worker("w", "new"),))),
        autopilot("b", needs=Needs(kv_namespaces=("CACHE",), queues=("jobs",))),
    )
    inventory = [Resource("kv", "jobs", "1"), Resource("workers", "w", "2", "old"), Resource("d1", "db", "3")]
    assert await parts.healer.drift(inventory) == {
        "missing": [
            {"kind": "kv", "name": "CACHE", "needed_by": ["a", "b"]},
            {"kind": "queues", "name": "jobs", "needed_by": ["b"]},
        ],
        "unmanaged": [{"kind": "kv", "name": "jobs"}, {"kind": "d1", "name": "db"}],
    }


def test_an_inventory_in_the_spelling_of_the_seed() -> None:
    """Titles for namespaces, bare names for Workers, every kind there."""
    inventory = [
        Resource(kind, f"{kind}-name", f"{kind}-id", "digest")
        for kind in ("kv", "r2", "workers", "d1", "queues")
    ]
    assert shown(inventory) == {
        "kv": [{"id": "kv-id", "title": "kv-name"}],
        "r2": [{"name": "r2-name"}],
        "workers": ["workers-name"],
        "d1": [{"id": "d1-id", "name": "d1-name"}],
        "queues": [{"id": "queues-id", "name": "queues-name"}],
    }
    assert shown([]) == {"kv": [], "r2": [], "workers": [], "d1": [], "queues": []}
