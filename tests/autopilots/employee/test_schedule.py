"""Schedules: fired at their time, once each, whatever dies or hurries."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.cron import next_time
from autopilots.ai_employee.schedule import BACKOFF, DUE, KEPT, LEASE, SCHEDULES, Fired, fire_due
from autopilots.kit import Answered
from infra.clock import rfc3339
from infra.table import Document, Page
from infra.table.sqlite import SqliteTable
from router.errors import AutopilotError, Invalid, NotReady, StoreUnavailable
from tests.autopilots.employee.parts import employee_parts, send
from tests.fakes import FakeClock


class Plan:
    """A planner that keeps what it is asked, gives the answers in turn, and can be held up."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, dict[str, Any], str]] = []
        self.gate: asyncio.Event | None = None
        self.called = asyncio.Event()

    async def until(self, count: int) -> None:
        """Wait until it was called so often."""
        while len(self.calls) < count:
            self.called.clear()
            await self.called.wait()

    async def __call__(self, task: str, meta: Mapping[str, Any], *, idempotency_key: str) -> Answered:
        self.calls.append((task, dict(meta), idempotency_key))
        self.called.set()
        answer = self.answers.pop(0) if self.answers else 200
        if self.gate:
            await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return Answered(ok=answer < 400, status=answer, autopilot="some", result={})


@pytest.fixture
def plan() -> Plan:
    """Give a planner that says yes."""
    return Plan()


@pytest.fixture
def parts(table: SqliteTable, clock: FakeClock, tmp_path: Path, plan: Plan) -> EmployeeParts:
    """Give the parts with that planner."""
    return employee_parts(table, clock, tmp_path, plan=plan)


async def record(parts: EmployeeParts, schedule_id: str) -> Document:
    """Return a schedule as it is kept."""
    item = await parts.table.get((SCHEDULES, schedule_id))
    assert item is not None
    return item.document


async def once(parts: EmployeeParts, at: str = "2026-01-01T00:01:00Z") -> str:
    """Make a one-off schedule and return its id."""
    meta = {"task": "create_lead", "meta": {"email": "a@b.co"}, "at": at}
    schedule_id: str = (await send(parts, "task.schedule", meta))["schedule"]["id"]
    return schedule_id


async def cron(parts: EmployeeParts, expression: str = "* * * * *", timezone: str = "UTC") -> str:
    """Make a cron schedule and return its id."""
    meta = {"capability": "email.send", "cron": expression, "timezone": timezone}
    schedule_id: str = (await send(parts, "task.schedule", meta))["schedule"]["id"]
    return schedule_id


async def test_one_off_fires_at_the_edge_and_never_again(
    parts: EmployeeParts, plan: Plan, clock: FakeClock
) -> None:
    """Nothing fires early; at its time the task is planned once, with a key of the occurrence."""
    schedule_id = await once(parts)
    clock.forward(59.999)
    assert await fire_due(parts) == []
    clock.forward(0.001)
    [fired] = await fire_due(parts)
    assert fired == Fired(
        schedule_id=schedule_id,
        task="create_lead",
        occurrence="2026-01-01T00:01:00.000Z",
        attempt=1,
        ok=True,
        status=200,
        detail="some answered 200",
        next_at=None,
    )
    assert plan.calls == [("create_lead", {"email": "a@b.co"}, f"{schedule_id}:2026-01-01T00:01:00.000Z")]
    clock.forward(86_400)
    assert await fire_due(parts) == []
    kept = await record(parts, schedule_id)
    assert (kept["state"], kept["fired"], kept["last"]["ok"]) == ("done", 1, True)


async def test_time_in_the_past_fires_at_once(parts: EmployeeParts, plan: Plan) -> None:
    """A one-off whose time has passed, however long ago, is due now, whatever its offset."""
    await once(parts, "2025-12-31T23:00:00-01:00")
    await once(parts, "1970-01-01T00:00:00+14:00")
    assert len(await fire_due(parts)) == 2
    assert {key.partition(":")[2] for _, _, key in plan.calls} == {"2026-01-01T00:00:00.000Z"}


async def test_time_too_far_ahead_is_refused(parts: EmployeeParts) -> None:
    """A one-off in another age is refused by field, as is a cron expression that never comes."""
    meta = {"task": "x", "at": "9999-12-31T23:59:59-12:00"}
    assert (await send(parts, "task.schedule", meta, status=422))["errors"][0]["field"] == "meta.at"
    meta = {"task": "x", "cron": "0 0 30 2 *"}
    assert (await send(parts, "task.schedule", meta, status=422))["errors"][0]["field"] == "meta.cron"


