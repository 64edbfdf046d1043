"""What is kept of a step of a run: where it is, what it was answered, and by which key it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from infra.clock import rfc3339


class StepState(Enum):
    """Where a step is."""

    PENDING = "pending"
    """Something that it needs is not done, or as many are running as may."""
    READY = "ready"
    """It is about to start."""
    RUNNING = "running"
    WAITING = "waiting"
    """For an approval, or until it is tried again."""
    COMPLETED = "completed"
    FAILED = "failed"
    """It is optional: what needs it goes on."""
    BLOCKED = "blocked"
    """It was tried in vain, or refused: a person has to see to it."""
    SKIPPED = "skipped"
    UNDONE = "undone"
    NOT_UNDONE = "not_undone"
    """Its undo failed: a person has to see to it."""


class Mark:
    """The letters by which a run itself knows where its steps are, one each."""

    PENDING = "."
    """Nothing is recorded of it, or it has to be asked for its approval."""
    AGAIN = "o"
    """Pending, and something is recorded of it: that it was approved, or tried before."""
    ACTIVE = "r"
    """Ready or running, which its record says."""
    COOLING = "c"
    ASKING = "a"
    """It waits for `approve_step`."""
    ASKED = "p"
    """Its task waits for somebody else's approval."""
    COMPLETED = "D"
    FAILED = "F"
    BLOCKED = "B"
    SKIPPED = "S"
    UNDONE = "U"
    NOT_UNDONE = "X"


STATES: Mapping[str, StepState] = {
    Mark.PENDING: StepState.PENDING,
    Mark.AGAIN: StepState.PENDING,
    Mark.ACTIVE: StepState.RUNNING,
    Mark.COOLING: StepState.WAITING,
    Mark.ASKING: StepState.WAITING,
    Mark.ASKED: StepState.WAITING,
    Mark.COMPLETED: StepState.COMPLETED,
    Mark.FAILED: StepState.FAILED,
    Mark.BLOCKED: StepState.BLOCKED,
    Mark.SKIPPED: StepState.SKIPPED,
    Mark.UNDONE: StepState.UNDONE,
    Mark.NOT_UNDONE: StepState.NOT_UNDONE,
}


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a step. Times are epoch seconds.

    A message is about one `turn`: those of earlier turns are void. `key` numbers the idempotency keys of its
    action: it goes on only after a failure that is known to be one; while it is `unsure` whether the action
    was done it stays. Of each attempt, `begun` counts how often somebody began it, `looks` how often it was
    found to be still at work. `acted`: the action was done and need not be sent again. `place`: it was done,
    as that one of all that the run did, counted from 1; so it may have to be undone.
    """

    id: str
    number: int
    allowed: int
    state: StepState = StepState.PENDING
    turn: int = 0
    key: int = 1
    unsure: bool = False
    attempts: int = 0
    begun: int = 0
    looks: int = 0
    acted: bool = False
    place: int = 0
    approved_by: str = ""
    by_hand: str = ""
    """Who says that it is done."""
    reason: str = ""
    """What a person said about it."""
    question: str = ""
    """What a person is asked before it starts."""
    approval: str | None = None
    fix: str = ""
    """What to do before it is tried again."""
    meta: dict[str, Any] | None = None
    """What is sent in place of the action's own meta."""
    result: Any = None
    autopilot: str = ""
    error: dict[str, str] | None = None
    output: str = ""
    """What the autopilot said when it failed, cut to its end."""
    decisions: tuple[dict[str, Any], ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
    next_at: float | None = None
    undo_key: int = 1
    undo_begun: int = 0
    revision: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "status": self.state.value,
            "waits_for": self.waits_for,
            "approval": self.question,
            "attempts": self.attempts,
            "allowed_attempts": self.allowed,
            "started_at": _time(self.started_at),
            "ended_at": _time(self.ended_at),
            "next_attempt_at": _time(self.next_at),
            "approved_by": self.approved_by or None,
            "approval_id": self.approval,
            "marked_done_by": self.by_hand or None,
            "reason": self.reason,
            "autopilot": self.autopilot or None,
            "result": self.result,
            "error": self.error,
            "output": self.output,
            "decisions": list(self.decisions),
        }

    @property
    def waits_for(self) -> str | None:
        """What a step waits for: an approval, a second person, or its cool-down."""
        if self.state is not StepState.WAITING:
            return None
        if self.approval is not None:
            return "second_person"
        return "approval" if self.next_at is None else "cool_down"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
