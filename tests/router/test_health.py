"""The state machine of health: one table of events and their outcome, and a machine that looks for gaps."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.health import OPEN_SECONDS, OPEN_SECONDS_MOST, OPENS_AT, Health, HealthBook, State
from tests.fakes import FakeClock

UNKNOWN, HEALTHY, DEGRADED, DOWN = State

TABLE: list[tuple[str, State, bool, bool]] = [
    # events                       state     open   trial due
    ("", UNKNOWN, False, False),
    ("s", HEALTHY, False, False),
    ("f", DEGRADED, False, False),
    ("ffff", DEGRADED, False, False),
    ("fffff", DOWN, True, False),
    ("ffffsf", DEGRADED, False, False),
    ("ffffsffff", DEGRADED, False, False),
    ("ffffsfffff", DOWN, True, False),
    ("fs", HEALTHY, False, False),
    ("u", UNKNOWN, False, False),
    ("h", HEALTHY, False, False),
    ("g", DEGRADED, False, False),
    ("d", DOWN, False, False),
    # a probe and the answers to tasks beside each other
    ("sg", DEGRADED, False, False),
    ("gs", DEGRADED, False, False),
    ("sd", DOWN, False, False),
    ("ds", HEALTHY, False, False),
    ("df", DOWN, False, False),
    ("dh", HEALTHY, False, False),
    ("du", UNKNOWN, False, False),
    ("sdu", HEALTHY, False, False),
    ("fh", DEGRADED, False, False),
    ("fffhff", DOWN, True, False),
    ("fu", DEGRADED, False, False),
    # an open circuit: 10 s, then one trial
    ("fffff 9", DOWN, True, False),
    ("fffff 10", DOWN, True, True),
    ("fffff 10 t", DOWN, True, False),
    ("fffff 10 t s", HEALTHY, False, False),
    ("fffff 10 t f", DOWN, True, False),
    ("fffff 10 t a", DOWN, True, True),
    ("fffff s", HEALTHY, False, False),
    # it opens again for twice as long
    ("fffff 10 tf 19", DOWN, True, False),
    ("fffff 10 tf 20", DOWN, True, True),
    ("fffff 10 tf 20 tf 39", DOWN, True, False),
    ("fffff 10 tf 20 tf 40", DOWN, True, True),
    # closing it forgets the back-off and the failures
    ("fffff 10 tf 20 ts ffff", DEGRADED, False, False),
    ("fffff 10 tf 20 ts fffff 9", DOWN, True, False),
    ("fffff 10 tf 20 ts fffff 10", DOWN, True, True),
    # a good probe makes the trial due at once, a bad one does not, and neither closes it
    ("fffff h", DOWN, True, True),
    ("fffff g", DOWN, True, False),
    ("fffff d", DOWN, True, False),
    ("fffff u", DOWN, True, False),
    ("fffff h t", DOWN, True, False),
    ("fffff h t f", DOWN, True, False),
    ("fffff h tf 20", DOWN, True, True),
    ("fffff h ts", HEALTHY, False, False),
    ("fffff 10 t h", DOWN, True, False),
    # tasks sent before it opened, or as a last resort, fail late: the window stays as it is
    ("ffffffffff 9", DOWN, True, False),
    ("ffffffffff 10", DOWN, True, True),
    ("fffff 5 fffff 5", DOWN, True, True),
    ("fffff 10 tf ffff 20", DOWN, True, True),
    ("fffff 10 tf ffff 19", DOWN, True, False),
]


def play(events: str) -> tuple[Health, float]:
    """Let things happen: s a success, f a failure, t a trial begins, a it is abandoned; h, g, d and u are
    probes that say healthy, degraded, down and nothing; a number lets as many seconds pass."""
    health = Health()
    now = 1000.0
    probes = {"h": HEALTHY, "g": DEGRADED, "d": DOWN, "u": UNKNOWN}
    for word in events.split():
        if word.isdigit():
            now += int(word)
            continue
        for event in word:
            if event == "s":
                health.succeeded()
            elif event == "f":
                health.failed(now)
            elif event == "t":
                assert health.trial_due(now)
                health.trial = True
            elif event == "a":
                health.abandoned()
            else:
                health.probed(probes[event], now)
    return health, now


@pytest.mark.parametrize(("events", "state", "is_open", "trial_due"), TABLE)
def test_the_state_machine(events: str, state: State, is_open: bool, trial_due: bool) -> None:
    """What happened, in order, leads to exactly one state."""
    health, now = play(events)
    assert (health.state(), health.is_open, health.trial_due(now)) == (state, is_open, trial_due)


def test_each_window_is_twice_as_long_up_to_five_minutes() -> None:
    """10, 20, 40, … and then 300 seconds, again and again."""
    health, now = play("fffff")
    windows = []
    for _ in range(14):
        seconds = 0
        while not health.trial_due(now + seconds):
            seconds += 10
        windows.append(seconds)
        now += seconds
        health.trial = True
        health.failed(now)
    assert windows == [10, 20, 40, 80, 160] + [300] * 9


@pytest.mark.parametrize(
    ("events", "clear"), [("", True), ("s", True), ("ffff", True), ("g", False), ("d", False)]
)
def test_a_few_failures_alone_take_no_tasks_away(events: str, clear: bool) -> None:
    """Only an open circuit or the autopilot's own word does."""
    assert play(events)[0].is_clear is clear


