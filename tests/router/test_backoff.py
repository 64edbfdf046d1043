"""When to try again: how waits are spread, and what is made of `Retry-After`."""

from __future__ import annotations

import math
import random

import pytest

from router.backoff import LAST_CHANCE, Backoff, clamped, retry_after
from router.callbacks import CEILINGS
from router.turns import RETRIES

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""
KS_1_PERCENT = 1.628
"""What the distance times the root of the count stays below in 99 of 100 samples that are uniform."""


def distance_from_uniform(values: list[float], most: float) -> float:
    """Return the Kolmogorov-Smirnov distance of a sample from the uniform distribution on [0, most]."""
    count = len(values)
    return max(
        max((place + 1) / count - value / most, value / most - place / count)
        for place, value in enumerate(sorted(values))
    )


@pytest.mark.parametrize("failures", [1, 2, 5, 8, 9, 40])
def test_waits_are_uniform_from_zero_to_the_ceiling(failures: int) -> None:
    """E2: 10,000 delays pass the Kolmogorov-Smirnov test at p > 0.01, and none is over the ceiling."""
    dice = random.Random(failures).random
    ceiling = min(300.0, 2.0 * 2 ** (failures - 1))
    waits = [RETRIES.delay(failures, dice) for _ in range(10_000)]
    assert 0 <= min(waits) <= max(waits) < ceiling
    assert distance_from_uniform(waits, ceiling) * math.sqrt(len(waits)) < KS_1_PERCENT


def test_the_test_tells_other_spreads_apart() -> None:
    """Half a wait that is always there, as some call jitter, does not pass for uniform."""
    dice = random.Random(1).random
    waits = [2.0 + 2.0 * dice() for _ in range(10_000)]
    assert distance_from_uniform(waits, 4.0) * math.sqrt(len(waits)) > KS_1_PERCENT


def test_ceilings_double_and_end() -> None:
    """However often something failed, the wait has an end."""
    assert [Backoff(2, 300).ceiling(n) for n in (1, 2, 3, 8, 9, 10**6)] == [2, 4, 8, 256, 300, 300]


def test_calls_about_an_end_are_spread_over_a_day() -> None:
    """Ten calls; with the mean wait after each, the last one comes after about 24 hours."""
    assert len(CEILINGS) == 9
    assert sum(CEILINGS) / 2 == pytest.approx(86_400, rel=0.05)
    assert list(CEILINGS) == sorted(CEILINGS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b" 5 ", 5.0),
        (b"1000000000", 1e9),
        (b"9" * 18, float("9" * 18)),
        (b"9" * 19, None),
        (b"-5", None),
        (b"+5", None),
        (b"5.5", None),
        (b"5s", None),
        (b"", None),
        (b"soon", None),
        (b"\xb2", None),
        (b"\xff\xfe", None),
        (b"Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        (b"Thu, 01 Jan 2026 01:02:00 +0100", 120.0),
        (b"Thu, 01 Jan 2026 00:02:00", None),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (b"Wed, 99 Oct 2015 07:28:00 GMT", None),
        (b"Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_what_retry_after_may_be(value: bytes, seconds: float | None) -> None:
    """E4: whole seconds and dates are understood, one that is over as no wait; anything else is ignored."""
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("delay", "asked", "left", "wait"),
    [
        (2.0, None, 100.0, 2.0),
        (2.0, 0.0, 100.0, 2.0),
        (2.0, 5.0, 100.0, 5.0),
        (9.0, 5.0, 100.0, 9.0),
        (2.0, 1e9, 100.0, 95.0),
        (200.0, None, 100.0, 95.0),
        (2.0, None, 6.0, 1.0),
        (2.0, 0.0, LAST_CHANCE, None),
        (2.0, 1e9, LAST_CHANCE, None),
        (0.0, None, -1.0, None),
    ],
)
def test_a_wait_ends_before_the_deadline(
    delay: float, asked: float | None, left: float, wait: float | None
) -> None:
    """E4: no less than was asked for, but there is one last attempt in time; after that there is none."""
    assert clamped(delay, asked, left) == wait
