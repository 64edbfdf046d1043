"""Runs put together for tests: a scripted planner that tells a repeat by its key, and a worker."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from infra.clock import NewId
from infra.queue.table import TableQueue
from infra.redact import Redactor
from infra.table import Table
from router.approvals import Approval
from router.approvals import State as ApprovalState
from router.delivery import Attempt, Outcome
from router.diagnosis import Heal, SchemaOf, no_schema
from router.errors import ApprovalRequired, AutopilotError, Conflict, Deadline, ForwardFailed, NotFound
from router.events import Events
from router.graph import Action, Graph, Step
from router.keys import Identity
from router.model import PlanRequest
from router.planner import Caller
from router.run import Command, Run, State
from router.runparts import RunParts, put_together
from router.runrequest import RunRequest
from router.trace import Trace
from router.worker import Worker
from tests.fakes import CountingIds, FakeClock

ANN = Identity("ann", frozenset({"admin"}))
OVER = frozenset(
    {State.COMPLETED, State.FAILED, State.STOPPED, State.ROLLED_BACK, State.NEEDS_HUMAN, State.PAUSED}
)


def act(name: str, **meta: Any) -> Action:
    """Give a task that has the effect `name`."""
    return Action(capability="test.act", meta={"do": name, **meta})


def step(id_: str, *needs: str, **fields: Any) -> Step:
    """Give a step that has the effect of its name, and a verification that looks for it."""
    usual = {"action": act(id_), "verify": (Action(capability="test.check", meta={"is": id_}),)}
    return Step(id=id_, needs=needs, **{**usual, **fields})


def graph(*steps: Step | str, name: str = "sample") -> Graph:
    """Give a graph; a step may be written `id`, or `id: need need`."""
    made = []
    for one in steps:
        id_, _, needs = one.partition(":") if isinstance(one, str) else ("", "", "")
        made.append(one if isinstance(one, Step) else step(id_, *needs.split()))
    return Graph(name, tuple(made))


class SecondPerson:
    """Whoever approves tasks, and sends what is approved."""

    def __init__(self, clock: FakeClock, had: Callable[[str, str], None]) -> None:
        self.clock = clock
        self.approvals: dict[str, Approval] = {}
        self.outcomes: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        self.had = had

    def ask(self, name: str, key: str) -> str:
        """Return the question whether a task may be sent, one for each key."""
        id_ = f"apv_{name}_{key.rsplit('.', 1)[-1]}"
        if id_ not in self.approvals:
            self.approvals[id_] = Approval(id_, None, "test.act", None, "ann", self.clock(), "0" * 64)
            self.asked[id_] = name
        return id_

    def approve(self, approval_id: str, status: int = 200) -> None:
        """Approve a task as a second person, and send it."""
        name = self.asked[approval_id]
        approval = self.approvals[approval_id]
        self.approvals[approval_id] = msgspec.structs.replace(
            approval, state=ApprovalState.APPROVED, decided_by="bob", decided_at=self.clock(), answered=status
        )
        if status == 200:
            self.had(name, approval_id)
        outcome = _outcome(status, {"did": name})
        self.outcomes[approval_id] = msgspec.json.encode(outcome).decode()

    async def get(self, approval_id: str) -> Approval:
        if approval_id not in self.approvals:
            raise NotFound("there is no approval of that id")
        found = self.approvals[approval_id]
        if found.state is ApprovalState.WAITING and self.clock() >= found.until:
            return msgspec.structs.replace(found, state=ApprovalState.EXPIRED)
        return found

    async def outcome(self, approval_id: str) -> str | None:
        return self.outcomes.get(approval_id)

    async def withdraw(self, approval_id: str, by: str) -> Approval:
        found = await self.get(approval_id)
        if found.state is not ApprovalState.WAITING:
            raise Conflict(f"it is {found.state.value} already")
        refused = msgspec.structs.replace(
            found, state=ApprovalState.REFUSED, decided_by=by, decided_at=self.clock()
        )
        self.approvals[approval_id] = refused
        return refused


class Doer:
    """A planner whose autopilot does what a script says, and does it once per idempotency key.

    A script is of these words, the last of which repeats: `ok`; `no` (it answers 422), `bad` (it has its
    effect, which no verification finds), `down` (nothing is sent), `lost` (it is done, but nobody hears of
    it), `busy` (429), `working` (409), `crash` (the process dies of it), `asks` (a second person).
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.scripts: dict[str, list[str]] = {}
        self.done: dict[str, str] = {}
        """What was done, by its idempotency key."""
        self.answered: dict[str, str] = {}
        self.order: list[str] = []
        """The effects, as they came."""
        self.sent: list[tuple[str, str, str]] = []
        """Capability, name and key of everything that was sent."""
        self.metas: list[dict[str, Any]] = []
        self.callers: list[Caller] = []
        self.bad: set[str] = set()
        self.refusals: Counter[str] = Counter()
        """How often a verification said no, by its key."""
        self.person = SecondPerson(clock, self._had)
        self.meanwhile: Callable[[str], Awaitable[None]] = _nothing
        """Called with the name of whatever is about to be done."""
        self.refuses: dict[str, AutopilotError] = {}
        """What explaining and planning raise for a capability."""

    def effects(self) -> Counter[str]:
        """Return how often each effect was had."""
        return Counter(self.done.values())

    def next(self, name: str, key: str) -> str:
        """Return what happens to a call: what was answered under its key before, or what comes next."""
        if key in self.answered:
            return self.answered[key]
        script = self.scripts.get(name, ["ok"])
        word = script.pop(0) if len(script) > 1 else script[0]
        if word in {"ok", "no", "bad", "asks"}:
            self.answered[key] = word
        return word

    def seconds(self, request: PlanRequest) -> float:
        return request.timeout_ms / 1000 if request.timeout_ms else 30.0

    async def explain(self, request: PlanRequest, caller: Caller) -> dict[str, Any]:
        if (error := self.refuses.get(request.capability or request.task or "")) is not None:
            raise error
        return {"capability": request.capability, "ready": True}

    async def plan(self, request: PlanRequest, caller: Caller) -> Outcome:
        capability = request.capability or ""
        name = str(request.value.get("do", request.value.get("is", "")))
        self.sent.append((capability, name, caller.key))
        self.metas.append(request.value)
        self.callers.append(caller)
        if capability in self.refuses:
            raise self.refuses[capability]
        if capability == "test.check":
            return self._check(name, caller.key)
        await self.meanwhile(name)
        return self._act(request.value, name, caller.key)

    def _check(self, name: str, key: str) -> Outcome:
        word = self.next(f"check {name}", key)
        if word == "down":
            raise ForwardFailed("nobody is there", autopilot="doer")
        if word == "asks":
            raise ApprovalRequired({"id": "apv_check"})
        there = not name or name in self.done.values()
        good = word == "ok" and there and name not in self.bad
        self.refusals[key] += not good
        return _outcome(200 if good else 422, {"found": name, "detail": f"{name} is {there}"})

    def _act(self, meta: Mapping[str, Any], name: str, key: str) -> Outcome:
        if key in self.done:
            return _outcome(200, self._result(meta, name, key))
        word = self.next(name, key)
        if word == "no":
            return _outcome(422, {"detail": "it cannot be done", "secret": "sk-abcdefghijklmnop"})
        if word == "down":
            raise ForwardFailed("nobody is there", autopilot="doer")
        if word == "busy":
            return _outcome(429, {}, retry_after=7.0)
        if word == "working":
            return _outcome(409, {})
        if word == "asks":
            raise ApprovalRequired({"id": self.person.ask(name, key)})
        if word == "crash":
            raise Crash
        self._had(name, key)
        if word == "bad":
            self.bad.add(name)
        else:
            self.bad.discard(name)
        if word == "lost":
            error = Deadline("it did not answer in time", autopilot="doer")
            error.done = True
            raise error
        return _outcome(200, self._result(meta, name, key))

    def _had(self, name: str, key: str) -> None:
        self.done[key] = name
        self.order.append(name)

    def _result(self, meta: Mapping[str, Any], name: str, key: str) -> dict[str, Any]:
        return {"did": name, "key": key, "meta": dict(meta)}


