"""Runs: what starts when, what becomes of failures, and what people can do about it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.table import Put
from router.errors import Conflict, Forbidden, Invalid, NoAutopilot, NotFound
from router.graph import Action, Graph
from router.keys import Identity
from router.order import order, schedule
from router.planner import Caller
from router.run import KEEP_SECONDS, Command, Run, State
from router.runrequest import RunRequest
from router.trace import Trace
from tests.fakes import FakeClock
from tests.router.graphs import dags
from tests.router.memory import MemoryTable
from tests.router.running import Crash, Doer, Running, act, graph, step

ALL: frozenset[State] = frozenset()


@pytest.fixture
def running(clock: FakeClock) -> Running:
    """Give runs on a table in memory."""
    return Running(MemoryTable(clock), clock)


async def ended(running: Running, made: Graph, **request: object) -> Run:
    """Start a run and work until it is over."""
    return await running.drive(await running.start(made, **request))


async def test_a_run_does_its_steps_and_completes(running: Running) -> None:
    """Each after what it needs, each verified, each told of."""
    run = await ended(running, graph("a", "b: a", "c: a", "d: b c"), goal="all of it")
    assert (run.state, run.marks) == (State.COMPLETED, "DDDD")
    assert running.doer.order[0] == "a"
    assert running.doer.order[-1] == "d"
    assert [name for capability, name, _ in running.doer.sent if capability == "test.check"][-1] == "d"
    shown = await running.show.shown(run)
    assert (shown["progress"], shown["completed"], shown["total"]) == (100, 4, 4)
    assert (shown["status"], shown["goal"], shown["confidence"]) == ("completed", "all of it", 0.95)
    told = await running.told(run)
    assert told[:4] == ["created", "start", "a step.started", "a step.completed"]
    assert told[-3:] == ["d step.started", "d step.completed", "completed"]
    assert sorted(told[4:-3]) == sorted(
        f"{name} step.{how}" for name in "bc" for how in ("started", "completed")
    )


@given(dags(8))
@hypothesis_settings(max_examples=60)
def test_one_at_a_time_it_goes_in_the_graphs_order(shape: Graph) -> None:
    """Critical before low, the longest way first, then as listed."""
    made = Graph(
        "sample",
        tuple(
            step(one.id, *one.needs, priority=one.priority, estimated_minutes=one.estimated_minutes)
            for one in shape.steps
        ),
    )

    async def run() -> list[str]:
        clock = FakeClock()
        running = Running(MemoryTable(clock), clock, most=1)
        await ended(running, made, max_parallel=1)
        return running.doer.order

    assert asyncio.run(run()) == list(order(made))


@pytest.mark.parametrize("width", [1, 3, 64])
async def test_no_more_steps_run_at_once_than_may(running: Running, width: int) -> None:
    """However many could start."""
    seen: list[int] = []
    under_way = 0

    async def meanwhile(_: str) -> None:
        nonlocal under_way
        under_way += 1
        seen.append(under_way)
        for _turn in range(5):
            await asyncio.sleep(0)
        under_way -= 1

    running.doer.meanwhile = meanwhile
    run = await ended(running, graph(*(f"s{number}" for number in range(40))), max_parallel=width)
    assert run.state is State.COMPLETED
    assert max(seen) == min(width, 16)  # the worker takes sixteen messages at once


async def test_a_step_that_ten_thousand_others_wait_for(running: Running) -> None:
    """Its end is one transaction, within the store's limits, and everything after it comes to its turn."""
    made = graph("first", *(step(f"s{number}", "first") for number in range(1_500)), "last: s1 s1499")
    run = await ended(running, made, max_parallel=64)
    assert (run.state, set(run.marks)) == (State.COMPLETED, {"D"})


async def test_more_approvals_than_fit_one_transaction_are_all_asked_for(running: Running) -> None:
    """Also when the process dies between two of those transactions."""
    made = graph(*(step(f"s{number}", approval="may it?") for number in range(120)))
    run = await running.start(made)
    assert 0 < run.marks.count("a") < 120
    running = running.again()
    run = await running.drive(run, seconds=5)
    assert run.marks == "a" * 120


