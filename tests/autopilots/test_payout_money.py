"""Money: whole units, the rounding, and the books that balance."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilots.payout_batch.ledger import Book, Unbalanced, posting, settle
from autopilots.payout_batch.money import CURRENCIES, MAX_AMOUNT, currency_of, share_of
from router.errors import Stale, StoreUnavailable


@pytest.mark.parametrize(
    ("amount", "rate_bps", "share"),
    [(10, 500, 0), (30, 500, 2), (50, 500, 2), (70, 500, 4), (11, 500, 1), (9, 500, 0), (99, 10_000, 99)],
)
def test_half_a_unit_goes_to_the_even_neighbour(amount: int, rate_bps: int, share: int) -> None:
    """Halves are rounded to even, everything else to the nearest."""
    assert share_of(amount, rate_bps) == share


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 10_000))
def test_the_share_is_the_exact_one_rounded_half_even(amount: int, rate_bps: int) -> None:
    """The integer arithmetic agrees with decimal arithmetic for every amount and rate."""
    exact = Decimal(amount) * rate_bps / 10_000
    assert share_of(amount, rate_bps) == int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))


def test_only_currencies_in_use_are_known() -> None:
    """Codes are taken in either case; a made-up one is refused."""
    assert currency_of("USD") == "usd"
    assert {"usd", "eur", "jpy", "gbp", "chf"} <= CURRENCIES
    with pytest.raises(ValueError, match="ISO 4217"):
        currency_of("abc")


def test_an_entry_that_does_not_balance_is_refused() -> None:
    """Lines that don't sum to zero never reach the books."""
    book = Book(affiliate_id="a", currency="usd")
    with pytest.raises(Unbalanced, match="sum to 1"):
        posting(book, 0, kind="payout", reference="p", at="", lines={"payable": 2, "cash": -1})


async def test_a_change_that_never_wins_gives_up() -> None:
    """A change that is always overtaken ends as a retryable error instead of trying for ever."""

    async def overtaken() -> None:
        raise Stale

    with pytest.raises(StoreUnavailable, match="simultaneous"):
        await settle(overtaken)
