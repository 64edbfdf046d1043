"""One effect per idempotency key: the first call runs, later ones get its answer.

    ("idempotency:ROUTE", HASH of caller and key)
        {"body": HASH, "until": epoch seconds or None, "status": …, "headers": …, "answer": …}

A key is kept for `KEEP_SECONDS`. While the first call runs, its record holds the moment by which it must
have ended: one that died is run again after that, not a day later. Answers are kept once something was
done, errors too; a call that was refused before it did anything leaves its key free.

Moments are compared across processes, so their clocks must agree to within `GRACE_SECONDS`. Within one
process a call that runs is known to run, whatever the clock says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from infra.clock import Clock
from infra.table import MAX_DOCUMENT, Document, Key, Table
from router.errors import AutopilotError, Conflict, Invalid, Stale

KEEP_SECONDS = 86_400
GRACE_SECONDS = 5.0
"""How long after its deadline a call is taken to have died."""


class Answer(NamedTuple):
    """What a call was answered. `replayed` says that it is the answer of an earlier one."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    replayed: bool = False


class Effect(NamedTuple):
    """An answer, and whether anything was, or may have been, done: if not, the key stays free."""

    answer: Answer
    done: bool


class _Record(msgspec.Struct):
    body: str
    until: float | None
    status: int = 0
    headers: list[tuple[str, str]] = []
    answer: str | None = None


class Idempotency:
    """Keeps answers in a table."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._running: set[Key] = set()

    async def run(
        self,
        *,
        route: str,
        caller: str,
        key: str,
        body: Any,
        seconds: float,
        work: Callable[[], Awaitable[Effect]],
    ) -> Answer:
        """Do `work`, which takes at most `seconds`, unless this caller's key has been used on this route.

        `body` is the JSON of the call: equal JSON is the same call, however it is written. Raises `Invalid`
        when the key came with another body, `Conflict` while the first call runs or when its answer cannot be
        repeated, and `StoreUnavailable` with nothing done.

        An `AutopilotError` that `work` raises says that nothing was done: it is passed on with the key free.
        What may have done something must be an `Effect`, a failure too. After any other exception nobody
        knows, so it counts as a death: the key is taken until the call would have ended.
        """
        name = (f"idempotency:{route}", _hash([caller, key]))
        fingerprint = _hash(body)
        begun = await self._begin(name, fingerprint, seconds)
        if isinstance(begun, Answer):
            return begun
        self._running.add(name)
        try:
            effect = await work()
            if effect.done:
                await self._finish(name, begun, fingerprint, effect.answer)
            else:
                await self._forget(name, begun)
        except AutopilotError:
            await self._forget(name, begun)
            raise
        finally:
            self._running.discard(name)
        return effect.answer

    async def _begin(self, name: Key, fingerprint: str, seconds: float) -> int | Answer:
        """Return the revision of a record that is now ours, or the answer of an earlier call."""
        while True:
            item = await self._table.get(name)
            record = _parse(item.document) if item else None
            if record is not None and record.body != fingerprint:
                raise Invalid([("Idempotency-Key", "was used with another body")])
            if record is not None and record.until is None:
                return _replay(record)
            now = self._clock()
            if name in self._running or (record is not None and record.until and now < record.until):
                raise Conflict("the first call with this idempotency key is still running")
            until = now + seconds + GRACE_SECONDS
            try:
                return await self._table.put(
                    name,
                    {"body": fingerprint, "until": until},
                    if_revision=item.revision if item else 0,
                    expires_at=max(until, now + KEEP_SECONDS),
                )
            except Stale:
                continue  # somebody else was quicker: see what they wrote

    async def _finish(self, name: Key, revision: int, fingerprint: str, answer: Answer) -> None:
        document: Document = {
            "body": fingerprint,
            "until": None,
            "status": answer.status,
            "headers": [list(header) for header in answer.headers],
            "answer": base64.b64encode(zlib.compress(answer.body, 1)).decode("ascii"),
        }
        if len(msgspec.json.encode(document)) > MAX_DOCUMENT:
            document |= {"headers": [], "answer": None}
        try:
            await self._table.put(
                name, document, if_revision=revision, expires_at=self._clock() + KEEP_SECONDS
            )
        except AutopilotError:
            # The effect is done and its caller gets the answer. Only a repeat before `until` is refused, and
            # one after it reaches the autopilot again, with the same key.
            return

    async def _forget(self, name: Key, revision: int) -> None:
        try:
            await self._table.delete(name, if_revision=revision)
        except AutopilotError:
            return  # then the key is free once the call would have ended


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def _parse(document: Document) -> _Record:
    try:
        return msgspec.convert(document, _Record)
    except msgspec.ValidationError:
        raise _unreadable() from None


def _replay(record: _Record) -> Answer:
    if record.answer is None:
        raise Conflict(
            f"the first call was answered {record.status}, with more than can be kept for a repeat"
        )
    try:
        body = zlib.decompress(base64.b64decode(record.answer, validate=True))
    except (binascii.Error, zlib.error):
        raise _unreadable() from None
    return Answer(record.status, body, tuple(record.headers), replayed=True)


def _unreadable() -> Conflict:
    """Something was done under the key, so it must not be done again just because the record is broken."""
    return Conflict("what was kept of the first call with this idempotency key cannot be read")
