"""Registrations: create, change, list, remove, keep alive."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from infra.clock import rfc3339
from infra.outbound import Guard, OwnEndpoint, parse_url
from router.api.http import Call, Endpoint, Reply, json, limit_of
from router.api.once import Once
from router.auth import Scope
from router.catalogue import Catalogue
from router.errors import EndpointRefused, Forbidden, Invalid, NotFound, Stale
from router.fields import Fields
from router.health import HealthBook, State
from router.keys import MAX_OVERLAP
from router.model import Autopilot, is_capability, is_name
from router.parse import parse_autopilot
from router.probe import Prober
from router.registry import Record, Registry

_RESOLVE_SECONDS = 2.0
_SECONDS = 30.0
_OVERLAP = 86_400
"""Seconds an old signing secret goes on beside the new one, unless told otherwise."""


class RegistryApi:
    """`/autopilot/registry` and `/autopilot/list`. `local` names the autopilots of this process."""

    def __init__(
        self,
        registry: Registry,
        catalogue: Catalogue,
        health: HealthBook,
        prober: Prober,
        guard: Guard,
        local: Collection[str],
        once: Once,
    ) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._health = health
        self._prober = prober
        self._guard = guard
        self._local = local
        self._once = once

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        one = "/autopilot/registry/{name}"
        return [
            Endpoint("POST", "/autopilot/registry", Scope.REGISTER, self.register, "autopilot.register"),
            Endpoint("GET", "/autopilot/list", Scope.READ, self.listing),
            Endpoint("GET", one, Scope.READ, self.get),
            Endpoint("DELETE", one, Scope.REGISTER, self.delete, "autopilot.delete"),
            Endpoint("POST", f"{one}/heartbeat", Scope.REGISTER, self.heartbeat),
            Endpoint("GET", f"{one}/health", Scope.READ, self.health),
            Endpoint("POST", f"{one}/secret", Scope.REGISTER, self.rotate, "secret.rotate"),
        ]

    async def register(self, call: Call) -> Reply:
        """Create or replace a registration."""
        body = await call.json()
        autopilot = parse_autopilot(body)
        _check_allowed(call, autopilot.name)
        call.revision()  # what is none is refused, though the call repeat one that was answered
        return await self._once.answer(
            call, "registry", body, seconds=_SECONDS, work=lambda: self._register(call, autopilot)
        )

    async def _register(self, call: Call, autopilot: Autopilot) -> Reply:
        revision = await self._condition(call, autopilot.name)
        warnings = await _check_endpoint(autopilot.endpoint, self._guard, self._local)
        await self._catalogue.check(autopilot)
        record, created = await self._registry.put(autopilot, if_revision=revision)
        self._health.forget(autopilot.name)
        self._prober.soon(record)
        call.note(autopilot.name, endpoint=autopilot.endpoint, revision=record.revision)
        answer: dict[str, Any] = {
            "ok": True,
            "autopilot": self._shown(record),
            "message": f"Autopilot '{autopilot.name}' registered successfully",
        }
        if warnings:
            answer["warnings"] = warnings
        if created:
            # Shown once: with it the autopilot checks that a task really comes from this router.
            answer["signing_secret"] = record.secret
        return json(answer, 201 if created else 200, _etag(record))

    async def listing(self, call: Call) -> Reply:
        """List registrations by name, a page at a time."""
        query = call.query("capability", "health", "limit", "cursor")
        limit, capability, health = _list_query(query)
        shown: list[dict[str, Any]] = []
        after = query.get("cursor") or None
        while True:
            records, after = await self._registry.page(after=after, limit=limit, capability=capability)
            for record in records:
                row = self._shown(record)
                if health is None or row["health"] == health:
                    shown.append(row)
                    if len(shown) == limit:
                        more = after is not None or record is not records[-1]
                        after = record.autopilot.name if more else None
                        return json({"autopilots": shown, "count": len(shown), "next": after})
            if after is None:
                return json({"autopilots": shown, "count": len(shown), "next": None})

    async def get(self, call: Call) -> Reply:
        """Show one registration."""
        record = await self._record(call)
        return json({"ok": True, "autopilot": self._shown(record)}, headers=_etag(record))

    async def delete(self, call: Call) -> Reply:
        """Remove a registration."""
        name = _name(call)
        _check_allowed(call, name)
        await self._registry.delete(name, if_revision=call.revision())
        self._health.forget(name)
        return Reply(204, b"")

    async def heartbeat(self, call: Call) -> Reply:
        """Renew a lease."""
        name = _name(call)
        _check_allowed(call, name)
        until = await self._registry.heartbeat(name)
        return json({"ok": True, "lease_until": rfc3339(until) if until else None})

    async def rotate(self, call: Call) -> Reply:
        """Give an autopilot a new signing secret, shown only now; the old one goes on for a while."""
        name = _name(call)
        _check_allowed(call, name)
        fields = Fields(await call.json_or_nothing())
        overlap = fields.whole("overlap_seconds", _OVERLAP, 0, int(MAX_OVERLAP))
        fields.close()
        if fields.problems:
            raise Invalid(fields.problems)
        # Not under an idempotency key, with which the secret would be kept: whoever lost it rotates again.
        record, until = await self._registry.rotate(name, overlap=overlap)
        call.note(call.path("name"), overlap_seconds=overlap)
        answer = {
            "ok": True,
            "autopilot": name,
            "signing_secret": record.secret,
            "previous_until": rfc3339(until),
        }
        return json(answer, 201, _etag(record))

    async def health(self, call: Call) -> Reply:
        """Ask one autopilot how it is, now."""
        record = await self._record(call)
        await self._prober.probe(record)
        state = self._health.of(record.autopilot.name).state()
        return json({"status": state.value, "autopilot": record.autopilot.name})

    async def _record(self, call: Call) -> Record:
        name = _name(call)
        record = await self._registry.get(name)
        if record is None:
            raise _not_registered(name)
        return record

    async def _condition(self, call: Call, name: str) -> int | None:
        """Return the revision a registration must be at, None for any. Raises `Invalid` and `Stale`."""
        if not call.must_exist():
            return call.revision()
        record = await self._registry.get(name)
        if record is None:
            raise Stale(f"no autopilot is registered as '{name}'")
        return record.revision

    def _shown(self, record: Record) -> dict[str, Any]:
        return record.document(self._health.of(record.autopilot.name).state().value)


async def _check_endpoint(endpoint: str, guard: Guard, local: Collection[str]) -> list[str]:
    """Return warnings about an endpoint that may be called. Raises `EndpointRefused`."""
    scheme, _, name = endpoint.partition(":")
    if scheme == "local":
        if name not in local:
            raise EndpointRefused(f"no built-in autopilot is called '{name[:64]}'")
        return []
    if scheme == "lambda":
        raise EndpointRefused("lambda: endpoints can be called on AWS only")
    url = parse_url(endpoint)
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            await guard.addresses(url)
    except OwnEndpoint:
        return ["this is the router itself, which it never calls: tasks will fail"]
    except OSError:
        return [f"{url.host} does not resolve yet: tasks will fail until it does"]
    return []


def _name(call: Call) -> str:
    """Return the autopilot a path names. Raises `NotFound` for what is no name."""
    name = call.path("name")
    if not is_name(name):
        raise _not_registered(name)
    return name


def _not_registered(name: str) -> NotFound:
    return NotFound(f"no autopilot is registered as '{name[:64]}'")


def _check_allowed(call: Call, name: str) -> None:
    if not call.identity.may_register(name):
        lacks = f"this key lacks the scope 'register:{name}'"
        raise Forbidden(lacks, actor=call.identity.name, scope=f"register:{name}")


def _list_query(query: dict[str, str]) -> tuple[int, str | None, str | None]:
    problems: list[tuple[str, str]] = []
    limit = limit_of(query, problems)
    capability = query.get("capability")
    if capability is not None and not is_capability(capability):
        problems.append(("capability", "must be 2 to 6 dotted lower-case words"))
    states = [state.value for state in State]
    if query.get("health", states[0]) not in states:
        problems.append(("health", f"must be one of {', '.join(states)}"))
    if query.get("cursor") and not is_name(query["cursor"]):
        problems.append(("cursor", "must be the 'next' of an earlier page"))
    if problems:
        raise Invalid(problems)
    return limit, capability, query.get("health")


def _etag(record: Record) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"etag", b'"%d"' % record.revision),)
