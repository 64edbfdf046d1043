"""The provider as a whole: one view of an account, what it costs, and what spoils it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from infra.apply import AT_ONCE
from infra.cloudflare.failures import BadToken
from infra.cloudflare.provider import CloudflareProvider, connect
from infra.cloudflare.wire import ROOT, Harmless
from infra.ensure import Ensurer
from infra.plan import Allowance, Demand
from infra.provider import KINDS, Provider, Want
from infra.table.sqlite import SqliteTable
from router.model import Worker
from tests.cloudflare_fake import (
    ACCOUNT,
    HERE,
    PAGE,
    USER_TOKEN,
    CloudflareFake,
    FakeTransport,
    Fault,
    refusal,
)
from tests.cloudflare_products import Json, Products, Script, Thing
from tests.fakes import FakeClock
from tests.infra.cloudflare.conftest import Rig


def fill(products: Products, count: int) -> None:
    """Put as many things of each kind into an account."""
    for n in range(count):
        key = f"{n:032}"
        products.kv[key] = Thing({"id": key, "title": f"T{n}"})
        products.r2["default" if n % 2 else "eu", f"bucket-{n}"] = Thing({"name": f"bucket-{n}"})
        products.scripts[f"script-{n}"] = Script({"tags": []}, b"", "etag")
        products.d1[f"d{n}"] = Thing({"uuid": key, "name": f"d{n}"})
        products.queues[f"q{n}"] = Thing({"queue_id": key, "queue_name": f"q{n}"})


async def test_a_thousand_things_take_a_dozen_calls(rig: Rig, provider: CloudflareProvider) -> None:
    """The whole view of an account with 1,000 of them is 12 calls at most."""
    fill(rig.fake.products, 200)
    found = await provider.inventory()
    assert len(found.resources) == 1000
    assert len({(one.key, one.jurisdiction) for one in found.resources}) == 1000
    assert found.unread == {}
    assert len(rig.fake.requests) <= 12


class Waves(FakeTransport):
    """Lets requests wait until no more of them come, answers all of them, and counts them."""

    def __init__(self, fake: CloudflareFake) -> None:
        super().__init__(fake)
        self.sizes: list[int] = []
        self._waiting: list[asyncio.Event] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a request with the next wave."""
        let = asyncio.Event()
        self._waiting.append(let)
        await let.wait()
        return await super().handle_async_request(request)

    async def go(self) -> None:
        """Make waves until cancelled."""
        while True:
            before = len(self._waiting)
            await asyncio.sleep(0.02)
            if before and len(self._waiting) == before:
                self.sizes.append(before)
                going, self._waiting = self._waiting, []
                for let in going:
                    let.set()


async def test_a_pass_that_makes_fifty_is_seventy_calls(
    fake: CloudflareFake, clock: FakeClock, table: SqliteTable
) -> None:
    """Ten of each kind: 70 calls at most, in waves of 50 ms that take less than 2 seconds."""
    transport = Waves(fake)
    provider = connect(
        httpx.AsyncClient(transport=Harmless(transport)),
        USER_TOKEN,
        ACCOUNT,
        clock=clock,
        monotonic=clock,
        sleep=asyncio.sleep,
        random=lambda: 0.5,
        nobody=lambda: "nobody",
    )
    ensurer = Ensurer(provider, table, clock=clock, allowance=Allowance(max_creations=50))
    far = [f"{letter * 3}-thing" for letter in "abcdefghij"]
    wanted = [Want(kind, name) for kind in ("kv", "r2", "d1", "queues") for name in far]
    wanted += [Want("workers", name, Worker(name, "export default {}")) for name in far]
    waves = asyncio.create_task(transport.go())
    report = await ensurer.ensure([Demand(want) for want in wanted], by="test")
    waves.cancel()
    assert (report.errors, len(report.created)) == ([], 50)
    assert len(fake.requests) <= 70
    assert len(transport.sizes) * 0.05 < 2
    assert max(transport.sizes[1:]) <= AT_ONCE  # the lists before them are fetched at once


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/storage/kv/namespaces", "kv"),
        ("/r2/buckets", "r2"),
        ("/workers/scripts", "workers"),
        ("/d1/database", "d1"),
        ("/queues", "queues"),
    ],
)
async def test_a_list_that_fails_leaves_its_kind_unread_and_no_other(
    rig: Rig, provider: CloudflareProvider, path: str, kind: str
) -> None:
    """Whatever was read of it before is not given out; everything else is."""
    fill(rig.fake.products, 3)
    rig.fake.faults = [Fault("GET", path, PAGE, times=99)]
    found = await provider.inventory()
    assert list(found.unread) == [kind]
    assert {one.kind for one in found.resources} == set(KINDS) - {kind}
    assert found.unread[kind].code == "unknown"


def repeat(body: Json) -> None:
    """Make a list say nothing of pages."""
    body["result_info"] = {}


