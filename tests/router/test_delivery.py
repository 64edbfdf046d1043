"""Sending a task: who gets it, when somebody else may get it, and what is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from router.delivery import Budget, Schemas
from router.errors import AutopilotError, Deadline, Forbidden, ForwardFailed, Invalid, NotReady
from router.forward import AttemptFailed, Reply
from router.health import State
from router.model import Capability, Needs
from tests.router.parts import LATE, LOST, OK, UNREACHABLE, Core, Step, autopilot, errand, record_of, until

CAP = "web.pages.generate"
BUSY = Reply(503, b"{}", 5.0)
SLOW_DOWN = Reply(429, b"{}", 1.0)
LATE_UNSENT = AttemptFailed("did not answer in time", safe=True, late=True)


def answer(status: int) -> Reply:
    """Give an answer without `Retry-After`."""
    return Reply(status, b'{"from":"a"}', None)


MATRIX: list[tuple[str, Step, bool, bool, int | None]] = [
    # what the first does         keyed  second gets it  status when there is no second; None: it failed
    ("nothing sent", UNREACHABLE, False, True, None),
    ("nothing sent", UNREACHABLE, True, True, None),
    ("sent, no answer", LOST, False, False, None),
    ("sent, no answer", LOST, True, True, None),
    ("late", LATE, False, False, None),
    ("late", LATE, True, False, None),
    ("late, nothing sent", LATE_UNSENT, False, False, None),
    ("late, nothing sent", LATE_UNSENT, True, False, None),
    ("500", answer(500), False, False, None),
    ("500", answer(500), True, True, None),
    ("502", answer(502), False, False, None),
    ("503", answer(503), False, False, None),
    ("503", answer(503), True, True, None),
    ("503 with Retry-After", BUSY, False, True, None),
    ("503 with Retry-After", BUSY, True, True, None),
    ("500 with Retry-After", Reply(500, b"{}", 1.0), False, False, None),
    ("429", answer(429), False, False, 429),
    ("429", answer(429), True, False, 429),
    ("429 with Retry-After", SLOW_DOWN, False, True, 429),
    ("429 with Retry-After", SLOW_DOWN, True, True, 429),
    ("400", answer(400), False, False, 400),
    ("404", answer(404), True, False, 404),
    ("422 with Retry-After", Reply(422, b"{}", 1.0), True, False, 422),
    ("200", OK, False, False, 200),
    ("201", answer(201), True, False, 201),
]


def title(row: Any) -> str:
    """Name a row of the matrix."""
    return row if isinstance(row, str) else "keyed" if row is True else ""


@pytest.mark.parametrize(("what", "first", "keyed", "repeats", "alone"), MATRIX, ids=title)
@pytest.mark.parametrize("second", [False, True], ids=["alone", "two"])
async def test_who_gets_the_task(
    parts: Core, what: str, first: Step, keyed: bool, repeats: bool, alone: int | None, second: bool
) -> None:
    """A task goes to a second autopilot where that is safe, and nowhere else."""
    await parts.register(autopilot("a", CAP))
    if second:
        await parts.register(autopilot("b", CAP))
    parts.forward.on("a", first)
    call = parts.deliver(CAP, key="k" if keyed else "")
    expected = 200 if second and repeats else alone
    if expected is None:
        with pytest.raises(ForwardFailed) as failed:
            await call
        assert failed.value.extra["autopilot"] == "a"
        assert [one["autopilot"] for one in failed.value.extra["attempts"]] == ["a"]
    else:
        outcome = await call
        assert (outcome.status, outcome.ok) == (expected, expected < 300)
        assert outcome.autopilot == ("b" if second and repeats else "a")
    assert parts.forward.names() == (["a", "b"] if second and repeats else ["a"])


async def test_all_attempts_send_the_same_task(parts: Core) -> None:
    """The same id, key and bytes go to the second one, so that whoever got both recognises it."""
    await parts.register(autopilot("a", CAP), autopilot("b", CAP))
    parts.forward.on("a", LOST)
    await parts.deliver(CAP, key="k")
    (_, _, first), (_, _, second) = parts.forward.sent
    assert first is second
    assert parts.forward.deadlines[0] == parts.forward.deadlines[1]


async def test_everybody_is_tried_once_in_the_order_of_choice(parts: Core) -> None:
    """The answer has every attempt with its status, time and reason."""
    for name in ("c", "a", "b", "d"):
        await parts.register(autopilot(name, CAP))
    parts.forward.on("a", UNREACHABLE)
    parts.forward.on("b", BUSY)
    parts.forward.on("c", answer(500))
    outcome = await parts.deliver(CAP, key="k")
    assert [(one.autopilot, one.status, one.error) for one in outcome.attempts] == [
        ("a", None, "could not be reached"),
        ("b", 503, "answered 503"),
        ("c", 500, "answered 500"),
        ("d", 200, None),
    ]
    assert all(one.duration_ms >= 0 for one in outcome.attempts)
    assert bytes(outcome.result) == OK.result
    assert outcome.trace_id


async def test_when_all_fail_the_last_one_is_named_with_all_attempts(parts: Core) -> None:
    """Whoever reads the error sees the whole way."""
    await parts.register(autopilot("a", CAP), autopilot("b", CAP))
    parts.forward.on("a", UNREACHABLE)
    parts.forward.on("b", answer(500))
    with pytest.raises(ForwardFailed, match="'b' answered 500") as failed:
        await parts.deliver(CAP)
    assert [one["autopilot"] for one in failed.value.extra["attempts"]] == ["a", "b"]
    assert "hint" in failed.value.extra


async def test_a_call_whose_time_is_over_ends_as_that(parts: Core) -> None:
    """Late within the deadline is a failure of the autopilot, after it the deadline's."""
    await parts.register(autopilot("a", CAP), autopilot("b", CAP))
    parts.forward.on("a", LATE)
    with pytest.raises(Deadline, match="did not answer in time"):
        await parts.deliver(CAP, key="k", seconds=-0.001)
    assert parts.forward.names() == ["a"]
    [row] = await parts.logged()
    assert (row["status"], row["error"], row["attempts"]) == (504, "deadline", 1)


