"""What is expected of values: conditions on what is at a path of a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MISSING: Any = object()
"""What is at a path that leads nowhere."""

Show = Callable[[Any], str]


def at(document: Any, path: str) -> Any:
    """Return what is at a dotted path (`data.items.0.id`; `$` is the whole document), or `MISSING`."""
    value = document
    for step in path.split(".") if path != "$" else ():
        place = _place(value, step)
        if place is None:
            return MISSING
        value = value[place]
    return value


def _place(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return step if step in value else None
    if isinstance(value, list) and step.isascii() and step.isdecimal() and len(step) < 10:
        return int(step) if int(step) < len(value) else None
    return None


def kept(document: Any, paths: list[str]) -> Any:
    """Return only what is at the paths, in its places: elements of lists before it are null."""
    found: Any = None
    for path in paths:
        value = at(document, path)
        if value is not MISSING:
            found = value if path == "$" else _with(found, document, path.split("."), value)
    return found


def _with(found: Any, like: Any, steps: list[str], value: Any) -> Any:
    """Return `found`, which has the shape of a part of `like`, with a value at the end of some steps."""
    if not steps:
        return value
    place = _place(like, steps[0])
    if isinstance(like, dict):
        members = found if isinstance(found, dict) else {}
        return {**members, place: _with(members.get(place), like[place], steps[1:], value)}
    elements = list(found) if isinstance(found, list) else []
    elements += [None] * (place + 1 - len(elements))
    elements[place] = _with(elements[place], like[place], steps[1:], value)
    return elements


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, but 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def contains(value: Any, wanted: Any) -> bool:
    """Whether a part of a text, a name of an object, or an element of a list is there.

    An object is an element of a list that has one with at least these members. A list is each of its own.
    """
    if isinstance(wanted, list):
        return all(contains(value, one) for one in wanted)
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    if isinstance(value, dict):
        return wanted in value if isinstance(wanted, str) else False
    return isinstance(value, list) and any(_covers(one, wanted) for one in value)


def _covers(value: Any, wanted: Any) -> bool:
    if isinstance(value, dict) and isinstance(wanted, dict):
        return all(name in value and same(value[name], wanted[name]) for name in wanted)
    return same(value, wanted)


def lacks(value: Any, unwanted: Any) -> bool:
    """Whether none of it is there. A value that can have no parts has not been shown to lack any."""
    each = unwanted if isinstance(unwanted, list) else [unwanted]
    return isinstance(value, str | list | dict) and not any(contains(value, one) for one in each)


def _number(value: Any) -> float | None:
    """Return a number, also one that is written as text: headers are."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _at_least(value: Any, least: Any) -> bool:
    number, bound = _number(value), _number(least)
    return number is not None and bound is not None and number >= bound


def _at_most(value: Any, most: Any) -> bool:
    number, bound = _number(value), _number(most)
    return number is not None and bound is not None and number <= bound


_HOLDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "is": (same, "has to be"),
    "not": (lambda value, other: not same(value, other), "must not be"),
    "at_least": (_at_least, "has to be at least"),
    "at_most": (_at_most, "may be at most"),
    "contains": (contains, "has to contain"),
    "lacks": (lacks, "must not contain"),
}


def unmet(where: str, value: Any, conditions: Mapping[str, Any], show: Show) -> Iterator[str]:
    """Yield a sentence for each condition that does not hold for what is at `where`.

    Of what is not there only `exists: false` holds.
    """
    wanted = conditions.get("exists", True)
    if value is MISSING:
        if wanted or len(conditions) > 1:
            yield f"{where} is not there"
        return
    if not wanted:
        yield f"{where} must not be there, but is {show(value)}"
    for name, other in conditions.items():
        if name in _HOLDS and not _HOLDS[name][0](value, other):
            yield f"{where} {_HOLDS[name][1]} {show(other)}, but is {show(value)}"


def unmet_in(
    what: str, document: Any, conditions: Mapping[str, Mapping[str, Any]], show: Show
) -> Iterator[str]:
    """Yield a sentence for each condition that does not hold in a JSON document called `what`."""
    for path, ones in conditions.items():
        where = what if path == "$" else f"{what} {path}"
        yield from unmet(where, at(document, path), ones, show)
