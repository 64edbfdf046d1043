"""What an endpoint gets and gives, and the ASGI callable around it.

Plain ASGI on purpose: Starlette routes to it, but on the hot path its request and response objects would
cost more than the rest of a plan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from infra.body import Disconnected, Receive, parse, read
from infra.redact import Redactor
from router.audit import Deed
from router.auth import Gate, Scope
from router.errors import (
    AutopilotError,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    RateLimited,
    StoreUnavailable,
)
from router.events import Record
from router.headers import IDEMPOTENCY_KEY, REVISION, check_single
from router.keys import Identity
from router.limits import Concurrency, Limiter, Standing
from router.problem import MEDIA_TYPE, document_of, status_of
from router.trace import Trace

log = logging.getLogger("router")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

Headers = tuple[tuple[bytes, bytes], ...]

encode = msgspec.json.Encoder().encode
MAX_CONCURRENCY = 500
"""Calls that are answered at once by one process, unless the settings say otherwise."""
REPLAYED = (b"idempotent-replayed", b"true")
"""The header of an answer that was given before, to a call with the same idempotency key."""
WHOLE = "autopilot.whole"
"""The scope's extension that takes a whole answer, see `router.onewrite`."""


class Reply(NamedTuple):
    """What an endpoint answers."""

    status: int
    body: bytes
    headers: Headers = ()
    media_type: bytes = b"application/json"
    stream: AsyncIterator[bytes] | None = None
    """What follows the body, for as long as the caller listens."""


def json(document: Any, status: int = 200, headers: Headers = ()) -> Reply:
    """Return a JSON reply."""
    return Reply(status, encode(document), headers)


class Noted(NamedTuple):
    """What an endpoint says for the audit of what it did."""

    target: str
    changed: bool
    detail: dict[str, Any]


class Call:
    """One HTTP call, admitted."""

    __slots__ = ("_receive", "_scope", "headers", "identity", "noted", "trace")

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
        self.noted: Noted | None = None
        """What the audit shall know; None for the path alone."""

    def note(self, target: str, *, changed: bool = True, **detail: Any) -> None:
        """Say for the audit what was done to what, where the path does not, or that nothing was `changed`."""
        self.noted = Noted(target, changed, detail)

    async def body(self) -> bytes:
        """Return the body of a call that says it sends JSON. Raises as `infra.body.read`."""
        return await read(self._scope["headers"], self._receive)

    async def json(self) -> Any:
        """Return the JSON value of the body. Raises as `infra.body`."""
        return parse(await self.body())

    async def json_or_nothing(self) -> Any:
        """Return the JSON value of the body, `{}` when the call has none at all."""
        if self.headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in self.headers:
            return {}
        return await self.json()

    @property
    def at(self) -> str:
        """The path that was called."""
        return str(self._scope["path"])

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


