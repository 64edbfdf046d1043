"""An asynchronous task as it is kept: its states, what may be done to it in which, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from infra.clock import rfc3339
from router.errors import Conflict

TASK_ID = re.compile(r"[0-9A-Za-z_]{1,64}")
DEADLINE_SECONDS = 3600.0
"""How long a task may take in all, from its submission or from when it was sent again."""
MOST_ATTEMPTS = 10
KEEP_SECONDS = 7 * 86_400.0
"""How long it is known that there was a task, from its submission on."""


class State(Enum):
    """Where a task is."""

    QUEUED = "queued"
    """It waits for its turn: the first one, the next one, or one after an approval."""
    RUNNING = "running"
    """It is being sent."""
    COMPLETED = "completed"
    """It was answered, and well."""
    FAILED = "failed"
    """It was refused, or tried in vain for as long as it was worth it."""
    CANCELLED = "cancelled"
    """Somebody did not want it any more."""


class Command(Enum):
    """What can be done to a task."""

    START = "start"
    POSTPONE = "postpone"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"


NEXT: Mapping[tuple[State, Command], State] = {
    (State.QUEUED, Command.START): State.RUNNING,
    (State.QUEUED, Command.POSTPONE): State.QUEUED,  # nobody has approved it yet
    (State.QUEUED, Command.COMPLETE): State.COMPLETED,  # whoever approved it sent it
    (State.QUEUED, Command.FAIL): State.FAILED,
    (State.QUEUED, Command.CANCEL): State.CANCELLED,
    (State.RUNNING, Command.START): State.RUNNING,  # whoever was sending it has died
    (State.RUNNING, Command.POSTPONE): State.QUEUED,
    (State.RUNNING, Command.COMPLETE): State.COMPLETED,
    (State.RUNNING, Command.FAIL): State.FAILED,
    (State.RUNNING, Command.CANCEL): State.CANCELLED,
    (State.FAILED, Command.RETRY): State.QUEUED,
}
"""What a command makes of a task; every pair that is not here is refused."""

OVER = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class CallState(Enum):
    """How far the call is that tells whoever asked of a task's end."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Callback(msgspec.Struct, frozen=True):
    """The call that a task's end is told by. `next_at` is in epoch seconds."""

    url: str
    status: CallState = CallState.PENDING
    attempts: int = 0
    last_error: str | None = None
    next_at: float | None = None

    def document(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "url": self.url,
            "status": self.status.value,
            "attempts": self.attempts,
            "last_error": self.last_error,
            "next_attempt_at": _time(self.next_at),
        }


class Kept(msgspec.Struct, frozen=True):
    """Where a text of a task is: in so many rows of that name."""

    name: str
    rows: int


class Task(msgspec.Struct, frozen=True):
    """A task. Times are epoch seconds.

    `scopes` are those that whoever asked had then. A message is about one `turn`: those of earlier turns are
    void. `allowed` is how many attempts there may be; a task that is sent again gets as many more. While it
    is running, `lease_until` says until when the attempt has ended, or whoever made it is dead.
    """

    id: str
    task: str | None
    capability: str
    autopilot: str | None
    timeout_ms: int | None
    requested_by: str
    scopes: tuple[str, ...]
    traceparent: str
    hops: int
    request: Kept
    submitted_at: float
    deadline: float
    state: State = State.QUEUED
    turn: int = 1
    attempts: int = 0
    allowed: int = MOST_ATTEMPTS
    started_at: float | None = None
    ended_at: float | None = None
    next_at: float | None = None
    lease_until: float | None = None
    approval: str | None = None
    error: dict[str, str] | None = None
    outcome: Kept | None = None
    callback: Callback | None = None
    revision: int = 0

    @property
    def trace_id(self) -> str:
        """The trace of the call that brought the task."""
        return self.traceparent.split("-")[1]

    @property
    def kept_until(self) -> float:
        """Until when it is kept."""
        return self.submitted_at + KEEP_SECONDS

    def after(self, command: Command) -> State:
        """Return the state that a command leads to. Raises `Conflict` where it is not possible."""
        state = NEXT.get((self.state, command))
        if state is None:
            raise Conflict(f"a task that is {self.state.value} cannot be {_DONE[command]}")
        return state

    def seen(self, now: float) -> State:
        """Return the state as it is: one whose sender is dead is not running, but waits for another one."""
        dead = self.state is State.RUNNING and self.lease_until is not None and now >= self.lease_until
        return State.QUEUED if dead else self.state

    def document(self, now: float) -> dict[str, Any]:
        """Return it as the API shows it, without its meta and without its outcome."""
        return {
            "id": self.id,
            "status": self.seen(now).value,
            "task": self.task,
            "capability": self.capability,
            "autopilot": self.autopilot,
            "requested_by": self.requested_by,
            "submitted_at": rfc3339(self.submitted_at),
            "started_at": _time(self.started_at),
            "ended_at": _time(self.ended_at),
            "deadline": rfc3339(self.deadline),
            "attempts": self.attempts,
            "next_attempt_at": _time(self.next_at),
            "approval_id": self.approval,
            "error": self.error,
            "callback": self.callback.document() if self.callback else None,
            "trace_id": self.trace_id,
        }


_DONE = {
    Command.START: "started",
    Command.POSTPONE: "postponed",
    Command.COMPLETE: "completed",
    Command.FAIL: "failed",
    Command.CANCEL: "cancelled",
    Command.RETRY: "sent again",
}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
