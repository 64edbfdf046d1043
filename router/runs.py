"""Runs: start one, command it, see it.

A run is a graph of tasks with the dependencies between them. It is pinned to the graph it was started with,
which is kept with it. Each of its tasks goes through the planner, in the authority that whoever started the
run had at that moment.
"""

from __future__ import annotations

from typing import Any

from infra.clock import Clock, NewId, rfc3339
from infra.table import Put, Table, Write
from router.commanding import Commanding, Given
from router.draft import INFO, Draft
from router.dryrun import DryRun
from router.errors import Conflict, LoopDetected, Stale
from router.forward import MAX_HOPS
from router.keys import Identity
from router.planner import Caller
from router.run import KEEP_SECONDS, LIVE, Charter, Command, Kept, Run, State
from router.runrequest import RunRequest
from router.runrows import RunRows
from router.runwrites import RunWrites


class Runs:
    """What callers may do about runs. Whether they may, whoever asks this has to know."""

    def __init__(
        self,
        table: Table,
        rows: RunRows,
        writes: RunWrites,
        commanding: Commanding,
        drying: DryRun,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._table = table
        self._rows = rows
        self._writes = writes
        self._commanding = commanding
        self._drying = drying
        self._clock = clock
        self._new_id = new_id

    async def start(self, request: RunRequest, caller: Caller, identity: Identity) -> Run:
        """Start a run, and return it.

        Raises `Invalid` with everything that is wrong with it, `Forbidden` when the caller may not plan one
        of its tasks, `Conflict` while all runs are halted or for a second `single` one, and
        `StoreUnavailable`.
        """
        if caller.hops >= MAX_HOPS:
            raise LoopDetected(f"the run has been through {caller.hops} routers already")
        marks = request.checked()
        await self._drying.check_allowed(request.graph, caller)
        run_id = self._new_id(f"run_{int(self._clock() * 1000):012x}")
        charter = Charter.of(request.graph, request.params)
        until = self._clock() + KEEP_SECONDS
        kept, writes = await self._rows.keep(run_id, "charter", charter.text(), until)
        run = self._new(run_id, request, marks, kept, caller, identity)
        if request.single:
            writes.append(await self._only(run))

        async def edit(draft: Draft) -> None:
            draft.tell("created", INFO, by=identity.name, total=len(marks))
            if request.autonomous:
                await self._commanding.edit(draft, Given(Command.START, identity.name))

        try:
            return await self._writes.create(run, charter, edit, writes)
        except Stale:
            await self._commanding.check_halted()
            raise Conflict(f"another run of {run.name} was started at this moment") from None

    async def dry_run(self, request: RunRequest, caller: Caller) -> dict[str, Any]:
        """Return how a run would go, with nothing done: see `DryRun.plan`. Raises `Invalid`."""
        return await self._drying.plan(request, request.checked(), caller)

    async def command(
        self, run_id: str, command: Command, *, by: str, step: str = "", reason: str = ""
    ) -> Run:
        """Do something to a run, or to one of its steps, and return it.

        Raises `NotFound`, `Invalid` for a step or a reason that is missing or too much, `Conflict` where the
        state of the run or the step forbids it, with nothing changed, and `StoreUnavailable`.
        """
        return await self._commanding.command(run_id, Given(command, by, step, reason))

    async def get(self, run_id: str) -> Run:
        """Return a run. Raises `NotFound`."""
        return await self._rows.get(run_id)

    async def page(
        self, *, after: str | None, limit: int, name: str | None = None, state: State | None = None
    ) -> tuple[list[Run], str | None]:
        """Return runs, newest first, and where to go on: see `RunRows.page`."""

        def wanted(run: Run) -> bool:
            return name in {None, run.name} and state in {None, run.state}

        return await self._rows.page(after=after, limit=limit, wanted=wanted)

    async def live(self, name: str) -> Run | None:
        """Return the live run that was started as the `single` one of a name, None when there is none."""
        item = await self._table.get(("run:live", name))
        run = None if item is None else await self._rows.find(item.document["id"])
        return run if run is not None and run.state in LIVE else None

    async def halt(self, by: str, reason: str = "") -> None:
        """Let no step of any run start until `release`: each run pauses before its next step."""
        await self._rows.halt({"by": by, "reason": reason, "at": rfc3339(self._clock())})

    async def release(self) -> None:
        """Let runs be started and resumed again."""
        await self._rows.halt(None)

    def _new(
        self, run_id: str, request: RunRequest, marks: str, charter: Kept, caller: Caller, identity: Identity
    ) -> Run:
        now = self._clock()
        return Run(
            id=run_id,
            name=request.graph.name,
            digest=request.graph.digest,
            goal=request.goal,
            requested_by=identity.name,
            scopes=tuple(sorted(identity.scopes)),
            traceparent=caller.trace.child(),
            hops=caller.hops,
            charter=charter,
            marks=marks,
            max_parallel=request.max_parallel,
            retries_left=request.max_retries,
            autonomous=request.autonomous,
            created_at=now,
            updated_at=now,
        )

    async def _only(self, run: Run) -> Write:
        """Return the write that makes a run the only live one of its name. Raises `Conflict`."""
        key = ("run:live", run.name)
        item = await self._table.get(key)
        other = None if item is None else await self._rows.find(item.document["id"])
        if other is not None and other.state in LIVE:
            raise Conflict(f"{run.name} is {other.state.value} already, as {other.id}")
        return Put(key, {"id": run.id}, item.revision if item else 0, self._clock() + KEEP_SECONDS)
