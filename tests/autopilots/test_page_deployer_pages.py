"""How deployed pages are served: headers, conditional requests, and addresses that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilots.page_deployer import store
from infra.table.sqlite import SqliteTable
from tests.autopilots.test_page_deployer import BAD_SLUGS, Site, full
from tests.fakes import FakeClock, parts_for

HOSTILE = full("<script>fetch('/autopilot/registry')</script><iframe src=/admin></iframe>")


@pytest.fixture
async def site(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Site:
    """Give a site with one hostile page at `home`."""
    site = Site(parts_for(table, clock, tmp_path / "blobs"))
    await site.done("deploy", slug="home", html=HOSTILE)
    return site


async def test_a_page_is_harmless_on_the_routers_origin(site: Site) -> None:
    """The policy sandboxes the page: no scripts, no own origin, no frames, no plugins, no base."""
    headers = (await site.ask("GET", "/pages/home")).headers
    policy = {part.split()[0]: part.split()[1:] for part in headers["content-security-policy"].split(";")}
    assert "allow-scripts" not in policy["sandbox"]
    assert "allow-same-origin" not in policy["sandbox"]
    assert policy["default-src"] == ["'none'"]
    assert policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]
    assert policy["form-action"] == ["https:", "mailto:"]
    assert not {"script-src", "connect-src", "frame-src", "object-src"} & policy.keys()
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_a_page_is_html_and_may_be_cached_briefly(site: Site) -> None:
    """The live page says its type and charset and may be kept for a minute."""
    headers = (await site.ask("GET", "/pages/home")).headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "public, max-age=60"
    assert "x-robots-tag" not in headers


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_known_page_is_not_sent_again(site: Site, form: str) -> None:
    """If-None-Match with the page's tag, in any of its forms, gets 304 and no body."""
    tag = (await site.ask("GET", "/pages/home")).headers["etag"]
    reply = await site.ask("GET", "/pages/home", headers={"if-none-match": form.format(tag)})
    assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
    assert "sandbox" in reply.headers["content-security-policy"]


async def test_a_changed_page_is_sent(site: Site) -> None:
    """A tag of an older version gets the new page."""
    tag = (await site.ask("GET", "/pages/home")).headers["etag"]
    await site.done("deploy", slug="home", html=full("new"))
    reply = await site.ask("GET", "/pages/home", headers={"if-none-match": tag})
    assert (reply.status_code, reply.text) == (200, full("new"))


async def test_head_tells_what_get_would(site: Site) -> None:
    """HEAD has the status, length and tag of GET, and no body."""
    got, head = await site.ask("GET", "/pages/home"), await site.ask("HEAD", "/pages/home")
    assert head.content == b""
    assert dict(head.headers) == dict(got.headers)
    assert (await site.ask("HEAD", "/pages/nowhere")).status_code == 404
    assert (await site.ask("POST", "/pages/home")).status_code == 405


@pytest.mark.parametrize(
    "slug", [*BAD_SLUGS[2:], "", "nowhere", "home/", "home/versions/1.html", "%2e%2e/home", "%00"]
)
async def test_an_address_without_a_page_is_a_small_page(site: Site, slug: str) -> None:
    """Unknown and hostile addresses are 404 in HTML, uncached, under the same policy."""
    raw = slug.replace("\n", "%0A").replace("\\", "%5C")
    reply = await site.ask("GET", f"http://router.test/pages/{raw}")
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert "<h1>Page not found</h1>" in reply.text
    assert len(reply.content) < 1_000


async def test_lost_bytes_are_said_to_be_unavailable(site: Site) -> None:
    """When a version's bytes are gone the page is 503 and asks to try again, not an empty page."""
    assert await site.parts.blobs.delete(store.BUCKET, "home/versions/1.html")
    reply = await site.ask("GET", "/pages/home")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
