"""Which capability a task needs: the built-in table, and what registrations bring."""

from __future__ import annotations

import pytest

from infra.table.sqlite import SqliteTable
from router.catalogue import BUILT_IN
from router.errors import Invalid, StoreUnavailable, UnknownTask
from router.model import Autopilot
from tests.fakes import FakeClock
from tests.router.parts import Core, autopilot, core

TASKS = {
    "generate_page": "web.pages.generate",
    "deploy_page": "web.pages.deploy",
    "generate_asset": "web.asset.generate",
    "process_email": "email.process",
    "create_lead": "crm.lead.create",
    "send_followup": "email.send",
    "make_checkout": "payment.checkout.create",
    "enroll_student": "lms.enrollment.create",
    "run_payout_batch": "payouts.batch.run",
    "pay_affiliate_now": "payouts.transfer.single",
    "ingest_intake_doc": "files.intake.upload",
}


def bringing(name: str, **tasks: str) -> Autopilot:
    """Give an autopilot that brings tasks."""
    return autopilot(name, *sorted(set(tasks.values())), tasks=tasks)


@pytest.mark.parametrize(("task", "capability"), TASKS.items())
async def test_the_documented_tasks(parts: Core, task: str, capability: str) -> None:
    """Each of the eleven stands for its capability, and no store is asked."""
    assert await parts.catalogue.capability_of(task) == capability
    assert parts.table.calls == []


def test_there_are_eleven() -> None:
    """No more and no fewer are built in, each with a description."""
    assert set(BUILT_IN) == set(TASKS)
    assert all(entry.description and entry.source == "built-in" for entry in BUILT_IN.values())


async def test_a_task_that_was_brought(parts: Core) -> None:
    """It is found at once, and named with who brought it."""
    await parts.register(bringing("a", generate_banner="web.asset.banner"))
    assert await parts.catalogue.capability_of("generate_banner") == "web.asset.banner"
    entries = await parts.catalogue.entries()
    assert [entry.task for entry in entries] == sorted([*TASKS, "generate_banner"])
    [brought] = [entry for entry in entries if entry.source != "built-in"]
    assert brought == ("generate_banner", "web.asset.banner", "", "a")


async def test_a_brought_task_is_remembered_up_to_the_bound(
    parts: Core, table: SqliteTable, clock: FakeClock
) -> None:
    """A warm plan reads nothing; what another process changed is seen two seconds later."""
    await parts.register(bringing("a", make="a.x"))
    await parts.catalogue.capability_of("make")
    parts.table.calls.clear()
    await parts.catalogue.capability_of("make")
    assert parts.table.calls == []
    await core(table, clock).registry.put(bringing("a", make="a.y"))
    assert await parts.catalogue.capability_of("make") == "a.x"
    clock.forward(2)
    assert await parts.catalogue.capability_of("make") == "a.y"


async def test_a_task_changed_here_changes_at_once(parts: Core) -> None:
    """A local write is visible in the very next plan, for tasks as for capabilities."""
    await parts.register(bringing("a", make="a.x"))
    assert await parts.catalogue.capability_of("make") == "a.x"
    await parts.register(bringing("a", make="a.y"))
    assert await parts.catalogue.capability_of("make") == "a.y"
    await parts.registry.delete("a")
    with pytest.raises(UnknownTask):
        await parts.catalogue.capability_of("make")


async def test_a_brought_task_survives_a_store_that_fails_within_the_bound(parts: Core) -> None:
    """Built-in ones survive it for ever."""
    await parts.register(bringing("a", make="a.x"))
    await parts.catalogue.capability_of("make")
    parts.table.down = True
    assert await parts.catalogue.capability_of("make") == "a.x"
    parts.clock.forward(2)
    with pytest.raises(StoreUnavailable):
        await parts.catalogue.capability_of("make")
    assert await parts.catalogue.capability_of("generate_page") == "web.pages.generate"


@pytest.mark.parametrize(
    ("task", "near"),
    [
        ("generate_pgae", "generate_page"),
        ("generatepage", "generate_page"),
        ("create_leads", "create_lead"),
        ("make_banners", "make_banner"),
        ("zzz", None),
    ],
)
async def test_an_unknown_task_is_answered_with_what_there_is(
    parts: Core, task: str, near: str | None
) -> None:
    """All tasks by name, and the nearest ones."""
    await parts.register(bringing("a", make_banner="a.x"))
    with pytest.raises(UnknownTask) as refused:
        await parts.catalogue.capability_of(task)
    extra = refused.value.extra
    assert extra["availableTasks"] == sorted([*TASKS, "make_banner"])
    assert extra["error"] == f"Unknown task: {task}"
    nearest = extra["did_you_mean"]
    assert (nearest[0] if nearest else None) == near


@pytest.mark.parametrize(
    "task", ["", "a/b", "make/", "make/a", "\x00", "é" * 3000, "/", "Make", "make a banner"]
)
async def test_a_task_that_cannot_exist_is_unknown(parts: Core, task: str) -> None:
    """No text that a caller makes up reaches another row or breaks a key of the store."""
    await parts.register(bringing("a", make="a.x"))
    with pytest.raises(UnknownTask):
        await parts.catalogue.capability_of(task)


async def test_a_built_in_task_cannot_be_given_another_meaning(parts: Core) -> None:
    """To bring it with its own meaning is fine; every other one is named in the refusal."""
    await parts.catalogue.check(bringing("a", generate_page="web.pages.generate", own="a.x"))
    with pytest.raises(Invalid) as refused:
        await parts.catalogue.check(bringing("a", generate_page="a.x", create_lead="a.y", own="a.x"))
    assert [problem.field for problem in refused.value.problems] == [
        "tasks.generate_page",
        "tasks.create_lead",
    ]
    assert "web.pages.generate" in refused.value.problems[0].message


async def test_a_task_of_another_autopilot_cannot_be_given_another_meaning(parts: Core) -> None:
    """Several may bring the same task as long as they mean the same."""
    await parts.register(bringing("m", make="a.x"))
    await parts.catalogue.check(bringing("z", make="a.x"))
    for name in ("a", "z"):
        with pytest.raises(Invalid):
            await parts.catalogue.check(bringing(name, make="a.y"))
    await parts.registry.delete("m")
    await parts.catalogue.check(bringing("z", make="a.y"))


async def test_an_autopilot_may_change_its_mind_about_a_task_only_it_brings(parts: Core) -> None:
    """As soon as another one means the old thing by it, neither may."""
    await parts.register(bringing("m", make="a.x"))
    await parts.catalogue.check(bringing("m", make="a.y"))
    await parts.register(bringing("z", make="a.x"))
    for name in ("m", "z"):
        with pytest.raises(Invalid):
            await parts.catalogue.check(bringing(name, make="a.y"))
