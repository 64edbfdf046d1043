"""Checks `meta` against the JSON Schema that a registration brought.

The schema comes from outside, so two things are left to the autopilot: `pattern` and `patternProperties`
(a hostile regular expression could hold the process for minutes), and references to other documents (none
is ever fetched).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import referencing.exceptions
from jsonschema.validators import Draft202012Validator, extend

from router.errors import Problem

MAX_PROBLEMS = 20


def _left_to_the_autopilot(*_: Any) -> None:
    """Check nothing."""


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"pattern": _left_to_the_autopilot, "patternProperties": _left_to_the_autopilot},
)


class Schema:
    """A compiled schema."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._validator = _Validator(document, registry=referencing.Registry())

    def problems(self, meta: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with `meta`, at most `MAX_PROBLEMS`, each with the path of its field."""
        if self._validator.is_valid(meta):
            return []
        found: dict[
            Problem, None
        ] = {}  # in order, each once: jsonschema reports a missing field several times
        for error in self._validator.iter_errors(meta):
            found.update(dict.fromkeys(_named(error)))
            if len(found) >= MAX_PROBLEMS:
                break
        return list(found)[:MAX_PROBLEMS]


def complaint_about(document: Mapping[str, Any]) -> str | None:
    """Return why `document` cannot serve as an input schema, or None when it can."""
    try:
        Draft202012Validator.check_schema(document)
        Schema(document).problems({})
    except jsonschema.SchemaError as error:
        return f"is not a JSON Schema: {error.message[:200]}"
    except referencing.exceptions.Unresolvable as error:
        return f"refers to {error.ref!r}, which is not part of it"
    except RecursionError:
        return "refers to itself without end"
    return None


def _named(error: jsonschema.ValidationError) -> list[Problem]:
    path = "meta"
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    rule: Any = error.validator_value
    schema: Any = error.schema
    instance: Any = error.instance
    if error.validator == "required":
        missing = [name for name in rule if name not in instance]
        return [Problem(f"{path}.{name}", "is required") for name in missing]
    if error.validator == "additionalProperties" and rule is False:
        known = schema.get("properties", {})
        unknown = [name for name in instance if name not in known]
        return [Problem(f"{path}.{name[:64]}", "is not a known field") for name in unknown]
    return [Problem(path, error.message[:300])]
