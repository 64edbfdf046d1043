"""The page deployer through its own app: what it takes, what it keeps, what it refuses."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from autopilots.kit import Parts
from autopilots.page_deployer import MAX_HTML, pages, pilot, store
from autopilots.page_deployer.document import full_page, is_full
from infra.blobs import Blob
from infra.blobs.folder import FolderBlobs
from infra.table import Write
from infra.table.sqlite import SqliteTable
from router.errors import Stale, StoreUnavailable
from tests.fakes import FakeClock, parts_for

Reply = httpx.Response


class Site:
    """The autopilot with the pages it serves, as one client sees them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._app = pilot.app(parts, pages(parts))

    async def ask(self, method: str, url: str, **more: Any) -> Reply:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://router.test") as client:
            return await client.request(method, url, **more)

    async def do(self, what: str, key: str = "", **meta: Any) -> Reply:
        body = {"task": what, "capability": f"web.pages.{what}", "meta": meta}
        headers = {"idempotency-key": key} if key else {}
        return await self.ask("POST", "/tasks", json=body, headers=headers)

    async def done(self, what: str, key: str = "", **meta: Any) -> dict[str, Any]:
        reply = await self.do(what, key, **meta)
        assert reply.status_code == 200, reply.text
        result: dict[str, Any] = reply.json()
        return result

    async def text(self, url: str) -> str:
        reply = await self.ask("GET", url)
        assert reply.status_code == 200, reply.text
        return reply.text


@pytest.fixture
def site(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Site:
    """Give the autopilot over a real table and folder."""
    return Site(parts_for(table, clock, tmp_path / "blobs"))


def full(text: str) -> str:
    """Give a whole document."""
    return f"<!doctype html><html><body>{text}</body></html>\n"


async def test_a_deployed_page_answers_at_its_url(site: Site) -> None:
    """A full document is live at the returned URL, byte for byte, with the stated size and hash."""
    page = full("Grüße")
    result = await site.done("deploy", slug="launch/home", html=page, pageId="p-1")
    assert result == {
        "pageId": "p-1",
        "slug": "launch/home",
        "url": "http://router.test/pages/launch/home",
        "version": 1,
        "status": "published",
        "deployedAt": "2026-01-01T00:00:00.000Z",
        "sha256": hashlib.sha256(page.encode()).hexdigest(),
        "bytes": len(page.encode()),
        "unchanged": False,
    }
    answer = await site.ask("GET", result["url"])
    assert answer.content == page.encode()


async def test_a_fragment_becomes_a_page(site: Site) -> None:
    """A fragment is wrapped with doctype, language, charset, viewport and an escaped title."""
    result = await site.done("deploy", slug="home", html="<h1>Hi</h1>", title="A <b> & c")
    text = await site.text(result["url"])
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert '<meta charset="utf-8">' in text
    assert '<meta name="viewport"' in text
    assert "<title>A &lt;b&gt; &amp; c</title>" in text
    assert "<h1>Hi</h1>" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!DOCTYPE html><p>x", True),
        ("\ufeff\n <!-- a --> <!-- b --><HTML lang=de>", True),
        ("<!-- never closed <html>", False),
        ("<p>about &lt;html&gt;</p><html>", False),
        ("<!---->" * 5_000 + "<p>", False),
        ("", False),
    ],
)
def test_a_full_document_is_recognised(text: str, *, expected: bool) -> None:
    """A document is whole when nothing but blanks and comments precede its doctype or root."""
    assert is_full(text) is expected


def test_the_title_of_a_fragment_comes_from_its_slug() -> None:
    """Without a title the last word of the slug serves, and a slug of dashes has a fallback."""
    assert "<title>About us</title>" in full_page("x", title="", slug="team/about-us")
    assert "<title>Page</title>" in full_page("x", title="", slug="--")


async def test_each_change_is_a_version(site: Site, clock: FakeClock) -> None:
    """A second deploy is version 2, is live at once, keeps the id, and leaves the first one's bytes."""
    first = await site.done("deploy", slug="home", html=full("one"))
    clock.forward(60)
    second = await site.done("deploy", slug="home", html=full("two"))
    assert (first["version"], second["version"]) == (1, 2)
    assert second["pageId"] == first["pageId"]
    assert second["deployedAt"] == "2026-01-01T00:01:00.000Z"
    assert await site.text("/pages/home") == full("two")
    kept = await site.parts.blobs.get(store.BUCKET, "home/versions/1.html")
    assert kept is not None
    assert kept.data == full("one").encode()


