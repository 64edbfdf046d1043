"""Which requests can be read in two ways, and after which another server may see the end elsewhere.

llhttp refuses most of what request smuggling is made of: lengths that are wrong, given twice or beside a
coding. What it lets pass is judged here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from router.errors import Malformed

MAX_FIELDS = 100

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ORIGIN = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_VERSIONS = ("1.0", "1.1")
_BODIED = (b"POST", b"PUT", b"PATCH")


class Head(NamedTuple):
    """The head of a request. The names of fields are in small letters; `upgrade` is what llhttp thinks."""

    method: bytes
    target: bytes
    version: str
    fields: Sequence[tuple[bytes, bytes]]
    upgrade: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all fields of a name."""
        return [value for other, value in self.fields if other == name]


def judge(head: Head) -> bool:
    """Return whether nothing may follow a request on its connection. Raises `Malformed`.

    That is so where the end of the body is not told by a length: behind it, somebody may have hidden another
    request from a server in front.
    """
    if head.version not in _VERSIONS:
        raise Malformed("this server speaks HTTP/1.1")
    if len(head.fields) > MAX_FIELDS:
        raise Malformed(f"a request may have at most {MAX_FIELDS} header fields")
    _check_host(head)
    codings = head.values(b"transfer-encoding")
    if codings and (head.version != "1.1" or len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise Malformed("the only transfer coding is chunked")
    sized = bool(head.values(b"content-length"))
    if head.upgrade and (codings or sized):
        raise Malformed("there is nothing to upgrade to, and a body is not sent before one")
    return head.upgrade or bool(codings) or (not sized and head.method in _BODIED)


def _check_host(head: Head) -> None:
    """Raise `Malformed` unless one host is named, and it is the same all over."""
    hosts = head.values(b"host")
    if len(hosts) > 1 or (head.version == "1.1" and not hosts):
        raise Malformed("a request names its host, and once")
    host = hosts[0] if hosts else b""
    if not _HOST.fullmatch(host):
        raise Malformed("the Host header is none")
    if head.target[:1] != b"/" and head.target != b"*":
        origin = _ORIGIN.match(head.target)
        if origin is None or origin[1].lower() != host.lower():
            raise Malformed("this server is no proxy for other hosts")


def path_of(target: bytes) -> bytes:
    """Return a target without the origin that may stand before it."""
    return target if target[:1] == b"/" else _ORIGIN.sub(b"", target, count=1) or b"/"
