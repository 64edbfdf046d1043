"""The registry over HTTP: what may be registered, what comes back, and what stays secret."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.table import Put
from infra.table.sqlite import SqliteTable
from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of, register
from tests.upstream import Told, Upstream

KEY = "a-key-of-32-characters-for-tests"


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the key of a router that may call public addresses only."""
    environment = {"AUTOPILOT_DATA": str(tmp_path), "AUTOPILOT_API_KEY": KEY}
    built = build(read(environment, host="0.0.0.0"), url="http://127.0.0.1:8080")
    async with client_of(built) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        yield client
    await built.close()


async def test_a_registration_is_created_then_updated(api: httpx.AsyncClient, up: Upstream) -> None:
    """The first answer is 201 with revision 1, the second 200 with revision 2, both with the seed's text."""
    first = await register(api, "pages", up.url, "web.pages.generate", priority=7)
    second = await register(api, "pages", up.url, "web.pages.generate", "web.pages.check")
    assert (first.status_code, second.status_code) == (201, 200)
    assert (first.headers["etag"], second.headers["etag"]) == ('"1"', '"2"')
    assert first.json()["message"] == "Autopilot 'pages' registered successfully"
    assert second.json()["message"] == first.json()["message"]
    row = second.json()["autopilot"]
    assert (row["priority"], row["revision"]) == (100, 2), "an update replaces the whole record"
    assert row["capabilities"] == ["web.pages.generate", "web.pages.check"]
    assert row["registered_at"] == first.json()["autopilot"]["registered_at"]
    assert row["updated_at"] >= row["registered_at"]


async def test_everything_that_was_registered_is_shown_again(api: httpx.AsyncClient, up: Upstream) -> None:
    """A full registration comes back as it was given, with what the router adds."""
    body: dict[str, Any] = {
        "name": "full",
        "endpoint": f"{up.url}/base",
        "capabilities": [
            "web.pages.generate",
            {
                "name": "web.asset.generate",
                "description": "Draws",
                "input_schema": {"type": "object"},
                "configure": True,
            },
        ],
        "needs": {
            "kvNamespaces": ["LOGS"],
            "r2Buckets": ["assets"],
            "workers": [{"name": "w", "content": "export default {}"}],
            "d1Databases": ["db"],
            "queues": ["q"],
        },
        "tasks": {"generate_banner": "web.asset.generate"},
        "priority": 5,
        "weight": 3,
        "lease_seconds": 60,
        "description": "Everything at once",
    }
    await api.post("/autopilot/registry", json=body)
    shown = (await api.get("/autopilot/registry/full")).json()["autopilot"]
    assert body.items() <= shown.items()
    assert set(shown) - set(body) == {"health", "revision", "registered_at", "updated_at"}


async def test_a_condition_on_the_revision_is_kept(api: httpx.AsyncClient, up: Upstream) -> None:
    """A stale If-Match is a 412 that changes nothing; the present one, weak or strong, goes through."""
    tag = (await register(api, "pages", up.url, "web.pages.generate")).headers["etag"]
    body = {"name": "pages", "endpoint": up.url, "capabilities": ["web.pages.check"]}
    taken = await api.post("/autopilot/registry", json=body, headers={"if-match": tag})
    stale = await api.post("/autopilot/registry", json=body, headers={"if-match": tag})
    assert (taken.status_code, taken.headers["etag"]) == (200, '"2"')
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert (await api.get("/autopilot/registry/pages")).headers["etag"] == '"2"'
    assert (await api.delete("/autopilot/registry/pages", headers={"if-match": tag})).status_code == 412
    weak = await api.delete("/autopilot/registry/pages", headers={"if-match": 'W/"2"'})
    assert weak.status_code == 204


