"""Signatures by Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, secrets that start `whsec_`.

`sign` makes one. `verify` takes the three headers and the body as they came and returns the message's id, or
raises `Unauthenticated`, whatever is wrong with them. A `Verifier` also refuses an id that it saw lately,
for as long as the timestamp of its message would still be taken: 10 minutes and a second.

A replay is answered 401, also one that is a retry in good faith, and work that may be repeated is none the
worse for it. The router never sends a message twice to one autopilot: it takes another one, which has its own
secret and memory, and a caller that asks again under its idempotency key sends a new message, with a new id
and that key. Senders that do repeat an id, as webhook senders do until they are answered 2xx, are served by
`forget`: whoever could not do the work lets the id go, and the next attempt is taken. One whose answer was
lost is refused for ten minutes and then finds, by its idempotency key, that the work is done.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from infra.clock import Clock
from infra.table import Key, Table
from router.errors import Stale, Unauthenticated

TOLERANCE = 300
"""Seconds by which a timestamp may differ from our clock, either way; seconds are counted whole."""

REMEMBERED = 2 * TOLERANCE + 1
"""Seconds an id is remembered: a message from the furthest future is taken until all of them are over."""

MAX_ID = 255
MAX_SIGNATURES = 16

CHALLENGE = "StandardWebhooks"
"""What `WWW-Authenticate` says where a signature is missing or wrong."""

_PREFIX = "whsec_"
_HEADERS = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
_ID = re.compile(
    rb"[!-\-/-~]{1,%d}" % MAX_ID
)  # whatever is seen in ASCII, but no dot: dots part what is signed
_TIMESTAMP = re.compile(rb"0|[1-9][0-9]{0,11}")
_VERSION_1 = re.compile(rb"v1,([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)")  # 32 bytes in base64, of one spelling
_OTHER_VERSION = re.compile(rb"v(?:1[a-z]|[02-9][a-z]?|[1-9][0-9]{1,2}[a-z]?),[!-+\--~]{1,1024}")


def new_secret() -> str:
    """Return a fresh secret of 32 random bytes."""
    return _PREFIX + base64.b64encode(os.urandom(32)).decode("ascii")


def is_secret(text: str) -> bool:
    """Whether a text is a secret as the specification wants it: 24 to 64 bytes, in base64 of one spelling."""
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:  # also for what is not ASCII
        return False
    return 24 <= len(key) <= 64 and hmac.compare_digest(_text_of(key).encode(), text.encode())


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature` for a message; `timestamp` is in epoch seconds."""
    code = _keyed(secret).copy()
    code.update(b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body))
    return "v1," + binascii.b2a_base64(code.digest(), newline=False).decode("ascii")


def verify(secrets: Sequence[str], headers: Iterable[tuple[bytes, bytes]], body: bytes, now: float) -> str:
    """Return the id of a message that one of the secrets signed, `now` being epoch seconds.

    `headers` are all of the request's, as ASGI gives them. Raises `Unauthenticated` for everything that is
    wrong with them: missing or given twice, a timestamp out of `TOLERANCE`, anything not in its one spelling.
    Signatures of versions we do not know are passed over, as the specification asks.
    """
    message_id, timestamp, signatures = _three(headers)
    if not _ID.fullmatch(message_id):
        raise _refused(f"webhook-id must be 1 to {MAX_ID} visible ASCII characters without a dot")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise _refused("webhook-timestamp must be whole epoch seconds in decimal digits")
    if abs(int(now) - int(timestamp)) > TOLERANCE:
        raise _refused(f"webhook-timestamp is more than {TOLERANCE} seconds from our clock")
    given = _signatures(signatures)
    signed = b"%b.%b.%b" % (message_id, timestamp, body)
    found = False
    for secret in secrets:
        code = _keyed(secret).copy()
        code.update(signed)
        expected = binascii.b2a_base64(code.digest(), newline=False)
        for one in given:
            found |= hmac.compare_digest(expected, one)
    if not found:
        raise _refused("no signature of webhook-signature is one of ours for this message")
    return message_id.decode("ascii")


class Seen(Protocol):
    """A memory of message ids for `REMEMBERED` seconds."""

    async def add(self, message_id: str) -> bool:
        """Remember an id and return whether it was new."""
        ...

    async def forget(self, message_id: str) -> None:
        """Take an id for one that never came."""
        ...


