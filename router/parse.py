"""What arrives as JSON becomes a value of `model`, or `Invalid` with every problem that was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from infra.outbound import parse_url
from router.errors import EndpointRefused, Invalid, Problem
from router.model import (
    MAX_CAPABILITIES,
    Autopilot,
    Capability,
    Needs,
    PlanRequest,
    Worker,
    is_capability,
    is_family,
    is_name,
    is_task,
)

MAX_FAMILIES = 4
MAX_TASKS = 12
"""Capabilities, extensible families and tasks of an autopilot are a row each, and the rows before and after
a change have to fit one transaction of the store (100 writes)."""
MAX_NEEDS = 50
MAX_TIMEOUT_MS = 300_000

_NAMED_ENDPOINT = re.compile(r"(?:local|lambda):[A-Za-z0-9][A-Za-z0-9:_-]{0,169}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Fields:
    """Reads an object field by field and keeps every problem."""

    def __init__(self, value: object, at: str = "") -> None:
        self.at = at
        self.problems: list[Problem] = []
        self.left: dict[str, Any] = {}
        if isinstance(value, dict):
            self.left = dict(value)
        else:
            self.problems.append(Problem(at or "body", "must be an object"))

    def wrong(self, field: str, message: str) -> None:
        self.problems.append(Problem(f"{self.at}.{field}" if self.at else field, message))

    def take(self, field: str, default: Any, check: Callable[[Any], str | None]) -> Any:
        """Return a field that `check` has no complaint about, else the default."""
        if field not in self.left:
            return default
        value = self.left.pop(field)
        complaint = check(value)
        if complaint:
            self.wrong(field, complaint)
            return default
        return value

    def required(self, field: str, default: Any, check: Callable[[Any], str | None]) -> Any:
        if field not in self.left:
            self.wrong(field, "is required")
        return self.take(field, default, check)

    def whole(self, field: str, default: int | None, least: int, most: int, *, null: bool = False) -> Any:
        """Return a whole number: 5.0 is one as well, to JSON Schema and to many who write JSON."""
        check = _whole(least, most)
        value = self.take(field, default, _or_null(check) if null else check)
        return int(value) if isinstance(value, float) else value

    def each(self, field: str, most: int, parse: Callable[[Any, str, _Fields], Any]) -> list[Any]:
        """Return the parsed elements of a list, with those left out that had problems."""
        values = self.take(field, [], lambda v: _list_of(v, most))
        path = f"{self.at}.{field}" if self.at else field
        parsed = [parse(value, f"{path}[{index}]", self) for index, value in enumerate(values)]
        return [one for one in parsed if one is not None]

    def close(self) -> None:
        for field in self.left:
            self.wrong(field[:64], "is not a known field")


def parse_autopilot(value: object) -> Autopilot:
    """Return the registration in a JSON body. Whether its endpoint may be called is not asked here."""
    fields = _Fields(value)
    if fields.problems:
        raise Invalid(fields.problems)
    name = fields.required("name", "", _passes(is_name, "1 to 64 of a-z, 0-9 and -, not - at either end"))
    endpoint = fields.required("endpoint", "", _endpoint)
    if "capabilities" not in fields.left:
        fields.wrong("capabilities", "is required")
    elif fields.left["capabilities"] == []:
        fields.wrong("capabilities", "must have at least one")
    capabilities = fields.each("capabilities", MAX_CAPABILITIES, _capability)
    _no_duplicates(fields, "capabilities", [one.name for one in capabilities])
    if len({one.family for one in capabilities if one.extends_family}) > MAX_FAMILIES:
        fields.wrong("capabilities", f"may extend at most {MAX_FAMILIES} families")
    needs = _needs(fields.left.pop("needs", {}), fields)
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
        description=fields.take("description", "", _text(2000)),
    )
    fields.close()
    if fields.problems:
        raise Invalid(fields.problems)
    return autopilot


def parse_needs(value: object, at: str = "") -> Needs:
    """Return the needs in a JSON body, such as `want` of `ensure-infra`."""
    fields = _Fields({})
    needs = _needs(value, fields, at)
    if fields.problems:
        raise Invalid(fields.problems)
    return needs


def parse_capability(value: object) -> Capability:
    """Return one capability, given as its name or as an object."""
    fields = _Fields({})
    capability = _capability(value, "capability", fields)
    if capability is None or fields.problems:
        raise Invalid(fields.problems)
    return capability


def parse_plan(value: object, meta: bytes) -> PlanRequest:
    """Return the plan request in a JSON body; `meta` is the text of its meta, `{}` when absent.

    A blank task counts as none: that there is one at all is the planner's question.
    """
    fields = _Fields(value)
    task = fields.take("task", None, _text(200))
    capability = fields.take("capability", None, _capability_name)
    if task is not None and capability is not None and task.strip():
        fields.wrong("capability", "give a task or a capability, not both")
    mode = fields.take("mode", "sync", _one_of("sync", "explain", "async"))
    if mode == "async" or fields.left.pop("callback_url", None) is not None:
        fields.wrong("mode", "async, with or without a callback_url, is not offered by this version")
    request = PlanRequest(
        task=task.strip() if task else None,
        capability=capability,
        value=fields.take("meta", {}, lambda v: None if isinstance(v, dict) else "must be an object"),
        meta=meta,
        mode=mode,
        timeout_ms=fields.whole("timeout_ms", None, 1, MAX_TIMEOUT_MS, null=True),
        autopilot=fields.take("autopilot", None, _or_null(_passes(is_name, "must be an autopilot's name"))),
    )
    fields.close()
    if fields.problems:
        raise Invalid(fields.problems)
    return request


def _endpoint(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be text"
    if value.startswith(("local:", "lambda:")):
        return None if _NAMED_ENDPOINT.fullmatch(value) else "must be local:NAME or lambda:FUNCTION"
    try:
        parse_url(value)
    except EndpointRefused as error:
        return error.detail
    return None


def _capability_name(value: object) -> str | None:
    if isinstance(value, str) and is_capability(value):
        return None
    return "must be 2 to 6 dotted lower-case words, such as web.pages.generate"


def _capability(value: Any, at: str, outer: _Fields) -> Capability | None:
    if not isinstance(value, str | dict):
        outer.problems.append(Problem(at, "must be a name or an object"))
        return None
    fields = _Fields({"name": value} if isinstance(value, str) else value, at)

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
        description=fields.take("description", "", _text(2000)),
        input_schema=fields.take("input_schema", None, _or_null(_schema)),
        configure=fields.take("configure", default=False, check=_truth),
        requires_approval=fields.take("requires_approval", default=False, check=_truth),
    )
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else capability


def _schema(value: object) -> str | None:
    if not isinstance(value, dict):
        return "must be a JSON Schema object"
    from router.schema import complaint_about  # imported for registrations only: it loads jsonschema

    return complaint_about(value)


def _tasks(fields: _Fields, capabilities: list[Capability]) -> dict[str, str]:
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


_NEEDS: Mapping[str, tuple[str, re.Pattern[str], str]] = {
    "kvNamespaces": (
        "kv_namespaces",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"),
        "letters, digits, _ and -, at most 128",
    ),
    "r2Buckets": (
        "r2_buckets",
        re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
        "3 to 63 of a-z, 0-9 and -, not - at either end",
    ),
    "d1Databases": (
        "d1_databases",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
        "letters, digits, _ and -, at most 64",
    ),
    "queues": (
        "queues",
        re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
        "1 to 63 of a-z, 0-9 and -, not - at either end",
    ),
}
_WORKER = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
MAX_WORKER = 200_000


def _needs(value: object, outer: _Fields, at: str = "needs") -> Needs:
    fields = _Fields(value, at)
    found: dict[str, tuple[Any, ...]] = {}
    for kind, (attribute, pattern, rule) in _NEEDS.items():
        names = fields.each(kind, MAX_NEEDS, _storage_name(pattern, rule))
        _no_duplicates(fields, kind, names)
        found[attribute] = tuple(names)
    workers = fields.each("workers", MAX_NEEDS, _worker)
    _no_duplicates(fields, "workers", [one.name for one in workers])
    for kind in fields.left:
        fields.wrong(kind[:64], f"is no kind of storage: {', '.join([*_NEEDS, 'workers'])}")
    if sum(len(worker.content) for worker in workers) > MAX_WORKER:
        fields.wrong("workers", f"may have at most {MAX_WORKER} characters of source together")
    outer.problems += fields.problems
    return Needs(workers=tuple(workers), **found)


def _storage_name(pattern: re.Pattern[str], rule: str) -> Callable[[Any, str, _Fields], str | None]:
    def parse(value: Any, at: str, outer: _Fields) -> str | None:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        outer.problems.append(Problem(at, rule))
        return None

    return parse


def _worker(value: Any, at: str, outer: _Fields) -> Worker | None:
    fields = _Fields(value, at)
    if fields.problems:
        outer.problems += fields.problems
        return None
    rule = "1 to 63 of a-z, 0-9, - and _, a letter or digit at either end"
    worker = Worker(
        name=fields.required("name", "", _matches(_WORKER, rule)),
        content=fields.required("content", "", _text(MAX_WORKER, least=1, lines=True)),
    )
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else worker


def _no_duplicates(fields: _Fields, field: str, names: list[str]) -> None:
    for name in sorted({name for name in names if names.count(name) > 1}):
        fields.wrong(field, f"{name} is listed twice")


def _list_of(value: object, most: int) -> str | None:
    if not isinstance(value, list):
        return "must be a list"
    return None if len(value) <= most else f"must have at most {most}"


def _passes(test: Callable[[str], bool], rule: str) -> Callable[[Any], str | None]:
    return lambda value: None if isinstance(value, str) and test(value) else rule


def _matches(pattern: re.Pattern[str], rule: str) -> Callable[[Any], str | None]:
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else rule


def _text(most: int, least: int = 0, *, lines: bool = False) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be text"
        if not least <= len(value) <= most:
            return f"must have {least} to {most} characters"
        if not lines and _CONTROL.search(value.strip()):
            return "must not have control characters"
        return None

    return check


def _whole(least: int, most: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        good = number and least <= value <= most and value == int(value)
        return None if good else f"must be a whole number from {least} to {most}"

    return check


def _truth(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _one_of(*choices: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _or_null(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    return lambda value: None if value is None else check(value)