async def test_a_star_asks_that_there_is_something_to_change(api: httpx.AsyncClient, up: Upstream) -> None:
    """If-Match: * updates what exists and refuses to create."""
    body = {"name": "pages", "endpoint": up.url, "capabilities": ["web.pages.generate"]}
    refused = await api.post("/autopilot/registry", json=body, headers={"if-match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (412, "stale")
    assert (await api.get("/autopilot/registry/pages")).status_code == 404
    await api.post("/autopilot/registry", json=body)
    updated = await api.post("/autopilot/registry", json=body, headers={"if-match": "*"})
    assert (updated.status_code, updated.headers["etag"]) == (200, '"2"')
    assert (await api.delete("/autopilot/registry/pages", headers={"if-match": "*"})).status_code == 204


@pytest.mark.parametrize("value", ["abc", '"1", "2"', '"-1"', "1.0", '"9999999999999999"', "\u00b2"])
async def test_what_is_no_revision_is_said_so(api: httpx.AsyncClient, up: Upstream, value: str) -> None:
    """An If-Match that no ETag of ours could be is a 422 about that header."""
    await register(api, "pages", up.url, "web.pages.generate")
    header = {"if-match": value.encode("latin-1")}
    answer = await api.delete("/autopilot/registry/pages", headers=header)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == ["If-Match"]


async def test_every_wrong_field_of_a_registration_is_named(api: httpx.AsyncClient) -> None:
    """One 422 lists all that is wrong, deep fields by their path, and keeps nothing."""
    body = {
        "name": "-Wrong-",
        "endpoint": "not a url",
        "capabilities": ["web.pages.generate", "web.pages.generate", "Bad", {"name": "a.b", "color": 1}],
        "needs": {"buckets": ["x"], "r2Buckets": ["no"], "workers": [{"name": "w"}]},
        "tasks": {"Bad Task": "web.pages.generate", "good_task": "never.offered"},
        "priority": -1,
        "weight": 0,
        "lease_seconds": 0.5,
        "admin": True,
    }
    answer = await api.post("/autopilot/registry", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_body")
    assert {one["field"] for one in answer.json()["errors"]} == {
        "name", "endpoint", "capabilities", "capabilities[2]", "capabilities[3].color", "needs.buckets",
        "needs.r2Buckets[0]", "needs.workers[0].content", "tasks.Bad Task", "tasks.good_task", "priority",
        "weight", "lease_seconds", "admin",
    }  # fmt: skip
    assert (await api.get("/autopilot/list")).json()["count"] == 0


async def test_a_task_cannot_be_given_another_meaning(api: httpx.AsyncClient, up: Upstream) -> None:
    """A registration may not take over a built-in task, nor one that another autopilot brought."""
    await register(api, "a", up.url, "art.banner.draw", tasks={"draw_banner": "art.banner.draw"})
    tasks = {"generate_page": "art.other.draw", "draw_banner": "art.other.draw"}
    answer = await register(api, "b", up.url, "art.other.draw", tasks=tasks)
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["errors"]} == {"tasks.generate_page", "tasks.draw_banner"}
    own = await register(api, "a", up.url, "art.other.draw", tasks={"draw_banner": "art.other.draw"})
    assert own.status_code == 200, "who brought a task may change its mind"


async def test_the_signing_secret_is_shown_once(
    api: httpx.AsyncClient, system: System, up: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """The secret is in the answer that created the registration, in no later one and in no log line."""
    created = await register(api, "pages", up.url, "web.pages.generate")
    secret = created.json()["signing_secret"]
    assert secret.startswith("whsec_")
    assert "secret" not in created.json()["autopilot"]
    later = [
        await register(api, "pages", up.url, "web.pages.generate"),
        await api.get("/autopilot/registry/pages"),
        await api.get("/autopilot/registry/pages/health"),
        await api.post("/autopilot/registry/pages/heartbeat"),
        await api.get("/autopilot/list"),
        await api.get("/autopilot/list?capability=web.pages.generate"),
        await api.get("/autopilot/catalogue"),
        await api.get("/autopilot/diagnose"),
        await api.post("/autopilot/ensure-infra"),
        await api.post("/__scheduled"),
        await api.post("/autopilot/plan", json={"task": "generate_page"}),
        await api.post("/autopilot/plan", json={"task": "generate_page", "mode": "explain"}),
        await api.post("/autopilot/plan", json={"task": "deploy_page"}),
        await api.get("/health"),
    ]
    for answer in later:
        assert secret not in answer.text + str(answer.headers)
        assert "signing_secret" not in answer.text
    assert secret not in caplog.text
    await api.delete("/autopilot/registry/pages")
    anew = await register(api, "pages", up.url, "web.pages.generate")
    assert anew.json()["signing_secret"] != secret


async def test_a_host_that_does_not_resolve_yet_is_taken_with_a_warning(strict: httpx.AsyncClient) -> None:
    """The registration is kept, the warning names the host, and the caller does not wait long."""
    started = time.perf_counter()
    answer = await register(strict, "later", "https://nobody.invalid/tasks", "web.pages.generate")
    assert time.perf_counter() - started < 10
    assert answer.status_code == 201
    assert answer.json()["warnings"] == ["nobody.invalid does not resolve yet: tasks will fail until it does"]
    assert (await strict.get("/autopilot/registry/later")).status_code == 200


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "https://127.0.0.1",
        "https://[::1]/",
        "https://10.1.2.3",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:192.168.1.1]",
        "https://localhost",
        "https://printer.local",
        "https://metadata.internal",
        "http://1.1.1.1",
        "https://1.1.1.1:22",
        "local:nobody",
        "lambda:x",
    ],
)
async def test_an_endpoint_that_may_not_be_called_is_refused(
    strict: httpx.AsyncClient, endpoint: str
) -> None:
    """Private addresses, local names, plain http, odd ports and unknown names are `endpoint_refused`."""
    answer = await register(strict, "evil", endpoint, "web.pages.generate")
    assert (answer.status_code, answer.json()["code"]) == (422, "endpoint_refused")
    assert (await strict.get("/autopilot/registry/evil")).status_code == 404


