"""Asks what to do about a step that failed, as often as a run may, and keeps what is decided."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from infra.redact import Redactor
from router.diagnosis import Decision, Heal, SchemaOf, StepFailed, adjusting, ask, refusal
from router.draft import INFO, Draft
from router.record import Record
from router.run import MOST_DIAGNOSES, Run
from router.runrows import RunRows
from router.runsend import Failure
from router.runwrites import RunWrites


class Diagnosing:
    """Asks whoever diagnoses failures, if there is anybody."""

    def __init__(
        self, rows: RunRows, writes: RunWrites, redactor: Redactor, heal: Heal | None, schema_of: SchemaOf
    ) -> None:
        self._rows = rows
        self._writes = writes
        self._redactor = redactor
        self._heal = heal
        self._schema_of = schema_of

    async def decision(self, run: Run, record: Record, failure: Failure) -> Decision | None:
        """Return what is said about a failure that may be followed, None for nothing.

        That somebody is asked is written first: it must not be asked more often for having died over it.
        """
        if self._heal is None or not await self._reserve(run.id):
            return None
        charter = await self._rows.charter(run)
        step = charter.graph.steps[record.number]
        schema = await self._schema_of(step.action) if step.action else None
        question = StepFailed(
            run=run.id,
            step=step.id,
            title=step.title,
            description=step.description,
            action=step.action,
            attempts=record.attempts,
            attempts_left=record.allowed - record.attempts,
            error=failure.error,
            output=failure.output,
            fixes=step.fixes,
            optional=step.optional,
            adjustable=adjusting(schema),
        )
        decision = await ask(self._heal, question)
        if decision is None:
            return None
        if why := refusal(decision, question):
            return Decision("retry", f"refused, because {why}: {decision.reason}"[:500], free=decision.free)
        return decision

    async def _reserve(self, run_id: str) -> bool:
        """Count one more diagnosis, unless there were as many as there may be."""
        granted = False

        async def edit(draft: Draft) -> None:
            nonlocal granted
            granted = draft.run.diagnoses < MOST_DIAGNOSES
            if granted:
                draft.change(diagnoses=draft.run.diagnoses + 1)

        await self._writes.change(run_id, edit)
        return granted

    def keep(self, draft: Draft, record: Record, decision: Decision) -> Record:
        """Keep a decision, before anything is done by it."""
        shown = self._redactor.value(msgspec.to_builtins(decision))
        shown["reason"] = shown.get("reason", "")[:500]
        if decision.free:
            draft.change(diagnoses=draft.run.diagnoses - 1)
        draft.tell("step.diagnosed", INFO, record, decision=shown)
        kept = {**shown, "attempt": record.attempts}
        return replace(record, decisions=(*record.decisions, kept)[-10:])
