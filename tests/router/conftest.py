"""The router's inner parts, put together on the table of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock
from tests.router.parts import Core, core


@pytest.fixture
async def parts(table: SqliteTable, clock: FakeClock) -> AsyncIterator[Core]:
    """Give the parts on a real table, with a fake provider and scripted autopilots."""
    put_together = core(table, clock)
    yield put_together
    put_together.table.down = False
    await put_together.journal.flush()
