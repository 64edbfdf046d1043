"""What every call passes: limits, and the audit of what it did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.audit import verify
from router.errors import StoreUnavailable
from router.outside import audit_key
from router.settings import read
from router.wiring import System, build, manifests
from tests.router.api.conftest import client_of, register
from tests.upstream import Told, Upstream

ADMIN = {"authorization": "Bearer a-key-for-the-tests"}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., System]]:
    """Give what builds a router that asks for keys, with further variables."""
    built = []

    def start(**variables: str) -> System:
        environment = {
            "AUTOPILOT_DATA": str(tmp_path),
            "AUTOPILOT_API_KEY": "a-key-for-the-tests",
            **variables,
        }
        environment["AUTOPILOT_ALLOW_ENDPOINTS"] = "127.0.0.1"
        system = build(read(environment), url="http://127.0.0.1:8080")
        built.append(system)
        return system

    yield start
    for system in built:
        await system.close()


@asynccontextmanager
async def calling(system: System, key: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with a key, that of the admin unless told otherwise."""
    async with client_of(system) as client:
        client.headers.update({"authorization": f"Bearer {key}"} if key else ADMIN)
        yield client


async def key_for(system: System, name: str, *scopes: str) -> str:
    """Return a new key."""
    async with calling(system) as admin:
        answer = await admin.post("/autopilot/keys", json={"name": name, "scopes": list(scopes)})
        return str(answer.json()["key"])


async def audited(system: System) -> list[dict[str, Any]]:
    """Return the records of the audit, without those of making keys."""
    async with calling(system) as admin:
        events: list[dict[str, Any]] = (await admin.get("/autopilot/audit?limit=200")).json()["events"]
    return [event for event in events if event["type"] != "key.create"]


class TestLimits:
    """How much a caller may ask for."""

    async def test_quota(self, start: Callable[..., System]) -> None:
        """At ten times the limit exactly the quota is answered, each told what is left, the rest how long."""
        async with calling(start(AUTOPILOT_RATE_LIMIT="20/60")) as client:
            answers = [await client.get("/autopilot/list") for _ in range(200)]
        assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 180
        assert answers[0].headers["ratelimit-policy"] == '"default";q=20;w=60'
        assert answers[0].headers["ratelimit"] == '"default";r=19;t=60'
        refused = answers[20]
        assert refused.json()["code"] == "rate_limited"
        assert refused.headers["retry-after"] == str(refused.json()["retry_after"]) == "60"
        assert refused.headers["ratelimit"] == '"default";r=0;t=60'

    async def test_each_its_own(self, start: Callable[..., System]) -> None:
        """What one caller used up does not touch another, nor what is open to everyone."""
        system = start(AUTOPILOT_RATE_LIMIT="2/60")
        key = await key_for(system, "ann", "read")
        async with calling(system, key) as ann, calling(system) as admin:
            assert [(await ann.get("/autopilot/list")).status_code for _ in range(3)] == [200, 200, 429]
            assert (await admin.get("/autopilot/list")).status_code == 200
            assert (await ann.get("/health")).status_code == 200
            assert "ratelimit" not in (await ann.get("/health")).headers

    async def test_told_with_an_error(self, start: Callable[..., System]) -> None:
        """An answer that is a problem tells what is left as well."""
        async with calling(start(AUTOPILOT_RATE_LIMIT="5/60")) as client:
            answer = await client.post("/autopilot/plan", json={"task": "no_such_task"})
        assert answer.status_code == 400
        assert answer.headers["ratelimit"] == '"default";r=4;t=60'

    async def test_no_limit(self, start: Callable[..., System]) -> None:
        """Without a limit nothing is said of one."""
        async with calling(start()) as client:
            assert "ratelimit" not in (await client.get("/autopilot/list")).headers

    async def test_full_house(self, start: Callable[..., System], up: Upstream) -> None:
        """When as much is running as may, the next call is refused at once, and health still answers."""
        system = start(AUTOPILOT_MAX_CONCURRENCY="2")
        up.tell = lambda _: Told(hang=True)
        async with calling(system) as client:
            await register(client, "slow", up.url, "web.slow")
            body = {"capability": "web.slow", "meta": {}}
            running = [asyncio.ensure_future(client.post("/autopilot/plan", json=body)) for _ in range(2)]
            while len(up.tasks) < 2:  # noqa: ASYNC110  the event is on the other side of a socket
                await asyncio.sleep(0)
            refused = await client.get("/autopilot/list")
            health = await client.get("/health")
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            after = await client.get("/autopilot/list")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert health.status_code == 200
        assert after.status_code == 200