async def test_identical_content_makes_no_version(site: Site, clock: FakeClock) -> None:
    """Deploying the same again says unchanged and tells when the version was first deployed."""
    first = await site.done("deploy", slug="home", html=full("one"))
    clock.forward(5)
    again = await site.done("deploy", slug="home", html=full("one"))
    assert again == {**first, "unchanged": True}
    assert await site.parts.blobs.list(store.BUCKET) == ["home/versions/1.html"]


async def test_twenty_simultaneous_deploys_lose_nothing(site: Site) -> None:
    """Simultaneous deploys of one slug get the versions 1 to 20, each with its own bytes."""
    texts = [full(f"number {n}") for n in range(20)]
    results = await asyncio.gather(*(site.done("deploy", slug="home", html=text) for text in texts))
    assert sorted(result["version"] for result in results) == list(range(1, 21))
    assert len({result["pageId"] for result in results}) == 1
    for text, result in zip(texts, results, strict=True):
        kept = await site.parts.blobs.get(store.BUCKET, f"home/versions/{result['version']}.html")
        assert kept is not None
        assert kept.data == text.encode()
    newest = max(results, key=lambda result: int(result["version"]))
    assert await site.text("/pages/home") == texts[results.index(newest)]


async def test_simultaneous_identical_deploys_make_one_version(site: Site) -> None:
    """Of several deploys of the same content one makes a version; nothing of the others is left."""
    results = await asyncio.gather(*(site.done("deploy", slug="home", html=full("x")) for _ in range(6)))
    assert sum(not result["unchanged"] for result in results) == 1
    assert len({result["version"] for result in results}) == 1
    assert len(await site.parts.blobs.list(store.BUCKET)) == 1


async def test_a_draft_is_seen_with_its_token_only(site: Site) -> None:
    """A draft's preview URL shows it, uncached and unindexed; slug, wrong tokens and versions don't."""
    result = await site.done("deploy", slug="home", html=full("draft"), status="draft")
    assert result["status"] == "draft"
    shown = await site.ask("GET", result["url"])
    assert shown.text == full("draft")
    assert shown.headers["cache-control"] == "no-store"
    assert shown.headers["x-robots-tag"] == "noindex"
    assert "etag" not in shown.headers
    bad = ["", "?preview=", "?version=1&preview=x", "?version=2&preview=x", "?version=%C2%B2&preview=x"]
    assert [(await site.ask("GET", f"/pages/home{query}")).status_code for query in bad] == [404] * 5


async def test_a_draft_over_a_live_page_leaves_it_live(site: Site) -> None:
    """With a draft on top the live version is served until the draft is published."""
    await site.done("deploy", slug="home", html=full("live"))
    draft = await site.done("deploy", slug="home", html=full("next"), status="draft")
    assert await site.text("/pages/home") == full("live")
    assert await site.text(draft["url"]) == full("next")
    result = await site.done("publish", slug="home")
    assert (result["version"], result["previousVersion"], result["unchanged"]) == (2, 1, False)
    assert await site.text("/pages/home") == full("next")


async def test_deploying_a_drafts_content_publishes_that_draft(site: Site) -> None:
    """The draft's own content deployed as published makes the same version live."""
    await site.done("deploy", slug="home", html=full("x"), status="draft")
    result = await site.done("deploy", slug="home", html=full("x"))
    assert (result["version"], result["status"], result["unchanged"]) == (1, "published", True)
    assert result["url"] == "http://router.test/pages/home"
    assert await site.text("/pages/home") == full("x")


async def test_a_published_page_is_not_taken_back_by_a_draft_of_it(site: Site) -> None:
    """Live content deployed as a draft stays live, and the answer says so."""
    live = await site.done("deploy", slug="home", html=full("x"))
    assert await site.done("deploy", slug="home", html=full("x"), status="draft") == {
        **live,
        "unchanged": True,
    }


async def test_publish_rolls_back(site: Site, clock: FakeClock) -> None:
    """An older version can be made live by slug or id, and the newest again."""
    page = await site.done("deploy", slug="home", html=full("one"))
    await site.done("deploy", slug="home", html=full("two"))
    clock.forward(1)
    back = await site.done("publish", pageId=page["pageId"], version=1)
    assert back == {
        "pageId": page["pageId"],
        "slug": "home",
        "url": "http://router.test/pages/home",
        "version": 1,
        "previousVersion": 2,
        "publishedAt": "2026-01-01T00:00:01.000Z",
        "unchanged": False,
    }
    assert await site.text("/pages/home") == full("one")
    draft = await site.done("deploy", slug="home", html=full("two"), status="draft")
    assert draft["status"] == "draft"
    assert await site.text(draft["url"]) == full("two")
    assert (await site.done("publish", slug="home"))["version"] == 2


