"""The app as a whole: who may call which route, and how errors look wherever they come from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.body import Disconnected
from router.api.http import Border, Call, Endpoint, Reply, Resource
from router.app import App, build_app
from router.auth import Gate, Scope
from router.keys import Identity
from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of

KEY = "a-key-of-32-characters-for-tests"

POLICY = {
    ("GET", "/health"): Scope.PUBLIC,
    ("GET", "/ready"): Scope.PUBLIC,
    ("GET", "/openapi.json"): Scope.PUBLIC,
    ("POST", "/autopilot/plan"): Scope.PLAN,
    ("GET", "/autopilot/catalogue"): Scope.READ,
    ("POST", "/autopilot/registry/{name}/secret"): Scope.REGISTER,
    ("GET", "/autopilot/audit"): Scope.OPERATE,
    ("GET", "/autopilot/events"): Scope.READ,
    ("GET", "/autopilot/approvals"): Scope.OPERATE,
    ("GET", "/autopilot/approvals/{id}"): Scope.KEY,
    ("POST", "/autopilot/approvals/{id}/approve"): Scope.OPERATE,
    ("POST", "/autopilot/approvals/{id}/refuse"): Scope.OPERATE,
    ("GET", "/autopilot/tasks"): Scope.KEY,
    ("GET", "/autopilot/tasks/{id}"): Scope.KEY,
    ("POST", "/autopilot/tasks/{id}/cancel"): Scope.KEY,
    ("POST", "/autopilot/tasks/{id}/retry"): Scope.KEY,
    ("GET", "/autopilot/keys"): Scope.ADMIN,
    ("POST", "/autopilot/keys"): Scope.ADMIN,
    ("DELETE", "/autopilot/keys/{id}"): Scope.ADMIN,
    ("POST", "/autopilot/keys/{id}/rotate"): Scope.ADMIN,
    ("GET", "/autopilot/list"): Scope.READ,
    ("POST", "/autopilot/registry"): Scope.REGISTER,
    ("GET", "/autopilot/registry/{name}"): Scope.READ,
    ("DELETE", "/autopilot/registry/{name}"): Scope.REGISTER,
    ("POST", "/autopilot/registry/{name}/heartbeat"): Scope.REGISTER,
    ("GET", "/autopilot/registry/{name}/health"): Scope.READ,
    ("GET", "/autopilot/diagnose"): Scope.READ,
    ("POST", "/autopilot/ensure-infra"): Scope.OPERATE,
    ("POST", "/__scheduled"): Scope.OPERATE,
}
"""Every endpoint and the scope it needs. Whoever adds one decides here who may call it."""

PAGES = {"pages", "checkout", "admin", "autopilot-admin"}
"""Where routes for browsers begin, open to everyone: deployed pages, ends of checkouts, the admin page."""

SIGNED = {"/webhooks/mail", "/webhooks/form"}
"""What is open to everyone who signs: `test_webhooks` shows that nobody else has any effect there."""

LOCKED = sorted(key for key, scope in POLICY.items() if scope is not Scope.PUBLIC)


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client without a key, on another machine, of a router that wants one."""
    environment = {"AUTOPILOT_DATA": str(tmp_path), "AUTOPILOT_API_KEY": KEY}
    built = build(read(environment, host="0.0.0.0"), url="http://127.0.0.1:8080")
    async with client_of(built, client="203.0.113.9") as client:
        yield client
    await built.close()


def routes_of(system: System) -> list[Route]:
    """Return the routes behind the app."""
    routes = system.app._rest.routes  # type: ignore[attr-defined]
    assert all(isinstance(route, Route) for route in routes)
    return list(routes)


def give(system: System, key: str, scope: Scope) -> None:
    """Let a system know a key with one scope."""
    resource = routes_of(system)[0].endpoint
    assert isinstance(resource, Resource)
    identity = Identity("test", frozenset({"plan:*" if scope is Scope.PLAN else scope.value}))
    resource._border.gate._keys.append((hashlib.sha256(key.encode()).digest(), identity))


def path_of(template: str) -> str:
    """Return a path that a template matches."""
    return re.sub(r"\{[^}]+\}", "nobody", template)


async def test_every_route_that_changes_something_has_a_name_in_the_audit(system: System) -> None:
    """Only what changes nothing by itself goes without: a plan, whose forwards count, and a heartbeat."""
    unnamed = {
        endpoint.path
        for route in routes_of(system)
        if isinstance(route.endpoint, Resource)
        for method, endpoint in route.endpoint._endpoints.items()
        if method not in {"GET", "HEAD"} and not endpoint.action
    }
    assert unnamed == {"/autopilot/plan", "/autopilot/registry/{name}/heartbeat"}


