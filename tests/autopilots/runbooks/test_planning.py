"""Plans: what a model's answer has to be to become a graph, and that nothing is made up without one."""

from __future__ import annotations

from typing import Any

import pytest

from autopilots.runbooks.planning import (
    MAX_CATALOGUE,
    MAX_LISTED,
    MAX_STEPS,
    MAX_WANTED,
    MOST_CORRECTIONS,
    PlanInvalid,
    Planned,
    plan_objective,
)
from infra.model import Model, ModelUnavailable, Offline
from infra.redact import Redactor
from router.errors import Invalid
from router.graph import Action, check, unverified
from router.model import Capability
from tests.autopilots.runbooks.models import Down, Saying

PAGE = {
    "type": "object",
    "properties": {
        "slug": {"type": "string", "maxLength": 20},
        "copies": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["landing", "pricing"]},
    },
    "required": ["slug"],
    "additionalProperties": False,
}
CATALOGUE = (
    Capability("web.pages.generate", "Generate a branded page", PAGE),
    Capability("web.pages.check", "Look at a page"),
    Capability("site.publish", "Publish a site", requires_approval=True),
    Capability("payouts.batch.run", "Pay out"),
    Capability("command.run", "Run a command"),
    Capability("http.call", "Call an API"),
)
SEEN = {"capability": "web.pages.check", "meta": {}}


def step(name: str, **fields: Any) -> dict[str, Any]:
    """Return a step as a model writes it."""
    action = {"capability": "web.pages.generate", "meta": {"slug": "home"}}
    return {"id": name, "title": f"Do {name}", "action": action, "verify": [SEEN]} | fields


def plan(*steps: Any, **fields: Any) -> dict[str, Any]:
    """Return an answer of a model."""
    return {"name": "site", "steps": list(steps), "proofs": [["a"]]} | fields


GOOD = plan(step("a"), step("b", needs=["a"], priority="critical", estimated_minutes=2.5))


async def planned(model: Model, **changes: Any) -> Planned:
    """Plan the objective of these tests."""
    given: dict[str, Any] = {
        "objective": "A site that answers",
        "criteria": ["the page answers"],
        "constraints": ["keep the stack"],
        "catalogue": CATALOGUE,
    }
    return await plan_objective(model=model, **(given | changes))


