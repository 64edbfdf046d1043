"""Rate limits: in a window exactly the quota passes, in one process and in several, and headers say so."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import router.limits as module
import tests.contract.conftest as contract
from infra.table import Table
from infra.table.sqlite import SqliteTable
from router.errors import Overloaded, RateLimited, StoreUnavailable
from router.limits import (
    CLOCKS_APART,
    Bucket,
    Concurrency,
    Limiter,
    MemoryLimiter,
    Policy,
    Standing,
    TableLimiter,
    take,
)
from tests.fakes import FakeClock
from tests.router.faults import Failing, fail
from tests.router.parts import dump

# The stores of the contract suites that several processes can share, and the clock they need.
credentials = contract.credentials
ministack = contract.ministack
shared = contract.shared
clock = contract.clock

MINUTE = Policy(60, 60)


@pytest.fixture
async def sqlite(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteTable]:
    """Give a table in a file."""
    opened = SqliteTable(tmp_path / "limits.db", clock)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "table"])
def limiter(request: pytest.FixtureRequest, clock: FakeClock) -> Limiter:
    """Give each limiter with 60 calls a minute."""
    if request.param == "memory":
        return MemoryLimiter(MINUTE, clock)
    return TableLimiter(MINUTE, request.getfixturevalue("sqlite"), clock)


async def passes(limiter: Limiter, caller: str = "ann") -> bool:
    """Make a call and return whether it was let through."""
    try:
        await limiter.take(caller)
    except RateLimited:
        return False
    return True


class TestQuota:
    """How many calls pass."""

    async def test_at_ten_times_the_limit(self, limiter: Limiter, clock: FakeClock) -> None:
        """Ten times as many calls as allowed, spread over three windows: in each the quota passes (F11)."""
        for _ in range(3):
            accepted = 0
            for _ in range(600):
                accepted += await passes(limiter)
                clock.forward(0.1)
            assert abs(accepted - 60) <= 1

    async def test_at_once(self, limiter: Limiter) -> None:
        """Of ten times the quota at one moment the quota passes."""
        assert sum([await passes(limiter) for _ in range(600)]) == 60

    async def test_below_the_limit(self, limiter: Limiter, clock: FakeClock) -> None:
        """Who calls no faster than allowed is never refused."""
        for _ in range(200):
            assert await passes(limiter)
            clock.forward(1.0)

    async def test_callers_apart(self, limiter: Limiter) -> None:
        """One caller's calls take nothing from another's."""
        for _ in range(60):
            await limiter.take("ann")
        assert not await passes(limiter, "ann")
        assert (await limiter.take("bob")).left == 59

    async def test_refusals_cost_nothing(self, limiter: Limiter, clock: FakeClock) -> None:
        """Asking on while refused does not put off the moment when calls pass again."""
        for _ in range(60):
            await limiter.take("ann")
        for _ in range(59):
            clock.forward(1)
            assert not await passes(limiter)
        clock.forward(1)
        assert await passes(limiter)


class TestNumbers:
    """What callers are told."""

    async def test_standing(self, limiter: Limiter, clock: FakeClock) -> None:
        """Each call says what is left and when it will be whole again, rounded up."""
        assert await limiter.take("ann") == Standing(left=59, reset=60)
        clock.forward(0.5)
        assert await limiter.take("ann") == Standing(left=58, reset=60)
        clock.forward(40.5)
        assert await limiter.take("ann") == Standing(left=57, reset=19)
        clock.forward(19)
        assert await limiter.take("ann") == Standing(left=59, reset=60)

    async def test_retry_after(self, limiter: Limiter, clock: FakeClock) -> None:
        """A refusal names the whole seconds after which a call passes, and no fewer would do."""
        for _ in range(60):
            await limiter.take("ann")
        clock.forward(12.25)
        with pytest.raises(RateLimited, match="60 calls every 60 s are allowed; wait 48 s") as caught:
            await limiter.take("ann")
        assert caught.value.extra == {"retry_after": 48}
        clock.forward(47)
        assert not await passes(limiter)
        clock.forward(1)
        assert await passes(limiter)

    @given(
        st.integers(1, 50), st.integers(1, 3600), st.floats(0, 4e9), st.lists(st.floats(0, 100), max_size=80)
    )
    def test_always_true(self, quota: int, window: int, start: float, pauses: list[float]) -> None:
        """In any rhythm at most the quota passes per window, and waiting as told always suffices."""
        policy = Policy(quota, window)
        now, bucket, taken = start, None, list[float]()
        for pause in pauses:
            now += pause
            bucket, wait = take(bucket, policy, now)
            assert 0 <= bucket.left < quota or not wait
            if wait:
                assert 0 < wait <= window
                assert take(bucket, policy, now + math.ceil(wait))[1] == 0
            else:
                taken.append(now)
        # Two windows lie side by side at worst, so any stretch of one window's length touches two.
        for at in taken:
            assert sum(at <= other < at + window for other in taken) <= 2 * quota


class TestClock:
    """Clocks that are wrong."""

    @pytest.mark.parametrize("seconds", [-1.0, -300.0, -CLOCKS_APART])
    async def test_backwards(self, sqlite: SqliteTable, clock: FakeClock, seconds: float) -> None:
        """A clock set back gives nobody more than the quota, and calls pass again when it has caught up."""
        limiter = TableLimiter(MINUTE, sqlite, clock)
        for _ in range(30):
            await limiter.take("ann")
        clock.forward(seconds)
        assert sum([await passes(limiter) for _ in range(600)]) == 30
        with pytest.raises(RateLimited) as caught:
            await limiter.take("ann")
        assert caught.value.extra["retry_after"] == 60 - seconds
        clock.forward(60 - seconds)
        assert await passes(limiter)

    async def test_far_backwards(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """A bucket from a clock that was wrong by more than clocks differ locks nobody out."""
        limiter = TableLimiter(MINUTE, sqlite, clock)
        for _ in range(60):
            await limiter.take("ann")
        clock.forward(-CLOCKS_APART - 0.1)
        assert await limiter.take("ann") == Standing(left=59, reset=60)

    async def test_far_forwards(self, limiter: Limiter, clock: FakeClock) -> None:
        """After a long time a bucket is full, not more than full."""
        for _ in range(60):
            await limiter.take("ann")
        clock.forward(1e8)
        assert sum([await passes(limiter) for _ in range(600)]) == 60

    async def test_clocks_apart(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """Two processes with clocks five minutes apart, taking turns, let through one quota a window."""
        early = TableLimiter(MINUTE, sqlite, clock)
        late = TableLimiter(MINUTE, sqlite, lambda: clock() + 300)
        assert await passes(early)
        accepted = 0
        for _ in range(1200):
            accepted += await passes(late)
            accepted += await passes(early)
            clock.forward(0.1)
        assert accepted == 120


class TestMemory:
    """Buckets of one process."""

    async def test_bounded(self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """The number of callers remembered has a bound; whoever was heard of least lately goes."""
        monkeypatch.setattr(module, "MAX_CALLERS", 3)
        limiter = MemoryLimiter(Policy(1, 60), clock)
        for caller in ("ann", "bob", "cat"):
            await limiter.take(caller)
        assert not await passes(limiter, "ann")
        await limiter.take("dan")
        assert len(limiter._buckets) == 3
        assert not await passes(limiter, "ann")
        assert await passes(limiter, "bob")

    async def test_default_bound(self, clock: FakeClock) -> None:
        """Twenty thousand callers leave ten thousand buckets."""
        limiter = MemoryLimiter(MINUTE, clock)
        for number in range(20_000):
            await limiter.take(str(number))
        assert len(limiter._buckets) == 10_000


class TestShared:
    """Buckets in a table."""

    async def test_eight_at_once(self, shared: Table, clock: FakeClock) -> None:
        """Eight processes that ask at once let exactly the quota through together."""
        limiters = [TableLimiter(Policy(10, 60), shared, clock) for _ in range(8)]

        async def worker(limiter: TableLimiter) -> int:
            return sum([await passes(limiter) for _ in range(4)])

        assert sum(await asyncio.gather(*map(worker, limiters))) == 10

    async def test_survives_the_process(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """A process that starts finds what was counted before."""
        await TableLimiter(MINUTE, sqlite, clock).take("ann")
        assert (await TableLimiter(MINUTE, sqlite, clock).take("ann")).left == 58

    async def test_lower_quota(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """A quota that was lowered holds at once, for buckets that were begun under the old one too."""
        await TableLimiter(Policy(100, 60), sqlite, clock).take("ann")
        assert (await TableLimiter(Policy(10, 60), sqlite, clock).take("ann")).left == 9

    async def test_forgotten(self, sqlite: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
        """A bucket expires when it would be full again, so callers who left cost nothing for long."""
        await TableLimiter(MINUTE, sqlite, clock).take("ann")
        [key] = dump(tmp_path / "limits.db")
        assert (await sqlite.get(key)) is not None
        clock.forward(60)
        assert (await sqlite.get(key)) is None

    async def test_refusal_writes_nothing(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """A caller over its limit costs the store a read and no write."""
        store = Failing(sqlite)
        limiter = TableLimiter(Policy(1, 60), store, clock)
        await limiter.take("ann")
        store.calls.clear()
        assert not await passes(limiter)
        assert store.calls == ["get"]

    @pytest.mark.parametrize("verb", ["get", "put"])
    async def test_store_down(self, sqlite: SqliteTable, clock: FakeClock, verb: str) -> None:
        """A call that cannot be counted is not let through, and nothing is counted twice after."""
        store = Failing(sqlite)
        limiter = TableLimiter(MINUTE, store, clock)
        store.at(verb, before=fail)
        with pytest.raises(StoreUnavailable):
            await limiter.take("ann")
        assert (await limiter.take("ann")).left == 59


class TestConcurrency:
    """How many calls run at once."""

    def test_cap(self) -> None:
        """The call after the last free slot is refused at once, and a slot given back is free again."""
        cap = Concurrency(2)
        with cap, cap:
            with pytest.raises(Overloaded, match="2 calls are running already") as caught, cap:
                pytest.fail("there was no slot")
            assert caught.value.extra == {"retry_after": 1}
            assert cap.running == 2
        with cap:
            assert cap.running == 1
        assert cap.running == 0

    def test_given_back_after_failure(self) -> None:
        """A call that fails gives its slot back."""
        cap = Concurrency(1)
        with pytest.raises(ZeroDivisionError), cap:
            raise ZeroDivisionError
        assert cap.running == 0


def test_first_call() -> None:
    """A bucket nobody has taken from is full, and a quota of none lets nobody through."""
    assert take(None, Policy(5, 10), 100.0) == (Bucket(4, 110.0), 0.0)
    assert take(None, Policy(0, 10), 100.0) == (Bucket(0, 110.0), 10.0)
