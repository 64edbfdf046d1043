"""One call: what is repeated and how often, what its failure says, and what never leaves."""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest

from infra.cloudflare import client as calls
from infra.cloudflare.failures import (
    BadToken,
    CloudflareError,
    Denied,
    Exists,
    Missing,
    Throttled,
    Unknown,
)
from infra.cloudflare.wire import ATTEMPTS, METHODS, Call, Harmless, Wire
from infra.outbound import Guard, parse_allowed
from infra.pool import Pool
from infra.transport import GuardedTransport
from tests.cloudflare_fake import ACCOUNT, PAGE, ROOT, USER_TOKEN, CloudflareFake, Fault, on_loopback, refusal
from tests.infra.cloudflare.conftest import Rig
from tests.upstream import Told

READ = Call("kv", "list", "GET", f"/accounts/{ACCOUNT}/storage/kv/namespaces")
MAKE = Call("kv", "create", "POST", READ.path, json={"title": "CACHE"}, repeatable=False)
DENIED = refusal(403, 10000, "Authentication error")


async def failing(rig: Rig, call: Call) -> CloudflareError:
    """Return the error a call ends in."""
    with pytest.raises(CloudflareError) as caught:
        await rig.wire().send(call)
    return caught.value


@pytest.mark.parametrize(
    "told", [None, Told(cut=True), Told(502, b"{}"), PAGE, refusal(500, 10002, "internal")]
)
async def test_a_read_is_repeated_until_it_is_answered(rig: Rig, told: Told | None) -> None:
    """Two failures of any passing kind are followed by the answer; the waits grow and are jittered."""
    rig.fake.faults = [Fault(told=told, times=2)]
    answer = await rig.wire().send(READ)
    assert answer.result == []
    assert len(rig.fake.requests) == 3
    assert rig.naps == [0.25, 0.5]


async def test_a_read_is_not_repeated_for_ever(rig: Rig) -> None:
    """Three attempts in all; the last failure is told. A read has no effect, so nothing may be done."""
    rig.fake.faults = [Fault(told=PAGE, times=9)]
    error = await failing(rig, READ)
    assert type(error) is Unknown
    assert error.detail == "HTTP 520 without an answer of the API"
    assert not error.done
    assert len(rig.fake.requests) == ATTEMPTS


async def test_a_creation_without_an_answer_is_not_sent_again(rig: Rig) -> None:
    """It may be done: who called has to look."""
    for told in (None, PAGE, Told(cut=True), refusal(500, 0, "internal error")):
        for done in (False, True):
            rig.fake.requests.clear()
            rig.fake.products.kv.clear()
            rig.fake.faults = [Fault(method="POST", told=told, done=done)]
            error = await failing(rig, MAKE)
            assert isinstance(error, Unknown)
            assert error.done
            assert len(rig.fake.requests) == 1
            assert len(rig.fake.products.kv) == done


async def test_a_creation_that_was_refused_is_known_not_to_be_done(rig: Rig) -> None:
    """A permission, a wrong name, too many calls: nothing was made. A taken name: it is there."""
    rig.fake.faults = [Fault(told=DENIED, times=2)]
    assert not (await failing(rig, MAKE)).done
    assert not (await failing(rig, MAKE._replace(json={"title": ""}))).done
    await rig.wire().send(MAKE)
    error = await failing(rig, MAKE)
    assert (type(error), error.done) == (Exists, True)
    rig.fake.faults = [Fault(told=refusal(429, 971, "slow down"))]
    assert not (await failing(rig, MAKE)).done


async def test_what_was_lost_once_may_be_done_whatever_comes_later(rig: Rig) -> None:
    """An upload that got no answer at first and a refusal then may stand there all the same."""
    call = Call("workers", "route", "POST", f"/accounts/{ACCOUNT}/workers/scripts/w/subdomain", json={})
    rig.fake.faults = [Fault(told=PAGE), Fault(told=DENIED, times=2)]
    error = await failing(rig, call)
    assert (type(error), error.done) == (Denied, True)


async def test_a_denial_is_confirmed_once(rig: Rig) -> None:
    """One 403 may be transient, two are believed; a creation too may be asked twice, as nothing was done."""
    rig.fake.faults = [Fault(told=DENIED)]
    assert (await rig.wire().send(READ)).result == []
    rig.fake.faults = [Fault(told=DENIED)]
    assert (await rig.wire().send(MAKE)).result["title"] == "CACHE"
    rig.fake.requests.clear()
    rig.fake.faults = [Fault(told=DENIED, times=9)]
    assert type(await failing(rig, READ)) is Denied
    assert len(rig.fake.requests) == 2


