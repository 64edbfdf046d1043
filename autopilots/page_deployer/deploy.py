"""Deploying, publishing and archiving: each is one transaction on the page's record."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlencode

import msgspec

from autopilots.kit import Call, Parts
from autopilots.page_deployer import store
from autopilots.page_deployer.store import Page, Version
from infra.clock import rfc3339
from infra.table import Check, Put, Write
from router.errors import Conflict, NotFound

Result = dict[str, Any]


def url_of(parts: Parts, slug: str, version: Version | None = None) -> str:
    """Return the public address of a page, or the preview address of one version."""
    url = f"{parts.public_url}/pages/{slug}"
    if version is None:
        return url
    return f"{url}?{urlencode({'version': version.number, 'preview': version.token})}"


async def deploy(call: Call[Parts], *, slug: str, page_id: str | None, html: str, draft: bool) -> Result:
    """Store `html` as a new version of a page and, unless it is a draft, make it live.

    Returns `pageId, slug, url, version, status, deployedAt, sha256, bytes, unchanged`. The same content as
    the newest version makes no new one. Raises `Conflict` when slug or id belong to another page.
    """
    parts = call.parts
    data = html.encode()
    status = "draft" if draft else "published"
    wanted = Version(
        number=0,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        status=status,
        deployed_at=rfc3339(parts.clock()),
        token=parts.new_id("preview"),
    )

    async def look() -> Result | None:
        page, revision = await store.page_of(parts.table, slug)
        return await _unchanged(call, slug, page_id, page, revision, wanted)

    known = await store.settle(look)
    if known:
        return known
    version = await store.reserve(parts.table, slug, wanted)
    await store.write_bytes(parts, slug, version.number, data)
    fresh_id = page_id or parts.new_id("page")
    try:
        result, kept = await store.settle(lambda: _commit(call, slug, page_id, fresh_id, version))
    except Conflict:
        await store.discard(parts, slug, version.number)
        raise
    if not kept:
        await store.discard(parts, slug, version.number)
    return result


async def _unchanged(
    call: Call[Parts], slug: str, page_id: str | None, page: Page | None, revision: int, wanted: Version
) -> Result | None:
    """Return the result when nothing has to be stored: a repeated delivery, or content that is there.

    The record comes from the caller, whose later write depends on the very state that was judged here.
    """
    parts = call.parts
    request = _request(slug, page_id, wanted)
    done = await store.earlier(call, request)
    if done:
        return done
    await _check_owner(parts, slug, page, page_id)
    # While a page is archived its old previews are down, so a draft of the same content is a new version.
    if page is None or page.newest_sha256 != wanted.sha256 or (page.archived and wanted.is_draft):
        return None
    version = await store.version_of(parts.table, slug, page.newest)
    assert version is not None, "the record names only versions that are ready"
    after = page if wanted.is_draft else _live(page, version, parts)
    result = _result(parts, after, version, unchanged=True)
    await _save(call, (page, after), revision, request, result)
    return result


async def _commit(
    call: Call[Parts], slug: str, page_id: str | None, fresh_id: str, version: Version
) -> tuple[Result, bool]:
    """Make a stored version known. Returns the result and whether the version is in use."""
    parts = call.parts
    page, revision = await store.page_of(parts.table, slug)
    known = await _unchanged(call, slug, page_id, page, revision, version)
    if known:
        # A store may do a write, lose the answer, try again and find its own write in the way.
        return known, known["version"] == version.number
    after = page or Page(slug=slug, page_id=fresh_id)
    if version.number > after.newest:
        after = msgspec.structs.replace(after, newest=version.number, newest_sha256=version.sha256)
    if not version.is_draft and (version.number > after.live or after.archived):
        after = _live(after, version, parts)
    result = _result(parts, after, version, unchanged=False)
    ready = msgspec.structs.replace(version, ready=True)
    writes: list[Write] = [
        Put(store.page_key(slug), msgspec.to_builtins(after), if_revision=revision),
        Put(store.version_key(slug, version.number), msgspec.to_builtins(ready), if_revision=1),
        *store.receipt(call, _request(slug, page_id, version), result),
    ]
    if page is None:
        writes.append(Put(("page-id", after.page_id), {"slug": slug}, if_revision=0))
    await parts.table.transact(writes)
    return result, True


async def publish(call: Call[Parts], *, slug: str | None, page_id: str | None, number: int | None) -> Result:
    """Make a version live; without a number the newest one.

    Returns `pageId, slug, url, version, previousVersion, publishedAt, unchanged`; `previousVersion` is what
    was live before, None for nothing. Raises `NotFound` for an unknown page or version.
    """

    request = f"{slug} {page_id} {number}"

    async def change() -> Result:
        done = await store.earlier(call, request)
        if done:
            return done
        page, revision = await _find(call.parts, slug, page_id)
        version = await store.version_of(call.parts.table, page.slug, number or page.newest)
        if version is None:
            raise NotFound(f"page {page.slug} has no version {number}")
        after = _live(page, version, call.parts)
        result = {
            "pageId": page.page_id,
            "slug": page.slug,
            "url": url_of(call.parts, page.slug),
            "version": version.number,
            "previousVersion": page.live or None,
            "publishedAt": after.published_at,
            "unchanged": after == page,
        }
        await _save(call, (page, after), revision, request, result)
        return result

    return await store.settle(change)


async def archive(call: Call[Parts], *, slug: str | None, page_id: str | None) -> Result:
    """Take a page and the previews of its versions down until something is published again.

    Returns `pageId, slug, url, status, previousVersion, unchanged`. Raises `NotFound`.
    """

    request = f"{slug} {page_id}"

    async def change() -> Result:
        done = await store.earlier(call, request)
        if done:
            return done
        page, revision = await _find(call.parts, slug, page_id)
        after = msgspec.structs.replace(page, archived=page.archived or page.newest)
        result = {
            "pageId": page.page_id,
            "slug": page.slug,
            "url": url_of(call.parts, page.slug),
            "status": "archived",
            "previousVersion": page.live or None,
            "unchanged": after == page,
        }
        await _save(call, (page, after), revision, request, result)
        return result

    return await store.settle(change)


async def _save(
    call: Call[Parts], change: tuple[Page, Page], revision: int, request: str, result: Result
) -> None:
    """Write a record, if it changed from the first to the second, together with the receipt."""
    before, after = change
    key = store.page_key(after.slug)
    write: Write = Check(key, revision)
    if after != before:
        write = Put(key, msgspec.to_builtins(after), if_revision=revision)
    await call.parts.table.transact([write, *store.receipt(call, request, result)])


async def _find(parts: Parts, slug: str | None, page_id: str | None) -> tuple[Page, int]:
    found = slug or await store.slug_of(parts.table, page_id or "")
    page, revision = await store.page_of(parts.table, found) if found else (None, 0)
    if page is None:
        raise NotFound(f"there is no page {slug or page_id}")
    if page_id and page.page_id != page_id:
        raise Conflict(f"page {page.slug} has the id {page.page_id}, not {page_id}")
    return page, revision


async def _check_owner(parts: Parts, slug: str, page: Page | None, page_id: str | None) -> None:
    if page_id is None:
        return
    if page and page.page_id != page_id:
        raise Conflict(f"the slug {slug} belongs to page {page.page_id}, not {page_id}")
    elsewhere = await store.slug_of(parts.table, page_id)
    if elsewhere and elsewhere != slug:
        raise Conflict(f"page {page_id} is deployed at {elsewhere}, not {slug}")


def _live(page: Page, version: Version, parts: Parts) -> Page:
    """Return the record with that version live; the very same record when it is live already."""
    if page.live == version.number and not page.archived:
        return page
    return msgspec.structs.replace(
        page,
        live=version.number,
        live_sha256=version.sha256,
        published_at=rfc3339(parts.clock()),
        archived=0,
    )


def _result(parts: Parts, page: Page, version: Version, *, unchanged: bool) -> Result:
    # A version that a simultaneous deploy overtook was published, too: its address is the page's.
    preview = page.live < version.number or (version.is_draft and page.live != version.number)
    return {
        "pageId": page.page_id,
        "slug": page.slug,
        "url": url_of(parts, page.slug, version if preview else None),
        "version": version.number,
        "status": "draft" if preview else "published",
        "deployedAt": version.deployed_at,
        "sha256": version.sha256,
        "bytes": version.bytes,
        "unchanged": unchanged,
    }


def _request(slug: str, page_id: str | None, wanted: Version) -> str:
    return f"{slug} {page_id} {wanted.sha256} {wanted.status}"
