"""Other people's things: a key does nothing to them on any route, and no body is more than it may be."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.table import Document, Key
from router.settings import read
from router.wiring import System, build
from tests.router.api.canaries import GOOD, PAGES, routes_of
from tests.router.api.conftest import client_of
from tests.router.parts import dump
from tests.upstream import Upstream

ADMIN = {"authorization": "Bearer the-admin-key-of-tests"}
PUBLIC = {"/health", "/ready", "/openapi.json", "/webhooks/mail", "/webhooks/form"}
"""Paths for which no key is asked: the last two want a signature."""
OTHERS = {
    "register": ["register:other"],
    "plan": ["plan:other.*", "plan:text.echo.more", "plan:text.echoes"],
    "both": ["register:other", "register:echo-2", "plan:other.*"],
}
"""What keys of other tenants are for."""
_FIELDS = """
    revision secret signing_secret previous_secret health registered_at updated_at created_at revoked_at
    last_used_at lease_until id key digest approved approved_by requires_approval requested_by state status
    outcome admin role owner tenant caller identity hops trace_id idempotency_key idempotent_replay attempts
"""
VALUES: list[Any] = [True, 7, "x", "2030-01-01T00:00:00Z", ["admin"], {}]
PRIVILEGED = _FIELDS.split()
"""Fields that the product sets itself, or would be asked for by somebody who hopes that it looks at them."""


@pytest.fixture
async def system(tmp_path: Path, up: Upstream) -> AsyncIterator[System]:
    """Give a system with the autopilot `echo`, a task of it that waits, and keys for others."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": "the-admin-key-of-tests",
        "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1",
        "AUTOPILOT_REQUIRE_APPROVAL": "text.guarded",
    }
    built = build(read(environment), url="http://router.test")
    async with client_of(built) as client:
        body = body_of(("POST", "/autopilot/registry"), up)
        made = await client.post("/autopilot/registry", json=body, headers=ADMIN)
        assert made.status_code == 201, made.text
    yield built
    await built.close()


