"""One exchange with an autopilot, wherever it is: `https:`, `http:` or `local:` (in this process).

What is sent: the JSON text given, traced, and signed by Standard Webhooks with the autopilot's own secret;
while that is being rotated, with the earlier one too. Never a header of the caller's. What comes back is JSON
text, or a failure that says whether sending the task to another autopilot is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import msgspec

from infra.clock import Clock
from infra.pool import Answer, AnswerTooLarge, Late, NotSent, Pool, Unanswered
from infra.signing import sign
from router import __version__
from router.backoff import retry_after
from router.errors import EndpointRefused
from router.health import State
from router.routes import Candidate
from router.trace import Trace

App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]],
    Awaitable[None],
]

MAX_HOPS = 3
_FIXED = (
    f"\r\nuser-agent: autopilot-router/{__version__}\r\naccept: application/json"
    "\r\naccept-encoding: identity\r\ncontent-type: application/json"
).encode()
_NAMES = (
    b"traceparent",
    b"webhook-id",
    b"webhook-timestamp",
    b"webhook-signature",
    b"idempotency-key",
    b"x-autopilot-hops",
)
_VARIABLE = b"".join(b"\r\n%b: %%b" % name for name in _NAMES) + b"\r\ncontent-length: %d\r\n\r\n"
_LATER = frozenset({429, 503})
_decode = msgspec.json.Decoder().decode


class Message(NamedTuple):
    """A task on its way. The id stays the same through every attempt; `hops` counts routers so far."""

    id: str
    body: bytes
    trace: Trace
    key: str
    hops: int


class Reply(NamedTuple):
    """An autopilot's answer: its status, its JSON, and the seconds of `Retry-After` if it sent one."""

    status: int
    result: bytes
    retry_after: float | None


class AttemptFailed(Exception):
    """Raise when there is no answer to pass on.

    `safe` says that nothing was sent, so that another autopilot may get the task; `late` that the time of
    the whole call is over.
    """

    def __init__(self, message: str, *, safe: bool, late: bool = False) -> None:
        super().__init__(message)
        self.safe = safe
        self.late = late


