"""What diagnose says of a token, for every situation a token can be in, and what each is read from."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from infra.provider import Diagnosis, Permission, Unread
from tests.cloudflare_fake import (
    ACCOUNT,
    ACCOUNT_TOKEN,
    EVERYTHING,
    HERE,
    PAGE,
    USER_TOKEN,
    Fault,
    Token,
    refusal,
)
from tests.infra.cloudflare.conftest import Rig
from tests.upstream import Told

READ_ONLY = dict.fromkeys(EVERYTHING, "read")
GUIDE = {"kv": "edit", "r2": "edit", "workers": "edit", "account": "read"}
"""What the guide tells people to give a token."""


async def diagnosis(
    rig: Rig, token: str = USER_TOKEN, account: str = ACCOUNT, *, probe_writes: bool = False
) -> Diagnosis:
    """Return what is said of a token, after a view of the account as diagnose takes it."""
    provider = rig.provider(token, account)
    return await provider.diagnose(await provider.inventory(), probe_writes=probe_writes)


def rows(said: Diagnosis) -> dict[str, Permission]:
    """Return the permissions by name."""
    assert not isinstance(said.permissions, Unread)
    return {one.permission: one for one in said.permissions}


def short(said: Diagnosis) -> str:
    """Return what is said to be had, and from what, as initials: kv r2 workers d1 queues account."""
    return " ".join(f"{one.has[0]}{one.evidence[0]}" for one in rows(said).values())


class Case(NamedTuple):
    """A token, whether writes are probed, and what is said: see `short`."""

    token: Token
    probe: bool
    says: str
    missing: tuple[str, ...] = ()


CASES = {
    # has: Edit Read None Unknown; evidence: policy read write none
    "everything": Case(Token(), False, "Rr Rr Rr Rr Rr Rr"),
    "everything, probed": Case(Token(), True, "Ew Ew Ew Ew Ew Rr"),
    "everything, by its policy": Case(Token(reads_itself=True), False, "Ep Ep Ep Ep Ep Rp"),
    "reading": Case(Token(grants=READ_ONLY), False, "Rr Rr Rr Rr Rr Rr"),
    "reading, probed": Case(
        Token(grants=READ_ONLY),
        True,
        "Rw Rw Rw Rw Rw Rr",
        ("Workers KV Storage Write", "Workers R2 Storage Write", "Workers Scripts Write"),
    ),
    "reading, by its policy": Case(
        Token(grants=READ_ONLY, reads_itself=True),
        False,
        "Rp Rp Rp Rp Rp Rp",
        ("Workers KV Storage Write", "Workers R2 Storage Write", "Workers Scripts Write"),
    ),
    "the guide's": Case(Token(grants=GUIDE), False, "Rr Rr Rr Nr Nr Rr"),
    "the guide's, probed": Case(Token(grants=GUIDE), True, "Ew Ew Ew Nr Nr Rr"),
    "no buckets": Case(
        Token(grants={**EVERYTHING, "r2": ""}), True, "Ew Nr Ew Ew Ew Rr", ("Workers R2 Storage Write",)
    ),
    "nothing": Case(
        Token(grants={}),
        True,
        "Nr Nr Nr Nr Nr Nr",
        (
            "Workers KV Storage Write",
            "Workers R2 Storage Write",
            "Workers Scripts Write",
            "Account Settings Read",
        ),
    ),
    "no account settings": Case(
        Token(grants={**EVERYTHING, "account": ""}), False, "Rr Rr Rr Rr Rr Nr", ("Account Settings Read",)
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_a_token_may_do_is_said_with_its_evidence(rig: Rig, name: str) -> None:
    """Nothing is claimed that was not shown: an answered list proves reading, and that it lacks nothing."""
    case = CASES[name]
    rig.fake.tokens = {USER_TOKEN: case.token}
    said = await diagnosis(rig, probe_writes=case.probe)
    assert short(said) == case.says
    assert tuple(said.missing) == case.missing
    assert bool(said.link) is bool(case.missing)
    lacking = [f"{one.permission} " for one in rows(said).values() if one.link]
    assert all(group.startswith(tuple(lacking)) for group in said.missing)
    assert all(one.probe for one in rows(said).values())
    assert said.token == {"id": case.token.id, "status": "active", "kind": "user"}
    assert bool(said.note) is not (case.probe or case.token.reads_itself)
    assert "probe_writes" in said.note or not said.note


@pytest.mark.parametrize("probe", [False, True])
async def test_diagnose_leaves_nothing_behind(rig: Rig, probe: bool) -> None:
    """Probes of writing are creations that cannot succeed, and only sent when they are asked for."""
    await diagnosis(rig, probe_writes=probe)
    products = rig.fake.products
    kept = (products.kv, products.r2, products.scripts, products.d1, products.queues)
    assert not any(kept)
    assert len(rig.fake.writes) == (5 if probe else 0)
    assert len(rig.fake.requests) <= 20


async def test_a_token_of_the_account(rig: Rig) -> None:
    """Verified at the account's endpoint, which its prefix names: no other is asked."""
    rig.fake.tokens[ACCOUNT_TOKEN] = Token(ACCOUNT_TOKEN, "account", "a" * 32, grants={})
    said = await diagnosis(rig, ACCOUNT_TOKEN)
    assert said.token == {"id": "a" * 32, "status": "active", "kind": "account"}
    assert rig.fake.calls("GET", "/user/tokens/verify") == 0
    assert urlsplit(said.link).query.startswith("to=/:account/api-tokens&")


