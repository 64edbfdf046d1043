"""Proxy variables: nobody stands between the product and whom it calls, whatever the environment names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import BaseModel

from autopilots.ai_employee.checkouts import Order, StripeCheckouts
from autopilots.ai_employee.outside import OutsideDown
from infra.openai_model import OpenAiModel
from infra.outbound import Guard
from infra.pool import Pool
from infra.transport import GuardedTransport
from tests.infra.scripted import Scripted, ok, says, scripted

ORDER = Order(100, "usd", "Course", "https://a.example/paid", "https://a.example/cancelled")
COMPLETION = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"x":1}'}}
    ],
}  # fmt: skip


class Answer(BaseModel):
    """What the model is asked for."""

    x: int


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    """Give a proxy that every variable there is for one names."""
    async with scripted(says(ok(b"proxied"))) as one:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, one.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        yield one


async def test_a_client_that_reads_them_asks_the_proxy(proxy: Scripted) -> None:
    """The variables of these tests are ones that matter."""
    async with scripted(says(ok())) as server, httpx.AsyncClient() as careless:
        assert (await careless.get(server.url)).text == "proxied"
        assert (proxy.connections, server.connections) == (1, 0)


async def test_the_model_is_asked_directly(guard: Guard, proxy: Scripted) -> None:
    """The SDK's own client would ask the proxy; ours does not know of it."""
    pool = Pool(guard)
    async with scripted(says(ok(json.dumps(COMPLETION).encode()))) as server:
        model = OpenAiModel("m", "sk-test", f"{server.url}/v1", pool)
        assert (await model.ask("Say x.", "data", Answer)).x == 1
        assert len(server.requests) == 1
    pool.close()
    assert proxy.connections == 0


async def test_stripe_is_asked_directly(guard: Guard, proxy: Scripted) -> None:
    """As the product wires it, and as it is without a client of its own."""
    pool = Pool(guard)
    async with (
        scripted(says(ok(b"{}", status=b"500 X"))) as server,
        httpx.AsyncClient(transport=GuardedTransport(pool), trust_env=False) as client,
    ):
        for carrier in (client, None):
            with pytest.raises(OutsideDown, match="HTTP 500"):
                await StripeCheckouts("sk_test_1", server.url, carrier).create(ORDER, "chk_1")
        assert len(server.requests) == 2
    pool.close()
    assert proxy.connections == 0
