"""What no client would send, over sockets to the real server: one answer, never two, never none."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import httpx
import pytest

from tests.process import Served, serving

HOST = b"host: 127.0.0.1\r\n"
JSON = b"content-type: application/json\r\n"
NEXT = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
"""The request that an attacker hides behind another."""
LAST = b"GET /the-last HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
NOTHING = b"0\r\n\r\n"
TWO = b"2\r\n{}\r\n0\r\n\r\n"


def get(fields: bytes = HOST, target: bytes = b"/health", version: bytes = b"HTTP/1.1") -> bytes:
    """Return a request without a body."""
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """Return a plan."""
    return b"POST /autopilot/plan " + version + b"\r\n" + HOST + JSON + fields + b"\r\n" + body


REFUSED = {
    "a length and a coding": post(b"content-length: 4\r\n" + CHUNKED, NOTHING + NEXT),
    "a coding and a length": post(CHUNKED + b"content-length: 4\r\n", NOTHING + NEXT),
    "a length and an unknown coding": post(b"content-length: 2\r\ntransfer-encoding: x\r\n", b"{}" + NEXT),
    "two lengths": post(b"content-length: 2\r\ncontent-length: 40\r\n", b"{}" + NEXT),
    "two lengths that agree": post(b"content-length: 2\r\ncontent-length: 2\r\n", b"{}"),
    "a list of lengths": post(b"content-length: 2, 2\r\n", b"{}"),
    "a length with a sign": post(b"content-length: +2\r\n", b"{}"),
    "a negative length": post(b"content-length: -1\r\n", b"{}"),
    "a hexadecimal length": post(b"content-length: 0x2\r\n", b"{}"),
    "a length with an underscore": post(b"content-length: 1_0\r\n", b"{}"),
    "an empty length": post(b"content-length: \r\n", b"{}"),
    "a length of two numbers": post(b"content-length: 2 4\r\n", b"{}" + NEXT),
    "a length that overflows": post(b"content-length: 18446744073709551618\r\n", b"{}" + NEXT),
    "coding identity": post(b"transfer-encoding: identity\r\n", b"{}" + NEXT),
    "chunked, then identity": post(b"transfer-encoding: chunked, identity\r\n", NOTHING + NEXT),
    "identity, then chunked": post(b"transfer-encoding: identity, chunked\r\n", TWO),
    "gzip, then chunked": post(b"transfer-encoding: gzip, chunked\r\n", TWO),
    "a coding that looks like chunked": post(b"transfer-encoding: xchunked\r\n", TWO),
    "a coding in quotes": post(b'transfer-encoding: "chunked"\r\n', TWO),
    "a coding behind a vertical tab": post(b"transfer-encoding: \x0bchunked\r\n", TWO),
    "a coding with a parameter": post(b"transfer-encoding: chunked;a=b\r\n", TWO),
    "two codings": post(CHUNKED + CHUNKED, TWO),
    "two codings that differ": post(CHUNKED + b"transfer-encoding: identity\r\n", NOTHING + NEXT),
    "two codings, chunked last": post(b"transfer-encoding: identity\r\n" + CHUNKED, NOTHING + NEXT),
    "a coding behind a space": post(b"transfer-encoding : chunked\r\n", NOTHING + NEXT),
    "a folded coding": post(b"transfer-encoding:\r\n chunked\r\n", NOTHING + NEXT),
    "a coding in HTTP/1.0": post(CHUNKED, NOTHING + NEXT, b"HTTP/1.0"),
    "a chunk size that is none": post(CHUNKED, b"zz\r\n{}\r\n" + NOTHING),
    "a negative chunk": post(CHUNKED, b"-2\r\n{}\r\n" + NOTHING),
    "a chunk size with 0x": post(CHUNKED, b"0x2\r\n{}\r\n" + NOTHING),
    "a chunk size that overflows": post(CHUNKED, b"10000000000000002\r\n{}\r\n" + NOTHING),
    "a chunk size with a space": post(CHUNKED, b"2 \r\n{}\r\n" + NOTHING),
    "a chunk shorter than it says": post(CHUNKED, b"5\r\n{}\r\n" + NOTHING + NEXT),
    "a chunk longer than it says": post(CHUNKED, b"1\r\n{}\r\n" + NOTHING),
    "a chunk without its end": post(CHUNKED, b"2\r\n{}" + NOTHING),
    "chunks between line feeds": post(CHUNKED, b"2\n{}\n0\n\n"),
    "a chunk extension with a line feed": post(CHUNKED, b"2;a\n{}\r\n" + NOTHING),
    "a trailer": post(CHUNKED, b"2\r\n{}\r\n0\r\nauthorization: Bearer x\r\n\r\n"),
    "a trailing length": post(CHUNKED, b"2\r\n{}\r\n0\r\ncontent-length: 5\r\n\r\n"),
    "line feeds alone": get().replace(b"\r\n", b"\n"),
    "one line feed alone": get(HOST + b"a: 1\nb: 2\r\n"),
    "one carriage return alone": get(HOST + b"a: 1\rb: 2\r\n"),
    "a head that ends with a line feed": b"GET /health HTTP/1.1\r\n" + HOST + b"\n",
    "two carriage returns": b"GET /health HTTP/1.1\r\r\n" + HOST + b"\r\n",
    "a folded field": get(HOST + b"a: 1\r\n 2\r\n"),
    "a fold before the first field": get(b" a: 1\r\n" + HOST),
    "a null in a value": get(HOST + b"a: 1\x002\r\n"),
    "a null in a name": get(HOST + b"a\x00b: 1\r\n"),
    "a control character in a value": get(HOST + b"a: 1\x012\r\n"),
    "a space before the colon": get(b"host : 127.0.0.1\r\n"),
    "a space in a name": get(HOST + b"a b: 1\r\n"),
    "a field without a name": get(HOST + b": 1\r\n"),
    "a field without a colon": get(HOST + b"abc\r\n"),
    "a name that is not ASCII": get(HOST + b"a\xff: 1\r\n"),
    "too many fields": get(HOST + b"".join(b"a%d: 1\r\n" % number for number in range(101))),
    "no host": get(b""),
    "two hosts": get(HOST + b"host: example.com\r\n"),
    "two hosts that agree": get(HOST + HOST),
    "a host that is none": get(b"host: a/b@c d\r\n"),
    "a host with a port that is none": get(b"host: 127.0.0.1:http\r\n"),
    "the target of another host": get(target=b"http://example.com/autopilot/list"),
    "the target of another scheme": get(target=b"ftp://127.0.0.1/health"),
    "a target that is no path": get(target=b"health"),
    "a target that is not ASCII": get(target="/hé".encode()),
    "a target with a control character": get(target=b"/a\x01b"),
    "tabs for spaces": b"GET\t/health\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/1.2": get(version=b"HTTP/1.2"),
    "HTTP/1.10": get(version=b"HTTP/1.10"),
    "HTTP/2.0": get(version=b"HTTP/2.0"),
    "http/1.1": get(version=b"http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 20,
    "CONNECT": b"CONNECT example.com:80 HTTP/1.1\r\n" + HOST + b"\r\n" + NEXT,
    "CONNECT with a body": b"CONNECT /health HTTP/1.1\r\n" + HOST + b"content-length: 2\r\n\r\n{}" + NEXT,
    "an upgrade with a body": post(
        b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n", b"{}" + NEXT
    ),
    "an upgrade with chunks": post(b"upgrade: h2c\r\nconnection: upgrade\r\n" + CHUNKED, TWO + NEXT),
    "a method in small letters": b"get /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"FOO /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space before the method": b" " + NEXT,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "nulls": b"\0" * 100,
    "two keys": get(HOST + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n", b"/autopilot/list"),
    "two idempotency keys": post(b"content-length: 2\r\nidempotency-key: a\r\nidempotency-key: b\r\n", b"{}"),
    "two content types": post(b"content-length: 2\r\ncontent-type: text/plain\r\n", b"{}"),
}
"""Each is answered 400, whatever comes behind it."""

ANSWERED = {
    "chunks with a request behind them": (post(CHUNKED, TWO + NEXT), 400),
    "chunks with extensions": (post(CHUNKED, b"2;a=b\r\n{}\r\n" + NOTHING), 400),
    "a coding in capitals": (post(b"Transfer-Encoding:\tCHUNKED\r\n", TWO), 400),
    "a POST without a length": (post(b"", NEXT), 400),
    "a GET with a body that is a request": (get(HOST + b"content-length: %d\r\n" % len(NEXT)) + NEXT, 200),
    "a request behind the last": (get(HOST + b"connection: close\r\n") + NEXT, 200),
    "a request behind close, keep-alive": (get(HOST + b"connection: close, keep-alive\r\n") + NEXT, 200),
    "a request behind one of HTTP/1.0": (get(version=b"HTTP/1.0") + NEXT, 200),
    "HTTP/1.0 that would be kept alive": (
        get(HOST + b"connection: keep-alive\r\n", version=b"HTTP/1.0") + NEXT,
        200,
    ),
    "HTTP/1.0 without a host": (get(b"", version=b"HTTP/1.0"), 200),
    "an upgrade to HTTP/2": (get(HOST + b"upgrade: h2c\r\nconnection: upgrade\r\n") + NEXT, 200),
    "an upgrade to WebSocket": (
        get(HOST + b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n") + NEXT,
        200,
    ),
    "CONNECT to a path": (b"CONNECT /health HTTP/1.1\r\n" + HOST + b"\r\n" + NEXT, 405),
    "a target with its own origin": (get(target=b"http://127.0.0.1/health?a=b"), 200),
    "an origin without a path": (get(target=b"http://127.0.0.1"), 404),
    "two spaces": (b"GET  /health  HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "the target *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "the target //": (get(target=b"//example.com/health"), 404),
    "broken escapes": (get(target=b"/%zz%ff%00%2e%2e/"), 404),
    "a fragment": (get(target=b"/health#a"), 404),
    "an expectation nobody knows": (post(b"expect: wonders\r\ncontent-length: 2\r\n", b"{}"), 400),
    "empty lines first": (b"\r\n\r\n" + NEXT, 200),
    "RTSP": (b"DESCRIBE /health RTSP/1.0\r\n" + HOST + b"\r\n", 405),
    "garbage behind a request": (get() + b"\0\1\2 nothing\r\n\r\n", 200),
    "a length of a terabyte": (post(b"content-length: 1099511627776\r\n", b"{}"), 413),
    "a field without an end": (b"GET /health HTTP/1.1\r\n" + HOST + b"a: " + b"x" * (2 << 20), 413),
    "fields without an end": (b"GET /health HTTP/1.1\r\n" + HOST + b"a: x\r\n" * 400_000, 413),
    "a target without an end": (b"GET /" + b"x" * (2 << 20), 413),
}
"""Each gets one answer with that status."""


class Answer(NamedTuple):
    """One of the answers that came over a connection."""

    status: int
    media_type: str
    body: bytes


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server for the whole module."""
    with serving(tmp_path_factory.mktemp("raw")) as one:
        yield one


