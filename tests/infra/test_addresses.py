"""Which addresses count as public: whole ranges, their edges, and IPv4 addresses hidden in IPv6."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from infra.addresses import is_public

# Written down again from the IANA registries, so that a line lost from the product's table is noticed.
SPECIAL_V4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "168.63.129.16/32",
]
SPECIAL_V6 = [
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fd00:ec2::254/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]

# Where we refuse on purpose what Python's registry calls global: relays, AS112, one cloud's own channel.
STRICTER = [
    ipaddress.ip_network(text)
    for text in [
        "168.63.129.16/32",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        "224.0.0.0/4",
        "2001::/23",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
    ]
]

PRIVATE_V4 = [
    IPv4Address(text)
    for text in [
        "0.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "255.255.255.255",
    ]
]


def special() -> Iterator[IPv4Address | IPv6Address]:
    """Give the first, the middle and the last address of each special block."""
    for text in SPECIAL_V4:
        four = IPv4Network(text)
        yield from (four[0], four[four.num_addresses // 2], four[-1])
    for text in SPECIAL_V6:
        six = IPv6Network(text)
        yield from (six[0], six[six.num_addresses // 2], six[-1])


def nat64(prefix: str, length: int, hidden: int) -> IPv6Address:
    """Put an IPv4 address behind a prefix as RFC 6052 section 2.2 does: around the octet of bits 64 to 71."""
    start = int(IPv6Address(prefix)) >> (128 - length) << (128 - length)
    bits, at = format(hidden, "032b"), length
    for bit in bits:
        at += 8 if at == 64 else 0
        start |= int(bit) << (127 - at)
        at += 1
    return IPv6Address(start)


def wrapped(rng: random.Random) -> Iterator[IPv6Address]:
    """Give every private IPv4 address in every kind of IPv6 wrapper."""
    networks = [rng.getrandbits(64) & ~(7 << 61) | 1 << 61 for _ in range(100)]  # anywhere in 2000::/3
    for hidden in map(int, PRIVATE_V4):
        yield IPv6Address(hidden)  # compatible
        yield IPv6Address(0xFFFF << 32 | hidden)  # mapped
        yield IPv6Address(0xFFFF << 48 | hidden)  # translated
        yield nat64("64:ff9b::", 96, hidden)
        for length in (32, 40, 48, 56, 64, 96):
            yield nat64("64:ff9b:1::", length, hidden)
            yield nat64("64:ff9b:1:fffe::", length, hidden)
        for subnet in (0, 1, 0xFFFF):
            yield IPv6Address(0x2002 << 112 | hidden << 80 | subnet << 64 | 1)  # 6to4
        for server in range(20):  # Teredo: the client's address is stored inverted
            yield IPv6Address(0x2001_0000 << 96 | server << 64 | 0xFFFF << 32 | hidden ^ 0xFFFF_FFFF)
        for network, mark in itertools.product(networks, (0x0000_5EFE, 0x0200_5EFE)):  # ISATAP
            yield IPv6Address(network << 64 | mark << 32 | hidden)


def test_no_special_or_wrapped_address_is_public() -> None:
    """Not one of over 4,000 special addresses and 4,000 disguised ones counts as public."""
    rng = random.Random(6052)
    members = [
        block[rng.randrange(block.num_addresses)]
        for block in [ipaddress.ip_network(text) for text in SPECIAL_V4 + SPECIAL_V6]
        for _ in range(100)
    ]
    addresses = {*special(), *members, *wrapped(rng)}
    assert len(addresses) >= 5_000
    assert [str(one) for one in addresses if is_public(one)] == []


def test_the_nat64_layout_is_the_one_of_the_standard() -> None:
    """The wrapper the other test relies on reproduces the examples of RFC 6052 section 2.4."""
    hidden = int(IPv4Address("192.0.2.33"))
    examples = {
        32: ("2001:db8::", "2001:db8:c000:221::"),
        40: ("2001:db8:100::", "2001:db8:1c0:2:21::"),
        48: ("2001:db8:122::", "2001:db8:122:c000:2:2100::"),
        56: ("2001:db8:122:300::", "2001:db8:122:3c0:0:221::"),
        64: ("2001:db8:122:344::", "2001:db8:122:344:c0:2:2100::"),
        96: ("2001:db8:122:344::", "2001:db8:122:344::192.0.2.33"),
    }
    for length, (prefix, expected) in examples.items():
        assert nat64(prefix, length, hidden) == IPv6Address(expected)


def test_random_global_addresses_are_public() -> None:
    """Of 10,000 random addresses that Python's registry calls global, none is refused by mistake."""
    rng = random.Random(20260101)
    allocated = [int(IPv6Address(f"{text}::")) for text in ("2400", "2600", "2800", "2a00", "2c00")]
    found: list[IPv4Address | IPv6Address] = []
    while len(found) < 10_000:
        address: IPv4Address | IPv6Address
        if rng.random() < 0.5:
            address = IPv4Address(rng.getrandbits(32))
        else:
            address = IPv6Address(rng.choice(allocated) | rng.getrandbits(116))
        stricter = any(address.version == block.version and address in block for block in STRICTER)
        if address.is_global and not stricter:
            found.append(address)
    assert sum(one.version == 6 for one in found) > 4_000
    assert [str(one) for one in found if not is_public(one)] == []


@pytest.mark.parametrize(
    "text",
    [
        *("1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.0"),
        *("126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255"),
        *("169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0"),
        *("192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255"),
        *("198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255"),
        *("2000::", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2001:4860:4860::8888", "2003::"),
        *("2606:4700:4700::1111", "2620:4f:7fff::1", "2620:4f:8001::1", "3ffe::1", "3fff:1000::"),
        "2606:4700::5efe:1:2:3",
    ],
)
def test_the_neighbours_of_special_ranges_are_public(text: str) -> None:
    """An address just outside a special range may be called."""
    assert is_public(ipaddress.ip_address(text))
