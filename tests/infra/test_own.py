"""The router itself is no endpoint, by whatever name; what is called only because it is listed is logged."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import Iterator

import pytest

from infra import outbound
from infra.addresses import is_public
from infra.outbound import Allowed, Guard, Own, own_places, parse_allowed, parse_url
from router.errors import EndpointRefused
from tests.infra.scripted import Dns, ok, says, scripted

ANYWHERE = parse_allowed(["0.0.0.0/0", "::/0"])
"""An allow list that refuses nothing: what is still refused is refused for being the router."""


async def may(guard: Guard, url: str) -> bool:
    """Return whether a URL may be called."""
    try:
        await guard.addresses(parse_url(url))
    except EndpointRefused as error:
        return error.detail != "the endpoint is this router itself"
    return True


# The router itself


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/autopilot/plan",
        "https://127.0.0.1:8080",
        "http://localhost:8080",
        "http://0.0.0.0:8080",
        "http://[::ffff:127.0.0.1]:8080",
        "http://alias.example.org:8080/deep",
        "http://mixed.example.org:8080",
        "https://router.example",
        "https://router.example:443/x",
        "https://ROUTER.example.",
    ],
)
async def test_the_place_it_listens_at_is_refused(url: str) -> None:
    """Its address, every name that leads there, and the public name, though all of them be listed."""
    dns = Dns(
        {
            "localhost": [["::1", "127.0.0.1"]],
            "alias.example.org": [["127.0.0.1"]],
            "mixed.example.org": [["93.184.215.14", "127.0.0.1"]],
            "router.example": [["93.184.215.14"]],
        }
    )
    allowed = Allowed(frozenset({"localhost", "alias.example.org", "mixed.example.org"}), ANYWHERE.networks)
    own = own_places("http://127.0.0.1:8080", "https://router.example/base")
    assert not await may(Guard(allowed, resolve=dns, own=own), url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8081",
        "http://127.0.0.2:8080",
        "http://[::1]:8080",
        "https://router.example:8443",
        "https://www.router.example",
        "https://cdn.example",
    ],
)
async def test_neighbours_are_no_router(url: str) -> None:
    """Another port, another address of this machine, and others behind the public address may be called."""
    dns = Dns({host: [["93.184.215.14"]] for host in ("router.example", "www.router.example", "cdn.example")})
    own = own_places("http://127.0.0.1:8080", "https://router.example")
    assert await may(Guard(ANYWHERE, resolve=dns, own=own), url)


@pytest.mark.parametrize("bound", ["http://0.0.0.0:8080", "http://[::]:8080"])
async def test_who_listens_everywhere_is_at_every_address_of_the_machine(bound: str) -> None:
    """Each loopback address by that port is the router; other ports and other machines are not."""
    guard = Guard(ANYWHERE, own=own_places(bound))
    for host in ("127.0.0.1", "127.8.8.8", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"):
        assert not await may(guard, f"http://{host}:8080"), host
        assert await may(guard, f"http://{host}:8081"), host
    for host in ("192.0.2.7", "[2001:db8::7]", "8.8.8.8"):
        assert await may(guard, f"http://{host}:8080"), host


async def test_a_name_that_turns_to_the_router_is_not_dialled() -> None:
    """The check is made at each connection, not only when somebody registers."""
    async with scripted(says(ok())) as server:
        own = own_places(server.url)
        dns = Dns({"flip.example.org": [["93.184.215.14"], ["127.0.0.1"]]})
        guard = Guard(ANYWHERE, resolve=dns, own=own)
        url = parse_url(f"https://flip.example.org:{server.port}")
        with pytest.raises(EndpointRefused, match="web's"):
            await guard.addresses(url)  # a name has to use a port of the web
        listed = Guard(Allowed(frozenset({"flip.example.org"})), resolve=dns, own=own)
        assert await listed.addresses(url) == ["93.184.215.14"]
        with pytest.raises(EndpointRefused, match="itself"):
            await listed.dial(url, asyncio.Protocol)
        assert server.connections == 0


def test_a_public_url_that_is_none_is_passed_over() -> None:
    """An odd setting is no reason to stop, and makes nothing else the router."""
    assert own_places("", "router.example", "http://user@x.example", "http://[::1]:9") == Own(
        frozenset({("::1", 9)})
    )


# The log


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Give what was told to the log, as it grows."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.levelno == logging.INFO
            lines.append(record.getMessage())

    keeper = Keeper()
    outbound.log.addHandler(keeper)
    caplog.set_level(logging.INFO, logger=outbound.log.name)
    yield lines
    outbound.log.removeHandler(keeper)


async def dial(guard: Guard, url: str) -> None:
    """Open a connection and drop it, or fail to."""
    try:
        transport, _ = await guard.dial(parse_url(url), asyncio.Protocol)
    except OSError:
        return
    transport.close()


async def test_each_use_of_the_allow_list_is_told_once(told: list[str]) -> None:
    """The list at the start; then each host and address that is called because of it, the first time only."""
    dns = Dns({"one.internal": [["127.0.0.1"]], "two.internal": [["127.0.0.1"]]})
    async with scripted(says(ok())) as server:
        guard = Guard(parse_allowed(["two.internal", "one.internal", "127.0.0.0/8"]), resolve=dns)
        assert told == []
        guard.announce()
        assert told == [
            "may be called though not public (AUTOPILOT_ALLOW_ENDPOINTS): "
            "one.internal, two.internal, 127.0.0.0/8"
        ]
        told.clear()
        for _ in range(3):
            for host in ("127.0.0.1", "one.internal", "two.internal"):
                await dial(guard, f"http://{host}:{server.port}")
    assert told == [
        f"calls {host} at 127.0.0.1: not public, but AUTOPILOT_ALLOW_ENDPOINTS lists it"
        for host in ("127.0.0.1", "one.internal", "two.internal")
    ]


async def test_what_needs_no_allow_list_is_not_told(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a list nothing is told, and neither is a call to a public address, nor one that is refused."""

    async def dead(*_: object, **__: object) -> None:
        raise OSError("no network in a test")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", dead)
    dns = Dns({"public.example.org": [["93.184.215.14"]], "private.example.org": [["10.0.0.1"]]})
    guard = Guard(Allowed(), resolve=dns)
    await dial(guard, "https://public.example.org")
    with pytest.raises(EndpointRefused):
        await dial(guard, "https://private.example.org")
    assert told == []
    await dial(Guard(Allowed(frozenset({"public.example.org"})), resolve=dns), "https://public.example.org")
    assert told == []
    guard.announce()
    assert told == ["may be called though not public (AUTOPILOT_ALLOW_ENDPOINTS): nothing"]


