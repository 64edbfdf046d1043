"""Shared fixtures: a clock that stands still, ids that count, and a table in a temporary file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock

# The same examples every time and no clock: a change is judged by what it does, not by luck or load.
settings.register_profile("exact", derandomize=True, deadline=None)
settings.load_profile("exact")


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the only loop the product supports."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that moves only when told to."""
    return FakeClock()


@pytest.fixture
async def table(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteTable]:
    """Give a real table in a temporary SQLite file."""
    opened = SqliteTable(tmp_path / "table.db", clock)
    yield opened
    await opened.close()
