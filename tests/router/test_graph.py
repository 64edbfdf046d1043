"""A graph as a value: what is wrong with one, its JSON, its digest, and how its tasks are filled."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import Invalid
from router.graph import MAX_PROBLEMS, Action, Fix, Graph, Step, check, unverified
from router.steps import MAX_META, parse_graph
from tests.router.graphs import CHECK, dags, graph, step

FULL: dict[str, Any] = {
    "name": "full",
    "steps": [
        {"id": "first", "verify": [{"capability": "file.check", "meta": {"path": "x"}}]},
        {
            "id": "second",
            "title": "The second",
            "description": "Two\nlines",
            "action": {"task": "deploy_page", "meta": {"a": "${steps.first.result.path}"}, "autopilot": "me"},
            "needs": ["first"],
            "phase": "build",
            "priority": "critical",
            "estimated_minutes": 1.5,
            "attempts": 2,
            "cool_down_seconds": 3,
            "timeout_seconds": 4,
            "verify": [{"capability": "http.call", "meta": {"url": "${params.url}"}}],
            "undo": {"capability": "file.change", "meta": {"backup": "${steps.second.result.backup}"}},
            "requires_env": ["TOKEN"],
            "optional": True,
            "approval": "Look at ${params.url}",
            "fixes": [
                {
                    "name": "mark",
                    "action": {"capability": "command.run"},
                    "when": "exists",
                    "description": "d",
                }
            ],
        },
    ],
}


def complaints(one: Graph, params: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what is wrong with a graph, by field."""
    return {problem.field: problem.message for problem in check(one, params)}


def refused(value: object, params: tuple[str, ...] = ()) -> dict[str, str]:
    """Return why a JSON value is no graph, by field."""
    with pytest.raises(Invalid) as error:
        parse_graph(value, params)
    return {problem.field: problem.message for problem in error.value.problems}


def changed(at: int = 1, **fields: Any) -> dict[str, Any]:
    """Give the full document with fields of a step changed."""
    document: dict[str, Any] = json.loads(json.dumps(FULL))
    document["steps"][at] |= fields
    return document


# JSON


def test_a_graph_comes_back_from_its_json_as_it_was() -> None:
    """Every field survives the way there and back, and what has its default is not written."""
    one = parse_graph(FULL, ["url"])
    assert one.document() == FULL
    second = one.step("second")
    assert (second.priority, second.attempts, second.fixes[0].when) == ("critical", 2, "exists")
    with pytest.raises(KeyError):
        one.step("third")


@given(dags())
def test_random_graphs_come_back_from_their_json(one: Graph) -> None:
    """What is encoded is decoded to an equal graph with the same digest."""
    again = parse_graph(json.loads(msgspec.json.encode(one.document())))
    assert again == one
    assert again.digest == one.digest


def test_the_digest_is_of_what_the_graph_says() -> None:
    """The order of members does not count, and every change does."""
    turned = {"steps": [dict(reversed(step.items())) for step in FULL["steps"]], "name": "full"}
    digest = parse_graph(FULL, ["url"]).digest
    assert parse_graph(turned, ["url"]).digest == digest
    others = [
        changed(approval="Look"),
        changed(attempts=1),
        changed(needs=["first"], fixes=[]),
        changed(0, id="first", description="d"),
    ]
    digests = {parse_graph(other, ["url"]).digest for other in others}
    assert len(digests | {digest}) == 5
    assert len(digest) == 64


def test_every_wrong_field_is_reported_at_once() -> None:
    """A bad document is refused with all that is wrong with it."""
    found = refused(
        {
            "name": "No!",
            "extra": 1,
            "steps": [
                5,
                {
                    "id": "1",
                    "title": "x" * 201,
                    "action": {"task": "t", "capability": "a.b"},
                    "needs": ["ok", "not ok"],
                    "priority": "urgent",
                    "estimated_minutes": -1,
                    "attempts": 0,
                    "cool_down_seconds": True,
                    "timeout_seconds": 0,
                    "verify": [{}, {"capability": "x"}, 7],
                    "undo": {"task": "No task", "meta": []},
                    "requires_env": ["A B"],
                    "optional": "yes",
                    "approval": 1,
                    "fixes": [{"name": "f"}, "g", {"name": "h", "action": {"task": "t"}, "when": 1}],
                    "unknown": 1,
                },
            ],
        }
    )
    at = "steps[1]"
    inner = {
        "id", "title", "action", "needs[1]", "priority", "estimated_minutes", "attempts", "cool_down_seconds",
        "timeout_seconds", "verify[0]", "verify[1].capability", "verify[2]", "undo.task", "undo.meta",
        "requires_env[0]", "optional", "approval", "fixes[0].action", "fixes[1]", "fixes[2].when", "unknown",
    }  # fmt: skip
    assert set(found) == {"name", "extra", "steps[0]", *(f"{at}.{field}" for field in inner)}


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_is_no_graph(value: object) -> None:
    """Only an object can be a graph."""
    assert refused(value) == {"body": "must be an object"}


