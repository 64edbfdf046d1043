"""Infrastructure: see how it is, create what is missing, run a self-heal pass now."""

from __future__ import annotations

from typing import Any

from infra.clock import Clock, rfc3339
from infra.former import Provider, wants
from infra.redact import Redactor
from router.api.http import Call, Endpoint, Reply, json
from router.api.once import Once
from router.auth import Scope
from router.errors import AutopilotError, Invalid
from router.heal import Healer, shown
from router.needs import parse_needs

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
            Endpoint("POST", "/autopilot/ensure-infra", Scope.OPERATE, self.ensure),
            Endpoint("POST", "/__scheduled", Scope.OPERATE, self.scheduled),
        ]

    async def diagnose(self, call: Call) -> Reply:
        """Show the token, what it may do, what exists, and what differs from what is needed."""
        call.query()
        answer: dict[str, Any] = {"provider": self._provider.name}
        failed = 0
        try:
            answer.update(await self._provider.diagnose())
        except AutopilotError as error:
            failed += 1
            answer["token"] = self._unread(error)
        try:
            inventory = await self._provider.inventory()
            answer["resources"] = shown(inventory)
            answer["drift"] = await self._healer.drift(inventory)
        except AutopilotError as error:
            failed += 1
            answer["resources"] = answer["drift"] = self._unread(error)
        answer["timestamp"] = rfc3339(self._clock())
        return json(answer, (200, 207, 502)[failed])

    async def ensure(self, call: Call) -> Reply:
        """Create what is missing of `want`, or of all that registered autopilots need."""
        body = await call.json_or_nothing()
        if not isinstance(body, dict):
            raise Invalid([("body", "must be an object")])
        problems = [(name[:64], "is not a known field") for name in body if name not in {"want", "dry_run"}]
        dry_run = body.get("dry_run", False)
        if not isinstance(dry_run, bool):
            problems.append(("dry_run", "must be true or false"))
        wanted = None
        if body.get("want") is not None:
            try:
                wanted = list(wants(parse_needs(body["want"], "want")))
            except Invalid as error:
                problems += error.problems
        if problems:
            raise Invalid(problems)

        async def work() -> Reply:
            report = await self._healer.ensure(wanted, dry_run=dry_run)
            call.changed = not dry_run
            call.note("infrastructure", created=report.document()["created"])
            return json(report.document(), 200 if report.ok else 502)

        return await self._once.answer(call, "ensure-infra", body, seconds=_SECONDS, work=work)

    async def scheduled(self, call: Call) -> Reply:
        """Run one self-heal pass now."""
        call.query()
        report = await self._healer.heal()
        return json(report, 200 if report["ok"] else 502)

    def _unread(self, error: AutopilotError) -> dict[str, Any]:
        """Return what stands in the place of what could not be read."""
        return {
            "error": {"code": error.code, "message": self._redactor.text(error.detail), "hint": error.title}
        }
