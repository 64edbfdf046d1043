"""Runs whose process dies, or whose store does not answer, at any write: each comes to the same end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from router.errors import AutopilotError
from router.graph import Graph
from router.run import Command, Run, State
from tests.fakes import CountingIds, FakeClock
from tests.faults.dying import HOWS, Dying, How
from tests.router.memory import MemoryTable
from tests.router.running import Crash, Doer, Running, act, graph, step


def sample() -> Graph:
    """A diamond with a step that fails at first, one that a person approves, and one that cools down."""
    return graph(
        "a",
        step("b", "a", undo=act("not b")),
        step("c", "a", cool_down_seconds=3, undo=act("not c")),
        step("d", "b", "c", approval="look at ${steps.b.result.did}", undo=act("not d")),
        step("e", "d", optional=True, attempts=2),
        "f: e",
    )


SCRIPTS = {"c": ["no", "ok"], "e": ["no"], "check d": ["no", "ok"]}
EFFECTS = {"a": 1, "b": 1, "c": 1, "d": 2, "f": 1}
"""What the run brings about: d is done once more after its first verification said no."""
ENDS = {
    "a": "completed",
    "b": "completed",
    "c": "completed",
    "d": "completed",
    "e": "failed",
    "f": "completed",
}


class Life:
    """A process after the other on one store, until the run has come to its end."""

    def __init__(self, at: int, how: How) -> None:
        self.clock = FakeClock()
        self.inner = MemoryTable(self.clock)
        self.doer = Doer(self.clock)
        self.doer.scripts = {name: list(words) for name, words in SCRIPTS.items()}
        self.ids = CountingIds()
        self.dying = Dying(self.inner, at, how)
        self.process = Running(self.dying, self.clock, self.doer, ids=self.ids)
        self.deaths = 0

    def start_again(self) -> None:
        """Start the next process."""
        self.deaths += 1
        self.process = Running(self.inner, self.clock, self.doer, ids=self.ids)

    async def run(self) -> Run:
        """Return the run, which is started, as somebody does who wants it to be there."""
        while True:
            try:
                run = await self.process.runs.live("sample")
                return run or await self.process.start(sample(), single=True)
            except Crash:
                self.start_again()
            except AutopilotError:
                continue

    async def until(self, run: Run, over: frozenset[State], waiting: str = "") -> Run:
        """Work until the run is over, or a step waits for its approval."""
        for _ in range(2_000):
            try:
                worked = await self.process.worker.work_once()
                run = await self.process.runs.get(run.id)
                if run.state in over:
                    return run
                if waiting and (await self.process.steps(run))[waiting]["waits_for"] == "approval":
                    return run
            except Crash:
                self.start_again()
                worked = 0
            except AutopilotError:
                worked = 0
            if not worked:
                self.clock.forward(2.0)
        raise AssertionError(f"it never ended: {run.state} {run.marks}")

    async def command(
        self, run: Run, command: Command, step: str, done: Callable[[], Awaitable[bool]]
    ) -> None:
        """Command a run, as somebody does who looks whether it was taken."""
        while True:
            try:
                if await done():
                    return
                await self.process.command(run, command, step)
            except Crash:
                self.start_again()
            except AutopilotError:
                continue


async def live(at: int = 0, how: How = "before") -> Life:
    """Bring the sample to its end, then roll it back, with one thing going wrong."""
    life = Life(at, how)
    run = await life.run()
    await life.until(run, frozenset({State.COMPLETED, State.FAILED}), waiting="d")

    async def approved() -> bool:
        return bool((await life.process.steps(run))["d"]["approved_by"])

    await life.command(run, Command.APPROVE_STEP, "d", approved)
    run = await life.until(run, frozenset({State.COMPLETED, State.FAILED}))
    assert run.state is State.COMPLETED, (at, how, run.marks)
    assert await life.process.states(run) == ENDS
    check_once(life, run)

    async def rolling() -> bool:
        return (await life.process.runs.get(run.id)).state is not State.COMPLETED

    await life.command(run, Command.ROLLBACK, "", rolling)
    run = await life.until(run, frozenset({State.ROLLED_BACK, State.NEEDS_HUMAN}))
    assert run.state is State.ROLLED_BACK, (at, how, run.marks)
    await check_told(life, run)
    return life


def check_once(life: Life, run: Run) -> None:
    """Each step's effect is there once per key, and no step began before what it needs."""
    done = life.doer
    assert done.effects() == Counter(EFFECTS), done.sent
    last = {name: place for place, name in enumerate(done.order)}
    first = {name: done.order.index(name) for name in done.order}
    for one in sample().steps:
        for need in one.needs:
            if one.id in first and need in last:
                assert last[need] < first[one.id], (one.id, need, done.order)
    for name in EFFECTS:
        keys = {key for _, effect, key in done.sent if effect == name and _ == "test.act"}
        assert keys == {f"{run.id}.{name}.{number}" for number in range(1, len(keys) + 1)}


async def check_told(life: Life, run: Run) -> None:
    """What is told agrees with what was done: nothing is missing, nothing told twice."""
    told = Counter(await life.process.told(run))
    for name, state in ENDS.items():
        assert told[f"{name} step.completed"] == (state == "completed"), (name, told)
    assert told["completed"] == told["rolling_back"] + told["rolled_back"] == 1
    undone = [name for name in life.doer.order if name.startswith("not ")]
    assert undone == ["not d", "not c", "not b"] or undone == ["not d", "not b", "not c"]
    events = await life.inner.range("event", limit=10_000)
    log = await life.inner.range(f"run:log:{run.id}", limit=10_000)
    logged = sorted(item.key[1].split("-", 2)[2] for item in log.items)
    assert [item.key[1] for item in events.items] == logged


async def test_a_run_and_its_rollback_end_the_same_whatever_write_the_process_dies_at() -> None:
    """At every numbered write: dying before it, dying after it, and its answer getting lost."""
    total = (await live()).dying.writes
    assert total >= 60
    for at in range(1, total + 1):
        for how in HOWS:
            life = await live(at, how)
            assert life.dying.writes >= at
            assert life.deaths == (how != "lost")
