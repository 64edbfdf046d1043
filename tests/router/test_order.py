"""In which order a graph is done and undone, how long it takes, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import Invalid
from router.graph import PRIORITIES, Graph, check
from router.order import (
    confidence,
    critical_path,
    dependents,
    order,
    progress,
    ranks,
    ready,
    schedule,
    subgraph,
    undo_order,
)
from tests.router.graphs import all_dags, dags, graph, step

DIAMOND = graph("a", "b: a", "c: a", "d: b c")


def needs_of(one: Graph) -> dict[str, tuple[str, ...]]:
    """Return the needs of each step."""
    return {step.id: step.needs for step in one.steps}


def before(one: Graph) -> dict[str, set[str]]:
    """Return all that each step waits for, however far away."""
    needs = needs_of(one)
    found: dict[str, set[str]] = {}
    for id_ in order(one):
        found[id_] = set(needs[id_]).union(*(found[need] for need in needs[id_]))
    return found


def orders(one: Graph, done: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give every order in which a graph can be done."""
    if len(done) == len(one.steps):
        yield done
    for each in one.steps:
        if each.id not in done and set(each.needs) <= set(done):
            yield from orders(one, (*done, each.id))


# Order


@given(dags())
def test_an_order_has_every_step_once_and_after_what_it_needs(one: Graph) -> None:
    """Nothing is forgotten, nothing is done twice, and nothing comes before what it needs."""
    ordered = order(one)
    assert sorted(ordered) == sorted(step.id for step in one.steps)
    place = {id_: number for number, id_ in enumerate(ordered)}
    assert all(place[need] < place[step.id] for step in one.steps for need in step.needs)


@given(dags())
def test_of_what_is_ready_the_more_important_comes_first(one: Graph) -> None:
    """One worker never does a step while another of a higher priority could be done."""
    done: list[str] = []
    rank = {step.id: PRIORITIES.index(step.priority) for step in one.steps}
    for id_ in order(one):
        able = [step.id for step in one.steps if step.id not in done and set(step.needs) <= set(done)]
        assert rank[id_] == min(rank[other] for other in able)
        done.append(id_)


def test_priority_then_the_longest_way_then_the_list_decides() -> None:
    """Low comes last though it is listed first; a long way comes before a short one; then the list counts."""
    one = graph(
        step("low", priority="low", estimated_minutes=99),
        step("short", priority="high", estimated_minutes=2),
        step("twin", priority="high", estimated_minutes=2),
        step("first", priority="high", estimated_minutes=1),
        step("rest", "first", priority="low", estimated_minutes=5),
        step("urgent", priority="critical"),
    )
    assert order(one) == ("urgent", "first", "short", "twin", "low", "rest")
    assert ranks(one)["urgent"] == 0
    assert list(ranks(one)) == ["urgent", "first", "short", "twin", "low", "rest"]


def test_ready_is_what_waits_for_nothing() -> None:
    """Only pending steps whose needs are completed, skipped, or failed where that may be, can start."""
    one = graph("a", step("b", optional=True), "c: a b", "d: a", step("e", "d", priority="critical"))
    assert ready(one, {}) == ("a", "b")
    assert ready(one, {"a": "running", "b": "failed"}) == ()
    assert ready(one, {"a": "completed", "b": "failed"}) == ("c", "d")
    assert ready(one, {"a": "failed", "b": "completed"}) == ()
    assert ready(one, {"a": "completed", "b": "skipped", "d": "skipped"}) == ("e", "c")
    assert ready(one, dict.fromkeys("abcde", "completed")) == ()


@given(dags(), st.randoms(use_true_random=False))
def test_what_is_ready_gets_everything_done(one: Graph, random: object) -> None:
    """Whatever ends as it likes, completed or skipped, taking what is ready does each step once."""
    states: dict[str, str] = {}
    while able := ready(one, states):
        assert not set(able) & set(states)
        assert ready(one, states | dict.fromkeys(able, "running")) == ()
        states |= {id_: ("completed", "skipped")[len(states) % 2] for id_ in able}
    assert len(states) == len(one.steps)


