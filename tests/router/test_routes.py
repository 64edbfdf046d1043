"""What the hot path reads, what it remembers and for how long."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import StoreUnavailable
from router.model import Capability
from tests.router.parts import Core, autopilot, record_of, until

CAP = "web.pages.generate"


def reads(parts: Core) -> int:
    """Return how many reads of capability rows there were."""
    return parts.table.count("range", "capability:")


async def names(parts: Core, capability: str = CAP) -> list[str]:
    """Return who offers a capability."""
    return [one.name for one in await parts.routes.candidates(capability)]


async def test_a_cold_capability_costs_one_range_read_and_a_warm_one_none(parts: Core) -> None:
    """However many autopilots there are, and whatever else they offer."""
    for number in range(12):
        await parts.register(autopilot(f"a{number:02d}", CAP, "web.other.thing"))
    parts.table.calls.clear()
    for _ in range(5):
        assert await names(parts) == [f"a{number:02d}" for number in range(12)]
    assert parts.table.calls == [("range", f"capability:{CAP}")]


async def test_a_candidate_has_all_that_sending_needs(parts: Core) -> None:
    """Endpoint, schema, secret and revision come from the row: the record is not read."""
    schema = {"type": "object"}
    await parts.register(
        autopilot("a", Capability(CAP, input_schema=schema), priority=7, weight=3, lease_seconds=60)
    )
    record = await record_of(parts, "a")
    parts.table.calls.clear()
    [candidate] = await parts.routes.candidates(CAP)
    assert candidate == record.candidate(record.autopilot.capabilities[0])
    assert candidate.url is not None
    assert (candidate.url.host, candidate.priority, candidate.weight) == ("a.example", 7, 3)
    assert (candidate.leased, candidate.needy, candidate.revision) == (True, False, 1)
    assert (candidate.secret, candidate.capability.input_schema) == (record.secret, schema)
    assert parts.table.count("get", "autopilot") == 0


async def test_candidates_come_by_priority_weight_and_name(parts: Core) -> None:
    """The order that lets the choice stop early."""
    await parts.register(
        autopilot("d", CAP, priority=1),
        autopilot("c", CAP, weight=9),
        autopilot("b", CAP),
        autopilot("a", CAP),
    )
    assert await names(parts) == ["d", "c", "a", "b"]


async def test_more_candidates_than_a_page_are_all_found(parts: Core) -> None:
    """A read goes on until the end."""
    for number in range(1003):
        key = (f"capability:{CAP}", f"a{number:04d}")
        row = {"capability": {"name": CAP}, "endpoint": "local:x", "priority": 1, "weight": 1}
        more = {"leased": False, "needy": False, "revision": 1, "secret": "s"}
        await parts.table.inner.put(key, {**row, **more})
    assert len(await names(parts)) == 1003
    assert reads(parts) == 2


async def test_what_was_read_is_used_up_to_its_bound(parts: Core) -> None:
    """Two seconds later, and not a moment before, it is read again."""
    await parts.register(autopilot("a", CAP))
    await names(parts)
    parts.clock.forward(1.99)
    await names(parts)
    assert reads(parts) == 1
    parts.clock.forward(0.01)
    await names(parts)
    assert reads(parts) == 2


async def test_what_another_process_wrote_is_seen_at_the_bound(parts: Core) -> None:
    """Its rows are simply there at the next read."""
    await parts.register(autopilot("a", CAP), autopilot("b", CAP))
    assert await names(parts) == ["a", "b"]
    await parts.table.inner.delete((f"capability:{CAP}", "a"))
    assert await names(parts) == ["a", "b"]
    parts.clock.forward(2)
    assert await names(parts) == ["b"]


async def test_a_store_that_fails_is_survived_within_the_bound_and_no_longer(parts: Core) -> None:
    """Beyond it the answer is that the store is unavailable, not an old truth."""
    await parts.register(autopilot("a", CAP))
    await names(parts)
    parts.table.down = True
    parts.clock.forward(1.9)
    assert await names(parts) == ["a"]
    parts.clock.forward(0.2)
    with pytest.raises(StoreUnavailable):
        await names(parts)
    with pytest.raises(StoreUnavailable):
        await names(parts, "cold.capability")
    parts.table.down = False
    assert await names(parts) == ["a"]


async def test_a_local_write_is_visible_at_once(parts: Core) -> None:
    """Registering, changing and removing all show in the very next plan."""
    await parts.register(autopilot("a", CAP))
    assert await names(parts) == ["a"]
    await parts.register(autopilot("b", CAP))
    assert await names(parts) == ["a", "b"]
    await parts.register(autopilot("a", "web.other.thing"))
    assert await names(parts) == ["b"]
    assert await names(parts, "web.other.thing") == ["a"]
    await parts.registry.delete("b")
    assert await names(parts) == []


async def test_a_write_leaves_other_capabilities_warm(parts: Core) -> None:
    """Only what became untrue is forgotten."""
    await parts.register(autopilot("a", CAP), autopilot("b", "crm.lead.create"))
    await names(parts)
    await parts.register(autopilot("b", "crm.lead.update"))
    parts.table.calls.clear()
    await names(parts)
    assert reads(parts) == 0


async def test_readers_at_the_same_time_share_one_read(parts: Core) -> None:
    """A hundred plans for a cold capability cost what one costs."""
    await parts.register(autopilot("a", CAP))
    found = await asyncio.gather(*(names(parts) for _ in range(100)))
    assert found == [["a"]] * 100
    assert reads(parts) == 1


async def test_a_failed_read_fails_all_who_share_it_and_only_them(parts: Core) -> None:
    """The next reader tries anew."""
    await parts.register(autopilot("a", CAP))
    parts.table.down = True
    results = await asyncio.gather(*(names(parts) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in results] == [StoreUnavailable] * 5
    assert reads(parts) == 1
    parts.table.down = False
    assert await names(parts) == ["a"]


async def test_a_reader_that_leaves_does_not_take_the_others_with_it(parts: Core) -> None:
    """A cancelled call does not cancel the read it shares."""
    await parts.register(autopilot("a", CAP))
    parts.table.gate = asyncio.Event()
    leaving = asyncio.create_task(names(parts))
    staying = asyncio.create_task(names(parts))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    parts.table.gate.set()
    assert await staying == ["a"]
    assert leaving.cancelled()
    assert reads(parts) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_write_during_a_read_is_not_lost(parts: Core, after: bool) -> None:
    """Whether the read looked before or after the write, the next plan sees the write."""
    await parts.register(autopilot("a", CAP))
    parts.table.gate, parts.table.gate_after = asyncio.Event(), after
    reading = asyncio.create_task(names(parts))
    await until(lambda: reads(parts))
    for _ in range(3):
        await parts.table.inner.get(("any", "key"))  # the look, if it comes first, has been taken by now
    await parts.register(autopilot("b", CAP))
    gate, parts.table.gate = parts.table.gate, None
    assert await names(parts) == ["a", "b"]
    gate.set()
    assert await reading == (["a"] if after else ["a", "b"])
    assert await names(parts) == ["a", "b"]


async def test_names_that_are_made_up_do_not_fill_the_memory(parts: Core) -> None:
    """Callers choose the capabilities they ask for: what nobody offers is not remembered."""
    await parts.register(autopilot("a", CAP))
    await names(parts)

    def size() -> int:
        own = vars(parts.routes).values()
        return sum(len(one) for one in own if isinstance(one, dict))

    before = size()
    for number in range(200):
        assert await names(parts, f"made.up{number}") == []
        assert await parts.routes.task(f"made_up{number}") is None
        assert await parts.routes.family(f"made{number}") == []
    assert size() == before


async def test_refreshing_keeps_used_routes_young(parts: Core) -> None:
    """A route in use is read in the background, so that no plan waits for the store."""
    await parts.register(autopilot("a", CAP))
    await names(parts)
    for _ in range(5):
        parts.clock.forward(1)
        await parts.routes.refresh()
        await names(parts)
    assert reads(parts) == 6
    parts.table.down = True
    parts.clock.forward(1.5)
    await parts.routes.refresh()
    assert await names(parts) == ["a"]
    parts.clock.forward(0.5)
    with pytest.raises(StoreUnavailable):
        await names(parts)


async def test_routes_that_nobody_uses_are_let_go(parts: Core) -> None:
    """After a minute without a plan a route is neither refreshed nor kept."""
    await parts.register(autopilot("a", CAP))
    await names(parts)
    assert [one.name for one in parts.routes.used()] == ["a"]
    parts.clock.forward(61)
    await parts.routes.refresh()
    await parts.routes.refresh()
    assert reads(parts) == 1
    assert parts.routes.used() == []


async def test_used_names_each_autopilot_once(parts: Core) -> None:
    """However many of its capabilities are in use."""
    await parts.register(autopilot("a", CAP, "web.asset.generate"), autopilot("b", CAP))
    await names(parts)
    await names(parts, "web.asset.generate")
    assert sorted(one.name for one in parts.routes.used()) == ["a", "b"]


async def test_leases_are_read_with_the_route(parts: Core) -> None:
    """A process that never saw the registration knows from the table until when it takes part."""
    await parts.register(autopilot("a", CAP, lease_seconds=60), autopilot("b", CAP))
    parts.routes._leases.clear()
    assert not parts.routes.lease_alive("a")
    await names(parts)
    parts.clock.forward(59)
    assert parts.routes.lease_alive("a")
    parts.clock.forward(1)
    assert not parts.routes.lease_alive("a")
    await parts.table.inner.delete(("lease", "a"))
    await names(parts)
    assert not parts.routes.lease_alive("a")


async def test_families_and_tasks_are_found_by_their_rows(parts: Core) -> None:
    """Sorted by name; a task's rows are not taken for those of another that starts alike."""
    await parts.register(
        autopilot("b", "web.*"),
        autopilot("a", Capability("web.x", configure=True), tasks={"make": "web.x", "make-more": "web.x"}),
        autopilot("c", "crm.*"),
    )
    assert await parts.routes.family("web") == ["a", "b"]
    assert await parts.routes.family("lms") == []
    assert await parts.routes.task("make") == "web.x"
    assert await parts.routes.task("mak") is None
    assert await parts.routes.tasks() == {"make": ("web.x", "a"), "make-more": ("web.x", "a")}


async def test_more_tasks_than_a_page_are_all_listed(parts: Core) -> None:
    """A read goes on until the end."""
    for number in range(503):
        await parts.table.inner.put(("task", f"t{number}/a"), {"capability": "a.b"})
    assert len(await parts.routes.tasks()) == 503
