"""Stand-ins behind the product's own ports: real classes, no patching."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilots.kit import Answered, Parts
from infra.blobs.folder import FolderBlobs
from infra.model import Offline
from infra.table.sqlite import SqliteTable

START = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class CountingIds:
    """Ids that count: `lead_1`, `lead_2`, …"""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.count}"


class FakePlan:
    """A planner that keeps what it was asked and gives one answer."""

    def __init__(self, answer: Answered | None = None) -> None:
        self.answer = answer or Answered(ok=True, status=200, autopilot="fake", result={})
        self.calls: list[tuple[str, dict[str, Any], str]] = []

    async def __call__(self, task: str, meta: Mapping[str, Any], *, idempotency_key: str) -> Answered:
        self.calls.append((task, dict(meta), idempotency_key))
        return self.answer


def parts_for(table: SqliteTable, clock: FakeClock, folder: Path) -> Parts:
    """Give the parts of an autopilot: a real table and folder, no model, counting ids."""
    return Parts(
        table=table,
        blobs=FolderBlobs(folder),
        model=Offline(),
        clock=clock,
        new_id=CountingIds(),
        public_url="http://router.test",
        plan=FakePlan(),
    )
