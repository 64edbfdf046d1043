"""Asynchronous tasks put together on a real table, with scripted autopilots and a scripted callback."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infra.outbound import Url
from infra.pool import Answer
from infra.queue import Message
from infra.queue.table import TableQueue
from infra.redact import Redactor
from infra.signing import new_secret
from infra.table import Table
from router.backoff import Dice
from router.callbacks import Callbacks
from router.events import Events
from router.keys import Identity
from router.planner import Caller, authority
from router.progress import Progress
from router.task import Task
from router.taskrows import CALL, TURN, TaskRows
from router.tasks import Tasks
from router.trace import Trace
from router.turns import Turns
from router.worker import Worker
from tests.fakes import CountingIds, FakeClock
from tests.router.parts import Core, asking

ANN = Identity("ann", frozenset({"plan:*"}))
BOB = Identity("bob", frozenset({"operate"}))
CAP = "web.pages.generate"
SECRET = new_secret()
HOOK = "https://ann.example/hook"
TOLD = {"task.completed", "task.failed", "task.cancelled"}
Called = Answer | Exception


@dataclass
class Hook:
    """Somebody who is told of ends: answers as a script says, whose last step repeats."""

    steps: list[Called] = field(default_factory=lambda: [Answer(204, [], b"")])
    calls: list[tuple[str, dict[bytes, bytes], bytes]] = field(default_factory=list)

    async def post(self, url: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
        """Be called."""
        self.calls.append((url, dict(headers), body))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step


@dataclass
class Deferred:
    """Everything that works on tasks. `worker` is one process; `another` gives a second one."""

    core: Core
    clock: FakeClock
    queue: TableQueue
    rows: TaskRows
    progress: Progress
    tasks: Tasks
    events: Events
    turns: Turns
    callbacks: Callbacks
    worker: Worker
    hook: Hook
    checked: list[Url]

    async def submit(
        self,
        task: str = CAP,
        meta: dict[str, Any] | None = None,
        *,
        by: Identity = ANN,
        key: str = "",
        hops: int = 0,
        **more: Any,
    ) -> Task:
        """Submit a task as a caller would."""
        caller = Caller(Trace(), key, hops, authority(by), name=by.name)
        return await self.tasks.submit(asking(task, meta, mode="async", **more), caller, by)

    async def now(self, task: Task) -> Task:
        """Return a task as it is now."""
        return await self.rows.get(task.id)

    async def work(self, seconds: float = 0.0, step: float = 1.0) -> int:
        """Work on all that falls due in so many seconds, and return how many messages that were."""
        count, until = await self._idle(), self.clock() + seconds
        while self.clock() < until:
            self.clock.forward(step)
            count += await self._idle()
        return count

    async def _idle(self) -> int:
        count = 0
        while done := await self.worker.work_once():
            count += done
        return count

    async def outcome(self, task: Task) -> Any:
        """Return what a task was answered, None when it was not."""
        text = await self.rows.outcome_of(await self.now(task))
        return None if text is None else msgspec.json.decode(text)

    async def told(self) -> list[tuple[str, str]]:
        """Return the type and the task of each event about tasks, oldest first."""
        told: list[tuple[str, str]] = []
        after: str | None = None
        while True:
            events, after = await self.events.page(after=after, limit=200)
            told += [(one["type"], one["payload"]["id"]) for one in events if one["type"] in TOLD]
            if after is None:
                return told

    async def waiting(self) -> list[Message]:
        """Return what is left in the queue by the end of the next two days, without touching it."""
        late = TableQueue(self.core.table.inner, lambda: self.clock() + 172_800, "work", apart=0)
        return await late.receive(most=200, visible_seconds=1)


def deferred(
    core: Core,
    *,
    table: Table | None = None,
    dice: Dice | None = None,
    secrets: Sequence[str] = (SECRET,),
    name: str = "",
) -> Deferred:
    """Put everything together. Another process has another `name`, and may have a `table` of its own."""
    clock, seen = core.clock, table or core.table
    counting = CountingIds()

    def ids(prefix: str) -> str:
        return f"{counting(prefix)}{name}"

    queue = TableQueue(seen, clock, "work", new_id=ids, apart=0)
    rows = TaskRows(seen, queue, clock)
    events = Events(seen, clock=clock, writer=ids("w"), redactor=Redactor())
    progress = Progress(rows, events, clock)
    tasks = Tasks(
        seen,
        rows,
        progress,
        core.planner,
        core.approvals,
        redactor=Redactor([SECRET]),
        clock=clock,
        new_id=ids,
    )
    rolled: Callable[[], float] = dice or random.Random(7).random
    turns = Turns(rows, progress, core.planner, core.approvals, clock=clock, dice=rolled)
    hook, checked = Hook(), list[Url]()

    async def addresses(url: Url) -> None:
        checked.append(url)

    callbacks = Callbacks(
        rows, progress, hook.post, addresses, tasks.shown, secrets=secrets, clock=clock, dice=rolled
    )
    worker = Worker(queue, {TURN: turns, CALL: callbacks}, clock=clock, dice=rolled)
    return Deferred(
        core, clock, queue, rows, progress, tasks, events, turns, callbacks, worker, hook, checked
    )