def exchange(served: Served, data: bytes) -> tuple[list[Answer], bool]:
    """Send bytes and return every answer to them, and whether the connection was still open after the first.

    An open one is asked for `/the-last`: whatever is answered before that is an answer to the bytes.
    """
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=8) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may be answered before its end, and closed
            connection.sendall(data)
        came = connection.recv(1 << 16)
        opened = b"connection: close" not in came.partition(b"\r\n\r\n")[0].lower()
        if opened:
            connection.sendall(LAST)
        while piece := connection.recv(1 << 16):
            came += piece
    answers = []
    while came:
        head, _, came = came.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        media_type = re.search(rb"\r\ncontent-type: (\S+)", head)
        assert status, head
        assert length, head
        assert media_type, head
        size = int(length[1])
        answers.append(Answer(int(status[1]), media_type[1].decode(), came[:size]))
        came = came[size:]
    if opened:
        assert answers.pop().status == 404
    return answers, opened


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(here: Served, name: str) -> None:
    """One 400 with a problem document; what stands behind is never answered."""
    [answer], _ = exchange(here, REFUSED[name])
    assert (answer.status, answer.media_type) == (400, "application/problem+json")
    assert json.loads(answer.body)["code"] == "malformed"


@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_odd_is_answered_once(here: Served, name: str) -> None:
    """One answer, and where something stands behind that another server may see as a request, the end."""
    data, status = ANSWERED[name]
    [answer], opened = exchange(here, data)
    assert answer.status == status
    if data.endswith(NEXT) and not name.startswith(("a GET with a body", "empty lines")):
        assert not opened


def test_pipelined_requests_are_not_what_is_refused(here: Served) -> None:
    """Requests whose ends nobody doubts are answered one after the other."""
    body = b'{"task":"nobody_knows_this"}'
    sized = post(b"content-length: %d\r\n" % len(body), body)
    answers, opened = exchange(here, NEXT + sized + get(HOST + b"content-length: 0\r\n") + sized)
    assert [answer.status for answer in answers] == [200, 400, 200, 400]
    assert opened


def test_the_server_is_none_the_worse(here: Served) -> None:
    """After all of them it answers, and nothing went wrong inside."""
    assert httpx.get(f"{here.url}/health").status_code == 200
    log = here.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log