def test_dependents_are_the_needs_turned_round() -> None:
    """Each step knows who waits for it."""
    assert dependents(DIAMOND) == {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}


# Time


@given(dags())
def test_enough_workers_take_as_long_as_the_critical_path(one: Graph) -> None:
    """With a worker for every step only the longest way counts, and that is a way through the graph."""
    minutes, way = critical_path(one)
    assert schedule(one).minutes == schedule(one, len(one.steps)).minutes == minutes
    needs = needs_of(one)
    assert all(a in needs[b] for a, b in pairwise(way))
    assert not needs[way[0]]
    assert sum(step.estimated_minutes for step in one.steps if step.id in way) == minutes


@given(dags(), st.integers(1, 5))
def test_a_schedule_keeps_the_needs_the_workers_and_grahams_bound(one: Graph, workers: int) -> None:
    """No step starts early, no more run than there are workers, and the end is within Graham's bound."""
    minutes, starts = schedule(one, workers)
    took = {step.id: step.estimated_minutes for step in one.steps}
    assert set(starts) == set(took)
    for each in one.steps:
        assert all(starts[need] + took[need] <= starts[each.id] for need in each.needs)
        at = starts[each.id]
        assert sum(starts[id_] <= at < starts[id_] + took[id_] for id_ in took) <= workers
    longest, total = critical_path(one)[0], sum(took.values())
    assert max(longest, total / workers) <= minutes + 1e-9
    assert minutes <= total / workers + (1 - 1 / workers) * longest + 1e-9


def test_one_worker_does_the_order() -> None:
    """The schedule of one worker is the order."""
    one = graph(
        step("z", "a", estimated_minutes=1), step("a", estimated_minutes=2), step("b", priority="low")
    )
    starts = schedule(one, 1).starts
    assert tuple(sorted(starts, key=lambda id_: (starts[id_], order(one).index(id_)))) == order(one)
    assert schedule(one, 1) == (3, {"a": 0, "z": 2, "b": 3})


# Undo


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_d9_undo_is_the_reverse_of_every_order_of_every_graph(size: int) -> None:
    """On all graphs of up to 5 steps, in every order in which they can be done, undoing goes backwards."""
    count = 0
    for one in all_dags(size):
        for done in orders(one):
            assert undo_order(one, done) == done[::-1]
            count += 1
    assert count == {1: 1, 2: 3, 3: 21, 4: 315, 5: 9765}[size]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_d9_undo_of_a_run_that_stopped_is_the_reverse_of_what_was_done(size: int) -> None:
    """Only what was done is undone, each step once."""
    for one in all_dags(size):
        for done in orders(one):
            for count in range(size):
                assert undo_order(one, done[:count]) == done[:count][::-1]


@given(dags(8), st.data())
def test_undo_respects_the_needs_whatever_the_clocks_said(one: Graph, data: st.DataObject) -> None:
    """Workers whose clocks differ cannot make a step be undone before all that needs it."""
    done = data.draw(st.lists(st.sampled_from([step.id for step in one.steps]), unique=True))
    undone = undo_order(one, done)
    assert sorted(undone) == sorted(done)
    earlier = before(one)
    for place, id_ in enumerate(undone):
        assert not earlier[id_] & set(undone[:place])


# Parts of a graph


def test_only_keeps_what_it_names_and_the_order_between_them() -> None:
    """What leads over a step that is left out is still waited for."""
    assert needs_of(subgraph(DIAMOND, only=["a", "d"])) == {"a": (), "d": ("a",)}
    assert needs_of(subgraph(DIAMOND, only=["c", "d"])) == {"c": (), "d": ("c",)}
    assert needs_of(subgraph(DIAMOND, skip=["b"])) == {"a": (), "c": ("a",), "d": ("a", "c")}


