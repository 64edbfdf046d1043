"""Tasks that wait until somebody else approves them, and no way around that."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec
import pytest

from autopilots.kit import Call, Meta, Parts, Pilot
from infra.table.sqlite import SqliteTable
from router.approvals import (
    KEEP_SECONDS,
    LEASE_SECONDS,
    MAX_META,
    MAX_OUTCOME,
    ROUTER,
    VALID_SECONDS,
    Approval,
    State,
    meta_of,
    parse_patterns,
)
from router.delivery import Outcome
from router.errors import (
    ApprovalRequired,
    AutopilotError,
    Conflict,
    Forbidden,
    ForwardFailed,
    Invalid,
    NoAutopilot,
    NotFound,
    StoreUnavailable,
    TooLarge,
)
from router.forward import Reply
from router.keys import Identity
from router.model import Capability, PlanRequest
from router.parse import parse_autopilot
from router.planner import Caller
from router.trace import Trace
from tests.fakes import FakeClock
from tests.router.parts import LATE, LOST, UNREACHABLE, Core, asking, autopilot, core

CAP = "payouts.batch.run"
MARKED = Capability(CAP, requires_approval=True)
BOB = Identity("bob", frozenset({"operate"}))
CAROL = Identity("carol", frozenset({"operate"}))


async def ask(parts: Core, task: str = CAP, name: str = "ann", key: str = "", **more: Any) -> Approval:
    """Plan a task that has to wait, and return its approval."""
    if name not in {"admin", "local", ROUTER} and not await parts.keys.list():
        await parts.keys.create(name, ["plan:*"])
    with pytest.raises(ApprovalRequired) as waiting:
        await parts.planner.plan(asking(task, **more), Caller(Trace(), key, name=name))
    return await parts.approvals.get(waiting.value.approval["id"])


async def send(parts: Core, approval: Approval, request: PlanRequest) -> Outcome:
    """Send an approved task as the API does."""
    caller = Caller(Trace(), approval.id, name=approval.requested_by, approved=approval.capability)
    return await parts.planner.plan(request, caller)


async def approve(parts: Core, approval: Approval, who: Identity = BOB) -> Outcome:
    """Approve a task and send it."""
    return await send(parts, *await parts.approvals.approve(approval.id, who))


# what waits


@pytest.mark.parametrize("task", [CAP, "run_payout_batch", "pay_now"])
async def test_a_marked_capability_waits_by_every_name(parts: Core, task: str) -> None:
    """The capability itself, its built-in task and one that a registration brought: nothing is sent."""
    await parts.register(autopilot("bank", MARKED, tasks={"pay_now": CAP}))
    approval = await ask(parts, task, meta={"n": 1})
    assert (approval.state, approval.capability) == (State.WAITING, CAP)
    assert approval.task == (None if task == CAP else task)
    assert approval.until == parts.clock() + VALID_SECONDS
    assert parts.forward.sent == []


async def test_one_mark_goes_for_all_that_offer_the_capability(parts: Core) -> None:
    """An autopilot cannot lower what another one asks for, and pinning the task to it is no way around."""
    await parts.register(autopilot("bank", MARKED), autopilot("quick", CAP, priority=1))
    assert (await ask(parts)).autopilot is None
    assert (await ask(parts, autopilot="quick")).autopilot == "quick"
    assert parts.forward.sent == []


async def test_a_mark_counts_though_its_lease_has_run_out(parts: Core) -> None:
    """Whoever asked for approval and fell silent has not taken it back."""
    await parts.register(autopilot("bank", MARKED, lease_seconds=5), autopilot("quick", CAP))
    parts.clock.forward(60)
    await ask(parts)
    assert parts.forward.sent == []


async def test_the_setting_goes_for_whoever_is_registered(table: SqliteTable, clock: FakeClock) -> None:
    """Patterns of the installation cover capabilities that nobody marked, and no others."""
    parts = core(table, clock, "payouts.*", "crm.lead.create")
    await parts.register(autopilot("all", CAP, "crm.lead.create", "crm.lead.update"))
    await ask(parts)
    await ask(parts, "create_lead")
    assert (await parts.plan("crm.lead.update")).ok
    await parts.journal.flush()


async def test_what_does_not_wait_costs_nothing(parts: Core) -> None:
    """A plan without approval reads and writes nothing of approvals."""
    await parts.register(autopilot("pages"))
    await parts.plan("generate_page")
    assert parts.table.count("get", "approval") == parts.table.count("put", "approval") == 0
    assert parts.table.count("transact") == 1  # the registration


async def test_a_mark_that_is_taken_back_is_no_longer_one(parts: Core) -> None:
    """What a registration says now is what counts."""
    await parts.register(autopilot("bank", MARKED))
    await ask(parts)
    await parts.register(autopilot("bank", CAP))
    assert (await parts.plan(CAP)).ok


async def test_a_meta_that_would_be_refused_is_refused_before_anybody_is_asked(parts: Core) -> None:
    """The schema of whoever would get the task is checked first; nothing is kept."""
    schema = {"required": ["amount"]}
    await parts.register(autopilot("bank", Capability(CAP, input_schema=schema, requires_approval=True)))
    with pytest.raises(Invalid):
        await parts.plan(CAP)
    assert await parts.approvals.page(after=None, limit=10) == ([], None)
    await ask(parts, meta={"amount": 1})


async def test_nobody_is_asked_about_what_nobody_could_do(parts: Core) -> None:
    """With no lease alive the answer is what sending would have come to."""
    await parts.register(autopilot("bank", MARKED, lease_seconds=5))
    parts.clock.forward(60)
    with pytest.raises(ForwardFailed):
        await parts.plan(CAP)
    with pytest.raises(NoAutopilot):
        await parts.plan(CAP, autopilot="nobody")


async def test_explain_says_so_and_keeps_nothing(parts: Core) -> None:
    """The decision shows whether the task would wait."""
    await parts.register(autopilot("bank", MARKED), autopilot("pages"))
    assert (await parts.explain(CAP))["requires_approval"] is True
    assert (await parts.explain("generate_page"))["requires_approval"] is False
    assert await parts.approvals.page(after=None, limit=10) == ([], None)


# families


def configured(**more: Any) -> Reply:
    """Give the answer of an autopilot that added the capability."""
    return Reply(200, msgspec.json.encode({"ok": True, "capability": {"name": CAP, **more}}), None)


@pytest.mark.parametrize("marked", [True, False])
async def test_nobody_is_configured_before_the_approval(
    table: SqliteTable, clock: FakeClock, *, marked: bool
) -> None:
    """A family that is marked, or that the setting covers, is asked to add the capability after it."""
    parts = core(table, clock, *([] if marked else ["payouts.*"]))
    await parts.register(autopilot("bank", Capability("payouts.*", requires_approval=marked)))
    parts.forward.on("bank", configured(), path="/configure")
    assert (await parts.explain(CAP))["requires_approval"] is True
    approval = await ask(parts)
    assert parts.forward.sent == []
    assert (await approve(parts, approval)).ok
    assert [path for _, path, _ in parts.forward.sent] == ["/configure", "/tasks"]
    await ask(parts)  # also once it is there, though the answer did not say so
    await parts.journal.flush()


async def test_a_mark_in_the_answer_to_configure_counts_at_once(parts: Core) -> None:
    """What was learned only by asking waits before it is sent."""
    await parts.register(autopilot("bank", "payouts.*"))
    parts.forward.on("bank", configured(requires_approval=True), path="/configure")
    assert (await parts.explain(CAP))["requires_approval"] is False
    await ask(parts)
    assert parts.forward.names("/tasks") == []


# what is kept and sent


async def test_what_was_approved_is_what_is_sent(parts: Core) -> None:
    """Task, capability and meta arrive as they came, once, under the approval's id."""
    await parts.register(autopilot("bank", MARKED), autopilot("quick", CAP, priority=1))
    meta = b'{ "z":1.50, "a":"\\u00e9",  "n":12345678901234567890123 }'
    value = msgspec.json.decode(meta)
    request = PlanRequest("run_payout_batch", None, meta, value, "sync", 1234, "bank")
    with pytest.raises(ApprovalRequired) as waiting:
        await parts.planner.plan(request, Caller(Trace(), name="admin"))
    approval = await parts.approvals.get(waiting.value.approval["id"])
    kept = await parts.approvals.task(approval.id)
    assert kept is not None
    assert hashlib.sha256(kept.encode()).hexdigest() == approval.digest
    assert meta_of(kept) == value
    approved, again = await parts.approvals.approve(approval.id, BOB, digest=approval.digest)
    assert (again.meta, again.timeout_ms, again.autopilot) == (meta, 1234, "bank")
    assert (await send(parts, approved, again)).ok
    [(name, path, message)] = parts.forward.sent
    assert (name, path, message.key) == ("bank", "/tasks", approval.id)
    assert message.body == b'{"task":"run_payout_batch","capability":"%b","meta":%b}' % (CAP.encode(), meta)


