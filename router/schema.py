"""Checks `meta` against the JSON Schema that a registration brought.

The schema comes from outside, so some things are left to the autopilot: `pattern`, `patternProperties` and
what depends on which of them match (a hostile regular expression could hold the process for minutes; none
is even compiled), and references to other documents (refused at registration; none is ever fetched). All
the rest is done in a bounded number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema
import referencing.exceptions
from jsonschema.validators import Draft202012Validator, extend
from referencing.jsonschema import DRAFT202012

from router.errors import Problem

MAX_PROBLEMS = 20
MAX_STEPS = 50_000
"""Keywords that are evaluated for one `meta`: every value of the largest body against ten of them."""

Keyword = Callable[[Any, Any, Any, Any], Iterator[jsonschema.ValidationError] | None]


class _TooManySteps(Exception):
    """Raise when a check is longer than any honest schema makes it."""


class _Steps:
    """Counts down. One is enough for all: a check never waits for anything."""

    left = 0


def _counted(keyword: Keyword) -> Keyword:
    def step(validator: Any, rule: Any, instance: Any, schema: Any) -> Any:
        _Steps.left -= 1
        if _Steps.left < 0:
            raise _TooManySteps
        return keyword(validator, rule, instance, schema)

    return step


def _left_to_the_autopilot(*_: Any) -> None:
    """Check nothing."""


def _additional_properties(validator: Any, rule: Any, instance: Any, schema: Any) -> Any:
    if "patternProperties" in schema:
        return None
    return Draft202012Validator.VALIDATORS["additionalProperties"](validator, rule, instance, schema)


def _unique_items(_validator: Any, rule: Any, instance: Any, _schema: Any) -> Any:
    """Compare each item with all others at once; jsonschema compares them two by two."""
    if rule and isinstance(instance, list) and len(set(map(_hashable, instance))) < len(instance):
        yield jsonschema.ValidationError(f"{instance!r} has non-unique elements")


def _hashable(value: Any) -> Any:
    """Return something that equals its like for equal JSON values only: 1 is 1.0, but not true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _hashable(one)) for name, one in value.items())
    if isinstance(value, list):
        return "list", tuple(map(_hashable, value))
    return isinstance(value, bool), value


_KEYWORDS: dict[str, Any] = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _left_to_the_autopilot,
    "patternProperties": _left_to_the_autopilot,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {name: _counted(keyword) for name, keyword in _KEYWORDS.items()}
)
_WithPatterns: Any = extend(  # type: ignore[no-untyped-call]
    _Validator, {"unevaluatedProperties": _left_to_the_autopilot}
)
"""For schemas that have `patternProperties` somewhere: what those match counts as evaluated."""


class Schema:
    """A compiled schema."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        positions = [contents for contents, _ in _positions(document)]
        patterns = any("patternProperties" in one for one in positions if isinstance(one, dict))
        kind = _WithPatterns if patterns else _Validator
        self._validator = kind(document, registry=referencing.Registry())

    def problems(self, meta: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with `meta`, at most `MAX_PROBLEMS`, each with the path of its field."""
        try:
            return self._problems(meta)
        except _TooManySteps:
            why = "it takes too many steps"
        except RecursionError:
            why = "it refers to itself without end, or is too deep"
        return [Problem("meta", f"cannot be checked against the autopilot's input_schema: {why}")]

    def _problems(self, meta: Mapping[str, Any]) -> list[Problem]:
        """Return the problems. Raises `_TooManySteps` and `RecursionError`."""
        _Steps.left = MAX_STEPS
        found: dict[Problem, None] = {}  # in order, each once: a missing field is reported several times
        for error in self._validator.iter_errors(meta):
            found.update(dict.fromkeys(_named(error)))
            if len(found) >= MAX_PROBLEMS:
                break
        return list(found)[:MAX_PROBLEMS]

    def complaint(self) -> str | None:
        """Return why no `meta` at all could be checked, or None."""
        try:
            self._problems({})
        except _TooManySteps:
            return "takes too many steps to check"
        except RecursionError:
            return "refers to itself without end"
        return None


def complaint_about(document: Mapping[str, Any]) -> str | None:
    """Return why `document` cannot serve as an input schema, or None when it can."""
    try:
        # Without formats: the one that patterns have would compile them, in Python's dialect.
        Draft202012Validator.check_schema(document, format_checker=jsonschema.FormatChecker(()))
        return _stray_reference(document) or Schema(document).complaint()
    except jsonschema.SchemaError as error:
        return f"is not a JSON Schema: {error.message[:200]}"
    except RecursionError:
        return "is nested too deep"
    except ValueError as error:
        return f"has an $id that is no URI: {error}"


def _positions(document: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Give each schema in a schema, with the resolver of the references in it."""
    root = DRAFT202012.create_resource(document)
    registry: Any = referencing.Registry()
    waiting: list[tuple[Any, Any]] = [(root, registry.resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        yield resource.contents, resolver
        waiting += [(one, resolver.in_subresource(one)) for one in resource.subresources()]


def _stray_reference(document: Mapping[str, Any]) -> str | None:
    """Return a complaint about a reference that does not lead to a schema within the document."""
    positions = [(contents, resolver) for contents, resolver in _positions(document)]
    schemas = {id(contents) for contents, _ in positions}
    for contents, resolver in positions:
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(contents, dict) and keyword in contents:
                reference = contents[keyword]
                if not _leads_to(reference, resolver, schemas):
                    return f"refers to {reference[:200]!r}, which is no schema in it"
    return None


def _leads_to(reference: str, resolver: Any, schemas: set[int]) -> bool:
    try:
        target = resolver.lookup(reference).contents
    except (referencing.exceptions.Unresolvable, ValueError, TypeError, AttributeError):
        return False  # besides Unresolvable: pointers into what is neither object nor list
    return isinstance(target, bool) or id(target) in schemas


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
    # What the value is, its sender knows; the message may be kept where the value must not be.
    return [Problem(path, error.message.removeprefix(repr(instance)).lstrip()[:300])]
