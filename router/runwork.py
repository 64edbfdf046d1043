"""A step's turn: claim it, do what it has to do, verify that, and write what came of it.

A turn that is cut off anywhere is taken again by whoever gets its message next, under the same idempotency
key, so that autopilots tell a repeat. Whoever was slower finds the step changed and writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from infra.clock import Clock
from infra.queue import Message
from router.diagnosis import changed, fix_of
from router.draft import Draft, Told, results_of
from router.errors import Invalid, NotFound, Stale
from router.graph import Action, Step
from router.record import Record, StepState
from router.run import Charter, Run, State
from router.runends import CRASHED, Ends
from router.runrows import RunRows
from router.runsend import NOT_VERIFIED, Answer, Asked, Failure, Sender, Sending, Sent, Working
from router.runwaits import Waits
from router.runwrites import MOST_TRIES, RunWrites
from router.worker import HOLD_SECONDS, Later, Poison

log = logging.getLogger("router")

MOST_BEGINNINGS = 3
"""How often one attempt may be begun by somebody who does not live to see its end."""
MOST_DELIVERIES = 15
"""How often a message may be given out. A queue itself gives up a little later."""
MARGIN = 0.2
"""Seconds that are left of a process, or of its time for a message, when a task has ended."""
SHORTEST = 1.0
"""Seconds below which nothing is worth beginning."""


class _OutOfTime(Exception):
    """Raise when this process has no time left for what has to be done next."""


class StepWork:
    """The handler of messages about steps."""

    def __init__(
        self,
        rows: RunRows,
        writes: RunWrites,
        ends: Ends,
        sender: Sender,
        waits: Waits,
        *,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._writes = writes
        self._ends = ends
        self._sender = sender
        self._waits = waits
        self._clock = clock
        self._monotonic = monotonic

    async def __call__(self, message: Message, seconds: float) -> None:
        """Do what the message asks, in at most so many seconds.

        Raises `Later` and `Poison` as a handler does, and `StoreUnavailable`.
        """
        until = self._monotonic() + seconds - MARGIN
        run = await self._rows.find(message.body["run"])
        record = await self._rows.record(message.body["run"], message.body["step"]) if run else None
        if run is None or record is None or record.turn != message.body["turn"]:
            return  # it was forgotten, or went on already
        try:
            if message.attempt > MOST_DELIVERIES:
                await self._give_up(run, record)
            elif record.approval is not None:
                await self._waits.look(run, record, record.approval)
            elif record.state is StepState.WAITING:
                await self._ends.released(run, record)
            elif record.state in {StepState.READY, StepState.RUNNING}:
                await self._take(run.id, record, until)
        except Stale:
            # Somebody commanded otherwise, which makes our message void when it comes again; or somebody else
            # is at it, and should that one die, it may be the only one left.
            raise Later(HOLD_SECONDS) from None
        except _OutOfTime:
            raise Later(0.0) from None

    async def _take(self, run_id: str, record: Record, until: float) -> None:
        if until - self._monotonic() < SHORTEST:
            raise _OutOfTime
        if record.begun >= MOST_BEGINNINGS:
            reason = f"it was begun {record.begun} times, and whoever began it did not live to see its end"
            run = await self._rows.get(run_id)
            failure = Failure({"code": CRASHED, "detail": reason}, lost=True, pointless=True)
            await self._ends.failed(run, replace(record, attempts=record.allowed), failure)
            return
        begun = await self._begin(run_id, record)
        if begun is None:
            return
        run, record = begun
        record, sent = await self._do(run, record, until)
        if isinstance(sent, Answer):
            await self._ends.completed(run, record)
        elif isinstance(sent, Asked):
            await self._ends.asked(run, record, sent.approval)
        elif isinstance(sent, Working):
            await self._ends.working(run, record)
        else:
            await self._ends.failed(run, record, sent)

    async def _begin(self, run_id: str, read: Record) -> tuple[Run, Record] | None:
        """Claim a step, and return it with its run; None when it may not run now, and was let go of.

        Raises `Stale` when it is somebody else's.
        """
        async with self._writes.lock(run_id):
            for _ in range(MOST_TRIES):
                run = await self._rows.get(run_id)
                record = await self._rows.record(run_id, read.number)
                if record is None or record.revision != read.revision:
                    raise Stale("the step is somebody else's by now")
                if record.state is StepState.READY and run.state is not State.RUNNING:
                    halted = None
                    break
                begun = _begun(record, self._clock())
                try:
                    return run, await self._writes.begin(run, begun, _started(run, begun))
                except Stale:
                    halted = await self._rows.halted()
                    if halted is not None:
                        break
            else:
                raise Stale("others changed the run again and again")
        await self._ends.released(run, record, halted)
        return None

    async def _do(self, run: Run, record: Record, until: float) -> tuple[Record, Sent]:
        """Do what a step has to do, and return it with what came of that."""
        charter = await self._rows.charter(run)
        step = charter.graph.steps[record.number]
        if record.fix and (fix := fix_of(step, record.fix)) is not None:
            sent = await self._send(run, charter, step, record, fix, "fix", until)
            if not isinstance(sent, Answer):
                return record, _hindered(sent, f"the fix {record.fix}")
            record = await self._writes.update(run, replace(record, fix=""))
        if step.action is not None and not record.acted and not record.by_hand:
            action = changed(step.action, record.meta)
            sent = await self._send(run, charter, step, record, action, "", until)
            if not isinstance(sent, Answer):
                return record, sent
            record = replace(record, acted=True, result=sent.result, autopilot=sent.autopilot)
            if step.verify:
                record = await self._writes.update(run, record)
        for number, verify in enumerate(step.verify):
            sent = await self._send(run, charter, step, record, verify, f"verify{number}", until)
            if not isinstance(sent, Answer):
                return record, _hindered(sent, f"verify[{number}]", code=NOT_VERIFIED)
        return record, Answer(record.result, record.autopilot)

    async def _send(
        self, run: Run, charter: Charter, step: Step, record: Record, action: Action, part: str, until: float
    ) -> Sent:
        """Send one of the tasks of a step."""

        async def read(number: int) -> Record | None:
            return record if number == record.number else await self._rows.record(run.id, number)

        try:
            results = await results_of(action.meta, charter, read)
            filled = action.filled(charter.params, results, run.words)
        except Invalid as error:
            return Failure({"code": error.code, "detail": error.detail[:500]}, pointless=True)
        left = until - self._monotonic()
        if left < SHORTEST:
            raise _OutOfTime
        seconds = min(self._sender.time_of(filled, step.timeout_seconds), left)
        again = record.begun > 1 or record.unsure
        return await self._sender.send(run, Sending(filled, key_of(run, record, part), seconds, again))

    async def _give_up(self, run: Run, record: Record) -> None:
        reason = f"its message was given out {MOST_DELIVERIES} times, and nobody came to an end with it"
        failure = Failure({"code": CRASHED, "detail": reason}, lost=True, pointless=True)
        await self._ends.failed(run, replace(record, attempts=record.allowed), failure)
        raise Poison(reason)


class GoWork:
    """The handler of messages that start what could not all start in one transaction."""

    def __init__(self, writes: RunWrites) -> None:
        self._writes = writes

    async def __call__(self, message: Message, _: float) -> None:
        """Start what can start. Raises `StoreUnavailable`."""

        async def edit(draft: Draft) -> None:
            """Change nothing: what can start does."""

        try:
            await self._writes.change(message.body["run"], edit)
        except NotFound:
            return


def key_of(run: Run, record: Record, part: str = "") -> str:
    """Return the idempotency key of a step's task: the same until an attempt is known to have failed."""
    return ".".join(filter(None, (run.id, record.id, str(record.key), part)))


def _begun(record: Record, now: float) -> Record:
    return replace(
        record,
        state=StepState.RUNNING,
        begun=record.begun + 1,
        attempts=record.attempts + (record.begun == 0),
        started_at=record.started_at or now,
        ended_at=None,
        next_at=None,
    )


def _started(run: Run, record: Record) -> Told:
    detail = {"step": record.id, "attempt": record.attempts, "key": key_of(run, record)}
    return Told(
        "run.step.started", "INFO", detail if record.begun == 1 else {**detail, "begun": record.begun}
    )


def _hindered(sent: Sent, what: str, code: str = "") -> Failure:
    """Return the failure of a step whose fix or verification did not pass."""
    if isinstance(sent, Failure):
        told = {"code": code or sent.error["code"], "detail": f"{what}: {sent.error['detail']}"[:500]}
        answered = sent.answered and bool(code)
        return sent._replace(error=told, answered=answered, lost=False)
    if isinstance(sent, Asked):
        why = f"{what} may not wait for an approval"
        return Failure({"code": "approval_required", "detail": why}, pointless=True)
    return Failure({"code": code or "deadline", "detail": f"{what} is still at work"}, wait=5.0)
