"""What may be asked for when a run is started, and everything that can be wrong with that."""

from __future__ import annotations

from typing import Any

import msgspec

from router.errors import Invalid, Problem
from router.graph import Graph, check, unverified
from router.order import subgraph
from router.record import Mark
from router.run import MAX_GOAL, MAX_PARALLEL, MAX_RETRIES

MAX_PARAMS = 128 << 10
"""Bytes that the parameters of a run may have as JSON."""


class RunRequest(msgspec.Struct, frozen=True):
    """What is to be run. `only`, `skip` and `from_step` are names of steps or phases, see `order.subgraph`.

    At most `max_parallel` steps run at once, and at most `max_retries` times in all a failed one is tried
    again. One that is not `autonomous` waits for its `start`. `single`: there is to be no other live run of
    the graph's name.
    """

    graph: Graph
    params: dict[str, Any] = {}
    goal: str = ""
    max_parallel: int = 4
    max_retries: int = 100
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    from_step: str | None = None
    autonomous: bool = True
    single: bool = False

    def checked(self) -> str:
        """Return the marks that the steps begin with. Raises `Invalid` with everything that is wrong."""
        problems = [*check(self.graph, self.params), *unverified(self.graph)]
        if not 1 <= self.max_parallel <= MAX_PARALLEL:
            problems.append(Problem("max_parallel", f"must be from 1 to {MAX_PARALLEL}"))
        if not 0 <= self.max_retries <= MAX_RETRIES:
            problems.append(Problem("max_retries", f"must be from 0 to {MAX_RETRIES}"))
        if len(self.goal) > MAX_GOAL:
            problems.append(Problem("goal", f"must have at most {MAX_GOAL} characters"))
        if len(msgspec.json.encode(self.params)) > MAX_PARAMS:
            problems.append(Problem("params", f"must have at most {MAX_PARAMS} bytes"))
        if problems:
            raise Invalid(problems)
        if not (self.only or self.skip or self.from_step):
            return Mark.PENDING * len(self.graph.steps)
        left = subgraph(self.graph, only=self.only, skip=self.skip, from_=self.from_step)
        kept = {step.id for step in left.steps}
        return "".join(Mark.PENDING if step.id in kept else Mark.SKIPPED for step in self.graph.steps)
