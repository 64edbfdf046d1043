"""httpx over the guarded pool: what goes over the wire, and httpx's own errors for what goes wrong."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from infra.outbound import Guard
from infra.pool import Pool
from infra.transport import GuardedTransport, carry
from tests.infra.scripted import (
    Play,
    body_of,
    headers_of,
    ok,
    refused_port,
    says,
    scripted,
    target_of,
    trickles,
)


@pytest.fixture
async def client(guard: Guard) -> AsyncIterator[httpx.AsyncClient]:
    """Give an httpx client as the product builds it."""
    pool = Pool(guard)
    async with httpx.AsyncClient(
        transport=GuardedTransport(pool, seconds=0.05), trust_env=False, timeout=5.0
    ) as one:
        yield one
    pool.close()


async def test_a_request_arrives_as_it_was_made(client: httpx.AsyncClient) -> None:
    """Method, target, headers and body arrive once each; compression is refused whatever the client asks."""
    async with scripted(says(ok(b'{"n":1}', b"X-Answer: yes", status=b"201 X"))) as server:
        answer = await client.post(
            f"{server.url}/v1/items/?a=1&b=%20",
            json={"ü": 1},
            headers={"Authorization": "Bearer k", "X-A": "1"},
        )
        [request] = server.requests
    assert (answer.status_code, answer.json(), answer.headers["x-answer"]) == (201, {"n": 1}, "yes")
    assert request.startswith(b"POST /v1/items/?a=1&b=%20 HTTP/1.1\r\n")
    assert body_of(request) == '{"ü":1}'.encode()
    headers = [(name.lower(), value) for name, value in headers_of(request)]
    assert len(headers) == len(dict(headers))
    assert dict(headers) | {"user-agent": ""} == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "content-length": str(len('{"ü":1}'.encode())),
        "accept": "*/*",
        "user-agent": "",
        "content-type": "application/json",
        "authorization": "Bearer k",
        "x-a": "1",
    }


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/"),
        ("/", "/"),
        ("?x=1", "/?x=1"),
        ("/?x=1", "/?x=1"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/?x=/", "/a/?x=/"),
    ],
)
async def test_the_target_is_not_changed(client: httpx.AsyncClient, path: str, target: str) -> None:
    """A slash at the end of a path matters to some servers: it is kept, and none is added."""
    async with scripted(says(ok())) as server:
        await client.get(server.url + path)
        assert target_of(server.requests[0]) == target


async def test_a_streamed_body_is_sent_whole(client: httpx.AsyncClient) -> None:
    """A body made in pieces goes out with its length, not in chunks."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one,"
        yield b"two"

    async with scripted(says(ok())) as server:
        await client.put(server.url, content=pieces())
        [request] = server.requests
    assert body_of(request) == b"one,two"
    assert b"transfer-encoding" not in request.lower()
    assert dict(headers_of(request))["content-length"] == "7"


async def test_a_chunked_answer_is_read(client: httpx.AsyncClient) -> None:
    """A chunked answer is whole, and no longer says that it is chunked."""
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n"
    async with scripted(says(text)) as server:
        answer = await client.get(server.url)
    assert answer.json() == [1]
    assert "transfer-encoding" not in answer.headers


async def test_redirects_are_answers_and_the_guard_holds_on_the_way(client: httpx.AsyncClient) -> None:
    """Redirects are not followed; where a client insists, each hop passes the guard."""
    for location in ("http://10.0.0.1/", "https://169.254.169.254/latest/", "file:///etc/passwd"):
        async with scripted(says(ok(b"", b"location: " + location.encode(), status=b"302 X"))) as server:
            assert (await client.get(server.url)).status_code == 302
            with pytest.raises((httpx.ConnectError, httpx.UnsupportedProtocol)):
                await client.get(server.url, follow_redirects=True)
            assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (says(close=True), httpx.ReadError),
        (says(b"garbage", close=True), httpx.ReadError),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", close=True), httpx.ReadError),
        (trickles(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (1 << 18)), httpx.ReadError),
        (says(), httpx.ReadTimeout),
        (says(ok(gzip.compress(b"x" * 1000), b"content-encoding: gzip ")), httpx.ReadError),
        (says(ok(b"x", b"Content-Encoding: br")), httpx.ReadError),
    ],
    ids=["closed", "garbage", "half", "endless", "silent", "gzip", "br"],
)
async def test_failures_after_sending(client: httpx.AsyncClient, play: Play, error: type[Exception]) -> None:
    """Each failure is the error httpx has for it; nothing is sent twice."""
    async with scripted(play) as server:
        with pytest.raises(error):
            await client.get(server.url, timeout=0.05 if error is httpx.ReadTimeout else 5)
        assert len(server.requests) == 1