@pytest.fixture
async def client(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client without a key."""
    async with client_of(system) as one:
        yield one


def body_of(endpoint: tuple[str, str], up: Upstream) -> Any:
    """Return a body that an endpoint takes."""
    return json.loads(json.dumps(GOOD[endpoint]).replace("UPSTREAM", up.url))


def api_of(system: System) -> list[tuple[str, str]]:
    """Return method and path of every endpoint that wants a key."""
    found = sorted({*routes_of(system)})
    return [one for one in found if one[1] not in PUBLIC and not one[1].startswith(PAGES)]


async def key_for(client: httpx.AsyncClient, name: str, *scopes: str) -> dict[str, str]:
    """Return the header of a new key."""
    body = {"name": name, "scopes": list(scopes)}
    made = await client.post("/autopilot/keys", json=body, headers=ADMIN)
    return {"authorization": f"Bearer {made.json()['key']}"}


async def ids(client: httpx.AsyncClient) -> dict[str, str]:
    """Return the ids of tasks that wait, for approval and for their turn, and of a key."""
    task = {"capability": "text.guarded", "meta": {}}
    asked = await client.post("/autopilot/plan", json=task, headers=ADMIN)
    later = await client.post("/autopilot/plan", json={**task, "mode": "async"}, headers=ADMIN)
    made = await client.post("/autopilot/keys", json={"name": "theirs", "scopes": ["read"]}, headers=ADMIN)
    found = {"approvals": asked.json(), "tasks": later.json(), "keys": made.json()["record"]}
    return {kind: one["id"] for kind, one in found.items()}


def path_of(template: str, things: dict[str, str]) -> str:
    """Return the path of a thing that is there."""
    thing = things.get(template.split("/")[2] if template.startswith("/autopilot/") else "", "")
    return re.sub(r"\{(\w+)\}", lambda place: "echo" if place[1] == "name" else thing, template)


def things_in(folder: Path) -> dict[Key, Document]:
    """Return what is stored, but for what tells of calls: the audit, events, and when keys were used."""
    rows = {key: document for key, (document, _) in dump(folder / "router.db").items()}
    return {
        key: {**document, "last_used_at": None} if key[0] == "key" else document
        for key, document in rows.items()
        if not key[0].startswith(("audit", "event"))
    }


@pytest.mark.parametrize("tenant", OTHERS)
async def test_another_tenants_key_does_nothing_on_any_route(
    tenant: str, system: System, client: httpx.AsyncClient, up: Upstream, tmp_path: Path
) -> None:
    """Every route that is about a thing, in its path or its body, is 403 or 404, and nothing has changed."""
    theirs = await key_for(client, tenant, *OTHERS[tenant])
    things = await ids(client)
    before, received = things_in(tmp_path), len(up.tasks)
    tried = 0
    for method, template in api_of(system):
        body = body_of((method, template), up) if (method, template) in GOOD else None
        answer = await client.request(method, path_of(template, things), json=body, headers=theirs)
        if template == "/autopilot/tasks":  # the list of one's own
            assert answer.content in {b"", b'{"tasks":[],"count":0,"next":null}'}
            continue
        assert answer.status_code in {403, 404}, (method, template, answer.text)
        tried += 1
    assert tried > 25
    assert things_in(tmp_path) == before
    assert len(up.tasks) == received


@pytest.mark.parametrize(
    "body",
    [
        {"task": "echo", "meta": {}},
        {"capability": "text.echo", "meta": {}},
        {"capability": "text.echo", "meta": {}, "mode": "explain"},
        {"capability": "text.echo", "meta": {}, "autopilot": "echo"},
        {"capability": "text.guarded", "meta": {}},
        {"capability": "text.new", "meta": {}},
    ],
)
async def test_no_way_to_ask_widens_a_pattern(
    body: dict[str, Any], client: httpx.AsyncClient, up: Upstream
) -> None:
    """By task or capability, explained or sent, pinned or waiting: what the key is not for is 403."""
    theirs = await key_for(client, "theirs", "plan:text.echoes", "plan:other.*", "read")
    answer = await client.post("/autopilot/plan", json=body, headers=theirs)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert up.tasks == []


async def test_an_idempotency_key_opens_nobody_elses_answer(client: httpx.AsyncClient, up: Upstream) -> None:
    """The same key and body from another caller is another call."""
    ann = await key_for(client, "ann", "plan:text.echo")
    bob = await key_for(client, "bob", "plan:text.echo")
    answers = []
    for who in (ann, bob, ann):
        headers = {**who, "idempotency-key": "order-7"}
        answers.append(
            await client.post("/autopilot/plan", json={"task": "echo", "meta": {}}, headers=headers)
        )
    assert [one.json()["idempotent_replay"] for one in answers] == [False, False, True]
    assert len(up.tasks) == 2


async def test_who_asked_may_see_a_task_that_waits_and_nobody_else(client: httpx.AsyncClient) -> None:
    """To others without the right to decide it is not there; to decide takes that right, and another name."""
    ann = await key_for(client, "ann", "plan:text.guarded")
    bob = await key_for(client, "bob", "plan:*", "register", "read")
    asked = await client.post("/autopilot/plan", json={"capability": "text.guarded", "meta": {}}, headers=ann)
    path = f"/autopilot/approvals/{asked.json()['id']}"
    assert (await client.get(path, headers=ann)).status_code == 200
    assert (await client.get(path, headers=bob)).status_code == 404
    for who in (ann, bob):
        for decision in ("approve", "refuse"):
            assert (await client.post(f"{path}/{decision}", json={}, headers=who)).status_code == 403
    assert (await client.get(path, headers=ADMIN)).json()["approval"]["status"] == "awaiting_approval"


async def test_no_privileged_field_is_honoured(
    system: System, client: httpx.AsyncClient, up: Upstream, tmp_path: Path
) -> None:
    """In the body of any route: a field that the product sets itself is refused by name, to no effect."""
    things = await ids(client)
    before = things_in(tmp_path)
    tried = 0
    for method, template in api_of(system):
        good = body_of((method, template), up) if (method, template) in GOOD else None
        if not isinstance(good, dict):
            continue
        for field in (*PRIVILEGED, "scopes", "expires_at"):
            if (template, field) in {("/autopilot/keys", "scopes"), ("/autopilot/keys", "expires_at")}:
                continue
            if template.startswith("/autopilot/approvals/") and field == "digest":
                continue  # with which who decides says what has been read
            for value in VALUES:
                body = {**good, field: value}
                answer = await client.request(method, path_of(template, things), json=body, headers=ADMIN)
                assert answer.status_code == 422, (template, body, answer.text)
                assert field in {one["field"] for one in answer.json()["errors"]}, (template, field)
                tried += 1
    assert tried > 1_000
    assert things_in(tmp_path) == before


@pytest.mark.parametrize("field", ["approved", "secret", "revision", "waits", "admin"])
async def test_no_privileged_field_within_a_registration_is_honoured(
    field: str, client: httpx.AsyncClient, up: Upstream
) -> None:
    """In a capability, a need, or a Worker: it is no known field there."""
    good = body_of(("POST", "/autopilot/registry"), up)
    worker = {"name": "edge", "content": "export default {}", field: True}
    for part in (
        {"capabilities": [{"name": "text.echo", field: True}]},
        {"needs": {field: ["x"]}},
        {"needs": {"workers": [worker]}},
    ):
        answer = await client.post("/autopilot/registry", json={**good, **part}, headers=ADMIN)
        assert answer.status_code == 422, part
        assert any(field in one["field"] for one in answer.json()["errors"]), answer.text


async def test_where_no_body_is_asked_for_none_is_read(
    system: System, client: httpx.AsyncClient, up: Upstream
) -> None:
    """A heartbeat and the like do the same whatever comes with them."""
    body = dict.fromkeys(PRIVILEGED, 7) | {"name": "other", "scopes": ["admin"]}
    shown = (await client.get("/autopilot/registry/echo", headers=ADMIN)).json()
    beat = await client.post("/autopilot/registry/echo/heartbeat", json=body, headers=ADMIN)
    assert beat.status_code == 200
    assert (await client.post("/__scheduled", json=body, headers=ADMIN)).status_code == 200
    again = (await client.get("/autopilot/registry/echo", headers=ADMIN)).json()
    assert {**again["autopilot"], "health": ""} == {**shown["autopilot"], "health": ""}
    bodyless = {one for one in api_of(system) if one[0] == "POST" and not isinstance(GOOD.get(one, {}), dict)}
    assert bodyless == {
        ("POST", "/autopilot/registry/{name}/heartbeat"),
        ("POST", "/__scheduled"),
        ("POST", "/autopilot/tasks/{id}/cancel"),
        ("POST", "/autopilot/tasks/{id}/retry"),
    }
