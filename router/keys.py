"""API keys: how they look, what they allow, and where they are kept.

A key is `apr_` + 8 characters that name it + 24 random ones + 6 that check the rest: letters and digits
only, so that a double click selects all of it and a typo or a fake is refused before anything is read. The
store keeps a hash. A lost key cannot be shown again, only rotated.

    ("key", ID)     {"name", "digest", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at"}

A name stands for whoever holds the key, in the audit and wherever callers are told apart; so among the keys
that have not ended it belongs to one, and to those that one was rotated to.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from infra.clock import Clock, rfc3339
from infra.table import Document, Item, Put, Table, Write
from router.errors import AutopilotError, Conflict, Invalid, NotFound, Stale, Unauthenticated
from router.model import is_capability, is_name

PREFIX = "apr_"
MAX_SCOPES = 50
MAX_OVERLAP = 30 * 86_400.0
"""Seconds a rotated key may go on beside the new one."""
MAX_LIFE = 100 * 365 * 86_400.0
MAX_KNOWN = 1_000
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECK = 8, 24, 6
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_ID + _SECRET + _CHECK}}}")
_KEY_ID = re.compile(rf"[0-9A-Za-z]{{{_ID}}}")
KEY_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9])?")
_OURS = {"admin", "anyone", "local", "router"}
"""Names of callers that have no key of this table."""
RECORDS = "key"
_KNOWN_SECONDS = 5.0
_USE_EVERY = 60.0

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and what they may do. `scopes` as keys have them; `admin` allows everything."""

    name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether some form of a scope is held: `plan` is, by a key that has `plan:web.*`."""
        return "admin" in self.scopes or any(one.partition(":")[0] == scope for one in self.scopes)

    def may_plan(self, capability: str) -> bool:
        """Whether tasks of a capability may be sent."""
        return "admin" in self.scopes or any(
            covers(one.removeprefix("plan:"), capability) for one in self.scopes if one.startswith("plan:")
        )

    def may_register(self, name: str) -> bool:
        """Whether a registration of that name may be changed."""
        return not self.scopes.isdisjoint({"admin", "register", f"register:{name}"})


def covers(pattern: str, capability: str) -> bool:
    """Whether a capability is among those of a pattern: all (`*`), those under a word (`web.*`), or one."""
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return capability.startswith(pattern[:-1])
    return capability == pattern


def is_pattern(pattern: str) -> bool:
    """Whether a text is a pattern of capabilities."""
    return pattern == "*" or is_capability(pattern[:-1] + "x" if pattern.endswith(".*") else pattern)


def new_key(random_bytes: RandomBytes) -> tuple[str, str]:
    """Return a fresh key and its id."""
    body = "".join(_character(random_bytes) for _ in range(_ID + _SECRET))
    return PREFIX + body + _checksum(body), body[:_ID]


def id_of(key: str) -> str | None:
    """Return the id in a key, None when its form or its checksum is wrong."""
    if not _KEY.fullmatch(key):
        return None
    body, check = key[len(PREFIX) : -_CHECK], key[-_CHECK:]
    return body[:_ID] if hmac.compare_digest(_checksum(body), check) else None


def parse_scopes(value: object) -> list[str]:
    """Return the scopes in a JSON value. Raises `Invalid` naming each that is none."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SCOPES:
        raise Invalid([("scopes", f"must be a list of 1 to {MAX_SCOPES} scopes")])
    wrong = [
        (f"scopes[{index}]", "must be read, operate, admin, register, register:NAME or plan:PATTERN")
        for index, scope in enumerate(value)
        if not (isinstance(scope, str) and _is_scope(scope))
    ]
    if wrong:
        raise Invalid(wrong)
    return sorted(set(value))


def _is_scope(text: str) -> bool:
    kind, colon, rest = text.partition(":")
    if kind == "plan":
        return is_pattern(rest)
    if kind == "register":
        return is_name(rest) if colon else True
    return text in {"read", "operate", "admin"}


class _Known(NamedTuple):
    """Who a key is, until when that is believed (monotonic) and when the key ends (epoch)."""

    identity: Identity
    until: float
    ends: float


