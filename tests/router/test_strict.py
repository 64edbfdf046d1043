"""Callers that take their time, say too much, or are too many, over real sockets; the time is the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import uvicorn

from infra.body import Disconnected, read
from router.api.http import WHOLE
from router.hurry import HEAD_SECONDS, LEAVE_SECONDS, REQUEST_SECONDS, Hurry
from router.onewrite import OneWrite
from router.strict import MAX_HEAD, MAX_WAITING

App = Callable[[Any, Any, Any], Awaitable[None]]
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
PLAN = b"POST /plan HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


async def turns(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(5):
        while not true():
            await turns(1)


def came(reader: asyncio.StreamReader) -> bool:
    """Whether there is anything to read."""
    return bool(reader._buffer)  # type: ignore[attr-defined]


class Server(NamedTuple):
    """A server in this process, and the connections it has."""

    port: int
    connections: set[Any]
    hurry: Hurry
    callers: list[Caller]

    async def connect(self) -> Caller:
        """Open a connection."""
        before = set(self.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        await until(lambda: bool(self.connections - before) or came(reader))
        self.callers.append(Caller(reader, writer))
        return self.callers[-1]

    async def health(self) -> int:
        """Return the status of a call that does all it should."""
        before = set(self.connections)
        caller = await self.connect()
        status, _ = await caller.ask(HEALTH)
        caller.writer.close()
        await until(lambda: self.connections <= before)
        return status


class Caller(NamedTuple):
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send bytes and return the status and the body of one answer."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the body of one answer."""
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            return int(head[9:12]), await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """Return what comes until the connection is closed, the reset of a socket included."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def serving(app: App, **settings: Any) -> AsyncIterator[Server]:
    """Serve an app as the product is served."""
    config = uvicorn.Config(
        app,
        port=0,
        http=partial(OneWrite, **settings),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    callers: list[Caller] = []
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        connections = server.server_state.connections
        yield Server(port, connections, Hurry(connections), callers)
    finally:
        for caller in callers:
            caller.writer.transport.abort()
        await turns(5)
        await server.shutdown()


async def answer(scope: Any, send: Any, body: bytes, status: int = 200) -> None:
    """Answer in one go, as the product does, or else as ASGI does."""
    headers = [(b"content-length", b"%d" % len(body))]
    if not scope["extensions"].get(WHOLE, lambda *_: False)(scope, status, headers, body):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer a plan with the size of its body, `/early` without reading it, and anything else at once."""
    size = 0
    if scope["path"] == "/plan":
        try:
            size = len(await read(scope["headers"], receive))
        except Disconnected:
            return
    if scope["path"] == "/early-by-asgi":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
        return
    await answer(scope, send, b"%d" % size)


def problem(answer: tuple[int, bytes]) -> tuple[int, str]:
    """Return status and code of a refusal."""
    document = json.loads(answer[1])
    assert document["status"] == answer[0]
    return answer[0], document["code"]


async def seconds(server: Server, start: float, most: float) -> float:
    """Look at the connections every second until there are none, and return how many that took."""
    now = start
    while server.connections and now - start < most:
        server.hurry.look(now)
        await turns(5)
        now += 1.0
    return now - start


# slow callers


async def test_two_hundred_trickling_callers_are_sent_away_and_nobody_waits_for_them() -> None:
    """Each is answered 408 within 15 seconds of its connection, and a good call in between is answered."""
    async with serving(app) as server:
        head = b"POST /plan HTTP/1.1\r\nhost: x\r\na: 1\r\nb: 2\r\n"
        slow = [await server.connect() for _ in range(200)]
        gone = 0.0
        for second in range(16):
            for number, caller in enumerate(slow):
                if not caller.writer.is_closing():
                    whole = PLAN + b"content-length: 90\r\n\r\n" if number % 2 else head
                    caller.writer.write(whole[second * 3 : second * 3 + 3])
            assert await server.health() == 200
            server.hurry.look(float(second))
            assert await server.health() == 200
            if not server.connections:
                gone = float(second)
                break
        assert HEAD_SECONDS <= gone <= 15.0
        for caller in slow:
            assert problem(await caller.answer()) == (408, "too_slow")
            assert await caller.rest() == b""


