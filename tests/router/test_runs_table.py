"""Every pair of a state and a command: what is not in the table is refused, and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product

import pytest

from router.errors import Conflict, NotFound
from router.record import Mark
from router.run import FROM, NEXT, OF_STEPS, Command, Run, State
from tests.fakes import FakeClock
from tests.router.memory import MemoryTable
from tests.router.running import Running, act, graph, step

Scene = tuple[Running, Run]
STEPS = {
    Command.RETRY_STEP: "stuck",
    Command.SKIP_STEP: "stuck",
    Command.MARK_DONE: "stuck",
    Command.APPROVE_STEP: "gate",
    Command.REFUSE_STEP: "gate",
}
WHOLE = graph(
    step("done", priority="critical", undo=act("not done")),
    step("stuck", "done", attempts=1, priority="high"),
    step("gate", "done", approval="may it?", priority="high"),
    step("slow", "done", priority="low"),
)
"""A step that is done, one that is blocked, one that asks, and one that is about to start."""


async def _running() -> Scene:
    """Give a run with a step in each of these states."""
    clock = FakeClock()
    scene = Running(MemoryTable(clock), clock, most=1)
    scene.doer.scripts["stuck"] = ["no"]
    run = await scene.start(WHOLE, max_parallel=1)
    while "B" not in run.marks:
        await scene.worker.work_once()
        run = await scene.runs.get(run.id)
    assert run.marks == "DBar"
    return scene, run


async def _queued() -> Scene:
    clock = FakeClock()
    scene = Running(MemoryTable(clock), clock)
    return scene, await scene.start(WHOLE, autonomous=False)


async def _pausing() -> Scene:
    scene, run = await _running()
    return scene, await scene.command(run, Command.PAUSE)


async def _paused() -> Scene:
    scene, run = await _pausing()
    return scene, await scene.drive(run)


async def _stopping() -> Scene:
    scene, run = await _running()
    return scene, await scene.command(run, Command.STOP)


async def _stopped() -> Scene:
    scene, run = await _stopping()
    return scene, await scene.drive(run)


async def _failed() -> Scene:
    scene, run = await _running()
    await scene.command(run, Command.REFUSE_STEP, "gate")
    return scene, await scene.drive(run)


async def _completed() -> Scene:
    scene, run = await _failed()
    scene.doer.scripts["stuck"] = ["ok"]
    await scene.command(run, Command.RETRY_STEP, "stuck")
    await scene.command(run, Command.SKIP_STEP, "gate")
    return scene, await scene.drive(run)


async def _rolling_back() -> Scene:
    scene, run = await _failed()
    return scene, await scene.command(run, Command.ROLLBACK)


async def _rolled_back() -> Scene:
    scene, run = await _rolling_back()
    return scene, await scene.drive(run)


async def _needs_human() -> Scene:
    scene, run = await _rolling_back()
    scene.doer.scripts["not done"] = ["no", "ok"]
    return scene, await scene.drive(run)


SCENES: dict[State, Callable[[], Awaitable[Scene]]] = {
    State(build.__name__[1:]): build
    for build in (
        _queued,
        _running,
        _pausing,
        _paused,
        _stopping,
        _stopped,
        _completed,
        _failed,
        _rolling_back,
        _rolled_back,
        _needs_human,
    )
}


def rows(scene: Running) -> dict[object, object]:
    """Return all that is stored."""
    table = scene.table
    assert isinstance(table, MemoryTable)
    return dict(table.rows)


def test_every_state_has_a_scene() -> None:
    """Nothing is left out of the pairs."""
    assert set(SCENES) == set(State)


@pytest.mark.parametrize(("state", "command"), list(product(State, Command)))
async def test_d5_every_pair_of_a_state_and_a_command(state: State, command: Command) -> None:
    """It leads where the table says; where the table says nothing it is refused, and nothing changes."""
    scene, run = await SCENES[state]()
    assert run.state is state
    before = rows(scene)
    named = STEPS.get(command, "")
    if (state, command) == (State.NEEDS_HUMAN, Command.MARK_DONE):
        named = "done"
    elif state is State.COMPLETED and named:
        named = "stuck"
    if (wanted := NEXT.get((state, command))) is None:
        with pytest.raises(Conflict):
            await scene.command(run, command, named, "because")
        assert rows(scene) == before
        return
    after = await scene.command(run, command, named, "because")
    at_rest = {State.PAUSING: State.PAUSED, State.STOPPING: State.STOPPED}
    ends = {wanted, at_rest.get(wanted, wanted)}
    if state is State.FAILED and command is Command.SKIP_STEP:
        ends = {State.FAILED}  # the gate was refused: skipping the other one does not help
    assert after.state in ends
    assert rows(scene) != before


async def marked(mark: str) -> tuple[Running, Run, str]:
    """Give a run with a step of a mark, and the id of that step."""
    clock = FakeClock()
    scene = Running(MemoryTable(clock), clock, most=1)
    made = graph(
        step(
            "one",
            optional=mark == Mark.FAILED,
            attempts=2,
            cool_down_seconds=60,
            approval="" if mark != Mark.ASKING else "may it?",
        ),
        step("two", "one"),
        step("holds", approval="keeps the run going"),
    )
    named = "one"
    if mark == Mark.PENDING:
        named = "two"
    if mark in {Mark.BLOCKED, Mark.FAILED, Mark.COOLING}:
        scene.doer.scripts["one"] = ["no"]
    if mark == Mark.ASKED:
        scene.doer.scripts["one"] = ["asks"]
    run = await scene.start(made, skip=("one",) if mark == Mark.SKIPPED else ())
    if mark == Mark.AGAIN:
        run = await scene.command(run, Command.PAUSE)
    number = 1 if named == "two" else 0
    for _ in range(200):
        if run.marks[number] == mark:
            return scene, run, named
        if not await scene.worker.work_once():
            clock.forward(10)
        run = await scene.runs.get(run.id)
    raise AssertionError(run.marks)


@pytest.mark.parametrize(
    ("mark", "command"),
    list(product(".orcapDFBS", sorted(OF_STEPS, key=lambda command: command.value))),
)
async def test_d5_every_pair_of_a_step_and_a_command(mark: str, command: Command) -> None:
    """A step takes the commands that go with its state; every other one is refused, and nothing changes."""
    scene, run, named = await marked(mark)
    before = rows(scene)
    if mark in FROM[command]:
        after = await scene.command(run, command, named, "because")
        assert after.revision > run.revision
    else:
        with pytest.raises(Conflict):
            await scene.command(run, command, named, "because")
        assert rows(scene) == before


async def test_there_is_no_such_step() -> None:
    """A step that is not in the graph is not found, in whatever state the run is."""
    scene, run = await _running()
    with pytest.raises(NotFound, match="no step 'other'"):
        await scene.command(run, Command.RETRY_STEP, "other")
