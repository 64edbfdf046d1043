"""Ids that make a repeated delivery of a task find what the first one made."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from autopilots.kit import Call

DAY = 86_400
"""Seconds."""


def digest(*texts: str) -> str:
    """Return a hash of the texts (64 hexadecimal digits): a sort key of bounded length."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(value: Any) -> str:
    """Return a hash of a JSON value that does not depend on the order of its members."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def id_for(call: Call[Any], prefix: str) -> str:
    """Return the id of what this call makes: the same for every delivery of the same task.

    A call without an idempotency key cannot be told from another one, so it gets a fresh id.
    """
    if not call.idempotency_key:
        fresh: str = call.parts.new_id(prefix)
        return fresh
    return f"{prefix}_{digest(call.capability, call.idempotency_key)[:24]}"