async def test_d13_a_pause_lets_what_runs_end_and_starts_nothing(running: Running) -> None:
    """And a resume goes on from there."""
    run = await running.start(graph("a", "b: a"))

    async def meanwhile(name: str) -> None:
        if name == "a":
            assert (await running.command(run, Command.PAUSE)).state is State.PAUSING

    running.doer.meanwhile = meanwhile
    run = await running.drive(run)
    assert (run.state, run.marks, running.doer.order) == (State.PAUSED, "D.", ["a"])
    assert run.reason == "pause by bob"
    assert not await running.worker.work_once()
    run = await running.drive(await running.command(run, Command.RESUME))
    assert (run.state, running.doer.order, run.reason) == (State.COMPLETED, ["a", "b"], "")


async def test_d13_what_was_about_to_start_does_not(running: Running) -> None:
    """A pause that comes before a worker gets the message of a step takes that step back."""
    run = await running.start(graph("a"))
    assert (await running.command(run, Command.PAUSE)).state is State.PAUSING
    run = await running.drive(run)
    assert (run.state, run.marks, running.doer.order) == (State.PAUSED, "o", [])
    run = await running.drive(await running.command(run, Command.RESUME))
    assert (run.state, running.doer.order) == (State.COMPLETED, ["a"])


async def test_d13_a_pause_between_reading_and_claiming_a_step_holds(running: Running) -> None:
    """What a worker knew of the run before that does not let it start a step."""
    run = await running.start(graph("a"))
    table = running.table
    assert isinstance(table, MemoryTable)
    real = table.transact
    paused = False

    async def transact(writes: Sequence[object]) -> list[int]:
        nonlocal paused
        claims = any(isinstance(one, Put) and one.document.get("state") == "running" for one in writes)
        if claims and not paused:
            paused = True
            await running.again().command(run, Command.PAUSE)
        return await real(writes)  # type: ignore[arg-type]

    table.transact = transact  # type: ignore[method-assign]
    run = await running.drive(run)
    assert paused
    assert (run.state, running.doer.order) == (State.PAUSED, [])


async def test_d12_what_is_stopped_stays_stopped(running: Running) -> None:
    """Neither a resume nor anything else starts it again, and nothing starts of it."""
    run = await running.start(graph("a", "b: a"))
    await running.worker.work_once()
    run = await running.drive(await running.command(run, Command.STOP, reason="enough"))
    assert (run.state, run.reason, run.ended_at) == (State.STOPPED, "enough", running.clock())
    for command in (Command.RESUME, Command.START, Command.PAUSE, Command.STOP):
        with pytest.raises(Conflict):
            await running.command(run, command)
    assert not await running.worker.work_once()
    assert running.doer.order == ["a"]


async def test_d12_there_is_nothing_to_pause(running: Running) -> None:
    """A command for a run that is not there starts nothing."""
    with pytest.raises(NotFound):
        await running.runs.command("run_000000000000_0", Command.PAUSE, by="bob")
    assert await running.runs.page(after=None, limit=5) == ([], None)


async def test_a_run_that_is_not_autonomous_waits_for_its_start(running: Running) -> None:
    """Nothing starts before."""
    run = await running.start(graph("a"), autonomous=False)
    assert run.state is State.QUEUED
    assert not await running.worker.work_once()
    run = await running.drive(await running.command(run, Command.START))
    assert run.state is State.COMPLETED


async def test_d15_a_step_whose_verification_says_no_is_not_completed(running: Running) -> None:
    """However well its action went; it is done again, and then it is blocked."""
    running.doer.scripts["check a"] = ["no"]
    run = await ended(running, graph("a", "b: a"))
    assert (run.state, run.marks) == (State.FAILED, "B.")
    assert run.reason == "1 steps are blocked, 1 wait for them"
    shown = (await running.steps(run))["a"]
    assert shown["attempts"] == 3
    assert shown["error"] == {"code": "not_verified", "detail": "verify[0]: 'doer' answered 422: a is True"}
    assert "a step.completed" not in await running.told(run)


async def test_d15_a_graph_with_nothing_to_verify_a_step_by_is_refused(running: Running) -> None:
    """So are all others that something is wrong with, with every problem, before anything is kept."""
    with pytest.raises(Invalid) as problem:
        await running.start(graph(step("a", verify=()), "b: nobody", "b"), max_parallel=0, goal="x" * 501)
    fields = {one.field for one in problem.value.problems}
    assert fields == {"steps[0].verify", "steps[1].needs[0]", "steps[2].id", "max_parallel", "goal"}
    assert not running.table.rows  # type: ignore[attr-defined]