async def test_a_task_name_that_changed_its_meaning_changes_nothing(parts: Core) -> None:
    """What was approved is the capability the task stood for when it was asked for."""
    await parts.register(autopilot("bank", MARKED, "crm.lead.create", tasks={"pay_now": CAP}))
    approval = await ask(parts, "pay_now")
    await parts.register(autopilot("bank", MARKED, "crm.lead.create", tasks={"pay_now": "crm.lead.create"}))
    assert (await approve(parts, approval)).capability == CAP


async def test_under_one_idempotency_key_it_is_one_request(parts: Core) -> None:
    """The same call again, as by a schedule that lost its process, finds what the first one made."""
    await parts.register(autopilot("bank", MARKED))
    first = await ask(parts, key="k", meta={"n": 1})
    parts.clock.forward(60)
    assert await ask(parts, key="k", meta={"n": 1}) == first
    others = [
        await ask(parts, key="k", meta={"n": 2}),
        await ask(parts, key="k2", meta={"n": 1}),
        await ask(parts, key="k", meta={"n": 1}, name="admin"),
        await ask(parts, meta={"n": 1}),
        await ask(parts, meta={"n": 1}),
    ]
    assert len({one.id for one in others} | {first.id}) == 6


async def test_a_meta_nobody_could_read_is_too_large(parts: Core) -> None:
    """Up to the limit it is kept, whatever it is made of."""
    await parts.register(autopilot("bank", MARKED))
    fits = {"n": ['"\\' * 32_000, "x" * (MAX_META - 128_013)]}
    assert len(msgspec.json.encode(fits)) == MAX_META
    await ask(parts, meta=fits)
    with pytest.raises(TooLarge, match="160000 bytes"):
        await parts.plan(CAP, {"n": "x" * MAX_META})


