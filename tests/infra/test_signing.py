"""Signatures against the published vector and an independent implementation, and whatever may be wrong."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from infra.signing import (
    MAX_SIGNATURES,
    REMEMBERED,
    Seen,
    SeenHere,
    SeenInTable,
    Verifier,
    is_secret,
    new_secret,
    sign,
    verify,
)
from infra.table.sqlite import SqliteTable
from router.errors import AutopilotError, Unauthenticated
from tests.fakes import START, FakeClock

VECTOR = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = int(START)
BODY = b'{"a":1}'

Headers = list[tuple[bytes, bytes]]


def signed(
    secret: str = VECTOR, *, message_id: str = "msg_1", at: int = NOW, body: bytes = BODY
) -> dict[str, str]:
    """Return the three headers of a message."""
    signature = sign(secret, message_id, at, body)
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def raw(headers: dict[str, str]) -> Headers:
    """Return headers as ASGI gives them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def refusal(headers: Headers, body: bytes = BODY, *, secrets: tuple[str, ...] = (VECTOR,)) -> str:
    """Return why a message is refused."""
    with pytest.raises(AutopilotError) as caught:
        verify(secrets, headers, body, NOW)
    assert type(caught.value) is Unauthenticated
    return caught.value.detail


# Signing


def test_the_vector_of_the_specification() -> None:
    """The example of the specification comes out to the letter, and is taken at its time."""
    body = b'{"test": 2432232314}'
    signature = sign(VECTOR, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    headers = signed(message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at=1614265330, body=body)
    assert verify([VECTOR], raw(headers), body, 1614265330.9) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_a_thousand_messages_both_ways() -> None:
    """The other implementation verifies what we sign and signs what we sign, and we verify what it signs."""
    rng = random.Random(1000)
    now = int(time.time())
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    for number in range(1000):
        secret = "whsec_" + base64.b64encode(rng.randbytes(rng.randint(24, 64))).decode()
        text = "".join(chr(rng.randrange(32, 0xD800)) for _ in range(50))
        body = json.dumps({"n": number, "text": text}, ensure_ascii=bool(number % 2)).encode()
        ours = signed(secret, message_id=f"msg_{number}", at=now, body=body)
        assert Webhook(secret).verify(body, ours) == {"n": number, "text": text}
        theirs = Webhook(secret).sign(f"msg_{number}", moment, body.decode())
        assert theirs == ours["webhook-signature"]
        headers = raw({**ours, "webhook-signature": theirs})
        assert verify([secret], headers, body, now) == f"msg_{number}"


@settings(max_examples=30)
@given(st.sampled_from(["id", "timestamp", "body", "secret"]))
def test_any_change_breaks_the_signature(part: str) -> None:
    """Another id, time, body or secret verifies neither with the other implementation nor with ours."""
    now = int(time.time())
    secret = new_secret()
    headers = {
        "webhook-id": "msg_2" if part == "id" else "msg_1",
        "webhook-timestamp": str(now + (part == "timestamp")),
        "webhook-signature": sign(secret, "msg_1", now, b'{"a":1}'),
    }
    other = new_secret() if part == "secret" else secret
    body = b'{"a":2}' if part == "body" else b'{"a":1}'
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)
    with pytest.raises(Unauthenticated, match="no signature"):
        verify([other], raw(headers), body, now)


