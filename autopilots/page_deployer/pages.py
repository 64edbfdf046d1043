"""Serves the deployed pages: `GET /pages/SLUG`.

A page is somebody's HTML on the router's own origin, so every answer carries a policy under which it is
harmless there. The sandbox gives it an origin of its own and no scripts: it can't read the admin page, its
storage or an answer of the API. Nothing but style, fonts and images loads; no frame shows it. Forms go to
https addresses only, and the API takes nothing but JSON, which a form can't send. Links that open a new
window leave the sandbox, or checkout pages would arrive there without scripts; the page can't reach them.
"""

from __future__ import annotations

import hmac
import html
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autopilots.kit import Parts
from autopilots.page_deployer import store
from autopilots.page_deployer.document import full_page
from autopilots.page_deployer.store import Page
from router.errors import StoreUnavailable

SLUG = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*")
MAX_SLUG = 120

_HEADERS = {
    "content-security-policy": (
        "sandbox allow-forms allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
        "style-src 'unsafe-inline'; img-src 'self' data: https:; font-src data:; "
        "form-action https: mailto:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
_PUBLIC = {"cache-control": "public, max-age=60"}
_PRIVATE = {"cache-control": "no-store", "x-robots-tag": "noindex"}

_SENTENCES = {
    404: ("Page not found", "There is no page at this address."),
    410: ("Page removed", "This page was taken down."),
    503: ("Not available", "The page cannot be read at the moment. Please try again soon."),
}


def pages(parts: Parts) -> list[Route]:
    """Return the routes that serve pages; they belong on the app that `parts.public_url` leads to."""

    async def show(request: Request) -> Response:
        try:
            return await _answer(parts, request)
        except StoreUnavailable:
            return _sorry(request, 503)

    return [Route("/pages/{slug:path}", show, methods=["GET", "HEAD"], name="page")]


async def _answer(parts: Parts, request: Request) -> Response:
    slug = str(request.path_params["slug"])
    if len(slug) > MAX_SLUG or not SLUG.fullmatch(slug):
        return _sorry(request, 404)
    page, _ = await store.page_of(parts.table, slug)
    if page is None:
        return _sorry(request, 404)
    if "preview" in request.query_params:
        return await _preview(parts, request, page)
    return await _live(parts, request, page)


async def _live(parts: Parts, request: Request, page: Page) -> Response:
    """Answer with the live version; a page that was never live is not there, archived or not."""
    if not page.live:
        return _sorry(request, 404)
    if page.archived:
        return _sorry(request, 410)
    headers = {**_PUBLIC, "etag": f'"{page.live_sha256}"'}
    if _matches(request.headers.get("if-none-match", ""), page.live_sha256):
        return Response(status_code=304, headers={**_HEADERS, **headers})
    return await _html(parts, request, page.slug, page.live, headers)


async def _preview(parts: Parts, request: Request, page: Page) -> Response:
    """Answer with one version to whoever has its token; to others it doesn't exist."""
    number = request.query_params.get("version", "")
    known = await store.version_of(parts.table, page.slug, int(number)) if _NUMBER.fullmatch(number) else None
    token = request.query_params["preview"]
    if known is None or not hmac.compare_digest(known.token.encode(), token.encode()):
        return _sorry(request, 404)
    if known.number <= page.archived:
        return _sorry(request, 410)
    return await _html(parts, request, page.slug, known.number, _PRIVATE)


_NUMBER = re.compile(r"[0-9]{1,8}")


def _matches(header: str, sha256: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or f'"{sha256}"' in tags


async def _html(parts: Parts, request: Request, slug: str, number: int, headers: dict[str, str]) -> Response:
    blob = await parts.blobs.get(store.BUCKET, store.blob_key(slug, number))
    if blob is None:
        raise StoreUnavailable(f"the bytes of {slug} version {number} are gone")
    return _respond(request, 200, blob.data, headers)


def _sorry(request: Request, status: int) -> Response:
    title, sentence = _SENTENCES[status]
    body = full_page(f"<h1>{html.escape(title)}</h1>\n<p>{sentence}</p>", title=title, slug="")
    headers = {**_PRIVATE, "retry-after": "5"} if status == 503 else _PRIVATE
    return _respond(request, status, body.encode(), headers)


def _respond(request: Request, status: int, body: bytes, headers: dict[str, str]) -> Response:
    """Return HTML; a HEAD gets the headers of the GET, its length too, and no body."""
    return Response(
        b"" if request.method == "HEAD" else body,
        status,
        {**_HEADERS, **headers, "content-length": str(len(body))},
        "text/html; charset=utf-8",
    )