# who decides


async def test_whoever_asked_cannot_decide(parts: Core) -> None:
    """Not as an admin, and not with the key that theirs was rotated to: a name is a person."""
    await parts.register(autopilot("bank", MARKED))
    approval = await ask(parts)
    for scopes in ({"operate"}, {"admin"}):
        ann = Identity("ann", frozenset(scopes))
        with pytest.raises(Forbidden, match="whoever asked") as error:
            await parts.approvals.approve(approval.id, ann)
        assert error.value.actor == "ann"
        with pytest.raises(Forbidden):
            await parts.approvals.refuse(approval.id, ann)
    assert (await parts.approvals.get(approval.id)).state is State.WAITING


async def test_a_decision_takes_a_key(parts: Core) -> None:
    """Without one everybody on this machine is the same person."""
    await parts.register(autopilot("bank", MARKED))
    local = Identity("local", frozenset({"admin"}))
    for name in ("ann", "local"):
        approval = await ask(parts, name=name)
        with pytest.raises(Forbidden, match="autopilot keys create"):
            await parts.approvals.approve(approval.id, local)
    assert (await approve(parts, approval)).ok


async def test_what_the_router_asked_for_is_not_decided_by_who_may_have_caused_it(parts: Core) -> None:
    """A schedule fires in the router's name; whoever may plan may have made it."""
    await parts.register(autopilot("bank", MARKED))
    approval = await ask(parts, name=ROUTER)
    for scopes in ({"operate", "plan:*"}, {"operate", "plan:web.*"}, {"admin"}):
        with pytest.raises(Forbidden, match="schedule"):
            await parts.approvals.approve(approval.id, Identity("dan", frozenset(scopes)))
    assert (await approve(parts, approval)).ok