async def test_a_429_is_not_repeated_and_ends_the_pass(rig: Rig) -> None:
    """Over the limit every call makes it worse: the next ones are refused here until the time is over."""
    wire = rig.wire()
    rig.fake.faults = [Fault(told=refusal(429, 971, "throttling", **{"retry-after": "40"}))]
    for _ in range(3):
        with pytest.raises(Throttled):
            await wire.send(READ)
    assert len(rig.fake.requests) == 1
    assert rig.naps == []
    rig.clock.forward(41)
    await wire.send(READ)


async def test_the_fakes_own_quota_is_never_reached(rig: Rig) -> None:
    """Our budget ends long before; and a smaller quota that others use up is noticed in time."""
    wire = rig.wire()
    for _ in range(300):
        await wire.send(READ)
    with pytest.raises(Throttled, match="a quarter of the quota"):
        await wire.send(READ)
    rig.fake.quota = 320
    other = rig.wire()
    made = 0
    with suppress(Throttled):
        while made < 300:
            await other.send(READ)
            made += 1
    assert 0 < made < 20
    with pytest.raises(Throttled, match="calls of the quota are left"):
        await other.send(READ)
    assert not any(told.status == 429 for _, told in rig.fake.answers)


async def test_retry_after_is_waited_for_within_the_time_there_is(rig: Rig) -> None:
    """A 503 that asks for 5 seconds gets them; one that asks for more than the call has ends it at once."""
    unavailable = refusal(503, 10043, "unavailable", **{"retry-after": "5"})
    rig.fake.faults = [Fault(told=unavailable)]
    call = Call("r2", "list", "GET", f"/accounts/{ACCOUNT}/r2/buckets")
    await rig.wire().send(call)
    assert rig.naps == [5]
    rig.naps.clear()
    rig.fake.faults = [Fault(told=refusal(503, 10043, "unavailable", **{"retry-after": "40"}))]
    error = await failing(rig, call)
    assert isinstance(error, Unknown)
    assert error.wait == 40
    assert rig.naps == []


async def test_no_attempt_starts_after_the_deadline(rig: Rig) -> None:
    """With no time left for the wait there is no second attempt."""
    rig.fake.faults = [Fault(told=PAGE, times=9)]
    with pytest.raises(Unknown):
        await rig.wire().send(READ, seconds=0.3)
    assert len(rig.fake.requests) == 2
    rig.fake.requests.clear()
    rig.fake.faults = [Fault(told=DENIED, times=9)]
    with pytest.raises(Denied):
        await rig.wire().send(READ, seconds=0.05)
    assert len(rig.fake.requests) == 1


async def test_what_passes_by_itself_is_asked_again(rig: Rig) -> None:
    """A call that says which failure it awaits is repeated on that one, and on no other."""
    gone = refusal(404, 10007, "not yet")
    call = Call("workers", "route", "POST", f"/accounts/{ACCOUNT}/workers/scripts/w/subdomain", json={})
    rig.fake.faults = [Fault(told=gone, times=2), Fault(told=Told(200, b'{"success":true,"result":1}'))]
    assert (await rig.wire().send(call._replace(awaits=Missing))).result == 1
    rig.fake.faults = [Fault(told=gone)]
    assert type(await failing(rig, call)) is Missing


@pytest.mark.parametrize(
    ("told", "error", "text"),
    [
        (Told(403, b"<html>Attention Required!</html>"), Unknown, "HTTP 403 without an answer of the API"),
        (Told(429, b"<html>1015</html>"), Throttled, "HTTP 429 without an answer of the API"),
        (Told(200, b""), Unknown, "HTTP 200 without an answer of the API"),
        (Told(200, b"[]"), Unknown, "HTTP 200 without an answer of the API"),
        (Told(200, b'{"success":"yes"}'), Unknown, "HTTP 200 without an answer of the API"),
        (Told(200, b'{"success":false,"errors":"none"}'), Unknown, "HTTP 200 without a message"),
        (Told(200, b'{"success":false,"errors":[null,{"code":"x"}]}'), Unknown, "Cloudflare gave no usable"),
        (Told(403, b'{"success":true,"errors":[],"result":[]}'), Denied, "HTTP 403 without a message"),
        (Told(302, b"", {"location": "http://10.0.0.1/"}), Unknown, "HTTP 302 without an answer of the API"),
    ],
)
async def test_an_answer_of_another_kind_is_told_by_its_status(
    rig: Rig, told: Told, error: type[CloudflareError], text: str
) -> None:
    """A page, an empty body or another shape says nothing: not even a 403 of that kind is a permission."""
    rig.fake.faults = [Fault(told=told, times=9)]
    found = await failing(rig, READ)
    assert type(found) is error
    assert found.detail.startswith(text)


