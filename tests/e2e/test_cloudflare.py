"""Cloudflare under a whole server: what registered autopilots need is made there, once, and is shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from router.settings import read
from router.wiring import build
from tests.cloudflare_fake import ACCOUNT, ROOT, USER_TOKEN, CloudflareFake, Fault, on_loopback, refusal
from tests.process import autopilot, environment, serving
from tests.upstream import Told

SOURCE = "export default { fetch() { return new Response('hello') } }"
NEEDS = {
    "kvNamespaces": ["REGISTRY", "SESSIONS"],
    "r2Buckets": ["assets", {"name": "private", "jurisdiction": "eu"}],
    "d1Databases": ["crm"],
    "queues": ["jobs"],
    "workers": [
        {
            "name": "edge",
            "content": SOURCE,
            "bindings": {"KV": {"kv": "SESSIONS"}, "PRIVATE": {"r2": "private"}},
            "crons": ["*/15 * * * *"],
        }
    ],
}
STYLIST = {"name": "edge-stylist", "endpoint": "local:ai-stylist", "capabilities": ["edge.pages.generate"]}


@asynccontextmanager
async def product(data: Path, fake: CloudflareFake, **env: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a server whose Cloudflare is the fake."""
    async with on_loopback(fake) as api:
        told = {"CF_API_TOKEN": USER_TOKEN, "CF_ACCOUNT_ID": ACCOUNT, "CF_API_BASE": api.url + ROOT, **env}
        server = serving(data, env=told)
        one = await asyncio.to_thread(server.__enter__)
        try:
            async with httpx.AsyncClient(base_url=one.url, timeout=30) as client:
                yield client
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)
            assert "Traceback" not in one.log.read_text()
            assert USER_TOKEN not in one.log.read_text()


def there(fake: CloudflareFake) -> dict[str, list[str]]:
    """Return the names of everything in the account."""
    products = fake.products
    return {
        "kv": sorted(one.row["title"] for one in products.kv.values()),
        "r2": sorted(f"{place}/{name}" for place, name in products.r2),
        "workers": sorted(products.scripts),
        "d1": sorted(products.d1),
        "queues": sorted(products.queues),
    }


async def said(response: httpx.Response, status: int = 200) -> Any:
    """Return an answer's body, which must have that status."""
    assert response.status_code == status, response.text
    return response.json()


async def test_what_autopilots_need_is_made_once(tmp_path: Path) -> None:
    """A dry run plans and changes nothing, the run makes all of it, another one nothing; it is shown."""
    fake = CloudflareFake()
    async with product(tmp_path, fake) as client:
        await said(await client.post("/autopilot/registry", json={**STYLIST, "needs": NEEDS}), 201)
        dry = await said(await client.post("/autopilot/ensure-infra", json={"dry_run": True}))
        assert fake.writes == []
        run = await said(await client.post("/autopilot/ensure-infra", json={}))
        assert run["plan"] == dry["plan"]
        assert there(fake) == {
            "kv": ["REGISTRY", "SESSIONS"],
            "r2": ["default/assets", "eu/private"],
            "workers": ["edge"],
            "d1": ["crm"],
            "queues": ["jobs"],
        }
        made = {one["name"]: one["id"] for one in run["created"]["kv"]}
        assert made.keys() == {"REGISTRY", "SESSIONS"}
        edge = fake.products.scripts["edge"]
        assert edge.source.decode() == SOURCE
        assert [one["cron"] for one in edge.crons] == ["*/15 * * * *"]
        assert edge.metadata["bindings"] == [
            {"type": "kv_namespace", "name": "KV", "namespace_id": made["SESSIONS"]},
            {"type": "r2_bucket", "name": "PRIVATE", "bucket_name": "private", "jurisdiction": "eu"},
        ]
        written = len(fake.writes)
        again = await said(await client.post("/autopilot/ensure-infra", json={}))
        assert {one["action"] for one in again["plan"]} == {"keep"}
        await said(await client.post("/__scheduled"))
        assert len(fake.writes) == written
        shown = await said(await client.get("/autopilot/diagnose"))
    assert (shown["provider"], shown["token"]["kind"]) == ("cloudflare", "user")
    assert shown["missing"] == []
    assert shown["resources"]["workers"] == ["edge"]
    assert [one["title"] for one in shown["resources"]["kv"]] == ["REGISTRY", "SESSIONS"]
    assert len(shown["resources"]["r2"]) == 2
    assert shown["drift"]["missing"] == []


