"""One turn of an asynchronous task: send it, and write what came of that.

A turn that is cut off anywhere is taken again by whoever gets its message next: the task's id is the key by
which autopilots tell a repeat. What passes is tried again with full jitter, as long as there are attempts and
time; what will not pass ends the task at once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from msgspec.structs import replace

from infra.clock import Clock
from infra.queue import Message
from router.approvals import VALID_SECONDS, Approval, Approvals
from router.approvals import State as ApprovalState
from router.backoff import Backoff, Dice, clamped
from router.delivery import Outcome
from router.errors import (
    ApprovalRequired,
    AutopilotError,
    Deadline,
    ForwardFailed,
    NotFound,
    Stale,
)
from router.keys import Identity
from router.planner import Caller, Planner, authority
from router.progress import Progress, error_of
from router.task import MOST_ATTEMPTS, OVER, Command, State, Task
from router.taskrows import TaskRows
from router.trace import Trace
from router.worker import Later, Poison

RETRIES = Backoff(2.0, 300.0)
MOST_DELIVERIES = 15
"""How often one turn may be begun that never comes to its end, as when it kills whoever works on it."""
APPROVAL_SECONDS = 5.0
"""How often a task that waits for approval looks whether it is decided."""
MARGIN = 0.2
"""Seconds that are left of a process, or of its time for a message, when an attempt has ended."""
SHORTEST = 1.0
"""Seconds below which an attempt is not worth beginning."""

REFUSED = "refused"
"""The code of a task whose autopilot answered 4xx; what it said is in the outcome."""

_BUSY = frozenset({408, 425, 429})
"""Answers that may be another one later."""
_STILL_RUNNING = 409
"""What an autopilot may answer while an earlier attempt under the same key is still at work."""


class Turns:
    """The handler of messages about tasks."""

    def __init__(
        self,
        rows: TaskRows,
        progress: Progress,
        planner: Planner,
        approvals: Approvals,
        *,
        clock: Clock,
        dice: Dice,
    ) -> None:
        self._rows = rows
        self._progress = progress
        self._planner = planner
        self._approvals = approvals
        self._clock = clock
        self._dice = dice

    async def __call__(self, message: Message, seconds: float) -> None:
        """Do what the message asks, in at most so many seconds.

        Raises `Later` and `Poison` as a handler does, and `StoreUnavailable`.
        """
        task = await self._rows.find(message.body["task"])
        if task is None or task.turn != message.body["turn"]:
            return None  # it was forgotten, cancelled, or went on already
        if task.state in OVER:
            return await self._progress.tell(task)  # whoever ended it may have died before that
        try:
            await self._take(task, message, seconds)
        except Stale:
            return None  # somebody cancelled it, or has our message by now: the task is theirs

    async def _take(self, task: Task, message: Message, seconds: float) -> None:
        if message.attempt > MOST_DELIVERIES:
            reason = f"it was begun {MOST_DELIVERIES} times, and whoever began it did not come to an end"
            await self._fail(task, ForwardFailed(reason))
            raise Poison(reason)
        left = task.deadline - self._clock()
        if left <= 0:
            await self._fail(task, Deadline("its deadline passed"))
        elif task.approval is not None:
            await self._look(task, task.approval)
        elif seconds - MARGIN < SHORTEST:
            raise Later(0.0)  # this process has no time left for it, but another one has
        elif task.attempts >= task.allowed:
            await self._fail(task, ForwardFailed("each time, whoever sent it did not live to see its answer"))
        else:
            await self._attempt(task, min(left, seconds - MARGIN))

    async def _attempt(self, task: Task, most: float) -> None:
        """Send a task, in at most `most` seconds."""
        request = await self._rows.request_of(task)
        if request is None:
            return await self._fail(task, NotFound("what was asked for is no longer known"))
        time = min(self._planner.seconds(request), most)
        bounded = replace(request, timeout_ms=max(int(time * 1000), 1))
        started = await self._progress.start(task, time)
        try:
            outcome = await self._planner.plan(bounded, _caller(started))
        except ApprovalRequired as waiting:
            # Nothing was sent: this was no attempt.
            waits = {"approval": waiting.approval["id"], "attempts": task.attempts}
            await self._progress.postpone(started, APPROVAL_SECONDS, **waits)
        except AutopilotError as error:
            await self._failed(started, error)
        else:
            await self._answered(started, outcome)

    async def _answered(self, task: Task, outcome: Outcome) -> None:
        text = msgspec.json.encode(outcome)
        try:
            if outcome.ok:
                await self._end(task, Command.COMPLETE, outcome=text)
            elif outcome.status in _BUSY or (outcome.status == _STILL_RUNNING and task.attempts > 1):
                later = outcome.attempts[-1].retry_after
                await self._again(task, _refusal(outcome.autopilot, outcome.status), later, text)
            else:
                error = _refusal(outcome.autopilot, outcome.status)
                await self._end(task, Command.FAIL, error=error, outcome=text)
        except Stale:
            await self._keep(task.id, text)
            raise

    async def _keep(self, task_id: str, outcome: bytes) -> None:
        """Keep the answer of a task that was cancelled meanwhile."""
        while True:
            task = await self._rows.find(task_id)
            if task is None or task.state is not State.CANCELLED or task.outcome is not None:
                return
            with suppress(Stale):  # a call that told of its end was noted at the same moment
                await self._progress.keep(task, outcome)

    async def _failed(self, task: Task, error: AutopilotError) -> None:
        """Try again what may pass, and end the task for what will not."""
        if error.retryable:
            attempts = error.extra.get("attempts") or [{}]
            await self._again(task, error_of(error), attempts[-1].get("retry_after"))
        else:
            await self._fail(task, error)

    async def _again(
        self, task: Task, error: dict[str, str], asked: float | None, outcome: bytes = b""
    ) -> None:
        """Let a task be tried again, unless it was often enough or its time is over."""
        failures = task.attempts - (task.allowed - MOST_ATTEMPTS)
        delay = RETRIES.delay(failures, self._dice)
        wait = clamped(delay, asked, task.deadline - self._clock())
        if wait is None or task.attempts >= task.allowed:
            await self._end(task, Command.FAIL, error=error, outcome=outcome)
        else:
            await self._progress.postpone(task, wait, error=error)

    async def _look(self, task: Task, approval_id: str) -> None:
        """See what became of the question whether a task may be sent. Whoever approves it sends it."""
        approval = await self._approvals.get(approval_id)  # it is kept longer than the task
        text = await self._approvals.outcome(approval_id)
        answer: dict[str, Any] = {} if text is None else msgspec.json.decode(text)
        if text is not None and answer["ok"]:
            await self._end(task, Command.COMPLETE, outcome=text.encode())
        elif text is not None:
            error = _refusal(answer["autopilot"], answer["status"])
            await self._end(task, Command.FAIL, error=error, outcome=text.encode())
        elif why := _undone(approval, self._clock()):
            await self._end(task, Command.FAIL, error=why)
        else:
            await self._progress.postpone(task, APPROVAL_SECONDS)

    async def _fail(self, task: Task, error: AutopilotError) -> None:
        await self._end(task, Command.FAIL, error=error_of(error))

    async def _end(
        self, task: Task, command: Command, *, error: dict[str, str] | None = None, outcome: bytes = b""
    ) -> None:
        await self._progress.tell(await self._progress.end(task, command, error=error, outcome=outcome))


def _caller(task: Task) -> Caller:
    """Return who asked for a task, with what they might do then."""
    return Caller(
        Trace(task.traceparent.encode("ascii")),
        key=task.id,
        hops=task.hops,
        may=authority(Identity(task.requested_by, frozenset(task.scopes))),
        name=task.requested_by,
    )


def _refusal(autopilot: str, status: int) -> dict[str, str]:
    return {"code": REFUSED, "detail": f"'{autopilot}' answered {status}"}


def _undone(approval: Approval, now: float) -> dict[str, str] | None:
    """Return why an approval will not lead to an answer any more, None while it may."""
    if approval.state is ApprovalState.REFUSED:
        return {"code": "forbidden", "detail": f"{approval.decided_by!r} refused it"}
    if approval.state is ApprovalState.EXPIRED:
        return {"code": "approval_required", "detail": "nobody approved it in time"}
    if approval.state is ApprovalState.APPROVED and now >= _last_try(approval):
        return approval.error or {"code": "forward_failed", "detail": "it was approved, but got no answer"}
    return None


def _last_try(approval: Approval) -> float:
    """Return until when whoever approved a task may still be sending it."""
    decided = approval.decided_at or approval.requested_at
    return max(decided + VALID_SECONDS, approval.running_until or 0.0)
