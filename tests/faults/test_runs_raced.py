"""Two workers whose clocks disagree, and who are both sure that a step is theirs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from router.run import Run, State
from tests.fakes import CountingIds, FakeClock
from tests.router.memory import MemoryTable
from tests.router.parts import until
from tests.router.running import Doer, Running, Skewed, graph, step

ROUNDS = 1_000
SKEW = 30.0


class Race:
    """One run, and two workers. `apart` is what their queue believes about their clocks."""

    def __init__(self, seed: int, apart: float) -> None:
        self.dice = random.Random(seed)
        self.clock = FakeClock()
        table = MemoryTable(self.clock)
        self.doer = Doer(self.clock)
        self.doer.meanwhile = self.meanwhile
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        ids = CountingIds()
        self.workers = [
            Running(
                table,
                Skewed(self.clock, self.dice.uniform(-SKEW, SKEW)),
                self.doer,
                ids=ids,
                apart=apart,
            )
            for _ in range(2)
        ]

    async def meanwhile(self, name: str) -> None:
        """Take a while, in which time passes, and the other worker does something."""
        self.under_way[name] += 1
        self.most[name] = max(self.most[name], self.under_way[name])
        for _ in range(self.dice.randrange(6)):
            await asyncio.sleep(0)
            self.clock.forward(self.dice.choice([0.0, 0.1, 2.0]))
        if self.slow and self.dice.random() < 0.5:
            self.clock.forward(40.0)  # longer than any hold: nobody extends it here
            for _ in range(40):
                await asyncio.sleep(0)
        self.under_way[name] -= 1

    slow = False

    async def drive(self) -> Run:
        """Let both work until the run is over."""
        made = graph("a", "b: a", "c: a", step("d", "b", "c"))
        run = await self.workers[0].start(made)
        for _ in range(500):
            worked = await asyncio.gather(*(one.worker.work_once() for one in self.workers))
            run = await self.workers[0].runs.get(run.id)
            if run.state is not State.RUNNING:
                return run
            if not any(worked):
                self.clock.forward(5.0)
        raise AssertionError(run.marks)


@pytest.mark.parametrize("slow", [False, True])
async def test_d8_two_workers_with_skewed_clocks_never_do_a_step_twice(slow: bool) -> None:
    """A thousand rounds: nothing is done by two at once where holds are kept; what is late is not written.

    When a worker loses its hold without knowing, the other one takes over under the same key, which does
    nothing twice; only one of the two ends is written.
    """
    for seed in range(ROUNDS // 2):
        race = Race(seed, apart=2 * SKEW)
        race.slow = slow
        run = await race.drive()
        assert (run.state, run.marks) == (State.COMPLETED, "DDDD"), seed
        assert race.doer.effects() == Counter("abcd"), seed
        if not slow:
            assert max(race.most.values()) == 1, seed
        told = Counter(await race.workers[0].told(run))
        assert all(told[f"{name} step.completed"] == 1 for name in "abcd"), seed


async def test_d8_even_a_queue_that_knows_nothing_of_skew_gives_no_step_two_ends() -> None:
    """Where one clock is a minute ahead of what the queue allows for, the same step is worked on by two."""
    doubled = 0
    for seed in range(ROUNDS // 4):
        race = Race(seed, apart=0.0)
        race.slow = True
        run = await race.drive()
        assert (run.state, run.marks) == (State.COMPLETED, "DDDD"), seed
        assert race.doer.effects() == Counter("abcd"), seed
        told = Counter(await race.workers[0].told(run))
        assert all(told[f"{name} step.completed"] == 1 for name in "abcd"), seed
        doubled += max(race.most.values()) > 1
    assert doubled > ROUNDS // 40  # or it would have shown nothing


async def test_whoever_is_late_writes_nothing() -> None:
    """A step that somebody else took over and ended is not ended again by the first one."""
    race = Race(1, apart=0.0)
    first, second = race.workers
    gate = asyncio.Event()
    calls = 0

    async def meanwhile(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await gate.wait()

    race.doer.meanwhile = meanwhile
    run = await first.start(graph("a"))
    late = asyncio.ensure_future(first.worker.work_once())
    await until(lambda: calls)
    race.clock.forward(120.0)
    assert await second.worker.work_once() == 1
    ended = await second.runs.get(run.id)
    assert ended.state is State.COMPLETED
    gate.set()
    await late
    assert await second.runs.get(run.id) == ended
    assert race.doer.effects() == Counter("a")