def test_secrets_are_as_the_specification_wants_them() -> None:
    """A secret is 32 random bytes behind the prefix, and never the same twice."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert is_secret(secret)
        assert secret.startswith("whsec_")
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_a_secret_that_is_no_base64_is_not_used() -> None:
    """A damaged secret fails loudly instead of signing with something else."""
    with pytest.raises(binascii.Error):
        sign("whsec_not*base64", "msg_1", 0, b"{}")


@pytest.mark.parametrize("size", [24, 25, 26, 64])
def test_a_secret_has_24_to_64_bytes(size: int) -> None:
    """The lengths of the specification are taken."""
    assert is_secret("whsec_" + base64.b64encode(bytes(range(size))).decode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        VECTOR.removeprefix("whsec_"),
        VECTOR.upper(),
        VECTOR + "=",
        VECTOR + " ",
        VECTOR[:-1],
        VECTOR.replace("q", "ä"),
        VECTOR.replace("q", "\ud800"),
        VECTOR.replace("q", "\n"),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 24).decode(),
        "whsec_" + base64.b64encode(bytes(25)).decode().replace("A=", "B="),
    ],
)
def test_what_is_no_secret(text: str) -> None:
    """Another prefix, length, alphabet or spelling is no secret, and a verifier will not start with one."""
    assert not is_secret(text)
    with pytest.raises(ValueError, match="whsec_") as caught:
        Verifier([VECTOR, text], FakeClock())
    assert not text or text not in str(caught.value).replace("whsec_", "", 1) or text == "whsec_"


def test_a_verifier_needs_a_secret() -> None:
    """Without any it would refuse everything, which is found out when it starts."""
    with pytest.raises(ValueError, match="needs secrets"):
        Verifier([], FakeClock())


# Timestamps


@pytest.mark.parametrize(
    ("offset", "taken"),
    [(-301, False), (-300, True), (-299, True), (0, True), (299, True), (300, True), (301, False)],
)
@pytest.mark.parametrize("fraction", [0.0, 0.999])
def test_the_edges_of_time_are_exact(offset: int, fraction: float, *, taken: bool) -> None:
    """300 seconds either way are taken and 301 are not, counted in whole seconds."""
    headers = raw(signed(at=NOW + offset))
    if taken:
        assert verify([VECTOR], headers, BODY, NOW + fraction) == "msg_1"
    else:
        with pytest.raises(Unauthenticated, match="300 seconds"):
            verify([VECTOR], headers, BODY, NOW + fraction)


@pytest.mark.parametrize(
    "text",
    [
        f"{NOW}.0",
        f" {NOW}",
        f"{NOW} ",
        f"+{NOW}",
        f"-{NOW}",
        f"0{NOW}",
        f"{NOW}\n",
        f"{str(NOW)[:4]}_{str(NOW)[4:]}",
        f"{NOW:e}",
        hex(NOW),
        "",
        "nan",
        "inf",
        "9" * 13,
        "9" * 5000,
        "".join(chr(0x660 + int(digit)) for digit in str(NOW)),
        "".join(chr(0xFF10 + int(digit)) for digit in str(NOW)),
        "²",
    ],
)
def test_a_timestamp_has_one_spelling(text: str) -> None:
    """Whatever else some parser reads as a number is refused, though the signature be made over it."""
    code = sign(VECTOR, "msg_1", NOW, BODY)
    headers = [
        (b"webhook-id", b"msg_1"),
        (b"webhook-timestamp", text.encode()),
        (b"webhook-signature", code.encode()),
    ]
    assert "decimal digits" in refusal(headers)


# Headers


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_there_once(name: str) -> None:
    """One that is missing or comes twice, equal or not and in whatever case, is refused by its name."""
    headers = raw(signed())
    assert refusal([one for one in headers if one[0].decode() != name]) == f"{name} is missing"
    [own] = [one for one in headers if one[0].decode() == name]
    assert refusal([*headers, own]) == f"{name} is given twice"
    assert refusal([(name.title().encode(), b"x"), *headers]) == f"{name} is given twice"
    assert refusal([]) == "webhook-id is missing"


def test_names_of_headers_have_no_case() -> None:
    """A server that leaves names as they came changes nothing."""
    headers = [(name.upper(), value) for name, value in raw(signed())]
    assert verify([VECTOR], [*headers, (b"cookie", b"a"), (b"cookie", b"b")], BODY, NOW) == "msg_1"


@pytest.mark.parametrize("message_id", ["a", "!" + "~" * 254, 'a"b', "a/b:c@d", "-"])
def test_ids_that_are_taken(message_id: str) -> None:
    """Any visible ASCII but the dot, up to 255 characters."""
    assert verify([VECTOR], raw(signed(message_id=message_id)), BODY, NOW) == message_id


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\tb", "a\n", "a" * 256, "\x7f", "\x00"])
def test_ids_that_are_refused(message_id: str) -> None:
    """A dot, a blank, a control, nothing, or too much, though the signature fits."""
    assert "webhook-id must be" in refusal(raw(signed(message_id=message_id)))


def test_an_id_outside_ascii_is_refused() -> None:
    """It cannot be signed here, but might be elsewhere."""
    headers = [(b"webhook-id", "mäg".encode()), *raw(signed())[1:]]
    assert "webhook-id must be" in refusal(headers)


def test_a_dot_moves_nothing_between_id_time_and_body() -> None:
    """What was signed as one message is no other one: the border between its parts cannot be shifted."""
    body = b"%d.{}" % (NOW + 1)
    code = sign(VECTOR, "msg", NOW, body)
    shifted = [
        (b"webhook-id", b"msg.%d" % NOW),
        (b"webhook-timestamp", b"%d" % (NOW + 1)),
        (b"webhook-signature", code.encode()),
    ]
    assert "webhook-id must be" in refusal(shifted, b"{}")


GOOD = sign(VECTOR, "msg_1", NOW, BODY)
ANOTHER = sign(OTHER, "msg_1", NOW, BODY)


@pytest.mark.parametrize(
    "header",
    [
        GOOD,
        f"{ANOTHER} {GOOD}",
        f"{GOOD} {ANOTHER}",
        f"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZ== {GOOD}",
        f"{GOOD} v2,anything-at-all v99z,_",
        " ".join([ANOTHER] * (MAX_SIGNATURES - 1) + [GOOD]),
    ],
)
def test_lists_of_signatures_that_are_taken(header: str) -> None:
    """One of ours among those of other secrets and of versions we do not know is enough."""
    headers = raw({**signed(), "webhook-signature": header})
    assert verify([VECTOR], headers, BODY, NOW) == "msg_1"
    assert verify([new_secret(), VECTOR], headers, BODY, NOW) == "msg_1"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "v1",
        "v1,",
        GOOD.removeprefix("v1,"),
        GOOD.replace("v1", "V1"),
        GOOD.replace("v1", "v01"),
        GOOD.replace("v1,", "v1, "),
        GOOD.replace("v1,", "v1,,"),
        f" {GOOD}",
        f"{GOOD} ",
        f"{GOOD}\t{ANOTHER}",
        f"{GOOD},{ANOTHER}",
        f"{ANOTHER}  {GOOD}",
        f"{GOOD}\n",
        f"{GOOD}=",
        GOOD.rstrip("="),
        f"{GOOD} junk",
        f"{GOOD} v1,short=",
        f"{GOOD[:10]}*{GOOD[10:]}",
        f"{GOOD[:10]}\n{GOOD[10:]}",
        GOOD.replace("+", "-").replace("/", "_") + "_",
        " ".join([ANOTHER] * MAX_SIGNATURES + [GOOD]),
        "v1a," + GOOD.removeprefix("v1,"),
        ANOTHER,
        GOOD.swapcase().replace("V1", "v1"),
    ],
)
def test_lists_of_signatures_that_are_refused(header: str) -> None:
    """Nothing is repaired: a list with anything in it that is no signature is refused whole."""
    refusal(raw({**signed(), "webhook-signature": header}))


def test_base64_of_a_signature_has_one_spelling() -> None:
    """The two bits that decoders throw away are not free to choose."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = GOOD[-2]
    spellings = [alphabet[(alphabet.index(last) & ~3) + bits] for bits in range(4)]
    digests = {base64.b64decode(GOOD[3:-2] + one + "=") for one in spellings}
    assert len(digests) == 1
    for one in spellings:
        headers = raw({**signed(), "webhook-signature": f"{GOOD[:-2]}{one}="})
        if one == last:
            assert verify([VECTOR], headers, BODY, NOW) == "msg_1"
        else:
            refusal(headers)


