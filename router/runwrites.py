"""How runs are changed, with the messages that they are worked on by and the events that tell of them.

Whatever changes is written in one transaction, at the revision at which it was read: of two, one is refused,
looks again, and decides anew. A run knows by its marks where each of its steps is. So what follows from the
end of a step is known at once, however many wait for it, and is written together with that end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from infra.clock import Clock
from infra.queue import Queue
from infra.table import Check, Put, Table, Write
from router.draft import STEP, Draft, Told, advance
from router.errors import Stale
from router.events import Events, News
from router.frontier import Frontier
from router.record import Record
from router.run import Charter, Run
from router.runrows import HALTED, RunRows, log_of, place_of, steps_of

MOST_TRIES = 200
"""How often a change is decided anew because somebody else was faster."""

Edit = Callable[[Draft], Awaitable[None]]
"""Changes a draft. It may be called again, on a new one."""


class RunWrites:
    """Writes runs into a table, their messages into a queue, and their events among all others."""

    def __init__(self, rows: RunRows, table: Table, queue: Queue, events: Events, clock: Clock) -> None:
        self._rows = rows
        self._table = table
        self._queue = queue
        self._events = events
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, run_id: str) -> asyncio.Lock:
        """Return what those of this process take turns by who change a run."""
        lock = self._turns.get(run_id)
        if lock is None:
            lock = self._turns[run_id] = asyncio.Lock()
        return lock

    async def create(self, run: Run, charter: Charter, edit: Edit, writes: Sequence[Write]) -> Run:
        """Write a new run, and start what can start in it. Raises `Stale` when a condition fails."""
        frontier = Frontier(charter.graph)
        frontier.sync(run.marks)
        draft = Draft(run, charter, frontier, self._clock(), _nothing)
        draft.writes += writes
        await edit(draft)
        await advance(draft)
        return await self._commit(draft)

    async def change(self, run_id: str, edit: Edit) -> Run:
        """Change a run, and start what can start then. `edit` may be called more than once.

        Raises `NotFound`, what `edit` raises, and `Stale` when others are faster again and again.
        """
        async with self.lock(run_id):
            for _ in range(MOST_TRIES):
                draft = await self.draft(await self._rows.get(run_id))
                await edit(draft)
                await advance(draft)
                try:
                    return await self._commit(draft)
                except Stale:
                    await asyncio.sleep(0)
        raise Stale("others changed the run again and again")

    async def draft(self, run: Run) -> Draft:
        """Return a draft of a run as it is."""
        charter, frontier = await self._rows.view(run)
        frontier.sync(run.marks)

        async def load(number: int) -> Record | None:
            return await self._rows.record(run.id, number)

        return Draft(run, charter, frontier, self._clock(), load)

    async def begin(self, run: Run, record: Record, *told: Told) -> Record:
        """Write of a step that it begins, while its run is as it was read and no run is halted.

        Raises `Stale` when that is not so.
        """
        checks = [Check(("run", run.id), run.revision), Check(HALTED, 0)]
        [revision, *_] = await self._tell(
            run, told, [self._put(run, record), *checks], f"{run.revision:08d}-1"
        )
        return replace(record, revision=revision)

    async def update(self, run: Run, record: Record, *, delay: float | None = None) -> Record:
        """Write what is kept of a step, whatever became of its run, and its next message after `delay`.

        Raises `Stale` when the step was changed meanwhile.
        """
        writes: list[Write] = [self._put(run, record)]
        if delay is not None:
            body = {"kind": STEP, "run": run.id, "step": record.number, "turn": record.turn}
            writes.append(self._queue.write_of(body, delay=delay))
        [revision, *_] = await self._table.transact(writes)
        await self._queue.flush()
        return replace(record, revision=revision)

    async def _commit(self, draft: Draft) -> Run:
        """Write a draft. Raises `Stale`."""
        run = draft.finish()
        document = msgspec.to_builtins(run)
        revision = document.pop("revision")
        puts: list[Write] = [Put(("run", run.id), document, revision, run.kept_until)]
        puts += [self._put(run, record) for record in draft.changed.values()]
        puts += [self._queue.write_of(body, delay=delay) for body, delay in draft.messages]
        [revision, *_] = await self._tell(
            run, draft.told, [*puts, *draft.writes], f"{run.revision + 1:08d}-0"
        )
        if draft.messages:
            await self._queue.flush()
        return replace(run, revision=revision)

    async def _tell(self, run: Run, told: Sequence[Told], writes: Sequence[Write], place: str) -> list[int]:
        """Write, together with what is told of it, which has that place in the run's log."""
        if not told:
            return await self._table.transact(writes)
        news = [
            News(one.kind, "runs", {"run": run.id, "name": run.name, **one.detail}, run.trace_id)
            for one in told
        ]

        async def write(events: list[Put]) -> list[int]:
            logged = [_logged(run, one, event, place) for one, event in zip(told, events, strict=True)]
            return await self._table.transact([*writes, *events, *logged])

        return await self._events.together(news, write)

    def _put(self, run: Run, record: Record) -> Put:
        document = msgspec.to_builtins(record)
        revision = document.pop("revision", 0)
        return Put((steps_of(run.id), place_of(record.number)), document, revision, run.kept_until)


async def _nothing(_: int) -> Record | None:
    return None


def _logged(run: Run, told: Told, event: Put, place: str) -> Put:
    """Return the write of what is told into the run's own log.

    The run's revision comes first in its key, and what begins at one after what led to it: so the log is in
    order, whatever clocks say.
    """
    shown = event.document
    detail = {name: value for name, value in shown["payload"].items() if name not in {"run", "name"}}
    document = {"at": shown["at"], "type": told.kind, "level": told.level, **detail}
    return Put((log_of(run.id), f"{place}-{event.key[1]}"), document, expires_at=run.kept_until)
