"""Money: whole minor units of an ISO 4217 currency, and the one rounding there is."""

from __future__ import annotations

BPS = 10_000
"""Basis points in one whole: 250 of them are 2.5 percent."""

MAX_AMOUNT = 10**12
"""The largest amount taken at once, in minor units: sums of thousands stay exact in any JSON reader."""

_CODES = """
aed afn all amd aoa ars aud awg azn bam bbd bdt bhd bif bmd bnd bob brl bsd btn bwp byn bzd cad cdf
chf clp cny cop crc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gnf gtq
gyd hkd hnl htg huf idr ils inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd kzt lak lbp
lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr
pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek sgd shp sle sos srd ssp stn svc
syp szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd uyu uzs ves vnd vuv wst xaf xcd xcg xof xpf
yer zar zmw zwg
"""
CURRENCIES = frozenset(_CODES.split())


def currency_of(text: str) -> str:
    """Return a currency code in lower case. Raises `ValueError` for one that is not in use."""
    code = text.lower()
    if code not in CURRENCIES:
        raise ValueError(f"{text!r} is not an ISO 4217 currency in use")
    return code


def share_of(amount: int, rate_bps: int) -> int:
    """Return `rate_bps` basis points of `amount`, in whole minor units.

    Half a unit goes to the even neighbour (5 % of 10 is 0, of 30 is 2), so that over many sales neither
    side gains by the rounding.
    """
    whole, rest = divmod(amount * rate_bps, BPS)
    if rest * 2 > BPS or (rest * 2 == BPS and whole % 2 == 1):
        return whole + 1
    return whole
