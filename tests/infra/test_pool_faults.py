"""The pool when things go wrong: lost, endless and slow answers, deadlines, and TLS it cannot trust."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc
from typing import Any

import pytest

from infra.outbound import Guard, parse_allowed
from infra.pool import (
    MAX_HEADERS,
    AnswerTooLarge,
    ExchangeError,
    Late,
    NotSent,
    Pool,
    Unanswered,
)
from router.errors import EndpointRefused
from tests.infra.conftest import Authority
from tests.infra.scripted import (
    get,
    ok,
    refused_port,
    says,
    scripted,
    trickles,
)

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run every test on Python's own event loop and on uvloop, which the local server uses."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def pool(guard: Guard) -> Pool:
    """Give a pool that may call loopback."""
    return Pool(guard)


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b"HTTP/1.1 200 OK\r\ncontent-le"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"],
        [CHUNKED + b"4\r\nhalf\r\n"],
        [CHUNKED + b"zz\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx"],
        [b"SSH-2.0-OpenSSH_9.6\r\n"],
        [b"HTTP/2 200 OK\r\n\r\n"],
        [b"\x16\x03\x01\x00\x05hello"],
        [b"HTTP/1.1 200 OK\ncontent-length: 2\n\nab"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nx: 1\r\n folded: 2\r\ncontent-length: 0\r\n\r\n"],
    ],
)
async def test_no_whole_answer_is_unanswered_and_never_repeated(pool: Pool, pieces: list[bytes]) -> None:
    """A cut, broken or foreign answer is a failure that says so, and the server saw one request."""
    async with scripted(says(*pieces, close=True)) as server:
        with pytest.raises(Unanswered) as failure:
            await get(pool, server)
        assert not isinstance(failure.value, Late | AnswerTooLarge)
        assert len(server.requests) == 1


async def test_a_lost_kept_connection_is_not_retried(pool: Pool) -> None:
    """When a used connection dies under a request, the caller learns it: the task may have been done."""
    async with scripted(says(ok(b"x" * 10))) as server:
        await get(pool, server)
        server.play = says(close=True)
        with pytest.raises(Unanswered):
            await get(pool, server)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_what_cannot_be_reached_was_not_sent(pool: Pool) -> None:
    """A refused port, an unknown name and a refused address are told apart from a lost request."""
    with pytest.raises(NotSent) as failure:
        await get(pool, f"http://127.0.0.1:{await refused_port()}")
    assert "127.0.0.1" not in str(failure.value)
    with pytest.raises(EndpointRefused):
        await get(pool, "https://10.0.0.1")


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", b"x" * 4096),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096),
        (CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x-header: " + b"x" * 4096 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 500),
        (b"HTTP/1.1 200 OK\r\nx-endless: ", b"x" * 4096),
        (b"HTTP/1.1 200 OK\r\n", b"x" * 4096),
        (b"HTTP/1.1 200 ", b"x" * 4096),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (CHUNKED + b"0\r\nx-trailer: ", b"x" * 4096),
        (CHUNKED + b"1;", b"x" * 4096),
    ],
)
async def test_an_endless_answer_is_cut_off(pool: Pool, head: bytes, piece: bytes) -> None:
    """Endless bodies, headers, names, hints and trailers end at their limit, in little memory."""
    async with scripted(trickles(head, piece)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(AnswerTooLarge):
                await get(pool, server, limit=256 << 10)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        await server.until_left()
        assert len(server.requests) == 1


async def test_the_limit_is_exact(pool: Pool) -> None:
    """An answer of as many bytes as allowed passes, one more does not; a trailer does not count."""
    async with scripted(says(ok(b"x" * 100_000))) as server:
        assert len((await get(pool, server, limit=100_000)).body) == 100_000
        with pytest.raises(AnswerTooLarge):
            await get(pool, server, limit=99_999)
        server.play = says(CHUNKED + b"186A0\r\n" + b"x" * 100_000 + b"\r\n0\r\nx: y\r\n\r\n")
        assert len((await get(pool, server, limit=100_000)).body) == 100_000
        pool.close()


async def test_the_limit_of_headers(pool: Pool) -> None:
    """Headers of nearly the limit are read, more are not, be they in one packet with their body."""
    value = b"x" * (MAX_HEADERS - 1000)
    async with scripted(says(ok(b"{}", b"x-long: " + value))) as server:
        assert dict((await get(pool, server)).headers)[b"x-long"] == value
        server.play = says(ok(b"{}", b"x-long: " + value, b"x-more: " + b"x" * 1000))
        with pytest.raises(AnswerTooLarge):
            await get(pool, server)
        pool.close()


@pytest.mark.parametrize(
    "play",
    [
        says(),
        says(b"HTTP/1.1 200 OK\r\n"),
        says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
        says(b"HTTP/1.1 100 Continue\r\n\r\n"),
        trickles(b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n", b"x"),
        trickles(b"HTTP/1.1 200 OK\r\nx: ", b"x"),
    ],
    ids=["silent", "no head", "half a body", "only a hint", "trickled body", "trickled head"],
)
async def test_a_slow_answer_is_late_at_the_deadline(pool: Pool, play: Any) -> None:
    """Silence and trickling end at the deadline, not a quarter of a second after; the request had left."""
    async with scripted(play) as server:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Late) as failure:
            await get(pool, server, seconds=0.05)
        assert failure.value.sent
        assert 0.04 < loop.time() - began < 3
        await server.until_left()


async def test_a_connection_that_takes_too_long_was_not_sent(authority: Authority) -> None:
    """A server that accepts but never says a word of TLS is late before anything was sent."""
    pool = Pool(Guard(parse_allowed(["localhost"]), tls=authority.client))
    async with scripted(says()) as server:
        with pytest.raises(Late) as failure:
            await get(pool, f"https://localhost:{server.port}", seconds=0.05)
        assert not failure.value.sent
        await server.until_left()
        assert server.requests == []


async def test_nothing_is_sent_after_the_deadline(pool: Pool) -> None:
    """A call whose time is over does not bother anybody, not even over a connection that is there."""
    async with scripted(says(ok())) as server:
        await get(pool, server)
        with pytest.raises(Late) as failure:
            await get(pool, server, seconds=0)
        assert not failure.value.sent
        assert (await get(pool, server)).status == 200
        assert (server.connections, len(server.requests)) == (1, 2)
        pool.close()


async def test_a_cancelled_exchange_drops_its_connection(pool: Pool) -> None:
    """Nobody else gets the answer that a cancelled caller waited for."""
    async with scripted(says()) as server:
        call = asyncio.ensure_future(get(pool, server))
        await server.until(lambda: len(server.requests) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.until_left()
        server.play = says(ok(b"mine"))
        assert (await get(pool, server)).body == b"mine"
        assert server.connections == 2
        pool.close()


# TLS


async def test_tls_is_verified_and_kept_alive(authority: Authority) -> None:
    """With a certificate for the name, from an authority we trust, a connection serves many exchanges."""
    pool = Pool(Guard(parse_allowed(["localhost"]), tls=authority.client))
    async with scripted(says(ok(b"secret")), authority.server("localhost")) as server:
        for _ in range(3):
            assert (await get(pool, f"https://localhost:{server.port}")).body == b"secret"
        assert server.connections == 1
        pool.close()
        await server.until_left()


async def test_tls_of_an_address_checks_the_address(authority: Authority) -> None:
    """A literal address is held against the addresses in the certificate."""
    pool = Pool(Guard(parse_allowed(["127.0.0.1"]), tls=authority.client))
    async with scripted(says(ok(b"secret")), authority.server("127.0.0.1")) as server:
        assert (await get(pool, f"https://127.0.0.1:{server.port}")).body == b"secret"
        pool.close()
        await server.until_left()


@pytest.mark.parametrize("wrong", ["host", "authority"])
async def test_tls_that_cannot_be_trusted_gets_no_request(authority: Authority, wrong: str) -> None:
    """For a certificate of another name or of an unknown authority nothing is sent."""
    host = "elsewhere.example" if wrong == "host" else "localhost"
    trust = ssl.create_default_context if wrong == "authority" else authority.client
    guard = Guard(parse_allowed(["localhost"]), tls=trust)
    async with scripted(says(ok(b"secret"), close=True), authority.server(host)) as server:
        with pytest.raises(NotSent) as failure:
            await get(Pool(guard), f"https://localhost:{server.port}")
        assert server.requests == []
        assert isinstance(failure.value, ExchangeError)


async def test_a_server_without_tls_gets_no_request(authority: Authority) -> None:
    """A plain server where https was asked for is not talked to."""
    pool = Pool(Guard(parse_allowed(["localhost"]), tls=authority.client))
    async with scripted(says(ok()), greeting=ok(b"plain")) as server:
        with pytest.raises(NotSent):
            await get(pool, f"https://localhost:{server.port}")
        await server.until_left()
        assert server.requests == []


async def test_the_end_of_a_tls_connection_ends_an_answer(authority: Authority) -> None:
    """An answer without a length is whole when TLS was closed properly."""
    pool = Pool(Guard(parse_allowed(["localhost"]), tls=authority.client))
    script = says(b"HTTP/1.1 200 OK\r\n\r\nto the end", close=True)
    async with scripted(script, authority.server("localhost")) as server:
        assert (await get(pool, f"https://localhost:{server.port}")).body == b"to the end"
