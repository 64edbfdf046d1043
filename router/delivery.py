"""Sends one task: to the best candidate, and to the next one where that is safe.

A task goes to a second autopilot only when nothing was sent, when the first one asked to be left alone for
now (429 or 503 with `Retry-After`), or when the caller gave an idempotency key. All attempts share one
deadline, and those beyond the first come out of a budget.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from infra.clock import Clock
from router.audit import Deed
from router.choice import Chooser
from router.errors import AutopilotError, Deadline, ForwardFailed, Invalid, NotReady, StoreUnavailable
from router.events import Record
from router.forward import AttemptFailed, Forward, Message, Reply
from router.health import HealthBook
from router.journal import Journal, Row
from router.keys import covers
from router.model import HIGH_RISK, PlanRequest
from router.readiness import Readiness, not_ready
from router.routes import Candidate

if TYPE_CHECKING:
    from router.schema import Schema


FAIR_SECONDS = 1.0
"""An attempt that was given less time says nothing about an autopilot by being late: callers choose their
deadlines, and must not be able to close the way of others with them."""


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try. `status` is None when no answer came, `retry_after` unless it asked to wait (seconds)."""

    autopilot: str
    status: int | None
    duration_ms: float
    error: str | None
    retry_after: float | None = None


class Outcome(msgspec.Struct):
    """An answered task, as the caller gets it. `result` is the autopilot's own JSON."""

    autopilot: str
    ok: bool
    status: int
    task: str | None
    capability: str
    result: msgspec.Raw
    attempts: list[Attempt]
    duration_ms: float
    trace_id: str
    idempotent_replay: bool = False


class Budget:
    """Attempts beyond the first: one in ten calls earns one, and some are there to begin with."""

    def __init__(self, *, earned: float = 0.1, most: float = 10.0) -> None:
        self._earned = earned
        self._most = most
        self._left = most

    def earn(self) -> None:
        """Count a call."""
        self._left = min(self._most, self._left + self._earned)

    def spend(self) -> bool:
        """Whether another attempt may be made; takes it."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(slots=True)
class Errand:
    """One task while it is planned.

    `deadline` and `started` are moments of `time.monotonic`; `keyed`: the caller gave an idempotency key;
    `actor` is who the audit says it was.
    """

    request: PlanRequest
    capability: str
    message: Message
    keyed: bool
    actor: str
    deadline: float
    started: float
    attempts: list[Attempt] = field(default_factory=list)
    sent: bool = False
    """Whether any attempt may have reached an autopilot."""

    def elapsed_ms(self) -> float:
        """Return the time since the plan came in."""
        return round((time.monotonic() - self.started) * 1000, 3)


class Schemas:
    """Compiled input schemas of candidates, kept while they are in use."""

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, str], tuple[tuple[str, int], Schema]] = OrderedDict()
        """By autopilot and capability: the version of the registration, and its schema."""

    def check(self, candidate: Candidate, meta: dict[str, Any]) -> None:
        """Raise `Invalid` when `meta` is not what the candidate's capability takes."""
        document = candidate.capability.input_schema
        if document is None:
            return
        key = (candidate.name, candidate.capability.name)
        version, schema = self._kept.pop(key, (None, None))
        if schema is None or version != candidate.version:
            from router.schema import Schema  # loads jsonschema, which many processes never need

            schema = Schema(document)
        self._kept[key] = candidate.version, schema  # as the one used last
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        if problems := schema.problems(meta):
            raise Invalid(problems)


class Trail:
    """What is written down of an errand that was sent: a log row, and of high risk an audit record."""

    def __init__(self, journal: Journal, record: Record | None, clock: Clock) -> None:
        self._journal = journal
        self._record = record
        self._clock = clock

    async def audit(self, errand: Errand, status: int) -> None:
        """Audit what was sent of high risk. A caller hears of it only with the record written."""
        if self._record is None:
            return
        detail = {
            "task": errand.request.task,
            "meta_sha256": hashlib.sha256(errand.request.meta).hexdigest(),
            "autopilots": [attempt.autopilot for attempt in errand.attempts],
            "status": status,
        }
        deed = Deed(errand.actor, "task.forward", errand.capability, detail, errand.message.trace.id)
        try:
            await self._record.write(deed)
        except StoreUnavailable as error:
            error.done = errand.sent
            raise

    def log(self, errand: Errand, autopilot: str, status: int, error: str) -> None:
        """Log who answered it how; `error` is the code of what went wrong, empty for nothing."""
        self._journal.forwarded(
            Row(
                self._clock(),
                errand.request.task,
                errand.capability,
                autopilot,
                status,
                errand.elapsed_ms(),
                len(errand.attempts),
                errand.message.trace.id,
                error,
            )
        )


