"""One call to the API: sent, repeated where that is safe, its envelope read, its failure named.

What may be repeated is decided here. What was created by a call without an answer is the caller's question:
see `infra.apply`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import httpx

from infra.cloudflare.budget import Budget, retry_after
from infra.cloudflare.failures import (
    BadToken,
    CloudflareError,
    Denied,
    Exists,
    Throttled,
    Trouble,
    Unknown,
    failure,
)
from infra.redact import Redactor
from router.errors import EndpointRefused

ROOT = "https://api.cloudflare.com/client/v4"
METHODS = frozenset({"GET", "POST", "PUT"})
"""All that is ever sent: nothing here deletes."""

ATTEMPTS = 3
ATTEMPT_SECONDS = 10.0
CALL_SECONDS = 30.0
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 4.0
_LONGEST_TEXT = 300

Sleep = Callable[[float], Awaitable[None]]


class Harmless(httpx.AsyncBaseTransport):
    """A transport that carries reading and writing, and refuses every other method before it leaves."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on. Raises `httpx.UnsupportedProtocol` for a method that is none of ours."""
        if request.method not in METHODS:
            raise httpx.UnsupportedProtocol(f"{request.method} is never sent to Cloudflare", request=request)
        return await self._inner.handle_async_request(request)


class Call(NamedTuple):
    """What to send. `repeatable` says that sending it twice is no different from sending it once.

    `awaits` names a failure that passes by itself, such as a Worker that is not yet known everywhere.
    """

    product: str
    operation: str
    method: str
    path: str
    params: Mapping[str, str | int] = {}
    headers: Mapping[str, str] = {}
    json: Any = None
    files: Any = None
    repeatable: bool = True
    awaits: type[CloudflareError] | None = None


class Answer(NamedTuple):
    """A successful envelope: its result, and what it says about pages."""

    result: Any
    info: Mapping[str, Any]


class Wire:
    """Sends calls with one token. `sleep`, `monotonic` and `random` (0 to 1) are passed in.

    Raises `BadToken` for a key that must never be used here.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        token: str,
        *,
        root: str = ROOT,
        monotonic: Callable[[], float],
        sleep: Sleep,
        random: Callable[[], float],
    ) -> None:
        if token.startswith("cfk_"):
            raise BadToken(
                "CF_API_TOKEN holds a global API key, which may do everything to every account of its owner; "
                "create an API token with only the permissions needed instead"
            )
        self._http = http
        self._root = root.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._redactor = Redactor([token])
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self.budget = Budget(monotonic)

    async def send(self, call: Call, *, seconds: float = CALL_SECONDS) -> Answer:
        """Send a call until it is answered, and return the envelope. `seconds` bounds all attempts together.

        Raises `CloudflareError`, with `done` set where a writing call may have had its effect.
        """
        until = self._monotonic() + seconds
        writes = call.method != "GET"
        attempt = 0
        lost = confirmed = False
        while True:
            try:
                return await self._once(call, until)
            except CloudflareError as error:
                lost = lost or (writes and _may_be_done(error))
                error.done = lost or (writes and isinstance(error, Exists))
                if isinstance(error, Denied) and not confirmed:
                    # Some of these are transient, and nothing was done: ask once more before believing it.
                    confirmed = True
                else:
                    attempt += 1
                    if not _again(call, error) or attempt >= ATTEMPTS:
                        raise
                if not await self._wait(attempt, error, until):
                    raise

    async def _wait(self, attempt: int, error: CloudflareError, until: float) -> bool:
        """Wait before another attempt. Says False, at once, where no time is left for one."""
        seconds = self._random() * min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
        if isinstance(error, Unknown) and error.wait is not None:
            seconds = max(seconds, error.wait)
        if self._monotonic() + seconds >= until:
            return False
        await self._sleep(seconds)
        return True

    async def _once(self, call: Call, until: float) -> Answer:
        self.budget.spend()
        try:
            response = await self._http.request(
                call.method,
                f"{self._root}{call.path}",
                params=call.params or None,
                json=call.json,
                files=call.files,
                headers={**self._headers, **call.headers},
                timeout=max(0.001, min(ATTEMPT_SECONDS, until - self._monotonic())),
                follow_redirects=False,
            )
        except httpx.HTTPError as error:
            raise self._unanswered(call, error) from error
        self.budget.heed(response.status_code, response.headers)
        return self._read(call, response)

    def _unanswered(self, call: Call, error: httpx.HTTPError) -> Unknown:
        text = self._plain(str(error) or type(error).__name__)
        refused = isinstance(error.__cause__, EndpointRefused)
        hint = "CF_API_BASE must be an address that may be called, or stand in AUTOPILOT_ALLOW_ENDPOINTS."
        unknown = Unknown(f"no answer from Cloudflare: {text}", hint=hint if refused else "")
        unknown.final = refused
        unknown.unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        return unknown

    def _read(self, call: Call, response: httpx.Response) -> Answer:
        status = response.status_code
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("success"), bool):
            # A block page or a proxy's own error: even a 403 of that kind says nothing about permissions.
            kind = Throttled if status == 429 else Unknown
            error: CloudflareError = kind(f"HTTP {status} without an answer of the API")
        elif body["success"] and 200 <= status < 300:
            info = body.get("result_info")
            return Answer(body.get("result"), info if isinstance(info, dict) else {})
        else:
            error = failure(call.product, call.operation, status, self._troubles(body))
        if isinstance(error, Unknown):
            error.wait = retry_after(response.headers)
        raise error

    def _troubles(self, body: Mapping[str, Any]) -> list[Trouble]:
        """Return what the errors of an envelope say, the chains within them behind."""
        listed = body.get("errors")
        found = []
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict):
                chain = one.get("error_chain")
                more = [link for link in chain if isinstance(link, dict)] if isinstance(chain, list) else []
                text = "; ".join(str(link.get("message", "")) for link in (one, *more))
                number = one.get("code")
                found.append(Trouble(number if isinstance(number, int) else 0, self._plain(text)))
        return found

    def _plain(self, text: str) -> str:
        """Return foreign text without secrets, control characters, or more length than a report bears."""
        shown = "".join(one if one.isprintable() else " " for one in self._redactor.text(text))
        return shown[:_LONGEST_TEXT]


def _may_be_done(error: CloudflareError) -> bool:
    """Whether a writing call that ended so may have had its effect. A call that was throttled had none."""
    return isinstance(error, Unknown) and not isinstance(error, Throttled) and not error.unsent


def _again(call: Call, error: CloudflareError) -> bool:
    """Whether the same call may be sent once more."""
    if call.awaits is not None and isinstance(error, call.awaits):
        return True
    if not isinstance(error, Unknown) or isinstance(error, Throttled) or error.final:
        return False  # after a 429, one more call would make it worse
    return call.repeatable or error.unsent
