"""What is done under an idempotency key is done once.

("runner-once", HASH)    what a task with that key came to; without an end while nobody knows it
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from pydantic import BaseModel

from autopilots.kit import Call
from autopilots.runner.parts import RunnerParts
from autopilots.runner.unmet import MayHaveRun, Unmet
from infra.clock import rfc3339
from infra.table import Document, Key
from router.errors import AutopilotError, Conflict, Stale

KEPT_SECONDS = 7 * 86_400


def digest(*texts: str) -> str:
    """Return a hash of the texts: 64 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(texts)).hexdigest()


def fingerprint(meta: BaseModel) -> str:
    """Return a hash of a task as it was sent."""
    return hashlib.sha256(msgspec.json.encode(meta.model_dump(), order="sorted")).hexdigest()


async def once(
    call: Call[RunnerParts],
    meta: BaseModel,
    work: Callable[[], Awaitable[dict[str, Any]]],
    *,
    again: bool,
) -> dict[str, Any]:
    """Do `work` and return its result; under a key that came before, return what it came to then.

    A call without a key is not told from others: it is done. Of `work`, an `Unmet` is an end like a result,
    and any other of our errors means that nothing was done. One that was begun and has no end is done again
    if `again` says that it may be. Raises `MayHaveRun` where it may not, and `Conflict` while it is still
    being done and for a key that was used for something else.
    """
    parts = call.parts
    if not call.idempotency_key:
        return await work()
    key = ("runner-once", digest(call.capability, call.idempotency_key))
    request = fingerprint(meta)
    item = await parts.table.get(key)
    if item is not None and "ended" in item.document:
        return _what_came_of(item.document, request)
    if key[1] in parts.running:
        raise Conflict("this is being done at the moment")
    if item is not None:
        _check(item.document, request, again=again)
    parts.running.add(key[1])
    try:
        begun = {"request": request, "begun": rfc3339(parts.clock())}
        await _keep(parts, key, begun, item.revision if item else 0)
        return await _ended(parts, key, begun, work)
    finally:
        parts.running.discard(key[1])


async def _ended(
    parts: RunnerParts, key: Key, begun: Document, work: Callable[[], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    try:
        result = await work()
    except Unmet as error:
        unmet = {"detail": error.detail, "extra": parts.redactor.value(dict(error.extra))}
        await _keep(parts, key, begun | {"ended": rfc3339(parts.clock()), "unmet": unmet})
        raise
    except AutopilotError:
        await parts.table.delete(key)
        raise
    await _keep(parts, key, begun | {"ended": rfc3339(parts.clock()), "result": result})
    return result


async def _keep(parts: RunnerParts, key: Key, document: Document, revision: int | None = None) -> None:
    expires = parts.clock() + KEPT_SECONDS
    try:
        await parts.table.put(key, document, if_revision=revision, expires_at=expires)
    except Stale:
        raise Conflict("this is being done at the moment") from None


def _what_came_of(document: Document, request: str) -> dict[str, Any]:
    _check(document, request, again=True)
    if "unmet" in document:
        raise Unmet(**document["unmet"]["extra"])
    result: dict[str, Any] = document["result"]
    return result


def _check(document: Document, request: str, *, again: bool) -> None:
    if document["request"] != request:
        raise Conflict("this idempotency key was used for something else")
    if not again:
        raise MayHaveRun(
            f"it was begun at {document['begun']} by a process that did not live to see its end: it may have "
            "been done, in part or whole. Look what came of it; then send it under another key, or not at all"
        )
