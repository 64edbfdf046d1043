"""`http.call`: what is sent, what is expected, and what is told of the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from autopilots.runner import RunnerParts
from autopilots.runner.expect import at, contains, kept, lacks, same, unmet
from infra.outbound import Guard, parse_allowed
from infra.pool import Pool
from infra.table import MAX_DOCUMENT
from infra.table.sqlite import SqliteTable
from infra.transport import GuardedTransport
from router.errors import StoreUnavailable
from tests.autopilots.runner.parts import CANARY, Moves, runner_parts, send
from tests.fakes import FakeClock
from tests.upstream import upstream

URL = "https://api.example.test/v1"


class Service:
    """A service that keeps what it is asked and gives its answers one after the other."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def moves() -> Moves:
    """Give a clock that only sleeping moves."""
    return Moves()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of its own."""
    return tmp_path


class Asks:
    """A runner beside a service."""

    def __init__(self, table: SqliteTable, clock: FakeClock, folder: Path, moves: Moves) -> None:
        self._with = (table, clock, folder)
        self._moves = moves
        self.parts: RunnerParts

    async def __call__(
        self, service: Service, meta: Any, key: str = "", *, status: int = 200
    ) -> dict[str, Any]:
        """Send a call."""
        self.parts = runner_parts(*self._with, answer=service, moves=self._moves)
        return await send(self.parts, "http.call", {"url": URL, **meta}, key, status=status)


@pytest.fixture
def ask(table: SqliteTable, clock: FakeClock, folder: Path, moves: Moves) -> Asks:
    """Give a way to send a call to a runner beside a service."""
    return Asks(table, clock, folder, moves)


def reply(status: int, value: Any, **headers: str) -> httpx.Response:
    """Return an answer in JSON."""
    return httpx.Response(status, json=value, headers=headers)


async def test_a_call_is_made_as_it_is_written(ask: Asks) -> None:
    """Method, URL, headers and a body in JSON go out; status, headers, JSON and tries come back."""
    service = Service(reply(201, {"id": "p1"}, location="/p1"))
    meta = {"method": "POST", "headers": {"X-Team": "a b"}, "body": {"name": "site", "n": [1, None]}}
    told = await ask(service, meta)
    (sent,) = service.asked
    assert (sent.method, str(sent.url), sent.headers["x-team"]) == ("POST", URL, "a b")
    assert msgspec.json.decode(sent.content) == {"name": "site", "n": [1, None]}
    assert sent.headers["content-type"] == "application/json"
    assert (told["status"], told["json"], told["text"], told["tries"]) == (201, {"id": "p1"}, None, 1)
    assert told["headers"]["location"] == "/p1"
    assert (told["truncated"], told["seconds"]) == (False, 0.0)


async def test_a_text_is_sent_as_it_is(ask: Asks) -> None:
    """With the content type it was given, or none; what is no JSON comes back as text."""
    service = Service(httpx.Response(200, text="pong\n"))
    meta = {"method": "PUT", "body": "a=1", "headers": {"content-type": "text/plain"}}
    told = await ask(service, meta)
    assert service.asked[0].content == b"a=1"
    assert service.asked[0].headers["content-type"] == "text/plain"
    assert (told["json"], told["text"]) == (None, "pong")
    await ask(service, {})
    assert "content-type" not in service.asked[1].headers
    assert service.asked[1].content == b""


async def test_secrets_go_out_and_do_not_come_back(ask: Asks) -> None:
    """In URL, header and body; an answer, a failure and the record that repeat them show stars."""
    echo = reply(
        200, {"said": CANARY, CANARY: [f"Bearer {CANARY}"]}, **{"x-echo": CANARY, "set-cookie": "a=b"}
    )
    meta = {
        "method": "POST",
        "url": URL + "?t=${env.API_TOKEN}",
        "headers": {"authorization": "Bearer ${env.API_TOKEN}"},
        "body": {"token": "${env.API_TOKEN}", "price": "$$5"},
        "secrets": ["API_TOKEN"],
    }
    service = Service(echo)
    told = await ask(service, meta, "key")
    sent = service.asked[0]
    assert sent.url.params["t"] == CANARY
    assert sent.headers["authorization"] == f"Bearer {CANARY}"
    assert msgspec.json.decode(sent.content) == {"token": CANARY, "price": "$5"}
    assert told["json"] == {"said": "****", "****": ["Bearer ****"]}
    assert told["headers"]["x-echo"] == "****"
    assert "set-cookie" not in told["headers"]
    expect = {"json": {"said": {"is": "x"}}, "header": {"X-Echo": {"is": "y"}}, "contains": [CANARY[:8]]}
    bad = await ask(service, meta | {"expect": expect}, status=424)
    assert bad["unmet"] == [
        'its header x-echo has to be "y", but is "****"',
        'its JSON said has to be "x", but is "****"',
    ]
    refused = Service(httpx.Response(403, text=f"{CANARY} may not"))
    assert (await ask(refused, meta, status=424))["answered"] == "**** may not"
    items = (await ask.parts.table.range("runner-once")).items
    assert items
    assert CANARY not in str(items)


async def test_an_answer_that_is_not_as_expected_fails_with_what_was_seen(ask: Asks) -> None:
    """Status, texts, JSON and headers, each with a sentence; a 4xx unless it is expected."""
    service = Service(reply(404, {"error": {"code": "none"}}, **{"x-limit": "5"}))
    told = await ask(service, {}, status=424)
    assert told["unmet"] == ["its status is 404, not 2xx"]
    assert told["result"]["json"] == {"error": {"code": "none"}}
    expect = {
        "status": [404, 410],
        "contains": ["none"],
        "lacks": ["stack"],
        "json": {"error.code": {"is": "none", "not": "x"}, "error.stack": {"exists": False}},
        "header": {"X-Limit": {"at_most": 5}, "x-powered-by": {"exists": False}},
        "seconds": 1,
    }
    assert (await ask(service, {"expect": expect}))["status"] == 404
    bad = {
        "status": [200],
        "contains": ["some"],
        "lacks": ["none"],
        "json": {"error": {"lacks": "code"}},
        "header": {"x-limit": {"at_least": 6}, "x-powered-by": {"is": "x"}},
    }
    told = await ask(service, {"expect": bad}, status=424)
    assert told["unmet"] == [
        "its status is 404, not 200",
        'its body does not contain "some"',
        'its body contains "none"',
        'its header x-limit has to be at least 6.0, but is "5"',
        "its header x-powered-by is not there",
        'its JSON error must not contain "code", but is {"code":"none"}',
    ]
    text = Service(httpx.Response(200, text="plain"))
    told = await ask(text, {"expect": {"json": {"a": {"is": 1}}}}, status=424)
    assert told["unmet"] == ["its body is no JSON"]


async def test_an_answer_may_be_too_slow(ask: Asks, moves: Moves) -> None:
    """What took longer than it may is told, though it came."""
    service = Service(reply(200, {}))

    def slow(request: httpx.Request) -> httpx.Response:
        moves.now += 2.5
        return service(request)

    told = await ask(slow, {"expect": {"seconds": 2}}, status=424)  # type: ignore[arg-type]
    assert told["unmet"] == ["it took 2.5 seconds, not at most 2"]


async def test_what_is_not_to_be_kept_is_not_told(ask: Asks) -> None:
    """The result has the named members in their places, neither headers nor text, also when it fails."""
    value = {"id": "x", "keys": [{"name": "anon", "value": "hush"}, {"name": "b", "value": "hush"}]}
    service = Service(reply(200, value, **{"x-note": "hush"}))
    told = await ask(service, {"keep": ["id", "keys.1.name", "nothing"]})
    assert told["json"] == {"id": "x", "keys": [None, {"name": "b"}]}
    assert (told["headers"], told["text"]) == (None, None)
    assert (await ask(service, {"keep": []}))["json"] is None
    assert (await ask(service, {"keep": ["$"]}))["json"] == value
    expect = {"json": {"keys.0.value": {"is": "x"}}, "header": {"x-note": {"is": "z"}}}
    told = await ask(service, {"keep": ["id"], "expect": expect}, status=424)
    assert "hush" not in str(told)
    text = Service(httpx.Response(200, text="hush"))
    assert (await ask(text, {"keep": ["id"]}))["json"] is None


async def test_a_call_is_repeated_until_the_answer_is_as_expected(ask: Asks, moves: Moves) -> None:
    """Through refusals and no answer at all, every so often, for so long and no longer."""
    nobody = httpx.ConnectError("nobody there")
    service = Service(nobody, reply(200, {"status": "COMING_UP"}), reply(200, {"status": "ACTIVE"}))
    meta = {"expect": {"json": {"status": {"is": "ACTIVE"}}}, "wait_seconds": 60, "every_seconds": 7}
    told = await ask(service, meta)
    assert (told["tries"], moves.pauses) == (3, [7, 7])
    never = Service(reply(200, {"status": "COMING_UP"}))
    told = await ask(never, meta | {"wait_seconds": 20}, status=424)
    assert len(never.asked) == 3
    assert told["result"]["tries"] == 3
    assert len((await ask(never, {}))["json"]) == 1


async def test_no_answer_is_told_as_what_it_is(ask: Asks) -> None:
    """Nobody there, too late, or cut off: a 424; of a POST that went out, that it may have been done."""
    for error, told in (
        (httpx.ConnectError(f"refused {CANARY}"), "it could not be reached: refused ****"),
        (httpx.ConnectTimeout("x"), "it could not be reached: x"),
        (httpx.ReadTimeout("x"), "no answer came in time"),
        (httpx.ReadError("reset"), "no whole answer came: reset"),
    ):
        assert (await ask(Service(error), {}, status=424))["unmet"] == [told]
    service = Service(httpx.ReadTimeout("x"))
    meta = {"method": "POST", "wait_seconds": 60}
    told_of_it = await ask(service, meta, "key", status=424)
    assert told_of_it["unmet"] == ["no answer came in time; it may have been done all the same"]
    assert len(service.asked) == 1
    assert (await ask(service, meta, "key", status=424))["unmet"] == told_of_it["unmet"]
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "meta",
    [
        {"url": "nowhere"},
        {"url": "https://[x]/"},
        {"url": "file:///etc/passwd"},
        {"url": "https://"},
        {"method": "HEAD"},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "b\r\nc: d"}},
        {"wait_seconds": 601},
        {"expect": {"status": [99]}},
        {"timeout_seconds": 0},
    ],
)
async def test_what_is_no_call_is_not_made(ask: Asks, meta: Any) -> None:
    """A URL that is none, a line break in a header and the like are a 422, and nobody is called."""
    service = Service(reply(200, {}))
    assert (await ask(service, meta, status=422))["code"] == "invalid_body"
    assert service.asked == []


async def test_calls_know_nothing_of_one_another(ask: Asks) -> None:
    """A cookie that one answer sets is not sent with the next call, and no redirect is followed."""
    service = Service(httpx.Response(307, headers={"set-cookie": "session=1", "location": URL}))
    for _ in range(2):
        assert (await ask(service, {"expect": {"status": [307]}}))["status"] == 307
    assert len(service.asked) == 2
    assert "cookie" not in service.asked[1].headers


async def test_a_secret_with_a_line_break_does_not_make_a_header(ask: Asks) -> None:
    """What is put in is checked like what was written."""
    service = Service(reply(200, {}))
    parts = runner_parts(*ask._with, answer=service)
    broken = replace(parts, given={"API_TOKEN": "abcdefgh\r\nx-evil: 1"})
    meta = {"url": URL, "headers": {"a": "${env.API_TOKEN}"}, "secrets": ["API_TOKEN"]}
    told = await send(broken, "http.call", meta, status=422)
    assert told["errors"][0]["field"] == "meta.headers.a"
    assert service.asked == []


async def test_a_long_answer_is_bounded_in_the_result(ask: Asks) -> None:
    """Expectations see all of it; of a long text beginning and end are told, a long JSON only with `keep`."""
    text = Service(
        httpx.Response(200, text="first" + "\x01" * 3_000_000 + "needle" + "\x02" * 500_000 + "last")
    )
    told = await ask(text, {"expect": {"contains": ["needle"]}}, "key")
    assert told["text"].startswith("first")
    assert told["text"].endswith("last")
    assert told["truncated"]
    assert len(msgspec.json.encode(told)) < MAX_DOCUMENT
    long = Service(reply(200, {"id": "x", "rows": ["\x01" * 100] * 1000}))
    meta = {"expect": {"json": {"rows.999": {"exists": True}}}}
    told = await ask(long, meta, "other")
    assert (told["json"], told["text"], told["truncated"]) == (None, None, True)
    assert (await ask(long, meta | {"keep": ["id"]}))["json"] == {"id": "x"}


async def test_under_a_key_a_call_is_made_once(ask: Asks) -> None:
    """A repeat answers what came of it."""
    service = Service(reply(200, {"n": 1}), reply(200, {"n": 2}))
    meta = {"method": "POST"}
    first = await ask(service, meta, "key")
    assert await ask(service, meta, "key") == first
    assert len(service.asked) == 1


class Dies(SqliteTable):
    """A table of a process that dies before it writes how something ended."""

    async def put(self, key: Any, document: Any, **options: Any) -> int:
        """Write all but an end."""
        if "ended" in document:
            raise StoreUnavailable("the process died here")
        return await super().put(key, document, **options)


@pytest.mark.parametrize(("method", "again"), [("POST", 409), ("PATCH", 409), ("GET", 200), ("PUT", 200)])
async def test_a_call_nobody_saw_the_end_of_is_made_again_where_that_does_the_same(
    ask: Asks, folder: Path, clock: FakeClock, method: str, again: int
) -> None:
    """A POST may have been done: 409 says so, and it is not sent twice."""
    service = Service(reply(200, {}))
    dying = Dies(folder / "table.db", clock)
    dead = replace(runner_parts(*ask._with, answer=service), table=dying)
    await send(dead, "http.call", {"url": URL, "method": method}, "key", status=503)
    await dying.close()
    await ask(service, {"method": method}, "key", status=again)
    assert len(service.asked) == (2 if again == 200 else 1)


async def test_calls_go_where_the_router_lets_them(parts: RunnerParts) -> None:
    """Over the guarded transport an address that is not allowed is refused, and nothing is kept of that."""
    async with upstream() as up:
        for allowed, status in (((), 422), (("127.0.0.0/8",), 200)):
            pool = Pool(Guard(parse_allowed(allowed)))
            guarded = replace(parts, transport=GuardedTransport(pool))
            meta = {"method": "POST", "url": f"{up.url}/tasks", "body": {"meta": {}}}
            told = await send(guarded, "http.call", meta, "key", status=status)
            pool.close()
    assert told["status"] == 200


async def test_a_service_that_is_not_there_is_told(parts: RunnerParts) -> None:
    """A refused connection is no crash and no fault of the runner's."""
    pool = Pool(Guard(parse_allowed(["127.0.0.0/8"])))
    guarded = replace(parts, transport=GuardedTransport(pool))
    told = await send(guarded, "http.call", {"url": "http://127.0.0.1:1/x"}, status=424)
    pool.close()
    assert told["unmet"][0].startswith("it could not be reached: ")


