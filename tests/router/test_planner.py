"""The way of one task, from its name to the answer, and the explanation that agrees with it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from infra.table.sqlite import SqliteTable
from router.errors import (
    AutopilotError,
    Deadline,
    Forbidden,
    ForwardFailed,
    Invalid,
    LoopDetected,
    NoAutopilot,
    NotReady,
    StoreUnavailable,
    TaskRequired,
    UnknownTask,
)
from router.forward import MAX_HOPS, Reply
from router.health import State
from router.model import MAX_CAPABILITIES, Capability, Needs, PlanRequest
from router.planner import Caller
from router.trace import Trace
from tests.fakes import FakeClock
from tests.router.parts import (
    LATE,
    OK,
    UNREACHABLE,
    Core,
    asking,
    autopilot,
    core,
    dump,
    record_of,
)

CAP = "web.pages.generate"


def configured(**capability: Any) -> Reply:
    """Give the answer of an autopilot that added a capability."""
    return Reply(200, json.dumps({"ok": True, "capability": capability}).encode(), None)


async def test_a_task_reaches_the_autopilot_of_its_capability(parts: Core) -> None:
    """By the catalogue; the answer says what became of it."""
    await parts.register(autopilot("a", CAP), autopilot("b", "web.pages.deploy"))
    outcome = await parts.plan("deploy_page", {"pageId": "p"})
    assert (outcome.autopilot, outcome.ok, outcome.status) == ("b", True, 200)
    assert (outcome.task, outcome.capability) == ("deploy_page", "web.pages.deploy")
    assert not outcome.idempotent_replay
    assert outcome.duration_ms >= 0


async def test_a_capability_is_planned_directly(parts: Core) -> None:
    """Without a task, which is then null in what the autopilot gets."""
    await parts.register(autopilot("a", "crm.lead.score"))
    outcome = await parts.plan("crm.lead.score")
    assert (outcome.autopilot, outcome.task) == ("a", None)
    [(_, path, message)] = parts.forward.sent
    assert path == "/tasks"
    assert json.loads(message.body) == {"task": None, "capability": "crm.lead.score", "meta": {}}


async def test_a_task_that_was_brought_is_planned(parts: Core) -> None:
    """As those that are built in."""
    await parts.register(autopilot("a", "web.asset.banner", tasks={"make_banner": "web.asset.banner"}))
    assert (await parts.plan("make_banner")).capability == "web.asset.banner"


async def test_meta_travels_as_the_bytes_that_came(parts: Core) -> None:
    """Blanks, escapes and the spelling of numbers are the caller's."""
    await parts.register(autopilot("a", CAP))
    meta = b'{ "price":1.10, "name":"\\u00e9" }'
    await parts.planner.plan(PlanRequest("generate_page", None, meta, {}), Caller(Trace()))
    assert parts.forward.sent[0][2].body == (
        b'{"task":"generate_page","capability":"web.pages.generate","meta":' + meta + b"}"
    )


