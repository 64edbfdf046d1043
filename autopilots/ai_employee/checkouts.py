"""The `Checkouts` port and its adapters: Stripe, or a local record that takes no money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from autopilots.ai_employee.outside import OutsideDown, OutsideRefused
from infra.clock import Clock, rfc3339
from infra.table import Document, Table
from router.errors import AutopilotError, Conflict, Invalid, RateLimited, Stale

if TYPE_CHECKING:
    import stripe
    from stripe.params.checkout import SessionCreateParams

CHECKOUTS = "employee:checkout"
"""Partition of the local checkouts; the sort key is the checkout's id."""

_TIMES_100 = frozenset({"isk", "ugx"})
"""Currencies without a minor unit that Stripe nevertheless counts in hundredths."""

_FIELDS = {
    "unit_amount": "meta.amount",
    "currency": "meta.currency",
    "name": "meta.description",
    "customer_email": "meta.customer_email",
    "success_url": "meta.success_url",
    "cancel_url": "meta.cancel_url",
}
"""Our field for the last part of the parameter that Stripe complains about."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid: `amount` in minor units of `currency` (ISO 4217, lower case)."""

    amount: int
    currency: str
    description: str
    success_url: str
    cancel_url: str
    customer_email: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkout:
    """An open checkout. `url` is where the customer pays; None means that nobody can pay.

    `takes_money` is true only for real money: not for a test key, not for a local record.
    """

    id: str
    provider: str
    url: str | None
    takes_money: bool
    note: str
    created_at: str
    expires_at: str | None


class Checkouts(Protocol):
    """A payment provider.

    Raises `Invalid` for an order it does not take, `Conflict` for a key used with another order,
    `RateLimited`, `OutsideDown` and `OutsideRefused`.
    """

    provider: str
    """`stripe` or `local`."""

    async def create(self, order: Order, checkout_id: str) -> Checkout:
        """Open a checkout. `checkout_id` is our id of it: the same id never opens a second one."""
        ...


class LocalCheckouts:
    """Checkouts of an installation without a payment provider: records, and nobody can pay them."""

    provider = "local"

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def create(self, order: Order, checkout_id: str) -> Checkout:
        """Keep the order under its id. See `Checkouts.create`."""
        key = (CHECKOUTS, checkout_id)
        wanted = {**asdict(order), "metadata": dict(order.metadata)}
        document: Document = {"order": wanted, "created_at": rfc3339(self._clock())}
        try:
            await self._table.put(key, document, if_revision=0)
        except Stale:
            item = await self._table.get(key)
            if item is None or item.document["order"] != wanted:
                raise Conflict("this idempotency key was used for another checkout") from None
            document = item.document
        return Checkout(
            id=checkout_id,
            provider=self.provider,
            url=None,
            takes_money=False,
            note="No payment provider is configured: the order is recorded, no money can be taken.",
            created_at=document["created_at"],
            expires_at=None,
        )


class StripeCheckouts:
    """Checkouts at Stripe.

    `api_base` is another address of its API (tests, a proxy). `http_client` carries the requests; without
    one each call makes its own, so nothing outlives the event loop it was made in. Requests are not repeated
    here: the caller knows by the error's class whether to, and our id is Stripe's idempotency key.
    """

    provider = "stripe"

    def __init__(
        self,
        key: str,
        api_base: str | None = None,
        http_client: httpx.AsyncClient | None = None,
        *,
        timeout: float = 20.0,
    ) -> None:
        """`timeout` is in seconds and for clients made here."""
        self._key = key
        self._api_base = api_base
        self._http_client = http_client
        self._timeout = timeout

    async def create(self, order: Order, checkout_id: str) -> Checkout:
        """Open a checkout session. See `Checkouts.create`."""
        if self._http_client is not None:
            return await self._create(self._http_client, order, checkout_id)
        async with httpx.AsyncClient(timeout=self._timeout, trust_env=False) as client:
            return await self._create(client, order, checkout_id)

    async def _create(self, client: httpx.AsyncClient, order: Order, checkout_id: str) -> Checkout:
        import stripe

        api = stripe.StripeClient(
            self._key,
            base_addresses={"api": self._api_base} if self._api_base else {},
            http_client=_carrier(client),
            max_network_retries=0,
        )
        try:
            session = await api.v1.checkout.sessions.create_async(
                _session(order, checkout_id), {"idempotency_key": checkout_id}
            )
        except stripe.StripeError as error:
            raise _ours(error) from error
        note = "Real money." if session.livemode else "A test key is configured: no real money is taken."
        return Checkout(
            id=session.id,
            provider=self.provider,
            url=session.url,
            takes_money=session.livemode,
            note=note,
            created_at=rfc3339(session.created),
            expires_at=rfc3339(session.expires_at),
        )


def _session(order: Order, checkout_id: str) -> SessionCreateParams:
    """Return the order as Stripe's parameters."""
    factor = 100 if order.currency in _TIMES_100 else 1
    parameters: SessionCreateParams = {
        "mode": "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": order.currency,
                    "unit_amount": order.amount * factor,
                    "product_data": {"name": order.description},
                },
            }
        ],
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
        "client_reference_id": checkout_id,
        "metadata": dict(order.metadata),
    }
    if order.customer_email:
        parameters["customer_email"] = order.customer_email
    return parameters


def _carrier(client: httpx.AsyncClient) -> stripe.HTTPClient:
    """Return what lets the Stripe SDK send its requests through `client`."""
    import stripe

    class Carrier(stripe.HTTPClient):
        """The SDK's client over ours."""

        name = "httpx"

        async def request_async(
            self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
        ) -> tuple[bytes, int, Mapping[str, str]]:
            """Send one request, as the SDK asks."""
            try:
                answer = await client.request(method, url, headers=dict(headers), content=post_data)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failure = stripe.APIConnectionError(type(error).__name__)  # type: ignore[no-untyped-call]
                raise failure from error
            return answer.content, answer.status_code, answer.headers

    return Carrier()


def _ours(error: stripe.StripeError) -> AutopilotError:
    """Return Stripe's error as one of ours. Nothing that could hold our key is passed on."""
    import stripe

    if isinstance(error, stripe.IdempotencyError):
        return Conflict("this idempotency key was used for another checkout")
    if isinstance(error, stripe.CardError | stripe.InvalidRequestError):
        last = str(error.param or "").rstrip("]").rpartition("[")[2]
        return Invalid([(_FIELDS.get(last, "meta"), error.user_message or "Stripe does not take this order")])
    if isinstance(error, stripe.RateLimitError):
        return RateLimited("Stripe is limiting our calls")
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return OutsideRefused("Stripe refused our key")
    if isinstance(error, stripe.APIConnectionError):
        return OutsideDown(f"Stripe could not be reached: {error.user_message}")
    return OutsideDown(f"Stripe failed: HTTP {error.http_status}")
