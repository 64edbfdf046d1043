"""What may be called: every outgoing connection is parsed, resolved, checked and dialled here.

A name is resolved once per connection, every address it has is checked, and the checked address is dialled:
there is no second look-up that could answer differently. Proxy variables are never read, redirects never
followed. The router itself is never called, whatever it is called by; what is allowed though it is not public
is told to the log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache

from infra.addresses import Address, is_public
from router.errors import EndpointRefused

log = logging.getLogger("infra.outbound")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host as text. Raises OSError when there are none."""

MAX_URL = 2048
MOST_TOLD = 1000
"""Calls to allowed addresses that are remembered as told to the log."""
WEB_PORTS = frozenset({80, 443, 8080, 8443})
_URL = re.compile(r"(https?)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa", "ip6-localhost", "ip6-loopback")


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https URL in one spelling: lower-case ASCII host, no credentials, no fragment."""

    scheme: str
    host: str
    """A DNS name, an IPv4 address, or an IPv6 address without brackets."""
    port: int
    path: str
    """Without a trailing slash."""
    query: str
    """With its `?`, or empty."""

    @property
    def authority(self) -> str:
        """The value of a `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @property
    def address(self) -> Address | None:
        """The host as an address, None for a name."""
        return _address(self.host)

    def target(self, suffix: str = "") -> str:
        """Return the request target with `suffix` added to the path: `/base/tasks?key=1`."""
        return (f"{self.path}{suffix}" or "/") + self.query


def parse_url(text: str) -> Url:
    """Return the URL in `text`, refusing with `EndpointRefused` whatever two parsers may read differently."""
    if len(text) > MAX_URL:
        raise EndpointRefused(f"a URL may have at most {MAX_URL} characters")
    if _FORBIDDEN.search(text):
        raise EndpointRefused("a URL may not have blanks, control characters or backslashes")
    match = _URL.fullmatch(text)
    if match is None:
        raise EndpointRefused("must be an absolute URL that starts with https:// or http://")
    scheme, authority, path, query = match[1].lower(), match[2], match[3] or "", match[4] or ""
    if "@" in authority:
        raise EndpointRefused("a URL may not carry credentials")
    if not (path + query).isascii():
        raise EndpointRefused("the path must be percent-encoded")
    host, port = _split_authority(authority, 443 if scheme == "https" else 80)
    return Url(
        scheme, _one_spelling(host, bracketed=authority.startswith("[")), port, path.rstrip("/"), query
    )


def _split_authority(authority: str, default: int) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, str(default)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise EndpointRefused("the port must be a number from 1 to 65535")
    if host.startswith("[") != host.endswith("]"):
        raise EndpointRefused("the host has only one bracket")
    return host, int(port)


def _one_spelling(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            literal = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise EndpointRefused("the host in brackets is no IPv6 address") from None
        if literal.scope_id is not None:
            raise EndpointRefused("the address has a zone, which means something on one machine only")
        return literal.compressed
    name = _ascii(host).removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise EndpointRefused("the host is no valid name or address")
    if _NUMERIC.fullmatch(labels[-1]):
        # Anything that ends in a number is an address to some resolver: only the plain form is taken.
        address = _address(name)
        if address is None:
            raise EndpointRefused("an IPv4 address must be written as four decimal numbers")
        return str(address)
    return name


def _ascii(host: str) -> str:
    if host.isascii():
        return host.lower()
    try:
        # A name that folds to other characters (full-width, circled) is a disguise, not a name.
        encoded = host.encode("idna").decode("ascii")
        if encoded.encode("ascii").decode("idna") != host.lower():
            raise EndpointRefused("the host is written in characters that stand for others")
    except UnicodeError:
        raise EndpointRefused("the host is no valid name") from None
    return encoded.lower()


def _address_of(text: str) -> Address:
    """Return an address of a resolver, without its zone."""
    return ipaddress.ip_address(text.partition("%")[0])


@lru_cache(maxsize=4096)
def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts and networks that may be called though they are not public: `AUTOPILOT_ALLOW_ENDPOINTS`."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def __str__(self) -> str:
        return ", ".join([*sorted(self.hosts), *map(str, self.networks)]) or "nothing"

    def name(self, host: str) -> bool:
        """Whether this very host is listed."""
        return host in self.hosts

    def holds(self, address: Address) -> bool:
        """Whether an address lies in a listed network."""
        return any(address.version == net.version and address in net for net in self.networks)


LOOPBACK = ("localhost", "127.0.0.0/8", "::1")


def parse_allowed(entries: Iterable[str]) -> Allowed:
    """Return the allow list in `entries`: host names, addresses and CIDRs. Raises `ValueError`."""
    hosts = set()
    networks = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            try:
                hosts.add(_one_spelling(entry, bracketed=False))
            except EndpointRefused:
                raise ValueError(f"{entry!r} is neither a host nor a network") from None
    return Allowed(frozenset(hosts), tuple(networks))


@dataclass(frozen=True, slots=True)
class Own:
    """Where this router itself is."""

    places: frozenset[tuple[str, int]] = frozenset()
    """Hosts, in the spelling of `Url`, and ports."""
    everywhere: frozenset[int] = frozenset()
    """Ports where it listens at every address of this machine."""

    def holds(self, host: str, port: int) -> bool:
        """Whether it is at a name or an address, by this port."""
        address = _address(host.partition("%")[0])
        if address is None:
            return (host, port) in self.places
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_unspecified:  # a call to it goes to this machine
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        return (str(address), port) in self.places or (
            port in self.everywhere and _is_of_this_machine(address)
        )


class OwnEndpoint(EndpointRefused):
    """Raise for an endpoint that is this router: it never calls itself."""


def own_places(*urls: str) -> Own:
    """Return where a router is that is reached at these URLs; one that is none is passed over."""
    found: list[Url] = []
    for url in urls:
        with suppress(EndpointRefused):
            found.append(parse_url(url))
    everywhere = {one for one in found if one.address is not None and one.address.is_unspecified}
    return Own(
        frozenset((one.host, one.port) for one in found if one not in everywhere),
        frozenset(one.port for one in everywhere),
    )


def _is_of_this_machine(address: Address) -> bool:
    """Whether an address is one of this machine's: only there can a socket be."""
    with socket.socket(
        socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM
    ) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class Guard:
    """Decides what may be called, and dials it."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        resolve: Resolve = resolve,
        tls: Callable[[], ssl.SSLContext] = _tls,
        own: Own = Own(),
    ) -> None:
        self._allowed = allowed
        self._own = own
        self._told: set[tuple[str, str]] = set()
        self._resolve = resolve
        self._tls = tls

    def announce(self) -> None:
        """Tell the log what may be called though it is not public."""
        log.info("may be called though not public (AUTOPILOT_ALLOW_ENDPOINTS): %s", self._allowed)

    def check(self, url: Url) -> None:
        """Raise `EndpointRefused` for what no look-up is needed to refuse."""
        self._check_own(url.host, url.port)
        if self._allowed.name(url.host):
            return
        address = url.address
        if address is not None:
            self._check_address(address)
            if self._allowed.holds(address):
                return
        elif any(url.host == name or url.host.endswith(f".{name}") for name in _LOCAL_NAMES):
            raise EndpointRefused("the host is a local name")
        elif "." not in url.host:
            raise EndpointRefused("the host is not a full name")
        if url.scheme != "https":
            raise EndpointRefused("a public endpoint must use https")
        if url.port not in WEB_PORTS:
            raise EndpointRefused(f"port {url.port} is not one of the web's")

    async def addresses(self, url: Url) -> list[str]:
        """Resolve the host once and return its addresses, every one of them checked.

        Raises `EndpointRefused`, or OSError when the host does not resolve.
        """
        self.check(url)
        if url.address is not None:
            return [url.host]
        found = await self._resolve(url.host, url.port)
        if not found:
            raise OSError(f"{url.host} has no address")
        for text in found:
            self._check_own(text, url.port)
            if not self._allowed.name(url.host):
                self._check_address(_address_of(text))
        return found

    async def dial(
        self, url: Url, protocol: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        """Open a connection to a checked address, trying them in order.

        Raises `EndpointRefused`, or OSError (TLS failures included) when none answers.
        """
        loop = asyncio.get_running_loop()
        tls = self._tls() if url.scheme == "https" else None
        failure: OSError = OSError("no address")
        for address in await self.addresses(url):
            self._tell(url.host, address)
            try:
                return await loop.create_connection(
                    protocol, address, url.port, ssl=tls, server_hostname=url.host if tls else None
                )
            except OSError as error:
                failure = error
        raise failure

    def _tell(self, host: str, address: str) -> None:
        """Tell the log of a call that only the allow list permits; once, as long as memory serves."""
        if (host, address) in self._told or is_public(_address_of(address)):
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add((host, address))
        log.info("calls %s at %s: not public, but AUTOPILOT_ALLOW_ENDPOINTS lists it", host, address)

    def _check_own(self, host: str, port: int) -> None:
        if self._own.holds(host, port):
            raise OwnEndpoint("the endpoint is this router itself")

    def _check_address(self, address: Address) -> None:
        if not (is_public(address) or self._allowed.holds(address)):
            raise EndpointRefused("the address is not public")
