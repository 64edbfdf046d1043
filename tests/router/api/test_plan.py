"""`POST /autopilot/plan` over HTTP, with autopilots on real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from router.wiring import System
from tests.router.api.conftest import register
from tests.upstream import Told, Upstream


async def plan(api: httpx.AsyncClient, body: object, **headers: str) -> httpx.Response:
    """Post a plan."""
    return await api.post("/autopilot/plan", json=body, headers=headers)


async def test_the_envelope_has_every_field_of_the_contract(api: httpx.AsyncClient, up: Upstream) -> None:
    """A success carries autopilot, ok, status, task, capability, result, attempts, duration and trace."""
    await register(api, "pages", up.url, "web.pages.generate")
    answer = await plan(api, {"task": "generate_page", "meta": {"a": 1}})
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {
        "autopilot", "ok", "status", "task", "capability", "result", "attempts", "duration_ms",
        "trace_id", "idempotent_replay",
    }  # fmt: skip
    assert (body["autopilot"], body["ok"], body["status"]) == ("pages", True, 200)
    assert (body["task"], body["capability"]) == ("generate_page", "web.pages.generate")
    assert body["result"] == {"done": True}
    assert set(body["attempts"][0]) == {"autopilot", "status", "duration_ms", "error"}
    assert body["idempotent_replay"] is False


async def test_meta_arrives_as_the_bytes_that_came(api: httpx.AsyncClient, up: Upstream) -> None:
    """The text of meta reaches the autopilot unchanged: order, spacing, number spelling, escapes."""
    await register(api, "pages", up.url, "web.pages.generate")
    meta = b'{ "z":1.50, "a":"\\u00e9",  "n":12345678901234567890123 }'
    body = b'{"meta":' + meta + b',"task":"generate_page"}'
    answer = await api.post("/autopilot/plan", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert up.tasks[0].body == (
        b'{"task":"generate_page","capability":"web.pages.generate","meta":' + meta + b"}"
    )


async def test_a_capability_can_be_asked_for_directly(api: httpx.AsyncClient, up: Upstream) -> None:
    """A capability in place of a task is sent with task null, to the endpoint's own path."""
    await register(api, "pages", f"{up.url}/base/?v=1", "web.section.generate")
    answer = await plan(api, {"capability": "web.section.generate"})
    assert answer.json()["task"] is None
    assert up.tasks[0].path == "/base/tasks?v=1"
    assert up.tasks[0].json() == {"task": None, "capability": "web.section.generate", "meta": {}}


async def test_no_header_of_the_caller_reaches_the_autopilot(api: httpx.AsyncClient, up: Upstream) -> None:
    """Authorization, cookies and the like stay here; the trace and the idempotency key go on."""
    await register(api, "pages", up.url, "web.pages.generate")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {
        "authorization": "Bearer canary-1", "cookie": "canary-2", "x-secret": "canary-3",
        "traceparent": trace, "idempotency-key": '"order-7"', "x-autopilot-hops": "1",
    }  # fmt: skip
    answer = await plan(api, {"task": "generate_page"}, **headers)
    sent = up.tasks[0].headers
    assert "canary" not in str(sent)
    assert set(sent) == {
        "host", "user-agent", "accept", "accept-encoding", "content-type", "content-length", "traceparent",
        "webhook-id", "webhook-timestamp", "webhook-signature", "idempotency-key", "x-autopilot-hops",
    }  # fmt: skip
    assert sent["traceparent"].split("-")[1] == answer.json()["trace_id"] == trace.split("-")[1]
    assert sent["traceparent"].split("-")[2] != trace.split("-")[2]
    assert (sent["idempotency-key"], sent["x-autopilot-hops"]) == ("order-7", "2")