async def test_what_was_told_takes_bounded_memory(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With more uses than are remembered some are told again; none is left out."""

    async def dead(*_: object, **__: object) -> None:
        raise OSError("no network in a test")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", dead)
    monkeypatch.setattr(outbound, "MOST_TOLD", 10)
    guard = Guard(parse_allowed(["127.0.0.0/8"]))
    for last in range(1, 36):
        await dial(guard, f"http://127.0.0.{last}:1")
        await dial(guard, f"http://127.0.0.{last}:1")
        assert len(guard._told) <= 10
    assert sum(line.startswith("calls") for line in told) == 35


# The table of ranges


def test_the_table_is_never_laxer_than_the_interpreter() -> None:
    """Of 100,000 random addresses, in half of them bits are set as in special ranges, none that Python's own
    registry calls special is public to us."""
    rng = random.Random(6890)
    starts = [int(ipaddress.IPv6Address(text)) for text in ("2001::", "2002::", "3fff::", "2620:4f:8000::")]
    lax = []
    for number in range(50_000):
        four = ipaddress.IPv4Address(rng.getrandbits(32))
        low = rng.getrandbits(128 if number % 2 else 100)
        six = ipaddress.IPv6Address(low if number % 2 else rng.choice(starts) | low)
        lax += [str(one) for one in (four, six) if is_public(one) and not one.is_global]
    assert lax == []
