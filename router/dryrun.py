"""How a run would go, with nothing done: its order, its times, and what is missing for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from router.errors import AutopilotError, Forbidden, Invalid
from router.graph import Action, Graph, Step
from router.order import critical_path, order, schedule, subgraph
from router.planner import Caller
from router.record import Mark
from router.runrequest import RunRequest
from router.runsend import Plans, request_of
from router.template import Reference, references

_STAND_IN = {"id": "run_000000000000_dry", "started_at": "1970-01-01T00:00:00.000Z"}


class DryRun:
    """Tells how runs would go, by what the planner explains: nothing is sent, nothing is written."""

    def __init__(self, planner: Plans) -> None:
        self._planner = planner

    async def check_allowed(self, graph: Graph, caller: Caller) -> None:
        """Raise `Forbidden` when a caller may not plan one of a graph's tasks, as far as is known now."""
        for action in _different(graph):
            try:
                await self._planner.explain(request_of(_bare(action)), caller)
            except Forbidden:
                raise
            except AutopilotError:
                continue  # whoever can do it may come while the run is under way

    async def plan(self, request: RunRequest, marks: str, caller: Caller) -> dict[str, Any]:
        """Return the plan of a run: `order`, `starts` and `minutes` by the estimates, `critical_path`.

        `missing` has what stands against it: capabilities that nobody offers, tasks that nobody knows or this
        caller may not plan, metas that would be refused, and results of steps that are left out. Which of
        the variables in `environment` are set only the autopilot that runs the step can say.
        """
        kept = {
            step.id for step, mark in zip(request.graph.steps, marks, strict=True) if mark == Mark.PENDING
        }
        graph = subgraph(request.graph, only=kept)
        minutes, way = critical_path(graph)
        timed = schedule(graph, request.max_parallel)
        environment: dict[str, list[str]] = {}
        for step in graph.steps:
            for name in step.requires_env:
                environment.setdefault(name, []).append(step.id)
        return {
            "dry_run": True,
            "name": graph.name,
            "digest": request.graph.digest,
            "steps": len(graph.steps),
            "skipped": [step.id for step in request.graph.steps if step.id not in kept],
            "max_parallel": request.max_parallel,
            "order": list(order(graph)),
            "starts": timed.starts,
            "minutes": timed.minutes,
            "total_minutes": sum(step.estimated_minutes for step in graph.steps),
            "critical_path": {"minutes": minutes, "steps": list(way)},
            "approvals": [step.id for step in graph.steps if step.approval],
            "environment": environment,
            "missing": await self._missing(graph, request.params, kept, caller),
        }

    async def _missing(
        self, graph: Graph, params: dict[str, Any], kept: set[str], caller: Caller
    ) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        known: dict[bytes, tuple[str, str]] = {}
        for step in graph.steps:
            for part, action in _actions(step):
                for reference in _results(action):
                    if reference.name not in kept:
                        why = f"{reference} stands for nothing: {reference.name} is left out"
                        found.append({"step": step.id, "part": part, "code": "no_result", "detail": why})
                text = msgspec.json.encode(action)
                if text not in known:
                    known[text] = await self._trouble(action, params, caller)
                code, detail = known[text]
                if code:
                    found.append({"step": step.id, "part": part, "code": code, "detail": detail})
        return found

    async def _trouble(self, action: Action, params: dict[str, Any], caller: Caller) -> tuple[str, str]:
        """Return why an action could not be sent now, as a code and in words, both empty when it could."""
        depends = any(True for _ in _results(action))
        try:
            sent = _bare(action) if depends else action.filled(params, {}, _STAND_IN)
            await self._planner.explain(request_of(sent), caller)
        except Invalid as error:
            # Without what other steps bring it cannot be said whether its meta would do.
            return ("", "") if depends else (error.code, error.detail[:500])
        except AutopilotError as error:
            return error.code, error.detail[:500]
        return "", ""


def _bare(action: Action) -> Action:
    return Action(action.task, action.capability, {}, action.autopilot)


def _different(graph: Graph) -> Iterator[Action]:
    """Yield an action for each task, capability and autopilot that a graph names."""
    seen: set[tuple[str | None, str | None, str | None]] = set()
    for step in graph.steps:
        for _, action in _actions(step):
            key = (action.task, action.capability, action.autopilot)
            if key not in seen:
                seen.add(key)
                yield action


def _actions(step: Step) -> Iterator[tuple[str, Action]]:
    """Yield everything that a step may send, each with what it is of the step."""
    if step.action is not None:
        yield "action", step.action
    for number, verify in enumerate(step.verify):
        yield f"verify[{number}]", verify
    if step.undo is not None:
        yield "undo", step.undo
    for fix in step.fixes:
        yield f"fixes.{fix.name}", fix.action


def _results(action: Action) -> Iterator[Reference]:
    for found in references(action.meta):
        if found.reference is not None and found.reference.kind == "steps":
            yield found.reference
