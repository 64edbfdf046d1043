"""What an autopilot needs exists before a task is sent to it."""

from __future__ import annotations

import asyncio

import pytest

from infra.provider import Resource, Unread
from router.errors import Forbidden, NotReady, StoreUnavailable
from router.model import Needs, Worker
from router.routes import Candidate
from tests.router.parts import Core, autopilot, until

CAP = "web.pages.generate"
NEEDS = Needs(kv_namespaces=("CACHE",), r2_buckets=("assets",), workers=(Worker("w", "export default 1"),))


async def needy(parts: Core, needs: Needs = NEEDS, name: str = "a") -> Candidate:
    """Register an autopilot with needs and return it as a candidate."""
    await parts.register(autopilot(name, CAP, needs=needs))
    return next(one for one in await parts.routes.candidates(CAP) if one.name == name)


async def test_who_needs_nothing_is_ready(parts: Core) -> None:
    """Without asking anybody."""
    assert parts.readiness.known(await needy(parts, Needs()))
    assert parts.provider.inventories == 0


async def test_what_is_missing_is_created_once(parts: Core) -> None:
    """All of it, and what exists is kept."""
    candidate = await needy(parts)
    assert not parts.readiness.known(candidate)
    await parts.readiness.make(candidate)
    assert [(want.kind, want.name) for want in parts.provider.created] == [
        ("kv", "CACHE"),
        ("r2", "assets"),
        ("workers", "w"),
    ]
    assert parts.readiness.known(candidate)
    parts.clock.forward(60)
    await parts.readiness.make(candidate)
    assert len(parts.provider.created) == 3


async def test_it_is_looked_up_once_per_minute_and_revision(parts: Core) -> None:
    """A plan in between costs nothing; a change of the registration asks again."""
    await needy(parts)
    for _ in range(10):
        await parts.deliver(CAP)
    assert parts.provider.inventories == 1
    parts.clock.forward(59)
    await parts.deliver(CAP)
    assert parts.provider.inventories == 1
    parts.clock.forward(1)
    await parts.deliver(CAP)
    assert parts.provider.inventories == 2
    await needy(parts, Needs(queues=("jobs",)))
    await parts.deliver(CAP)
    assert parts.provider.inventories == 3
    assert parts.provider.created[-1].name == "jobs"


async def test_a_registration_that_comes_back_under_a_name_is_looked_up_anew(parts: Core) -> None:
    """Its revision is 1 again, but its needs are others."""
    await needy(parts)
    await parts.deliver(CAP)
    await parts.registry.delete("a")
    candidate = await needy(parts, Needs(queues=("jobs",)))
    assert candidate.revision == 1
    assert not parts.readiness.known(candidate)
    await parts.deliver(CAP)
    assert parts.provider.created[-1].name == "jobs"


async def test_tasks_at_the_same_time_ask_once(parts: Core) -> None:
    """Fifty plans for an autopilot that is not ready do not create fifty of each."""
    await needy(parts)
    parts.provider.gate = asyncio.Event()
    calls = [asyncio.create_task(parts.deliver(CAP)) for _ in range(50)]
    await until(lambda: parts.provider.inventories)
    parts.provider.gate.set()
    assert [outcome.ok for outcome in await asyncio.gather(*calls)] == [True] * 50
    assert parts.provider.inventories == 1
    assert len(parts.provider.created) == 3


async def test_a_refused_creation_means_that_nothing_is_sent(parts: Core) -> None:
    """The details say what, and the next plan tries again."""
    await needy(parts)
    parts.provider.refuses["assets"] = Forbidden("R2 is not enabled")
    with pytest.raises(NotReady) as refused:
        await parts.deliver(CAP)
    assert refused.value.extra["autopilot"] == "a"
    assert refused.value.extra["details"] == [
        {
            "kind": "r2",
            "name": "assets",
            "code": "forbidden",
            "message": "R2 is not enabled",
            "hint": "Not allowed",
        }
    ]
    assert parts.forward.sent == []
    assert await parts.logged() == []
    parts.provider.refuses.clear()
    assert (await parts.deliver(CAP)).ok


