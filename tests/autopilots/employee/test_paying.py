"""Checkouts: the local record, and the Stripe SDK against a server that checks what it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.checkouts import CHECKOUTS, StripeCheckouts
from infra.table.sqlite import SqliteTable
from tests.autopilots.employee.parts import employee_parts, send, wrong_fields
from tests.fakes import FakeClock

FEE = {"amount": 4900, "currency": "USD", "description": "Course fee"}
KEY = "sk_test_secret123"


async def test_local_checkout_says_no_money_can_be_taken(parts: EmployeeParts, table: SqliteTable) -> None:
    """Without Stripe the order is recorded and the result leaves no doubt about it."""
    result = await send(parts, "payment.checkout.create", FEE)
    assert (result["provider"], result["takes_money"], result["url"]) == ("local", False, None)
    assert "no money can be taken" in result["note"]
    assert (result["amount"], result["currency"]) == (4900, "usd")
    assert result["created_at"] == "2026-01-01T00:00:00.000Z"
    item = await table.get((CHECKOUTS, result["id"]))
    assert item is not None
    assert item.document["order"]["amount"] == 4900


async def test_local_checkout_is_made_once_per_key(parts: EmployeeParts, table: SqliteTable) -> None:
    """A repeat returns the same checkout; the key with another order is a conflict."""
    first = await send(parts, "payment.checkout.create", FEE, key="k")
    assert await send(parts, "payment.checkout.create", FEE, key="k") == first
    await send(parts, "payment.checkout.create", {**FEE, "amount": 1}, key="k", status=409)
    assert len((await table.range(CHECKOUTS)).items) == 1


class Stripe:
    """A stand-in for Stripe's API: checks the request as Stripe would, or gives the answer it is told to."""

    def __init__(self, status: int = 200, error: dict[str, Any] | None = None) -> None:
        self.status = status
        self.error = error
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        form = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        fields = {name: value for name, [value] in parse_qs(form).items()}
        self.requests.append((head[0], headers, fields))
        status, document = self.answer(head[0], headers, fields)
        payload = json.dumps(document).encode()
        lines = (f"HTTP/1.1 {status} x", "content-type: application/json", f"content-length: {len(payload)}")
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + payload)
        writer.close()

    def answer(
        self, line: str, headers: dict[str, str], fields: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Return status and body."""
        if self.error is not None:
            return self.status, {"error": self.error}
        wrong = [
            name
            for name, right in {
                "path": line == "POST /v1/checkout/sessions HTTP/1.1",
                "authorization": headers.get("authorization") == f"Bearer {KEY}",
                "idempotency-key": headers.get("idempotency-key", "") != "",
                "content-type": headers.get("content-type") == "application/x-www-form-urlencoded",
                "mode": fields.get("mode") == "payment",
                "quantity": fields.get("line_items[0][quantity]") == "1",
                "success_url": fields.get("success_url", "").startswith("http"),
                "amount": fields.get("line_items[0][price_data][unit_amount]", "").isdigit(),
            }.items()
            if not right
        ]
        if wrong:
            return 400, {"error": {"type": "invalid_request_error", "message": f"wrong: {wrong}"}}
        return 200, {
            "id": "cs_test_1",
            "object": "checkout.session",
            "url": "https://checkout.stripe.example/c/pay/cs_test_1",
            "livemode": False,
            "created": 1_767_225_600,
            "expires_at": 1_767_312_000,
        }


@asynccontextmanager
async def running(server: Stripe) -> AsyncIterator[str]:
    """Run the stand-in on a free loopback port and give its address."""
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def test_stripe_gets_the_order(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """Stripe is sent the order, our key and an idempotency key, and its checkout comes back."""
    server = Stripe()
    meta = {
        **FEE,
        "customer_email": "Ada@example.com",
        "success_url": "https://school.example/thanks",
        "metadata": {"course": "Logic"},
    }
    async with running(server) as address:
        parts = employee_parts(table, clock, tmp_path, checkouts=StripeCheckouts(KEY, address))
        result = await send(parts, "payment.checkout.create", meta, key="k")
        await send(parts, "payment.checkout.create", meta, key="k")
        await send(parts, "payment.checkout.create", meta, key="other")
    assert (result["id"], result["provider"]) == ("cs_test_1", "stripe")
    assert result["url"] == "https://checkout.stripe.example/c/pay/cs_test_1"
    assert result["takes_money"] is False
    assert "test key" in result["note"]
    assert (result["created_at"], result["expires_at"]) == (
        "2026-01-01T00:00:00.000Z",
        "2026-01-02T00:00:00.000Z",
    )
    _, _, fields = server.requests[0]
    assert fields["line_items[0][price_data][unit_amount]"] == "4900"
    assert fields["line_items[0][price_data][currency]"] == "usd"
    assert fields["line_items[0][price_data][product_data][name]"] == "Course fee"
    assert fields["customer_email"] == "ada@example.com"
    assert fields["metadata[course]"] == "Logic"
    assert fields["success_url"] == "https://school.example/thanks"
    assert fields["cancel_url"].startswith("http://router.test/")
    keys = [headers["idempotency-key"] for _, headers, _ in server.requests]
    assert keys[0] == keys[1] != keys[2]


async def test_stripe_counts_some_currencies_in_hundredths(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """Icelandic krónur have no minor unit, but Stripe wants hundredths; yen stay as they are."""
    server = Stripe()
    async with running(server) as address:
        parts = employee_parts(table, clock, tmp_path, checkouts=StripeCheckouts(KEY, address))
        result = await send(parts, "payment.checkout.create", {**FEE, "currency": "isk"})
        await send(parts, "payment.checkout.create", {**FEE, "currency": "jpy"})
    amounts = [fields["line_items[0][price_data][unit_amount]"] for _, _, fields in server.requests]
    assert amounts == ["490000", "4900"]
    assert result["amount"] == 4900


@pytest.mark.parametrize(
    ("status", "error", "expected", "field"),
    [
        (
            400,
            {
                "type": "invalid_request_error",
                "param": "line_items[0][price_data][unit_amount]",
                "message": "low",
            },
            422,
            "meta.amount",
        ),
        (
            400,
            {"type": "invalid_request_error", "param": "success_url", "message": "bad"},
            422,
            "meta.success_url",
        ),
        (400, {"type": "invalid_request_error", "message": "odd"}, 422, "meta"),
        (402, {"type": "card_error", "code": "card_declined", "message": "no"}, 422, "meta"),
        (400, {"type": "idempotency_error", "message": "other parameters"}, 409, None),
        (429, {"type": "invalid_request_error", "message": "slow down"}, 429, None),
    ],
)
async def test_stripe_refusals_of_an_order(
    table: SqliteTable,
    clock: FakeClock,
    tmp_path: Path,
    status: int,
    error: dict[str, Any],
    expected: int,
    field: str | None,
) -> None:
    """What Stripe has against the order names our field; a used key is a conflict; a limit is a limit."""
    async with running(Stripe(status, error)) as address:
        parts = employee_parts(table, clock, tmp_path, checkouts=StripeCheckouts(KEY, address))
        problem = await send(parts, "payment.checkout.create", FEE, status=expected)
    if field:
        assert wrong_fields(problem) == {field}


@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [
        (401, {"type": "invalid_request_error", "message": f"Invalid API Key provided: {KEY}"}, False),
        (403, {"type": "invalid_request_error", "message": "no permission"}, False),
        (500, {"type": "api_error", "message": "oops"}, True),
    ],
)
async def test_stripe_failures_say_whether_to_repeat(
    table: SqliteTable, clock: FakeClock, tmp_path: Path, status: int, error: dict[str, Any], retryable: bool
) -> None:
    """A refused key does not pass by itself, a failing Stripe may; our key is in no answer."""
    server = Stripe(status, error)
    async with running(server) as address:
        parts = employee_parts(table, clock, tmp_path, checkouts=StripeCheckouts(KEY, address))
        problem = await send(parts, "payment.checkout.create", FEE, status=502)
    assert problem["retryable"] is retryable
    assert KEY not in str(problem)
    assert len(server.requests) == 1


async def test_stripe_that_cannot_be_reached(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """No connection is a failure that may pass."""
    async with running(Stripe()) as address:
        pass
    parts = employee_parts(table, clock, tmp_path, checkouts=StripeCheckouts(KEY, address))
    assert (await send(parts, "payment.checkout.create", FEE, status=502))["retryable"] is True


async def test_stripe_goes_through_the_client_it_is_given(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """A client from the wiring, such as the guarded one, carries the requests and is left open."""
    server = Stripe()
    async with running(server) as address, httpx.AsyncClient(headers={"x-via": "guard"}) as client:
        checkouts = StripeCheckouts(KEY, address, client)
        parts = employee_parts(table, clock, tmp_path, checkouts=checkouts)
        await send(parts, "payment.checkout.create", FEE)
        assert not client.is_closed
    assert server.requests[0][1]["x-via"] == "guard"
