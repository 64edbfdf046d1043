"""Each kind of storage: listed, created, found and refused in its own way, by the same five lines."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from infra.cloudflare.failures import Denied, Exists, Full, Missing, NotEnabled, Refused, Unknown
from infra.cloudflare.kinds import KIND, TABLE
from infra.cloudflare.provider import LOOKS, CloudflareProvider
from infra.provider import KINDS, Resource, Want
from router.model import Bucket, Worker
from tests.cloudflare_fake import GROUPS, USER_TOKEN, Fault
from tests.cloudflare_products import Json
from tests.infra.cloudflare.conftest import Rig
from tests.infra.cloudflare.schema import Schema
from tests.upstream import Told

SOURCE = "export default {}"


class Example(NamedTuple):
    """What a kind accepts, and a name that it refuses."""

    want: Want
    refused: Want


EXAMPLES = {
    "kv": Example(Want("kv", "SESSIONS"), Want("kv", "")),
    "r2": Example(Want("r2", "assets"), Want("r2", "Not A Bucket")),
    "workers": Example(
        Want("workers", "edge", Worker("edge", SOURCE)), Want("workers", "A B", Worker("A B", SOURCE))
    ),
    "d1": Example(Want("d1", "crm"), Want("d1", "-")),
    "queues": Example(Want("queues", "jobs"), Want("queues", "A B")),
}

each_kind = pytest.mark.parametrize("kind", KINDS)


def test_there_is_a_row_and_an_example_for_every_kind(schema: Schema) -> None:
    """In the port's order; ids of permission groups are those of the schema, names those of the API."""
    assert [row.kind for row in TABLE] == list(KINDS) == list(EXAMPLES)
    ids = schema.document["x-permission-group-ids"]
    for row in TABLE:
        assert (ids[row.reads], ids[row.writes]) == row.groups
        assert row.permission == GROUPS[row.kind]


@each_kind
async def test_what_is_created_is_listed_and_found(provider: CloudflareProvider, kind: str) -> None:
    """With one id everywhere; before, it is not there."""
    want = EXAMPLES[kind].want
    assert await provider.find(want) is None
    made = await provider.create(want, {})
    assert made.key == want.key
    found = await provider.inventory()
    assert [one.id for one in found.resources] == [made.id]
    for known in ("", made.id, "0" * 32):
        looked = await provider.find(want, known)
        assert looked is not None
        assert looked._replace(version="") == made._replace(version="")


@each_kind
async def test_what_exists_is_not_created_again(rig: Rig, provider: CloudflareProvider, kind: str) -> None:
    """It is told that it is there, and stays as it was."""
    want = EXAMPLES[kind].want
    made = await provider.create(want, {})
    with pytest.raises(Exists) as caught:
        await provider.create(want, {})
    assert caught.value.done
    assert [one.id for one in (await provider.inventory()).resources] == [made.id]


@each_kind
async def test_a_name_that_the_product_refuses_is_refused(
    rig: Rig, provider: CloudflareProvider, kind: str
) -> None:
    """With a reason, and nothing is made."""
    with pytest.raises(Refused) as caught:
        await provider.create(EXAMPLES[kind].refused, {})
    assert not caught.value.done
    assert caught.value.number
    assert (await provider.inventory()).resources == []


@each_kind
async def test_a_token_without_the_permission_is_denied(
    rig: Rig, provider: CloudflareProvider, kind: str
) -> None:
    """One that may read is denied the creation; one that may nothing leaves the kind unread."""
    grants = rig.fake.tokens[USER_TOKEN].grants
    grants[kind] = "read"
    with pytest.raises(Denied) as caught:
        await provider.create(EXAMPLES[kind].want, {})
    assert (caught.value.word, caught.value.reach, caught.value.done) == ("10000", "kind", False)
    assert (await provider.inventory()).unread == {}
    grants[kind] = ""
    found = await provider.inventory()
    assert list(found.unread) == [kind]
    assert found.unread[kind].code == "10000"
    assert "edit rights" in found.unread[kind].hint


@each_kind
async def test_a_creation_whose_answer_was_lost_is_found(
    rig: Rig, provider: CloudflareProvider, kind: str
) -> None:
    """It says that it may be done; a look, patient as new things show late, finds it. One request made it."""
    rig.fake.products.lag = 2
    want = EXAMPLES[kind].want
    method = "PUT" if kind == "workers" else "POST"
    times = 9 if kind == "workers" else 1  # an upload is repeated, as that changes nothing
    rig.fake.faults = [Fault(method, told=Told(520, b"<html>"), done=True, times=times)]
    with pytest.raises(Unknown) as caught:
        await provider.create(want, {})
    assert caught.value.done
    found = await provider.find(want)
    assert found is not None
    if kind != "workers":
        assert len(rig.fake.writes) == 1
        assert rig.naps == [0.5, 0.5]


async def test_a_creation_that_never_was_is_looked_for_and_not_found(
    rig: Rig, provider: CloudflareProvider
) -> None:
    """After some looks it is sure; whoever asks about something else gets an answer at once."""
    rig.fake.faults = [Fault("POST", told=Told(520, b"<html>"))]
    with pytest.raises(Unknown):
        await provider.create(Want("queues", "jobs"), {})
    assert await provider.find(Want("queues", "jobs")) is None
    assert rig.fake.calls("GET", "queues") == LOOKS
    rig.naps.clear()
    assert await provider.find(Want("queues", "other")) is None
    assert rig.naps == []


