"""Where asynchronous tasks are kept, with the messages that they are worked on by.

    ("async", ID)                 a `Task`; ids are in the order of time
    ("async:of:NAME", ID)         {}: that this one asked for it
    ("async:text:ID", …)          its meta, and what it was answered, each in some rows

A task and the message that follows from what it is now are written in one transaction, at the revision at
which whoever changes it has read it: of two, one is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from infra.clock import Clock
from infra.pieces import joined, pieces, written
from infra.queue import Queue
from infra.table import Item, Put, Table, Write
from router.errors import NotFound
from router.model import PlanRequest
from router.task import Callback, CallState, Kept, State, Task

SCAN = 1_000
"""How many tasks one page looks through at most when only some state is asked for."""

TURN, CALL = "task", "callback"
"""Kinds of messages: a task's next turn, and the next call that tells of its end."""

_TASKS = "async"


class TaskRows:
    """Tasks in a table, and their messages in a queue."""

    def __init__(self, table: Table, queue: Queue, clock: Clock) -> None:
        self._table = table
        self._queue = queue
        self._clock = clock

    async def find(self, task_id: str) -> Task | None:
        """Return a task, None when there is none."""
        item = await self._table.get((_TASKS, task_id))
        return None if item is None else _task(item)

    async def get(self, task_id: str) -> Task:
        """Return a task. Raises `NotFound`."""
        task = await self.find(task_id)
        if task is None:
            raise NotFound("there is no task of that id")
        return task

    async def page(
        self, *, after: str | None, limit: int, state: State | None = None, of: str | None = None
    ) -> tuple[list[Task], str | None]:
        """Return up to `limit` tasks, newest first, and where to go on: None when these were the last.

        `of` is whose alone. In one `state` only, a page may hold none and yet not be the last.
        """
        partition = _TASKS if of is None else _of(of)
        found: list[Task] = []
        seen = 0
        while True:
            page = await self._table.range(partition, after=after, limit=limit, reverse=True)
            seen += len(page.items)
            for item, task in zip(page.items, await self._tasks(page.items, of), strict=True):
                if task is not None and state in (None, task.seen(self._clock())):
                    found.append(task)
                    if len(found) == limit:
                        last = item is page.items[-1] and page.after is None
                        return found, None if last else item.key[1]
            after = page.after
            if after is None or seen >= SCAN:
                return found, after

    async def write(self, task: Task, *writes: Write) -> Task:
        """Write a task as it is now, with its new revision. Raises `Stale` when it was changed meanwhile."""
        document = msgspec.to_builtins(task)
        revision = document.pop("revision")
        put = Put((_TASKS, task.id), document, revision, task.kept_until)
        revisions = await self._table.transact([put, *writes])
        if writes:
            await self._queue.flush()
        return msgspec.structs.replace(task, revision=revisions[0])

    def texts(self, task_id: str, name: str, text: bytes, until: float) -> tuple[Kept, list[Put]]:
        """Return where a text of a task will be, and the writes that keep it, for `early`."""
        puts = pieces(_texts(task_id), name, text, until)
        return Kept(name, len(puts)), puts

    async def early(self, puts: Sequence[Put]) -> list[Write]:
        """Write what does not fit the transaction of its task, and return the rest."""
        return await written(self._table, puts)

    async def request_of(self, task: Task) -> PlanRequest | None:
        """Return what was asked for, None when it is no longer known."""
        meta = await self._text(task, task.request)
        if meta is None:
            return None
        return PlanRequest(
            task=task.task,
            capability=task.capability,
            meta=meta,
            value=msgspec.json.decode(meta),
            timeout_ms=task.timeout_ms,
            autopilot=task.autopilot,
        )

    async def outcome_of(self, task: Task) -> bytes | None:
        """Return the JSON of what a task was answered, None when it was not."""
        return None if task.outcome is None else await self._text(task, task.outcome)

    def turn(self, task: Task, delay: float = 0.0) -> Write:
        """Return the message by which a task has its next turn."""
        return self._queue.write_of({"kind": TURN, "task": task.id, "turn": task.turn}, delay=delay)

    def call(self, task: Task, callback: Callback, delay: float = 0.0) -> Write:
        """Return the message by which the next call is made that tells of a task's end."""
        assert callback.status is CallState.PENDING
        body = {"kind": CALL, "task": task.id, "turn": task.turn, "number": callback.attempts + 1}
        return self._queue.write_of(body, delay=delay)

    async def _tasks(self, items: Sequence[Item], of: str | None) -> list[Task | None]:
        """Return the tasks of some rows, which are themselves tasks unless they are one caller's."""
        if of is None:
            return [_task(item) for item in items]
        return await asyncio.gather(*(self.find(item.key[1]) for item in items))

    async def _text(self, task: Task, kept: Kept) -> bytes | None:
        return await joined(self._table, _texts(task.id), kept.name, kept.rows)


def asked(task: Task) -> Put:
    """Return the write that keeps whose task it is."""
    return Put((_of(task.requested_by), task.id), {}, if_revision=0, expires_at=task.kept_until)


def _task(item: Item) -> Task:
    return msgspec.convert({**item.document, "revision": item.revision}, Task)


def _of(name: str) -> str:
    return f"async:of:{name}"


def _texts(task_id: str) -> str:
    return f"async:text:{task_id}"