DOCUMENT = {"a": {"b": [10, {"c": None}], "1": "x"}, "t": "true", "n": 1, "z": True}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", DOCUMENT),
        ("a.b.0", 10),
        ("a.b.1.c", None),
        ("a.1", "x"),
        ("n", 1),
    ],
)
def test_a_path_leads_to_a_value(path: str, value: Any) -> None:
    """Names of objects and places of lists, null included."""
    assert at(DOCUMENT, path) == value


@pytest.mark.parametrize(
    "path", ["x", "a.b.2", "a.b.-1", "a.b.x", "n.0", "t.0", "a.b.9999999999", "", "a..b", "a.b.²"]
)
def test_a_path_that_leads_nowhere_has_no_value(path: str) -> None:
    """Of what is not there only `exists: false` holds."""
    missing = at(DOCUMENT, path)
    assert list(unmet(path, missing, {"exists": False}, str)) == []
    for conditions in ({"exists": True}, {"not": 1}, {"lacks": "x"}, {"is": None}):
        assert list(unmet(path, missing, conditions, str)) == [f"{path} is not there"]


def test_values_are_equal_as_json_is() -> None:
    """1 is 1.0 but not true, and so within lists and objects."""
    assert same({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]})
    assert not same(1, True)
    assert not same([True], [1])
    assert not same({"a": 0}, {"a": False})
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert not same("1", 1)


