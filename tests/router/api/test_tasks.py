"""Asynchronous tasks over HTTP: submit, see, cancel, send again, each by whoever may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.queue import Message
from infra.signing import new_secret, verify
from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of, register
from tests.router.api.test_keys import key_of
from tests.router.api.test_plan import plan
from tests.upstream import Told, Upstream

ADMIN = {"authorization": "Bearer the-admin-key-of-tests"}
CAP = "web.pages.generate"
TASKS = "/autopilot/tasks"
SECRET = new_secret()
LATER = {"task": "generate_page", "meta": {"pageType": "home"}, "mode": "async"}
Header = dict[str, str]


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Give a system that needs keys, signs calls, and where tasks of payouts wait."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": "the-admin-key-of-tests",
        "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1",
        "AUTOPILOT_REQUIRE_APPROVAL": "payouts.*",
        "AUTOPILOT_CALLBACK_SECRET": SECRET,
    }
    built = build(read(environment), url="http://router.test")
    yield built
    await built.close()


@pytest.fixture
async def admin(system: System, up: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the admin key, and an autopilot that is registered."""
    async with client_of(system, "203.0.113.9") as client:
        client.headers.update(ADMIN)
        await register(client, "stylist", up.url, CAP, "payouts.batch.run")
        yield client


@pytest.fixture
async def ann(admin: httpx.AsyncClient) -> Header:
    """Give the header of somebody who may send some tasks."""
    return await key_of(admin, "ann", "plan:web.*")


async def submit(api: httpx.AsyncClient, headers: Header, body: object = None, **more: str) -> str:
    """Submit a task and return its id."""
    answer = await plan(api, body or LATER, **headers, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def shown(api: httpx.AsyncClient, task: str, headers: Header = ADMIN) -> dict[str, Any]:
    """Return a task as it is shown."""
    answer = await api.get(f"{TASKS}/{task}", headers=headers)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def work(system: System) -> None:
    """Work on what is due."""
    while await system.deferred.worker.work_once():
        pass


async def test_a_task_is_taken_done_and_shown(
    admin: httpx.AsyncClient, system: System, up: Upstream, ann: Header
) -> None:
    """From 202 with where to look, over what it waits for, to the envelope of a plan."""
    answer = await plan(admin, LATER, **ann)
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert set(answer.json()) == {"id", "status"}
    assert answer.json()["status"] == "queued"
    assert answer.headers["location"] == f"{TASKS}/{answer.json()['id']}"
    waiting = await shown(admin, answer.json()["id"], ann)
    assert (waiting["status"], waiting["outcome"], waiting["attempts"]) == ("queued", None, 0)
    assert up.tasks == []

    await work(system)
    done = await shown(admin, answer.json()["id"], ann)
    assert (done["status"], done["requested_by"], done["error"]) == ("completed", "ann", None)
    assert (done["outcome"]["autopilot"], done["outcome"]["result"]) == ("stylist", {"done": True})
    [sent] = up.tasks
    assert sent.headers["idempotency-key"] == answer.json()["id"]
    assert sent.json() == {"task": "generate_page", "capability": CAP, "meta": {"pageType": "home"}}
    assert done["trace_id"] == sent.headers["traceparent"].split("-")[1]


async def test_the_trace_is_the_callers(admin: httpx.AsyncClient, system: System, up: Upstream) -> None:
    """What is sent later belongs to the call that asked for it."""
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    task = await submit(admin, {}, traceparent=trace)
    await work(system)
    assert (await shown(admin, task))["trace_id"] == "ab" * 16
    assert up.tasks[0].headers["traceparent"].startswith("00-" + "ab" * 16)


async def test_an_idempotency_key_gives_the_same_task(
    admin: httpx.AsyncClient, system: System, up: Upstream, ann: Header
) -> None:
    """Before and after it is done; another body is refused, another caller's key is another task."""
    key = {"idempotency-key": "order-7"}
    first = await submit(admin, ann, **key)
    again = await plan(admin, LATER, **ann, **key)
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == f"{TASKS}/{first}"
    await work(system)
    assert await submit(admin, ann, **key) == first
    for other in ({**LATER, "meta": {}}, {**LATER, "mode": "sync"}):
        assert (await plan(admin, other, **ann, **key)).status_code == 422
    assert await submit(admin, {}, **key) != first
    assert len(up.tasks) == 1


async def test_many_calls_under_one_key_at_once_are_one_task(
    admin: httpx.AsyncClient, system: System, up: Upstream, ann: Header
) -> None:
    """All get the one id, or hear that the first call is under way."""
    calls = [plan(admin, LATER, **ann, **{"idempotency-key": "k"}) for _ in range(20)]
    answers = await asyncio.gather(*calls)
    assert {one.status_code for one in answers} <= {202, 409}
    assert len({one.json()["id"] for one in answers if one.status_code == 202}) == 1
    await work(system)
    assert len(up.tasks) == 1


async def test_an_answer_that_was_lost(admin: httpx.AsyncClient, system: System, up: Upstream) -> None:
    """The task was taken, but what is kept for a repeat was not: a repeat finds it all the same."""
    first = await submit(admin, {}, **{"idempotency-key": "k"})
    page = await system.outside.table.range("idempotency:plan")
    for item in page.items:
        await system.outside.table.delete(item.key)
    assert await submit(admin, {}, **{"idempotency-key": "k"}) == first
    await work(system)
    assert len(up.tasks) == 1


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"task": "generate_pag"}, 400, "unknown_task"),
        ({"task": " "}, 400, "task_required"),
        ({"task": "create_lead"}, 422, "no_autopilot"),
        ({"autopilot": "nobody"}, 422, "no_autopilot"),
        ({"timeout_ms": 0}, 422, "invalid_body"),
        ({"mode": "Async"}, 422, "invalid_body"),
        ({"callback_url": "ann.example"}, 422, "invalid_body"),
        ({"callback_url": "https://user:pw@ann.example"}, 422, "invalid_body"),
        ({"callback_url": "https://10.0.0.7/hook"}, 422, "endpoint_refused"),
        ({"callback_url": "http://169.254.169.254/latest"}, 422, "endpoint_refused"),
        ({"callback_url": "http://router.test/hook"}, 422, "endpoint_refused"),
        ({"callback_url": "https://ann.example", "mode": "sync"}, 422, "invalid_body"),
    ],
)
async def test_what_is_not_taken(
    admin: httpx.AsyncClient, up: Upstream, more: dict[str, Any], status: int, code: str
) -> None:
    """It is refused at once, as a call that waits would be, and nothing is kept."""
    answer = await plan(admin, {**LATER, **more})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await admin.get(TASKS)).json() == {"tasks": [], "count": 0, "next": None}


