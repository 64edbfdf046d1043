"""The runner beside the books: what they send is what it takes, and what it answers is what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from autopilots.runbooks import load
from autopilots.runner import RunnerParts, pilot
from infra.table.sqlite import SqliteTable
from router.graph import Action
from router.order import order
from tests.autopilots.runner.parts import runner_parts, send
from tests.fakes import FakeClock

RUN = {"id": "run_1", "started_at": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("name", ["sample", "launch"])
def test_every_task_of_a_book_is_one_that_the_runner_takes(name: str) -> None:
    """Each meta fits its form but for templates, which stand for values that are not known yet."""
    taken = 0
    for step in load(name).graph.steps:
        fixes = (fix.action for fix in step.fixes)
        for action in (step.action, step.undo, *step.verify, *fixes):
            if action is None or action.capability not in pilot._offers:
                continue
            taken += 1
            try:
                pilot._offers[action.capability].meta.model_validate(action.meta)
            except ValidationError as error:
                wrong = [one for one in error.errors() if "${" not in str(one["input"])]
                assert wrong == [], (step.id, action.capability)
    assert taken >= {"sample": 10, "launch": 100}[name]


async def _do(parts: RunnerParts, action: Action, params: Any, results: Any, key: str) -> dict[str, Any]:
    assert action.capability is not None
    return await send(parts, action.capability, action.filled(params, results, RUN).meta, key)


async def test_the_sample_book_is_done_and_undone(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """Every step's action, checks and undo work, in order and back; sent again they do nothing twice."""
    parts = runner_parts(table, clock, tmp_path, shell=True)
    book = load("sample")
    params = book.values({"folder": "site", "seconds": "0"})
    results: dict[str, Any] = {}
    steps = {step.id: step for step in book.graph.steps}
    ids = [id_ for id_ in order(book.graph) if steps[id_].action]
    for _ in range(2):
        for id_ in ids:
            action = steps[id_].action
            assert action is not None
            results[id_] = await _do(parts, action, params, results, f"{id_}-1")
            for number, check in enumerate(steps[id_].verify):
                await _do(parts, check, params, results, f"{id_}-1-verify-{number}")
    site = parts.root / "site"
    assert (site / "build.log").read_text() == "built by run_1\n"
    assert "A small site" in (site / "site.txt").read_text()
    for id_ in reversed(ids):
        undo = steps[id_].undo
        if undo is not None:
            await _do(parts, undo, params, results, f"{id_}-undo")
    assert list(site.iterdir()) == []
