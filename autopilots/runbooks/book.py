"""A runbook: YAML becomes a graph of tasks with its parameters, or every mistake with its line.

    book: sample                        # a name of a-z, 0-9, - and _
    title: A sample                     # also description, objective, constraints, max_parallel
    criteria: [{text: It works, steps: [greet]}]
    defaults: {cwd: "${params.folder}", attempts: 2, cool_down: 5s, timeout: 5m}
    params:
      folder: {description: Where to work, required: true}      # type, default, pattern, enum
    phases: [{id: first, title: The first phase}]
    steps:
      - id: greet                       # also description, optional, timeout, requires_env, approval, fixes
        title: Greet
        phase: first
        needs: []                       # steps, or phases: all steps of one
        priority: high                  # critical, high, medium (unless said), low
        estimate: 2                     # minutes
        command: [echo, hello]          # or task, capability (with meta), http, file; or none of them
        verify: {file: {path: x, check: {contains: hello}}}     # one or a list; a step has at least one
        undo: {command: [rm, x]}        # a file that is changed is put back unless this says otherwise

Texts are templates (see `router.template`). An approval alone is what a person does; before an action it is a
gate. These are the metas that `command`, `http` and `file` become, and what comes of them:

command.run
    run             list of 1 to 256 texts: a program and its arguments; with `shell` one script
    shell           true: the script is run by `sh -c`
    cwd             the folder to run in, relative to the runner's own
    env             names of variables that are handed on from the runner's environment where they are set
    set             object of further variables
    stdin           text for the standard input
    timeout_seconds after that it is killed, with all that it started
    expect          exit: list of good exit codes ([0]); contains, lacks: lists of texts for the standard
                    output; json: for the standard output as JSON
    secrets         for `set` and `stdin`
    -> {exit_code, stdout, stderr, seconds, truncated, json}, redacted, stdout and stderr without the newlines
       at their end; json null unless expect.json is there

http.call
    method, url, headers (an object), body (a text goes as it is, everything else as JSON)
    expect          status: list of good ones (any 2xx); contains, lacks: lists of texts for the body; json;
                    header: object of names to conditions; seconds: the most that the answer may take
    timeout_seconds for one try
    wait_seconds, every_seconds     so long, and so often, it is repeated until the expectation holds
    keep            list of paths: the result's json has only these members, in their places, and headers and
                    text are null; all is kept when absent
    secrets         for `url`, `headers` and `body`
    -> {status, headers, json, text, seconds, tries}; json null where the body is none, text null where it is

file.change
    path, cwd       the file, and the folder it is relative to
    action          write or append (`text`; both make the file where there is none); replace (`find`, `with`,
                    and `all`: true); delete; or restore (`backup`: what the result of a change said; empty:
                    there was no file, and there will be none)
    if_missing      true: `write` leaves a file alone that is there
    -> {path, action, changed, sha256, backup}; a second time nothing is changed: text at the end of the file
       is not appended again, a `find` that is gone is good where its replacement is there. Without `all` it
       has to be there once

file.check
    path, cwd       as above
    exists          true unless said; false: there must be none
    contains, lacks (lists of texts), json, at_most_bytes       what the file has to be like
    -> {path, exists, bytes, sha256, json}

`json` is an object of dotted paths (`data.items.0.id`; `$` is the whole value) to objects of conditions:
`is`, `not`, `at_least`, `at_most`, `exists` (true or false), and `contains` and `lacks`: a part of a text, a
name of an object, or an element of a list (given an object, one that has at least these members); a list of
them is each of them. An expectation that does not hold fails the task.

`secrets` lists environment variables of the runner. Where it is there, all texts of the meta but this list
are read once more: `${env.NAME}` of a listed name becomes the variable's value, `$$` a dollar sign. Where it
is not, no text is. A book does not write the list: `${env.NAME}` in a field that may have it is enough. A
runner may refuse names, and shows the values to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from autopilots.runbooks.params import Param, resolve, wrong
from autopilots.runbooks.source import Mistake, Source, read
from autopilots.runbooks.written import BookForm, Written, params_of, steps_of, top_of
from router.errors import Invalid, NotFound, Problem
from router.graph import Graph, check, unverified
from router.steps import parse_graph

BOOKS = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_TOKEN = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class BookInvalid(Invalid):
    """Raise with every mistake of a book. Each problem's message begins with its line."""

    title = "The runbook has mistakes"

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(mistakes)
        super().__init__([(one.at, f"line {one.line}: {one.message}") for one in self.mistakes])


class Phase(msgspec.Struct, frozen=True):
    """A part of a book under a title; steps name it by its id."""

    id: str
    title: str


