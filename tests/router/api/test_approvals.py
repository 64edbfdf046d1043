"""Approvals over HTTP: a task of high risk takes a second person, whatever its body says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.errors import Invalid
from router.settings import read
from router.wiring import System, build, manifests
from tests.router.api.conftest import client_of, register
from tests.router.api.test_keys import key_of
from tests.router.api.test_plan import plan
from tests.upstream import Told, Upstream, upstream

ADMIN = {"authorization": "Bearer the-admin-key-of-tests"}
RUN = {"task": "run_payout_batch", "meta": {"note": "March"}}
CAP = "payouts.batch.run"
APPROVALS = "/autopilot/approvals"
Header = dict[str, str]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[System]:
    """Give a system that needs keys and where tasks of payouts and payments wait."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": "the-admin-key-of-tests",
        "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1",
        "AUTOPILOT_REQUIRE_APPROVAL": "payouts.*, payment.*",
    }
    built = build(read(environment), url="http://router.test")
    yield built
    await built.close()


@pytest.fixture
async def admin(guarded: System, up: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the admin key, calling from elsewhere, and a bank that is registered."""
    async with client_of(guarded, "203.0.113.9") as client:
        client.headers.update(ADMIN)
        await register(client, "bank", up.url, CAP, "web.pages.generate")
        yield client


@pytest.fixture
async def ann(admin: httpx.AsyncClient) -> Header:
    """Give the header of somebody who asks."""
    return await key_of(admin, "ann", "plan:*", "operate")


@pytest.fixture
async def bob(admin: httpx.AsyncClient) -> Header:
    """Give the header of somebody who decides."""
    return await key_of(admin, "bob", "operate")


async def ask(api: httpx.AsyncClient, headers: Header, body: object = None, **more: str) -> str:
    """Plan a task that has to wait, and return the approval's id."""
    answer = await plan(api, body or RUN, **headers, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def decide(
    api: httpx.AsyncClient, headers: Header, approval: str, how: str = "approve", **body: Any
) -> httpx.Response:
    """Approve or refuse."""
    path = f"{APPROVALS}/{approval}/{how}"
    return await (api.post(path, headers=headers, json=body) if body else api.post(path, headers=headers))


async def shown(api: httpx.AsyncClient, approval: str, headers: Header) -> dict[str, Any]:
    """Return an approval as it is shown."""
    answer = await api.get(f"{APPROVALS}/{approval}", headers=headers)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()["approval"]
    return document


async def test_a_task_waits_is_approved_by_another_key_and_is_sent_once(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """From 202 with where to look, over what is to be read, to the outcome and the autopilot's own key."""
    waiting = await plan(admin, RUN, **ann)
    asked = waiting.json()
    assert waiting.status_code == 202
    assert waiting.headers["content-type"] == "application/json"
    assert waiting.headers["location"] == f"{APPROVALS}/{asked['id']}"
    assert set(asked) == {"status", "id", "task", "capability", "expires_at", "hint", "trace_id"}
    assert (asked["status"], asked["task"], asked["capability"]) == ("awaiting_approval", RUN["task"], CAP)
    assert up.tasks == []

    read_by_bob = await shown(admin, asked["id"], bob)
    assert read_by_bob["meta"] == RUN["meta"]
    assert hashlib.sha256(read_by_bob["text"].encode()).hexdigest() == read_by_bob["digest"]
    assert json.loads(read_by_bob["text"])["meta"] == RUN["meta"]
    assert (read_by_bob["requested_by"], read_by_bob["redacted"]) == ("ann", False)
    assert (read_by_bob["outcome"], read_by_bob["answered"]) == (None, None)

    decided = await decide(admin, bob, asked["id"], digest=read_by_bob["digest"])
    assert decided.status_code == 200
    body = decided.json()
    assert (body["ok"], body["approval"]["status"], body["approval"]["decided_by"]) == (
        True,
        "approved",
        "bob",
    )
    assert (body["outcome"]["autopilot"], body["outcome"]["result"]) == ("bank", {"done": True})
    [sent] = up.tasks
    assert sent.json() == {**RUN, "capability": CAP}
    assert sent.headers["idempotency-key"] == asked["id"]

    done = await shown(admin, asked["id"], ann)
    assert (done["answered"], done["outcome"]) == (200, body["outcome"])
    assert (done["meta"], done["text"]) == (None, None)
    for how in ("approve", "refuse"):
        again = await decide(admin, bob, asked["id"], how)
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert len(up.tasks) == 1


async def test_whoever_asked_cannot_decide(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """Not with the scope, not as an admin, not with a key that theirs was rotated to."""
    mine = await ask(admin, ann)
    [record] = [one for one in (await admin.get("/autopilot/keys")).json()["keys"] if one["name"] == "ann"]
    rotated = (await admin.post(f"/autopilot/keys/{record['id']}/rotate")).json()["key"]
    for headers in (ann, {"authorization": f"Bearer {rotated}"}):
        for how in ("approve", "refuse"):
            refused = await decide(admin, headers, mine, how)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    admins = await ask(admin, ADMIN)
    assert (await decide(admin, ADMIN, admins)).status_code == 403
    assert up.tasks == []
    assert (await decide(admin, ADMIN, mine)).json()["ok"]
    assert (await decide(admin, bob, admins)).json()["ok"]


async def test_only_the_scope_operate_decides(admin: httpx.AsyncClient, up: Upstream, ann: Header) -> None:
    """Other keys are told what they lack."""
    approval = await ask(admin, ann)
    for number, scopes in enumerate((["read"], ["plan:*"], ["register", "read"])):
        headers = await key_of(admin, f"other {number}", *scopes)
        for how in ("approve", "refuse"):
            refused = await decide(admin, headers, approval, how)
            assert (refused.status_code, refused.json()["scope"]) == (403, "operate")
        assert (await admin.get(APPROVALS, headers=headers)).status_code == 403
    assert up.tasks == []


async def test_an_approval_is_seen_by_those_it_concerns(admin: httpx.AsyncClient, bob: Header) -> None:
    """Whoever asked and those who decide; to others there is none, whatever they may plan."""
    eve = await key_of(admin, "eve", "plan:payouts.*")
    approval = await ask(admin, eve)
    for headers in (eve, bob, ADMIN):
        assert (await shown(admin, approval, headers))["id"] == approval
    for number, scopes in enumerate((["plan:*"], ["plan:web.*"], ["read"], ["register"])):
        headers = await key_of(admin, f"other {number}", *scopes)
        hidden = await admin.get(f"{APPROVALS}/{approval}", headers=headers)
        unknown = await admin.get(f"{APPROVALS}/apv_0", headers=headers)
        assert hidden.status_code == unknown.status_code == 404
        assert hidden.json()["detail"] == unknown.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {**RUN, "approved": True},
        {**RUN, "requires_approval": False},
        {**RUN, "approval": "apv_0"},
        {**RUN, "status": "approved"},
        {**RUN, "mode": "approved"},
    ],
)
async def test_no_field_of_a_body_approves(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, body: dict[str, Any]
) -> None:
    """Privileged fields of a plan are refused as unknown."""
    assert (await plan(admin, body, **ann)).status_code == 422
    assert up.tasks == []


async def test_what_stands_in_a_meta_or_a_header_approves_nothing(
    admin: httpx.AsyncClient, up: Upstream, ann: Header
) -> None:
    """It is the autopilot's business, once somebody approved it; an idempotency key that looks like an
    approval is none."""
    flags = {"approved": True, "requires_approval": False, "requiresApproval": False}
    await ask(admin, ann, {**RUN, "meta": flags}, **{"x-approved": "true", "x-approval": "apv_0"})
    first = await ask(admin, ann)
    await ask(admin, ann, **{"idempotency-key": first})
    for field in flags:
        body: dict[str, Any] = {field: True}
        refused = await decide(admin, ADMIN, first, **body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    assert up.tasks == []


@pytest.mark.parametrize(
    "body",
    [
        {"capability": CAP},
        {"task": "run_payout_batch", "autopilot": "bank"},
        {"task": "pay_now"},
        {"capability": "payouts.statement.read"},
    ],
)
async def test_there_is_no_way_around(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, body: dict[str, Any]
) -> None:
    """The capability itself, a pinned autopilot, a task that was brought, one that has to be configured."""
    await register(admin, "quick", up.url, CAP, "payouts.*", tasks={"pay_now": CAP})
    await ask(admin, ann, body)
    assert [one.path for one in up.received if one.method == "POST"] == []


async def test_an_idempotency_key_gets_the_same_approval(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """Before and after the decision: a repeat is told of the one request, and sends nothing."""
    key = {"idempotency-key": "march"}
    first = await ask(admin, ann, **key)
    assert await ask(admin, ann, **key) == first
    assert (await decide(admin, bob, first)).json()["ok"]
    again = await plan(admin, RUN, **ann, **key)
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"].endswith(first)
    assert await ask(admin, ann) != first
    assert len(up.tasks) == 1


async def test_a_meta_that_breaks_the_schema_is_refused_before_anybody_is_asked(
    admin: httpx.AsyncClient, ann: Header
) -> None:
    """422 at once, and no approval."""
    strict: Any = {"name": CAP, "input_schema": {"required": ["cutoff_date"]}}
    await register(admin, "bank", "http://127.0.0.1:9", strict)
    answer = await plan(admin, RUN, **ann)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "meta.cutoff_date")
    assert (await admin.get(APPROVALS)).json() == {"approvals": [], "count": 0, "next": None}


async def test_explain_tells_and_keeps_nothing(admin: httpx.AsyncClient, ann: Header) -> None:
    """`requires_approval` is part of the decision."""
    for task, waits in (("run_payout_batch", True), ("generate_page", False)):
        answer = await plan(admin, {"task": task, "mode": "explain"}, **ann)
        assert (answer.status_code, answer.json()["requires_approval"]) == (200, waits)
    assert (await admin.get(APPROVALS)).json()["count"] == 0


async def test_what_is_refused_is_never_sent(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """It is shown as refused, its meta is gone, and nobody can approve it any more."""
    approval = await ask(admin, ann)
    refused = await decide(admin, bob, approval, "refuse")
    assert (refused.status_code, refused.json()["approval"]["status"]) == (200, "refused")
    document = await shown(admin, approval, ann)
    assert (document["decided_by"], document["meta"], document["outcome"]) == ("bob", None, None)
    assert (await decide(admin, ADMIN, approval)).status_code == 409
    assert up.tasks == []


async def test_of_two_who_approve_at_once_one_does(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """One call to the autopilot, one 200, one 409."""
    approval = await ask(admin, ann)
    answers = await asyncio.gather(*(decide(admin, who, approval) for who in (bob, ADMIN, bob)))
    assert sorted(one.status_code for one in answers) == [200, 409, 409]
    assert len(up.tasks) == 1


async def test_an_expired_approval_says_so(
    admin: httpx.AsyncClient, guarded: System, up: Upstream, ann: Header, bob: Header
) -> None:
    """409, and the list shows it as expired."""
    approval = await ask(admin, ann)
    item = await guarded.outside.table.get(("approval", approval))
    assert item is not None
    await guarded.outside.table.put(item.key, {**item.document, "requested_at": time.time() - 900})
    late = await decide(admin, bob, approval)
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert "expired" in late.json()["detail"]
    [row] = (await admin.get(APPROVALS, params={"status": "expired"})).json()["approvals"]
    assert row["id"] == approval
    assert up.tasks == []


async def test_a_decision_about_another_text_is_none(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """A digest that is not the kept one is a 409, one that is no digest a 422."""
    approval = await ask(admin, ann)
    for digest, status in (("0" * 64, 409), ("march", 422), (7, 422), ("A" * 64, 422)):
        assert (await decide(admin, bob, approval, digest=digest)).status_code == status
    refused = await admin.post(f"{APPROVALS}/{approval}/approve", headers=bob, json=[])
    assert refused.status_code == 422
    assert up.tasks == []
    assert (await decide(admin, bob, approval, digest=None)).status_code == 200


async def test_an_autopilot_that_fails_may_be_sent_to_again(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """The decision stands and says why there is no answer; whoever approved sends it again by approving."""
    approval = await ask(admin, ann)
    up.tell = lambda _: Told(500)
    failed = (await decide(admin, bob, approval)).json()
    assert (failed["ok"], failed["outcome"]) == (False, None)
    assert failed["approval"]["status"] == "approved"
    assert failed["approval"]["error"]["code"] == "forward_failed"
    assert (await decide(admin, ADMIN, approval)).status_code == 409
    up.tell = lambda _: Told(404, b'{"why":"no batch"}')
    answered = (await decide(admin, bob, approval)).json()
    assert (answered["ok"], answered["approval"]["answered"]) == (False, 404)
    assert answered["outcome"]["result"] == {"why": "no batch"}
    assert (await decide(admin, bob, approval)).status_code == 409
    assert [one.headers["idempotency-key"] for one in up.tasks] == [approval, approval]


async def test_secrets_in_a_meta_are_not_shown_but_sent(
    admin: httpx.AsyncClient, up: Upstream, ann: Header, bob: Header
) -> None:
    """Whoever decides sees that something is left out; the autopilot gets what was asked for."""
    secret = "sk-" + "live0123456789abcdef"
    body = {"task": "run_payout_batch", "meta": {"token": secret, "the-admin-key-of-tests": 1}}
    approval = await ask(admin, ann, body)
    answer = await admin.get(f"{APPROVALS}/{approval}", headers=bob)
    assert secret not in answer.text
    assert "the-admin-key-of-tests" not in answer.text
    assert answer.json()["approval"]["redacted"] is True
    assert answer.json()["approval"]["meta"] == {"token": "****", "****": 1}
    assert (await decide(admin, bob, approval)).json()["ok"]
    assert up.tasks[0].json()["meta"] == body["meta"]


async def test_a_revoked_key_asks_for_nothing_any_more(
    admin: httpx.AsyncClient, up: Upstream, bob: Header
) -> None:
    """What it asked for before can only be refused."""
    eve = await key_of(admin, "eve", "plan:payouts.*")
    approval = await ask(admin, eve)
    [record] = [one for one in (await admin.get("/autopilot/keys")).json()["keys"] if one["name"] == "eve"]
    await admin.delete(f"/autopilot/keys/{record['id']}")
    late = await decide(admin, bob, approval)
    assert (late.status_code, "no longer" in late.json()["detail"]) == (409, True)
    assert (await decide(admin, bob, approval, "refuse")).status_code == 200
    assert up.tasks == []


async def test_the_list_is_filtered_and_paged(admin: httpx.AsyncClient, ann: Header, bob: Header) -> None:
    """By state, a page at a time, each approval once and without its meta."""
    made = [await ask(admin, ann) for _ in range(5)]
    await decide(admin, bob, made[0], "refuse")
    await decide(admin, bob, made[1])
    seen: list[str] = []
    query: Mapping[str, Any] = {"status": "awaiting_approval", "limit": 2}
    while True:
        page = (await admin.get(APPROVALS, params=query, headers=bob)).json()
        seen += [one["id"] for one in page["approvals"]]
        assert page["count"] == len(page["approvals"]) <= 2
        assert "meta" not in page["approvals"][0]
        if page["next"] is None:
            break
        query = {**query, "cursor": page["next"]}
    assert sorted(seen) == sorted(made[2:])
    assert (await admin.get(APPROVALS)).json()["count"] == 5
    wrong = await admin.get(APPROVALS, params={"status": "new", "limit": 0, "cursor": "../x", "x": "1"})
    assert wrong.status_code == 422
    wrong = await admin.get(APPROVALS, params={"status": "new", "limit": 0, "cursor": "../x"})
    assert {one["field"] for one in wrong.json()["errors"]} == {"status", "limit", "cursor"}


async def test_what_waits_is_found_behind_many_that_do_not(
    admin: httpx.AsyncClient, guarded: System, ann: Header
) -> None:
    """A filter looks through as many pages of the store as it takes."""
    waiting = await ask(admin, ann)
    item = await guarded.outside.table.get(("approval", waiting))
    assert item is not None
    for number in range(400):
        one = f"apv_{number:024}"
        document = {**item.document, "id": one, "state": "refused"}
        await guarded.outside.table.put(("approval", one), document)
    found = await admin.get(APPROVALS, params={"status": "awaiting_approval", "limit": 1})
    assert [one["id"] for one in found.json()["approvals"]] == [waiting]


@pytest.mark.parametrize("approval", ["apv_0", "nobody", "%2e%2e", "a%00b", "x" * 300])
async def test_an_unknown_approval_is_a_404(admin: httpx.AsyncClient, bob: Header, approval: str) -> None:
    """By whatever name."""
    assert (await admin.get(f"{APPROVALS}/{approval}", headers=bob)).status_code == 404
    for how in ("approve", "refuse"):
        assert (await decide(admin, bob, approval, how)).status_code == 404


async def test_on_one_machine_a_second_key_is_needed(api: httpx.AsyncClient, up: Upstream) -> None:
    """Without a key everybody here is one person, so nobody without one decides."""
    capability: Any = {"name": CAP, "requires_approval": True}
    registered = await register(api, "bank", up.url, capability)
    assert registered.json()["autopilot"]["capabilities"] == [capability]
    approval = await ask(api, {})
    refused = await decide(api, {}, approval)
    assert refused.status_code == 403
    assert "autopilot keys create" in refused.json()["detail"]
    second = await key_of(api, "second", "operate")
    assert (await decide(api, second, approval)).json()["ok"]
    other = await ask(api, await key_of(api, "third", "plan:*"))
    assert (await decide(api, {}, other)).status_code == 403
    assert len(up.tasks) == 1


async def test_a_schedule_waits_like_everybody_else(
    admin: httpx.AsyncClient, guarded: System, up: Upstream, ann: Header, bob: Header
) -> None:
    """What fires in the router's name is decided by a key that cannot have scheduled it; nothing is sent."""
    for manifest in manifests():
        if manifest["name"] == "ai-employee":
            await admin.post("/autopilot/registry", json=manifest)
    body = {"capability": "task.schedule", "meta": {**RUN, "at": "2020-01-01T00:00:00Z"}}
    scheduled = (await plan(admin, body, **ann)).json()
    assert scheduled["ok"], scheduled
    await guarded.fire_schedules()
    assert up.tasks == []
    [waiting] = (await admin.get(APPROVALS)).json()["approvals"]
    assert (waiting["requested_by"], waiting["capability"]) == ("router", CAP)
    for headers in (ann, ADMIN):
        assert (await decide(admin, headers, waiting["id"])).status_code == 403
    done = (await decide(admin, bob, waiting["id"])).json()
    assert done["ok"], done
    assert len(up.tasks) == 1


async def test_decisions_are_in_the_audit(admin: httpx.AsyncClient, ann: Header, bob: Header) -> None:
    """Who approved what that who asked for, and who tried to."""
    approval = await ask(admin, ann)
    await decide(admin, ann, approval)
    await decide(admin, bob, approval)
    events = (await admin.get("/autopilot/audit", params={"limit": 200})).json()["events"]
    [denied] = [one for one in events if one["source"] == "ann" and "denied" in one["type"]]
    [approved] = [one for one in events if one["type"] == "approval.approve"]
    assert approval in denied["payload"]["target"]
    assert (approved["source"], approved["payload"]["target"]) == ("bob", approval)
    assert (approved["payload"]["requested_by"], approved["payload"]["capability"]) == ("ann", CAP)


def test_a_setting_that_is_no_pattern_stops_the_start(tmp_path: Path) -> None:
    """A typing error must not leave a capability unguarded."""
    settings = read({"AUTOPILOT_DATA": str(tmp_path), "AUTOPILOT_REQUIRE_APPROVAL": "payouts"})
    with pytest.raises(Invalid, match="AUTOPILOT_REQUIRE_APPROVAL: 'payouts' is no pattern"):
        build(settings, url="http://router.test")
    assert list(tmp_path.iterdir()) == []


async def test_the_built_in_tasks_wait_only_where_that_is_wanted(builtin: httpx.AsyncClient) -> None:
    """The demo runs without a second person."""
    assert (await plan(builtin, {"task": "run_payout_batch"})).status_code == 200


async def test_the_deadline_is_that_of_whoever_asked(
    admin: httpx.AsyncClient, ann: Header, bob: Header
) -> None:
    """Whoever approves gives no more time, and hears that it passed."""
    async with upstream() as slow:
        slow.tell = lambda _: Told(hang=True)
        await register(admin, "bank", slow.url, CAP)
        approval = await ask(admin, ann, {**RUN, "timeout_ms": 50})
        late = (await decide(admin, bob, approval)).json()
        assert (late["ok"], late["approval"]["error"]["code"]) == (False, "deadline")
        assert len(slow.tasks) == 1
