"""Registrations: what is kept, under which conditions, and that nothing is ever half there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from infra.table.sqlite import SqliteTable
from router.errors import Conflict, NotFound, Stale, StoreUnavailable, TooLarge
from router.model import MAX_CAPABILITIES, Autopilot, Capability, Needs, Worker
from tests.fakes import START, FakeClock
from tests.router.parts import Breaking, Core, autopilot, core, dump, record_of, rows_expected

RICH = autopilot(
    "rich",
    "web.pages.generate",
    Capability("web.asset.generate", "Images", {"type": "object"}),
    "crm.*",
    needs=Needs(kv_namespaces=("CACHE",), workers=(Worker("w", "x"),)),
    tasks={"generate_banner": "web.asset.generate"},
    priority=5,
    weight=2,
    lease_seconds=60,
    description="Makes pages",
)


def stored(folder: Path) -> dict[Any, Any]:
    """Return the documents of all rows by key."""
    return {key: document for key, (document, _) in dump(folder / "table.db").items()}


async def test_a_registration_is_kept_whole(parts: Core) -> None:
    """What was put is what is found, at revision 1, with a secret of its own."""
    put = await parts.registry.put(RICH)
    assert put.created
    found = await record_of(parts, "rich")
    assert found == put.record
    assert (found.autopilot, found.revision) == (RICH, 1)
    assert found.registered_at == found.updated_at == START
    assert found.secret
    assert await parts.registry.get("nobody") is None


async def test_registering_again_replaces_and_counts(parts: Core) -> None:
    """The revision rises, the first time and the secret stay, the old rows go."""
    first = (await parts.registry.put(RICH)).record
    parts.clock.forward(5)
    second = await parts.registry.put(autopilot("rich", "lms.enrollment.create"))
    assert not second.created
    assert second.record.revision == 2
    assert second.record.secret == first.secret
    assert (second.record.registered_at, second.record.updated_at) == (START, START + 5)
    assert await record_of(parts, "rich") == second.record


async def test_secrets_differ_and_are_never_shown(parts: Core) -> None:
    """A secret is new for each registration, also for one that comes back under a name."""
    one = (await parts.registry.put(autopilot("a"))).record
    two = (await parts.registry.put(autopilot("b"))).record
    await parts.registry.delete("a")
    again = (await parts.registry.put(autopilot("a"))).record
    assert len({one.secret, two.secret, again.secret}) == 3
    shown = one.document("healthy")
    assert one.secret not in str(shown)
    assert "secret" not in shown
    assert shown["health"] == "healthy"
    assert (shown["registered_at"], shown["revision"]) == ("2026-01-01T00:00:00.000Z", 1)


async def test_a_change_leaves_exactly_its_own_rows(parts: Core, tmp_path: Path) -> None:
    """Rows of capabilities, families, tasks and the lease that are no longer true are gone."""
    await parts.registry.put(RICH)
    assert stored(tmp_path) == rows_expected(await record_of(parts, "rich"))
    await parts.registry.put(autopilot("rich", "lms.enrollment.create", "web.asset.generate"))
    assert stored(tmp_path) == rows_expected(await record_of(parts, "rich"))
    assert len(stored(tmp_path)) == 3
    await parts.registry.put(RICH)
    assert stored(tmp_path) == rows_expected(await record_of(parts, "rich"))
    await parts.registry.delete("rich")
    assert stored(tmp_path) == {}


async def test_a_removal_leaves_others_alone(parts: Core, tmp_path: Path) -> None:
    """Only its own rows go."""
    await parts.register(RICH, autopilot("other", "web.pages.generate", "crm.*"))
    await parts.registry.delete("rich")
    assert stored(tmp_path) == rows_expected(await record_of(parts, "other"))
    with pytest.raises(NotFound):
        await parts.registry.delete("rich")


async def test_a_condition_on_the_revision_is_kept(parts: Core, tmp_path: Path) -> None:
    """Whoever read an older one, or one that is not there, changes nothing."""
    with pytest.raises(Stale):
        await parts.registry.put(RICH, if_revision=1)
    assert stored(tmp_path) == {}
    await parts.registry.put(RICH, if_revision=0)
    with pytest.raises(Stale):
        await parts.registry.put(RICH, if_revision=0)
    assert (await parts.registry.put(RICH, if_revision=1)).record.revision == 2
    before = dump(tmp_path / "table.db")
    with pytest.raises(Stale, match="revision 2, not 1"):
        await parts.registry.put(autopilot("rich"), if_revision=1)
    with pytest.raises(Stale):
        await parts.registry.delete("rich", if_revision=1)
    assert dump(tmp_path / "table.db") == before
    await parts.registry.delete("rich", if_revision=2)
    assert await parts.registry.get("rich") is None


async def test_of_conditions_at_the_same_time_one_holds(parts: Core) -> None:
    """Ten callers who all read revision 1: one changes it, nine are told."""
    await parts.registry.put(RICH)
    calls = [parts.registry.put(autopilot("rich", f"a.b{n}"), if_revision=1) for n in range(10)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(1 for one in results if isinstance(one, Stale)) == 9
    assert (await record_of(parts, "rich")).revision == 2


def variant(number: int) -> Autopilot:
    """Give one of many registrations of one name that share little."""
    capabilities: list[str | Capability] = [f"f{number}.c{n}" for n in range(number % 5 + 1)]
    if number % 3 == 0:
        capabilities.append(f"f{number}.*")
    tasks = {f"task_{number}": f"f{number}.c0"} if number % 2 else {}
    lease = 60 if number % 4 == 0 else None
    return autopilot("same", *capabilities, tasks=tasks, lease_seconds=lease, priority=number)


async def test_50_registrations_of_one_name_at_once_leave_the_rows_of_the_last(
    parts: Core, tmp_path: Path
) -> None:
    """Everybody is served, and what stays is one of them and nothing of the others."""
    results = await asyncio.gather(*(parts.registry.put(variant(number)) for number in range(50)))
    assert sorted(one.record.revision for one in results) == list(range(1, 51))
    assert sum(one.created for one in results) == 1
    last = max(results, key=lambda one: one.record.revision).record
    assert await record_of(parts, "same") == last
    assert stored(tmp_path) == rows_expected(last)


async def test_two_processes_that_register_one_name_leave_the_rows_of_the_last(
    parts: Core, table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """Without a common memory the table alone keeps them apart."""
    other = core(table, clock)
    calls = [(parts, other)[n % 2].registry.put(variant(n)) for n in range(30)]
    calls += [(other, parts)[n % 2].registry.put(autopilot(f"own{n}")) for n in range(4)]
    await asyncio.gather(*calls)
    record = await record_of(parts, "same")
    assert record.revision == 30
    others = [await record_of(parts, f"own{n}") for n in range(4)]
    assert stored(tmp_path) == rows_expected(record, *others)


async def test_registrations_and_removals_at_once_leave_all_or_nothing(parts: Core, tmp_path: Path) -> None:
    """Whoever comes last, the rows are those of a record or there are none."""
    calls: list[Any] = []
    for number in range(20):
        calls += [parts.registry.put(variant(number)), parts.registry.delete("same")]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in results if isinstance(one, BaseException)} <= {NotFound}
    record = await parts.registry.get("same")
    assert stored(tmp_path) == (rows_expected(record) if record else {})


class Contended:
    """Lets somebody else register just before each of our writes."""

    def __init__(self, parts: Core, other: Core, times: int) -> None:
        self.inner = parts.table.inner
        self.other = other
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def transact(self, writes: Any) -> list[int]:
        if self.left:
            self.left -= 1
            await self.other.registry.put(variant(self.left))
        return await self.inner.transact(writes)


async def test_a_change_that_always_comes_too_late_gives_up(
    parts: Core, table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """Some collisions are made good; after too many the caller is told, and nothing of it was kept."""
    other = core(table, clock)
    parts.table.inner = Contended(parts, other, 5)
    assert (await parts.registry.put(variant(1))).record.revision == 6
    parts.table.inner = Contended(parts, other, 1000)
    with pytest.raises(StoreUnavailable, match="too many"):
        await parts.registry.put(variant(7))
    with pytest.raises(StoreUnavailable, match="too many"):
        await parts.registry.delete("same")
    record = await record_of(other, "same")
    assert record.autopilot != variant(7)
    assert stored(tmp_path) == rows_expected(record)


async def test_a_disk_that_fails_at_any_write_leaves_nothing_half_written(
    clock: FakeClock, tmp_path: Path
) -> None:
    """At each single write of a creation, a change and a removal: all that was there is there, no more."""
    table = Breaking(tmp_path / "table.db", clock)
    parts = core(table, clock)
    changed = autopilot(
        "rich", "web.pages.generate", "lms.enrollment.create", tasks={"enroll": "lms.enrollment.create"}
    )
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: parts.registry.put(RICH),
        lambda: parts.registry.put(changed),
        lambda: parts.registry.delete("rich"),
    ]
    for step in steps:
        before, broken = dump(tmp_path / "table.db"), 0
        while True:
            table.applied, table.breaks_at = 0, broken + 1
            try:
                await step()
            except StoreUnavailable:
                assert dump(tmp_path / "table.db") == before
                broken += 1
            else:
                break
        assert broken >= 5
        record = await parts.registry.get("rich")
        assert stored(tmp_path) == (rows_expected(record) if record else {})
    await table.close()


async def test_a_store_that_does_not_answer_keeps_nothing(parts: Core, tmp_path: Path) -> None:
    """The caller knows it, from every verb."""
    await parts.registry.put(RICH)
    before = dump(tmp_path / "table.db")
    parts.table.down = True
    for call in (
        parts.registry.put(autopilot("new")),
        parts.registry.delete("rich"),
        parts.registry.heartbeat("rich"),
        parts.registry.add_capability("rich", Capability("a.b")),
        parts.registry.page(after=None, limit=10),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert dump(tmp_path / "table.db") == before


async def test_a_registration_too_large_for_the_store_is_refused_whole(parts: Core, tmp_path: Path) -> None:
    """Half a megabyte of schemas is more than one document holds."""
    big = {"description": "x" * 60_000}
    capabilities = [Capability(f"a.b{n}", input_schema=big) for n in range(9)]
    with pytest.raises(TooLarge):
        await parts.registry.put(autopilot("big", *capabilities))
    assert stored(tmp_path) == {}


async def test_a_lease_runs_and_a_heartbeat_renews_it(parts: Core) -> None:
    """It takes part until the lease is over, and again after the next heartbeat."""
    await parts.registry.put(RICH)
    parts.clock.forward(60)
    assert not parts.routes.lease_alive("rich")
    assert await parts.registry.heartbeat("rich") == START + 120
    assert parts.routes.lease_alive("rich")
    record = await record_of(parts, "rich")
    assert record.revision == 1
    assert record.updated_at == START


async def test_a_heartbeat_is_seen_by_other_processes(
    parts: Core, table: SqliteTable, clock: FakeClock
) -> None:
    """They read the lease with the route."""
    other = core(table, clock)
    await parts.registry.put(RICH)
    await other.routes.candidates("web.pages.generate")
    clock.forward(59)
    await parts.registry.heartbeat("rich")
    await other.routes.candidates("web.pages.generate")
    clock.forward(30)
    assert other.routes.lease_alive("rich")


async def test_heartbeats_of_those_without_a_lease(parts: Core, tmp_path: Path) -> None:
    """An unknown name is not found; one that needs no lease is told so and gets no row."""
    with pytest.raises(NotFound):
        await parts.registry.heartbeat("rich")
    await parts.registry.put(autopilot("free"))
    assert await parts.registry.heartbeat("free") is None
    assert ("lease", "free") not in stored(tmp_path)


async def test_a_heartbeat_never_revives_what_was_removed_meanwhile(
    parts: Core, table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """The record is checked in the same transaction."""
    await parts.registry.put(RICH)
    other = core(table, clock)

    class Removing(Contended):
        async def transact(self, writes: Any) -> list[int]:
            await self.other.registry.delete("rich")
            return await self.inner.transact(writes)

    parts.table.inner = Removing(parts, other, 1)
    with pytest.raises(Conflict):
        await parts.registry.heartbeat("rich")
    assert stored(tmp_path) == {}


async def test_a_capability_is_added_once(parts: Core, tmp_path: Path) -> None:
    """With its row and its schema; adding it again changes nothing."""
    await parts.registry.put(autopilot("a", "web.*"))
    added = Capability("web.pages.generate", input_schema={"type": "object"})
    await parts.registry.add_capability("a", added)
    await parts.registry.add_capability("a", added)
    record = await record_of(parts, "a")
    assert record.revision == 2
    assert record.autopilot.capabilities == (Capability("web.*"), added)
    assert stored(tmp_path) == rows_expected(record)
    with pytest.raises(NotFound):
        await parts.registry.add_capability("b", added)


async def test_capabilities_added_at_the_same_time_are_all_kept(parts: Core) -> None:
    """One does not undo the other."""
    await parts.registry.put(autopilot("a", "web.*"))
    await asyncio.gather(*(parts.registry.add_capability("a", Capability(f"web.c{n}")) for n in range(20)))
    names = {one.name for one in (await record_of(parts, "a")).autopilot.capabilities}
    assert names == {"web.*", *(f"web.c{n}" for n in range(20))}


async def test_capabilities_are_added_up_to_the_limit_of_a_registration(parts: Core) -> None:
    """Callers make names up: an autopilot that says yes to all of them must not outgrow a transaction."""
    await parts.registry.put(autopilot("a", "web.*"))
    for number in range(MAX_CAPABILITIES - 1):
        await parts.registry.add_capability("a", Capability(f"web.c{number}"))
    with pytest.raises(Conflict):
        await parts.registry.add_capability("a", Capability("web.onemore"))
    record = await record_of(parts, "a")
    assert len(record.autopilot.capabilities) == MAX_CAPABILITIES
    await parts.registry.put(autopilot("a", "web.pages.generate"))


async def test_pages_go_by_name(parts: Core) -> None:
    """With a cursor, through all or through those with one capability."""
    for name in ("d", "b", "a", "c"):
        await parts.register(autopilot(name, "web.pages.generate" if name != "b" else "crm.lead.create"))
    first, after = await parts.registry.page(after=None, limit=3)
    assert [one.autopilot.name for one in first] == ["a", "b", "c"]
    rest, end = await parts.registry.page(after=after, limit=3)
    assert [one.autopilot.name for one in rest] == ["d"]
    assert end is None
    some, after = await parts.registry.page(after=None, limit=2, capability="web.pages.generate")
    assert [one.autopilot.name for one in some] == ["a", "c"]
    more, end = await parts.registry.page(after=after, limit=2, capability="web.pages.generate")
    assert [one.autopilot.name for one in more] == ["d"]
    assert end is None
    assert await parts.registry.page(after=None, limit=2, capability="no.such") == ([], None)
