"""Autopilots in this process, and probes of health wherever an autopilot is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.outbound import Guard, parse_allowed
from infra.pool import Pool
from infra.signing import sign
from router.forward import App, AttemptFailed, Forward, Reply
from router.health import State
from tests.fakes import START, FakeClock
from tests.infra.scripted import headers_of, ok, refused_port, says, scripted, trickles
from tests.router.test_forward import BODY, SECRET, candidate, message

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def forward_to(app: App) -> Forward:
    """Return a forward that has one autopilot in this process."""
    return Forward(Pool(Guard(parse_allowed(["127.0.0.0/8"]))), {"mine": app}, FakeClock())


def starlette(answer: Callable[[Request], Awaitable[Response]]) -> App:
    """Return a Starlette app with one endpoint."""
    return Starlette(routes=[Route("/tasks", answer, methods=["POST"])])


async def post(app: App, seconds: float = 5.0) -> Reply:
    """Post a task to an app of this process."""
    deadline = asyncio.get_running_loop().time() + seconds
    return await forward_to(app).post(candidate("local:mine"), "/tasks", message(), deadline)


async def test_a_local_autopilot_receives_what_a_remote_one_would() -> None:
    """In this process too a task comes signed, traced and with its body whole."""
    seen: list[Any] = []

    async def answer(request: Request) -> Response:
        seen.extend([request.url.path, dict(request.headers), await request.body()])
        return JSONResponse({"done": True}, 429, {"retry-after": "3"})

    assert await post(starlette(answer)) == Reply(429, b'{"done":true}', 3.0)
    path, headers, body = seen
    assert (path, body) == ("/tasks", BODY)
    assert headers.pop("traceparent").startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(START)),
        "webhook-signature": sign(SECRET, "msg_1", int(START), BODY),
        "idempotency-key": "key-7",
        "x-autopilot-hops": "1",
        "content-type": "application/json",
    }


async def test_a_streamed_answer_is_put_together() -> None:
    """An app that streams, and listens for a caller that leaves, is heard to the end."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"a"', b":", b"1}"):
            yield piece
            await asyncio.sleep(0)

    async def answer(_: Request) -> Response:
        return StreamingResponse(pieces())

    assert await post(starlette(answer)) == Reply(200, b'{"a":1}', None)


async def test_a_caller_leaves_after_the_answer_only() -> None:
    """An app that waits for the end of the call learns it when its answer is complete."""
    told: list[str] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        told.append((await receive())["type"])
        left = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not left.done()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        assert not left.done()
        await send({"type": "http.response.body", "body": b"}"})
        told.append((await left)["type"])

    assert (await post(app)).result == b"{}"
    assert told == ["http.request", "http.disconnect"]


async def test_a_local_redirect_fails_and_text_is_raw() -> None:
    """The rules for answers are the same in this process."""

    async def redirect(_: Request) -> Response:
        return Response(status_code=307, headers={"location": "/elsewhere"})

    async def text(_: Request) -> Response:
        return Response("hello")

    with pytest.raises(AttemptFailed, match="redirect"):
        await post(starlette(redirect))
    assert (await post(starlette(text))).result == b'{"raw":"hello"}'


async def raises(_: Scope, __: Receive, ___: Send) -> None:
    """Crash before any answer."""
    raise RuntimeError("secret text")


async def silent(_: Scope, __: Receive, ___: Send) -> None:
    """Return without any answer."""


async def times_out(_: Scope, __: Receive, ___: Send) -> None:
    """Fail at something of its own that took too long."""
    raise TimeoutError("a database")


async def headless(_: Scope, __: Receive, send: Send) -> None:
    """Answer a body without a head."""
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize("app", [raises, silent, times_out, headless])
async def test_a_local_crash_is_a_failure_of_the_autopilot(app: App) -> None:
    """A bug of an autopilot neither breaks the router nor shows its text, and the call is not over."""
    with pytest.raises(AttemptFailed, match="crashed") as failure:
        await post(app)
    assert not failure.value.safe
    assert not failure.value.late
    assert "secret" not in str(failure.value)


