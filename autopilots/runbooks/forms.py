"""What the steps of a book may be written as, and the task that each becomes.

A form is `task` or `capability` with its `meta`, `command`, `http` or `file`. The last three are tasks of the
runner; `autopilots.runbooks.book` has the table of their metas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from router.graph import Action
from router.template import references

COMMAND, HTTP, CHANGE, CHECK = "command.run", "http.call", "file.change", "file.check"
"""The capabilities of the runner."""

CONDITIONS = ("is", "not", "at_least", "at_most", "contains", "lacks", "exists")
"""What may be asked of a value of an answer, by name."""

MAX_WAIT = 600.0

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s?([smh]?)")
_ENV = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"

T = TypeVar("T")


def _seconds(value: Any) -> Any:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("must be seconds, or a duration such as 90s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2]] if match else float(value)


def listed(value: Any) -> Any:
    """Return a list: one alone may be written without brackets."""
    return value if isinstance(value, list) else [value]


def _conditions(value: Any) -> Any:
    """Return the conditions on a value: a plain one has to be equal."""
    if not isinstance(value, Mapping):
        return {"is": value}
    if not value or not set(value) <= set(CONDITIONS):
        raise ValueError(f"must be a value, or an object of {', '.join(CONDITIONS)}")
    return value


Text = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
Argument = Annotated[str, StringConstraints(max_length=8192)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Env = Annotated[str, StringConstraints(pattern=_ENV)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=86_400)]
Texts = Annotated[list[Text], BeforeValidator(listed), Field(min_length=1, max_length=50)]
Wholes = Annotated[list[int], BeforeValidator(listed), Field(min_length=1, max_length=20)]
Conditions = Annotated[dict[str, Any], BeforeValidator(_conditions)]
Values = Annotated[dict[Name, Conditions], Field(min_length=1, max_length=50)]


class Form(BaseModel):
    """Base of all that is written in a book: unknown fields are refused, and no type stands for another."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    def meta(self, **more: Any) -> dict[str, Any]:
        """Return what was written, by the names of the meta, with `more` that is not None."""
        said = self.model_dump(mode="json", exclude_unset=True, by_alias=True)
        return {name: value for name, value in (said | more).items() if value is not None}


class OfCommand(Form):
    """What the end of a command has to be like; that it exits with 0 when nothing else is said."""

    exit: Wholes = Field(default=[0])
    contains: Texts | None = None
    lacks: Texts | None = None
    json_: Values | None = Field(default=None, alias="json")


class OfAnswer(Form):
    """What an HTTP answer has to be like; that its status is 2xx when none is named."""

    status: Wholes | None = None
    contains: Texts | None = None
    lacks: Texts | None = None
    json_: Values | None = Field(default=None, alias="json")
    header: Annotated[dict[Name, Conditions], Field(min_length=1, max_length=20)] | None = None
    seconds: Seconds | None = None


class OfFile(Form):
    """What a file has to be like; that it exists when nothing else is said."""

    exists: bool = True
    contains: Texts | None = None
    lacks: Texts | None = None
    json_: Values | None = Field(default=None, alias="json")
    at_most_bytes: int | None = Field(default=None, ge=0)


class Replace(Form):
    """One text in place of another; `all` for everywhere, else it has to be there once."""

    find: Annotated[str, StringConstraints(min_length=1, max_length=65_536)]
    with_: Annotated[str, StringConstraints(max_length=65_536)] = Field(alias="with")
    all: bool = False


class Command(Form):
    """A command: a list of arguments, or with `shell` one script."""

    run: Annotated[list[Argument], Field(min_length=1, max_length=256)]
    shell: bool = False
    cwd: Text | None = None
    env: list[Env] = Field(default=[], max_length=64)
    set: dict[Env, Argument] = Field(default={}, max_length=64)
    stdin: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    timeout: Seconds | None = None
    expect: OfCommand | None = None

    def action(self, cwd: str | None) -> Action:
        """Return the task."""
        expect = self.expect.meta() if self.expect else None
        meta = self.meta(expect=expect, cwd=self.cwd or cwd, timeout=None, timeout_seconds=self.timeout)
        return _action(COMMAND, meta, secret=("set", "stdin"))


def _command(value: Any) -> Any:
    """Return a command in full: it may be only its arguments, and a script stands alone."""
    if isinstance(value, list):
        return {"run": value}
    if isinstance(value, dict) and value.get("shell") is True and isinstance(value.get("run"), str):
        return value | {"run": [value["run"]]}
    return value


def _run_fits(command: Command) -> Command:
    found = [one.reference for one in references(command.run)]
    if not command.run[0].strip():
        raise ValueError("a command begins with its program")
    if command.shell and len(command.run) > 1:
        raise ValueError("with shell: true run is a script")
    if command.shell and found:
        raise ValueError("a script has no references: hand values over with set; $$ is a dollar sign")
    if any(reference and reference.kind == "env" for reference in found):
        raise ValueError("every process sees the arguments of others: hand secrets over with env")
    return command


