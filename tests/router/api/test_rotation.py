"""Signing secrets are rotated over HTTP, and no task is refused meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from autopilots.kit import Call, Meta, Parts, Pilot
from infra.clock import rfc3339
from infra.signing import Verifier, is_secret, verify
from router.planner import Caller
from router.serve import _Server, url_of
from router.settings import read
from router.trace import Trace
from router.wiring import System, build
from tests.router.api.conftest import client_of, register
from tests.router.parts import asking
from tests.upstream import Received, Upstream

CAP = "count.one"
DAY = 86_400


async def rotate(api: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Rotate the secret of the counter."""
    return await api.post("/autopilot/registry/counter/secret", json=body)


async def plan(api: httpx.AsyncClient, number: int = 1) -> httpx.Response:
    """Send the counter a task."""
    return await api.post("/autopilot/plan", json={"capability": CAP, "meta": {"n": number}})


def signed_by(task: Received, *secrets: str) -> list[bool]:
    """Say of each secret whether a task carries its signature."""
    headers = [(name.encode(), value.encode()) for name, value in task.headers.items()]
    found = []
    for secret in secrets:
        try:
            found.append(bool(verify([secret], headers, task.body, time.time())))
        except Exception:  # noqa: BLE001  not by this one
            found.append(False)
    return found


async def test_a_rotation_answers_the_new_secret_once(
    api: httpx.AsyncClient, up: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """201 with the secret and until when the old one signs; no later answer and no log line has it."""
    before = time.time()
    created = await register(api, "counter", up.url, CAP)
    answer = await api.post("/autopilot/registry/counter/secret")
    body = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (201, '"2"')
    assert set(body) == {"ok", "autopilot", "signing_secret", "previous_until"}
    assert (body["ok"], body["autopilot"]) == (True, "counter")
    assert is_secret(body["signing_secret"])
    assert body["signing_secret"] != created.json()["signing_secret"]
    assert rfc3339(before + DAY) <= body["previous_until"] <= rfc3339(time.time() + DAY)
    for path in ("/autopilot/registry/counter", "/autopilot/list", "/autopilot/audit"):
        shown = await api.get(path)
        assert "whsec_" not in shown.text
        assert body["signing_secret"] not in shown.text
    assert "whsec_" not in caplog.text
    assert "signing_secret" not in (await register(api, "counter", up.url, CAP)).json()


async def test_tasks_carry_both_signatures_and_then_one(api: httpx.AsyncClient, up: Upstream) -> None:
    """From the next task on both secrets sign; a rotation without an overlap leaves the newest alone."""
    first = (await register(api, "counter", up.url, CAP)).json()["signing_secret"]
    await plan(api)
    second = (await rotate(api, overlap_seconds=60)).json()["signing_secret"]
    await plan(api)
    third = (await rotate(api, overlap_seconds=0)).json()["signing_secret"]
    await plan(api)
    assert [signed_by(task, first, second, third) for task in up.tasks] == [
        [True, False, False],
        [True, True, False],
        [False, False, True],
    ]


async def test_a_rotation_is_not_kept_for_a_repeat(
    api: httpx.AsyncClient, up: Upstream, system: System
) -> None:
    """An idempotency key changes nothing: each call makes a secret, and none is stored but with its owner."""
    await register(api, "counter", up.url, CAP)
    secrets = set()
    for _ in range(2):
        answer = await api.post("/autopilot/registry/counter/secret", headers={"idempotency-key": "again"})
        assert "idempotent-replayed" not in answer.headers
        secrets.add(answer.json()["signing_secret"])
    assert len(secrets) == 2
    for route in ("registry", "secret", "rotate"):
        assert (await system.outside.table.range(f"idempotency:{route}")).items == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"overlap_seconds": -1}, "overlap_seconds"),
        ({"overlap_seconds": 30 * DAY + 1}, "overlap_seconds"),
        ({"overlap_seconds": 1.5}, "overlap_seconds"),
        ({"overlap_seconds": "60"}, "overlap_seconds"),
        ({"overlap_seconds": True}, "overlap_seconds"),
        ({"overlap_seconds": None}, "overlap_seconds"),
        ({"overlap": 60}, "overlap"),
        ([], "body"),
    ],
)
async def test_a_bad_overlap_rotates_nothing(
    api: httpx.AsyncClient, up: Upstream, body: Any, field: str
) -> None:
    """422 names the field, and the registration is as it was."""
    await register(api, "counter", up.url, CAP)
    answer = await api.post("/autopilot/registry/counter/secret", json=body)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert (await api.get("/autopilot/registry/counter")).headers["etag"] == '"1"'