async def test_chains_of_errors_are_told_whole(rig: Rig) -> None:
    """The reason of a malformed header stands within the error."""
    with pytest.raises(BadToken) as caught:
        await rig.wire("much too short").send(READ)
    assert caught.value.detail == (
        "Invalid request headers; Invalid format for Authorization header [code: 6003]"
    )


async def test_a_message_never_shows_the_token_and_never_breaks_a_line(rig: Rig) -> None:
    """What an answer says is foreign text: secrets, control characters and length go."""
    text = f"bad token {USER_TOKEN} and cfat_{'z' * 40}\r\n\x1b[31m" + "x" * 1000
    rig.fake.faults = [Fault(told=refusal(400, 1, text))]
    error = await failing(rig, READ)
    assert USER_TOKEN not in error.detail
    assert "cfat_z" not in error.detail
    assert error.detail.startswith("bad token **** and ****")
    assert error.detail.isprintable()
    assert len(error.detail) < 330


def test_a_global_key_is_refused(rig: Rig) -> None:
    """It may do everything to every account: nothing is ever sent with one."""
    with pytest.raises(BadToken, match="CF_API_TOKEN holds a global API key"):
        rig.wire("cfk_" + "k" * 40)
    assert rig.fake.requests == []


async def test_a_token_is_sent_as_a_bearer_and_nowhere_else(rig: Rig) -> None:
    """In one header, never in an address."""
    await rig.wire().send(READ)
    [request] = rig.fake.requests
    assert request.headers["authorization"] == f"Bearer {USER_TOKEN}"
    assert USER_TOKEN not in request.path


async def test_deleting_is_refused_before_it_leaves(rig: Rig) -> None:
    """The transport knows three methods; a client library's own delete does not get through it."""
    assert {"GET", "POST", "PUT"} == METHODS
    for method in ("DELETE", "PATCH", "delete", "OPTIONS"):
        with pytest.raises(httpx.UnsupportedProtocol, match="never sent"):
            await rig.http.request(method, "http://127.0.0.1:9/x")
    error = await failing(rig, READ._replace(method="DELETE"))
    assert "DELETE is never sent" in error.detail
    assert rig.fake.requests == []


def test_no_class_of_calls_can_delete() -> None:
    """No method of the client is called so, and none of its calls uses another HTTP method."""
    classes = [one for one in vars(calls).values() if isinstance(one, type)]
    names = {name for one in classes for name in vars(one)}
    assert not {
        name for name in names if any(word in name for word in ("delete", "remove", "destroy", "purge"))
    }


def loopback_wire(pool: Pool, rig: Rig, root: str) -> Wire:
    """Return a wire over real sockets."""
    http = httpx.AsyncClient(transport=Harmless(GuardedTransport(pool)), trust_env=False)
    return Wire(http, USER_TOKEN, root=root, monotonic=rig.clock, sleep=rig.sleep, random=lambda: 0.5)


async def test_over_real_sockets_a_call_goes_through_the_guard(rig: Rig) -> None:
    """Loopback is reached where it is allowed; where it is not, a hint says what to do."""
    async with on_loopback(rig.fake) as server:
        open_pool = Pool(Guard(parse_allowed(["127.0.0.0/8"])))
        assert (await loopback_wire(open_pool, rig, server.url + ROOT).send(READ)).result == []
        open_pool.close()
        shut = Pool(Guard(parse_allowed([])))
        with pytest.raises(Unknown, match="the address is not public") as caught:
            await loopback_wire(shut, rig, server.url + ROOT).send(READ)
        shut.close()
    assert "AUTOPILOT_ALLOW_ENDPOINTS" in caught.value.hint
    assert len(rig.fake.requests) == 1
    assert rig.naps == []


async def test_over_real_sockets_what_was_never_sent_is_sent_again(rig: Rig) -> None:
    """A refused connection carries nothing: even a creation is tried again, and is known not to be done."""
    pool = Pool(Guard(parse_allowed(["127.0.0.0/8"])))
    async with on_loopback(rig.fake) as server:
        root = server.url + ROOT
    with pytest.raises(Unknown) as caught:
        await loopback_wire(pool, rig, root).send(MAKE)
    pool.close()
    assert not caught.value.done
    assert len(rig.naps) == ATTEMPTS - 1


async def test_over_real_sockets_a_cut_answer_is_no_answer(rig: Rig) -> None:
    """The creation behind it may be done."""
    fake: CloudflareFake = rig.fake
    fake.faults = [Fault(method="POST", told=Told(200, b'{"success":true}', cut=True), done=True)]
    pool = Pool(Guard(parse_allowed(["127.0.0.0/8"])))
    async with on_loopback(fake) as server:
        with pytest.raises(Unknown) as caught:
            await loopback_wire(pool, rig, server.url + ROOT).send(MAKE)
    pool.close()
    assert caught.value.done
    assert len(fake.products.kv) == 1
