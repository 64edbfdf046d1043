"""The fake is held to Cloudflare's public schema: every operation, every refusal, over HTTP on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cloudflare_fake import (
    ACCOUNT,
    ACCOUNT_TOKEN,
    ROOT,
    ROUTES,
    USER_TOKEN,
    CloudflareFake,
    Fault,
    Token,
    on_loopback,
)
from tests.infra.cloudflare.schema import Schema
from tests.upstream import Received, Told

HOME = f"/accounts/{ACCOUNT}"
SCRIPT = f"{HOME}/workers/scripts/edge"
SOURCE = b"export default {}"
METADATA = {"main_module": "w.mjs", "compatibility_date": "2026-04-01", "tags": ["a"], "annotations": {}}


def upload(metadata: Any = METADATA, kind: str = "application/javascript+module", name: str = "w.mjs") -> Any:
    """Return the parts of an upload."""
    return [("metadata", (None, json.dumps(metadata), "application/json")), (name, (name, SOURCE, kind))]


@pytest.fixture
async def http(fake: CloudflareFake) -> AsyncIterator[httpx.AsyncClient]:
    """Give a plain HTTP client of the fake, with a token that may do everything."""
    fake.tokens[USER_TOKEN].reads_itself = True
    async with on_loopback(fake) as server:
        headers = {"authorization": f"Bearer {USER_TOKEN}"}
        async with httpx.AsyncClient(base_url=server.url + ROOT, headers=headers) as client:
            yield client


async def test_every_operation_answers_as_the_schema_says(
    http: httpx.AsyncClient, fake: CloudflareFake, schema: Schema
) -> None:
    """One call of each; every answer and request is valid, and every operation is one of the schema's."""
    fake.tokens[ACCOUNT_TOKEN] = Token(ACCOUNT_TOKEN, "account", "a" * 32, reads_itself=True)
    theirs = {"authorization": f"Bearer {ACCOUNT_TOKEN}"}
    token = fake.tokens[USER_TOKEN].id
    namespace = await http.post(f"{HOME}/storage/kv/namespaces", json={"title": "CACHE"})
    answers = [
        namespace,
        await http.get("/user/tokens/verify"),
        await http.get(f"{HOME}/tokens/verify", headers=theirs),
        await http.get(f"/user/tokens/{token}"),
        await http.get(f"{HOME}/tokens/{'a' * 32}", headers=theirs),
        await http.get("/accounts", params={"page": 3}),
        await http.get(HOME),
        await http.get(f"{HOME}/storage/kv/namespaces"),
        await http.get(f"{HOME}/storage/kv/namespaces/{namespace.json()['result']['id']}"),
        await http.post(f"{HOME}/r2/buckets", json={"name": "assets", "locationHint": "weur"}),
        await http.get(f"{HOME}/r2/buckets"),
        await http.get(f"{HOME}/r2/buckets/assets"),
        await http.put(SCRIPT, files=upload()),
        await http.get(f"{HOME}/workers/scripts"),
        await http.get(f"{SCRIPT}/settings"),
        await http.post(f"{SCRIPT}/subdomain", json={"enabled": True}),
        await http.get(f"{SCRIPT}/subdomain"),
        await http.put(f"{SCRIPT}/schedules", json=[{"cron": "*/15 * * * *"}]),
        await http.get(f"{SCRIPT}/schedules"),
        await http.get(f"{HOME}/workers/subdomain"),
        await http.post(f"{HOME}/d1/database", json={"name": "crm"}),
        await http.get(f"{HOME}/d1/database"),
        await http.post(f"{HOME}/queues", json={"queue_name": "jobs"}),
        await http.get(f"{HOME}/queues"),
    ]
    assert [one.status_code for one in answers] == [200] * len(ROUTES)
    assert all(schema.operation(request) is not None for request in fake.requests)
    for request, told in fake.answers:
        schema.check(request, told)
    assert json.loads(fake.answers[1][1].body)["messages"][0]["code"] == 10000
    assert answers[0].headers["ratelimit"] == '"default";r=1199;t=300'