async def test_two_processes_fire_once(
    parts: EmployeeParts, plan: Plan, table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """Of two processes that find the same schedules due, each schedule is fired by exactly one."""
    ids = {await once(parts) for _ in range(3)} | {await cron(parts)}
    clock.forward(60)
    second = SqliteTable(tmp_path / "table.db", clock)
    other = employee_parts(second, clock, tmp_path, plan=plan)
    plan.gate = asyncio.Event()
    runs = asyncio.gather(fire_due(parts), fire_due(other))
    await plan.until(4)
    assert await fire_due(other) == []
    plan.gate.set()
    fired = [one.schedule_id for result in await runs for one in result]
    await second.close()
    assert sorted(fired) == sorted(ids)
    assert len(plan.calls) == 4


async def test_death_while_firing_is_made_good(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """When a process dies after its claim, the occurrence is fired after the lease, with the same key."""
    schedule_id = await once(parts)
    clock.forward(60)
    plan.gate = asyncio.Event()
    dying = asyncio.create_task(fire_due(parts))
    await plan.until(1)
    dying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dying
    plan.gate = None
    clock.forward(LEASE - 0.001)
    assert await fire_due(parts) == []
    clock.forward(0.001)
    [fired] = await fire_due(parts)
    assert (fired.schedule_id, fired.attempt, fired.ok) == (schedule_id, 2, True)
    assert plan.calls[0] == plan.calls[1]


async def test_late_process_cannot_write(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """A process that was taken for dead and comes back does not undo what its successor wrote."""
    schedule_id = await cron(parts)
    clock.forward(60)
    plan.gate = asyncio.Event()
    late = asyncio.create_task(fire_due(parts))
    await plan.until(1)
    clock.forward(LEASE)
    gate, plan.gate = plan.gate, None
    [fired] = await fire_due(parts)
    after = await record(parts, schedule_id)
    gate.set()
    assert await late == []
    assert await record(parts, schedule_id) == after
    assert fired.next_at == rfc3339(after["due_at"])
    assert len((await parts.table.range(DUE)).items) == 1


async def test_cron_fires_every_time(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """A cron schedule fires at each of its times, each with its own key."""
    schedule_id = await cron(parts)
    for _ in range(3):
        clock.forward(60)
        assert len(await fire_due(parts)) == 1
        assert await fire_due(parts) == []
    minutes = [key.removeprefix(f"{schedule_id}:2026-01-01T00:") for _, _, key in plan.calls]
    assert minutes == ["01:00.000Z", "02:00.000Z", "03:00.000Z"]


async def test_missed_times_fire_once(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """After a day of rest an every-minute schedule fires once, and then at the next minute."""
    schedule_id = await cron(parts)
    clock.forward(86_400 + 30)
    [fired] = await fire_due(parts)
    assert await fire_due(parts) == []
    assert (fired.occurrence, fired.next_at) == ("2026-01-01T00:01:00.000Z", "2026-01-02T00:01:00.000Z")
    assert len(plan.calls) == 1
    assert (await record(parts, schedule_id))["state"] == "waiting"


@pytest.mark.parametrize(
    ("answer", "status"), [(422, 422), (500, 500), (NotReady("no"), 0), (Invalid([("meta", "bad")]), 0)]
)
async def test_failed_cron_goes_on(
    parts: EmployeeParts, plan: Plan, clock: FakeClock, answer: int | Exception, status: int
) -> None:
    """A failure is recorded with its status, and the next time comes as usual."""
    plan.answers = [answer]
    schedule_id = await cron(parts)
    clock.forward(60)
    [fired] = await fire_due(parts)
    assert (fired.ok, fired.status, fired.next_at) == (False, status, "2026-01-01T00:02:00.000Z")
    last = (await record(parts, schedule_id))["last"]
    assert (last["ok"], last["status"]) == (False, status)
    if isinstance(answer, AutopilotError):
        assert answer.code in last["detail"]
    clock.forward(60)
    assert [one.ok for one in await fire_due(parts)] == [True]
    kept = await record(parts, schedule_id)
    assert (kept["fired"], kept["failed"]) == (1, 1)


async def test_one_off_is_retried_three_times(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """A one-off that fails is tried again after each pause, with the same key, and then given up."""
    plan.answers = [503, NotReady("no"), 500, 502, 200]
    schedule_id = await once(parts)
    clock.forward(60)
    [fired] = await fire_due(parts)
    for number, pause in enumerate(BACKOFF, start=2):
        assert fired.next_at == rfc3339(clock() + pause)
        clock.forward(pause - 0.001)
        assert await fire_due(parts) == []
        clock.forward(0.001)
        [fired] = await fire_due(parts)
        assert fired.attempt == number
    assert (fired.ok, fired.status, fired.next_at) == (False, 502, None)
    assert len(plan.calls) == 4
    assert len({key for _, _, key in plan.calls}) == 1
    kept = await record(parts, schedule_id)
    assert (kept["state"], kept["failed"]) == ("failed", 4)
    assert (await parts.table.range(DUE)).items == []


async def test_one_off_that_recovers_is_done(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """A retry that succeeds ends the schedule."""
    plan.answers = [500]
    schedule_id = await once(parts)
    clock.forward(60)
    await fire_due(parts)
    clock.forward(BACKOFF[0])
    assert [one.ok for one in await fire_due(parts)] == [True]
    assert (await record(parts, schedule_id))["state"] == "done"


@pytest.mark.parametrize("answer", [422, 404, Invalid([("meta", "bad")])])
async def test_what_cannot_succeed_is_not_retried(
    parts: EmployeeParts, plan: Plan, clock: FakeClock, answer: int | Exception
) -> None:
    """A task that is refused for what it is fails at once."""
    plan.answers = [answer]
    schedule_id = await once(parts)
    clock.forward(60)
    [fired] = await fire_due(parts)
    assert (fired.ok, fired.next_at) == (False, None)
    assert (await record(parts, schedule_id))["state"] == "failed"


async def test_one_bad_schedule_does_not_stop_the_others(
    parts: EmployeeParts, plan: Plan, clock: FakeClock
) -> None:
    """A crash in one firing is raised after the others were finished, and that one is made good later."""
    plan.answers = [KeyError("a defect"), 200]
    bad, good = await once(parts), await once(parts, "2026-01-01T00:01:00.001Z")
    clock.forward(61)
    with pytest.raises(KeyError):
        await fire_due(parts)
    assert (await record(parts, good))["state"] == "done"
    clock.forward(LEASE)
    assert [(one.schedule_id, one.ok) for one in await fire_due(parts)] == [(bad, True)]


async def test_finished_schedule_is_kept_thirty_days(
    parts: EmployeeParts, clock: FakeClock, table: SqliteTable
) -> None:
    """A finished schedule can be looked up for 30 days, a waiting one for ever."""
    done, waiting = await once(parts), await cron(parts)
    clock.forward(60)
    await fire_due(parts)
    clock.forward(KEPT)
    assert await table.get((SCHEDULES, done)) is None
    assert await table.get((SCHEDULES, waiting)) is not None


class Counted(SqliteTable):
    """A table that counts what is asked of it."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        super().__init__(path, clock)
        self.ranges = 0
        self.others = 0

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        self.ranges += 1
        return await super().range(partition, after=after, limit=limit, reverse=reverse)

    async def get(self, key: tuple[str, str]) -> Any:
        self.others += 1
        return await super().get(key)

    async def transact(self, writes: Any) -> list[int]:
        self.others += 1
        return await super().transact(writes)


async def test_nothing_due_costs_one_range_read(clock: FakeClock, tmp_path: Path) -> None:
    """With schedules waiting but none due, a pass reads one range and nothing else."""
    table = Counted(tmp_path / "counted.db", clock)
    parts = employee_parts(table, clock, tmp_path)
    for _ in range(3):
        await cron(parts)
    table.ranges = table.others = 0
    assert await fire_due(parts) == []
    assert (table.ranges, table.others) == (1, 0)
    await table.close()


async def test_limit_bounds_a_pass(parts: EmployeeParts, clock: FakeClock) -> None:
    """A pass fires the earliest schedules up to its limit, the next pass the rest."""
    late = await once(parts, "2026-01-01T00:00:30Z")
    early = await once(parts, "2026-01-01T00:00:20Z")
    clock.forward(60)
    assert [one.schedule_id for one in await fire_due(parts, limit=1)] == [early]
    assert [one.schedule_id for one in await fire_due(parts, limit=1)] == [late]


async def test_row_without_a_schedule_is_cleared(parts: EmployeeParts, table: SqliteTable) -> None:
    """A due row whose schedule is gone does not block the line."""
    await table.put((DUE, "2020-01-01T00:00:00.000Z#ghost"), {"id": "ghost", "due_at": 1.0})
    assert await fire_due(parts) == []
    assert (await table.range(DUE)).items == []


async def test_store_failure_is_raised(clock: FakeClock, tmp_path: Path) -> None:
    """When the store goes away while a task runs, so that its outcome cannot be kept, that is raised."""
    table = SqliteTable(tmp_path / "other.db", clock)

    class Closing(Plan):
        """A planner during whose work the store goes away."""

        async def __call__(self, task: str, meta: Mapping[str, Any], *, idempotency_key: str) -> Answered:
            await table.close()
            return await super().__call__(task, meta, idempotency_key=idempotency_key)

    parts = employee_parts(table, clock, tmp_path, plan=Closing())
    await once(parts, "2026-01-01T00:00:00Z")
    with pytest.raises(StoreUnavailable):
        await fire_due(parts)


async def test_cancelled_schedule_fires_no_more(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """Cancelling takes a schedule out of the line; twice is fine; an unknown or finished one is told."""
    schedule_id, other = await cron(parts), await once(parts)
    result = await send(parts, "task.schedule", {"cancel": schedule_id})
    assert (result["cancelled"], result["schedule"]["state"]) == (True, "cancelled")
    assert result["schedule"]["next_at"] is None
    assert (await send(parts, "task.schedule", {"cancel": schedule_id}))["cancelled"] is True
    clock.forward(60)
    assert [one.schedule_id for one in await fire_due(parts)] == [other]
    await send(parts, "task.schedule", {"cancel": other}, status=409)
    await send(parts, "task.schedule", {"cancel": "schedule_none"}, status=404)


async def test_cancel_while_firing(parts: EmployeeParts, plan: Plan, clock: FakeClock) -> None:
    """A schedule cancelled while it fires stays cancelled."""
    schedule_id = await cron(parts)
    clock.forward(60)
    plan.gate = asyncio.Event()
    firing = asyncio.create_task(fire_due(parts))
    await plan.until(1)
    await send(parts, "task.schedule", {"cancel": schedule_id})
    plan.gate.set()
    assert await firing == []
    assert (await record(parts, schedule_id))["state"] == "cancelled"
    assert (await parts.table.range(DUE)).items == []


async def test_repeated_scheduling_makes_one(parts: EmployeeParts, table: SqliteTable) -> None:
    """A second delivery gives the schedule that is there; the key with another task is a conflict."""
    meta = {"task": "create_lead", "at": "2026-02-01T00:00:00Z", "meta": {"b": 1, "a": 2}}
    first = await send(parts, "task.schedule", meta, key="k")
    again = await send(parts, "task.schedule", {**meta, "meta": {"a": 2, "b": 1}}, key="k")
    assert (first["created"], again["created"]) == (True, False)
    assert again["schedule"] == first["schedule"]
    await send(parts, "task.schedule", {**meta, "task": "update_lead"}, key="k", status=409)
    assert len((await table.range(DUE)).items) == 1


async def test_answer_shows_times_and_hides_the_meta(parts: EmployeeParts) -> None:
    """The answer says what is planned when; the task's meta, which may be private, is not repeated."""
    meta = {
        "task": "send_followup",
        "cron": "30 9 * * mon-fri",
        "timezone": "America/New_York",
        "meta": {"to": "x"},
    }
    schedule = (await send(parts, "task.schedule", meta))["schedule"]
    assert schedule["next_at"] == schedule["occurrence"] == "2026-01-01T14:30:00.000Z"
    assert (schedule["cron"], schedule["timezone"]) == ("30 9 * * mon-fri", "America/New_York")
    assert "meta" not in schedule


def times(expression: str, zone: str, start: str, count: int) -> list[str]:
    """Return the next times of an expression in UTC, as hours and minutes."""
    now: float = datetime.datetime.fromisoformat(start).timestamp()
    found = []
    for _ in range(count):
        after = next_time(expression, zone, now)
        assert after is not None
        assert after > now
        now = after
        found.append(rfc3339(now)[5:16])
    return found


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # New York springs forward on 8 March 2026 at 02:00 (07:00 UTC) and falls back on 1 November at 02:00.
        ("0 9 * * *", "2026-03-07T00:00:00-05:00", ["03-07T14:00", "03-08T13:00", "03-09T13:00"]),
        ("30 2 * * *", "2026-03-07T12:00:00-05:00", ["03-08T07:00", "03-09T06:30"]),
        ("0 9 * * *", "2026-10-31T00:00:00-04:00", ["10-31T13:00", "11-01T14:00", "11-02T14:00"]),
        ("30 1 * * *", "2026-10-31T12:00:00-04:00", ["11-01T05:30", "11-02T06:30"]),
        ("30 * * * *", "2026-11-01T00:45:00-04:00", ["11-01T05:30", "11-01T06:30", "11-01T07:30"]),
        ("30 * * * *", "2026-03-08T01:00:00-05:00", ["03-08T06:30", "03-08T07:30"]),
    ],
)
def test_cron_keeps_local_time_across_the_clock_changes(
    expression: str, start: str, expected: list[str]
) -> None:
    """A skipped time fires when the gap ends, a doubled one once, and every hour is every real hour."""
    assert times(expression, "America/New_York", start, len(expected)) == expected


@pytest.mark.parametrize(
    "zone", ["Europe/Dublin", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"]
)
def test_odd_zones_move_forward(zone: str) -> None:
    """In zones with half hours and reversed summers a daily schedule comes once a day, all year."""
    days = [one[:5] for one in times("15 2 * * *", zone, "2026-01-01T12:00:00+00:00", 365)]
    assert len(set(days)) >= 364
