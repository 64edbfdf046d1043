"""Asynchronous tasks: see them, cancel them, send failed ones again.

Whoever may plan sees and changes their own; `read` sees everybody's, `operate` changes them too. Of others'
tasks nobody else learns that they exist.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.api.http import Call, Endpoint, Reply, json, limit_of
from router.auth import Scope
from router.errors import Forbidden, Invalid, NotFound
from router.keys import Identity
from router.task import TASK_ID, State, Task
from router.taskrows import TaskRows
from router.tasks import Tasks


class TasksApi:
    """`/autopilot/tasks`."""

    def __init__(self, tasks: Tasks, rows: TaskRows) -> None:
        self._tasks = tasks
        self._rows = rows

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        path = "/autopilot/tasks"
        return [
            Endpoint("GET", path, Scope.KEY, self.listing),
            Endpoint("GET", f"{path}/{{id}}", Scope.KEY, self.get),
            Endpoint("POST", f"{path}/{{id}}/cancel", Scope.KEY, self.cancel, "task.cancel"),
            Endpoint("POST", f"{path}/{{id}}/retry", Scope.KEY, self.retry, "task.retry"),
        ]

    async def listing(self, call: Call) -> Reply:
        """List asynchronous tasks, newest first, a page at a time."""
        state, after, limit = _list_query(call.query("status", "limit", "cursor"))
        whose = None if _sees_all(call.identity) else call.identity.name
        page, following = await self._rows.page(after=after, limit=limit, state=state, of=whose)
        shown = [self._tasks.shown(task) for task in page]
        return json({"tasks": shown, "count": len(shown), "next": following})

    async def get(self, call: Call) -> Reply:
        """Show an asynchronous task, and what it was answered."""
        return await self._whole(await self._task(call))

    async def cancel(self, call: Call) -> Reply:
        """Cancel an asynchronous task that is not over."""
        task = await self._own(call)
        cancelled = await self._tasks.cancel(task.id, call.identity.name)
        _note(call, task)
        return await self._whole(cancelled)

    async def retry(self, call: Call) -> Reply:
        """Send an asynchronous task again that has failed."""
        task = await self._own(call)
        again = await self._tasks.retry(task.id)
        _note(call, task)
        return await self._whole(again)

    async def _task(self, call: Call) -> Task:
        """Return the task a path names, as far as the caller may know of it. Raises `NotFound`."""
        call.query()
        task_id = call.path("id")
        task = await self._rows.find(task_id) if TASK_ID.fullmatch(task_id) else None
        if task is None or not (_sees_all(call.identity) or _is_own(call.identity, task)):
            raise NotFound("there is no task of that id")
        return task

    async def _own(self, call: Call) -> Task:
        """Return the task a path names, if the caller may change it. Raises `NotFound` and `Forbidden`."""
        task = await self._task(call)
        if not (call.identity.may("operate") or _is_own(call.identity, task)):
            lacks = "this key lacks the scope 'operate', and the task is not its own"
            raise Forbidden(lacks, actor=call.identity.name, scope="operate")
        return task

    async def _whole(self, task: Task) -> Reply:
        outcome = await self._rows.outcome_of(task)
        text = None if outcome is None else msgspec.Raw(outcome)
        return json({**self._tasks.shown(task), "outcome": text})


def _sees_all(identity: Identity) -> bool:
    return identity.may("read") or identity.may("operate")


def _is_own(identity: Identity, task: Task) -> bool:
    return identity.name == task.requested_by and identity.may("plan")


def _note(call: Call, task: Task) -> None:
    call.note(task.id, capability=task.capability, requested_by=task.requested_by)


def _list_query(query: dict[str, str]) -> tuple[State | None, str | None, int]:
    problems: list[tuple[str, str]] = []
    limit = limit_of(query, problems)
    states: dict[str, Any] = {state.value: state for state in State}
    status = query.get("status")
    if status is not None and status not in states:
        problems.append(("status", f"must be one of {', '.join(states)}"))
    cursor = query.get("cursor")
    if cursor and not TASK_ID.fullmatch(cursor):
        problems.append(("cursor", "must be the 'next' of an earlier page"))
    if problems:
        raise Invalid(problems)
    return states.get(status or ""), cursor or None, limit