async def test_a_token_without_a_prefix_is_tried_at_both(rig: Rig) -> None:
    """First where users' tokens are known, then at the account: the first refusal is no verdict."""
    old = "x" * 40
    rig.fake.tokens[old] = Token(old, "account", "b" * 32)
    for status in (400, 401):
        rig.fake.invalid_status = status
        said = await diagnosis(rig, old)
        assert said.token == {"id": "b" * 32, "status": "active", "kind": "account"}


async def test_a_token_that_works_though_no_endpoint_knows_it(rig: Rig) -> None:
    """It is not called invalid while lists are answered; a warning tells."""
    refused = refusal(401, 1000, "Invalid API Token")
    rig.fake.faults = [Fault("GET", "/verify", refused, times=2)]
    said = await diagnosis(rig)
    assert not isinstance(said.token, Unread)
    assert (said.token["id"], said.token["status"], said.token["kind"]) == (None, "active", "unknown")
    assert "lists are answered" in said.token["warning"]
    assert short(said) == "Rr Rr Rr Rr Rr Rr"


class Bad(NamedTuple):
    """A token that does not work, and what is said of it."""

    token: str
    account: str
    code: str
    message: str
    hint: str


@pytest.mark.parametrize(
    "bad",
    [
        Bad("cfut_" + "x" * 40, ACCOUNT, "1000", "Invalid API Token [code: 1000]", "Copy the token again"),
        Bad("cfat_" + "x" * 40, ACCOUNT, "1000", "Invalid API Token [code: 1000]", "Copy the token again"),
        Bad("x", ACCOUNT, "6003", "Invalid format for Authorization header", "Copy the token again"),
        Bad("x" * 40, "", "1000", "can only be checked with CF_ACCOUNT_ID", "CF_ACCOUNT_ID"),
    ],
)
async def test_a_token_that_is_none_is_said_to_be_none(rig: Rig, bad: Bad) -> None:
    """With the code, what to do about it, and where to make another; of permissions nothing is known."""
    if not bad.account:
        rig.fake.faults = [Fault("GET", "/accounts?", Told(200, b'{"success":true,"result":[]}'), times=99)]
    said = await diagnosis(rig, bad.token, bad.account)
    assert isinstance(said.token, Unread)
    assert said.token.code == bad.code
    assert bad.message in said.token.message
    assert bad.hint in said.token.hint
    assert said.missing == []
    assert said.link.startswith("https://dash.cloudflare.com/")
    assert said.permissions == said.token


async def test_a_token_of_an_account_that_is_none(rig: Rig) -> None:
    """The account is told to be wrong, not the token."""
    rig.fake.tokens[ACCOUNT_TOKEN] = Token(ACCOUNT_TOKEN, "account", "a" * 32)
    said = await diagnosis(rig, ACCOUNT_TOKEN, "no-id")
    assert isinstance(said.token, Unread)
    assert said.token.code == "7003"
    assert "32 hexadecimal digits" in said.token.hint
    assert said.permissions == said.token


