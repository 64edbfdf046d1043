"""The guarded pool under client libraries, so that their calls pass the same guard as every other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import httpx

from infra.outbound import parse_url
from infra.pool import Answer, Late, NotSent, Pool, Unanswered
from router.errors import EndpointRefused

_OURS = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"accept-encoding"})
_BREAK = re.compile(rb"[\r\n\0]")


async def carry(
    pool: Pool,
    method: str,
    url: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    *,
    seconds: float,
) -> Answer:
    """Send a whole request and return the whole answer, within `seconds`.

    Raises `EndpointRefused` and the errors of `infra.pool`.
    """
    parsed = parse_url(url)
    slash = "/" if parsed.path and url.partition("?")[0].endswith("/") else ""
    lines = [
        f"{method} {parsed.target(slash)} HTTP/1.1".encode("ascii"),
        f"host: {parsed.authority}".encode("ascii"),
        b"accept-encoding: identity",
        b"content-length: %d" % len(body),
        *(b"%b: %b" % header for header in headers if header[0].lower() not in _OURS),
    ]
    if method == "HEAD" or any(_BREAK.search(line) for line in lines):
        raise NotSent("a request that cannot be carried: HEAD, or a line break in a header")
    request = b"\r\n".join(lines) + b"\r\n\r\n" + body
    deadline = asyncio.get_running_loop().time() + seconds
    answer = await pool.exchange(parsed, request, deadline=deadline)
    for name, value in answer.headers:
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            # A client library would unpack it without a limit.
            raise Unanswered("the answer is compressed, though that was refused")
    kept = [header for header in answer.headers if header[0] != b"transfer-encoding"]
    return answer._replace(headers=kept)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Carries httpx requests over a `Pool`: whole bodies, one deadline, no redirects, no proxies."""

    def __init__(self, pool: Pool, *, seconds: float = 60.0) -> None:
        self._pool = pool
        self._seconds = seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises httpx's own errors, as its callers expect."""
        body = await request.aread()
        seconds = request.extensions.get("timeout", {}).get("read") or self._seconds
        try:
            answer = await carry(
                self._pool, request.method, str(request.url), request.headers.raw, body, seconds=seconds
            )
        except (NotSent, EndpointRefused) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        except Late as error:
            kind = httpx.ReadTimeout if error.sent else httpx.ConnectTimeout
            raise kind(str(error), request=request) from error
        except Unanswered as error:
            raise httpx.ReadError(str(error), request=request) from error
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=request)