@pytest.mark.parametrize("made", [Graph("empty", ()), graph("a: b", "b: a")])
async def test_d16_cycles_and_empty_plans_are_refused(running: Running, made: Graph) -> None:
    """They would hang, or complete with nothing done."""
    with pytest.raises(Invalid):
        await running.start(made)


async def test_d16_d6_a_step_that_always_fails_is_tried_three_times_and_escalated(running: Running) -> None:
    """Then it is blocked, and a person is told."""
    running.doer.scripts["a"] = ["no"]
    run = await ended(running, graph("a"))
    assert (run.state, run.marks) == (State.FAILED, "B")
    assert [key for _, name, key in running.doer.sent] == [f"{run.id}.a.{number}" for number in (1, 2, 3)]
    events, _ = await running.events.page(after=None, limit=100, kind="run.escalated")
    assert [one["payload"]["step"] for one in events] == ["a"]
    assert events[0]["payload"]["error"]["code"] == "refused"


async def test_d6_a_step_that_kills_whoever_works_on_it_is_begun_three_times(running: Running) -> None:
    """Under one and the same key; then it is blocked, and nobody dies of it any more."""
    running.doer.scripts["a"] = ["crash"]
    run = await running.start(graph("a"))
    deaths = 0
    for _ in range(20):
        try:
            await running.worker.work_once()
        except Crash:
            deaths += 1
            running = running.again()
        running.clock.forward(20)
    run = await running.runs.get(run.id)
    assert (deaths, run.state, run.marks) == (3, State.FAILED, "B")
    assert {key for _, _, key in running.doer.sent} == {f"{run.id}.a.1"}
    assert (await running.steps(run))["a"]["error"]["code"] == "crashed"


async def test_d16_a_run_has_a_limit_of_attempts_for_all_its_steps(running: Running) -> None:
    """When that is spent, failures are final."""
    running.doer.scripts.update({name: ["no"] for name in "abc"})
    run = await ended(running, graph("a", "b", "c"), max_retries=2, max_parallel=1)
    assert run.marks == "BBB"
    assert len(running.doer.sent) == 3 + 2


async def test_d7_a_run_keeps_to_the_graph_it_was_started_with(running: Running) -> None:
    """A graph that is not the one with its digest is not followed: nothing starts."""
    made = graph("a", "b: a")
    run = await running.start(made)
    assert run.digest == made.digest
    key = (f"run:text:{run.id}", "charter.000")
    other = await running.start(graph("a", step("b", "a", action=act("evil"))))
    item = await running.table.get((f"run:text:{other.id}", "charter.000"))
    assert item is not None
    await running.table.put(key, item.document)
    fresh = running.again()
    await fresh.drive(run, seconds=30)
    assert not [name for _, name, caller in running.doer.sent if caller.startswith(run.id)]
    with pytest.raises(Conflict, match="not the one that it was started with"):
        await fresh.show.export(await fresh.runs.get(run.id))


async def test_results_and_parameters_go_into_what_is_sent(running: Running) -> None:
    """Those of earlier steps, those of the run, and the run's own."""
    made = graph(
        "a",
        step("b", "a", action=act("b", saw="${steps.a.result.did}", n="${params.n}", at="${run.started_at}")),
    )
    run = await ended(running, made, params={"n": 3})
    assert run.state is State.COMPLETED
    assert {"do": "b", "saw": "a", "n": 3, "at": "2026-01-01T00:00:00.000Z"} in running.doer.metas


async def test_a_reference_to_what_never_came_is_no_reason_to_try_again(running: Running) -> None:
    """It would not be there the next time either."""
    made = graph("a", step("b", "a", action=act("b", saw="${steps.a.result.nothing}")))
    run = await ended(running, made)
    assert run.marks == "DB"
    shown = (await running.steps(run))["b"]
    assert shown["attempts"] == 1
    assert "there is no nothing in what came of it" in shown["error"]["detail"]


async def test_an_optional_step_may_fail(running: Running) -> None:
    """What needs it goes on, and the run completes."""
    running.doer.scripts["a"] = ["no"]
    run = await ended(running, graph(step("a", optional=True), "b: a"))
    assert (run.state, run.marks) == (State.COMPLETED, "FD")
    assert "a step.given_up" in await running.told(run)


async def test_other_branches_go_on_while_one_is_blocked(running: Running) -> None:
    """The run fails when nothing else can go on, not before."""
    running.doer.scripts["a"] = ["no"]
    run = await ended(running, graph("a", "b: a", "c", "d: c"), max_parallel=1)
    assert (run.state, run.marks) == (State.FAILED, "B.DD")


