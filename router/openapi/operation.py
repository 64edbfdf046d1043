"""What can be said of an operation, and what many of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.openapi.grammar import Json


@dataclass(frozen=True)
class Operation:
    """What an endpoint takes and answers.

    `answers` holds component schemas by status, an empty name for no body; `codes` are those of its
    problems, beside those of every operation that needs a key. `headers` and `links` are by status.
    """

    id: str
    tag: str
    answers: Mapping[int, str]
    codes: tuple[str, ...] = ()
    body: str = ""
    """The component schema of the body, empty for none."""
    body_required: bool = True
    parameters: tuple[Json, ...] = ()
    headers: Mapping[int, Json] = field(default_factory=dict)
    links: Mapping[int, Json] = field(default_factory=dict)
    description: str = ""
    streams: bool = False
    """Whether a success may also be sent as server-sent events."""
    passed_on: str = ""
    """The component schema of a 4xx that somebody else answered, empty where there is none."""


STORE = "store_unavailable"
PARAMETERS = ("invalid_body",)
BODY = ("invalid_body", "malformed", "media_type", "too_large")
ONCE = ("conflict",)  # while the first call with an idempotency key is running
WITH_KEY = ("unauthenticated", "forbidden", "rate_limited", "overloaded")


def query(name: str, schema: Json, description: str) -> Json:
    """Return a parameter of the query."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


LIMIT = query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "At most so many.")
