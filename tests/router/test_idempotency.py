"""Idempotency keys: one effect whatever happens, on every store."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import tests.contract.conftest as contract
from infra.table import Item, Table
from infra.table.sqlite import SqliteTable
from router.errors import AutopilotError, Conflict, Invalid, NoAutopilot, StoreUnavailable
from router.idempotency import GRACE_SECONDS, KEEP_SECONDS, Answer, Effect, Idempotency
from tests.fakes import START, FakeClock
from tests.router.faults import Failing, fail
from tests.router.parts import dump

# The stores of the contract suites, and the clock they need.
credentials = contract.credentials
ministack = contract.ministack
moto_client = contract.moto_client
table = contract.table
shared = contract.shared
clock = contract.clock

SECONDS = 30.0
DEAD = SECONDS + GRACE_SECONDS
"""When a call that was never heard of again is taken to have died."""
BODY = {"task": "generate_page", "meta": {"a": 1, "b": [1, 2]}}


class Autopilot:
    """Something with an effect that can be counted."""

    def __init__(self) -> None:
        self.effects = 0

    async def work(self) -> Effect:
        """Do it."""
        self.effects += 1
        await asyncio.sleep(0)
        return Effect(Answer(200, b'{"n":%d}' % self.effects, (("etag", '"1"'),)), done=True)


@pytest.fixture
def autopilot() -> Autopilot:
    """Give an autopilot nobody has called."""
    return Autopilot()


@pytest.fixture
async def sqlite(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteTable]:
    """Give a table for tests about what the store is not."""
    opened = SqliteTable(tmp_path / "own.db", clock)
    yield opened
    await opened.close()


async def run(
    once: Idempotency,
    work: Callable[[], Awaitable[Effect]],
    *,
    route: str = "plan",
    caller: str = "ann",
    key: str = "k",
    body: Any = BODY,
) -> Answer:
    """Make a call."""
    return await once.run(route=route, caller=caller, key=key, body=body, seconds=SECONDS, work=work)


async def kept(table: Table) -> Item | None:
    """Return the one record of the route."""
    items = (await table.range("idempotency:plan")).items
    assert len(items) < 2
    return items[0] if items else None


class TestEdgeCases:
    """The list of reliability.md section 1.3, on SQLite, moto and MiniStack."""

    async def test_first_call_and_replay(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """The first call runs; a repeat gets its status, headers and bytes, and says that it is one."""
        once = Idempotency(table, clock)
        first = await run(once, autopilot.work)
        assert first == Answer(200, b'{"n":1}', (("etag", '"1"'),), replayed=False)
        clock.forward(KEEP_SECONDS - 1)
        for _ in range(2):
            assert await run(Idempotency(table, clock), autopilot.work) == first._replace(replayed=True)
        assert autopilot.effects == 1

    async def test_failure_is_replayed(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """A failure that may have had an effect is an answer like another."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            autopilot.effects += 1
            return Effect(Answer(502, b"{}"), done=True)

        assert await run(once, work) == Answer(502, b"{}")
        assert await run(once, work) == Answer(502, b"{}", replayed=True)
        assert autopilot.effects == 1

    async def test_other_body(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """The same key with another body is refused, while the first runs, when it has died and after."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            with pytest.raises(Invalid, match="Idempotency-Key: was used with another body"):
                await run(once, autopilot.work, body={"other": True})
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await run(once, work)
        clock.forward(DEAD)
        with pytest.raises(Invalid):
            await run(once, autopilot.work, body={"other": True})
        await run(once, autopilot.work)
        with pytest.raises(Invalid):
            await run(once, autopilot.work, body={"other": True})
        assert autopilot.effects == 1

    async def test_equal_json(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """Equal JSON with its members in another order is the same call; the order of a list is not."""
        once = Idempotency(table, clock)
        await run(once, autopilot.work)
        same = {"meta": {"b": [1, 2], "a": 1}, "task": "generate_page"}
        assert (await run(once, autopilot.work, body=same)).replayed
        with pytest.raises(Invalid):
            await run(once, autopilot.work, body={**BODY, "meta": {"a": 1, "b": [2, 1]}})

    async def test_apart(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """Another route, another caller and another key each have an effect and an answer of their own."""
        once = Idempotency(table, clock)
        calls: list[dict[str, Any]] = [
            {},
            {"route": "registry"},
            {"caller": "bob"},
            {"key": "k2"},
            {"caller": "ann\nk", "key": "2"},
            {"caller": "ann", "key": "k\n2"},
        ]
        answers = [(await run(once, autopilot.work, **call)).body for call in calls]
        assert len(set(answers)) == autopilot.effects == len(calls)
        assert [(await run(once, autopilot.work, **call)).body for call in calls] == answers

    async def test_running(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """While the first call runs a second is refused, in this process and in another."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            for other in (once, Idempotency(table, clock)):
                with pytest.raises(Conflict, match="still running"):
                    await run(other, autopilot.work)
            return await autopilot.work()

        await run(once, work)
        assert autopilot.effects == 1

    async def test_refused_first(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """A call that did nothing leaves its key free, even for another body."""
        once = Idempotency(table, clock)

        async def raises() -> Effect:
            raise NoAutopilot

        async def nothing() -> Effect:
            return Effect(Answer(422, b"{}"), done=False)

        with pytest.raises(NoAutopilot):
            await run(once, raises)
        assert await run(once, nothing, body=1) == Answer(422, b"{}")
        assert await kept(table) is None
        assert not (await run(once, autopilot.work, body=2)).replayed

    async def test_crash(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """After an exception nobody foresaw the key is taken until the call would have ended."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            await autopilot.work()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await run(once, work)
        clock.forward(DEAD - 0.01)
        with pytest.raises(Conflict):
            await run(once, autopilot.work)
        clock.forward(0.01)
        assert (await run(once, autopilot.work)).body == b'{"n":2}'

    async def test_expired_undeleted(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """A record past its day counts as absent, though no store has deleted it: any body is new."""
        once = Idempotency(table, clock)
        await run(once, autopilot.work)
        clock.forward(KEEP_SECONDS)
        assert (await run(once, autopilot.work, body="new")) == Answer(
            200, b'{"n":2}', (("etag", '"1"'),), replayed=False
        )
        assert (await run(once, autopilot.work, body="new")).body == b'{"n":2}'
        assert autopilot.effects == 2

    async def test_expires_during_the_run(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """A call that outlives its own record is answered; meanwhile this process knows that it runs."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            clock.forward(KEEP_SECONDS + 1)
            with pytest.raises(Conflict, match="still running"):
                await run(once, autopilot.work)
            return await autopilot.work()

        assert (await run(once, work)).body == b'{"n":1}'
        assert (await run(once, autopilot.work)).body == b'{"n":2}'

    async def test_too_large(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """An answer too large to keep reaches its caller; a repeat is told its status and has no effect."""
        once = Idempotency(table, clock)
        noise = os.urandom(400_000)

        async def work() -> Effect:
            autopilot.effects += 1
            return Effect(Answer(201, noise), done=True)

        assert (await run(once, work)).body == noise
        with pytest.raises(Conflict, match="was answered 201, with more than can be kept"):
            await run(once, work)
        assert autopilot.effects == 1

    async def test_headers_too_large(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """Headers count towards what can be kept as the body does."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            autopilot.effects += 1
            return Effect(Answer(200, b"{}", (("x", "y" * 349_900),)), done=True)

        assert (await run(once, work)).status == 200
        with pytest.raises(Conflict):
            await run(once, work)
        assert autopilot.effects == 1

    async def test_large(self, table: Table, clock: FakeClock) -> None:
        """Five megabytes of text are kept and replayed byte for byte."""
        once = Idempotency(table, clock)
        text = b'{"title":"caf\xc3\xa9"}' * 300_000

        async def work() -> Effect:
            return Effect(Answer(200, text), done=True)

        await run(once, work)
        assert await run(once, work) == Answer(200, text, replayed=True)

    @pytest.mark.parametrize(
        "change",
        [
            {"body": None},
            {"status": "200"},
            {"headers": {"a": 1}},
            {"headers": [["a"]]},
            {"answer": "not base64!"},
            {"answer": "AAAA"},
            {"until": "soon"},
        ],
    )
    async def test_corrupted(
        self, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot, change: dict[str, Any]
    ) -> None:
        """A record that cannot be read is a conflict: something was done, and is not done again."""
        once = Idempotency(sqlite, clock)
        await run(once, autopilot.work)
        item = await kept(sqlite)
        assert item is not None
        await sqlite.put(item.key, {**item.document, **change})
        with pytest.raises(Conflict, match="cannot be read"):
            await run(once, autopilot.work)
        assert autopilot.effects == 1

    async def test_changed_since(self, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot) -> None:
        """Nothing is answered from memory: a record that is gone is gone for the process that wrote it."""
        once = Idempotency(sqlite, clock)
        await run(once, autopilot.work)
        item = await kept(sqlite)
        assert item is not None
        await sqlite.delete(item.key)
        assert not (await run(once, autopilot.work)).replayed

    async def test_at_rest(self, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot) -> None:
        """The store holds neither the key nor the body of a call, only their hashes."""
        await run(Idempotency(sqlite, clock), autopilot.work, caller="ann", key="order-7", body="my body")
        item = await kept(sqlite)
        assert item is not None
        assert not any(word in str(item) for word in ("ann", "order-7", "my body"))


class TestParallel:
    """Many calls with one key at the same moment (C2)."""

    async def test_one_effect(self, shared: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """Of fifty calls from two processes one has an effect, round after round."""
        processes = [Idempotency(shared, clock), Idempotency(shared, clock)]
        for turn in range(5):
            results = await asyncio.gather(
                *(run(processes[n % 2], autopilot.work, key=f"k{turn}") for n in range(50)),
                return_exceptions=True,
            )
            answers = [result for result in results if isinstance(result, Answer)]
            assert all(isinstance(result, Answer | Conflict) for result in results), results
            assert [answer.replayed for answer in answers].count(False) == 1
            assert {answer.body for answer in answers} == {b'{"n":%d}' % (turn + 1)}
            assert autopilot.effects == turn + 1

    async def test_many_rounds(self, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot) -> None:
        """A hundred rounds of fifty make a hundred effects."""
        processes = [Idempotency(sqlite, clock) for _ in range(5)]
        for turn in range(100):
            await asyncio.gather(
                *(run(processes[n % 5], autopilot.work, key=f"k{turn}") for n in range(50)),
                return_exceptions=True,
            )
        assert autopilot.effects == 100

    async def test_one_rerun(self, shared: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """When the first call has died, one of many repeats takes its place."""

        async def dies() -> Effect:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await run(Idempotency(shared, clock), dies)
        clock.forward(DEAD)
        processes = [Idempotency(shared, clock) for _ in range(10)]
        results = await asyncio.gather(
            *(run(process, autopilot.work) for process in processes for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, Answer | Conflict) for result in results), results
        assert autopilot.effects == 1


KILLED = """
import asyncio, sys
from infra.table.sqlite import SqliteTable
from router.idempotency import Idempotency
from tests.router.test_idempotency import BODY, SECONDS, run
from tests.fakes import FakeClock

async def work():
    print("locked", flush=True)
    await asyncio.sleep(60)

clock = FakeClock(float(sys.argv[2]))
asyncio.run(run(Idempotency(SqliteTable(sys.argv[1], clock), clock), work))
"""


class TestKilled:
    """A process that ends between lock and completion (C3)."""

    async def test_kill(self, tmp_path: Path, autopilot: Autopilot) -> None:
        """After SIGKILL the call is run again once: not before its own deadline, and not a day after."""
        file = tmp_path / "killed.db"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED, str(file), str(START)),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"locked\n"
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        process._transport.close()  # type: ignore[attr-defined]
        clock = FakeClock()
        reopened = SqliteTable(file, clock)
        once = Idempotency(reopened, clock)
        clock.forward(DEAD - 0.01)
        with pytest.raises(Conflict):
            await run(once, autopilot.work)
        clock.forward(0.01)
        assert not (await run(once, autopilot.work)).replayed
        assert (await run(once, autopilot.work)).replayed
        assert autopilot.effects == 1
        await reopened.close()

    async def test_late_predecessor(self, table: Table, clock: FakeClock, autopilot: Autopilot) -> None:
        """A call that was given up but goes on gets its own answer, and leaves its successor's alone."""
        once = Idempotency(table, clock)

        async def work() -> Effect:
            clock.forward(DEAD)
            await run(Idempotency(table, clock), autopilot.work)
            return Effect(Answer(200, b"late"), done=True)

        assert (await run(once, work)).body == b"late"
        assert (await run(once, autopilot.work)).body == b'{"n":1}'

    @pytest.mark.parametrize("jump", [-300.0, 300.0])
    async def test_clock_set(
        self, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot, jump: float
    ) -> None:
        """Setting the clock while a call runs makes no second effect in its process (J5)."""
        once = Idempotency(sqlite, clock)

        async def work() -> Effect:
            clock.forward(jump)
            with pytest.raises(Conflict):
                await run(once, autopilot.work)
            return await autopilot.work()

        await run(once, work)
        assert (await run(once, autopilot.work)).replayed
        assert autopilot.effects == 1

    @pytest.mark.parametrize("apart", [-GRACE_SECONDS, -1.0, 1.0, GRACE_SECONDS - 0.01])
    async def test_clocks_apart(
        self, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot, apart: float
    ) -> None:
        """Another process whose clock is a little off takes over no call that is within its time."""
        other = Idempotency(sqlite, lambda: clock() + apart)

        async def work() -> Effect:
            clock.forward(SECONDS)
            with pytest.raises(Conflict):
                await run(other, autopilot.work)
            return await autopilot.work()

        await run(Idempotency(sqlite, clock), work)
        assert autopilot.effects == 1


class TestStoreFails:
    """Each call to the store fails once, before it was done or with its answer lost."""

    @pytest.fixture
    def store(self, sqlite: SqliteTable) -> Failing:
        """Give a store that can fail."""
        return Failing(sqlite)

    @pytest.mark.parametrize("lost", [False, True])
    async def test_on_read(self, store: Failing, clock: FakeClock, autopilot: Autopilot, lost: bool) -> None:
        """Nothing is done when the record cannot be read, and the repeat is the first call."""
        once = Idempotency(store, clock)
        store.at("get", before=None if lost else fail, after=fail if lost else None)
        with pytest.raises(StoreUnavailable):
            await run(once, autopilot.work)
        assert autopilot.effects == 0
        assert not (await run(once, autopilot.work)).replayed

    async def test_on_lock(self, store: Failing, clock: FakeClock, autopilot: Autopilot) -> None:
        """Nothing is done when the key cannot be taken, and the repeat is the first call."""
        once = Idempotency(store, clock)
        store.at("put", before=fail)
        with pytest.raises(StoreUnavailable):
            await run(once, autopilot.work)
        assert autopilot.effects == 0
        assert not (await run(once, autopilot.work)).replayed

    async def test_on_lock_with_answer_lost(
        self, store: Failing, clock: FakeClock, autopilot: Autopilot
    ) -> None:
        """A key taken by nobody who knows it is free again when the call would have ended."""
        once = Idempotency(store, clock)
        store.at("put", after=fail)
        with pytest.raises(StoreUnavailable):
            await run(once, autopilot.work)
        with pytest.raises(Conflict):
            await run(once, autopilot.work)
        clock.forward(DEAD)
        await run(once, autopilot.work)
        assert autopilot.effects == 1

    async def test_on_completion(self, store: Failing, clock: FakeClock, autopilot: Autopilot) -> None:
        """The caller gets its answer all the same; a repeat is refused until the call would have ended."""
        once = Idempotency(store, clock)
        store.at("put", 2, before=fail)
        assert (await run(once, autopilot.work)).body == b'{"n":1}'
        with pytest.raises(Conflict):
            await run(once, autopilot.work)
        assert autopilot.effects == 1
        clock.forward(DEAD)
        assert not (await run(once, autopilot.work)).replayed

    async def test_on_completion_with_answer_lost(
        self, store: Failing, clock: FakeClock, autopilot: Autopilot
    ) -> None:
        """An answer that was kept though nobody heard is replayed."""
        once = Idempotency(store, clock)
        store.at("put", 2, after=fail)
        assert (await run(once, autopilot.work)).body == b'{"n":1}'
        assert (await run(once, autopilot.work)).replayed
        assert autopilot.effects == 1

    @pytest.mark.parametrize("lost", [False, True])
    @pytest.mark.parametrize("raises", [False, True])
    async def test_on_delete(
        self, store: Failing, clock: FakeClock, autopilot: Autopilot, lost: bool, raises: bool
    ) -> None:
        """A call that did nothing is answered as it was, and its key is free in the end."""
        once = Idempotency(store, clock)

        async def work() -> Effect:
            if raises:
                raise NoAutopilot
            return Effect(Answer(422, b""), done=False)

        store.at("delete", before=None if lost else fail, after=fail if lost else None)
        try:
            assert (await run(once, work)).status == 422
        except AutopilotError as error:
            assert isinstance(error, NoAutopilot)  # noqa: PT017  whether it raises is a parameter
        if not lost:
            with pytest.raises(Conflict):
                await run(once, autopilot.work)
            clock.forward(DEAD)
        assert not (await run(once, autopilot.work)).replayed
        assert autopilot.effects == 1

    async def test_taken_between_read_and_write(
        self, store: Failing, sqlite: SqliteTable, clock: FakeClock, autopilot: Autopilot
    ) -> None:
        """Who finds the key taken just before it takes it looks again, and gets the answer of the other."""
        store.at("put", before=lambda: run(Idempotency(sqlite, clock), autopilot.work))
        assert (await run(Idempotency(store, clock), autopilot.work)).replayed
        assert autopilot.effects == 1


async def test_expired_row_is_there(tmp_path: Path, autopilot: Autopilot) -> None:
    """The expired record of the test above is really in the file, and its place is taken over (C4)."""
    clock = FakeClock()
    table = SqliteTable(tmp_path / "expired.db", clock)
    once = Idempotency(table, clock)
    await run(once, autopilot.work)
    clock.forward(KEEP_SECONDS)
    assert await kept(table) is None
    assert len(dump(tmp_path / "expired.db")) == 1
    assert not (await run(once, autopilot.work)).replayed
    assert len(dump(tmp_path / "expired.db")) == 1
    await table.close()