async def test_a_cool_down_lies_between_two_attempts(running: Running) -> None:
    """While it lasts the step waits, and others take its place."""
    running.doer.scripts["a"] = ["no", "ok"]
    run = await running.start(graph(step("a", cool_down_seconds=60), "b"), max_parallel=1)
    await running.drive(run, seconds=50)
    shown = await running.steps(run)
    assert (shown["a"]["status"], shown["a"]["waits_for"]) == ("waiting", "cool_down")
    assert shown["a"]["next_attempt_at"] == "2026-01-01T00:01:00.000Z"
    assert shown["b"]["status"] == "completed"
    run = await running.drive(run)
    assert run.state is State.COMPLETED
    assert running.clock() >= 60


async def test_whoever_asks_for_time_gets_it(running: Running) -> None:
    """After a 429 the same key is sent again, no earlier than was asked for."""
    running.doer.scripts["a"] = ["busy", "ok"]
    started = running.clock()
    run = await ended(running, graph("a"))
    assert run.state is State.COMPLETED
    assert running.clock() - started >= 7
    assert {key for capability, _, key in running.doer.sent if capability == "test.act"} == {f"{run.id}.a.1"}


async def test_what_may_have_been_done_is_sent_again_under_its_key(running: Running) -> None:
    """It is done once; what was refused gets a new one."""
    running.doer.scripts["a"] = ["lost", "ok"]
    running.doer.scripts["b"] = ["no", "ok"]
    running.doer.scripts["c"] = ["down", "ok"]
    run = await ended(running, graph("a", "b", "c"))
    assert running.doer.effects() == {"a": 1, "b": 1, "c": 1}
    keys = [
        key.removeprefix(f"{run.id}.") for capability, _, key in running.doer.sent if capability == "test.act"
    ]
    assert sorted(keys) == ["a.1", "a.1", "b.1", "b.2", "c.1", "c.1"]


async def test_a_task_that_is_still_at_work_is_looked_for_again(running: Running) -> None:
    """A 409 to a key that was sent before is no failure, and no attempt."""
    running.doer.scripts["a"] = ["down", "working", "working", "ok"]
    run = await running.start(graph(step("a", attempts=2)))
    item = await running.drive(run)
    assert item.state is State.FAILED  # nothing was sent before: somebody else's conflict
    running.doer.scripts["b"] = ["lost"]
    made = graph(step("b", attempts=2), name="other")

    async def once(name: str) -> None:
        if name == "b" and len([one for one in running.doer.sent if one[1] == "b"]) == 2:
            running.doer.done.clear()
            running.doer.scripts["b"] = ["working", "working", "ok"]

    running.doer.meanwhile = once
    run = await ended(running, made)
    shown = (await running.steps(run))["b"]
    assert (run.state, shown["attempts"]) == (State.COMPLETED, 2)


async def test_a_step_is_retried_skipped_or_marked_as_done_by_a_person(running: Running) -> None:
    """Each lets a failed run go on."""
    running.doer.scripts.update(a=["no"] * 3 + ["ok"], b=["no"], c=["no"])
    made = graph("a", step("b", attempts=1), step("c", attempts=1), "d: a b c")
    run = await ended(running, made)
    assert run.marks == "BBB."
    await running.command(run, Command.RETRY_STEP, "a")
    run = await running.drive(run)
    assert run.marks == "DBB."
    await running.command(run, Command.SKIP_STEP, "b", "not needed")
    run = await running.drive(run)
    assert (run.state, run.marks) == (State.FAILED, "DSB.")
    running.doer.done["by hand"] = "c"  # somebody did it
    await running.command(run, Command.MARK_DONE, "c", "did it on the console")
    run = await running.drive(run)
    assert (run.state, run.marks) == (State.COMPLETED, "DSDD")
    shown = await running.steps(run)
    assert shown["b"]["reason"] == "not needed"
    assert (shown["c"]["marked_done_by"], shown["c"]["reason"]) == ("bob", "did it on the console")
    assert len([1 for _, name, _ in running.doer.sent if name == "c"]) == 2  # one action, one verification


