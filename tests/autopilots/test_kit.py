"""The app of an autopilot: who may send it tasks, and how strictly they are read."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from autopilots.kit import MAX_TASK, Call, Meta, Parts, Pilot
from infra.signing import CHALLENGE, Verifier, new_secret, sign
from router.errors import RateLimited
from router.settings import read
from router.wiring import BUILT_IN, build
from tests.fakes import FakeClock
from tests.router.api.conftest import client_of

ROUTER, OTHER = new_secret(), new_secret()


class Words(Meta):
    """What to say."""

    text: str
    fail: bool = False


class Greeter:
    """A pilot that counts what it did."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.pilot: Pilot[Parts] = Pilot("greeter", "Greets")

        @self.pilot.capability("text.say")
        async def say(meta: Words, call: Call[Parts]) -> dict[str, Any]:
            """Say something."""
            self.said.append(meta.text)
            if meta.fail:
                raise RateLimited
            return {"said": len(meta.text), "key": call.idempotency_key}

        @self.pilot.capability("text.sing", optional=True)
        async def sing(meta: Words, _: Call[Parts]) -> dict[str, Any]:
            """Sing something."""
            return {"sung": meta.text}

    def client(self, verifier: Verifier | None = None) -> httpx.AsyncClient:
        """Return a client of its app."""
        parts: Any = None
        transport = httpx.ASGITransport(app=self.pilot.app(parts, verifier=verifier))
        return httpx.AsyncClient(transport=transport, base_url="http://greeter.test")


@pytest.fixture
def greeter() -> Greeter:
    """Give a greeter."""
    return Greeter()


def task(text: str = "hello", **more: Any) -> bytes:
    """Return the body of a task."""
    return json.dumps({"task": "say", "capability": "text.say", "meta": {"text": text, **more}}).encode()


def signed(body: bytes, clock: FakeClock, message_id: str = "msg_1", secret: str = ROUTER) -> dict[str, str]:
    """Return the headers of a signed task."""
    return {
        "content-type": "application/json",
        "idempotency-key": "key-7",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(clock())),
        "webhook-signature": sign(secret, message_id, int(clock()), body),
    }


async def test_a_signed_task_is_done(greeter: Greeter, clock: FakeClock) -> None:
    """With the secret of either side of a rotation, and the idempotency key reaches the handler."""
    async with greeter.client(Verifier([ROUTER, OTHER], clock)) as client:
        for number, secret in enumerate((ROUTER, OTHER)):
            headers = signed(task(), clock, f"msg_{number}", secret)
            answer = await client.post("/tasks", content=task(), headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"said": 5, "key": "key-7"})
        wanted = b'{"enable":"text.sing"}'
        configured = await client.post("/configure", content=wanted, headers=signed(wanted, clock, "msg_3"))
    assert configured.json()["capability"]["name"] == "text.sing"


@pytest.mark.parametrize("path", ["/tasks", "/configure"])
async def test_what_is_not_signed_is_refused_unread(greeter: Greeter, clock: FakeClock, path: str) -> None:
    """Unsigned, forged, altered, late, and even what is no JSON: 401 as a problem document, nothing done."""
    body = task() if path == "/tasks" else b'{"enable":"text.sing"}'
    good = signed(body, clock)
    late = FakeClock(clock() - 301)
    refused: list[tuple[bytes, dict[str, str]]] = [
        (body, {"content-type": "application/json"}),
        (body, signed(body, clock, secret=OTHER)),
        (body.replace(b"e", b"i", 1), good),
        (body + b" ", good),
        (body, signed(body, late)),
        (b"not JSON", good),
        (b"not JSON", {"content-type": "application/json"}),
        *((body, {**good, name: value + "0"}) for name, value in good.items() if name.startswith("webhook")),
        *(
            (body, {k: v for k, v in good.items() if k != name})
            for name in good
            if name.startswith("webhook")
        ),
    ]
    async with greeter.client(Verifier([ROUTER], clock)) as client:
        for content, headers in refused:
            answer = await client.post(path, content=content, headers=headers)
            assert answer.status_code == 401, (content, headers)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == CHALLENGE
            problem = answer.json()
            assert (problem["code"], problem["title"]) == ("unauthenticated", "A valid signature is needed")
            assert ROUTER not in answer.text
        assert greeter.said == []
        assert (await client.post(path, content=body, headers=good)).status_code == 200


