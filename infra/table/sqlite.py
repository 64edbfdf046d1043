"""`Table` in one SQLite file. Several processes may share it; features up to SQLite 3.40 only."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from infra.clock import Clock
from infra.table import (
    Check,
    Delete,
    Document,
    Item,
    Key,
    Page,
    Put,
    Write,
    check_key,
    check_range,
    check_writes,
)
from router.errors import Stale, StoreUnavailable

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    partition TEXT NOT NULL,
    sort TEXT NOT NULL,
    document BLOB NOT NULL,
    revision INTEGER NOT NULL,
    expires_at REAL,
    PRIMARY KEY (partition, sort)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_expiry ON item (expires_at) WHERE expires_at IS NOT NULL;
"""

_UPSERT = """
INSERT INTO item (partition, sort, document, revision, expires_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (partition, sort) DO UPDATE
SET document = excluded.document, revision = excluded.revision, expires_at = excluded.expires_at
"""

_LIVE = """
SELECT sort, document, revision, expires_at FROM item
WHERE partition = ? AND (expires_at IS NULL OR expires_at > ?)
"""
_PAGES = {
    (False, False): "ORDER BY sort LIMIT ?",
    (False, True): "AND sort > ? ORDER BY sort LIMIT ?",
    (True, False): "ORDER BY sort DESC LIMIT ?",
    (True, True): "AND sort < ? ORDER BY sort DESC LIMIT ?",
}
"""The rest of the query for a page, by whether it goes backwards and whether it follows another."""

_SWEEP_EVERY = 500
"""Writes between two deletions of expired rows."""

_OPENINGS, _OPENING_WAIT = 40, 0.05
"""Tries to open a file that another process is just making, and seconds between them."""


class SqliteTable:
    """A table in the file `path`, which is made when missing.

    One thread of its own does all the work, so the event loop never waits for the disk, and writes of this
    process queue instead of colliding. WAL with synchronous NORMAL: a killed process loses nothing it was
    told is written; a power cut may lose the last moments, but never corrupts.
    """

    kind = "sqlite"

    def __init__(self, path: Path | str, clock: Clock) -> None:
        self._clock = clock
        self._writes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="table")
        try:
            self._db = self._thread.submit(_open, Path(path)).result()
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            raise StoreUnavailable(f"cannot open {path}: {error}") from error

    async def get(self, key: Key) -> Item | None:
        """See `Table.get`."""
        check_key(key)
        return await self._do(lambda: self._read(key))

    async def put(
        self,
        key: Key,
        document: Document,
        *,
        if_revision: int | None = None,
        expires_at: float | None = None,
    ) -> int:
        """See `Table.put`."""
        [revision] = await self.transact([Put(key, document, if_revision, expires_at)])
        return revision

    async def delete(self, key: Key, *, if_revision: int | None = None) -> bool:
        """See `Table.delete`."""
        check_key(key)

        def work() -> bool:
            with self._transaction():
                was = self._revision(key)
                self._apply(Delete(key, if_revision), b"")
                return was > 0

        return await self._do(work)

    async def range(
        self, partition: str, *, after: str | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        """See `Table.range`."""
        check_range(partition, after, limit)
        query = _LIVE + _PAGES[reverse, after is not None]
        values = [partition, self._clock(), *([] if after is None else [after]), limit + 1]

        def work() -> Page:
            rows = self._db.execute(query, values).fetchall()
            items = [
                Item((partition, sort), msgspec.json.decode(document), revision, expires_at)
                for sort, document, revision, expires_at in rows[:limit]
            ]
            return Page(items, items[-1].key[1] if len(rows) > limit else None)

        return await self._do(work)

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        """See `Table.transact`."""
        bodies = check_writes(writes)

        def work() -> list[int]:
            with self._transaction():
                return [self._apply(write, body) for write, body in zip(writes, bodies, strict=True)]

        return await self._do(work)

    async def close(self) -> None:
        """See `Table.close`. Closing twice is fine."""
        with suppress(StoreUnavailable):
            await self._do(self._db.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            result = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:
            raise StoreUnavailable("the table is closed") from error
        try:
            return await result
        except sqlite3.Error as error:
            raise StoreUnavailable(f"SQLite: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sweep()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _sweep(self) -> None:
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._db.execute("DELETE FROM item WHERE expires_at <= ?", (self._clock(),))

    def _read(self, key: Key) -> Item | None:
        row = self._db.execute(
            "SELECT document, revision, expires_at FROM item WHERE partition = ? AND sort = ? "
            "AND (expires_at IS NULL OR expires_at > ?)",
            (*key, self._clock()),
        ).fetchone()
        return Item(key, msgspec.json.decode(row[0]), row[1], row[2]) if row else None

    def _revision(self, key: Key) -> int:
        row = self._db.execute(
            "SELECT revision FROM item WHERE partition = ? AND sort = ? "
            "AND (expires_at IS NULL OR expires_at > ?)",
            (*key, self._clock()),
        ).fetchone()
        return int(row[0]) if row else 0

    def _apply(self, write: Write, body: bytes) -> int:
        revision = self._revision(write.key)
        if write.if_revision is not None and write.if_revision != revision:
            raise Stale(f"{'/'.join(write.key)} is at revision {revision}, not {write.if_revision}")
        if isinstance(write, Put):
            self._db.execute(_UPSERT, (*write.key, body, revision + 1, write.expires_at))
            return revision + 1
        if isinstance(write, Delete):
            self._db.execute("DELETE FROM item WHERE partition = ? AND sort = ?", write.key)
        else:
            assert isinstance(write, Check)
        return 0


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_OPENINGS - 1):
        try:
            return _connect(path)
        except sqlite3.OperationalError as error:
            # When several make the same file, SQLite refuses one of them on the spot, whatever the timeout.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the rest of the code says which BUSY
                raise
            time.sleep(_OPENING_WAIT)
    return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
