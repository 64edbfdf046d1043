"""The provider of an installation without Cloudflare: folders, files and rows stand in for its storage.

kv       a row of the table             r2       a folder of the data folder
queues   a row of the table             workers  a source file
                                        d1       an SQLite file
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from infra.clock import Clock, rfc3339
from infra.former import Resource, Want, digest_of
from infra.table import Table
from router.errors import Stale, StoreUnavailable

_ROWS = "local-storage"
_SUFFIX = {"r2": "", "workers": ".mjs", "d1": ".sqlite3"}


class LocalProvider:
    """Storage under `root`, and in rows of `table`. Bucket folders are those `FolderBlobs` writes to."""

    name = "local"

    def __init__(self, table: Table, root: Path, clock: Clock) -> None:
        self._table = table
        self._root = root
        self._clock = clock

    async def inventory(self) -> list[Resource]:
        """See `Provider.inventory`."""
        rows = []
        after = None
        while True:
            page = await self._table.range(_ROWS, after=after, limit=500)
            rows += [item.key[1].split("/", 1) for item in page.items]
            after = page.after
            if after is None:
                break
        found = [Resource(kind, name, _id(kind, name)) for kind, name in rows]
        try:
            return found + await asyncio.to_thread(self._files)
        except OSError as error:
            raise StoreUnavailable(f"cannot list {self._root}: {error.strerror}") from error

    async def create(self, want: Want) -> Resource:
        """See `Provider.create`."""
        if want.kind in _SUFFIX:
            try:
                await asyncio.to_thread(self._make, want)
            except (OSError, sqlite3.Error) as error:
                raise StoreUnavailable(f"cannot create {want.kind} {want.name}: {error}") from error
        else:
            try:
                document = {"created_at": rfc3339(self._clock())}
                await self._table.put((_ROWS, f"{want.kind}/{want.name}"), document, if_revision=0)
            except Stale:
                pass  # somebody made it at the same moment
        digest = digest_of(want.content) if want.kind == "workers" else ""
        return Resource(want.kind, want.name, _id(want.kind, want.name), digest)

    async def diagnose(self) -> Mapping[str, Any]:
        """Say that there is no token to diagnose."""
        return {
            "token": {"id": None, "status": "none", "kind": "local"},
            "permissions": [],
            "missing": [],
            "note": "folders and rows on this machine stand in for Cloudflare",
        }

    def _path(self, kind: str, name: str) -> Path:
        return self._root / kind / f"{name}{_SUFFIX[kind]}"

    def _files(self) -> list[Resource]:
        found = []
        for kind, suffix in _SUFFIX.items():
            folder = self._root / kind
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.name.startswith("."):
                    continue  # files on their way to their name: no storage is called so
                if path.is_dir() == (kind == "r2") and path.name.endswith(suffix):
                    name = path.name.removesuffix(suffix)
                    digest = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "workers" else ""
                    found.append(Resource(kind, name, _id(kind, name), digest))
        return found

    def _make(self, want: Want) -> None:
        path = self._path(want.kind, want.name)
        if want.kind == "r2":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if want.kind == "workers":
            path.write_bytes(want.content.encode())
        else:
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA user_version = 1")
                database.commit()


def _id(kind: str, name: str) -> str:
    """Return an id that is as stable and opaque as Cloudflare's."""
    return hashlib.sha256(f"{kind}/{name}".encode()).hexdigest()[:32]
