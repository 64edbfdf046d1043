"""Turns of asynchronous tasks: what is sent, what is tried again, and what nobody can break off."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from infra.table import Item, Key, Page, Table, Write
from router.approvals import LEASE_SECONDS, VALID_SECONDS
from router.errors import StoreUnavailable
from router.forward import AttemptFailed, Reply
from router.keys import Identity
from router.model import Capability, Needs
from router.planner import Caller
from router.task import DEADLINE_SECONDS, MOST_ATTEMPTS, State, Task
from router.trace import Trace
from router.turns import APPROVAL_SECONDS, MARGIN, MOST_DELIVERIES, SHORTEST
from router.worker import HOLD_SECONDS, Later
from tests.fakes import FakeClock
from tests.router.deferring import ANN, BOB, CAP, Deferred, deferred
from tests.router.parts import LATE, LOST, OK, UNREACHABLE, Core, autopilot, core, until

HALF = 0.5
FAILS = Reply(500, b"{}", None)


def busy(status: int, retry_after: float | None = None) -> Reply:
    """Give an answer of an autopilot that has no time."""
    return Reply(status, b'{"busy":true}', retry_after)


@pytest.fixture
async def later(parts: Core) -> Deferred:
    """Give asynchronous tasks whose waits are half as long as they may be, and an autopilot with a script."""
    await parts.register(autopilot("stylist", CAP))
    return deferred(parts, dice=lambda: HALF)


def sent(later: Deferred) -> list[Any]:
    """Return what autopilots were sent."""
    return [message for _, _, message in later.core.forward.sent]


class TestOne:
    """A task that is answered."""

    async def test_it_is_sent_and_its_answer_kept(self, later: Deferred) -> None:
        """As a plan of whoever asked, in their trace, with the task's id as the key; and it is told of."""
        task = await later.submit(meta={"a": 1})
        assert await later.work() == 1
        now = await later.now(task)
        assert (now.state, now.attempts, now.error, now.lease_until) == (State.COMPLETED, 1, None, None)
        assert (now.started_at, now.ended_at, now.next_at) == (later.clock(), later.clock(), None)
        outcome = await later.outcome(task)
        assert (outcome["autopilot"], outcome["ok"], outcome["status"]) == ("stylist", True, 200)
        assert (outcome["result"], outcome["capability"]) == ({"done": True}, CAP)
        assert outcome["trace_id"] == task.trace_id
        [message] = sent(later)
        assert (message.key, message.trace.id, message.hops) == (task.id, task.trace_id, 0)
        assert msgspec.json.decode(message.body)["meta"] == {"a": 1}
        assert await later.told() == [("task.completed", task.id)]
        assert await later.waiting() == []

    async def test_each_has_its_own(self, later: Deferred) -> None:
        """Many at once do not get into each other's way."""
        tasks = [await later.submit(meta={"n": number}) for number in range(40)]
        assert await later.work() == 40
        assert {(await later.now(task)).state for task in tasks} == {State.COMPLETED}
        assert {message.key for message in sent(later)} == {task.id for task in tasks}

    @pytest.mark.parametrize("size", [1_000, 350_000, 5 << 20])
    async def test_the_largest_answer(self, later: Deferred, size: int) -> None:
        """Whatever an autopilot may answer is kept whole."""
        noise = random.Random(size).randbytes(size // 2).hex()
        later.core.forward.on("stylist", Reply(200, msgspec.json.encode({"page": noise}), None))
        task = await later.submit()
        await later.work()
        assert (await later.outcome(task))["result"] == {"page": noise}

    async def test_how_far_it_has_been_is_remembered(self, later: Deferred) -> None:
        """A circle of routers is noticed, however long tasks lie in each of them."""
        await later.submit(hops=2)
        await later.work()
        assert sent(later)[0].hops == 2


class TestFailure:
    """What an autopilot refuses, and what may pass."""

    @pytest.mark.parametrize("status", [400, 404, 409, 422, 451])
    async def test_a_refusal_is_the_end(self, later: Deferred, status: int) -> None:
        """It failed, says why, and keeps what the autopilot said."""
        later.core.forward.on("stylist", Reply(status, b'{"why":"so"}', None))
        task = await later.submit()
        await later.work(600)
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.FAILED, 1)
        assert now.error == {"code": "refused", "detail": f"'stylist' answered {status}"}
        outcome = await later.outcome(task)
        assert (outcome["ok"], outcome["status"], outcome["result"]) == (False, status, {"why": "so"})
        assert await later.told() == [("task.failed", task.id)]

    @pytest.mark.parametrize(
        "first", [FAILS, UNREACHABLE, LOST, LATE, busy(408), busy(425), busy(429), busy(503)]
    )
    async def test_what_may_pass_is_tried_again(self, later: Deferred, first: Reply | AttemptFailed) -> None:
        """Under the same key, after a wait, in which it is shown why."""
        later.core.forward.on("stylist", first, OK)
        task = await later.submit()
        await later.work()
        waiting = await later.now(task)
        assert (waiting.state, waiting.attempts, waiting.turn) == (State.QUEUED, 1, 2)
        assert waiting.error is not None
        assert waiting.next_at == later.clock() + 1.0
        assert later.tasks.shown(waiting)["next_attempt_at"] == "2026-01-01T00:00:01.000Z"
        assert len(sent(later)) == 1
        await later.work(0.9, 0.9)
        assert len(sent(later)) == 1
        await later.work(0.2, 0.2)
        now = await later.now(task)
        assert (now.state, now.attempts, now.error) == (State.COMPLETED, 2, None)
        assert [message.key for message in sent(later)] == [task.id, task.id]
        assert await later.told() == [("task.completed", task.id)]

    async def test_one_that_still_works_on_an_earlier_attempt_is_left_to_it(self, later: Deferred) -> None:
        """A 409 is the end at first, but behind a lost connection it may mean that very key."""
        later.core.forward.on("stylist", LOST, busy(409), OK)
        task = await later.submit()
        await later.work(60)
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.COMPLETED, 3)

    async def test_waits_grow_and_attempts_end(self, later: Deferred) -> None:
        """Ten in all; then it failed, with what was wrong the last time."""
        later.core.forward.on("stylist", FAILS)
        task = await later.submit()
        began = [later.clock()]
        await later.work()
        while (now := await later.now(task)).next_at is not None:
            later.clock.now = now.next_at
            began.append(later.clock())
            await later.work()
        waits = [after - before for before, after in itertools.pairwise(began)]
        assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 150]
        assert (now.state, now.attempts) == (State.FAILED, MOST_ATTEMPTS)
        assert now.error == {"code": "forward_failed", "detail": "'stylist' answered 500"}
        assert await later.waiting() == []

    async def test_the_last_answer_of_one_without_time_is_kept(self, later: Deferred) -> None:
        """A 429 to the end is an answer all the same."""
        later.core.forward.on("stylist", busy(429))
        task = await later.submit()
        await later.work(800)
        assert (await later.now(task)).state is State.FAILED
        assert (await later.outcome(task))["status"] == 429

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("asked", "wait"),
        [(None, 1.0), (0.0, 1.0), (5.0, 5.0), (1e9, DEADLINE_SECONDS - 5.0)],
    )
    async def test_retry_after(self, later: Deferred, status: int, asked: float | None, wait: float) -> None:
        """E4: it is waited for, but that a last attempt is made before the deadline."""
        later.core.forward.on("stylist", busy(status, asked), OK)
        task = await later.submit()
        await later.work()
        assert (await later.now(task)).next_at == later.clock() + wait
        later.clock.forward(wait)
        await later.work()
        assert (await later.now(task)).state is State.COMPLETED

    async def test_the_deadline_ends_it(self, later: Deferred) -> None:
        """What is asked to wait for longer than there is time has one last attempt, and no more."""
        later.core.forward.on("stylist", busy(503, 1e9))
        task = await later.submit()
        await later.work()
        later.clock.forward(DEADLINE_SECONDS - 5)
        await later.work()
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.FAILED, 2)
        assert len(sent(later)) == 2

    async def test_one_whose_turn_comes_too_late_is_not_sent(self, later: Deferred) -> None:
        """As when nobody worked for an hour."""
        task = await later.submit()
        later.clock.forward(DEADLINE_SECONDS)
        await later.work()
        now = await later.now(task)
        assert (now.state, now.error) == (State.FAILED, {"code": "deadline", "detail": "its deadline passed"})
        assert sent(later) == []

    async def test_an_autopilot_that_went_away(self, later: Deferred) -> None:
        """Nobody offers it any more: that does not pass by itself."""
        task = await later.submit()
        await later.core.registry.delete("stylist")
        await later.work()
        now = await later.now(task)
        assert now.state is State.FAILED
        assert now.error is not None
        assert now.error["code"] == "no_autopilot"

    async def test_what_is_not_ready_may_be_later(self, later: Deferred) -> None:
        """Nothing was sent, and the reason is shown while it waits."""
        needy = autopilot("needy", "text.needy", needs=Needs(queues=("jobs",)))
        await later.core.register(needy)
        later.core.provider.refuses["jobs"] = StoreUnavailable("no room")
        task = await later.submit("text.needy")
        await later.work()
        now = await later.now(task)
        assert now.state is State.QUEUED
        assert now.error is not None
        assert now.error["code"] == "not_ready"
        del later.core.provider.refuses["jobs"]
        await later.work(30)
        assert (await later.now(task)).state is State.COMPLETED