class Delivery:
    """Delivers errands."""

    def __init__(
        self,
        *,
        chooser: Chooser,
        health: HealthBook,
        readiness: Readiness,
        forward: Forward,
        journal: Journal,
        clock: Clock,
        record: Record | None = None,
    ) -> None:
        self._chooser = chooser
        self._health = health
        self._readiness = readiness
        self._forward = forward
        self._trail = Trail(journal, record, clock)
        self._schemas = Schemas()
        self._budget = Budget()

    def check(self, candidate: Candidate, meta: dict[str, Any]) -> None:
        """Raise `Invalid` when a candidate would not take this `meta`."""
        self._schemas.check(candidate, meta)

    async def send(self, errand: Errand, candidates: tuple[Candidate, ...]) -> Outcome:
        """Send and return the answer. Raises as `Planner.plan` does; every attempt leaves a log row."""
        self._budget.earn()
        try:
            candidate, reply = await self._deliver(errand, candidates)
        except AutopilotError as error:
            if errand.attempts:
                status = 504 if isinstance(error, Deadline) else 502
                self._trail.log(errand, errand.attempts[-1].autopilot, status, error.code)
                if _is_high_risk(errand.capability):
                    await self._trail.audit(errand, status)
            raise
        outcome = Outcome(
            autopilot=candidate.name,
            ok=200 <= reply.status < 300,
            status=reply.status,
            task=errand.request.task,
            capability=errand.capability,
            result=msgspec.Raw(reply.result),
            attempts=errand.attempts,
            duration_ms=errand.elapsed_ms(),
            trace_id=errand.message.trace.id,
        )
        self._trail.log(errand, candidate.name, reply.status, "")
        if _is_high_risk(errand.capability):
            await self._trail.audit(errand, reply.status)
        return outcome

    async def _deliver(self, errand: Errand, candidates: tuple[Candidate, ...]) -> tuple[Candidate, Reply]:
        tried: list[str] = []
        candidate = self._chooser.choose(candidates)
        if candidate is None:
            raise ForwardFailed(f"nobody that offers {errand.capability} has a lease that still runs")
        await self._prepare(candidate, errand)
        while True:
            tried.append(candidate.name)
            reply, repeatable = await self._attempt(errand, candidate)
            following = await self._following(errand, candidates, tried) if repeatable else None
            if following is not None and self._budget.spend():
                candidate = following
            elif reply is None or reply.status >= 500:
                raise _failed(errand)
            else:
                return candidate, reply

    async def _following(
        self, errand: Errand, candidates: tuple[Candidate, ...], tried: list[str]
    ) -> Candidate | None:
        """Return the next best that takes the task; those that do not are passed over, and count as tried.

        What speaks against one of them is no answer: the task was offered to another one already.
        """
        while (candidate := self._chooser.choose(candidates, tried)) is not None:
            try:
                await self._prepare(candidate, errand)
            except (Invalid, NotReady):
                tried.append(candidate.name)
            else:
                return candidate
        return None

    async def _prepare(self, candidate: Candidate, errand: Errand) -> None:
        """Raise `Invalid` or `NotReady` when a candidate cannot be sent the task."""
        self._schemas.check(candidate, errand.request.value)
        if self._readiness.known(candidate):
            return
        try:
            async with asyncio.timeout_at(errand.deadline):
                await self._readiness.make(candidate)
        except TimeoutError:
            late = "time ran out; the next task goes on with what was begun"
            details = [{"kind": "", "name": "", "code": Deadline.code, "message": late, "hint": ""}]
            raise not_ready(candidate, details) from None

    async def _attempt(self, errand: Errand, candidate: Candidate) -> tuple[Reply | None, bool]:
        """Send once. Return the reply, None for none, and whether another autopilot may get the task."""
        health = self._health.of(candidate.name)
        health.in_flight += 1
        trial = health.is_open and health.trial_due(self._health.monotonic())
        if trial:
            health.trial = True
        began = time.monotonic()
        reply: Reply | None = None
        failure: AttemptFailed | None = None
        try:
            reply = await self._forward.post(candidate, "/tasks", errand.message, errand.deadline)
        except AttemptFailed as error:
            failure = error
        except BaseException:
            if trial:
                health.abandoned()
            raise
        finally:
            health.in_flight -= 1
        errand.sent = errand.sent or failure is None or not failure.safe
        trouble = str(failure) if failure else None
        if reply is not None and reply.status < 500:
            health.succeeded()
        else:
            if not (failure and failure.late and errand.deadline - began < FAIR_SECONDS):
                health.failed(self._health.monotonic())
            elif trial:
                health.abandoned()
            trouble = trouble or f"answered {reply.status}" if reply else trouble
        duration = round((time.monotonic() - began) * 1000, 3)
        status, later = (reply.status, reply.retry_after) if reply else (None, None)
        errand.attempts.append(Attempt(candidate.name, status, duration, trouble, later))
        return reply, _may_repeat(reply, failure, keyed=errand.keyed)


@lru_cache(maxsize=4096)
def _is_high_risk(capability: str) -> bool:
    return any(covers(pattern, capability) for pattern in HIGH_RISK)


def _failed(errand: Errand) -> AutopilotError:
    last = errand.attempts[-1]
    late = time.monotonic() >= errand.deadline
    kind = Deadline if late else ForwardFailed
    error = kind(
        f"'{last.autopilot}' {last.error}",
        autopilot=last.autopilot,
        attempts=[msgspec.to_builtins(attempt) for attempt in errand.attempts],
        hint="GET /autopilot/list shows the health of each autopilot; check that it runs at its endpoint",
    )
    error.done = errand.sent
    return error


def _may_repeat(reply: Reply | None, failure: AttemptFailed | None, *, keyed: bool) -> bool:
    """Whether the task may go to another autopilot after this attempt."""
    if failure is not None:
        return not failure.late and (failure.safe or keyed)
    assert reply is not None
    if reply.status in {429, 503} and reply.retry_after is not None:
        return True
    return reply.status >= 500 and keyed
