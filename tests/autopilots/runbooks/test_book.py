"""Books: what each form becomes, that every mistake has its line, and what parameters may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilots.runbooks import Book, BookInvalid, load, names, parse_book
from autopilots.runbooks.source import Mistake
from router.errors import Invalid, NotFound
from router.graph import Action, Fix, Step
from router.steps import parse_graph

HEAD = """\
book: test
title: A test
defaults: {cwd: "${params.dir}", attempts: 2, cool_down: 5s, timeout: 2m}
params:
  dir: {description: Where, default: here}
phases: [{id: first, title: First}, {id: second, title: Second}]
steps:
"""
JSON_A = "http.expect.json.a: must be a value, or an object of is, not, at_least"
SEEN = "verify: {file: {path: x, check: {exists: true}}}"


def book(steps: str, head: str = HEAD) -> Book:
    """Read a book with these steps, each a line `id, fields…` or several."""
    return parse_book(head + steps)


def one(fields: str) -> Step:
    """Read a step with these fields, one a line."""
    lines = ["id: one", "title: One", "phase: first", *fields.splitlines()]
    text = "  - " + "\n    ".join(lines) + "\n"
    other = f"  - {{id: two, title: Two, phase: second, {SEEN}}}\n"
    return book(text + other).graph.steps[0]


def mistakes(text: str) -> list[str]:
    """Return the mistakes of a book as they are shown."""
    with pytest.raises(BookInvalid) as refused:
        parse_book(text)
    return [str(mistake) for mistake in refused.value.mistakes]


def wrong(fields: str) -> list[str]:
    """Return what is wrong with a step, without its place."""
    lines = ["id: one", "title: One", *fields.splitlines()]
    text = "book: test\nparams: {p: {description: d, default: x}}\nsteps:\n  - " + "\n    ".join(lines)
    return [said.partition("steps[0]")[2].removeprefix(".") for said in mistakes(text)]


# Forms


def test_a_task_or_a_capability_is_taken_as_it_is() -> None:
    """A step may name a task or a capability with its meta, and who has to do it."""
    assert one(f"task: deploy_page\nmeta: {{slug: a}}\nautopilot: me\n{SEEN}").action == Action(
        "deploy_page", None, {"slug": "a"}, "me"
    )
    assert one(f"capability: web.pages.deploy\n{SEEN}").action == Action(capability="web.pages.deploy")


@pytest.mark.parametrize(
    ("written", "meta"),
    [
        ("[npm, ci]", {"run": ["npm", "ci"], "cwd": "${params.dir}"}),
        ('{run: [a, ""], cwd: sub}', {"run": ["a", ""], "cwd": "sub"}),
        ("{run: echo $HOME, shell: true}", {"run": ["echo $HOME"], "shell": True, "cwd": "${params.dir}"}),
        (
            '{run: [x], cwd: ., env: [TOKEN], set: {A: "1"}, stdin: in, timeout: 10m}',
            {
                "run": ["x"],
                "cwd": ".",
                "env": ["TOKEN"],
                "set": {"A": "1"},
                "stdin": "in",
                "timeout_seconds": 600.0,
            },
        ),
        (
            "{run: [x], cwd: ., expect: {exit: 1, contains: a, lacks: [b, c], json: {n: 0, m: {not: 5}}}}",
            {
                "run": ["x"],
                "cwd": ".",
                "expect": {
                    "exit": [1],
                    "contains": ["a"],
                    "lacks": ["b", "c"],
                    "json": {"n": {"is": 0}, "m": {"not": 5}},
                },
            },
        ),
        (
            '{run: [x], cwd: ., set: {A: "${env.B}"}, stdin: "${env.A}"}',
            {"run": ["x"], "cwd": ".", "set": {"A": "${env.B}"}, "stdin": "${env.A}", "secrets": ["A", "B"]},
        ),
    ],
)
def test_a_command_becomes_command_run(written: str, meta: dict[str, Any]) -> None:
    """A command may be its arguments alone, or say where, with what and what has to come of it."""
    assert one(f"command: {written}\n{SEEN}").action == Action(capability="command.run", meta=meta)


@pytest.mark.parametrize(
    ("written", "meta"),
    [
        ("{url: http://x}", {"method": "GET", "url": "http://x"}),
        (
            '{method: PUT, url: http://x, headers: {a: "B ${env.T}"}, body: {k: ["${env.S}"]}, keep: [id]}',
            {
                "method": "PUT",
                "url": "http://x",
                "headers": {"a": "B ${env.T}"},
                "body": {"k": ["${env.S}"]},
                "keep": ["id"],
                "secrets": ["S", "T"],
            },
        ),
        (
            "{url: http://x, body: text, timeout: 3, wait: 1m, every: 0.5}",
            {
                "method": "GET",
                "url": "http://x",
                "body": "text",
                "timeout_seconds": 3.0,
                "wait_seconds": 60.0,
                "every_seconds": 0.5,
            },
        ),
        (
            "{url: u, expect: {status: 200, contains: a, json: {$: [], b: {exists: true}}, header: {h: v}, "
            "seconds: 2}}",
            {
                "method": "GET",
                "url": "u",
                "expect": {
                    "status": [200],
                    "contains": ["a"],
                    "json": {"$": {"is": []}, "b": {"exists": True}},
                    "header": {"h": {"is": "v"}},
                    "seconds": 2.0,
                },
            },
        ),
    ],
)
def test_a_call_becomes_http_call(written: str, meta: dict[str, Any]) -> None:
    """A call says what is sent, what has to come back, and how long it is tried."""
    assert one(f"http: {written}\n{SEEN}").action == Action(capability="http.call", meta=meta)


@pytest.mark.parametrize(
    ("written", "meta"),
    [
        ("{path: f, write: t}", {"action": "write", "text": "t"}),
        ('{path: f, write: ""}', {"action": "write", "text": ""}),
        ("{path: f, write: t, if_missing: true}", {"action": "write", "text": "t", "if_missing": True}),
        ("{path: f, append: t}", {"action": "append", "text": "t"}),
        ("{path: f, replace: {find: a, with: b}}", {"action": "replace", "find": "a", "with": "b"}),
        (
            '{path: f, replace: {find: a, with: "", all: true}}',
            {"action": "replace", "find": "a", "with": "", "all": True},
        ),
        ("{path: f, delete: true}", {"action": "delete"}),
        ('{path: f, restore: "k"}', {"action": "restore", "backup": "k"}),
    ],
)  # fmt: skip
def test_a_file_becomes_file_change_and_can_be_put_back(written: str, meta: dict[str, Any]) -> None:
    """Each kind of change has its meta, and the undo that brings the file back."""
    step = one(f"file: {written}\n{SEEN}")
    folder = {"cwd": "${params.dir}"}
    assert step.action == Action(capability="file.change", meta={"path": "f", **meta, **folder})
    undo = {"path": "f", "action": "restore", "backup": "${steps.one.result.backup}", **folder}
    assert step.undo == Action(capability="file.change", meta=undo)


def test_the_check_of_a_file_is_the_first_verify() -> None:
    """A change with a check is verified by it, before what is written under verify."""
    step = one("file: {path: f, cwd: c, write: t, check: {contains: t}}\nverify: [{command: [x]}]")
    assert [action.capability for action in step.verify] == ["file.check", "command.run"]
    assert step.verify[0].meta == {"path": "f", "contains": ["t"], "cwd": "c"}


def test_a_file_with_only_a_check_is_no_change() -> None:
    """A check alone is file.check, and there is nothing to undo."""
    step = one(
        "file: {path: f, check: {lacks: [x], json: {a.0: 1}, at_most_bytes: 5, exists: true}}\n" + SEEN
    )
    assert step.action is not None
    assert step.action.capability == "file.check"
    assert step.action.meta == {
        "path": "f", "exists": True, "lacks": ["x"], "json": {"a.0": {"is": 1}}, "at_most_bytes": 5,
        "cwd": "${params.dir}",
    }  # fmt: skip
    assert step.undo is None


def test_an_undo_of_its_own_is_kept() -> None:
    """What a step says of undoing counts for files too."""
    assert one(f"file: {{path: f, write: t}}\nundo: {{command: [u], }}\n{SEEN}").undo == Action(
        capability="command.run", meta={"run": ["u"], "cwd": "${params.dir}"}
    )


def test_a_step_has_all_its_fields() -> None:
    """What a step says, and what goes for all steps, is in the graph."""
    step = one(
        "description: d\nneeds: [second]\npriority: low\nestimate: 1.5\nattempts: 4\ncool_down: 1m\n"
        "timeout: 1h\nrequires_env: [A]\noptional: true\napproval: Look\ncommand: [x]\n"
        'verify: {http: {url: "${env.B}"}}\n'
        'fixes: [{name: f, when: gone, description: e, http: {url: "${env.A}"}}]'
    )
    call = {"method": "GET", "url": "${env.A}", "secrets": ["A"]}
    assert step == Step(
        id="one",
        title="One",
        description="d",
        action=Action(capability="command.run", meta={"run": ["x"], "cwd": "${params.dir}"}),
        needs=("two",),
        phase="first",
        priority="low",
        estimated_minutes=1.5,
        attempts=4,
        cool_down_seconds=60,
        timeout_seconds=3600,
        verify=(Action(capability="http.call", meta=call | {"url": "${env.B}", "secrets": ["B"]}),),
        requires_env=("A", "B"),
        optional=True,
        approval="Look",
        fixes=(Fix("f", Action(capability="http.call", meta=call), "gone", "e"),),
    )
    plain = one(SEEN)
    assert (plain.attempts, plain.cool_down_seconds, plain.timeout_seconds) == (2, 5, 120)
    assert (plain.priority, plain.action) == ("medium", None)


def test_secrets_are_needed_and_handed_on_variables_are_not() -> None:
    """`${env.NAME}` makes a variable required; one that is only handed on may be missing."""
    step = one(f'command: {{run: [x], env: [MAYBE], set: {{A: "${{env.SURE}}"}}}}\n{SEEN}')
    assert step.requires_env == ("SURE",)


# Mistakes


BAD = """\
book: Sample
title: [A, sample]
oops: 1
max_parallel: 0
defaults: {cool_down: forever}
params:
  a: {description: x, default: "5"}
  b: {description: y}
  c: {description: z, default: "${params.d}", patern: x}
  d: 5