class SeenHere:
    """A memory of this process, for one that alone receives what its secrets sign.

    It holds at most `most` ids, some 20 MB: the oldest give way, so that above 166 messages a second it
    reaches back less than ten minutes.
    """

    def __init__(self, clock: Clock, most: int = 100_000) -> None:
        self._clock = clock
        self._most = most
        self._until: dict[str, float] = {}
        """When an id may be forgotten. Times only rise, so the oldest stand first."""

    async def add(self, message_id: str) -> bool:
        """See `Seen`."""
        now = self._clock()
        while self._until and self._until[oldest := next(iter(self._until))] <= now:
            del self._until[oldest]
        if message_id in self._until:
            return False
        if len(self._until) >= self._most:
            del self._until[next(iter(self._until))]
        self._until[message_id] = now + REMEMBERED
        return True

    async def forget(self, message_id: str) -> None:
        """See `Seen`."""
        self._until.pop(message_id, None)


class SeenInTable:
    """A memory that processes share.

    ("webhook:ID", "seen")      {}, which expires
    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def add(self, message_id: str) -> bool:
        """See `Seen`. Raises `StoreUnavailable`: what cannot be remembered is not to be done."""
        try:
            until = self._clock() + REMEMBERED
            await self._table.put(_key(message_id), {}, if_revision=0, expires_at=until)
        except Stale:
            return False
        return True

    async def forget(self, message_id: str) -> None:
        """See `Seen`. Raises `StoreUnavailable`."""
        await self._table.delete(_key(message_id))


class Verifier:
    """Verifies messages signed with any of some secrets and takes each of them once.

    Two secrets stand beside each other while one is rotated. `seen` is a memory of this process unless
    another is given. Raises `ValueError` when a secret is none, or there is none.
    """

    def __init__(self, secrets: Sequence[str], clock: Clock, seen: Seen | None = None) -> None:
        if not secrets or not all(is_secret(secret) for secret in secrets):
            raise ValueError("needs secrets of 24 to 64 bytes in base64 behind whsec_")
        self._secrets = tuple(secrets)
        self._clock = clock
        self._seen = seen or SeenHere(clock)

    async def check(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> str:
        """Return the id of a message. Raises as `verify`, for a replay too, and what the memory raises."""
        message_id = verify(self._secrets, headers, body, self._clock())
        if not await self._seen.add(message_id):
            raise _refused("this webhook-id came before: a message is taken once")
        return message_id

    async def forget(self, message_id: str) -> None:
        """Let a message come again, because its work was not done. Raises what the memory raises."""
        await self._seen.forget(message_id)


def _refused(detail: str) -> Unauthenticated:
    """Return the error for a message that is not to be trusted."""
    sentence = "A valid signature is needed"
    return Unauthenticated(detail, title=sentence, error=sentence)


def _three(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the values of the three headers, each of which must be there once."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _HEADERS:
            if lower in found:
                raise _refused(f"{lower.decode()} is given twice")
            found[lower] = value
    for name in _HEADERS:
        if name not in found:
            raise _refused(f"{name.decode()} is missing")
    return [found[name] for name in _HEADERS]


def _signatures(header: bytes) -> list[bytes]:
    """Return the signatures of version 1, in base64."""
    entries = header.split(b" ", MAX_SIGNATURES)
    if len(entries) > MAX_SIGNATURES:
        raise _refused(f"webhook-signature may have at most {MAX_SIGNATURES} signatures")
    found = []
    for entry in entries:
        if match := _VERSION_1.fullmatch(entry):
            found.append(match[1])
        elif not _OTHER_VERSION.fullmatch(entry):
            raise _refused("webhook-signature must be signatures such as v1,BASE64, one blank between two")
    return found


@lru_cache(maxsize=4096)
def _keyed(secret: str) -> hmac.HMAC:
    """Return the start of every signature with a secret: preparing it costs more than the rest."""
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    return hmac.new(key, digestmod="sha256")


def _text_of(key: bytes) -> str:
    return _PREFIX + base64.b64encode(key).decode("ascii")


def _key(message_id: str) -> Key:
    return f"webhook:{message_id}", "seen"
