"""Steps whose task waits until a second person approves it: whoever does so sends it, and here is looked."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from infra.clock import Clock
from router.approvals import VALID_SECONDS, Approval
from router.approvals import State as ApprovalState
from router.errors import Conflict, NotFound
from router.record import Record
from router.run import Run, State
from router.runends import Ends
from router.runsend import Failure, Sender


class Approvals(Protocol):
    """What a run needs to know of tasks that wait for a second person, see `router.approvals.Approvals`."""

    async def get(self, approval_id: str) -> Approval:
        """Return a request."""
        ...

    async def outcome(self, approval_id: str) -> str | None:
        """Return what an approved task answered."""
        ...

    async def withdraw(self, approval_id: str, by: str) -> Approval:
        """Refuse a task that is not wanted any more."""
        ...


class Waits:
    """Looks what became of questions. Raises `Stale` as `Ends` does, and `StoreUnavailable`."""

    def __init__(self, ends: Ends, sender: Sender, approvals: Approvals, clock: Clock) -> None:
        self._ends = ends
        self._sender = sender
        self._approvals = approvals
        self._clock = clock

    async def look(self, run: Run, record: Record, approval_id: str) -> None:
        """See what became of the question whether a task may be sent. Whoever approves it sends it."""
        try:
            approval = await self._approvals.get(approval_id)
            text = await self._approvals.outcome(approval_id)
        except NotFound:
            gone = {"code": "approval_required", "detail": "the question is no longer known"}
            await self._failed(run, record, Failure(gone, answered=True))
            return
        answer: dict[str, Any] = {} if text is None else msgspec.json.decode(text)
        if text is not None and answer["ok"]:
            result = self._sender.kept(msgspec.json.encode(answer["result"]))
            await self._ends.approved(run, record, result, answer["autopilot"])
        elif text is not None:
            result = msgspec.json.encode(answer["result"])
            failure = self._sender.refused(answer["autopilot"], answer["status"], result)
            await self._failed(run, record, failure)
        elif (why := _undone(approval, self._clock())) is not None:
            await self._failed(run, record, why)
        elif run.state in {State.STOPPING, State.STOPPED} and await self._withdrawn(approval_id, run):
            await self._ends.released(run, record)
        else:
            await self._ends.look_again(run, record)

    async def _withdrawn(self, approval_id: str, run: Run) -> bool:
        try:
            await self._approvals.withdraw(approval_id, run.requested_by)
        except Conflict:
            return False  # it was decided at this moment
        return True

    async def _failed(self, run: Run, record: Record, failure: Failure) -> None:
        """Write that the attempt failed which the question was about: asking was none."""
        await self._ends.failed(run, replace(record, attempts=record.attempts + 1), failure)


def _undone(approval: Approval, now: float) -> Failure | None:
    """Return why an approval will not lead to an answer any more, None while it may."""
    code, detail = "approval_required", "nobody approved it in time"
    if approval.state is ApprovalState.REFUSED:
        refused = {"code": "forbidden", "detail": f"{approval.decided_by!r} refused it"}
        return Failure(refused, answered=True, pointless=True)
    if approval.state is ApprovalState.EXPIRED:
        return Failure({"code": code, "detail": detail}, answered=True)
    decided = approval.decided_at or approval.requested_at
    last = max(decided + VALID_SECONDS, approval.running_until or 0.0)
    if approval.state is ApprovalState.APPROVED and now >= last:
        error = approval.error or {"code": "forward_failed", "detail": "it was approved, but got no answer"}
        return Failure(error, lost=True, pointless=True)
    return None
