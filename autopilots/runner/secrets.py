"""Variables of the runner's environment: who may have which, and how they get into a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from autopilots.kit import problems_of
from autopilots.runner.forms import WithSecrets
from autopilots.runner.parts import RunnerParts
from router.errors import Forbidden, Invalid

F = TypeVar("F", bound=WithSecrets)

_TOKEN = re.compile(r"\$\$|\$\{env\.([A-Za-z_][A-Za-z0-9_]{0,127})\}|\$\{")


def handed_on(parts: RunnerParts, names: Iterable[str]) -> dict[str, str]:
    """Return the variables of these names that are set. Raises `Forbidden` for one nobody may have."""
    for name in names:
        if name not in parts.allowed:
            raise Forbidden(f"the runner does not hand on {name}: AUTOPILOT_RUNNER_ENV does not list it")
    return {name: parts.given[name] for name in names if name in parts.given}


def filled(meta: F, parts: RunnerParts) -> F:
    """Return a task with its secrets in their places; what is returned is kept and shown nowhere.

    Where the task lists none, no text of it is a template. Raises `Forbidden`, and `Invalid` for a variable
    that is not set or stands where it may not.
    """
    if meta.secrets is None:
        return meta
    values = handed_on(parts, meta.secrets)
    if missing := [name for name in meta.secrets if name not in values]:
        raise Invalid([("meta.secrets", f"{name} is not set for the runner") for name in missing])
    said = meta.model_dump(by_alias=True, exclude_unset=True, exclude={"secrets"})
    full = {
        name: _filled(value, values if name in meta.SECRET else {}, f"meta.{name}")
        for name, value in said.items()
    }
    try:
        return type(meta).model_validate(full)
    except ValidationError as error:
        raise Invalid(problems_of(error)) from None


def _filled(value: Any, values: Mapping[str, str], field: str) -> Any:
    if isinstance(value, str):
        return _TOKEN.sub(lambda token: _piece(token, values, field), value)
    if isinstance(value, list):
        return [_filled(one, values, field) for one in value]
    if isinstance(value, dict):
        return {name: _filled(one, values, field) for name, one in value.items()}
    return value


def _piece(token: re.Match[str], values: Mapping[str, str], field: str) -> str:
    if token[0] == "$$":
        return "$"
    if token[1] is None:
        raise Invalid([(field, "${ begins no reference: write $${, or ${env.NAME}")])
    if token[1] not in values:
        raise Invalid([(field, f"${{env.{token[1]}}} may not stand here, or is not among the secrets")])
    return values[token[1]]
