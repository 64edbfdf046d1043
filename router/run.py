"""A run as it is kept: its states, what may be done to it in which, and how it is shown.

queued          it waits for its start
running         steps start as soon as what they need is done
pausing         no step starts; those that run come to their end
paused          none runs; it can be resumed
stopping        as pausing, but for good
stopped         nothing starts any more
completed       all its steps are completed, skipped, or optional and failed
failed          some step is blocked, and nothing else can go on
rolling_back    what was done is undone, the last first
rolled_back     all that can be undone is undone
needs_human     an undo failed: a person has to see to it before the rollback goes on
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from infra.clock import rfc3339
from router.errors import Conflict, NotFound
from router.graph import Graph
from router.order import confidence, progress
from router.record import STATES, Mark, StepState

RUN_ID = re.compile(r"run_[0-9a-f]{12}_[0-9A-Za-z]{1,40}")
KEEP_SECONDS = 90 * 86_400.0
"""How long it is known that there was a run, from its creation on."""
MAX_PARALLEL = 64
MAX_RETRIES = 10_000
MAX_GOAL = 500
MOST_DIAGNOSES = 3
"""How often a run may ask what to do about a failure; after that failed steps are only tried again."""


class State(Enum):
    """Where a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    NEEDS_HUMAN = "needs_human"


class Command(Enum):
    """What can be done to a run, the later ones to one of its steps."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    ROLLBACK = "rollback"
    RETRY_STEP = "retry_step"
    SKIP_STEP = "skip_step"
    MARK_DONE = "mark_done"
    APPROVE_STEP = "approve_step"
    REFUSE_STEP = "refuse_step"


OF_STEPS = frozenset(
    {
        Command.RETRY_STEP,
        Command.SKIP_STEP,
        Command.MARK_DONE,
        Command.APPROVE_STEP,
        Command.REFUSE_STEP,
    }
)

NEXT: Mapping[tuple[State, Command], State] = {
    (State.QUEUED, Command.START): State.RUNNING,
    (State.QUEUED, Command.STOP): State.STOPPING,
    (State.RUNNING, Command.PAUSE): State.PAUSING,
    (State.RUNNING, Command.STOP): State.STOPPING,
    **{(State.RUNNING, command): State.RUNNING for command in OF_STEPS},
    (State.PAUSING, Command.RESUME): State.RUNNING,
    (State.PAUSING, Command.STOP): State.STOPPING,
    **{(State.PAUSING, command): State.PAUSING for command in OF_STEPS},
    (State.PAUSED, Command.RESUME): State.RUNNING,
    (State.PAUSED, Command.STOP): State.STOPPING,
    (State.PAUSED, Command.ROLLBACK): State.ROLLING_BACK,
    **{(State.PAUSED, command): State.PAUSED for command in OF_STEPS},
    (State.STOPPED, Command.ROLLBACK): State.ROLLING_BACK,
    (State.COMPLETED, Command.RETRY_STEP): State.RUNNING,
    (State.COMPLETED, Command.ROLLBACK): State.ROLLING_BACK,
    (State.FAILED, Command.RETRY_STEP): State.RUNNING,
    (State.FAILED, Command.SKIP_STEP): State.RUNNING,
    (State.FAILED, Command.MARK_DONE): State.RUNNING,
    (State.FAILED, Command.ROLLBACK): State.ROLLING_BACK,
    (State.NEEDS_HUMAN, Command.MARK_DONE): State.NEEDS_HUMAN,
    (State.NEEDS_HUMAN, Command.ROLLBACK): State.ROLLING_BACK,
}
"""What a command makes of a run; every pair that is not here is refused.