@pytest.mark.parametrize("lost", ["revoked", "expired", "narrower"])
async def test_whoever_asked_must_still_be_allowed_to(parts: Core, lost: str) -> None:
    """A key that ended or was narrowed asks for nothing any more: such a task can only be refused."""
    await parts.register(autopilot("bank", MARKED))
    await parts.keys.create("other", ["plan:*"])
    ends = parts.clock() + 60 if lost == "expired" else None
    _, record = await parts.keys.create("ann", ["plan:payouts.*"], expires_at=ends)
    approval = await ask(parts)
    parts.clock.forward(60)
    if lost != "expired":
        await parts.keys.revoke(record["id"])
    if lost == "narrower":
        await parts.keys.create("ann", ["plan:web.*"])
    with pytest.raises(Conflict, match="'ann' may no longer ask"):
        await parts.approvals.approve(approval.id, BOB)
    assert (await parts.approvals.refuse(approval.id, BOB)).state is State.REFUSED
    assert parts.forward.sent == []


async def test_a_key_that_was_rotated_goes_on_asking(parts: Core) -> None:
    """The new key has the name and the scopes of the old one."""
    await parts.register(autopilot("bank", MARKED))
    _, record = await parts.keys.create("ann", ["plan:payouts.*"])
    approval = await ask(parts)
    await parts.keys.rotate(record["id"], overlap=0)
    parts.clock.forward(1)
    assert (await approve(parts, approval)).ok


# when


async def test_a_request_expires_after_exactly_fifteen_minutes(parts: Core) -> None:
    """A moment before it is decided, at that moment it is not; the task is gone from the store."""
    await parts.register(autopilot("bank", MARKED))
    early, late = await ask(parts), await ask(parts)
    parts.clock.forward(VALID_SECONDS - 0.001)
    assert (await approve(parts, early)).ok
    parts.clock.now = late.requested_at + 900
    assert (await parts.approvals.get(late.id)).state is State.EXPIRED
    assert await parts.approvals.task(late.id) is None
    for decision in (parts.approvals.approve, parts.approvals.refuse):
        with pytest.raises(Conflict, match="has expired: nobody decided within 15 minutes"):
            await decision(late.id, BOB)
    assert len(parts.forward.sent) == 1


async def test_a_decision_is_made_once(parts: Core) -> None:
    """What was approved and answered, or refused, can be neither approved nor refused again."""
    await parts.register(autopilot("bank", MARKED))
    approved, refused = await ask(parts), await ask(parts)
    await send(parts, *await parts.approvals.approve(approved.id, BOB))
    await parts.approvals.answered(await parts.approvals.get(approved.id), 200, b"{}")
    await parts.approvals.refuse(refused.id, BOB)
    for one, word in ((approved, "approved"), (refused, "refused")):
        for who in (BOB, CAROL):
            for decision in (parts.approvals.approve, parts.approvals.refuse):
                with pytest.raises(Conflict, match=f"it is {word} already"):
                    await decision(one.id, who)
    assert len(parts.forward.sent) == 1


async def test_of_two_who_decide_at_once_one_does(parts: Core) -> None:
    """The task is sent once, or not at all."""
    await parts.register(autopilot("bank", MARKED))
    for other in (parts.approvals.approve, parts.approvals.refuse):
        approval = await ask(parts)
        decisions = [parts.approvals.approve(approval.id, BOB), other(approval.id, CAROL)]
        found = await asyncio.gather(*decisions, return_exceptions=True)
        [error] = [one for one in found if isinstance(one, BaseException)]
        assert isinstance(error, Conflict)


async def test_nothing_is_known_of_an_id_that_was_made_up(parts: Core) -> None:
    """No approval, no task, no outcome."""
    with pytest.raises(NotFound):
        await parts.approvals.approve("apv_0", BOB)
    assert await parts.approvals.task("apv_0") is None
    assert await parts.approvals.outcome("apv_0") is None


# what was changed


async def test_a_decision_is_about_the_text_that_was_read(parts: Core) -> None:
    """With the digest of another task nothing is decided, either way."""
    await parts.register(autopilot("bank", MARKED))
    one, other = await ask(parts, meta={"n": 1}), await ask(parts, meta={"n": 2})
    for decision in (parts.approvals.approve, parts.approvals.refuse):
        with pytest.raises(Conflict, match="another task"):
            await decision(one.id, BOB, digest=other.digest)
    assert (await parts.approvals.approve(one.id, BOB, digest=one.digest))[0].state is State.APPROVED


