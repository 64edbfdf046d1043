"""Probes in the background: who is asked, how many at once, and what comes of it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from router import probe as probe_module
from router.health import State
from router.probe import AT_ONCE, OTHERS_PER_ROUND, Prober
from router.routes import Candidate
from tests.router.parts import Core, FakeForward, autopilot, record_of, until

CAP = "web.pages.generate"


async def test_a_probe_feeds_the_health(parts: Core, caplog: pytest.LogCaptureFixture) -> None:
    """What an autopilot says of itself is its state; a change is logged, no change is not."""
    await parts.register(autopilot("a", CAP))
    record = await record_of(parts, "a")
    with caplog.at_level(logging.INFO, "router.probe"):
        for state in (State.HEALTHY, State.DEGRADED, State.DEGRADED, State.DOWN, State.UNKNOWN):
            parts.forward.states["a"] = state
            await parts.prober.probe(record)
    assert [one.getMessage() for one in caplog.records] == [
        "autopilot a is healthy, was unknown",
        "autopilot a is degraded, was healthy",
        "autopilot a is down, was degraded",
        "autopilot a is healthy, was down",
    ]


async def test_a_good_probe_brings_an_autopilot_back(parts: Core) -> None:
    """Its circuit is open: the probe lets one task through, whose success closes it."""
    await parts.register(autopilot("a", CAP, priority=1), autopilot("b", CAP, priority=2))
    for _ in range(5):
        parts.health.of("a").failed(parts.clock())
    assert (await parts.plan(CAP)).autopilot == "b"
    await parts.prober.round()
    assert (await parts.plan(CAP)).autopilot == "a"
    assert parts.health.of("a").state() is State.HEALTHY


async def test_a_round_asks_those_in_use_and_the_next_of_the_others(parts: Core) -> None:
    """Those that get tasks every time, all others in turn."""
    await parts.register(autopilot("used", CAP))
    names = [f"n{number:03d}" for number in range(OTHERS_PER_ROUND + 20)]
    await parts.register(*(autopilot(name, "crm.lead.create") for name in names))
    await parts.routes.candidates(CAP)
    rounds = []
    for _ in range(3):
        parts.forward.probed.clear()
        await parts.prober.round()
        rounds.append(sorted(parts.forward.probed))
    assert rounds[0] == [*names[:OTHERS_PER_ROUND], "used"]
    assert rounds[1] == [*names[OTHERS_PER_ROUND:], "used"]
    assert rounds[2] == rounds[0]


async def test_each_is_asked_once_in_a_round(parts: Core) -> None:
    """However many capabilities it has in use."""
    await parts.register(autopilot("a", CAP, "web.other.x"), autopilot("b", CAP))
    await parts.routes.candidates(CAP)
    await parts.routes.candidates("web.other.x")
    await parts.prober.round()
    assert sorted(parts.forward.probed) == ["a", "b"]


async def test_a_store_that_fails_stops_only_the_others(
    parts: Core, caplog: pytest.LogCaptureFixture
) -> None:
    """Those in use are known without it."""
    await parts.register(autopilot("a", CAP), autopilot("b", "crm.lead.create"))
    await parts.routes.candidates(CAP)
    parts.table.down = True
    await parts.prober.round()
    assert parts.forward.probed == ["a"]
    assert "cannot read whom to probe" in caplog.text


class Slow(FakeForward):
    """Autopilots that answer a probe when they are let, and the most that were asked at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0

    async def probe(self, candidate: Candidate, deadline: float) -> State:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return await super().probe(candidate, deadline)


async def test_only_so_many_are_asked_at_once(parts: Core) -> None:
    """A large registry makes a round long, not wide."""
    slow = Slow()
    prober = Prober(parts.registry, parts.routes, slow, parts.health)
    await parts.register(*(autopilot(f"n{number}", CAP) for number in range(20)))
    running = asyncio.create_task(prober.round())
    await until(lambda: slow.running == AT_ONCE)
    slow.gate.set()
    await running
    assert slow.most == AT_ONCE
    assert len(slow.probed) == 20


async def test_a_new_registration_is_asked_in_the_background(parts: Core) -> None:
    """The caller does not wait for it, and a flood of registrations does not become one of probes."""
    slow = Slow()
    prober = Prober(parts.registry, parts.routes, slow, parts.health)
    await parts.register(autopilot("a", CAP))
    record = await record_of(parts, "a")
    for _ in range(AT_ONCE + 5):
        prober.soon(record)
    await until(lambda: slow.running)
    assert parts.health.of("a").state() is State.UNKNOWN
    slow.gate.set()
    await until(lambda: not prober._soon)
    assert len(slow.probed) == AT_ONCE
    assert parts.health.of("a").state() is State.HEALTHY


async def test_a_probe_has_little_time(parts: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline is three seconds from now in the loop's time."""
    deadlines = []

    async def noted(candidate: Candidate, deadline: float) -> State:
        deadlines.append(deadline - asyncio.get_running_loop().time())
        return State.HEALTHY

    monkeypatch.setattr(parts.forward, "probe", noted)
    await parts.register(autopilot("a", CAP))
    await parts.prober.probe(await record_of(parts, "a"))
    assert 2.9 < deadlines[0] <= probe_module.TIMEOUT_SECONDS