Where no step is running, pausing has come to its end as paused at once, and stopping as stopped.
"""

LIVE = frozenset(
    {State.QUEUED, State.RUNNING, State.PAUSING, State.PAUSED, State.STOPPING, State.ROLLING_BACK}
)
"""The states of a run beside which there is no second one, where there is to be only one."""


_IDLE = f"{Mark.PENDING}{Mark.AGAIN}{Mark.COOLING}{Mark.BLOCKED}{Mark.FAILED}"
FROM: Mapping[Command, str] = {
    Command.RETRY_STEP: Mark.BLOCKED + Mark.FAILED + Mark.COMPLETED + Mark.SKIPPED + Mark.COOLING,
    Command.SKIP_STEP: _IDLE + Mark.ASKING + Mark.ASKED,
    Command.MARK_DONE: _IDLE + Mark.ASKING + Mark.NOT_UNDONE,
    Command.APPROVE_STEP: Mark.ASKING,
    Command.REFUSE_STEP: Mark.ASKING,
}
"""The marks of steps that a command can be given for; every other one is refused."""


class Kept(msgspec.Struct, frozen=True):
    """Where a text of a run is: in so many rows of that name."""

    name: str
    rows: int


class _Stored(msgspec.Struct):
    graph: msgspec.Raw
    params: dict[str, Any]


class Charter(msgspec.Struct, frozen=True):
    """What a run was started with, and stays with: the graph it is pinned to, and its parameters.

    `numbers` has the place of each step in the graph, by its id.
    """

    graph: Graph
    params: dict[str, Any]
    numbers: dict[str, int]

    @classmethod
    def of(cls, graph: Graph, params: dict[str, Any]) -> Charter:
        """Return the charter of a graph and the parameters it is run with."""
        return cls(graph, params, {step.id: at for at, step in enumerate(graph.steps)})

    def text(self) -> bytes:
        """Return it as it is kept: with the graph as the JSON that its digest is of."""
        graph = msgspec.json.encode(self.graph, order="sorted")
        return msgspec.json.encode(_Stored(msgspec.Raw(graph), self.params))

    @classmethod
    def read(cls, text: bytes | None, digest: str) -> Charter:
        """Return the charter in a text. Raises `Conflict` when its graph is not the one of a digest."""
        stored = None if text is None else msgspec.json.decode(text, type=_Stored)
        if stored is None or hashlib.sha256(stored.graph).hexdigest() != digest:
            raise Conflict("the graph of this run is not the one that it was started with")
        return cls.of(msgspec.json.decode(stored.graph, type=Graph), stored.params)

    def number(self, step: str) -> int:
        """Return the number of a step. Raises `NotFound`."""
        if step not in self.numbers:
            raise NotFound(f"the run has no step {step[:80]!r}")
        return self.numbers[step]


class Run(msgspec.Struct, frozen=True):
    """A run. Times are epoch seconds.

    `scopes` are those that whoever started it had then. `marks` has a letter of `Mark` for each step of the
    graph with that `digest`. `effects` counts what was done by steps, `diagnoses` how often it was asked what
    to do about a failure. While it is rolled back, `undo` says in which order, and `undone` how far that is.
    """

    id: str
    name: str
    digest: str
    goal: str
    requested_by: str
    scopes: tuple[str, ...]
    traceparent: str
    hops: int
    charter: Kept
    marks: str
    max_parallel: int
    retries_left: int
    autonomous: bool
    created_at: float
    updated_at: float
    state: State = State.QUEUED
    reason: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    effects: int = 0
    diagnoses: int = 0
    undo: Kept | None = None
    undone: int = 0
    revision: int = 0

    @property
    def trace_id(self) -> str:
        """The trace of the call that started it."""
        return self.traceparent.split("-")[1]

    @property
    def kept_until(self) -> float:
        """Until when it is kept."""
        return self.created_at + KEEP_SECONDS

    @property
    def words(self) -> dict[str, str]:
        """What `${run.…}` stands for in the texts of its steps."""
        return {"id": self.id, "started_at": rfc3339(self.started_at or self.created_at)}

    def after(self, command: Command) -> State:
        """Return the state that a command leads to. Raises `Conflict` where it is not possible."""
        state = NEXT.get((self.state, command))
        if state is None:
            raise Conflict(f"{command.value} is not possible for a run that is {self.state.value}")
        return state

    def document(self) -> dict[str, Any]:
        """Return it as the API shows it, without its graph, its parameters and its steps."""
        counts = Counter(STATES[mark].value for mark in self.marks)
        failed = counts[StepState.FAILED.value] + counts[StepState.BLOCKED.value]
        return {
            "id": self.id,
            "name": self.name,
            "status": self.state.value,
            "reason": self.reason,
            "goal": self.goal,
            "digest": self.digest,
            "requested_by": self.requested_by,
            "autonomous": self.autonomous,
            "max_parallel": self.max_parallel,
            "retries_left": self.retries_left,
            "diagnoses": self.diagnoses,
            "created_at": rfc3339(self.created_at),
            "started_at": _time(self.started_at),
            "ended_at": _time(self.ended_at),
            "updated_at": rfc3339(self.updated_at),
            "steps": {state.value: counts[state.value] for state in StepState if counts[state.value]},
            "total": len(self.marks),
            "completed": counts[StepState.COMPLETED.value],
            "progress": progress({str(at): STATES[mark].value for at, mark in enumerate(self.marks)}),
            "confidence": confidence(counts[StepState.COMPLETED.value], failed),
            "trace_id": self.trace_id,
        }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
