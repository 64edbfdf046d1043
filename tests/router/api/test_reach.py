"""What an endpoint can make the router call: nothing private, not itself, and nobody round and round."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.addresses import is_public
from infra.outbound import _address_of
from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of, register
from tests.upstream import Told, Upstream

PUBLIC = "93.184.215.14"
PRIVATE = "10.1.2.3"
TASK = {"capability": "text.echo", "meta": {}}


@dataclass
class Net:
    """The world outside: names with successive answers, and who listens at which address."""

    loop: asyncio.AbstractEventLoop
    names: dict[str, list[list[str]]] = field(default_factory=dict)
    listens: dict[str, int] = field(default_factory=dict)
    """Ports on loopback by public address."""
    lookups: list[str] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        """Answer a look-up; the last answer repeats."""
        self.lookups.append(host)
        if host not in self.names:
            raise socket.gaierror(-2, f"Name {host} not known to resolver 10.9.8.7")
        answers = self.names[host]
        addresses = answers[min(self.lookups.count(host), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    async def create_connection(self, protocol: Callable[[], Any], host: str, port: int, **_: Any) -> Any:
        """Lead a connection to who listens there, without TLS."""
        self.dialled.append(host)
        if host not in self.listens:
            raise ConnectionRefusedError(111, f"Connect call failed ({host!r}, {port})")
        real = type(self.loop).create_connection
        return await real(self.loop, protocol, "127.0.0.1", self.listens[host])


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    """Put a world of its own under the running loop."""
    loop = asyncio.get_running_loop()
    one = Net(loop)
    monkeypatch.setattr(loop, "getaddrinfo", one.getaddrinfo)
    monkeypatch.setattr(loop, "create_connection", one.create_connection)
    return one


@asynccontextmanager
async def router(folder: Path, url: str = "http://127.0.0.1:8080", **variables: str) -> AsyncIterator[System]:
    """Give a router in which nothing private may be called, unless the variables say so."""
    environment = {
        "AUTOPILOT_DATA": str(folder),
        "AUTOPILOT_API_KEY": "the-admin-key-of-tests",
        "AUTOPILOT_AUTH": "required",
        **variables,
    }
    built = build(read(environment), url=url)
    try:
        yield built
    finally:
        await built.close()


@asynccontextmanager
async def admin_of(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the admin's key."""
    async with client_of(system) as client:
        client.headers["authorization"] = "Bearer the-admin-key-of-tests"
        yield client


# Rebinding


@pytest.mark.parametrize("flips_at", range(1, 7))
async def test_a_name_that_turns_private_is_refused_wherever_it_turns(
    flips_at: int, net: Net, up: Upstream, tmp_path: Path
) -> None:
    """At registration, at the probe after it, or at a forward: only public addresses are dialled."""
    net.names["flip.example.org"] = [*[[PUBLIC]] * (flips_at - 1), [PRIVATE]]
    net.listens[PUBLIC] = int(up.url.rpartition(":")[2])
    up.tell = lambda _: Told(headers={"connection": "close"})  # so that each call dials anew
    async with router(tmp_path) as system, admin_of(system) as client:
        answer = await register(client, "flip", "https://flip.example.org", "text.echo")
        assert answer.status_code == (422 if flips_at == 1 else 201)
        if flips_at == 1:
            assert answer.json()["code"] == "endpoint_refused"
            await register(client, "flip", "https://flip.example.org", "text.echo")
        else:
            await asyncio.gather(*system.prober._soon)
            statuses = [(await client.post("/autopilot/plan", json=TASK)).status_code for _ in range(4)]
            good = max(0, flips_at - 3)
            assert statuses == [200] * good + [502] * (4 - good)
    assert set(net.dialled) <= {PUBLIC}
    assert len(net.lookups) == (2 if flips_at == 1 else 6)  # one for each attempt
    assert is_public(_address_of(PUBLIC))
    assert not is_public(_address_of(PRIVATE))


# Refused and unreachable are one


def normal(answer: httpx.Response) -> dict[str, Any]:
    """Return an answer without what differs from call to call."""
    document: dict[str, Any] = json.loads(answer.text)
    document.pop("trace_id")
    for attempt in document["attempts"]:
        attempt.pop("duration_ms")
    return document


async def test_refused_and_unreachable_look_the_same(net: Net, tmp_path: Path) -> None:
    """Private, dead, nowhere: one body, in which there is neither an address nor what a resolver said."""
    bodies, health = [], []
    async with router(tmp_path) as system, admin_of(system) as client:
        for turns_to in ([PRIVATE], ["169.254.169.254"], [PUBLIC, PRIVATE], [PUBLIC], []):
            net.lookups.clear()
            net.names["target.example.org"] = [[PUBLIC]]
            made = await register(client, "target", "https://target.example.org", "text.echo")
            assert made.status_code in {200, 201}
            await asyncio.gather(*system.prober._soon)
            net.names["target.example.org"] = [turns_to]
            if not turns_to:
                del net.names["target.example.org"]
            answer = await client.post("/autopilot/plan", json=TASK)
            assert answer.status_code == 502
            for word in ("10.", "169.", "93.", "resolver", "known", "Connect", "refused", "public"):
                assert word not in answer.text, answer.text
            bodies.append(normal(answer))
            health.append((await client.get("/autopilot/registry/target/health")).json())
    assert all(body == bodies[0] for body in bodies)
    assert all(one == health[0] for one in health)


