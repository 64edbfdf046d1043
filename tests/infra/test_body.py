"""The reader of bodies: the corpus of bad ones, the limits at their edges, and JSON's own parser as judge."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.body import (
    MAX_BODY,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_EXTREME,
    MAX_NODES,
    MAX_STRING,
    Disconnected,
    parse,
    read,
)
from infra.outbound import Allowed, Guard, parse_url
from router.errors import AutopilotError, Invalid, Malformed, MediaType, TooLarge
from router.parse import parse_autopilot, parse_plan
from router.problem import status_of

CORPUS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "corpora" / "bad_bodies.json").read_text("utf-8")
)


class Caller:
    """Sends a body in pieces, and perhaps goes away before the end."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self.pieces = list(pieces)
        self.leaves = leaves
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if not self.pieces:
            assert self.leaves, "asked for more than there is"
            return {"type": "http.disconnect"}
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or self.leaves}


JSON = (b"content-type", b"application/json")


async def taken(
    *pieces: bytes, headers: Iterable[tuple[bytes, bytes]] = (JSON,), limit: int = MAX_BODY
) -> bytes:
    """Return what is read from a caller that sends `pieces`."""
    return await read(headers, Caller(*pieces).receive, limit)


async def status_for(row: dict[str, Any]) -> int:
    """Return the status a row of the corpus gets, as far as reading and parsing decide it."""
    sent = base64.b64decode(row["body_b64"]) if "body_b64" in row else row["body"].encode("utf-8")
    kind = row["content_type"].encode()
    try:
        body = await taken(sent, headers=[(b"content-type", kind)] if kind else [])
        value = parse(body)
        if row["path"] == "/autopilot/registry":
            url = parse_url(parse_autopilot(value).endpoint)
            Guard(Allowed()).check(url)
            return 201
        request = parse_plan(value, b"{}")
    except AutopilotError as error:
        return status_of(error)
    return 200 if request.task or request.capability else 400


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["name"])
async def test_the_corpus_of_bad_bodies(row: dict[str, Any]) -> None:
    """Each row gets a status it accepts, and the hostile ones are refused for what they are."""
    accepted = row.get("accept_status", [row["expect_status"]])
    assert await status_for(row) in accepted


def test_the_corpus_is_whole() -> None:
    """119 rows: a corpus that lost some would pass in silence."""
    assert len(CORPUS) == 119


_scalar = (
    st.none()
    | st.booleans()
    | st.integers(-(10**37), 10**37)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('[]{}":,\\/\b\n\u2028'), max_size=8)
)
_key = st.text(st.sampled_from('ab"\\[]{}:,é') | st.characters(exclude_categories=["Cs"]), max_size=3)


class Pairs(list[tuple[str, Any]]):
    """An object as the list of its members: it may have the same key twice."""


_doubtful: st.SearchStrategy[Any] = st.recursive(
    _scalar,
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(_key, inner), max_size=4).map(Pairs),
    max_leaves=15,
)


def written(value: Any, *, ascii_only: bool, indent: str) -> str:
    """Return a value as JSON text, with its doubled keys."""
    if isinstance(value, Pairs):
        members = [
            f"{json.dumps(key, ensure_ascii=ascii_only)}:{indent}"
            f"{written(one, ascii_only=ascii_only, indent=indent)}"
            for key, one in value
        ]
        return "{" + f",{indent}".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(one, ascii_only=ascii_only, indent=indent) for one in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def judged(text: str) -> tuple[Any, bool]:
    """Return a text's value and whether an object in it has a key twice, by Python's own parser."""
    doubled = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        doubled.append(len(dict(members)) != len(members))
        return dict(members)

    return json.loads(text, object_pairs_hook=pairs), any(doubled)


@given(_doubtful, st.booleans(), st.sampled_from(["", " ", "\n\t"]))
@example(Pairs([("a", 1), ("a", 2)]), True, "")
@example([Pairs([("x", Pairs([("k", 1), ("k", 1)]))])], True, "")
@example(Pairs([('"', "\\"), ("\\", '"'), ('\\"', "}")]), True, "")
@settings(max_examples=300, deadline=None)
def test_a_doubled_key_is_found_anywhere_and_nothing_else_is_lost(
    value: Any, ascii_only: bool, indent: str
) -> None:
    """Python's parser says which texts double a key: those are refused, all others give its value."""
    text = written(value, ascii_only=ascii_only, indent=indent)
    expected, doubled = judged(text)
    if doubled:
        with pytest.raises(Malformed):
            parse(text.encode())
    else:
        assert parse(text.encode()) == expected


