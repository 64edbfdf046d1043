"""What may be called: the SSRF corpus, one spelling per URL, and the exact allow list."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.addresses import is_public
from infra.outbound import LOOPBACK, Allowed, Guard, parse_allowed, parse_url, resolve
from infra.pool import ExchangeError, Pool
from router.errors import EndpointRefused
from tests.infra.scripted import Dns, Scripted, ok, says, scripted

CORPORA = Path(__file__).parent.parent / "corpora"
ROWS: list[dict[str, str]] = json.loads((CORPORA / "ssrf_urls.json").read_text())
FIXTURES: dict[str, Any] = json.loads((CORPORA / "ssrf_fixtures.json").read_text())
PUBLIC = "93.184.215.14"


@dataclass
class Network:
    """Stands in the way of every connection: notes the address dialled and leads to a local server."""

    loop: asyncio.AbstractEventLoop
    port: int
    dialled: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    dead: frozenset[str] = frozenset()

    async def create_connection(
        self, protocol: Callable[[], Any], host: str, port: int, **options: Any
    ) -> Any:
        self.dialled.append(host)
        self.names.append(options["server_hostname"])
        if host in self.dead:
            raise ConnectionRefusedError(host)
        real = type(self.loop).create_connection
        return await real(self.loop, protocol, "127.0.0.1", self.port)


def network(monkeypatch: pytest.MonkeyPatch, server: Scripted, *dead: str) -> Network:
    """Put a `Network` under the running loop, so that no connection goes unnoticed."""
    loop = asyncio.get_running_loop()
    between = Network(loop, server.port, dead=frozenset(dead))
    monkeypatch.setattr(loop, "create_connection", between.create_connection)
    return between


def guard(answers: dict[str, Any] | None = None, allow: tuple[str, ...] = ()) -> Guard:
    """Give a guard over a stub resolver."""
    return Guard(parse_allowed(allow), resolve=Dns(answers or {}))


async def post(pool: Pool, text: str) -> int:
    """Send one request and return the status."""
    url = parse_url(text)
    request = f"POST {url.target()} HTTP/1.1\r\nhost: {url.authority}\r\ncontent-length: 0\r\n\r\n"
    deadline = asyncio.get_running_loop().time() + 5
    return (await pool.exchange(url, request.encode("ascii"), deadline=deadline)).status


def test_the_corpus_is_whole() -> None:
    """All 104 hostile rows and 15 good ones are there, and every exception names a row."""
    assert [sum(row["expect"] == kind for row in ROWS) for kind in ("block", "allow")] == [104, 15]
    assert set(FIXTURES["no_private_connect_rows"]) <= {row["url"] for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["why"][:60])
async def test_a_row_of_the_corpus(row: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile URL leads to no connection (two kinds: to no private address); a good one is called."""

    async def play(request: bytes, writer: asyncio.StreamWriter) -> bool:
        hop = FIXTURES["redirects"].get(row["url"], {"status": 200, "location": ""})
        location = b"location: " + hop["location"].encode()
        writer.write(ok(b"{}", location, b"connection: close", status=b"%d X" % hop["status"]))
        return False

    dns = Dns(FIXTURES["dns"])
    statuses = []
    async with scripted(play) as server:
        between = network(monkeypatch, server)
        pool = Pool(Guard(Allowed(), resolve=dns))
        for _ in range(3):  # so that answers may change between calls
            try:
                statuses.append(await post(pool, row["url"]))
            except (EndpointRefused, ExchangeError):
                statuses.append(0)
        pool.close()
    if row["expect"] == "allow":
        assert statuses == [200] * 3
        assert set(between.dialled) <= {
            one for rows in FIXTURES["dns"].values() for each in rows for one in each
        }
        assert len(dns.lookups) == len(between.dialled) == 3
    elif row["url"] in FIXTURES["no_private_connect_rows"]:
        assert all(is_public(ipaddress.ip_address(address)) for address in between.dialled)
        assert 200 not in statuses[1:]
        assert len(between.dialled) <= 3  # none but the three calls: no redirect was followed
    else:
        assert between.dialled == []
        assert statuses == [0] * 3


