"""What arrives as JSON becomes a value of `model`, or `Invalid` with every problem that was found."""

from __future__ import annotations

import re
from typing import Any

from infra.outbound import parse_url
from router.errors import EndpointRefused, Invalid, Problem
from router.fields import Fields, no_duplicates, one_of, or_null, passes, text, truth
from router.model import (
    MAX_CAPABILITIES,
    Autopilot,
    Capability,
    PlanRequest,
    is_capability,
    is_family,
    is_name,
    is_task,
)
from router.needs import needs_of

MAX_FAMILIES = 4
MAX_TASKS = 12
"""Capabilities, extensible families and tasks of an autopilot are a row each, and the rows before and after
a change have to fit one transaction of the store (100 writes)."""
MAX_TIMEOUT_MS = 300_000

_NAMED_ENDPOINT = re.compile(r"(?:local|lambda):[A-Za-z0-9][A-Za-z0-9:_-]{0,169}")


def parse_autopilot(value: object) -> Autopilot:
    """Return the registration in a JSON body. Whether its endpoint may be called is not asked here."""
    fields = Fields(value)
    if fields.problems:
        raise Invalid(fields.problems)
    name = fields.required("name", "", passes(is_name, "1 to 64 of a-z, 0-9 and -, not - at either end"))
    endpoint = fields.required("endpoint", "", _endpoint)
    if "capabilities" not in fields.left:
        fields.wrong("capabilities", "is required")
    elif fields.left["capabilities"] == []:
        fields.wrong("capabilities", "must have at least one")
    capabilities = fields.each("capabilities", MAX_CAPABILITIES, _capability)
    no_duplicates(fields, "capabilities", [one.name for one in capabilities])
    if len({one.family for one in capabilities if one.extends_family}) > MAX_FAMILIES:
        fields.wrong("capabilities", f"may extend at most {MAX_FAMILIES} families")
    needs = needs_of(fields.left.pop("needs", {}), fields)
    tasks = _tasks(fields, capabilities)
    autopilot = Autopilot(
        name=name,
        endpoint=endpoint,
        capabilities=tuple(capabilities),
        needs=needs,
        tasks=tasks,
        priority=fields.whole("priority", 100, 0, 1_000_000),
        weight=fields.whole("weight", 1, 1, 1_000_000),
        lease_seconds=fields.whole("lease_seconds", None, 1, 86_400, null=True),
        description=fields.take("description", "", text(2000)),
    )
    fields.close()
    if fields.problems:
        raise Invalid(fields.problems)
    return autopilot


def parse_capability(value: object) -> Capability:
    """Return one capability, given as its name or as an object."""
    fields = Fields({})
    capability = _capability(value, "capability", fields)
    if capability is None or fields.problems:
        raise Invalid(fields.problems)
    return capability


def parse_plan(value: object, meta: bytes) -> PlanRequest:
    """Return the plan request in a JSON body; `meta` is the text of its meta, `{}` when absent.

    A blank task counts as none: that there is one at all is the planner's question.
    """
    fields = Fields(value)
    task = fields.take("task", None, text(200))
    capability = fields.take("capability", None, _capability_name)
    if task is not None and capability is not None and task.strip():
        fields.wrong("capability", "give a task or a capability, not both")
    mode = fields.take("mode", "sync", one_of("sync", "explain", "async"))
    callback_url = fields.take("callback_url", None, or_null(_url))
    if callback_url is not None and mode != "async":
        fields.wrong("callback_url", "goes with the mode async")
    request = PlanRequest(
        task=task.strip() if task else None,
        capability=capability,
        value=fields.take("meta", {}, lambda v: None if isinstance(v, dict) else "must be an object"),
        meta=meta,
        mode=mode,
        timeout_ms=fields.whole("timeout_ms", None, 1, MAX_TIMEOUT_MS, null=True),
        autopilot=fields.take("autopilot", None, or_null(passes(is_name, "must be an autopilot's name"))),
        callback_url=callback_url,
    )
    fields.close()
    if fields.problems:
        raise Invalid(fields.problems)
    return request


def _endpoint(value: object) -> str | None:
    if isinstance(value, str) and value.startswith(("local:", "lambda:")):
        return None if _NAMED_ENDPOINT.fullmatch(value) else "must be local:NAME or lambda:FUNCTION"
    return _url(value)


def _url(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be text"
    try:
        parse_url(value)
    except EndpointRefused as error:
        return error.detail
    return None


def _capability_name(value: object) -> str | None:
    if isinstance(value, str) and is_capability(value):
        return None
    return "must be 2 to 6 dotted lower-case words, such as web.pages.generate"


def _capability(value: Any, at: str, outer: Fields) -> Capability | None:
    if not isinstance(value, str | dict):
        outer.problems.append(Problem(at, "must be a name or an object"))
        return None
    fields = Fields({"name": value} if isinstance(value, str) else value, at)

    def named(name: object) -> str | None:
        if isinstance(name, str) and is_family(name):
            return None
        complaint = _capability_name(name)
        return f"{complaint}, or a family such as web.*" if complaint else None

    if isinstance(value, str):
        name = fields.left.pop("name")
        if complaint := named(name):
            fields.problems.append(Problem(at, complaint))
    else:
        name = fields.required("name", "", named)
    capability = Capability(
        name=name,
        description=fields.take("description", "", text(2000)),
        input_schema=fields.take("input_schema", None, or_null(_schema)),
        configure=fields.take("configure", default=False, check=truth),
        requires_approval=fields.take("requires_approval", default=False, check=truth),
    )
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else capability


def _schema(value: object) -> str | None:
    if not isinstance(value, dict):
        return "must be a JSON Schema object"
    from router.schema import complaint_about  # imported for registrations only: it loads jsonschema

    return complaint_about(value)


def _tasks(fields: Fields, capabilities: list[Capability]) -> dict[str, str]:
    tasks = fields.take("tasks", {}, _task_table)
    offered = {one.name for one in capabilities}
    families = {one.family for one in capabilities if one.extends_family}
    for task, capability in tasks.items():
        if not is_task(task):
            fields.wrong(f"tasks.{task[:64]}", "a task is named by lower-case words joined by _")
        elif complaint := _capability_name(capability):
            fields.wrong(f"tasks.{task}", complaint)
        elif capability not in offered and capability.partition(".")[0] not in families:
            fields.wrong(f"tasks.{task}", f"{capability} is not among this autopilot's capabilities")
    return dict(tasks)


def _task_table(value: object) -> str | None:
    if not isinstance(value, dict):
        return "must be an object of task names to capabilities"
    return None if len(value) <= MAX_TASKS else f"must have at most {MAX_TASKS}"
