"""Events of AWS into the whole product: every shape is answered, none raises, and nothing waits for later."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from router.errors import Invalid, StoreUnavailable
from router.handlers import Process
from router.wiring import manifests
from tests.upstream import Upstream

KEY = "a-key-of-32-characters-for-tests"
DOMAIN = "abc.lambda-url.eu-central-1.on.aws"
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "corpora" / "bad_bodies.json").read_text("utf-8")
)
GONE = object()
Event = dict[str, Any]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the settings of a function."""
    return {
        "AUTOPILOT_API_KEY": KEY,
        "AUTOPILOT_DATA": str(folder),
        "AUTOPILOT_PUBLIC_URL": "https://autopilot.example.com",
        **more,
    }


@contextmanager
def process(folder: Path, **more: str) -> Iterator[Process]:
    """Give a process that has seen no event yet."""
    one = Process(environment(folder, **more))
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Give a process for the whole module."""
    with process(tmp_path_factory.mktemp("handlers")) as one:
        yield one


def payload_2(method: str, path: str, headers: dict[str, str], body: str | None) -> Event:
    """Return the event of a function URL."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": DOMAIN, "x-forwarded-port": "443", "x-forwarded-proto": "https", **headers},
        "requestContext": {
            "accountId": "anonymous",
            "domainName": DOMAIN,
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.9"},
            "timeEpoch": 1583348638390,
        },
        "body": body,
        "isBase64Encoded": False,
    }


def payload_1(method: str, path: str, headers: dict[str, str], body: str | None) -> Event:
    """Return the event of a REST API."""
    headers = {"Host": DOMAIN, "X-Forwarded-Port": "443", **headers}
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.strip("/")},
        "stageVariables": None,
        "requestContext": {"domainName": DOMAIN, "identity": {"sourceIp": "203.0.113.9"}, "stage": "prod"},
        "body": body,
        "isBase64Encoded": False,
    }


def balanced(method: str, path: str, headers: dict[str, str], body: str | None) -> Event:
    """Return the event of a load balancer."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:1:x"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "headers": {"host": "lb.example.com", "x-forwarded-for": "127.0.0.1, 203.0.113.9", **headers},
        "body": body or "",
        "isBase64Encoded": False,
    }


def balanced_with_several(method: str, path: str, headers: dict[str, str], body: str | None) -> Event:
    """Return the event of a load balancer that gives every value of a header."""
    event = balanced(method, path, headers, body)
    event["multiValueHeaders"] = {name: [value] for name, value in event.pop("headers").items()}
    event["multiValueQueryStringParameters"] = event.pop("queryStringParameters")
    return event


SHAPES = [payload_2, payload_1, balanced, balanced_with_several]
SIGNED = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


def call(router: Process, method: str, path: str, body: Any = None, shape: Any = payload_2) -> Event:
    """Send a call with the key in an event and return the answer, with the body's JSON under `json`."""
    return sent(router, shape(method, path, SIGNED, None if body is None else json.dumps(body)))


def sent(router: Process, event: Any) -> Event:
    """Send an event and return its answer, which Lambda has to be able to write down."""
    answer = json.loads(json.dumps(router.http(event, None)))
    assert isinstance(answer["statusCode"], int)
    text = answer["body"]
    raw = base64.b64decode(text) if answer["isBase64Encoded"] else text.encode()
    return {**answer, "raw": raw, "json": json.loads(raw) if raw[:1] in (b"{", b"[") else None}


def changed(event: Event, *path: str, to: Any = GONE) -> Event:
    """Return an event with one thing replaced or left out."""
    copy: Event = json.loads(json.dumps(event))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    if to is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return copy


URL = payload_2("POST", "/autopilot/plan", SIGNED, "{}")
REST = payload_1("POST", "/autopilot/plan", SIGNED, "{}")
ALB = balanced("POST", "/autopilot/plan", SIGNED, "{}")
ALBS = balanced_with_several("POST", "/autopilot/plan", SIGNED, "{}")