class TestAudit:
    """Who did what."""

    async def test_changes(self, start: Callable[..., System], up: Upstream, tmp_path: Path) -> None:
        """Each change leaves a record that says who, what, to what, and on which trace; nothing else does."""
        system = start()
        key = await key_for(system, "ann", "register", "read")
        async with calling(system, key) as ann:
            await register(ann, "one", up.url, "web.one")
            await ann.post("/autopilot/registry/one/heartbeat")
            await ann.get("/autopilot/list")
            refused = await ann.post("/autopilot/registry", json={"name": "!"})
            await ann.delete("/autopilot/registry/one")
        assert refused.status_code == 422
        first, second = await audited(system)
        assert (first["type"], first["source"]) == ("autopilot.register", "ann")
        assert first["payload"] == {"target": "one", "endpoint": up.url, "revision": 1, "status": 201}
        assert (second["type"], second["payload"]["target"]) == (
            "autopilot.delete",
            "/autopilot/registry/one",
        )
        assert await verify(system.outside.table, audit_key(read({"AUTOPILOT_DATA": str(tmp_path)}))) == (
            3,
            [],
        )

    async def test_keys(self, start: Callable[..., System]) -> None:
        """Making, rotating and ending a key is recorded by its id, never the key itself."""
        system = start()
        async with calling(system) as admin:
            made = (await admin.post("/autopilot/keys", json={"name": "bob", "scopes": ["read"]})).json()
            one = made["record"]["id"]
            other = (await admin.post(f"/autopilot/keys/{one}/rotate", json={})).json()
            await admin.delete(f"/autopilot/keys/{one}")
            events = (await admin.get("/autopilot/audit")).json()["events"]
        assert [event["payload"]["target"] for event in events] == [one, one, one]
        assert events[0]["payload"]["scopes"] == ["read"]
        assert made["key"] not in str(events)
        assert other["key"] not in str(events)

    async def test_repeat(self, start: Callable[..., System], up: Upstream) -> None:
        """The repeat of an answer under an idempotency key is no second change."""
        system = start()
        async with calling(system) as admin:
            body = {"name": "one", "endpoint": up.url, "capabilities": ["web.one"]}
            for _ in range(3):
                await admin.post("/autopilot/registry", json=body, headers={"idempotency-key": "k"})
        assert len(await audited(system)) == 1

    async def test_dry_run(self, start: Callable[..., System]) -> None:
        """A dry run changes nothing and leaves no record; what creates something does, with what it was."""
        system = start()
        async with calling(system) as admin:
            for dry_run in (True, False):
                body = {"want": {"kvNamespaces": ["cache"]}, "dry_run": dry_run}
                await admin.post("/autopilot/ensure-infra", json=body)
        action, call = await audited(system)
        assert (action["type"], action["payload"]["target"]) == ("infra.create", "kv/cache")
        assert (call["type"], call["source"]) == ("infra.ensure", "admin")
        assert [one["name"] for one in call["payload"]["created"]["kv"]] == ["cache"]

    async def test_high_risk(self, start: Callable[..., System], up: Upstream) -> None:
        """A forward of a capability of high risk is recorded with what was sent, failed or not."""
        system = start()
        key = await key_for(system, "ann", "plan:*")
        async with calling(system) as admin:
            await register(admin, "one", up.url, "payouts.batch.run", "web.one")
        before = len(await audited(system))
        async with calling(system, key) as ann:
            await ann.post("/autopilot/plan", json={"capability": "web.one", "meta": {}})
            await ann.post("/autopilot/plan", json={"capability": "payouts.batch.run", "meta": {"a": 1}})
            up.tell = lambda _: Told(500, b"{}")
            await ann.post("/autopilot/plan", json={"capability": "payouts.batch.run", "meta": {}})
        good, bad = (await audited(system))[before:]
        assert (good["type"], good["source"]) == ("task.forward", "ann")
        assert good["payload"]["target"] == "payouts.batch.run"
        assert good["payload"]["autopilots"] == ["one"]
        assert (good["payload"]["status"], bad["payload"]["status"]) == (200, 502)
        assert len(good["payload"]["meta_sha256"]) == 64

    async def test_denial(self, start: Callable[..., System]) -> None:
        """A call that a key is not for is recorded, wherever it is refused; one without a key is not."""
        system = start()
        key = await key_for(system, "ann", "plan:web.*", "register:one")
        async with calling(system, key) as ann, client_of(system) as nobody:
            assert (await ann.get("/autopilot/keys")).status_code == 403
            assert (await ann.delete("/autopilot/registry/other")).status_code == 403
            plan = await ann.post("/autopilot/plan", json={"capability": "payouts.batch.run", "meta": {}})
            assert plan.status_code == 403
            assert (await nobody.get("/autopilot/keys")).status_code == 401
        events = await audited(system)
        assert {(event["type"], event["source"]) for event in events} == {("call.denied", "ann")}
        assert [event["payload"] for event in events] == [
            {"target": "/autopilot/keys", "method": "GET", "scope": "admin"},
            {"target": "/autopilot/registry/other", "method": "DELETE", "scope": "register:other"},
            {"target": "/autopilot/plan", "method": "POST", "scope": "plan:payouts.batch.run"},
        ]

    async def test_pages(self, start: Callable[..., System]) -> None:
        """The list is given a page at a time, and what is no page is refused."""
        system = start()
        async with calling(system) as admin:
            for manifest in manifests():
                await admin.post("/autopilot/registry", json=manifest)
            first = (await admin.get("/autopilot/audit?limit=3")).json()
            second = (await admin.get(f"/autopilot/audit?after={first['next']}")).json()
            names = [event["payload"]["target"] for event in first["events"] + second["events"]]
            assert names == [manifest["name"] for manifest in manifests()]
            assert second["next"] is None
            for query in ("limit=0", "limit=x", "after=../key", "cursor=1"):
                assert (await admin.get(f"/autopilot/audit?{query}")).status_code == 422

    async def test_cannot_be_recorded(
        self, start: Callable[..., System], up: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the record cannot be written the caller is told so, and of a denial stays refused."""
        system = start()
        key = await key_for(system, "ann", "read")

        async def down(_: object) -> None:
            raise StoreUnavailable("the store is down")

        monkeypatch.setattr(system.inside.audit, "write", down)
        async with calling(system) as admin, calling(system, key) as ann:
            body = {"name": "one", "endpoint": up.url, "capabilities": ["payouts.one"]}
            answer = await admin.post("/autopilot/registry", json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert answer.json()["detail"] == "it was done, but could not be recorded in the audit"
            plan = await admin.post("/autopilot/plan", json={"capability": "payouts.one", "meta": {}})
            assert plan.status_code == 503
            assert (await ann.get("/autopilot/keys")).status_code == 403
