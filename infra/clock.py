"""Where time and ids come from. Everything that needs one takes it as an argument."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time` gives them."""

NewId = Callable[[str], str]
"""A fresh unguessable id that starts with the given prefix, such as `lead_…`."""


def new_id(prefix: str) -> str:
    """Return `prefix` + `_` + 24 random hexadecimal digits."""
    return f"{prefix}_{os.urandom(12).hex()}"


def rfc3339(seconds: float) -> str:
    """Return an instant as RFC 3339 in UTC with milliseconds and `Z`."""
    instant = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