@pytest.mark.parametrize(
    ("body", "status", "code", "error"),
    [
        ({}, 400, "task_required", "task required"),
        ({"task": "  "}, 400, "task_required", "task required"),
        ({"task": None}, 422, "invalid_body", None),
        ({"task": 7, "meta": [], "extra": 1}, 422, "invalid_body", None),
        ({"task": "generate_pag"}, 400, "unknown_task", "Unknown task: generate_pag"),
        (
            {"task": "generate_page"},
            422,
            "no_autopilot",
            "No autopilot currently supports web.pages.generate",
        ),
        ({"capability": "Web.Pages"}, 422, "invalid_body", None),
        (
            {"task": "generate_page", "mode": "async"},
            422,
            "no_autopilot",
            "No autopilot currently supports web.pages.generate",
        ),
        ({"task": "generate_page", "mode": "later"}, 422, "invalid_body", None),
        ({"task": "generate_page", "timeout_ms": 0}, 422, "invalid_body", None),
        ([], 422, "invalid_body", None),
    ],
)
async def test_what_cannot_be_planned_is_said_clearly(
    api: httpx.AsyncClient, body: object, status: int, code: str, error: str | None
) -> None:
    """Each wrong request gets its status, its code, and the text the seed's clients know."""
    answer = await plan(api, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["trace_id"]
    if error is not None:
        assert answer.json()["error"] == error


async def test_every_wrong_field_is_reported_at_once(api: httpx.AsyncClient) -> None:
    """One answer names all fields that are wrong."""
    answer = await plan(api, {"task": 7, "meta": [], "extra": 1, "timeout_ms": "soon"})
    fields = {one["field"] for one in answer.json()["errors"]}
    assert fields == {"task", "meta", "extra", "timeout_ms"}


async def test_an_unknown_task_lists_the_tasks_there_are(api: httpx.AsyncClient) -> None:
    """The answer has all 11 built-in tasks and the nearest names."""
    body = (await plan(api, {"task": "generate_pag"})).json()
    assert len(body["availableTasks"]) == 11
    assert body["did_you_mean"][0] == "generate_page"


async def test_nobody_offering_it_lists_who_is_registered(api: httpx.AsyncClient, up: Upstream) -> None:
    """The 422 names every autopilot with its capabilities, and a hint."""
    await register(api, "pages", up.url, "web.pages.generate")
    body = (await plan(api, {"task": "create_lead"})).json()
    assert body["registeredAutopilots"] == [{"name": "pages", "capabilities": ["web.pages.generate"]}]
    assert "Register an autopilot" in body["hint"]


async def test_a_meta_that_breaks_the_schema_is_refused_before_it_is_sent(
    api: httpx.AsyncClient, up: Upstream
) -> None:
    """Each field that breaks the registered input_schema is named, and the autopilot hears nothing."""
    schema = {
        "type": "object",
        "properties": {"pageType": {"enum": ["home"]}, "n": {"type": "integer"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    capability: Any = {"name": "web.pages.generate", "input_schema": schema}
    await register(api, "pages", up.url, capability)
    answer = await plan(api, {"task": "generate_page", "meta": {"pageType": "x", "n": "y", "more": 1}})
    assert answer.status_code == 422
    fields = {one["field"] for one in answer.json()["errors"]}
    assert fields == {"meta.pageType", "meta.n", "meta.title", "meta.more"}
    assert up.tasks == []


async def test_a_client_error_of_the_autopilot_is_passed_on(api: httpx.AsyncClient, up: Upstream) -> None:
    """A 4xx comes back as that status, in the envelope of a success with ok false."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda _: Told(404, b'{"why":"no such page"}')
    answer = await plan(api, {"task": "generate_page"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json()["ok"], answer.json()["status"]) == (False, 404)
    assert answer.json()["result"] == {"why": "no such page"}


@pytest.mark.parametrize(
    "told", [Told(500), Told(302, headers={"location": "http://127.0.0.1/"}), Told(cut=True)]
)
async def test_a_failing_autopilot_is_a_502(api: httpx.AsyncClient, up: Upstream, told: Told) -> None:
    """A 5xx, a redirect and a broken answer are failures to forward, sent once and explained."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda _: told
    answer = await plan(api, {"task": "generate_page"})
    assert (answer.status_code, answer.json()["title"]) == (502, "Failed to forward task")
    assert answer.json()["attempts"][0]["autopilot"] == "pages"
    assert len(up.tasks) == 1


async def test_an_unreachable_autopilot_is_a_502(api: httpx.AsyncClient) -> None:
    """A refused connection is a failure to forward, and the answer holds no address."""
    await register(api, "pages", "http://127.0.0.1:9", "web.pages.generate")
    answer = await plan(api, {"task": "generate_page"})
    assert answer.status_code == 502
    assert "127.0.0.1" not in answer.text


async def test_text_that_is_no_json_arrives_as_raw(api: httpx.AsyncClient, up: Upstream) -> None:
    """An answer that is not JSON is given as its text."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda _: Told(200, b"<p>done</p>")
    assert (await plan(api, {"task": "generate_page"})).json()["result"] == {"raw": "<p>done</p>"}


async def test_too_large_an_answer_is_a_502(api: httpx.AsyncClient, up: Upstream) -> None:
    """An answer over 5 MiB is given up."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda _: Told(200, b'"' + b"x" * (5 << 20) + b'"')
    answer = await plan(api, {"task": "generate_page"})
    assert answer.status_code == 502
    assert "bytes" in answer.json()["detail"]


async def test_a_slow_autopilot_is_a_504_within_the_deadline(api: httpx.AsyncClient, up: Upstream) -> None:
    """An autopilot that does not answer costs no more than timeout_ms."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda _: Told(hang=True)
    answer = await plan(api, {"task": "generate_page", "timeout_ms": 60})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


async def test_a_dead_autopilot_is_passed_over_when_another_lives(
    api: httpx.AsyncClient, up: Upstream, up2: Upstream
) -> None:
    """When nothing was sent the next candidate gets the task, and both attempts are told."""
    await register(api, "a", up.url, "web.pages.generate")
    await register(api, "b", up2.url, "web.pages.generate")
    await api.get("/autopilot/registry/a/health")
    await up.stop()
    body = (await plan(api, {"task": "generate_page"}, **{"idempotency-key": "k"})).json()
    assert (body["autopilot"], body["ok"]) == ("b", True)
    assert [one["autopilot"] for one in body["attempts"]] == ["a", "b"]
    assert body["attempts"][0]["status"] is None


async def test_a_failure_after_sending_is_not_sent_again_without_a_key(
    api: httpx.AsyncClient, up: Upstream, up2: Upstream
) -> None:
    """A 500 is repeated elsewhere only when the caller gave an idempotency key."""
    await register(api, "a", up.url, "web.pages.generate")
    await register(api, "b", up2.url, "web.pages.generate")
    up.tell = lambda request: Told(500) if request.path == "/tasks" else Told()
    assert (await plan(api, {"task": "generate_page"})).status_code == 502
    assert (len(up.tasks), len(up2.tasks)) == (1, 0)
    keyed = await plan(api, {"task": "generate_page"}, **{"idempotency-key": "k1"})
    assert keyed.json()["autopilot"] == "b"
    assert up.tasks[1].headers["idempotency-key"] == up2.tasks[0].headers["idempotency-key"] == "k1"


async def test_five_failures_open_the_circuit_and_the_next_task_goes_elsewhere(
    api: httpx.AsyncClient, up: Upstream, up2: Upstream
) -> None:
    """Failing changes the routing and is shown in the list."""
    await register(api, "a", up.url, "web.pages.generate")
    await register(api, "b", up2.url, "web.pages.generate", priority=200)
    up.tell = lambda request: Told(500) if request.path == "/tasks" else Told()
    for _ in range(5):
        await plan(api, {"task": "generate_page", "autopilot": "a"})
    assert (await plan(api, {"task": "generate_page"})).json()["autopilot"] == "b"
    rows = (await api.get("/autopilot/list")).json()["autopilots"]
    assert {row["name"]: row["health"] for row in rows}["a"] == "down"
    explained = (await plan(api, {"task": "generate_page", "mode": "explain"})).json()
    assert explained["autopilot"] == "b"
    assert "circuit is open" in explained["candidates"][1]["reason"]


async def test_explain_agrees_with_the_plan_and_sends_nothing(
    api: httpx.AsyncClient, up: Upstream, up2: Upstream
) -> None:
    """The decision explained is the one taken: the lower priority number wins."""
    await register(api, "a", up.url, "web.pages.generate", priority=200)
    await register(api, "b", up2.url, "web.pages.generate", priority=50)
    explained = (await plan(api, {"task": "generate_page", "mode": "explain"})).json()
    assert (explained["autopilot"], up.tasks, up2.tasks) == ("b", [], [])
    assert [one["reason"] for one in explained["candidates"]] == [
        "chosen",
        "its priority 200 comes after 50",
    ]
    assert (await plan(api, {"task": "generate_page"})).json()["autopilot"] == "b"


async def test_a_pinned_autopilot_gets_the_task_or_nobody_does(
    api: httpx.AsyncClient, up: Upstream, up2: Upstream
) -> None:
    """With `autopilot` the task goes to that one, even though another would be chosen."""
    await register(api, "a", up.url, "web.pages.generate")
    await register(api, "b", up2.url, "web.pages.generate")
    assert (await plan(api, {"task": "generate_page", "autopilot": "b"})).json()["autopilot"] == "b"
    missing = await plan(api, {"task": "generate_page", "autopilot": "c"})
    assert (missing.status_code, missing.json()["code"]) == (422, "no_autopilot")


async def test_needs_that_cannot_be_made_stop_the_task(
    api: httpx.AsyncClient, up: Upstream, system: System, tmp_path: Any
) -> None:
    """Refused infrastructure is a 503 with details, and the autopilot hears nothing (D-03)."""
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "the-bucket").write_text("a file is in the way")
    await register(api, "pages", up.url, "web.pages.generate", needs={"r2Buckets": ["the-bucket"]})
    answer = await plan(api, {"task": "generate_page"})
    assert (answer.status_code, answer.json()["error"]) == (503, "Infrastructure not ready")
    assert answer.json()["autopilot"] == "pages"
    assert answer.json()["details"][0]["name"] == "the-bucket"
    assert up.tasks == []


async def test_needs_are_made_before_the_task_is_sent(
    api: httpx.AsyncClient, up: Upstream, tmp_path: Any
) -> None:
    """The bucket exists when the task arrives."""
    seen = []
    up.tell = lambda request: seen.append((tmp_path / "r2/the-bucket").is_dir()) or Told()  # type: ignore[func-returns-value]
    await register(api, "pages", up.url, "web.pages.generate", needs={"r2Buckets": ["the-bucket"]})
    seen.clear()
    (tmp_path / "r2/the-bucket").is_dir()
    assert (await plan(api, {"task": "generate_page"})).json()["ok"]
    assert seen[-1] is True


async def test_a_family_is_configured_for_a_capability_nobody_offers(
    api: httpx.AsyncClient, up: Upstream
) -> None:
    """The autopilot is asked once, the capability is kept, and the task goes to it (D-02)."""
    await register(api, "payer", up.url, "payouts.*")
    first = (await plan(api, {"capability": "payouts.refund.run"})).json()
    second = (await plan(api, {"capability": "payouts.refund.run"})).json()
    assert first["ok"]
    assert second["ok"]
    asked = [one.json() for one in up.received if one.path == "/configure"]
    assert asked == [{"enable": "payouts.refund.run"}]
    record = (await api.get("/autopilot/registry/payer")).json()["autopilot"]
    assert record["capabilities"] == ["payouts.*", "payouts.refund.run"]


async def test_a_family_that_refuses_is_no_autopilot(api: httpx.AsyncClient, up: Upstream) -> None:
    """A configure that is not answered 2xx changes nothing."""
    await register(api, "payer", up.url, {"name": "payouts.batch.run", "configure": True})  # type: ignore[arg-type]
    up.tell = lambda request: Told(404) if request.path == "/configure" else Told()
    assert (await plan(api, {"capability": "payouts.refund.run"})).status_code == 422
    record = (await api.get("/autopilot/registry/payer")).json()["autopilot"]
    assert len(record["capabilities"]) == 1


async def test_a_task_is_not_forwarded_by_more_than_three_routers(
    api: httpx.AsyncClient, up: Upstream
) -> None:
    """Two routers that point at each other stop."""
    await register(api, "pages", up.url, "web.pages.generate")
    answer = await plan(api, {"task": "generate_page"}, **{"x-autopilot-hops": "3"})
    assert (answer.status_code, answer.json()["code"]) == (508, "loop")
    assert up.tasks == []


async def test_tasks_brought_by_a_registration_can_be_planned(api: httpx.AsyncClient, up: Upstream) -> None:
    """A registration's own task names work and are in the catalogue, with who serves them."""
    await register(api, "art", up.url, "web.asset.generate", tasks={"generate_banner": "web.asset.generate"})
    assert (await plan(api, {"task": "generate_banner"})).json()["autopilot"] == "art"
    tasks = (await api.get("/autopilot/catalogue")).json()["tasks"]
    banner = next(one for one in tasks if one["task"] == "generate_banner")
    assert (banner["source"], banner["autopilots"]) == ("art", ["art"])
    assert len([one for one in tasks if one["source"] == "built-in"]) == 11


async def test_each_forwarded_task_leaves_a_log_row(
    api: httpx.AsyncClient, up: Upstream, system: System
) -> None:
    """Success and failure alike are recorded, and hold no meta."""
    await register(api, "pages", up.url, "web.pages.generate")
    await plan(api, {"task": "generate_page", "meta": {"password": "canary"}})
    up.tell = lambda _: Told(500)
    await plan(api, {"task": "generate_page"})
    await system.inside.journal.flush()
    page = await system.outside.table.range("log:" + (await api.get("/health")).json()["timestamp"][:10])
    rows = [row for item in page.items for row in item.document["rows"]]
    assert [(row[1], row[3], row[4]) for row in rows] == [
        ("generate_page", "pages", 200),
        ("generate_page", "pages", 502),
    ]
    assert "canary" not in json.dumps(rows)


async def test_a_hundred_plans_at_once_are_all_answered(api: httpx.AsyncClient, up: Upstream) -> None:
    """Concurrent plans do not mix up their answers."""
    up.tell = lambda request: Told(
        200, json.dumps(request.json().get("meta")).encode() if request.body else b"{}"
    )
    await register(api, "pages", up.url, "web.pages.generate")
    answers = await asyncio.gather(
        *(plan(api, {"task": "generate_page", "meta": {"n": n}}) for n in range(100))
    )
    assert [answer.json()["result"]["n"] for answer in answers] == list(range(100))