async def test_making_ready_is_within_the_same_deadline(parts: Core) -> None:
    """A provider that hangs does not hold the caller longer, and nothing is sent."""
    await parts.register(autopilot("a", CAP, needs=Needs(queues=("jobs",))))
    parts.provider.gate = asyncio.Event()
    with pytest.raises(NotReady, match="what 'a' needs") as refused:
        await parts.deliver(CAP, seconds=0.01)
    assert [one["code"] for one in refused.value.extra["details"]] == ["deadline"]
    assert parts.forward.sent == []
    parts.provider.gate.set()


async def test_nobody_with_a_lease_that_runs(parts: Core) -> None:
    """That is no reason to send to one whose lease is over."""
    await parts.register(autopilot("a", CAP, lease_seconds=10))
    parts.clock.forward(10)
    with pytest.raises(ForwardFailed, match="lease"):
        await parts.deliver(CAP)
    assert parts.forward.sent == []


async def test_with_everything_down_few_attempts_are_added(parts: Core) -> None:
    """10,000 calls against three dead autopilots make at most 1.2 attempts each, and each call makes one."""
    for name in ("a", "b", "c"):
        await parts.register(autopilot(name, CAP))
        parts.forward.on(name, UNREACHABLE)
    for number in range(10_000):
        parts.clock.now += 0.0001
        with pytest.raises(ForwardFailed):
            await parts.deliver(CAP, key=f"k{number}")
    assert 10_000 <= len(parts.forward.sent) <= 12_000


def test_the_budget_is_earned_and_spent() -> None:
    """Some attempts are there to begin with, one in ten calls earns another, and there is a most."""
    budget = Budget(earned=0.25, most=2.0)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(3):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("step", "state"),
    [
        (OK, State.HEALTHY),
        (answer(404), State.HEALTHY),
        (SLOW_DOWN, State.HEALTHY),
        (answer(500), State.DOWN),
        (BUSY, State.DOWN),
        (UNREACHABLE, State.DOWN),
        (LOST, State.DOWN),
        (LATE, State.DOWN),
    ],
)
async def test_answers_feed_the_health(parts: Core, step: Step, state: State) -> None:
    """Five failures of its own open an autopilot's circuit; refusing a task is no failure."""
    await parts.register(autopilot("a", CAP))
    parts.forward.on("a", step)
    for _ in range(5):
        with suppress(ForwardFailed):
            await parts.deliver(CAP)
    assert parts.health.of("a").state() is state
    assert parts.health.of("a").in_flight == 0


async def test_an_open_circuit_moves_traffic_and_a_trial_brings_it_back(parts: Core) -> None:
    """Five failures, ten seconds at the second one, one trial, and all is as before."""
    await parts.register(autopilot("a", CAP, priority=1), autopilot("b", CAP, priority=2))
    parts.forward.on("a", *[answer(500)] * 5, OK)
    for _ in range(5):
        with pytest.raises(ForwardFailed):
            await parts.deliver(CAP)
    assert [(await parts.deliver(CAP)).autopilot for _ in range(3)] == ["b"] * 3
    parts.clock.forward(10)
    assert [(await parts.deliver(CAP)).autopilot for _ in range(3)] == ["a"] * 3
    assert parts.health.of("a").state() is State.HEALTHY


