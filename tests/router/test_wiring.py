"""The wiring: what the settings say is what a process is made of, and all of it is reachable."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autopilots.ai_employee.checkouts import LocalCheckouts, StripeCheckouts
from autopilots.ai_employee.mail import OutboxMail, SmtpMail
from infra.model import Offline
from infra.openai_model import OpenAiModel
from infra.table.sqlite import SqliteTable
from router.errors import Invalid, StoreUnavailable
from router.outside import open_table
from router.settings import read
from router.wiring import BUILT_IN, ON_REQUEST, System, build, manifests
from tests.router.api.conftest import client_of
from tests.upstream import upstream

URL = "http://127.0.0.1:8080"
EMAIL = "From: Ada <ada@example.com>\nTo: school@example.com\nSubject: Course\n\nHow do I enroll?\n"


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Give everything wired together, in local mode, on an SQLite file."""
    built = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url=URL)
    yield built
    await built.close()


@pytest.fixture
async def api(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a router with the built-in autopilots registered."""
    async with client_of(system) as client:
        for manifest in manifests():
            assert (await client.post("/autopilot/registry", json=manifest)).status_code == 201
        yield client


async def ok(api: httpx.AsyncClient, offered: str, /, **meta: Any) -> Any:
    """Plan a capability that has to be answered ok, and return its result."""
    answer = await api.post("/autopilot/plan", json={"capability": offered, "meta": meta})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["ok"], answer.json()["status"]) == (True, 200), answer.text
    assert answer.json()["capability"] == offered
    return answer.json()["result"]


async def _stylist(api: httpx.AsyncClient) -> set[str]:
    page = await ok(api, "web.pages.generate", pageType="home", description="Welcome")
    assert page["page"]["html"].startswith("<!doctype html>")
    assert await ok(api, "web.section.generate", sectionType="hero")
    assert await ok(api, "web.asset.generate", assetType="banner")
    return {"web.pages.generate", "web.section.generate", "web.asset.generate"}


async def _deployer(api: httpx.AsyncClient) -> set[str]:
    page = await ok(api, "web.pages.deploy", slug="welcome", html="<h1>Welcome</h1>")
    assert "Welcome" in (await api.get(page["url"])).text
    await ok(api, "web.pages.publish", slug="welcome", version=page["version"])
    return {"web.pages.deploy", "web.pages.publish"}


async def _employee(api: httpx.AsyncClient) -> set[str]:
    await ok(api, "email.process", raw=EMAIL)
    await ok(api, "crm.lead.create", email="ada@example.com")
    await ok(api, "crm.lead.update", email="ada@example.com", note="Called back")
    variables = {"name": "Ada", "course": "Data"}
    await ok(api, "email.send", to="ada@example.com", template="enrollment_inquiry", variables=variables)
    await ok(api, "payment.checkout.create", amount=4900, currency="usd", description="Course")
    await ok(api, "lms.enrollment.create", student_email="ada@example.com", course="Data")
    content = base64.b64encode(b"I apply.").decode()
    await ok(api, "files.intake.upload", filename="a.txt", content_type="text/plain", content_base64=content)
    await ok(api, "task.schedule", task="create_lead", meta={"email": "bob@example.com"}, cron="0 9 * * *")
    return {
        "email.process", "crm.lead.create", "crm.lead.update", "email.send", "payment.checkout.create",
        "lms.enrollment.create", "files.intake.upload", "task.schedule",
    }  # fmt: skip


async def _payouts(api: httpx.AsyncClient) -> set[str]:
    method = {"type": "bank_account", "last4": "6789"}
    await ok(
        api,
        "payouts.affiliate.onboard",
        affiliate_id="aff_1",
        email="aff@example.com",
        name="Aff",
        payout_method=method,
    )
    await ok(
        api,
        "commissions.calculate",
        affiliate_id="aff_1",
        sale_id="sale_1",
        amount=19900,
        currency="usd",
        rate_bps=1000,
    )
    await ok(api, "payouts.batch.run")
    await ok(api, "payouts.transfer.single", affiliate_id="aff_1", amount=2500, currency="usd")
    return {"commissions.calculate", "payouts.batch.run", "payouts.transfer.single"}


async def test_each_of_the_16_capabilities_does_its_work(api: httpx.AsyncClient) -> None:
    """Every capability of the seed's registration table is reached through the router and answers ok."""
    reached = await _stylist(api) | await _deployer(api) | await _employee(api) | await _payouts(api)
    assert len(reached) == 16
    offered = {
        (one if isinstance(one, str) else one["name"])
        for row in (await api.get("/autopilot/list")).json()["autopilots"]
        for one in row["capabilities"]
    }
    assert reached <= offered


async def test_every_capability_of_a_manifest_has_a_schema_that_travels(api: httpx.AsyncClient) -> None:
    """Each brings a description and a schema by which the router refuses a meta before it is sent."""
    for row in (await api.get("/autopilot/list")).json()["autopilots"]:
        for one in row["capabilities"]:
            assert one["description"], one["name"]
            refused = await api.post(
                "/autopilot/plan", json={"capability": one["name"], "meta": {"no_such_field": 1}}
            )
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_body"), one["name"]
            assert "meta.no_such_field" in {error["field"] for error in refused.json()["errors"]}


async def test_registering_those_that_ship_again_changes_nothing_they_do(api: httpx.AsyncClient) -> None:
    """The second time every answer is 200, and tasks go on working."""
    for manifest in manifests():
        again = await api.post("/autopilot/registry", json=manifest)
        assert (again.status_code, again.json().get("warnings")) == (200, None)
    assert (await api.get("/autopilot/list")).json()["count"] == len(BUILT_IN)
    await ok(api, "web.section.generate", sectionType="faq")


async def test_a_schedule_fires_as_a_task(api: httpx.AsyncClient, system: System) -> None:
    """What is due is planned like any task, once: the lead it makes is there and the log has its row."""
    made = await ok(
        api,
        "task.schedule",
        task="create_lead",
        meta={"email": "bob@example.com"},
        at="2020-01-01T00:00:00Z",
    )
    await system.fire_schedules()
    await system.fire_schedules()
    updated = await ok(api, "crm.lead.update", email="bob@example.com", note="Seen")
    assert updated["lead"]["email"] == "bob@example.com"
    await system.inside.journal.flush()
    day = (await api.get("/health")).json()["timestamp"][:10]
    tasks = [row["task"] for row in await system.inside.journal.rows(day)]
    assert tasks.count("create_lead") == 1
    schedule = made["schedule"]["id"]
    kept = await system.outside.table.get(("employee:schedule", schedule))
    assert kept is not None
    assert (kept.document["state"], kept.document["fired"], kept.document["failed"]) == ("done", 1, 0)


async def test_a_schedule_may_name_a_capability(api: httpx.AsyncClient, system: System) -> None:
    """One that no task stands for fires as well."""
    await ok(api, "crm.lead.create", email="bob@example.com")
    await ok(
        api,
        "task.schedule",
        capability="crm.lead.update",
        meta={"email": "bob@example.com", "note": "Called"},
        at="2020-01-01T00:00:00Z",
    )
    await system.fire_schedules()
    await system.inside.journal.flush()
    day = (await api.get("/health")).json()["timestamp"][:10]
    last = (await system.inside.journal.rows(day))[0]
    assert (last["task"], last["capability"], last["ok"]) == (None, "crm.lead.update", True)


async def test_without_settings_everything_is_embedded(system: System, tmp_path: Path) -> None:
    """Store, mail and checkouts are files here, words are made by rules, and all of it lies in one folder."""
    assert isinstance(system.outside.table, SqliteTable)
    assert isinstance(system.employee.model, Offline)
    assert isinstance(system.employee.mail, OutboxMail)
    assert isinstance(system.employee.checkouts, LocalCheckouts)
    assert system.employee.public_url == URL
    assert (tmp_path / "router.db").is_file()


async def test_each_setting_puts_in_its_part(tmp_path: Path) -> None:
    """A model, a mail server, Stripe and a public address take the place of what is embedded."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_PUBLIC_URL": "https://router.example/",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "AUTOPILOT_SMTP_URL": "smtps://user%40x:p%2Fw@127.0.0.1",
        "AUTOPILOT_MAIL_FROM": "school@example.com",
        "STRIPE_API_KEY": "sk_test_1",
        "STRIPE_API_BASE": "http://127.0.0.1:9",
    }
    system = build(read(environment), url=URL)
    try:
        assert isinstance(system.employee.model, OpenAiModel)
        assert isinstance(system.employee.mail, SmtpMail)
        assert system.employee.mail.sender == "school@example.com"
        assert (
            vars(system.employee.mail).items()
            >= {"_port": 465, "_user": "user@x", "_password": "p/w"}.items()
        )
        assert isinstance(system.employee.checkouts, StripeCheckouts)
        assert system.employee.public_url == "https://router.example"
    finally:
        await system.close()


@pytest.mark.parametrize(
    ("url", "sender", "field"),
    [
        ("smtp://127.0.0.1", "", "AUTOPILOT_MAIL_FROM"),
        ("smtp://127.0.0.1", "nobody", "AUTOPILOT_MAIL_FROM"),
        ("smtp://127.0.0.1:port", "a@example.com", "AUTOPILOT_SMTP_URL"),
        ("127.0.0.1:587", "a@example.com", "AUTOPILOT_SMTP_URL"),
        ("http://127.0.0.1:587", "a@example.com", "AUTOPILOT_SMTP_URL"),
        ("smtp://:587", "a@example.com", "AUTOPILOT_SMTP_URL"),
    ],
)
async def test_mail_settings_nothing_can_be_made_of_are_named(
    tmp_path: Path, url: str, sender: str, field: str
) -> None:
    """A wrong server or sender stops the start with the variable's name, and shows no password."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_SMTP_URL": url.replace("://", "://user:canary@"),
        "AUTOPILOT_MAIL_FROM": sender,
    }
    with pytest.raises(Invalid) as raised:
        build(read(environment), url=URL)
    assert [problem.field for problem in raised.value.problems] == [field]
    assert "canary" not in str(raised.value)


