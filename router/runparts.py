"""The parts of runs put together: what callers may do, what is shown, and what works on their messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infra.clock import Clock, NewId
from infra.queue import Queue
from infra.redact import Redactor
from infra.table import Table
from router.commanding import Commanding
from router.diagnosing import Diagnosing
from router.diagnosis import Heal, SchemaOf, no_schema
from router.draft import GO, STEP, UNDO
from router.dryrun import DryRun
from router.events import Events
from router.rollback import Rollback
from router.runends import Ends
from router.runmend import Mending
from router.runrows import RunRows
from router.runs import Runs
from router.runsend import Plans, Sender
from router.runshow import RunShow
from router.runwaits import Approvals, Waits
from router.runwork import GoWork, StepWork
from router.runwrites import RunWrites
from router.worker import Handler


@dataclass(frozen=True)
class RunParts:
    """What there is of runs. `handlers` are by the kind of message that they work on.

    `mend` is to be called from time to time.
    """

    runs: Runs
    show: RunShow
    handlers: Mapping[str, Handler]
    mend: Mending


def put_together(
    table: Table,
    queue: Queue,
    events: Events,
    planner: Plans,
    approvals: Approvals,
    *,
    redactor: Redactor,
    clock: Clock,
    new_id: NewId,
    heal: Heal | None = None,
    schema_of: SchemaOf = no_schema,
    monotonic: Callable[[], float] = time.monotonic,
) -> RunParts:
    """Put the parts together. `heal` is asked about failed steps; without it they are only tried again.

    `schema_of` tells what the meta of an action has to be like, and so what of it a diagnosis may change.
    """
    rows = RunRows(table)
    writes = RunWrites(rows, table, queue, events, clock)
    sender = Sender(planner, redactor)
    ends = Ends(writes, Diagnosing(rows, writes, redactor, heal, schema_of))
    waits = Waits(ends, sender, approvals, clock)
    steps = StepWork(rows, writes, ends, sender, waits, clock=clock, monotonic=monotonic)
    rollback = Rollback(rows, writes, sender, new_id=new_id, monotonic=monotonic)
    commanding = Commanding(rows, writes, rollback, approvals)
    runs = Runs(table, rows, writes, commanding, DryRun(planner), clock=clock, new_id=new_id)
    handlers: dict[str, Handler] = {STEP: steps, GO: GoWork(writes), UNDO: rollback}
    return RunParts(runs, RunShow(rows, redactor), handlers, Mending(rows, queue))