class TestAuthority:
    """Whose task it is."""

    async def test_it_is_sent_in_the_name_of_whoever_asked(self, later: Deferred) -> None:
        """With what they might do when they asked, be their key gone since."""
        seen: list[Caller] = []
        real = later.core.planner.plan

        async def plan(request: Any, caller: Caller) -> Any:
            seen.append(caller)
            return await real(request, caller)

        later.core.planner.plan = plan  # type: ignore[method-assign]
        eve = Identity("eve", frozenset({"plan:web.*", "read"}))
        task = await later.submit(by=eve)
        await later.work()
        [caller] = seen
        assert (caller.name, caller.key, caller.approved) == ("eve", task.id, "")
        assert (caller.may(CAP), caller.may("payouts.batch.run"), caller.may("task.schedule")) == (
            True,
            False,
            False,
        )

    async def test_what_is_kept_gives_no_more(self, later: Deferred) -> None:
        """A record with other scopes is refused by the planner like any other caller."""
        task = await later.submit()
        await later.rows.write(replace(task, scopes=("plan:crm.*",)))
        await later.work()
        now = await later.now(task)
        assert now.state is State.FAILED
        assert now.error is not None
        assert now.error["code"] == "forbidden"
        assert sent(later) == []


class TestTime:
    """How long an attempt may take."""

    @pytest.mark.parametrize(
        ("asked_ms", "process", "left", "most"),
        [
            (None, float("inf"), 3600.0, 30.0),
            (500, float("inf"), 3600.0, 0.5),
            (300_000, float("inf"), 3600.0, 300.0),
            (300_000, float("inf"), 40.0, 40.0),
            (300_000, 60.0, 3600.0, 60.0 - MARGIN),
            (500, 60.0, 3600.0, 0.5),
            (None, 10.0, 3600.0, 10.0 - MARGIN),
            (None, SHORTEST + MARGIN, 3600.0, SHORTEST),
        ],
    )
    async def test_it_ends_before_everything_around_it(
        self, later: Deferred, asked_ms: int | None, process: float, left: float, most: float
    ) -> None:
        """E7: before the process, with 200 ms to spare, and before the task's own deadline."""
        task = await later.submit(timeout_ms=asked_ms)
        later.clock.forward(DEADLINE_SECONDS - left)
        before = asyncio.get_running_loop().time()
        await later.worker.work_once(seconds=process)
        [deadline] = later.core.forward.deadlines
        assert deadline - before == pytest.approx(most, abs=0.3)
        assert deadline - before <= most + 0.3
        assert (await later.now(task)).state is State.COMPLETED

    async def test_a_process_without_time_leaves_it_to_another(self, later: Deferred) -> None:
        """Nothing is begun that cannot end; it is no attempt."""
        task = await later.submit()
        await later.worker.work_once(seconds=SHORTEST + MARGIN - 0.01)
        assert sent(later) == []
        assert (await later.now(task)) == task
        await later.work()
        assert (await later.now(task)).state is State.COMPLETED