@pytest.mark.parametrize("flips_at", range(1, 7))
async def test_a_name_that_turns_private_is_never_dialled(
    flips_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever look-up turns private, at registration or at a forward, only public addresses are dialled."""
    dns = Dns({"flip.example.org": [*[[PUBLIC]] * (flips_at - 1), ["169.254.169.254"]]})
    called = 0
    async with scripted(says(ok(b"{}", b"connection: close"), close=True)) as server:
        between = network(monkeypatch, server)
        one = Guard(Allowed(), resolve=dns)
        pool = Pool(one)
        attempts: list[Callable[[], Any]] = [lambda: one.addresses(parse_url("https://flip.example.org/x"))]
        attempts += [lambda: post(pool, "https://flip.example.org/x")] * 5
        for attempt in attempts:
            try:
                await attempt()
                called += 1
            except EndpointRefused:
                continue
    assert set(between.dialled) <= {PUBLIC}
    assert called == flips_at - 1
    assert len(dns.lookups) == 6  # exactly one per attempt


@pytest.mark.parametrize(
    "answer",
    [
        [PUBLIC, "10.0.0.5"],
        ["10.0.0.5", PUBLIC],
        [PUBLIC, "::1"],
        ["2606:4700:4700::1111", "fd00::1", PUBLIC],
        ["fe80::1%eth0"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::a00:1"],
    ],
)
async def test_any_private_answer_refuses_all(answer: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address among the answers is enough, wherever it stands."""
    async with scripted(says(ok())) as server:
        between = network(monkeypatch, server)
        with pytest.raises(EndpointRefused):
            await guard({"mixed.example.org": [answer]}).dial(
                parse_url("https://mixed.example.org"), asyncio.Protocol
            )
    assert between.dialled == []


async def test_addresses_are_tried_in_order_with_one_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead address is followed by the next; the name is asked for once and travels only as SNI."""
    dns = Dns({"two.example.org": [["1.1.1.1", "2606:4700:4700::1111", "8.8.8.8"]]})
    async with scripted(says(ok())) as server:
        between = network(monkeypatch, server, "1.1.1.1", "2606:4700:4700::1111")
        transport, _ = await Guard(Allowed(), resolve=dns).dial(
            parse_url("https://two.example.org"), asyncio.Protocol
        )
        transport.close()
    assert between.dialled == ["1.1.1.1", "2606:4700:4700::1111", "8.8.8.8"]
    assert set(between.names) == {"two.example.org"}
    assert dns.lookups == ["two.example.org"]


async def test_no_address_that_answers_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every address is dead, when there is none, and when the name is unknown, dialling fails."""
    one = guard({"dead.example.org": [["1.1.1.1", "8.8.8.8"]], "empty.example.org": [[]]})
    async with scripted(says(ok())) as server:
        between = network(monkeypatch, server, "1.1.1.1", "8.8.8.8")
        for host in ("dead", "empty", "unknown"):
            with pytest.raises(OSError, match=r"8\.8\.8\.8|no address|does not resolve"):
                await one.dial(parse_url(f"https://{host}.example.org"), asyncio.Protocol)
    assert between.dialled == ["1.1.1.1", "8.8.8.8"]


async def test_an_address_in_the_url_needs_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A literal address is checked and dialled as it is."""
    dns = Dns({})
    async with scripted(says(ok())) as server:
        between = network(monkeypatch, server)
        for text in ("https://8.8.8.8", "https://[2606:4700:4700:0::1111]:8443"):
            transport, _ = await Guard(Allowed(), resolve=dns).dial(parse_url(text), asyncio.Protocol)
            transport.close()
    assert between.dialled == ["8.8.8.8", "2606:4700:4700::1111"]
    assert dns.lookups == []


async def test_the_systems_resolver_gives_each_address_once() -> None:
    """The resolver of the product knows loopback and fails with an OSError for what does not exist."""
    found = await resolve("localhost", 80)
    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(found) == len(set(found)) > 0


# The allow list


def test_the_allow_list_is_exact() -> None:
    """Names match whole, addresses by network, and nothing that only looks alike."""
    allowed = parse_allowed(
        ["localhost", "Build.Example.", "10.1.0.0/16", "192.168.0.7", "fd00::/8", "bücher.test"]
    )
    assert allowed.hosts == {"localhost", "build.example", "xn--bcher-kva.test"}
    for text in ("10.1.0.0", "10.1.255.255", "192.168.0.7", "fd12::1"):
        assert allowed.holds(ipaddress.ip_address(text)), text
    for text in (
        "10.0.255.255",
        "10.2.0.0",
        "192.168.0.6",
        "192.168.0.8",
        "fc00::1",
        "::ffff:10.1.0.1",
        "::a01:1",
    ):
        assert not allowed.holds(ipaddress.ip_address(text)), text


@pytest.mark.parametrize(
    "entry",
    [
        *("", " ", "10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "10.0.0.0/255.0.255.0", "a b", "-x.example"),
        *("*.example.com", "http://localhost", "localhost:8080", "[::1]", "2130706433", "127.1", "0x7f.1"),
        *("x" * 64, "user@host", "\uff4c\uff4f\uff43\uff41\uff4c", "a..b", "name/24"),
    ],
)
def test_a_bad_entry_of_the_allow_list_is_a_value_error(entry: str) -> None:
    """What is neither a host nor a network is refused when the settings are read, and named."""
    with pytest.raises(ValueError, match="neither a host nor a network") as refusal:
        parse_allowed(["localhost", entry])
    assert repr(entry) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("http://build.internal:9", True),
        ("http://BUILD.internal.:9/x", True),
        ("http://sub.build.internal", False),
        ("https://xbuild.internal", False),
        ("https://internal", False),
        ("http://10.1.2.3:9", True),
        ("https://10.2.0.1", False),
        ("http://[fd00::5]:9", True),
        ("https://named.example.org", True),
        ("http://named.example.org", False),
        ("https://named.example.org:9", False),
        ("https://other.example.org", False),
        ("https://[::ffff:10.1.2.3]", False),
    ],
)
async def test_allowed_places_only(text: str, may: bool) -> None:
    """A listed host may be anything; what resolves into a listed network is otherwise held to the rules."""
    answers = {
        "build.internal": [["192.168.9.9"]],
        "named.example.org": [["10.1.0.1"]],
        "other.example.org": [["192.168.9.9"]],
        "sub.build.internal": [["192.168.9.9"]],
        "xbuild.internal": [["192.168.9.9"]],
    }
    one = guard(answers, allow=("build.internal", "10.1.0.0/16", "fd00::/8"))
    if may:
        assert await one.addresses(parse_url(text))
    else:
        with pytest.raises(EndpointRefused):
            await one.addresses(parse_url(text))


def test_loopback_is_what_the_local_server_allows() -> None:
    """The default of local use lists this machine and nothing else."""
    allowed = parse_allowed(LOOPBACK)
    assert allowed.name("localhost")
    assert [str(net) for net in allowed.networks] == ["127.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://api.example.com", "https"),
        ("http://8.8.8.8", "https"),
        ("https://api.example.com:444", "444"),
        ("https://api.example.com:6443", "6443"),
        ("https://intranet", "full name"),
        ("https://db.home.arpa", "local name"),
        ("https://x.internal", "local name"),
        ("https://ip6-loopback", "local name"),
        ("https://10.0.0.1", "not public"),
    ],
)
def test_what_is_refused_without_a_lookup(text: str, reason: str) -> None:
    """Plain http, odd ports and local names are refused at once, with a reason."""
    with pytest.raises(EndpointRefused) as refusal:
        guard().check(parse_url(text))
    assert reason in refusal.value.detail


@pytest.mark.parametrize("port", [80, 443, 8080, 8443])
def test_web_ports_are_accepted(port: int) -> None:
    """The ports of the web are fine under https."""
    guard().check(parse_url(f"https://api.example.com:{port}"))
