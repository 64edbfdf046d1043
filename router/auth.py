"""Who may call what. Every endpoint names the scope it needs; this decides whether a call has it."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

from router.errors import Forbidden, Unauthenticated
from router.keys import PREFIX, Identity, Keys
from router.settings import is_loopback

_STORED = PREFIX.encode()
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Scope(Enum):
    """What a key may be allowed to do."""

    PUBLIC = "public"
    """No key needed."""
    READ = "read"
    KEY = "key"
    """Any valid key: what it may see, the endpoint says."""
    PLAN = "plan"
    REGISTER = "register"
    OPERATE = "operate"
    ADMIN = "admin"
    """Everything."""


ANYONE = Identity("anyone", frozenset())
LOCAL = Identity("local", frozenset({"admin"}))
ADMIN = Identity("admin", frozenset({"admin"}))


class Gate:
    """Lets calls in. In `local` mode: loopback clients without a key; in `required` mode: keys only.

    `admin_key` is the key of the settings; `keys` are those that were created since.
    """

    def __init__(
        self, mode: Literal["local", "required"], admin_key: str = "", keys: Keys | None = None
    ) -> None:
        self._local = mode == "local"
        self._stored = keys
        self._keys: list[tuple[bytes, Identity]] = []
        if admin_key:
            self._keys.append((_digest(admin_key.encode()), ADMIN))

    async def admit(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], need: Scope) -> Identity:
        """Return who calls. Raises `Unauthenticated`, `Forbidden` or `StoreUnavailable`.

        A key with a narrower form of the scope (`plan:web.*`) is let in: what it is for is known only later.
        """
        if need is Scope.PUBLIC:
            return ANYONE
        identity = await self._identify(scope, headers)
        if need is not Scope.KEY and not identity.may(need.value):
            lacks = f"this key lacks the scope {need.value!r}"
            raise Forbidden(lacks, actor=identity.name, scope=need.value)
        return identity

    async def _identify(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Identity:
        authorization = headers.get(b"authorization")
        if authorization is not None:
            kind, _, key = authorization.partition(b" ")
            if kind.lower() == b"bearer":
                found = self._find(_digest(key.strip()))
                if found is not None:
                    return found
                if self._stored is not None and key.startswith(_STORED):
                    return await self._stored.identify(key.strip().decode("latin-1"))
            if not self._local:
                raise Unauthenticated("the key is not valid")
        if not self._local:
            raise Unauthenticated("send a key as 'Authorization: Bearer KEY'")
        _check_local(scope, headers)
        return LOCAL

    def _find(self, digest: bytes) -> Identity | None:
        found = None
        for known, identity in self._keys:
            if hmac.compare_digest(known, digest):
                found = identity
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _check_local(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> None:
    """Raise `Forbidden` for a caller on another machine, and for a web page that uses this one's browser."""
    client = scope.get("client")
    if client is None or not is_loopback(client[0]):
        raise Forbidden("without a key only this machine may call")
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_name_of(host)):
        raise Forbidden("the Host header names another host")  # DNS rebinding
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
        raise Forbidden("the call comes from another site")


def _name_of(host: str) -> str:
    """Return a Host header's name without its port, nothing when it is none."""
    match = _HOST.fullmatch(host)
    return match[1] if match else ""
