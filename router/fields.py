"""Reads the fields of a JSON object one by one, and keeps everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from router.errors import Problem

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Fields:
    """Reads an object field by field and keeps every problem. `at` is its path in the body."""

    def __init__(self, value: object, at: str = "") -> None:
        self.at = at
        self.problems: list[Problem] = []
        self.left: dict[str, Any] = {}
        if isinstance(value, dict):
            self.left = dict(value)
        else:
            self.problems.append(Problem(at or "body", "must be an object"))

    def wrong(self, field: str, message: str) -> None:
        """Keep a problem of a field."""
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
        """Return a field as `take` does; its absence is a problem."""
        if field not in self.left:
            self.wrong(field, "is required")
        return self.take(field, default, check)

    def whole(self, field: str, default: int | None, least: int, most: int, *, null: bool = False) -> Any:
        """Return a whole number: 5.0 is one as well, to JSON Schema and to many who write JSON."""
        check = whole(least, most)
        value = self.take(field, default, or_null(check) if null else check)
        return int(value) if isinstance(value, float) else value

    def each(self, field: str, most: int, parse: Callable[[Any, str, Fields], Any]) -> list[Any]:
        """Return the parsed elements of a list, with those left out that had problems."""
        values = self.take(field, [], lambda v: list_of(v, most))
        path = f"{self.at}.{field}" if self.at else field
        parsed = [parse(value, f"{path}[{index}]", self) for index, value in enumerate(values)]
        return [one for one in parsed if one is not None]

    def close(self) -> None:
        """Keep a problem for every field that nobody took."""
        for field in self.left:
            self.wrong(field[:64], "is not a known field")


def no_duplicates(fields: Fields, field: str, names: list[str]) -> None:
    """Keep a problem for each name that is listed more than once."""
    for name in sorted({name for name in names if names.count(name) > 1}):
        fields.wrong(field, f"{name} is listed twice")


def list_of(value: object, most: int) -> str | None:
    """Return the complaint about a value that is no list of at most so many."""
    if not isinstance(value, list):
        return "must be a list"
    return None if len(value) <= most else f"must have at most {most}"


def passes(test: Callable[[str], bool], rule: str) -> Callable[[Any], str | None]:
    """Return a check for texts that pass a test."""
    return lambda value: None if isinstance(value, str) and test(value) else rule


def matches(pattern: re.Pattern[str], rule: str) -> Callable[[Any], str | None]:
    """Return a check for texts that match a pattern from end to end."""
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else rule


def text(most: int, least: int = 0, *, lines: bool = False) -> Callable[[Any], str | None]:
    """Return a check for texts of a length, without control characters unless they may have `lines`."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be text"
        if not least <= len(value) <= most:
            return f"must have {least} to {most} characters"
        if not lines and _CONTROL.search(value.strip()):
            return "must not have control characters"
        return None

    return check


def whole(least: int, most: int) -> Callable[[Any], str | None]:
    """Return a check for whole numbers; 5.0 is one as well."""

    def check(value: Any) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        good = number and least <= value <= most and value == int(value)
        return None if good else f"must be a whole number from {least} to {most}"

    return check


def truth(value: object) -> str | None:
    """Return the complaint about a value that is not true or false."""
    return None if isinstance(value, bool) else "must be true or false"


def one_of(*choices: str) -> Callable[[Any], str | None]:
    """Return a check for one of some words."""
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def or_null(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """Return a check that lets null through."""
    return lambda value: None if value is None else check(value)