async def problems(said: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Return what is wrong with an answer, by field."""
    model = Saying(said)
    with pytest.raises(PlanInvalid) as refused:
        await planned(model, **changes)
    assert len(model.asked) == 1 + MOST_CORRECTIONS
    return {problem.field: problem.message for problem in refused.value.problems}


async def test_an_objective_becomes_a_graph() -> None:
    """A good answer is the graph of it, with its criteria and the steps that show them."""
    found = await planned(Saying(GOOD))
    assert [one.id for one in found.graph.steps] == ["a", "b"]
    assert found.graph.step("a").action == Action(capability="web.pages.generate", meta={"slug": "home"})
    assert found.graph.step("b").needs == ("a",)
    assert [*check(found.graph), *unverified(found.graph)] == []
    assert [(one.text, one.steps) for one in found.criteria] == [("the page answers", ("a",))]
    assert (found.model, found.answers, found.risky) == ("stub", 1, {})


async def test_a_plan_waits_for_a_person_unless_it_is_autonomous() -> None:
    """Approval is the rule; whoever asks for an autonomous plan has to say so."""
    assert (await planned(Saying(GOOD))).needs_approval
    assert not (await planned(Saying(GOOD), autonomous=True)).needs_approval


@pytest.mark.parametrize(
    "action",
    [
        {"capability": "payouts.batch.run"},
        {"capability": "site.publish"},
        {"capability": "command.run", "meta": {"run": ["echo"]}},
        {"capability": "http.call", "meta": {"method": "POST", "url": "https://api.test"}},
        {"capability": "http.call", "meta": {"url": "https://api.test/${env.TOKEN}", "secrets": ["TOKEN"]}},
        {"capability": "web.pages.check", "meta": {"query": "DROP TABLE users"}},
    ],
)
@pytest.mark.parametrize("place", ["action", "verify", "undo"])
async def test_what_is_risky_waits_even_when_autonomous(action: dict[str, Any], place: str) -> None:
    """A model may not start what pays, destroys, changes a machine or reads its secrets, anywhere."""
    said = plan(step("a", **{place: [action] if place == "verify" else action}))
    found = await planned(Saying(said), autonomous=True)
    assert found.needs_approval
    assert list(found.risky) == ["a"]


async def test_reading_is_not_risky() -> None:
    """A call that only reads needs nobody."""
    call = {"capability": "http.call", "meta": {"method": "GET", "url": "https://api.test"}}
    assert (await planned(Saying(plan(step("a", action=call))), autonomous=True)).risky == {}


async def test_problems_are_sent_back_until_they_are_solved() -> None:
    """The model is told every problem of its answer, with that answer, and its next one counts."""
    bad = plan(step("a", needs=["z"]), step("b", action={"capability": "web.pages.paint"}))
    model = Saying(bad, plan(step("a"), step("b", verify=[])), GOOD)
    found = await planned(model)
    assert (found.answers, len(model.asked)) == (3, 3)
    assert "problems" not in model.asked[0]
    assert "steps[0].needs[0]: z is no step" in model.asked[1]
    assert "web.pages.paint" in model.asked[1]
    assert "steps[1].verify: b has none" in model.asked[2]
    assert "z is no step" not in model.asked[2]


@pytest.mark.parametrize(
    ("said", "field", "message"),
    [
        (plan(), "steps", "must have at least one"),
        (plan(step("a", needs=["ghost"])), "steps[0].needs[0]", "ghost is no step"),
        (plan(step("a", needs=["b"]), step("b", needs=["a"])), "steps[0].needs", "a -> b -> a"),
        (plan(step("a", needs=["a"])), "steps[0].needs", "a -> a"),
    ],
)
async def test_d_16_a_plan_that_cannot_run_is_refused(said: Any, field: str, message: str) -> None:
    """D-16: an empty plan, an unknown dependency and a cycle are told, and nothing is started."""
    assert message in (await problems(said))[field]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (plan(step("a", verify=[])), "steps[0].verify"),
        (plan(step("a"), step("a")), "steps[1].id"),
        (plan(step("a"), name="No Name"), "name"),
        (plan(step("a", attempts=20)), "steps[0].attempts"),
        (plan(step("a", fixes=[{"name": "x", "action": SEEN}])), "steps[0].fixes"),
        (plan(step("a", colour="red")), "steps[0].colour"),
        (plan(step("a", action={"task": "generate_page"})), "steps[0].action.capability"),
        (plan(step("a", action={"capability": "web.pages.paint"})), "steps[0].action.capability"),
        (plan(step("a", verify=[{"capability": "web.pages.paint"}])), "steps[0].verify[0].capability"),
        (plan(step("a", undo={"capability": "web.pages.paint"})), "steps[0].undo.capability"),
        (plan(step("a", action=SEEN | {"autopilot": "mine"})), "steps[0].action.autopilot"),
        (plan(step("a", action={"capability": "web.pages.generate"})), "steps[0].action.meta.slug"),
        (plan(step("a"), proofs=[]), "proofs"),
        (plan(step("a"), proofs=[["a"], ["a"]]), "proofs"),
        (plan(step("a"), proofs=[[]]), "proofs[0]"),
        (plan(step("a"), proofs=[["b"]]), "proofs[0]"),
        (plan(*(step(f"s{n}") for n in range(MAX_STEPS + 1)), proofs=[["s0"]]), "steps"),
    ],
)
async def test_a_plan_has_to_be_right(said: Any, field: str) -> None:
    """What is wrong with a plan is told with its place, and no part of it is run."""
    assert field in await problems(said)


@pytest.mark.parametrize(
    ("meta", "good"),
    [
        ({"slug": "home", "kind": "landing"}, True),
        ({"slug": "x" * 21}, False),
        ({"slug": "home", "kind": "other"}, False),
        ({"slug": "home", "copies": "${steps.a.result.count}"}, True),
        ({"slug": "home", "copies": 0, "kind": "${steps.a.result.kind}"}, False),
        ({"slug": "home", "copies": "many"}, False),
        ({"slug": "home", "copies": "${params.count}"}, False),
        ({"slug": "home", "paint": "red"}, False),
    ],
)
async def test_a_meta_has_to_fit_its_capability(meta: dict[str, Any], good: bool) -> None:
    """A meta fits its schema but for references, whose values nobody knows yet."""
    said = plan(step("a"), step("b", needs=["a"], action={"capability": "web.pages.generate", "meta": meta}))
    if good:
        assert (await planned(Saying(said))).graph.step("b").action
    else:
        assert all(field.startswith("steps[1].action.meta") for field in await problems(said))


async def test_without_a_model_nothing_is_made_up() -> None:
    """It is told what to do instead."""
    with pytest.raises(ModelUnavailable, match="set OPENAI_API_KEY, or start a runbook"):
        await planned(Offline())
    with pytest.raises(ModelUnavailable, match="down did not answer"):
        await planned(Down())
    with pytest.raises(ModelUnavailable, match="no valid answer"):
        await planned(Saying(plan("a step")))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"objective": " "}, "objective"),
        ({"objective": "x" * 2001}, "objective"),
        ({"criteria": [""]}, "criteria[0]"),
        ({"criteria": ["x"] * (MAX_LISTED + 1)}, "criteria"),
        ({"constraints": ["x" * 401]}, "constraints[0]"),
        ({"constraints": ["x" * 400] * (MAX_WANTED // 400)}, ""),
        ({"catalogue": ()}, "catalogue"),
    ],
)
async def test_an_objective_has_to_be_one(changes: dict[str, Any], field: str) -> None:
    """What cannot be planned costs no call."""
    model = Saying(GOOD)
    with pytest.raises(Invalid) as refused:
        await planned(model, **changes)
    assert field in [problem.field for problem in refused.value.problems]
    assert model.asked == []


async def test_a_model_is_told_what_there_is_and_no_secret() -> None:
    """It sees the capabilities with their parameters, within a limit, and no secret of this installation."""
    many = [Capability(f"x.y{n}", "hunter2hunter2 " + "d" * 300, PAGE) for n in range(100)]
    model = Saying(GOOD)
    await planned(model, catalogue=(*CATALOGUE, *many), redactor=Redactor(["hunter2hunter2"]))
    told = model.asked[0]
    assert "A site that answers" in told
    assert '- web.pages.generate: Generate a branded page meta: slug! "string", copies "integer"' in told
    assert "more, which do not fit here" in told
    assert "hunter2" not in told
    assert len(told) < MAX_CATALOGUE + 1000
