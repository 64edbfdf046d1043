"""The parts of an ai-employee that has no mail server, no payment provider and no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilots.ai_employee import EmployeeParts
from infra.table.sqlite import SqliteTable
from tests.autopilots.employee.parts import employee_parts
from tests.fakes import FakeClock


@pytest.fixture
def parts(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> EmployeeParts:
    """Give the parts with an outbox and local checkouts."""
    return employee_parts(table, clock, tmp_path / "blobs")