class Forward:
    """Sends to autopilots. `local` holds the ASGI apps of this process by name."""

    def __init__(self, pool: Pool, local: Mapping[str, App], clock: Clock) -> None:
        self._pool = pool
        self._local = local
        self._clock = clock
        self._heads: dict[tuple[str, str], bytes] = {}

    async def post(self, candidate: Candidate, path: str, message: Message, deadline: float) -> Reply:
        """Post a message to `path` of an autopilot; `deadline` is in the loop's time.

        Raises `AttemptFailed`.
        """
        values = self._values(candidate, message)
        try:
            if candidate.url is None:
                answer = await self._in_process(
                    candidate.endpoint,
                    "POST",
                    path,
                    list(zip(_NAMES, values, strict=True)),
                    message.body,
                    deadline,
                )
            else:
                head = self._heads.get((candidate.endpoint, path)) or self._head(candidate, path)
                request = head % (*values, len(message.body)) + message.body
                answer = await self._pool.exchange(candidate.url, request, deadline=deadline)
        except (NotSent, EndpointRefused):
            # One text for both: whether an address is refused or dead is nobody's business out there.
            raise AttemptFailed("could not be reached", safe=True) from None
        except Late as error:
            raise AttemptFailed("did not answer in time", safe=not error.sent, late=True) from None
        except AnswerTooLarge as error:
            raise AttemptFailed(str(error), safe=False) from None
        except Unanswered as error:
            raise AttemptFailed(str(error), safe=False) from None
        if 300 <= answer.status < 400:
            raise AttemptFailed("answered with a redirect, which is not followed", safe=False)
        retry_after = _retry_after(answer.headers, self._clock()) if answer.status in _LATER else None
        return Reply(answer.status, _json_of(answer.body), retry_after)

    async def probe(self, candidate: Candidate, deadline: float) -> State:
        """Ask an autopilot's `GET /health`; one that has none stays unknown."""
        try:
            if candidate.url is None:
                answer = await self._in_process(candidate.endpoint, "GET", "/health", [], b"", deadline)
            else:
                target = candidate.url.target("/health")
                request = (
                    f"GET {target} HTTP/1.1\r\nhost: {candidate.url.authority}\r\n"
                    f"user-agent: autopilot-router/{__version__}\r\naccept: application/json\r\n\r\n"
                )
                answer = await self._pool.exchange(
                    candidate.url, request.encode("ascii"), deadline=deadline, limit=64 << 10
                )
        except (NotSent, Unanswered, EndpointRefused):
            return State.DOWN
        return _state_of(answer)

    def _values(self, candidate: Candidate, message: Message) -> tuple[bytes, ...]:
        """Return the values of the headers that differ from message to message: those of `_NAMES`."""
        timestamp = int(self._clock())
        signature = sign(candidate.secret, message.id, timestamp, message.body)
        for retired in candidate.retired:
            if timestamp < retired.until:
                signature += " " + sign(retired.secret, message.id, timestamp, message.body)
        return (
            message.trace.child().encode(),
            message.id.encode(),
            b"%d" % timestamp,
            signature.encode(),
            message.key.encode(),
            b"%d" % (message.hops + 1),
        )

    def _head(self, candidate: Candidate, path: str) -> bytes:
        """Return the head of every request to an endpoint, with a place for what differs."""
        assert candidate.url is not None
        if len(self._heads) > 10_000:
            self._heads.clear()
        start = f"POST {candidate.url.target(path)} HTTP/1.1\r\nhost: {candidate.url.authority}"
        head = start.encode("ascii").replace(b"%", b"%%") + _FIXED + _VARIABLE
        self._heads[candidate.endpoint, path] = head
        return head

    async def _in_process(
        self,
        endpoint: str,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        deadline: float,
    ) -> Answer:
        app = self._local.get(endpoint.removeprefix("local:"))
        if app is None:
            raise NotSent(f"{endpoint} is not part of this process")
        try:
            async with asyncio.timeout_at(deadline) as time_left:
                return await _call(
                    app, method, path, [*headers, (b"content-type", b"application/json")], body
                )
        except Exception as error:  # an autopilot's bug must look as it would over HTTP
            if time_left.expired():
                raise Late("no answer in time", sent=True) from None
            raise Unanswered("the autopilot crashed") from error


async def _call(app: App, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
    """Run one request through an ASGI app of this process."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": ("local", 0),
    }
    start: dict[str, Any] = {}
    chunks: list[bytes] = []
    given = False
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:  # an app that asks again wants to know when the caller leaves: not before the end
            await answered.wait()
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            answered.set()

    await app(scope, receive, send)
    return Answer(start["status"], list(start.get("headers", [])), b"".join(chunks))


def _json_of(body: bytes) -> bytes:
    """Return the body when it is JSON, else the text of it as `{"raw": …}`."""
    try:
        _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.encode({"raw": body.decode("utf-8", "replace")})
    return body


def _retry_after(headers: list[tuple[bytes, bytes]], now: float) -> float | None:
    return next((retry_after(value, now) for name, value in headers if name == b"retry-after"), None)


_WORDS = {
    "degraded": State.DEGRADED,
    "warn": State.DEGRADED,
    "down": State.DOWN,
    "fail": State.DOWN,
    "unhealthy": State.DOWN,
}


def _state_of(answer: Answer) -> State:
    if answer.status in {404, 405, 501}:
        return State.UNKNOWN
    if not 200 <= answer.status < 300:
        return State.DOWN
    try:
        document = _decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return State.HEALTHY
    word = document.get("status") if isinstance(document, dict) else None
    return _WORDS.get(word.lower(), State.HEALTHY) if isinstance(word, str) else State.HEALTHY