async def test_a_data_folder_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """A file where the folder should be is a clear failure of the store."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="cannot open"):
        open_table(read({"AUTOPILOT_DATA": str(tmp_path / "file")}))


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """The log row of a task planned just before the end is in the store afterwards."""
    system = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url=URL)
    async with client_of(system) as client:
        await client.post("/autopilot/registry", json=manifests()[1])
        await client.post("/autopilot/plan", json={"task": "generate_page", "meta": {"pageType": "home"}})
        day = (await client.get("/health")).json()["timestamp"][:10]
    await system.close()
    again = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url=URL)
    try:
        assert [row["task"] for row in await again.inside.journal.rows(day)] == ["generate_page"]
    finally:
        await again.close()


def test_manifests_are_json_and_stand_in_one_process() -> None:
    """Each is what `register` takes: plain JSON, at `local:` and its own name."""
    for manifest in manifests([*BUILT_IN, *ON_REQUEST]):
        json.dump(manifest, io.StringIO())
        assert manifest["endpoint"] == f"local:{manifest['name']}"


async def test_without_a_folder_for_it_there_is_no_runner(api: httpx.AsyncClient) -> None:
    """A router runs no command unless its operator says so: its endpoint is none, and nobody offers it."""
    (manifest,) = manifests(ON_REQUEST)
    refused = await api.post("/autopilot/registry", json=manifest)
    assert (refused.status_code, refused.json()["code"]) == (422, "endpoint_refused")
    planned = await api.post("/autopilot/plan", json={"capability": "command.run", "meta": {"run": ["id"]}})
    assert (planned.status_code, planned.json()["code"]) == (422, "no_autopilot")


async def test_the_runner_works_where_it_was_told_to(tmp_path: Path) -> None:
    """Commands, files and calls go through the router: schemas hold, secrets do not show, all is audited."""
    (tmp_path / "work").mkdir()
    canary = "canary-of-the-runner-1"
    environment = {
        "AUTOPILOT_DATA": str(tmp_path / "data"),
        "AUTOPILOT_RUNNER_ROOT": str(tmp_path / "work"),
        "AUTOPILOT_RUNNER_ENV": "TOKEN",
        "TOKEN": canary,
        "AUTOPILOT_AUDIT_KEY": "a" * 32,
        "PATH": os.environ["PATH"],
    }
    system = build(read(environment), url=URL)
    try:
        async with client_of(system) as client, upstream() as up:
            (manifest,) = manifests(ON_REQUEST)
            assert (await client.post("/autopilot/registry", json=manifest)).status_code == 201
            written = await ok(client, "file.change", path="x", action="write", text="hello")
            assert (tmp_path / "work/x").read_text() == "hello"
            run = await ok(client, "command.run", run=["sh", "-c", "cat x; echo $TOKEN"], env=["TOKEN"])
            assert run["stdout"] == "hello****"
            called = await ok(
                client,
                "http.call",
                url=f"{up.url}/tasks",
                method="POST",
                headers={"authorization": "Bearer ${env.TOKEN}"},
                body={"meta": {}},
                secrets=["TOKEN"],
            )
            assert called["status"] == 200
            assert up.tasks[0].headers["authorization"] == f"Bearer {canary}"
            await ok(client, "file.change", path="x", action="restore", backup=written["backup"])
            assert not (tmp_path / "work/x").exists()
            await ok(client, "file.check", path="x", exists=False)
            body = {"capability": "command.run", "meta": {"run": "id"}}
            assert (await client.post("/autopilot/plan", json=body)).status_code == 422
            body = {"capability": "command.run", "meta": {"run": ["false"]}}
            failed = (await client.post("/autopilot/plan", json=body)).json()
            assert (failed["ok"], failed["status"]) == (False, 424)
            assert failed["result"]["result"]["exit_code"] == 1
            events = (await client.get("/autopilot/audit")).text
            assert events.count('"command.run"') >= 2
            assert events.count('"file.change"') >= 2
            assert canary not in events
    finally:
        await system.close()
