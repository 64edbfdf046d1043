"""The one reader of request bodies, for the router and for autopilots: bounded, strict JSON in strict UTF-8.

`parse` accepts what RFC 8259 calls JSON, less what parsers disagree on: no duplicate keys, no byte-order
mark, no lone surrogates, no numbers that are not finite, and bounded depth, nodes, strings and integers.
msgspec finds what is malformed; it keeps the last of two equal keys and knows no limits, so those are read
off the punctuation that is left when strings are taken out of the text: one pass in C each.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from router.errors import Invalid, Malformed, MediaType, TooLarge

MAX_BODY = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 5_000
MAX_STRING = 64 * 1024
MAX_DIGITS = 38
"""What DynamoDB can keep of a number."""

MAX_EXTREME = 500
"""Numbers beyond 1e100 or so, either way: each takes the decoder as long as a hundred others."""

_LARGE = 8 * 1024
"""Bytes from which on a text is looked at before it is decoded: values that are too many are never made."""

_EXTREME = re.compile(rb"[eE][+-]?0*[1-9][0-9]{2}")
_PUNCTUATION = re.compile(rb"[^\[\]{}]+")
_ALIKE = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_DIGITS = b"0" * (MAX_DIGITS + 1)
_NUMBER = re.compile(rb"-?(\d+)(\.\d+)?(?:[eE][+-]?\d+)?")

_decode = msgspec.json.Decoder().decode


class Limits(NamedTuple):
    """How much a JSON text may hold: levels, values, and bytes of one text."""

    depth: int = MAX_DEPTH
    nodes: int = MAX_NODES
    text: int = MAX_STRING


USUAL = Limits()

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Disconnected(Exception):
    """Raise when the caller went away before its body was complete."""


async def read(headers: Iterable[tuple[bytes, bytes]], receive: Receive, limit: int = MAX_BODY) -> bytes:
    """Return the body of a request that says it is JSON.

    Raises `MediaType` for any other type, charset or a content encoding, `TooLarge` over `limit` bytes and
    `Disconnected`.
    """
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise MediaType(f"content-encoding {value[:40].decode('latin-1')!r} is not accepted")
        elif name == b"content-length" and value.isdigit() and (len(value) > 15 or int(value) > limit):
            raise TooLarge(f"the body may have at most {limit} bytes")
    if kind != b"application/json":
        _check_media_type(kind)
    message = await receive()
    body = bytes(message.get("body", b""))
    if message["type"] != "http.request":
        raise Disconnected
    if message.get("more_body"):
        chunks = [body]
        size = len(body)
        while message.get("more_body") and size <= limit:
            message = await receive()
            if message["type"] != "http.request":
                raise Disconnected
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        body = b"".join(chunks)
    if len(body) > limit:
        raise TooLarge(f"the body may have at most {limit} bytes")
    return body


def parse(body: bytes, limits: Limits = USUAL) -> Any:
    """Return the value in `body`. Raises `Malformed`, or `Invalid` when it is JSON over a limit."""
    large = len(body) > _LARGE
    bare = _check_limits(body, limits) if large else b""
    try:
        value = _decode(body)
    except msgspec.ValidationError as error:
        raise Invalid([("body", str(error))]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
    except RecursionError:
        raise _over(_split(body)[0], _deep(limits)) from None
    if not large:
        bare = _check_limits(body, limits)
    if bare.count(b":") != _pairs(value):
        raise Malformed("an object has the same key twice")
    return value


def _check_media_type(kind: bytes) -> None:
    main, *parameters = [part.strip().lower() for part in kind.split(b";")]
    if main != b"application/json":
        shown = kind[:80].decode("latin-1") or "no content type"
        raise MediaType(f"the body must be application/json, not {shown!r}")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b' "') not in {b"utf-8", b"utf8"}:
            raise MediaType("the body must be in UTF-8")


def _check_limits(body: bytes, limits: Limits) -> bytes:
    """Return what stands outside the strings of a JSON text that keeps the limits.

    Raises `Invalid`, or `Malformed` where brackets show already that it is none. Cheap for any text: what it
    does for each value it does for no more of them than there may be.
    """
    depth, nodes, text = limits
    many = f"has more than {nodes} values"
    if len(body) > _LARGE and body.count(b'"') - body.count(rb"\"") > 4 * nodes:
        raise _over(body if _balanced(body) else _split(body)[0], many)
    bare, texts = _split(body)
    opened = bare.count(b"{") + bare.count(b"[")
    if opened + bare.count(b",") > nodes:
        raise _over(bare, _deep(limits) if _depth(bare[:_LARGE]) > depth else many)
    if opened > depth and _depth(bare) > depth:
        raise _over(bare, _deep(limits))
    if len(body) > text and max(map(len, texts), default=0) > text:
        raise Invalid([("body", f"has a text of more than {text} bytes")])
    if _LONG_DIGITS in bare.translate(_ALIKE):
        for number in _NUMBER.finditer(bare):
            if number[2] is None and len(number[1]) > MAX_DIGITS:
                raise Invalid([("body", f"has an integer of more than {MAX_DIGITS} digits")])
    letters = bare.count(b"e") + bare.count(b"E")
    if letters > nodes + 1:  # no value has two of them
        raise Malformed("there are letters where none may be")
    if letters > MAX_EXTREME and len(_EXTREME.findall(bare)) > MAX_EXTREME:
        raise Invalid([("body", f"has more than {MAX_EXTREME} numbers with exponents of three digits")])
    return bare


def _split(body: bytes) -> tuple[bytes, list[bytes]]:
    """Return what stands outside the strings of a JSON text, and the strings, each escape as one byte."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"_").replace(rb"\"", b"_")
    parts = body.split(b'"')
    return b" ".join(parts[::2]), parts[1::2]


def _pairs(value: Any) -> int:
    """Count the members of all objects in a decoded value."""
    if type(value) is dict:
        count = len(value)
        for member in value.values():
            if type(member) is dict or type(member) is list:
                count += _pairs(member)
        return count
    if type(value) is list:
        return sum(_pairs(member) for member in value if type(member) is dict or type(member) is list)
    return 0


def _depth(bare: bytes) -> int:
    deepest = depth = 0
    for bracket in _PUNCTUATION.sub(b"", bare):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _over(bare: bytes, message: str) -> Malformed | Invalid:
    """Return what is wrong with a text over a limit: only balanced brackets may be JSON at all."""
    return Invalid([("body", message)]) if _balanced(bare) else Malformed("brackets are left open")


def _balanced(bare: bytes) -> bool:
    return bare.count(b"[") == bare.count(b"]") and bare.count(b"{") == bare.count(b"}")


def _deep(limits: Limits) -> str:
    return f"is nested more than {limits.depth} levels deep"