async def test_publishing_what_is_live_changes_nothing(site: Site, clock: FakeClock) -> None:
    """Publishing the live version again keeps its time of publication."""
    await site.done("deploy", slug="home", html=full("one"))
    clock.forward(10)
    result = await site.done("publish", slug="home")
    assert (result["unchanged"], result["previousVersion"]) == (True, 1)
    assert result["publishedAt"] == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("meta", "status"),
    [
        ({"slug": "nowhere"}, 404),
        ({"pageId": "nobody"}, 404),
        ({"slug": "home", "version": 9}, 404),
        ({"slug": "home", "pageId": "other"}, 409),
        ({}, 422),
        ({"slug": "home", "version": 0}, 422),
    ],
)
async def test_publish_refuses_what_is_not_there(site: Site, meta: dict[str, Any], status: int) -> None:
    """An unknown page or version is 404, a mismatch of slug and id 409, neither of them 422."""
    await site.done("deploy", slug="home", html=full("one"))
    assert (await site.do("publish", **meta)).status_code == status


async def test_a_slug_and_an_id_belong_together(site: Site) -> None:
    """Neither another id on a known slug nor a known id on another slug overwrites anything."""
    await site.done("deploy", slug="home", html=full("one"), pageId="a")
    taken = await site.do("deploy", slug="home", html=full("two"), pageId="b")
    moved = await site.do("deploy", slug="else", html=full("two"), pageId="a")
    assert (taken.status_code, moved.status_code) == (409, 409)
    assert await site.parts.blobs.list(store.BUCKET) == ["home/versions/1.html"]


async def test_one_id_deployed_at_two_slugs_at_once_gets_one(site: Site) -> None:
    """Of two simultaneous deploys of one id at two slugs one is refused and leaves nothing."""
    replies = await asyncio.gather(
        site.do("deploy", slug="left", html=full("x"), pageId="a"),
        site.do("deploy", slug="right", html=full("x"), pageId="a"),
    )
    assert sorted(reply.status_code for reply in replies) == [200, 409]
    assert len(await site.parts.blobs.list(store.BUCKET)) == 1


async def test_a_late_second_delivery_does_not_undo_a_newer_deploy(site: Site) -> None:
    """A repeated delivery answers as the first did and leaves what was deployed since."""
    first = await site.done("deploy", "key-1", slug="home", html=full("one"))
    await site.done("deploy", "key-2", slug="home", html=full("two"))
    assert await site.done("deploy", "key-1", slug="home", html=full("one")) == first
    assert await site.text("/pages/home") == full("two")
    other = await site.do("deploy", "key-1", slug="home", html=full("three"))
    assert other.status_code == 409


async def test_simultaneous_deliveries_of_one_deploy_are_one_deploy(site: Site) -> None:
    """The same call delivered five times at once makes one version and five equal answers."""
    same = [site.done("deploy", "key", slug="home", html=full("x"), status="draft") for _ in range(5)]
    results = await asyncio.gather(*same)
    assert all(result == results[0] for result in results)
    assert len(await site.parts.blobs.list(store.BUCKET)) == 1


async def test_repeated_publish_and_archive_are_done_once(site: Site) -> None:
    """A publish or archive delivered again after later changes changes nothing."""
    await site.done("deploy", slug="home", html=full("one"))
    first = await site.done("archive", "a", slug="home")
    back = await site.done("publish", "p", slug="home")
    assert await site.done("archive", "a", slug="home") == first
    await site.done("deploy", slug="home", html=full("two"))
    assert await site.done("publish", "p", slug="home") == back
    assert await site.text("/pages/home") == full("two")


async def test_an_archived_page_is_gone_until_published(site: Site) -> None:
    """Archiving turns the URL and the previews into 410; publishing brings them back."""
    draft = await site.done("deploy", slug="home", html=full("draft"), status="draft")
    await site.done("publish", slug="home")
    result = await site.done("archive", slug="home")
    assert (result["status"], result["previousVersion"]) == ("archived", 1)
    assert (await site.ask("GET", "/pages/home")).status_code == 410
    assert (await site.ask("GET", draft["url"])).status_code == 410
    assert (await site.done("archive", slug="home"))["unchanged"] is True
    assert (await site.done("publish", slug="home"))["unchanged"] is False
    assert await site.text("/pages/home") == full("draft")
    assert await site.text(draft["url"]) == full("draft")


