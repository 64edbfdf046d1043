"""`task.schedule`: keeps schedules, and fires those that are due.

A schedule is one document; while it waits there is also a row in the partition `DUE`, ordered by time, so
that finding what is due is one range read.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from autopilots.ai_employee.cron import cron_expression, next_time, zone_name
from autopilots.ai_employee.fields import RecordId, TaskName
from autopilots.ai_employee.once import DAY, fingerprint, id_for
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.kit import Call, Meta, Parts
from infra.clock import rfc3339
from infra.table import Delete, Document, Item, Key, Put, Write
from router.errors import AutopilotError, Conflict, Deadline, Invalid, NotFound, Stale

SCHEDULES = "employee:schedule"
"""Partition of the schedules; the sort key is the schedule's id."""

DUE = "employee:due"
"""Partition of what waits; the sort key is TIME#ID, the document {id, due_at (epoch seconds)}."""

KEPT = 30 * DAY
"""How long a finished schedule is kept."""

FURTHEST = 10 * 366 * DAY
"""How far ahead a one-off may be, in seconds."""

LEASE = 300.0
"""Seconds a claim lasts: after that whoever claimed it is taken for dead."""

LONGEST = 240.0
"""Seconds a fired task may take; well below `LEASE`, so the living never lose their claim."""

BACKOFF = (30.0, 120.0, 480.0)
"""Seconds before each retry of a one-off."""

_RETRIED_STATUSES = frozenset({409, 425, 429})
"""Refusals that may pass, besides everything from 500 on."""