async def _nothing(_: str) -> None:
    return None


class Crash(BaseException):
    """Raise where the process dies: nothing of it goes on, not even what cleans up."""


def _outcome(status: int, result: dict[str, Any], retry_after: float | None = None) -> Outcome:
    return Outcome(
        autopilot="doer",
        ok=status < 300,
        status=status,
        task=None,
        capability="test.act",
        result=msgspec.Raw(msgspec.json.encode(result)),
        attempts=[Attempt("doer", status, 1.0, None, retry_after)],
        duration_ms=1.0,
        trace_id="0" * 32,
    )


class Skewed(FakeClock):
    """A clock that is so many seconds ahead of another one."""

    def __init__(self, true: FakeClock, ahead: float) -> None:
        super().__init__()
        self.true = true
        self.ahead = ahead

    def __call__(self) -> float:
        return self.true() + self.ahead

    def forward(self, seconds: float) -> None:
        self.true.forward(seconds)


class Running:
    """Runs on a table, with one worker."""

    def __init__(
        self,
        table: Table,
        clock: FakeClock,
        doer: Doer | None = None,
        *,
        heal: Heal | None = None,
        schema_of: SchemaOf = no_schema,
        ids: NewId | None = None,
        apart: float = 0.0,
        seed: int = 1,
        most: int = 16,
        hold_seconds: float = 15.0,
    ) -> None:
        self.table = table
        self.clock = clock
        self.doer = doer or Doer(clock)
        ids = ids or CountingIds()
        self.ids = ids
        redactor = Redactor()
        self.queue = TableQueue(table, clock, "work", new_id=ids, apart=apart)
        self.events = Events(table, clock=clock, writer=ids("w"), redactor=redactor)
        self.parts: RunParts = put_together(
            table,
            self.queue,
            self.events,
            self.doer,
            self.doer.person,
            redactor=redactor,
            clock=clock,
            new_id=ids,
            heal=heal,
            schema_of=schema_of,
            monotonic=clock,
        )
        self.runs = self.parts.runs
        self.show = self.parts.show
        self.worker = Worker(
            self.queue,
            self.parts.handlers,
            clock=clock,
            dice=random.Random(seed).random,
            most=most,
            hold_seconds=hold_seconds,
        )

    def again(self) -> Running:
        """Give another process on the same store."""
        return Running(self.table, self.clock, self.doer, ids=self.ids)

    async def start(self, made: Graph, **request: Any) -> Run:
        """Start a run."""
        return await self.runs.start(RunRequest(made, **request), Caller(Trace()), ANN)

    async def command(self, run: Run, command: Command, step: str = "", reason: str = "") -> Run:
        """Command a run."""
        return await self.runs.command(run.id, command, by="bob", step=step, reason=reason)

    async def drive(self, run: Run, *, seconds: float = 86_400.0, until: frozenset[State] = OVER) -> Run:
        """Work until a run is over, or for so many seconds of the clock; return it as it is then."""
        end = self.clock() + seconds
        while True:
            worked = await self.worker.work_once()
            now = await self.runs.get(run.id)
            if now.state in until:
                return now
            if not worked:
                if self.clock() >= end:
                    return now
                self.clock.forward(1.0)

    async def steps(self, run: Run) -> dict[str, dict[str, Any]]:
        """Return what is shown of each step, by its id."""
        return {one["id"]: one for one in await self.show.steps(await self.runs.get(run.id))}

    async def states(self, run: Run) -> dict[str, str]:
        """Return the state of each step, by its id."""
        return {id_: one["status"] for id_, one in (await self.steps(run)).items()}

    async def told(self, run: Run) -> list[str]:
        """Return what was told of a run, as `step kind`."""
        log = (await self.show.export(await self.runs.get(run.id)))["logs"]
        return [f"{one.get('step', '')} {one['type'].removeprefix('run.')}".strip() for one in log]