async def opened(parts: Core, *names: str) -> None:
    """Register autopilots whose circuits are open."""
    for priority, name in enumerate(names):
        await parts.register(autopilot(name, CAP, priority=priority))
        for _ in range(5):
            parts.health.of(name).failed(parts.clock())


class Held:
    """A step that waits until it is let go."""

    def __init__(self, step: Reply | Exception) -> None:
        self.step = step
        self.gate = asyncio.Event()

    async def __call__(self) -> Reply:
        await self.gate.wait()
        if isinstance(self.step, Exception):
            raise self.step
        return self.step


async def test_only_one_task_is_let_through_on_trial(parts: Core) -> None:
    """While it is on its way the others go elsewhere; what they do there does not end the trial."""
    await opened(parts, "a")
    await parts.register(autopilot("b", CAP, priority=9))
    parts.clock.forward(10)
    held = Held(OK)
    parts.forward.on("a", held)
    trial = asyncio.create_task(parts.deliver(CAP))
    await until(lambda: parts.forward.sent)
    assert [(await parts.deliver(CAP)).autopilot for _ in range(3)] == ["b"] * 3
    held.gate.set()
    assert (await trial).autopilot == "a"
    assert not parts.health.of("a").is_open


async def test_an_attempt_as_a_last_resort_is_no_trial(parts: Core) -> None:
    """Somebody who goes away from it does not let a second trial through beside the first."""
    await opened(parts, "a")
    parts.clock.forward(10)
    held = Held(OK)
    parts.forward.on("a", held)
    calls = [asyncio.create_task(parts.deliver(CAP)) for _ in range(2)]
    await until(lambda: len(parts.forward.sent) == 2)
    health = parts.health.of("a")
    assert (health.trial, health.in_flight) == (True, 2)
    calls[1].cancel()
    await asyncio.wait([calls[1]])
    assert (health.trial, health.in_flight) == (True, 1)
    held.gate.set()
    assert (await calls[0]).ok


async def test_a_trial_that_is_abandoned_makes_room_for_another(parts: Core) -> None:
    """The caller went away: the autopilot is not worse for it, and nothing counts as in flight."""
    await opened(parts, "a")
    parts.clock.forward(10)
    parts.forward.on("a", Held(OK))
    call = asyncio.create_task(parts.deliver(CAP))
    await until(lambda: parts.forward.sent)
    health = parts.health.of("a")
    assert not health.trial_due(parts.clock())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert health.in_flight == 0
    assert health.trial_due(parts.clock())


async def test_a_burst_of_failures_opens_the_circuit_for_one_window(parts: Core) -> None:
    """A hundred tasks that were under way when an autopilot died count as one opening, not as ninety-six."""
    await parts.register(autopilot("a", CAP))
    held = Held(LOST)
    parts.forward.on("a", held)
    calls = [asyncio.create_task(parts.deliver(CAP)) for _ in range(100)]
    await until(lambda: len(parts.forward.sent) == 100)
    assert parts.health.of("a").in_flight == 100
    held.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert parts.health.of("a").in_flight == 0
    assert not parts.health.of("a").trial_due(parts.clock() + 9.9)
    assert parts.health.of("a").trial_due(parts.clock() + 10)