phases:
  - {id: p, title: P}
  - {id: p, title: Q}
  - {id: empty, title: E}
criteria: [{text: ok, steps: nope}]
steps:
  - id: one
    title: One
    phase: q
    command: [echo, 5]
    verify: {http: {url: "${params.x}", expect: {status: [200, "a"]}}}
  - id: two
    title: Two
    phase: p
    needs: [one, three, fuor]
    http:
      url: http://x
      headers: {authorization: "Bearer ${env.TOKEN}"}
      method: FETCH
  - id: three
    title: Three
    needs: [p]
    command:
      - a
      - ${env.X}
    verify:
      - file: {path: x, check: {exists: true}}
      - {file: {path: "y"}}
  - id: four
    title: Four
    file: {path: x, write: "${params.nope} ${env.Y}", check: {contains: "${steps.one.result}"}}
    undo: {capability: nope, meta: {a: ["${params.a}", "${params.z}"]}}
    id: five
  - title: Nameless
  - id: four
    title: Fourth
    command: [x, "${steps.ten.result}"]
  - just text
"""


def test_every_mistake_is_reported_together_with_its_line() -> None:
    """Unknown fields and ids, duplicates, cycles, types and references: all of them, in order, with lines."""
    assert mistakes(BAD) == [
        "line 1: book: String should match pattern '^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$'",
        "line 2: title: must be text",
        "line 3: oops: is not a known field",
        "line 4: max_parallel: Input should be greater than or equal to 1",
        "line 5: defaults.cool_down: must be seconds, or a duration such as 90s, 10m or 1h",
        "line 8: params.b: has either a default or required: true",
        "line 9: params.c.patern: is not a known field",
        "line 10: params.d: must be an object",
        "line 13: phases[1].id: p is the id of another phase",
        "line 14: phases[2]: no step is in empty",
        "line 15: criteria[0].steps: nope is no step",
        "line 19: steps[0].phase: q is no phase",
        "line 20: steps[0].command[1]: must be text",
        "line 21: steps[0].verify.http.expect.status[1]: must be a whole number",
        "line 25: steps[1].needs: a cycle, each needs the next: two -> three -> two",
        "line 25: steps[1].needs[2]: fuor is no step; is four meant?",
        "line 29: steps[1].http.method: must be one of 'GET', 'HEAD', 'POST', 'PUT', 'PATCH' or 'DELETE'",
        "line 33: steps[2].command: every process sees the arguments of others: hand secrets over with env",
        "line 38: steps[2].verify[1].file: has one of write, append, replace, delete, restore, a check, "
        "or both",
        "line 41: steps[3].file.write: ${env.Y} is not among the secrets of this task",
        "line 41: steps[3].file.write: ${params.nope}: there is no parameter nope",
        "line 42: steps[3].undo.capability: must be a capability, such as web.pages.deploy",
        "line 42: steps[3].undo.meta.a[1]: ${params.z}: there is no parameter z",
        "line 43: steps[3].id: is given twice",
        "line 44: steps[4]: id is required",
        "line 45: steps[5]: four has none, so nothing could say that it is done",
        "line 45: steps[5].id: four is the id of another step",
        "line 47: steps[5].command[1]: ${steps.ten.result}: ten is no step",
        "line 48: steps[6]: must be an object",
    ]


def test_the_problems_of_a_book_are_problems() -> None:
    """The API lists the mistakes as the fields of any other body."""
    with pytest.raises(BookInvalid) as refused:
        parse_book("book: x\nsteps: []\nsteps: 5")
    problems = [tuple(problem) for problem in refused.value.problems]
    assert problems == [("steps", "line 2: must have at least one"), ("steps", "line 3: is given twice")]
    assert refused.value.code == "invalid_body"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: is empty"),
        ("- a", "line 1: a book is an object: book, title, steps"),
        ("just text", "line 1: a book is an object: book, title, steps"),
        ("book: x", "line 1: must have at least one"),
        ("book: x\nsteps:", "line 2: steps: must have at least one"),
        ("book: x\nsteps: {a: 1}", "line 2: steps: must have at least one"),
        (f"book: x\nparams: [1]\nsteps: [{{id: a, title: A, {SEEN}}}]", "line 2: params: must be an object"),
        ("book: x\nsteps: [", "line 3: no YAML"),
    ],
)  # fmt: skip
def test_d16_what_is_no_plan_is_refused(text: str, said: str) -> None:
    """An empty plan and what is no book are errors with a line, not runs that are complete."""
    assert mistakes(text)[0].startswith(said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("command: [a]\nhttp: {url: u}", ": has one of task, capability, command, http, file"),
        ("verify: {}", "verify: has one of task, capability, command, http, file"),
        ("verify: [{command: [a], task: t}]", "verify[0]: has one of task, capability, command, http, file"),
        (f"fixes: [{{name: f}}]\n{SEEN}", "fixes[0]: has one of task, capability, command, http, file"),
        (f'command: [""]\n{SEEN}', "command: a command begins with its program"),
        (f"command: ls\n{SEEN}", "command: must be an object"),
        (f"command: {{run: ls -l}}\n{SEEN}", "command.run: must be a list"),
        (f"command: {{run: [a, b], shell: true}}\n{SEEN}", "command: with shell: true run is a script"),
        (f'command: {{run: "x ${{params.p}}", shell: true}}\n{SEEN}', "command: a script has no references"),
        (f"command: {{run: [x], env: [1A]}}\n{SEEN}", "command.env[0]: String should match"),
        (f"http: {{url: u, wait: 1h}}\n{SEEN}", "http.wait: Input should be less than or equal to 600"),
        (f"http: {{url: u, expect: {{json: {{a: {{eq: 1}}}}}}}}\n{SEEN}", JSON_A),
        (f"file: {{path: f, write: a, append: b}}\n{SEEN}", "file: has one of write, append"),
        (f"file: {{path: f, append: b, if_missing: true}}\n{SEEN}", "file: if_missing is for write"),
        (f"file: {{path: f, replace: {{find: a}}}}\n{SEEN}", "file.replace: with is required"),
        (f'command: [x, "${{steps.one.result}}"]\n{SEEN}', "command[1]: ${steps.one.result}: one has no"),
        (f'command: {{run: [x], set: {{A: "${{what}}"}}}}\n{SEEN}', "command.set.A: ${ begins no reference"),
        (f'approval: "${{params.q}}"\n{SEEN}', "approval: ${params.q}: there is no parameter q"),
        (f"command: [a]\nmeta: {{}}\n{SEEN}", ": meta and autopilot are for a task or a capability"),
        (f"attempts: 99\n{SEEN}", "attempts: must be a whole number from 1 to 20"),
        (f"cool_down: 2h\nestimate: 1000000\n{SEEN}", "estimate: must be a number from 0 to 100000"),
        ("approval: Do it", ": one has none, so nothing could say that it is done"),
    ],
)  # fmt: skip
def test_mistakes_in_steps_say_what_to_write(fields: str, said: str) -> None:
    """Each form is checked before anything runs."""
    assert any(found.startswith(said) for found in wrong(fields))


def test_a_good_step_is_judged_beside_a_bad_one() -> None:
    """What others need of a step with a mistake is not reported as missing."""
    text = f"book: x\nsteps:\n  - {{id: a, title: 5, {SEEN}}}\n  - {{id: b, title: B, needs: [a], {SEEN}}}\n"
    assert mistakes(text) == ["line 3: steps[0].title: must be text"]


@given(st.text(alphabet="abdeinopstk:-[]{}$ .\n\"'", max_size=60))
def test_any_steps_are_read_or_refused(text: str) -> None:
    """Whatever stands under steps, the answer is a book or its mistakes."""
    try:
        found = parse_book("book: x\nsteps:\n  - id: a\n    title: A\n    " + text.replace("\n", "\n    "))
    except BookInvalid as error:
        refused: BookInvalid | None = error
    else:
        refused = None
        assert found.graph.steps
    assert refused is None or refused.mistakes


FRAGMENTS = st.sampled_from(
    [
        None,
        5,
        "x",
        [],
        {},
        ["x"],
        {"run": ["x"]},
        {"path": "f"},
        {"url": "u"},
        "${params.q}",
        "${",
        {"command": ["x"]},
    ]
)
FORMS = ["command", "http", "file", "task", "capability", "meta", "verify", "undo", "fixes"]
OTHERS = ["needs", "phase", "id", "title", "estimate", "attempts", "timeout", "requires_env", "approval"]
FIELDS = st.sampled_from(FORMS + OTHERS)


@given(st.dictionaries(FIELDS, FRAGMENTS, max_size=5))
def test_fields_of_any_type_are_read_or_refused(fields: dict[str, Any]) -> None:
    """A value of the wrong type anywhere in a step is a mistake, never a crash."""
    step = {"id": "a", "title": "A", **fields}
    found: list[Mistake] = []
    try:
        parse_book(f"book: x\nsteps: [{json.dumps(step)}]")
    except BookInvalid as error:
        found = error.mistakes
    assert all(mistake.line == 2 for mistake in found)


# Parameters


def with_params(params: str) -> Book:
    """Read a book with these parameters."""
    return parse_book(f"book: x\nparams:\n{params}\nsteps: [{{id: a, title: A, {SEEN}}}]\n")


PARAMS = """\
  domain: {description: The domain, required: true, pattern: "[a-z.]+"}
  api: {description: The API, default: "api.${params.domain}", pattern: "[a-z.]+"}
  stage: {description: The stage, default: test, enum: [test, live]}
  count: {description: How many, type: number, default: 3}
  loud: {description: Loud, type: boolean, default: false}
  tables: {description: Tables, type: list, default: [users], pattern: "[a-z]+"}
