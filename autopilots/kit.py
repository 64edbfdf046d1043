"""What an autopilot is made with: `Pilot` turns typed async functions into an ASGI app.

    pilot: Pilot[Parts] = Pilot("greeter", "Greets people")

    class Greeting(Meta):
        name: str

    @pilot.capability("text.greet")
    async def greet(meta: Greeting, call: Call[Parts]) -> dict[str, str]:
        \"\"\"Greet somebody.\"\"\"
        return {"text": f"Hello {meta.name}"}

`pilot.app(parts)` serves `POST /tasks`, `POST /configure` and `GET /health`. With a `Verifier` it takes the
first two from nobody but a router that signs with its secret; without one it is for the router's own process,
where nobody else can reach it. What is signed is a message's id, time and body, not its other headers.
`pilot.manifest(endpoint)` is the body that registers it: each capability with the JSON schema of its meta
model, so that a router refuses a bad `meta` before it sends one. A handler returns a JSON object or a
pydantic model, or raises one of `router.errors`, which travels as a problem document.
"""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from infra.blobs import Blobs
from infra.body import USUAL, Disconnected, Limits, parse, read
from infra.clock import Clock, NewId
from infra.model import Model
from infra.redact import Redactor
from infra.signing import CHALLENGE, Verifier
from infra.table import Table
from router.errors import AutopilotError, Invalid, NotFound
from router.problem import MEDIA_TYPE, document_of, status_of

log = logging.getLogger("autopilots")

MAX_TASK = 4 << 20
"""Bytes of a task. The router takes less from a caller, but what autopilots plan themselves may be larger."""

_TASK = Limits(nodes=50_000, text=MAX_TASK)


class Meta(BaseModel):
    """Base of all meta models: unknown fields are refused, text is stripped of surrounding blanks."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a task that an autopilot planned: `result` is the answering autopilot's JSON."""

    ok: bool
    status: int
    autopilot: str
    result: Any


class Plan(Protocol):
    """Sends a task through the router, as any caller would."""

    async def __call__(self, task: str, meta: Mapping[str, Any], *, idempotency_key: str) -> Answered:
        """Plan `task` (a task or a capability name). Raises what the planner raises."""
        ...


@dataclass(frozen=True)
class Parts:
    """What every autopilot gets to work with. One that needs more extends this class."""

    table: Table
    blobs: Blobs
    model: Model
    clock: Clock
    new_id: NewId
    public_url: str
    """Where the world reaches the router, without a trailing slash: `http://127.0.0.1:8080`."""
    plan: Plan
    redactor: Redactor = field(default_factory=Redactor, kw_only=True)
    """Keeps the installation's secrets out of problems: systems outside may say them back to us."""


P = TypeVar("P", bound=Parts)
Result = BaseModel | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """One task as its handler sees it."""

    parts: P
    task: str
    capability: str
    idempotency_key: str
    """The same for every delivery of the same task. Empty when the sender gave none."""


