"""Which steps of a run can start, kept up as their marks change: no change looks at all of them.

A step can start when all that it needs is settled. A skipped one is settled as soon as what it needs is: so
what comes after it still waits for what came before it.
"""

from __future__ import annotations

import heapq
from collections import Counter

from router.graph import Graph
from router.order import dependents, ranks
from router.record import Mark

_PIECE = 128
"""Marks that are compared at once."""

_DONE = Mark.COMPLETED + Mark.FAILED
_ABLE = Mark.PENDING + Mark.AGAIN


class Frontier:
    """The marks of a run's steps, by their numbers in the graph, and which of them can start."""

    def __init__(self, graph: Graph) -> None:
        number = {step.id: at for at, step in enumerate(graph.steps)}
        after, rank = dependents(graph), ranks(graph)
        self._after = [[number[later] for later in after[step.id]] for step in graph.steps]
        self._rank = [rank[step.id] for step in graph.steps]
        self._gate = [bool(step.approval) for step in graph.steps]
        self._waits = [len(step.needs) for step in graph.steps]
        self._settled = [False] * len(graph.steps)
        self._marks = [Mark.PENDING] * len(graph.steps)
        self.counts = Counter(self._marks)
        """How many steps have which mark."""
        self._gates: list[tuple[int, int]] = []
        self._works: list[tuple[int, int]] = []
        for at in range(len(graph.steps)):
            self._offer(at)

    def text(self) -> str:
        """Return the marks of all steps."""
        return "".join(self._marks)

    def mark_of(self, number: int) -> str:
        """Return the mark of a step."""
        return self._marks[number]

    def sync(self, marks: str) -> None:
        """Take over the marks of all steps."""
        mine = self.text()
        for start in range(0, len(marks), _PIECE):
            if marks[start : start + _PIECE] != mine[start : start + _PIECE]:
                for at in range(start, min(start + _PIECE, len(marks))):
                    self.mark(at, marks[at])

    def mark(self, number: int, mark: str) -> None:
        """Change the mark of a step, and with it what can start."""
        was = self._marks[number]
        if was == mark:
            return
        self._marks[number] = mark
        self.counts[was] -= 1
        self.counts[mark] += 1
        self._settle(number)
        self._offer(number)

    def gate(self) -> int | None:
        """Return the first step that has to be asked for its approval now."""
        return self._first(self._gates)

    def work(self) -> int | None:
        """Return the first step that can start now."""
        return self._first(self._works)

    def _first(self, heap: list[tuple[int, int]]) -> int | None:
        while heap:
            number = heap[0][1]
            if self._is_able(number) and self._heap(number) is heap:
                return number
            heapq.heappop(heap)
        return None

    def _settle(self, first: int) -> None:
        """See whether a step is settled now, or no longer, and what follows from that for those after it."""
        stack = [first]
        while stack:
            number = stack.pop()
            mark = self._marks[number]
            settled = mark in _DONE or (mark == Mark.SKIPPED and not self._waits[number])
            if settled is self._settled[number]:
                continue
            self._settled[number] = settled
            for later in self._after[number]:
                self._waits[later] += -1 if settled else 1
                if self._marks[later] == Mark.SKIPPED:
                    stack.append(later)
                else:
                    self._offer(later)

    def _is_able(self, number: int) -> bool:
        return not self._waits[number] and self._marks[number] in _ABLE

    def _heap(self, number: int) -> list[tuple[int, int]]:
        asks = self._gate[number] and self._marks[number] == Mark.PENDING
        return self._gates if asks else self._works

    def _offer(self, number: int) -> None:
        """Put a step among those that can start. One that no longer can is left out when it is met."""
        if self._is_able(number):
            heapq.heappush(self._heap(number), (self._rank[number], number))
