"""The parameters of a book: what they may be, what they are when nobody says, and every problem with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from autopilots.runbooks.forms import Form, Name, Text
from router.errors import Invalid, Problem
from router.template import fill, references

MAX_VALUE = 8192
MAX_LIST = 100

Type = Literal["text", "number", "boolean", "list"]

_IS: dict[Type, tuple[str, Callable[[Any], bool]]] = {
    "text": (f"text of at most {MAX_VALUE} characters", lambda v: isinstance(v, str) and len(v) <= MAX_VALUE),
    "number": ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    "boolean": ("true or false", lambda v: isinstance(v, bool)),
    "list": (
        f"a list of at most {MAX_LIST} texts",
        lambda v: isinstance(v, list) and len(v) <= MAX_LIST and all(_IS["text"][1](one) for one in v),
    ),
}


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter. `pattern` is for the whole of a text, or of each in a list; so is `enum`."""

    name: str
    description: str = ""
    type: Type = "text"
    default: Any = None
    required: bool = False
    pattern: str = ""
    enum: tuple[str, ...] = ()

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with a value."""
        kind, is_one = _IS[self.type]
        if not is_one(value):
            return f"must be {kind}"
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        if self.enum and not set(texts) <= set(self.enum):
            return f"must be {'among' if self.type == 'list' else 'one of'} {', '.join(self.enum)}"
        if self.pattern and not all(_matches(self.pattern, text) for text in texts):
            return f"must match {self.pattern}"
        return None


class ParamForm(Form):
    """A parameter as it is written."""

    description: Text
    type: Type = "text"
    default: Any = None
    required: bool = False
    pattern: Annotated[str, StringConstraints(max_length=500)] = ""
    enum: list[Name] = Field(default=[], max_length=50)

    def param(self, name: str) -> Param:
        """Return the parameter."""
        return Param(
            name, self.description, self.type, self.default, self.required, self.pattern, tuple(self.enum)
        )


def resolve(params: Sequence[Param], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every parameter: what is given, else its default.

    A default may refer to parameters before its own. Raises `Invalid` with every problem, by `params.NAME`.
    """
    known = {param.name for param in params}
    problems = [
        Problem(f"params.{name[:64]}", "is no parameter of this book") for name in given if name not in known
    ]
    values: dict[str, Any] = {}
    for param in params:
        if param.name in given:
            value = given[param.name]
        elif param.required:
            problems.append(Problem(f"params.{param.name}", f"is required: {param.description}"))
            continue
        elif any(
            found.reference and found.reference.name not in values for found in references(param.default)
        ):
            continue  # what it refers to has a problem of its own
        else:
            value = fill(param.default, values, {})
        if complaint := param.complaint(value):
            problems.append(Problem(f"params.{param.name}", complaint))
        else:
            values[param.name] = value
    if problems:
        raise Invalid(problems)
    return values


def wrong(params: Sequence[Param]) -> Iterator[tuple[str, str, str]]:
    """Yield (parameter, field, message) for what is wrong with parameters as a book has them."""
    before: set[str] = set()
    for param in params:
        pattern_is_good = _is_pattern(param.pattern)
        if not pattern_is_good:
            yield param.name, "pattern", "is no regular expression that can be used"
        if param.required == (param.default is not None):
            yield param.name, "default", "has either a default or required: true"
        named = [found.reference for found in references(param.default)]
        for reference in named:
            if reference is None or reference.kind != "params" or reference.name not in before:
                yield (
                    param.name,
                    "default",
                    "a default may refer only to parameters before it, as ${params.NAME}",
                )
        if param.default is not None and not named and pattern_is_good:
            complaint = param.complaint(param.default)
            if complaint:
                yield param.name, "default", complaint
        before.add(param.name)


def _is_pattern(pattern: str) -> bool:
    try:
        _matches(pattern, "")
    except SchemaError:
        return False
    return True


def _matches(pattern: str, text: str) -> bool:
    """Whether a text matches from end to end. The expressions are those that take linear time."""
    whole = StringConstraints(pattern=f"^(?:{pattern})$", strict=True)
    try:
        TypeAdapter(Annotated[str, whole]).validate_python(text)
    except ValidationError:
        return False
    return True