async def test_a_task_is_done_once_for_one_message(greeter: Greeter, clock: FakeClock) -> None:
    """A replay is refused, also with another idempotency key, also of a task that failed."""
    async with greeter.client(Verifier([ROUTER], clock)) as client:
        for fail, status in ((False, 200), (True, 429)):
            body = task(fail=fail)
            headers = signed(body, clock, f"msg_{fail}")
            statuses = []
            for key in ("a", "a", "b"):
                sent = {**headers, "idempotency-key": key}
                statuses.append((await client.post("/tasks", content=body, headers=sent)).status_code)
            assert statuses == [status, 401, 401]
    assert len(greeter.said) == 2


async def test_health_needs_no_signature(greeter: Greeter, clock: FakeClock) -> None:
    """Probes carry none."""
    async with greeter.client(Verifier([ROUTER], clock)) as client:
        assert (await client.get("/health")).json()["status"] == "healthy"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b'{"capability":"text.say","meta":{"text":"a","text":"b"}}', 400, "malformed"),
        (b'{"capability":"text.say","capability":"text.sing"}', 400, "malformed"),
        (b'{"capability":"text.say","meta":{"text":"\\ud800"}}', 400, "malformed"),
        (b'\xef\xbb\xbf{"capability":"text.say"}', 400, "malformed"),
        (b'{"capability":"text.say","meta":{"text":"\xff"}}', 400, "malformed"),
        (b'{"a":NaN}', 400, "malformed"),
        (b"[" * 65 + b"]" * 65, 422, "invalid_body"),
        (b"[" + b"0," * 50_001 + b"0]", 422, "invalid_body"),
        (b"[]", 422, "invalid_body"),
        (b"null", 422, "invalid_body"),
        (b'"' + b"x" * MAX_TASK + b'"', 413, "too_large"),
    ],
)
async def test_bodies_are_read_strictly(greeter: Greeter, body: bytes, status: int, code: str) -> None:
    """What parsers read differently, or what is too much, is refused with a code before anything is done."""
    async with greeter.client() as client:
        for path in ("/tasks", "/configure"):
            answer = await client.post(path, content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert greeter.said == []


async def test_a_body_says_that_it_is_json(greeter: Greeter) -> None:
    """A form of some web page cannot send a task to an autopilot on this machine."""
    async with greeter.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"):
            answer = await client.post("/tasks", content=task(), headers={"content-type": kind})
            assert answer.status_code == 415
    assert greeter.said == []


async def test_a_task_may_be_larger_than_a_caller_of_the_router_can_send(greeter: Greeter) -> None:
    """What one autopilot plans for another, such as a whole page, arrives."""
    async with greeter.client() as client:
        answer = await client.post(
            "/tasks", content=task("x" * 2_000_000), headers={"content-type": "application/json"}
        )
    assert answer.json()["said"] == 2_000_000


async def test_a_caller_that_leaves_is_no_crash(greeter: Greeter, caplog: pytest.LogCaptureFixture) -> None:
    """Half a body is not done, and nothing is logged as an error."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/tasks", "headers": headers, "query_string": b""}
    parts: Any = None
    await greeter.pilot.app(parts)(scope, receive, send)
    assert sent[0]["status"] == 400
    assert greeter.said == []
    assert caplog.records == []


async def test_autopilots_of_the_routers_process_cannot_be_reached_from_outside(tmp_path: Path) -> None:
    """They verify nothing, because no path of the router's app leads to them but through the planner."""
    system = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url="http://127.0.0.1:8080")
    async with client_of(system) as client:
        for name in ("", *(f"/{pilot.name}" for pilot in BUILT_IN), "/local:ai-employee", "/autopilot"):
            for path in ("/tasks", "/configure"):
                for host in ("127.0.0.1:8080", "local", "ai-employee"):
                    answer = await client.post(
                        f"{name}{path}", json={"capability": "email.process"}, headers={"host": host}
                    )
                    assert answer.status_code in {404, 405}, path
                    assert "capability" not in answer.text
    await system.close()
