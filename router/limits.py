"""How much may be asked: a token bucket per caller, and a cap on what runs at once.

A bucket starts full at a caller's first call and is filled again when its window ends, all at once: so in
each window exactly the quota passes, whatever the rhythm, and what `RateLimit` says is how it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from infra.clock import Clock
from infra.table import Table
from router.errors import Overloaded, RateLimited, Stale

MAX_CALLERS = 10_000
CLOCKS_APART = 600.0
"""Seconds by which the clocks of two processes may differ: a bucket further ahead is from a wrong one."""


class Policy(NamedTuple):
    """`quota` calls every `window` seconds, in any rhythm."""

    quota: int
    window: int


class Standing(NamedTuple):
    """What a caller has left: calls, and the seconds until the quota is whole again."""

    left: int
    reset: int


class Bucket(NamedTuple):
    """Calls left until a moment (epoch or monotonic seconds, whatever its keeper uses), then it is full."""

    left: int
    ends: float


def take(bucket: Bucket | None, policy: Policy, now: float) -> tuple[Bucket, float]:
    """Take one call out of a bucket. Return it as it is then, and the seconds to wait, 0 if it was taken."""
    latest = now + policy.window + CLOCKS_APART
    if bucket is None or not now < bucket.ends <= latest:
        bucket = Bucket(policy.quota, now + policy.window)
    left = min(bucket.left, policy.quota)
    if left < 1:
        return bucket, bucket.ends - now
    return Bucket(left - 1, bucket.ends), 0.0


class Limiter(Protocol):
    """Counts a caller's calls."""

    policy: Policy

    async def take(self, caller: str) -> Standing:
        """Count one call. Raises `RateLimited` with `retry_after` in whole seconds."""
        ...


class MemoryLimiter:
    """Buckets of one process. The callers heard of least lately are forgotten first."""

    def __init__(self, policy: Policy, monotonic: Clock) -> None:
        self.policy = policy
        self._monotonic = monotonic
        self._buckets: dict[str, Bucket] = {}

    async def take(self, caller: str) -> Standing:
        """See `Limiter.take`."""
        now = self._monotonic()
        bucket, wait = take(self._buckets.pop(caller, None), self.policy, now)
        self._buckets[caller] = bucket  # as the one heard of last
        if len(self._buckets) > MAX_CALLERS:
            del self._buckets[next(iter(self._buckets))]
        return _judge(bucket, wait, self.policy, now)


class TableLimiter:
    """Buckets that several processes share: ("limit:CALLER", "bucket") {"left", "ends"}."""

    def __init__(self, policy: Policy, table: Table, clock: Clock) -> None:
        self.policy = policy
        self._table = table
        self._clock = clock

    async def take(self, caller: str) -> Standing:
        """See `Limiter.take`. Costs a read and a write. Raises `StoreUnavailable`."""
        key = (f"limit:{caller}", "bucket")
        while True:
            item = await self._table.get(key)
            now = self._clock()
            was = Bucket(item.document["left"], item.document["ends"]) if item else None
            bucket, wait = take(was, self.policy, now)
            if not wait:
                revision = item.revision if item else 0
                try:
                    await self._table.put(key, bucket._asdict(), if_revision=revision, expires_at=bucket.ends)
                except Stale:
                    continue  # another call was counted at the same moment
            return _judge(bucket, wait, self.policy, now)


def _judge(bucket: Bucket, wait: float, policy: Policy, now: float) -> Standing:
    if wait:
        seconds = math.ceil(wait)
        raise RateLimited(
            f"{policy.quota} calls every {policy.window} s are allowed; wait {seconds} s", retry_after=seconds
        )
    return Standing(bucket.left, math.ceil(bucket.ends - now))


class Concurrency:
    """At most `most` calls at once: `with` it around each. The next raises `Overloaded` instead of waiting
    for an unknown time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.running = 0

    def __enter__(self) -> None:
        if self.running >= self._most:
            raise Overloaded(f"{self._most} calls are running already", retry_after=1)
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
