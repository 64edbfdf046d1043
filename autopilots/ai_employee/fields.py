"""The kinds of field that several capabilities share: addresses, single lines, links, money."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# C0 and C1 controls and the two Unicode line ends: whatever could start a new line in a header.
_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"

_CODES = """
aed afn all amd aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp byn bzd cad
cdf chf clp cny cop crc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gnf
gtq gyd hkd hnl htg huf idr ils inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd kzt lak
lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd
omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek sgd shp sle sos srd ssp stn
svc syp szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd uyu uzs ved ves vnd vuv wst xaf xcd xcg
xof xpf yer zar zmw zwg
"""
_ISO_4217 = frozenset(_CODES.split())
_NO_MINOR_UNIT = frozenset(
    (
        "bif",
        "clp",
        "djf",
        "gnf",
        "isk",
        "jpy",
        "kmf",
        "krw",
        "pyg",
        "rwf",
        "ugx",
        "vnd",
        "vuv",
        "xaf",
        "xof",
        "xpf",
    )
)
_THOUSANDTHS = frozenset(("bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"))


def email_address(text: str) -> str:
    """Return an address in the one form we keep: lower case, an international domain as punycode.

    The part before the `@` is lower-cased too: no mail provider tells people apart by it, and a CRM that
    does keeps everybody twice. Raises `ValueError` for anything that is not one plain address.
    """
    local, at, domain = text.strip().rpartition("@")
    if not at or len(text) > 254:
        raise ValueError("not an email address")
    try:
        domain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError("the domain of the email address is not valid") from None
    labels = domain.split(".")
    if len(local) > 64 or not _LOCAL.fullmatch(local.lower()):
        raise ValueError("the part before the @ of the email address is not valid")
    if len(labels) < 2 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the domain of the email address is not valid")
    return f"{local.lower()}@{domain}"


def currency_code(text: str) -> str:
    """Return an ISO 4217 code in lower case, or raise `ValueError` when no money has that name."""
    if text.lower() not in _ISO_4217:
        raise ValueError(f"{text!r} is not an ISO 4217 currency")
    return text.lower()


def money(amount: int, currency: str) -> str:
    """Return `amount` minor units as people read them: 4900 usd is `49.00 USD`, 4900 jpy `4,900 JPY`."""
    code = currency.lower()
    digits = 0 if code in _NO_MINOR_UNIT else 3 if code in _THOUSANDTHS else 2
    whole, rest = divmod(amount, 10**digits)
    fraction = f".{rest:0{digits}d}" if digits else ""
    return f"{whole:,}{fraction} {code.upper()}"


Email = Annotated[
    str,
    Field(min_length=3, max_length=254, json_schema_extra={"format": "email"}),
    AfterValidator(email_address),
]
"""One address, kept as `email_address` returns it."""

Line = Annotated[str, Field(min_length=1, max_length=200, pattern=_ONE_LINE)]
"""1 to 200 characters without any line end or other control character."""

Prose = Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"^[^\x00]*$")]
"""Text of several lines."""

WebUrl = Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s<>\"'\\\x00-\x1f]+$")]
"""A link people may follow."""

HttpsUrl = Annotated[str, Field(max_length=2048, pattern=r"^https://[^\s<>\"'\\\x00-\x1f]+$")]
"""A link a payment provider may send people to."""

Amount = Annotated[int, Field(ge=1, le=999_999_999_999)]
"""Money in minor units of its currency (cents)."""

Currency = Annotated[
    str, Field(min_length=3, max_length=3, pattern="^[A-Za-z]{3}$"), AfterValidator(currency_code)
]
"""An ISO 4217 code, kept in lower case."""

RecordId = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_-]+$")]
"""An id this autopilot gave out."""

TaskName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$")]
"""A task (`create_lead`) or a capability (`crm.lead.create`)."""
