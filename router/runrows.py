"""Where runs are kept.

("run", ID)             a `Run`; ids are in the order of time
("run:step:ID", N)      a `Record`, as soon as there is anything to say of the step with that number
("run:log:ID", EVENT)   what was told of the run
("run:text:ID", …)      its charter, and the order in which it is rolled back, each in some rows
("run:live", NAME)      {"id"}: the run of that name that was the last to want to be the only one
("run:halted", "all")   {"by", "reason", "at"}: no step of any run starts, while this is there
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from infra.pieces import joined, pieces, written
from infra.table import Document, Item, Table, Write
from router.errors import NotFound
from router.frontier import Frontier
from router.record import Record
from router.run import Charter, Kept, Run

HALTED = ("run:halted", "all")
SCAN = 1_000
"""How many runs one page looks through at most when only some are asked for."""
_CACHED = 8
"""Charters that are kept in memory, with what can start in their runs."""
_PAGE = 500


class RunRows:
    """Reads runs from a table, and writes what goes with none of them."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._charters: OrderedDict[str, tuple[Charter, Frontier]] = OrderedDict()

    async def find(self, run_id: str) -> Run | None:
        """Return a run, None when there is none."""
        item = await self._table.get(("run", run_id))
        return None if item is None else _run(item)

    async def get(self, run_id: str) -> Run:
        """Return a run. Raises `NotFound`."""
        run = await self.find(run_id)
        if run is None:
            raise NotFound("there is no run of that id")
        return run

    async def page(
        self, *, after: str | None, limit: int, wanted: Callable[[Run], bool] = lambda _: True
    ) -> tuple[list[Run], str | None]:
        """Return up to `limit` runs that are wanted, newest first, and where to go on, None at the end.

        A page may hold fewer, and yet not be the last.
        """
        found: list[Run] = []
        seen = 0
        while True:
            page = await self._table.range("run", after=after, limit=limit, reverse=True)
            seen += len(page.items)
            for item in page.items:
                run = _run(item)
                if wanted(run):
                    found.append(run)
                    if len(found) == limit:
                        last = item is page.items[-1] and page.after is None
                        return found, None if last else item.key[1]
            after = page.after
            if after is None or seen >= SCAN:
                return found, after

    async def record(self, run_id: str, number: int) -> Record | None:
        """Return what is kept of a step, None when nothing is."""
        item = await self._table.get((steps_of(run_id), place_of(number)))
        return None if item is None else _record(item)

    async def records(self, run_id: str) -> dict[int, Record]:
        """Return what is kept of all steps, by their numbers."""
        items = await self._all(steps_of(run_id))
        return {int(item.key[1]): _record(item) for item in items}

    async def log(self, run_id: str) -> list[Document]:
        """Return all that was told of a run, oldest first."""
        items = await self._all(log_of(run_id))
        return [{"id": item.key[1].split("-", 2)[2], **item.document} for item in items]

    async def charter(self, run: Run) -> Charter:
        """Return what a run was started with. Raises `Conflict` when that is not there as it was."""
        charter, _ = await self.view(run)
        return charter

    async def text(self, run: Run, kept: Kept) -> bytes | None:
        """Return a text of a run, None when it is no longer there as it was."""
        return await joined(self._table, _texts(run.id), kept.name, kept.rows)

    async def keep(self, run_id: str, name: str, text: bytes, until: float) -> tuple[Kept, list[Write]]:
        """Return where a text of a run will be, and what has to be written with the run for that.

        `name` was never used for this run.
        """
        puts = pieces(_texts(run_id), name, text, until)
        return Kept(name, len(puts)), await written(self._table, puts)

    async def halted(self) -> Document | None:
        """Return by whom and why all runs are halted, None while they are not."""
        item = await self._table.get(HALTED)
        return None if item is None else item.document

    async def halt(self, document: Document | None) -> None:
        """Halt all runs, or with None let them go on."""
        if document is None:
            await self._table.delete(HALTED)
        else:
            await self._table.put(HALTED, document)

    async def view(self, run: Run) -> tuple[Charter, Frontier]:
        """Return what a run was started with, and its frontier, which may have to be brought up to date.

        Raises `Conflict` when that is not there as it was.
        """
        view = self._charters.pop(run.id, None)
        if view is None:
            charter = Charter.read(await self.text(run, run.charter), run.digest)
            view = charter, Frontier(charter.graph)
        self._charters[run.id] = view
        if len(self._charters) > _CACHED:
            self._charters.popitem(last=False)
        return view

    async def _all(self, partition: str) -> list[Item]:
        found: list[Item] = []
        after: str | None = None
        while True:
            page = await self._table.range(partition, after=after, limit=_PAGE)
            found += page.items
            after = page.after
            if after is None:
                return found


def _run(item: Item) -> Run:
    return msgspec.convert({**item.document, "revision": item.revision}, Run)


def _record(item: Item) -> Record:
    return msgspec.convert({**item.document, "revision": item.revision}, Record)


def steps_of(run_id: str) -> str:
    """Return the partition of what is kept of a run's steps."""
    return f"run:step:{run_id}"


def log_of(run_id: str) -> str:
    """Return the partition of what was told of a run."""
    return f"run:log:{run_id}"


def _texts(run_id: str) -> str:
    return f"run:text:{run_id}"


def place_of(number: int) -> str:
    """Return the sort key of a step."""
    return f"{number:05d}"