"""


def test_parameters_have_values() -> None:
    """A default may be made of parameters before it; what is given counts."""
    book = with_params(PARAMS)
    assert book.values({"domain": "x.org"}) == {
        "domain": "x.org",
        "api": "api.x.org",
        "stage": "test",
        "count": 3,
        "loud": False,
        "tables": ["users"],
    }
    given = {"domain": "x", "api": "y", "stage": "live", "count": 1.5, "loud": True, "tables": ["a", "b"]}
    assert book.values(given) == given


def test_every_wrong_parameter_is_reported() -> None:
    """Unknown, missing and unfitting values are all refused together."""
    given = {"api": "A", "stage": "dev", "count": True, "loud": 1, "tables": ["a", "B"], "other": 1}
    with pytest.raises(Invalid) as refused:
        with_params(PARAMS).values(given)
    assert {problem.field: problem.message for problem in refused.value.problems} == {
        "params.other": "is no parameter of this book",
        "params.domain": "is required: The domain",
        "params.api": "must match [a-z.]+",
        "params.stage": "must be one of test, live",
        "params.count": "must be a number",
        "params.loud": "must be true or false",
        "params.tables": "must match [a-z]+",
    }


@pytest.mark.parametrize("value", ["x.org\n", "\nx", "a b", "", 5, None, ["x"], "x" * 8193])
def test_a_pattern_is_for_the_whole_text(value: object) -> None:
    """What only begins or ends well does not match, and no other type does."""
    with pytest.raises(Invalid):
        with_params(PARAMS).values({"domain": value})


def test_a_default_without_what_it_is_made_of_is_not_reported() -> None:
    """Only the parameter that is missing is told, not each that is made of it."""
    with pytest.raises(Invalid) as refused:
        with_params(PARAMS).values({})
    assert [problem.field for problem in refused.value.problems] == ["params.domain"]


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ('{description: d, default: x, pattern: "("}', "pattern: is no regular expression"),
        ('{description: d, default: x, pattern: "(?=x)x"}', "pattern: is no regular expression"),
        ("{description: d, default: x, required: true}", "default: has either a default or required: true"),
        ("{description: d, default: x, enum: [a, b]}", "default: must be one of a, b"),
        ("{description: d, default: 5}", "default: must be text of at most 8192 characters"),
        ("{description: d, type: list, default: [1]}", "default: must be a list of at most 100 texts"),
        ('{description: d, default: "${params.p}"}', "default: a default may refer only to"),
        ('{description: d, default: "${env.HOME}"}', "default: a default may refer only to"),
        ("{description: d, default: x, type: date}", "type: must be one of 'text', 'number'"),
    ],
)  # fmt: skip
def test_parameters_themselves_are_checked(param: str, said: str) -> None:
    """A default has to be what the parameter may be, and a pattern one that takes linear time."""
    text = f"book: x\nparams:\n  p: {param}\nsteps: [{{id: a, title: A, {SEEN}}}]\n"
    found = mistakes(text)
    assert len(found) == 1
    assert found[0].startswith(f"line 3: params.p.{said}")


# Shelves


def test_books_are_loaded_by_name(tmp_path: Path) -> None:
    """A folder of books is listed; unknown names are refused with those there are, paths are no names."""
    text = f"book: mine\nsteps: [{{id: a, title: A, {SEEN}}}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text)
    (tmp_path / "Not one.yaml").write_text(text)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert names(tmp_path) == ["bytes", "mine", "other"]
    assert load("mine", tmp_path).name == "mine"
    for name in ("nope", "../mine", "", "mine.yaml"):
        with pytest.raises(NotFound) as unknown:
            load(name, tmp_path)
        assert unknown.value.extra["available"] == ["bytes", "mine", "other"]
    with pytest.raises(BookInvalid, match=r"is mine, but the file is called other\.yaml"):
        load("other", tmp_path)
    with pytest.raises(BookInvalid, match="is not in UTF-8"):
        load("bytes", tmp_path)


def test_phases_have_numbers() -> None:
    """The second phase is the second one listed; there is none before the first and after the last."""
    found = book(
        f"  - {{id: a, title: A, phase: first, {SEEN}}}\n  - {{id: b, title: B, phase: second, {SEEN}}}\n"
    )
    assert found.phase(2).id == "second"
    for number in (0, 3):
        with pytest.raises(NotFound, match="has 2 phases"):
            found.phase(number)


def test_the_sample_book_is_a_graph_like_any_other() -> None:
    """The short book of the demo is six steps with undo, one of them for a person; it needs no account."""
    sample = load("sample")
    assert [step.id for step in sample.graph.steps] == ["folder", "page", "style", "join", "count", "look"]
    assert sample.environment() == ()
    assert [step.id for step in sample.graph.steps if step.approval] == ["look"]
    assert sample.graph.step("look").optional
    assert {step.id for step in sample.graph.steps if step.undo} == {"folder", "page", "style", "join"}
    assert sample.graph.step("join").needs == ("folder", "page", "style")
    assert sample.values({"seconds": "0"})["seconds"] == "0"
    assert parse_graph(sample.graph.document(), [param.name for param in sample.params]) == sample.graph
