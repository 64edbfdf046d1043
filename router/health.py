"""How each autopilot is doing, as one state machine fed from two sides: its answers to tasks, and probes.

    UNKNOWN   nothing heard yet
    HEALTHY   the last answer or probe was good
    DEGRADED  it says so itself, or its last answer was a failure
    DOWN      its circuit is open, or its probe says so

The circuit opens after `OPENS_AT` failures in a row and stays open for `OPEN_SECONDS`, doubled each time it
opens again, at most `OPEN_SECONDS_MOST`. Then, or as soon as a probe is good, one task is let through on
trial: its success closes the circuit, its failure opens it again. Nothing here decides alone that nobody
may be called: the last one standing is ranked last, not removed.
"""

from __future__ import annotations

from enum import Enum

from infra.clock import Clock

OPENS_AT = 5
OPEN_SECONDS = 10.0
OPEN_SECONDS_MOST = 300.0


class State(Enum):
    """What `health` shows."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


class Health:
    """What this process knows of one autopilot. Times are of a monotonic clock, in seconds."""

    __slots__ = ("_failures", "_open_until", "_opened", "_probe", "_worked", "in_flight", "trial")

    def __init__(self) -> None:
        self.in_flight = 0
        self.trial = False
        """Whether the one task that an open circuit lets through is on its way."""
        self._failures = 0
        self._opened = 0
        self._open_until = 0.0
        self._probe = State.UNKNOWN
        self._worked = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open, due for a trial or not."""
        return self._open_until > 0.0

    @property
    def is_clear(self) -> bool:
        """Whether it may be sent tasks like any other: the hot path asks only this.

        A few failures do not change that. They may be the tasks' fault, and one that gets no tasks could
        not show that it works again.
        """
        probe = self._probe
        return self._open_until == 0.0 and (probe is State.HEALTHY or probe is State.UNKNOWN)

    def state(self) -> State:
        """Return the one word for all of it."""
        if self.is_open or self._probe is State.DOWN:
            return State.DOWN
        if self._failures or self._probe is State.DEGRADED:
            return State.DEGRADED
        if self._worked or self._probe is State.HEALTHY:
            return State.HEALTHY
        return State.UNKNOWN

    def trial_due(self, now: float) -> bool:
        """Whether an open circuit may let one task through."""
        return self.is_open and not self.trial and now >= self._open_until

    def succeeded(self) -> None:
        """Take note of an answer that shows the autopilot works: anything but a failure of its own."""
        self._failures = 0
        self._opened = 0
        self._open_until = 0.0
        self.trial = False
        self._worked = True
        if self._probe is State.DOWN:
            self._probe = State.UNKNOWN  # the task is the better witness

    def failed(self, now: float) -> None:
        """Take note of a failure: no connection, no answer in time, a 5xx, an answer that is none."""
        self._failures += 1
        self.trial = False
        if now < self._open_until:
            return  # sent before the circuit opened, or as a last resort: it tells nothing new
        if self._failures >= OPENS_AT or self.is_open:
            seconds = min(OPEN_SECONDS * 2.0**self._opened, OPEN_SECONDS_MOST)
            self._opened = min(self._opened + 1, 10)
            self._open_until = now + seconds

    def abandoned(self) -> None:
        """Take note that an attempt ended without telling anything: the caller went away."""
        self.trial = False

    def probed(self, state: State, now: float) -> None:
        """Take note of a probe of `/health`. A good one lets an open circuit try at once."""
        self._probe = state
        if state is State.HEALTHY:
            self._worked = True
            if self.is_open:
                self._open_until = min(self._open_until, now)


class HealthBook:
    """The health of every autopilot by name."""

    def __init__(self, monotonic: Clock) -> None:
        self.monotonic = monotonic
        self._known: dict[str, Health] = {}

    def of(self, name: str) -> Health:
        """Return the health of an autopilot; the same object for the same name."""
        health = self._known.get(name)
        if health is None:
            health = self._known[name] = Health()
        return health

    def forget(self, name: str) -> None:
        """Drop what is known: the autopilot was removed or moved."""
        self._known.pop(name, None)
