"""The worker of a queue: what is done, what comes again, and what it lets go of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from infra.queue import Message
from infra.queue.table import TableQueue
from infra.table.sqlite import SqliteTable
from router.errors import Conflict, Stale, StoreUnavailable
from router.worker import GRACE_SECONDS, HOLD_SECONDS, TROUBLE, Handler, Later, Poison, Worker
from tests.fakes import FakeClock
from tests.router.parts import Watched, until

SOON = 0.03
"""A hold in seconds of real time: it is held on every 10 ms."""


class Rig:
    """A queue with one worker, and a handler that does what a test says."""

    def __init__(self, table: SqliteTable, clock: FakeClock, **more: Any) -> None:
        self.table = Watched(table)
        self.clock = clock
        self.queue = TableQueue(self.table, clock, "q", apart=0)
        self.done: list[str] = []
        self.does: Callable[[Message], Awaitable[None]] = self._nothing
        handlers: dict[str, Handler] = {"work": self._handle}
        self.worker = Worker(self.queue, handlers, clock=clock, dice=lambda: 0.5, **more)

    async def _nothing(self, message: Message) -> None:
        return

    async def _handle(self, message: Message, seconds: float) -> None:
        await self.does(message)
        self.done.append(message.id)

    async def left(self) -> list[tuple[str, float]]:
        """Return what is left in the queue: ids, and in how many seconds each is due."""
        page = await self.table.inner.range("queue:q")
        return [
            (item.document["id"], round(int(item.key[1][:15]) / 1000 - self.clock(), 3))
            for item in page.items
        ]

    async def dead(self) -> dict[str, str]:
        """Return the reasons of dead letters by id."""
        letters, _ = await self.queue.dead_letters()
        return {letter.id: letter.reason for letter in letters}


@pytest.fixture
def rig(table: SqliteTable, clock: FakeClock) -> Rig:
    """Give a worker that holds for as long as it does in the product."""
    return Rig(table, clock)


@pytest.fixture
def brief(table: SqliteTable, clock: FakeClock) -> Rig:
    """Give a worker that holds for a moment only."""
    return Rig(table, clock, hold_seconds=SOON, poll_seconds=0.01)


class TestOnce:
    """One round of work."""

    async def test_what_is_done_is_gone(self, rig: Rig) -> None:
        """Side by side, each message once."""
        for number in range(20):
            await rig.queue.send({"kind": "work"}, id=f"m{number}")
        assert [await rig.worker.work_once() for _ in range(3)] == [16, 4, 0]
        assert sorted(rig.done) == sorted(f"m{number}" for number in range(20))
        assert await rig.left() == []

    @pytest.mark.parametrize("body", [{"kind": "other"}, {"kind": ["work"]}, {"kind": None}, {}])
    async def test_what_nobody_knows_is_a_dead_letter(self, rig: Rig, body: dict[str, Any]) -> None:
        """It is not given out again and again, and says what it was."""
        await rig.queue.send(body, id="m")
        await rig.worker.work_once()
        assert "nobody works on messages of the kind" in (await rig.dead())["m"]
        assert await rig.left() == []

    async def test_later(self, rig: Rig) -> None:
        """A handler may say when it is to come again."""
        rig.does = raising(Later(7.5))
        await rig.queue.send({"kind": "work"}, id="m")
        await rig.worker.work_once()
        assert await rig.left() == [("m", 7.5)]

    async def test_poison(self, rig: Rig) -> None:
        """A handler may say that nobody should try again."""
        rig.does = raising(Poison("it is no good"))
        await rig.queue.send({"kind": "work"}, id="m")
        await rig.worker.work_once()
        assert await rig.dead() == {"m": "it is no good"}

    @pytest.mark.parametrize("error", [StoreUnavailable("down"), Conflict("so"), RuntimeError("a bug")])
    async def test_a_failure_comes_again_later_each_time(
        self, rig: Rig, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever went wrong: after a wait that grows, and with a line in the log."""
        rig.does = raising(error)
        await rig.queue.send({"kind": "work"}, id="m")
        for ceiling in (1, 2, 4, 8, 16, 32, 60, 60):
            assert await rig.worker.work_once() == 1
            assert await rig.left() == [("m", ceiling / 2)]
            rig.clock.forward(ceiling / 2)
        assert TROUBLE.cap == 60
        assert "message m comes again in 0.5 s" in caplog.text

    async def test_a_failure_of_one_is_none_of_the_others(self, rig: Rig) -> None:
        """The rest of a round is done."""

        async def does(message: Message) -> None:
            if message.id == "bad":
                raise RuntimeError("a bug")

        rig.does = does
        for name in ("a", "bad", "b"):
            await rig.queue.send({"kind": "work"}, id=name)
        assert await rig.worker.work_once() == 3
        assert sorted(rig.done) == ["a", "b"]

    async def test_a_store_that_is_down(self, rig: Rig) -> None:
        """There is no telling what is due."""
        rig.table.down = True
        with pytest.raises(StoreUnavailable):
            await rig.worker.work_once()

    @pytest.mark.parametrize("ends", [None, Later(1.0), Poison("why"), RuntimeError("a bug")])
    async def test_a_store_that_goes_meanwhile(self, rig: Rig, ends: Exception | None) -> None:
        """What cannot be said of a message is not said: it comes again when its hold is over."""

        async def does(message: Message) -> None:
            rig.table.down = True
            if ends is not None:
                raise ends

        rig.does = does
        await rig.queue.send({"kind": "work"}, id="m")
        await rig.worker.work_once()
        assert await rig.left() == [("m", HOLD_SECONDS)]

    async def test_the_seconds_of_a_process_are_passed_on(self, table: SqliteTable, clock: FakeClock) -> None:
        """A handler knows how long there is."""
        seen: list[float] = []

        async def handle(_: Message, seconds: float) -> None:
            seen.append(seconds)

        queue = TableQueue(table, clock, "q")
        worker = Worker(queue, {"work": handle}, clock=clock, dice=lambda: 0.5)
        for seconds in (12.5, float("inf")):
            await queue.send({"kind": "work"})
            await worker.work_once(seconds=seconds)
        assert seen == [12.5, float("inf")]