async def test_a_bug_in_sending_leaves_nothing_in_flight(parts: Core) -> None:
    """Even an error that nobody foresaw."""
    await parts.register(autopilot("a", CAP))
    parts.forward.on("a", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await parts.deliver(CAP)
    assert parts.health.of("a").in_flight == 0
    assert parts.health.of("a").state() is State.UNKNOWN


async def test_load_is_spread_over_equals(parts: Core) -> None:
    """Tasks that run at the same time go to the one with the fewest."""
    for name in ("a", "b", "c"):
        await parts.register(autopilot(name, CAP))
    held = Held(OK)
    for name in ("a", "b", "c"):
        parts.forward.on(name, held)
    calls = [asyncio.create_task(parts.deliver(CAP)) for _ in range(9)]
    await until(lambda: len(parts.forward.sent) == 9)
    held.gate.set()
    await asyncio.gather(*calls)
    assert sorted(parts.forward.names()) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


STRICT = Capability(CAP, input_schema={"required": ["title"], "properties": {"title": {"type": "string"}}})


async def send(parts: Core, *, key: str = "", **meta: Any) -> str:
    """Send a task with a meta; return who answered."""
    made = errand(CAP, key=key, **meta)
    return (await parts.delivery.send(made, await parts.routes.candidates(CAP))).autopilot


async def test_meta_is_checked_before_anything_is_sent(parts: Core) -> None:
    """A refusal names the field, sends nothing and leaves no log row."""
    await parts.register(autopilot("a", STRICT))
    with pytest.raises(Invalid) as refused:
        await send(parts, title=1)
    assert [problem.field for problem in refused.value.problems] == ["meta.title"]
    assert parts.forward.sent == []
    assert await parts.logged() == []
    assert await send(parts, title="x") == "a"


async def test_meta_is_checked_before_needs_are_ensured(parts: Core) -> None:
    """Nothing is created for a task that is not taken."""
    await parts.register(autopilot("a", STRICT, needs=Needs(queues=("jobs",))))
    with pytest.raises(Invalid):
        await send(parts)
    assert parts.provider.inventories == 0


async def test_a_following_one_that_would_not_take_the_task_is_passed_over(parts: Core) -> None:
    """Its refusal is no answer to a task that the first one was offered."""
    await parts.register(
        autopilot("a", CAP), autopilot("b", STRICT), autopilot("c", CAP, needs=Needs(queues=("jobs",)))
    )
    parts.forward.on("a", UNREACHABLE)
    parts.provider.refuses["jobs"] = Forbidden("no")
    with pytest.raises(ForwardFailed, match="'a' could not be reached"):
        await send(parts)
    assert parts.forward.names() == ["a"]
    await parts.register(autopilot("d", CAP))
    assert await send(parts) == "d"


async def test_an_answer_to_wait_is_passed_on_when_nobody_else_would_take_the_task(parts: Core) -> None:
    """429 of the first one is the answer, not the refusal of the second."""
    await parts.register(autopilot("a", CAP), autopilot("b", STRICT))
    parts.forward.on("a", SLOW_DOWN)
    outcome = await parts.deliver(CAP)
    assert (outcome.autopilot, outcome.status) == ("a", 429)


async def test_a_schema_that_changes_is_compiled_anew(parts: Core) -> None:
    """By an update, and by a registration that comes back under its name at the same revision."""
    other = Capability(CAP, input_schema={"required": ["other"]})
    await parts.register(autopilot("a", other))
    assert await send(parts, other=1) == "a"
    await parts.registry.delete("a")
    await parts.register(autopilot("a", STRICT))
    assert (await record_of(parts, "a")).revision == 1
    assert await send(parts, title="x") == "a"
    await parts.register(autopilot("a", other))
    with pytest.raises(Invalid, match="other"):
        await send(parts, title="x")


async def test_compiled_schemas_are_kept_while_they_are_used(parts: Core) -> None:
    """The one that was not used for longest makes room."""
    kept = Schemas(most=2)
    await parts.register(*(autopilot(name, STRICT) for name in "abc"))
    a, b, c = await parts.routes.candidates(CAP)
    parts.clock.forward(2)
    again = (await parts.routes.candidates(CAP))[0]
    compiled: dict[str, object] = {}
    for one in (a, b, again, c, a):
        kept.check(one, {"title": "x"})
        compiled.setdefault(one.name, kept._kept[one.name, CAP][1])
    assert [name for name, _ in kept._kept] == ["c", "a"]
    assert kept._kept["a", CAP][1] is compiled["a"]


async def test_every_delivery_leaves_one_row(parts: Core) -> None:
    """Who got it, how it ended, how many attempts it took."""
    await parts.register(autopilot("a", CAP), autopilot("b", CAP))
    parts.forward.on("a", OK, UNREACHABLE, answer(404), answer(500))
    first = await parts.plan("generate_page")
    await parts.deliver(CAP)
    await parts.deliver(CAP)
    with pytest.raises(AutopilotError):
        await parts.deliver(CAP)
    rows = await parts.logged()
    shown = [(row["autopilot"], row["status"], row["ok"], row["attempts"], row["error"]) for row in rows]
    assert shown == [
        ("a", 200, True, 1, ""),
        ("b", 200, True, 2, ""),
        ("a", 404, False, 1, ""),
        ("a", 502, False, 1, "forward_failed"),
    ]
    assert (rows[0]["task"], rows[0]["capability"]) == ("generate_page", CAP)
    assert rows[0]["trace_id"] == first.trace_id
    assert rows[0]["ts"] == "2026-01-01T00:00:00.000Z"
    assert [row["level"] for row in rows] == ["info", "info", "warning", "error"]
