"""A walk over every endpoint with secrets in every place, and all that is left of it to be looked at."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from infra.signing import sign
from router.api.http import Resource
from router.task import State
from router.wiring import System, manifests
from tests.router.api.conftest import client_of
from tests.router.api.hostile import (
    CREDENTIALS,
    META,
    OURS,
    RESOLVER,
    SETTINGS,
    SHAPED,
    WEBHOOK,
    Answer,
    Left,
    running,
)
from tests.router.parts import dump


def routes_of(system: System) -> Iterator[tuple[str, str]]:
    """Give method and path of every route."""
    for route in system.app._rest.routes:  # type: ignore[attr-defined]
        is_api = isinstance(route.endpoint, Resource)
        methods = route.endpoint._endpoints if is_api else route.methods
        yield from ((method, route.path) for method in methods)


GOOD: dict[tuple[str, str], Any] = {
    ("POST", "/autopilot/plan"): {"task": "echo", "meta": {"word": META}},
    ("POST", "/autopilot/registry"): {
        "name": "echo",
        "endpoint": "UPSTREAM",
        "capabilities": ["text.echo", "text.guarded"],
        "tasks": {"echo": "text.echo"},
    },
    ("POST", "/autopilot/registry/{name}/heartbeat"): None,
    ("POST", "/autopilot/registry/{name}/secret"): {"overlap_seconds": 60},
    ("POST", "/autopilot/ensure-infra"): {"want": {"queues": ["jobs"]}, "dry_run": False},
    ("POST", "/__scheduled"): None,
    ("POST", "/autopilot/keys"): {"name": "somebody", "scopes": ["read"]},
    ("POST", "/autopilot/keys/{id}/rotate"): {"overlap_seconds": 60},
    ("POST", "/webhooks/mail"): {"raw": "From: a@example.com\nTo: b@example.com\nSubject: Hi\n\nHello\n"},
    ("POST", "/webhooks/form"): {"email": "ada@example.com", "message": "Hello"},
    ("POST", "/autopilot/approvals/{id}/approve"): {},
    ("POST", "/autopilot/approvals/{id}/refuse"): {},
    ("POST", "/autopilot/tasks/{id}/cancel"): None,
    ("POST", "/autopilot/tasks/{id}/retry"): None,
    ("DELETE", "/autopilot/registry/{name}"): None,
    ("DELETE", "/autopilot/keys/{id}"): None,
    ("GET", "/autopilot/catalogue"): None,
    ("GET", "/autopilot/list"): None,
    ("GET", "/autopilot/registry/{name}"): None,
    ("GET", "/autopilot/registry/{name}/health"): None,
    ("GET", "/autopilot/diagnose"): None,
    ("GET", "/autopilot/keys"): None,
    ("GET", "/autopilot/approvals"): None,
    ("GET", "/autopilot/approvals/{id}"): None,
    ("GET", "/autopilot/tasks"): None,
    ("GET", "/autopilot/tasks/{id}"): None,
    ("GET", "/autopilot/audit"): None,
    ("GET", "/autopilot/events"): None,
    ("GET", "/health"): None,
    ("GET", "/ready"): None,
    ("GET", "/openapi.json"): None,
}
"""Every endpoint with a body that it takes, None for none. Whoever adds one says here how it is called."""
PAGES = ("/admin", "/autopilot-admin", "/pages/", "/checkout/")
"""How the routes begin that are for browsers: they take no body and no key."""


class Walk:
    """Calls endpoints and keeps what they answer."""

    def __init__(self, client: httpx.AsyncClient, left: Left, endpoint: str) -> None:
        self._client = client
        self._left = left
        self._endpoint = endpoint
        self.places = {"name": "echo", "slug": "welcome"}
        """What stands in the places of paths."""
        self.failed = False
        """Whether everything was let fail already."""

    async def send(self, method: str, path: str, headers: Mapping[str, str], content: bytes = b"") -> Any:
        """Make one call with every credential there is, and return what it was answered."""
        sent = {**CREDENTIALS, "authorization": f"Bearer {self._left.key}", **headers}
        answer = await self._client.request(method, path, headers=sent, content=content)
        text = "\n".join(f"{name}: {value}" for name, value in answer.headers.items()) + "\n\n" + answer.text
        self._left.answers.append(Answer(f"{method} {path} {content[:80]!r}", answer.status_code, text))
        return answer

    async def json(self, method: str, path: str, body: Any, **headers: str) -> Any:
        """Make a call with a JSON body, none for None."""
        if body is None:
            return await self.send(method, path, headers)
        content = json.dumps(body).encode()
        signed = _signed(content) if path.startswith("/webhooks") else {}
        return await self.send(
            method, path, {"content-type": "application/json", **signed, **headers}, content
        )

    async def endpoint(self, method: str, template: str) -> None:
        """Call an endpoint as it wants to be called, and in every way it does not."""
        good = json.loads(json.dumps(GOOD[method, template]).replace("UPSTREAM", self._endpoint))
        path = re.sub(r"\{(\w+)(?::path)?\}", lambda place: self._place(place[1]), template)
        if method != "DELETE":
            await self.json(method, path, good)
        for header in ("if-match", "last-event-id", "traceparent", "content-encoding", "accept"):
            await self.json(method, path, good, **{header: SHAPED})
        await self.json(method, f"{path}?{SHAPED}={SHAPED}&limit={SHAPED}&after={SHAPED}", good)
        for place in re.findall(r"\{(\w+)(?::path)?\}", template):
            other = re.sub(rf"\{{{place}(?::path)?\}}", SHAPED, template)
            path_of_one = re.sub(r"\{(\w+)\}", lambda one: self._place(one[1]), other)
            await self.json(method, path_of_one, good)
            await self.json(method, path_of_one, good, authorization=f"Bearer {self._left.poor_key}")
        for body in _bad(good):
            await self.json(method, path, body)
        json_type = {"content-type": "application/json"}
        await self.send(method, path, json_type, f'{{"{SHAPED}": "{SHAPED}'.encode())
        await self.send(method, path, json_type, f'"{SHAPED}"'.encode())
        await self.send(method, path, {"content-type": f"text/{SHAPED}"}, SHAPED.encode())
        for authorization in (
            f"Bearer {SHAPED}",
            f"Basic {SHAPED}",
            f"Bearer {self._left.key[:-1]}_",
            SHAPED,
        ):
            await self.json(method, path, good, authorization=authorization)

    def _place(self, name: str) -> str:
        return self.places[name]


def _bad(good: Any) -> Iterator[Any]:
    """Give bodies with something like a secret for every value, and as the name of a further one."""
    if not isinstance(good, dict):
        return
    yield {**good, SHAPED: SHAPED}
    for name, value in good.items():
        yield {**good, name: SHAPED}
        yield {**good, name: {SHAPED: SHAPED}}
        yield {**good, name: [SHAPED, {SHAPED: [SHAPED]}]}
        if isinstance(value, dict):
            yield from ({**good, name: inner} for inner in _bad(value) if name != "meta")


def _signed(content: bytes) -> dict[str, str]:
    now = int(time.time())
    name = f"msg_{base64.b16encode(content).decode()[:40]}"
    return {
        "webhook-id": name,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(WEBHOOK, name, now, content),
    }


async def walk(folder: Path) -> Left:
    """Walk over everything and return what is left of it."""
    left = Left()
    async with running(folder, left) as (system, autopilot), client_of(system) as client:
        asyncio.get_running_loop().getaddrinfo = _no_names  # type: ignore
        admin = {"authorization": f"Bearer {SETTINGS['AUTOPILOT_API_KEY']}"}
        body = {"name": "walker", "scopes": ["admin"]}
        left.key = (await client.post("/autopilot/keys", json=body, headers=admin)).json()["key"]
        poor = {"name": "poor", "scopes": ["plan:nothing.at.all"]}
        left.poor_key = (await client.post("/autopilot/keys", json=poor, headers=admin)).json()["key"]
        walker = Walk(client, left, autopilot.url)
        for manifest in manifests():
            await walker.json("POST", "/autopilot/registry", manifest)
        await walker.json(
            "POST",
            "/autopilot/registry",
            {**manifests()[1], "name": "far", "endpoint": "https://far.example.org"},
        )
        page = {"slug": "welcome", "html": "<h1>Welcome</h1>"}
        await walker.json("POST", "/autopilot/plan", {"capability": "web.pages.deploy", "meta": page})
        endpoints = sorted({*routes_of(system)}, key=_deletions_last)
        for method, template in endpoints:
            if method == "HEAD":
                continue
            if method == "DELETE" and not walker.failed:
                await _failures(walker, system)
            if "{id}" in template:
                walker.places["id"] = await _thing(
                    client, system, admin, template, len(left.walked | left.unknown)
                )
            if (method, template) in GOOD:
                await walker.endpoint(method, template)
            elif method == "GET" and template.startswith(PAGES):
                await _page(walker, template)
            else:
                left.unknown.add((method, template))
                continue
            left.walked.add((method, template))
        later = {"task": "echo", "meta": {"word": META}, "mode": "async", "callback_url": autopilot.url}
        for word in (META, "answer:500", "answer:redirect"):
            await walker.json("POST", "/autopilot/plan", {**later, "meta": {"word": word}})
        while await system.deferred.worker.work_once():
            pass
        await system.healer.heal()
        await system.fire_schedules()
        await system.prober.round()
    await asyncio.sleep(0)
    _read(folder, left)
    return left


def _read(folder: Path, left: Left) -> None:
    left.rows = _readable(dump(folder / "router.db"))
    left.blobs = {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


async def _thing(
    client: httpx.AsyncClient, system: System, admin: Mapping[str, str], template: str, number: int
) -> str:
    """Return the id of a new thing of the kind that a path is about."""
    if template.startswith(("/autopilot/approvals", "/autopilot/tasks")):
        mode = "async" if template.startswith("/autopilot/tasks") else "sync"
        task = {"capability": "text.guarded", "meta": {"number": number}, "mode": mode}
        asked = await client.post("/autopilot/plan", json=task, headers=admin)
        name = str(asked.json()["id"])
        if template.endswith("/retry"):
            rows = system.deferred.rows
            await rows.write(replace(await rows.get(name), state=State.FAILED))
        return name
    key = {"name": f"key {number}", "scopes": ["read"]}
    made = await client.post("/autopilot/keys", json=key, headers=admin)
    return str(made.json()["record"]["id"])


def _deletions_last(endpoint: tuple[str, str]) -> tuple[bool, bool, str]:
    method, path = endpoint
    return method == "DELETE", path != "/autopilot/registry", path


async def _no_names(host: str, *_: Any, **__: Any) -> Any:
    raise OSError(f"{RESOLVER}: {host} at 10.9.8.7")


async def _page(walker: Walk, template: str) -> None:
    """Call a route that is for browsers."""
    for place in ("welcome", SHAPED):
        path = template.replace("{slug:path}", place)
        await walker.send("GET", path, {})
        await walker.send("GET", f"{path}?{SHAPED}={SHAPED}&preview={SHAPED}&version=1", {})


async def _failures(walker: Walk, system: System) -> None:
    """Let everything outside fail in its own way, and the inside too."""
    walker.failed = True
    for word in ("500", "redirect", "broken", "bad header"):
        await walker.json("POST", "/autopilot/plan", {"task": "echo", "meta": {"word": f"answer:{word}"}})
    far = {"capability": "web.pages.generate", "autopilot": "far", "meta": {"pageType": "home"}}
    await walker.json("POST", "/autopilot/plan", far)
    for capability, meta in (
        ("email.send", {"to": "bob@example.com", "subject": "Hi", "text": "Hello"}),
        ("payment.checkout.create", {"amount": 4900, "currency": "usd", "description": "Course"}),
        ("email.process", {"from": "a@example.com", "subject": "Hi", "text": f"my key is {SHAPED}"}),
    ):
        await walker.json("POST", "/autopilot/plan", {"capability": capability, "meta": meta})
    leaky = {"want": {"queues": ["leaky"]}}
    await walker.json("POST", "/autopilot/ensure-infra", leaky)
    needy = {"name": "needy", "endpoint": "http://127.0.0.1:9", "capabilities": ["text.needy"]}
    await walker.json("POST", "/autopilot/registry", {**needy, "needs": leaky["want"]})
    await walker.json("POST", "/autopilot/plan", {"capability": "text.needy", "meta": {}})
    await walker.json("POST", "/__scheduled", None)
    await walker.json("GET", "/autopilot/diagnose", None)
    await walker.json("GET", f"/{SHAPED}", None)
    await walker.json("POST", f"/autopilot/list/{SHAPED}", {})

    async def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{' '.join(OURS)} and {SHAPED}")

    system.outside.table.get = crash  # type: ignore[method-assign]
    for path in ("/autopilot/registry/echo", "/pages/welcome", "/health"):
        await walker.json("GET", path, None)
    del system.outside.table.get


def _readable(rows: Mapping[Any, Any]) -> str:
    """Return rows as text, with what is packed in them unpacked."""
    lines = []
    for key, (document, _) in rows.items():
        lines.append(f"{key} {json.dumps(document, ensure_ascii=False)}")
        if isinstance(packed := document.get("answer"), str):
            lines.append(zlib.decompress(base64.b64decode(packed)).decode())
    return "\n".join(lines)