def test_what_contains_what() -> None:
    """Texts parts, objects names, lists elements, by some of their members; a list asks for each."""
    rows = [{"id": 1, "ok": True}, {"id": 2}]
    assert contains("hello", "ell")
    assert contains({"a": 1}, ["a"])
    assert contains(rows, {"id": 1})
    assert contains(rows, [{"id": 1}, {"id": 2}])
    assert contains([1, "x"], ["x", 1])
    assert not contains(rows, {"id": 1, "ok": 1})
    assert not contains(rows, [{"id": 1}, {"id": 3}])
    assert not contains("hello", 1)
    assert not contains({"a": 1}, 1)
    assert not contains(5, 5)
    assert lacks(rows, [{"id": 3}, {"id": 4}])
    assert not lacks(rows, [{"id": 3}, {"id": 1}])
    assert not lacks(5, "x")


def test_numbers_are_compared_as_numbers() -> None:
    """A text that is one counts, true does not, and a value that is none does not hold."""
    for value, holds in (
        (5, True),
        ("5", True),
        (5.5, True),
        (4, False),
        ("x", False),
        (True, False),
        (None, False),
    ):
        assert (list(unmet("n", value, {"at_least": 5}, str)) == []) is holds
    assert list(unmet("n", 6, {"at_most": 5, "at_least": 7}, str)) == [
        "n may be at most 5, but is 6",
        "n has to be at least 7, but is 6",
    ]
    assert list(unmet("n", 6, {"exists": False}, str)) == ["n must not be there, but is 6"]


def test_what_is_kept_of_a_list_is_in_its_place() -> None:
    """Elements before it are null, and two paths into the same element meet."""
    value = [{"a": 1, "b": 2, "c": 3}, {"a": 4}]
    assert kept(value, ["0.a", "0.c", "1.a"]) == [{"a": 1, "c": 3}, {"a": 4}]
    assert kept(value, ["1.a"]) == [None, {"a": 4}]
    assert kept(value, ["1.a", "0"]) == [value[0], {"a": 4}]
    assert kept({"x": {"y": [1, 2]}}, ["x.y.1"]) == {"x": {"y": [None, 2]}}