@given(st.binary(max_size=40) | st.text('[]{}":,\\u0dea1e-.tfn ', max_size=40).map(str.encode))
@example(b"")
@example(b'{"a":1,"\\u0061":2}')
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_value_or_refused(body: bytes) -> None:
    """Whatever arrives is a value, not JSON, or JSON over a limit; Python's parser takes what ours takes."""
    try:
        value = parse(body)
    except (Malformed, Invalid):
        return
    assert json.loads(body) == value


@pytest.mark.parametrize(
    "text",
    [
        r'{"a":"[[[{{{","b":"]]]}}}"}',
        r'{"a\"b":1,"a\\":2,"\\\"":3}',
        r'["\\","\\\\","\\\"","\"","{\"a\":1,\"a\":2}"]',
        r'{"\u0022":"\u005c","\u007b":":::,,,"}',
        '{"' + ":" * 9 + '":",,,:::"}',
        r'["\/\b\f\n\r\t\ud83d\ude80"]',
    ],
)
def test_punctuation_inside_strings_counts_for_nothing(text: str) -> None:
    """Brackets, colons, quotes and backslashes in strings are text."""
    assert parse(text.encode()) == json.loads(text)


def nested(depth: int, opening: str, closing: str) -> bytes:
    """Return JSON text of that depth."""
    return (opening * depth + "1" * (opening != "[") + closing * depth).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_at_its_edge(opening: str, closing: str) -> None:
    """64 levels are taken, 65 are not, however they are mixed."""
    levels = sum(opening.count(one) for one in "[{")
    assert parse(nested(MAX_DEPTH // levels, opening, closing)) is not None
    with pytest.raises(Invalid, match="64 levels"):
        parse(nested(MAX_DEPTH // levels + 1, opening, closing))


def test_many_brackets_beside_each_other_are_not_deep() -> None:
    """Depth is measured, not the number of brackets."""
    assert parse(b"[" + b",".join([b"[[]]"] * 500) + b"]") == [[[]]] * 500


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_a_body_too_deep_to_decode_is_told_from_a_broken_one(depth: int) -> None:
    """Balanced brackets may be JSON over the limit; open ones are none."""
    with pytest.raises(Invalid, match="levels deep"):
        parse(b"[" * depth + b"]" * depth)
    with pytest.raises(Malformed):
        parse(b"[" * depth)
    with pytest.raises(Malformed):
        parse(b'{"a":' * depth)


def test_nodes_at_their_edge() -> None:
    """5,000 values are taken, one more is not, in lists and in objects."""
    assert len(parse(json.dumps([0] * MAX_NODES).encode())) == MAX_NODES
    assert len(parse(json.dumps({str(n): n for n in range(MAX_NODES)}).encode())) == MAX_NODES
    over: list[Any] = [[0] * (MAX_NODES + 1), {str(n): n for n in range(MAX_NODES + 1)}, [[]] * MAX_NODES]
    for value in over:
        with pytest.raises(Invalid, match="5000 values"):
            parse(json.dumps(value).encode())


@pytest.mark.parametrize("wrap", ['["%s"]', '{"%s":1}', '{"a":{"b":["x","%s","y"]}}'])
def test_strings_at_their_edge(wrap: str) -> None:
    """65,536 bytes are taken, one more is not, be it a value or a key."""
    assert parse((wrap % ("x" * MAX_STRING)).encode())
    assert parse((wrap % ("é" * (MAX_STRING // 2))).encode())
    for text in ("x" * (MAX_STRING + 1), "é" * (MAX_STRING // 2) + "x"):
        with pytest.raises(Invalid, match="text of more than 65536"):
            parse((wrap % text).encode())


def test_an_escaped_quote_does_not_end_a_long_string() -> None:
    """A text over the limit cannot hide behind escapes, nor be split by them."""
    with pytest.raises(Invalid, match="text of more"):
        parse(b'["' + rb"\"" * (MAX_STRING + 1) + b'"]')
    assert parse(b'["' + b'","'.join([b"x" * 30_000] * 5) + b'"]') == ["x" * 30_000] * 5


@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_at_their_edge(sign: str) -> None:
    """38 digits are kept exactly, 39 are refused, also in the thousands."""
    most = sign + "9" * MAX_DIGITS
    assert parse(f'{{"n":{most}}}'.encode()) == {"n": int(most)}
    for digits in (39, 5_000, 100_000):
        with pytest.raises(Invalid):
            parse(f'{{"n":{sign}{"1" * digits}}}'.encode())


def test_digits_in_strings_and_fractions_are_no_integers() -> None:
    """Only whole numbers have that limit."""
    long = "1" * 50
    assert parse(f'["{long}",0.{long},1.0e1]'.encode()) == [long, float(f"0.{long}"), 10.0]


@pytest.mark.parametrize("number", ["1e400", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    """No reader downstream would agree on them."""
    with pytest.raises((Invalid, Malformed)):
        parse(f'{{"n":{number}}}'.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "{",
        '{"a":1,}',
        "{'a':1}",
        "[1,]",
        "01",
        "+1",
        ".5",
        "1.",
        "tru",
        "[1] x",
        "{}{}",
        "\ufeff{}",
        '"\\x41"',
        '"\\u12"',
        '"\\ud800"',
        '{"\\udfff":1}',
        '"\\ud83dx"',
        '"a\nb"',
        '"a\tb"',
        '"a\x00b"',
        "//",
        "/**/1",
    ],
)
def test_what_is_not_strict_json(text: str) -> None:
    """No comments, trailing commas, byte-order marks, lone surrogates or raw control characters."""
    with pytest.raises(Malformed):
        parse(text.encode())


@pytest.mark.parametrize("sent", [b'"\x80"', b'"\xe2\x82"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'{"\xff":1}'])
def test_what_is_not_utf_8(sent: bytes) -> None:
    """Truncated, overlong and surrogate sequences are no UTF-8, in values and in keys."""
    with pytest.raises(Malformed):
        parse(sent)


def filled(unit: bytes, begin: bytes = b"[", end: bytes = b"1]") -> bytes:
    """Return a body as large as it may be, made of one unit."""
    return begin + unit * ((MAX_BODY - len(begin) - len(end)) // len(unit)) + end


WORST = {
    "slow numbers": filled(b"8.98846567431158e307,"),
    "long slow numbers": filled(b"1.2345678901234567" + b"1" * 900 + b"e-300,"),
    "objects": filled(b"{},"),
    "lists": filled(b"[],"),
    "deep lists": filled(b"[" * 60 + b"]" * 60 + b","),
    "too deep": b"[" * (MAX_BODY // 2) + b"]" * (MAX_BODY // 2),
    "open lists": b"[" * MAX_BODY,
    "open objects": filled(b'{"":', b"", b"1"),
    "members": filled(b'{"a":1},'),
    "keys": b"{" + b",".join(b'"%06x":1' % number for number in range(95_000)) + b"}",
    "texts": filled(b'"a",'),
    "quotes": b'"' * MAX_BODY,
    "escapes": filled(b"\\\\", b'["', b'"]'),
    "escaped quotes": filled(b'\\"', b'["', b'"]'),
    "surrogates": filled(rb"\ud83d\ude00", b'["', b'"]'),
    "blanks": filled(b" "),
    "one integer": b"1" * MAX_BODY,
    "one fraction": b"1." + b"1" * (MAX_BODY - 2),
    "long integers": filled(b"1" * 38 + b","),
    "exponents": filled(b"1e1,"),
    "letters": b"e" * MAX_BODY,
    "numbers without commas": filled(b"1" * 38 + b" "),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_body_of_a_mebibyte_makes_few_values(name: str) -> None:
    """Whatever its shape, judging a full body takes a few times its own memory and no time to speak of."""
    body = WORST[name]
    assert len(body) <= MAX_BODY
    with suppress(Invalid, Malformed):
        parse(body)  # what is made once, such as a message, is not what is measured
    tracemalloc.start()
    began = time.process_time()
    with suppress(Invalid, Malformed):
        parse(body)
    took, most = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 48 << 20
    assert took < 1.0


def test_numbers_that_take_long_to_read_are_counted() -> None:
    """Those of common size may be as many as there may be values; extreme ones only so many."""

    def numbers(count: int, number: str) -> bytes:
        return f"[{','.join([number] * count)}]".encode()

    for extreme in ("8.98e307", "1E-0300", "1.5e+200"):
        assert len(parse(numbers(MAX_EXTREME, extreme))) == MAX_EXTREME
        with pytest.raises(Invalid, match="exponents"):
            parse(numbers(MAX_EXTREME + 1, extreme))
    assert len(parse(numbers(MAX_NODES - 1, "1.5e-99"))) == MAX_NODES - 1
    assert parse(b'["' + b"1e300," * 10_000 + b'"]') == ["1e300," * 10_000]


@pytest.mark.parametrize("size", [100, 9_000, 100_000])
def test_what_is_no_json_is_told_from_what_is_too_much_at_any_size(size: int) -> None:
    """Large texts are judged before they are decoded, and get the same errors as small ones."""
    pad = b" " * size
    for text, error in (
        (b"[" * 65 + b"]" * 65, "levels deep"),
        (b"[" + b"1," * 5_000 + b"1]", "values"),
        (b"[" + b'"a",' * 5_000 + b"1]", "values"),
        (b"1" * 39, "digits"),
    ):
        with pytest.raises(Invalid, match=error):
            parse(pad + text)
    for text in (
        b"[1",
        b"[1,]",
        b'{"a":1,"a":1}',
        b"[" * 70,
        b"[" * 6_000,
        b'"\xff"',
        b"nan",
        b"[" + b"1," * 6_000,
    ):
        with pytest.raises(Malformed):
            parse(pad + text)
    assert parse(pad + b'{"a":[1]}' + pad) == {"a": [1]}


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json",
        b"APPLICATION/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/json ; profile=x; charset=utf8",
    ],
)
async def test_media_types_that_are_json_in_utf_8(kind: bytes) -> None:
    """Case, blanks and other parameters do not matter."""
    assert await taken(b"{}", headers=[(b"content-type", kind)]) == b"{}"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"application/problem+json")],
        [(b"content-type", b"multipart/form-data")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [(b"content-type", b"application/json; charset=latin-1")],
        [JSON, (b"content-encoding", b"gzip")],
        [JSON, (b"content-encoding", b"\xff\xfe")],
        [(b"content-type", b"\xff" * 500)],
    ],
)
async def test_other_media_types_are_refused_unread(headers: list[tuple[bytes, bytes]]) -> None:
    """Another type, charset or encoding is refused before a byte of the body is asked for."""
    caller = Caller(b"{}")
    with pytest.raises(MediaType):
        await read(headers, caller.receive)
    assert caller.asked == 0


async def test_an_identity_encoding_is_none() -> None:
    """`content-encoding: identity` says that nothing was done to the body."""
    assert await taken(b"{}", headers=[JSON, (b"content-encoding", b"Identity")]) == b"{}"


async def test_a_body_arrives_in_pieces() -> None:
    """However it was cut, also into empty pieces, the body is the same."""
    assert await taken(b'{"a"', b"", b":1", b"}", b"") == b'{"a":1}'
    assert await taken(b"") == b""


async def test_a_body_at_its_limit() -> None:
    """The limit is inclusive, for one piece and for many."""
    assert len(await taken(b"x" * 10, limit=10)) == 10
    assert len(await taken(*[b"x"] * 10, limit=10)) == 10
    for pieces in ([b"x" * 11], [b"x"] * 11, [b"xxxxxx", b"xxxxx"]):
        with pytest.raises(TooLarge):
            await taken(*pieces, limit=10)


async def test_an_endless_body_is_not_read_to_its_end() -> None:
    """Reading stops as soon as it is over the limit."""
    caller = Caller(*[b"x" * 100] * 1000)
    with pytest.raises(TooLarge):
        await read([JSON], caller.receive, 1000)
    assert caller.asked == 11


@pytest.mark.parametrize("length", [b"11", b"9" * 5_000])
async def test_a_declared_length_over_the_limit_is_refused_unread(length: bytes) -> None:
    """Who announces too much is not listened to, be the number ever so long."""
    caller = Caller(b"{}")
    with pytest.raises(TooLarge):
        await read([JSON, (b"content-length", length)], caller.receive, 10)
    assert caller.asked == 0


async def test_a_false_length_changes_nothing() -> None:
    """What counts is what arrives."""
    assert await taken(b"{}", headers=[JSON, (b"content-length", b"junk")]) == b"{}"
    with pytest.raises(TooLarge):
        await taken(b"x" * 11, headers=[JSON, (b"content-length", b"2")], limit=10)


@pytest.mark.parametrize("pieces", [[], [b'{"a":'], [b"{}", b""]])
async def test_a_caller_that_goes_away_is_no_body(pieces: list[bytes]) -> None:
    """Half a body is never taken for a whole one."""
    with pytest.raises(Disconnected):
        await read([JSON], Caller(*pieces, leaves=True).receive)
