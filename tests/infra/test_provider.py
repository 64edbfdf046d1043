"""Making sure that storage exists: the plan, the local provider, and what a report says."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.blobs import Blob
from infra.blobs.folder import FolderBlobs
from infra.local import LocalProvider
from infra.former import KINDS, Resource, Want, by_kind, digest_of, ensure, plan_of, wants
from infra.table.sqlite import SqliteTable
from router.errors import StoreUnavailable
from router.model import Needs, Worker
from tests.fakes import FakeClock

NEEDS = Needs(
    kv_namespaces=("SESSIONS",),
    r2_buckets=("assets",),
    workers=(Worker("edge", "export default {}"),),
    d1_databases=("crm",),
    queues=("mails",),
)
EVERYTHING = list(wants(NEEDS))


@pytest.fixture
def provider(table: SqliteTable, tmp_path: Path, clock: FakeClock) -> LocalProvider:
    """Give the local provider on a real table and folder."""
    return LocalProvider(table, tmp_path / "data", clock)


def files(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder below a folder, with content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_needs_become_single_wants() -> None:
    """Each thing an autopilot needs is wanted by its kind and name, workers with their source."""
    assert [
        Want("kv", "SESSIONS"),
        Want("r2", "assets"),
        Want("workers", "edge", "export default {}"),
        Want("d1", "crm"),
        Want("queues", "mails"),
    ] == EVERYTHING
    assert [want.kind for want in EVERYTHING] == list(KINDS)
    assert list(wants(Needs())) == []


def test_the_plan_says_what_is_missing_and_what_changed() -> None:
    """What exists is kept, what does not is created, and a worker with other content is updated."""
    there = [
        Resource("r2", "assets", "1"),
        Resource("kv", "assets", "2"),  # the same name of another kind is another thing
        Resource("workers", "edge", "3", digest_of("old")),
        Resource("workers", "same", "4", digest_of("ü")),
    ]
    wanted = [
        Want("r2", "assets"),
        Want("d1", "assets"),
        Want("workers", "edge", "new"),
        Want("workers", "same", "ü"),
    ]
    assert [(one.action, one.kind, one.name) for one in plan_of(wanted, there)] == [
        ("keep", "r2", "assets"),
        ("create", "d1", "assets"),
        ("update", "workers", "edge"),
        ("keep", "workers", "same"),
    ]


async def test_each_kind_is_created_once_and_then_kept(
    provider: LocalProvider, table: SqliteTable, tmp_path: Path, clock: FakeClock
) -> None:
    """The first run makes all of it, the second nothing; the inventory shows it with the same ids."""
    assert await provider.inventory() == []
    first = await ensure(provider, EVERYTHING)
    assert first.ok
    assert [(one.kind, one.name) for one in first.created] == [(one.kind, one.name) for one in EVERYTHING]
    assert first.skipped == []
    before = files(tmp_path / "data")
    clock.forward(60)
    second = await ensure(provider, EVERYTHING)
    assert second.ok
    assert second.created == []
    assert second.skipped == first.created
    assert {one.action for one in second.plan} == {"keep"}
    assert files(tmp_path / "data") == before
    assert set(await provider.inventory()) == set(first.created)
    assert len({one.id for one in first.created}) == 5
    assert before["r2/assets"] is None
    assert before["workers/edge.mjs"] == b"export default {}"
    with closing(sqlite3.connect(tmp_path / "data/d1/crm.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    row = await table.get(("local-storage", "kv/SESSIONS"))
    assert row is not None
    assert row.revision == 1
    assert row.document == {"created_at": "2026-01-01T00:00:00.000Z"}


async def test_a_worker_is_written_only_when_its_content_changed(
    provider: LocalProvider, tmp_path: Path
) -> None:
    """The same source is not written again; another one replaces it and is reported as created."""
    path = tmp_path / "data/workers/edge.mjs"
    await ensure(provider, [Want("workers", "edge", "one")])
    written = path.stat().st_mtime_ns
    same = await ensure(provider, [Want("workers", "edge", "one")])
    assert [one.action for one in same.plan] == ["keep"]
    assert path.stat().st_mtime_ns == written
    other = await ensure(provider, [Want("workers", "edge", "two ü")])
    assert [one.action for one in other.plan] == ["update"]
    assert [one.digest for one in other.created] == [digest_of("two ü")]
    assert path.read_text("utf-8") == "two ü"


async def test_what_is_there_already_is_adopted_untouched(provider: LocalProvider, tmp_path: Path) -> None:
    """Storage with data in it is found and kept with its data."""
    await FolderBlobs(tmp_path / "data/r2").put("assets", "a/b.txt", Blob(b"text", "text/plain", {}))
    database = tmp_path / "data/d1/crm.sqlite3"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE people (name)")
        connection.execute("INSERT INTO people VALUES ('Ada')")
        connection.commit()
    report = await ensure(provider, [Want("r2", "assets"), Want("d1", "crm"), Want("r2", "other")])
    assert [(one.action, one.name) for one in report.plan] == [
        ("keep", "assets"),
        ("keep", "crm"),
        ("create", "other"),
    ]
    blob = await FolderBlobs(tmp_path / "data/r2").get("assets", "a/b.txt")
    assert blob is not None
    assert blob.data == b"text"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM people").fetchall() == [("Ada",)]


async def test_the_inventory_shows_storage_only(provider: LocalProvider, tmp_path: Path) -> None:
    """Working files of the blobs, journals and strays are no resources."""
    await FolderBlobs(tmp_path / "data/r2").put("assets", "a", Blob(b"", "text/plain", {}))
    for stray in ("r2/file", "workers/readme.txt", "d1/crm.sqlite3-journal", "other/x.mjs"):
        path = tmp_path / "data" / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "data/workers/folder.mjs").mkdir()
    assert [(one.kind, one.name) for one in await provider.inventory()] == [("r2", "assets")]


async def test_an_inventory_of_many_pages_is_whole(provider: LocalProvider, table: SqliteTable) -> None:
    """More rows than fit a page are all found."""
    for number in range(1005):
        await table.put(("local-storage", f"queues/q{number:04}"), {})
    assert [one.name for one in await provider.inventory()] == [f"q{number:04}" for number in range(1005)]


async def test_what_cannot_be_made_is_reported_and_the_rest_is_made(
    provider: LocalProvider, tmp_path: Path
) -> None:
    """Something in the way of a bucket, a worker and a database stops those three, not the others."""
    data = tmp_path / "data"
    (data / "r2").mkdir(parents=True)
    (data / "r2/assets").write_text("in the way")
    (data / "workers/edge.mjs").mkdir(parents=True)
    (data / "d1/crm.sqlite3").mkdir(parents=True)
    report = await ensure(provider, EVERYTHING)
    assert not report.ok
    assert [(one["kind"], one["name"], one["code"]) for one in report.errors] == [
        ("r2", "assets", "store_unavailable"),
        ("workers", "edge", "store_unavailable"),
        ("d1", "crm", "store_unavailable"),
    ]
    assert all(one["name"] in one["message"] for one in report.errors)
    assert [(one.kind, one.name) for one in report.created] == [("kv", "SESSIONS"), ("queues", "mails")]
    (data / "r2/assets").unlink()
    assert [one.kind for one in (await ensure(provider, EVERYTHING)).created] == ["r2"]


async def test_two_at_once_make_no_duplicates(provider: LocalProvider, table: SqliteTable) -> None:
    """Ten runs at the same moment all succeed and leave each thing once."""
    reports = await asyncio.gather(*(ensure(provider, EVERYTHING) for _ in range(10)))
    assert all(report.ok for report in reports)
    assert len(await provider.inventory()) == 5
    rows = (await table.range("local-storage")).items
    assert [(row.key[1], row.revision) for row in rows] == [("kv/SESSIONS", 1), ("queues/mails", 1)]


async def test_the_same_want_twice_is_one(provider: LocalProvider) -> None:
    """Two autopilots that need the same thing get it once."""
    report = await ensure(provider, [Want("kv", "SESSIONS"), Want("r2", "assets"), Want("kv", "SESSIONS")])
    assert [one.name for one in report.created] == ["SESSIONS", "assets"]


async def test_a_worker_wanted_in_two_ways_is_blocked(provider: LocalProvider) -> None:
    """Neither content is written, both claims are reported, and the rest is made."""
    wanted = [Want("workers", "w", "one"), Want("workers", "w", "two"), Want("kv", "KV")]
    report = await ensure(provider, wanted)
    assert [action.action for action in report.plan] == ["blocked", "blocked", "create"]
    assert [(error["name"], error["code"]) for error in report.errors] == [("w", "conflict")] * 2
    assert [one.name for one in await provider.inventory()] == ["KV"]


async def test_a_dry_run_changes_nothing_and_tells_what_a_run_does(
    provider: LocalProvider, tmp_path: Path
) -> None:
    """The plan of a dry run is the plan of the run after it, and what that run then did."""
    await ensure(provider, [Want("r2", "assets"), Want("workers", "edge", "old")])
    before, listed = files(tmp_path / "data"), await provider.inventory()
    dry = await ensure(provider, EVERYTHING, dry_run=True)
    assert dry.dry_run
    assert dry.ok
    assert dry.created == []
    assert [one.name for one in dry.skipped] == ["assets"]
    assert files(tmp_path / "data") == before
    assert await provider.inventory() == listed
    run = await ensure(provider, EVERYTHING)
    assert run.plan == dry.plan
    done = [(one.kind, one.name) for one in run.created]
    assert done == [(one.kind, one.name) for one in dry.plan if one.action != "keep"]
    assert run.skipped == dry.skipped


async def test_a_report_as_it_is_answered(provider: LocalProvider) -> None:
    """The document has every kind, names with ids, and the plan line by line."""
    report = await ensure(provider, [Want("r2", "assets")])
    [made] = report.created
    assert report.document() == {
        "ok": True,
        "created": {
            "kv": [],
            "r2": [{"name": "assets", "id": made.id}],
            "workers": [],
            "d1": [],
            "queues": [],
        },
        "skipped": {"kv": [], "r2": [], "workers": [], "d1": [], "queues": []},
        "errors": [],
        "plan": [{"action": "create", "kind": "r2", "name": "assets", "why": "it does not exist"}],
        "dry_run": False,
    }
    assert by_kind([]) == report.document()["skipped"]


async def test_nothing_is_made_when_it_is_unknown_what_exists(
    provider: LocalProvider, table: SqliteTable, tmp_path: Path
) -> None:
    """A store that does not answer, and a folder that cannot be read, stop the run before it begins."""
    (tmp_path / "data/workers").mkdir(parents=True)
    (tmp_path / "data/workers/edge.mjs").symlink_to(tmp_path / "data/workers/edge.mjs")
    with pytest.raises(StoreUnavailable):
        await ensure(provider, EVERYTHING)
    (tmp_path / "data/workers/edge.mjs").unlink()
    await table.close()
    with pytest.raises(StoreUnavailable):
        await ensure(provider, EVERYTHING)
    assert files(tmp_path / "data") == {"workers": None}


async def test_diagnose_says_that_there_is_no_token(provider: LocalProvider) -> None:
    """Locally there is nothing to diagnose, and that is what it says."""
    found = await provider.diagnose()
    assert found["token"] == {"id": None, "status": "none", "kind": "local"}
    assert (found["permissions"], found["missing"]) == ([], [])


class Faulty:
    """A provider that has nothing and fails at one name in a way nobody foresaw."""

    name = "faulty"

    def __init__(self) -> None:
        self.made: list[str] = []

    async def inventory(self) -> list[Resource]:
        return []

    async def create(self, want: Want) -> Resource:
        if want.name == "bug":
            raise KeyError("bug")
        await asyncio.sleep(0)
        self.made.append(want.name)
        return Resource(want.kind, want.name, want.name)

    async def diagnose(self) -> Mapping[str, Any]:
        return {}


async def test_a_bug_of_a_provider_is_no_report() -> None:
    """An error that is none of ours is raised, after everything else was given its chance."""
    faulty = Faulty()
    with pytest.raises(KeyError):
        await ensure(faulty, [Want("kv", "bug"), Want("kv", "fine")])
    assert faulty.made == ["fine"]
