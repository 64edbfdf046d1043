"""What an endpoint gets and gives, and the ASGI callable around it.

Plain ASGI on purpose: Starlette routes to it, but on the hot path its request and response objects would
cost more than the rest of a plan.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from router.auth import Gate, Scope
from router.body import Disconnected, Receive, parse, read
from router.errors import AutopilotError, Invalid, MethodNotAllowed
from router.headers import IDEMPOTENCY_KEY, REVISION
from router.keys import Identity
from router.problem import MEDIA_TYPE, document_of, status_of
from router.trace import Trace

log = logging.getLogger("router")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

encode = msgspec.json.Encoder().encode
WHOLE = "autopilot.whole"
"""The scope's extension that takes a whole answer, see `router.onewrite`."""


class Reply(NamedTuple):
    """What an endpoint answers."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    media_type: bytes = b"application/json"


def json(document: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return a JSON reply."""
    return Reply(status, encode(document), headers)


class Call:
    """One HTTP call, admitted."""

    __slots__ = ("_receive", "_scope", "headers", "identity", "trace")

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        headers: Mapping[bytes, bytes],
        identity: Identity,
        trace: Trace,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self.headers = headers
        self.identity = identity
        self.trace = trace

    async def body(self) -> bytes:
        """Return the body of a call that says it sends JSON. Raises as `router.body.read`."""
        return await read(self._scope["headers"], self._receive)

    async def json(self) -> Any:
        """Return the JSON value of the body. Raises as `router.body`."""
        return parse(await self.body())

    async def json_or_nothing(self) -> Any:
        """Return the JSON value of the body, `{}` when the call has none at all."""
        if self.headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in self.headers:
            return {}
        return await self.json()

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self._scope["path_params"][name])

    def query(self, *allowed: str) -> dict[str, str]:
        """Return the query parameters. Raises `Invalid` for one that is not allowed or given twice."""
        text = self._scope.get("query_string", b"").decode("latin-1")
        pairs = parse_qsl(text, keep_blank_values=True)
        problems = [(name[:64], "is not a known parameter") for name, _ in pairs if name not in allowed]
        names = [name for name, _ in pairs]
        problems += [(name, "is given twice") for name in allowed if names.count(name) > 1]
        if problems:
            raise Invalid(problems)
        return dict(pairs)

    def must_exist(self) -> bool:
        """Whether `If-Match: *` asks that there is something to change."""
        return self.headers.get(b"if-match", b"").strip() == b"*"

    def revision(self) -> int | None:
        """Return the revision in `If-Match`, None without one and for `*`. Raises `Invalid`."""
        text = self.headers.get(b"if-match", b"*").decode("latin-1").strip()
        if text == "*":
            return None
        if not REVISION.fullmatch(text):
            raise Invalid([("If-Match", 'must be a revision as its ETag shows it, such as "3"')])
        return int(text.removeprefix("W/").strip('"'))

    def idempotency_key(self) -> str:
        """Return the idempotency key, quoted or bare, empty for none. Raises `Invalid`."""
        header = self.headers.get(b"idempotency-key")
        if header is None:
            return ""
        text = header.decode("latin-1").strip()
        key = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
        if not IDEMPOTENCY_KEY.fullmatch(key):
            raise Invalid([("Idempotency-Key", "must be 1 to 255 printable ASCII characters without quotes")])
        return key

    def hops(self) -> int:
        """Return how many routers the call has been through; what is no number counts as too many."""
        text = self.headers.get(b"x-autopilot-hops", b"0")
        return int(text) if text.isdigit() and len(text) < 4 else 999


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path, the scope it needs, and the function that answers it."""

    method: str
    path: str
    scope: Scope
    answer: Callable[[Call], Awaitable[Reply]]


class Resource:
    """The ASGI app of one path: its endpoints by method."""

    def __init__(self, endpoints: list[Endpoint], gate: Gate) -> None:
        self._gate = gate
        self._endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        if "GET" in self._endpoints:
            self._endpoints["HEAD"] = self._endpoints["GET"]
        self.methods = sorted(self._endpoints)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Admit a call, let its endpoint answer, and turn what goes wrong into a problem document."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        trace = Trace(headers.get(b"traceparent"))
        try:
            endpoint = self._endpoints.get(scope["method"])
            if endpoint is None:
                allow = ", ".join(self.methods).encode()
                reply = problem_reply(MethodNotAllowed(), trace.id, ((b"allow", allow),))
            else:
                identity = await self._gate.admit(scope, headers, endpoint.scope)
                reply = await endpoint.answer(Call(scope, receive, headers, identity, trace))
        except AutopilotError as error:
            reply = problem_reply(error, trace.id)
        except Disconnected:
            return
        except Exception:
            log.exception("unexpected error on %s %s, trace %s", scope["method"], scope["path"], trace.id)
            reply = problem_reply(AutopilotError(), trace.id)
        await respond(reply, scope, send)


def problem_reply(
    error: AutopilotError, trace_id: str, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Reply:
    """Return an error as a reply, with the headers that its status asks for."""
    status = status_of(error)
    if status == 401:
        headers = (*headers, (b"www-authenticate", b'Bearer realm="autopilot"'))
    return Reply(status, encode(document_of(error, trace_id)), headers, MEDIA_TYPE.encode())


_LOOKED_AT = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


async def respond(reply: Reply, scope: Mapping[str, Any], send: Send) -> None:
    """Send a reply, in one go where the server can do that.

    One that a cache might keep or a browser show says that they must not.
    """
    headers = [*reply.headers] if scope["method"] == "POST" else [*reply.headers, *_LOOKED_AT]
    if reply.status != 204:
        headers += ((b"content-type", reply.media_type), (b"content-length", b"%d" % len(reply.body)))
    extensions = scope.get("extensions")
    if extensions and WHOLE in extensions and extensions[WHOLE](scope, reply.status, headers, reply.body):
        return
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