class Criterion(msgspec.Struct, frozen=True):
    """What has to hold in the end: it does when all its steps are completed."""

    text: str
    steps: tuple[str, ...]


class Book(msgspec.Struct, frozen=True):
    """A runbook that nothing is wrong with."""

    name: str
    graph: Graph
    params: tuple[Param, ...] = ()
    phases: tuple[Phase, ...] = ()
    title: str = ""
    description: str = ""
    objective: str = ""
    criteria: tuple[Criterion, ...] = ()
    constraints: tuple[str, ...] = ()
    max_parallel: int = 4

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every parameter. Raises `Invalid` with every problem, by `params.NAME`."""
        return resolve(self.params, given)

    def phase(self, number: int) -> Phase:
        """Return a phase by its number, from 1. Raises `NotFound`."""
        if not 1 <= number <= len(self.phases):
            raise NotFound(f"{self.name} has {len(self.phases)} phases, no phase {number}")
        return self.phases[number - 1]

    def environment(self) -> tuple[str, ...]:
        """Return the names of all environment variables that its steps need, sorted."""
        return tuple(sorted({name for step in self.graph.steps for name in step.requires_env}))


def parse_book(text: str) -> Book:
    """Return the book that a YAML text is. Raises `BookInvalid` with all of its mistakes."""
    source = read(text)
    if not isinstance(source.value, dict):
        raise BookInvalid(source.mistakes or [source.mistake((), "a book is an object: book, title, steps")])
    mistakes = list(source.mistakes)
    form = top_of(source, mistakes)
    params = _params(source, mistakes)
    steps = steps_of(source, form, mistakes)
    graph = Graph(form.book, tuple(one.step for one in steps))
    mistakes += _of_graph(source, graph, steps, [param.name for param in params])
    mistakes += _of_criteria(source, form, graph)
    if mistakes:
        raise BookInvalid(mistakes)
    return Book(
        name=form.book,
        graph=graph,
        params=tuple(params),
        phases=tuple(Phase(one.id, one.title) for one in form.phases),
        title=form.title,
        description=form.description,
        objective=form.objective,
        criteria=tuple(Criterion(one.text, tuple(one.steps)) for one in form.criteria),
        constraints=tuple(form.constraints),
        max_parallel=form.max_parallel,
    )


def load(name: str, folder: Path = BOOKS) -> Book:
    """Return a book by its name. Raises `NotFound` with the names there are, and `BookInvalid`."""
    path = folder / f"{name}.yaml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise NotFound(f"there is no runbook {name[:80]!r}", available=names(folder))
    try:
        book = parse_book(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise BookInvalid([Mistake(1, 1, "", "is not in UTF-8")]) from None
    if book.name != name:
        raise BookInvalid([Mistake(1, 1, "book", f"is {book.name}, but the file is called {name}.yaml")])
    return book


def names(folder: Path = BOOKS) -> list[str]:
    """Return the names of the books in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml") if _NAME.fullmatch(path.stem))


def _params(source: Source, mistakes: list[Mistake]) -> list[Param]:
    params = [form.param(name) for name, form in params_of(source, mistakes)]
    for name, field, message in wrong(params):
        mistakes.append(source.mistake(("params", name, field), message))
    return params


def _of_graph(
    source: Source, graph: Graph, steps: Sequence[Written], params: Sequence[str]
) -> Iterator[Mistake]:
    """Yield what is wrong with the graph, at the places it was written at."""
    problems = dict.fromkeys([*check(graph, params), *unverified(graph), *_grammar(graph, params)])
    for problem in problems:
        path = tuple(int(number) if number else name for number, name in _TOKEN.findall(problem.field))
        if len(path) > 1 and isinstance(path[1], int) and path[0] == "steps":
            written = steps[path[1]]
            if written.whole or path[2:3] in (("needs",), ("id",)):
                yield source.mistake(("steps", path[1], *written.place(path[2:])), problem.message)
        else:
            yield source.mistake(path, problem.message)


def _grammar(graph: Graph, params: Sequence[str]) -> list[Problem]:
    try:
        parse_graph(graph.document(), params)
    except Invalid as error:
        return error.problems
    return []


def _of_criteria(source: Source, form: BookForm, graph: Graph) -> Iterator[Mistake]:
    known = {step.id for step in graph.steps}
    for place, criterion in enumerate(form.criteria):
        for number, id_ in enumerate(criterion.steps):
            if id_ not in known:
                yield source.mistake(("criteria", place, "steps", number), f"{id_} is no step")
