"""The client's calls: what each sends, and what it makes of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from infra.cloudflare.client import MODULE, Client
from infra.cloudflare.failures import (
    BadToken,
    Denied,
    Incomplete,
    NotEnabled,
    Unknown,
    WrongAccount,
)
from tests.cloudflare_fake import ACCOUNT, ACCOUNT_TOKEN, Fault, Token
from tests.cloudflare_products import Thing
from tests.infra.cloudflare.conftest import Rig
from tests.infra.cloudflare.schema import metadata_of, parts_of
from tests.upstream import Told

OTHER = "f" * 32
SOURCE = "export default { fetch() { return new Response('ü') } }"


async def test_the_account_is_the_one_configured(rig: Rig) -> None:
    """No call is needed to know it."""
    assert await rig.client().account.id() == ACCOUNT
    assert rig.fake.requests == []


async def test_without_one_it_is_the_only_one_that_is_seen(rig: Rig) -> None:
    """Asked for once; the live list gives the first page for every page number."""
    client = rig.client(account="")
    assert client.account.known == ""
    assert await client.account.id() == await client.account.id() == ACCOUNT
    assert client.account.known == ACCOUNT
    assert len(rig.fake.requests) == 1


async def test_which_of_several_is_not_guessed(rig: Rig) -> None:
    """The names are told, so that one can be chosen; with none there is nothing to choose."""
    rig.fake.accounts.append({"id": OTHER, "name": "Second", "type": "standard"})
    with pytest.raises(
        WrongAccount, match=r"sees 2 accounts \(Example, Second\), so CF_ACCOUNT_ID has to name"
    ):
        await rig.client(account="").account.id()
    rig.fake.accounts.clear()
    with pytest.raises(WrongAccount, match=r"sees 0 accounts \(none\)"):
        await rig.client(account="").account.id()


@pytest.mark.parametrize("wrong", ["x", f"{ACCOUNT}0", "../user", "a b?c#d"])
async def test_a_malformed_account_is_no_account(rig: Rig, wrong: str) -> None:
    """It leads nowhere else either."""
    with pytest.raises(WrongAccount) as caught:
        await rig.client(account=wrong).kv.rows()
    assert "32 hexadecimal digits" in caught.value.hint
    assert "%2F" in rig.fake.requests[0].path or "/" not in wrong


async def test_somebody_elses_account_is_denied(rig: Rig) -> None:
    """The token is good, only not there."""
    with pytest.raises(Denied):
        await rig.client(account=OTHER).kv.rows()


async def test_a_token_is_known_where_it_belongs(rig: Rig) -> None:
    """A user's token is no token at the account's endpoint, and the reverse."""
    rig.fake.tokens[ACCOUNT_TOKEN] = Token(ACCOUNT_TOKEN, "account", "a" * 32)
    user, account = rig.client().tokens, rig.client(ACCOUNT_TOKEN).tokens
    assert (await user.verify_user())["status"] == "active"
    assert (await account.verify_account())["id"] == "a" * 32
    for verify in (user.verify_account, account.verify_user):
        with pytest.raises(BadToken, match=r"Invalid API Token \[code: 1000\]"):
            await verify()


async def test_a_token_shows_its_policies_only_where_it_may_read_them(rig: Rig, client: Client) -> None:
    """For a user's token and for one of the account."""
    identity = rig.fake.tokens[next(iter(rig.fake.tokens))].id
    with pytest.raises(Denied):
        await client.tokens.details("user", identity)
    rig.fake.tokens[ACCOUNT_TOKEN] = Token(ACCOUNT_TOKEN, "account", "a" * 32, reads_itself=True)
    details = await rig.client(ACCOUNT_TOKEN).tokens.details("account", "a" * 32)
    assert details["policies"][0]["permission_groups"][0]["name"] == "Workers KV Storage Write"


async def test_45_buckets_are_45(rig: Rig, client: Client) -> None:
    """Lists of 20, by cursor, read to the end; every request names its jurisdiction."""
    rig.fake.products.most["r2"] = 20
    for n in range(45):
        rig.fake.products.r2["default", f"bucket-{n:02}"] = Thing({"name": f"bucket-{n:02}"})
    assert len(await client.r2.rows()) == 45
    assert rig.fake.calls("GET", "/r2/buckets") == 3
    assert {one.headers["cf-r2-jurisdiction"] for one in rig.fake.requests} == {"default"}


