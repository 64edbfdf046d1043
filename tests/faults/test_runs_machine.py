"""Random programs of all that can happen to a run, against what must be so after each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.errors import AutopilotError, Conflict
from router.graph import PRIORITIES, Graph
from router.record import STATES, Mark, Record
from router.run import FROM, NEXT, OF_STEPS, Command, Run, State
from tests.fakes import CountingIds, FakeClock
from tests.faults.dying import HOWS, Dying
from tests.router.memory import MemoryTable
from tests.router.running import Crash, Doer, Running, Skewed, act, graph, step

WORDS = ["ok", "no", "bad", "down", "lost", "busy", "crash"]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Give a graph of up to six steps with all that steps can have."""
    ids = "abcdef"[: draw(st.integers(1, 6))]
    steps = []
    for number, id_ in enumerate(ids):
        needs = [need for need in ids[:number] if draw(st.booleans())]
        steps.append(
            step(
                id_,
                *needs,
                priority=draw(st.sampled_from(PRIORITIES)),
                attempts=draw(st.integers(1, 3)),
                cool_down_seconds=draw(st.sampled_from([0, 0, 20])),
                optional=draw(st.booleans()),
                approval=draw(st.sampled_from(["", "", "may it?"])),
                undo=draw(st.sampled_from([None, act(f"not {id_}")])),
            )
        )
    return graph(*steps)