async def test_d15_what_is_marked_as_done_is_verified_all_the_same(running: Running) -> None:
    """A step that is not done after all is blocked again, and its action is not sent."""
    running.doer.scripts["a"] = ["no"]
    run = await ended(running, graph("a"))
    await running.command(run, Command.MARK_DONE, "a", "I think it is")
    run = await running.drive(run)
    assert (run.state, run.marks, running.doer.order) == (State.FAILED, "B", [])
    assert (await running.steps(run))["a"]["error"]["code"] == "not_verified"
    with pytest.raises(Invalid, match="reason"):
        await running.command(run, Command.MARK_DONE, "a")


async def test_one_step_is_run_again(running: Running) -> None:
    """A completed one too, under a new key: that is on purpose."""
    run = await ended(running, graph("a", "b: a"))
    await running.command(run, Command.RETRY_STEP, "a")
    run = await running.drive(run)
    assert (run.state, running.doer.order) == (State.COMPLETED, ["a", "b", "a"])


async def test_a_step_waits_for_its_approval(running: Running) -> None:
    """What is asked says what came of earlier steps; the others go on meanwhile."""
    made = graph("a", step("b", "a", approval="look at ${steps.a.result.did} of ${params.of}"), "c: a")
    run = await running.start(made, params={"of": "it"})
    run = await running.drive(run, seconds=10)
    assert (run.state, run.marks) == (State.RUNNING, "DaD")
    shown = (await running.steps(run))["b"]
    assert (shown["waits_for"], shown["approval"]) == ("approval", "look at a of it")
    run = await running.drive(await running.command(run, Command.APPROVE_STEP, "b"))
    assert (run.state, (await running.steps(run))["b"]["approved_by"]) == (State.COMPLETED, "bob")


async def test_what_only_a_person_does_is_done_by_approval_and_verification(running: Running) -> None:
    """When the verification says no, that person is asked once more."""
    running.doer.scripts["check a"] = ["no", "ok"]
    running.doer.done["by hand"] = "a"
    run = await running.start(graph(step("a", action=None, approval="do it")))
    run = await running.drive(await running.command(run, Command.APPROVE_STEP, "a"), seconds=10)
    assert run.marks == "a"
    run = await running.drive(await running.command(run, Command.APPROVE_STEP, "a"))
    assert (run.state, running.doer.order) == (State.COMPLETED, [])


@pytest.mark.parametrize(("optional", "marks"), [(False, "B."), (True, "FD")])
async def test_a_refused_step_is_not_done(running: Running, optional: bool, marks: str) -> None:
    """It blocks what needs it, unless it is optional."""
    run = await running.start(graph(step("a", approval="may it?", optional=optional), "b: a"))
    await running.command(run, Command.REFUSE_STEP, "a", "no way")
    run = await running.drive(run)
    assert run.marks == marks
    assert (await running.steps(run))["a"]["error"]["detail"] == "bob refused it: no way"
    assert "a" not in running.doer.order


async def test_a_task_that_needs_a_second_person_waits_for_that_one(running: Running) -> None:
    """Whoever approves it sends it; then it is verified. Pausing does not end the wait."""
    running.doer.scripts["a"] = ["asks"]
    run = await running.start(graph("a", "b: a"))
    run = await running.drive(run, seconds=20)
    assert (await running.steps(run))["a"]["waits_for"] == "second_person"
    assert (await running.command(run, Command.PAUSE)).state is State.PAUSED
    running.doer.person.approve("apv_a_1")
    await running.drive(run, seconds=20, until=ALL)
    run = await running.drive(await running.command(run, Command.RESUME))
    assert (run.state, running.doer.order) == (State.COMPLETED, ["a", "b"])
    assert (await running.steps(run))["a"]["attempts"] == 1


async def test_a_second_person_refuses(running: Running) -> None:
    """The step is blocked; asking again would be pointless."""
    running.doer.scripts["a"] = ["asks"]
    run = await running.start(graph("a"))
    await running.drive(run, seconds=5)
    await running.doer.person.withdraw("apv_a_1", "carol")
    run = await running.drive(run)
    assert run.marks == "B"
    assert (await running.steps(run))["a"]["error"]["detail"] == "'carol' refused it"


async def test_a_question_that_nobody_answers_is_asked_again(running: Running) -> None:
    """As often as the step may be tried, each time anew."""
    running.doer.scripts["a"] = ["asks"]
    run = await ended(running, graph("a"))
    assert sorted(running.doer.person.approvals) == ["apv_a_1", "apv_a_2", "apv_a_3"]
    assert (await running.steps(run))["a"]["error"]["code"] == "approval_required"


