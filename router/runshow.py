"""How runs are shown: in short, step by step, and as one document with everything that is known."""

from __future__ import annotations

from typing import Any

from infra.redact import Redactor
from router.order import order
from router.record import STATES, Mark, Record
from router.run import Charter, Run, State
from router.runrows import RunRows

_OVER = frozenset({Mark.COMPLETED, Mark.SKIPPED, Mark.FAILED, Mark.UNDONE})


class RunShow:
    """Shows runs, without secrets. Each verb raises `Conflict` when what a run was started with is gone."""

    def __init__(self, rows: RunRows, redactor: Redactor) -> None:
        self._rows = rows
        self._redactor = redactor

    async def shown(self, run: Run) -> dict[str, Any]:
        """Return a run as the API shows it, with the phase it is in, without secrets."""
        charter = await self._rows.charter(run)
        document = {**run.document(), "phase": phase_of(run, charter)}
        shown: dict[str, Any] = self._redactor.value(document)
        return shown

    async def steps(self, run: Run) -> list[dict[str, Any]]:
        """Return what is to be seen of all steps, in the graph's order."""
        charter = await self._rows.charter(run)
        records = await self._rows.records(run.id)
        shown = []
        for number, step in enumerate(charter.graph.steps):
            record = records.get(number) or Record(
                id=step.id, number=number, allowed=step.attempts, state=STATES[run.marks[number]]
            )
            document = {
                "title": step.title,
                "phase": step.phase,
                "priority": step.priority,
                "needs": list(step.needs),
                "estimated_minutes": step.estimated_minutes,
                "optional": step.optional,
            }
            shown.append({**record.document(), **document})
        return shown

    async def export(self, run: Run) -> dict[str, Any]:
        """Return the whole of a run as one document, with the fields that the seed's state file has."""
        charter = await self._rows.charter(run)
        shown = await self.shown(run)
        steps = await self.steps(run)
        secret = {"graph": charter.graph.document(), "params": charter.params}
        return {
            "goal": shown["goal"],
            "tasks": steps,
            "completedTasks": shown["completed"],
            "totalTasks": shown["total"],
            "overallProgress": shown["progress"],
            "currentPhase": shown["phase"],
            "isAutonomous": run.autonomous,
            "confidence": shown["confidence"],
            "logs": await self._rows.log(run.id),
            "isRunning": run.state in {State.RUNNING, State.PAUSING, State.STOPPING, State.ROLLING_BACK},
            "lastUpdated": shown["updated_at"],
            "run": shown,
            **self._redactor.value(secret),
        }


def phase_of(run: Run, charter: Charter) -> str:
    """Return the phase of the first step that is under way, else of the first that is to come, else empty."""
    steps = charter.graph.steps
    if Mark.ACTIVE in run.marks:
        return steps[run.marks.index(Mark.ACTIVE)].phase
    for id_ in order(charter.graph):
        if run.marks[charter.number(id_)] not in _OVER:
            return steps[charter.number(id_)].phase
    return ""