async def test_a_bomb_is_not_unpacked(client: httpx.AsyncClient) -> None:
    """A small compressed answer that would become a gigabyte is refused before it is unpacked."""
    bomb = gzip.compress(gzip.compress(bytes(1 << 26)) * 16)
    async with scripted(says(ok(bomb, b"content-encoding: gzip, gzip"))) as server:
        with pytest.raises(httpx.ReadError, match="compressed"):
            await client.get(server.url)
        server.play = says(ok(b"{}", b"content-encoding: identity"))
        assert (await client.get(server.url)).json() == {}


@pytest.mark.parametrize(
    "url",
    [
        *("https://10.0.0.1/", "http://8.8.8.8/", "https://8.8.8.8:22/", "https://printer.local/"),
        *("https://[::1]/", "http://user:pass@127.0.0.1/", "https://8.8.8.8/#part"),
    ],
)
async def test_what_may_not_be_called_is_a_connect_error(client: httpx.AsyncClient, url: str) -> None:
    """The guard's refusal is httpx's error for a connection that did not come about."""
    with pytest.raises(httpx.ConnectError):
        await client.get(url)


async def test_dead_and_slow_connections(client: httpx.AsyncClient) -> None:
    """A refused port is a connect error; a connection not there in time is a connect timeout."""
    with pytest.raises(httpx.ConnectError):
        await client.get(f"http://127.0.0.1:{await refused_port()}")
    async with scripted(says()) as server:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get(f"https://127.0.0.1:{server.port}", timeout=0.03)
        assert server.requests == []


async def test_without_a_timeout_the_transports_own_holds(client: httpx.AsyncClient) -> None:
    """No call waits for ever, whatever its client thinks."""
    async with scripted(trickles(b"HTTP/1.1 200 OK\r\n\r\n", b"x")) as server:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(server.url, timeout=None)


@pytest.mark.parametrize(
    "headers", [{"x": "a\r\nx-forged: 1"}, {"x": "a\nb"}, {"x\r\nx-forged: 1": "a"}, {"x": "a\0b"}]
)
async def test_a_header_cannot_bring_another(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """A line break in a header is refused before anything is sent."""
    async with scripted(says(ok())) as server:
        with pytest.raises(httpx.ConnectError, match="line break"):
            await client.get(server.url, headers=headers)
        assert server.connections == 0


async def test_head_is_refused_at_once(client: httpx.AsyncClient) -> None:
    """An answer to HEAD announces a body that never comes: rather than wait for it, nothing is sent."""
    async with scripted(says(ok())) as server:
        with pytest.raises(httpx.ConnectError, match="HEAD"):
            await client.head(server.url)
        assert server.connections == 0


async def test_proxy_variables_are_ignored(
    guard: Guard, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy named in the environment sees nothing, neither of the pool nor of an httpx client over it."""
    async with scripted(says(ok(b"proxied"))) as proxy, scripted(says(ok(b"direct"))) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        pool = Pool(guard)
        async with httpx.AsyncClient(transport=GuardedTransport(pool), trust_env=False) as fresh:
            assert (await fresh.get(server.url)).text == "direct"
        assert (await carry(pool, "GET", server.url, [], b"", seconds=5)).body == b"direct"
        assert (await client.get(server.url)).text == "direct"
        pool.close()
        assert (proxy.connections, len(server.requests)) == (0, 3)
