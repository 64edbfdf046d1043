"""What a person, or whoever stands in for one, can do to a run: each command, where it is possible at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from infra.table import Check
from router.draft import INFO, WARNING, Draft
from router.errors import Conflict, Invalid, NotFound, StoreUnavailable
from router.record import STATES, Mark, Record, StepState
from router.rollback import Rollback
from router.run import FROM, OF_STEPS, Command, Run, State
from router.runrows import HALTED, RunRows
from router.runwaits import Approvals
from router.runwrites import RunWrites

log = logging.getLogger("router")

MAX_REASON = 500
_STARTING = frozenset({Command.START, Command.RESUME})
_REASONED = frozenset({Command.MARK_DONE})


class Given(NamedTuple):
    """A command, who gave it, and for which step and why."""

    command: Command
    by: str
    step: str = ""
    reason: str = ""

    def check(self) -> None:
        """Raise `Invalid` for what is missing, and what is too much."""
        problems = []
        if bool(self.step) != (self.command in OF_STEPS):
            problems.append(("step", "is required" if not self.step else "is of no use to this command"))
        if self.command in _REASONED and not self.reason.strip():
            problems.append(("reason", "is required"))
        if len(self.reason) > MAX_REASON:
            problems.append(("reason", f"must have at most {MAX_REASON} characters"))
        if problems:
            raise Invalid(problems)


class Commanding:
    """Gives commands to runs."""

    def __init__(self, rows: RunRows, writes: RunWrites, rollback: Rollback, approvals: Approvals) -> None:
        self._rows = rows
        self._writes = writes
        self._rollback = rollback
        self._approvals = approvals

    async def command(self, run_id: str, given: Given) -> Run:
        """Give a command, and return the run. Raises as `Runs.command`."""
        given.check()

        async def edit(draft: Draft) -> None:
            await self.edit(draft, given)

        if given.command in _STARTING:
            await self.check_halted()
        if given.command is Command.SKIP_STEP:
            await self._withdraw_of(run_id, given)
        run = await self._writes.change(run_id, edit)
        if given.command is Command.STOP:
            await self._withdraw_all(run, given.by)
        return run

    async def edit(self, draft: Draft, given: Given) -> None:
        """Change a draft as a command wants. Raises `Conflict` and `NotFound`."""
        state = draft.run.after(given.command)
        detail: dict[str, Any] = {"by": given.by, **({"reason": given.reason} if given.reason else {})}
        if given.command in OF_STEPS:
            record = await self._step(draft, given)
            draft.tell(f"step.{given.command.value}", INFO, record, **detail)
            _STEPS[given.command](draft, record, given)
        else:
            draft.tell(given.command.value, INFO, **detail)
        draft.change(state=state, ended_at=None)
        if given.command is Command.ROLLBACK:
            await self._rollback.begin(draft)
        elif given.command in _STARTING:
            draft.change(started_at=draft.run.started_at or draft.now, reason="")
            draft.writes.append(Check(HALTED, 0))
        elif given.command in {Command.PAUSE, Command.STOP}:
            draft.change(reason=given.reason or f"{given.command.value} by {given.by}")

    async def check_halted(self) -> None:
        """Raise `Conflict` while all runs are halted."""
        if (halted := await self._rows.halted()) is not None:
            raise Conflict(f"all runs are halted by {halted['by']}: {halted['reason']}")

    async def _step(self, draft: Draft, given: Given) -> Record:
        """Return the step of a command. Raises `NotFound`, and `Conflict` where its state forbids it."""
        number = draft.charter.number(given.step)
        record = await draft.record(number)
        mark = draft.frontier.mark_of(number)
        wrong = mark not in FROM[given.command]
        if wrong or (draft.run.state is State.NEEDS_HUMAN) != (mark == Mark.NOT_UNDONE):
            state = record.state if mark == Mark.ACTIVE else STATES[mark]
            raise Conflict(f"{given.command.value} is not possible for a step that is {state.value}")
        return record

    async def _withdraw_of(self, run_id: str, given: Given) -> None:
        """Take back the question whether a step's task may be sent. Raises `Conflict` when it may already."""
        run = await self._rows.get(run_id)
        run.after(given.command)
        number = (await self._rows.charter(run)).number(given.step)
        record = await self._rows.record(run_id, number)
        if record is not None and record.approval is not None:
            try:
                await self._approvals.withdraw(record.approval, given.by)
            except NotFound:
                return

    async def _withdraw_all(self, run: Run, by: str) -> None:
        """Take back all questions of a run; what cannot be now is when somebody looks."""
        for number, mark in enumerate(run.marks):
            if mark != Mark.ASKED:
                continue
            try:
                record = await self._rows.record(run.id, number)
                if record is not None and record.approval is not None:
                    await self._approvals.withdraw(record.approval, by)
            except (Conflict, NotFound):
                continue  # it was decided, or is being sent: that cannot be called back
            except StoreUnavailable:
                log.warning("run %s is stopped; its questions are withdrawn a little later", run.id)
                return


def _retry(draft: Draft, record: Record, given: Given) -> None:
    """Let a step be done once more, with as many attempts as it had at first."""
    step = draft.step(record.number)
    done = draft.frontier.mark_of(record.number) == Mark.COMPLETED
    draft.again(
        replace(
            record,
            key=record.key + 1 if done else record.key,
            acted=record.acted and not done,
            allowed=record.attempts + step.attempts,
            approved_by="" if done else record.approved_by,
            by_hand="",
            meta=None,
            fix="",
            ended_at=None,
        ),
        reason=given.reason,
    )
    draft.change(retries_left=max(draft.run.retries_left, step.attempts))


def _skip(draft: Draft, record: Record, given: Given) -> None:
    skipped = replace(
        record,
        state=StepState.SKIPPED,
        turn=record.turn + 1,
        approval=None,
        next_at=None,
        ended_at=draft.now,
        reason=given.reason or f"skipped by {given.by}",
    )
    draft.put(skipped, Mark.SKIPPED)


def _mark_done(draft: Draft, record: Record, given: Given) -> None:
    """Let a step be verified instead of done. What could not be undone is taken for undone."""
    if record.state is StepState.NOT_UNDONE:
        undone = replace(record, state=StepState.UNDONE, reason=given.reason, by_hand=given.by)
        draft.put(undone, Mark.UNDONE)
        return
    draft.again(record, by_hand=given.by, reason=given.reason, allowed=record.attempts + 1)


def _approve(draft: Draft, record: Record, given: Given) -> None:
    draft.again(record, approved_by=given.by, reason=given.reason)


def _refuse(draft: Draft, record: Record, given: Given) -> None:
    error = {
        "code": "forbidden",
        "detail": f"{given.by} refused it{f': {given.reason}' if given.reason else ''}",
    }
    optional = draft.step(record.number).optional
    refused = replace(
        record,
        state=StepState.FAILED if optional else StepState.BLOCKED,
        turn=record.turn + 1,
        error=error,
        reason=given.reason,
        ended_at=draft.now,
    )
    draft.put(refused, Mark.FAILED if optional else Mark.BLOCKED)
    if not optional:
        draft.tell("escalated", WARNING, refused, error=error)


_STEPS: Mapping[Command, Callable[[Draft, Record, Given], None]] = {
    Command.RETRY_STEP: _retry,
    Command.SKIP_STEP: _skip,
    Command.MARK_DONE: _mark_done,
    Command.APPROVE_STEP: _approve,
    Command.REFUSE_STEP: _refuse,
}
