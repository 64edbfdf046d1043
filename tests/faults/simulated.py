"""A run as it would go in a bad year: a random graph, workers that die, a store and autopilots that fail.

All chance comes from one seed, and time is simulated: the same seed makes the same history.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from infra.table import Document, Item, Key, Page, Write
from router.delivery import Outcome
from router.errors import AutopilotError, Deadline, ForwardFailed, StoreUnavailable
from router.graph import PRIORITIES, Graph, Step
from router.model import PlanRequest
from router.order import is_settled
from router.planner import Caller
from router.record import STATES
from router.run import Command, Run, State
from tests.fakes import CountingIds, FakeClock
from tests.router.memory import MemoryTable
from tests.router.running import Crash, Doer, Running, act, graph, step

T = TypeVar("T")

MOST_ROUNDS = 4_000
DEATH = 0.003
"""How often a call of the store is the last one of its process."""
END = frozenset({State.COMPLETED, State.FAILED, State.STOPPED, State.ROLLED_BACK, State.NEEDS_HUMAN})


class Faulty:
    """A table that fails: before it did anything, after it did all of it, or with the whole process."""

    kind = "sqlite"

    def __init__(self, inner: MemoryTable, dice: random.Random, rate: float) -> None:
        self.inner = inner
        self.dice = dice
        self.rate = rate
        self.dead = False

    async def get(self, key: Key) -> Item | None:
        return await self._do(lambda: self.inner.get(key))

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        return await self._do(
            lambda: self.inner.put(key, document, if_revision=if_revision, expires_at=expires_at)
        )

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        return await self._do(lambda: self.inner.delete(key, if_revision=if_revision))

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        return await self._do(lambda: self.inner.range(partition, after=after, limit=limit, reverse=reverse))

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        return await self._do(lambda: self.inner.transact(writes))

    async def close(self) -> None:
        """Leave it to the next process."""

    async def _do(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.dead:
            raise Crash
        fault = self.dice.random() < self.rate
        late = self.dice.random() < 0.5
        dies = self.dice.random() < DEATH
        if (fault or dies) and not late:
            self._fail(dies=dies)
        result = await call()
        if fault or dies:
            self._fail(dies=dies)
        return result

    def _fail(self, *, dies: bool) -> None:
        if dies:
            self.dead = True
            raise Crash
        raise StoreUnavailable("the store does not answer")


class Unsteady(Doer):
    """An autopilot that is not always there, and does not always live to answer."""

    def __init__(self, clock: FakeClock, dice: random.Random, rate: float) -> None:
        super().__init__(clock)
        self.dice = dice
        self.rate = rate

    async def plan(self, request: PlanRequest, caller: Caller) -> Outcome:
        fault = self.dice.random() < self.rate
        late = self.dice.random() < 0.5
        if fault and not late:
            raise ForwardFailed("nobody is there", autopilot="doer")
        outcome = await super().plan(request, caller)
        if fault:
            error = Deadline("it did not answer in time", autopilot="doer")
            error.done = True
            raise error
        return outcome


def random_graph(dice: random.Random) -> Graph:
    """Give a graph of one to eight steps with all that a step can have."""
    ids = [f"s{number}" for number in range(dice.randint(1, 8))]
    steps = []
    for number, id_ in enumerate(ids):
        needs = [need for need in ids[:number] if dice.random() < 0.4]
        steps.append(
            step(
                id_,
                *needs,
                priority=dice.choice(PRIORITIES),
                attempts=dice.randint(1, 4),
                cool_down_seconds=dice.choice([0, 0, 1, 30]),
                optional=dice.random() < 0.2,
                approval="may it?" if dice.random() < 0.2 else "",
                undo=act(f"not {id_}") if dice.random() < 0.7 else None,
            )
        )
    dice.shuffle(steps)
    return graph(*steps)


def random_words(dice: random.Random) -> list[str]:
    """Give what happens to the calls for an effect, the last of which goes well, or never does."""
    words = dice.choices(["no", "bad", "down", "lost", "busy", "asks", "crash"], k=dice.choice([0, 0, 1, 2]))
    return [*words, dice.choice(["ok"] * 9 + ["no"])]


class History:
    """One run from its start to an end where nothing moves any more."""

    def __init__(self, seed: int, rate: float) -> None:
        self.dice = random.Random(seed)
        self.rate = rate
        self.clock = FakeClock()
        self.inner = MemoryTable(self.clock)
        self.doer = Unsteady(self.clock, self.dice, rate)
        self.ids = CountingIds()
        self.graph = random_graph(self.dice)
        for one in self.graph.steps:
            self.doer.scripts[one.id] = random_words(self.dice)
            self.doer.scripts[f"check {one.id}"] = [*self.dice.choices(["ok", "no"], [4, 1]), "ok"]
        self.stops = self.dice.random() < 0.15
        self.workers: list[Running] = []
        self.commands = 0

    def process(self) -> Running:
        """Start a process."""
        table = Faulty(self.inner, self.dice, self.rate)
        return Running(table, self.clock, self.doer, ids=self.ids, seed=self.dice.randrange(1 << 30))

    def steady(self) -> Running:
        """Start a process whose store does not fail, to look at things."""
        return Running(self.inner, self.clock, self.doer, ids=self.ids)

    async def live(self) -> Run:
        """Bring a run to its end, and roll it back half of the times."""
        self.workers = [self.process(), self.process()]
        run = await self.begun()
        for turn in range(MOST_ROUNDS):
            run = await self.steady().runs.get(run.id)
            if run.state in END:
                if self.commands or run.state in {State.ROLLED_BACK, State.NEEDS_HUMAN}:
                    return run
                self.commands += 1
                if self.dice.random() < 0.5:
                    return run
                await self.ask(run, Command.ROLLBACK)
                continue
            await self.meddle(run, late=turn > 300)
            if not await self.work():
                self.wait()
                await self.mend()
        raise AssertionError(f"it never ended: {run.state} {run.marks}")

    async def begun(self) -> Run:
        """Return the run, started by somebody who looks whether it is."""
        while True:
            found = await self.steady().runs.live("sample")
            if found is not None:
                return found
            try:
                width = self.dice.randint(1, 4)
                await self.workers[0].start(self.graph, single=True, max_parallel=width, max_retries=20)
            except Crash:
                self.workers[0] = self.process()
            except AutopilotError:
                continue

    async def work(self) -> int:
        """Let each process work on what is due."""
        worked = 0
        for at, worker in enumerate(self.workers):
            try:
                worked += await worker.worker.work_once()
            except Crash:
                self.workers[at] = self.process()
            except AutopilotError:
                continue
        return worked

    async def mend(self) -> None:
        """Do what the server does from time to time."""
        if self.dice.random() < 0.05:
            try:
                await self.workers[0].parts.mend()
            except Crash:
                self.workers[0] = self.process()
            except AutopilotError:
                return

    def wait(self) -> None:
        """Let time pass until something is due."""
        due = [int(sort.partition("-")[0]) / 1000 for sort in self.inner.sorts.get("queue:work", [])[:1]]
        self.clock.now = max(self.clock.now + 0.5, min([*due, self.clock.now + 60.0]))

    async def meddle(self, run: Run, *, late: bool) -> None:
        """Be the people around it: they approve, refuse, pause, resume and stop."""
        if run.state is State.PAUSED and (late or self.dice.random() < 0.2):
            await self.ask(run, Command.RESUME)
        elif run.state is State.RUNNING and not late and self.dice.random() < 0.02:
            await self.ask(run, Command.STOP if self.stops else Command.PAUSE)
        for at, mark in enumerate(run.marks):
            if mark == "a" and (late or self.dice.random() < 0.2):
                good = self.dice.random() < 0.8
                command = Command.APPROVE_STEP if good else Command.REFUSE_STEP
                await self.ask(run, command, self.graph.steps[at].id)
        for id_, approval in sorted(self.doer.person.approvals.items()):
            waits = (await self.doer.person.get(id_)).state.value == "awaiting_approval"
            if waits and approval.answered is None and (late or self.dice.random() < 0.1):
                self.doer.person.approve(id_, 200 if self.dice.random() < 0.9 else 422)

    async def ask(self, run: Run, command: Command, step: str = "") -> None:
        """Command a run, and do not mind when that is refused or lost."""
        at = self.dice.randrange(2)
        try:
            await self.workers[at].command(run, command, step)
        except Crash:
            self.workers[at] = self.process()
        except AutopilotError:
            return

    async def check(self, run: Run) -> None:
        """What is so at the end of every history."""
        process = self.steady()
        steps = await process.steps(run)
        shown = {id_: one["status"] for id_, one in steps.items()}
        marks = {one.id: STATES[mark].value for one, mark in zip(self.graph.steps, run.marks, strict=True)}
        assert shown == marks
        assert not set(run.marks) & set("r"), run.marks
        if run.state is State.COMPLETED:
            assert all(is_settled(self.by_id(id_), state) for id_, state in shown.items())
        if run.state is State.FAILED:
            assert "B" in run.marks
        self.check_effects(run, steps)

    def by_id(self, id_: str) -> Step:
        """Return a step."""
        return self.graph.step(id_)

    def check_effects(self, run: Run, steps: dict[str, dict[str, object]]) -> None:
        """Each effect is had once per key, and again only when a verification had said no."""
        effects = self.doer.effects()
        for one in self.graph.steps:
            prefix = f"{run.id}.{one.id}."
            checks = {
                key
                for capability, _, key in self.doer.sent
                if capability == "test.check" and key.startswith(prefix)
            }
            said_no = [key for key in checks if self.doer.refusals[key]]
            assert effects[one.id] <= 1 + len(said_no), (one.id, self.doer.sent)
            assert effects[f"not {one.id}"] <= 1, one.id
            if run.state is not State.STOPPED and steps[one.id]["status"] == "completed":
                assert effects[one.id] >= 1
        undone = [name[4:] for name in self.doer.order if name.startswith("not ")]
        needs = {one.id: one.needs for one in self.graph.steps}
        for place, id_ in enumerate(undone):
            assert not set(undone[:place]) & set(needs[id_]), undone
        assert Counter(undone) == Counter(set(undone))

    async def digest(self, run: Run) -> str:
        """Return the hash of all that was told, and of all that was sent."""
        log = await self.inner.range(f"run:log:{run.id}", limit=10_000)
        told = [[item.key[1], item.document] for item in log.items]
        return hashlib.sha256(msgspec.json.encode([told, self.doer.sent, run.marks])).hexdigest()


async def simulate(seed: int, rate: float = 0.1) -> tuple[str, State]:
    """Live one history, check it, and return its hash and how it ended."""
    logging.getLogger("router").setLevel(logging.CRITICAL)
    history = History(seed, rate)
    try:
        run = await history.live()
        await history.check(run)
    except BaseException as error:
        error.add_note(f"seed {seed}, rate {rate}")
        raise
    return await history.digest(run), run.state