class Keys:
    """The keys in a table. What was read is believed for `_KNOWN_SECONDS`, or until a change made here."""

    def __init__(self, table: Table, *, clock: Clock, monotonic: Clock, random_bytes: RandomBytes) -> None:
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self._known: dict[bytes, _Known] = {}
        """By digest."""
        self._changes = 0

    async def create(
        self, name: str, scopes: Sequence[str], *, expires_at: float | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Return a new key, shown only now, and its record.

        Raises `Invalid`, and `Conflict` for the name of a key that has not ended.
        """
        checked = parse_scopes(list(scopes))
        _check(name, expires_at, self._clock())
        others = await self._items()
        if any(item.document["name"] == name and self._alive(item.document) for item in others):
            raise Conflict(f"there is a key named {name!r} already: rotate it, revoke it, or choose a name")
        key, put = self._fresh(name, checked, expires_at)
        await self._change(put)
        return key, _shown(put.key[1], put.document)

    async def list(self) -> list[dict[str, Any]]:
        """Return the records of all keys, by id. None of them holds a key or its hash."""
        return [_shown(item.key[1], item.document) for item in await self._items()]

    async def rotate(self, key_id: str, *, overlap: float) -> tuple[str, dict[str, Any]]:
        """Return a new key with the name, scopes and end of another, which itself ends in `overlap` seconds.

        Raises `Invalid`, `NotFound`, and `Conflict` for a key that has ended.
        """
        if not 0 <= overlap <= MAX_OVERLAP:
            raise Invalid([("overlap", f"must be 0 to {MAX_OVERLAP:.0f} seconds")])
        while True:
            item = await self._item(key_id)
            if not self._alive(item.document):
                raise Conflict(f"key {key_id} has ended")
            was = item.document["expires_at"]
            ends = self._clock() + overlap
            ending = {**item.document, "expires_at": ends if was is None else min(ends, was)}
            key, put = self._fresh(item.document["name"], item.document["scopes"], was)
            try:
                await self._change(put, Put(item.key, ending, item.revision))
            except Stale:
                continue  # a use was noted meanwhile, or somebody else changed it
            return key, _shown(put.key[1], put.document)

    async def revoke(self, key_id: str) -> None:
        """End a key now. Raises `NotFound`."""
        while True:
            item = await self._item(key_id)
            if item.document["revoked_at"] is not None:
                return
            try:
                await self._change(
                    Put(item.key, {**item.document, "revoked_at": self._clock()}, item.revision)
                )
            except Stale:
                continue  # as above
            return

    async def identify(self, key: str) -> Identity:
        """Return who holds a key. Raises `Unauthenticated`, `StoreUnavailable`."""
        key_id = id_of(key)
        if key_id is None:
            raise Unauthenticated("the key is not valid")
        digest = _digest(key)
        known = self._known.get(digest)
        asked = self._monotonic()
        if known is not None and asked < known.until and self._clock() < known.ends:
            return known.identity
        changes = self._changes
        item = await self._table.get((RECORDS, key_id))
        if item is None or not _fits(item.document, digest) or not self._alive(item.document):
            self._known.pop(digest, None)
            raise Unauthenticated("the key is not valid")
        identity = Identity(item.document["name"], frozenset(item.document["scopes"]))
        if changes == self._changes:  # otherwise what was read may be older than a revocation made here
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            ends = item.document["expires_at"]
            self._known[digest] = _Known(
                identity, asked + _KNOWN_SECONDS, float("inf") if ends is None else ends
            )
        await self._note_use(item)
        return identity

    async def _note_use(self, item: Item) -> None:
        """Keep when a key was used last, to the minute; a use that cannot be kept is no failure."""
        last = item.document["last_used_at"]
        if last is None or self._clock() - last >= _USE_EVERY:
            document = {**item.document, "last_used_at": self._clock()}
            try:
                await self._table.put(item.key, document, if_revision=item.revision)
            except AutopilotError:
                return

    def _fresh(self, name: str, scopes: Sequence[str], expires_at: float | None) -> tuple[str, Put]:
        """Return a new key and the write that keeps it."""
        key, key_id = new_key(self._random_bytes)
        document = {
            "name": name,
            "digest": _digest(key).hex(),
            "scopes": [*scopes],
            "created_at": self._clock(),
            "expires_at": expires_at,
            "revoked_at": None,
            "last_used_at": None,
        }
        return key, Put((RECORDS, key_id), document, if_revision=0)

    async def _items(self) -> Sequence[Item]:
        found: list[Item] = []
        after: str | None = None
        while True:
            page = await self._table.range(RECORDS, after=after, limit=200)
            found += page.items
            after = page.after
            if after is None:
                return found

    async def _item(self, key_id: str) -> Item:
        # Whoever pastes a whole key here must not find it in the answer and the logs.
        item = await self._table.get((RECORDS, key_id)) if _KEY_ID.fullmatch(key_id) else None
        if item is None:
            raise NotFound("there is no key of that id")
        return item

    async def _change(self, *writes: Write) -> None:
        try:
            await self._table.transact(writes)
        finally:  # a write that failed may have been done all the same
            self._changes += 1
            self._known.clear()

    def _alive(self, document: Document) -> bool:
        ends = document["expires_at"]
        return document["revoked_at"] is None and (ends is None or self._clock() < ends)


def _check(name: str, expires_at: float | None, now: float) -> None:
    problems = []
    if not KEY_NAME.fullmatch(name) or name in _OURS:
        ours = ", ".join(sorted(_OURS))
        problems.append(("name", f"must be 1 to 64 letters, digits, spaces or ._@-, and none of {ours}"))
    if expires_at is not None and not now < expires_at <= now + MAX_LIFE:
        problems.append(("expires_at", "must be in the next 100 years"))
    if problems:
        raise Invalid(problems)


def _fits(document: Document, digest: bytes) -> bool:
    return hmac.compare_digest(document["digest"].encode(), digest.hex().encode())


def _shown(key_id: str, document: Document) -> dict[str, Any]:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    return {
        "id": key_id,
        "name": document["name"],
        "scopes": document["scopes"],
        **{time: None if document[time] is None else rfc3339(document[time]) for time in times},
    }


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECK):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits


def _character(random_bytes: RandomBytes) -> str:
    """Return one character, each equally likely: bytes over the last multiple of 62 are thrown away."""
    while True:
        byte = random_bytes(1)[0]
        if byte < 248:
            return _ALPHABET[byte % 62]