def test_d16_an_empty_plan_is_refused() -> None:
    """A graph without steps is an error, not a run that is complete."""
    assert refused({"name": "x", "steps": []}) == {"steps": "must have at least one"}
    assert refused({"name": "x"}) == {"steps": "is required"}


def test_fixes_have_names_of_their_own_and_metas_a_size() -> None:
    """Two fixes of a name, and a meta that is too large, are refused."""
    fix = {"name": "f", "action": {"task": "t"}}
    assert refused(changed(fixes=[fix, fix]), ("url",)) == {"steps[1].fixes": "f is listed twice"}
    large = {"task": "t", "meta": {"text": "x" * MAX_META}}
    assert list(refused(changed(action=large), ("url",))) == ["steps[1].action.meta"]


# What is wrong with the whole


def test_d16_unknown_ids_and_duplicates_are_refused_at_load() -> None:
    """A need that is no step, a step given twice and a need listed twice are all found, with a guess."""
    one = graph("build", "test: biuld nothing-like-it build build", "build")
    found = complaints(one)
    assert found["steps[1].needs[0]"] == "biuld is no step; is build meant?"
    assert found["steps[1].needs[1]"] == "nothing-like-it is no step"
    assert found["steps[1].needs[3]"] == "build is listed twice"
    assert found["steps[2].id"] == "build is the id of another step"


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        (["a: a"], ["a -> a"]),
        (["a: b", "b: a"], ["a -> b -> a"]),
        (["start", "a: c start", "b: a", "c: b", "end: c"], ["a -> c -> b -> a"]),
        (["a: b c", "b: a", "c: a"], ["a -> b -> a"]),
        (["a: b", "b: a", "between: b", "c: d between", "d: c"], ["a -> b -> a", "c -> d -> c"]),
        (["a: d b", "b: c", "c: a", "d: e", "e: f", "f: a"], ["a -> b -> c -> a"]),
    ],
)
def test_d16_every_knot_is_refused_with_a_shortest_cycle(steps: list[str], shown: list[str]) -> None:
    """A cycle is printed as the way round it, one for each set of steps that need one another."""
    messages = [problem.message for problem in check(graph(*steps))]
    assert messages == [f"a cycle, each needs the next: {way}" for way in shown]


@given(dags(8), st.data())
def test_a_graph_is_refused_exactly_when_it_has_a_cycle(one: Graph, data: st.DataObject) -> None:
    """Random graphs without a cycle are good; a need back to a dependent step is found."""
    assert check(one) == []
    ids = [each.id for each in one.steps]
    start, end = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    needs = {each.id: each.needs for each in one.steps}
    reach, todo = {end}, [end]
    while todo:
        todo += [need for need in needs[todo.pop()] if need not in reach and not reach.add(need)]  # type: ignore[func-returns-value]
    more = graph(
        *(msgspec.structs.replace(s, needs=(*s.needs, end)) if s.id == start else s for s in one.steps)
    )
    if end not in needs[start]:
        assert bool(check(more)) == (start in reach)


def test_a_step_has_something_to_do() -> None:
    """A step needs an action, an approval or a verify; what nothing verifies is told apart."""
    one = graph(Step("idle"), Step("asked", approval="Do it"), Step("done", action=Action("t")), step("seen"))
    assert complaints(one) == {"steps[0]": "idle has no action, no approval and no verify"}
    assert [problem.field for problem in unverified(one)] == [
        "steps[0].verify",
        "steps[1].verify",
        "steps[2].verify",
    ]


def test_ids_and_phases_have_a_grammar() -> None:
    """Ids and phases are names, and no name means both."""
    one = graph(step("a b"), step("ok", phase="p 1"), step("x", phase="ok"))
    assert set(complaints(one)) == {"steps[0].id", "steps[1].phase", "steps[2].phase"}


# References


