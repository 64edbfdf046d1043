"""The least a Python router can do, for the comparison: Starlette, a look-up, one shared client, the answer.

`BENCH_CLIENT` is `aiohttp` or `httpx`; `BENCH_UPSTREAM` is the endpoint of the one autopilot.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CAPABILITIES = {"generate_page": "web.pages.generate", "process_email": "email.process"}
ENDPOINTS = {"web.pages.generate": os.environ["BENCH_UPSTREAM"]}
JSON_TYPE = {"content-type": "application/json"}

Send = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]


@asynccontextmanager
async def aiohttp_client() -> AsyncIterator[Send]:
    """Give a sender over one aiohttp session."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def send(url: str, body: bytes) -> tuple[int, bytes]:
            async with session.post(url, data=body, headers=JSON_TYPE) as answer:
                return answer.status, await answer.read()

        yield send


@asynccontextmanager
async def httpx_client() -> AsyncIterator[Send]:
    """Give a sender over one httpx client."""
    import httpx

    async with httpx.AsyncClient() as client:

        async def send(url: str, body: bytes) -> tuple[int, bytes]:
            answer = await client.post(url, content=body, headers=JSON_TYPE)
            return answer.status_code, answer.content

        yield send


CLIENTS = {"aiohttp": aiohttp_client, "httpx": httpx_client}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep one client open as long as the app runs."""
    async with CLIENTS[os.environ["BENCH_CLIENT"]]() as send:
        app.state.send = send
        yield


async def plan(request: Request) -> Response:
    """Forward one task to the autopilot that offers its capability."""
    body = await request.json()
    capability = CAPABILITIES.get(body.get("task"))
    if capability is None:
        return JSONResponse({"error": "Unknown task"}, status_code=400)
    task = {"task": body["task"], "capability": capability, "meta": body.get("meta", {})}
    status, answer = await request.app.state.send(f"{ENDPOINTS[capability]}/tasks", json.dumps(task).encode())
    return Response(answer, status, media_type="application/json")


app = Starlette(routes=[Route("/autopilot/plan", plan, methods=["POST"])], lifespan=lifespan)
