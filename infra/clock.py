"""Where time and ids come from. Everything that needs one takes it as an argument."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time` gives them."""

NewId = Callable[[str], str]
"""A fresh unguessable id that starts with the given prefix, such as `lead_…`."""


_BLOCK = 4096


class _Randomness:
    """Random bytes drawn from the system a block at a time: a system call for each id would be a tenth of
    what a plan costs. A forked child starts with a block of its own."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Throw away what is left of the block."""
        self._block = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return `size` random bytes, no byte ever twice."""
        at = self._at
        if at + size > len(self._block):
            self._block = os.urandom(_BLOCK)
            at = 0
        self._at = at + size
        return self._block[at : at + size]


randomness = _Randomness()
"""For ids. Secrets are drawn from the system directly."""


def new_id(prefix: str) -> str:
    """Return `prefix` + `_` + 24 random hexadecimal digits."""
    return f"{prefix}_{randomness.take(12).hex()}"


def rfc3339(seconds: float) -> str:
    """Return an instant as RFC 3339 in UTC with milliseconds and `Z`."""
    instant = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