def raising(error: Exception) -> Callable[[Message], Awaitable[None]]:
    """Return a handler that fails."""

    async def does(_: Message) -> None:
        raise error

    return does


class TestHold:
    """Long work and short holds."""

    async def test_it_is_held_on(self, brief: Rig) -> None:
        """For as long as it takes, nobody else gets it."""
        due: list[float] = []

        async def does(_: Message) -> None:
            for extensions in (1, 2, 3):
                await until(lambda: brief.table.count("transact") == 2 + extensions)  # noqa: B023
                brief.clock.forward(SOON * 0.9)
                due.append((await brief.left())[0][1])

        brief.does = does
        await brief.queue.send({"kind": "work"}, id="m")
        await brief.worker.work_once()
        assert brief.done == ["m"]
        assert due == [pytest.approx(SOON * 0.1, abs=0.001)] * 3
        assert await brief.left() == []

    async def test_lost_work_is_ended(self, brief: Rig, caplog: pytest.LogCaptureFixture) -> None:
        """Whoever has the message by now does the work; two do not."""
        ended = asyncio.Event()

        async def does(message: Message) -> None:
            brief.clock.forward(2 * SOON)
            [taken] = await brief.queue.receive(most=1, visible_seconds=60)
            assert taken.id == message.id
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        brief.does = does
        await brief.queue.send({"kind": "work"}, id="m")
        await asyncio.wait_for(brief.worker.work_once(), 10)
        assert ended.is_set()
        assert brief.done == []
        assert "message m was lost while it was worked on" in caplog.text
        assert await brief.left() == [("m", 60)]

    async def test_without_the_store_it_goes_on_while_it_is_held(self, brief: Rig) -> None:
        """One extension that fails is no loss; when the next would come too late, it is."""
        moments: list[float] = []

        async def does(_: Message) -> None:
            brief.table.down = True
            started = brief.clock()
            while True:
                await asyncio.sleep(0.005)
                brief.clock.forward(0.001)
                moments.append(brief.clock() - started)

        brief.does = does
        await brief.queue.send({"kind": "work"}, id="m")
        await asyncio.wait_for(brief.worker.work_once(), 10)
        assert SOON / 3 < moments[-1] <= SOON

    async def test_work_that_ends_too_late(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        """What was done cannot be said any more: somebody else has the message, or will have it."""

        async def does(_: Message) -> None:
            rig.clock.forward(HOLD_SECONDS)
            [_] = await rig.queue.receive(most=1, visible_seconds=60)
            raise Later(1.0)

        rig.does = does
        await rig.queue.send({"kind": "work"}, id="m")
        assert await rig.worker.work_once() == 1
        assert "held too long" in caplog.text
        assert await rig.left() == [("m", 60)]


class TestRun:
    """A worker that goes on until it is stopped."""

    async def test_it_works_on_what_comes(self, brief: Rig) -> None:
        """At once on what this process sends, and soon on what others do, or what falls due."""
        running = asyncio.ensure_future(brief.worker.run())
        await brief.queue.send({"kind": "work"}, id="a")
        await until(lambda: brief.done == ["a"])
        other = TableQueue(brief.table, brief.clock, "q", apart=0)
        await other.send({"kind": "work"}, id="b")
        await other.send({"kind": "work"}, id="c", delay=5)
        await until(lambda: brief.done == ["a", "b"])
        brief.clock.forward(5)
        await until(lambda: brief.done == ["a", "b", "c"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def test_it_stops_when_there_is_nothing_to_do(self, rig: Rig) -> None:
        """At once."""
        running = asyncio.ensure_future(rig.worker.run())
        await until(lambda: rig.table.count("range") > 0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, GRACE_SECONDS / 2)

    async def test_a_send_wakes_it(self, table: SqliteTable, clock: FakeClock) -> None:
        """It does not wait for its next look."""
        rig = Rig(table, clock, poll_seconds=3600)
        running = asyncio.ensure_future(rig.worker.run())
        await until(lambda: rig.table.count("range") > 0)
        await rig.queue.send({"kind": "work"}, id="a")
        await until(lambda: rig.done == ["a"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def test_no_more_at_once_than_it_may(self, table: SqliteTable, clock: FakeClock) -> None:
        """The others stay in the queue, where another process can have them."""
        rig = Rig(table, clock, most=3, poll_seconds=0.01)
        gate, at_work = asyncio.Event(), 0

        async def does(_: Message) -> None:
            nonlocal at_work
            at_work += 1
            assert at_work <= 3
            await gate.wait()
            at_work -= 1

        rig.does = does
        for number in range(8):
            await rig.queue.send({"kind": "work"}, id=f"m{number}")
        running = asyncio.ensure_future(rig.worker.run())
        await until(lambda: at_work == 3)
        assert [due for _, due in await rig.left()].count(HOLD_SECONDS) == 3
        gate.set()
        await until(lambda: len(rig.done) == 8)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def test_a_store_that_is_down_is_told_of_once(
        self, brief: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It goes on looking, and works when the store is back."""
        caplog.set_level(logging.WARNING)
        await brief.queue.send({"kind": "work"}, id="a")
        brief.table.down = True
        running = asyncio.ensure_future(brief.worker.run())
        await until(lambda: brief.table.count("range") > 3)
        brief.table.down = False
        await until(lambda: brief.done == ["a"])
        assert caplog.text.count("no messages can be received") == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    @pytest.mark.parametrize("received", [False, True])
    async def test_when_it_stops_what_is_nearly_done_ends(self, rig: Rig, received: bool) -> None:
        """Also what is just being received; and nothing new is begun."""
        gate, began = asyncio.Event(), asyncio.Event()

        async def does(_: Message) -> None:
            began.set()
            await gate.wait()

        rig.does = does
        await rig.queue.send({"kind": "work"}, id="a")
        running = asyncio.ensure_future(rig.worker.run())
        await until(lambda: began.is_set() if received else rig.table.count("transact") > 1)
        running.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(running, return_exceptions=True)
        assert rig.done == ["a"]
        assert await rig.left() == []

    async def test_when_it_stops_the_rest_is_let_go(
        self, brief: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is due at once for whoever comes next, not when the hold would end."""
        monkeypatch.setattr("router.worker.GRACE_SECONDS", 0.01)
        assert GRACE_SECONDS < 3

        began = asyncio.Event()

        async def does(_: Message) -> None:
            began.set()
            await asyncio.Event().wait()

        brief.does = does
        await brief.queue.send({"kind": "work"}, id="a")
        running = asyncio.ensure_future(brief.worker.run())
        await asyncio.wait_for(began.wait(), 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await brief.left() == [("a", 0.0)]
        assert brief.done == []


async def test_stale_is_what_a_void_receipt_raises(rig: Rig) -> None:
    """As the worker relies on."""
    await rig.queue.send({"kind": "work"}, id="m")
    [message] = await rig.queue.receive(most=1, visible_seconds=1)
    await rig.queue.done(message)
    with pytest.raises(Stale):
        await rig.queue.extend(message, 1)
