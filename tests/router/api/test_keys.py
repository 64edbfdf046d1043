"""Keys over HTTP: who may do what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of, register
from tests.router.api.test_plan import plan
from tests.upstream import Upstream

ADMIN = {"authorization": "Bearer the-admin-key-of-tests"}


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[System]:
    """Give a system that needs keys and may call loopback."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": "the-admin-key-of-tests",
        "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    built = build(read(environment), url="http://router.test")
    yield built
    await built.close()


@pytest.fixture
async def admin(locked: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the admin key, calling from elsewhere."""
    async with client_of(locked, "203.0.113.9") as client:
        client.headers.update(ADMIN)
        yield client


async def key_of(admin: httpx.AsyncClient, name: str, *scopes: str, **more: Any) -> dict[str, str]:
    """Create a key and return the header that carries it."""
    answer = await admin.post("/autopilot/keys", json={"name": name, "scopes": list(scopes), **more})
    assert answer.status_code == 201, answer.text
    return {"authorization": f"Bearer {answer.json()['key']}"}


async def test_a_created_key_is_shown_once_and_works(admin: httpx.AsyncClient) -> None:
    """The list shows name, scopes and times, never the key or its hash."""
    header = await key_of(admin, "reader", "read")
    listed = await admin.get("/autopilot/keys")
    assert header["authorization"].removeprefix("Bearer ") not in listed.text
    assert [one["name"] for one in listed.json()["keys"]] == ["reader"]
    assert set(listed.json()["keys"][0]) == {
        "id", "name", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at",
    }  # fmt: skip
    assert (await admin.get("/autopilot/list", headers=header)).status_code == 200


async def test_a_key_may_send_what_its_pattern_covers_and_nothing_else(
    admin: httpx.AsyncClient, up: Upstream
) -> None:
    """plan:web.* sends and explains web tasks; another capability is a 403 that names the scope."""
    await register(admin, "all", up.url, "web.pages.generate", "crm.lead.create")
    header = await key_of(admin, "web", "plan:web.*")
    assert (await plan(admin, {"task": "generate_page"}, **header)).status_code == 200
    for body in ({"task": "create_lead"}, {"task": "create_lead", "mode": "explain"}):
        refused = await plan(admin, body, **header)
        assert (refused.status_code, refused.json()["scope"]) == (403, "plan:crm.lead.create")
    assert len(up.tasks) == 1
    assert (await admin.get("/autopilot/list", headers=header)).status_code == 403


async def test_scheduling_takes_the_right_to_send_anything(admin: httpx.AsyncClient, up: Upstream) -> None:
    """What is scheduled runs later in the router's own name, so a narrow key may not schedule."""
    await register(admin, "clock", up.url, "task.schedule")
    narrow = await key_of(admin, "narrow", "plan:task.*")
    wide = await key_of(admin, "wide", "plan:*")
    assert (await plan(admin, {"capability": "task.schedule"}, **narrow)).status_code == 403
    assert (await plan(admin, {"capability": "task.schedule"}, **wide)).status_code == 200


async def test_a_key_for_one_name_registers_that_name_only(admin: httpx.AsyncClient, up: Upstream) -> None:
    """register:mine may create, renew and remove `mine`, and touches nobody else's."""
    await register(admin, "other", up.url, "web.pages.generate")
    header = await key_of(admin, "owner", "register:mine")
    body = {"name": "mine", "endpoint": up.url, "capabilities": ["web.pages.generate"], "lease_seconds": 60}
    assert (await admin.post("/autopilot/registry", json=body, headers=header)).status_code == 201
    assert (await admin.post("/autopilot/registry/mine/heartbeat", headers=header)).status_code == 200
    for answer in (
        await admin.post("/autopilot/registry", json={**body, "name": "other"}, headers=header),
        await admin.post("/autopilot/registry/other/heartbeat", headers=header),
        await admin.delete("/autopilot/registry/other", headers=header),
    ):
        assert (answer.status_code, answer.json()["scope"]) == (403, "register:other")
    assert (await admin.delete("/autopilot/registry/mine", headers=header)).status_code == 204
    assert (await admin.get("/autopilot/registry/other")).json()["autopilot"]["revision"] == 1


async def test_a_revoked_key_is_refused_at_once(admin: httpx.AsyncClient) -> None:
    """No memory of this process lets it in again."""
    header = await key_of(admin, "reader", "read")
    assert (await admin.get("/autopilot/list", headers=header)).status_code == 200
    key_id = (await admin.get("/autopilot/keys")).json()["keys"][0]["id"]
    assert (await admin.delete(f"/autopilot/keys/{key_id}")).status_code == 204
    assert (await admin.get("/autopilot/list", headers=header)).status_code == 401
    assert (await admin.delete("/autopilot/keys/00000000")).status_code == 404


async def test_a_rotated_key_goes_on_for_its_overlap(admin: httpx.AsyncClient) -> None:
    """Both work until the old one ends; with no overlap it ends at once."""
    old = await key_of(admin, "reader", "read")
    key_id = (await admin.get("/autopilot/keys")).json()["keys"][0]["id"]
    answer = await admin.post(f"/autopilot/keys/{key_id}/rotate", json={"overlap_seconds": 600})
    new = {"authorization": f"Bearer {answer.json()['key']}"}
    assert answer.json()["record"]["scopes"] == ["read"]
    for header in (old, new):
        assert (await admin.get("/autopilot/list", headers=header)).status_code == 200
    await admin.post(f"/autopilot/keys/{key_id}/rotate", json={"overlap_seconds": 0})
    assert (await admin.get("/autopilot/list", headers=old)).status_code == 401
    assert (await admin.get("/autopilot/list", headers=new)).status_code == 200


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name", "scopes"}),
        ({"name": 7, "scopes": ["all"], "more": 1}, {"name", "scopes[0]", "more"}),
        ({"name": "x", "scopes": ["read"], "expires_at": "soon"}, {"expires_at"}),
        ({"name": "x", "scopes": ["read"], "expires_at": "2026-01-01T00:00:00"}, {"expires_at"}),
        ([], {"body"}),
    ],
)
async def test_what_is_wrong_with_a_new_key_is_named(
    admin: httpx.AsyncClient, body: Any, fields: set[str]
) -> None:
    """Every wrong field at once."""
    answer = await admin.post("/autopilot/keys", json=body)
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["errors"]} == fields


async def test_only_an_admin_sees_keys(admin: httpx.AsyncClient) -> None:
    """A key that may do everything else may not make itself another."""
    header = await key_of(admin, "nearly", "read", "plan:*", "register", "operate")
    assert (await admin.get("/autopilot/keys", headers=header)).status_code == 403
    refused = await admin.post("/autopilot/keys", json={"name": "x", "scopes": ["admin"]}, headers=header)
    assert (refused.status_code, refused.json()["scope"]) == (403, "admin")
