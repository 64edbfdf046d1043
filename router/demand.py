"""Everything that registered autopilots need, with who needs it."""

from __future__ import annotations

from infra.plan import Demand, union
from infra.provider import Want, wants
from router.registry import Registry


async def demanded(registry: Registry) -> list[Demand]:
    """Return the union of all needs, read to the last registration. Raises `StoreUnavailable`."""
    claims: list[tuple[str, Want]] = []
    after: str | None = None
    while True:
        records, after = await registry.page(after=after, limit=500)
        for record in records:
            claims += [(record.autopilot.name, want) for want in wants(record.autopilot.needs)]
        if after is None:
            return union(claims)
