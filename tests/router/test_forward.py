"""One exchange with an autopilot over a real socket: what it receives, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from infra.outbound import Guard, Url, parse_allowed, parse_url
from infra.pool import MAX_ANSWER, Answer, Pool
from infra.signing import sign
from router import __version__
from router.forward import AttemptFailed, Forward, Message, Reply, _json_of
from router.model import Capability
from router.routes import Candidate
from router.trace import Trace
from tests.fakes import START, FakeClock
from tests.infra.scripted import (
    Dns,
    Scripted,
    body_of,
    headers_of,
    ok,
    refused_port,
    says,
    scripted,
    target_of,
    trickles,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BODY = '{"task":"generate_page","capability":"web.pages.generate","meta":{"näme":"ü"}}'.encode()


def candidate(endpoint: str) -> Candidate:
    """Return an autopilot at an endpoint."""
    remote = endpoint.startswith("http")
    return Candidate(
        name="stylist",
        capability=Capability("web.pages.generate"),
        endpoint=endpoint,
        url=parse_url(endpoint) if remote else None,
        priority=100,
        weight=1,
        leased=False,
        needy=False,
        revision=1,
        secret=SECRET,
    )


def message(body: bytes = BODY, *, hops: int = 0) -> Message:
    """Return a task on its way."""
    trace = Trace(f"00-{TRACE}-00f067aa0ba902b7-01".encode())
    return Message("msg_1", body, trace, "key-7", hops)


@pytest.fixture
async def forward(clock: FakeClock) -> AsyncIterator[Forward]:
    """Give a forward that may call loopback and knows a few other names."""
    dns = Dns({"inside.example": [["10.0.0.7"]], "meta.example": [["169.254.169.254"]]})
    pool = Pool(Guard(parse_allowed(["127.0.0.0/8"]), resolve=dns))
    yield Forward(pool, {}, clock)
    pool.close()


async def post(forward: Forward, where: str | Scripted, body: bytes = BODY, seconds: float = 5.0) -> Reply:
    """Post a task to `/tasks`."""
    endpoint = where if isinstance(where, str) else where.url
    deadline = asyncio.get_running_loop().time() + seconds
    return await forward.post(candidate(endpoint), "/tasks", message(body), deadline)


# What an autopilot receives


async def test_all_that_an_autopilot_receives(forward: Forward) -> None:
    """The request has these headers and no others, and the body to the byte."""
    async with scripted(says(ok(b'{"done":true}'))) as server:
        reply = await post(forward, server)
        [request] = server.requests
    assert reply == Reply(200, b'{"done":true}', None)
    assert request.startswith(b"POST /tasks HTTP/1.1\r\n")
    assert body_of(request) == BODY
    headers = headers_of(request)
    traceparent = dict(headers)["traceparent"]
    assert headers == [
        ("host", f"127.0.0.1:{server.port}"),
        ("user-agent", f"autopilot-router/{__version__}"),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("traceparent", traceparent),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", str(int(START))),
        ("webhook-signature", sign(SECRET, "msg_1", int(START), BODY)),
        ("idempotency-key", "key-7"),
        ("x-autopilot-hops", "1"),
        ("content-length", str(len(BODY))),
    ]
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", traceparent)
    assert "00f067aa0ba902b7" not in traceparent


async def test_an_independent_receiver_accepts_the_signature() -> None:
    """The published library verifies a task as it comes off the wire."""
    pool = Pool(Guard(parse_allowed(["127.0.0.0/8"])))
    async with scripted(says(ok())) as server:
        for body in (BODY, b'{"a": "\\u00fc" }', b"{}"):
            await post(Forward(pool, {}, time.time), server, body)
            request = server.requests[-1]
            received = Webhook(SECRET).verify(body_of(request), dict(headers_of(request)))
            assert received == json.loads(body)
        pool.close()


async def test_every_attempt_is_a_span_of_one_message(forward: Forward) -> None:
    """A second attempt has the same id, key and trace under a new span, and counts one more router."""
    async with scripted(says(ok())) as server:
        deadline = asyncio.get_running_loop().time() + 5
        sent = message(hops=2)
        for _ in range(2):
            await forward.post(candidate(server.url), "/tasks", sent, deadline)
        first, second = (dict(headers_of(request)) for request in server.requests)
    assert first.pop("traceparent") != second.pop("traceparent")
    assert first == second
    assert first["x-autopilot-hops"] == "3"


@pytest.mark.parametrize(
    ("endpoint", "path", "target"),
    [
        ("", "/tasks", "/tasks"),
        ("/", "/tasks", "/tasks"),
        ("/base", "/tasks", "/base/tasks"),
        ("/base/v1/", "/configure", "/base/v1/configure"),
        ("/base?key=1&b=%20", "/tasks", "/base/tasks?key=1&b=%20"),
        ("?key=1", "/tasks", "/tasks?key=1"),
    ],
)
async def test_paths_are_joined(forward: Forward, endpoint: str, path: str, target: str) -> None:
    """What the router adds goes behind the endpoint's path and before its query."""
    async with scripted(says(ok())) as server:
        deadline = asyncio.get_running_loop().time() + 5
        for _ in range(2):  # the second time from memory
            await forward.post(candidate(server.url + endpoint), path, message(), deadline)
        assert [target_of(request) for request in server.requests] == [target] * 2
        assert server.connections == 1


