"""How many calls may be made, and what answers say about that."""

from __future__ import annotations

import pytest

from infra.cloudflare.budget import CALLS, Budget, retry_after
from infra.cloudflare.failures import Throttled
from tests.fakes import FakeClock

RICH = {"ratelimit": '"default";r=1100;t=200', "ratelimit-policy": '"default";q=1200;w=300'}


@pytest.fixture
def budget(clock: FakeClock) -> Budget:
    """Give a budget on a clock that is moved by hand."""
    return Budget(clock)


def test_a_quarter_of_the_quota_is_ours(budget: Budget, clock: FakeClock) -> None:
    """300 calls in any 5 minutes; the next one is refused here, with how long it takes."""
    for _ in range(CALLS):
        budget.spend()
        clock.forward(0.1)
    assert budget.spent == CALLS
    with pytest.raises(
        Throttled, match=r"300 calls in 300 s are a quarter of the quota and are spent; .* 270 s"
    ):
        budget.spend()
    clock.forward(269.9)
    with pytest.raises(Throttled):
        budget.spend()
    clock.forward(0.2)
    budget.spend()
    assert budget.spent <= CALLS


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({}, 300),
        ({"retry-after": "Wed, 21 Oct 2026"}, 300),
        ({"retry-after": "9" * 9}, 3600),
    ],
)
def test_a_429_closes(budget: Budget, clock: FakeClock, headers: dict[str, str], seconds: float) -> None:
    """As long as it says, five minutes where it says nothing, an hour at most."""
    budget.heed(429, headers)
    clock.forward(seconds - 0.5)
    with pytest.raises(Throttled, match="Cloudflare asked to wait"):
        budget.spend()
    clock.forward(1)
    budget.spend()


@pytest.mark.parametrize(
    ("headers", "closed"),
    [
        (RICH, False),
        ({}, False),
        ({"ratelimit": "nonsense"}, False),
        ({"ratelimit": '"default";r=49;t=30'}, True),
        ({"ratelimit": '"default";r=50;t=30'}, False),
        ({"ratelimit": '"default";r=49;t=30', "ratelimit-policy": '"burst";q=1200;w=300'}, True),
        ({"ratelimit": '"default";r=49;t=30', "ratelimit-policy": '"burst";q=100;w=60'}, False),
        ({"ratelimit": '"default";r=9;t=30', "ratelimit-policy": '"burst";q=100;w=60'}, True),
        ({"ratelimit": '"default";r=500;t=30, "other";r=1;t=30'}, False),
    ],
)
def test_a_quota_that_is_nearly_used_up_closes(
    budget: Budget, clock: FakeClock, headers: dict[str, str], closed: bool
) -> None:
    """Below 50 calls, or a tenth of a small quota: what is left is for people in the dashboard."""
    budget.heed(200, headers)
    if closed:
        with pytest.raises(Throttled, match="calls of the quota are left"):
            budget.spend()
        clock.forward(31)
    budget.spend()


def test_without_a_time_a_low_quota_closes_for_a_minute(budget: Budget, clock: FakeClock) -> None:
    """And a shorter wait that comes later does not open it earlier."""
    budget.heed(200, {"ratelimit": '"default";r=1'})
    budget.heed(429, {"retry-after": "1"})
    clock.forward(59)
    with pytest.raises(Throttled):
        budget.spend()
    clock.forward(2)
    budget.spend()


def test_only_plain_seconds_are_taken() -> None:
    """A date, a negative number or other digits are no seconds."""
    assert retry_after({"retry-after": " 12 "}) == 12
    for text in ("", "-1", "1.5", "soon", "٣", "1" * 10):
        assert retry_after({"retry-after": text}) is None