async def test_a_task_keeps_the_callers_trace_key_and_hops(parts: Core) -> None:
    """Without a key its own id serves as one, but allows no repetition."""
    await parts.register(autopilot("a", CAP))
    trace = Trace(b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
    outcome = await parts.planner.plan(asking(CAP), Caller(trace, "key-1", hops=2))
    assert outcome.trace_id == "0123456789abcdef0123456789abcdef"
    await parts.plan(CAP)
    first, second = (message for _, _, message in parts.forward.sent)
    assert (first.key, first.hops, first.trace) == ("key-1", 2, trace)
    assert second.key == second.id != first.id
    assert second.hops == 0


@pytest.mark.parametrize("task", [None, ""])
async def test_a_plan_without_a_task(parts: Core, task: str | None) -> None:
    """Both ways of planning ask for one."""
    request = PlanRequest(task, None, b"{}", {})
    with pytest.raises(TaskRequired):
        await parts.planner.plan(request, Caller(Trace()))
    with pytest.raises(TaskRequired):
        await parts.planner.explain(request, Caller(Trace()))


async def test_a_task_that_went_through_too_many_routers_stops(parts: Core) -> None:
    """Two routers that point at each other do not play for ever."""
    await parts.register(autopilot("a", CAP))
    with pytest.raises(LoopDetected):
        await parts.planner.plan(asking(CAP), Caller(Trace(), hops=MAX_HOPS))
    assert parts.forward.sent == []
    assert (await parts.planner.plan(asking(CAP), Caller(Trace(), hops=MAX_HOPS - 1))).ok


async def test_the_callers_time_bounds_the_call(parts: Core) -> None:
    """`timeout_ms` sets the deadline of all attempts; without it the planner's own does."""
    await parts.register(autopilot("a", CAP))
    began = time.monotonic()
    await parts.plan(CAP, timeout_ms=5000)
    await parts.plan(CAP)
    first, second = (deadline - began for deadline in parts.forward.deadlines)
    assert 5.0 <= first < 6.0
    assert 30.0 <= second < 31.0


async def test_one_may_be_pinned_by_name(parts: Core) -> None:
    """It gets the task though others are better, and nobody else does when it fails."""
    await parts.register(autopilot("a", CAP), autopilot("b", CAP, priority=900))
    parts.health.of("b").probed(State.DOWN, parts.clock())
    assert (await parts.plan(CAP, autopilot="b")).autopilot == "b"
    parts.forward.on("b", UNREACHABLE)
    with pytest.raises(ForwardFailed):
        await parts.plan(CAP, autopilot="b", key="k")
    assert set(parts.forward.names()) == {"b"}


async def test_nobody_offers_the_capability(parts: Core) -> None:
    """The answer lists who is there and what they can do."""
    await parts.register(autopilot("a", CAP, "web.x"), autopilot("b", "crm.lead.create"))
    with pytest.raises(NoAutopilot) as refused:
        await parts.plan("enroll_student")
    extra = refused.value.extra
    assert extra["error"] == "No autopilot currently supports lms.enrollment.create"
    assert extra["registeredAutopilots"] == [
        {"name": "a", "capabilities": [CAP, "web.x"]},
        {"name": "b", "capabilities": ["crm.lead.create"]},
    ]
    assert extra["hint"]
    assert parts.forward.sent == []


async def test_the_one_pinned_does_not_offer_it(parts: Core) -> None:
    """Then nobody does; its family is not asked to learn it."""
    await parts.register(autopilot("a", CAP), autopilot("b", "web.*"))
    for name in ("b", "nobody"):
        with pytest.raises(NoAutopilot, match=f"'{name}' does not offer"):
            await parts.plan(CAP, autopilot=name)
        with pytest.raises(NoAutopilot, match=f"'{name}' does not offer"):
            await parts.explain(CAP, autopilot=name)
    assert parts.forward.sent == []


async def test_a_store_that_fails_is_not_an_empty_registry(parts: Core) -> None:
    """The caller learns that it is the store, and a warm plan goes on."""
    await parts.register(autopilot("a", CAP))
    await parts.plan("generate_page")
    parts.table.down = True
    assert (await parts.plan("generate_page")).ok
    with pytest.raises(StoreUnavailable):
        await parts.plan("deploy_page")
    with pytest.raises(StoreUnavailable):
        await parts.plan("unheard_of")


async def test_a_warm_plan_reads_no_store(parts: Core) -> None:
    """Neither for the task nor for the route, the schema or the needs."""
    needs = Needs(queues=("jobs",))
    strict = Capability("web.x", input_schema={"type": "object"})
    await parts.register(autopilot("a", strict, needs=needs, lease_seconds=60, tasks={"do_x": "web.x"}))
    await parts.plan("do_x")
    parts.table.calls.clear()
    for _ in range(5):
        await parts.plan("do_x")
    assert parts.table.calls == []


async def test_an_autopilot_of_the_family_is_configured(parts: Core) -> None:
    """Asked once, in the order of names; the capability with its schema is kept, and the task goes to it."""
    await parts.register(
        autopilot("c", "web.*"),
        autopilot("b", Capability("web.other", configure=True)),
        autopilot("a", "web.*"),
        autopilot("z", "crm.*"),
    )
    parts.forward.on("a", Reply(403, b"{}", None), path="/configure")
    schema = {"type": "object", "required": ["title"]}
    answer = configured(name=CAP, description="Pages", input_schema=schema)
    parts.forward.on("b", answer, path="/configure")
    outcome = await parts.plan("generate_page", {"title": "x"})
    assert outcome.autopilot == "b"
    assert parts.forward.names("/configure") == ["a", "b"]
    asked = [json.loads(message.body) for _, path, message in parts.forward.sent if path == "/configure"]
    assert asked == [{"enable": CAP}] * 2
    assert len({message.id for _, _, message in parts.forward.sent}) == 3
    record = await record_of(parts, "b")
    assert record.autopilot.capabilities[-1] == Capability(CAP, "Pages", schema)
    parts.forward.sent.clear()
    assert (await parts.plan("generate_page", {"title": "x"})).autopilot == "b"
    assert parts.forward.names("/configure") == []
    with pytest.raises(Invalid, match="title"):
        await parts.plan("generate_page")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b'"yes"',
        b'{"ok":true}',
        b'{"capability":null}',
        b'{"capability":"not a name"}',
        b'{"capability":"web.another"}',
        b'{"capability":{"name":"web.pages.generate","input_schema":{"$ref":"http://x/"}}}',
        b'{"capability":{"name":"web.pages.generate","input_schema":{"type":"nonsense"}}}',
    ],
)
async def test_a_yes_without_a_usable_description_adds_the_bare_capability(
    parts: Core, answer: bytes
) -> None:
    """A 2xx is a yes, whatever else it says; what it says is only taken when it fits."""
    await parts.register(autopilot("a", "web.*"))
    parts.forward.on("a", Reply(204 if not answer else 200, answer, None), path="/configure")
    assert (await parts.plan(CAP)).autopilot == "a"
    assert (await record_of(parts, "a")).autopilot.capabilities[-1] == Capability(CAP)