class Recording(Pool):
    """A pool that keeps what it was to send and answers by itself."""

    def __init__(self) -> None:
        super().__init__(Guard(parse_allowed([])))
        self.sent: list[bytes] = []

    async def exchange(self, url: Url, request: bytes, *, deadline: float, limit: int = MAX_ANSWER) -> Answer:
        self.sent.append(request)
        return Answer(200, [], b"{}")


async def test_the_memory_of_heads_is_bounded(clock: FakeClock) -> None:
    """However many endpoints there were, few heads are remembered, and each request has its own."""
    pool = Recording()
    forward = Forward(pool, {}, clock)
    for number in range(10_100):
        await post(forward, f"http://127.0.0.1/{number}")
        assert pool.sent[-1].startswith(b"POST /%d/tasks HTTP/1.1\r\nhost: 127.0.0.1\r\n" % number)
    assert len(forward._heads) <= 10_001


# What becomes of the answer


@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 409, 422, 429, 500, 503, 599])
async def test_a_status_is_passed_on(forward: Forward, status: int) -> None:
    """An answer of any status but a redirect is an answer."""
    text = b"HTTP/1.1 204 X\r\n\r\n" if status == 204 else ok(b'{"n":1}', status=b"%d X" % status)
    async with scripted(says(text)) as server:
        assert (await post(forward, server)).status == status


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
async def test_a_redirect_fails_and_is_not_followed(forward: Forward, status: int) -> None:
    """A redirect is a failure that may not be repeated elsewhere; nothing else is called."""
    async with scripted(says(ok(b"here"))) as aim:
        location = f"location: {aim.url}/".encode()
        head = b"HTTP/1.1 %d X\r\n%b\r\ncontent-length: 0\r\n\r\n" % (status, location)
        async with scripted(says(head)) as server:
            with pytest.raises(AttemptFailed, match="redirect") as failure:
                await post(forward, server)
            assert len(server.requests) == 1
        assert aim.connections == 0
    assert not failure.value.safe
    assert not failure.value.late
    assert aim.url not in str(failure.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1,  "b":"\xc3\xbc"}',
        b"[1,2.50,1E5]",
        b'"text"',
        b"null",
        b" 0 \n",
        b'{"a":1,"a":2}',
    ],
)
async def test_json_is_passed_on_to_the_byte(forward: Forward, body: bytes) -> None:
    """JSON comes back as it was written, spaces and all."""
    async with scripted(says(ok(body, b"content-type: text/plain"))) as server:
        assert (await post(forward, server)).result == body


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (b"", ""),
        (b"plain", "plain"),
        (b"<h1>\xc3\xbc</h1>", "<h1>ü</h1>"),
        (b"{", "{"),
        (b"{} {}", "{} {}"),
        (b"NaN", "NaN"),
        (b'{"a":NaN}', '{"a":NaN}'),
        (b'"\xff"', '"\ufffd"'),
        (b"\xff\xfe{}", "\ufffd\ufffd{}"),
        (b"\xef\xbb\xbf{}", "\ufeff{}"),
        (b'"\\ud800"', '"\\ud800"'),
        (b'"\n"', '"\n"'),
        (b"1" * 5000, "1" * 5000),
        (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
    ],
)
async def test_what_is_no_json_arrives_as_raw_text(forward: Forward, body: bytes, raw: str) -> None:
    """Anything else is wrapped; bytes that are no UTF-8 are shown as such."""
    async with scripted(says(ok(body, b"content-type: application/json"))) as server:
        assert json.loads((await post(forward, server)).result) == {"raw": raw}