async def test_a_task_waits_for_what_its_autopilot_needs(tmp_path: Path) -> None:
    """It is made on the way; where it cannot be, nothing is sent and the answer says what is missing."""
    fake = CloudflareFake()
    fake.tokens[USER_TOKEN].grants["r2"] = "read"
    plan = {"capability": "edge.pages.generate", "meta": {"pageType": "home"}}
    async with product(tmp_path, fake) as client:
        body = {**STYLIST, "needs": {"kvNamespaces": ["SESSIONS"], "r2Buckets": ["assets"]}}
        await said(await client.post("/autopilot/registry", json=body), 201)
        refused = await said(await client.post("/autopilot/plan", json=plan), 503)
        assert refused["code"] == "not_ready"
        [detail] = refused["details"]
        assert (detail["kind"], detail["name"], detail["code"]) == ("r2", "assets", "10000")
        fake.tokens[USER_TOKEN].grants["r2"] = "edit"
        await client.post("/autopilot/plan", json=plan)
    assert there(fake)["kv"] == ["SESSIONS"]
    assert there(fake)["r2"] == ["default/assets"]


async def test_a_creation_whose_answer_was_lost_is_taken_over(tmp_path: Path) -> None:
    """Done, but answered with an error page, and seen late: one request made it, and the run is good."""
    fake = CloudflareFake()
    fake.products.lag = 1
    fake.faults = [
        Fault("POST", "/r2/buckets", Told(520, b"<html>"), done=True),
        Fault("POST", "/queues", Told(200, b"{}", cut=True), done=True),
    ]
    async with product(tmp_path, fake) as client:
        want = {"want": {"r2Buckets": ["assets"], "queues": ["jobs"]}}
        run = await said(await client.post("/autopilot/ensure-infra", json=want))
    assert run["ok"]
    assert fake.calls("POST", "/r2/buckets") == fake.calls("POST", "/queues") == 1


async def test_diagnose_names_what_a_token_lacks(tmp_path: Path) -> None:
    """From a terminal too: the exact groups, where to make another token, and the hint of the guide."""
    fake = CloudflareFake()
    fake.tokens[USER_TOKEN].grants = {"kv": "edit", "workers": "read", "account": "read"}
    async with product(tmp_path, fake) as client:
        shown = await said(await client.get("/autopilot/diagnose?probe_writes=true"), 207)
        env = {"ORCHESTRATOR_URL": str(client.base_url)}
        typed = await asyncio.to_thread(autopilot, "diagnose", env=env)
    assert shown["missing"] == ["Workers R2 Storage Write", "Workers Scripts Write"]
    has = {one["permission"]: one["has"] for one in shown["permissions"]}
    assert (has["Workers KV Storage"], has["Workers R2 Storage"], has["Workers Scripts"]) == (
        "Edit",
        "None",
        "Read",
    )
    error = shown["resources"]["r2"]["error"]
    assert error["code"] == "10000"
    assert "Workers R2 Storage" in error["hint"]
    assert "dash.cloudflare.com" in str(shown)
    assert typed.returncode == 1
    [line] = [line for line in typed.stdout.splitlines() if "Workers R2 Storage" in line and "None" in line]
    assert "Edit" in line


async def test_a_bad_token_changes_nothing(tmp_path: Path) -> None:
    """Everything is unread, so that is a 502; what is wanted is refused, each with what to do."""
    fake = CloudflareFake()
    async with product(tmp_path, fake, CF_API_TOKEN="cfut_" + "x" * 40) as client:
        shown = await said(await client.get("/autopilot/diagnose"), 502)
        assert shown["token"]["error"]["code"] == "1000"
        assert "Copy the token again" in shown["token"]["error"]["hint"]
        run = await said(
            await client.post("/autopilot/ensure-infra", json={"want": {"queues": ["jobs"]}}), 502
        )
        assert not run["ok"]
    assert fake.writes == []


async def test_a_429_stops_everything_until_it_is_over(tmp_path: Path) -> None:
    """The server makes no further call for as long as it was asked to wait."""
    fake = CloudflareFake()
    fake.faults = [Fault(told=refusal(429, 971, "throttling", **{"retry-after": "60"}), times=99)]
    async with product(tmp_path, fake) as client:
        for _ in range(3):
            await said(await client.post("/autopilot/ensure-infra", json={"want": {"queues": ["jobs"]}}), 502)
            made = len(fake.requests)
        assert made == len(fake.requests) <= 10
    assert fake.writes == []


async def test_the_parts_are_those_of_cloudflare(tmp_path: Path) -> None:
    """In this process as well: a token makes the difference."""
    fake = CloudflareFake()
    async with on_loopback(fake) as api:
        told = {"CF_API_TOKEN": USER_TOKEN, "CF_API_BASE": api.url + ROOT, "AUTOPILOT_DATA": str(tmp_path)}
        system = build(read(told), url="http://127.0.0.1:1")
        transport = httpx.ASGITransport(system.app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            shown = await said(await client.get("/autopilot/diagnose"))
        await system.close()
    assert shown["provider"] == "cloudflare"
    assert fake.calls("GET", "/accounts") > 1


def test_without_a_token_cloudflare_is_not_even_loaded() -> None:
    """A process that has nothing to do with it does not pay for it."""
    code = "import sys, router.cli, router.wiring; sys.exit('infra.cloudflare' in str(sorted(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