async def test_without_a_secret_nobody_is_called(tmp_path: Path, up: Upstream) -> None:
    """The answer names the setting that is missing."""
    local = build(read({"AUTOPILOT_DATA": str(tmp_path / "bare")}), url="http://127.0.0.1:8080")
    async with client_of(local) as api:
        await register(api, "stylist", up.url, CAP)
        answer = await plan(api, {**LATER, "callback_url": up.url})
    await local.close()
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "callback_url"
    assert "AUTOPILOT_CALLBACK_SECRET" in error["message"]


async def test_whoever_asked_is_called(
    admin: httpx.AsyncClient, system: System, up: Upstream, up2: Upstream
) -> None:
    """Over the guarded connections: a POST of the task, signed, and what came of it is shown."""
    up2.tell = lambda _: Told(204, b"")
    task = await submit(admin, {}, {**LATER, "callback_url": f"{up2.url}/hook?for=ann"})
    await work(system)
    [call] = up2.received
    assert (call.method, call.path) == ("POST", "/hook?for=ann")
    headers = [(name.encode(), value.encode()) for name, value in call.headers.items()]
    now = int(call.headers["webhook-timestamp"])
    assert verify([SECRET], headers, call.body, now) == f"{task}_1"
    document = await shown(admin, task)
    assert document["callback"]["status"] == "delivered"
    assert {**call.json(), "callback": None} == {**document, "callback": None}
    assert "authorization" not in call.headers


async def test_a_callback_that_leads_elsewhere(
    admin: httpx.AsyncClient, system: System, up: Upstream, up2: Upstream
) -> None:
    """A redirect is not followed: it is no good answer."""
    up2.tell = lambda _: Told(302, b"", {"location": f"{up.url}/secret"})
    task = await submit(admin, {}, {**LATER, "callback_url": up2.url})
    await work(system)
    callback = (await shown(admin, task))["callback"]
    assert (callback["status"], callback["attempts"], callback["last_error"]) == (
        "pending",
        1,
        "answered 302",
    )
    assert callback["next_attempt_at"] is not None
    assert [one.path for one in up.received if one.path == "/secret"] == []


