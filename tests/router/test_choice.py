"""Which autopilot gets a task: the order, and that deciding and explaining are one."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.table import Table
from router.choice import Chooser
from router.health import Health, HealthBook, State
from router.model import Capability
from router.routes import Candidate, Routes
from tests.fakes import START, FakeClock

CAPABILITY = Capability("web.pages.generate")


class Field:
    """A chooser over candidates and healths that a test makes up; no table is ever read."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.routes = Routes(cast("Table", None), clock=self.clock, monotonic=self.clock)
        self.health = HealthBook(self.clock)
        self.chooser = Chooser(self.routes, self.health)
        self.candidates: tuple[Candidate, ...] = ()

    def add(self, name: str, *, priority: int = 100, weight: int = 1, leased: bool = False) -> Health:
        """Add a candidate where the routes would have it; return its health."""
        made = Candidate(name, CAPABILITY, "local:x", None, priority, weight, leased, False, 1, "s")
        order = sorted((*self.candidates, made), key=lambda one: (one.priority, -one.weight, one.name))
        self.candidates = tuple(order)
        return self.health.of(name)

    def chosen(self, *tried: str) -> str | None:
        """Return the name of the choice."""
        choice = self.chooser.choose(self.candidates, tried)
        return choice.name if choice else None

    def explained(self) -> list[tuple[str, str]]:
        """Return names and notes in the order of the explanation."""
        return [(one.candidate.name, one.note) for one in self.chooser.explain(self.candidates)]

    def open(self, name: str) -> None:
        """Let a circuit open."""
        for _ in range(5):
            self.health.of(name).failed(self.clock())


@pytest.fixture
def field() -> Field:
    """Give an empty field."""
    return Field()


def test_nobody_is_chosen_among_none(field: Field) -> None:
    """No candidates, no choice, and nothing to explain."""
    assert field.chosen() is None
    assert field.explained() == []


def test_the_lower_priority_number_comes_first(field: Field) -> None:
    """As in DNS SRV records, whatever the load and the weight."""
    field.add("a", priority=20, weight=50)
    field.add("b", priority=10).in_flight = 40
    assert field.chosen() == "b"
    assert field.explained() == [("b", "chosen"), ("a", "its priority 20 comes after 10")]


def test_load_is_shared_by_weight(field: Field) -> None:
    """Of 40 tasks that run at once, one of three times the weight gets three times as many."""
    field.add("heavy", weight=3)
    field.add("light", weight=1)
    for _ in range(40):
        name = field.chosen()
        assert name is not None
        field.health.of(name).in_flight += 1
    assert (field.health.of("heavy").in_flight, field.health.of("light").in_flight) == (30, 10)


def test_more_load_for_its_weight_is_told(field: Field) -> None:
    """The reason has the figures."""
    field.add("a").in_flight = 1
    field.add("b")
    assert field.explained() == [("b", "chosen"), ("a", "it has more load for its weight: 2 against 1")]


def test_names_decide_between_equals(field: Field) -> None:
    """The same question always gets the same answer."""
    for name in ("c", "a", "b"):
        field.add(name)
    reason = "its name comes later, all else being equal"
    assert field.explained() == [("a", "chosen"), ("b", reason), ("c", reason)]
    assert field.chosen("a") == "b"
    assert field.chosen("a", "b", "c") is None


def test_the_well_come_before_the_unwell_and_those_before_the_down(field: Field) -> None:
    """Health counts more than priority."""
    field.add("down", priority=1).probed(State.DOWN, START)
    field.add("open", priority=2)
    field.open("open")
    field.add("unwell", priority=3).probed(State.DEGRADED, START)
    field.add("well", priority=4)
    assert field.explained() == [
        ("well", "chosen"),
        ("unwell", "its health is degraded"),
        ("down", "its health is down"),
        ("open", "its health is down, its circuit is open"),
    ]


def test_a_few_failures_do_not_move_traffic(field: Field) -> None:
    """They may be the tasks' fault."""
    for _ in range(4):
        field.add("a", priority=1).failed(START)
    field.candidates = field.candidates[:1]
    field.add("b", priority=2)
    assert field.chosen() == "a"


def test_the_last_one_standing_is_chosen_though_it_is_down(field: Field) -> None:
    """Nothing here decides alone that nobody may be called."""
    for name in ("a", "b"):
        field.add(name)
        field.open(name)
    assert field.chosen() == "a"
    assert field.chosen("a") == "b"


def test_one_trial_at_a_time_is_let_through(field: Field) -> None:
    """When its window is over, the best by priority gets one task, and the next one goes elsewhere."""
    trial = field.add("a", priority=1)
    field.add("b", priority=2)
    field.open("a")
    assert field.chosen() == "b"
    field.clock.forward(10)
    assert field.chosen() == "a"
    trial.trial = True
    assert field.chosen() == "b"


def test_an_expired_lease_takes_no_part(field: Field) -> None:
    """Not even as the last one; the explanation says why."""
    field.add("a", priority=1, leased=True)
    field.add("b", priority=2, leased=True)
    field.add("c", priority=3)
    field.routes.leased("a", START + 10)
    assert field.chosen() == "a"
    field.clock.forward(10)
    assert field.chosen() == "c"
    expired = "its lease has run out"
    assert field.explained() == [("c", "chosen"), ("a", expired), ("b", expired)]
    assert [one.serves for one in field.chooser.explain(field.candidates)] == [True, False, False]
    assert field.chosen("c") is None


_candidate = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 3),
        "weight": st.integers(1, 4),
        "leased": st.booleans(),
        "alive": st.booleans(),
        "in_flight": st.integers(0, 4),
        "history": st.text("sfhgdu", max_size=8) | st.just("fffff"),
        "trial": st.booleans(),
    }
)


@given(
    st.lists(_candidate, max_size=8),
    st.sampled_from([0.0, 11.0]),
    st.lists(st.sampled_from("abcdefgh"), unique=True),
)
@settings(max_examples=250, deadline=None)
def test_stopping_early_gives_the_answer_of_sorting_all(
    drawn: list[dict[str, Any]], passed: float, tried: list[str]
) -> None:
    """The choice is the smallest rank of those left, and the first of the explanation, for any field."""
    field = Field()
    probes = {"h": State.HEALTHY, "g": State.DEGRADED, "d": State.DOWN, "u": State.UNKNOWN}
    for name, one in zip("hgfedcba", drawn, strict=False):
        health = field.add(name, priority=one["priority"], weight=one["weight"], leased=one["leased"])
        if one["alive"]:
            field.routes.leased(name, START + 1000)
        for event in one["history"]:
            if event in probes:
                health.probed(probes[event], START)
            elif event == "s":
                health.succeeded()
            else:
                health.failed(START)
        health.in_flight, health.trial = one["in_flight"], one["trial"] and health.is_open
    field.clock.forward(passed)
    ranks = {one.name: field.chooser.rank(one) for one in field.candidates}
    takes_part = sorted(rank for rank in ranks.values() if rank is not None)
    left = [rank for rank in takes_part if rank[3] not in tried]
    assert field.chosen(*tried) == (left[0][3] if left else None)
    explained = field.chooser.explain(field.candidates)
    assert [one.candidate.name for one in explained if one.serves] == [rank[3] for rank in takes_part]
    assert len(explained) == len(field.candidates)
    first = field.chosen()
    assert (explained[0].candidate.name if takes_part else None) == first
    assert [one.candidate.name for one in explained if one.note == "chosen"] == ([first] if first else [])
