"""The OpenAPI document: it is valid, it has what the app has, and its schemas say what the code does."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from infra.provider import KINDS
from router.api.http import Border, Endpoint, Reply, Resource
from router.api.openapi import OpenApi
from router.app import build_app
from router.auth import Gate, Scope
from router.errors import AutopilotError
from router.openapi import Entry, document
from router.openapi.operations import OPERATIONS
from router.problem import STATUS, document_of
from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of

METHODS = {"get", "put", "post", "delete", "patch"}
SMALLEST = {"name": "a", "endpoint": "https://a.example", "capabilities": ["web.pages.generate"]}


def endpoints_of(system: System) -> list[Endpoint]:
    """Return the endpoints behind the app."""
    routes = system.app._rest.routes  # type: ignore[attr-defined]
    resources = [route.endpoint for route in routes if isinstance(route.endpoint, Resource)]
    return [one for resource in resources for method, one in resource._endpoints.items() if method != "HEAD"]


def operations_of(shown: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations of a document by method and path."""
    return {
        (method.upper(), path): operation
        for path, item in shown["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def schema_of(shown: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """Return a validator of a schema of the document, with patterns as Python reads them."""
    python = json.loads(json.dumps(shown["components"]).replace(')$"', ')\\\\Z"').replace(']*$"', ']*\\\\Z"'))
    return Draft202012Validator({**schema, "components": python})


def names_in(value: Any) -> Iterator[str]:
    """Give the names of the components that a part of the document refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for one in value.values():
            yield from names_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from names_in(one)


@pytest.fixture
async def system(tmp_path: Path) -> Any:
    """Give everything wired together, in local mode, on an SQLite file."""
    built = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url="http://127.0.0.1:8080")
    yield built
    await built.close()


@pytest.fixture
async def shown(system: System) -> dict[str, Any]:
    """Give the document as the app shows it."""
    async with client_of(system) as api:
        answer = await api.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """Give the document without an app."""
    entries = [Entry(method, path, "read", "…") for method, path in OPERATIONS]
    return document(entries, local=False)


async def test_the_document_is_openapi(shown: dict[str, Any]) -> None:
    """The specification's own schema and rules find nothing wrong."""
    assert shown["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(copy.deepcopy(shown)).iter_errors()) == []


async def test_it_has_the_endpoints_of_the_app_and_no_others(shown: dict[str, Any], system: System) -> None:
    """Nothing is undocumented, nothing is promised that is not there, nothing is kept that went away."""
    found = {(one.method, one.path) for one in endpoints_of(system)}
    assert set(operations_of(shown)) == found
    assert set(OPERATIONS) == found


async def test_each_operation_tells_its_scope_and_purpose(shown: dict[str, Any], system: System) -> None:
    """Scope and summary are the endpoint's own, and every id is used once."""
    operations = operations_of(shown)
    for one in endpoints_of(system):
        operation = operations[one.method, one.path]
        assert operation["x-scope"] == one.scope.value
        assert one.answer.__doc__ is not None
        assert operation["summary"] + "." == one.answer.__doc__.splitlines()[0]
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    assert {tag for operation in operations.values() for tag in operation["tags"]} == {
        tag["name"] for tag in shown["tags"]
    }


async def test_who_needs_a_key_is_said_as_it_is(tmp_path: Path, shown: dict[str, Any]) -> None:
    """Public operations need none; the others do, which in local mode may be left out on this machine."""
    key = "a-key-of-32-characters-for-tests"
    environment = {"AUTOPILOT_DATA": str(tmp_path / "locked"), "AUTOPILOT_API_KEY": key}
    locked = build(read(environment), url="http://127.0.0.1:8080")
    async with client_of(locked, client="203.0.113.9") as api:
        strict = (await api.get("/openapi.json")).json()
    await locked.close()
    for at, operation in operations_of(shown).items():
        public = operation["x-scope"] == Scope.PUBLIC.value
        assert operation["security"] == ([] if public else [{"bearer": []}, {}])
        assert operations_of(strict)[at]["security"] == ([] if public else [{"bearer": []}])
        refusals = {"401", "403"} & set(operation["responses"])
        assert refusals == (set() if public else {"401", "403"}), at
        if not public:
            assert operation["responses"]["401"]["headers"]["WWW-Authenticate"]["required"] is True
    assert strict["components"] == shown["components"]


async def test_no_component_is_left_over(shown: dict[str, Any]) -> None:
    """Whatever the components define, some operation uses."""
    schemas = shown["components"]["schemas"]
    reached: set[str] = set()
    waiting = set(names_in(shown["paths"])) - {"traceparent"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= set(names_in(schemas[name])) - reached
    assert reached == set(schemas)


def test_an_endpoint_nobody_described_is_not_passed_over() -> None:
    """There is no document with a hole in it: who adds an endpoint hears of it."""
    with pytest.raises(KeyError, match="/brand/new"):
        document([Entry("GET", "/brand/new", "read", "…")], local=False)


def test_every_code_has_its_status(described: dict[str, Any]) -> None:
    """A problem document as the router writes it is one by the schema of its code, and by no other's."""
    schemas = described["components"]["schemas"]
    kinds = {name: one for name, one in schemas.items() if name.startswith("Problem.")}
    errors = {error.code: error for error in tree(AutopilotError) if "code" in vars(error)}
    seen = set()
    for name, schema in kinds.items():
        code = schema["properties"]["code"]["const"]
        seen.add(code)
        assert schema["properties"]["status"]["const"] == STATUS[code]
        error: AutopilotError = errors[code].__new__(errors[code])
        required: dict[str, Any] = {one: [] for one in schema.get("required", ())}
        if "retry_after" in required:
            required["retry_after"] = 1
        AutopilotError.__init__(error, "what happened", **required)
        for text in ("hint", "autopilot"):
            if text in error.extra:
                error.extra = {**error.extra, text: "a"}
        shown = document_of(error, "0" * 32)
        fitting = [
            other
            for other, one in kinds.items()
            if schema_of(described, one).is_valid({**shown, **error.extra})
        ]
        assert fitting == [name]
        assert not schema_of(described, schema).is_valid({**shown, "stranger": 1})
        assert not schema_of(described, schema).is_valid({**shown, "title": "another"})
    assert seen <= set(STATUS)
    assert set(schemas["Problem"]["properties"]["code"]["enum"]) == set(STATUS)


def tree(error: type[AutopilotError]) -> Iterator[type[AutopilotError]]:
    """Give an error and all kinds of it."""
    yield error
    for kind in error.__subclasses__():
        yield from tree(kind)


def check(shown: dict[str, Any], at: tuple[str, str], answer: httpx.Response) -> None:
    """Assert that an answer is one the document knows."""
    responses = operations_of(shown)[at]["responses"]
    assert str(answer.status_code) in responses, (at, answer.status_code, answer.text)
    response = responses[str(answer.status_code)]
    if "content" not in response:
        assert answer.content == b""
        return
    content = response["content"][answer.headers["content-type"]]
    errors = list(schema_of(shown, content["schema"]).iter_errors(answer.json()))
    assert errors == [], (at, answer.text)


BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/autopilot/plan"): {"task": "generate_page", "meta": {"pageType": "home"}},
    ("POST", "/autopilot/registry"): SMALLEST,
    ("POST", "/autopilot/ensure-infra"): {"want": {"r2Buckets": ["abc"]}},
    ("POST", "/autopilot/keys"): {"name": "reader", "scopes": ["read"]},
}


async def test_what_a_broken_store_makes_of_each_operation_is_documented(
    system: System, shown: dict[str, Any]
) -> None:
    """With the store gone every operation answers with a status and a body of the document's."""
    await system.outside.table.close()
    seen = set()
    async with client_of(system) as api:
        for at in operations_of(shown):
            path = re.sub(r"\{[^}]+\}", "aaaaaaaa", at[1])
            answer = await api.request(at[0], path, json=BODIES.get(at, {}) if at[0] == "POST" else None)
            check(shown, at, answer)
            seen.add(answer.status_code)
    assert seen == {200, 207, 503}


async def test_what_a_broken_disk_makes_of_infrastructure_is_documented(
    system: System, shown: dict[str, Any], tmp_path: Path
) -> None:
    """Storage that cannot be created is a 502 with the report, by itself and in a self-heal pass."""
    (tmp_path / "d1").mkdir()
    (tmp_path / "d1" / "abc.sqlite3").mkdir()
    needy = {**SMALLEST, "needs": {"d1Databases": ["abc"], "queues": ["abc"]}}
    async with client_of(system) as api:
        check(shown, ("POST", "/autopilot/registry"), await api.post("/autopilot/registry", json=needy))
        for path in ("/autopilot/ensure-infra", "/__scheduled"):
            answer = await api.post(path)
            assert answer.status_code == 502
            check(shown, ("POST", path), answer)
            assert set(answer.json()["created"]) == set(KINDS)
        answer = await api.get("/autopilot/diagnose")
        check(shown, ("GET", "/autopilot/diagnose"), answer)
        assert answer.json()["drift"]["missing"]


async def test_what_idempotency_keys_make_of_an_operation_is_documented(
    system: System, shown: dict[str, Any]
) -> None:
    """A repeat while the first call runs, one after it, and another body are answers of the document's."""
    assert "409" in operations_of(shown)["POST", "/autopilot/plan"]["responses"]
    async with client_of(system) as api:
        for at in (("POST", "/autopilot/registry"), ("POST", "/autopilot/ensure-infra")):
            headers = {"idempotency-key": at[1]}
            calls = [api.post(at[1], json=BODIES[at], headers=headers) for _ in range(2)]
            first, second = await asyncio.gather(*calls)
            again = await api.post(at[1], json=BODIES[at], headers=headers)
            other = await api.post(at[1], json={**BODIES[at], "x": 1}, headers=headers)
            for answer in (first, second, again, other):
                check(shown, at, answer)
            assert sorted([first.status_code, second.status_code])[1] == 409
            assert again.headers["idempotent-replayed"] == "true"
            assert "Idempotent-Replayed" in operations_of(shown)[at]["responses"]["200"]["headers"]


async def test_the_document_is_made_once() -> None:
    """It is about the endpoints it was given and itself, and the same every time."""

    async def plan(_: Any) -> Reply:
        return Reply(200, b"{}")

    hot = Endpoint("POST", "/autopilot/plan", Scope.PLAN, plan)
    app = build_app([hot, *OpenApi([], local=False).endpoints()], Border(Gate("local")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://a") as client:
        first, second = await client.get("/openapi.json"), await client.get("/openapi.json")
    assert first.content == second.content
    assert list(first.json()["paths"]) == ["/openapi.json"]