@pytest.mark.parametrize("path", ["/storage/kv/namespaces", "/d1/database", "/queues"])
async def test_a_second_page_that_fails_leaves_nothing_of_the_first(
    rig: Rig, provider: CloudflareProvider, path: str
) -> None:
    """Page 1 with the things that are wanted, page 2 with an error: the kind is unread."""
    fill(rig.fake.products, 30)
    rig.fake.products.most |= {"kv": 20, "d1": 20, "queues": 20}
    rig.fake.faults = [Fault("GET", f"{path}?page=2", PAGE, times=99)]
    found = await provider.inventory()
    kind = {"/storage/kv/namespaces": "kv", "/d1/database": "d1", "/queues": "queues"}[path]
    assert list(found.unread) == [kind]
    assert not any(one.kind == kind for one in found.resources)


async def test_a_list_that_ends_too_early_is_incomplete(rig: Rig, provider: CloudflareProvider) -> None:
    """A total that is not reached: nothing may be created on such a view."""
    fill(rig.fake.products, 3)
    rig.fake.faults = [
        Fault("GET", "/queues", tamper=lambda body: body.update(result=[]), times=9),
        Fault("GET", "/storage/kv/namespaces", tamper=repeat, times=9),
    ]
    found = await provider.inventory()
    assert found.unread["queues"].code == "incomplete"
    assert list(found.unread) == ["queues"]
    assert sum(1 for one in found.resources if one.kind == "kv") == 3  # the empty second page is an end


async def test_a_429_ends_the_whole_view(rig: Rig, provider: CloudflareProvider) -> None:
    """What was not asked by then is not asked any more, and a pass after it makes no call at all."""
    rig.fake.faults = [Fault(told=refusal(429, 971, "throttling", **{"retry-after": "60"}), times=99)]
    found = await provider.inventory()
    assert set(found.unread) == set(KINDS)
    made = len(rig.fake.requests)
    assert set((await provider.inventory()).unread) == set(KINDS)
    assert len(rig.fake.requests) == made
    rig.fake.faults = []
    rig.clock.forward(61)
    assert (await provider.inventory()).unread == {}


@pytest.mark.parametrize(
    ("token", "account", "code", "hint"),
    [
        ("cfut_" + "x" * 40, ACCOUNT, "9106", "Copy the token again"),
        ("not a token", ACCOUNT, "6003", "Copy the token again"),
        (USER_TOKEN, "f" * 32, "10000", "for this very account"),
        (USER_TOKEN, "my-account", "7003", "32 hexadecimal digits"),
    ],
)
async def test_a_token_or_account_that_is_wrong_leaves_everything_unread(
    rig: Rig, token: str, account: str, code: str, hint: str
) -> None:
    """Each with its own sentence."""
    found = await rig.provider(token, account).inventory()
    assert found.resources == () or found.resources == []
    assert set(found.unread) == set(KINDS)
    assert {one.code for one in found.unread.values()} == {code}
    assert all(hint in one.hint for one in found.unread.values())


async def test_a_token_from_the_wrong_place_leaves_everything_unread(rig: Rig) -> None:
    """It is the address, not a permission."""
    rig.fake.tokens[USER_TOKEN].only_from = ["198.51.100.1"]
    found = await rig.provider().inventory()
    assert {one.code for one in found.unread.values()} == {"9109"}
    assert all(HERE in one.message and "IP condition" in one.hint for one in found.unread.values())


async def test_the_place_is_the_account(rig: Rig) -> None:
    """One text for one account, another one for another, and for another API."""

    def place(account: str, root: str) -> str:
        clock = rig.clock
        return connect(
            rig.http,
            USER_TOKEN,
            account,
            root,
            clock=clock,
            monotonic=clock,
            sleep=rig.sleep,
            random=lambda: 0.5,
            nobody=lambda: "nobody",
        ).place

    assert place(ACCOUNT, "") == place(ACCOUNT, ROOT) == place(ACCOUNT, f"{ROOT}/") == f"cloudflare/{ACCOUNT}"
    assert place("f" * 32, "") != place(ACCOUNT, "")
    assert place(ACCOUNT, "http://127.0.0.1:1/v4") == f"http://127.0.0.1:1/v4/{ACCOUNT}"
    assert place("", "") == "cloudflare/only"


async def test_the_only_account_is_found_before_anything_is_listed(rig: Rig) -> None:
    """And where it cannot be told, nothing is."""
    provider = rig.provider(account="")
    assert (await provider.inventory()).unread == {}
    rig.fake.accounts.append({"id": "f" * 32, "name": "Second", "type": "standard"})
    other = rig.provider(account="")
    found = await other.inventory()
    assert {one.code for one in found.unread.values()} == {"wrong_account"}


def test_a_global_key_makes_no_provider(rig: Rig) -> None:
    """It is refused where the provider is made, with a sentence that names the variable."""
    with pytest.raises(BadToken, match="CF_API_TOKEN"):
        rig.provider("cfk_" + "k" * 40)


def test_it_is_a_provider(provider: CloudflareProvider) -> None:
    """By its type too."""
    port: Provider = provider
    assert port.name == "cloudflare"