async def test_a_draft_on_an_archived_page_can_be_looked_at(site: Site) -> None:
    """A draft deployed after the archiving has a working preview, even with the old content."""
    await site.done("deploy", slug="home", html=full("one"))
    await site.done("archive", slug="home")
    draft = await site.done("deploy", slug="home", html=full("one"), status="draft")
    assert draft["version"] == 2
    assert await site.text(draft["url"]) == full("one")
    assert (await site.ask("GET", "/pages/home")).status_code == 410


async def test_deploying_brings_an_archived_page_back(site: Site) -> None:
    """Publishing the same content again makes it live without a new version."""
    await site.done("deploy", slug="home", html=full("one"))
    await site.done("archive", slug="home")
    result = await site.done("deploy", slug="home", html=full("one"))
    assert (result["version"], result["status"]) == (1, "published")
    assert await site.text("/pages/home") == full("one")


async def test_an_archived_draft_tells_nothing_at_its_slug(site: Site) -> None:
    """A page that was never public is 404 at its slug after archiving, too."""
    await site.done("deploy", slug="home", html=full("one"), status="draft")
    await site.done("archive", slug="home")
    assert (await site.ask("GET", "/pages/home")).status_code == 404
    assert (await site.do("archive", slug="nowhere")).status_code == 404


async def test_a_deploy_whose_bytes_cannot_be_stored_shows_nothing(site: Site, tmp_path: Path) -> None:
    """When the bytes are not stored the page stays as it was, and the next deploy works."""

    class Full(FolderBlobs):
        async def put(self, bucket: str, key: str, blob: Blob) -> None:
            raise StoreUnavailable("disk full")

    await site.done("deploy", slug="home", html=full("one"))
    broken = Site(replace(site.parts, blobs=Full(tmp_path)))
    assert (await broken.do("deploy", slug="home", html=full("two"))).status_code == 503
    assert (await site.do("publish", slug="home", version=2)).status_code == 404
    assert await site.text("/pages/home") == full("one")
    assert (await site.done("deploy", slug="home", html=full("two")))["version"] == 3
    assert await site.text("/pages/home") == full("two")


BAD_SLUGS = [
    "",
    "..",
    "a/../b",
    "a//b",
    "/a",
    "a/",
    "A",
    "%2e%2e",
    "a.b",
    "a b",
    "ä",
    "a\\b",
    "x" * 121,
    "a\n",
]


@pytest.mark.parametrize("slug", [slug for slug in BAD_SLUGS if slug != "a\n"])
async def test_a_hostile_slug_is_refused(site: Site, slug: str) -> None:
    """A slug that is no path of plain words is 422 and names the field."""
    reply = await site.do("deploy", slug=slug, html="x")
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == ["meta.slug"]