async def test_what_a_second_person_sent_and_was_refused_has_failed(running: Running) -> None:
    """It is tried again, which takes another approval."""
    running.doer.scripts["a"] = ["asks", "asks"]
    run = await running.start(graph("a"))
    await running.drive(run, seconds=5)
    running.doer.person.approve("apv_a_1", 422)
    await running.drive(run, seconds=20)
    running.doer.person.approve("apv_a_2")
    run = await running.drive(run)
    assert (run.state, (await running.steps(run))["a"]["attempts"]) == (State.COMPLETED, 2)


@pytest.mark.parametrize("how", ["stop", "skip"])
async def test_nobody_approves_what_is_no_longer_wanted(running: Running, how: str) -> None:
    """The question is taken back when the run is stopped, or the step skipped."""
    running.doer.scripts["a"] = ["asks"]
    run = await running.start(graph("a", "b: a"))
    await running.drive(run, seconds=5)
    if how == "stop":
        await running.command(run, Command.STOP)
    else:
        await running.command(run, Command.SKIP_STEP, "a")
    assert running.doer.person.approvals["apv_a_1"].state.value == "refused"
    run = await running.drive(run, seconds=20)
    assert run.state is (State.STOPPED if how == "stop" else State.COMPLETED)


async def test_a_verification_may_not_wait_for_a_second_person(running: Running) -> None:
    """The step is blocked, and says why."""
    running.doer.scripts["check a"] = ["asks"]
    run = await ended(running, graph("a"))
    assert run.marks == "B"
    assert "may not wait for an approval" in (await running.steps(run))["a"]["error"]["detail"]


async def test_a_verification_that_cannot_be_asked_is_asked_again_without_doing_anything_twice(
    running: Running,
) -> None:
    """That nobody is there to verify says nothing about what was done."""
    running.doer.scripts["check a"] = ["down", "ok"]
    run = await ended(running, graph("a"))
    assert (run.state, running.doer.order) == (State.COMPLETED, ["a"])
    assert len([1 for capability, _, _ in running.doer.sent if capability == "test.act"]) == 1


async def test_only_some_steps_are_run(running: Running) -> None:
    """By their names or their phases; what is left out holds up nothing."""
    made = graph(step("a", phase="one"), step("b", "a", phase="two"), step("c", "b", phase="two"))
    assert (await ended(running, made, only=("two",))).marks == "SDD"
    assert (await ended(running, made, skip=("b",))).marks == "DSD"
    assert (await ended(running, made, from_step="c")).marks == "SSD"
    assert running.doer.order == ["b", "c", "a", "c", "c"]
    with pytest.raises(Invalid):
        await running.start(made, only=("other",))


async def test_all_runs_are_halted_and_let_go_on(running: Running) -> None:
    """No step of any run starts, each run pauses, none is started or resumed; then a person resumes."""
    run = await running.start(graph("a", "b: a"))
    await running.worker.work_once()
    await running.runs.halt("carol", "smoke")
    run = await running.drive(run)
    assert (run.state, run.reason) == (State.PAUSED, "all runs are halted by carol")
    assert running.doer.order == ["a"]
    with pytest.raises(Conflict, match="halted by carol: smoke"):
        await running.command(run, Command.RESUME)
    with pytest.raises(Conflict, match="halted by carol"):
        await running.start(graph("x"))
    await running.runs.release()
    run = await running.drive(await running.command(run, Command.RESUME))
    assert run.state is State.COMPLETED


async def test_a_halted_rollback_needs_a_person(running: Running) -> None:
    """It goes on when it is asked for again."""
    run = await ended(running, graph(step("a", undo=act("not a"))))
    await running.command(run, Command.ROLLBACK)
    await running.runs.halt("carol")
    run = await running.drive(run)
    assert (run.state, running.doer.order) == (State.NEEDS_HUMAN, ["a"])
    await running.runs.release()
    await running.command(run, Command.ROLLBACK)
    assert (await running.drive(run)).state is State.ROLLED_BACK


async def test_there_is_one_live_run_of_a_name(running: Running) -> None:
    """A second start is refused until the first one is over; others do not ask for that."""
    first = await running.start(graph("a"), single=True)
    assert await running.runs.live("sample") == await running.runs.get(first.id)
    with pytest.raises(Conflict, match="sample is running already"):
        await running.start(graph("a"), single=True)
    await running.start(graph("a"))
    await running.drive(first)
    assert await running.runs.live("sample") is None
    assert (await running.start(graph("a"), single=True)).state is State.RUNNING


