"""What those who work on asynchronous tasks write: attempts, turns that follow, and how it ended."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from infra.clock import Clock
from infra.table import Write
from router.errors import AutopilotError
from router.events import Events
from router.task import Callback, Command, Task
from router.taskrows import TaskRows

GRACE_SECONDS = 5.0
"""How long after its time an attempt is taken to have died."""


class Progress:
    """Writes what became of tasks. Each verb raises `Stale` when somebody else changed the task meanwhile."""

    def __init__(self, rows: TaskRows, events: Events, clock: Clock) -> None:
        self._rows = rows
        self._events = events
        self._clock = clock

    async def start(self, task: Task, seconds: float) -> Task:
        """Begin an attempt that takes at most `seconds`."""
        now = self._clock()
        started = replace(
            task,
            state=task.after(Command.START),
            attempts=task.attempts + 1,
            started_at=task.started_at or now,
            next_at=None,
            lease_until=now + seconds + GRACE_SECONDS,
        )
        return await self._rows.write(started)

    async def postpone(self, task: Task, delay: float, **changes: Any) -> Task:
        """Let a task wait for its next turn. `changes` are of its fields."""
        waiting = replace(
            task,
            state=task.after(Command.POSTPONE),
            turn=task.turn + 1,
            next_at=self._clock() + delay,
            lease_until=None,
            **changes,
        )
        return await self._rows.write(waiting, self._rows.turn(waiting, delay))

    async def end(
        self, task: Task, command: Command, *, error: dict[str, str] | None = None, outcome: bytes = b""
    ) -> Task:
        """End a task, with the JSON of its outcome if it has one. Whoever is to be called will be."""
        ended = replace(
            task,
            state=task.after(command),
            error=error,
            ended_at=self._clock(),
            next_at=None,
            lease_until=None,
            # messages of before are void, but not what is being answered just now
            turn=task.turn + (command is Command.CANCEL),
        )
        ended, writes = await self._keeping(ended, outcome)
        if ended.callback is not None:
            writes.append(self._rows.call(ended, ended.callback))
        return await self._rows.write(ended, *writes)

    async def keep(self, task: Task, outcome: bytes) -> Task:
        """Keep what a task was answered that was cancelled meanwhile."""
        kept, writes = await self._keeping(task, outcome)
        return await self._rows.write(kept, *writes)

    async def called(self, task: Task, callback: Callback, delay: float | None) -> Task:
        """Keep what came of a call that tells of the end, and call again after `delay`, None for never."""
        if delay is None:
            return await self._rows.write(replace(task, callback=callback))
        callback = replace(callback, next_at=self._clock() + delay)
        waiting = replace(task, callback=callback)
        return await self._rows.write(waiting, self._rows.call(waiting, callback, delay))

    async def tell(self, task: Task, by: str = "tasks") -> None:
        """Tell of a task's end among the events. Raises `StoreUnavailable`."""
        payload = {
            "id": task.id,
            "task": task.task,
            "capability": task.capability,
            "requested_by": task.requested_by,
            "attempts": task.attempts,
            "error": task.error,
        }
        await self._events.publish(f"task.{task.state.value}", by, payload, task.trace_id)

    async def _keeping(self, task: Task, outcome: bytes) -> tuple[Task, list[Write]]:
        if not outcome:
            return task, []
        name = f"outcome-{task.revision:06d}"  # nobody else can write at that revision
        kept, puts = self._rows.texts(task.id, name, outcome, task.kept_until)
        return replace(task, outcome=kept), await self._rows.early(puts)


def error_of(error: AutopilotError) -> dict[str, str]:
    """Return an error as a task keeps it."""
    return {"code": error.code, "detail": error.detail[:500]}
