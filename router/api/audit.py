"""The audit: what was changed, by whom."""

from __future__ import annotations

from typing import Any

from infra.table import Document, Table
from router.api.http import Call, Endpoint, Reply, json, limit_of
from router.audit import is_id, records
from router.auth import Scope
from router.errors import Invalid


class AuditApi:
    """`/autopilot/audit`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [Endpoint("GET", "/autopilot/audit", Scope.OPERATE, self.listing)]

    async def listing(self, call: Call) -> Reply:
        """List audit records, oldest first."""
        query = call.query("after", "limit")
        problems: list[tuple[str, str]] = []
        limit = limit_of(query, problems)
        after = query.get("after")
        if after is not None and not is_id(after):
            problems.append(("after", "must be the 'next' of an earlier page, or the id of a record"))
        if problems:
            raise Invalid(problems)
        found, following = await records(self._table, after=after, limit=limit)
        return json({"events": [_event(record) for record in found], "next": following})


def _event(record: Document) -> dict[str, Any]:
    """Return a record as the event that it is."""
    return {
        "id": record["id"],
        "type": record["action"],
        "source": record["actor"],
        "timestamp": record["at"],
        "payload": {"target": record["target"], **record["detail"]},
        "trace_id": record["trace_id"],
    }