async def test_runs_are_listed_newest_first(running: Running, clock: FakeClock) -> None:
    """All, those of a name, and those in a state, a page at a time."""
    made = []
    for name in ("one", "two", "one"):
        made.append((await running.start(graph("a", name=name))).id)
        clock.forward(1)
    await running.runs.command(made[0], Command.STOP, by="bob")
    page, cursor = await running.runs.page(after=None, limit=2)
    assert [run.id for run in page] == [made[2], made[1]]
    rest, end = await running.runs.page(after=cursor, limit=2)
    assert ([run.id for run in rest], end) == ([made[0]], None)
    assert [run.id for run in (await running.runs.page(after=None, limit=5, name="one"))[0]] == [
        made[2],
        made[0],
    ]
    await running.drive(await running.runs.get(made[0]))
    stopped, _ = await running.runs.page(after=None, limit=5, state=State.STOPPED)
    assert [run.id for run in stopped] == [made[0]]


async def test_a_run_plans_with_what_its_starter_might_then(running: Running) -> None:
    """In that name, with those scopes, within the trace of that call."""
    trace = Trace()
    eve = Identity("eve", frozenset({"plan:test.*"}))
    run = await running.runs.start(RunRequest(graph("a")), Caller(trace, hops=2), eve)
    await running.drive(run)
    caller = running.doer.callers[0]
    assert (caller.name, caller.hops, caller.trace.id) == ("eve", 2, trace.id)
    assert caller.may("test.act")
    assert not caller.may("payouts.batch.run")


async def test_nobody_starts_what_they_may_not_plan(running: Running) -> None:
    """It is refused as a whole, before anything of it is done."""
    running.doer.refuses["payouts.batch.run"] = Forbidden("this key lacks the scope")
    paying = step("b", "a", undo=Action(capability="payouts.batch.run"))
    with pytest.raises(Forbidden):
        await running.start(graph("a", paying))
    assert not running.table.rows  # type: ignore[attr-defined]


async def test_somebody_may_come_who_offers_what_nobody_offers_yet(running: Running) -> None:
    """A run starts all the same, and tries that step again."""
    running.doer.refuses["test.act"] = NoAutopilot("nobody offers it")
    run = await running.start(graph(step("a", cool_down_seconds=5)))
    await running.drive(run, seconds=4)
    del running.doer.refuses["test.act"]
    assert (await running.drive(run)).state is State.COMPLETED


async def test_what_is_kept_has_no_secrets_and_a_limit(running: Running) -> None:
    """Neither results nor what a failed task said."""
    running.doer.scripts["a"] = ["no", "ok"]
    made = graph(
        step("a", action=act("a", token="ghp_0123456789abcdefghij0123")),
        step("b", "a", action=act("b", long="x" * 70_000)),
    )
    run = await running.start(made)
    for _ in range(3):
        await running.worker.work_once()
        failed = (await running.steps(run))["a"]["output"]
        if failed:
            break
    assert "it cannot be done" in failed
    assert "sk-abc" not in failed
    run = await running.drive(run)
    shown = await running.steps(run)
    assert shown["b"]["result"]["omitted_bytes"] > 70_000
    assert shown["a"]["result"]["meta"]["token"] == "****"
    assert "ghp_0123" not in msgspec.json.encode(await running.show.export(run)).decode()


async def test_an_export_is_the_whole_of_a_run(running: Running) -> None:
    """With the fields of the seed's state file."""
    made = graph(step("a", phase="first"), step("b", "a", phase="second", approval="may it?"))
    run = await running.start(made, goal="a goal", params={"n": 1})
    run = await running.drive(run, seconds=5)
    document = await running.show.export(run)
    assert document["goal"] == "a goal"
    assert (document["completedTasks"], document["totalTasks"], document["overallProgress"]) == (1, 2, 50)
    assert (document["currentPhase"], document["isAutonomous"], document["isRunning"]) == (
        "second",
        True,
        True,
    )
    assert document["confidence"] == 0.95
    assert [task["status"] for task in document["tasks"]] == ["completed", "waiting"]
    assert document["lastUpdated"].endswith("Z")
    assert document["params"] == {"n": 1}
    assert document["graph"]["steps"][1]["id"] == "b"
    assert [one["level"] for one in document["logs"]] == ["INFO", "INFO", "INFO", "SUCCESS", "INFO"]