@pytest.mark.parametrize("expires", [None, "2026-01-02T12:00:00Z"])
async def test_a_token_of_another_account(rig: Rig, expires: str | None) -> None:
    """All is refused there as if permissions lacked: which accounts the token does see is said beside it."""
    rig.fake.tokens[USER_TOKEN].expires_on = expires
    said = await diagnosis(rig, account="f" * 32)
    assert not isinstance(said.token, Unread)
    assert f"the token sees {ACCOUNT} but no account {'f' * 32}: correct CF_ACC" in said.token["warning"]
    assert ("expires in 1 days; the" in said.token["warning"]) is bool(expires)
    assert short(said) == "Nr Nr Nr Nr Nr Nr"


async def test_a_token_that_sees_no_account_is_not_said_to_be_of_another(rig: Rig) -> None:
    """It may lack the permission to see any; nor where the list of them is not answered, or has this one."""
    rig.fake.tokens[USER_TOKEN].grants = {}
    assert "warning" not in (await diagnosis(rig, account="f" * 32)).token
    rig.fake.tokens[USER_TOKEN].grants = dict(EVERYTHING)
    rig.fake.faults = [Fault("GET", "/accounts?", PAGE, times=99)]
    assert "warning" not in (await diagnosis(rig, account="f" * 32)).token
    denied = refusal(403, 10000, "Authentication error")
    rig.fake.faults = [Fault("GET", f"/accounts/{ACCOUNT}", denied, times=99)]
    said = await diagnosis(rig)
    assert short(said) == "Nr Nr Nr Nr Nr Nr"
    assert "warning" not in said.token


async def test_a_token_from_the_wrong_place(rig: Rig) -> None:
    """It is said that it is the address: no permission is called missing."""
    rig.fake.tokens[USER_TOKEN].only_from = ["198.51.100.1"]
    said = await diagnosis(rig)
    assert isinstance(said.token, Unread)
    assert said.token.code == "9109"
    assert HERE in said.token.message
    assert "IP condition" in said.token.hint
    assert said.missing == []
    assert said.permissions == said.token


async def test_a_token_that_could_not_be_checked(rig: Rig) -> None:
    """Where the lists are answered all the same, they still tell."""
    rig.fake.faults = [Fault("GET", "/verify", PAGE, times=99)]
    said = await diagnosis(rig)
    assert isinstance(said.token, Unread)
    assert said.token.code == "unknown"
    assert short(said) == "Rr Rr Rr Rr Rr Rr"


async def test_an_ip_condition_that_is_met_is_shown(rig: Rig) -> None:
    """Where the policies may be read."""
    rig.fake.tokens[USER_TOKEN].only_from = [HERE]
    rig.fake.tokens[USER_TOKEN].reads_itself = True
    said = await diagnosis(rig)
    assert not isinstance(said.token, Unread)
    assert said.token["ip_condition"] == {"in": [HERE]}


@pytest.mark.parametrize("status", ["disabled", "expired"])
async def test_a_token_that_is_off_is_said_to_be_off(rig: Rig, status: str) -> None:
    """Its status and a warning; nothing is called missing, as nothing was shown."""
    rig.fake.tokens[USER_TOKEN].status = status
    rig.fake.tokens[USER_TOKEN].reads_itself = True
    said = await diagnosis(rig)
    assert not isinstance(said.token, Unread)
    assert said.token["status"] == status
    assert said.token["warning"].startswith(f"the token is {status}")
    assert said.missing == []


@pytest.mark.parametrize(
    ("expires", "warning"),
    [
        ("2026-01-15T01:00:00Z", None),
        ("2026-01-14T23:00:00Z", "the token expires in 13 days"),
        ("2026-01-02T12:00:00Z", "the token expires in 1 days"),
        ("2025-12-31T00:00:00Z", "the token expires in 0 days"),
        ("some day", None),
        ("2026-01-02", None),
        (None, None),
    ],
)
async def test_a_token_that_expires_soon_is_told_of(
    rig: Rig, expires: str | None, warning: str | None
) -> None:
    """Within two weeks; a date that cannot be read warns of nothing."""
    rig.fake.tokens[USER_TOKEN].expires_on = expires
    rig.fake.answers.clear()
    said = await diagnosis(rig)
    rig.fake.answers.clear()  # dates that are none are not in the schema
    assert not isinstance(said.token, Unread)
    assert said.token.get("warning") == warning
    assert said.token.get("expires_at") == expires


