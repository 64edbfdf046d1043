"""A graph of tasks as a value: its steps, what each needs, and everything that is wrong with one."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from router.errors import Problem
from router.template import FORMS, Reference, fill, references

MAX_STEPS = 10_000
MAX_EDGES = 100_000
"""How many needs the steps of a graph may have together."""
MAX_PROBLEMS = 100
MAX_SHOWN = 50
"""Steps of a cycle that a problem lists."""

Priority = Literal["critical", "high", "medium", "low"]
PRIORITIES: tuple[Priority, ...] = ("critical", "high", "medium", "low")

_STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_SECRETS = "secrets"


def is_step_id(name: str) -> bool:
    """Whether a step or phase may be called so: a letter, then up to 63 letters, digits, _ and -."""
    return _STEP_ID.fullmatch(name) is not None


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task for the planner: a `task` or a `capability`, its `meta`, and who has to do it if it matters.

    The texts of `meta` are templates (see `router.template`). A meta with a list `secrets` goes to an
    autopilot that puts the named environment variables in itself: only those may be written `${env.NAME}`.
    """

    task: str | None = None
    capability: str | None = None
    meta: dict[str, Any] = {}
    autopilot: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The environment variables that its meta may name."""
        names = self.meta.get(_SECRETS)
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()

    def filled(
        self, params: Mapping[str, Any], results: Mapping[str, Any], run: Mapping[str, str] | None = None
    ) -> Action:
        """Return it with its meta as it is sent. Raises `Invalid` where a reference stands for nothing."""
        keep = isinstance(self.meta.get(_SECRETS), list)
        kept = {_SECRETS: self.meta[_SECRETS]} if keep else {}
        rest = {name: value for name, value in self.meta.items() if name not in kept}
        meta = fill(rest, params, results, run, keep_env=keep)
        return Action(self.task, self.capability, meta | kept, self.autopilot)


class Fix(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that may be done about a failed step before it is tried again.

    `when` is what the failures say that it is meant for, in small letters or large; without it somebody has
    to choose it.
    """

    name: str
    action: Action
    when: str = ""
    description: str = ""


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step. It starts when all that it `needs` is done, and is done when every `verify` has passed.

    Without an action it is what a person does, told by `approval`, or only a verification. With both, the
    action waits for the approval. A step that failed is tried `attempts` times in all, `cool_down_seconds`
    apart. `undo` is what a rollback does. An `optional` step may fail, and what needs it goes on. An approval
    may ask for the variables that a step `requires_env`: they are looked for after it.
    """

    id: str
    title: str = ""
    description: str = ""
    action: Action | None = None
    needs: tuple[str, ...] = ()
    phase: str = ""
    priority: Priority = "medium"
    estimated_minutes: float = 0
    attempts: int = 3
    cool_down_seconds: float = 0
    timeout_seconds: float | None = None
    verify: tuple[Action, ...] = ()
    undo: Action | None = None
    requires_env: tuple[str, ...] = ()
    optional: bool = False
    approval: str = ""
    fixes: tuple[Fix, ...] = ()

    def texts(self) -> Iterator[tuple[str, Any, Action | None]]:
        """Yield (path within the step, value, its action) of everything that has references."""
        yield "approval", self.approval, None
        if self.action:
            yield "action.meta", self.action.meta, self.action
        for index, action in enumerate(self.verify):
            yield f"verify[{index}].meta", action.meta, action
        if self.undo:
            yield "undo.meta", self.undo.meta, self.undo
        for index, fix in enumerate(self.fixes):
            yield f"fixes[{index}].action.meta", fix.action.meta, fix.action


class Graph(msgspec.Struct, frozen=True, omit_defaults=True):
    """Steps under a name. The order of `steps` is the last word on which comes first."""

    name: str
    steps: tuple[Step, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of its canonical JSON: a run is pinned to it."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def document(self) -> dict[str, Any]:
        """Return it as JSON, which `router.steps.parse_graph` reads back to an equal graph."""
        shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return shown

    def step(self, id: str) -> Step:  # noqa: A002 -- what a step calls it
        """Return a step by its id. Raises `KeyError`. It looks through them all: for a few look-ups."""
        found = next((step for step in self.steps if step.id == id), None)
        if found is None:
            raise KeyError(id)
        return found


def check(graph: Graph, params: Collection[str] = (), results: Collection[str] = ()) -> list[Problem]:
    """Return what is wrong with a graph, at most `MAX_PROBLEMS` of it. `params` are the parameters it has.

    Wrong are: no steps, ids that are none, given twice or unknown, cycles, steps with nothing to do, and
    references to what is not there, or not there yet. `results` are the ids of steps that have theirs
    already, such as those that a part of a graph leaves out because an earlier run did them. The field of a
    problem is its path in the document.
    """
    if not graph.steps:
        return [Problem("steps", "must have at least one")]
    index = {step.id: number for number, step in reversed(list(enumerate(graph.steps)))}
    problems = [*_wrong_ids(graph, index), *_wrong_needs(graph, index)]
    needs = [[index[need] for need in step.needs if need in index] for step in graph.steps]
    components = _components(needs)
    cyclic = [one for one in components if len(one) > 1 or one[0] in needs[one[0]]]
    for one in sorted(cyclic, key=min):
        cycle = _shortest_cycle(one, needs)
        ids = [graph.steps[number].id for number in cycle]
        shown = " -> ".join(ids if len(ids) <= MAX_SHOWN else [*ids[: MAX_SHOWN - 1], "...", ids[-1]])
        problems.append(Problem(f"steps[{cycle[0]}].needs", f"a cycle, each needs the next: {shown}"))
    before = None
    if not cyclic and _asks_for_results(graph):
        before = _ancestors(needs, [one[0] for one in components])
    for number, step in enumerate(graph.steps):
        for found in _wrong_references(step, number, index, before, params, results):
            problems.append(found)
            if len(problems) >= MAX_PROBLEMS:
                return problems[:MAX_PROBLEMS]
    return problems[:MAX_PROBLEMS]


def _asks_for_results(graph: Graph) -> bool:
    return any(
        found.reference and found.reference.kind == "steps"
        for step in graph.steps
        for _, value, _ in step.texts()
        for found in references(value)
    )


def unverified(graph: Graph) -> list[Problem]:
    """Return a problem for each step that nothing verifies: nobody could say that it is done."""
    return [
        Problem(f"steps[{number}].verify", f"{step.id} has none, so nothing could say that it is done")
        for number, step in enumerate(graph.steps)
        if not step.verify
    ]


def _wrong_ids(graph: Graph, index: Mapping[str, int]) -> Iterator[Problem]:
    if len(graph.steps) > MAX_STEPS:
        yield Problem("steps", f"must have at most {MAX_STEPS}")
    if sum(len(step.needs) for step in graph.steps) > MAX_EDGES:
        yield Problem("steps", f"may have at most {MAX_EDGES} needs together")
    for number, step in enumerate(graph.steps):
        if not is_step_id(step.id):
            yield Problem(f"steps[{number}].id", "must be a letter, then at most 63 letters, digits, _ and -")
        if index[step.id] != number:
            yield Problem(f"steps[{number}].id", f"{step.id} is the id of another step")
        if step.phase and not is_step_id(step.phase):
            yield Problem(f"steps[{number}].phase", "must be named as steps are")
        if step.phase in index:
            yield Problem(f"steps[{number}].phase", f"{step.phase} is the id of a step")
        if step.action is None and not step.approval and not step.verify:
            yield Problem(f"steps[{number}]", f"{step.id} has no action, no approval and no verify")


def _wrong_needs(graph: Graph, index: Mapping[str, int]) -> Iterator[Problem]:
    guesses = 5
    for number, step in enumerate(graph.steps):
        for place, need in enumerate(step.needs):
            at = f"steps[{number}].needs[{place}]"
            if need in step.needs[:place]:
                yield Problem(at, f"{need} is listed twice")
            if need not in index:
                near = difflib.get_close_matches(need, index, n=1) if guesses > 0 else []
                guesses -= 1
                yield Problem(at, f"{need} is no step{f'; is {near[0]} meant?' if near else ''}")


def _components(needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the sets of steps that need one another (Tarjan), each after those that it needs."""
    found: list[list[int]] = []
    seen: dict[int, int] = {}
    lowest: dict[int, int] = {}
    placed: set[int] = set()
    stack: list[int] = []
    for root in range(len(needs)):
        trail = [] if root in seen else [(root, iter(needs[root]))]
        while trail:
            here, rest = trail[-1]
            if here not in seen:
                seen[here] = lowest[here] = len(seen)
                stack.append(here)
            following = next((need for need in rest if need not in placed), None)
            if following is None:
                trail.pop()
                if trail:
                    lowest[trail[-1][0]] = min(lowest[trail[-1][0]], lowest[here])
                if lowest[here] == seen[here]:
                    found.append(_taken(stack, here))
                    placed.update(found[-1])
            elif following in seen:
                lowest[here] = min(lowest[here], seen[following])
            else:
                trail.append((following, iter(needs[following])))
    return found