async def test_a_family_that_says_no(parts: Core) -> None:
    """Then nobody offers the capability, and nothing is added."""
    await parts.register(*(autopilot(name, "web.*") for name in "abc"))
    parts.forward.on("a", UNREACHABLE, path="/configure")
    parts.forward.on("b", Reply(500, b"{}", None), path="/configure")
    parts.forward.on("c", Reply(404, b"{}", None), path="/configure")
    with pytest.raises(NoAutopilot):
        await parts.plan(CAP)
    assert parts.forward.names("/configure") == ["a", "b", "c"]
    assert parts.forward.names() == []
    assert (await record_of(parts, "a")).revision == 1


async def test_a_family_that_takes_all_the_time(parts: Core) -> None:
    """The deadline has passed: that is the answer, and the next one is not asked."""
    await parts.register(autopilot("a", "web.*"), autopilot("b", "web.*"))
    parts.forward.on("a", LATE, path="/configure")
    with pytest.raises(Deadline):
        await parts.plan(CAP)
    assert parts.forward.names("/configure") == ["a"]


async def test_an_autopilot_learns_only_so_much(parts: Core) -> None:
    """One that says yes to every name a caller makes up is not asked any more when it is full."""
    await parts.register(autopilot("a", "web.*"))
    for number in range(MAX_CAPABILITIES - 1):
        assert (await parts.plan(f"web.c{number}")).ok
    parts.forward.sent.clear()
    with pytest.raises(NoAutopilot):
        await parts.plan("web.onemore")
    assert parts.forward.sent == []
    assert (await parts.plan("web.c0")).ok
    await parts.register(autopilot("b", "web.*"))
    assert (await parts.plan("web.onemore")).autopilot == "b"


async def test_plans_at_the_same_time_configure_without_harm(parts: Core) -> None:
    """Ten that ask for the same new capability all get their answer, and it is there once."""
    await parts.register(autopilot("a", "web.*"))
    outcomes = await asyncio.gather(*(parts.plan(CAP) for _ in range(10)))
    assert [one.autopilot for one in outcomes] == ["a"] * 10
    names = [one.name for one in (await record_of(parts, "a")).autopilot.capabilities]
    assert names == ["web.*", CAP]


async def test_one_of_the_family_that_left_is_passed_over(
    parts: Core, table: SqliteTable, clock: FakeClock
) -> None:
    """Removed while it was being asked: the next one gets the task."""
    await parts.register(autopilot("a", "web.*"), autopilot("b", "web.*"))

    async def leaves() -> Reply:
        await core(table, clock).registry.delete("a")
        return OK

    parts.forward.on("a", leaves, path="/configure")
    assert (await parts.plan(CAP)).autopilot == "b"


async def test_what_an_autopilot_needs_is_ensured_before_it_is_sent_to(parts: Core) -> None:
    """Refused means: nothing was sent, and the answer says what is missing."""
    await parts.register(autopilot("a", CAP, needs=Needs(r2_buckets=("assets",))))
    parts.provider.refuses["assets"] = Forbidden("R2 is not enabled")
    with pytest.raises(NotReady) as refused:
        await parts.plan("generate_page")
    assert refused.value.extra["details"][0]["name"] == "assets"
    assert parts.forward.sent == []
    parts.provider.refuses.clear()
    assert (await parts.plan("generate_page")).ok
    assert [want.name for want in parts.provider.created] == ["assets"]