def test_every_secret_is_tried() -> None:
    """Both secrets of a rotation are taken, a third one is not."""
    for secret in (VECTOR, OTHER):
        assert verify([VECTOR, OTHER], raw(signed(secret)), BODY, NOW) == "msg_1"
    refusal(raw(signed(new_secret())), secrets=(VECTOR, OTHER))


# Fuzz

JUNK = [
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\x00",
    "_",
    ".",
    ",",
    "+",
    "-",
    "=",
    "*",
    "%20",
    "v1,",
    "v1a,x",
    "0",
    "é",
    "\xa0",
]
Change = Callable[[random.Random, str], str]
CHANGES: list[Change] = [
    lambda rng, text: text,
    lambda rng, text: "",
    lambda rng, text: rng.choice(JUNK) + text,
    lambda rng, text: text + rng.choice(JUNK),
    lambda rng, text: _at(rng, text, lambda before, after: before + rng.choice(JUNK) + after),
    lambda rng, text: _at(rng, text, lambda before, after: before + after[1:]),
    lambda rng, text: _at(rng, text, lambda before, after: before),
    lambda rng, text: _at(rng, text, lambda before, after: before + chr(rng.randrange(256)) + after[1:]),
    lambda rng, text: text.swapcase(),
    lambda rng, text: f"{text} {text}",
    lambda rng, text: f"v2,other {text}",
    lambda rng, text: "".join(chr(rng.randrange(256)) for _ in range(rng.randrange(80))),
]


def _at(rng: random.Random, text: str, change: Callable[[str, str], str]) -> str:
    place = rng.randrange(len(text) + 1)
    return change(text[:place], text[place:])


def well_formed(headers: Headers) -> bool:
    """Say by other means than the code under test whether these are the three headers of our message."""
    if sorted(name for name, _ in headers) != [b"webhook-id", b"webhook-signature", b"webhook-timestamp"]:
        return False
    values = {name: value.decode("latin-1") for name, value in headers}
    if (values[b"webhook-id"], values[b"webhook-timestamp"]) != ("msg_1", str(NOW)):
        return False
    entries = values[b"webhook-signature"].split(" ")
    for entry in entries:
        version, comma, text = entry.partition(",")
        if not (
            comma and version[:1] == "v" and version[1:2].isdigit() and text.isascii() and text.isprintable()
        ):
            return False
        if "," in text or not text:
            return False
        if version == "v1" and not _is_digest(text):
            return False
    return GOOD in entries


