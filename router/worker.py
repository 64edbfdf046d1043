"""Works on the messages of a queue: each by the handler of its kind, several side by side.

A message says its `kind`. While its handler works on it, it is held on from time to time, so that a hold may
be short: a process that dies is missed within seconds, however long its work would have taken. A hold that is
lost ends the work. What a handler returns from is done; what it raises `Later` for, or fails with, comes
again; what it raises `Poison` for becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping

from infra.clock import Clock
from infra.queue import Message, Queue
from router.backoff import Backoff, Dice
from router.errors import AutopilotError, Stale

log = logging.getLogger("router")

Handler = Callable[[Message, float], Awaitable[None]]
"""Works on a message for at most so many seconds, after which this process ends."""

HOLD_SECONDS = 10.0
MOST_AT_ONCE = 16
POLL_SECONDS = 0.5
"""How long messages that other processes sent, or that fall due, may lie."""
GRACE_SECONDS = 2.0
"""How long work that is under way goes on when the process is to end."""
TROUBLE = Backoff(1.0, 60.0)
"""Waits after failures that say nothing about the message, such as a store that is down."""


class Later(Exception):
    """Raise when a message has to come again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class Poison(Exception):
    """Raise when nobody should work on a message any more, with the reason."""


class Worker:
    """Works on a queue. `handlers` are by the kind of message; at most `most` work at once."""

    def __init__(
        self,
        queue: Queue,
        handlers: Mapping[str, Handler],
        *,
        clock: Clock,
        dice: Dice,
        most: int = MOST_AT_ONCE,
        hold_seconds: float = HOLD_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._queue = queue
        self._handlers = handlers
        self._clock = clock
        self._dice = dice
        self._most = most
        self._hold = hold_seconds
        self._poll = poll_seconds
        self._failing = False

    async def work_once(self, *, seconds: float = math.inf) -> int:
        """Work on what is due now, side by side, and return how many messages that were.

        The process goes on for `seconds`. Raises `StoreUnavailable` when there is no telling what is due.
        """
        messages = await self._queue.receive(most=self._most, visible_seconds=self._hold)
        await asyncio.gather(*(self.handle(message, seconds) for message in messages))
        return len(messages)

    async def run(self) -> None:
        """Work until cancelled; what is under way then has `GRACE_SECONDS` to end, or is let go of."""
        working: set[asyncio.Task[bool]] = set()
        taking = asyncio.ensure_future(self._take(working))
        try:
            while True:
                more = await asyncio.shield(taking)  # what was received must not be forgotten
                if len(working) >= self._most:
                    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                elif not more:
                    await self._queue.wait(self._poll)
                working.difference_update([one for one in working if one.done()])
                taking = asyncio.ensure_future(self._take(working))
        finally:
            await asyncio.gather(taking, return_exceptions=True)
            if working:
                await asyncio.wait(working, timeout=GRACE_SECONDS)
            for one in working:
                one.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def handle(self, message: Message, seconds: float = math.inf) -> bool:
        """Work on a message that is held, and return whether that is finished: it will not come again."""
        held = _Held(self._queue, message, self._hold, self._clock)
        delay: float
        try:
            await held.while_doing(self._handler(message)(message, seconds))
        except Later as later:
            delay = later.seconds
        except Poison as poison:
            log.warning("message %s is put among the dead letters: %s", message.id, poison)
            return await self._settle(held, reason=str(poison))
        except _Lost:
            log.warning("message %s was lost while it was worked on; somebody else has it now", message.id)
            return False
        except asyncio.CancelledError:
            await asyncio.shield(self._settle(held, delay=0.0))
            raise
        except Exception as error:
            delay = TROUBLE.delay(message.attempt, self._dice)
            if isinstance(error, AutopilotError):
                log.warning("message %s comes again in %.1f s: %s", message.id, delay, error)
            else:
                log.exception("message %s comes again in %.1f s", message.id, delay)
        else:
            return await self._settle(held)
        return await self._settle(held, delay=delay)

    async def _take(self, working: set[asyncio.Task[bool]]) -> bool:
        """Begin with as much as there is room for, and return whether there was any.

        That nothing can be received is logged, once for as long as it lasts.
        """
        try:
            room = self._most - len(working)
            messages = await self._queue.receive(most=room, visible_seconds=self._hold)
        except AutopilotError as error:
            if not self._failing:
                log.warning("no messages can be received: %s", error)
            self._failing = True
            return False
        self._failing = False
        working.update(asyncio.ensure_future(self.handle(message)) for message in messages)
        return bool(messages)

    def _handler(self, message: Message) -> Handler:
        kind = message.body.get("kind")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        return handler or _unknown

    async def _settle(self, held: _Held, *, delay: float | None = None, reason: str = "") -> bool:
        """Say what becomes of a message. If that fails, it comes again when its hold is over."""
        try:
            if reason:
                await self._queue.dead(held.message, reason)
            elif delay is not None:
                await self._queue.retry(held.message, delay=delay)
            else:
                await self._queue.done(held.message)
        except Stale:
            log.warning("message %s was held too long; somebody else has it now", held.message.id)
            return False
        except AutopilotError as error:
            log.warning("message %s comes again when its hold is over: %s", held.message.id, error)
            return False
        return delay is None


class _Lost(Exception):
    """Raise when somebody else may hold the message."""


class _Held:
    """A message with its receipt of this moment."""

    def __init__(self, queue: Queue, message: Message, seconds: float, clock: Clock) -> None:
        self._queue = queue
        self._seconds = seconds
        self._clock = clock
        self.message = message

    async def while_doing(self, doing: Awaitable[None]) -> None:
        """Hold the message on until the work is done; without the hold the work is ended. Raises `_Lost`."""
        work = asyncio.ensure_future(doing)
        begun: list[asyncio.Future[None]] = [work]
        try:
            while not (await asyncio.wait({work}, timeout=self._seconds / 3))[0]:
                begun[1:] = [asyncio.ensure_future(self._extend())]
                await asyncio.shield(begun[1])  # cut off, it would leave us without a receipt
        except BaseException:
            work.cancel()
            await asyncio.gather(*begun, return_exceptions=True)
            raise
        work.result()

    async def _extend(self) -> None:
        try:
            self.message = await self._queue.extend(self.message, self._seconds)
        except Stale:
            raise _Lost from None
        except AutopilotError:
            if (
                self._clock() + self._seconds / 3 >= self.message.until
            ):  # before the next try it would be over
                raise _Lost from None


async def _unknown(message: Message, _: float) -> None:
    raise Poison(f"nobody works on messages of the kind {message.body.get('kind')!r}")
