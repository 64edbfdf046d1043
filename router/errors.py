"""Everything that can go wrong, as one tree. The class says what a caller may do about it.

AutopilotError
    Invalid            well-formed, but fields are wrong: every one of them is listed
    Malformed          not strict JSON, or no request that means one thing only
    TooSlow            a request that does not arrive
    MediaType          a body that is not application/json in UTF-8
    TooLarge           a body, document or answer over its limit
    NotFound           no such thing
    MethodNotAllowed   a path that does not know the method
    Conflict           the thing is in a state that forbids this
    Stale              somebody changed it since it was read
    Unauthenticated    no key, or not a valid one
    Forbidden          a valid key without the scope
    RateLimited        too many calls by one caller
    Overloaded         too many calls at once
    TaskRequired, UnknownTask, NoAutopilot, NotReady      the planner cannot send
    ApprovalRequired   the planner may not send yet: somebody else decides
    EndpointRefused    an address that must not be called
    ForwardFailed      the autopilot could not be reached, or failed
    Deadline           time ran out
    LoopDetected       the task has been forwarded too often
    StoreUnavailable   the store did not take it: nothing was kept

No class knows an HTTP status: `router.app` has the one table that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple


class Problem(NamedTuple):
    """One wrong field. `field` is a dotted path, such as `capabilities[2].name`."""

    field: str
    message: str


class AutopilotError(Exception):
    """Base of all our errors.

    `code` is the stable machine word, `title` the human sentence, `detail` what happened this time and
    `extra` further members of the answer. `retryable` says whether the same call may succeed later.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra: Mapping[str, Any] = extra
        self.done = False
        """Whether something was, or may have been, done before it was raised."""


class Invalid(AutopilotError):
    """Raise with every problem found, not only the first. `MOST` of them are told, each in short."""

    code = "invalid_body"
    title = "Some fields are not valid"

    MOST: ClassVar[int] = 100
    LONGEST: ClassVar[int] = 500
    """Characters of a field's name, and of a message: what a caller sent may be in either."""

    def __init__(self, problems: Sequence[Problem] | Sequence[tuple[str, str]]) -> None:
        self.problems = [
            Problem(field[: self.LONGEST], message[: self.LONGEST])
            for field, message in problems[: self.MOST]
        ]
        if len(problems) > self.MOST:
            self.problems.append(Problem("", f"and {len(problems) - self.MOST} more"))
        text = "; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in self.problems)
        super().__init__(text, errors=[p._asdict() for p in self.problems])


class Malformed(AutopilotError):
    """Raise when bytes are not strict JSON, or a request is none, or could be understood in two ways."""

    code = "malformed"
    title = "The request is malformed"


class TooSlow(AutopilotError):
    """Raise when a request has not arrived in the time there is for one."""

    code = "too_slow"
    title = "The request did not arrive in time"


class MediaType(AutopilotError):
    """Raise when a body is not JSON in UTF-8 by its own headers."""

    code = "media_type"
    title = "The body must be application/json in UTF-8"


class TooLarge(AutopilotError):
    """Raise when a body, a document or an answer is over its limit."""

    code = "too_large"
    title = "Too large"


class NotFound(AutopilotError):
    """Raise when what was named does not exist."""

    code = "not_found"
    title = "Not found"


class MethodNotAllowed(AutopilotError):
    """Raise when a path does not know the method."""

    code = "method_not_allowed"
    title = "This method is not allowed here"


class Conflict(AutopilotError):
    """Raise when the state of a thing forbids the change."""

    code = "conflict"
    title = "Not possible in the present state"


class Stale(AutopilotError):
    """Raise when a revision given as a condition is no longer the current one."""

    code = "stale"
    title = "It was changed since you read it"


class Unauthenticated(AutopilotError):
    """Raise when a call carries no valid key."""

    code = "unauthenticated"
    title = "A valid API key is needed"


class Forbidden(AutopilotError):
    """Raise when a valid key lacks a scope, or a local call comes from elsewhere.

    `actor` is the name of the key, empty where nobody is known yet.
    """

    code = "forbidden"
    title = "Not allowed"

    def __init__(self, detail: str, *, actor: str = "", **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.actor = actor


class RateLimited(AutopilotError):
    """Raise when a caller exceeds its limit."""

    code = "rate_limited"
    title = "Too many calls"
    retryable = True


class Overloaded(AutopilotError):
    """Raise when as much is running as may run at once."""

    code = "overloaded"
    title = "Too much is running at once"
    retryable = True


class TaskRequired(AutopilotError):
    """Raise when a plan names neither a task nor a capability."""

    code = "task_required"
    title = "task required"


class UnknownTask(AutopilotError):
    """Raise when no catalogue entry has that task."""

    code = "unknown_task"
    title = "Unknown task"


class NoAutopilot(AutopilotError):
    """Raise when nobody offers the capability."""

    code = "no_autopilot"
    title = "No autopilot currently supports this capability"


class NotReady(AutopilotError):
    """Raise when something an autopilot needs could not be ensured. Nothing was sent."""

    code = "not_ready"
    title = "Infrastructure not ready"
    retryable = True


class ApprovalRequired(AutopilotError):
    """Raise when a task was kept instead of sent, until somebody else approves it.

    `approval` is what whoever asked is told: `{"status", "id", "task", "capability", "expires_at"}`.
    """

    code = "approval_required"
    title = "Somebody else has to approve this task"

    def __init__(self, approval: dict[str, Any]) -> None:
        super().__init__(f"nothing was sent: approval {approval['id']} has to come first", approval=approval)
        self.approval = approval
        self.done = True


class EndpointRefused(AutopilotError):
    """Raise when an endpoint is none that may be called."""

    code = "endpoint_refused"
    title = "This endpoint may not be called"


class ForwardFailed(AutopilotError):
    """Raise when no autopilot gave an answer that can be passed on."""

    code = "forward_failed"
    title = "Failed to forward task"
    retryable = True


class Deadline(AutopilotError):
    """Raise when the total time of a call is spent."""

    code = "deadline"
    title = "The deadline passed"
    retryable = True


class LoopDetected(AutopilotError):
    """Raise when a task has been forwarded by too many routers."""

    code = "loop"
    title = "The task was forwarded too often"


class StoreUnavailable(AutopilotError):
    """Raise when the store does not answer. What was to be written is not kept."""

    code = "store_unavailable"
    title = "The store is unavailable"
    retryable = True
