"""The admin page: static files, open to everyone. What it shows comes from the API, with the caller's key."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

Answer = Callable[[Request], Awaitable[Response]]

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# The frame that previews a generated page. A page written into a frame is under the policy of the document
# that wrote it, and the admin page's own forbids the styles a page carries. So this document stands between:
# it may use inline styles, but is sandboxed away from our origin, and gives the page no scripts either.
_PREVIEW_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_PATHS = {"admin.html": "/admin", "preview.html": "/admin/preview"}
"""Where a file is served, if not at `/admin/NAME`."""

_FORMER = ("/admin/orchestrator", "/autopilot-admin", "/admin/")
"""Where the page used to be, or is easily looked for."""


def routes() -> list[Route]:
    """Return the routes of the page and of what it loads; the files are read once, here."""
    found = [
        Route(_PATHS.get(file.name, f"/admin/{file.name}"), _file(file.name, file.read_bytes()))
        for file in (files(__package__) / "static").iterdir()
        if file.name[file.name.rfind(".") :] in _TYPES
    ]
    return found + [Route(path, _redirect) for path in _FORMER]


def _file(name: str, content: bytes) -> Answer:
    """Return what answers with a file, or with 304 to whoever has it already."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    policy = _PREVIEW_POLICY if name == "preview.html" else _PAGE_POLICY
    headers = {**_HEADERS, "content-security-policy": policy, "etag": tag}
    media_type = _TYPES[name[name.rfind(".") :]]

    async def answer(request: Request) -> Response:
        if _names(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        body = b"" if request.method == "HEAD" else content
        return Response(body, 200, {**headers, "content-length": str(len(content))}, media_type)

    return answer


def _names(header: str, tag: str) -> bool:
    """Return whether an `If-None-Match` header names a tag."""
    tags = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in tags or tag in tags


async def _redirect(request: Request) -> Response:
    """Lead to the page, by a relative address: a proxy may have put the router below a path."""
    up = "../" * (request.scope["path"].count("/") - 1)
    return RedirectResponse(f"{up}admin", 308, {**_HEADERS, "content-security-policy": _PAGE_POLICY})
