"""Asynchronous tasks: submit one, cancel it, send it again.

    ("async:key", HASH)           {"id"}: the task that was submitted under an idempotency key

The task's own id is the idempotency key that autopilots get, however often it is sent.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import msgspec
from msgspec.structs import replace

from infra.clock import Clock, NewId
from infra.redact import Redactor
from infra.table import Key, Put, Table
from router.approvals import Approvals
from router.errors import Conflict, LoopDetected, NotFound, Stale, StoreUnavailable
from router.forward import MAX_HOPS
from router.keys import Identity
from router.model import PlanRequest
from router.planner import Caller, Planner
from router.progress import Progress
from router.task import DEADLINE_SECONDS, KEEP_SECONDS, MOST_ATTEMPTS, Callback, Command, Task
from router.taskrows import TaskRows, asked

log = logging.getLogger("router")

KEY_SECONDS = 86_400.0
"""How long an idempotency key leads to its task."""


class Tasks:
    """What callers may do about tasks. Whether they may, whoever asks this has to know."""

    def __init__(
        self,
        table: Table,
        rows: TaskRows,
        progress: Progress,
        planner: Planner,
        approvals: Approvals,
        *,
        redactor: Redactor,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._table = table
        self._rows = rows
        self._progress = progress
        self._planner = planner
        self._approvals = approvals
        self._redactor = redactor
        self._clock = clock
        self._new_id = new_id

    async def submit(self, request: PlanRequest, caller: Caller, identity: Identity) -> Task:
        """Take a task that is to be done, and return it. Under one idempotency key there is one.

        What could not be sent now is refused now: raises as `Planner.explain`, and `StoreUnavailable`.
        """
        if caller.hops >= MAX_HOPS:
            raise LoopDetected(f"the task has been through {caller.hops} routers already")
        decision = await self._planner.explain(request, caller)
        now = self._clock()
        task_id = self._new_id(f"task_{int(now * 1000):012x}")
        meta, puts = self._rows.texts(task_id, "request", request.meta, now + KEEP_SECONDS)
        task = Task(
            id=task_id,
            task=request.task,
            capability=decision["capability"],
            autopilot=request.autopilot,
            timeout_ms=request.timeout_ms,
            requested_by=identity.name,
            scopes=tuple(sorted(identity.scopes)),
            traceparent=caller.trace.child(),
            hops=caller.hops,
            request=meta,
            submitted_at=now,
            deadline=now + DEADLINE_SECONDS,
            next_at=now,
            callback=Callback(request.callback_url) if request.callback_url else None,
        )
        writes = [*await self._rows.early(puts), asked(task), self._rows.turn(task)]
        if not caller.key:
            return await self._rows.write(task, *writes)
        key = _key(identity.name, caller.key)
        writes.append(Put(key, {"id": task_id}, if_revision=0, expires_at=now + KEY_SECONDS))
        try:
            return await self._rows.write(task, *writes)
        except Stale:  # the same call once more, whose answer was lost
            known = await self._table.get(key)
            if known is None:
                raise
            return await self._rows.get(known.document["id"])

    async def cancel(self, task_id: str, by: str) -> Task:
        """End a task that is not over. What is being sent cannot be called back: its answer is kept.

        Raises `NotFound`, and `Conflict` when it is over.
        """
        while True:
            task = await self._rows.get(task_id)
            task.after(Command.CANCEL)
            if task.approval is not None:
                await self._withdraw(task.approval, by)
            try:
                ended = await self._progress.end(task, Command.CANCEL)
            except Stale:
                continue  # it went on at this moment: see where it is now
            try:
                await self._progress.tell(ended, by)
            except StoreUnavailable:
                log.warning("task %s is cancelled, but that is not among the events", task_id)
            return ended

    async def retry(self, task_id: str) -> Task:
        """Send a failed task again: as the same one, with its deadline and its attempts anew.

        Raises `NotFound`, and `Conflict` when it has not failed.
        """
        task = await self._rows.get(task_id)
        now = self._clock()
        again = replace(
            task,
            state=task.after(Command.RETRY),
            turn=task.turn + 1,
            allowed=task.attempts + MOST_ATTEMPTS,
            deadline=now + DEADLINE_SECONDS,
            ended_at=None,
            next_at=now,
            error=None,
            outcome=None,
            callback=Callback(task.callback.url) if task.callback else None,
        )
        try:
            return await self._rows.write(again, self._rows.turn(again))
        except Stale:
            raise Conflict("somebody else changed it at this moment") from None

    def shown(self, task: Task) -> dict[str, Any]:
        """Return a task as the API shows it, without its outcome and without secrets."""
        document = task.document(self._clock())
        for field in ("error", "callback"):
            document[field] = self._redactor.value(document[field])
        return document

    async def _withdraw(self, approval: str, by: str) -> None:
        """Take back the question whether a task may be sent: nobody is to approve a cancelled one."""
        try:
            await self._approvals.withdraw(approval, by)
        except (Conflict, NotFound):
            return  # it was decided, or is being sent: that cannot be called back


def _key(name: str, key: str) -> Key:
    return "async:key", hashlib.sha256(msgspec.json.encode([name, key])).hexdigest()
