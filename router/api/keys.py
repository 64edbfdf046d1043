"""API keys: create, list, rotate, revoke."""

from __future__ import annotations

import datetime
from typing import Any

from infra.clock import Clock
from router.api.http import Call, Endpoint, Reply, json
from router.auth import Scope
from router.errors import Invalid
from router.keys import MAX_OVERLAP, Keys, parse_scopes

_OVERLAP = 86_400
"""Seconds an old key goes on beside the one it was rotated to, unless told otherwise."""


_FIELDS = ("name", "scopes", "expires_at")


class KeysApi:
    """`/autopilot/keys`, for admins."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [
            Endpoint("GET", "/autopilot/keys", Scope.ADMIN, self.listing),
            Endpoint("POST", "/autopilot/keys", Scope.ADMIN, self.create, "key.create"),
            Endpoint("DELETE", "/autopilot/keys/{id}", Scope.ADMIN, self.revoke, "key.revoke"),
            Endpoint("POST", "/autopilot/keys/{id}/rotate", Scope.ADMIN, self.rotate, "key.rotate"),
        ]

    async def listing(self, call: Call) -> Reply:
        """List keys: who they are and what they may do, never the keys themselves."""
        call.query()
        records = await self._keys.list()
        return json({"keys": records, "count": len(records)})

    async def create(self, call: Call) -> Reply:
        """Create a key, which is shown only now."""
        body = _object(await call.json())
        problems = [
            (field[:64], "is not a known field")
            for field in body
            if field not in {"name", "scopes", "expires_at"}
        ]
        problems += [(field, "is required") for field in ("name", "scopes") if field not in body]
        name = body.get("name", "")
        if not isinstance(name, str):
            problems.append(("name", "must be text"))
        scopes: list[str] = []
        if "scopes" in body:
            try:
                scopes = parse_scopes(body["scopes"])
            except Invalid as error:
                problems += error.problems
        ends = _instant(body.get("expires_at"), problems)
        if problems:
            raise Invalid(problems)
        key, record = await self._keys.create(name, scopes, expires_at=ends)
        call.note(record["id"], name=name, scopes=scopes)
        return json({"ok": True, "key": key, "record": record}, 201)

    async def rotate(self, call: Call) -> Reply:
        """Replace a key by a new one, which is shown only now; the old one goes on for a while."""
        body = _object(await call.json_or_nothing())
        overlap = body.get("overlap_seconds", _OVERLAP)
        problems = [(field[:64], "is not a known field") for field in body if field != "overlap_seconds"]
        number = isinstance(overlap, int | float) and not isinstance(overlap, bool)
        if not (number and 0 <= overlap <= MAX_OVERLAP and overlap == int(overlap)):
            problems.append(("overlap_seconds", f"must be a whole number from 0 to {MAX_OVERLAP:.0f}"))
        if problems:
            raise Invalid(problems)
        key, record = await self._keys.rotate(call.path("id"), overlap=float(overlap))
        call.note(call.path("id"), name=record["name"], rotated_to=record["id"])
        return json({"ok": True, "key": key, "record": record}, 201)

    async def revoke(self, call: Call) -> Reply:
        """End a key now."""
        await self._keys.revoke(call.path("id"))
        call.note(call.path("id"))
        return Reply(204, b"")


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Invalid([("body", "must be an object")])
    return body


def _instant(value: object, problems: list[tuple[str, str]]) -> float | None:
    """Return a time in epoch seconds, None for none, noting when it is no RFC 3339 time."""
    if value is None:
        return None
    try:
        instant = datetime.datetime.fromisoformat(value if isinstance(value, str) else "")
        if instant.tzinfo is not None:
            return instant.timestamp()
    except (ValueError, OverflowError):
        pass
    problems.append(("expires_at", "must be a time such as 2027-01-31T00:00:00Z"))
    return None
