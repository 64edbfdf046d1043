"""What the tests of the ai-employee share: its parts, and a way to send it a task."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx

from autopilots.ai_employee import EmployeeParts, pilot
from autopilots.ai_employee.checkouts import Checkouts, LocalCheckouts
from autopilots.ai_employee.mail import Mail, OutboxMail
from infra.model import Model
from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock, FakePlan, parts_for


def employee_parts(
    table: SqliteTable,
    clock: FakeClock,
    folder: Path,
    *,
    mail: Mail | None = None,
    checkouts: Checkouts | None = None,
    model: Model | None = None,
    plan: Any = None,
) -> EmployeeParts:
    """Give the parts: an outbox and local checkouts unless told otherwise."""
    plain = parts_for(table, clock, folder)
    known = {one.name: getattr(plain, one.name) for one in fields(plain)}
    known |= {"plan": plan or FakePlan(), "model": model or plain.model}
    return EmployeeParts(
        **known,
        mail=mail or OutboxMail(plain.blobs, "School <office@school.example>"),
        checkouts=checkouts or LocalCheckouts(table, clock),
    )


async def send(
    parts: EmployeeParts, capability: str, meta: Any, key: str = "", *, status: int = 200
) -> dict[str, Any]:
    """Send a task through the ASGI app and return the answer, which must have that status."""
    transport = httpx.ASGITransport(app=pilot.app(parts), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pilot.test") as client:
        answer = await client.post(
            "/tasks",
            json={"task": "t", "capability": capability, "meta": meta},
            headers={"idempotency-key": key} if key else {},
        )
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def wrong_fields(problem: dict[str, Any]) -> set[str]:
    """Return the fields that a 422 names."""
    return {one["field"] for one in problem["errors"]}
