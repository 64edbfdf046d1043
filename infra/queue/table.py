"""`Queue` in rows of any `Table`.

    ("queue:NAME", DUE-MOVES-ID)     {"id", "body", "attempt"}; DUE in milliseconds of the epoch
    ("queue:NAME:dead", ID)          {"id", "body", "attempts", "reason", "died_at"}

The rows stand in the order in which they fall due, so that receiving is one range read of as many as are
wanted. To hold a message is to move its row to the moment until which it is held: whoever moves it first has
it, and every move has a key that was never there before, which is the receipt. A holder whose row is gone is
one too late, and can do nothing with it.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import replace

from infra.clock import Clock, NewId, new_id
from infra.queue import MAX_ID, Body, DeadLetter, Message, check_body
from infra.table import Delete, Document, Item, Put, Table, Write
from router.errors import NotFound, Stale, StoreUnavailable

CLOCKS_APART = 30.0
"""Seconds by which the clocks of two processes may differ, unless told otherwise."""

MOST_ATTEMPTS = 20
DEAD_SECONDS = 14 * 86_400.0
"""How long a dead letter is kept."""

_SPARE = 8
"""Rows read beyond those wanted: another process is likely to be moving some of them."""


class TableQueue:
    """The queue `name` in a table.

    A message that was given out `most_attempts` times goes to the dead letters when it falls due again.
    `apart` is by how many seconds the clocks of two processes that use it may differ, 0 on one machine:
    others get a message only that long after its holder had to let go.
    """

    def __init__(
        self,
        table: Table,
        clock: Clock,
        name: str,
        *,
        new_id: NewId = new_id,
        most_attempts: int = MOST_ATTEMPTS,
        apart: float = CLOCKS_APART,
    ) -> None:
        self._table = table
        self._clock = clock
        self._partition = f"queue:{name}"
        self._dead = f"queue:{name}:dead"
        self._new_id = new_id
        self._most_attempts = most_attempts
        self._apart = apart
        self._news = asyncio.Event()

    def write_of(self, body: Body, *, delay: float = 0.0, id: str = "") -> Write:  # noqa: A002
        """See `Queue.write_of`."""
        check_body(body)
        name = id or self._new_id("m")
        if len(name) > MAX_ID:
            raise ValueError(f"an id has at most {MAX_ID} characters: {name[:80]!r}")
        # What is due at once is due by every clock: one that is behind would let it lie.
        now = self._clock()
        due = _up(now + delay) if delay > 0 else int((now - self._apart) * 1000)
        key = (self._partition, _sort(due, 0, name))
        return Put(key, {"id": name, "body": body, "attempt": 0}, if_revision=0)

    async def flush(self) -> None:
        """See `Queue.flush`: what is committed is there for everybody, so this only wakes who waits here."""
        self._news.set()

    async def send(self, body: Body, *, delay: float = 0.0, id: str = "") -> str:  # noqa: A002
        """See `Queue.send`."""
        write = self.write_of(body, delay=delay, id=id)
        assert isinstance(write, Put)
        with suppress(Stale):  # the same message, sent twice in the same millisecond
            await self._table.transact([write])
        await self.flush()
        return str(write.document["id"])

    async def receive(self, *, most: int, visible_seconds: float) -> list[Message]:
        """See `Queue.receive`."""
        held: list[Message] = []
        after: str | None = None
        while len(held) < most:
            try:
                page = await self._table.range(self._partition, after=after, limit=most - len(held) + _SPARE)
                for item in page.items:
                    if len(held) == most or _due(item) > self._clock():
                        return held
                    message = await self._hold(item, visible_seconds)
                    held += [message] if message is not None else []
            except StoreUnavailable:
                if held:  # what is ours must not be forgotten
                    return held
                raise
            after = page.after
            if after is None:
                break
        return held

    async def wait(self, seconds: float) -> None:
        """See `Queue.wait`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def extend(self, message: Message, seconds: float) -> Message:
        """See `Queue.extend`."""
        until = self._clock() + seconds
        receipt = await self._move(message, until + self._apart)
        return replace(message, receipt=receipt, until=until)

    async def done(self, message: Message) -> bool:
        """See `Queue.done`."""
        return await self._table.delete((self._partition, message.receipt))

    async def retry(self, message: Message, *, delay: float) -> None:
        """See `Queue.retry`."""
        await self._move(message, self._clock() + delay)
        if delay <= 0:
            await self.flush()

    async def dead(self, message: Message, reason: str) -> None:
        """See `Queue.dead`."""
        letter = _letter(self._dead, message.id, message.body, message.attempt, reason, self._clock())
        await self._table.transact([Delete((self._partition, message.receipt), if_revision=1), letter])

    async def dead_letters(
        self, *, after: str | None = None, limit: int = 50
    ) -> tuple[list[DeadLetter], str | None]:
        """See `Queue.dead_letters`."""
        page = await self._table.range(self._dead, after=after, limit=limit)
        return [DeadLetter(**item.document) for item in page.items], page.after

    async def revive(self, id: str) -> None:  # noqa: A002
        """See `Queue.revive`."""
        item = await self._table.get((self._dead, id))
        if item is None:
            raise NotFound("there is no dead letter of that id")
        try:
            await self._table.transact(
                [Delete(item.key, if_revision=item.revision), self.write_of(item.document["body"], id=id)]
            )
        except Stale:
            raise NotFound("somebody else sent it again at this moment") from None
        await self.flush()

    async def _hold(self, item: Item, seconds: float) -> Message | None:
        """Move a row that is due to the end of our hold; None when somebody else has, or it is dead now."""
        name, body, given = (item.document[field] for field in ("id", "body", "attempt"))
        now = self._clock()
        if dead := given >= self._most_attempts:
            why = f"was given out {given} times, never done"
            put = _letter(self._dead, name, body, given, why, now)
        else:
            due = now + seconds + self._apart
            put = _row(self._partition, name, body, given + 1, due, item.key[1])
        try:
            await self._table.transact([Delete(item.key, if_revision=item.revision), put])
        except Stale:
            return None
        return None if dead else Message(name, body, given + 1, put.key[1], now + seconds)

    async def _move(self, message: Message, due: float) -> str:
        """Move the row of a message that is held, and return the new receipt. Raises `Stale`."""
        put = _row(self._partition, message.id, message.body, message.attempt, due, message.receipt)
        await self._table.transact([Delete((self._partition, message.receipt), if_revision=1), put])
        return put.key[1]


def _row(partition: str, name: str, body: Body, attempt: int, due: float, before: str) -> Put:
    """Return the write of a row that was at the sort key `before`."""
    moves = int(before.split("-", 2)[1]) + 1
    document: Document = {"id": name, "body": body, "attempt": attempt}
    return Put((partition, _sort(_up(due), moves, name)), document, if_revision=0)


def _letter(partition: str, name: str, body: Body, attempts: int, reason: str, now: float) -> Put:
    letter = DeadLetter(name, body, attempts, reason, now)
    return Put((partition, name), letter._asdict(), expires_at=now + DEAD_SECONDS)


def _sort(due: int, moves: int, name: str) -> str:
    return f"{max(due, 0):015d}-{moves:06d}-{name}"


def _up(seconds: float) -> int:
    """Return milliseconds, rounded up: a message must not fall due before its holder lets go."""
    return math.ceil(seconds * 1000)


def _due(item: Item) -> float:
    return int(item.key[1].partition("-")[0]) / 1000
