"""A book as it is written: its fields, and the steps that they become, with the place of each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, ValidationError

from autopilots.runbooks.forms import Does, Env, Form, Name, One, Seconds, Text, has_one_form, listed
from autopilots.runbooks.params import ParamForm
from autopilots.runbooks.source import Mistake, Path, Source
from router.graph import Action, Fix, Priority, Step

M = TypeVar("M", bound=BaseModel)

Long = Annotated[str, StringConstraints(max_length=4000)]
Ids = Annotated[list[Name], Field(max_length=1000)]

_SAID = {
    "extra_forbidden": "is not a known field",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}
"""What we say for what pydantic found, by its name for it."""

_WRITTEN: dict[Path, Path] = {
    ("estimated_minutes",): ("estimate",),
    ("cool_down_seconds",): ("cool_down",),
    ("timeout_seconds",): ("timeout",),
}
"""Fields of a step that a book has under another name."""


class PhaseForm(Form):
    """A phase."""

    id: Name
    title: Text


class CriterionForm(Form):
    """A criterion of success, and the steps that show it."""

    text: Text
    steps: Annotated[Ids, BeforeValidator(listed), Field(min_length=1)]


class DefaultsForm(Form):
    """What goes for every step that does not say otherwise."""

    attempts: int = 3
    cool_down: Seconds = 0
    timeout: Seconds | None = None
    cwd: Text | None = None


class FixForm(Does):
    """A fix: its name, what a failure says that it is for, and what it does."""

    name: Name
    when: str = ""
    description: str = ""


class StepForm(Does):
    """A step."""

    id: Name
    title: Text
    description: Long = ""
    phase: str = ""
    needs: Ids = Field(default=[])
    priority: Priority = "medium"
    estimate: float = Field(default=0, ge=0)
    attempts: int | None = None
    cool_down: Seconds | None = None
    timeout: Seconds | None = None
    verify: Annotated[list[One], BeforeValidator(listed)] = Field(default=[])
    undo: One | None = None
    requires_env: list[Env] = Field(default=[])
    optional: bool = False
    approval: Long = ""
    fixes: list[Annotated[FixForm, AfterValidator(has_one_form)]] = Field(default=[])


class BookForm(Form):
    """All of a book but its parameters and steps."""

    book: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]
    title: Name = ""
    description: Long = ""
    objective: Long = ""
    constraints: list[Text] = Field(default=[])
    criteria: list[CriterionForm] = Field(default=[])
    max_parallel: int = Field(default=4, ge=1, le=100)
    defaults: DefaultsForm = DefaultsForm()
    phases: list[PhaseForm] = Field(default=[])


class Written(NamedTuple):
    """A step of the graph, and where each part of it is written in the step of the book.

    One with mistakes of its own is not `whole`: it stands for what others need.
    """

    step: Step
    places: Mapping[Path, Path]
    whole: bool = True

    def place(self, path: Path) -> Path:
        """Return where a part of the step is written, within the step of the book."""
        for length in range(len(path), 0, -1):
            found = self.places.get(path[:length])
            if found is not None:
                return (*found, *path[length:])
        return path


def top_of(source: Source, mistakes: list[Mistake]) -> BookForm:
    """Return what a book says of itself, without what is wrong there."""
    said = {name: value for name, value in source.value.items() if name not in ("params", "steps")}
    form, found = _validated(BookForm, said, source, ())
    mistakes += found
    if form is None:
        bad = {one.at.partition(".")[0].partition("[")[0] for one in found}
        good = {name: value for name, value in said.items() if name not in bad}
        form = BookForm(**{"book": "unnamed"} | good)
    return form


def params_of(source: Source, mistakes: list[Mistake]) -> Iterator[tuple[str, ParamForm]]:
    """Yield the parameters by name; of one with a mistake the name alone counts."""
    said = source.value.get("params") or {}
    if not isinstance(said, dict):
        mistakes.append(source.mistake(("params",), "must be an object of names to parameters"))
        said = {}
    for name, value in said.items():
        form, found = _validated(ParamForm, value, source, ("params", name))
        mistakes += found
        yield name, form or ParamForm(description="-", required=True)


def steps_of(source: Source, book: BookForm, mistakes: list[Mistake]) -> list[Written]:
    """Return the steps. One with a mistake keeps its id and needs, for what is to be said of the others."""
    said = source.value.get("steps")
    forms = []
    for place, value in enumerate(said if isinstance(said, list) else []):
        form, found = _validated(StepForm, value, source, ("steps", place))
        mistakes += found
        forms.append(form or _stub(value, place))
    phases = {phase.id: [form.id for form in forms if form.phase == phase.id] for phase in book.phases}
    mistakes += _of_phases(source, forms, book.phases)
    steps = []
    for place, form in enumerate(forms):
        needs = [
            (need, number) for number, name in enumerate(form.needs) for need in phases.get(name, [name])
        ]
        if form.title:
            written = _whole(form, said[place], book.defaults, [need for need, _ in needs])
        else:
            ids = tuple(need for need, _ in needs)
            written = Written(Step(form.id, needs=ids, verify=(Action(),)), {}, whole=False)
        places: dict[Path, Path] = {
            ("needs", count): ("needs", number) for count, (_, number) in enumerate(needs)
        }
        steps.append(written._replace(places={**written.places, **places}))
    return steps


def _of_phases(source: Source, forms: Sequence[StepForm], phases: Sequence[PhaseForm]) -> Iterator[Mistake]:
    ids = [phase.id for phase in phases]
    for place, form in enumerate(forms):
        if form.phase and form.phase not in ids:
            yield source.mistake(("steps", place, "phase"), f"{form.phase} is no phase")
    for place, id_ in enumerate(ids):
        if id_ in ids[:place]:
            yield source.mistake(("phases", place, "id"), f"{id_} is the id of another phase")
        elif all(form.phase != id_ for form in forms):
            yield source.mistake(("phases", place), f"no step is in {id_}")


def _stub(value: Any, place: int) -> StepForm:
    """Return a step without a title, which no good one is: the id and needs of a step with a mistake."""
    said = value if isinstance(value, dict) else {}
    needs = said.get("needs")
    texts = [need for need in needs if isinstance(need, str)] if isinstance(needs, list) else []
    id_, phase = said.get("id"), said.get("phase")
    return StepForm.model_construct(
        id=id_ if isinstance(id_, str) else f"unnamed-{place}",
        title="",
        needs=texts,
        phase=phase if isinstance(phase, str) else "",
    )


def _whole(form: StepForm, said: Mapping[str, Any], defaults: DefaultsForm, needs: Sequence[str]) -> Written:
    cwd = defaults.cwd
    places = dict(_WRITTEN)
    action = form.action(cwd) if form.forms else None
    if action:
        places |= _places(("action",), (), form, said)
    verify = []
    undo = form.undo.action(cwd) if form.undo else None
    if form.undo:
        places |= _places(("undo",), ("undo",), form.undo, said["undo"])
    if form.file and form.file.change:
        if form.file.check:
            places |= {("verify", 0): ("file", "check"), ("verify", 0, "meta"): ("file", "check")}
            verify.append(form.file.verify(cwd))
        undo = undo or form.file.undo(cwd, form.id)
        places.setdefault(("undo",), ("file",))
    for number, one in enumerate(form.verify):
        at: Path = ("verify", number) if isinstance(said["verify"], list) else ("verify",)
        written = said["verify"][number] if isinstance(said["verify"], list) else said["verify"]
        places |= _places(("verify", len(verify)), at, one, written)
        verify.append(one.action(cwd))
    fixes = []
    for number, fix in enumerate(form.fixes):
        places |= _places(("fixes", number, "action"), ("fixes", number), fix, said["fixes"][number])
        fixes.append(Fix(fix.name, fix.action(cwd), fix.when, fix.description))
    actions = [one for one in (action, undo, *verify, *(fix.action for fix in fixes)) if one]
    named = [name for one in actions for name in one.secrets]
    step = Step(
        id=form.id,
        title=form.title,
        description=form.description,
        action=action,
        needs=tuple(needs),
        phase=form.phase,
        priority=form.priority,
        estimated_minutes=form.estimate,
        attempts=defaults.attempts if form.attempts is None else form.attempts,
        cool_down_seconds=defaults.cool_down if form.cool_down is None else form.cool_down,
        timeout_seconds=defaults.timeout if form.timeout is None else form.timeout,
        verify=tuple(verify),
        undo=undo,
        requires_env=tuple(dict.fromkeys([*form.requires_env, *sorted(named)])),
        optional=form.optional,
        approval=form.approval,
        fixes=tuple(fixes),
    )
    return Written(step, places)


def _places(of: Path, at: Path, does: Does, said: Any) -> dict[Path, Path]:
    """Return where the parts of a task are written, given where its form is."""
    form = does.forms[0]
    if form in ("task", "capability"):
        return {of: at}
    places = {of: (*at, form), (*of, "meta"): (*at, form)}
    if isinstance(said[form], list):
        places[*of, "meta", "run"] = (*at, form)
    if does.file and does.file.change:
        places[*of, "meta", "text"] = (*at, form, does.file.change)
        places |= {(*of, "meta", part): (*at, form, "replace", part) for part in ("find", "with")}
    return places


def _validated(model: type[M], value: Any, source: Source, at: Path) -> tuple[M | None, list[Mistake]]:
    """Return a form, or None and everything that is wrong with it."""
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    mistakes = []
    for one in found:
        path = at
        for part in one["loc"]:
            # What pydantic steps through but nobody wrote has no place: a type, a list around one.
            path = (*path, part) if (*path, part) in source.marks else path
        kind = one["type"]
        if kind == "missing":
            message = f"{one['loc'][-1]} is required"
        elif kind == "value_error":
            message = str(one["ctx"]["error"])
        elif kind == "literal_error":
            message = f"must be one of {one['ctx']['expected']}"
        else:
            message = _SAID.get(kind, one["msg"])
        mistakes.append(source.mistake(path, message))
    return None, mistakes