async def test_a_kind_that_cannot_be_listed_creates_nothing(parts: Core) -> None:
    """Without knowing what exists of it nothing of it is made, and nothing is sent."""
    await needy(parts, Needs(r2_buckets=("assets",)))
    parts.provider.unread["r2"] = Unread("10000", "Authentication error", "Give the token more.")
    with pytest.raises(NotReady) as refused:
        await parts.deliver(CAP)
    assert refused.value.extra["details"][0]["code"] == "10000"
    assert refused.value.extra["details"][0]["hint"] == "Give the token more."
    assert parts.provider.created == []
    assert parts.forward.sent == []
    parts.provider.unread.clear()
    assert (await parts.deliver(CAP)).ok


async def test_a_store_that_is_down_creates_nothing(parts: Core) -> None:
    """What cannot be recorded is not begun."""
    candidate = await needy(parts)
    parts.table.down = True
    with pytest.raises(StoreUnavailable):
        await parts.readiness.make(candidate)
    parts.table.down = False
    parts.provider.gate = asyncio.Event()
    making = asyncio.create_task(parts.readiness.make(candidate))
    await until(lambda: parts.provider.inventories)
    parts.table.down = True
    parts.provider.gate.set()
    with pytest.raises(NotReady) as refused:
        await making
    assert refused.value.extra["details"][0]["code"] == "store_unavailable"
    assert parts.provider.created == []


async def test_what_was_just_seen_does_for_others_as_well(parts: Core) -> None:
    """A hundred autopilots with needs cost one look a minute, as long as nothing is missing."""
    parts.provider.there = [Resource("kv", f"KV{number:03d}", "id") for number in range(10)]
    candidates = [
        await needy(parts, Needs(kv_namespaces=(f"KV{number:03d}",)), f"a{number}") for number in range(10)
    ]
    await parts.healer.heal()
    parts.provider.inventories = 0
    for candidate in candidates:
        await parts.readiness.make(candidate)
    assert parts.provider.inventories == 1
    assert all(parts.readiness.known(candidate) for candidate in candidates)
    parts.clock.forward(59.9)
    assert all(parts.readiness.known(candidate) for candidate in candidates)
    parts.clock.forward(0.1)
    assert not any(parts.readiness.known(candidate) for candidate in candidates)


async def test_only_what_the_task_needs_is_made(parts: Core) -> None:
    """What other autopilots lack waits for their tasks, or for the next pass."""
    await needy(parts, Needs(queues=("other-jobs",)), "b")
    await parts.readiness.make(await needy(parts, Needs(queues=("jobs",))))
    assert [want.name for want in parts.provider.created] == ["jobs"]


async def test_a_worker_that_others_want_otherwise_does_not_stop_who_has_it(parts: Core) -> None:
    """Whose Worker is there goes on; the other one gets neither it nor a task."""
    one = await needy(parts, Needs(workers=(Worker("w", "one"),)), "a")
    await parts.readiness.make(one)
    other = await needy(parts, Needs(workers=(Worker("w", "two"),)), "b")
    with pytest.raises(NotReady) as refused:
        await parts.readiness.make(other)
    assert refused.value.extra["details"][0]["code"] == "conflict"
    parts.clock.forward(60)
    await parts.readiness.make(one)
    assert len(parts.provider.created) == 1


async def test_a_caller_that_leaves_does_not_stop_the_making(parts: Core) -> None:
    """Who shares it with another one may go."""
    candidate = await needy(parts)
    parts.provider.gate = asyncio.Event()
    leaving, staying = (asyncio.create_task(parts.readiness.make(candidate)) for _ in range(2))
    await until(lambda: parts.provider.inventories)
    leaving.cancel()
    await asyncio.sleep(0)
    parts.provider.gate.set()
    await staying
    assert leaving.cancelled()
    assert parts.readiness.known(candidate)