@pytest.mark.parametrize(
    ("meta", "fields"),
    [
        ({}, ["meta.slug", "meta.html"]),
        ({"slug": "a", "html": ""}, ["meta.html"]),
        ({"slug": "a", "html": " \n"}, ["meta.html"]),
        ({"slug": "a", "html": "x" * (MAX_HTML + 1)}, ["meta.html"]),
        ({"slug": "a", "html": "ä" * (MAX_HTML // 2 + 1)}, ["meta.html"]),
        ({"slug": "a", "html": "x", "status": "live"}, ["meta.status"]),
        ({"slug": "a", "html": "x", "pageId": "../x"}, ["meta.pageId"]),
        ({"slug": "a", "html": "x", "title": "t" * 201, "more": 1}, ["meta.title", "meta.more"]),
    ],
)
async def test_bad_meta_names_its_fields(site: Site, meta: dict[str, Any], fields: list[str]) -> None:
    """Every wrong field of a deploy is listed at once."""
    reply = await site.do("deploy", **meta)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == fields


async def test_the_largest_page_is_taken(site: Site) -> None:
    """A page of exactly the limit is stored and served."""
    text = full("")
    text += "x" * (MAX_HTML - len(text))
    assert (await site.done("deploy", slug="big", html=text))["bytes"] == MAX_HTML
    assert len(await site.text("/pages/big")) == MAX_HTML


def test_the_manifest_tells_a_router_what_it_needs() -> None:
    """The registration has valid schemas, the bucket, the task it brings, and marks the open family."""
    manifest = pilot.manifest("local:page-deployer")
    assert manifest["needs"] == {"r2Buckets": ["autopilot-pages"]}
    assert manifest["tasks"] == {"publish_page": "web.pages.publish"}
    assert {entry["name"]: entry["configure"] for entry in manifest["capabilities"]} == {
        "web.pages.deploy": True,
        "web.pages.publish": True,
    }
    for entry in manifest["capabilities"]:
        jsonschema.Draft202012Validator.check_schema(entry["input_schema"])
        fields = entry["input_schema"]["properties"].items()
        assert [name for name, field in fields if "description" not in str(field)] == []


async def test_archive_is_offered_on_request(site: Site) -> None:
    """The optional capability is enabled through the configure handshake."""
    reply = await site.ask("POST", "/configure", json={"enable": "web.pages.archive"})
    assert reply.json()["capability"]["name"] == "web.pages.archive"


async def test_a_deploy_that_is_told_stale_after_it_was_written_keeps_its_bytes(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """When the store's answer to a successful write is lost, the version it made stays whole."""

    class Forgetful(SqliteTable):
        forgot = False

        async def transact(self, writes: Sequence[Write]) -> list[int]:
            revisions = await super().transact(writes)
            if not self.forgot and len(writes) > 1:
                self.forgot = True
                raise Stale
            return revisions

    forgetful = Forgetful(tmp_path / "forgetful.db", clock)
    site = Site(parts_for(forgetful, clock, tmp_path / "blobs"))
    result = await site.done("deploy", slug="home", html=full("x"))
    assert forgetful.forgot
    assert result["version"] == 1
    assert await site.text("/pages/home") == full("x")
    await forgetful.close()


class Interrupted(SqliteTable):
    """A table where something happens just before a page's record is written."""

    then: Callable[[], Awaitable[object]] | None = None

    async def transact(self, writes: Sequence[Write]) -> list[int]:
        then = self.then
        if then and any(write.key[0] == "page" for write in writes):
            self.then = None
            await then()
        return await super().transact(writes)


@pytest.fixture
async def interrupted(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Interrupted]:
    """Give a table that can be interrupted."""
    opened = Interrupted(tmp_path / "interrupted.db", clock)
    yield opened
    await opened.close()


async def test_an_overtaken_deploy_does_not_hide_the_newer_one(
    interrupted: Interrupted, clock: FakeClock, tmp_path: Path
) -> None:
    """A deploy that is finished after a later one stays an older version."""
    site = Site(parts_for(interrupted, clock, tmp_path / "blobs"))
    await site.done("deploy", slug="home", html=full("one"))
    interrupted.then = lambda: site.done("deploy", slug="home", html=full("three"))
    slow = await site.done("deploy", slug="home", html=full("two"))
    assert (slow["version"], slow["status"], slow["url"]) == (2, "published", "http://router.test/pages/home")
    assert await site.text("/pages/home") == full("three")
    assert (await site.done("publish", slug="home"))["version"] == 3
    assert (await site.done("publish", slug="home", version=2))["version"] == 2


async def test_a_deploy_that_ends_after_an_archiving_is_public(
    interrupted: Interrupted, clock: FakeClock, tmp_path: Path
) -> None:
    """A deploy says published only of a page that answers, even when archiving came in between."""
    site = Site(parts_for(interrupted, clock, tmp_path / "blobs"))
    await site.done("deploy", slug="home", html=full("one"))

    async def meanwhile() -> None:
        await site.done("deploy", slug="home", html=full("three"))
        await site.done("archive", slug="home")

    interrupted.then = meanwhile
    slow = await site.done("deploy", slug="home", html=full("two"))
    assert slow["status"] == "published"
    assert await site.text("/pages/home") == full("two")


async def test_an_id_taken_in_the_last_moment_is_a_conflict(
    interrupted: Interrupted, clock: FakeClock, tmp_path: Path
) -> None:
    """When another slug gets the id just before, the deploy is refused and its bytes are removed."""
    site = Site(parts_for(interrupted, clock, tmp_path / "blobs"))
    interrupted.then = lambda: site.done("deploy", slug="first", html=full("x"), pageId="a")
    assert (await site.do("deploy", slug="second", html=full("x"), pageId="a")).status_code == 409
    assert await site.parts.blobs.list(store.BUCKET) == ["first/versions/1.html"]


async def test_a_change_that_never_wins_gives_up() -> None:
    """A change that is always overtaken ends as a retryable error instead of trying for ever."""

    async def overtaken() -> None:
        raise Stale

    with pytest.raises(StoreUnavailable, match="simultaneous"):
        await store.settle(overtaken)
