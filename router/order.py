"""In which order a graph is done and undone, how long that takes, and what is left of it without some steps.

All of it is for graphs that `router.graph.check` finds nothing wrong with. A step comes before another that
could start as well when its priority is higher, or else when the longest way from it to an end takes longer,
or else when it is listed first.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from router.errors import Invalid, Problem
from router.graph import PRIORITIES, Graph, Step

DONE = frozenset({"completed", "skipped"})
"""The states in which nobody waits for a step any more; so is `failed` for one that is optional."""

HIGHEST_CONFIDENCE = 0.99
CONFIDENCE = 0.95


class Schedule(NamedTuple):
    """When each step starts, in minutes from the beginning, and when the last one ends."""

    minutes: float
    starts: dict[str, float]


def dependents(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return for each step those that need it, in the graph's order."""
    found: dict[str, list[str]] = {step.id: [] for step in graph.steps}
    for step in graph.steps:
        for need in step.needs:
            found[need].append(step.id)
    return {id_: tuple(after) for id_, after in found.items()}


def ranks(graph: Graph) -> dict[str, int]:
    """Return for each step its place among all, were they all ready: the lower comes first."""
    remaining = _remaining(graph)
    priority = {name: place for place, name in enumerate(PRIORITIES)}
    ordered = sorted(graph.steps, key=lambda step: (priority[step.priority], -remaining[step.id]))
    return {step.id: place for place, step in enumerate(ordered)}


def order(graph: Graph) -> tuple[str, ...]:
    """Return the ids in the order in which one worker does them."""
    return _order(graph, ranks(graph))


