"""The local provider: what stands for what, and that the data in it is left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from infra.blobs import Blob
from infra.blobs.folder import FolderBlobs
from infra.clock import new_id
from infra.ensure import Ensurer, Report
from infra.local import LocalProvider
from infra.plan import Demand
from infra.provider import Want, wants
from infra.table.sqlite import SqliteTable
from router.errors import StoreUnavailable
from router.model import Binding, Needs, Worker
from tests.fakes import FakeClock

NEEDS = Needs(
    kv_namespaces=("SESSIONS",),
    r2_buckets=("assets",),
    workers=(Worker("edge", "export default {}", bindings={"KV": Binding(kv="SESSIONS")}),),
    d1_databases=("crm",),
    queues=("mails",),
)
EVERYTHING = list(wants(NEEDS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of the storage."""
    return tmp_path / "data"


@pytest.fixture
def provider(table: SqliteTable, folder: Path, clock: FakeClock) -> LocalProvider:
    """Give the local provider on a real table and folder."""
    return LocalProvider(table, folder, clock, new_id)


@pytest.fixture
def ensurer(provider: LocalProvider, table: SqliteTable, clock: FakeClock) -> Ensurer:
    """Give one that makes sure of things there."""
    return Ensurer(provider, table, clock=clock)


async def ensure(ensurer: Ensurer, wanted: list[Want]) -> Report:
    """Make sure of a few things."""
    return await ensurer.ensure([Demand(want) for want in wanted], by="test")


def files(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder below a folder, with content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".place"
    }


async def names(provider: LocalProvider) -> list[tuple[str, str]]:
    """Return the kinds and names of what is listed, all of which must be readable."""
    found = await provider.inventory()
    assert found.unread == {}
    return [one.key for one in found.resources]