async def test_buckets_of_another_jurisdiction_are_not_there(client: Client) -> None:
    """Neither in a list nor when looked at; the hint of the location goes along."""
    await client.r2.create("assets", "eu", location="weur")
    assert await client.r2.rows() == []
    assert await client.r2.get("assets") is None
    [row] = await client.r2.rows("eu")
    assert (row["location"], row["jurisdiction"]) == ("WEUR", "eu")
    assert await client.r2.get("assets", "eu") == row


@pytest.mark.parametrize("size", [1000, 100, 7])
async def test_namespaces_and_databases_come_whole_whatever_the_server_caps(
    rig: Rig, client: Client, size: int
) -> None:
    """A server that gives fewer rows than it was asked for is asked again."""
    rig.fake.products.most |= {"kv": size, "d1": size, "queues": size}
    for n in range(120):
        rig.fake.products.kv[f"{n:032}"] = Thing({"id": f"{n:032}", "title": f"T{n}"})
        rig.fake.products.d1[f"d{n}"] = Thing({"uuid": f"u{n}", "name": f"d{n}"})
        rig.fake.products.queues[f"q{n}"] = Thing({"queue_id": f"{n:032}", "queue_name": f"q{n}"})
    assert (
        len(await client.kv.rows()) == len(await client.d1.rows()) == len(await client.queues.rows()) == 120
    )


async def test_an_upload_is_a_module_with_its_metadata(rig: Rig, client: Client) -> None:
    """Two parts: metadata as JSON that names the main module, and that module under its name and type."""
    await client.workers.upload("edge", SOURCE, {"compatibility_date": "2026-04-01", "tags": ["t"]})
    [request] = rig.fake.requests
    assert request.method == "PUT"
    assert metadata_of(request) == {
        "main_module": MODULE,
        "compatibility_date": "2026-04-01",
        "tags": ["t"],
    }
    module = parts_of(request)[MODULE]
    assert (module.get_filename(), module.get_content_type()) == (MODULE, "application/javascript+module")
    assert module.get_payload(decode=True) == SOURCE.encode()
    assert rig.fake.products.scripts["edge"].source == SOURCE.encode()


async def test_a_script_is_looked_at_routed_and_scheduled(client: Client) -> None:
    """Settings, route and schedules of one that is there; of none there are no settings."""
    assert await client.workers.settings("edge") is None
    await client.workers.upload("edge", SOURCE, {"tags": ["t"]})
    settings = await client.workers.settings("edge")
    assert settings is not None
    assert settings["compatibility_date"] == "2021-11-02"  # what the API assumes where nothing is said
    assert await client.workers.routed("edge") is False
    await client.workers.route("edge", enabled=True)
    assert await client.workers.routed("edge") is True
    assert await client.workers.schedules("edge") == []
    assert await client.workers.schedule("edge", ["*/15 * * * *"]) == ["*/15 * * * *"]
    assert await client.workers.schedules("edge") == ["*/15 * * * *"]
    assert [row["tags"] for row in await client.workers.rows()] == [["t"]]


async def test_the_name_under_workers_dev(rig: Rig, client: Client) -> None:
    """An account that has chosen none has to."""
    assert await client.workers.subdomain() == "example"
    rig.fake.products.subdomain = None
    with pytest.raises(NotEnabled) as caught:
        await client.workers.subdomain()
    assert "workers.dev subdomain" in caught.value.hint


async def test_names_are_escaped_in_addresses(rig: Rig, client: Client) -> None:
    """No name can lead anywhere else."""
    assert await client.r2.get("../../user/tokens/verify?x=1#y") is None
    assert rig.fake.requests[0].path.endswith("/r2/buckets/..%2F..%2Fuser%2Ftokens%2Fverify%3Fx%3D1%23y")


async def test_answers_of_another_shape_are_unknown(rig: Rig, client: Client) -> None:
    """A record that is none, a list that is none, schedules without schedules."""
    asked: list[tuple[Any, type[Exception]]] = [
        (client.account.details, Unknown),
        (client.tokens.verify_user, Unknown),
        (client.kv.rows, Incomplete),
        (client.r2.rows, Incomplete),
        (client.workers.rows, Incomplete),
        (lambda: client.kv.create("A"), Unknown),
        (lambda: client.workers.schedules("w"), Unknown),
    ]
    odd = Told(200, b'{"success":true,"errors":[],"messages":[],"result":"odd"}')
    for ask, error in asked:
        rig.fake.faults = [Fault(told=odd)]
        with pytest.raises(error):
            await ask()
    rig.fake.faults = [Fault(told=Told(200, b'{"success":true,"result":{"schedules":1}}'))]
    with pytest.raises(Unknown, match="no schedules"):
        await client.workers.schedules("w")
