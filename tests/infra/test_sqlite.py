"""What only the SQLite file has: several processes, sudden death, and files that cannot be opened.

What it shares with DynamoDB is in `tests/contract/test_table*.py`. Run as a program, this file is one of
the processes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from infra.table import Put
from infra.table.sqlite import SqliteTable
from router.errors import Stale, StoreUnavailable
from tests.fakes import FakeClock

ROOT = Path(__file__).parents[2]
KEY = ("count", "one")


async def increment(path: str, times: int) -> None:
    """Raise the counter, each time by a read and a conditional put."""
    table = SqliteTable(path, FakeClock())
    for _ in range(times):
        while True:
            item = await table.get(KEY)
            count = item.document["count"] if item else 0
            try:
                await table.put(KEY, {"count": count + 1}, if_revision=item.revision if item else 0)
            except Stale:
                continue
            break
    await table.close()


async def write_until_killed(path: str, first: int) -> None:
    """Write numbered pairs without end, telling each number once it is written."""
    table = SqliteTable(path, FakeClock())
    number = first
    while True:
        pair = [Put((side, f"{number:06}"), {"text": "x" * 500}) for side in ("left", "right")]
        await table.transact(pair)
        print(number, flush=True)  # noqa: T201
        number += 1


def process(verb: str, path: Path, number: int) -> subprocess.Popen[str]:
    """Start this file as a process of its own."""
    command = [sys.executable, "-m", "tests.infra.test_sqlite", verb, str(path), str(number)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def integrity(path: Path) -> str:
    """Return what SQLite says of the file."""
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])


async def test_two_processes(tmp_path: Path, clock: FakeClock) -> None:
    """Two processes that raise one counter in the same file 400 times each lose nothing."""
    path = tmp_path / "table.db"
    both = [process("increment", path, 400) for _ in range(2)]
    assert [each.wait(30) for each in both] == [0, 0]
    for each in both:
        each.communicate()
    table = SqliteTable(path, clock)
    item = await table.get(KEY)
    assert item is not None
    assert (item.document["count"], item.revision) == (800, 800)
    await table.close()


async def test_killed_writer(tmp_path: Path, clock: FakeClock) -> None:
    """A writer killed in the act, twice, loses nothing it acknowledged, leaves no half, and a sound file."""
    path, first = tmp_path / "table.db", 0
    for _ in range(2):
        writer = process("write", path, first)
        assert writer.stdout is not None
        for _ in range(100):
            assert writer.stdout.readline()
        writer.kill()
        rest = writer.communicate(timeout=30)[0].splitlines()
        acknowledged = int(rest[-1]) if rest else first + 99
        assert integrity(path) == "ok"
        table = SqliteTable(path, clock)
        left, right = [
            {item.key[1] for item in (await table.range(side, limit=100_000)).items}
            for side in ("left", "right")
        ]
        await table.close()
        assert left >= {f"{number:06}" for number in range(acknowledged + 1)}
        assert left == right
        first = len(left)


def test_made_by_many_at_once(tmp_path: Path, clock: FakeClock) -> None:
    """Of those who open the same new file in the same moment none is turned away, in forty tries."""
    gate = threading.Barrier(4)

    def opened(number: int) -> SqliteTable:
        gate.wait()
        return SqliteTable(tmp_path / f"{number}.db", clock)

    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            for table in list(pool.map(opened, [number] * 4)):
                asyncio.run(table.close())


async def test_outlives_the_process(tmp_path: Path, clock: FakeClock) -> None:
    """A table that was closed is as it was when the file is opened again, its folder made if need be."""
    path = tmp_path / "new" / "folder" / "table.db"
    table = SqliteTable(path, clock)
    await table.put(KEY, {"count": 3})
    await table.close()
    again = SqliteTable(path, clock)
    assert await again.put(KEY, {"count": 4}, if_revision=1) == 2
    await again.close()


async def test_expired_rows_are_deleted(tmp_path: Path, clock: FakeClock) -> None:
    """Rows that expired do not stay in the file for ever: some writes later they are gone."""
    path = tmp_path / "table.db"
    table = SqliteTable(path, clock)
    for number in range(20):
        await table.put(("short", str(number)), {}, expires_at=clock() + 1)
    clock.forward(1)
    for _ in range(500):
        await table.put(KEY, {})
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM item").fetchone() == (1,)
    await table.close()


class TestUnavailable:
    """Files that cannot be used."""

    def test_no_folder(self, tmp_path: Path, clock: FakeClock) -> None:
        """A path below a file cannot be opened."""
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreUnavailable, match="cannot open"):
            SqliteTable(tmp_path / "file" / "table.db", clock)

    def test_a_folder(self, tmp_path: Path, clock: FakeClock) -> None:
        """A folder cannot be opened as a table."""
        with pytest.raises(StoreUnavailable, match="cannot open"):
            SqliteTable(tmp_path, clock)

    def test_something_else(self, tmp_path: Path, clock: FakeClock) -> None:
        """A file that is no database is refused and left as it is."""
        path = tmp_path / "table.db"
        path.write_bytes(b"something else entirely, " * 100)
        with pytest.raises(StoreUnavailable, match="cannot open"):
            SqliteTable(path, clock)
        assert path.read_bytes() == b"something else entirely, " * 100

    async def test_read_only(self, table: SqliteTable, clock: FakeClock) -> None:
        """A file that may only be read is still read, and a write is refused whole."""
        await table.put(KEY, {"count": 1})
        await read_only(table)
        with pytest.raises(StoreUnavailable, match="readonly"):
            await table.put(KEY, {"count": 2})
        item = await table.get(KEY)
        assert item is not None
        assert item.document == {"count": 1}

    async def test_full(self, table: SqliteTable) -> None:
        """A disk that is full refuses the whole transaction and keeps what was there; later writes work."""
        await table.put(KEY, {"count": 1})
        await limit_pages(table, 10)
        big = {"text": "x" * 300_000}
        with pytest.raises(StoreUnavailable, match="full"):
            await table.transact([Put(KEY, {"count": 2}), Put(("big", "one"), big)])
        item = await table.get(KEY)
        assert item is not None
        assert (item.document, item.revision) == ({"count": 1}, 1)
        await limit_pages(table, 1_000_000)
        assert await table.transact([Put(KEY, {"count": 2}), Put(("big", "one"), big)]) == [2, 1]


async def read_only(table: SqliteTable) -> None:
    """Make SQLite refuse writes, as it does for a file on a disk mounted read-only."""
    await table._do(lambda: table._db.execute("PRAGMA query_only = 1"))


async def limit_pages(table: SqliteTable, pages: int) -> None:
    """Let the file grow to this many pages only: SQLite then fails as on a full disk."""
    await table._do(lambda: table._db.execute(f"PRAGMA max_page_count = {pages}").fetchone())


if __name__ == "__main__":
    VERBS = {"increment": increment, "write": write_until_killed}
    asyncio.run(VERBS[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
