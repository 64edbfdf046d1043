"""Sends messages of runs again that became dead letters while the store failed again and again.

A step whose message nobody gets would be running for ever. What a message is about tells whether it is still
of any use; a step that kills whoever works on it is blocked by its own count of that.
"""

from __future__ import annotations

import logging

from infra.queue import Body, Queue
from router.draft import GO, STEP, UNDO
from router.errors import NotFound
from router.record import StepState
from router.run import State
from router.runrows import RunRows

log = logging.getLogger("router")

_UNDER_WAY = frozenset({StepState.READY, StepState.RUNNING, StepState.WAITING})


class Mending:
    """Looks through the dead letters."""

    def __init__(self, rows: RunRows, queue: Queue) -> None:
        self._rows = rows
        self._queue = queue

    async def __call__(self) -> int:
        """Send again what is still of use, and return how many messages that were.

        Raises `StoreUnavailable`.
        """
        sent = 0
        after: str | None = None
        while True:
            letters, after = await self._queue.dead_letters(after=after)
            for letter in letters:
                if await self._is_of_use(letter.body):
                    log.warning("a message of run %s is sent again: %s", letter.body["run"], letter.reason)
                    try:
                        await self._queue.revive(letter.id)
                    except NotFound:
                        continue  # somebody else did
                    sent += 1
            if after is None:
                return sent

    async def _is_of_use(self, body: Body) -> bool:
        """Whether a message is about something that is still to be done."""
        kind = body.get("kind")
        run = await self._rows.find(body["run"]) if kind in {STEP, GO, UNDO} else None
        if run is None:
            return False
        if kind == STEP:
            record = await self._rows.record(run.id, body["step"])
            return record is not None and record.turn == body["turn"] and record.state in _UNDER_WAY
        if kind == UNDO:
            return run.undo is not None and (run.undo.name, run.undone) == (body["order"], body["at"])
        return run.state is State.RUNNING