async def test_an_explanation_sends_and_changes_nothing(parts: Core, tmp_path: Any) -> None:
    """No task, no configuring, no storage, no log row, no change of health."""
    await parts.register(autopilot("a", CAP, needs=Needs(queues=("jobs",))), autopilot("b", "crm.*"))
    before = dump(tmp_path / "table.db")
    explained = await parts.explain("generate_page")
    assert (explained["autopilot"], explained["ready"]) == ("a", False)
    family = await parts.explain("create_lead")
    assert (family["autopilot"], family["ready"], family["would_configure"]) == (None, None, ["b"])
    assert family["candidates"] == []
    await parts.journal.flush()
    assert dump(tmp_path / "table.db") == before
    assert parts.forward.sent == []
    assert parts.provider.inventories == 0
    assert parts.health.of("a").state() is State.UNKNOWN


async def test_an_explanation_names_every_candidate(parts: Core) -> None:
    """With rank, reason, health, priority, weight and load."""
    await parts.register(
        autopilot("a", CAP, priority=5),
        autopilot("b", CAP, weight=2),
        autopilot("c", CAP, lease_seconds=10),
        autopilot("d", CAP),
    )
    parts.clock.forward(10)
    parts.health.of("d").probed(State.DOWN, parts.clock())
    parts.health.of("b").in_flight = 1
    explained = await parts.explain("generate_page")
    assert (explained["mode"], explained["task"], explained["capability"]) == (
        "explain",
        "generate_page",
        CAP,
    )
    assert explained["would_configure"] == []
    assert explained["candidates"][1] == {
        "autopilot": "b",
        "rank": 2,
        "chosen": False,
        "reason": "its priority 100 comes after 5",
        "health": "unknown",
        "priority": 100,
        "weight": 2,
        "in_flight": 1,
    }
    shown = [(one["autopilot"], one["rank"], one["chosen"], one["reason"]) for one in explained["candidates"]]
    assert shown[0] == ("a", 1, True, "chosen")
    assert shown[2:] == [
        ("d", 3, False, "its health is down"),
        ("c", 4, False, "its lease has run out"),
    ]


SITUATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("generate_page", {}, {}),
    ("generate_page", {"title": 1}, {}),
    ("generate_page", {}, {"autopilot": "b"}),
    ("generate_page", {}, {"autopilot": "nobody"}),
    ("deploy_page", {}, {}),
    ("create_lead", {}, {}),
    ("create_lead", {}, {"autopilot": "e"}),
    ("enroll_student", {}, {}),
    ("unheard_of", {}, {}),
    ("web.pages.deploy", {}, {}),
]


@pytest.mark.parametrize(("task", "meta", "more"), SITUATIONS)
@pytest.mark.parametrize("down", ["", "a", "ab"])
async def test_an_explanation_agrees_with_the_plan_that_follows(
    parts: Core, task: str, meta: dict[str, Any], more: dict[str, Any], down: str
) -> None:
    """The same autopilot, or the same refusal; whoever would be configured is."""
    strict = Capability(CAP, input_schema={"properties": {"title": {"type": "string"}}})
    await parts.register(
        autopilot("a", strict, priority=1),
        autopilot("b", CAP, priority=2),
        autopilot("c", CAP, "web.pages.deploy"),
        autopilot("d", "web.pages.deploy", weight=5),
        autopilot("e", "crm.*"),
    )
    for name in down:
        for _ in range(5):
            parts.health.of(name).failed(parts.clock())
    explained: dict[str, Any] | type = {}
    planned: str | type
    try:
        explained = await parts.explain(task, meta, **more)
    except AutopilotError as error:
        explained = type(error)
    try:
        planned = (await parts.plan(task, meta, **more)).autopilot
    except AutopilotError as error:
        planned = type(error)
    if isinstance(explained, dict):
        assert planned == (explained["autopilot"] or explained["would_configure"][0])
        assert [one["autopilot"] for one in explained["candidates"] if one["chosen"]] in ([planned], [])
    else:
        assert planned is explained
        assert explained in {Invalid, NoAutopilot, UnknownTask}