@pytest.mark.parametrize(
    ("product", "permission", "word"),
    [("r2", "Workers R2 Storage", "Open R2"), ("workers", "Workers Scripts", "Open Workers & Pages")],
)
@pytest.mark.parametrize("reads_itself", [False, True])
async def test_not_enabled_is_not_missing(
    rig: Rig, product: str, permission: str, word: str, reads_itself: bool
) -> None:
    """What a person has to click is said; the permission is neither had nor missing."""
    rig.fake.not_enabled = {product}
    rig.fake.tokens[USER_TOKEN].reads_itself = reads_itself
    said = await diagnosis(rig, probe_writes=True)
    row = rows(said)[permission]
    assert (row.has, row.evidence) == ("Unknown", "none")
    assert row.probe.startswith("not enabled: ")
    assert word in row.hint
    assert said.missing == []


async def test_too_many_calls_are_not_the_tokens_fault(rig: Rig) -> None:
    """Nothing is known then, nothing is missing, and no other token would help."""
    rig.fake.faults = [Fault(told=refusal(429, 971, "throttling"), times=99)]
    said = await diagnosis(rig)
    assert isinstance(said.token, Unread)
    assert said.token.code == "throttled"
    assert (said.permissions, said.missing, said.link, said.note) == (said.token, [], "", "")


@pytest.mark.parametrize("fault", [None, PAGE, Told(403, b"<html>")])
async def test_unknown_is_not_missing(rig: Rig, fault: Told | None) -> None:
    """No answer, an error page, a page that blocks: nothing is called missing."""
    rig.fake.faults = [Fault("GET", "/storage/kv", fault, times=99)]
    said = await diagnosis(rig)
    row = rows(said)["Workers KV Storage"]
    assert (row.has, row.evidence) == ("Unknown", "none")
    assert row.probe.startswith("the list was not answered: ")
    assert said.missing == []


@pytest.mark.parametrize(
    ("told", "has", "evidence"),
    [
        (refusal(403, 10000, "Authentication error"), "Read", "write"),
        (refusal(403, 10042, "Please enable R2"), "Unknown", "none"),
        (PAGE, "Read", "read"),
        (refusal(405, 10405, "POST method not allowed for the api_token"), "Read", "read"),
        (Told(200, b'{"success":true,"errors":[],"messages":[],"result":{"name":"A"}}'), "Edit", "write"),
    ],
)
async def test_what_a_probe_of_writing_tells(rig: Rig, told: Told, has: str, evidence: str) -> None:
    """Only the product's own refusal shows that writing was authorised; anything else shows less."""
    rig.fake.faults = [Fault("POST", "/r2/buckets", told, times=9)]
    row = rows(await diagnosis(rig, probe_writes=True))["Workers R2 Storage"]
    assert (row.has, row.evidence) == (has, evidence)


async def test_a_transient_denial_is_not_believed(rig: Rig) -> None:
    """One 403 that the next call does not confirm leaves no trace."""
    rig.fake.faults = [Fault("GET", "/storage/kv", refusal(403, 10000, "Authentication error"))]
    assert short(await diagnosis(rig)) == "Rr Rr Rr Rr Rr Rr"


async def test_code_10000_carries_the_hint_of_the_guide(rig: Rig) -> None:
    """Which permissions the token needs, in words, where the code alone says nothing."""
    rig.fake.tokens[USER_TOKEN].grants = {}
    for row in rows(await diagnosis(rig)).values():
        for word in ("Workers Scripts", "KV Storage", "R2 Storage", "Account"):
            assert word in row.hint


async def test_an_account_record_without_an_answer_is_unknown(rig: Rig) -> None:
    """Not missing."""
    rig.fake.faults = [Fault("GET", ACCOUNT, PAGE, times=99)]
    said = await diagnosis(rig)
    assert rows(said)["Account Settings"].has == "Unknown"
    assert said.missing == []