async def test_a_slow_local_autopilot_is_late_and_stopped() -> None:
    """At the deadline an autopilot of this process is stopped, even one that fails at being stopped."""
    ends: list[str] = []

    async def slow(_: Scope, __: Receive, ___: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("stopped")
            raise

    async def stubborn(_: Scope, __: Receive, ___: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("failed")
            raise ValueError("no") from None

    for app in (slow, stubborn):
        with pytest.raises(AttemptFailed) as failure:
            await post(app, seconds=0.02)
        assert failure.value.late
        assert not failure.value.safe
    assert ends == ["stopped", "failed"]


async def test_a_caller_that_leaves_stops_a_local_autopilot() -> None:
    """Cancelling the call cancels the work, and is not mistaken for a late answer."""
    started = asyncio.Event()

    async def slow(_: Scope, __: Receive, ___: Send) -> None:
        started.set()
        await asyncio.Event().wait()

    call = asyncio.ensure_future(post(slow))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


# Probes


async def probe(endpoint: str, app: App = silent, seconds: float = 5.0) -> State:
    """Ask an autopilot for its health."""
    deadline = asyncio.get_running_loop().time() + seconds
    forward = forward_to(app)
    try:
        return await forward.probe(candidate(endpoint), deadline)
    finally:
        forward._pool.close()


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, b'{"status":"healthy"}', State.HEALTHY),
        (200, b'{"status":"pass"}', State.HEALTHY),
        (204, b"", State.HEALTHY),
        (200, b"OK", State.HEALTHY),
        (200, b"[1]", State.HEALTHY),
        (200, b'{"status":7}', State.HEALTHY),
        (200, b"[" * 5000, State.HEALTHY),
        (200, b'"\xff"', State.HEALTHY),
        (200, b'{"status":"degraded"}', State.DEGRADED),
        (200, b'{"status":"Warn"}', State.DEGRADED),
        (200, b'{"status":"DOWN"}', State.DOWN),
        (200, b'{"status":"fail"}', State.DOWN),
        (200, b'{"status":"unhealthy"}', State.DOWN),
        (404, b"", State.UNKNOWN),
        (405, b'{"status":"healthy"}', State.UNKNOWN),
        (501, b"", State.UNKNOWN),
        (302, b"", State.DOWN),
        (401, b"", State.DOWN),
        (500, b'{"status":"healthy"}', State.DOWN),
        (503, b"", State.DOWN),
    ],
)
async def test_what_a_health_answer_means(status: int, body: bytes, state: State) -> None:
    """Status and word decide; an autopilot without `/health` stays unknown; local or remote is the same."""
    text = b"HTTP/1.1 204 X\r\n\r\n" if status == 204 else ok(body, status=b"%d X" % status)
    async with scripted(says(text)) as server:
        assert await probe(server.url) is state

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": body})

    assert await probe("local:mine", app) is state


async def test_a_probe_is_a_plain_get() -> None:
    """A probe carries nothing but where it goes and who asks."""
    async with scripted(says(ok())) as server:
        await probe(f"{server.url}/base?key=1")
        [request] = server.requests
    assert request.startswith(b"GET /base/health?key=1 HTTP/1.1\r\n")
    assert [name for name, _ in headers_of(request)] == ["host", "user-agent", "accept"]


async def test_who_cannot_be_asked_is_down() -> None:
    """Dead, refused, silent, broken, endless and unknown autopilots are down."""
    assert await probe(f"http://127.0.0.1:{await refused_port()}") is State.DOWN
    assert await probe("https://10.0.0.1") is State.DOWN
    assert await probe("local:nobody") is State.DOWN
    assert await probe("local:mine", raises) is State.DOWN
    async with scripted(says()) as server:
        assert await probe(server.url, seconds=0.02) is State.DOWN
        server.play = says(b"garbage", close=True)
        assert await probe(server.url) is State.DOWN
        server.play = trickles(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 8192)
        assert await probe(server.url) is State.DOWN
