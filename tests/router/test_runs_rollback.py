"""Rolling a run back: the last first, each once, and a person where that fails."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from router.errors import Conflict
from router.graph import Graph
from router.run import Command, Run, State
from tests.fakes import FakeClock
from tests.router.graphs import all_dags
from tests.router.memory import MemoryTable
from tests.router.running import Running, act, graph, step


def undoable(shape: Graph) -> Graph:
    """Give a graph of a shape whose steps have an effect, and an undo."""
    return graph(*(step(one.id, *one.needs, undo=act(f"not {one.id}")) for one in shape.steps))


async def done(made: Graph, **scripts: list[str]) -> tuple[Running, Run]:
    """Give a run that has come to its end."""
    clock = FakeClock()
    running = Running(MemoryTable(clock), clock)
    running.doer.scripts.update({name.replace("_", " "): words for name, words in scripts.items()})
    return running, await running.drive(await running.start(made))


def undone(running: Running) -> list[str]:
    """Return what was undone, in order."""
    return [name[4:] for name in running.doer.order if name.startswith("not ")]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
async def test_d9_every_graph_of_up_to_five_steps_is_undone_in_reverse(size: int) -> None:
    """Each step once, and none before all that needed it."""
    for shape in all_dags(size):
        running, run = await done(undoable(shape))
        await running.command(run, Command.ROLLBACK)
        run = await running.drive(run)
        assert run.state is State.ROLLED_BACK
        order = undone(running)
        assert sorted(order) == sorted(one.id for one in shape.steps)
        for one in shape.steps:
            assert all(order.index(one.id) < order.index(need) for need in one.needs), shape
        assert set(await running.states(run)) == set(order)
        assert set((await running.states(run)).values()) == {"undone"}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
async def test_d9_an_undo_that_fails_needs_a_person_wherever_it_is(size: int) -> None:
    """What was undone before stays undone, what would come after is not touched; then it goes on there."""
    for shape, place in itertools.product(all_dags(size), range(size)):
        failing = shape.steps[place].id
        running, run = await done(undoable(shape), **{f"not_{failing}": ["no", "ok"]})
        await running.command(run, Command.ROLLBACK)
        run = await running.drive(run)
        assert run.state is State.NEEDS_HUMAN
        before = undone(running)
        states = await running.states(run)
        assert states[failing] == "not_undone"
        assert {id_ for id_, state in states.items() if state == "undone"} == set(before)
        await running.command(run, Command.ROLLBACK)
        run = await running.drive(run)
        assert run.state is State.ROLLED_BACK
        assert undone(running)[: len(before)] == before
        assert sorted(undone(running)) == sorted(one.id for one in shape.steps)


async def test_what_could_not_be_undone_is_marked_and_the_rest_follows() -> None:
    """A person who undid it by hand says so, with a reason; the rollback goes on without it."""
    running, run = await done(undoable(graph("a", "b: a")), not_b=["no"])
    await running.command(run, Command.ROLLBACK)
    run = await running.drive(run)
    assert "b could not be undone: 'doer' answered 422" in run.reason
    await running.command(run, Command.MARK_DONE, "b", "removed it by hand")
    await running.command(run, Command.ROLLBACK)
    run = await running.drive(run)
    assert run.state is State.ROLLED_BACK
    assert undone(running) == ["a"]
    shown = (await running.steps(run))["b"]
    assert (shown["status"], shown["reason"]) == ("undone", "removed it by hand")


async def test_only_what_was_done_is_undone() -> None:
    """Not what failed without an effect, nor what was skipped, nor what has no undo."""
    made = graph(
        step("done", undo=act("not done")),
        step("fails", "done", attempts=1, undo=act("not fails")),
        step("skipped", "done", undo=act("not skipped")),
        step("stays", "done"),
    )
    clock = FakeClock()
    running = Running(MemoryTable(clock), clock)
    running.doer.scripts["fails"] = ["no"]
    run = await running.drive(await running.start(made, skip=("skipped",)))
    assert run.state is State.FAILED
    await running.command(run, Command.ROLLBACK)
    run = await running.drive(run)
    assert undone(running) == ["done"]
    assert await running.states(run) == {
        "done": "undone",
        "fails": "blocked",
        "skipped": "skipped",
        "stays": "completed",
    }


async def test_what_was_done_but_not_verified_is_undone_too() -> None:
    """Its effect is there, whatever the verification said."""
    made = graph(step("a", attempts=1, undo=act("not a")))
    running, run = await done(made, check_a=["no"])
    assert run.state is State.FAILED
    await running.command(run, Command.ROLLBACK)
    assert (await running.drive(run)).state is State.ROLLED_BACK
    assert undone(running) == ["a"]


async def test_an_undo_knows_what_the_step_brought() -> None:
    """Its meta refers to the step's own result, the parameters and the run."""
    undo = act("not a", key="${steps.a.result.key}", of="${params.of}", run="${run.id}")
    clock = FakeClock()
    running = Running(MemoryTable(clock), clock)
    run = await running.drive(await running.start(graph(step("a", undo=undo)), params={"of": 7}))
    await running.command(run, Command.ROLLBACK)
    await running.drive(run)
    sent: dict[str, Any] = running.doer.metas[-1]
    assert sent == {"do": "not a", "key": f"{run.id}.a.1", "of": 7, "run": run.id}


async def test_a_rollback_waits_for_nobody_who_may_still_act() -> None:
    """While a task waits for a second person, who might send it later, nothing is rolled back."""
    made = graph(step("a", undo=act("not a")), step("b", "a"))
    clock = FakeClock()
    running = Running(MemoryTable(clock), clock)
    running.doer.scripts["b"] = ["asks"]
    run = await running.start(made)
    await running.drive(run, seconds=20)
    await running.command(run, Command.PAUSE)
    with pytest.raises(Conflict, match="second person"):
        await running.command(run, Command.ROLLBACK)
    await running.command(run, Command.STOP)
    await running.drive(run, seconds=20, until=frozenset())
    await running.command(run, Command.ROLLBACK)
    assert (await running.drive(run)).state is State.ROLLED_BACK
    assert undone(running) == ["a"]


async def test_an_undo_that_would_need_an_approval_is_for_a_person() -> None:
    """It is not left waiting in the middle of a rollback."""
    running, run = await done(undoable(graph("a")), not_a=["asks"])
    await running.command(run, Command.ROLLBACK)
    run = await running.drive(run)
    assert run.state is State.NEEDS_HUMAN
    assert (await running.steps(run))["a"]["error"]["code"] == "approval_required"


async def test_an_undo_that_may_have_been_done_keeps_its_key() -> None:
    """Trying it again under the same key does nothing twice."""
    running, run = await done(undoable(graph("a")), not_a=["lost", "ok"])
    await running.command(run, Command.ROLLBACK)
    assert (await running.drive(run)).state is State.NEEDS_HUMAN
    await running.command(run, Command.ROLLBACK)
    assert (await running.drive(run)).state is State.ROLLED_BACK
    assert undone(running) == ["a"]
    assert len([one for one in running.doer.sent if one[1] == "not a"]) == 2


async def test_a_rollback_with_nothing_to_undo_is_over_at_once() -> None:
    """Nothing was done that can be undone."""
    running, run = await done(graph("a"))
    assert (await running.command(run, Command.ROLLBACK)).state is State.ROLLED_BACK