@pytest.mark.parametrize("seconds", [0, 60.0, 30 * DAY])
async def test_the_ends_of_what_an_overlap_may_be(
    api: httpx.AsyncClient, up: Upstream, seconds: float
) -> None:
    """No overlap, one written with a point, and thirty days."""
    await register(api, "counter", up.url, CAP)
    assert (await rotate(api, overlap_seconds=seconds)).status_code == 201


async def test_too_many_secrets_are_a_conflict(api: httpx.AsyncClient, up: Upstream) -> None:
    """A fourth earlier secret is refused until one ends; ending all of them is always possible."""
    await register(api, "counter", up.url, CAP)
    statuses = [(await rotate(api, overlap_seconds=60)).status_code for _ in range(4)]
    assert statuses == [201, 201, 201, 409]
    assert (await rotate(api, overlap_seconds=0)).status_code == 201


async def test_nobody_has_a_secret(api: httpx.AsyncClient) -> None:
    """404 for an autopilot that is not registered, and for what is no name."""
    for name in ("counter", "No-Name"):
        assert (await api.post(f"/autopilot/registry/{name}/secret")).status_code == 404


async def test_rotating_takes_the_right_to_register_that_name(tmp_path: Path, up: Upstream) -> None:
    """The key of one autopilot rotates its own secret and no other's; readers rotate none."""
    admin = "a-key-of-32-characters-for-tests"
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": admin,
        "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.0/8",
    }
    system = build(read(environment), url="http://127.0.0.1:8080")
    async with client_of(system) as api:
        api.headers["authorization"] = f"Bearer {admin}"
        await register(api, "counter", up.url, CAP)
        keys = {}
        for scope in ("register:counter", "register:other", "register", "read"):
            made = await api.post(
                "/autopilot/keys", json={"name": scope.replace(":", "-"), "scopes": [scope]}
            )
            keys[scope] = made.json()["key"]
        statuses = {}
        for scope, key in keys.items():
            api.headers["authorization"] = f"Bearer {key}"
            statuses[scope] = (await rotate(api, overlap_seconds=0)).status_code
        del api.headers["authorization"]
        assert (await rotate(api)).status_code == 401
    await system.close()
    assert statuses == {"register:counter": 201, "register:other": 403, "register": 201, "read": 403}


# A rotation under load


class Number(Meta):
    """Which task this is."""

    n: int


pilot: Pilot[Parts] = Pilot("counter", "Counts")


@pilot.capability("count.one")
async def count(meta: Number, call: Call[Parts]) -> dict[str, int]:
    """Give the number back."""
    return {"n": meta.n}


class Restarting:
    """The counter's process, which an operator can start anew with other secrets."""

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def start(self, *secrets: str) -> None:
        """Serve with these secrets from now on."""
        parts: Any = None
        self.app = pilot.app(parts, verifier=Verifier(secrets, time.time))


@asynccontextmanager
async def listening(app: Restarting) -> AsyncIterator[str]:
    """Serve an app on a loopback socket; give its URL."""
    # Named by its protocol, asyncio knows it for TCP and sends at once what is written.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, ws="none"))
        serving = asyncio.create_task(server.serve([bound]))
        await server.answering.wait()
        try:
            yield url_of(bound)
        finally:
            server.should_exit = True
            await serving


async def test_no_task_is_refused_while_a_secret_is_rotated(api: httpx.AsyncClient, system: System) -> None:
    """Of 1,000 tasks over HTTP all are done: the secret changes, and the autopilot changes over twice."""
    process = Restarting()
    secrets: list[str] = []
    done = 0

    async def second_secret() -> None:
        secrets.append((await rotate(api)).json()["signing_secret"])

    async def both() -> None:
        process.start(*reversed(secrets))

    async def new_alone() -> None:
        process.start(secrets[1])

    events: dict[int, Callable[[], Awaitable[None]]] = {250: second_secret, 500: both, 750: new_alone}

    async def worker(numbers: range) -> None:
        nonlocal done
        for number in numbers:
            outcome = await system.inside.planner.plan(asking(CAP, {"n": number}), Caller(Trace()))
            assert (outcome.status, bytes(outcome.result)) == (200, b'{"n":%d}' % number)
            done += 1
            if event := events.pop(done, None):
                await event()

    async with listening(process) as url:
        secrets.append((await register(api, "counter", url, CAP)).json()["signing_secret"])
        process.start(secrets[0])
        await asyncio.gather(*(worker(range(start, 1000, 10)) for start in range(10)))
    assert (done, events) == (1000, {})