@pytest.mark.parametrize(
    ("begin", "more", "least"),
    [
        (b"GET /health HTTP/1.1\r\nhost: x\r\na: ", b"b", HEAD_SECONDS),
        (b"G", b"", HEAD_SECONDS),
        (PLAN + b"content-length: 900\r\n\r\n", b"x", REQUEST_SECONDS),
        (PLAN + b"content-length: 900\r\n\r\n{", b"", REQUEST_SECONDS),
        (PLAN + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", REQUEST_SECONDS),
        (PLAN + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0", b"0", REQUEST_SECONDS),
    ],
)
async def test_a_request_has_to_arrive_in_time(begin: bytes, more: bytes, least: float) -> None:
    """However little by little it comes, head and body together get their seconds and no more."""
    async with serving(app) as server:
        caller = await server.connect()
        caller.writer.write(begin)
        await server.health()
        for second in range(20):
            if not server.connections:
                break
            server.hurry.look(float(second))
            caller.writer.write(more)
            await server.health()
        assert least < second <= 15
        assert problem(await caller.answer()) == (408, "too_slow")
        assert await caller.rest() == b""


async def test_who_says_nothing_is_cut_off_without_a_word() -> None:
    """A connection that nothing came over, or empty lines only, is closed after the time of a head."""
    async with serving(app) as server:
        silent, empty = await server.connect(), await server.connect()
        for second in range(int(HEAD_SECONDS) + 1):
            assert len(server.connections) == 2
            empty.writer.write(b"\r\n")
            await server.health()
            server.hurry.look(float(second))
        assert await silent.rest() == await empty.rest() == b""


async def test_empty_lines_do_not_keep_an_idle_connection() -> None:
    """They stop uvicorn's timer of idle connections: then it is ours that runs."""
    async with serving(app) as server:
        caller = await server.connect()
        assert (await caller.ask(HEALTH))[0] == 200
        for second in range(int(HEAD_SECONDS) + 1):
            assert len(server.connections) == 1
            caller.writer.write(b"\r\n")
            await server.health()
            server.hurry.look(float(second))
        assert await caller.rest() == b""


async def test_requests_one_after_the_other_each_have_their_time() -> None:
    """A connection may last for ever as long as each request arrives in time; an idle one is uvicorn's."""
    async with serving(app) as server:
        caller = await server.connect()
        for second in range(0, 60, 3):
            caller.writer.write(HEALTH[:20])
            await server.health()
            server.hurry.look(float(second))
            server.hurry.look(second + 2.0)
            assert (await caller.ask(HEALTH[20:]))[0] == 200
        for second in range(60, 90):
            server.hurry.look(float(second))
        assert (await caller.ask(HEALTH))[0] == 200


async def test_a_caller_is_not_hurried_while_we_are_slow() -> None:
    """While an answer is being made nobody owes us anything, even if the next request has begun."""
    proceed = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await read([(b"content-type", b"application/json")], receive)
        await proceed.wait()
        await answer(scope, send, b"done")

    async with serving(slow) as server:
        caller, next_begun, unread = [await server.connect() for _ in range(3)]
        caller.writer.write(PLAN + b"content-length: 2\r\n\r\n{}")
        next_begun.writer.write(PLAN + b"content-length: 2\r\n\r\n{}GET / HT")
        unread.writer.write(PLAN + b"content-length: 2\r\n\r\n{}" + HEALTH + HEALTH[:9])
        await until(lambda: all(one.cycle for one in server.connections))
        for second in range(100):
            server.hurry.look(float(second))
        proceed.set()
        for one in (caller, next_begun, unread):
            assert await one.answer() == (200, b"done")


async def test_a_caller_who_does_not_read_is_given_up() -> None:
    """Answers that nobody takes are not kept for ever; who reads slowly is waited for."""
    huge = b"x" * (32 << 20)

    async def generous(scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, send, huge)

    async with serving(generous) as server:
        caller = await server.connect()
        caller.writer.write(HEALTH)
        await until(lambda: any(one.flow.write_paused for one in server.connections))
        taken = 0
        for second in range(30):
            server.hurry.look(float(second))
            taken += len(await caller.reader.read(1 << 18))
            await turns(20)
        assert len(server.connections) == 1
        assert taken > 1 << 20
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await turns(2000)
        assert len(server.connections) == 1
        assert await seconds(server, 30.0, 40.0) < 16.0


# answers that do not wait for the rest


@pytest.mark.parametrize("path", [b"/early", b"/early-by-asgi"])
async def test_an_answer_that_came_early_ends_the_connection(path: bytes) -> None:
    """The answer is read although most of the body is still on its way, and what follows is no request."""
    async with serving(app) as server:
        caller = await server.connect()
        begin = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"
        assert (await caller.ask(begin))[0] == 200
        caller.writer.write(b"x" * 200_000)
        assert await caller.rest() == b""
        caller.writer.write(b"x" * 100_000 + HEALTH)
        caller.writer.write_eof()
        await until(lambda: not server.connections)


async def test_a_length_over_the_limit_is_refused_before_the_body() -> None:
    """A terabyte is answered at once; who sends it nevertheless is cut off after a mebibyte."""

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, send, b"{}", 413)

    async with serving(limited) as server:
        caller = await server.connect()
        assert (await caller.ask(PLAN + b"content-length: 1099511627776\r\n\r\n"))[0] == 413
        sent = 0
        while server.connections and sent < 64 << 20:
            caller.writer.write(b"x" * 65_536)
            sent += 65_536
            await turns(10)
        assert sent < 8 << 20


async def test_who_does_not_leave_is_shown_out() -> None:
    """A caller that was told the connection is at its end has three seconds to close its side."""
    async with serving(app) as server:
        caller = await server.connect()
        assert problem(await caller.ask(b"no request\r\n\r\n")) == (400, "malformed")
        assert await caller.rest() == b""
        assert LEAVE_SECONDS <= await seconds(server, 0.0, 30.0) <= LEAVE_SECONDS + 2.0


async def test_an_expectation_is_met_only_where_the_body_is_wanted() -> None:
    """`100 Continue` is said by who reads the body; an early answer takes its place."""
    expecting = b"expect: 100-Continue\r\ncontent-length: 2\r\n\r\n"
    async with serving(app) as server:
        caller = await server.connect()
        caller.writer.write(PLAN + expecting)
        assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await caller.ask(b"{}") == (200, b"2")
        assert (await caller.ask(b"POST /early HTTP/1.1\r\nhost: x\r\n" + expecting))[0] == 200
        assert await caller.rest() == b""


# too much


@pytest.mark.parametrize(
    "begin", [b"GET /", b"GET / HTTP/1.1\r\nhost: x\r\na: ", b"GET / HTTP/1.1\r\nhost: x\r\n"]
)
async def test_a_head_without_an_end_is_not_kept(begin: bytes) -> None:
    """It is refused soon after 64 KiB, whether it is one long line or many."""
    async with serving(app) as server:
        caller = await server.connect()
        caller.writer.write(begin)
        sent = 0
        while sent < 64 << 20 and not caller.reader.at_eof():
            caller.writer.write(b"a: b\r\n" * 1000 if begin.endswith(b"x\r\n") else b"a" * 6000)
            sent += 6000
            await server.health()
            if came(caller.reader):
                break
        assert MAX_HEAD < sent < 2 * MAX_HEAD
        assert problem(await caller.answer()) == (413, "too_large")


async def test_chunks_without_content_are_not_taken_for_ever() -> None:
    """What is around a chunked body counts: extensions and trailers are no way past the limits."""

    async def patient(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving(patient) as server:
        caller = await server.connect()
        caller.writer.write(PLAN + b"transfer-encoding: chunked\r\n\r\n1;")
        sent = 0
        while sent < 64 << 20 and not came(caller.reader):
            caller.writer.write(b"a" * 65_536)
            sent += 65_536
            await turns(10)
        assert sent < 8 << 20
        assert problem(await caller.answer()) == (413, "too_large")


async def test_a_body_of_any_size_is_read_when_it_is_wanted() -> None:
    """The room for a head is not what limits a body: a mebibyte goes through, in one piece or in chunks."""
    body = b"x" * (1 << 20)
    chunked = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(1024)) + b"0\r\n\r\n"
    async with serving(app) as server:
        caller = await server.connect()
        for _ in range(2):
            sized = PLAN + b"content-length: %d\r\n\r\n" % len(body) + body
            assert await caller.ask(sized) == (200, b"1048576")
        caller = await server.connect()
        assert await caller.ask(PLAN + b"transfer-encoding: chunked\r\n\r\n" + chunked) == (200, b"1048576")


async def test_connections_over_the_most_are_turned_away() -> None:
    """They are told so as of other refusals; those that were there go on, and one that leaves makes room."""
    async with serving(app, most=2) as server:
        first, second, third = [await server.connect() for _ in range(3)]
        assert problem(await third.answer()) == (503, "overloaded")
        assert await third.rest() == b""
        for one in (first, second):
            assert (await one.ask(HEALTH))[0] == 200
        first.writer.close()
        await until(lambda: len(server.connections) == 1)
        assert (await (await server.connect()).ask(HEALTH))[0] == 200


async def test_requests_that_wait_for_the_first_answer_are_counted() -> None:
    """A few kilobytes of requests are not made into megabytes: what is too much is not answered."""
    proceed = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        await answer(scope, send, b"done")

    async with serving(slow) as server:
        caller = await server.connect()
        caller.writer.write(HEALTH * (MAX_WAITING + 50))
        await until(lambda: any(one.pipeline for one in server.connections))
        proceed.set()
        answers = (await caller.rest()).split(b"HTTP/1.1 200")[1:]
    assert len(answers) == MAX_WAITING + 1
    assert [b"connection: close" in one for one in answers] == [False] * MAX_WAITING + [True]


# refusals in their turn


async def test_what_is_broken_behind_a_request_does_not_take_its_answer() -> None:
    """A request that was taken is answered; the one behind it is not, and the connection ends."""
    proceed = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        await answer(scope, send, b"done")

    async with serving(slow) as server:
        caller = await server.connect()
        caller.writer.write(HEALTH + b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n" + HEALTH)
        await turns(20)
        caller.writer.write(HEALTH)
        proceed.set()
        assert await caller.answer() == (200, b"done")
        assert await caller.rest() == b""


async def test_a_broken_body_that_waits_its_turn_is_refused_in_its_turn() -> None:
    """The answer to the request before it comes first, however long that takes."""
    proceed = asyncio.Event()
    asked: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["method"])
        await proceed.wait()
        await answer(scope, send, b"done")

    async with serving(slow) as server:
        caller = await server.connect()
        caller.writer.write(HEALTH + PLAN + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + HEALTH)
        await turns(20)
        for second in range(100):
            server.hurry.look(float(second))
        proceed.set()
        assert await caller.answer() == (200, b"done")
        assert problem(await caller.answer()) == (400, "malformed")
        assert await caller.rest() == b""
    assert asked == ["GET"]


async def test_the_app_of_a_refused_body_learns_that_nobody_waits() -> None:
    """A body that breaks off is for its app as if the caller had left; what it answers goes nowhere."""
    told: list[str] = []

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message["type"])
        await answer(scope, send, b"too late")
        told.append("went on")

    async with serving(stubborn) as server:
        caller = await server.connect()
        caller.writer.write(PLAN + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await asyncio.sleep(0)
        assert problem(await caller.ask(b"zz\r\n")) == (400, "malformed")
        assert await caller.rest() == b""
    assert told == ["http.disconnect", "went on"]
