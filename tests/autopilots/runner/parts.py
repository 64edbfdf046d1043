"""What the tests of the runner share: its parts, and a way to send it a task."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx

from autopilots.runner import RunnerParts, pilot
from infra.redact import Redactor
from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock, parts_for

CANARY = "canary-7f3a91c2e5d8-secret"
ENVIRONMENT = {"API_TOKEN": CANARY, "SITE_URL": "https://site.example.test"}
ROUTER_SECRET = "admin-key-of-the-router-itself"

Answer = Callable[[httpx.Request], httpx.Response]


def no_network(request: httpx.Request) -> httpx.Response:
    """Fail a test that calls somebody without saying so."""
    raise AssertionError(f"nobody was to be called: {request.url}")


class Moves:
    """A clock nobody sets, and sleeping that moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.pauses.append(seconds)
        self.now += seconds


def runner_parts(
    table: SqliteTable,
    clock: FakeClock,
    folder: Path,
    *,
    answer: Answer = no_network,
    moves: Moves | None = None,
    shell: bool = False,
) -> RunnerParts:
    """Give the parts of a runner whose folder is `folder / "root"`."""
    root = (folder / "root").resolve()
    root.mkdir(parents=True, exist_ok=True)
    plain = parts_for(table, clock, folder / "blobs")
    known = {one.name: getattr(plain, one.name) for one in fields(plain)}
    known["redactor"] = Redactor([*ENVIRONMENT.values(), ROUTER_SECRET])
    timing: dict[str, Any] = {"monotonic": moves, "sleep": moves.sleep} if moves else {}
    return RunnerParts(
        **known,
        root=root,
        transport=httpx.MockTransport(answer),
        environment={"PATH": os.environ["PATH"]},
        allowed=frozenset({*ENVIRONMENT, "NOT_SET"}),
        given=ENVIRONMENT,
        allow_shell=shell,
        **{"monotonic": time.monotonic, **timing},
    )


async def send(
    parts: RunnerParts, capability: str, meta: Any, key: str = "", *, status: int = 200
) -> dict[str, Any]:
    """Send a task through the ASGI app and return the answer, which must have that status."""
    transport = httpx.ASGITransport(app=pilot.app(parts), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pilot.test") as client:
        answer = await client.post(
            "/tasks",
            json={"task": "t", "capability": capability, "meta": meta},
            headers={"idempotency-key": key} if key else {},
        )
    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text
    document: dict[str, Any] = answer.json()
    return document
