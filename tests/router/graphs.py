"""Graphs for tests: written in a line, every one of a size, and random ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from hypothesis import strategies as st

from router.graph import PRIORITIES, Action, Graph, Step

CHECK = (Action(capability="file.check"),)


def step(id_: str, *needs: str, **fields: Any) -> Step:
    """Give a step with a verify."""
    return Step(id=id_, needs=needs, **{"verify": CHECK, **fields})


def graph(*steps: Step | str) -> Graph:
    """Give a graph; a step may be written `id`, or `id: need need`."""
    made = []
    for one in steps:
        id_, _, needs = one.partition(":") if isinstance(one, str) else ("", "", "")
        made.append(one if isinstance(one, Step) else step(id_, *needs.split()))
    return Graph("sample", tuple(made))


def all_dags(size: int) -> Iterator[Graph]:
    """Give every graph of so many steps in which none needs a later one."""
    ids = "abcdefgh"[:size]
    pairs = [(a, b) for place, b in enumerate(ids) for a in ids[:place]]
    for taken in product((False, True), repeat=len(pairs)):
        edges = [pair for pair, yes in zip(pairs, taken, strict=True) if yes]
        yield graph(*(step(id_, *(a for a, b in edges if b == id_)) for id_ in ids))


@st.composite
def dags(draw: st.DrawFn, most: int = 12) -> Graph:
    """Give a random graph, listed in a random order, with estimates and priorities."""
    size = draw(st.integers(1, most))
    ids = [f"s{number}" for number in range(size)]
    steps = []
    for number, id_ in enumerate(ids):
        needs = draw(st.lists(st.sampled_from(ids[:number]), unique=True, max_size=4)) if number else []
        minutes = draw(st.integers(0, 20))
        priority = draw(st.sampled_from(PRIORITIES))
        optional = draw(st.booleans())
        steps.append(
            step(
                id_,
                *needs,
                priority=priority,
                estimated_minutes=minutes,
                optional=optional,
                phase=f"p{number % 3}",
            )
        )
    return graph(*draw(st.permutations(steps)))