async def test_a_task_that_was_edited_in_the_store_is_not_sent(parts: Core) -> None:
    """Its hash is that of what was asked for."""
    await parts.register(autopilot("bank", MARKED))
    approval = await ask(parts, meta={"amount": 1})
    item = await parts.table.get(("approval:task", approval.id))
    assert item is not None
    edited = {"text": item.document["text"].replace("1", "1000000")}
    await parts.table.put(item.key, edited, expires_at=item.expires_at)
    with pytest.raises(Conflict, match="not the one that was asked for"):
        await parts.approvals.approve(approval.id, BOB)
    assert (await parts.approvals.get(approval.id)).state is State.WAITING


# what came of it


async def test_the_text_is_kept_no_longer_than_it_is_needed(parts: Core) -> None:
    """Gone once it is refused or answered; the outcome is there in its place."""
    await parts.register(autopilot("bank", MARKED))
    refused, answered = await ask(parts), await ask(parts)
    await parts.approvals.refuse(refused.id, BOB)
    assert await parts.approvals.task(refused.id) is None
    approved, _ = await parts.approvals.approve(answered.id, BOB)
    assert await parts.approvals.task(answered.id) is not None
    done = await parts.approvals.answered(approved, 404, b'{"status":404}')
    assert await parts.approvals.get(answered.id) == done
    assert (done.answered, done.decided_by, done.running_until) == (404, "bob", None)
    assert await parts.approvals.task(answered.id) is None
    assert await parts.approvals.outcome(answered.id) == '{"status":404}'
    parts.clock.now = answered.requested_at + KEEP_SECONDS
    with pytest.raises(NotFound):
        await parts.approvals.get(answered.id)
    assert await parts.approvals.outcome(answered.id) is None


async def test_of_an_outcome_that_is_too_large_the_envelope_is_kept(parts: Core) -> None:
    """Its result is left out, and how much that was is said."""
    await parts.register(autopilot("bank", MARKED))
    approved, _ = await parts.approvals.approve((await ask(parts)).id, BOB)
    outcome = msgspec.json.encode({"ok": True, "result": "\\" * MAX_OUTCOME})
    await parts.approvals.answered(approved, 200, outcome)
    kept = await parts.approvals.outcome(approved.id)
    assert msgspec.json.decode(kept or "") == {"ok": True, "result": {"omitted_bytes": len(outcome)}}


async def test_an_approval_whose_process_died_is_sent_again_by_whoever_approved(parts: Core) -> None:
    """Once the lease is over, under the same key, and by nobody else; then no longer than 15 minutes."""
    await parts.register(autopilot("bank", MARKED))
    approval = await ask(parts, meta={"n": 1})
    first, request = await parts.approvals.approve(approval.id, BOB)
    assert (await parts.approvals.get(approval.id)).state is State.APPROVED
    parts.clock.forward(LEASE_SECONDS - 1)
    with pytest.raises(Conflict, match="it is being sent"):
        await parts.approvals.approve(approval.id, BOB)
    parts.clock.forward(1)
    with pytest.raises(Conflict, match="approved already"):
        await parts.approvals.approve(approval.id, CAROL)
    again, same = await parts.approvals.approve(approval.id, BOB)
    assert (again.id, same) == (first.id, request)
    assert again.decided_at == first.decided_at
    parts.clock.now = (first.decided_at or 0) + VALID_SECONDS
    with pytest.raises(Conflict, match="too much time has passed"):
        await parts.approvals.approve(approval.id, BOB)


async def test_a_late_process_does_not_overwrite_what_another_one_found(parts: Core) -> None:
    """Whoever took an approval over writes what came of it."""
    await parts.register(autopilot("bank", MARKED))
    late, _ = await parts.approvals.approve((await ask(parts)).id, BOB)
    parts.clock.forward(LEASE_SECONDS)
    again, _ = await parts.approvals.approve(late.id, BOB)
    await parts.approvals.answered(again, 200, b'{"status":200}')
    await parts.approvals.failed(late, ForwardFailed("late"))
    assert (await parts.approvals.get(late.id)).answered == 200


