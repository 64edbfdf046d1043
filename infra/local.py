"""The provider of an installation without Cloudflare: folders, files and rows stand in for its storage.

kv       a row of the table             r2       a folder of the data folder, by jurisdiction
queues   a row of the table             workers  a source file, with its settings in the first line
                                        d1       an SQLite file
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from infra.clock import Clock, NewId, rfc3339
from infra.provider import (
    Bound,
    Diagnosis,
    Inventory,
    ProviderFailed,
    Resource,
    Unread,
    Want,
    digest_of,
    unread,
)
from infra.table import Table
from router.errors import AutopilotError, Stale, StoreUnavailable
from router.model import Worker

_ROWS = "local-storage"
_MARK = b"// autopilot-router "


class LocalProvider:
    """Storage under `root`, and in rows of `table`. Bucket folders are those `FolderBlobs` writes to."""

    name = "local"

    def __init__(self, table: Table, root: Path, clock: Clock, new_id: NewId) -> None:
        self._table = table
        self._root = root
        self._clock = clock
        self._new_id = new_id
        self._place = ""

    @property
    def place(self) -> str:
        """Which folder this is, by an id kept in it: a new one at the same path is another place."""
        if not self._place:
            mark = self._root / ".place"
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                if not mark.exists():
                    with suppress(FileExistsError):  # another process was faster
                        self._write(mark, self._new_id("place").encode(), new=True)
                self._place = f"local:{mark.read_text()}"
            except OSError as error:
                raise StoreUnavailable(f"cannot write {mark}: {error.strerror}") from error
        return self._place

    async def inventory(self) -> Inventory:
        """See `Provider.inventory`."""
        found: list[Resource] = []
        lost: dict[str, Unread] = {}
        try:
            found += await self._rows()
        except AutopilotError as error:
            lost.update(dict.fromkeys(("kv", "queues"), unread(error)))
        for kind in ("r2", "workers", "d1"):
            try:
                found += await asyncio.to_thread(self._files, kind)
            except OSError as error:
                message = f"cannot list {error.filename}: {error.strerror}"
                lost[kind] = Unread("store_unavailable", message, "Give the router this folder back.")
        return Inventory(found, lost)

    async def find(self, want: Want, id: str = "") -> Resource | None:  # noqa: A002  as in the port
        """See `Provider.find`."""
        if want.kind in {"kv", "queues"}:
            row = await self._table.get((_ROWS, "/".join(want.key)))
            return Resource(*want.key, _id(want.kind, want.name)) if row else None
        try:
            return await asyncio.to_thread(self._file, want.kind, self._path(want))
        except OSError as error:
            raise _failed("look at", want, error) from error

    async def create(self, want: Want, bound: Bound) -> Resource:
        """See `Provider.create`."""
        try:
            if want.kind in {"kv", "queues"}:
                document = {"created_at": rfc3339(self._clock())}
                await self._table.put((_ROWS, "/".join(want.key)), document, if_revision=0)
            else:
                await asyncio.to_thread(self._make, want, bound)
        except (Stale, FileExistsError) as error:
            if isinstance(error, OSError) and await self.find(want) is None:
                raise _failed("create", want, error) from error  # something else is in its place
            raise ProviderFailed(f"{want.kind} {want.name} exists", word="exists", done=True) from None
        except (OSError, sqlite3.Error) as error:
            raise _failed("create", want, error) from error
        return self._made(want, bound)

    async def update(self, want: Want, bound: Bound) -> Resource:
        """See `Provider.update`."""
        try:
            await asyncio.to_thread(self._write, self._path(want), _source(want, bound), new=False)
        except OSError as error:
            raise _failed("update", want, error) from error
        return self._made(want, bound)

    async def diagnose(self, found: Inventory, *, probe_writes: bool) -> Diagnosis:
        """Say that there is no token to diagnose."""
        return Diagnosis(
            {"id": None, "status": "none", "kind": "local"},
            note="folders and rows on this machine stand in for Cloudflare",
        )

    async def _rows(self) -> list[Resource]:
        rows: list[list[str]] = []
        after = None
        while True:
            page = await self._table.range(_ROWS, after=after, limit=500)
            rows += [item.key[1].split("/", 1) for item in page.items]
            after = page.after
            if after is None:
                return [Resource(kind, name, _id(kind, name)) for kind, name in rows]

    def _path(self, want: Want) -> Path:
        if want.kind == "r2":
            return self._root / ".".join(filter(None, ("r2", want.jurisdiction))) / want.name
        return self._root / want.kind / f"{want.name}{'.mjs' if want.kind == 'workers' else '.sqlite3'}"

    def _files(self, kind: str) -> list[Resource]:
        folders = [self._root / kind, *(sorted(self._root.glob("r2.*")) if kind == "r2" else ())]
        paths = (path for folder in folders for path in _visible(folder))
        return [found for path in paths if (found := self._file(kind, path)) is not None]

    def _file(self, kind: str, path: Path) -> Resource | None:
        """Return what a file or folder stands for, None for nothing."""
        if kind == "r2":
            jurisdiction = path.parent.name.partition(".")[2]
            return Resource(kind, path.name, path.name, "", jurisdiction) if path.is_dir() else None
        if path.suffix != (".mjs" if kind == "workers" else ".sqlite3") or path.is_dir():
            return None
        if not path.exists() and not path.is_symlink():
            return None
        if kind == "d1":
            return Resource(kind, path.stem, _id(kind, path.stem))
        digest = _mark_of(path.read_bytes())
        return Resource(kind, path.stem, path.stem, digest, ours=bool(digest))

    def _make(self, want: Want, bound: Bound) -> None:
        path = self._path(want)
        path.parent.mkdir(parents=True, exist_ok=True)
        if want.kind == "r2":
            path.mkdir()
        elif want.kind == "workers":
            self._write(path, _source(want, bound), new=True)
        else:
            path.touch(exist_ok=False)
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA user_version = 1")
                database.commit()

    def _write(self, path: Path, content: bytes, *, new: bool) -> None:
        """Write a file whole or not at all. Raises `FileExistsError` for one that has to be `new`."""
        passing = path.with_name(f".{self._new_id('new')}")
        passing.write_bytes(content)
        try:
            if new:
                path.hardlink_to(passing)
            else:
                passing.replace(path)
        finally:
            passing.unlink(missing_ok=True)

    def _made(self, want: Want, bound: Bound) -> Resource:
        if want.kind == "workers":
            return Resource(*want.key, want.name, digest_of(want, bound), ours=True)
        given = want.name if want.kind == "r2" else _id(want.kind, want.name)
        return Resource(*want.key, given, "", want.jurisdiction)


def _visible(folder: Path) -> Iterator[Path]:
    """Give what is in a folder, but for files on their way to their name: no storage starts with a dot."""
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _source(want: Want, bound: Bound) -> bytes:
    """Return the file of a Worker: its settings with our mark, then its source as it is."""
    assert isinstance(want.spec, Worker)
    content = want.spec.content.encode()
    mark = {
        "digest": digest_of(want, bound),
        "sha256": hashlib.sha256(content).hexdigest(),
        "compatibility_date": want.spec.compatibility_date,
        "bindings": {
            name: [*one.target, bound[one.target].id] for name, one in sorted(want.spec.bindings.items())
        },
        "workers_dev": want.spec.workers_dev,
        "crons": want.spec.crons,
    }
    return _MARK + msgspec.json.encode(mark) + b"\n" + content


def _mark_of(file: bytes) -> str:
    """Return the digest a Worker was written with; empty when it was not written by us, or changed since."""
    mark, _, content = file.partition(b"\n")
    if not mark.startswith(_MARK):
        return ""
    try:
        told = msgspec.json.decode(mark.removeprefix(_MARK), type=dict[str, object])
    except msgspec.DecodeError:
        return ""
    return str(told.get("digest", "")) if told.get("sha256") == hashlib.sha256(content).hexdigest() else ""


def _failed(verb: str, want: Want, error: Exception) -> ProviderFailed:
    return ProviderFailed(
        f"cannot {verb} {want.kind} {want.name}: {error}",
        word="store_unavailable",
        hint="Something is in the way in the data folder, or it cannot be written.",
    )


def _id(kind: str, name: str) -> str:
    """Return an id that is as stable and opaque as Cloudflare's."""
    return hashlib.sha256(f"{kind}/{name}".encode()).hexdigest()[:32]