async def test_what_stands_for_what(
    ensurer: Ensurer, table: SqliteTable, folder: Path, clock: FakeClock
) -> None:
    """Rows, a folder, a source file with its settings before it, a database; again changes nothing."""
    first = await ensure(ensurer, EVERYTHING)
    assert first.ok
    before = files(folder)
    clock.forward(60)
    second = await ensure(ensurer, EVERYTHING)
    assert {one.action for one in second.plan} == {"keep"}
    assert [(one.key, one.id) for one in second.skipped] == [(one.key, one.id) for one in first.created]
    assert files(folder) == before
    assert before["r2/assets"] is None
    worker = before["workers/edge.mjs"]
    assert worker is not None
    mark, _, content = worker.partition(b"\n")
    assert mark.startswith(b"// autopilot-router {")
    assert b'"KV":["kv","SESSIONS","' in mark
    assert content == b"export default {}"
    with closing(sqlite3.connect(folder / "d1/crm.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for key in ("kv/SESSIONS", "queues/mails"):
        row = await table.get(("local-storage", key))
        assert row is not None
        assert (row.revision, row.document) == (1, {"created_at": "2026-01-01T00:00:00.000Z"})


async def test_a_worker_is_written_only_when_it_changed(ensurer: Ensurer, folder: Path) -> None:
    """The same source is not written again; another one replaces it and is reported as created."""
    path = folder / "workers/edge.mjs"
    await ensure(ensurer, [Want("workers", "edge", Worker("edge", "one"))])
    written = path.stat().st_mtime_ns
    same = await ensure(ensurer, [Want("workers", "edge", Worker("edge", "one"))])
    assert [one.action for one in same.plan] == ["keep"]
    assert path.stat().st_mtime_ns == written
    other = await ensure(ensurer, [Want("workers", "edge", Worker("edge", "two\nü"))])
    assert [one.action for one in other.plan] == ["update"]
    assert path.read_text("utf-8").partition("\n")[2] == "two\nü"
    assert sorted(files(folder / "workers")) == ["edge.mjs"]


@pytest.mark.parametrize(
    "content",
    [
        "export default {theirs: 1}",
        "",
        "// autopilot-router {",
        "// autopilot-router []\nexport default {}",
        '// autopilot-router {"digest":"x"}\nexport default {}',
        "edited",
    ],
)
async def test_a_file_somebody_else_wrote_is_not_overwritten(
    ensurer: Ensurer, folder: Path, content: str
) -> None:
    """Without our mark, or with one that is not of this source, it is theirs."""
    want = Want("workers", "edge", Worker("edge", "ours"))
    path = folder / "workers/edge.mjs"
    if content == "edited":
        await ensure(ensurer, [want])
        content = path.read_text() + " by hand"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    report = await ensure(ensurer, [want])
    assert [one["code"] for one in report.alerts] == ["not_ours"]
    assert path.read_text() == content


async def test_what_is_there_already_is_adopted_untouched(ensurer: Ensurer, folder: Path) -> None:
    """Storage with data in it is found and kept with its data."""
    blobs = FolderBlobs(folder / "r2")
    await blobs.put("assets", "a/b.txt", Blob(b"text", "text/plain", {}))
    database = folder / "d1/crm.sqlite3"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE people (name)")
        connection.execute("INSERT INTO people VALUES ('Ada')")
        connection.commit()
    report = await ensure(ensurer, [Want("r2", "assets"), Want("d1", "crm"), Want("r2", "pages")])
    assert [(one.action, one.want.name) for one in report.plan] == [
        ("adopt", "assets"),
        ("adopt", "crm"),
        ("create", "pages"),
    ]
    blob = await blobs.get("assets", "a/b.txt")
    assert blob is not None
    assert blob.data == b"text"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM people").fetchall() == [("Ada",)]


async def test_the_inventory_shows_storage_only(provider: LocalProvider, folder: Path) -> None:
    """Working files of the blobs, journals and strays are no resources."""
    await FolderBlobs(folder / "r2").put("assets", "a", Blob(b"", "text/plain", {}))
    for stray in ("r2/file", "workers/readme.txt", "d1/crm.sqlite3-journal", "other/x.mjs", "workers/.new"):
        path = folder / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (folder / "workers/folder.mjs").mkdir()
    assert await names(provider) == [("r2", "assets")]


async def test_an_inventory_of_many_pages_is_whole(provider: LocalProvider, table: SqliteTable) -> None:
    """More rows than fit a page are all found."""
    for number in range(1005):
        await table.put(("local-storage", f"queues/q{number:04}"), {})
    assert await names(provider) == [("queues", f"q{number:04}") for number in range(1005)]


async def test_what_is_in_the_way_is_told_and_the_rest_is_made(ensurer: Ensurer, folder: Path) -> None:
    """Something else in the place of a bucket, a Worker and a database stops those three, not the others."""
    (folder / "r2").mkdir(parents=True)
    (folder / "r2/assets").write_text("in the way")
    (folder / "workers/edge.mjs").mkdir(parents=True)
    (folder / "d1/crm.sqlite3").mkdir(parents=True)
    report = await ensure(ensurer, EVERYTHING)
    assert [(one["kind"], one["name"], one["code"]) for one in report.errors] == [
        ("r2", "assets", "store_unavailable"),
        ("workers", "edge", "store_unavailable"),
        ("d1", "crm", "store_unavailable"),
    ]
    assert all(one["name"] in one["message"] for one in report.errors)
    assert [one.key for one in report.created] == [("kv", "SESSIONS"), ("queues", "mails")]
    (folder / "r2/assets").unlink()
    assert [one.kind for one in (await ensure(ensurer, EVERYTHING)).created] == ["r2"]


async def test_a_folder_that_cannot_be_read_is_told_by_kind(provider: LocalProvider, folder: Path) -> None:
    """The other kinds are listed; what cannot be looked at is an error, and so is writing over it."""
    (folder / "workers").mkdir(parents=True)
    edge = folder / "workers/edge.mjs"
    edge.symlink_to(edge)
    found = await provider.inventory()
    assert set(found.unread) == {"workers"}
    assert "edge.mjs" in found.unread["workers"].message
    want = Want("workers", "edge", Worker("edge", "x"))
    with pytest.raises(Exception, match="cannot look at workers edge"):
        await provider.find(want)
    edge.unlink()
    edge.mkdir()
    with pytest.raises(Exception, match="cannot update workers edge"):
        await provider.update(want, {})


async def test_a_store_that_is_gone_is_told_by_kind(provider: LocalProvider, table: SqliteTable) -> None:
    """Folders are listed all the same; nothing is made in either without a ledger."""
    await table.close()
    found = await provider.inventory()
    assert set(found.unread) == {"kv", "queues"}
    with pytest.raises(StoreUnavailable):
        await provider.create(Want("kv", "SESSIONS"), {})


async def test_two_at_once_make_no_duplicates(
    ensurer: Ensurer, table: SqliteTable, provider: LocalProvider
) -> None:
    """Ten runs at the same moment all succeed and leave each thing once."""
    reports = await asyncio.gather(*(ensure(ensurer, EVERYTHING) for _ in range(10)))
    assert all(report.ok for report in reports)
    assert sorted(await names(provider)) == sorted(want.key for want in EVERYTHING)
    rows = (await table.range("local-storage")).items
    assert [(row.key[1], row.revision) for row in rows] == [("kv/SESSIONS", 1), ("queues/mails", 1)]


async def test_another_folder_is_another_place(
    provider: LocalProvider, folder: Path, table: SqliteTable, clock: FakeClock
) -> None:
    """One that was emptied or thrown away as well: what was in the old one has not vanished from the new."""
    first = provider.place
    assert LocalProvider(table, folder, clock, new_id).place == first
    (folder / ".place").unlink()
    assert provider.place == first, "as long as the process lives"
    assert LocalProvider(table, folder, clock, new_id).place != first


async def test_a_folder_that_cannot_be_written_has_no_place(
    table: SqliteTable, tmp_path: Path, clock: FakeClock
) -> None:
    """That is an error of the store, not a crash."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        _ = LocalProvider(table, tmp_path / "file", clock, new_id).place


async def test_two_processes_agree_on_the_place(table: SqliteTable, folder: Path, clock: FakeClock) -> None:
    """The one that is slower takes the name the other one gave."""

    def slower(prefix: str) -> str:
        (folder / ".place").write_text("place_of_the_other")
        return new_id(prefix)

    provider = LocalProvider(table, folder, clock, slower)
    assert provider.place == "local:place_of_the_other"


async def test_diagnose_says_that_there_is_no_token(provider: LocalProvider) -> None:
    """Locally there is nothing to diagnose, and that is what it says."""
    told = await provider.diagnose(await provider.inventory(), probe_writes=True)
    assert told.token == {"id": None, "status": "none", "kind": "local"}
    assert (told.permissions, told.missing) == ((), ())
    assert "stand in for Cloudflare" in told.note