def _is_digest(text: str) -> bool:
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return len(decoded) == 32 and base64.b64encode(decoded).decode() == text


def test_ten_thousand_broken_header_sets() -> None:
    """Whatever comes, it is one kind of error, and what is taken is our message in its one spelling."""
    rng = random.Random(10_000)
    taken = 0
    for _ in range(10_000):
        headers = [
            (name, rng.choice(CHANGES)(rng, value.decode()).encode("latin-1"))
            if rng.random() < 0.5
            else (name, value)
            for name, value in raw(signed())
        ]
        if rng.random() < 0.1:
            headers.append(rng.choice(headers))
        if rng.random() < 0.1:
            headers.pop(rng.randrange(len(headers)))
        rng.shuffle(headers)
        body = BODY if rng.random() < 0.9 else rng.randbytes(rng.randrange(50))
        try:
            found = verify([OTHER, VECTOR], headers, body, NOW)
        except Unauthenticated:  # any other error ends the test
            assert body != BODY or not well_formed(headers), headers
        else:
            assert found == "msg_1"
            assert body == BODY, headers
            assert well_formed(headers), headers
            taken += 1
    assert 500 < taken < 5_000, "both outcomes are exercised"


# Replays


@pytest.fixture(params=["here", "table"])
def seen(request: pytest.FixtureRequest, table: SqliteTable, clock: FakeClock) -> Seen:
    """Give each kind of memory."""
    return SeenHere(clock) if request.param == "here" else SeenInTable(table, clock)


async def test_a_replay_is_refused_for_ten_minutes(seen: Seen, clock: FakeClock) -> None:
    """The same id is refused as long as its message would be taken, even signed anew, and forgotten after."""
    verifier = Verifier([VECTOR], clock, seen)
    furthest = raw(signed(at=NOW + 300))
    assert await verifier.check(furthest, BODY) == "msg_1"
    for seconds in (0, 1, 300, 599, 600):
        clock.now = NOW + seconds
        for headers in (furthest, raw(signed(at=int(clock.now)))):
            with pytest.raises(Unauthenticated, match="came before"):
                await verifier.check(headers, BODY)
    clock.now = NOW + REMEMBERED
    with pytest.raises(Unauthenticated, match="300 seconds"):
        await verifier.check(furthest, BODY)
    assert await verifier.check(raw(signed(at=int(clock.now))), BODY) == "msg_1"


async def test_a_refused_message_leaves_no_trace(seen: Seen, clock: FakeClock) -> None:
    """Nobody can use up an id, or fill the memory, without a secret."""
    verifier = Verifier([VECTOR], clock, seen)
    for headers, body in (
        (raw(signed(OTHER)), BODY),
        (raw(signed()), b"altered"),
        (raw(signed(at=NOW - 301)), BODY),
    ):
        with pytest.raises(Unauthenticated):
            await verifier.check(headers, body)
    assert await verifier.check(raw(signed()), BODY) == "msg_1"


async def test_an_id_that_is_let_go_may_come_again(seen: Seen, clock: FakeClock) -> None:
    """Work that was not done can be asked for again with the same message; letting go twice is harmless."""
    verifier = Verifier([VECTOR], clock, seen)
    await verifier.check(raw(signed()), BODY)
    await verifier.forget("msg_1")
    await verifier.forget("msg_1")
    assert await verifier.check(raw(signed()), BODY) == "msg_1"


async def test_processes_that_share_a_table_share_the_memory(table: SqliteTable, clock: FakeClock) -> None:
    """Of two verifiers one takes a message."""
    one, two = (Verifier([VECTOR], clock, SeenInTable(table, clock)) for _ in range(2))
    await one.check(raw(signed()), BODY)
    with pytest.raises(Unauthenticated, match="came before"):
        await two.check(raw(signed()), BODY)


async def test_the_memory_of_a_process_is_bounded(clock: FakeClock) -> None:
    """At its limit the oldest gives way to the newest, and what is over goes first."""
    memory = SeenHere(clock, most=3)
    for name in "abc":
        assert await memory.add(name)
    assert not await memory.add("a"), "a replay costs nobody a place"
    assert await memory.add("d")
    assert [await memory.add(name) for name in "bcd"] == [False] * 3
    assert await memory.add("a")
    clock.forward(REMEMBERED)
    assert await memory.add("e")
    assert list(memory._until) == ["e"]
