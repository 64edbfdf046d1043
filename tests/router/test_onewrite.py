"""The server's short cut for whole answers, over a real socket."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from router.api.http import WHOLE, Reply, respond
from router.onewrite import OneWrite

App = Callable[[Any, Any, Any], Any]


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    """Serve an app by the protocol and give its port."""
    config = uvicorn.Config(app, port=0, http=OneWrite, lifespan="off", log_config=None, date_header=False)
    config.server_header = False
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def exchange(port: int, *requests: bytes) -> bytes:
    """Send requests over one connection, the last asking to close it, and return all that came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path."""
    body = scope["path"].encode()
    none = body == b"/none"
    await respond(Reply(204 if none else 200, b"" if none else body), scope, receive, send)


def get(path: str, *, method: str = "GET", close: bool = False) -> bytes:
    """Return the text of a request."""
    last = "connection: close\r\n" if close else ""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{last}\r\n".encode()


async def test_answers_come_whole_and_in_order() -> None:
    """Pipelined requests are answered one after the other, each with its length and its own body."""
    async with serving(app) as port:
        answer = await exchange(port, get("/one"), get("/two"), get("/three", close=True))
    parts = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [part.rpartition(b"\r\n\r\n")[2] for part in parts] == [b"/one", b"/two", b"/three"]
    assert all(b"content-length: " in part for part in parts)
    assert [b"connection: close" in part for part in parts] == [False, False, True]


async def test_a_head_and_an_empty_answer_have_no_body() -> None:
    """A HEAD gets the length of the GET and nothing more; a 204 has neither length nor body."""
    async with serving(app) as port:
        answer = await exchange(port, get("/head", method="HEAD"), get("/none", close=True))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"content-length: 5" in head
    assert rest.startswith(b"HTTP/1.1 204")
    assert b"content-length" not in rest
    assert rest.endswith(b"\r\n\r\n")


async def test_a_header_with_a_line_break_is_never_written() -> None:
    """Whatever text a header was made of, it cannot begin another."""

    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        headers = ((b"x-made", b"1\r\nx-smuggled: 1"),)
        try:
            await respond(Reply(200, b"{}", headers), scope, receive, send)
        except ValueError:
            await respond(Reply(500, b"{}"), scope, receive, send)

    async with serving(breaking) as port:
        answer = await exchange(port, get("/", close=True))
    assert b"smuggled" not in answer
    assert answer.startswith(b"HTTP/1.1 500")


async def test_an_answer_begun_the_usual_way_is_finished_that_way() -> None:
    """Once ASGI's first message is sent the short cut is closed."""

    async def usual(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        assert scope["extensions"][WHOLE](scope, 200, headers, b"no") is False
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(usual) as port:
        answer = await exchange(port, get("/", close=True))
    assert answer.endswith(b"\r\n\r\nok")


async def test_nothing_is_written_to_a_caller_who_left() -> None:
    """Once the connection is lost the short cut is gone with it."""
    answered = asyncio.Event()
    outcome: list[Any] = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        outcome.append(scope["extensions"].get(WHOLE))
        answered.set()

    async with serving(late) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/"))
        writer.close()
        await asyncio.wait_for(answered.wait(), 5)
    assert outcome == [None]


async def test_requests_leave_nothing_for_the_garbage_collector() -> None:
    """A thousand requests over one connection make no circles of references."""
    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        gc.collect()
        gc.disable()
        try:
            for _ in range(1000):
                writer.write(get("/one"))
                await reader.readuntil(b"/one")
            assert gc.collect() < 500
        finally:
            gc.enable()
            writer.close()
