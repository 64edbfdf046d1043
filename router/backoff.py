"""When to try again: delays with full jitter, and what `Retry-After` asks for."""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from typing import NamedTuple

Dice = Callable[[], float]
"""A random number from 0 up to 1, as `random.random` gives them."""

LAST_CHANCE = 5.0
"""Seconds before a deadline after which nothing is begun again, and at which the last attempt is."""

_MOST_DIGITS = 18


class Backoff(NamedTuple):
    """The longest wait after the first failure, doubled after each further one, and never over `cap`."""

    first: float
    cap: float

    def ceiling(self, failures: int) -> float:
        """Return the longest wait after so many failures."""
        return min(self.cap, self.first * 2.0 ** min(failures - 1, 60))

    def delay(self, failures: int, dice: Dice) -> float:
        """Return a wait, each from 0 to the ceiling as likely: those that failed together come back apart."""
        return dice() * self.ceiling(failures)


def clamped(delay: float, asked: float | None, left: float) -> float | None:
    """Return the seconds to wait, None when there is no time for another attempt.

    `asked` is what `Retry-After` said: no less than that is waited, but that a last attempt is begun
    `LAST_CHANCE` before the deadline, which is `left` seconds away.
    """
    if left <= LAST_CHANCE:
        return None
    return min(max(delay, asked or 0.0), left - LAST_CHANCE)


def retry_after(value: bytes, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, None for what is none.

    It may be whole seconds or a date, `now` being epoch seconds; a date that is over asks for none.
    """
    text = value.strip()
    if text.isdigit():
        return float(text) if len(text) <= _MOST_DIGITS else None
    try:
        date = email.utils.parsedate_to_datetime(text.decode("ascii"))
        return max(date.timestamp() - now, 0.0) if date.tzinfo is not None else None
    except (ValueError, OverflowError, UnicodeDecodeError):
        return None
