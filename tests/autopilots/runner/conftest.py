"""The parts of a runner that calls nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilots.runner import RunnerParts
from infra.table.sqlite import SqliteTable
from tests.autopilots.runner.parts import runner_parts
from tests.fakes import FakeClock


@pytest.fixture
def parts(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> RunnerParts:
    """Give the parts of a runner without a shell."""
    return runner_parts(table, clock, tmp_path)