KNOWN = {
    "POST kv namespaces": (
        "POST",
        "/storage/kv/namespaces",
        {10014: {"title": "CACHE"}, 10019: {"title": ""}},
    ),
    "POST buckets": ("POST", "/r2/buckets", {10004: {"name": "assets"}, 10005: {"name": "A"}}),
    "POST databases": ("POST", "/d1/database", {7502: {"name": "crm"}, 7400: {"name": ""}}),
    "POST queues": ("POST", "/queues", {11009: {"queue_name": "jobs"}, 11003: {"queue_name": "A B"}}),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("bare", [True, False])
async def test_refusals_carry_the_codes_that_the_schema_knows(
    http: httpx.AsyncClient, fake: CloudflareFake, schema: Schema, name: str, bare: bool
) -> None:
    """Status and code are those that the schema notes for the operation, bare or with all members."""
    fake.bare = bare
    method, path, bodies = KNOWN[name]
    assert (await http.request(method, HOME + path, json=next(iter(bodies.values())))).status_code == 200
    known = schema.operation(Received(method, f"{ROOT}{HOME}{path}", {}, b""))
    assert known is not None
    expected = {one["code"]: one["status"] for one in known["x-known-errors"]}
    for code, body in bodies.items():
        answer = await http.request(method, HOME + path, json=body)
        told = answer.json()
        assert (told["errors"][0]["code"], answer.status_code) == (code, expected[code])
        assert ("messages" in told) is not bare


@pytest.mark.parametrize(
    ("metadata", "kind", "name", "code"),
    [
        ({"compatibility_date": "2026-04-01"}, "application/javascript+module", "w.mjs", 10021),
        (METADATA, "application/javascript", "w.mjs", 10021),
        (METADATA, "application/javascript+module", "other.mjs", 10021),
        ({**METADATA, "compatibility_date": "soon"}, "application/javascript+module", "w.mjs", 10021),
        (
            {**METADATA, "bindings": [{"type": "kv_namespace", "name": "KV", "namespace_id": "x"}]},
            "application/javascript+module",
            "w.mjs",
            10021,
        ),
    ],
)
async def test_an_upload_is_validated(
    http: httpx.AsyncClient, fake: CloudflareFake, metadata: Any, kind: str, name: str, code: int
) -> None:
    """No main module, the wrong type, another file, no date, a binding to nothing."""
    answer = await http.put(SCRIPT, files=upload(metadata, kind, name))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, code)
    assert fake.products.scripts == {}


async def test_an_upload_that_is_no_form_is_refused(http: httpx.AsyncClient) -> None:
    """By its content type; and one without metadata by its parts."""
    answer = await http.put(SCRIPT, content=SOURCE, headers={"content-type": "application/javascript"})
    assert answer.json()["errors"][0]["code"] == 10001
    answer = await http.put(SCRIPT, files=upload()[1:])
    assert answer.json()["errors"][0] == {
        "code": 10021,
        "message": "could not read content for part metadata",
    }


async def test_what_is_not_kept_is_dropped(http: httpx.AsyncClient, fake: CloudflareFake) -> None:
    """A second upload loses the secrets that people added, without a word."""
    await http.put(SCRIPT, files=upload())
    secret = {"type": "secret_text", "name": "KEY"}
    fake.products.scripts["edge"].secrets = [secret]
    await http.put(SCRIPT, files=upload({**METADATA, "keep_bindings": ["secret_text"]}))
    assert (await http.get(f"{SCRIPT}/settings")).json()["result"]["bindings"] == [secret]
    await http.put(SCRIPT, files=upload())
    assert (await http.get(f"{SCRIPT}/settings")).json()["result"]["bindings"] == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": ""}, 400, 9106),
        ({"authorization": f"Basic {USER_TOKEN}"}, 400, 6003),
        ({"authorization": "Bearer x"}, 400, 6003),
        ({"authorization": "Bearer " + "x" * 40}, 400, 9106),
    ],
)
async def test_the_gateway_knows_tokens(
    http: httpx.AsyncClient, headers: dict[str, str], status: int, code: int
) -> None:
    """Nothing, another scheme, no token, an unknown one."""
    answer = await http.get(f"{HOME}/queues", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/accounts//queues", 404, 7003),
        ("GET", "/accounts/nonsense/queues", 404, 7003),
        ("GET", f"/accounts/{'f' * 32}/queues", 403, 10000),
        ("PATCH", f"{HOME}/r2/buckets", 405, 7001),
        ("GET", f"{HOME}/nothing", 404, 7003),
    ],
)
async def test_the_gateway_knows_accounts_and_routes(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: int
) -> None:
    """A malformed id, another's, a method that is none, a path that is none."""
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)


