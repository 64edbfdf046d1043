"""How this process is: for load balancers, scripts and people."""

from __future__ import annotations

from infra.clock import Clock, rfc3339
from infra.table import Table
from router import __version__
from router.api.http import Call, Endpoint, Reply, json
from router.auth import Scope
from router.errors import AutopilotError


class StatusApi:
    """`/health` and `/ready`."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._started = clock()

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [
            Endpoint("GET", "/health", Scope.PUBLIC, self.health),
            Endpoint("GET", "/ready", Scope.PUBLIC, self.ready),
        ]

    async def health(self, _: Call) -> Reply:
        """Say whether the store answers, and since when this process runs."""
        now = self._clock()
        trouble = await self._trouble()
        document = {
            "status": "unhealthy" if trouble else "healthy",
            "service": "autopilot-orchestrator",
            "version": __version__,
            "uptime": round(now - self._started, 3),
            "timestamp": rfc3339(now),
            "store": self._table.kind,
        }
        if trouble:
            document["reason"] = trouble
        return json(document, 503 if trouble else 200)

    async def ready(self, _: Call) -> Reply:
        """Say whether tasks can be planned."""
        trouble = await self._trouble()
        return json({"ready": False, "reason": trouble}, 503) if trouble else json({"ready": True})

    async def _trouble(self) -> str | None:
        try:
            await self._table.get(("health", "check"))
        except AutopilotError as error:
            return error.title  # the detail may name hosts and paths, and this answer is public
        return None
