"""What is kept of each page: its record, its versions, and the bytes of each version.

Keys in the table:

    ("page", SLUG)                  the record: which version is the newest, which is live
    ("page-version/SLUG", NUMBER)   one version; `ready` once its bytes are stored
    ("page-id", PAGE_ID)            the slug of a page
    ("page-receipt", HASH)          what a delivery with that idempotency key came to

A version number is taken first, with a write that only one deploy can win; then its bytes are written under
a name nobody else has; then one transaction makes it known. So simultaneous deploys never share a number or
overwrite each other's bytes, and one that dies half-way leaves a number unused, nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from autopilots.kit import Call, Parts
from infra.blobs import Blob
from infra.table import Put, Table
from router.errors import Conflict, Stale, StoreUnavailable

T = TypeVar("T")

BUCKET = "autopilot-pages"
ATTEMPTS = 200
"""Tries of one change against others of the same page. In each round at least one of them succeeds."""
RECEIPT_SECONDS = 7 * 86_400


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a page. Version number 0 stands for none."""

    slug: str
    page_id: str
    newest: int = 0
    newest_sha256: str = ""
    live: int = 0
    live_sha256: str = ""
    published_at: str = ""
    archived: int = 0
    """The newest version when the page was taken down; 0 while it is not."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version as it was deployed. `token` opens its preview; `bytes` is the size of the HTML."""

    number: int
    sha256: str
    bytes: int
    status: str
    deployed_at: str
    token: str
    ready: bool = False

    @property
    def is_draft(self) -> bool:
        """Return whether it was deployed to be looked at, not to be published."""
        return self.status == "draft"


def page_key(slug: str) -> tuple[str, str]:
    """Return the key of a page's record."""
    return ("page", slug)


def version_key(slug: str, number: int) -> tuple[str, str]:
    """Return the key of a version; numbers sort as text."""
    return (f"page-version/{slug}", f"{number:08d}")


def blob_key(slug: str, number: int) -> str:
    """Return where the bytes of a version are. A slug has no dots, so this is never another page's."""
    return f"{slug}/versions/{number}.html"


async def page_of(table: Table, slug: str) -> tuple[Page | None, int]:
    """Return the record of a page with its revision; None and 0 when there is none."""
    item = await table.get(page_key(slug))
    return (msgspec.convert(item.document, Page), item.revision) if item else (None, 0)


async def slug_of(table: Table, page_id: str) -> str | None:
    """Return the slug of the page with that id."""
    item = await table.get(("page-id", page_id))
    return str(item.document["slug"]) if item else None


async def version_of(table: Table, slug: str, number: int) -> Version | None:
    """Return a version whose bytes are stored, or None."""
    item = await table.get(version_key(slug, number))
    version = msgspec.convert(item.document, Version) if item else None
    return version if version and version.ready else None


async def reserve(table: Table, slug: str, version: Version) -> Version:
    """Return `version` with a number that is its alone. Raises `StoreUnavailable`."""
    page = await table.range(version_key(slug, 0)[0], limit=1, reverse=True)
    last = int(page.items[0].key[1]) if page.items else 0
    for number in range(last + 1, last + 1 + ATTEMPTS):
        taken = msgspec.structs.replace(version, number=number)
        try:
            await table.put(version_key(slug, number), msgspec.to_builtins(taken), if_revision=0)
        except Stale:
            continue
        return taken
    raise StoreUnavailable(f"too many simultaneous deploys of {slug}")


async def write_bytes(parts: Parts, page: str, number: int, data: bytes) -> None:
    """Store the bytes of a reserved version."""
    blob = Blob(data, "text/html; charset=utf-8", {"slug": page, "version": str(number)})
    await parts.blobs.put(BUCKET, blob_key(page, number), blob)


async def discard(parts: Parts, slug: str, number: int) -> None:
    """Undo a reservation that came to nothing.

    The bytes go first: once the number is free another deploy may take it and write there.
    """
    await parts.blobs.delete(BUCKET, blob_key(slug, number))
    await parts.table.delete(version_key(slug, number))


async def settle(change: Callable[[], Awaitable[T]]) -> T:
    """Return what `change` returns, read and done afresh as often as somebody else was faster."""
    for _ in range(ATTEMPTS):
        try:
            return await change()
        except Stale:
            await asyncio.sleep(0)
    raise StoreUnavailable("too many simultaneous changes of this page")


def _receipt_key(call: Call[Parts]) -> tuple[str, str]:
    name = f"{call.capability}\n{call.idempotency_key}"
    return ("page-receipt", hashlib.sha256(name.encode()).hexdigest())


async def earlier(call: Call[Parts], request: str) -> dict[str, Any] | None:
    """Return what an earlier delivery of the same call came to, or None.

    Without this a late second delivery would put its old content over what was deployed since. Raises
    `Conflict` when the key came with another request.
    """
    item = await call.parts.table.get(_receipt_key(call)) if call.idempotency_key else None
    if item is None:
        return None
    if item.document["request"] != request:
        raise Conflict("this idempotency key was used for something else")
    result: dict[str, Any] = item.document["result"]
    return result


def receipt(call: Call[Parts], request: str, result: dict[str, Any]) -> list[Put]:
    """Return the write that remembers `result`; none for a call without an idempotency key."""
    if not call.idempotency_key:
        return []
    expires = call.parts.clock() + RECEIPT_SECONDS
    return [Put(_receipt_key(call), {"request": request, "result": result}, 0, expires)]