async def test_a_refusal_at_registration_names_no_address(net: Net, tmp_path: Path) -> None:
    """Who registers is told that it may not be called, and nothing of where it leads."""
    details = set()
    async with router(tmp_path) as system, admin_of(system) as client:
        for addresses in ([PRIVATE], ["127.0.0.1"], ["169.254.169.254"], [PUBLIC, "192.168.1.1"]):
            net.lookups.clear()
            net.names["inner.example.org"] = [addresses]
            answer = await register(client, "inner", "https://inner.example.org", "text.echo")
            assert (answer.status_code, answer.json()["code"]) == (422, "endpoint_refused")
            details.add(answer.json()["detail"])
        unknown = await register(client, "nowhere", "https://nowhere.example.org", "text.echo")
    assert details == {"the address is not public"}
    assert unknown.json()["warnings"] == [
        "nowhere.example.org does not resolve yet: tasks will fail until it does"
    ]


# The router itself


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/autopilot/plan",
        "http://localhost:8080",
        "https://router.example",
        "https://router.example/autopilot",
    ],
)
async def test_the_router_never_calls_itself(endpoint: str, net: Net, tmp_path: Path) -> None:
    """Where it listens and where the world reaches it, though loopback may be called: it says so at once."""
    net.names = {"localhost": [["127.0.0.1"]], "router.example": [[PUBLIC]]}
    variables = {
        "AUTOPILOT_ALLOW_ENDPOINTS": "localhost,127.0.0.0/8",
        "AUTOPILOT_PUBLIC_URL": "https://router.example",
    }
    async with router(tmp_path, **variables) as system, admin_of(system) as client:
        answer = await register(client, "myself", endpoint, "text.echo")
        assert answer.json()["warnings"] == [
            "this is the router itself, which it never calls: tasks will fail"
        ]
        assert (await client.post("/autopilot/plan", json=TASK)).status_code == 502
        assert net.dialled == []
        other = await register(client, "other", "http://127.0.0.1:8081", "text.echo")
        assert "warnings" not in other.json()


# Round and round


class Relay:
    """An autopilot that passes each task on to a router, with the headers that a router goes by."""

    def __init__(self) -> None:
        self.system: System | None = None
        self.hops: list[str] = []
        self.statuses: list[int] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, content = (
                    (404, b"{}") if head[0].startswith("GET") else await self._pass_on(headers, body)
                )
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _pass_on(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        assert self.system is not None
        self.hops.append(headers["x-autopilot-hops"])
        # Not the idempotency key: with that the first router already finds its own call still running.
        kept = {name: headers[name] for name in ("x-autopilot-hops", "traceparent")}
        task = json.loads(body)
        async with admin_of(self.system) as client:
            again = {"capability": task["capability"], "meta": task["meta"]}
            answer = await client.post("/autopilot/plan", json=again, headers=kept)
        self.statuses.append(answer.status_code)
        return answer.status_code, answer.content


@asynccontextmanager
async def relay() -> AsyncIterator[tuple[Relay, str]]:
    """Give a relay and where it is."""
    one = Relay()
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
    try:
        yield one, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_two_routers_that_send_to_each_other_stop_after_three_hops(tmp_path: Path) -> None:
    """A task goes three times from one to the other, over real connections, and is 508 then."""
    loopback = {"AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1"}
    async with (
        relay() as (to_first, first_url),
        relay() as (to_second, second_url),
        router(tmp_path / "1", "http://127.0.0.1:8081", **loopback) as first,
        router(tmp_path / "2", "http://127.0.0.1:8082", **loopback) as second,
        admin_of(first) as client,
        admin_of(second) as other,
    ):
        to_first.system, to_second.system = first, second
        await register(client, "second", second_url, "text.echo")
        await register(other, "first", first_url, "text.echo")
        answer = await client.post("/autopilot/plan", json=TASK)
        assert (to_second.hops, to_first.hops) == (["1", "3"], ["2"])
        assert (to_second.statuses, to_first.statuses) == ([508, 502], [502])  # the innermost first
        assert answer.status_code == 502
        for entry in (client, other):
            fresh = await entry.post("/autopilot/plan", json=TASK, headers={"x-autopilot-hops": "3"})
            assert (fresh.status_code, fresh.json()["code"]) == (508, "loop")
    assert (len(to_second.hops), len(to_first.hops)) == (2, 1)