def test_the_book_keeps_one_health_by_name(clock: FakeClock) -> None:
    """The same object for the same name, until it is forgotten."""
    book = HealthBook(clock)
    first = book.of("a")
    assert book.of("a") is first
    assert book.of("b") is not first
    book.forget("a")
    book.forget("never-seen")
    assert book.of("a") is not first


class Circuit(RuleBasedStateMachine):
    """Drives one health as tasks and probes would, with a plain account of what has to be true."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health()
        self.now = 1000.0
        self.in_a_row = 0
        self.window = 0.0
        """How long the circuit stays open this time; 0 while it is closed."""
        self.opened_at = 0.0
        self.hurried = False
        """Whether a good probe came in this window."""
        self.trial_running = False
        self.trials_in_window = 0

    def _opens(self, window: float) -> None:
        self.window, self.opened_at = window, self.now
        self.hurried = False
        self.trials_in_window = 0

    def _fails(self) -> None:
        self.health.failed(self.now)
        self.in_a_row += 1
        due = self.hurried or self.now >= self.opened_at + self.window
        if self.window and due:
            self._opens(min(self.window * 2, OPEN_SECONDS_MOST))
        elif not self.window and self.in_a_row == OPENS_AT:
            self._opens(OPEN_SECONDS)

    def _succeeds(self) -> None:
        self.health.succeeded()
        self.in_a_row, self.window, self.hurried = 0, 0.0, False

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 10.0, 40.0, 299.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(many=st.sampled_from([1, 1, 1, 4, 8]))
    def tasks_fail(self, many: int) -> None:
        """Let tasks fail that were sent some time ago, or as a last resort."""
        for _ in range(many):
            self._fails()
        self.trial_running = False

    @rule()
    def a_task_succeeds(self) -> None:
        """Let a task succeed."""
        self._succeeds()
        self.trial_running = False

    @precondition(lambda self: self.health.trial_due(self.now))
    @rule()
    def a_trial_begins(self) -> None:
        """Send the task that an open circuit lets through."""
        self.trials_in_window += 1
        assert self.trials_in_window == 1
        self.health.trial = True
        self.trial_running = True

    @precondition(lambda self: self.trial_running)
    @rule(good=st.booleans())
    def the_trial_ends(self, good: bool) -> None:
        """Let the trial succeed or fail."""
        self.trial_running = False
        if good:
            self._succeeds()
        else:
            self._fails()

    @precondition(lambda self: self.trial_running)
    @rule()
    def the_trial_is_abandoned(self) -> None:
        """Let the caller of the trial go away: it told nothing, so another one may follow."""
        self.trial_running = False
        self.health.abandoned()
        self.trials_in_window = 0

    @rule(state=st.sampled_from(list(State)))
    def a_probe_answers(self, state: State) -> None:
        """Let a probe say something."""
        self.health.probed(state, self.now)
        if state is HEALTHY and self.window:
            self.hurried = True

    @invariant()
    def it_is_open_after_five_failures_in_a_row_and_not_before(self) -> None:
        """Open means: five failures in a row, and no success since."""
        assert self.health.is_open is (self.in_a_row >= OPENS_AT)

    @invariant()
    def a_trial_is_due_when_the_window_is_over_or_a_probe_was_good(self) -> None:
        """And never while one is on its way."""
        over = self.hurried or self.now >= self.opened_at + self.window
        assert self.health.trial_due(self.now) is (self.window > 0 and over and not self.trial_running)

    @invariant()
    def the_words_agree(self) -> None:
        """An open circuit is down; whoever is clear is not down."""
        if self.health.is_open:
            assert self.health.state() is DOWN
        if self.health.is_clear:
            assert self.health.state() is not DOWN


TestCircuit = Circuit.TestCase
TestCircuit.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