async def test_the_list_is_walked_by_its_cursor(api: httpx.AsyncClient) -> None:
    """25 registrations come in pages of at most `limit`, sorted by name, each exactly once."""
    names = [f"a-{n}" for n in range(25)]
    for name in names:
        await register(api, name, "local:page-deployer", "web.pages.deploy")
    for limit in (1, 7, 25, 200):
        walked, cursor, pages = [], None, 0
        while pages < 30:
            query = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
            page = (await api.get("/autopilot/list", params=query)).json()
            assert page["count"] == len(page["autopilots"]) <= limit
            walked += [row["name"] for row in page["autopilots"]]
            pages, cursor = pages + 1, page["next"]
            if cursor is None:
                break
        assert walked == sorted(names)
        assert pages == -(-25 // limit)


async def test_the_list_is_filtered_by_capability_and_health(api: httpx.AsyncClient, up: Upstream) -> None:
    """Filters combine, and a filtered list is walked by its cursor like any other."""
    for n in range(6):
        capability = "web.pages.generate" if n % 2 else "web.pages.check"
        await register(api, f"a-{n}", up.url, capability)
    up.tell = lambda _: Told(503, b'{"status":"down"}')
    await api.get("/autopilot/registry/a-3/health")
    up.tell = lambda _: Told(200, b'{"status":"healthy"}')
    for name in ("a-1", "a-2", "a-5"):
        await api.get(f"/autopilot/registry/{name}/health")

    async def names(**query: str) -> tuple[list[str], str | None]:
        body = (await api.get("/autopilot/list", params=query)).json()
        return [row["name"] for row in body["autopilots"]], body["next"]

    assert await names(capability="web.pages.generate") == (["a-1", "a-3", "a-5"], None)
    assert await names(capability="web.pages.generate", health="healthy") == (["a-1", "a-5"], None)
    assert await names(capability="web.pages.generate", health="down") == (["a-3"], None)
    first, cursor = await names(capability="web.pages.generate", health="healthy", limit="1")
    assert (first, cursor) == (["a-1"], "a-1")
    rest, _ = await names(capability="web.pages.generate", health="healthy", limit="1", cursor="a-1")
    assert rest == ["a-5"]
    assert await names(capability="nobody.offers.this") == ([], None)


async def test_bad_list_parameters_are_all_named(api: httpx.AsyncClient) -> None:
    """Each wrong value is named in one answer; so are unknown and repeated parameters."""
    answer = await api.get("/autopilot/list?limit=0&capability=X&health=fine&cursor=../x")
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["errors"]} == {"limit", "capability", "health", "cursor"}
    answer = await api.get("/autopilot/list?limit=1&limit=2&colour=red")
    assert {one["field"] for one in answer.json()["errors"]} == {"limit", "colour"}
    for limit in ("201", "-1", "1.5", "", "1e2", "%D9%A1", "0x10"):
        assert (await api.get(f"/autopilot/list?limit={limit}")).status_code == 422, limit


async def test_a_registration_is_removed(api: httpx.AsyncClient, up: Upstream) -> None:
    """DELETE is a 204 without a body; afterwards nothing finds it, and no task goes to it."""
    await register(api, "pages", up.url, "web.pages.generate")
    assert (await api.post("/autopilot/plan", json={"task": "generate_page"})).status_code == 200
    gone = await api.delete("/autopilot/registry/pages")
    assert (gone.status_code, gone.content) == (204, b"")
    assert "content-length" not in gone.headers
    assert (await api.get("/autopilot/list")).json() == {"autopilots": [], "count": 0, "next": None}
    plan = await api.post("/autopilot/plan", json={"task": "generate_page"})
    assert plan.json()["code"] == "no_autopilot"
    again = await api.delete("/autopilot/registry/pages")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", ["nobody", "No%20Name", "%00", "%ff", "a" * 3000, "..", "%F0%9F%8E%89"])