class TestDeath:
    """Whoever works on a task may die."""

    async def test_a_message_that_comes_three_times(self, later: Deferred) -> None:
        """J1: in any order, also after the end, it is one effect."""
        later.core.forward.on("stylist", FAILS, OK)
        task = await later.submit()
        [first] = await later.queue.receive(most=5, visible_seconds=HOLD_SECONDS)
        await later.worker.handle(first)
        later.clock.forward(1)
        [second] = await later.queue.receive(most=5, visible_seconds=HOLD_SECONDS)
        for message in (first, first, second, first, second, second):
            await later.turns(message, float("inf"))
        assert (await later.now(task)).attempts == 2
        assert len(sent(later)) == 2

    async def test_one_that_kills_whoever_works_on_it(self, later: Deferred) -> None:
        """After so many attempts, or so many deliveries, it failed and is no longer in the way."""
        task = await later.submit()
        for _ in range(MOST_ATTEMPTS):
            [_] = await later.queue.receive(most=5, visible_seconds=HOLD_SECONDS)
            await later.progress.start(await later.now(task), 1)
            later.clock.forward(HOLD_SECONDS)
        await later.work()
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.FAILED, MOST_ATTEMPTS)
        assert now.error is not None
        assert "did not live" in now.error["detail"]
        assert await later.waiting() == []

    async def test_one_that_kills_before_it_is_even_begun(self, later: Deferred) -> None:
        """Deliveries are counted as well; the message is a dead letter then."""
        task = await later.submit()
        for _ in range(MOST_DELIVERIES):
            [_] = await later.queue.receive(most=5, visible_seconds=HOLD_SECONDS)
            later.clock.forward(HOLD_SECONDS)
        await later.work()
        assert (await later.now(task)).state is State.FAILED
        [letter], _ = await later.queue.dead_letters()
        assert letter.body["task"] == task.id
        assert "15 times" in letter.reason
        assert sent(later) == []

    async def test_a_meta_that_is_gone(self, later: Deferred) -> None:
        """What cannot be known any more cannot be sent."""
        task = await later.submit()
        await later.core.table.delete((f"async:text:{task.id}", "request.000"))
        await later.work()
        now = await later.now(task)
        assert now.state is State.FAILED
        assert now.error is not None
        assert now.error["code"] == "not_found"

    async def test_two_who_hold_it_at_once(self, later: Deferred) -> None:
        """Whoever began last has the word; what the other one was answered changes nothing."""
        second = deferred(later.core, name="b", dice=lambda: HALF)
        gate = asyncio.Event()

        async def slow() -> Reply:
            await gate.wait()
            return Reply(404, b'{"late":true}', None)

        later.core.forward.on("stylist", slow, OK)
        task = await later.submit()
        [message] = await later.queue.receive(most=5, visible_seconds=1)
        first = asyncio.ensure_future(later.worker.handle(message))
        await until(lambda: sent(later))
        later.clock.forward(HOLD_SECONDS)
        await second.work()
        assert (await later.now(task)).state is State.COMPLETED
        gate.set()
        assert await first is True
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.COMPLETED, 2)
        assert (await later.outcome(task))["result"] == {"done": True}
        assert await later.told() == [("task.completed", task.id)]

    async def test_a_store_that_comes_back(self, later: Deferred) -> None:
        """What was sent while it went away is sent again, under the same key."""

        async def breaks() -> Reply:
            later.core.table.down = True
            return OK

        later.core.forward.on("stylist", breaks, OK)
        task = await later.submit()
        assert await later.worker.work_once() == 1
        later.core.table.down = False
        assert later.tasks.shown(await later.now(task))["status"] == "running"
        later.clock.forward(HOLD_SECONDS)
        await later.work()
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.COMPLETED, 2)