@pytest.mark.parametrize(("step", "to"), [(UNREACHABLE, None), (LOST, "bank"), (LATE, "bank")])
async def test_what_failed_may_be_sent_again_but_to_nobody_else_who_may_not_have_it(
    parts: Core, step: Exception, to: str | None
) -> None:
    """At once and by whoever approved; the error says why, and one that may have got it is the only one."""
    await parts.register(autopilot("bank", MARKED), autopilot("other", CAP, priority=200))
    approval = await ask(parts)
    parts.forward.on("bank", step)
    parts.forward.on("other", step)
    approved, request = await parts.approvals.approve(approval.id, BOB)
    with pytest.raises(AutopilotError) as error:
        await send(parts, approved, request)
    failed = await parts.approvals.failed(approved, error.value)
    assert failed.error == {"code": error.value.code, "detail": error.value.detail}
    assert parts.forward.names()[:1] == ["bank"]
    assert len(parts.forward.names()) == (2 if to is None else 1)
    _, again = await parts.approvals.approve(approval.id, BOB)
    assert again == msgspec.structs.replace(request, autopilot=to)


async def test_a_failing_autopilot_is_not_made_up_for_by_another_one(parts: Core) -> None:
    """The approval's key does not make a task one that may be sent to two."""
    await parts.register(autopilot("bank", MARKED), autopilot("other", CAP, priority=200))
    parts.forward.on("bank", Reply(500, b"{}", None))
    with pytest.raises(ForwardFailed):
        await approve(parts, await ask(parts))
    assert parts.forward.names() == ["bank"]


async def test_an_outcome_that_could_not_be_kept_is_no_failure(parts: Core) -> None:
    """It was sent: what is unknown is sent again under the same key, after the lease."""
    await parts.register(autopilot("bank", MARKED))
    approved, _ = await parts.approvals.approve((await ask(parts)).id, BOB)
    parts.table.down = True
    assert (await parts.approvals.answered(approved, 200, b"{}")).answered == 200
    parts.table.down = False
    assert (await parts.approvals.get(approved.id)).answered is None


async def test_what_cannot_be_kept_is_not_sent_either(parts: Core) -> None:
    """With the store gone a task that would have to wait is refused."""
    await parts.register(autopilot("bank", MARKED))
    await ask(parts)
    parts.table.down = True
    with pytest.raises(StoreUnavailable):
        await parts.plan(CAP)
    assert parts.forward.sent == []


async def test_requests_are_listed_a_page_at_a_time(parts: Core) -> None:
    """By id, each once."""
    await parts.register(autopilot("bank", MARKED))
    made = {(await ask(parts)).id for _ in range(3)}
    first, cursor = await parts.approvals.page(after=None, limit=2)
    rest, end = await parts.approvals.page(after=cursor, limit=2)
    assert {one.id for one in first + rest} == made
    assert (len(first), end) == (2, None)


# how it is said


def test_the_kit_states_it_in_the_registration() -> None:
    """Also of a capability that is configured; the others say nothing of it."""

    async def work(meta: Meta, call: Call[Parts]) -> dict[str, str]:
        return {}

    pilot: Pilot[Parts] = Pilot("bank", "Pays")
    pilot.capability("pay.out", requires_approval=True)(work)
    pilot.capability("pay.look")(work)
    capabilities = parse_autopilot(pilot.manifest("https://bank.example")).capabilities
    assert [(one.name, one.requires_approval) for one in capabilities] == [
        ("pay.out", True),
        ("pay.look", False),
    ]
    assert "requires_approval" not in pilot.manifest("https://bank.example")["capabilities"][1]


def test_the_setting_is_a_list_of_patterns() -> None:
    """Blanks and empty entries are passed over; what is none is named."""
    assert parse_patterns(" payouts.* ,,lms.enrollment.create,", "X") == (
        "payouts.*",
        "lms.enrollment.create",
    )
    assert parse_patterns("", "X") == ()
    assert parse_patterns("*", "X") == ("*",)
    with pytest.raises(Invalid) as error:
        parse_patterns("payouts,payments.*,Pay.*", "AUTOPILOT_REQUIRE_APPROVAL")
    assert [problem.field for problem in error.value.problems] == ["AUTOPILOT_REQUIRE_APPROVAL"] * 2
    assert "'payouts'" in error.value.detail
