"""The ASGI app: every endpoint in one table, routed by Starlette."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from infra.body import Receive
from infra.redact import Redactor
from infra.signing import CHALLENGE
from router.api.http import ASGI, Border, Endpoint, Resource, Send, problem_reply
from router.errors import AutopilotError, MethodNotAllowed, NotFound, Unauthenticated
from router.trace import Trace

HOT_PATH = "/autopilot/plan"


class App:
    """Starlette with the hot path in front: a plan is not worth walking the list of routes."""

    def __init__(self, hot: ASGI, rest: ASGI) -> None:
        self._hot = hot
        self._rest = rest

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a call."""
        if scope["type"] == "http" and scope["path"] == HOT_PATH:
            await self._hot(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def build_app(endpoints: Iterable[Endpoint], border: Border, public: Sequence[BaseRoute] = ()) -> App:
    """Return the app that answers `endpoints`. `public` are further routes, open to everyone."""
    paths: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, []).append(endpoint)
    resources = {path: Resource(group, border) for path, group in paths.items()}
    routes: list[BaseRoute] = [Route(path, resource) for path, resource in resources.items()]
    problems = _Problems(border.redactor)
    starlette = Starlette(
        routes=[*routes, *public],
        exception_handlers={
            HTTPException: problems.no_route,
            AutopilotError: problems.refused,
            Exception: problems.crash,
        },
    )
    starlette.router.redirect_slashes = False
    return App(resources[HOT_PATH], starlette)


class _Problems:
    """Answers what no endpoint did."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Answer what no route took, or one did but not by this method."""
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return self._answer(request, MethodNotAllowed(), error.headers)
        return self._answer(request, NotFound(f"there is nothing at {request.scope['path'][:200]}"))

    async def refused(self, request: Request, error: Exception) -> Response:
        """Answer what a public route raised; of those, none asks for more than a signature."""
        assert isinstance(error, AutopilotError)
        unsigned = isinstance(error, Unauthenticated)
        return self._answer(request, error, {"www-authenticate": CHALLENGE} if unsigned else None)

    async def crash(self, request: Request, _: Exception) -> Response:
        """Answer what a page did not mean to raise; Starlette raises it again, and so it is logged."""
        return self._answer(request, AutopilotError())

    def _answer(
        self, request: Request, error: AutopilotError, headers: Mapping[str, str] | None = None
    ) -> Response:
        trace = Trace(request.headers.get("traceparent", "").encode("latin-1"))
        reply = problem_reply(self._redactor, error, trace.id)
        return Response(reply.body, reply.status, headers, reply.media_type.decode())
