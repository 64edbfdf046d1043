"""Rolls a run back: what its steps did is undone one after the other, the last first, each once.

An undo that fails ends that, with a state which says that a person has to see to it: what would come next
may not be undone before it. A rollback goes on where the one before it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from infra.clock import NewId
from infra.queue import Message
from router.draft import ERROR, INFO, SUCCESS, UNDO, Draft, Told, results_of
from router.errors import Conflict, Invalid, Stale
from router.order import undo_order
from router.record import Mark, Record, StepState
from router.run import Charter, Kept, Run, State
from router.runrows import RunRows
from router.runsend import Answer, Asked, Failure, Sender, Sending, Sent, Working
from router.runwork import MARGIN, MOST_BEGINNINGS, SHORTEST
from router.runwrites import RunWrites
from router.worker import HOLD_SECONDS, Later

_UNDONE = frozenset({StepState.UNDONE})


def to_undo(charter: Charter, records: Mapping[int, Record]) -> list[int]:
    """Return the numbers of the steps that are to be undone, the first first."""
    steps = charter.graph.steps
    acted = [one for one in records.values() if one.place and one.state not in _UNDONE]
    done = [one.id for one in sorted(acted, key=lambda one: one.place) if steps[one.number].undo is not None]
    return [charter.number(id_) for id_ in undo_order(charter.graph, done)]


class Rollback:
    """Begins rollbacks, and is the handler of messages about what to undo next."""

    def __init__(
        self,
        rows: RunRows,
        writes: RunWrites,
        sender: Sender,
        *,
        new_id: NewId,
        monotonic: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._writes = writes
        self._sender = sender
        self._new_id = new_id
        self._monotonic = monotonic

    async def begin(self, draft: Draft) -> None:
        """Begin to roll a run back. Raises `Conflict`."""
        if draft.frontier.counts[Mark.ASKED]:
            raise Conflict("a step waits for a second person: have that refused, or wait for it")
        numbers = to_undo(draft.charter, await self._rows.records(draft.run.id))
        if not numbers:
            draft.change(state=State.ROLLED_BACK, ended_at=draft.now, undo=None)
            draft.tell(State.ROLLED_BACK.value, SUCCESS, steps=0)
            return
        text = msgspec.json.encode(numbers)
        name = self._new_id("undo")
        kept, writes = await self._rows.keep(draft.run.id, name, text, draft.run.kept_until)
        draft.writes += writes
        draft.change(undo=kept, undone=0, ended_at=None)
        _send_next(draft)

    async def __call__(self, message: Message, seconds: float) -> None:
        """Undo what the message names. Raises `Later` as a handler does, and `StoreUnavailable`."""
        until = self._monotonic() + seconds - MARGIN
        try:
            await self._next(message.body, until)
        except Stale:
            # Somebody else is at it. Should that one die, this message may be the only one left.
            raise Later(HOLD_SECONDS) from None

    async def _next(self, body: Mapping[str, Any], until: float) -> None:
        run = await self._rows.find(body["run"])
        if run is None or run.state is not State.ROLLING_BACK or run.undo is None:
            return
        if (run.undo.name, run.undone) != (body["order"], body["at"]):
            return  # that is done already
        number = await self._number(run, run.undo)
        record = await self._rows.record(run.id, number)
        assert record is not None
        if record.undo_begun >= MOST_BEGINNINGS:
            reason = f"its undo was begun {record.undo_begun} times, and nobody lived to see its end"
            await self._failed(run, record, Failure({"code": "crashed", "detail": reason}, lost=True))
            return
        if until - self._monotonic() < SHORTEST:
            raise Later(0.0)
        begun = replace(record, undo_begun=record.undo_begun + 1)
        try:
            told = Told("run.step.undoing", INFO, {"step": record.id, "key": _key(run, record)})
            record = await self._writes.begin(run, begun, told)
        except Stale:
            if (halted := await self._rows.halted()) is None:
                raise
            why = {"code": "halted", "detail": f"all runs are halted by {halted['by']}"}
            await self._failed(run, record, Failure(why))
            return
        sent = await self._undo(run, record, until)
        if isinstance(sent, Answer):
            await self._done(run, record)
        elif isinstance(sent, Working):
            await self._writes.update(run, replace(record, undo_begun=record.undo_begun - 1))
            raise Later(5.0)
        else:
            await self._failed(run, record, _failure_of(sent))

    async def _number(self, run: Run, kept: Kept) -> int:
        text = await self._rows.text(run, kept)
        if text is None:
            raise Conflict("the order in which to undo is no longer there")
        numbers: list[int] = msgspec.json.decode(text)
        return numbers[run.undone]

    async def _undo(self, run: Run, record: Record, until: float) -> Sent:
        charter = await self._rows.charter(run)
        step = charter.graph.steps[record.number]
        assert step.undo is not None

        async def read(number: int) -> Record | None:
            return record if number == record.number else await self._rows.record(run.id, number)

        try:
            results = await results_of(step.undo.meta, charter, read)
            filled = step.undo.filled(charter.params, results, run.words)
        except Invalid as error:
            return Failure({"code": error.code, "detail": error.detail[:500]}, pointless=True)
        seconds = min(self._sender.time_of(filled, step.timeout_seconds), until - self._monotonic())
        again = record.undo_begun > 1
        return await self._sender.send(run, Sending(filled, _key(run, record), seconds, again))

    async def _done(self, run: Run, record: Record) -> None:
        async def edit(draft: Draft) -> None:
            _hold(draft, await draft.record(record.number), record)
            undone = replace(record, state=StepState.UNDONE, ended_at=draft.now, error=None)
            draft.put(undone, Mark.UNDONE)
            draft.tell("step.undone", SUCCESS, undone)
            draft.change(undone=draft.run.undone + 1)
            if await self._is_last(draft.run):
                draft.change(state=State.ROLLED_BACK, ended_at=draft.now)
                draft.tell(State.ROLLED_BACK.value, SUCCESS, steps=draft.run.undone)
            else:
                _send_next(draft)

        await self._writes.change(run.id, edit)

    async def _is_last(self, run: Run) -> bool:
        text = await self._rows.text(run, run.undo) if run.undo else None
        return text is None or run.undone >= len(msgspec.json.decode(text))

    async def _failed(self, run: Run, record: Record, failure: Failure) -> None:
        """Leave it to a person."""

        async def edit(draft: Draft) -> None:
            _hold(draft, await draft.record(record.number), record)
            stuck = replace(
                record,
                state=StepState.NOT_UNDONE,
                undo_key=record.undo_key + 1 if failure.answered else record.undo_key,
                undo_begun=0,
                error=failure.error,
                output=failure.output,
                ended_at=draft.now,
            )
            draft.put(stuck, Mark.NOT_UNDONE)
            reason = f"{stuck.id} could not be undone: {failure.error['detail']}"
            draft.change(state=State.NEEDS_HUMAN, reason=reason, ended_at=draft.now)
            draft.tell("escalated", ERROR, stuck, error=failure.error, reason=reason)
            draft.tell(State.NEEDS_HUMAN.value, ERROR, reason=reason)

        await self._writes.change(run.id, edit)


def _send_next(draft: Draft) -> None:
    run = draft.run
    assert run.undo is not None
    body = {"kind": UNDO, "run": run.id, "order": run.undo.name, "at": run.undone}
    draft.messages.append((body, 0.0))


def _hold(draft: Draft, now: Record, record: Record) -> None:
    if now.revision != record.revision or draft.run.state is not State.ROLLING_BACK:
        raise Stale("somebody else undoes it by now")


def _key(run: Run, record: Record) -> str:
    return f"{run.id}.{record.id}.undo{record.undo_key}"


def _failure_of(sent: Asked | Failure) -> Failure:
    if isinstance(sent, Failure):
        return sent
    why = "it takes somebody else's approval: undo it by hand, and mark it as done"
    return Failure({"code": "approval_required", "detail": why})
