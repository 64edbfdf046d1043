"""`payment.checkout.create`: what may be ordered, and the answer with a link to pay."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from autopilots.ai_employee.checkouts import Order
from autopilots.ai_employee.fields import Amount, Currency, Email, HttpsUrl, Line
from autopilots.ai_employee.once import id_for
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.ai_employee.returns import CANCELLED, PAID
from autopilots.kit import Call, Meta

_Label = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_.-]+$")]
_Value = Annotated[str, Field(max_length=500)]


class CreateCheckout(Meta):
    """One thing at one price."""

    amount: Amount = Field(description="Price in minor units (cents), above 0.", examples=[4900])
    currency: Currency = Field(description="ISO 4217 code.", examples=["usd"])
    description: Line = Field(description="What is bought, as the customer reads it.")
    customer_email: Email | None = Field(None, description="Fills in the customer's address.")
    success_url: HttpsUrl | None = Field(None, description="Where the customer lands after paying.")
    cancel_url: HttpsUrl | None = Field(None, description="Where the customer lands after giving up.")
    metadata: dict[_Label, _Value] = Field(
        default_factory=dict, max_length=20, description="Words of your own, kept with the checkout."
    )


async def open_checkout(meta: CreateCheckout, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Open a checkout and return it. A repeat with the same idempotency key returns the same one."""
    home = call.parts.public_url
    order = Order(
        amount=meta.amount,
        currency=meta.currency,
        description=meta.description,
        success_url=meta.success_url or home + PAID,
        cancel_url=meta.cancel_url or home + CANCELLED,
        customer_email=meta.customer_email,
        metadata=meta.metadata,
    )
    checkout = await call.parts.checkouts.create(order, id_for(call, "checkout"))
    return {
        **asdict(checkout),
        "amount": order.amount,
        "currency": order.currency,
        "description": order.description,
        "customer_email": order.customer_email,
    }
