"""Which steps can start: kept up change by change, it is what looking at all of them would find."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.frontier import Frontier
from router.graph import Graph, Step
from router.order import ranks
from router.record import Mark
from tests.router.graphs import dags, graph, step

MARKS = "".join(value for name, value in vars(Mark).items() if name.isupper())


def settled(made: Graph, marks: str) -> set[str]:
    """Return the steps nobody waits for, found the slow way: by looking again until nothing changes."""
    done = {step.id for step, mark in zip(made.steps, marks, strict=True) if mark in "DF"}
    while True:
        more = {
            step.id
            for step, mark in zip(made.steps, marks, strict=True)
            if mark == Mark.SKIPPED and done.issuperset(step.needs)
        }
        if more <= done:
            return done
        done |= more


def able(made: Graph, marks: str) -> list[Step]:
    """Return the steps that can start, the first first."""
    done, rank = settled(made, marks), ranks(made)
    found = [
        step
        for step, mark in zip(made.steps, marks, strict=True)
        if mark in ".o" and done.issuperset(step.needs)
    ]
    return sorted(found, key=lambda one: rank[one.id])


@given(dags(), st.data())
def test_it_is_what_looking_at_all_steps_would_find(made: Graph, data: st.DataObject) -> None:
    """After any changes, one by one or all at once, whatever they are."""
    made = Graph(
        made.name,
        tuple(step_ if data.draw(st.booleans()) else _gated(step_) for step_ in made.steps),
    )
    frontier = Frontier(made)
    marks = list(frontier.text())
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()):
            number = data.draw(st.integers(0, len(marks) - 1))
            marks[number] = data.draw(st.sampled_from(MARKS))
            frontier.mark(number, marks[number])
        else:
            marks = data.draw(st.lists(st.sampled_from(MARKS), min_size=len(marks), max_size=len(marks)))
            frontier.sync("".join(marks))
        text = "".join(marks)
        assert frontier.text() == text
        assert {mark: count for mark, count in frontier.counts.items() if count} == {
            mark: text.count(mark) for mark in set(text)
        }
        found = able(made, text)
        number_of = {step_.id: at for at, step_ in enumerate(made.steps)}
        asks = [one for one in found if one.approval and marks[number_of[one.id]] == "."]
        works = [one for one in found if one not in asks]
        assert frontier.gate() == (number_of[asks[0].id] if asks else None)
        assert frontier.work() == (number_of[works[0].id] if works else None)


def _gated(one: Step) -> Step:
    return Step(id=one.id, needs=one.needs, priority=one.priority, approval="may it?")


def test_what_comes_after_a_skipped_step_waits_for_what_came_before_it() -> None:
    """Skipping a step does not let those that need it start early."""
    frontier = Frontier(graph("a", "b: a", "c: b"))
    frontier.sync(".S.")
    assert frontier.work() == 0
    frontier.mark(0, Mark.ACTIVE)
    assert frontier.work() is None
    frontier.mark(0, Mark.COMPLETED)
    assert frontier.work() == 2


def test_a_step_that_is_to_be_done_again_holds_up_what_has_not_started() -> None:
    """A change back is followed as well."""
    frontier = Frontier(graph(step("a"), "b: a"))
    frontier.mark(0, Mark.COMPLETED)
    assert frontier.work() == 1
    frontier.mark(0, Mark.AGAIN)
    assert frontier.work() == 0