def ready(graph: Graph, states: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids that can start now, the first to start first.

    `states` are the steps' states by id; one without a state is `pending`, and only such a one can start.
    """
    settled = {step.id for step in graph.steps if is_settled(step, states.get(step.id, "pending"))}
    able = [
        step.id
        for step in graph.steps
        if states.get(step.id, "pending") == "pending" and settled.issuperset(step.needs)
    ]
    return tuple(sorted(able, key=ranks(graph).__getitem__)) if len(able) > 1 else tuple(able)


def is_settled(step: Step, state: str) -> bool:
    """Whether what needs the step may start."""
    return state in DONE or (step.optional and state == "failed")


def critical_path(graph: Graph) -> tuple[float, tuple[str, ...]]:
    """Return the minutes and ids of a longest way through the graph, by the estimates."""
    steps = {step.id: step for step in graph.steps}
    ends: dict[str, float] = {}
    came: dict[str, str] = {}
    for id_ in order(graph):
        for need in steps[id_].needs:
            if id_ not in came or ends[need] > ends[came[id_]]:
                came[id_] = need
        ends[id_] = steps[id_].estimated_minutes + (ends[came[id_]] if id_ in came else 0)
    way = [max(ends, key=ends.__getitem__)]
    while way[-1] in came:
        way.append(came[way[-1]])
    return ends[way[0]], tuple(reversed(way))


def schedule(graph: Graph, workers: int | None = None) -> Schedule:
    """Return how the run goes when each step takes as long as estimated and so many workers share them.

    A worker that is free starts the first of what is ready. None means as many workers as can be used.
    """
    steps = {step.id: step for step in graph.steps}
    rank, after = ranks(graph), dependents(graph)
    waits = {step.id: len(step.needs) for step in graph.steps}
    able = [(rank[id_], id_) for id_, count in waits.items() if not count]
    heapq.heapify(able)
    running: list[tuple[float, int, str]] = []
    starts: dict[str, float] = {}
    now = 0.0
    while able or running:
        while able and (workers is None or len(running) < workers):
            place, id_ = heapq.heappop(able)
            starts[id_] = now
            heapq.heappush(running, (now + steps[id_].estimated_minutes, place, id_))
        now = running[0][0]
        while running and running[0][0] == now:
            for later in after[heapq.heappop(running)[2]]:
                waits[later] -= 1
                if not waits[later]:
                    heapq.heappush(able, (rank[later], later))
    return Schedule(now, starts)


def undo_order(graph: Graph, done: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of steps that were done in the order in which to undo them, each once.

    `done` is as they ended. The last is undone first, but nothing before all that needs it: clocks differ,
    the needs do not.
    """
    last = {id_: place for place, id_ in enumerate(done)}
    steps = [step for step in graph.steps if step.id in last]
    return tuple(reversed(_order(Graph(graph.name, _joined(graph, steps)), last)))


def subgraph(
    graph: Graph, *, only: Collection[str] = (), skip: Collection[str] = (), from_: str | None = None
) -> Graph:
    """Return the graph without the steps that are not to be done; names are ids of steps or of phases.

    `only` keeps what it names, `from_` a step (or the first of a phase) and all that `order` has after it,
    and `skip` leaves out. What needed a step that is left out needs what that one needed. Raises `Invalid`
    for unknown names and when nothing is left.
    """
    _known(graph, {"only": only, "skip": skip, "from": [] if from_ is None else [from_]})
    kept = [step for step in graph.steps if (not only or _names(only, step)) and not _names(skip, step)]
    if from_ is not None:
        place = {id_: number for number, id_ in enumerate(order(graph))}
        first = min(place[step.id] for step in graph.steps if _names((from_,), step))
        kept = [step for step in kept if place[step.id] >= first]
    if not kept:
        raise Invalid([("", "no step is left to do")])
    return Graph(graph.name, _joined(graph, kept))


def progress(states: Mapping[str, str]) -> int:
    """Return the percentage of steps that are completed, halves rounded up; skipped ones are not counted.

    `states` are those of all steps, by id.
    """
    counted = [state for state in states.values() if state != "skipped"]
    completed = counted.count("completed")
    return (200 * completed + len(counted)) // (2 * len(counted)) if counted else 0


def confidence(completed: int, failed: int) -> float:
    """Return how well a run goes, from 0 to 0.99, by the share of steps that did not fail."""
    ended = completed + failed
    return min(HIGHEST_CONFIDENCE, CONFIDENCE * completed / ended) if ended else CONFIDENCE


def _order(graph: Graph, rank: Mapping[str, int]) -> tuple[str, ...]:
    """Return the ids in an order that respects the needs; of those that are ready the lowest rank is next."""
    after = dependents(graph)
    waits = {step.id: len(step.needs) for step in graph.steps}
    able = [(rank[id_], id_) for id_, count in waits.items() if not count]
    heapq.heapify(able)
    ordered: list[str] = []
    while able:
        ordered.append(heapq.heappop(able)[1])
        for later in after[ordered[-1]]:
            waits[later] -= 1
            if not waits[later]:
                heapq.heappush(able, (rank[later], later))
    return tuple(ordered)


def _remaining(graph: Graph) -> dict[str, float]:
    """Return for each step the minutes of the longest way from its start to an end."""
    steps = {step.id: step for step in graph.steps}
    after = dependents(graph)
    remaining: dict[str, float] = {}
    for id_ in reversed(_order(graph, {step.id: place for place, step in enumerate(graph.steps)})):
        longest = max((remaining[later] for later in after[id_]), default=0.0)
        remaining[id_] = steps[id_].estimated_minutes + longest
    return remaining


def _names(names: Collection[str], step: Step) -> bool:
    return step.id in names or (step.phase != "" and step.phase in names)


def _known(graph: Graph, asked: Mapping[str, Iterable[str]]) -> None:
    known = {step.id for step in graph.steps} | {step.phase for step in graph.steps if step.phase}
    problems = [
        Problem(field, f"{name[:80]} is no step and no phase of {graph.name}")
        for field, names in asked.items()
        for name in names
        if name not in known
    ]
    if problems:
        raise Invalid(problems)


def _joined(graph: Graph, kept: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps that stay, with needs that lead over those that do not."""
    stays = {step.id for step in kept}
    steps = {step.id: step for step in graph.steps}
    over: dict[str, dict[str, None]] = {}
    """What a step that is left out stands for: those before it that stay, in order."""
    for id_ in _order(graph, {id_: place for place, id_ in enumerate(steps)}):
        if id_ not in stays:
            over[id_] = _through(steps[id_], over)
    return tuple(msgspec.structs.replace(step, needs=tuple(_through(step, over))) for step in kept)


def _through(step: Step, over: Mapping[str, dict[str, None]]) -> dict[str, None]:
    needs: dict[str, None] = {}
    for need in step.needs:
        needs |= over.get(need, {need: None})
    return needs