async def test_it_is_forgotten_as_a_whole(running: Running) -> None:
    """After its time nothing of it is left to be read."""
    run = await ended(running, graph("a"))
    running.clock.forward(KEEP_SECONDS + 1)
    with pytest.raises(NotFound):
        await running.runs.get(run.id)
    table = running.table
    assert isinstance(table, MemoryTable)
    assert [key for key in table.rows if await table.get(key) is not None] == []


async def test_messages_that_died_while_the_store_failed_are_sent_again(running: Running) -> None:
    """Those that are still of use, and no others."""
    over = await ended(running, graph("b", name="other"))
    await running.queue.send({"kind": "run.step", "run": over.id, "step": 0, "turn": 1}, id="void")
    await running.queue.send({"kind": "run.undo", "run": over.id, "order": "x", "at": 0}, id="no undo")
    await running.queue.send({"kind": "run.go", "run": over.id}, id="over")
    await running.queue.send({"kind": "task", "run": "no run"}, id="foreign")
    run = await running.start(graph("a"))
    for message in await running.queue.receive(most=9, visible_seconds=60):
        await running.queue.dead(message, "gave up")
    assert not await running.worker.work_once()
    assert await running.parts.mend() == 1
    assert (await running.drive(run)).state is State.COMPLETED
    letters, _ = await running.queue.dead_letters()
    assert {letter.id for letter in letters} == {"void", "no undo", "over", "foreign"}


async def test_a_process_that_is_about_to_end_leaves_a_step_to_another_one(running: Running) -> None:
    """It begins nothing that it has no time for."""
    run = await running.start(graph("a"))
    assert await running.worker.work_once(seconds=1.0) == 1
    assert running.doer.sent == []
    assert (await running.drive(run)).state is State.COMPLETED


async def test_a_step_takes_no_longer_than_it_may(running: Running) -> None:
    """Its time-out is what its tasks get, less where the process ends before."""
    asked: list[int | None] = []
    real = running.doer.plan

    async def plan(request: object, caller: Caller) -> object:
        asked.append(request.timeout_ms)  # type: ignore[attr-defined]
        return await real(request, caller)  # type: ignore[arg-type]

    running.doer.plan = plan  # type: ignore[method-assign,assignment]
    await running.start(graph(step("a", timeout_seconds=90.0), "b: a"))
    await running.worker.work_once(seconds=60.0)
    await running.worker.work_once()
    assert asked == [pytest.approx(59_800, abs=1)] * 2 + [30_000] * 2


@given(st.data())
@hypothesis_settings(max_examples=30)
def test_with_simulated_minutes_a_run_takes_what_its_schedule_says(data: st.DataObject) -> None:
    """A step starts the moment that what it needs is done and somebody is free."""
    shape = data.draw(dags(9))
    width = data.draw(st.integers(1, 4))
    assert asyncio.run(simulated_minutes(shape, width)) == schedule(shape, width).minutes


async def simulated_minutes(shape: Graph, width: int) -> float:
    """Return how long a run takes whose steps take as long as estimated."""
    clock = FakeClock(0.0)
    doer = Doer(clock)
    running = Running(MemoryTable(clock), clock, doer, most=100, hold_seconds=1e6)
    minutes = {one.id: one.estimated_minutes for one in shape.steps}
    ends: list[tuple[float, int, asyncio.Event]] = []

    async def meanwhile(name: str) -> None:
        done = asyncio.Event()
        heapq.heappush(ends, (clock() + minutes[name] * 60, len(ends), done))
        await done.wait()

    doer.meanwhile = meanwhile
    steps = [
        step(one.id, *one.needs, priority=one.priority, estimated_minutes=one.estimated_minutes)
        for one in shape.steps
    ]
    run = await running.start(graph(*steps), max_parallel=width)
    working: list[asyncio.Task[int]] = []
    while (await running.runs.get(run.id)).state is State.RUNNING:
        working.append(asyncio.ensure_future(running.worker.work_once()))
        for _ in range(40):
            await asyncio.sleep(0)
        if working[-1].done() and not working[-1].result():  # nothing is due: somebody comes to an end
            clock.now = ends[0][0]
            while ends and ends[0][0] == clock.now:
                heapq.heappop(ends)[2].set()
            for _ in range(40):
                await asyncio.sleep(0)
    await asyncio.gather(*working)
    return ((await running.runs.get(run.id)).ended_at or 0.0) / 60