class RunMachine(RuleBasedStateMachine):
    """A run, a process that works on it, people who command it, and what goes wrong meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)  # tasks of processes that died
        self.clock = FakeClock()
        self.table = MemoryTable(self.clock)
        self.doer = Doer(self.clock)
        self.doer.meanwhile = self.acting
        self.ids = CountingIds()
        self.ever: set[str] = set()
        """Steps that were settled at some time."""
        self.process = self.start_process()

    def start_process(self, at: int = 0, how: Any = "before", ahead: float = 0.0) -> Running:
        """Start a process, which may die at some write."""
        table = Dying(self.table, at, how)
        return Running(table, Skewed(self.clock, ahead), self.doer, ids=self.ids, apart=60.0)

    def do(self, awaitable: Any) -> Any:
        """Run something to its end."""
        return self.loop.run_until_complete(awaitable)

    def run_now(self) -> Run:
        """Return the run as it is stored."""
        found: Run = self.do(self.looking().runs.get(self.id))
        return found

    def looking(self) -> Running:
        """Return a process that does not die."""
        return Running(self.table, self.clock, self.doer, ids=self.ids)

    async def acting(self, name: str) -> None:
        """Hold against the graph what is being done: nothing before what it needs."""
        await self.note()
        if not name.startswith("not "):
            assert self.ever.issuperset(self.graph.step(name).needs), name

    async def note(self) -> None:
        """Remember which steps are settled."""
        item = await self.table.get(("run", self.id))
        assert item is not None
        for one, mark in zip(self.graph.steps, item.document["marks"], strict=True):
            if mark in "DFS":
                self.ever.add(one.id)

    @initialize(made=graphs(), width=st.integers(1, 3), autonomous=st.booleans(), data=st.data())
    def begin(self, made: Graph, width: int, autonomous: bool, data: st.DataObject) -> None:
        """Start a run."""
        self.graph = made
        for one in made.steps:
            self.doer.scripts[one.id] = [*data.draw(st.lists(st.sampled_from(WORDS), max_size=3)), "ok"]
            self.doer.scripts[f"check {one.id}"] = data.draw(st.sampled_from([["ok"], ["no", "ok"]]))
            self.doer.scripts[f"not {one.id}"] = data.draw(st.sampled_from([["ok"], ["no", "ok"]]))
        self.id = self.do(self.looking().start(made, max_parallel=width, autonomous=autonomous)).id

    @rule()
    def tick(self) -> None:
        """Work on what is due."""
        self.work()

    def work(self) -> None:
        """Work, and start anew where that kills the process."""
        self.do(self.note())
        try:
            self.do(self.process.worker.work_once())
        except Crash:
            self.clock.forward(1.0)
            self.process = self.start_process()
        except AutopilotError:
            return

    @rule(seconds=st.sampled_from([1.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.forward(seconds)

    @rule(at=st.integers(1, 6), how=st.sampled_from(HOWS))
    def die(self, at: int, how: Any) -> None:
        """Work, and die at some write, or do not hear of it."""
        self.clock.forward(100.0)
        self.process = self.start_process(at, how)
        self.work()

    @rule(ahead=st.sampled_from([-30.0, 0.0, 30.0]))
    def skew(self, ahead: float) -> None:
        """Go on in a process with another clock."""
        self.clock.forward(1.0)
        self.process = self.start_process(ahead=ahead)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Deliver a message once more."""
        rows = [key for key in self.table.rows if key[0] == "queue:work"]
        if rows:
            item = self.do(self.table.get(data.draw(st.sampled_from(sorted(rows)))))
            self.do(self.looking().queue.send(item.document["body"]))

    @rule(command=st.sampled_from(Command), data=st.data())
    def command(self, command: Command, data: st.DataObject) -> None:
        """Give a command: it is taken where the tables say so, and else changes nothing."""
        run = self.run_now()
        named, mark = "", ""
        if command in OF_STEPS:
            number = data.draw(st.integers(0, len(self.graph.steps) - 1))
            named, mark = self.graph.steps[number].id, run.marks[number]
        legal = (run.state, command) in NEXT and (
            command not in OF_STEPS
            or (mark in FROM[command] and (run.state is State.NEEDS_HUMAN) == (mark == Mark.NOT_UNDONE))
        )
        before = dict(self.table.rows)
        process = self.looking()
        if legal:
            after: Run = self.do(process.command(run, command, named, "because"))
            assert after.revision == run.revision + 1
        else:
            with pytest.raises(Conflict):
                self.do(process.command(run, command, named, "because"))
            assert self.table.rows == before
        self.do(self.note())

    @invariant()
    def is_of_one_mind(self) -> None:
        """Marks and records say the same; no more run than may; nothing runs in a run that is at rest."""
        if not hasattr(self, "id"):
            return
        run = self.run_now()
        assert run.marks.count(Mark.ACTIVE) <= run.max_parallel
        records: dict[int, Record] = self.do(self.looking().show._rows.records(run.id))
        for number, mark in enumerate(run.marks):
            if number in records and mark != Mark.ACTIVE:
                assert records[number].state is STATES[mark], (mark, records[number])
            elif mark not in ".S":
                assert number in records
        if run.state not in {State.RUNNING, State.PAUSING, State.STOPPING}:
            assert Mark.ACTIVE not in run.marks
        if run.state is State.COMPLETED:
            assert set(run.marks) <= set("DFS")

    @invariant()
    @precondition(lambda self: hasattr(self, "id"))
    def has_a_message_for_all_that_goes_on(self) -> None:
        """Whatever is under way has a message: no run is forgotten."""
        run = self.run_now()
        records: dict[int, Record] = self.do(self.looking().show._rows.records(run.id))
        bodies = [
            self.do(self.table.get(key)).document["body"] for key in self.table.rows if key[0] == "queue:work"
        ]
        turns = {(body["step"], body["turn"]) for body in bodies if body["kind"] == "run.step"}
        for number, mark in enumerate(run.marks):
            if mark in Mark.ACTIVE + Mark.COOLING + Mark.ASKED:
                assert (number, records[number].turn) in turns, (mark, records[number])
        if run.state is State.ROLLING_BACK:
            undos = [(body["order"], body["at"]) for body in bodies if body["kind"] == "run.undo"]
            assert run.undo is not None
            assert (run.undo.name, run.undone) in undos

    def teardown(self) -> None:
        """Everything comes to an end when it is left alone, and starts nothing after it was paused."""
        try:
            if hasattr(self, "id"):
                self.come_to_an_end()
                self.check_starts()
                effects = self.doer.effects()
                assert all(effects[f"not {one.id}"] <= effects[one.id] for one in self.graph.steps)
        finally:
            self.loop.close()

    def come_to_an_end(self) -> None:
        """Let people say yes, and time pass."""
        self.process = self.start_process()
        for _ in range(400):
            run = self.run_now()
            for number, mark in enumerate(run.marks):
                if mark == Mark.ASKING and run.state is State.RUNNING:
                    self.do(self.looking().command(run, Command.APPROVE_STEP, self.graph.steps[number].id))
            wakes = {State.QUEUED: Command.START, State.PAUSED: Command.RESUME}
            if run.state in wakes:
                self.do(self.looking().command(run, wakes[run.state]))
            elif run.state not in {State.RUNNING, State.PAUSING, State.STOPPING, State.ROLLING_BACK}:
                return
            self.work()
            self.clock.forward(10.0)
        raise AssertionError(f"it never ended: {run.state} {run.marks}")

    def check_starts(self) -> None:
        """No step began for the first time of an attempt while its run was not to start any."""
        may = False
        for one in self.do(self.looking().show._rows.log(self.id)):
            kind = one["type"].removeprefix("run.")
            if kind in {"start", "resume", "pause", "stop", "rollback"}:
                may = kind in {"start", "resume"}
            if kind == "step.started" and "begun" not in one:
                assert may, one


TestRuns = RunMachine.TestCase
TestRuns.settings = settings(max_examples=200, stateful_step_count=30, derandomize=True, deadline=None)
