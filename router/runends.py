"""What becomes of a step after its turn: it is completed, tried again, given up, or waits.

All of it is written by whoever began the turn, and only while nobody else did: a step that was changed since
is somebody else's, and `Stale` says so.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from router.diagnosing import Diagnosing
from router.diagnosis import Decision
from router.draft import ERROR, INFO, SUCCESS, WARNING, Draft
from router.errors import Stale
from router.record import Mark, Record, StepState
from router.run import Run, State
from router.runsend import Failure
from router.runwrites import RunWrites

APPROVAL_SECONDS = 5.0
"""How often a step that waits for a second person looks whether that one has decided."""
WORKING_SECONDS = 5.0
MOST_LOOKS = 60
"""How often a task may be found to be still at work; after that it is taken for lost."""
CRASHED = "crashed"
"""The code of a failure that nobody lived to tell of."""


class Ends:
    """Writes what came of a step. Each verb raises `Stale` when the step is somebody else's by now."""

    def __init__(
        self,
        writes: RunWrites,
        diagnosing: Diagnosing,
    ) -> None:
        self._writes = writes
        self._diagnosing = diagnosing

    async def completed(self, run: Run, record: Record) -> Run:
        """Complete a step."""

        async def edit(draft: Draft) -> None:
            await _hold(draft, record)
            done = draft.done(
                replace(
                    record,
                    state=StepState.COMPLETED,
                    begun=0,
                    unsure=False,
                    error=None,
                    output="",
                    ended_at=draft.now,
                )
            )
            draft.put(done, Mark.COMPLETED)
            draft.tell("step.completed", SUCCESS, done, attempt=done.attempts, autopilot=done.autopilot)

        return await self._writes.change(run.id, edit)

    async def failed(self, run: Run, record: Record, failure: Failure) -> Run:
        """Try a step again, or give it up. What is said about the failure is asked for and kept first."""
        decision = None
        if not _is_spent(run, record):
            decision = await self._diagnosing.decision(run, record, failure)

        async def edit(draft: Draft) -> None:
            await _hold(draft, record)
            after = draft.done(_after(record, failure, draft.now))
            if decision is not None:
                after = self._diagnosing.keep(draft, after, decision)
            draft.tell("step.failed", ERROR, after, attempt=after.attempts, error=failure.error)
            _fail(draft, after, failure, decision)

        return await self._writes.change(run.id, edit)

    async def working(self, run: Run, record: Record) -> Run:
        """Look again later after a task that is still at work under its key: that was no attempt."""
        if record.looks >= MOST_LOOKS:
            told = {"code": "deadline", "detail": f"it was still at work after {MOST_LOOKS} looks"}
            return await self.failed(run, record, Failure(told, lost=True))

        async def edit(draft: Draft) -> None:
            await _hold(draft, record)
            draft.again(
                record,
                delay=WORKING_SECONDS,
                attempts=record.attempts - 1,
                looks=record.looks + 1,
                unsure=True,
            )

        return await self._writes.change(run.id, edit)

    async def asked(self, run: Run, record: Record, approval: str) -> Run:
        """Let a step wait until somebody else has decided about its task: that was no attempt."""

        async def edit(draft: Draft) -> None:
            await _hold(draft, record)
            waiting = replace(
                record,
                state=StepState.WAITING,
                turn=record.turn + 1,
                begun=0,
                attempts=record.attempts - 1,
                approval=approval,
                next_at=None,
            )
            draft.send(draft.put(waiting, Mark.ASKED), APPROVAL_SECONDS)
            draft.tell("step.waiting", INFO, waiting, approval_id=approval)

        return await self._writes.change(run.id, edit)

    async def look_again(self, run: Run, record: Record) -> None:
        """Let a step wait on for a second person."""
        waiting = replace(record, turn=record.turn + 1)
        await self._writes.update(run, waiting, delay=APPROVAL_SECONDS)

    async def approved(self, run: Run, record: Record, result: Any, autopilot: str) -> Run:
        """Keep what a task answered that somebody approved and sent; now it is verified."""

        async def edit(draft: Draft) -> None:
            await _hold(draft, record)
            acted = replace(record, acted=True, result=result, autopilot=autopilot)
            draft.again(draft.done(acted))

        return await self._writes.change(run.id, edit)

    async def released(self, run: Run, record: Record, halted: dict[str, Any] | None = None) -> Run:
        """Let a step go that is not to run now, and pause its run when all are halted."""

        async def edit(draft: Draft) -> None:
            await _hold(draft, record)
            unsure = record.unsure or record.state is StepState.RUNNING
            draft.again(record, unsure=unsure)
            if halted is not None and draft.run.state is State.RUNNING:
                reason = f"all runs are halted by {halted['by']}"
                draft.change(state=State.PAUSING, reason=reason)
                draft.tell("halted", WARNING, reason=reason)

        return await self._writes.change(run.id, edit)


async def _hold(draft: Draft, record: Record) -> None:
    """Raise `Stale` when a step was changed since it was read."""
    now = await draft.record(record.number)
    if now.revision != record.revision:
        raise Stale("the step is somebody else's by now")


def _is_spent(run: Run, record: Record) -> bool:
    """Whether a step that failed may not be tried again."""
    return bool(record.by_hand) or record.attempts >= record.allowed or run.retries_left <= 0


def _after(record: Record, failure: Failure, now: float) -> Record:
    """Return a step after a failure: by which key it is sent again, and what of it need not be."""
    return replace(
        record,
        key=record.key + 1 if failure.answered else record.key,
        unsure=not failure.answered and (record.unsure or failure.lost),
        error=failure.error,
        output=failure.output,
        autopilot=failure.autopilot or record.autopilot,
        fix="",
        ended_at=now,
    )


def _fail(draft: Draft, record: Record, failure: Failure, decision: Decision | None) -> None:
    step = draft.step(record.number)
    kind = decision.kind if decision else ""
    helped = kind == "fix" or bool(decision and decision.meta)
    given_up = _is_spent(draft.run, record) or kind == "escalate" or (failure.pointless and not helped)
    record = replace(record, by_hand="")
    if failure.answered:
        record = replace(record, acted=False, approved_by=record.approved_by if step.action else "")
    if kind == "skip":
        skipped = replace(
            record, state=StepState.SKIPPED, begun=0, reason=decision.reason if decision else ""
        )
        draft.put(skipped, Mark.SKIPPED)
        draft.tell("step.skipped", WARNING, skipped, reason=skipped.reason)
    elif not given_up:
        draft.change(retries_left=draft.run.retries_left - 1)
        changes: dict[str, Any] = {"fix": decision.fix} if decision and kind == "fix" else {}
        if decision and decision.meta:
            changes["meta"] = decision.meta
        draft.again(record, delay=max(step.cool_down_seconds, failure.wait), **changes)
    elif step.optional:
        draft.put(replace(record, state=StepState.FAILED, begun=0), Mark.FAILED)
        draft.tell("step.given_up", WARNING, record, error=failure.error)
    else:
        draft.put(replace(record, state=StepState.BLOCKED, begun=0), Mark.BLOCKED)
        draft.tell("escalated", ERROR, record, error=failure.error, attempts=record.attempts)