@given(
    st.one_of(
        st.binary(max_size=40),
        st.text('{}[],:"\\ue01-+.Ntrulfas \n\0', max_size=30).map(str.encode),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_a_result_is_always_json(body: bytes) -> None:
    """Whatever an autopilot answers, the result can stand inside our own JSON."""
    result = _json_of(body)

    def never(_: str) -> None:
        raise AssertionError("not JSON")

    json.loads(result, parse_constant=never)
    json.loads(b'{"result":' + result + b"}")
    assert result == body or set(json.loads(result)) == {"raw"}


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"x: y", None),
        (b"Retry-After: 0", 0.0),
        (b"retry-after: 120 ", 120.0),
        (b"retry-after: 999999999", 999999999.0),
        (b"retry-after: 1000000000", 1e9),
        (b"retry-after: " + b"9" * 19, None),
        (b"retry-after: -1", None),
        (b"retry-after: 1.5", None),
        (b"retry-after: Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        (b"retry-after: Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (b"retry-after: Wed, 99 Oct 2026 07:28:00 GMT", None),
        (b"retry-after: \xb2", None),
        (b"retry-after:", None),
    ],
)
async def test_retry_after_is_read_where_it_is_seconds_or_a_date(
    forward: Forward, line: bytes, seconds: float | None
) -> None:
    """Whole seconds and dates are understood, anything else is as if it were absent."""
    async with scripted(says(ok(b"{}", line, status=b"429 X"))) as server:
        assert (await post(forward, server)).retry_after == seconds


# What fails


async def test_refused_and_dead_endpoints_look_the_same(forward: Forward) -> None:
    """Nobody learns from a failure whether an address is forbidden, unknown or dead, nor which one it is."""
    texts = set()
    for endpoint in (
        f"http://127.0.0.1:{await refused_port()}",
        "https://10.0.0.1",
        "https://inside.example",
        "https://meta.example",
        "https://unknown.example",
        "https://localhost",
        "http://8.8.8.8",
        "https://8.8.8.8:22",
        "local:nobody",
    ):
        with pytest.raises(AttemptFailed) as failure:
            await post(forward, endpoint)
        texts.add(str(failure.value))
        assert failure.value.safe
        assert not failure.value.late
        assert failure.value.__suppress_context__
    assert texts == {"could not be reached"}


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"SSH-2.0-x\r\n"])
async def test_a_lost_answer_may_not_be_repeated(forward: Forward, text: bytes) -> None:
    """When the task was sent and no whole answer came, it may have been done: one request, not safe."""
    async with scripted(says(text, close=True)) as server:
        with pytest.raises(AttemptFailed) as failure:
            await post(forward, server)
        assert len(server.requests) == 1
    assert not failure.value.safe
    assert not failure.value.late


async def test_an_answer_over_its_limit_fails(forward: Forward) -> None:
    """More than 5 MiB are not read, and the failure says so."""
    async with scripted(trickles(b"HTTP/1.1 200 OK\r\n\r\n", b" " * (1 << 18))) as server:
        with pytest.raises(AttemptFailed, match=f"more than {MAX_ANSWER} bytes") as failure:
            await post(forward, server)
    assert not failure.value.safe


async def test_a_silent_autopilot_is_late(forward: Forward) -> None:
    """At the deadline the task counts as sent and late; with no time left it was not even sent."""
    async with scripted(says()) as server:
        for seconds, safe in ((0.03, False), (0.0, True)):
            with pytest.raises(AttemptFailed, match="in time") as failure:
                await post(forward, server, seconds=seconds)
            assert failure.value.late
            assert failure.value.safe is safe
        assert len(server.requests) == 1
