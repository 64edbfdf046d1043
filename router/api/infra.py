"""Infrastructure: see how it is, create what is missing, run a self-heal pass now."""

from __future__ import annotations

from typing import Any

from infra.clock import Clock, rfc3339
from infra.provider import KINDS, Diagnosis, Inventory, Provider, Unread, unread, wants
from infra.redact import Redactor
from router.api.http import Call, Endpoint, Reply, json
from router.api.once import Once
from router.auth import Scope
from router.errors import AutopilotError, Invalid
from router.fields import Fields, list_of, text, truth
from router.heal import Healer, shown
from router.needs import MAX_NEEDS, needs_of

_SECONDS = 120.0


class InfraApi:
    """`/autopilot/diagnose`, `/autopilot/ensure-infra` and `/__scheduled`."""

    def __init__(
        self, healer: Healer, provider: Provider, clock: Clock, once: Once, redactor: Redactor
    ) -> None:
        self._once = once
        self._healer = healer
        self._provider = provider
        self._clock = clock
        self._redactor = redactor

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [
            Endpoint("GET", "/autopilot/diagnose", Scope.READ, self.diagnose),
            Endpoint("POST", "/autopilot/ensure-infra", Scope.OPERATE, self.ensure, "infra.ensure"),
            Endpoint("POST", "/__scheduled", Scope.OPERATE, self.scheduled, "infra.heal"),
        ]

    async def diagnose(self, call: Call) -> Reply:
        """Show the token, what it may do, what exists, and what differs from what is needed."""
        probe_writes = call.query("probe_writes").get("probe_writes", "false")
        if probe_writes not in {"true", "false"}:
            raise Invalid([("probe_writes", "must be true or false")])
        found = await self._provider.inventory()
        told = await self._provider.diagnose(found, probe_writes=probe_writes == "true")
        answer = {
            "provider": self._provider.name,
            "token": self._readable(told.token),
            "permissions": self._permissions(told),
            "missing": list(told.missing),
            "resources": {kind: self._readable(part) for kind, part in shown(found).items()},
            "drift": await self._drift(found),
            **{name: text for name in ("link", "note") if (text := getattr(told, name))},
            "timestamp": rfc3339(self._clock()),
        }
        parts = [answer["token"], answer["permissions"], *answer["resources"].values(), answer["drift"]]
        read = sum(not _is_unread(part) for part in parts)
        return json(answer, 200 if read == len(parts) else 207 if read else 502)

    async def ensure(self, call: Call) -> Reply:
        """Create what is missing of `want`, or of all that registered autopilots need."""
        body = await call.json_or_nothing()
        if not isinstance(body, dict):
            raise Invalid([("body", "must be an object")])
        fields = Fields(body)
        dry_run = fields.take("dry_run", default=False, check=truth)
        meant = fields.take("meant", [], lambda value: list_of(value, MAX_NEEDS) or _texts(value))
        want = fields.left.pop("want", None)
        wanted = None if want is None else list(wants(needs_of(want, fields, "want")))
        fields.close()
        if fields.problems:
            raise Invalid(fields.problems)

        async def work() -> Reply:
            report = await self._healer.ensure(wanted, dry_run=dry_run, meant=meant)
            call.note("infrastructure", changed=not dry_run, created=report.document()["created"])
            return json(report.document(), 200 if report.ok else 502)

        return await self._once.answer(call, "ensure-infra", body, seconds=_SECONDS, work=work)

    async def scheduled(self, call: Call) -> Reply:
        """Run one self-heal pass now."""
        call.query()
        report = await self._healer.heal()
        return json(report, 200 if report["ok"] else 502)

    async def _drift(self, found: Inventory) -> Any:
        if len(found.unread) == len(KINDS):
            return self._readable(next(iter(found.unread.values())))
        try:
            return await self._healer.drift(found)
        except AutopilotError as error:
            return self._readable(unread(error))

    def _permissions(self, told: Diagnosis) -> Any:
        if isinstance(told.permissions, Unread):
            return self._readable(told.permissions)
        return [self._redactor.value(one._asdict()) for one in told.permissions]

    def _readable(self, part: Any) -> Any:
        """Return a part, or what stands in its place when it could not be read, without secrets."""
        return self._redactor.value({"error": part._asdict()}) if isinstance(part, Unread) else part


def _is_unread(part: Any) -> bool:
    return isinstance(part, dict) and "error" in part


def _texts(values: list[Any]) -> str | None:
    return None if all(text(128)(value) is None for value in values) else "must be a list of names"
