"""The payout autopilot: affiliates, commissions, batches and single transfers over a double-entry ledger.

Money moves in the ledger only; every result says so (`provider: "ledger"`). Amounts are whole minor units.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from autopilots.kit import Call, Meta, Parts, Pilot
from autopilots.payout_batch import affiliates, batch, commissions, statement, transfer
from autopilots.payout_batch.money import BPS, MAX_AMOUNT, currency_of
from autopilots.payout_batch.report import BUCKET
from infra.clock import rfc3339

__all__ = ["BatchRun", "Onboarding", "Sale", "StatementOf", "Transfer", "pilot"]

Result = dict[str, Any]

pilot: Pilot[Parts] = Pilot(
    "payout-batch",
    "Calculates commissions and pays affiliates, in a double-entry ledger",
    needs={"r2Buckets": [BUCKET]},
    tasks={
        "calculate_commission": "commissions.calculate",
        "onboard_affiliate": "payouts.affiliate.onboard",
    },
)

_DATE = r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}"
_TIME = r"[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"


def _cutoff(text: str) -> str:
    """Return a date or an instant as an instant in UTC; a date stands for the end of that day."""
    if re.fullmatch(_DATE, text):
        text += "T23:59:59.999Z"
    try:
        return rfc3339(datetime.datetime.fromisoformat(text.upper()).timestamp())
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None


Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=64)]
AffiliateId = Annotated[Id, Field(description="The affiliate's id")]
Amount = Annotated[int, Field(strict=True, ge=1, le=MAX_AMOUNT, description="Minor units, such as cents")]
Rate = Annotated[int, Field(strict=True, ge=0, le=BPS, description="Basis points: 1000 are 10 percent")]
Currency = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z]{3}$"),
    AfterValidator(currency_of),
    Field(description="ISO 4217 code, in either case", examples=["usd"]),
]


class Sale(Meta):
    """A sale that earns an affiliate a commission."""

    affiliate_id: AffiliateId
    sale_id: Annotated[Id, Field(description="The sale's id; it earns this affiliate one commission, ever")]
    amount: Amount
    currency: Currency
    rate_bps: Annotated[
        Rate | None, Field(description="Basis points of the sale; without it the affiliate's own rate")
    ] = None
    status: Annotated[
        Literal["approved", "pending"],
        Field(description="pending: not payable until the same call comes with approved"),
    ] = "approved"


class BatchRun(Meta):
    """A batch to run, or to run to its end."""

    cutoff_date: Annotated[
        str | None,
        StringConstraints(pattern=f"^{_DATE}({_TIME})?$", max_length=40),
        AfterValidator(lambda text: None if text is None else _cutoff(text)),
        Field(
            description="Inclusive: an RFC 3339 time, or a date for the end of that day (UTC); default now"
        ),
    ] = None
    currency: Annotated[Currency | None, Field(description="Only this currency; without it, all")] = None
    batch_id: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64),
        Field(description="Names the batch: the same id is the same batch, run again or resumed"),
    ] = None


class Transfer(Meta):
    """A payment to make at once, as an advance on commissions."""

    affiliate_id: AffiliateId
    amount: Amount
    currency: Currency
    reason: Annotated[str, Field(max_length=500, description="Why, for the records")] = ""
    reference: Annotated[
        Id | None, Field(description="Names the transfer: the same reference is paid once")
    ] = None


class PayoutMethod(Meta):
    """Where an affiliate's money would go; masked, as whole numbers are not kept here."""

    type: Annotated[Literal["bank_account", "card", "iban"], Field(description="Kind of account")]
    last4: Annotated[
        str | None,
        StringConstraints(pattern=r"^[0-9]{4}$"),
        Field(description="Last four digits of a bank account or card"),
    ] = None
    iban_masked: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Z]{2}[0-9]{2}\*{4,26}[0-9A-Z]{4}$"),
        Field(description="An IBAN with stars in the middle", examples=["DE89************3000"]),
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> PayoutMethod:
        needed = "iban_masked" if self.type == "iban" else "last4"
        if getattr(self, needed) is None:
            raise ValueError(f"{self.type} needs {needed}")
        return self


class Onboarding(Meta):
    """An affiliate who may be paid from now on."""

    affiliate_id: AffiliateId
    email: Annotated[
        str,
        StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254),
        Field(description="Where the affiliate is written to"),
    ]
    name: Annotated[str, Field(min_length=1, max_length=200, description="The payee's name")]
    payout_method: Annotated[PayoutMethod, Field(description="Where the money would go")]
    rate_bps: Annotated[
        Rate | None, Field(description="Basis points of a sale; default 1000, or as it was")
    ] = None
    advance_limit: Annotated[
        int | None,
        Field(
            strict=True,
            ge=0,
            le=MAX_AMOUNT,
            description="Minor units that may be paid ahead of commissions; default 50000, or as it was",
        ),
    ] = None


class StatementOf(Meta):
    """Whose statement to read."""

    affiliate_id: AffiliateId
    currency: Annotated[Currency | None, Field(description="Only this currency; without it, all")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Commissions and payments listed at most")] = 100


@pilot.capability("commissions.calculate")
async def calculate_commission(meta: Sale, call: Call[Parts]) -> Result:
    """Record the commission of a sale, once, and make it due when it is approved."""
    return await commissions.calculate(
        call.parts,
        affiliate_id=meta.affiliate_id,
        sale_id=meta.sale_id,
        amount=meta.amount,
        currency=meta.currency,
        rate_bps=meta.rate_bps,
        approved=meta.status == "approved",
    )


@pilot.capability("payouts.batch.run")
async def run_payout_batch(meta: BatchRun, call: Call[Parts]) -> Result:
    """Pay all commissions due up to a cutoff to onboarded affiliates, in the ledger, each once."""
    key = call.idempotency_key
    batch_id = meta.batch_id or (batch.id_from(key) if key else call.parts.new_id("batch"))
    return await batch.run(call.parts, batch_id, cutoff=meta.cutoff_date, currency=meta.currency or "")


@pilot.capability("payouts.transfer.single")
async def pay_affiliate_now(meta: Transfer, call: Call[Parts]) -> Result:
    """Pay one onboarded affiliate at once, in the ledger, as an advance that later batches recover."""
    return await transfer.transfer(
        call.parts,
        affiliate_id=meta.affiliate_id,
        amount=meta.amount,
        currency=meta.currency,
        reason=meta.reason,
        reference=meta.reference or "",
        idempotency_key=call.idempotency_key,
    )


@pilot.capability("payouts.affiliate.onboard")
async def onboard_affiliate(meta: Onboarding, call: Call[Parts]) -> Result:
    """Onboard an affiliate, or change the record of one: from then on payments are allowed."""
    return await affiliates.onboard(
        call.parts,
        meta.affiliate_id,
        email=meta.email,
        name=meta.name,
        payout_method=meta.payout_method.model_dump(exclude_none=True),
        rate_bps=meta.rate_bps,
        advance_limit=meta.advance_limit,
    )


@pilot.capability("payouts.statement.read", optional=True)
async def read_statement(meta: StatementOf, call: Call[Parts]) -> Result:
    """Read an affiliate's commissions, payments and balances from the ledger."""
    return await statement.statement(call.parts, meta.affiliate_id, meta.currency or "", meta.limit)