Handler = Callable[[Any, Call[Any]], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A capability with the function behind it. An optional one is offered once it is configured."""

    name: str
    description: str
    meta: type[BaseModel]
    handler: Handler
    optional: bool
    requires_approval: bool

    def entry(self, *, configure: bool = False) -> dict[str, Any]:
        """Return the capability as a registration states it."""
        entry: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "input_schema": self.meta.model_json_schema(),
        }
        if configure:
            entry["configure"] = True
        if self.requires_approval:
            entry["requires_approval"] = True
        return entry


class Pilot(Generic[P]):
    """An autopilot in the making: collects capabilities, then becomes an app."""

    def __init__(
        self,
        name: str,
        description: str,
        *,
        needs: Mapping[str, Sequence[Any]] | None = None,
        tasks: Mapping[str, str] | None = None,
    ) -> None:
        """`needs` as a registration states them; `tasks` maps task names it brings to capabilities."""
        self.name = name
        self.description = description
        self._needs = dict(needs or {})
        self._tasks = dict(tasks or {})
        self._offers: dict[str, Offer] = {}

    def capability(
        self, name: str, *, optional: bool = False, requires_approval: bool = False
    ) -> Callable[[Callable[[Any, Call[P]], Awaitable[Result]]], Callable[[Any, Call[P]], Awaitable[Result]]]:
        """Offer the decorated function. Its first parameter's type is the meta model, its docstring's
        first line the description."""

        def offer(
            handler: Callable[[Any, Call[P]], Awaitable[Result]],
        ) -> Callable[[Any, Call[P]], Awaitable[Result]]:
            if name in self._offers:
                raise ValueError(f"{self.name} offers {name} twice")
            first = next(iter(inspect.signature(handler).parameters))
            meta = typing.get_type_hints(handler)[first]
            if not (isinstance(meta, type) and issubclass(meta, BaseModel)):
                raise TypeError(f"{name}: the first parameter must be a pydantic model, not {meta!r}")
            description = (inspect.getdoc(handler) or "").partition("\n")[0]
            self._offers[name] = Offer(name, description, meta, handler, optional, requires_approval)
            return handler

        return offer

    def manifest(self, endpoint: str) -> dict[str, Any]:
        """Return the body that registers this autopilot at `endpoint`."""
        extensible = {offer.name.partition(".")[0] for offer in self._offers.values() if offer.optional}
        return {
            "name": self.name,
            "endpoint": endpoint,
            "description": self.description,
            "capabilities": [
                offer.entry(configure=offer.name.partition(".")[0] in extensible)
                for offer in self._offers.values()
                if not offer.optional
            ],
            "tasks": self._tasks,
            "needs": self._needs,
        }

    def app(self, parts: P, routes: Sequence[BaseRoute] = (), verifier: Verifier | None = None) -> Starlette:
        """Return the ASGI app; `routes` are further ones of its own, such as the pages it serves.

        With a `verifier`, what is not signed as it asks is answered 401 before a byte of it is parsed. One
        that others can reach needs it: the endpoint of an autopilot is no secret.
        """

        async def received(request: Request) -> dict[str, Any]:
            headers = request.scope["headers"]
            body = await read(headers, request.receive, MAX_TASK)
            if verifier is not None:
                await verifier.check(headers, body)
            return object_of(body, _TASK)

        async def tasks(request: Request) -> Response:
            body = await received(request)
            key = request.headers.get("idempotency-key", "")
            return _json(await self._run(parts, body, key))

        async def configure(request: Request) -> Response:
            wanted = (await received(request)).get("enable")
            offer = self._offers.get(wanted) if isinstance(wanted, str) else None
            if offer is None:
                raise NotFound(f"{self.name} cannot do {wanted!r}")
            return _json({"ok": True, "capability": offer.entry()})

        async def health(_: Request) -> Response:
            offered = [offer.name for offer in self._offers.values() if not offer.optional]
            return _json({"status": "healthy", "autopilot": self.name, "capabilities": offered})

        redactor = getattr(parts, "redactor", None) or Redactor()
        return Starlette(
            routes=[
                Route("/tasks", tasks, methods=["POST"]),
                Route("/configure", configure, methods=["POST"]),
                Route("/health", health, methods=["GET"]),
                *routes,
            ],
            exception_handlers={
                AutopilotError: partial(_problem, redactor),
                Disconnected: _gone,
                Exception: _crash,
            },
        )

    async def _run(self, parts: P, body: Mapping[str, Any], key: str) -> Result:
        offer = self._offers.get(str(body.get("capability")))
        if offer is None:
            raise NotFound(f"{self.name} has no capability {body.get('capability')!r}")
        try:
            meta = offer.meta.model_validate(body.get("meta", {}))
        except ValidationError as error:
            raise Invalid(problems_of(error)) from None
        call = Call(parts, str(body.get("task", "")), offer.name, key)
        return await offer.handler(meta, call)


def problems_of(error: ValidationError, at: str = "meta") -> list[tuple[str, str]]:
    """Return pydantic's errors as (dotted path under `at`, message)."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        path = at
        for part in one["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        found.append((path.removeprefix("."), one["msg"]))
    return found


def object_of(body: bytes, limits: Limits = USUAL) -> dict[str, Any]:
    """Return the JSON object in a body. Raises as `infra.body.parse`, and `Invalid` for any other value."""
    value = parse(body, limits)
    if not isinstance(value, dict):
        raise Invalid([("body", "must be an object")])
    return value


def _json(result: Result, status: int = 200, media_type: str = "application/json") -> Response:
    document = result.model_dump(mode="json") if isinstance(result, BaseModel) else result
    return Response(msgspec.json.encode(document), status, media_type=media_type)


async def _problem(redactor: Redactor, _: Request, error: Exception) -> Response:
    assert isinstance(error, AutopilotError)
    answer = _json(redactor.value(document_of(error)), status_of(error), MEDIA_TYPE)
    if answer.status_code == 401:
        answer.headers["www-authenticate"] = CHALLENGE
    return answer


async def _gone(_: Request, error: Exception) -> Response:
    """Answer a caller that left before its body was complete: nobody will read it."""
    assert isinstance(error, Disconnected)
    return Response(status_code=400)


async def _crash(request: Request, error: Exception) -> Response:
    log.error("autopilot crashed", extra={"path": request.url.path}, exc_info=error)
    return await _problem(Redactor(), request, AutopilotError())