async def test_every_route_of_the_app_is_in_the_policy(system: System) -> None:
    """No endpoint exists without a scope, none has another than the table says, and none is missing."""
    found = {}
    open_to_all = set()
    for route in routes_of(system):
        if isinstance(route.endpoint, Resource):
            for method, endpoint in route.endpoint._endpoints.items():
                if method != "HEAD":
                    found[method, endpoint.path] = endpoint.scope
        else:
            open_to_all.add(route.path)
            reads = {"GET", "HEAD"} if route.path not in SIGNED else {"POST"}
            assert route.methods == reads, f"{route.path} is open to everyone"
    assert found == POLICY
    assert {path.split("/")[1] for path in open_to_all - SIGNED} <= PAGES
    assert open_to_all >= SIGNED


async def test_the_hot_path_is_the_same_resource_as_its_route(system: System) -> None:
    """The way around the list of routes leads to the very resource that the list has."""
    [plan] = [route for route in routes_of(system) if route.path == "/autopilot/plan"]
    assert system.app._hot is plan.endpoint


@pytest.mark.parametrize(("method", "path"), LOCKED)
async def test_without_a_key_nothing_but_the_public_answers(
    locked: httpx.AsyncClient, method: str, path: str
) -> None:
    """Each route is a 401 that says how to sign in, for no key, a wrong one and another kind of one."""
    for header in (None, "Bearer wrong", f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", KEY):
        headers = {"authorization": header} if header else {}
        answer = await locked.request(method, path_of(path), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), header
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert KEY not in answer.text


@pytest.mark.parametrize(("method", "path"), sorted(POLICY))
async def test_with_the_key_every_route_answers(locked: httpx.AsyncClient, method: str, path: str) -> None:
    """The key opens each route, from wherever the call comes."""
    answer = await locked.request(
        method, path_of(path), headers={"authorization": f"bearer {KEY}", "content-type": "application/json"}
    )
    assert answer.status_code not in {401, 403}
    assert answer.status_code < 500


@pytest.mark.parametrize("path", ["/health", "/ready", "/pages/none", "/nothing"])
async def test_what_is_public_needs_no_key(locked: httpx.AsyncClient, path: str) -> None:
    """A load balancer and a visitor of a page are never asked for one."""
    assert (await locked.get(path)).status_code in {200, 404}


@pytest.mark.parametrize("held", [scope for scope in Scope if scope is not Scope.PUBLIC])
async def test_a_key_opens_what_its_scope_names(tmp_path: Path, held: Scope) -> None:
    """Each route lets in a key of its own scope and an admin key, and tells others what they lack."""
    environment = {"AUTOPILOT_DATA": str(tmp_path), "AUTOPILOT_API_KEY": KEY}
    built = build(read(environment), url="http://127.0.0.1:8080")
    give(built, "a-key-with-one-scope", held)
    headers = {"authorization": "Bearer a-key-with-one-scope", "content-type": "application/json"}
    async with client_of(built) as client:
        for (method, template), needed in POLICY.items():
            answer = await client.request(method, path_of(template), headers=headers)
            admitted = needed in {held, Scope.PUBLIC, Scope.KEY} or held is Scope.ADMIN
            assert (answer.status_code != 403) is admitted, (method, template)
            if not admitted:
                assert (answer.json()["code"], answer.json()["scope"]) == ("forbidden", needed.value)
    await built.close()


@pytest.mark.parametrize(("method", "path"), LOCKED)
async def test_local_mode_serves_this_machine_only(system: System, method: str, path: str) -> None:
    """Without a key a client elsewhere, a foreign Host and a foreign Origin are a 403."""
    body_type = {"content-type": "application/json"}
    async with client_of(system, client="203.0.113.9") as elsewhere:
        answer = await elsewhere.request(method, path_of(path), headers=body_type)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    async with client_of(system) as here:
        for headers in (
            {"host": "evil.example"},
            {"host": "evil.example:8080"},
            {"host": "127.0.0.1.evil.example"},
            {"host": "localhost.evil.example:8080"},
            {"host": ""},
            {"origin": "https://evil.example"},
            {"origin": "http://127.0.0.1:9999"},
            {"origin": "null"},
            {"origin": ""},
        ):
            answer = await here.request(method, path_of(path), headers={**body_type, **headers})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), headers
        for headers in ({"host": "localhost:8080"}, {"host": "[::1]:8080"}, {"host": "127.0.0.1"}):
            answer = await here.request(method, path_of(path), headers={**body_type, **headers})
            assert answer.status_code != 403, headers
        same = {"origin": "http://127.0.0.1:8080"}
        assert (await here.request(method, path_of(path), headers={**body_type, **same})).status_code != 403


