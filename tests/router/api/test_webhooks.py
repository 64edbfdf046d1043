"""Webhooks on the whole product: a signed one becomes tasks of the registered autopilots."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autopilots.ai_employee.leads import LEADS
from infra.signing import CHALLENGE, new_secret, sign
from router.settings import read
from router.wiring import System, build, manifests
from tests.router.api.conftest import client_of

EARLIER, SECRET = new_secret(), new_secret()
WISH = {"email": "ada@example.com", "name": "Ada", "message": "I want to enroll in the course."}


@pytest.fixture
async def hooked(tmp_path: Path) -> AsyncIterator[System]:
    """Give a router with two secrets for webhooks, as while one is replaced."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": "a-key-of-32-characters-for-tests",
        "AUTOPILOT_WEBHOOK_SECRET": f" {SECRET}  {EARLIER} ",
    }
    system = build(read(environment), url="http://127.0.0.1:8080")
    async with client_of(system) as admin:
        admin.headers["authorization"] = "Bearer a-key-of-32-characters-for-tests"
        for manifest in manifests():
            assert (await admin.post("/autopilot/registry", json=manifest)).status_code == 201
    yield system
    await system.close()


async def post(
    client: httpx.AsyncClient, path: str, body: Any, message_id: str = "msg_1", secret: str = SECRET
) -> httpx.Response:
    """Send a signed webhook."""
    content, now = json.dumps(body).encode(), int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, message_id, now, content),
    }
    return await client.post(path, content=content, headers=headers)


async def test_a_form_goes_through_the_planner(hooked: System) -> None:
    """From anywhere and without a key: the lead is there, and both tasks are in the log of forwards."""
    async with client_of(hooked, "203.0.113.9") as client:
        answer = await post(client, "/webhooks/form", WISH)
        again = await post(client, "/webhooks/form", WISH)
        mail = await post(client, "/webhooks/mail", {"raw": "From: a@example.com\n\nHi"}, "msg_2", EARLIER)
    assert (answer.status_code, again.status_code, mail.status_code) == (200, 401, 200)
    [lead] = (await hooked.outside.table.range(LEADS)).items
    assert lead.document["email"] == "ada@example.com"
    await hooked.inside.journal.flush()
    rows = await hooked.inside.journal.rows(time.strftime("%Y-%m-%d", time.gmtime()), limit=10)
    assert sorted(row["task"] for row in rows) == ["create_lead", "process_email", "process_email"]
    assert {row["autopilot"] for row in rows} == {"ai-employee"}


async def test_what_is_not_signed_is_a_problem_like_any_other(hooked: System) -> None:
    """401 with the trace's id and how to sign in, whoever asks; nothing is made, and no secret is shown."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for address in ("127.0.0.1", "203.0.113.9"):
        async with client_of(hooked, address) as client:
            client.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
            client.headers["authorization"] = "Bearer a-key-of-32-characters-for-tests"
            for path in ("/webhooks/mail", "/webhooks/form"):
                unsigned = await client.post(path, json=WISH)
                forged = await post(client, path, WISH, secret=new_secret())
                for answer in (unsigned, forged):
                    assert answer.status_code == 401
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert answer.headers["www-authenticate"] == CHALLENGE
                    problem = answer.json()
                    assert (problem["code"], problem["trace_id"]) == ("unauthenticated", trace)
                    assert problem["title"] == "A valid signature is needed"
                    assert "whsec_" not in answer.text
    assert (await hooked.outside.table.range(LEADS)).items == []


async def test_a_bad_mail_is_told_by_its_fields(hooked: System) -> None:
    """What the capability's schema refuses comes back as 422, and the corrected mail is taken at once."""
    async with client_of(hooked) as client:
        bad = await post(client, "/webhooks/mail", {"raw": "x", "colour": "red"})
        good = await post(client, "/webhooks/mail", {"raw": "x"})
    assert bad.status_code == 422
    assert [one["field"] for one in bad.json()["errors"]] == ["meta.colour"]
    assert good.status_code == 200


async def test_without_a_setting_there_are_none(api: httpx.AsyncClient) -> None:
    """404 names the variable, for callers of this machine as well."""
    answer = await post(api, "/webhooks/form", WISH)
    assert answer.status_code == 404
    assert "AUTOPILOT_WEBHOOK_SECRET" in answer.json()["detail"]