async def test_a_name_nobody_has_is_a_404(api: httpx.AsyncClient, name: str) -> None:
    """Whatever stands in place of a name, reading, removing and renewing say that it is not there."""
    path = f"/autopilot/registry/{name}"
    answers = [
        await api.get(path),
        await api.delete(path),
        await api.post(f"{path}/heartbeat"),
        await api.get(f"{path}/health"),
    ]
    assert [one.status_code for one in answers] == [404] * 4
    assert {one.json()["code"] for one in answers} == {"not_found"}


async def test_a_heartbeat_renews_a_lease(api: httpx.AsyncClient, up: Upstream) -> None:
    """The answer says until when; a registration without a lease has nothing to renew."""
    await register(api, "leased", up.url, "web.pages.generate", lease_seconds=3600)
    await register(api, "free", up.url, "web.pages.generate")
    renewed = await api.post("/autopilot/registry/leased/heartbeat")
    health = (await api.get("/health")).json()
    assert renewed.status_code == 200
    assert renewed.json()["lease_until"] > health["timestamp"]
    assert (await api.post("/autopilot/registry/free/heartbeat")).json() == {"ok": True, "lease_until": None}


async def test_a_lease_that_ended_takes_no_tasks_until_its_heartbeat(
    api: httpx.AsyncClient, up: Upstream, system: System
) -> None:
    """After its lease an autopilot is passed over though it is registered; one heartbeat brings it back."""
    await register(api, "leased", up.url, "web.pages.generate", lease_seconds=5)
    body = {"task": "generate_page"}
    assert (await api.post("/autopilot/plan", json=body)).status_code == 200
    await system.outside.table.transact([Put(("lease", "leased"), {"until": 1.0})])
    await system.inside.routes.refresh()
    ended = await api.post("/autopilot/plan", json=body)
    assert (ended.status_code, ended.json()["code"]) == (502, "forward_failed")
    explained = (await api.post("/autopilot/plan", json={**body, "mode": "explain"})).json()
    assert "lease" in explained["candidates"][0]["reason"]
    await api.post("/autopilot/registry/leased/heartbeat")
    assert (await api.post("/autopilot/plan", json=body)).status_code == 200
    assert len(up.tasks) == 2


async def test_asking_an_autopilot_for_its_health_asks_it_now(api: httpx.AsyncClient, up: Upstream) -> None:
    """The answer is what the autopilot says of itself at this moment, and the list shows it from then on."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda _: Told(200, b'{"status":"degraded"}')
    answer = await api.get("/autopilot/registry/pages/health")
    assert answer.json() == {"status": "degraded", "autopilot": "pages"}
    assert (await api.get("/autopilot/list")).json()["autopilots"][0]["health"] == "degraded"
    await up.stop()
    assert (await api.get("/autopilot/registry/pages/health")).json()["status"] == "down"


async def test_a_store_that_fails_is_a_503_and_keeps_nothing(
    api: httpx.AsyncClient, system: System, up: Upstream, tmp_path: Path
) -> None:
    """Callers hear `store_unavailable`, and in the reopened store there is no trace of what was refused."""
    await register(api, "before", up.url, "web.pages.generate", tasks={"make_it": "web.pages.generate"})
    await system.outside.table.close()
    refused = [
        await register(api, "after", up.url, "web.pages.check", tasks={"check_it": "web.pages.check"}),
        await register(api, "before", up.url, "web.pages.check"),
        await api.delete("/autopilot/registry/before"),
        await api.post("/autopilot/registry/before/heartbeat"),
        await api.get("/autopilot/list"),
        await api.get("/autopilot/catalogue"),
        await api.post("/autopilot/plan", json={"task": "create_lead"}),
        await api.post("/autopilot/ensure-infra"),
        await api.post("/__scheduled"),
    ]
    assert {(one.status_code, one.json()["code"]) for one in refused} == {(503, "store_unavailable")}
    assert str(tmp_path) not in "".join(one.text for one in refused)
    reopened = SqliteTable(tmp_path / "router.db", time.time)
    try:
        for partition in ("autopilot", "capability:web.pages.generate", "task"):
            keys = [item.key[1] for item in (await reopened.range(partition)).items]
            assert keys == (["make_it/before"] if partition == "task" else ["before"])
        for partition in ("capability:web.pages.check", "lease"):
            assert (await reopened.range(partition)).items == []
        record = await reopened.get(("autopilot", "before"))
        assert record is not None
        assert record.revision == 1
    finally:
        await reopened.close()