class Http(Form):
    """A call: a `body` that is a text goes as it is, all else as JSON.

    With `wait` it is repeated every few seconds until its expectation holds.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Text
    headers: dict[Name, Text] = Field(default={}, max_length=50)
    body: Any = None
    expect: OfAnswer | None = None
    timeout: Seconds | None = None
    wait: Annotated[Seconds, Field(le=MAX_WAIT)] | None = None
    every: Annotated[Seconds, Field(ge=0.01, le=60)] | None = None
    keep: list[Name] | None = Field(default=None, max_length=50)

    def action(self, _cwd: str | None) -> Action:
        """Return the task."""
        expect = self.expect.meta() if self.expect else None
        times = {"timeout_seconds": self.timeout, "wait_seconds": self.wait, "every_seconds": self.every}
        meta = self.meta(expect=expect, timeout=None, wait=None, every=None, **times)
        return _action(HTTP, {"method": self.method} | meta, secret=("url", "headers", "body"))


class File(Form):
    """A change of a file, or only a check of one."""

    path: Text
    cwd: Text | None = None
    write: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    append: Annotated[str, StringConstraints(min_length=1, max_length=65_536)] | None = None
    replace: Replace | None = None
    delete: Literal[True] | None = None
    restore: Annotated[str, StringConstraints(max_length=1024)] | None = None
    if_missing: bool = False
    check: OfFile | None = None

    @property
    def change(self) -> str:
        """What is done to the file; empty where it is only checked."""
        return next((name for name in _CHANGES if getattr(self, name) is not None), "")

    def action(self, cwd: str | None) -> Action:
        """Return the task: the change, or the check where there is none."""
        if not self.change:
            return self.verify(cwd)
        meta: dict[str, Any] = {"path": self.path, "action": self.change}
        if self.replace:
            meta |= self.replace.meta()
        elif self.restore is not None:
            meta["backup"] = self.restore
        elif self.delete is None:
            meta["text"] = self.write if self.write is not None else self.append
        if self.if_missing:
            meta["if_missing"] = True
        return _action(CHANGE, meta | _folder(self.cwd or cwd))

    def verify(self, cwd: str | None) -> Action:
        """Return the check as a task."""
        check = self.check.meta() if self.check else {}
        return _action(CHECK, {"path": self.path} | check | _folder(self.cwd or cwd))

    def undo(self, cwd: str | None, step: str) -> Action:
        """Return the task that brings back the file as it was before the step."""
        backup = f"${{steps.{step}.result.backup}}"
        meta = {"path": self.path, "action": "restore", "backup": backup}
        return _action(CHANGE, meta | _folder(self.cwd or cwd))


_CHANGES = ("write", "append", "replace", "delete", "restore")


def _file_fits(file: File) -> File:
    if sum(getattr(file, name) is not None for name in _CHANGES) > 1:
        raise ValueError(f"has one of {', '.join(_CHANGES)}")
    if file.if_missing and file.write is None:
        raise ValueError("if_missing is for write")
    if not file.change and file.check is None:
        raise ValueError(f"has one of {', '.join(_CHANGES)}, a check, or both")
    return file


class Does(Form):
    """Something to do, in one of the forms."""

    task: Name | None = None
    capability: Name | None = None
    meta_: dict[str, Any] | None = Field(default=None, alias="meta")
    autopilot: Name | None = None
    command: Annotated[Command, BeforeValidator(_command), AfterValidator(_run_fits)] | None = None
    http: Http | None = None
    file: Annotated[File, AfterValidator(_file_fits)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.forms) > 1:
            raise ValueError(f"has one of {', '.join(FORMS)}")
        if not self.task and not self.capability and (self.meta_ is not None or self.autopilot):
            raise ValueError("meta and autopilot are for a task or a capability")
        return self

    @property
    def forms(self) -> list[str]:
        """The names of the forms that it is written in: one, or none."""
        return [name for name in FORMS if getattr(self, name) is not None]

    def action(self, cwd: str | None) -> Action:
        """Return the task, for something that is written in one form."""
        form = self.command or self.http or self.file
        if form is not None:
            return form.action(cwd)
        return Action(self.task, self.capability, self.meta_ or {}, self.autopilot)


FORMS = ("task", "capability", "command", "http", "file")


def has_one_form(does: T) -> T:
    """Return what is written in a form. Raises `ValueError` for what is in none."""
    assert isinstance(does, Does)
    if not does.forms:
        raise ValueError(f"has one of {', '.join(FORMS)}")
    return does


One = Annotated[Does, AfterValidator(has_one_form)]


def _action(capability: str, meta: dict[str, Any], secret: tuple[str, ...] = ()) -> Action:
    """Return a task of the runner. What is named `${env.…}` in the fields for it is listed as `secrets`."""
    named = [
        found.reference.name
        for field in secret
        for found in references(meta.get(field))
        if found.reference and found.reference.kind == "env"
    ]
    if named:
        meta = meta | {"secrets": sorted(set(named))}
    return Action(capability=capability, meta=meta)


def _folder(cwd: str | None) -> dict[str, Any]:
    return {} if cwd is None else {"cwd": cwd}