class ScheduleTask(Meta):
    """A task to be planned once at a time, or again and again; or the id of a schedule to cancel."""

    task: TaskName | None = Field(None, description="The task to plan, such as send_followup.")
    capability: TaskName | None = Field(None, description="A capability, in place of a task.")
    meta: dict[str, Any] = Field(default_factory=dict, description="The meta of that task.")
    at: AwareDatetime | None = Field(None, description="Once, then: RFC 3339. The past means at once.")
    cron: Annotated[str, Field(max_length=100), AfterValidator(cron_expression)] | None = Field(
        None, description="Again and again: minute hour day month weekday."
    )
    timezone: Annotated[
        str, Field(max_length=60, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$"), AfterValidator(zone_name)
    ] = Field("UTC", description="Zone the cron expression is in, such as America/New_York.")
    cancel: RecordId | None = Field(None, description="Id of a schedule to cancel; nothing else then.")

    @model_validator(mode="after")
    def _complete(self) -> ScheduleTask:
        if self.cancel is not None:
            if self.model_fields_set != {"cancel"}:
                raise ValueError("cancel stands alone")
            return self
        if (self.task is None) == (self.capability is None):
            raise ValueError("give either task or capability")
        if (self.at is None) == (self.cron is None):
            raise ValueError("give either at or cron")
        if (self.task or self.capability) in ("schedule_task", "task.schedule"):
            raise ValueError("a schedule cannot make schedules: they would multiply")
        return self


def due_row(schedule_id: str, due_at: float) -> Put:
    """Return the write that makes a schedule due then."""
    return Put((DUE, f"{rfc3339(due_at)}#{schedule_id}"), {"id": schedule_id, "due_at": due_at})


def due_key(schedule: Document) -> Key:
    """Return the key of the row that `due_row` wrote for this schedule."""
    return (DUE, f"{rfc3339(schedule['due_at'])}#{schedule['id']}")


async def schedule_task(meta: ScheduleTask, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Keep a schedule and return it with its first time, or cancel one."""
    if meta.cancel is not None:
        return await _cancel(meta.cancel, call)
    parts, now = call.parts, call.parts.clock()
    due_at = _first_time(meta, now)
    schedule_id = id_for(call, "schedule")
    wanted = meta.model_dump(mode="json", exclude={"cancel"})
    document: Document = {
        "id": schedule_id,
        "wanted": fingerprint(wanted),
        "task": meta.task or meta.capability,
        "meta": meta.meta,
        "cron": meta.cron,
        "timezone": meta.timezone if meta.cron else None,
        "state": "waiting",
        "occurrence": rfc3339(due_at),
        "due_at": due_at,
        "attempts": 0,
        "fired": 0,
        "failed": 0,
        "last": None,
        "created_at": rfc3339(now),
    }
    try:
        await parts.table.transact(
            [Put((SCHEDULES, schedule_id), document, if_revision=0), due_row(schedule_id, due_at)]
        )
    except Stale:
        return await _known(schedule_id, document["wanted"], call)
    return {"created": True, "schedule": shown(document)}


def _first_time(meta: ScheduleTask, now: float) -> float:
    if meta.cron is not None:
        first = next_time(meta.cron, meta.timezone, now)
        if first is None:
            raise Invalid([("meta.cron", "there is no such time in the next nine years")])
        return first
    assert meta.at is not None
    if meta.at.timestamp() > now + FURTHEST:
        raise Invalid([("meta.at", "more than ten years ahead")])
    return max(meta.at.timestamp(), now)


async def _known(schedule_id: str, wanted: str, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Return the schedule that an earlier delivery of this task made."""
    item = await call.parts.table.get((SCHEDULES, schedule_id))
    if item is None or item.document["wanted"] != wanted:
        raise Conflict("this idempotency key was used for another schedule")
    return {"created": False, "schedule": shown(item.document)}


async def _cancel(schedule_id: str, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Cancel a schedule. One that is being fired now still finishes what it began, and fires no more."""
    table, now = call.parts.table, call.parts.clock()
    item = await table.get((SCHEDULES, schedule_id))
    if item is None:
        raise NotFound(f"there is no schedule {schedule_id}")
    if item.document["state"] == "cancelled":
        return {"cancelled": True, "schedule": shown(item.document)}
    if item.document["state"] in ("done", "failed"):
        raise Conflict(f"the schedule is {item.document['state']} already")
    document = {**item.document, "state": "cancelled", "cancelled_at": rfc3339(now)}
    writes: list[Write] = [
        Put(item.key, document, if_revision=item.revision, expires_at=now + KEPT),
        Delete(due_key(item.document)),
    ]
    try:
        await table.transact(writes)
    except Stale:
        raise Conflict("the schedule was changed at this moment: try again") from None
    return {"cancelled": True, "schedule": shown(document)}


def shown(document: Document) -> Document:
    """Return a schedule as results show it: without the meta of its task, which may be private."""
    hidden = {"meta", "wanted", "due_at"}
    times = {"next_at": rfc3339(document["due_at"]) if document["state"] == "waiting" else None}
    return {**{name: value for name, value in document.items() if name not in hidden}, **times}


@dataclass(frozen=True, slots=True)
class Fired:
    """One firing. `status` is the answer's, 0 when there was none; `next_at` is None when it was the last."""

    schedule_id: str
    task: str
    occurrence: str
    attempt: int
    ok: bool
    status: int
    detail: str
    next_at: str | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    ok: bool
    status: int
    detail: str
    again: bool


async def fire_due(parts: Parts, limit: int = 20) -> list[Fired]:
    """Fire up to `limit` schedules that are due, side by side, and return what came of each.

    Costs one range read when nothing is due. Any number of processes may call it at once: claiming a schedule
    raises its revision and moves its due row behind the lease in one transaction, so one of them wins, and a
    late one can no longer write. When the winner dies, the row becomes due again after the lease and the same
    occurrence is planned with the same idempotency key, by which the router knows a repeat.

    A cron schedule fires once for however many times it missed, goes on after a failure, and never overlaps
    with itself: its next time is reckoned when it has finished. A one-off is retried after `BACKOFF` where
    that may help, always with the same key.
    """
    now = parts.clock()
    page = await parts.table.range(DUE, limit=limit)
    due = [row for row in page.items if row.document["due_at"] <= now]
    claimed = [item for row in due if (item := await _claim(parts, row, now)) is not None]
    results = await asyncio.gather(*(_fire(parts, item) for item in claimed), return_exceptions=True)
    broken = [result for result in results if isinstance(result, BaseException)]
    if broken:  # after the others have finished: one bad schedule must not cut them off
        raise broken[0]
    return [result for result in results if isinstance(result, Fired)]


async def _claim(parts: Parts, row: Item, now: float) -> Item | None:
    """Return the schedule as this process holds it, or None when it is another's or gone."""
    item = await parts.table.get((SCHEDULES, row.document["id"]))
    if (
        item is None
        or item.document["state"] not in ("waiting", "firing")
        or due_key(item.document) != row.key
    ):
        # Left behind by nobody: no transaction writes such a row. Removed so that it cannot block the line.
        await parts.table.delete(row.key)
        return None
    until = now + LEASE
    document = {
        **item.document,
        "state": "firing",
        "attempts": item.document["attempts"] + 1,
        "due_at": until,
    }
    writes: list[Write] = [
        Put(item.key, document, if_revision=item.revision),
        Delete(row.key, if_revision=row.revision),
        due_row(document["id"], until),
    ]
    try:
        revision, *_ = await parts.table.transact(writes)
    except Stale:
        return None
    return Item(item.key, document, revision)


async def _fire(parts: Parts, item: Item) -> Fired | None:
    """Plan the task of a claimed schedule and keep what came of it. None when the claim was lost."""
    schedule = item.document
    outcome = await _plan(parts, schedule)
    now = parts.clock()
    due_at = _next(schedule, outcome, now)
    document = _after(schedule, outcome, due_at, now)
    writes: list[Write] = [Delete(due_key(schedule))]
    if due_at is None:
        writes.append(Put(item.key, document, if_revision=item.revision, expires_at=now + KEPT))
    else:
        writes += [Put(item.key, document, if_revision=item.revision), due_row(schedule["id"], due_at)]
    try:
        await parts.table.transact(writes)
    except Stale:  # cancelled meanwhile, or taken over: the record is no longer ours to write
        return None
    return Fired(
        schedule_id=schedule["id"],
        task=schedule["task"],
        occurrence=schedule["occurrence"],
        attempt=schedule["attempts"],
        ok=outcome.ok,
        status=outcome.status,
        detail=outcome.detail,
        next_at=None if due_at is None else rfc3339(due_at),
    )


async def _plan(parts: Parts, schedule: Document) -> _Outcome:
    key = f"{schedule['id']}:{schedule['occurrence']}"
    try:
        async with asyncio.timeout(LONGEST):
            answered = await parts.plan(schedule["task"], schedule["meta"], idempotency_key=key)
    except AutopilotError as error:
        return _Outcome(
            ok=False, status=0, detail=f"{error.code}: {error.detail}"[:500], again=error.retryable
        )
    except TimeoutError:
        return _Outcome(ok=False, status=0, detail=f"{Deadline.code}: over {LONGEST:.0f} s", again=True)
    status = answered.status
    again = not answered.ok and (status >= 500 or status in _RETRIED_STATUSES)
    return _Outcome(answered.ok, status, f"{answered.autopilot} answered {status}", again)


def _next(schedule: Document, outcome: _Outcome, now: float) -> float | None:
    """Return when the schedule is due again, None for never."""
    if schedule["cron"]:
        return next_time(schedule["cron"], schedule["timezone"], now)
    if outcome.ok or not outcome.again or schedule["attempts"] > len(BACKOFF):
        return None
    return now + BACKOFF[schedule["attempts"] - 1]


def _after(schedule: Document, outcome: _Outcome, due_at: float | None, now: float) -> Document:
    """Return the schedule as it is after this firing."""
    last = {
        "at": rfc3339(now),
        "occurrence": schedule["occurrence"],
        "attempt": schedule["attempts"],
        "ok": outcome.ok,
        "status": outcome.status,
        "detail": outcome.detail,
    }
    document = {
        **schedule,
        "fired": schedule["fired"] + outcome.ok,
        "failed": schedule["failed"] + (not outcome.ok),
        "last": last,
    }
    if due_at is None:
        return {**document, "state": "done" if outcome.ok or schedule["cron"] else "failed"}
    document |= {"state": "waiting", "due_at": due_at}
    if schedule["cron"]:
        document |= {"occurrence": rfc3339(due_at), "attempts": 0}
    return document