async def test_cancel(admin: httpx.AsyncClient, system: System, up: Upstream, ann: Header) -> None:
    """It is final, is in the audit, and a second time is a conflict."""
    task = await submit(admin, ann)
    cancelled = await admin.post(f"{TASKS}/{task}/cancel", headers=ann)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await admin.post(f"{TASKS}/{task}/cancel", headers=ann)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    await work(system)
    assert up.tasks == []
    assert await shown(admin, task) == cancelled.json()
    events = (await admin.get("/autopilot/audit", params={"limit": 200})).json()["events"]
    [record] = [one for one in events if one["type"] == "task.cancel"]
    assert (record["source"], record["payload"]["target"]) == ("ann", task)
    assert (record["payload"]["requested_by"], record["payload"]["capability"]) == ("ann", CAP)
    told = (await admin.get("/autopilot/events", params={"type": "task.cancelled"})).json()["events"]
    assert [(one["source"], one["payload"]["id"]) for one in told] == [("ann", task)]


async def test_retry(admin: httpx.AsyncClient, system: System, up: Upstream, ann: Header) -> None:
    """What failed is found by its state, and goes out again under its own key."""
    up.tell = lambda _: Told(404, b'{"why":"not yet"}')
    task = await submit(admin, ann)
    early = await admin.post(f"{TASKS}/{task}/retry", headers=ann)
    assert early.status_code == 409
    await work(system)
    [failed] = (await admin.get(TASKS, params={"status": "failed"})).json()["tasks"]
    assert (failed["id"], failed["error"]["code"]) == (task, "refused")
    up.tell = lambda _: Told()
    again = await admin.post(f"{TASKS}/{task}/retry", headers=ann)
    assert (again.status_code, again.json()["status"], again.json()["outcome"]) == (200, "queued", None)
    await work(system)
    assert (await shown(admin, task))["status"] == "completed"
    assert [one.headers["idempotency-key"] for one in up.tasks] == [task, task]


async def test_whose_tasks_a_key_sees_and_changes(
    admin: httpx.AsyncClient, system: System, up: Upstream, ann: Header
) -> None:
    """F10: one's own with `plan`, everybody's with `read`, and to change them with `operate`."""
    bob = await key_of(admin, "bob", "plan:web.*")
    reader = await key_of(admin, "reader", "read")
    operator = await key_of(admin, "operator", "operate")
    clerk = await key_of(admin, "clerk", "register")
    up.tell = lambda _: Told(404)
    task = await submit(admin, ann)
    await work(system)
    for who, see, change in (
        (bob, 404, 404),
        (clerk, 404, 404),
        (reader, 200, 403),
        (operator, 200, 409),
        (ann, 200, 409),
        (ADMIN, 200, 409),
    ):
        assert (await admin.get(f"{TASKS}/{task}", headers=who)).status_code == see
        assert (await admin.post(f"{TASKS}/{task}/cancel", headers=who)).status_code == change
        listed = (await admin.get(TASKS, headers=who)).json()["tasks"]
        assert [one["id"] for one in listed] == ([task] if see == 200 else [])
    for who, status in ((bob, 404), (clerk, 404), (reader, 403), (operator, 200)):
        assert (await admin.post(f"{TASKS}/{task}/retry", headers=who)).status_code == status
    unknown = await admin.get(f"{TASKS}/task_0", headers=bob)
    hidden = await admin.get(f"{TASKS}/{task}", headers=bob)
    assert {**unknown.json(), "trace_id": ""} == {**hidden.json(), "trace_id": ""}
    denied = (await admin.get("/autopilot/audit", params={"limit": 200})).json()["events"]
    assert {one["source"] for one in denied if one["type"] == "call.denied"} == {"reader"}


async def test_a_key_that_may_not_plan_it_may_not_submit_it(admin: httpx.AsyncClient, ann: Header) -> None:
    """Not under any name; and scheduling takes the right to send anything."""
    for body in ({"task": "run_payout_batch"}, {"capability": "payouts.batch.run"}):
        answer = await plan(admin, {**body, "mode": "async"}, **ann)
        assert (answer.status_code, answer.json()["scope"]) == (403, "plan:payouts.batch.run")