def _taken(stack: list[int], last: int) -> list[int]:
    """Take everything off a stack down to `last`."""
    taken = [stack.pop()]
    while taken[-1] != last:
        taken.append(stack.pop())
    return taken


def _shortest_cycle(within: Collection[int], needs: Sequence[Sequence[int]]) -> list[int]:
    """Return the shortest cycle through the first of steps that need one another: `[a, b, a]`, a needs b."""
    start = min(within)
    inside = set(within)
    came: dict[int, int] = {}
    row = [start]
    while start not in came:
        following = []
        for here in row:
            for need in needs[here]:
                if need in inside and need not in came:
                    came[need] = here
                    following.append(need)
        row = following
    way = [start, came[start]]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def _ancestors(needs: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Return for each step all that has to be done before it, as bits."""
    before = [0] * len(needs)
    for here in order:
        for need in needs[here]:
            before[here] |= before[need] | 1 << need
    return before


def _wrong_references(
    step: Step,
    number: int,
    index: Mapping[str, int],
    before: Sequence[int] | None,
    params: Collection[str],
    results: Collection[str],
) -> Iterator[Problem]:
    for path, value, action in step.texts():
        own = path.startswith(("verify", "undo"))
        for at, reference in references(value, f"steps[{number}].{path}"):
            if reference is None:
                yield Problem(at, f"${{ begins no reference: write $${{, or {FORMS}")
            elif reference.kind == "params" and reference.name not in params:
                yield Problem(at, f"{reference}: there is no parameter {reference.name}")
            elif reference.kind == "env" and reference.name not in (action.secrets if action else ()):
                yield Problem(at, f"{reference} is not among the secrets of this task")
            elif reference.kind == "steps" and reference.name not in results:
                seen = before[number] if before else None
                yield from _wrong_step(reference, at, step, own=own, index=index, before=seen)


def _wrong_step(
    reference: Reference,
    at: str,
    step: Step,
    *,
    own: bool,
    index: Mapping[str, int],
    before: int | None,
) -> Iterator[Problem]:
    named = reference.name
    if named not in index:
        yield Problem(at, f"{reference}: {named} is no step")
    elif named == step.id:
        if not own:
            yield Problem(at, f"{reference}: {named} has no result before it is done")
    elif before is not None and not before >> index[named] & 1:
        yield Problem(at, f"{reference}: {step.id} does not need {named}, which may come after it")