REFUSED: dict[str, Any] = {
    "a host with a port that is none": changed(URL, "headers", "host", to="x:abc"),
    "a host that is an address of version 6": changed(URL, "headers", "host", to="[::1]:80"),
    "a host with a port that is too high": changed(URL, "headers", "host", to="x:65536"),
    "a forwarded port that is none": changed(URL, "headers", "x-forwarded-port", to="abc"),
    "a scheme that is none": changed(URL, "headers", "x-forwarded-proto", to="gopher"),
    "base64 without its padding": {**URL, "body": "e30", "isBase64Encoded": True},
    "base64 that is none": {**URL, "body": "!!!!", "isBase64Encoded": True},
    "base64 that is not ASCII": {**URL, "body": "é", "isBase64Encoded": True},
    "half a letter in the body": {**URL, "body": "\ud800"},
    "half a letter in a header": changed(URL, "headers", "a", to="\udfff"),
    "half a letter in the path": changed(URL, "requestContext", "http", "path", to="/\ud800"),
    "half a letter in the query": {**URL, "rawQueryString": "\ud800"},
    "headers that are null": {**URL, "headers": None},
    "headers that are a list": {**URL, "headers": []},
    "no headers": changed(URL, "headers"),
    "a header that is null": changed(URL, "headers", "a", to=None),
    "a header that is a number": changed(URL, "headers", "a", to=1),
    "a header with a line break": changed(URL, "headers", "a", to="b\r\nc: d"),
    "a header without a name": changed(URL, "headers", "", to="a"),
    "a header with a blank in its name": changed(URL, "headers", "a b", to="a"),
    "a key in two spellings": changed(URL, "headers", "Authorization", to="Bearer x"),
    "a body that is a number": {**URL, "body": 3},
    "a body that is an object": {**URL, "body": {}},
    "an encoding that is a word": {**URL, "isBase64Encoded": "junk"},
    "no context": changed(URL, "requestContext"),
    "a context that is null": {**URL, "requestContext": None},
    "a context that is a word": {**URL, "requestContext": "elb"},
    "a context without http": {**URL, "requestContext": {}},
    "a caller without an address": changed(URL, "requestContext", "http", "sourceIp"),
    "no path": changed(URL, "requestContext", "http", "path"),
    "a path that is a number": changed(URL, "requestContext", "http", "path", to=3),
    "a path without its slash": changed(URL, "requestContext", "http", "path", to="health"),
    "no method": changed(URL, "requestContext", "http", "method"),
    "a method with a line break": changed(URL, "requestContext", "http", "method", to="GET\r\n"),
    "an unknown version": {**URL, "version": 3},
    "a query that is null": {**URL, "rawQueryString": None},
    "cookies that are a number": {**URL, "cookies": 3},
    "a cookie that is a number": {**URL, "cookies": [3]},
    "REST: no path": changed(REST, "path"),
    "REST: no method": changed(REST, "httpMethod"),
    "REST: no identity": changed(REST, "requestContext", "identity"),
    "REST: all headers null": {**REST, "headers": None, "multiValueHeaders": None},
    "REST: headers that are no lists": {**REST, "multiValueHeaders": {"host": "x"}},
    "REST: a header twice": changed(REST, "multiValueHeaders", "authorization", to=["Bearer a", "Bearer b"]),
    "REST: a query that is a list": {**REST, "queryStringParameters": []},
    "REST: values of a query that are none": {**REST, "multiValueQueryStringParameters": {"a": [1]}},
    "REST: values of a query that are no list": {**REST, "multiValueQueryStringParameters": {"a": "b"}},
    "ALB: no address": changed(ALB, "headers", "x-forwarded-for"),
    "ALB: no headers": changed(ALB, "headers"),
    "ALB: headers that are null": {**ALBS, "multiValueHeaders": None},
    "ALB: a header twice": changed(ALBS, "multiValueHeaders", "host", to=["a", "a"]),
    "ALB: a query of numbers": {**ALB, "queryStringParameters": {"a": 1}},
    "a schedule": {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    "a queue": {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]},
    "no records": {"Records": []},
    "records that are a number": {"Records": 3},
    "a request at the edge": {"Records": [{"cf": {"request": {"uri": "/", "method": "GET"}}}]},
    "nothing": {},
    "null": None,
    "a list": [URL],
    "a word": "requestContext",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_answered_400(router: Process, name: str) -> None:
    """It gets the problem document that a malformed body gets, in the form its sender reads."""
    answer = sent(router, REFUSED[name])
    assert (answer["statusCode"], answer["json"]["code"]) == (400, "malformed")
    assert {"type", "title", "status", "detail", "code", "error", "trace_id"} == set(answer["json"])
    event = REFUSED[name]
    if isinstance(event, dict) and "multiValueHeaders" in event:
        assert answer["multiValueHeaders"]["content-type"] == ["application/problem+json"]
    else:
        assert answer["headers"]["content-type"] == "application/problem+json"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_answered(router: Process, shape: Any) -> None:
    """Method, path, query, headers and body arrive, and the answer is in the sender's form."""
    answer = sent(router, shape("GET", "/health", {}, None))
    assert (answer["statusCode"], answer["json"]["status"]) == (200, "healthy")
    several = shape == balanced_with_several
    headers = answer["multiValueHeaders"] if several else answer["headers"]
    assert headers["content-type"] == (["application/json"] if several else "application/json")
    assert call(router, "POST", "/autopilot/plan", {"task": "nobody_knows"}, shape)["statusCode"] == 400
    assert call(router, "DELETE", "/autopilot/registry/nobody%2Dhere", None, shape)["statusCode"] == 404
    event = shape("GET", "/autopilot/list", SIGNED, None)
    query: Any = {"limit": "1", "capability": "a.b"}
    if shape is payload_2:
        event["rawQueryString"] = "limit=1&capability=a.b"
    elif shape is balanced_with_several:
        event["multiValueQueryStringParameters"] = {name: [value] for name, value in query.items()}
    else:
        event["queryStringParameters"] = query
    assert sent(router, event)["statusCode"] == 200
    event = shape("GET", "/autopilot/list", SIGNED, None)
    name = "multiValueQueryStringParameters"
    if shape is payload_2:
        event["rawQueryString"] = "limit=1&limit=2"
    else:
        event.pop("queryStringParameters", None)
        event[name] = {"limit": ["1", "2"]}
    refused = sent(router, event)
    assert (refused["statusCode"], refused["json"]["errors"][0]["field"]) == (422, "limit")


@pytest.mark.parametrize("shape", SHAPES)
def test_nobody_is_let_in_for_where_they_seem_to_be(router: Process, shape: Any) -> None:
    """A forged address of this machine, in the event or in a header, opens nothing."""
    event = shape("GET", "/autopilot/list", {"host": "127.0.0.1", "x-forwarded-for": "127.0.0.1"}, None)
    if shape is payload_1:
        event["multiValueHeaders"] = {"host": ["127.0.0.1"]}
        event["requestContext"]["identity"]["sourceIp"] = "127.0.0.1"
    if shape is payload_2:
        event["requestContext"]["http"]["sourceIp"] = "127.0.0.1"
    answer = sent(router, event)
    assert (answer["statusCode"], answer["json"]["code"]) == (401, "unauthenticated")


def test_local_mode_is_refused_on_lambda(tmp_path: Path) -> None:
    """So are a missing key and a short one: the error names the variable, and nothing is answered."""
    for settings_, wrong in (
        ({"AUTOPILOT_AUTH": "local"}, "AUTOPILOT_AUTH"),
        ({"AUTOPILOT_AUTH": "local", "AUTOPILOT_API_KEY": KEY}, "AUTOPILOT_AUTH"),
        ({}, "AUTOPILOT_API_KEY"),
        ({"AUTOPILOT_API_KEY": "short"}, "AUTOPILOT_API_KEY"),
    ):
        one = Process({"AUTOPILOT_DATA": str(tmp_path / "data"), **settings_})
        for _ in range(2):
            with pytest.raises(Invalid, match="AWS Lambda") as caught:
                one.http(URL, None)
            assert caught.value.problems[0].field == wrong
    assert list(tmp_path.iterdir()) == []


def test_the_url_comes_from_the_setting_or_the_event(tmp_path: Path) -> None:
    """A load balancer does not say where it is reached, and its Host header is the caller's to write."""
    for name, event, more, url in (
        ("a", URL, {"AUTOPILOT_PUBLIC_URL": ""}, f"https://{DOMAIN}"),
        ("b", REST, {"AUTOPILOT_PUBLIC_URL": ""}, f"https://{DOMAIN}"),
        ("c", URL, {}, "https://autopilot.example.com"),
        ("d", ALB, {}, "https://autopilot.example.com"),
    ):
        with process(tmp_path / name, **more) as one:
            one.http(event, None)
            assert one._system is not None
            assert one._system.employee.public_url == url
    with process(tmp_path / "e", AUTOPILOT_PUBLIC_URL="") as one:
        for event in (
            ALB,
            changed(URL, "requestContext", "domainName", to="a/b"),
            changed(URL, "requestContext", "domainName"),
        ):
            with pytest.raises(Invalid, match="AUTOPILOT_PUBLIC_URL"):
                one.http(event, None)
        assert sent(one, URL)["statusCode"] == 400


def test_the_address_of_the_caller_is_the_one_that_was_seen(router: Process) -> None:
    """Not the first of a list that the caller may have begun."""
    seen = []
    system = router._system
    assert system is not None
    app = system.app

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"])
        await app(scope, receive, send)

    object.__setattr__(system, "app", spy)
    try:
        for shape in SHAPES:
            sent(router, shape("GET", "/health", {}, None))
    finally:
        object.__setattr__(system, "app", app)
    assert seen == [("203.0.113.9", 0)] * 4


def test_a_body_may_be_in_base64(router: Process) -> None:
    """What a gateway encoded is decoded, once; its length is what the app is told."""
    body = base64.b64encode(b'{"task":"nobody_knows_\xc3\xa9"}').decode()
    event = payload_2("POST", "/autopilot/plan", {**SIGNED, "content-length": "7"}, body)
    answer = sent(router, {**event, "isBase64Encoded": True})
    assert (answer["statusCode"], answer["json"]["code"]) in {(400, "unknown_task"), (422, "invalid_body")}
    assert sent(router, event)["json"]["code"] == "malformed"


def test_a_body_counts_although_no_header_tells_its_length(router: Process) -> None:
    """REST APIs leave `content-length` out: what is sent is read all the same."""
    answer = call(router, "POST", "/autopilot/ensure-infra", {"dry_run": 3}, payload_1)
    assert (answer["statusCode"], answer["json"]["code"]) == (422, "invalid_body")
    assert call(router, "POST", "/autopilot/ensure-infra", {"dry_run": True}, payload_1)["statusCode"] == 200
    assert call(router, "POST", "/autopilot/ensure-infra", None, payload_1)["statusCode"] == 200


def test_what_is_not_text_travels_in_base64(router: Process) -> None:
    """JSON, problems and pages are text; a picture is not."""
    for path in ("/health", "/nothing", "/admin", "/openapi.json"):
        answer = call(router, "GET", path)
        assert not answer["isBase64Encoded"], path
    assert b"<html" in call(router, "GET", "/admin")["raw"]


def test_a_stream_ends_with_what_there_is(router: Process) -> None:
    """Nobody can listen for ever to a function: the events so far are sent, and the reader comes again."""
    event = payload_2("GET", "/autopilot/events", {**SIGNED, "accept": "text/event-stream"}, None)
    answer = sent(router, event)
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (200, "text/event-stream")
    assert answer["raw"].startswith(b"retry: ")


def test_what_nobody_would_work_on_is_not_taken(router: Process) -> None:
    """A task for later is refused where nothing works on the queue."""
    answer = call(router, "POST", "/autopilot/plan", {"task": "generate_page", "mode": "async"})
    assert answer["statusCode"] == 422
    assert b"async is not offered here" in answer["raw"]


def test_a_store_that_is_not_there_yet_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next event tries again."""

    def failing(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the store is away")

    with process(tmp_path) as one:
        with monkeypatch.context() as away:
            away.setattr("router.handlers.build", failing)
            answer = sent(one, URL)
        assert (answer["statusCode"], answer["json"]["code"]) == (503, "store_unavailable")
        assert sent(one, URL)["statusCode"] == 400


@pytest.mark.parametrize("encoded", [False, True])
def test_the_corpus_of_bad_bodies(router: Process, encoded: bool) -> None:
    """Every row is answered as it says when it comes in an event, as text or in base64."""
    wrong = []
    for row in ROWS:
        body = base64.b64decode(row["body_b64"]) if "body_b64" in row else row["body"].encode()
        headers = {"authorization": f"Bearer {KEY}"}
        if row["content_type"]:
            headers["content-type"] = row["content_type"]
        event = payload_2("POST", row["path"], headers, None)
        try:
            event["body"] = base64.b64encode(body).decode() if encoded else body.decode()
            event["isBase64Encoded"] = encoded
        except UnicodeDecodeError:  # what is no text is never sent as one
            event["body"] = base64.b64encode(body).decode()
            event["isBase64Encoded"] = True
        answer = sent(router, event)
        accepted = row.get("accept_status", [row["expect_status"]])
        code = (answer["json"] or {}).get("code")
        if answer["statusCode"] not in accepted and code not in row.get("accept_code", []):
            wrong.append((row["name"], answer["statusCode"], accepted))
    assert len(ROWS) == 119
    assert wrong == []


# anything at all

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "\ud800",
            "x:abc",
            "[::1]:80",
            "e30",
            "/",
            "//",
            "/%ff%00",
            "\r\n",
            "0",
            "2.0",
            "1.0",
            "elb",
            "\0",
        ]
    ),
    st.just([]),
    st.just({}),
    st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=3), max_size=3),
)
PATHS = [
    "/health",
    "/autopilot/plan",
    "/autopilot/registry",
    "/autopilot/list",
    "/admin",
    "/pages/x",
    "/nothing",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to everything inside a value."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        found += places(one, (*path, name))
    return found


@st.composite
def events(draw: st.DrawFn) -> Any:
    """Make an event that is nearly one that may come."""
    shape = draw(st.sampled_from(SHAPES))
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]))
    headers = draw(st.sampled_from([SIGNED, {}, {**SIGNED, "authorization": "Bearer x"}]))
    body = draw(st.sampled_from([None, "{}", '{"task":"generate_page"}', "{", "[]"]))
    event = json.loads(json.dumps(shape(method, draw(st.sampled_from(PATHS)), headers, body)))
    for _ in range(draw(st.integers(0, 3))):
        found = places(event)
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        inner = event
        for name in way:
            inner = inner[name]
        what = draw(st.sampled_from(["replace", "replace", "leave out", "add"]))
        if what == "leave out":
            del inner[last]
        elif what == "add" and isinstance(inner, dict):
            inner[
                draw(st.text(max_size=8) | st.sampled_from(["host", "HOST", "cookies", "Authorization"]))
            ] = draw(JUNK)
        else:
            inner[last] = draw(JUNK)
    return event


@settings(
    max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(event=events() | JUNK)
@example(event={"requestContext": {"elb": None}, "multiValueHeaders": {}})
@example(event={"requestContext": {"http": None}, "version": "2.0"})
def test_a_thousand_odd_events(router: Process, event: Any) -> None:
    """Whatever comes is answered, with the caller's mistake or with success: never raised, never a 5xx."""
    answer = sent(router, event)
    assert 200 <= answer["statusCode"] < 500, answer
    if answer["statusCode"] >= 400 and answer["json"] is not None:
        assert answer["json"]["status"] == answer["statusCode"]


# from event to event


class Counting(Upstream):
    """An autopilot that counts the connections it gets, on a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted = 0
        self.loop = asyncio.new_event_loop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await super()._serve(reader, writer)

    def do(self, work: Any) -> None:
        """Run something on its loop, from outside."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(5)

    async def hang_up(self) -> None:
        """Close every connection from this side, as a server does with those that are idle."""
        for writer in list(self._writers):
            writer.close()
            await writer.wait_closed()


@pytest.fixture
def far() -> Iterator[Counting]:
    """Give an autopilot on a socket, which answers while this thread is busy."""
    one = Counting()
    thread = threading.Thread(target=one.loop.run_forever)
    thread.start()
    one.do(one.start())
    try:
        yield one
    finally:
        one.do(one.stop())
        one.loop.call_soon_threadsafe(one.loop.stop)
        thread.join()
        one.loop.close()


def test_a_plan_from_end_to_end(tmp_path: Path) -> None:
    """An autopilot of this process is registered and does a task; the row of the log is there at once."""
    with process(tmp_path) as one:
        for manifest in manifests():
            assert call(one, "POST", "/autopilot/registry", manifest)["statusCode"] == 201
        meta = {"pageType": "home", "description": "Welcome page for new students"}
        answer = call(one, "POST", "/autopilot/plan", {"task": "generate_page", "meta": meta})
        assert (answer["statusCode"], answer["json"]["ok"]) == (200, True)
        assert answer["json"]["result"]["page"]["html"].startswith("<!doctype html>")
        with closing(sqlite3.connect(tmp_path / "router.db")) as table:
            [(document,)] = table.execute("SELECT document FROM item WHERE partition LIKE 'log:%'").fetchall()
        assert b"generate_page" in document
    with process(tmp_path) as again:
        assert call(again, "GET", "/autopilot/list")["json"]["count"] == len(manifests())


def test_connections_live_from_event_to_event(tmp_path: Path, far: Counting) -> None:
    """Events one after the other use the same connection, and one that was closed meanwhile is not used."""
    with process(tmp_path, AUTOPILOT_ALLOW_ENDPOINTS="127.0.0.0/8") as one:
        body = {"name": "far", "endpoint": far.url, "capabilities": ["a.b"]}
        assert call(one, "POST", "/autopilot/registry", body)["statusCode"] == 201

        def plan() -> Event:
            return call(one, "POST", "/autopilot/plan", {"capability": "a.b"})

        assert plan()["json"]["ok"]
        before = far.accepted
        for _ in range(5):
            assert plan()["json"]["ok"]
        assert far.accepted == before
        for count in range(1, 4):
            far.do(far.hang_up())
            answer = plan()
            assert (answer["statusCode"], answer["json"]["ok"]) == (200, True), answer
            assert far.accepted == before + count
        assert len(far.tasks) == 9
        with closing(sqlite3.connect(tmp_path / "router.db")) as table:
            [(rows,)] = table.execute("SELECT count(*) FROM item WHERE partition LIKE 'log:%'").fetchall()
        assert rows == 9


def test_other_loops_of_the_thread_do_not_matter(router: Process) -> None:
    """Whatever ran in between, an event is answered on the loop of the process."""

    async def nothing() -> None:
        return None

    for _ in range(2):
        asyncio.run(nothing())
        assert sent(router, payload_2("GET", "/health", {}, None))["statusCode"] == 200


def test_the_local_server_needs_nothing_of_aws() -> None:
    """Neither adapter nor SDK is imported until an event comes; without them everything else works."""
    code = (
        "import sys; sys.modules['mangum'] = sys.modules['boto3'] = sys.modules['botocore'] = None\n"
        "import router.cli, router.serve, router.handlers\n"
        "print(callable(router.handlers.http))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