async def test_a_namespace_is_looked_up_by_its_id(rig: Rig, provider: CloudflareProvider) -> None:
    """A list of a thousand costs more. One that was renamed since is not the one that is wanted."""
    made = await provider.create(Want("kv", "CACHE"), {})
    rig.fake.requests.clear()
    await provider.find(Want("kv", "CACHE"), made.id)
    assert [one.path.rpartition("/")[2] for one in rig.fake.requests] == [made.id]
    rig.fake.products.kv[made.id].row["title"] = "OTHER"
    assert await provider.find(Want("kv", "CACHE"), made.id) is None


async def test_buckets_live_in_their_jurisdictions(rig: Rig, provider: CloudflareProvider) -> None:
    """Those of every jurisdiction are listed, each with where it is; the same name twice is two buckets."""
    here = await provider.create(Want("r2", "assets", Bucket("assets", location_hint="oc")), {})
    there = await provider.create(Want("r2", "assets", Bucket("assets", "eu")), {})
    far = await provider.create(Want("r2", "secret", Bucket("secret", "fedramp-high")), {})
    assert [one.jurisdiction for one in (here, there, far)] == ["", "eu", "fedramp-high"]
    assert rig.fake.products.r2["default", "assets"].row["location"] == "OC"
    assert sorted((await provider.inventory()).resources) == sorted([here, there, far])
    assert await provider.find(Want("r2", "assets", Bucket("assets", "eu"))) == there
    assert await provider.find(Want("r2", "assets", Bucket("assets", "us"))) is None


def _without_jurisdictions(body: Json) -> None:
    """Show buckets as a server does that knows no jurisdictions."""
    body["result"] = {"buckets": [{"name": "assets"}, {"name": "pages"}]}


async def test_a_server_that_knows_no_jurisdictions_has_each_bucket_once(
    rig: Rig, provider: CloudflareProvider
) -> None:
    """The same list for every jurisdiction is one list."""
    rig.fake.faults = [Fault("GET", "/r2/buckets", tamper=_without_jurisdictions, times=5)]
    found = (await provider.inventory()).resources
    assert [(one.name, one.jurisdiction) for one in found] == [("assets", ""), ("pages", "")]


@pytest.mark.parametrize(
    ("entitled", "unread"),
    [
        ({"default", "eu"}, False),
        ({"default", "us"}, True),
        ({"eu"}, True),
    ],
)
async def test_a_jurisdiction_that_few_accounts_have_may_be_refused(
    rig: Rig, provider: CloudflareProvider, entitled: set[str], unread: bool
) -> None:
    """Refused there means nothing is there; refused where everybody may keep buckets, nothing is known."""
    rig.fake.products.entitled = entitled
    assert ("r2" in (await provider.inventory()).unread) is unread


async def test_a_restricted_jurisdiction_without_an_answer_leaves_buckets_unread(
    rig: Rig, provider: CloudflareProvider
) -> None:
    """Unknown is not the same as refused."""
    asked: list[str] = []

    def tamper(body: Json) -> None:
        body["success"] = None

    rig.fake.faults = [Fault("GET", "/r2/buckets", tamper=tamper, times=0)]
    for request in range(5):
        rig.fake.faults = [Fault("GET", "/r2/buckets", tamper=tamper, times=3 * (request + 1))]
        found = await provider.inventory()
        assert found.unread["r2"].code == "unknown"
        asked.append(found.unread["r2"].message)
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("r2", 10009), ("d1", 7406)],
)
async def test_a_full_account_ends_its_kind(
    rig: Rig, provider: CloudflareProvider, kind: str, limit: int
) -> None:
    """No further creation of the kind can succeed."""
    rig.fake.products.limits[kind] = 0
    with pytest.raises(Full) as caught:
        await provider.create(EXAMPLES[kind].want, {})
    assert (caught.value.number, caught.value.reach) == (limit, "kind")


@pytest.mark.parametrize(("kind", "code"), [("r2", "10042"), ("workers", "10015")])
async def test_a_product_that_is_off_says_what_a_person_must_do(
    rig: Rig, provider: CloudflareProvider, kind: str, code: str
) -> None:
    """No token can turn it on."""
    rig.fake.not_enabled = {kind}
    found = await provider.inventory()
    assert found.unread[kind].code == code
    assert "dashboard" in found.unread[kind].hint
    with pytest.raises(NotEnabled):
        await provider.create(EXAMPLES[kind].want, {})


async def test_an_answer_about_something_else_is_not_believed(rig: Rig, provider: CloudflareProvider) -> None:
    """A creation answered with another name, or with none: it may be done."""
    other: list[Json] = [{"id": "x", "title": "OTHER"}, {"id": "x"}, {"title": "CACHE", "id": None}]
    for result in other:
        rig.fake.products.kv.clear()
        rig.fake.faults = [Fault("POST", tamper=lambda body, result=result: body.update(result=result))]  # type: ignore[misc]
        with pytest.raises(Unknown) as caught:
            await provider.create(Want("kv", "CACHE"), {})
        assert caught.value.done


def test_a_missing_thing_is_no_failure_of_the_kind() -> None:
    """Only itself."""
    assert Missing("x").reach == "one"
    assert Resource("kv", "a", "1").key == ("kv", "a")
    assert set(KIND) == set(KINDS)