def test_from_starts_in_the_middle() -> None:
    """All that comes before a step in the order is taken as done."""
    assert order(DIAMOND) == ("a", "b", "c", "d")
    assert needs_of(subgraph(DIAMOND, from_="c")) == {"c": (), "d": ("c",)}
    assert subgraph(DIAMOND, from_="a") == DIAMOND


def test_phases_are_names_as_well() -> None:
    """A phase stands for its steps; `from_` a phase starts with the first of them."""
    one = graph(step("a", phase="x"), step("b", "a", phase="y"), step("c", "b", phase="y"), step("d", "c"))
    assert list(needs_of(subgraph(one, only=["y"]))) == ["b", "c"]
    assert list(needs_of(subgraph(one, skip=["y"]))) == ["a", "d"]
    assert list(needs_of(subgraph(one, from_="y"))) == ["b", "c", "d"]
    assert list(needs_of(subgraph(one, from_="y", skip=["c"]))) == ["b", "d"]


def test_a_part_that_is_none_is_refused() -> None:
    """Unknown names are listed together, and nothing left to do is an answer of its own."""
    with pytest.raises(Invalid) as refused:
        subgraph(DIAMOND, only=["a", "x"], skip=["y"], from_="z")
    assert [problem.field for problem in refused.value.problems] == ["only", "skip", "from"]
    with pytest.raises(Invalid, match="no step is left to do"):
        subgraph(DIAMOND, skip=list("abcd"))


@given(dags(), st.data())
def test_a_part_keeps_every_wait_between_its_steps(one: Graph, data: st.DataObject) -> None:
    """In a part two steps wait for one another exactly where they did in the whole."""
    kept = data.draw(st.sets(st.sampled_from([step.id for step in one.steps]), min_size=1))
    part = subgraph(one, only=kept)
    assert check(part) == []
    whole, left = before(one), before(part)
    assert {id_: whole[id_] & kept for id_ in kept} == left


# Numbers


@pytest.mark.parametrize(
    ("completed", "total", "percent"), [(0, 42, 0), (15, 42, 36), (1, 8, 13), (41, 42, 98), (42, 42, 100)]
)
def test_d17_progress_has_one_rounding_rule(completed: int, total: int, percent: int) -> None:
    """Progress is the share of completed steps in percent, halves up: 15 of 42 are 36."""
    states = {str(n): "completed" if n < completed else "pending" for n in range(total)}
    assert progress(states) == percent
    assert progress(states | {"x": "skipped", "y": "skipped"}) == percent


def test_progress_of_nothing_is_nothing() -> None:
    """Without steps nothing is done, not everything."""
    assert progress({}) == progress({"a": "skipped"}) == 0
    assert progress({"a": "failed", "b": "blocked", "c": "completed"}) == 33


@pytest.mark.parametrize(
    ("completed", "failed", "value"), [(0, 0, 0.95), (5, 0, 0.95), (0, 1, 0.0), (31, 1, 0.95 * 31 / 32)]
)
def test_s0_118_confidence_is_the_share_of_what_did_not_fail(
    completed: int, failed: int, value: float
) -> None:
    """Confidence starts at 0.95 and falls with every failure."""
    assert confidence(completed, failed) == pytest.approx(value)


# Size


def test_ten_thousand_steps_take_no_time() -> None:
    """Checking, ordering, scheduling and undoing 10,000 steps in a lattice takes well under a second each."""
    width = 100

    def needs(number: int) -> Sequence[str]:
        return [f"s{number - back}" for back in (width, width + 1, 2 * width) if number >= back]

    one = graph(*(step(f"s{n}", *needs(n), estimated_minutes=n % 7) for n in range(10_000)))
    spent = []
    for work in (
        check,
        order,
        critical_path,
        schedule,
        lambda g: undo_order(g, order(g)),
        lambda g: ready(g, {}),
    ):
        began = time.perf_counter()
        work(one)
        spent.append(time.perf_counter() - began)
    assert max(spent) < 20, spent