async def test_a_deletion_is_an_alarm(fake: CloudflareFake) -> None:
    """No test passes in which anything asks to delete."""
    with pytest.raises(AssertionError, match="nothing may ever be deleted"):
        fake.tell(Received("DELETE", f"{ROOT}{HOME}/r2/buckets/assets", {}, b""))


async def test_over_the_quota_everything_is_refused(http: httpx.AsyncClient, fake: CloudflareFake) -> None:
    """With a 429, its code and how long to wait, until the window has passed."""
    fake.quota = 2
    codes = [(await http.get(f"{HOME}/queues")).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    answer = await http.get(f"{HOME}/queues")
    assert (answer.json()["errors"][0]["code"], answer.headers["retry-after"]) == (971, "300")
    fake.clock.forward(301)
    assert (await http.get(f"{HOME}/queues")).status_code == 200


async def test_new_things_show_late(http: httpx.AsyncClient, fake: CloudflareFake) -> None:
    """As often as it is told, a fresh namespace is overlooked, though its title is taken."""
    fake.products.lag = 2
    path = f"{HOME}/storage/kv/namespaces"
    await http.post(path, json={"title": "CACHE"})
    seen = [len((await http.get(path)).json()["result"]) for _ in range(3)]
    assert seen == [0, 0, 1]
    assert (await http.post(path, json={"title": "CACHE"})).json()["errors"][0]["code"] == 10014


async def test_faults_strike_as_often_as_they_are_told(http: httpx.AsyncClient, fake: CloudflareFake) -> None:
    """Before or after the deed, on the paths they are for; an answer can be changed too."""
    path = f"{HOME}/storage/kv/namespaces"
    page = Told(520, b"<html>")
    fake.faults = [
        Fault("POST", "kv", page, done=True),
        Fault("GET", "kv", tamper=lambda body: body.update(result=[])),
    ]
    assert (await http.post(path, json={"title": "A"})).status_code == 520
    assert (await http.get(f"{HOME}/queues")).status_code == 200
    assert (await http.get(path)).json()["result"] == []
    assert len((await http.get(path)).json()["result"]) == 1


def test_the_schema_is_a_judge(schema: Schema) -> None:
    """What Cloudflare would not answer is found out, and so is what nobody would ask."""
    path = f"{ROOT}{HOME}/storage/kv/namespaces"
    good = {"success": True, "errors": [], "messages": [], "result": [{"id": "x", "title": "A"}]}
    request = Received("GET", path, {}, b"")
    schema.check(request, Told(body=json.dumps(good).encode()))
    for wrong in ({"result": [{"id": "x"}]}, {"success": "yes"}, {"messages": 1}):
        with pytest.raises(AssertionError):
            schema.check(request, Told(body=json.dumps({**good, **wrong}).encode()))
    for query in ("per_page=5000", "colour=red"):
        with pytest.raises(AssertionError):
            schema.check(Received("GET", f"{path}?{query}", {}, b""), Told(body=json.dumps(good).encode()))
    with pytest.raises(AssertionError):
        schema.check(request, Told(400, b'{"success":false,"errors":[]}'))


def test_every_route_of_the_fake_is_in_the_schema(schema: Schema) -> None:
    """The fake invents no operation."""
    for method, pattern, *_ in ROUTES:
        path = pattern.replace(r"(?P<account>[^/]*)", ACCOUNT).replace(r"([^/]+)", "name")
        assert urlsplit(path).path == path
        assert schema.operation(Received(method, ROOT + path, {}, b"")) is not None, (method, path)
