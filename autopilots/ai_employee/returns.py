"""The two plain pages a customer comes back to from a checkout that named none of its own."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

PAID = "/checkout/paid"
CANCELLED = "/checkout/cancelled"

_WORDS = {
    PAID: ("Thank you", "Your payment was handed to the payment provider, which will confirm it to you."),
    CANCELLED: ("Nothing was paid", "You left the checkout before paying. You can close this page."),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "cache-control": "public, max-age=3600",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def returns() -> list[Route]:
    """Return the routes of both pages."""
    return [Route(path, _page, methods=["GET"]) for path in _WORDS]


async def _page(request: Request) -> Response:
    title, sentence = _WORDS[request.url.path]
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>body{font:1.1rem/1.6 system-ui;margin:15vh auto;max-width:32rem;padding:0 1.5rem}</style>"
        f"</head><body><main><h1>{title}</h1><p>{sentence}</p></main></body></html>",
        headers=_HEADERS,
    )
