"""Calls that tell of the end of an asynchronous task."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from infra.pool import Answer, AnswerTooLarge, Late, NotSent, Unanswered
from infra.signing import new_secret, verify
from router.callbacks import CEILINGS, MAX_BODY, MOST_CALLS, MOST_DELIVERIES, SECONDS
from router.errors import EndpointRefused, Invalid, Unauthenticated
from router.forward import Reply
from router.task import CallState, State, Task
from router.worker import HOLD_SECONDS
from tests.router.deferring import CAP, HOOK, SECRET, Deferred, deferred
from tests.router.parts import Core, autopilot

HALF = 0.5
WELL = Answer(200, [], b"ok")


def answer(status: int, **headers: str) -> Answer:
    """Give an answer with headers."""
    return Answer(
        status, [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()], b""
    )


@pytest.fixture
async def later(parts: Core) -> Deferred:
    """Give asynchronous tasks whose waits are half as long as they may be."""
    await parts.register(autopilot("stylist", CAP))
    return deferred(parts, dice=lambda: HALF)


async def ended(later: Deferred, **more: Any) -> Task:
    """Return a task that ended, with its first call made."""
    task = await later.submit(callback_url=HOOK, **more)
    await later.work()
    return await later.now(task)


async def test_whoever_asked_is_told(later: Deferred) -> None:
    """The body is the task as the API shows it, with its outcome, and the signature is good."""
    task = await ended(later)
    [(url, headers, body)] = later.hook.calls
    assert url == HOOK
    document = msgspec.json.decode(body)
    assert document == {
        **later.tasks.shown(task),
        "callback": {**later.tasks.shown(task)["callback"], "status": "pending", "attempts": 0},
        "outcome": await later.outcome(task),
    }
    assert (document["status"], document["outcome"]["result"]) == ("completed", {"done": True})
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"traceparent"].decode().split("-")[1] == task.trace_id
    assert verify([SECRET], headers.items(), body, later.clock()) == f"{task.id}_1"
    with pytest.raises(Unauthenticated):
        verify([new_secret()], headers.items(), body, later.clock())
    assert task.callback is not None
    assert (task.callback.status, task.callback.attempts) == (CallState.DELIVERED, 1)
    assert await later.waiting() == []


async def test_while_a_secret_is_replaced_both_sign(parts: Core) -> None:
    """Whoever is called may know either."""
    await parts.register(autopilot("stylist", CAP))
    other = new_secret()
    later = deferred(parts, secrets=[SECRET, other])
    await ended(later)
    [(_, headers, body)] = later.hook.calls
    for secret in (SECRET, other):
        verify([secret], headers.items(), body, later.clock())


@pytest.mark.parametrize(
    ("script", "state"),
    [(Reply(404, b"{}", None), "failed"), (Reply(200, b"7", None), "completed")],
)
async def test_every_end_is_told(later: Deferred, script: Reply, state: str) -> None:
    """A failure as well as a success."""
    later.core.forward.on("stylist", script)
    await ended(later)
    assert msgspec.json.decode(later.hook.calls[0][2])["status"] == state


async def test_a_cancelled_one_is_told(later: Deferred) -> None:
    """Once, also where it never began."""
    task = await later.submit(callback_url=HOOK)
    await later.tasks.cancel(task.id, "ann")
    await later.work()
    [(_, _, body)] = later.hook.calls
    assert msgspec.json.decode(body)["status"] == "cancelled"


async def test_a_task_that_is_not_over_is_not_told(later: Deferred) -> None:
    """While it is tried again there is nothing to tell."""
    later.core.forward.on("stylist", Reply(500, b"{}", None))
    task = await later.submit(callback_url=HOOK)
    await later.work(10)
    assert (await later.now(task)).attempts > 1
    assert later.hook.calls == []


TROUBLES: list[tuple[Answer | Exception, str]] = [
    (answer(500), "answered 500"),
    (answer(404), "answered 404"),
    (answer(302, location="https://elsewhere.example"), "answered 302"),
    (NotSent("10.0.0.7 refused"), "could not be reached"),
    (EndpointRefused("the address is not public"), "could not be reached"),
    (Late("no answer in time", sent=True), "no answer in time"),
    (Unanswered("the connection was closed"), "the connection was closed"),
    (AnswerTooLarge("too large"), "too large"),
]


@pytest.mark.parametrize(("trouble", "told"), TROUBLES)
async def test_what_is_not_well_is_tried_again(
    later: Deferred, trouble: Answer | Exception, told: str
) -> None:
    """Under the same id, and what was wrong is shown, though not where anything is."""
    later.hook.steps = [trouble, WELL]
    task = await ended(later)
    assert task.callback is not None
    assert (task.callback.status, task.callback.attempts) == (CallState.PENDING, 1)
    assert (task.callback.last_error, task.callback.next_at) == (told, later.clock() + CEILINGS[0] * HALF)
    shown = later.tasks.shown(task)["callback"]
    assert (shown["last_error"], shown["next_attempt_at"]) == (told, "2026-01-01T00:00:02.500Z")
    await later.work(5)
    task = await later.now(task)
    assert task.callback is not None
    assert (task.callback.status, task.callback.last_error) == (CallState.DELIVERED, None)
    assert len({headers[b"webhook-id"] for _, headers, _ in later.hook.calls}) == 1


async def test_for_about_a_day(later: Deferred) -> None:
    """Ten calls with growing waits, and then no more."""
    later.hook.steps = [answer(500)]
    task = await ended(later)
    began = later.clock()
    waits = []
    while True:
        task = await later.now(task)
        assert task.callback is not None
        if task.callback.next_at is None:
            break
        waits.append(task.callback.next_at - later.clock())
        later.clock.now = task.callback.next_at
        await later.work()
    assert waits == [ceiling * HALF for ceiling in CEILINGS]
    assert (task.callback.status, task.callback.attempts) == (CallState.FAILED, MOST_CALLS)
    assert later.clock() - began == pytest.approx(86_400, rel=0.05)
    assert len(later.hook.calls) == MOST_CALLS
    assert await later.waiting() == []
    assert {headers[b"webhook-timestamp"] for _, headers, _ in later.hook.calls} > {b"%d" % began}


async def test_410_means_never_again(later: Deferred) -> None:
    """Whoever says so is not called any more."""
    later.hook.steps = [answer(410)]
    task = await ended(later)
    assert task.callback is not None
    assert (task.callback.status, task.callback.last_error) == (CallState.FAILED, "answered 410")
    assert await later.waiting() == []


@pytest.mark.parametrize(
    ("status", "asked", "wait"),
    [
        (429, "60", 60.0),
        (503, "60", 60.0),
        (503, "1", 2.5),
        (503, "soon", 2.5),
        (503, "-60", 2.5),
        (503, "1000000000", 86_400.0),
        (503, "Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        (500, "60", 2.5),
    ],
)
async def test_retry_after(later: Deferred, status: int, asked: str, wait: float) -> None:
    """E4: of those who have no time it is heeded, up to a day."""
    later.hook.steps = [answer(status, retry_after=asked)]
    task = await ended(later)
    assert task.callback is not None
    assert task.callback.next_at == later.clock() + wait


async def test_a_message_that_comes_three_times(later: Deferred) -> None:
    """J1: each call is made once, whatever messages come again."""
    later.hook.steps = [answer(500), WELL]
    task = await later.submit(callback_url=HOOK)
    await later.worker.work_once()
    [first] = await later.queue.receive(most=5, visible_seconds=60)
    for _ in range(3):
        await later.callbacks(first, float("inf"))
    assert len(later.hook.calls) == 1
    later.clock.forward(CEILINGS[0])
    [second] = await later.queue.receive(most=5, visible_seconds=60)
    for message in (second, first, second):
        await later.callbacks(message, float("inf"))
    assert len(later.hook.calls) == 2
    assert (await later.now(task)).callback is not None


async def test_a_task_that_is_sent_again_is_told_of_again(later: Deferred) -> None:
    """The calls about its first end are void, those about its second have an id of their own."""
    later.core.forward.on("stylist", Reply(404, b"{}", None))
    later.hook.steps = [answer(500)]
    task = await ended(later)
    later.core.forward.on("stylist", Reply(200, b"{}", None))
    later.hook.steps = [WELL]
    await later.tasks.retry(task.id)
    await later.work(300)
    assert [headers[b"webhook-id"] for _, headers, _ in later.hook.calls] == [
        f"{task.id}_1".encode(),
        f"{task.id}_2".encode(),
    ]
    statuses = [msgspec.json.decode(body)["status"] for _, _, body in later.hook.calls]
    assert statuses == ["failed", "completed"]


async def test_a_change_while_it_is_called(later: Deferred) -> None:
    """What came of the call is not written over what the task is by then."""
    later.core.forward.on("stylist", Reply(404, b"{}", None))
    task = await later.submit(callback_url=HOOK)
    await later.worker.work_once()
    real = later.hook.post

    async def post(*arguments: Any) -> Answer:
        await later.tasks.retry(task.id)
        return await real(*arguments)

    later.callbacks._post = post
    await later.worker.work_once()
    now = await later.now(task)
    assert now.state is State.QUEUED
    assert now.callback is not None
    assert now.callback.attempts == 0


async def test_an_answer_that_comes_while_it_is_called(later: Deferred) -> None:
    """Of a task that was cancelled while it was sent: both the answer and the call are kept."""
    gates = {"answer": asyncio.Event(), "call": asyncio.Event()}
    task = await later.submit(callback_url=HOOK)

    async def answers() -> Reply:
        await later.tasks.cancel(task.id, "ann")
        await gates["answer"].wait()
        return Reply(200, b"7", None)

    async def post(*_: Any) -> Answer:
        gates["answer"].set()
        await gates["call"].wait()
        return WELL

    later.core.forward.on("stylist", answers)
    later.callbacks._post = post
    sending = asyncio.ensure_future(later.worker.work_once())
    while (await later.now(task)).state is not State.CANCELLED:
        pass
    calling = asyncio.ensure_future(later.worker.work_once())
    while (await later.now(task)).outcome is None:
        pass
    gates["call"].set()
    await asyncio.gather(sending, calling)
    now = await later.now(task)
    assert now.callback is not None
    assert (now.state, now.callback.status) == (State.CANCELLED, CallState.DELIVERED)
    assert (await later.outcome(task))["result"] == 7


async def test_a_long_outcome_is_left_out(later: Deferred) -> None:
    """A call has a size; the result can be fetched."""
    page = {"page": "x" * MAX_BODY}
    later.core.forward.on("stylist", Reply(200, msgspec.json.encode(page), None))
    task = await ended(later)
    [(_, _, body)] = later.hook.calls
    assert len(body) < 4096
    outcome = msgspec.json.decode(body)["outcome"]
    assert outcome["result"]["omitted_bytes"] > MAX_BODY
    assert outcome["autopilot"] == "stylist"
    assert (await later.outcome(task))["result"] == page


async def test_a_process_without_time_leaves_it_to_another(later: Deferred) -> None:
    """A call may take its fifteen seconds."""
    task = await later.submit(callback_url=HOOK)
    await later.worker.work_once()
    await later.worker.work_once(seconds=SECONDS)
    assert later.hook.calls == []
    await later.worker.work_once(seconds=SECONDS + 1)
    assert len(later.hook.calls) == 1
    assert (await later.now(task)).state is State.COMPLETED


async def test_one_that_kills_whoever_calls(later: Deferred) -> None:
    """After so many deliveries it is given up."""
    task = await later.submit(callback_url=HOOK)
    await later.worker.work_once()
    for _ in range(MOST_DELIVERIES):
        [_] = await later.queue.receive(most=5, visible_seconds=HOLD_SECONDS)
        later.clock.forward(HOLD_SECONDS)
    await later.work()
    now = await later.now(task)
    assert now.callback is not None
    assert (now.callback.status, later.hook.calls) == (CallState.FAILED, [])


async def test_a_task_that_is_forgotten(later: Deferred) -> None:
    """There is nothing left to tell."""
    task = await later.submit(callback_url=HOOK)
    await later.worker.work_once()
    await later.core.table.delete(("async", task.id))
    await later.work()
    assert later.hook.calls == []


async def test_whom_to_tell_is_checked_before_anything_is_taken(parts: Core) -> None:
    """Without a secret nobody can be called; an address that may not be called is refused."""
    bare = deferred(parts, secrets=())
    with pytest.raises(Invalid, match=r"callback_url: .*AUTOPILOT_CALLBACK_SECRET"):
        await bare.callbacks.check(HOOK)
    later = deferred(parts)
    await later.callbacks.check(HOOK)
    assert [url.host for url in later.checked] == ["ann.example"]

    async def refuse(_: Any) -> None:
        raise EndpointRefused("the address is not public")

    later.callbacks._addresses = refuse
    with pytest.raises(EndpointRefused):
        await later.callbacks.check(HOOK)

    async def unknown(_: Any) -> None:
        raise OSError("no such host")

    later.callbacks._addresses = unknown
    await later.callbacks.check(HOOK)