@pytest.mark.parametrize(
    "field", ["requested_by", "scopes", "status", "id", "deadline", "attempts", "approval_id"]
)
async def test_no_field_of_a_body_says_whose_it_is(admin: httpx.AsyncClient, ann: Header, field: str) -> None:
    """What the product sets itself is refused as unknown."""
    answer = await plan(admin, {**LATER, field: "admin"}, **ann)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_the_list_is_paged_and_filtered(admin: httpx.AsyncClient, system: System, ann: Header) -> None:
    """Newest first, each once, of one state if that is asked for."""
    made = [await submit(admin, ann if number % 2 else {}) for number in range(6)]
    for task in made[:3]:
        await admin.post(f"{TASKS}/{task}/cancel")
    for who, query, expected in (
        (ADMIN, {}, made[::-1]),
        (ann, {}, made[5::-2]),
        (ADMIN, {"status": "queued"}, made[:2:-1]),
        (ann, {"status": "cancelled"}, [made[1]]),
        (ADMIN, {"status": "running"}, []),
    ):
        seen: list[str] = []
        asked: dict[str, Any] = {"limit": 2, **query}
        while True:
            page = (await admin.get(TASKS, headers=who, params=asked)).json()
            seen += [one["id"] for one in page["tasks"]]
            assert page["count"] == len(page["tasks"]) <= 2
            assert all("outcome" not in one for one in page["tasks"])
            if page["next"] is None:
                break
            asked["cursor"] = page["next"]
        assert sorted(seen, reverse=True) == seen
        assert sorted(seen) == sorted(expected)


async def test_a_list_that_is_asked_for_wrongly(admin: httpx.AsyncClient) -> None:
    """Every wrong parameter is named."""
    wrong = await admin.get(TASKS, params={"status": "new", "limit": 0, "cursor": "../x"})
    assert {one["field"] for one in wrong.json()["errors"]} == {"status", "limit", "cursor"}
    assert (await admin.get(TASKS, params={"state": "queued"})).status_code == 422
    assert (await admin.get(f"{TASKS}/task_0", params={"x": 1})).status_code == 422


@pytest.mark.parametrize("task", ["task_0", "nobody", "%2e%2e", "a%00b", "x" * 300, "a-b"])
async def test_an_unknown_task_is_a_404(admin: httpx.AsyncClient, task: str) -> None:
    """By whatever name."""
    assert (await admin.get(f"{TASKS}/{task}")).status_code == 404
    for how in ("cancel", "retry"):
        assert (await admin.post(f"{TASKS}/{task}/{how}")).status_code == 404


async def test_one_that_needs_approval_waits_for_it(
    admin: httpx.AsyncClient, system: System, up: Upstream
) -> None:
    """The task names the approval; whoever decides sends it, and the task has the answer."""
    asker = await key_of(admin, "asker", "plan:payouts.*")
    decider = await key_of(admin, "decider", "operate")
    task = await submit(admin, asker, {"capability": "payouts.batch.run", "mode": "async"})
    await work(system)
    waiting = await shown(admin, task, asker)
    assert (waiting["status"], waiting["attempts"]) == ("queued", 0)
    approval = f"/autopilot/approvals/{waiting['approval_id']}"
    assert (await admin.get(approval, headers=asker)).json()["approval"]["requested_by"] == "asker"
    assert (await admin.post(f"{approval}/approve", headers=decider)).json()["ok"]
    now = await system.deferred.rows.get(task)
    body = {"kind": "task", "task": task, "turn": now.turn}
    await system.deferred.worker.handle(Message("m", body, 1, "0-0-m", 0.0))  # it looks every five seconds
    done = await shown(admin, task, asker)
    assert (done["status"], done["outcome"]["result"]) == ("completed", {"done": True})
    assert len(up.tasks) == 1


async def test_a_loop_of_routers_is_refused_at_once(admin: httpx.AsyncClient) -> None:
    """As it is for a call that waits."""
    answer = await plan(admin, LATER, **{"x-autopilot-hops": "3"})
    assert (answer.status_code, answer.json()["code"]) == (508, "loop")


async def test_a_running_worker_takes_it_at_once(admin: httpx.AsyncClient, system: System) -> None:
    """Nobody waits for its next look."""
    running = asyncio.ensure_future(system.deferred.worker.run())
    task = await submit(admin, {})
    async with asyncio.timeout(5):
        while (await shown(admin, task))["status"] != "completed":
            pass
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
