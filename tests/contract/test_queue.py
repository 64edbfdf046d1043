"""What every adapter of the `Queue` port does."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.queue import MAX_BODY, MAX_ID, Message, Queue
from infra.queue.table import CLOCKS_APART, DEAD_SECONDS, TableQueue
from infra.table import Item, Key, Page, Put, Table
from infra.table.sqlite import SqliteTable
from router.errors import NotFound, Stale, StoreUnavailable, TooLarge
from tests.fakes import FakeClock

MOST = 3
"""How often the queues of these tests give a message out."""


@pytest.fixture
def queue(table: Table, clock: FakeClock) -> TableQueue:
    """Give an empty queue in a table."""
    return TableQueue(table, clock, "q", most_attempts=MOST)


@pytest.fixture
def many(shared: Table, clock: FakeClock) -> TableQueue:
    """Give an empty queue that several may use at once."""
    return TableQueue(shared, clock, "q", apart=0)


async def receive(queue: Queue, most: int = 10, seconds: float = 10.0) -> list[Message]:
    """Receive messages and hold them for a while."""
    return await queue.receive(most=most, visible_seconds=seconds)


async def names(queue: Queue, most: int = 10) -> list[str]:
    """Receive messages and return their ids."""
    return [message.id for message in await receive(queue, most)]


async def one(queue: Queue) -> Message:
    """Receive the one message that is due."""
    [message] = await receive(queue)
    return message


class TestSend:
    """How messages get in, and in which order they come out."""

    async def test_what_was_sent_is_received(self, queue: TableQueue, clock: FakeClock) -> None:
        """With its id, its body as it was and its attempt counted from 1, held as long as was asked for."""
        body = {"run": "r1", "step": 7, "deep": {"text": "é\u2028", "none": None}}
        name = await queue.send(body, id="run r1/step:007")
        message = await one(queue)
        assert (name, message.id) == ("run r1/step:007", "run r1/step:007")
        assert (message.body, message.attempt, message.until) == (body, 1, clock() + 10)
        assert await receive(queue) == []

    async def test_ids_are_made_where_none_is_given(self, queue: TableQueue) -> None:
        """Every message has its own."""
        made = {await queue.send({}) for _ in range(5)}
        assert len(made) == 5
        assert set(await names(queue)) == made

    async def test_the_oldest_comes_first_and_never_more_than_wanted(
        self, queue: TableQueue, clock: FakeClock
    ) -> None:
        """In the order of sending, some at a time."""
        for name in ("b", "a", "c"):
            await queue.send({}, id=name)
            clock.forward(0.001)
        assert await names(queue, 2) == ["b", "a"]
        assert await names(queue, 2) == ["c"]

    async def test_a_delayed_message_is_not_early(self, queue: TableQueue, clock: FakeClock) -> None:
        """Not a millisecond before its time, and those after it are not held up by it."""
        await queue.send({}, delay=5.0005, id="later")
        await queue.send({}, id="now")
        assert await names(queue) == ["now"]
        clock.forward(5.0004)
        assert await names(queue) == []
        clock.forward(0.0007)
        assert await names(queue) == ["later"]

    async def test_with_a_transaction(self, queue: TableQueue, table: Table) -> None:
        """A message is there when the rows it is about are, and is not when they are not."""
        await table.transact([Put(("thing", "a"), {}), queue.write_of({"thing": "a"}, id="m1")])
        with pytest.raises(Stale):
            await table.transact([Put(("thing", "a"), {}, if_revision=7), queue.write_of({}, id="m2")])
        await queue.flush()
        assert [message.body for message in await receive(queue)] == [{"thing": "a"}]

    async def test_the_same_id_twice(self, queue: TableQueue) -> None:
        """One message or two, but no error: whoever works on it is ready for it to come twice."""
        await queue.send({}, id="a")
        await queue.send({}, id="a")
        assert set(await names(queue)) == {"a"}

    @pytest.mark.parametrize("size", [MAX_BODY - 8, MAX_BODY - 7])
    async def test_how_large_a_message_may_be(self, queue: TableQueue, size: int) -> None:
        """At the limit it is carried, over it refused before anything is written."""
        body = {"x": "y" * size}
        if size + len('{"x":""}') <= MAX_BODY:
            await queue.send(body)
            assert (await one(queue)).body == body
        else:
            with pytest.raises(TooLarge):
                await queue.send(body)
            with pytest.raises(TooLarge):
                queue.write_of(body)
            assert await receive(queue) == []

    async def test_how_long_an_id_may_be(self, queue: TableQueue) -> None:
        """One that no adapter could keep is refused."""
        await queue.send({}, id="i" * MAX_ID)
        with pytest.raises(ValueError, match="200 characters"):
            await queue.send({}, id="i" * (MAX_ID + 1))

    async def test_queues_are_separate(self, queue: TableQueue, table: Table, clock: FakeClock) -> None:
        """Another queue in the same table has its own messages."""
        other = TableQueue(table, clock, "other")
        await queue.send({}, id="a")
        assert await receive(other) == []
        assert await names(queue) == ["a"]


class TestHold:
    """What a holder can do with a message, and what happens when it does nothing."""

    async def test_done(self, queue: TableQueue, clock: FakeClock) -> None:
        """It never comes again; to say so twice changes nothing."""
        await queue.send({})
        message = await one(queue)
        assert await queue.done(message) is True
        assert await queue.done(message) is False
        clock.forward(1000)
        assert await receive(queue) == []

    async def test_retry(self, queue: TableQueue, clock: FakeClock) -> None:
        """It is due again after the delay and not before, with its attempt counted."""
        await queue.send({"a": 1}, id="m")
        await queue.retry(await one(queue), delay=30)
        clock.forward(29.9)
        assert await receive(queue) == []
        clock.forward(0.1)
        again = await one(queue)
        assert (again.id, again.body, again.attempt) == ("m", {"a": 1}, 2)

    async def test_retry_at_once(self, queue: TableQueue) -> None:
        """Without a delay it can be had again now."""
        await queue.send({})
        await queue.retry(await one(queue), delay=0)
        assert (await one(queue)).attempt == 2

    async def test_extend(self, queue: TableQueue, clock: FakeClock) -> None:
        """It is held on, from now; the receipt of before is void."""
        await queue.send({})
        first = await one(queue)
        clock.forward(9)
        second = await queue.extend(first, 10)
        assert (second.until, second.attempt) == (clock() + 10, 1)
        clock.forward(9.9)
        assert await receive(queue) == []
        assert await queue.done(first) is False
        assert await queue.done(second) is True

    async def test_what_is_not_done_comes_again(self, queue: TableQueue, clock: FakeClock) -> None:
        """When its hold, and by how much two clocks may differ, is over; its holder then is one too late."""
        await queue.send({})
        lost = await one(queue)
        clock.forward(10 + CLOCKS_APART - 0.1)
        assert await receive(queue) == []
        clock.forward(0.1)
        again = await one(queue)
        assert again.attempt == 2
        assert await queue.done(lost) is False
        with pytest.raises(Stale):
            await queue.extend(lost, 10)
        with pytest.raises(Stale):
            await queue.retry(lost, delay=0)
        with pytest.raises(Stale):
            await queue.dead(lost, "too late")
        assert await queue.dead_letters() == ([], None)
        assert await queue.done(again) is True

    async def test_late_but_nobody_else_came(self, queue: TableQueue, clock: FakeClock) -> None:
        """A hold that ran out is good for as long as nobody took the message."""
        await queue.send({})
        message = await one(queue)
        clock.forward(1000)
        assert await queue.done(await queue.extend(message, 10)) is True


class TestDead:
    """Messages that are given up."""

    async def test_given_out_too_often(self, queue: TableQueue, clock: FakeClock) -> None:
        """After the last attempt it is a dead letter by itself, and no longer in the way of others."""
        await queue.send({"a": 1}, id="poison")
        for attempt in range(1, MOST + 1):
            assert (await one(queue)).attempt == attempt
            clock.forward(10 + CLOCKS_APART)
        await queue.send({}, id="next")
        assert await names(queue) == ["next"]
        [letter], following = await queue.dead_letters()
        assert (letter.id, letter.body, letter.attempts) == ("poison", {"a": 1}, MOST)
        assert (letter.died_at, following) == (clock(), None)
        assert "3 times" in letter.reason

    async def test_put_there(self, queue: TableQueue) -> None:
        """A holder says why nobody should try any more."""
        await queue.send({}, id="m")
        await queue.dead(await one(queue), "nobody knows this kind")
        [letter], _ = await queue.dead_letters()
        assert (letter.id, letter.attempts, letter.reason) == ("m", 1, "nobody knows this kind")
        assert await receive(queue) == []

    async def test_sent_again(self, queue: TableQueue) -> None:
        """As if it were new: once, and its attempts start over."""
        await queue.send({"a": 1}, id="m")
        await queue.dead(await one(queue), "why")
        await queue.revive("m")
        with pytest.raises(NotFound):
            await queue.revive("m")
        again = await one(queue)
        assert (again.id, again.body, again.attempt) == ("m", {"a": 1}, 1)
        assert await queue.dead_letters() == ([], None)

    async def test_of_two_who_send_it_again_one_does(self, queue: TableQueue, table: Table) -> None:
        """The other one hears that it is no dead letter any more."""
        await queue.send({}, id="m")
        await queue.dead(await one(queue), "why")
        get = table.get

        async def slowly(key: Key) -> Item | None:
            item = await get(key)
            table.get = get  # type: ignore[method-assign]
            await queue.revive("m")
            return item

        table.get = slowly  # type: ignore[method-assign]
        with pytest.raises(NotFound, match="at this moment"):
            await queue.revive("m")
        assert await names(queue) == ["m"]

    async def test_listed_by_the_page(self, queue: TableQueue) -> None:
        """Each once, by id."""
        for number in range(5):
            await queue.send({}, id=f"m{number}")
            await queue.dead(await one(queue), "why")
        first, after = await queue.dead_letters(limit=3)
        rest, end = await queue.dead_letters(after=after, limit=3)
        assert [letter.id for letter in first + rest] == [f"m{number}" for number in range(5)]
        assert end is None

    async def test_not_kept_for_ever(self, queue: TableQueue, clock: FakeClock) -> None:
        """Two weeks are enough to notice."""
        await queue.send({}, id="m")
        await queue.dead(await one(queue), "why")
        clock.forward(DEAD_SECONDS)
        assert await queue.dead_letters() == ([], None)
        with pytest.raises(NotFound):
            await queue.revive("m")


class TestWait:
    """Who waits for messages."""

    async def test_a_send_wakes(self, queue: TableQueue) -> None:
        """Whoever waits in this process hears of a send at once, also of one just before."""
        waiting = asyncio.ensure_future(queue.wait(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        await queue.send({})
        await asyncio.wait_for(waiting, 1)
        await queue.send({})
        await asyncio.wait_for(queue.wait(60), 1)

    async def test_it_ends_without_news(self, queue: TableQueue) -> None:
        """Another process may have sent something, so nobody waits for ever."""
        await asyncio.wait_for(queue.wait(0.01), 5)


async def test_a_store_that_is_down(down: Table, clock: FakeClock) -> None:
    """Every verb says so."""
    queue = TableQueue(down, clock, "q")
    message = Message("m", {}, 1, "000000000000001-000001-m", clock() + 10)
    for verb in (
        queue.send({}),
        receive(queue),
        queue.extend(message, 1),
        queue.done(message),
        queue.retry(message, delay=1),
        queue.dead(message, "why"),
        queue.dead_letters(),
        queue.revive("m"),
    ):
        with pytest.raises(StoreUnavailable):
            await verb


class Failing:
    """A table of which one kind of call fails from some count on."""

    kind = "sqlite"

    def __init__(self, inner: Table, fails_after: int) -> None:
        self._inner = inner
        self._left = fails_after
        self.range = inner.range

    async def transact(self, writes: list[object]) -> list[int]:
        self._left -= 1
        if self._left < 0:
            raise StoreUnavailable("gone")
        return await self._inner.transact(writes)  # type: ignore[arg-type]


async def test_a_store_that_goes_while_messages_are_received(table: Table, clock: FakeClock) -> None:
    """What is held already is handed out all the same."""
    queue = TableQueue(table, clock, "q")
    for _ in range(3):
        await queue.send({})
    failing = TableQueue(Failing(table, 2), clock, "q")  # type: ignore[arg-type]
    assert len(await receive(failing)) == 2
    assert len(await receive(queue)) == 1


# Several at once


COUNTS = {"sqlite": 500, "dynamodb": 100}
"""Messages by adapter: MiniStack takes some milliseconds for each write."""


async def test_four_workers_do_each_message_once(shared: Table, many: TableQueue) -> None:
    """When nobody dies, no message is given to two, and all of them are done."""
    count = COUNTS[shared.kind]
    for number in range(count):
        await many.send({"number": number})
    done: Counter[int] = Counter()

    async def work() -> None:
        while messages := await receive(many, 7):
            for message in messages:
                done[message.body["number"]] += 1
                assert await many.done(message) is True

    await asyncio.gather(*(work() for _ in range(4)))
    assert done == Counter(range(count))
    assert await many.dead_letters() == ([], None)


@dataclass
class Simulation:
    """Workers whose clocks differ, on one true time; some die with what they hold."""

    table: Table
    clock: FakeClock
    dice: random.Random
    holds: dict[str, tuple[str, Callable[[], bool]]] = field(default_factory=dict)
    """By message: who got it last, and whether that one may still believe to hold it."""
    done: Counter[str] = field(default_factory=Counter)
    died: int = 0

    async def worker(self, name: str, skew: float, count: int) -> None:
        """Receive, work and be done, or die and come back as another one, until all is done."""
        queue = TableQueue(self.table, lambda: self.clock() + skew, "q", most_attempts=1000)
        while len(self.done) < count:
            messages = await receive(queue, self.dice.randint(1, 5), 10)
            for message in messages:
                if not self._before(skew, message.until):
                    continue  # so much time went by while it was received that it is not ours any more
                holder, believes = self.holds.get(message.id, ("", lambda: False))
                assert not believes(), f"{message.id} is held by {holder} and by {name}"
                self.holds[message.id] = name, partial(self._before, skew, message.until)
            for message in messages:
                self.clock.forward(self.dice.uniform(0, 2))
                await self._work(queue, name, skew, message)
            self.clock.forward(self.dice.uniform(0, 4))

    def _before(self, skew: float, until: float) -> bool:
        return self.clock() + skew < until

    async def _work(self, queue: TableQueue, name: str, skew: float, message: Message) -> None:
        fate = self.dice.randrange(6)
        if fate < 2:
            self.died += 1  # it does nothing any more, though it believes that it holds the message
            return
        if fate == 2:
            try:
                message = await queue.extend(message, 10)
            except Stale:
                return
            self.holds[message.id] = name, partial(self._before, skew, message.until)
            self.clock.forward(self.dice.uniform(0, 15))
        if await queue.done(message):
            self.done[message.id] += 1
            self.holds.pop(message.id, None)


@pytest.mark.parametrize("seed", range(4))
async def test_workers_that_die_and_whose_clocks_differ(shared: Table, clock: FakeClock, seed: int) -> None:
    """With clocks 30 seconds apart nothing is lost, nothing is held by two, and what is done is done once."""
    count = COUNTS[shared.kind] // 3
    dice = random.Random(seed)
    queue = TableQueue(shared, clock, "q")
    for number in range(count):
        await queue.send({}, id=f"m{number}")
    simulation = Simulation(shared, clock, dice)
    skews = (-CLOCKS_APART / 2, 0.0, 7.0, CLOCKS_APART / 2)
    await asyncio.gather(*(simulation.worker(f"w{number}", skew, count) for number, skew in enumerate(skews)))
    assert simulation.done == Counter(f"m{number}" for number in range(count))
    assert simulation.died > 0
    assert await receive(queue) == []


async def test_receiving_costs_what_is_received(tmp_path: Path, clock: FakeClock) -> None:
    """However many messages wait for their time or are held, only those at the front are read."""
    table = Counting(tmp_path / "table.db", clock)
    queue = TableQueue(table, clock, "q")
    for number in range(300):
        await queue.send({}, delay=100, id=f"later {number}")
    await queue.send({}, id="now")
    assert await names(queue, 1) == ["now"]
    assert 0 < table.read < 20
    await table.close()


class Counting(SqliteTable):
    """A table that counts the items it reads in ranges."""

    read = 0

    async def range(self, *arguments: Any, **named: Any) -> Page:
        page = await super().range(*arguments, **named)
        self.read += len(page.items)
        return page
