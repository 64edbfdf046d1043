"""Signatures by Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, secrets that start `whsec_`."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from functools import lru_cache

_PREFIX = "whsec_"


def new_secret() -> str:
    """Return a fresh secret of 32 random bytes."""
    return _PREFIX + base64.b64encode(os.urandom(32)).decode("ascii")


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature` for a message; `timestamp` is in epoch seconds."""
    code = _keyed(secret).copy()
    code.update(b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body))
    return "v1," + binascii.b2a_base64(code.digest(), newline=False).decode("ascii")


@lru_cache(maxsize=4096)
def _keyed(secret: str) -> hmac.HMAC:
    """Return the start of every signature with a secret: preparing it costs more than the rest."""
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    return hmac.new(key, digestmod="sha256")