def meta(text: str, secrets: list[str] | None = None) -> Action:
    """Give an action with a reference in its meta."""
    more = {"secrets": secrets} if secrets is not None else {}
    return Action(capability="http.call", meta={"deep": [{"text": text}], **more})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${params.nope}", "${params.nope}: there is no parameter nope"),
        ("${steps.nope.result}", "${steps.nope.result}: nope is no step"),
        (
            "${steps.later.result.x}",
            "${steps.later.result.x}: this does not need later, which may come after it",
        ),
        ("${steps.this.result}", "${steps.this.result}: this has no result before it is done"),
        ("${env.TOKEN}", "${env.TOKEN} is not among the secrets of this task"),
        ("${nothing}", "${ begins no reference"),
        ("${", "${ begins no reference"),
        ("${params.a.b}", "${ begins no reference"),
    ],
)
def test_unknown_references_are_refused_at_load(text: str, message: str) -> None:
    """What a meta refers to has to be there, and to be there in time."""
    one = graph("first", step("this", "first", action=meta(f"x {text} y")), "later")
    found = complaints(one, ("known",))
    assert list(found) == ["steps[1].action.meta.deep[0].text"]
    assert found["steps[1].action.meta.deep[0].text"].startswith(message)


def test_good_references_are_none_to_complain_about() -> None:
    """Parameters, results of what came before however far back, the run, and listed secrets may be named."""
    text = "${params.known} ${steps.first.result.a.0.b} ${run.id} ${env.TOKEN} $${x} $HOME"
    one = graph("first", "second: first", step("this", "second", action=meta(text, ["TOKEN"])))
    assert check(one, ["known"]) == []


def test_a_step_knows_its_own_result_when_it_is_verified_or_undone() -> None:
    """Its own result is there for its verify and its undo, not for its action, its fixes and its approval."""
    own = meta("${steps.this.result.id}")
    good = step("this", action=Action("t"), verify=(own,), undo=own)
    assert check(graph(good)) == []
    bad = step("this", action=own, fixes=(Fix("f", own),), approval="${steps.this.result.id}")
    assert set(complaints(graph(bad))) == {
        "steps[0].action.meta.deep[0].text",
        "steps[0].fixes[0].action.meta.deep[0].text",
        "steps[0].approval",
    }


def test_results_that_are_there_already_may_be_named() -> None:
    """A part of a graph may use what an earlier run has done of the rest."""
    one = graph(step("b", action=meta("${steps.a.result.id}")))
    assert list(complaints(one)) == ["steps[0].action.meta.deep[0].text"]
    assert check(one, results=["a"]) == []


def test_references_are_read_in_graphs_with_cycles_too() -> None:
    """A cycle does not hide what else is wrong."""
    one = graph(step("a", "b", action=meta("${steps.b.result} ${steps.c.result}")), "b: a")
    assert list(complaints(one)) == ["steps[0].needs", "steps[0].action.meta.deep[0].text"]


def test_no_more_problems_than_can_be_read_are_listed() -> None:
    """A graph with ten thousand mistakes is refused with a hundred of them, quickly."""
    bad = [step(f"s{n}", f"no{n}", f"s{(n + 1) % 5000}", action=meta("${x}")) for n in range(5000)]
    began = time.perf_counter()
    problems = check(graph(*bad))
    assert time.perf_counter() - began < 20
    assert len(problems) == MAX_PROBLEMS
    ring = check(graph(*(f"s{n}: s{(n + 1) % 5000}" for n in range(5000))))
    assert len(ring) == 1
    assert ring[0].message.endswith("-> s48 -> ... -> s0")


def test_size_has_limits() -> None:
    """More steps or needs than a run can have are refused."""
    many = graph(*(f"s{n}" for n in range(10_001)))
    assert complaints(many) == {"steps": "must have at most 10000"}
    ids = [f"s{n}" for n in range(400)]
    dense = graph(*ids, *(step(f"t{n}", *ids) for n in range(251)))
    assert complaints(dense) == {"steps": "may have at most 100000 needs together"}


# Filling


def test_an_action_is_filled() -> None:
    """Its meta has parameters and results in place of references, and the rest of it stays."""
    action = Action("t", None, {"a": "${params.x}", "b": ["${steps.s.result.n}", 1]}, "me")
    assert action.filled({"x": {"y": 1}}, {"s": {"n": 5}}) == Action(
        "t", None, {"a": {"y": 1}, "b": [5, 1]}, "me"
    )
    assert action.secrets == ()


def test_an_action_with_secrets_is_filled_but_for_them() -> None:
    """What is put in cannot name a secret, and the list of secrets is no template."""
    action = meta("${env.KEY} ${params.x}", ["KEY", 5])  # type: ignore[list-item]
    filled = action.filled({"x": "${env.KEY}"}, {})
    assert filled.meta == {"deep": [{"text": "${env.KEY} $${env.KEY}"}], "secrets": ["KEY", 5]}
    assert action.secrets == ("KEY",)
    assert CHECK[0].secrets == ()
