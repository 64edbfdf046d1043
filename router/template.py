"""References in a graph's metas: `${params.NAME}`, `${steps.ID.result.PATH}`, `${run.id}`, `${env.NAME}`.

A text is read from left to right: `$$` is a dollar sign, `${...}` a reference, any other dollar sign stands
for itself. Only values are read so, the names of an object's members never. A text that is one reference and
nothing else becomes the value it stands for, whatever its type; within other text a value becomes text.

`${env.NAME}` is filled by nobody here. It stays for the autopilot that does the task, so that no secret is in
the record of a run. Where it may stand, all else is filled such that it cannot turn into one: every dollar
sign that was put in is doubled, and the autopilot reads the text once more, by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from router.errors import Invalid, Problem

MAX_FILLED = 1 << 20
"""Characters that the texts of one meta may have once they are filled."""

RUN = ("id", "started_at")
"""What `${run.…}` may ask for: the run's id, and when it began as an RFC 3339 time."""

FORMS = (
    "${params.NAME}, ${steps.ID.result}, ${steps.ID.result.PATH}, ${run.id}, ${run.started_at} or ${env.NAME}"
)

_TOKEN = re.compile(r"\$\$|\$\{([^{}\n]{0,300})\}|\$\{")
_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
_PATH = r"(?:\.[A-Za-z0-9_-]{1,64}){0,16}"
_REFERENCE = re.compile(
    rf"(params)\.({_NAME})|(steps)\.({_NAME})\.result({_PATH})|(run)\.({'|'.join(RUN)})|(env)\.([A-Za-z_][A-Za-z0-9_]{{0,127}})"
)


class Reference(NamedTuple):
    """What a text asks for. `kind` is params, steps, run or env; `path` leads into a step's result."""

    kind: str
    name: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        middle = ".result" if self.kind == "steps" else ""
        return "${" + ".".join([f"{self.kind}.{self.name}{middle}", *self.path]) + "}"


class Found(NamedTuple):
    """A reference and the dotted path of the text it is in; None for `${` that begins no reference."""

    at: str
    reference: Reference | None


def references(value: Any, at: str = "") -> Iterator[Found]:
    """Yield every reference in the texts of a JSON value that is called `at`."""
    for where, text in _texts(value, at):
        for part in _parts(text):
            if not isinstance(part, str):
                yield Found(where, part)


def fill(
    value: Any,
    params: Mapping[str, Any],
    results: Mapping[str, Any],
    run: Mapping[str, str] | None = None,
    *,
    keep_env: bool = False,
) -> Any:
    """Return a JSON value with its references replaced. `results` are those of the steps, by id.

    With `keep_env` it is still a template, over the environment alone. Raises `Invalid` with every reference
    that stands for nothing, and for more than `MAX_FILLED` characters.
    """
    filler = _Filler(params, results, run or {}, keep_env=keep_env)
    filled = filler.value(value)
    if filler.problems:
        raise Invalid(filler.problems)
    return filled


def escape(value: Any) -> Any:
    """Return a JSON value that reads as it is where a template is read: its dollar signs are doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list | tuple):
        return [escape(one) for one in value]
    if isinstance(value, Mapping):
        return {name: escape(one) for name, one in value.items()}
    return value


class _Filler:
    def __init__(
        self, params: Mapping[str, Any], results: Mapping[str, Any], run: Mapping[str, str], *, keep_env: bool
    ) -> None:
        self.known = {"params": params, "steps": results, "run": run}
        self.keep_env = keep_env
        self.problems: list[Problem] = []
        self.left = MAX_FILLED

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        if isinstance(value, Mapping):
            return {name: self.value(one) for name, one in value.items()}
        return value

    def text(self, text: str) -> Any:
        parts = list(_parts(text))
        if len(parts) == 1 and isinstance(parts[0], Reference) and parts[0].kind != "env":
            value = self.resolved(parts[0])
            self.spend(len(_as_text(value)))
            return escape(value) if self.keep_env else value
        filled = []
        for part in parts:
            if self.left < 0:
                return ""
            piece = part if isinstance(part, str) else self.piece(part)
            self.spend(len(piece))
            keeps = isinstance(part, Reference) and part.kind == "env"
            filled.append(escape(piece) if self.keep_env and not keeps else piece)
        return "".join(filled)

    def piece(self, reference: Reference | None) -> str:
        if reference is None:
            self.problems.append(Problem("", f"${{ begins no reference: write $${{, or {FORMS}"))
            return ""
        if reference.kind == "env":
            if not self.keep_env:
                self.problems.append(Problem("", f"{reference} may not be used by this task"))
            return str(reference)
        return _as_text(self.resolved(reference))

    def resolved(self, reference: Reference) -> Any:
        known = self.known[reference.kind]
        if reference.name not in known:
            self.problems.append(Problem("", f"{reference} is not known"))
            return ""
        value = known[reference.name]
        for step in reference.path:
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                self.problems.append(Problem("", f"{reference}: there is no {step} in what came of it"))
                return ""
        return value

    def spend(self, characters: int) -> None:
        if 0 <= self.left < characters:
            self.problems.append(Problem("", f"has more than {MAX_FILLED} characters once it is filled"))
        self.left -= characters


def _texts(value: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _texts(one, f"{at}[{index}]")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _texts(one, f"{at}.{name}" if at else str(name))


def _parts(text: str) -> Iterator[str | Reference | None]:
    """Yield plain text, references, and None for each `${` that begins none."""
    plain = ""
    end = 0
    for token in _TOKEN.finditer(text):
        plain += text[end : token.start()]
        end = token.end()
        if token[0] == "$$":
            plain += "$"
            continue
        if plain:
            yield plain
        plain = ""
        yield _reference(token[1]) if token[1] is not None else None
    if plain + text[end:]:
        yield plain + text[end:]


def _reference(inner: str) -> Reference | None:
    match = _REFERENCE.fullmatch(inner)
    if match is None:
        return None
    kind, name, *path = (part for part in match.groups() if part is not None)
    return Reference(kind, name, tuple(path[0].split(".")[1:]) if path and path[0] else ())


def _as_text(value: Any) -> str:
    """Return a value as it stands within other text: nothing for null, JSON for what is no text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
