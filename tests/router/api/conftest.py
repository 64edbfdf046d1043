"""The whole product in one process, called over ASGI, with autopilots on real loopback sockets beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from router.settings import read
from router.wiring import System, build, manifests
from tests.upstream import Upstream, upstream


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Give everything wired together, in local mode, on an SQLite file."""
    built = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url="http://127.0.0.1:8080")
    yield built
    await built.close()


@pytest.fixture
async def api(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client on this machine."""
    async with client_of(system) as client:
        yield client


@pytest.fixture
async def builtin(api: httpx.AsyncClient) -> httpx.AsyncClient:
    """Give a client of a router with the built-in autopilots registered."""
    for manifest in manifests():
        assert (await api.post("/autopilot/registry", json=manifest)).status_code == 201
    return api


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    """Give an autopilot on a socket."""
    async with upstream() as one:
        yield one


@pytest.fixture
async def up2() -> AsyncIterator[Upstream]:
    """Give a second autopilot on a socket."""
    async with upstream() as one:
        yield one


def client_of(system: System, client: str = "127.0.0.1") -> httpx.AsyncClient:
    """Return a client of a system, as if it called from the address `client`."""
    transport = httpx.ASGITransport(app=system.app, client=(client, 1234), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


async def register(
    api: httpx.AsyncClient, name: str, endpoint: str, *capabilities: str, **more: object
) -> httpx.Response:
    """Register an autopilot."""
    body = {"name": name, "endpoint": endpoint, "capabilities": list(capabilities), **more}
    return await api.post("/autopilot/registry", json=body)
