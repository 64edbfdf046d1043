"""The pool against a real loopback server that says whatever it likes, on both event loops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.outbound import Guard, parse_url
from infra.pool import (
    Answer,
    Pool,
)
from tests.infra.scripted import (
    body_of,
    get,
    ok,
    says,
    scripted,
    target_of,
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


# What a good answer may look like


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([ok(b'{"a":1}')], b'{"a":1}'),
        ([ok(b"")], b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 4\r\n\r", b"\nab", b"cd"], b"abcd"),
        ([CHUNKED + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n"], b"abcde"),
        ([CHUNKED, b"2\r\na", b"b\r\n", b"0\r\n", b"\r\n"], b"ab"),
        ([CHUNKED + b"2\r\nab\r\n0\r\nretry-after: 9\r\n\r\n"], b"ab"),
        ([b"HTTP/1.1 200 OK\r\nupgrade: h2\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nab"], b"ab"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", ok(b"late")], b"late"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"same")], b"same"),
        (
            [b"HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok(b"x")],
            b"x",
        ),
    ],
)
async def test_a_framed_answer_keeps_the_connection(pool: Pool, pieces: list[bytes], body: bytes) -> None:
    """However an answer with an end of its own is cut up, it is read whole and the connection used again."""
    async with scripted(says(*pieces)) as server:
        for _ in range(3):
            answer = await get(pool, server)
            assert answer.body == body
            assert b"retry-after" not in dict(answer.headers)  # neither of a hint nor of a trailer
        assert (server.connections, len(server.requests)) == (1, 3)
        pool.close()


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n"], b""),
        ([b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nab", b"cd"], b"abcd"),
        ([b"HTTP/1.0 200 OK\r\n\r\nabcd"], b"abcd"),
        ([b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab"], b"ab"),
        ([ok(b"ab", b"connection: close")], b"ab"),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabcd"], b"abcd"),
    ],
)
async def test_an_answer_that_ends_with_its_connection(pool: Pool, pieces: list[bytes], body: bytes) -> None:
    """An answer without a length ends where the connection ends; the next request gets a new one."""
    async with scripted(says(*pieces, close=True)) as server:
        for _ in range(2):
            assert (await get(pool, server)).body == body
        assert server.connections == 2


async def test_statuses_and_headers_come_as_they_are(pool: Pool) -> None:
    """Redirects and errors are answers like any other; names are lower-case, repeats are kept."""
    async with scripted(
        says(ok(b"", b"Location: http://x/", b"X-A: 1", b"X-A: 2", status=b"307 X"))
    ) as server:
        answer = await get(pool, server)
        assert answer.status == 307
        assert [pair for pair in answer.headers if pair[0] != b"content-length"] == [
            (b"location", b"http://x/"),
            (b"x-a", b"1"),
            (b"x-a", b"2"),
        ]
        assert len(server.requests) == 1
        pool.close()


async def test_a_large_request_and_answer_arrive_whole(pool: Pool) -> None:
    """Megabytes pass in both directions unchanged."""
    body = bytes(range(256)) * (1 << 13)

    async def echo(request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(ok(body_of(request)))
        await writer.drain()
        return True

    async with scripted(echo) as server:
        url = parse_url(server.url)
        request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        deadline = asyncio.get_running_loop().time() + 5
        assert (await pool.exchange(url, request, deadline=deadline)).body == body
        pool.close()


# Which connection is used


async def test_an_old_idle_connection_is_not_used(guard: Guard) -> None:
    """A connection that was idle for its time is given up rather than written to."""
    pool = Pool(guard, idle_seconds=0.0)
    async with scripted(says(ok())) as server:
        await get(pool, server)
        await server.until_left()  # nobody asked: it was dropped by itself
        await get(pool, server)
        assert server.connections == 2
        pool.close()


async def test_connections_to_origins_never_called_again_are_dropped(guard: Guard) -> None:
    """The pool keeps no connection, and no memory of an origin, beyond the idle time."""
    pool = Pool(guard, idle_seconds=0.02)
    async with scripted(says(ok())) as one, scripted(says(ok())) as other:
        await get(pool, one)
        await get(pool, other)
        await one.until_left()
        await other.until_left()
        assert pool._idle == {}
        assert pool._sweeping is None


async def test_origins_do_not_share_connections(pool: Pool) -> None:
    """Another port, or another name of the same machine, is another connection."""
    async with scripted(says(ok())) as one, scripted(says(ok())) as other:
        for url in (one.url, other.url, one.url.replace("127.0.0.1", "localhost"), one.url):
            await get(pool, url)
        assert (one.connections, other.connections) == (2, 1)
        pool.close()


async def test_a_connection_the_server_closed_is_replaced(pool: Pool) -> None:
    """A server that closes idle connections costs no request."""
    async with scripted(says(ok())) as server:
        await get(pool, server)
        server.hang_up()
        await server.until_left()
        await asyncio.sleep(0)
        for _ in range(2):
            assert (await get(pool, server)).status == 200
        assert (server.connections, len(server.requests)) == (2, 3)
        pool.close()


async def test_a_connection_that_is_just_being_closed_is_not_written_to(pool: Pool) -> None:
    """Between the end of a transport and the news of it, the connection is not used."""
    async with scripted(says(ok())) as server:
        await get(pool, server)
        [[connection]] = pool._idle.values()
        assert connection._transport is not None
        connection._transport.close()
        assert not connection.closed  # the news comes later
        assert (await get(pool, server)).status == 200
        assert server.connections == 2
        pool.close()


async def test_bytes_nobody_asked_for_end_an_idle_connection(pool: Pool) -> None:
    """What a server sends unasked is never taken for the answer to the next request."""
    async with scripted(says(ok(b"first"))) as server:
        assert (await get(pool, server)).body == b"first"
        server.play = says(ok(b"second"))
        server.writers[0].write(ok(b"forged"))
        await server.until_left()
        assert (await get(pool, server)).body == b"second"
        assert server.connections == 2
        pool.close()


@pytest.mark.parametrize(
    "extra",
    [
        ok(b"forged", b"retry-after: 9"),
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1",
        b"garbage",
        b"HTTP/1.1 200 OK\r\nretry-after: 9\r\ncontent-length: 90\r\n\r\nhalf",
    ],
)
async def test_a_second_answer_is_never_the_next_ones(pool: Pool, extra: bytes) -> None:
    """More than one answer to a request: the first is taken as it is, the connection is not used again."""
    async with scripted(says(ok(b"first", b"x: 1") + extra)) as server:
        answer = await get(pool, server)
        assert answer == Answer(200, [(b"content-length", b"5"), (b"x", b"1")], b"first")
        await server.until_left()
        server.play = says(ok(b"second"))
        assert (await get(pool, server)).body == b"second"
        assert server.connections == 2
        pool.close()


async def test_a_hundred_exchanges_at_once(pool: Pool) -> None:
    """Every caller gets the answer to its own request, and the connections serve the next hundred too."""

    async def echo(request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(ok(target_of(request).encode()))
        return True

    async with scripted(echo) as server:
        for _ in range(2):
            answers = await asyncio.gather(*(get(pool, server, f"/{n}") for n in range(100)))
            assert [answer.body for answer in answers] == [b"/%d" % n for n in range(100)]
        assert server.connections == 100
        pool.close()


async def test_idle_connections_are_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more connections than may be idle, the oldest are closed."""
    monkeypatch.setattr("infra.pool.MAX_IDLE", 8)
    gate = asyncio.Event()

    async def together(_: bytes, writer: asyncio.StreamWriter) -> bool:
        await gate.wait()
        writer.write(ok())
        return True

    async with scripted(together) as server:
        calls = [asyncio.ensure_future(get(pool, server)) for _ in range(13)]
        await server.until(lambda: len(server.requests) == 13)
        gate.set()
        await asyncio.gather(*calls)
        [idle] = pool._idle.values()
        assert len(idle) == 8
        await server.until(lambda: server.open == 8)
        pool.close()


async def test_closing_the_pool_drops_what_is_idle(pool: Pool) -> None:
    """After `close` no connection is left, and the pool can still be used."""
    async with scripted(says(ok())) as server:
        await get(pool, server)
        pool.close()
        await server.until_left()
        await get(pool, server)
        assert server.connections == 2
        pool.close()
