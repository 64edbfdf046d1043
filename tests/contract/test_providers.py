"""Every provider of storage keeps its promises: whole lists, creations that touch nothing, no removal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from infra.clock import new_id
from infra.ensure import Ensurer, report_of
from infra.local import LocalProvider
from infra.plan import Demand
from infra.provider import KINDS, Bound, Inventory, Provider, ProviderFailed, Resource, Want, digest_of, wants
from infra.table.sqlite import SqliteTable
from router.model import Binding, Bucket, Needs, Worker
from tests.cloudflare_fake import CloudflareFake
from tests.fakes import FakeClock
from tests.infra.cloudflare.conftest import Rig


class Storage(NamedTuple):
    """Some storage: a way to it, as another process would open it, and a way to other storage."""

    opened: Callable[[], Provider]
    elsewhere: Callable[[], Provider]


@pytest.fixture
async def table(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteTable]:
    """Give the ledger's table: which one it is makes no difference here."""
    opened = SqliteTable(tmp_path / "table.db", clock)
    yield opened
    await opened.close()


@pytest.fixture(params=["local", "cloudflare"])
def storage(request: pytest.FixtureRequest, table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Storage:
    """Give empty storage of each provider."""
    if request.param == "cloudflare":
        rig = Rig(CloudflareFake(clock), clock)
        return Storage(rig.provider, lambda: rig.provider(account="f" * 32))
    return Storage(
        lambda: LocalProvider(table, tmp_path / "data", clock, new_id),
        lambda: LocalProvider(table, tmp_path / "other", clock, new_id),
    )


@pytest.fixture
def provider(storage: Storage) -> Provider:
    """Give a way to the storage."""
    return storage.opened()


BOUND_TO = {
    "KV": Binding(kv="SESSIONS"),
    "FILES": Binding(r2="assets"),
    "DB": Binding(d1="crm"),
    "MAILS": Binding(queue="mails"),
}
NEEDS = Needs(
    kv_namespaces=("SESSIONS",),
    r2_buckets=("assets", Bucket("private", "eu", "weur")),
    workers=(Worker("edge", "export default {}", bindings=BOUND_TO, crons=("*/5 * * * *",)),),
    d1_databases=("crm",),
    queues=("mails",),
)
EVERYTHING = sorted(wants(NEEDS), key=lambda want: want.kind == "workers")


async def made(provider: Provider, *, but: tuple[str, ...] = ()) -> dict[tuple[str, str], Resource]:
    """Create everything and return it by kind and name."""
    bound: dict[tuple[str, str], Resource] = {}
    for want in EVERYTHING:
        if want.kind not in but:
            bound[want.key] = await provider.create(want, bound)
    return bound


def whole(inventory: Inventory) -> set[tuple[str, str, str, str]]:
    """Return what an inventory has, which must be all there is to read."""
    assert inventory.unread == {}
    return {(one.kind, one.name, one.jurisdiction, one.id) for one in inventory.resources}


async def test_empty_storage_is_known_to_be_empty(provider: Provider) -> None:
    """Every kind was read to its end, and there is nothing."""
    assert whole(await provider.inventory()) == set()
    assert [await provider.find(want) for want in EVERYTHING] == [None] * len(EVERYTHING)


async def test_what_is_created_is_there(storage: Storage, provider: Provider) -> None:
    """Every kind, by the same id in the answer, in the list, and when it is looked at, by whoever looks."""
    there = await made(provider)
    assert {kind for kind, _ in there} == set(KINDS)
    told = {(one.kind, one.name, one.jurisdiction, one.id) for one in there.values()}
    for way in (provider, storage.opened()):
        assert whole(await way.inventory()) == told
        for want in EVERYTHING:
            for known in ("", there[want.key].id):
                found = await way.find(want, known)
                assert found is not None
                assert (found.key, found.id, found.jurisdiction) == (
                    want.key, there[want.key].id, want.jurisdiction,
                )  # fmt: skip


async def test_what_exists_is_not_touched_by_creating_it(provider: Provider) -> None:
    """It is refused as something that may be there: whoever asked has to look, and finds what was there."""
    there = await made(provider)
    before = await provider.inventory()
    for want in EVERYTHING:
        other = want
        if isinstance(want.spec, Worker):
            other = Want(*want.key, Worker("edge", "export default {other: 1}", bindings=BOUND_TO))
        with pytest.raises(ProviderFailed) as refused:
            await provider.create(other, there)
        assert refused.value.done, want.kind
    assert await provider.inventory() == before
    edge = await provider.find(EVERYTHING[-1])
    assert edge is not None
    assert edge.digest == there["workers", "edge"].digest


async def test_of_many_at_once_one_creates(storage: Storage) -> None:
    """The others are told that it may be there."""
    ways = [storage.opened() for _ in range(5)]
    for want in EVERYTHING[:-1]:
        done = await asyncio.gather(*(way.create(want, {}) for way in ways), return_exceptions=True)
        assert sum(isinstance(one, Resource) for one in done) == 1, want.kind
        assert all(one.done for one in done if isinstance(one, ProviderFailed))
    assert len(whole(await ways[0].inventory())) == len(EVERYTHING) - 1


async def test_lists_are_whole(provider: Provider) -> None:
    """More of a kind than any first page has."""
    names = [f"thing-{number:03d}" for number in range(60)]
    for kind in ("kv", "r2", "d1", "queues"):
        for name in names:
            await provider.create(Want(kind, name), {})
    found = whole(await provider.inventory())
    assert sorted(name for kind, name, *_ in found if kind == "r2") == names
    assert len(found) == 240


async def test_buckets_of_one_name_are_apart_by_jurisdiction(provider: Provider) -> None:
    """Each is found where it is, and is not there for the other ones."""
    here, there = Want("r2", "assets"), Want("r2", "assets", Bucket("assets", "eu"))
    await provider.create(here, {})
    assert await provider.find(there) is None
    await provider.create(there, {})
    found = await provider.find(there)
    assert found is not None
    assert found.jurisdiction == "eu"
    listed = [(one.name, one.jurisdiction) for one in (await provider.inventory()).resources]
    assert sorted(listed) == [("assets", ""), ("assets", "eu")]


async def test_a_worker_is_known_by_all_that_was_uploaded(provider: Provider) -> None:
    """Its digest is that of source, settings and the ids it is bound to; a list may leave it open."""
    there = await made(provider)
    edge = EVERYTHING[-1]
    digest = digest_of(edge, there)
    assert (there[edge.key].digest, there[edge.key].ours) == (digest, True)
    found = await provider.find(edge)
    assert found is not None
    assert (found.digest, found.ours) == (digest, True)
    [listed] = [one for one in (await provider.inventory()).resources if one.kind == "workers"]
    assert (listed.digest, listed.ours) in {(digest, True), ("", None)}
    assert listed.version == found.version


@pytest.mark.parametrize(
    "other",
    [
        Worker("edge", "export default {other: 1}", bindings=BOUND_TO, crons=("*/5 * * * *",)),
        Worker("edge", "export default {}", "2026-05-01", BOUND_TO, crons=("*/5 * * * *",)),
        Worker("edge", "export default {}", bindings={"KV": Binding(kv="SESSIONS")}, crons=("*/5 * * * *",)),
        Worker("edge", "export default {}", bindings=BOUND_TO),
        Worker("edge", "export default {}", bindings=BOUND_TO, crons=("*/5 * * * *",), workers_dev=True),
    ],
    ids=["content", "date", "bindings", "crons", "route"],
)
async def test_a_worker_of_ours_is_uploaded_again(provider: Provider, other: Worker) -> None:
    """Whatever of it changed, its digest is another one afterwards, and its version if it has one."""
    there = await made(provider)
    before = await provider.find(EVERYTHING[-1])
    want = Want("workers", "edge", other)
    updated = await provider.update(want, there)
    found = await provider.find(want)
    assert before is not None
    assert found is not None
    assert updated.digest == found.digest == digest_of(want, there) != before.digest
    assert (found.id, found.ours) == (before.id, True)
    assert found.version != before.version or not found.version
    assert len(whole(await provider.inventory())) == len(EVERYTHING)


def test_another_id_is_another_digest() -> None:
    """A Worker bound to a namespace that was made anew has to be uploaded again."""
    want = Want("workers", "w", Worker("w", "x", bindings={"KV": Binding(kv="A")}))
    one: Bound = {("kv", "A"): Resource("kv", "A", "1")}
    other: Bound = {("kv", "A"): Resource("kv", "A", "2")}
    assert digest_of(want, one) != digest_of(want, other)
    assert digest_of(Want("kv", "A"), {}) == ""


async def test_a_place_is_known_by_its_name(storage: Storage) -> None:
    """To everybody who opens it, and no other storage is called so."""
    assert storage.opened().place == storage.opened().place != storage.elsewhere().place


async def test_a_diagnosis_leaves_nothing_behind(provider: Provider) -> None:
    """Probing writes tries creations that cannot succeed; what the token may do is told with its evidence."""
    await made(provider, but=("workers",))
    before = await provider.inventory()
    for probe_writes in (False, True):
        told = await provider.diagnose(before, probe_writes=probe_writes)
        assert isinstance(told.token, dict)
        assert {"id", "status", "kind"} <= set(told.token)
        assert not isinstance(told.permissions, tuple) or told.permissions == ()
    assert await provider.inventory() == before


async def test_a_dry_run_is_the_run_and_a_second_one_changes_nothing(
    provider: Provider, table: SqliteTable, clock: FakeClock
) -> None:
    """What is planned is what is done, and then everything is as it should be."""
    ensurer = Ensurer(provider, table, clock=clock)
    demands = [Demand(want) for want in wants(NEEDS)]
    view = await ensurer.survey([demand.want for demand in demands])
    dry = report_of(ensurer.plan(demands, view), dry_run=True)
    assert whole(await provider.inventory()) == set()
    run = await ensurer.ensure(demands, by="test")
    assert run.plan == dry.plan
    assert run.ok
    assert [(one.kind, one.name) for one in run.created] == [one.want.key for one in dry.plan]
    before = await provider.inventory()
    again = await ensurer.ensure(demands, by="test")
    assert {one.action for one in again.plan} == {"keep"}
    assert await provider.inventory() == before


async def test_nothing_can_be_removed(provider: Provider) -> None:
    """A provider has the verbs of the port and no other, and no source of one speaks of deleting."""
    verbs = {name for name in dir(provider) if not name.startswith("_")}
    assert verbs - {"close"} == {"name", "place", "inventory", "find", "create", "update", "diagnose"}
    assert removals() == {}


def removals() -> dict[str, list[str]]:
    """Return the words for removing something in the sources of providers, by file."""
    removal = re.compile(r"\bdelete\(|\bDELETE\b|\brmtree\(|\brmdir\(|\bdrop\b", re.IGNORECASE)
    infra = Path(__file__).parents[2] / "infra"
    sources = [*(infra / "cloudflare").glob("*.py"), infra / "local.py", infra / "provider.py"]
    assert len(sources) > 5
    return {path.name: words for path in sources if (words := removal.findall(path.read_text()))}
