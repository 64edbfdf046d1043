"""`http.call`: one call, or several until the answer is as expected."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import httpx
import msgspec

from autopilots.kit import Call
from autopilots.runner.expect import MISSING, kept, unmet, unmet_in
from autopilots.runner.forms import Http
from autopilots.runner.once import once
from autopilots.runner.parts import RunnerParts
from autopilots.runner.secrets import filled
from autopilots.runner.shown import json_of, pieces_of, seen, text_of
from autopilots.runner.unmet import Unmet
from router.errors import EndpointRefused, Invalid

MAX_JSON = 150_000
"""Bytes of the JSON in a result."""
MOST_HEADERS, LONGEST_HEADER = 50, 500
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Methods that do the same when they are done twice."""

_SECRET_HEADERS = ("auth", "cookie", "csrf", "key", "password", "secret", "session", "signature", "token")


class Seen(NamedTuple):
    """An answer. `json` is `MISSING` where the body is none."""

    answer: httpx.Response
    json: Any
    seconds: float


class _NoAnswer(Exception):
    """Raise when there is no answer to judge; `sent` says that the call may have been made all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


async def call_http(meta: Http, call: Call[RunnerParts]) -> dict[str, Any]:
    """Make a call and return `{status, headers, json, text, truncated, seconds, tries}`.

    With `keep` the result has only these members of the JSON, and neither headers nor text. Under an
    idempotency key it is made once: a repeat answers what came of it, and a POST or PATCH whose answer nobody
    lived to see is not made again. Raises `Unmet` when the answer is not as expected or there is none,
    `EndpointRefused`, `Invalid`, `Forbidden`, and as `once`.
    """
    parts = call.parts
    ready = filled(meta, parts)
    try:
        request = _request(ready)
    except (httpx.InvalidURL, ValueError):
        raise Invalid([("meta.url", "is no http: or https: URL")]) from None
    return await once(call, meta, partial(_until, ready, request, parts), again=meta.method in REPEATABLE)


def _request(meta: Http) -> httpx.Request:
    """Return the request. It goes to the transport as it is: no cookie of an earlier answer joins it.

    Raises `ValueError` and `httpx.InvalidURL`.
    """
    url = httpx.URL(meta.url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("a URL that cannot be called")
    headers = {name.lower(): value for name, value in meta.headers.items()}
    headers.setdefault("user-agent", "autopilot-router")
    body = b""
    if isinstance(meta.body, str):
        body = meta.body.encode()
    elif meta.body is not None:
        body = msgspec.json.encode(meta.body)
        headers.setdefault("content-type", "application/json")
    timeout = httpx.Timeout(meta.timeout_seconds).as_dict()
    return httpx.Request(
        meta.method, url, headers=headers, content=body or None, extensions={"timeout": timeout}
    )


async def _until(meta: Http, request: httpx.Request, parts: RunnerParts) -> dict[str, Any]:
    """Make the call until the answer is as expected, or the time for that is over."""
    over = parts.monotonic() + meta.wait_seconds
    tries = 0
    while True:
        tries += 1
        final = False
        try:
            found = await _try(request, parts)
        except _NoAnswer as error:
            final = error.sent and meta.method not in REPEATABLE
            told = f"{error}; it may have been done all the same" if final else str(error)
            failure = Unmet([told])
        else:
            judged = await asyncio.to_thread(_judged, meta, found, tries, parts)
            if isinstance(judged, dict):
                return judged
            failure = judged
        if final or parts.monotonic() + meta.every_seconds > over:
            raise failure
        await parts.sleep(meta.every_seconds)


def _judged(meta: Http, found: Seen, tries: int, parts: RunnerParts) -> dict[str, Any] | Unmet:
    wrong = list(_unmet(meta, found, parts))
    result = _result(meta, found, tries, parts)
    return Unmet(wrong, result, **_answered(found, parts)) if wrong else result


async def _try(request: httpx.Request, parts: RunnerParts) -> Seen:
    """Make the call once. Raises `EndpointRefused` and `_NoAnswer`."""
    began = parts.monotonic()
    try:
        answer = await parts.transport.handle_async_request(request)
        await answer.aread()
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if isinstance(error.__cause__, EndpointRefused):
            raise EndpointRefused(parts.redactor.text(str(error))) from None
        raise _NoAnswer(f"it could not be reached: {parts.redactor.text(str(error))}", sent=False) from None
    except httpx.TimeoutException:
        raise _NoAnswer("no answer came in time", sent=True) from None
    except httpx.TransportError as error:
        raise _NoAnswer(f"no whole answer came: {parts.redactor.text(str(error))}", sent=True) from None
    return Seen(answer, _json_of(answer.content), round(parts.monotonic() - began, 3))


def _json_of(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return MISSING


def _unmet(meta: Http, found: Seen, parts: RunnerParts) -> Iterator[str]:
    expect, answer = meta.expect, found.answer
    # What is not to be kept is not to be told either.
    show = partial(seen, redactor=parts.redactor) if meta.keep is None else lambda _: "something else"
    wanted = partial(seen, redactor=parts.redactor)
    good = expect.status or range(200, 300)
    if answer.status_code not in good:
        yield f"its status is {answer.status_code}, not {' or '.join(map(str, expect.status)) or '2xx'}"
    if expect.seconds is not None and found.seconds > expect.seconds:
        yield f"it took {found.seconds:g} seconds, not at most {expect.seconds:g}"
    for text in expect.contains:
        if text.encode() not in answer.content:
            yield f"its body does not contain {wanted(text)}"
    for text in expect.lacks:
        if text.encode() in answer.content:
            yield f"its body contains {wanted(text)}"
    for name, conditions in expect.header.items():
        value = answer.headers.get(name, MISSING)
        yield from unmet(f"its header {name.lower()}", value, conditions.said(), show)
    if expect.json_ and found.json is MISSING:
        yield "its body is no JSON"
    elif expect.json_:
        yield from unmet_in("its JSON", found.json, expect.conditions(), show)


def _result(meta: Http, found: Seen, tries: int, parts: RunnerParts) -> dict[str, Any]:
    is_json = found.json is not MISSING
    document = found.json if is_json else None
    text, cut = None, False
    if meta.keep is not None:
        document = kept(document, meta.keep)
    elif not is_json:
        text, cut = text_of(*pieces_of(found.answer.content), parts.redactor)
    shown, cut_json = json_of(document, MAX_JSON, parts.redactor)
    return {
        "status": found.answer.status_code,
        "headers": None if meta.keep is not None else _headers(found.answer, parts),
        "json": shown,
        "text": text,
        "truncated": cut or cut_json,
        "seconds": found.seconds,
        "tries": tries,
    }


def _headers(answer: httpx.Response, parts: RunnerParts) -> dict[str, str]:
    """Return the headers of an answer, but for those that are secret by their name."""
    shown = {
        name: parts.redactor.text(value)[:LONGEST_HEADER]
        for name, value in answer.headers.items()
        if not any(word in name for word in _SECRET_HEADERS)
    }
    return dict(list(shown.items())[:MOST_HEADERS])


def _answered(found: Seen, parts: RunnerParts) -> dict[str, Any]:
    """Return what a service said to refuse us: whoever has to find out why needs it, `keep` or not."""
    if found.answer.status_code < 400:
        return {}
    text, _ = text_of(*pieces_of(found.answer.content), parts.redactor)
    return {"answered": text[:2000]}
