"""Asynchronous tasks: their states, and what callers may do to them."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from router.errors import (
    Conflict,
    Forbidden,
    Invalid,
    LoopDetected,
    NoAutopilot,
    NotFound,
    Stale,
    StoreUnavailable,
    TaskRequired,
    UnknownTask,
)
from router.forward import MAX_HOPS, Reply
from router.keys import Identity
from router.model import Capability
from router.task import (
    DEADLINE_SECONDS,
    KEEP_SECONDS,
    MOST_ATTEMPTS,
    NEXT,
    OVER,
    CallState,
    Command,
    State,
    Task,
)
from router.taskrows import SCAN
from tests.router.deferring import ANN, BOB, CAP, HOOK, Deferred, deferred
from tests.router.parts import OK, UNREACHABLE, Core, autopilot

STATES = [*State]


@pytest.fixture
async def later(parts: Core) -> Deferred:
    """Give asynchronous tasks, with an autopilot that does what its script says."""
    await parts.register(autopilot("stylist", CAP))
    return deferred(parts)


async def stored(later: Deferred) -> list[Any]:
    """Return every row of tasks and of the queue."""
    table = later.core.table.inner
    found = []
    for partition in ("async", "async:of:ann", "async:key", "queue:work", "queue:work:dead"):
        found += (await table.range(partition, limit=1000)).items
    return found


async def in_state(later: Deferred, state: State) -> Task:
    """Return a task that is in a state, with the message it would have then."""
    task = await later.submit()
    return await later.rows.write(replace(task, state=state, ended_at=1.0 if state in OVER else None))


class TestSubmit:
    """How a task is taken."""

    async def test_it_waits_for_its_turn(self, later: Deferred) -> None:
        """It is queued, nothing is sent yet, and its message is due at once."""
        task = await later.submit(meta={"pageType": "home"}, timeout_ms=500, autopilot="stylist")
        now = later.clock()
        assert task == await later.now(task)
        assert (task.state, task.attempts, task.turn, task.revision) == (State.QUEUED, 0, 1, 1)
        assert (task.requested_by, task.scopes) == ("ann", ("plan:*",))
        assert (task.submitted_at, task.deadline, task.next_at) == (now, now + DEADLINE_SECONDS, now)
        request = await later.rows.request_of(task)
        assert request is not None
        assert (request.meta, request.value) == (b'{"pageType":"home"}', {"pageType": "home"})
        assert (request.timeout_ms, request.autopilot, request.capability) == (500, "stylist", CAP)
        assert later.core.forward.sent == []
        [message] = await later.waiting()
        assert message.body == {"kind": "task", "task": task.id, "turn": 1}

    async def test_by_name(self, later: Deferred) -> None:
        """A task's name is looked up once: what it stands for later does not change what was asked for."""
        task = await later.submit("generate_page")
        assert (task.task, task.capability) == ("generate_page", CAP)
        await later.work()
        [(_, _, message)] = later.core.forward.sent
        assert msgspec.json.decode(message.body)["task"] == "generate_page"

    async def test_ids_are_in_the_order_of_time(self, later: Deferred) -> None:
        """So that the newest tasks are found first."""
        made = []
        for _ in range(4):
            made.append((await later.submit()).id)
            later.clock.forward(0.001)
        assert made == sorted(made)

    @pytest.mark.parametrize(
        ("how", "error"),
        [
            ({"task": "no_such_task"}, UnknownTask),
            ({"task": ""}, TaskRequired),
            ({"task": "a.b"}, NoAutopilot),
            ({"autopilot": "nobody"}, NoAutopilot),
            ({"by": Identity("eve", frozenset({"plan:crm.*"}))}, Forbidden),
            ({"by": BOB}, Forbidden),
            ({"hops": MAX_HOPS}, LoopDetected),
            ({"task": "strict.do", "meta": {"a": "text"}}, Invalid),
        ],
    )
    async def test_what_could_not_be_sent_is_refused(
        self, later: Deferred, how: dict[str, Any], error: type[Exception]
    ) -> None:
        """At once, as a call that waits would be; nothing is kept."""
        schema = {"properties": {"a": {"type": "integer"}}}
        await later.core.register(autopilot("strict", Capability("strict.do", input_schema=schema)))
        with pytest.raises(error):
            await later.submit(**how)
        assert await stored(later) == []

    async def test_scheduling_takes_the_right_to_send_anything(self, later: Deferred) -> None:
        """As when it is asked for synchronously: what is scheduled is sent in the router's name."""
        await later.core.register(autopilot("clerk", "task.schedule"))
        with pytest.raises(Forbidden):
            await later.submit("task.schedule", by=Identity("eve", frozenset({"plan:task.*"})))
        await later.submit("task.schedule", by=ANN)

    async def test_under_one_key_there_is_one_task(self, later: Deferred) -> None:
        """Also when the answer to the first call was lost; another caller's key is another one."""
        first = await later.submit(key="k")
        assert await later.submit(key="k") == first
        other = await later.submit(key="k", by=Identity("eve", frozenset({"admin"})))
        assert other.id != first.id
        assert await later.work() == 2

    async def test_a_key_whose_task_is_gone(self, later: Deferred) -> None:
        """A collision that no key explains is no success."""
        await later.submit(key="k")
        digest = hashlib.sha256(b'["ann","k"]').hexdigest()
        await later.core.table.delete(("async:key", digest))
        later.core.table.inner = Bumping(later.core.table.inner)
        with pytest.raises(Stale):
            await later.submit(key="k")

    @pytest.mark.parametrize("size", [10, 1 << 20])
    async def test_the_largest_meta(self, later: Deferred, size: int) -> None:
        """What a call may bring is kept and sent, byte for byte."""
        meta = {f"{number:04}": "\\" * 200 for number in range(size // 400)}
        task = await later.submit(meta=meta)
        await later.work()
        assert (await later.now(task)).state is State.COMPLETED
        sent = msgspec.json.decode(later.core.forward.sent[0][2].body)
        assert sent["meta"] == meta

    async def test_a_store_that_is_down(self, later: Deferred) -> None:
        """Nothing was taken, and whoever asked hears of it."""
        later.core.table.down = True
        with pytest.raises(StoreUnavailable):
            await later.submit()
        later.core.table.down = False
        assert await stored(later) == []


class Bumping:
    """A table where every transaction comes too late."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(self, _: Any) -> Any:
        raise Stale("too late")


class TestStates:
    """What may be done in which state."""

    @pytest.mark.parametrize(("state", "command"), [*itertools.product(State, Command)])
    def test_every_pair_is_tabled(self, state: State, command: Command) -> None:
        """A command leads where the table says; every other one is a conflict that tells why."""
        task = msgspec.convert({**SOME, "state": state.value}, Task)
        if (state, command) in NEXT:
            assert task.after(command) is NEXT[state, command]
        else:
            with pytest.raises(Conflict, match=f"a task that is {state.value} cannot be "):
                task.after(command)

    def test_the_table_says_what_is_expected(self) -> None:
        """What is over stays over, but that what failed can be sent again; only what is not over can end."""
        assert {state for state, _ in NEXT} == {State.QUEUED, State.RUNNING, State.FAILED}
        assert [pair for pair in NEXT if pair[0] in OVER] == [(State.FAILED, Command.RETRY)]
        for state in (State.QUEUED, State.RUNNING):
            allowed = {command for one, command in NEXT if one is state}
            assert allowed == {*Command} - {Command.RETRY}

    @pytest.mark.parametrize("state", STATES)
    async def test_cancel(self, later: Deferred, state: State) -> None:
        """What is not over is cancelled, once; anything else is a conflict and nothing has changed."""
        task = await in_state(later, state)
        before = await stored(later)
        if state in OVER:
            with pytest.raises(Conflict, match=state.value):
                await later.tasks.cancel(task.id, "ann")
            assert await stored(later) == before
        else:
            cancelled = await later.tasks.cancel(task.id, "ann")
            assert (cancelled.state, cancelled.ended_at) == (State.CANCELLED, later.clock())
            assert cancelled == await later.now(task)
            with pytest.raises(Conflict):
                await later.tasks.cancel(task.id, "ann")
            assert await later.told() == [("task.cancelled", task.id)]

    @pytest.mark.parametrize("state", STATES)
    async def test_retry(self, later: Deferred, state: State) -> None:
        """What failed is queued again; anything else is a conflict and nothing has changed."""
        task = await in_state(later, state)
        before = await stored(later)
        if state is State.FAILED:
            again = await later.tasks.retry(task.id)
            assert (again.state, again.turn, again.error) == (State.QUEUED, 2, None)
        else:
            with pytest.raises(Conflict, match=state.value):
                await later.tasks.retry(task.id)
            assert await stored(later) == before

    async def test_what_is_not_there(self, later: Deferred) -> None:
        """Neither can be done to a task nobody knows."""
        for verb in (later.tasks.cancel("task_0", "ann"), later.tasks.retry("task_0")):
            with pytest.raises(NotFound):
                await verb

    async def test_of_two_who_retry_one_does(self, later: Deferred) -> None:
        """The other one hears that it is too late."""
        task = await in_state(later, State.FAILED)
        later.core.table.inner = Bumping(later.core.table.inner)
        with pytest.raises(Conflict, match="at this moment"):
            await later.tasks.retry(task.id)

    async def test_what_is_past_its_lease_is_not_running(self, later: Deferred) -> None:
        """Nobody has to write that: whoever looks sees that it waits for somebody else."""
        task = await later.progress.start(await later.submit(), 30)
        assert later.tasks.shown(task)["status"] == "running"
        later.clock.forward(34.9)
        assert later.tasks.shown(task)["status"] == "running"
        later.clock.forward(0.1)
        assert later.tasks.shown(task)["status"] == "queued"
        running, _ = await later.rows.page(after=None, limit=5, state=State.RUNNING)
        queued, _ = await later.rows.page(after=None, limit=5, state=State.QUEUED)
        assert (running, [one.id for one in queued]) == ([], [task.id])


SOME: dict[str, Any] = {
    "id": "task_0",
    "task": None,
    "capability": CAP,
    "autopilot": None,
    "timeout_ms": None,
    "requested_by": "ann",
    "scopes": [],
    "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-00",
    "hops": 0,
    "request": {"name": "request", "rows": 1},
    "submitted_at": 1.0,
    "deadline": 2.0,
}


class TestCancel:
    """A task that is not wanted any more."""

    async def test_before_its_turn_it_is_never_sent(self, later: Deferred) -> None:
        """Its message finds that out and is gone."""
        task = await later.submit()
        await later.tasks.cancel(task.id, "ann")
        await later.work()
        assert later.core.forward.sent == []
        assert await later.waiting() == []
        assert await later.told() == [("task.cancelled", task.id)]

    async def test_while_it_is_sent_its_answer_is_kept(self, later: Deferred) -> None:
        """It is cancelled all the same, is not tried again, and whoever wants to sees what was done."""
        task = await later.submit()

        async def cancel() -> Reply:
            await later.tasks.cancel(task.id, "ann")
            return OK

        later.core.forward.on("stylist", cancel)
        await later.work()
        now = await later.now(task)
        assert (now.state, now.attempts, now.error) == (State.CANCELLED, 1, None)
        assert (await later.outcome(task))["result"] == {"done": True}
        assert await later.told() == [("task.cancelled", task.id)]
        assert await later.waiting() == []

    async def test_while_it_fails_it_is_not_tried_again(self, later: Deferred) -> None:
        """There is no answer to keep then."""
        task = await later.submit()

        async def cancel() -> Reply:
            await later.tasks.cancel(task.id, "ann")
            raise UNREACHABLE

        later.core.forward.on("stylist", cancel)
        await later.work(600)
        assert (await later.now(task)).state is State.CANCELLED
        assert await later.outcome(task) is None
        assert len(later.core.forward.sent) == 1

    async def test_it_goes_on_at_this_very_moment(self, later: Deferred) -> None:
        """Who cancels looks again: what ended meanwhile is over, what only began is cancelled."""
        task = await later.submit()
        table = later.core.table
        real = table.inner

        class Meanwhile(Bumping):
            async def transact(self, writes: Any) -> Any:
                table.inner = real
                await later.progress.start(await later.now(task), 30)
                return await real.transact(writes)

        table.inner = Meanwhile(real)
        cancelled = await later.tasks.cancel(task.id, "ann")
        assert (cancelled.state, cancelled.attempts) == (State.CANCELLED, 1)

    async def test_events_that_cannot_be_written(
        self, later: Deferred, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is cancelled all the same, and the log says what is missing."""
        task = await later.submit()
        real = later.core.table.inner

        class NoEvents(Bumping):
            async def put(self, key: Any, *_: Any, **__: Any) -> int:
                raise StoreUnavailable(str(key))

            async def transact(self, writes: Any) -> Any:
                return await real.transact(writes)

        later.core.table.inner = NoEvents(real)
        assert (await later.tasks.cancel(task.id, "ann")).state is State.CANCELLED
        assert "not among the events" in caplog.text


class TestRetry:
    """A failed task that is sent again."""

    async def test_it_gets_time_and_attempts_anew(self, later: Deferred) -> None:
        """And goes out under the key it had before: an autopilot that did it knows it again."""
        later.core.forward.on("stylist", Reply(404, b"{}", None))
        task = await later.submit()
        await later.work()
        failed = await later.now(task)
        assert (failed.state, failed.attempts) == (State.FAILED, 1)
        later.clock.forward(2 * DEADLINE_SECONDS)
        later.core.forward.on("stylist", OK)
        again = await later.tasks.retry(task.id)
        assert (again.allowed, again.deadline) == (1 + MOST_ATTEMPTS, later.clock() + DEADLINE_SECONDS)
        assert (again.outcome, again.ended_at) == (None, None)
        await later.work()
        now = await later.now(task)
        assert (now.state, now.attempts) == (State.COMPLETED, 2)
        assert {message.key for _, _, message in later.core.forward.sent} == {task.id}
        assert await later.told() == [("task.failed", task.id), ("task.completed", task.id)]

    async def test_messages_of_before_are_void(self, later: Deferred) -> None:
        """A message that comes again after all does nothing to the task as it is now."""
        task = await in_state(later, State.FAILED)
        await later.tasks.retry(task.id)
        assert [message.body["turn"] for message in await later.waiting()] == [1, 2]
        later.clock.forward(200_000)  # over the deadline, but `waiting` held the messages for a moment
        await later.rows.write(replace(await later.now(task), deadline=later.clock() + 100))
        await later.work()
        assert len(later.core.forward.sent) == 1
        assert (await later.now(task)).state is State.COMPLETED


class TestPage:
    """Lists of tasks."""

    async def test_newest_first_by_the_page(self, later: Deferred) -> None:
        """Each once, whatever the size of a page; of one's own, or everybody's."""
        eve = Identity("eve", frozenset({"admin"}))
        made: dict[str, list[str]] = {"ann": [], "eve": []}
        for number in range(7):
            by = eve if number % 3 == 0 else ANN
            made[by.name].insert(0, (await later.submit(by=by)).id)
            later.clock.forward(1)
        everybody = sorted(made["ann"] + made["eve"], reverse=True)
        for limit in (1, 2, 7, 50):
            for of, expected in ((None, everybody), ("ann", made["ann"]), ("bob", [])):
                found: list[str] = []
                after: str | None = None
                while True:
                    page, after = await later.rows.page(after=after, limit=limit, of=of)
                    found += [task.id for task in page]
                    assert len(page) <= limit
                    if after is None:
                        break
                assert found == expected

    @pytest.mark.parametrize("of", [None, "ann"])
    async def test_of_one_state(self, later: Deferred, of: str | None) -> None:
        """Only those, behind however many others."""
        wanted = [await in_state(later, State.FAILED)]
        for state in (State.COMPLETED, State.QUEUED, State.COMPLETED, State.FAILED, State.CANCELLED):
            later.clock.forward(1)
            task = await in_state(later, state)
            wanted = [task, *wanted] if state is State.FAILED else wanted
        found, after = await later.rows.page(after=None, limit=2, state=State.FAILED, of=of)
        assert [task.id for task in found] == [task.id for task in wanted]
        rest = [] if after is None else (await later.rows.page(after=after, limit=2, state=State.FAILED))[0]
        assert rest == []

    async def test_a_page_does_not_look_through_everything(self, later: Deferred) -> None:
        """It ends after so many, and says where to go on."""
        task = await in_state(later, State.FAILED)
        item = await later.core.table.get(("async", task.id))
        assert item is not None
        for number in range(SCAN + 50):
            one = f"task_1{number:011d}_0"
            await later.core.table.put(("async", one), {**item.document, "id": one, "state": "completed"})
        found, after = await later.rows.page(after=None, limit=200, state=State.FAILED)
        assert (found, after is not None) == ([], True)
        found, after = await later.rows.page(after=after, limit=200, state=State.FAILED)
        assert ([one.id for one in found], after) == ([task.id], None)

    async def test_what_expired_is_not_listed(self, later: Deferred) -> None:
        """After seven days nobody knows of it any more."""
        task = await later.submit()
        later.clock.forward(KEEP_SECONDS)
        assert await later.rows.page(after=None, limit=5) == ([], None)
        assert await later.rows.page(after=None, limit=5, of="ann") == ([], None)
        assert await later.rows.find(task.id) is None
        await later.work()
        assert later.core.forward.sent == []


class TestShown:
    """How a task is shown."""

    async def test_all_of_it(self, later: Deferred) -> None:
        """Times are RFC 3339, nothing of the meta or the scopes is there, and secrets are not."""
        task = await later.submit(meta={"word": "private"}, callback_url=f"{HOOK}?key=sk-abcdefgh12345678")
        shown = later.tasks.shown(replace(task, error={"code": "x", "detail": "sk-abcdefgh12345678"}))
        assert shown == {
            "id": task.id,
            "status": "queued",
            "task": None,
            "capability": CAP,
            "autopilot": None,
            "requested_by": "ann",
            "submitted_at": "2026-01-01T00:00:00.000Z",
            "started_at": None,
            "ended_at": None,
            "deadline": "2026-01-01T01:00:00.000Z",
            "attempts": 0,
            "next_attempt_at": "2026-01-01T00:00:00.000Z",
            "approval_id": None,
            "error": {"code": "x", "detail": "****"},
            "callback": {
                "url": f"{HOOK}?key=****",
                "status": CallState.PENDING.value,
                "attempts": 0,
                "last_error": None,
                "next_attempt_at": None,
            },
            "trace_id": task.trace_id,
        }
