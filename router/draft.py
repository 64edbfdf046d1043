"""A run while it is changed: what will be written of it, all in one transaction, and what starts next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from infra.queue import Body
from infra.table import Write
from router.errors import Invalid
from router.frontier import Frontier
from router.graph import Step
from router.record import Mark, Record, StepState
from router.run import Charter, Run, State
from router.template import fill, references

STEP, GO, UNDO = "run.step", "run.go", "run.undo"
"""Kinds of messages: a step's next turn, the next steps of a run, and the next undo of a rollback."""

MOST_STARTED = 20
"""Steps that start in one transaction: each takes up to four writes of the hundred there are."""

INFO, SUCCESS, WARNING, ERROR = "INFO", "SUCCESS", "WARNING", "ERROR"

Load = Callable[[int], Awaitable[Record | None]]


async def results_of(
    value: Any, charter: Charter, read: Callable[[int], Awaitable[Record | None]]
) -> dict[str, Any]:
    """Return the results of the steps that a value refers to, as far as there are any."""
    asked = {
        one.reference.name for one in references(value) if one.reference and one.reference.kind == "steps"
    }
    results = {}
    for name in sorted(asked):
        record = await read(charter.number(name))
        if record is not None and (record.acted or record.place):
            results[name] = record.result
    return results


class Told(NamedTuple):
    """Something to be told of a run, or of one of its steps."""

    kind: str
    level: str
    detail: dict[str, Any]


class Draft:
    """A run as it is to be. `load` reads the record of a step by its number, None where there is none."""

    def __init__(self, run: Run, charter: Charter, frontier: Frontier, now: float, load: Load) -> None:
        self.was = run
        self.run = run
        self.charter = charter
        self.frontier = frontier
        self.now = now
        self.told: list[Told] = []
        self.messages: list[tuple[Body, float]] = []
        self.changed: dict[int, Record] = {}
        self.writes: list[Write] = []
        """What else is written with it."""
        self._known: dict[int, Record] = {}
        self._load = load

    def step(self, number: int) -> Step:
        """Return a step by its number in the graph."""
        return self.charter.graph.steps[number]

    async def record(self, number: int) -> Record:
        """Return what is to be kept of a step, as far as that is decided."""
        if number not in self._known:
            step = self.step(number)
            untouched = self.frontier.mark_of(number) == Mark.PENDING and not step.approval
            kept = None if untouched else await self._load(number)
            self._known[number] = kept or Record(id=step.id, number=number, allowed=step.attempts)
        return self._known[number]

    async def text(self, template: str) -> str:
        """Return a text with its references filled in, or as it is where that cannot be done."""
        try:
            results = await results_of(template, self.charter, self.record)
            return str(fill(template, self.charter.params, results, self.run.words))
        except Invalid:
            return template

    def put(self, record: Record, mark: str) -> Record:
        """Change a step. `record` has the revision it was read at."""
        self._known[record.number] = self.changed[record.number] = record
        self.frontier.mark(record.number, mark)
        return record

    def again(self, record: Record, *, delay: float = 0.0, **changes: Any) -> Record:
        """Let a step start again when its turn comes, or first wait `delay` seconds."""
        fresh: dict[str, Any] = {"begun": 0, "looks": 0, "approval": None, **changes}
        waiting = replace(
            record,
            state=StepState.WAITING if delay > 0 else StepState.PENDING,
            turn=record.turn + 1,
            next_at=self.now + delay if delay > 0 else None,
            **fresh,
        )
        if delay > 0:
            self.send(waiting, delay)
            return self.put(waiting, Mark.COOLING)
        step = self.step(record.number)
        asks = bool(step.approval) and not waiting.approved_by and not waiting.by_hand
        return self.put(waiting, Mark.PENDING if asks else Mark.AGAIN)

    def done(self, record: Record) -> Record:
        """Return a record with the place of its effect among all of the run, if it has one."""
        if not record.acted or record.place:
            return record
        self.change(effects=self.run.effects + 1)
        return replace(record, place=self.run.effects)

    def send(self, record: Record, delay: float = 0.0) -> None:
        """Send the message by which a step has its turn."""
        body = {"kind": STEP, "run": self.run.id, "step": record.number, "turn": record.turn}
        self.messages.append((body, delay))

    def change(self, **changes: Any) -> None:
        """Change the run itself."""
        self.run = replace(self.run, **changes)

    def tell(self, kind: str, level: str = INFO, record: Record | None = None, **detail: Any) -> None:
        """Tell something, of a step when one is given."""
        named = {"step": record.id} if record is not None else {}
        self.told.append(Told(f"run.{kind}", level, {**named, **detail}))

    def finish(self) -> Run:
        """Return the run as it is to be written."""
        self.run = replace(self.run, marks=self.frontier.text(), updated_at=self.now)
        return self.run


async def advance(draft: Draft) -> None:
    """Start what can start, and end what has come to its end."""
    if draft.run.state is State.RUNNING:
        await _start(draft)
    _rest(draft)


async def _start(draft: Draft) -> None:
    """Ask for the approvals that are due, and start steps, up to as many as may run at once."""
    frontier = draft.frontier
    room = draft.run.max_parallel - frontier.counts[Mark.ACTIVE]
    for _ in range(MOST_STARTED):
        if (number := frontier.gate()) is not None:
            await _ask(draft, number)
        elif room > 0 and (number := frontier.work()) is not None:
            record = await draft.record(number)
            ready = replace(record, state=StepState.READY, turn=record.turn + 1, next_at=None)
            draft.send(draft.put(ready, Mark.ACTIVE))
            room -= 1
        else:
            return
    if frontier.gate() is not None or (room > 0 and frontier.work() is not None):
        draft.messages.append(({"kind": GO, "run": draft.run.id}, 0.0))


async def _ask(draft: Draft, number: int) -> None:
    """Ask for the approval of a step."""
    record = await draft.record(number)
    question = await draft.text(draft.step(number).approval)
    asking = replace(record, state=StepState.WAITING, turn=record.turn + 1, next_at=None, question=question)
    draft.put(asking, Mark.ASKING)
    draft.tell("step.waiting", INFO, asking, approval=question)


def _rest(draft: Draft) -> None:
    """See whether a run has come to rest."""
    run, counts = draft.run, draft.frontier.counts
    if run.state is State.PAUSING and not counts[Mark.ACTIVE]:
        _arrive(draft, State.PAUSED, INFO)
    elif run.state is State.STOPPING and not counts[Mark.ACTIVE]:
        _arrive(draft, State.STOPPED, WARNING)
    elif run.state is State.RUNNING and not _goes_on(draft):
        if blocked := counts[Mark.BLOCKED] + counts[Mark.PENDING] + counts[Mark.AGAIN]:
            reason = (
                f"{counts[Mark.BLOCKED]} steps are blocked, {blocked - counts[Mark.BLOCKED]} wait for them"
            )
            _arrive(draft, State.FAILED, ERROR, reason)
        else:
            _arrive(draft, State.COMPLETED, SUCCESS)


def _goes_on(draft: Draft) -> bool:
    frontier = draft.frontier
    under_way = (Mark.ACTIVE, Mark.COOLING, Mark.ASKING, Mark.ASKED)
    if any(frontier.counts[mark] for mark in under_way):
        return True
    return frontier.gate() is not None or frontier.work() is not None


def _arrive(draft: Draft, state: State, level: str, reason: str = "") -> None:
    over = state in {State.STOPPED, State.COMPLETED, State.FAILED}
    told = reason or draft.run.reason
    draft.change(state=state, ended_at=draft.now if over else None, reason=told)
    draft.tell(state.value, level, reason=told)