async def test_a_page_cannot_be_made_to_plan_by_a_browser_form(api: httpx.AsyncClient) -> None:
    """The media types a form can send are refused, so no page can post without asking first."""
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = await api.post(
            "/autopilot/plan", content=b'{"task":"generate_page"}', headers={"content-type": media_type}
        )
        assert answer.status_code == 415
    assert (await api.options("/autopilot/plan")).headers.get("access-control-allow-origin") is None


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/autopilot", "/autopilot/plan/", "/autopilot/registry/a/b/c", "/..%2f..", "//"]
)
async def test_what_does_not_exist_is_a_problem_document(api: httpx.AsyncClient, path: str) -> None:
    """A path nobody answers is a 404 with code and trace, and no slash is redirected."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await api.get(f"http://127.0.0.1:8080{path}", headers={"traceparent": trace})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["trace_id"] == trace.split("-")[1]


@pytest.mark.parametrize("host", ["[", "[::1", "a b", "\\", "%zz", ""])
async def test_a_broken_host_header_breaks_nothing(api: httpx.AsyncClient, host: str) -> None:
    """Whatever stands in the Host header, unknown and public paths are answered as ever."""
    assert (await api.get("/nothing", headers={"host": host})).status_code == 404
    assert (await api.get("/health", headers={"host": host})).status_code == 200
    assert (await api.get("/pages/none", headers={"host": host})).status_code == 404
    assert (await api.get("/autopilot/list", headers={"host": host})).status_code < 500


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/autopilot/plan", "POST"),
        ("HEAD", "/autopilot/plan", "POST"),
        ("PUT", "/autopilot/registry", "POST"),
        ("PATCH", "/autopilot/registry/a", "DELETE, GET, HEAD"),
        ("POST", "/autopilot/list", "GET, HEAD"),
        ("OPTIONS", "/autopilot/diagnose", "GET, HEAD"),
        ("GET", "/__scheduled", "POST"),
        ("DELETE", "/health", "GET, HEAD"),
        ("POST", "/pages/none", "GET, HEAD"),
        ("BREW", "/autopilot/list", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_known_is_a_405_with_those_that_are(
    api: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    """Allow lists what the path answers, and the body is a problem document."""
    answer = await api.request(method, path)
    assert answer.status_code == 405
    assert sorted(answer.headers["allow"].split(", ")) == allow.split(", ")
    assert answer.headers["content-type"] == "application/problem+json"
    assert method == "HEAD" or answer.json()["code"] == "method_not_allowed"


async def test_head_has_the_headers_of_get(api: httpx.AsyncClient) -> None:
    """A HEAD is admitted and answered as the GET would be."""
    await api.post(
        "/autopilot/registry", json={"name": "a", "endpoint": "local:page-deployer", "capabilities": ["a.b"]}
    )
    for path in ("/ready", "/autopilot/list", "/autopilot/registry/a"):
        head, get = await api.head(path), await api.get(path)
        assert head.status_code == get.status_code == 200
        for name in ("content-type", "content-length", "etag", "cache-control"):
            assert head.headers.get(name) == get.headers.get(name)
    assert (await api.head("/autopilot/registry/nobody")).status_code == 404


async def test_answers_are_neither_kept_nor_guessed_at(api: httpx.AsyncClient) -> None:
    """Every JSON answer, good or bad, forbids storing it and taking it for another type."""
    for path in ("/health", "/autopilot/list", "/autopilot/registry/nobody"):
        answer = await api.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def app_of(answer: Endpoint, *pages: Route) -> httpx.AsyncClient:
    """Return a client of an app with one endpoint of a test."""

    async def plan(_: Call) -> Reply:
        return Reply(200, b"{}")

    app = build_app(
        [Endpoint("POST", "/autopilot/plan", Scope.PLAN, plan), answer], Border(Gate("local")), pages
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


async def test_what_nobody_expected_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a code and the trace, the log gets the traceback under the same trace."""

    async def broken(_: Call) -> Reply:
        raise RuntimeError("canary of the inside")

    async with app_of(Endpoint("GET", "/broken", Scope.READ, broken)) as client:
        answer = await client.get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert answer.json()["trace_id"] in record.getMessage()
    assert record.exc_info is not None
    assert "canary" in str(record.exc_info[1])


async def test_a_page_that_breaks_tells_nothing_either() -> None:
    """A route that is no endpoint of ours is held to the same."""

    async def broken(_: Request) -> Response:
        raise RuntimeError("canary of the inside")

    async def fine(_: Call) -> Reply:
        return Reply(200, b"{}")

    page = Route("/page", broken)
    async with app_of(Endpoint("GET", "/fine", Scope.PUBLIC, fine), page) as client:
        answer = await client.get("/page")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "canary" not in answer.text


async def test_a_caller_that_goes_away_gets_nothing_and_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A connection lost while its body came in ends quietly."""

    async def gone(_: Call) -> Reply:
        raise Disconnected

    sent: list[object] = []

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    app: App = build_app([Endpoint("POST", "/autopilot/plan", Scope.PLAN, gone)], Border(Gate("local")))
    scope = {
        "type": "http", "method": "POST", "path": "/autopilot/plan", "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1")],
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent == []
    assert caplog.records == []
