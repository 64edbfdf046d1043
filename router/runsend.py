"""Sends what a step has to do, and tells what came of it in the four ways that matter to a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from infra.redact import Redactor
from router.delivery import Outcome
from router.errors import (
    ApprovalRequired,
    AutopilotError,
    Forbidden,
    Invalid,
    LoopDetected,
    TaskRequired,
    TooLarge,
    UnknownTask,
)
from router.graph import Action
from router.keys import Identity
from router.model import PlanRequest
from router.planner import Caller, authority
from router.run import Run
from router.trace import Trace

MAX_RESULT = 64_000
"""Bytes of JSON of a result that are kept; of a larger one only its size is."""
MAX_OUTPUT = 4_000
"""Characters that are kept of what a failed task said."""
_READ_OUTPUT = 4 * MAX_OUTPUT
REFUSED = "refused"
"""The code of a failure that the autopilot answered 4xx for."""
NOT_VERIFIED = "not_verified"
"""The code of a failure where something was done, but a verification says that it is not as it has to be."""

_BUSY = frozenset({408, 425, 429})
_STILL_RUNNING = 409
_POINTLESS = (Forbidden, Invalid, LoopDetected, TaskRequired, TooLarge, UnknownTask)
"""What would be refused in the same way when it is sent again."""


class Plans(Protocol):
    """What a run needs of a planner, see `router.planner.Planner`."""

    async def plan(self, request: PlanRequest, caller: Caller) -> Outcome:
        """Send a task and return the answer."""
        ...

    async def explain(self, request: PlanRequest, caller: Caller) -> dict[str, Any]:
        """Return what would be done with a task."""
        ...

    def seconds(self, request: PlanRequest) -> float:
        """Return how long a task may take."""
        ...


class Answer(NamedTuple):
    """It was done."""

    result: Any
    autopilot: str


class Asked(NamedTuple):
    """It was not sent: somebody else has to approve it."""

    approval: str


class Working(NamedTuple):
    """It is still being done, as it was sent before."""

    autopilot: str


class Failure(NamedTuple):
    """It was not done, as far as is known.

    `answered`: whoever got it said so, which ends what goes by its key. `lost`: it may have been done all the
    same. A `pointless` one would fail in the same way when it is sent again, and before `wait` seconds are
    over it is not to be.
    """

    error: dict[str, str]
    output: str = ""
    answered: bool = False
    lost: bool = False
    pointless: bool = False
    wait: float = 0.0
    autopilot: str = ""


Sent = Answer | Asked | Working | Failure


class Sending(NamedTuple):
    """One task of a run, as it is sent. `seconds` is the most that it may take; `again` that it may have been
    sent before under its `key`.
    """

    action: Action
    key: str
    seconds: float
    again: bool


class Sender:
    """Sends tasks of runs, each in the authority that whoever started the run had then."""

    def __init__(self, planner: Plans, redactor: Redactor) -> None:
        self._planner = planner
        self._redactor = redactor

    async def send(self, run: Run, sending: Sending) -> Sent:
        """Send a task whose meta is filled. Raises nothing of the router's own errors."""
        request = request_of(sending.action, timeout_ms=max(int(sending.seconds * 1000), 1))
        try:
            outcome = await self._planner.plan(request, caller_of(run, sending.key))
        except ApprovalRequired as waiting:
            return Asked(waiting.approval["id"])
        except AutopilotError as error:
            return self._failure(error)
        result = bytes(outcome.result)
        if outcome.ok:
            return Answer(self.kept(result), outcome.autopilot)
        return self._refusal(outcome.autopilot, outcome.status, result, outcome, again=sending.again)

    def time_of(self, action: Action, timeout: float | None) -> float:
        """Return the seconds that a task may take, with the time-out of its step if that has one."""
        return timeout if timeout is not None else self._planner.seconds(request_of(action))

    def kept(self, result: bytes) -> Any:
        """Return a result as it is kept: without secrets, and not beyond its limit."""
        if len(result) > MAX_RESULT:
            return {"omitted_bytes": len(result)}
        return self._redactor.value(msgspec.json.decode(result))

    def refused(self, autopilot: str, status: int, result: bytes) -> Failure:
        """Return the failure that an answer of 4xx is, which somebody else got."""
        error = {"code": REFUSED, "detail": f"'{autopilot}' answered {status}{self._why(result)}"}
        return Failure(error, self.output(result), answered=True, autopilot=autopilot)

    def output(self, result: bytes) -> str:
        """Return the end of what was answered, without secrets."""
        text = result[-_READ_OUTPUT:].decode("utf-8", "replace")
        return self._redactor.text(text)[-MAX_OUTPUT:]

    def _refusal(self, autopilot: str, status: int, result: bytes, outcome: Outcome, *, again: bool) -> Sent:
        if status == _STILL_RUNNING and again:
            return Working(autopilot)
        failure = self.refused(autopilot, status, result)
        if status in _BUSY:
            wait = outcome.attempts[-1].retry_after if outcome.attempts else None
            return failure._replace(answered=False, wait=wait or 0.0)
        return failure

    def _failure(self, error: AutopilotError) -> Failure:
        attempts = error.extra.get("attempts") or [{}]
        told = {"code": error.code, "detail": self._redactor.text(error.detail)[:500]}
        return Failure(
            told,
            lost=error.done,
            pointless=isinstance(error, _POINTLESS),
            wait=float(attempts[-1].get("retry_after") or 0.0),
            autopilot=str(error.extra.get("autopilot", "")),
        )

    def _why(self, result: bytes) -> str:
        """Return what an answer says about itself in the way that problems do, empty when it does not."""
        if len(result) > MAX_RESULT:
            return ""
        said = msgspec.json.decode(result)
        detail = said.get("detail") or said.get("error") if isinstance(said, Mapping) else None
        return f": {self._redactor.text(detail[:1000])[:400]}" if isinstance(detail, str) and detail else ""


def request_of(action: Action, *, timeout_ms: int | None = None) -> PlanRequest:
    """Return an action as the planner takes it."""
    return PlanRequest(
        task=action.task,
        capability=action.capability,
        meta=msgspec.json.encode(action.meta),
        value=action.meta,
        timeout_ms=timeout_ms,
        autopilot=action.autopilot,
    )


def caller_of(run: Run, key: str) -> Caller:
    """Return who a run sends tasks for, with what they might do when it was started."""
    return Caller(
        Trace(run.traceparent.encode("ascii")),
        key=key,
        hops=run.hops,
        may=authority(Identity(run.requested_by, frozenset(run.scopes))),
        name=run.requested_by,
    )