def limit_of(query: Mapping[str, str], problems: list[tuple[str, str]]) -> int:
    """Return how many a page may have, noting when that is no number it may be."""
    limit = query.get("limit", "50")
    if limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= 200:
        return int(limit)
    problems.append(("limit", "must be a whole number from 1 to 200"))
    return 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path, the scope it needs, and the function that answers it.

    What it does is an event and in the audit under the name `action`; one that changes nothing has none.
    """

    method: str
    path: str
    scope: Scope
    answer: Callable[[Call], Awaitable[Reply]]
    action: str = ""


@dataclass(frozen=True, slots=True)
class Border:
    """What every call passes: who it is from, how much that one may ask for, how much runs at once, the
    record of what it did, and what keeps secrets out of the problems it is told."""

    gate: Gate
    concurrency: Concurrency = field(default_factory=lambda: Concurrency(MAX_CONCURRENCY))
    limiter: Limiter | None = None
    record: Record | None = None
    redactor: Redactor = field(default_factory=Redactor)


class Resource:
    """The ASGI app of one path: its endpoints by method."""

    def __init__(self, endpoints: list[Endpoint], border: Border) -> None:
        self._border = border
        self._endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        if "GET" in self._endpoints:
            self._endpoints["HEAD"] = self._endpoints["GET"]
        self.methods = sorted(self._endpoints)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Admit a call, let its endpoint answer, and turn what goes wrong into a problem document."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        trace = Trace(headers.get(b"traceparent"))
        endpoint = self._endpoints.get(scope["method"])
        told: Headers = ()
        try:
            if len(headers) < len(scope["headers"]):
                check_single(scope["headers"])
            if endpoint is None:
                told = ((b"allow", ", ".join(self.methods).encode()),)
                raise MethodNotAllowed  # noqa: TRY301  as every other answer that is a problem
            identity = await self._border.gate.admit(scope, headers, endpoint.scope)
            limiter = self._border.limiter
            if limiter is not None and endpoint.scope is not Scope.PUBLIC:
                told = _left(limiter, await limiter.take(identity.name))
            call = Call(scope, receive, headers, identity, trace)
            if endpoint.scope is Scope.PUBLIC:
                reply = await endpoint.answer(call)  # also in a full house: it has to be able to tell of it
            else:
                with self._border.concurrency:
                    reply = await endpoint.answer(call)
            if endpoint.action and _did(call, reply):
                await self._record(endpoint, call, reply.status)
        except AutopilotError as error:
            if isinstance(error, Forbidden) and error.actor:
                await self._denied(error, scope, trace)
            elif isinstance(error, RateLimited) and self._border.limiter is not None:
                told = _left(self._border.limiter, Standing(0, error.extra["retry_after"]))
            reply = problem_reply(self._border.redactor, error, trace.id)
        except Disconnected:
            return
        except Exception:
            log.exception("unexpected error on %s %s, trace %s", scope["method"], scope["path"], trace.id)
            reply = problem_reply(self._border.redactor, AutopilotError(), trace.id)
        await respond(reply, scope, receive, send, told)

    async def _record(self, endpoint: Endpoint, call: Call, status: int) -> None:
        """Record what was done, before anybody hears of it."""
        if self._border.record is None:
            return
        target, _, more = call.noted or Noted(call.at, changed=True, detail={})
        deed = Deed(call.identity.name, endpoint.action, target, {**more, "status": status}, call.trace.id)
        try:
            await self._border.record.write(deed)
        except StoreUnavailable:
            raise StoreUnavailable("it was done, but could not be recorded in the audit") from None

    async def _denied(self, error: Forbidden, scope: Mapping[str, Any], trace: Trace) -> None:
        """Record that somebody with a key tried what it is not for."""
        if self._border.record is not None:
            detail = {"method": scope["method"], **error.extra}
            deed = Deed(error.actor, "call.denied", scope["path"], detail, trace.id)
            try:
                await self._border.record.write(deed)
            except StoreUnavailable:
                log.warning("a denial could not be recorded: %s %s", scope["method"], scope["path"])


def _did(call: Call, reply: Reply) -> bool:
    """Whether something was changed now: by no refusal, no dry run, and no repeat of an earlier answer."""
    return reply.status < 300 and REPLAYED not in reply.headers and (call.noted is None or call.noted.changed)


def _left(limiter: Limiter, standing: Standing) -> Headers:
    """Return the headers that tell a caller what is left."""
    return _policy(*limiter.policy), (b"ratelimit", b'"default";r=%d;t=%d' % standing)


@lru_cache
def _policy(quota: int, window: int) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"default";q=%d;w=%d' % (quota, window)


def problem_reply(redactor: Redactor, error: AutopilotError, trace_id: str, headers: Headers = ()) -> Reply:
    """Return an error as a reply without secrets, with the headers that its status asks for.

    Every problem passes here: what a caller sent, and what systems outside said, comes back in some of them.
    """
    status = status_of(error)
    if status == 401:
        headers = (*headers, (b"www-authenticate", b'Bearer realm="autopilot"'))
    if "retry_after" in error.extra:
        headers = (*headers, (b"retry-after", b"%d" % error.extra["retry_after"]))
    return Reply(
        status, _without_secrets(redactor, document_of(error, trace_id)), headers, MEDIA_TYPE.encode()
    )


def _without_secrets(redactor: Redactor, document: dict[str, Any]) -> bytes:
    """Return a document as JSON. Most have no secret, which one look at all of it shows."""
    body = encode(document)
    if b"\\" in body or redactor.finds(body.decode()):  # behind an escape, one may look like something else
        body = encode(redactor.value(document))
    return body


_LOOKED_AT = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


async def respond(
    reply: Reply, scope: Mapping[str, Any], receive: Receive, send: Send, told: Headers = ()
) -> None:
    """Send a reply, with what else is `told` in its headers; in one go where the server can do that.

    One that a cache might keep or a browser show says that they must not.
    """
    headers = [*reply.headers, *told]
    if scope["method"] != "POST":
        headers += _LOOKED_AT
    if reply.status != 204:
        headers.append((b"content-type", reply.media_type))
        if reply.stream is None:
            headers.append((b"content-length", b"%d" % len(reply.body)))
    stream = None if scope["method"] == "HEAD" else reply.stream
    extensions = scope.get("extensions")
    whole = extensions.get(WHOLE) if extensions and stream is None else None
    if whole is not None and whole(scope, reply.status, headers, reply.body):
        return
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    follows = stream is not None
    await send({"type": "http.response.body", "body": reply.body, "more_body": follows})
    if stream is not None:
        await _stream(stream, receive, send)


async def _stream(chunks: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send chunks until there are no more, or the caller leaves."""

    async def pump() -> None:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(pump()), asyncio.ensure_future(left())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
