"""Keeps what registered autopilots need in existence: on demand, and in one pass over all of them."""

from __future__ import annotations

from typing import Any

from infra.clock import Clock, NewId, rfc3339
from infra.former import Provider, Report, Resource, Want, by_kind, ensure, wants
from infra.redact import Redactor
from infra.table import Table, claim, release
from router.errors import Conflict
from router.registry import Registry

_LEASE = ("lease", "#heal")
_LEASE_SECONDS = 300.0
_PASSES = "heal"
_KEEP_SECONDS = 90 * 86_400


class Healer:
    """Compares what is needed with what there is, and creates what is missing."""

    def __init__(
        self,
        registry: Registry,
        provider: Provider,
        table: Table,
        *,
        clock: Clock,
        new_id: NewId,
        redactor: Redactor,
    ) -> None:
        self._registry = registry
        self._provider = provider
        self._table = table
        self._clock = clock
        self._new_id = new_id
        self._redactor = redactor

    async def needed(self) -> dict[Want, list[str]]:
        """Return everything registered autopilots need, each with the names of those who need it."""
        needed: dict[Want, list[str]] = {}
        after: str | None = None
        while True:
            records, after = await self._registry.page(after=after, limit=500)
            for record in records:
                for want in wants(record.autopilot.needs):
                    needed.setdefault(want, []).append(record.autopilot.name)
            if after is None:
                return needed

    async def ensure(self, wanted: list[Want] | None, *, dry_run: bool) -> Report:
        """Create what is missing of `wanted`, or of everything needed when it is None."""
        if wanted is None:
            wanted = list(await self.needed())
        report = await ensure(self._provider, wanted, dry_run=dry_run)
        # What a provider said is shown, and kept for months.
        report.errors = self._redactor.value(report.errors)
        return report

    async def heal(self) -> dict[str, Any]:
        """Run one pass over everything needed and keep its report. Raises `Conflict` while another runs."""
        owner = self._new_id("heal")
        lease = await claim(self._table, self._clock, _LEASE, owner, _LEASE_SECONDS)
        if lease is None:
            raise Conflict("another pass is running")
        try:
            started = self._clock()
            report = await self.ensure(None, dry_run=False)
            document = {"id": owner, "timestamp": rfc3339(started), **report.document()}
            kept = {key: value for key, value in document.items() if key != "skipped"}
            # What was left as it is would fill the store: nearly everything, four times an hour.
            kept["plan"] = [action for action in document["plan"] if action["action"] != "keep"]
            await self._table.put(
                (_PASSES, f"{int(started * 1000):013d}-{owner}"), kept, expires_at=started + _KEEP_SECONDS
            )
            return document
        finally:
            await release(self._table, lease)

    async def drift(self, inventory: list[Resource]) -> dict[str, Any]:
        """Return what is needed but missing, and what exists but nobody needs."""
        needed = await self.needed()
        there = {(one.kind, one.name) for one in inventory}
        names = {(want.kind, want.name) for want in needed}
        missing = [
            {"kind": want.kind, "name": want.name, "needed_by": by}
            for want, by in needed.items()
            if (want.kind, want.name) not in there
        ]
        unmanaged = [
            {"kind": one.kind, "name": one.name} for one in inventory if (one.kind, one.name) not in names
        ]
        return {"missing": missing, "unmanaged": unmanaged}


def shown(inventory: list[Resource]) -> dict[str, Any]:
    """Return an inventory in the spelling of the seed's diagnose."""
    kinds = by_kind(inventory)
    return {
        "kv": [{"id": one["id"], "title": one["name"]} for one in kinds["kv"]],
        "r2": [{"name": one["name"]} for one in kinds["r2"]],
        "workers": [one["name"] for one in kinds["workers"]],
        "d1": [{"id": one["id"], "name": one["name"]} for one in kinds["d1"]],
        "queues": [{"id": one["id"], "name": one["name"]} for one in kinds["queues"]],
    }
