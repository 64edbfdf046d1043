"""Which autopilot gets a task: one order, used to decide and to explain the decision.

The order: those that are well, then those that are not, then those that are down; among them the lowest
priority number, then the least load for its weight, then the name. A registration whose lease has run out
takes no part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from router.health import HealthBook, State
from router.routes import Candidate, Routes

Rank = tuple[int, int, float, str]
"""Smaller is better: how well it is (0 well, 1 not, 2 down), priority, load per weight, name."""


class Standing(NamedTuple):
    """One candidate with its rank and what there is to say about it."""

    candidate: Candidate
    rank: Rank
    note: str
    serves: bool = True
    """Whether it takes part at all."""


class Chooser:
    """Ranks candidates by what routes and health know at this moment."""

    def __init__(self, routes: Routes, health: HealthBook) -> None:
        self._routes = routes
        self._health = health

    def choose(self, candidates: Sequence[Candidate], tried: Collection[str] = ()) -> Candidate | None:
        """Return the best candidate that is not in `tried`, or None.

        `candidates` are sorted by priority, weight and name, so the first that is well and idle cannot be
        beaten: the search stops there and does not grow with the number of candidates.
        """
        if len(candidates) == 1 and not tried and not candidates[0].leased:
            return candidates[0]
        best: Candidate | None = None
        best_rank: Rank | None = None
        for candidate in candidates:
            if candidate.name in tried:
                continue
            rank = self.rank(candidate)
            if rank is None:
                continue
            if best_rank is None or rank < best_rank:
                best, best_rank = candidate, rank
            if best is candidate and rank[0] == 0 and self._health.of(candidate.name).in_flight == 0:
                break
        return best

    def rank(self, candidate: Candidate) -> Rank | None:
        """Return the candidate's rank, None when its lease has run out."""
        if candidate.leased and not self._routes.lease_alive(candidate.name):
            return None
        health = self._health.of(candidate.name)
        if health.is_clear or health.trial_due(self._health.monotonic()):
            wellness = 0
        else:
            wellness = 2 if health.state() is State.DOWN else 1
        return wellness, candidate.priority, (health.in_flight + 1) / candidate.weight, candidate.name

    def explain(self, candidates: Iterable[Candidate]) -> list[Standing]:
        """Return every candidate in the order `choose` would take them, each with its reason."""
        ranked = []
        expired = []
        for candidate in candidates:
            rank = self.rank(candidate)
            if rank is None:
                last = (3, 0, 0.0, candidate.name)
                expired.append(Standing(candidate, last, "its lease has run out", serves=False))
            else:
                ranked.append((rank, candidate))
        ranked.sort(key=lambda pair: pair[0])
        return [
            Standing(candidate, rank, self._why(rank, ranked[0][0])) for rank, candidate in ranked
        ] + expired

    def _why(self, rank: Rank, best: Rank) -> str:
        """Say by which part of the order a rank lost, or that it won."""
        if rank is best:
            return "chosen"
        health = self._health.of(rank[3])
        if rank[0] != best[0]:
            circuit = ", its circuit is open" if health.is_open else ""
            return f"its health is {health.state().value}{circuit}"
        if rank[1] != best[1]:
            return f"its priority {rank[1]} comes after {best[1]}"
        if rank[2] != best[2]:
            return f"it has more load for its weight: {rank[2]:.3g} against {best[2]:.3g}"
        return "its name comes later, all else being equal"
