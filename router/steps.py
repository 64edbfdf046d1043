"""The grammar of a graph: what arrives as JSON becomes a `Graph`, or `Invalid` with every problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import msgspec

from router.errors import Invalid, Problem
from router.fields import Fields, matches, no_duplicates, one_of, or_null, passes, text, truth
from router.graph import MAX_STEPS, PRIORITIES, Action, Fix, Graph, Step, check, is_step_id
from router.model import is_capability, is_name, is_task

MAX_NEEDED = 1000
MAX_VERIFIES = 16
MAX_FIXES = 8
MAX_ENV = 64
MAX_META = 128 << 10
"""Bytes of one meta as JSON."""
MAX_ATTEMPTS = 20
MAX_SECONDS = 86_400
MAX_MINUTES = 100_000

ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
GRAPH = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")


def parse_graph(value: object, params: Collection[str] = ()) -> Graph:
    """Return the graph in a JSON value; `params` are the names of the parameters it may refer to.

    Raises `Invalid` with every problem. The graph is one that `router.graph.check` finds nothing wrong with.
    """
    fields = Fields(value)
    if fields.problems:
        raise Invalid(fields.problems)
    rule = "1 to 64 of a-z, 0-9, _ and -, a letter or digit at either end"
    name = fields.required("name", "", matches(GRAPH, rule))
    if "steps" not in fields.left:
        fields.wrong("steps", "is required")
    steps = fields.each("steps", MAX_STEPS, _step)
    fields.close()
    graph = Graph(name, tuple(steps))
    # Steps that were left out for their problems would be missed by those that need them.
    problems = fields.problems or check(graph, params)
    if problems:
        raise Invalid(problems)
    return graph


def _step(value: Any, at: str, outer: Fields) -> Step | None:
    fields = Fields(value, at)
    if fields.problems:
        outer.problems += fields.problems
        return None
    needs = fields.each("needs", MAX_NEEDED, _step_id)
    step = Step(
        id=fields.required("id", "", passes(is_step_id, "a letter, then up to 63 letters, digits, _ and -")),
        title=fields.take("title", "", text(200)),
        description=fields.take("description", "", text(4000, lines=True)),
        action=_inner(fields, "action"),
        needs=tuple(needs),
        phase=fields.take("phase", "", text(64)),
        priority=fields.take("priority", "medium", one_of(*PRIORITIES)),
        estimated_minutes=fields.take("estimated_minutes", 0, _number(0, MAX_MINUTES)),
        attempts=fields.whole("attempts", 3, 1, MAX_ATTEMPTS) or 3,
        cool_down_seconds=fields.take("cool_down_seconds", 0, _number(0, MAX_SECONDS)),
        timeout_seconds=fields.take("timeout_seconds", None, or_null(_number(0.001, MAX_SECONDS))),
        verify=tuple(fields.each("verify", MAX_VERIFIES, _action)),
        undo=_inner(fields, "undo"),
        requires_env=tuple(fields.each("requires_env", MAX_ENV, _env)),
        optional=fields.take("optional", default=False, check=truth),
        approval=fields.take("approval", "", text(4000, lines=True)),
        fixes=tuple(fields.each("fixes", MAX_FIXES, _fix)),
    )
    no_duplicates(fields, "fixes", [fix.name for fix in step.fixes])
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else step


def _inner(fields: Fields, field: str) -> Action | None:
    value = fields.left.pop(field, None)
    return None if value is None else _action(value, f"{fields.at}.{field}", fields)


def _action(value: Any, at: str, outer: Fields) -> Action | None:
    fields = Fields(value, at)
    if fields.problems:
        outer.problems += fields.problems
        return None
    action = Action(
        task=fields.take(
            "task", None, or_null(passes(is_task, "must be a task's name, such as deploy_page"))
        ),
        capability=fields.take(
            "capability",
            None,
            or_null(passes(is_capability, "must be a capability, such as web.pages.deploy")),
        ),
        meta=fields.take("meta", {}, _meta),
        autopilot=fields.take("autopilot", None, or_null(passes(is_name, "must be an autopilot's name"))),
    )
    if not fields.problems and (action.task is None) == (action.capability is None):
        outer.problems.append(Problem(at, "must name either a task or a capability"))
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else action


def _fix(value: Any, at: str, outer: Fields) -> Fix | None:
    fields = Fields(value, at)
    if fields.problems:
        outer.problems += fields.problems
        return None
    if "action" not in fields.left:
        fields.wrong("action", "is required")
    fix = Fix(
        name=fields.required("name", "", passes(is_step_id, "must be named as steps are")),
        action=_inner(fields, "action") or Action(),
        when=fields.take("when", "", text(200)),
        description=fields.take("description", "", text(500)),
    )
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else fix


def _meta(value: object) -> str | None:
    if not isinstance(value, dict):
        return "must be an object"
    return None if len(msgspec.json.encode(value)) <= MAX_META else f"must have at most {MAX_META} bytes"


def _step_id(value: Any, at: str, outer: Fields) -> str | None:
    if isinstance(value, str) and is_step_id(value):
        return value
    outer.problems.append(Problem(at, "must be the id of a step"))
    return None


def _env(value: Any, at: str, outer: Fields) -> str | None:
    if isinstance(value, str) and ENV.fullmatch(value):
        return value
    outer.problems.append(Problem(at, "must be the name of an environment variable"))
    return None


def _number(least: float, most: float) -> Callable[[Any], str | None]:
    return partial(_in_range, least, most)


def _in_range(least: float, most: float, value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return None
    return f"must be a number from {least:g} to {most:g}"