class Mortal:
    """A table as a process sees it that dies: at one numbered call, before or after that is done."""

    kind = "sqlite"

    def __init__(self, inner: Table, dies_at: int | None = None, *, after: bool = False) -> None:
        self._inner = inner
        self._dies_at = dies_at
        self._after = after
        self.calls = 0
        self.dead = False

    async def _do(self, name: str, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        dying = self.calls == self._dies_at
        self.dead = self.dead or (dying and not self._after)
        if self.dead:
            raise StoreUnavailable("this process is dead")
        answer = await getattr(self._inner, name)(*arguments, **named)
        self.dead = self.dead or dying
        if self.dead:
            raise StoreUnavailable("this process is dead")
        return answer

    async def get(self, key: Key) -> Item | None:
        found: Item | None = await self._do("get", key)
        return found

    async def put(self, key: Key, document: Any, **named: Any) -> int:
        return int(await self._do("put", key, document, **named))

    async def delete(self, key: Key, **named: Any) -> bool:
        return bool(await self._do("delete", key, **named))

    async def range(self, partition: str, **named: Any) -> Page:
        page: Page = await self._do("range", partition, **named)
        return page

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        revisions: list[int] = await self._do("transact", writes)
        return revisions

    async def close(self) -> None:
        """Leave the table open: it is another one's too."""


SCRIPTS: dict[str, tuple[Reply | AttemptFailed, ...]] = {
    "done": (OK,),
    "refused": (Reply(404, b'{"why":"so"}', None),),
    "tried again": (FAILS, OK),
    "large": (Reply(200, b'"%b"' % random.Random(1).randbytes(400_000).hex().encode(), None),),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("script", SCRIPTS)
async def test_death_at_every_call_of_the_store(
    parts: Core, clock: FakeClock, script: str, after: bool
) -> None:
    """Wherever a process dies, with the call done or not, the next one brings the task to the same end."""
    await parts.register(autopilot("stylist", CAP))
    steps = SCRIPTS[script]
    dies_at = 1
    while True:
        parts.forward.sent.clear()
        parts.forward.on("stylist", *steps)
        mortal = Mortal(parts.table.inner, dies_at, after=after)
        dying = deferred(parts, table=mortal, name=f"x{dies_at}", dice=lambda: HALF)
        living = deferred(parts, name=f"y{dies_at}", dice=lambda: HALF)
        task = await living.submit(callback_url="https://ann.example")
        for _ in range(6):
            if mortal.dead:
                break
            try:
                await dying.worker.work_once()
            except StoreUnavailable:
                assert mortal.dead
            clock.forward(1)
        parts.forward.on("stylist", steps[-1])
        await living.work(3 * HOLD_SECONDS, HOLD_SECONDS)
        now = await living.now(task)
        assert now.state is (State.FAILED if script == "refused" else State.COMPLETED), dies_at
        assert (await living.outcome(task)) is not None
        assert {message.key for message in sent(living)} == {task.id}
        assert len(sent(living)) <= now.attempts <= len(steps) + 1
        assert await living.waiting() == [], dies_at
        told = [kind for kind, one in await living.told() if one == task.id]
        assert 1 <= len(told) <= 2
        assert len(set(told)) == 1
        called = len(dying.hook.calls) + len(living.hook.calls)
        assert 1 <= called <= 2
        assert now.callback is not None
        assert now.callback.status.value == "delivered"
        if not mortal.dead:
            break
        dies_at += 1
    assert dies_at > 8


async def test_a_platform_that_ends_processes_at_random(parts: Core, clock: FakeClock) -> None:
    """E7: 1,000 times; half a minute after a lease nothing is shown as running, and all is done at last."""
    await parts.register(autopilot("stylist", CAP))
    dice = random.Random(20)
    tasks: list[Task] = []

    async def slow() -> Reply:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        return dice.choice([OK, OK, FAILS])

    parts.forward.on("stylist", slow)
    living = deferred(parts, name="z", dice=dice.random)
    for number in range(1_000):
        mortal = Mortal(parts.table.inner, dice.randrange(1, 12), after=dice.random() < HALF)
        dying = deferred(parts, table=mortal, name=f"x{number}", dice=dice.random)
        tasks.append(await living.submit())
        try:
            await dying.worker.work_once()
        except StoreUnavailable:
            assert mortal.dead
        clock.forward(dice.random())
        if number % 5 == 0:
            await living.work()
    for _ in range(20):
        clock.forward(HOLD_SECONDS + 30)
        await living.work()
        shown = [living.tasks.shown(await living.now(task))["status"] for task in tasks]
        assert "running" not in shown
        if {*shown} == {"completed"}:
            break
    assert {*shown} == {"completed"}
    assert await living.waiting() == []


class TestApproval:
    """Tasks that somebody else has to approve."""

    @pytest.fixture
    async def guarded(self, table: Any, clock: FakeClock) -> Deferred:
        """Give asynchronous tasks of which those of payouts wait."""
        parts = core(table, clock, "payouts.*")
        await parts.register(autopilot("bank", "payouts.batch.run"))
        return deferred(parts, dice=lambda: HALF)

    async def waiting(self, guarded: Deferred) -> Task:
        """Return a task that waits for approval."""
        task = await guarded.submit("payouts.batch.run", by=Identity("admin", frozenset({"admin"})))
        await guarded.work()
        return await guarded.now(task)

    async def send(self, guarded: Deferred, task: Task) -> None:
        """Approve a task, and send it as whoever approves does."""
        assert task.approval is not None
        approval, request = await guarded.core.approvals.approve(task.approval, BOB)
        caller = Caller(Trace(), key=approval.id, name=approval.requested_by, approved=approval.capability)
        outcome = await guarded.core.planner.plan(request, caller)
        await guarded.core.approvals.answered(approval, outcome.status, msgspec.json.encode(outcome))

    async def test_it_waits(self, guarded: Deferred) -> None:
        """Queued, with the approval's id, and nothing was sent: it was no attempt."""
        task = await self.waiting(guarded)
        assert (task.state, task.attempts, task.error) == (State.QUEUED, 0, None)
        assert task.approval is not None
        approval = await guarded.core.approvals.get(task.approval)
        assert (approval.requested_by, approval.capability) == ("admin", "payouts.batch.run")
        await guarded.work(60)
        assert sent(guarded) == []
        assert (await guarded.now(task)).state is State.QUEUED
        assert (await guarded.now(task)).approval == task.approval

    @pytest.mark.parametrize(("answer", "state"), [(OK, State.COMPLETED), (busy(422), State.FAILED)])
    async def test_approved(self, guarded: Deferred, answer: Reply, state: State) -> None:
        """Whoever approves sends it, once; what that was answered is the task's outcome."""
        guarded.core.forward.on("bank", answer)
        task = await self.waiting(guarded)
        await self.send(guarded, task)
        await guarded.work(APPROVAL_SECONDS)
        assert (await guarded.now(task)).state is state
        assert (await guarded.outcome(task))["status"] == answer.status
        assert len(sent(guarded)) == 1
        assert await guarded.waiting() == []

    async def test_refused(self, guarded: Deferred) -> None:
        """It failed and says who refused it; sent again, it is still refused."""
        task = await self.waiting(guarded)
        assert task.approval is not None
        await guarded.core.approvals.refuse(task.approval, BOB)
        await guarded.work(APPROVAL_SECONDS)
        now = await guarded.now(task)
        assert (now.state, now.error) == (
            State.FAILED,
            {"code": "forbidden", "detail": "'bob' refused it"},
        )
        await guarded.tasks.retry(task.id)
        await guarded.work(APPROVAL_SECONDS)
        assert (await guarded.now(task)).state is State.FAILED
        assert sent(guarded) == []

    async def test_nobody_decided(self, guarded: Deferred) -> None:
        """It failed when the time for a decision is over."""
        task = await self.waiting(guarded)
        await guarded.work(VALID_SECONDS - 10)
        assert (await guarded.now(task)).state is State.QUEUED
        await guarded.work(20)
        now = await guarded.now(task)
        assert now.state is State.FAILED
        assert now.error is not None
        assert now.error["code"] == "approval_required"

    async def test_approved_but_not_answered(self, guarded: Deferred) -> None:
        """As long as whoever approved may send it again it waits, and then it failed."""
        task = await self.waiting(guarded)
        assert task.approval is not None
        guarded.core.forward.on("bank", UNREACHABLE)
        approval, _ = await guarded.core.approvals.approve(task.approval, BOB)
        await guarded.work(60)
        assert (await guarded.now(task)).state is State.QUEUED
        await guarded.core.approvals.failed(approval, StoreUnavailable("no answer"))
        await guarded.work(VALID_SECONDS - 120)
        assert (await guarded.now(task)).state is State.QUEUED
        await guarded.work(120)
        now = await guarded.now(task)
        assert now.state is State.FAILED
        assert now.error == {"code": "store_unavailable", "detail": "no answer"}

    async def test_whoever_was_sending_it_died(self, guarded: Deferred) -> None:
        """Nothing is known of an answer: when nobody can send it any more, it failed."""
        task = await self.waiting(guarded)
        assert task.approval is not None
        await guarded.core.approvals.approve(task.approval, BOB)
        await guarded.work(VALID_SECONDS + LEASE_SECONDS, 20)
        now = await guarded.now(task)
        assert now.state is State.FAILED
        assert now.error is not None
        assert "no answer" in now.error["detail"]

    async def test_a_cancelled_one_cannot_be_approved(self, guarded: Deferred) -> None:
        """The question is taken back: nothing is sent for nobody."""
        task = await self.waiting(guarded)
        assert task.approval is not None
        await guarded.tasks.cancel(task.id, "admin")
        approval = await guarded.core.approvals.get(task.approval)
        assert (approval.state.value, approval.decided_by) == ("refused", "admin")
        assert await guarded.core.approvals.task(task.approval) is None
        await guarded.work(60)
        assert (await guarded.now(task)).state is State.CANCELLED

    async def test_one_that_was_decided_can_still_be_cancelled(self, guarded: Deferred) -> None:
        """What whoever approved is sending cannot be called back; the task is cancelled all the same."""
        task = await self.waiting(guarded)
        await self.send(guarded, task)
        assert (await guarded.tasks.cancel(task.id, "admin")).state is State.CANCELLED

    async def test_one_that_a_registration_guards(self, later: Deferred) -> None:
        """Not only the operator's patterns count."""
        guard = Capability("guard.act", requires_approval=True)
        await later.core.register(autopilot("guard", guard))
        task = await later.submit("guard.act", by=ANN)
        await later.work()
        assert (await later.now(task)).approval is not None


async def test_a_handler_says_later_by_raising(later: Deferred) -> None:
    """As the worker expects it."""
    await later.submit()
    [message] = await later.queue.receive(most=1, visible_seconds=1)
    with pytest.raises(Later):
        await later.turns(message, 0.1)
